/* tests/unit/delivery/outcome_test.c - what a reply means, and who is told, as a table. */
#include "relayd/delivery/outcome.h"

#include "unit/unit.h"

#define PROVEN   ENVELOPE_AUTHENTIC
#define OUTBOUND ENVELOPE_OUTBOUND
#define OURS     ENVELOPE_BOUNCE

static const struct {
	const char *what;
	struct outcome_case c;
	enum outcome outcome;
} rows[] = {
	{ "taken", { .code = 250 }, OUTCOME_SENT },
	{ "taken by the quarantine", { .code = 250, .quarantine = true }, OUTCOME_SENT },
	{ "taken, and its sender wants to know", { .code = 250, .wants_relayed = true },
	    OUTCOME_RELAYED },
	{ "held, and its sender wants to know",
	    { .code = 250, .wants_relayed = true, .quarantine = true }, OUTCOME_SENT },
	{ "no place in the transaction", { .code = 452, .left_over = true, .expired = true },
	    OUTCOME_LEFT },
	{ "251 will forward", { .code = 251 }, OUTCOME_SENT },
	{ "later", { .code = 450, .flags = PROVEN }, OUTCOME_DEFERRED },
	{ "service closing", { .code = 421, .flags = PROVEN }, OUTCOME_DEFERRED },
	{ "no reply", { .code = 0, .flags = PROVEN }, OUTCOME_DEFERRED },
	{ "a code that no server may send", { .code = 354, .flags = PROVEN }, OUTCOME_DEFERRED },
	{ "552 for 452", { .code = 552, .over_limit = true, .flags = PROVEN }, OUTCOME_DEFERRED },
	{ "no such user, proven sender", { .code = 550, .flags = PROVEN }, OUTCOME_BOUNCED },
	{ "no such user, our own user", { .code = 550, .flags = OUTBOUND }, OUTCOME_BOUNCED },
	{ "no such user, unproven sender", { .code = 550 }, OUTCOME_QUARANTINED },
	{ "552 mailbox full, unproven", { .code = 552 }, OUTCOME_QUARANTINED },
	{ "login wanted", { .code = 530, .flags = PROVEN }, OUTCOME_DEFERRED },
	{ "login refused", { .code = 535, .flags = PROVEN }, OUTCOME_DEFERRED },
	{ "login wanted, too old", { .code = 530, .expired = true, .flags = PROVEN },
	    OUTCOME_BOUNCED },
	{ "our bounce, the postmaster", { .code = 550, .to_postmaster = true, .flags = OURS },
	    OUTCOME_BOUNCED },
	{ "our bounce, in ASCII then", { .code = 554, .as_ascii = true, .flags = OURS },
	    OUTCOME_BOUNCED },
	{ "unproven null sender", { .code = 550, .to_nobody = true }, OUTCOME_QUARANTINED },
	{ "proven null sender", { .code = 550, .to_nobody = true, .flags = PROVEN }, OUTCOME_LOST },
	{ "our user wants no bounce", { .code = 550, .to_nobody = true, .flags = OUTBOUND },
	    OUTCOME_LOST },
	{ "a bounce of ours", { .code = 550, .to_nobody = true, .flags = OURS }, OUTCOME_LOST },
	{ "a bounce of ours, expired", { .code = 450, .expired = true, .flags = OURS },
	    OUTCOME_LOST },
	{ "expired, proven", { .code = 450, .expired = true, .flags = PROVEN }, OUTCOME_BOUNCED },
	{ "expired without a reply", { .expired = true, .flags = OUTBOUND }, OUTCOME_BOUNCED },
	{ "expired, unproven", { .code = 450, .expired = true }, OUTCOME_QUARANTINED },
	{ "sent at the last moment", { .code = 250, .expired = true }, OUTCOME_SENT },
	{ "the quarantine refuses", { .code = 550, .quarantine = true, .flags = PROVEN },
	    OUTCOME_DEFERRED },
	{ "the quarantine never expires",
	    { .quarantine = true, .expired = true, .flags = OUTBOUND }, OUTCOME_DEFERRED },
};

START_TEST(each_reply_has_its_outcome)
{
	ck_assert_str_eq(outcome_name(outcome_of(&rows[_i].c)), outcome_name(rows[_i].outcome));
}
END_TEST

static const struct {
	unsigned code;
	const char *enhanced, *command;
	size_t taken;
	bool over;
} limits[] = {
	{ 552, "", "RCPT", 1, true },
	{ 552, "5.5.3", "RCPT", 1, true },
	{ 552, "5.2.2", "RCPT", 1, false },
	{ 552, "", "RCPT", 0, false },
	{ 552, "", ".", 1, false },
	{ 550, "", "RCPT", 1, false },
	{ 452, "", "RCPT", 1, false },
};

START_TEST(too_many_recipients_is_told_from_a_full_mailbox)
{
	struct smtp_outcome reply = { .code = limits[_i].code, .command = limits[_i].command };

	strcpy(reply.enhanced, limits[_i].enhanced);
	ck_assert(outcome_over_limit(&reply, limits[_i].taken) == limits[_i].over);
}
END_TEST

static const struct {
	const char *reverse_path, *params;
	bool nobody;
} senders[] = {
	{ "a@example.test", "", false },
	{ "", "", true },
	{ "", "NOTIFY=FAILURE", true },
	{ "a@example.test", "NOTIFY=NEVER", true },
	{ "a@example.test", "notify=never", true },
	{ "a@example.test", "NOTIFY=SUCCESS,DELAY", true },
	{ "a@example.test", "NOTIFY=SUCCESS,FAILURE", false },
	{ "a@example.test", "ORCPT=rfc822;b@example.test NOTIFY=FAILURE", false },
	{ "a@example.test", "ORCPT=rfc822;b@example.test", false },
};

START_TEST(nobody_is_told_at_a_null_path_or_by_notify)
{
	struct envelope env = { .reverse_path = slice_str(senders[_i].reverse_path) };

	ck_assert(outcome_to_nobody(&env, slice_str(senders[_i].params)) == senders[_i].nobody);
}
END_TEST

static const struct {
	const char *reverse_path, *params;
	uint32_t flags;
	unsigned caps;
	bool wants;
} successes[] = {
	{ "a@example.test", "NOTIFY=SUCCESS", PROVEN, 0, true },
	{ "a@example.test", "NOTIFY=FAILURE,success", OUTBOUND, SMTP_CAP_PIPELINING, true },
	{ "a@example.test", "NOTIFY=SUCCESS", PROVEN, SMTP_CAP_DSN, false },
	{ "a@example.test", "NOTIFY=SUCCESS", 0, 0, false },
	{ "", "NOTIFY=SUCCESS", PROVEN, 0, false },
	{ "a@example.test", "NOTIFY=SUCCESS", PROVEN | OURS, 0, false },
	{ "a@example.test", "NOTIFY=FAILURE", PROVEN, 0, false },
	{ "a@example.test", "", PROVEN, 0, false },
};

START_TEST(a_proven_sender_may_ask_for_success)
{
	struct envelope env = { .reverse_path = slice_str(successes[_i].reverse_path),
		.flags = successes[_i].flags };

	ck_assert(outcome_wants_relayed(&env, slice_str(successes[_i].params),
		      successes[_i].caps) == successes[_i].wants);
}
END_TEST

static const struct {
	unsigned code;
	const char *enhanced;
	bool expired;
	const char *status;
} statuses[] = {
	{ 550, "5.1.1", false, "5.1.1" },
	{ 550, "", false, "5.0.0" },
	{ 550, "4.2.1", false, "5.0.0" }, /* of another class than the code */
	{ 450, "5.1.1", true, "4.4.7" },
	{ 0, "4.4.1", false, "4.4.1" },
	{ 450, "4.2.0", true, "4.2.0" },
	{ 450, "", true, "4.4.7" },
	{ 0, "", true, "4.4.7" },
	{ 0, "", false, "4.0.0" },
	{ 250, "", false, "2.0.0" },
};

START_TEST(a_report_always_has_a_status)
{
	struct slice s = outcome_status(
	    statuses[_i].code, slice_str(statuses[_i].enhanced), statuses[_i].expired);

	ck_assert(slice_eq(s, slice_str(statuses[_i].status)));
}
END_TEST

static const struct {
	unsigned code;
	const char *enhanced, *text, *command;
	size_t taken;
	enum outcome_next next;
	uint32_t delay_s;
} advices[] = {
	{ 450, "4.2.0", "mailbox busy", "RCPT", 0, OUTCOME_NEXT_BY_SCHEDULE, 0 },
	{ 450, "4.7.1", "try later", "RCPT", 0, OUTCOME_NEXT_SOON, OUTCOME_SOON_S },
	{ 451, "4.7.1", "", "RCPT", 0, OUTCOME_NEXT_SOON, OUTCOME_SOON_S },
	{ 450, "4.2.0", "Greylisted, see http://x.test/", "RCPT", 0, OUTCOME_NEXT_SOON, 300 },
	{ 451, "", "you are GREYLISTED for 60 seconds", ".", 0, OUTCOME_NEXT_SOON, 65 },
	{ 450, "4.7.1", "graylisted, retry in 5 minutes", "RCPT", 0, OUTCOME_NEXT_SOON, 305 },
	{ 450, "4.7.1", "greylisted for 2 s, or 1 second", "RCPT", 0, OUTCOME_NEXT_SOON, 10 },
	{ 450, "4.7.1", "wait 1440 minutes", "RCPT", 0, OUTCOME_NEXT_SOON, 900 },
	{ 450, "4.7.10", "x", "RCPT", 0, OUTCOME_NEXT_SOON, 300 },
	{ 421, "4.3.2", "going down", NULL, 0, OUTCOME_NEXT_HOST, 0 },
	{ 421, "", "too many", "MAIL", 0, OUTCOME_NEXT_HOST, 0 },
	{ 451, "4.3.0", "queue file write error", ".", 0, OUTCOME_NEXT_HOST, 0 },
	{ 452, "4.3.1", "disk full", "MAIL", 0, OUTCOME_NEXT_HOST, 0 },
	{ 452, "4.5.3", "too many recipients", "RCPT", 5, OUTCOME_NEXT_AT_ONCE, 0 },
	{ 452, "4.5.3", "too many recipients", "RCPT", 0, OUTCOME_NEXT_BY_SCHEDULE, 0 },
	{ 552, "", "too many", "RCPT", 1, OUTCOME_NEXT_AT_ONCE, 0 },
	{ 0, "", "greylisted", NULL, 0, OUTCOME_NEXT_BY_SCHEDULE, 0 },
};

START_TEST(a_deferral_says_what_comes_next)
{
	struct outcome_advice a = outcome_advice(advices[_i].code, slice_str(advices[_i].enhanced),
	    slice_str(advices[_i].text), advices[_i].command, advices[_i].taken);

	ck_assert_int_eq(a.next, advices[_i].next);
	ck_assert_uint_eq(a.delay_s, advices[_i].delay_s);
}
END_TEST

static const struct {
	const char *path, *params;
	uint32_t flags;
	bool warns;
} warned[] = {
	{ "a@b.test", "", ENVELOPE_OUTBOUND, true },
	{ "a@b.test", "", ENVELOPE_AUTHENTIC, true },
	{ "a@b.test", "", 0, false }, /* who knows whose address it is */
	{ "", "", ENVELOPE_OUTBOUND, false },
	{ "a@b.test", "", ENVELOPE_OUTBOUND | ENVELOPE_BOUNCE, false },
	{ "a@b.test", "NOTIFY=FAILURE,DELAY", ENVELOPE_OUTBOUND, true },
	{ "a@b.test", "NOTIFY=FAILURE", ENVELOPE_OUTBOUND, false },
	{ "a@b.test", "NOTIFY=NEVER", ENVELOPE_OUTBOUND, false },
};

START_TEST(a_warning_goes_where_it_is_wanted)
{
	struct envelope env = { .reverse_path = slice_str(warned[_i].path),
		.flags = warned[_i].flags };

	ck_assert_int_eq(outcome_warns(&env, slice_str(warned[_i].params)), warned[_i].warns);
}
END_TEST

UNIT_SUITE(delivery_outcome)
{
	UNIT_ROWS(a_deferral_says_what_comes_next, advices);
	UNIT_ROWS(a_warning_goes_where_it_is_wanted, warned);
	UNIT_ROWS(each_reply_has_its_outcome, rows);
	UNIT_ROWS(too_many_recipients_is_told_from_a_full_mailbox, limits);
	UNIT_ROWS(nobody_is_told_at_a_null_path_or_by_notify, senders);
	UNIT_ROWS(a_proven_sender_may_ask_for_success, successes);
	UNIT_ROWS(a_report_always_has_a_status, statuses);
}

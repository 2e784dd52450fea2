/* tests/unit/filters/ratelimit_test.c - what is counted, when, and what is done over the limit. */
#include "filters/builtin.h"
#include "unit/filters/canned.h"
#include "unit/unit.h"

#define OPTIONS_MAX 6

static const struct row {
	struct canned_option options[OPTIONS_MAX];
	const char *client, *sender;
	enum filter_stage stage; /* where it counts */
	const char *key;
	uint64_t count;
	uint32_t period_s;
	bool accepted;
	enum filter_verdict verdict;
} rows[] = {
	{ { { "key", "client-ip" }, { "rate", "100/1m" } }, "192.0.2.7", "a@b.test", FILTER_MAIL,
	    "client-ip=192.0.2.7", 100, 60, false, FILTER_DEFER },
	{ { { "key", "client-ip" }, { "rate", "5/1h" }, { "action", "reject" } },
	    "2001:db8:1:2:3::4", "a@b.test", FILTER_MAIL, "client-ip=2001:db8:1:2::/64", 5, 3600,
	    false, FILTER_REJECT },
	{ { { "key", "sender" }, { "rate", "20/1d" }, { "count", "accepted" } }, "192.0.2.7",
	    "Alice@B.Test", FILTER_MAIL, "sender=alice@b.test", 20, 86400, true, FILTER_DEFER },
	{ { { "key", "sender" }, { "rate", "1/30s" }, { "count", "attempts" } }, "192.0.2.7", "",
	    FILTER_MAIL, "sender=<>", 1, 30, false, FILTER_DEFER },
	{ { { "key", "sender" }, { "key", "recipient" }, { "rate", "20/1h" },
	      { "action", "quarantine" } },
	    "192.0.2.7", "a@b.test", FILTER_RCPT, "sender=a@b.test recipient=bob@example.test", 20,
	    3600, false, FILTER_QUARANTINE },
	{ { { "key", "recipient" }, { "key", "client-ip" }, { "rate", "7/2m" } }, "192.0.2.7",
	    "a@b.test", FILTER_RCPT, "client-ip=192.0.2.7 recipient=bob@example.test", 7, 120,
	    false, FILTER_DEFER },
};

/* Ways to write bob@example.test, and one who is not bob. */
static const struct spelling {
	const char *forward_path, *key;
} spellings[] = {
	{ "bob@EXAMPLE.test", "recipient=bob@example.test" },
	{ "\"bob\"@example.test", "recipient=bob@example.test" },
	{ "\"b\\ob\"@example.test", "recipient=bob@example.test" },
	{ "\"b\\\"o@b\"@example.test", "recipient=b\"o@b@example.test" },
};

static void *
configure(const struct canned_option *options)
{
	static struct canned_config cc;
	void *set = NULL;
	size_t n = 0;

	while (n < OPTIONS_MAX && options[n].option != NULL)
		n++;
	canned_config(&cc, "ratelimit", options, n);
	ck_assert_int_eq(canned_configure(&cc, &filter_ratelimit, &set), 0);
	return set;
}

static void
meet(struct canned *can, const struct row *r, enum filter_stage stage)
{
	static const struct slice bob = { "Bob@example.test", 16 };

	canned_init(can);
	canned_client(can, r->client);
	can->stage = stage;
	can->envelope.reverse_path = slice_str(r->sender);
	can->envelope.forward_paths = &bob;
	can->envelope.n_forward_paths = stage == FILTER_RCPT;
}

START_TEST(one_is_taken_at_the_stage_that_knows_the_key)
{
	const struct row *r = &rows[_i];
	void *set = configure(r->options);
	struct canned can;

	meet(&can, r, r->stage);
	can.reserve = 1;
	ck_assert_int_eq(canned_run(&can, &filter_ratelimit, set), FILTER_DONE);
	ck_assert_uint_eq(can.n_limits, 1);
	ck_assert_str_eq(can.limits[0].key, r->key);
	ck_assert_uint_eq(can.limits[0].count, r->count);
	ck_assert_uint_eq(can.limits[0].period_s, r->period_s);
	ck_assert(can.limits[0].count_accepted == r->accepted);
	ck_assert_uint_eq(can.n_verdicts, 0);
	canned_fini(&can);
	filter_ratelimit.release(set);
}
END_TEST

START_TEST(a_recipient_is_not_another_by_how_it_is_written)
{
	static const struct canned_option options[OPTIONS_MAX] = { { "key", "recipient" },
		{ "rate", "7/2m" } };
	struct slice path = slice_str(spellings[_i].forward_path);
	void *set = configure(options);
	struct canned can;

	meet(&can, &rows[0], FILTER_RCPT);
	can.envelope.forward_paths = &path;
	can.reserve = 1;
	ck_assert_int_eq(canned_run(&can, &filter_ratelimit, set), FILTER_DONE);
	ck_assert_str_eq(can.limits[0].key, spellings[_i].key);
	canned_fini(&can);
	filter_ratelimit.release(set);
}
END_TEST

START_TEST(none_is_taken_at_the_other_stage)
{
	const struct row *r = &rows[_i];
	void *set = configure(r->options);
	struct canned can;

	meet(&can, r, r->stage == FILTER_MAIL ? FILTER_RCPT : FILTER_MAIL);
	ck_assert_int_eq(canned_run(&can, &filter_ratelimit, set), FILTER_DONE);
	ck_assert_uint_eq(can.n_limits, 0);
	canned_fini(&can);
	filter_ratelimit.release(set);
}
END_TEST

START_TEST(over_the_limit_its_action_is_the_verdict)
{
	const struct row *r = &rows[_i];
	void *set = configure(r->options);
	struct canned can;

	meet(&can, r, r->stage);
	can.reserve = 0;
	ck_assert_int_eq(canned_run(&can, &filter_ratelimit, set), FILTER_DONE);
	ck_assert_uint_eq(can.n_verdicts, 1);
	ck_assert_int_eq(can.verdict, r->verdict);
	ck_assert_ptr_nonnull(
	    strstr(can.text, r->options[1].option[0] == 'r' ? r->options[1].value : "over "));
	canned_fini(&can);
	filter_ratelimit.release(set);
}
END_TEST

START_TEST(a_store_that_fails_is_an_error)
{
	void *set = configure(rows[0].options);
	struct canned can;

	meet(&can, &rows[0], FILTER_MAIL);
	can.reserve = -2;
	ck_assert_int_eq(canned_run(&can, &filter_ratelimit, set), FILTER_ERROR);
	canned_fini(&can);
	filter_ratelimit.release(set);
}
END_TEST

START_TEST(a_very_long_sender_is_cut_not_overrun)
{
	char sender[5000];
	struct row r = rows[2];
	void *set = configure(r.options);
	struct canned can;

	memset(sender, 'A', sizeof(sender) - 1);
	sender[sizeof(sender) - 1] = '\0';
	r.sender = sender;
	meet(&can, &r, FILTER_MAIL);
	can.reserve = 1;
	ck_assert_int_eq(canned_run(&can, &filter_ratelimit, set), FILTER_DONE);
	ck_assert_uint_lt(strlen(can.limits[0].key), 400);
	canned_fini(&can);
	filter_ratelimit.release(set);
}
END_TEST

static const struct {
	struct canned_option options[3];
} refused[] = {
	{ { { "rate", "5/1m" } } },
	{ { { "key", "sender" } } },
	{ { { "key", "sender" }, { "rate", "5" } } },
	{ { { "key", "sender" }, { "rate", "/1m" } } },
	{ { { "key", "sender" }, { "rate", "5/" } } },
	{ { { "key", "sender" }, { "rate", "5/0s" } } },
	{ { { "key", "sender" }, { "rate", "-5/1m" } } },
	{ { { "key", "sender" }, { "rate", "99999999999/1m" } } },
	{ { { "key", "asn" }, { "rate", "5/1m" } } },
	{ { { "key", "sender" }, { "rate", "5/1m" }, { "action", "accept" } } },
	{ { { "key", "sender" }, { "rate", "5/1m" }, { "count", "all" } } },
};

START_TEST(what_cannot_be_counted_is_refused)
{
	struct canned_config cc;
	void *set = NULL;
	size_t n = 0;

	while (n < 3 && refused[_i].options[n].option != NULL)
		n++;
	canned_config(&cc, "ratelimit", refused[_i].options, n);
	ck_assert_int_eq(canned_configure(&cc, &filter_ratelimit, &set), -1);
}
END_TEST

UNIT_SUITE(filter_ratelimit)
{
	UNIT_ROWS(one_is_taken_at_the_stage_that_knows_the_key, rows);
	UNIT_ROWS(a_recipient_is_not_another_by_how_it_is_written, spellings);
	UNIT_ROWS(none_is_taken_at_the_other_stage, rows);
	UNIT_ROWS(over_the_limit_its_action_is_the_verdict, rows);
	UNIT_TEST(a_store_that_fails_is_an_error);
	UNIT_TEST(a_very_long_sender_is_cut_not_overrun);
	UNIT_ROWS(what_cannot_be_counted_is_refused, refused);
}

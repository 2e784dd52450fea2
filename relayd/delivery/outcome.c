/* relayd/delivery/outcome.c - the table of what a reply means, and who is told. */
#include "relayd/delivery/outcome.h"

#include "relayd/smtp/param.h"

static const char *const names[] = {
	[OUTCOME_SENT] = "sent",
	[OUTCOME_DEFERRED] = "deferred",
	[OUTCOME_BOUNCED] = "bounced",
	[OUTCOME_QUARANTINED] = "quarantined",
	[OUTCOME_LOST] = "lost",
	[OUTCOME_DUPLICATE] = "duplicate",
	[OUTCOME_DROPPED] = "dropped",
	[OUTCOME_RELAYED] = "relayed",
	[OUTCOME_LEFT] = "left",
};

const char *
outcome_name(enum outcome outcome)
{
	return (size_t)outcome < ARRAY_LEN(names) ? names[outcome] : "unknown";
}

/* What replies mean beyond their first digit; the first row that fits counts.  530 to 538 are about
 * us and not the recipient: the admin has to mend it, and mail waits for that (RFC 4954 section 6,
 * RFC 3207 section 4). */
static const struct rule {
	unsigned code;
	const char *enhanced; /* that begins so; "": any or none */
	const char *command;  /* NULL: any */
	const char *word;     /* in the text, any case; NULL: whatever it says */
	enum outcome_next next;
	bool passes; /* although it is a 5xx */
} rules[] = {
	{ 421, "", NULL, NULL, OUTCOME_NEXT_HOST, false },
	{ 450, "", NULL, "greylist", OUTCOME_NEXT_SOON, false },
	{ 451, "", NULL, "greylist", OUTCOME_NEXT_SOON, false },
	{ 450, "", NULL, "graylist", OUTCOME_NEXT_SOON, false },
	{ 451, "", NULL, "graylist", OUTCOME_NEXT_SOON, false },
	{ 450, "4.7.1", NULL, NULL, OUTCOME_NEXT_SOON, false },
	{ 451, "4.7.1", NULL, NULL, OUTCOME_NEXT_SOON, false },
	{ 451, "4.3.", NULL, NULL, OUTCOME_NEXT_HOST, false },
	{ 452, "4.3.1", NULL, NULL, OUTCOME_NEXT_HOST, false },
	{ 452, "", "RCPT", NULL, OUTCOME_NEXT_AT_ONCE, false },
	{ 552, "", "RCPT", NULL, OUTCOME_NEXT_AT_ONCE, false },
	{ 530, "", NULL, NULL, OUTCOME_NEXT_BY_SCHEDULE, true },
	{ 534, "", NULL, NULL, OUTCOME_NEXT_BY_SCHEDULE, true },
	{ 535, "", NULL, NULL, OUTCOME_NEXT_BY_SCHEDULE, true },
	{ 538, "", NULL, NULL, OUTCOME_NEXT_BY_SCHEDULE, true },
};

static bool
has_word(struct slice text, const char *word)
{
	size_t len = strlen(word);

	for (size_t i = 0; i + len <= text.len; i++)
		if (slice_ieq(slice_head(slice_drop(text, i), len), slice_of(word, len)))
			return true;
	return false;
}

static bool
fits(const struct rule *r, unsigned code, struct slice enhanced, struct slice text,
    const char *command)
{
	if (r->code != code || !slice_starts(enhanced, slice_str(r->enhanced)))
		return false;
	if (r->command != NULL && (command == NULL || strcmp(r->command, command) != 0))
		return false;
	return r->word == NULL || has_word(text, r->word);
}

/* "for 300 seconds", "in 5 minutes": the first number that a unit follows; 0: there is none. */
static uint32_t
named_delay_s(struct slice text)
{
	for (; text.len > 0; text = slice_drop(text, 1)) {
		size_t n = 0;
		uint64_t value;
		struct slice unit;

		while (n < text.len && text.p[n] >= '0' && text.p[n] <= '9')
			n++;
		if (n == 0)
			continue;
		unit = slice_trim(slice_drop(text, n));
		if (slice_u64(slice_head(text, n), 86400, &value) &&
		    slice_istarts(unit, SLICE("sec")))
			return (uint32_t)value;
		if (slice_u64(slice_head(text, n), 1440, &value) &&
		    slice_istarts(unit, SLICE("min")))
			return (uint32_t)value * 60;
		text = slice_drop(text, n - 1);
	}
	return 0;
}

/* A moment longer than they said: clocks differ. */
static uint32_t
soon_s(struct slice text)
{
	uint32_t said = named_delay_s(text);

	if (said == 0)
		return OUTCOME_SOON_S;
	said += 5;
	return said < OUTCOME_SOON_MIN_S   ? OUTCOME_SOON_MIN_S
	       : said > OUTCOME_SOON_MAX_S ? OUTCOME_SOON_MAX_S
					   : said;
}

struct outcome_advice
outcome_advice(
    unsigned code, struct slice enhanced, struct slice text, const char *command, size_t n_taken)
{
	struct outcome_advice advice = { OUTCOME_NEXT_BY_SCHEDULE, 0 };

	for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
		if (!fits(&rules[i], code, enhanced, text, command))
			continue;
		advice.next = rules[i].next;
		if (advice.next == OUTCOME_NEXT_AT_ONCE && n_taken == 0)
			advice.next = OUTCOME_NEXT_BY_SCHEDULE; /* it would be refused again */
		if (advice.next == OUTCOME_NEXT_SOON)
			advice.delay_s = soon_s(text);
		break;
	}
	return advice;
}

static bool
passes(unsigned code)
{
	for (size_t i = 0; i < ARRAY_LEN(rules); i++)
		if (rules[i].code == code && rules[i].passes)
			return true;
	return false;
}

/* No reply to a dot, and a code that no server may send, are taken as trouble that passes. */
static bool
is_permanent(const struct outcome_case *c)
{
	return c->code >= 500 && c->code < 600 && !c->over_limit && !passes(c->code);
}

/* It will never arrive.  Outside mail whose sender did not prove himself gets no bounce, which
 * might go to a victim (DESIGN.md section 2): the admin sees it in the quarantine instead. */
static enum outcome
failed(const struct outcome_case *c)
{
	if ((c->flags & ENVELOPE_BOUNCE) != 0)
		return c->to_postmaster || c->as_ascii ? OUTCOME_BOUNCED : OUTCOME_LOST;
	if ((c->flags & (ENVELOPE_OUTBOUND | ENVELOPE_AUTHENTIC)) == 0)
		return OUTCOME_QUARANTINED;
	return c->to_nobody ? OUTCOME_LOST : OUTCOME_BOUNCED;
}

enum outcome
outcome_of(const struct outcome_case *c)
{
	if (c->left_over)
		return OUTCOME_LEFT;
	if (c->code >= 200 && c->code < 300)
		return c->wants_relayed && !c->quarantine ? OUTCOME_RELAYED : OUTCOME_SENT;
	if (c->quarantine)
		return OUTCOME_DEFERRED;
	if (is_permanent(c) || c->expired)
		return failed(c);
	return OUTCOME_DEFERRED;
}

bool
outcome_over_limit(const struct smtp_outcome *reply, size_t n_taken)
{
	return reply->code == 552 && n_taken > 0 && reply->command != NULL &&
	       strcmp(reply->command, "RCPT") == 0 &&
	       (reply->enhanced[0] == '\0' || strcmp(reply->enhanced, "5.5.3") == 0);
}

/* Whether a NOTIFY value, a list or NEVER, has the word. */
static bool
notify_has(struct slice value, struct slice wanted)
{
	while (value.len > 0) {
		struct slice word = slice_until(value, ',');

		if (slice_ieq(word, wanted))
			return true;
		value = slice_drop(value, word.len + 1);
	}
	return false;
}

/* It is asked for; without NOTIFY it is (RFC 3461 section 4.1). */
static bool
wants(struct slice rcpt_params, struct slice what)
{
	struct slice name, value;

	while (smtp_param_next(&rcpt_params, &name, &value) == SMTP_PARAM_ONE)
		if (slice_ieq(name, SLICE("NOTIFY")))
			return notify_has(value, what);
	return true;
}

bool
outcome_to_nobody(const struct envelope *env, struct slice rcpt_params)
{
	return env->reverse_path.len == 0 || !wants(rcpt_params, SLICE("FAILURE"));
}

bool
outcome_warns(const struct envelope *env, struct slice rcpt_params)
{
	return env->reverse_path.len > 0 && (env->flags & ENVELOPE_BOUNCE) == 0 &&
	       (env->flags & (ENVELOPE_OUTBOUND | ENVELOPE_AUTHENTIC)) != 0 &&
	       wants(rcpt_params, SLICE("DELAY"));
}

bool
outcome_wants_relayed(const struct envelope *env, struct slice rcpt_params, unsigned caps)
{
	struct slice name, value;

	if (env->reverse_path.len == 0 || (caps & SMTP_CAP_DSN) != 0 ||
	    (env->flags & ENVELOPE_BOUNCE) != 0 ||
	    (env->flags & (ENVELOPE_OUTBOUND | ENVELOPE_AUTHENTIC)) == 0)
		return false;
	while (smtp_param_next(&rcpt_params, &name, &value) == SMTP_PARAM_ONE)
		if (slice_ieq(name, SLICE("NOTIFY")))
			return notify_has(value, SLICE("SUCCESS"));
	return false;
}

struct slice
outcome_status(unsigned code, struct slice enhanced, bool expired)
{
	/* One of another class than its code (RFC 2034 section 4) is not believed. */
	if (enhanced.len > 0 && (code == 0 || enhanced.p[0] == (char)('0' + code / 100)))
		return enhanced;
	if (code >= 500)
		return SLICE("5.0.0");
	if (expired)
		return SLICE("4.4.7");
	return code >= 200 && code < 300 ? SLICE("2.0.0") : SLICE("4.0.0");
}

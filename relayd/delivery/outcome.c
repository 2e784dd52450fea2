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

/* No reply to a dot, and a code that no server may send, are taken as trouble that passes. */
static bool
is_permanent(const struct outcome_case *c)
{
	return c->code >= 500 && c->code < 600 && !c->over_limit;
}

/* It will never arrive.  Outside mail whose sender did not prove himself gets no bounce, which
 * might go to a victim (DESIGN.md section 2): the admin sees it in the quarantine instead. */
static enum outcome
failed(const struct outcome_case *c)
{
	if ((c->flags & ENVELOPE_BOUNCE) != 0)
		return OUTCOME_LOST;
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

bool
outcome_to_nobody(const struct envelope *env, struct slice rcpt_params)
{
	struct slice name, value;

	if (env->reverse_path.len == 0)
		return true;
	while (smtp_param_next(&rcpt_params, &name, &value) == SMTP_PARAM_ONE)
		if (slice_ieq(name, SLICE("NOTIFY")))
			return !notify_has(value, SLICE("FAILURE"));
	return false;
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
	if (enhanced.len > 0)
		return enhanced;
	if (code >= 500)
		return SLICE("5.0.0");
	if (expired)
		return SLICE("4.4.7");
	return code >= 200 && code < 300 ? SLICE("2.0.0") : SLICE("4.0.0");
}

/* filters/spf/spf.c - the filter "spf": what RFC 7208 says about HELO and MAIL FROM, as scores.
 *
 * Runs after MAIL.  Two identities are checked (section 2.3 and 2.4): the reverse-path decides;
 * HELO alone can only add to it, and stands in for the null reverse-path.  Each result is worth a
 * score, or "reject".  A temperror is FILTER_ERROR unless it was given a score.
 */
#include "filters/builtin.h"
#include "filters/spf/check.h"

#include <stdio.h>
#include <stdlib.h>

#define SENDER_BYTES_MAX 512 /* over RFC 5321 section 4.5.3.1.3 */

/* What a result of one of the identities leads to. */
struct action {
	double score;
	bool reject;
	bool given; /* in the config */
};

struct spf_settings {
	struct action sender[SPF_PENDING]; /* by enum spf_result */
	struct action helo_fail;
};

/* An option and what it stands for; section 2.6 has the results. */
static const struct rule {
	const char *option;
	enum spf_result result;
	bool helo;
	double score; /* by default */
} rules[] = {
	{ "fail", SPF_FAIL, false, 5.0 },
	{ "softfail", SPF_SOFTFAIL, false, 1.5 },
	{ "neutral", SPF_NEUTRAL, false, 0 },
	{ "none", SPF_NONE, false, 0 },
	{ "pass", SPF_PASS, false, 0 },
	{ "permerror", SPF_PERMERROR, false, 0 },
	{ "temperror", SPF_TEMPERROR, false, 0 },
	{ "helo-fail", SPF_FAIL, true, 1.5 },
};

static const struct filter_option spf_options[] = {
	{ "fail", FILTER_OPTION_STRING },
	{ "softfail", FILTER_OPTION_STRING },
	{ "neutral", FILTER_OPTION_STRING },
	{ "none", FILTER_OPTION_STRING },
	{ "pass", FILTER_OPTION_STRING },
	{ "permerror", FILTER_OPTION_STRING },
	{ "temperror", FILTER_OPTION_STRING },
	{ "helo-fail", FILTER_OPTION_STRING },
	{ NULL, FILTER_OPTION_STRING },
};

/* The name of a finding, by enum spf_result. */
static const char *const findings[] = {
	[SPF_NONE] = "SPF_NONE",
	[SPF_NEUTRAL] = "SPF_NEUTRAL",
	[SPF_PASS] = "SPF_PASS",
	[SPF_FAIL] = "SPF_FAIL",
	[SPF_SOFTFAIL] = "SPF_SOFTFAIL",
	[SPF_TEMPERROR] = "SPF_TEMPERROR",
	[SPF_PERMERROR] = "SPF_PERMERROR",
};

/* ---- settings -------------------------------------------------------------------------------- */

static int
action_parse(const struct filter_config *cfg, const struct rule *rule, struct action *action)
{
	const char *text = cfg->value(cfg, rule->option, 0);

	*action = (struct action){ .score = rule->score };
	if (text == NULL)
		return 0;
	action->given = true;
	action->reject = strcmp(text, "reject") == 0;
	if (action->reject && rule->result == SPF_TEMPERROR)
		return cfg->fail(cfg, rule->option, NULL, 0, "a temporary error never rejects");
	if (action->reject || cfg->number(text, &action->score))
		return 0;
	return cfg->fail(cfg, rule->option, NULL, 0, "neither a score nor \"reject\"");
}

static int
spf_configure(const struct filter_config *cfg, void **settings)
{
	struct spf_settings *set = calloc(1, sizeof(*set));

	if (set == NULL)
		return cfg->fail(cfg, NULL, NULL, 0, "out of memory");
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
		struct action *action =
		    rules[i].helo ? &set->helo_fail : &set->sender[rules[i].result];

		if (action_parse(cfg, &rules[i], action) < 0) {
			free(set);
			return -1;
		}
	}
	*settings = set;
	return 0;
}

static void
spf_release(void *settings)
{
	free(settings);
}

/* ---- findings -------------------------------------------------------------------------------- */

/* Appends to text[cap] at *len what fits. */
static void
put(char *text, size_t cap, size_t *len, struct slice s)
{
	s = slice_head(s, cap - *len);
	memcpy(text + *len, s.p, s.len);
	*len += s.len;
}

/* "smtp.mailfrom=a@example.org"; the host quotes the value where RFC 8601 section 2.2 has it so. */
static void
auth_result(struct filter_tx *tx, enum spf_result result, const char *property, struct slice value)
{
	char text[2 * SENDER_BYTES_MAX + 32];
	size_t len = 0;

	put(text, sizeof(text), &len, slice_str(property));
	put(text, sizeof(text), &len, SLICE("="));
	for (size_t i = 0; i < value.len; i++) {
		char c = value.p[i] >= ' ' && value.p[i] <= '~' ? value.p[i] : '?';

		put(text, sizeof(text), &len, slice_of(&c, 1));
	}
	tx->host->auth_result(
	    tx, SLICE("spf"), slice_str(spf_result_name(result)), slice_of(text, len));
}

/* "example.org: -all", and what the domain has to say. */
static void
finding(struct filter_tx *tx, double score, const char *name, const struct spf_outcome *outcome)
{
	char why[sizeof(*outcome)];
	int n = snprintf(why, sizeof(why), "%s%s%s%s%s%s", outcome->domain,
	    outcome->domain[0] != '\0' ? ": " : "", outcome->why,
	    outcome->explanation[0] != '\0' ? " (" : "", outcome->explanation,
	    outcome->explanation[0] != '\0' ? ")" : "");

	filter_score(tx, score, slice_str(name), slice_of(why, n > 0 ? (size_t)n : 0));
}

/* The reply: RFC 7372 section 3.2 has the codes; section 6.2 wants it said whose words follow. */
static void
reject(struct filter_tx *tx, const struct spf_outcome *outcome)
{
	struct slice client = filter_session(tx)->client_ip;
	bool broken = outcome->result == SPF_PERMERROR;
	char text[sizeof(*outcome) + 128];
	int n;

	if (outcome->explanation[0] != '\0')
		n = snprintf(text, sizeof(text), "SPF %s for %.*s; %s explains: %s",
		    spf_result_name(outcome->result), SLICE_FMT(client), outcome->domain,
		    outcome->explanation);
	else
		n = snprintf(text, sizeof(text), "SPF %s for %.*s, says %s: %s",
		    spf_result_name(outcome->result), SLICE_FMT(client), outcome->domain,
		    outcome->why);
	tx->host->verdict(tx, FILTER_REJECT, 550, broken ? SLICE("5.7.24") : SLICE("5.7.23"),
	    slice_of(text, n > 0 ? (size_t)n : 0));
}

static void
act(struct filter_tx *tx, const struct action *action, const char *name,
    const struct spf_outcome *outcome)
{
	if (action->score != 0 || action->reject)
		finding(tx, action->reject ? 0 : action->score, name, outcome);
	if (action->reject)
		reject(tx, outcome);
}

/* No identity at all, rather than a piece of one that reads as another domain. */
static struct slice
bounded(struct slice identity)
{
	return identity.len <= SENDER_BYTES_MAX ? identity : SLICE("");
}

/* ---- the run --------------------------------------------------------------------------------- */

static enum filter_status
spf_run(struct filter_tx *tx, const void *settings)
{
	const struct spf_settings *set = settings;
	const struct filter_session *session = filter_session(tx);
	struct slice sender = filter_envelope(tx)->reverse_path;
	struct spf_query query = {
		session->client_addr,
		bounded(session->helo),
		bounded(session->helo),
		session->hostname,
	};
	struct spf_outcome from, helo;
	const struct action *action;

	if (session->client_addr.len == 0) /* a unix socket is no sender of RFC 7208 */
		return FILTER_DONE;
	(void)spf_check(tx, &query, &helo); /* its result is in helo */
	from = helo;
	if (sender.len > 0) {
		query.sender = bounded(sender);
		(void)spf_check(tx, &query, &from); /* as above */
	}
	if (from.result == SPF_PENDING || helo.result == SPF_PENDING)
		return FILTER_WAIT;
	action = &set->sender[from.result];
	if (from.result == SPF_TEMPERROR && !action->given)
		return FILTER_ERROR;
	if (sender.len > 0)
		auth_result(tx, from.result, "smtp.mailfrom", query.sender);
	auth_result(tx, helo.result, "smtp.helo", query.helo);
	act(tx, action, findings[from.result], &from);
	if (sender.len > 0 && helo.result == SPF_FAIL)
		act(tx, &set->helo_fail, "SPF_HELO_FAIL", &helo);
	return FILTER_DONE;
}

const struct filter filter_spf = {
	.abi = RELAYD_FILTER_ABI,
	.size = sizeof(struct filter),
	.name = "spf",
	.stages = FILTER_AT(FILTER_MAIL),
	.flags = FILTER_SECURITY | FILTER_INBOUND,
	.options = spf_options,
	.configure = spf_configure,
	.release = spf_release,
	.run = spf_run,
};

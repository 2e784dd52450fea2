/* filters/rules/rules.c - the filter "rules": SpamAssassin's header and body rules over a message.
 *
 * Every rule that hits is a finding with its name, score and description.  A pattern that takes
 * too long on a text is told of (RULES_LIMIT) and counts as no hit.  A message that takes more
 * than max-time in all is an error, for on-error to decide.
 */
#include "filters/builtin.h"
#include "filters/rules/match.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define MAX_TEXT_BYTES   (256u * 1024)
#define MAX_TEXT_CEILING (1u << 20) /* its lines fit into the memory of a run, however short */
#define MAX_TIME_S       2
#define LIMIT_FINDINGS   8 /* of RULES_LIMIT in one message */

struct rules_settings {
	struct rules_set *set;
	size_t max_text;
	uint32_t max_time_s;
};

static const struct filter_option rules_options[] = {
	{ "files", FILTER_OPTION_FILES },
	{ "max-text", FILTER_OPTION_SIZE },
	{ "max-time", FILTER_OPTION_DURATION },
	{ NULL, FILTER_OPTION_STRING },
};

/* ---- settings -------------------------------------------------------------------------------- */

static void
rules_release(void *settings)
{
	struct rules_settings *set = settings;

	if (set != NULL)
		rules_set_free(set->set);
	free(set);
}

static int
limits_read(const struct filter_config *cfg, struct rules_settings *set)
{
	const char *text = cfg->value(cfg, "max-text", 0), *time = cfg->value(cfg, "max-time", 0);
	uint64_t bytes = MAX_TEXT_BYTES;

	set->max_time_s = MAX_TIME_S;
	if (text != NULL && (!cfg->bytes(text, &bytes) || bytes == 0 || bytes > MAX_TEXT_CEILING))
		return cfg->fail(cfg, "max-text", NULL, 0, "not a size up to 1M");
	if (time != NULL && (!cfg->duration(time, &set->max_time_s) || set->max_time_s == 0))
		return cfg->fail(cfg, "max-time", NULL, 0, "not a time of a second or more");
	set->max_text = (size_t)bytes;
	return 0;
}

static int
files_read(const struct filter_config *cfg, struct rules_set *set)
{
	struct slice bytes;
	const char *path;
	size_t n = 0;

	for (; (path = cfg->file(cfg, "files", n, &bytes)) != NULL; n++)
		if (rules_set_read(set, cfg, path, bytes) < 0)
			return -1;
	if (n == 0 && cfg->value(cfg, "files", 0) == NULL)
		return cfg->fail(cfg, "files", NULL, 0, "which files?");
	if (n == 0)
		cfg->warn(cfg, NULL, 0, "files: there are none, so there are no rules");
	return rules_set_finish(set, cfg);
}

static int
rules_configure(const struct filter_config *cfg, void **settings)
{
	struct rules_settings *set = calloc(1, sizeof(*set));

	if (set == NULL || (set->set = rules_set_new()) == NULL) {
		rules_release(set);
		return cfg->fail(cfg, NULL, NULL, 0, "out of memory");
	}
	if (limits_read(cfg, set) < 0 || files_read(cfg, set->set) < 0) {
		rules_release(set);
		return -1;
	}
	*settings = set;
	return 0;
}

/* ---- matching -------------------------------------------------------------------------------- */

/* CPU time, so that a busy machine judges no other than an idle one, if at all it can be read. */
static int64_t
cpu_ms(void)
{
	struct timespec now = { 0, 0 };

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now); /* without it there is no limit */
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void
tell_limit(struct filter_tx *tx, double score, const struct rules_rule *rule)
{
	char why[RULES_NAME_BYTES_MAX + 64];
	int n = snprintf(
	    why, sizeof(why), "%.*s took too long and counts as no hit", SLICE_FMT(rule->name));

	filter_score(tx, score, SLICE("RULES_LIMIT"), slice_of(why, n > 0 ? (size_t)n : 0));
}

static enum filter_status
rules_run(struct filter_tx *tx, const void *settings)
{
	const struct rules_settings *set = settings;
	int64_t deadline = cpu_ms() + (int64_t)set->max_time_s * 1000;
	unsigned limits = 0;
	struct rules_text text;

	if (!rules_text_init(&text, tx, set->set, set->max_text))
		return FILTER_ERROR;
	if (text.cut)
		filter_score(tx, set->set->cut_score, SLICE("RULES_CUT"),
		    SLICE("larger than what rules look at"));
	for (size_t i = 0; i < set->set->n_rules; i++) {
		const struct rules_rule *rule = &set->set->rules[i];
		enum rules_match match = rules_match(set->set, rule, &text);

		if (match == RULES_MATCH_NO_MEMORY)
			return FILTER_ERROR;
		if (match == RULES_MATCH_YES)
			filter_score(tx, rule->score, rule->name, rule->describe);
		else if (match == RULES_MATCH_LIMIT && limits++ < LIMIT_FINDINGS)
			tell_limit(tx, limits == 1 ? set->set->limit_score : 0, rule);
		if (cpu_ms() > deadline)
			return FILTER_ERROR;
	}
	return FILTER_DONE;
}

const struct filter filter_rules = {
	.abi = RELAYD_FILTER_ABI,
	.size = sizeof(struct filter),
	.name = "rules",
	.stages = FILTER_AT(FILTER_MESSAGE),
	.flags = FILTER_SECURITY | FILTER_HEAVY,
	.options = rules_options,
	.configure = rules_configure,
	.release = rules_release,
	.run = rules_run,
};

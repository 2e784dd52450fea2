/* filters/rules/ruleset.c - the reader of rule files: lines, conditions, directives. */
#include "filters/rules/ruleset.h"

#include "filters/rules/lines.h"

#include <search.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct rules_string {
	struct rules_string *next;
	char bytes[];
};

/* All that is known of a name, from whatever directives and in whatever order. */
struct known {
	struct slice name;
	size_t order;     /* of the last definition */
	bool defined;     /* as header or body */
	bool template;    /* for replace_rules: its pattern is not what it seems */
	bool unsupported; /* as something else, or in a form that is passed over */
	bool scored;
	double score;
	struct rules_rule rule;
	struct rules_regex *regex; /* owned */
	const char *file;          /* where score or describe first named it */
	unsigned line;
};

/* A directive that is passed over. */
struct passed {
	struct slice what;
	const char *file;
	unsigned line;
	size_t lines;
};

struct rules_reader {
	void *names; /* tsearch() over entries */
	struct known **entries;
	size_t n_entries;
	struct passed *passed;
	size_t n_passed;
	size_t order;
	/* of the line being read */
	const struct filter_config *cfg;
	struct rules_set *set;
	const char *file;
	unsigned line;
};

/* ---- memory ---------------------------------------------------------------------------------- */

static int
fail(struct rules_reader *rd, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return rd->cfg->fail(rd->cfg, "files", rd->file, rd->line, text);
}

/* A copy of s, with a NUL behind it, that lives as long as the set; p is NULL when out of
 * memory. */
static struct slice
keep(struct rules_set *set, struct slice s)
{
	struct rules_string *string = malloc(sizeof(*string) + s.len + 1);

	if (string == NULL)
		return (struct slice){ NULL, 0 };
	string->next = set->strings;
	set->strings = string;
	memcpy(string->bytes, s.p, s.len);
	string->bytes[s.len] = '\0';
	return slice_of(string->bytes, s.len);
}

/* Makes room for one more element of *array. */
static bool
grow(void *array, size_t n, size_t size)
{
	void **to = array;
	void *p;

	if (n > 0 && (n < 16 || (n & (n - 1)) != 0)) /* room for 16, then for powers of two */
		return true;
	p = reallocarray(*to, n < 16 ? 16 : 2 * n, size);
	if (p != NULL)
		*to = p;
	return p != NULL;
}

static int
compare_names(const void *a, const void *b)
{
	const struct known *x = a, *y = b;
	size_t n = x->name.len < y->name.len ? x->name.len : y->name.len;
	int diff = memcmp(x->name.p, y->name.p, n);

	return diff != 0 ? diff : (x->name.len > y->name.len) - (x->name.len < y->name.len);
}

/* The entry of a name, new if need be; NULL when out of memory. */
static struct known *
entry_of(struct rules_reader *rd, struct slice name)
{
	struct known key = { .name = name }, *entry;
	void *found = tfind(&key, &rd->names, compare_names);

	if (found != NULL)
		return *(struct known **)found;
	if (!grow(&rd->entries, rd->n_entries, sizeof(*rd->entries)))
		return NULL;
	entry = calloc(1, sizeof(*entry));
	if (entry == NULL)
		return NULL;
	*entry = (struct known){ .name = keep(rd->set, name), .file = rd->file, .line = rd->line };
	if (entry->name.p == NULL || tsearch(entry, &rd->names, compare_names) == NULL) {
		free(entry);
		return NULL;
	}
	rd->entries[rd->n_entries++] = entry;
	return entry;
}

/* ---- words ----------------------------------------------------------------------------------- */

/* Letters, digits and "_", not a digit first. */
static bool
is_rule_name(struct slice name)
{
	for (size_t i = 0; i < name.len; i++) {
		char c = slice_lower(name.p[i]);

		if (!(c >= 'a' && c <= 'z') && c != '_' && !(i > 0 && c >= '0' && c <= '9'))
			return false;
	}
	return name.len > 0 && name.len <= RULES_NAME_BYTES_MAX;
}

/* Takes a rule's name and finds its entry; NULL after fail(). */
static struct known *
entry_take(struct rules_reader *rd, const char *directive, struct slice *args)
{
	struct slice name = rules_word_take(args);
	struct known *entry;

	if (!is_rule_name(name)) {
		(void)fail(rd, "%s: \"%.*s\" is no name for a rule", directive,
		    SLICE_FMT(slice_head(name, 120)));
		return NULL;
	}
	entry = entry_of(rd, name);
	if (entry == NULL)
		(void)fail(rd, "out of memory");
	return entry;
}

/* Counts a line of a directive, or of a form of one, that is passed over. */
static int
pass_over(struct rules_reader *rd, struct slice what)
{
	struct passed *passed;

	for (size_t i = 0; i < rd->n_passed; i++)
		if (slice_eq(rd->passed[i].what, what)) {
			rd->passed[i].lines++;
			return 0;
		}
	if (!grow(&rd->passed, rd->n_passed, sizeof(*rd->passed)))
		return fail(rd, "out of memory");
	passed = &rd->passed[rd->n_passed++];
	*passed = (struct passed){ keep(rd->set, what), rd->file, rd->line, 1 };
	return passed->what.p != NULL ? 0 : fail(rd, "out of memory");
}

/* ---- rules ----------------------------------------------------------------------------------- */

/* A new definition takes the place of the old one, whatever that was. */
static void
define(struct rules_reader *rd, struct known *entry, bool supported)
{
	rules_regex_free(entry->regex);
	entry->regex = NULL;
	entry->defined = supported;
	entry->unsupported = !supported;
	entry->order = rd->order++;
	entry->rule = (struct rules_rule){ .describe = entry->rule.describe,
		.no_subject = entry->rule.no_subject };
}

static int
pattern_read(struct rules_reader *rd, struct known *entry, struct slice literal)
{
	char why[192];

	entry->regex = rules_regex_new(literal, why, sizeof(why));
	return entry->regex != NULL ? 0 : fail(rd, "%.*s: %s", SLICE_FMT(entry->name), why);
}

static bool
same_source(const struct rules_source *a, const struct rules_source *b)
{
	return a->field == b->field && slice_ieq(a->name, b->name) && a->raw == b->raw &&
	       a->addr == b->addr && a->display_name == b->display_name && a->first == b->first &&
	       a->last == b->last;
}

static int
source_add(struct rules_reader *rd, struct rules_source source, size_t *index)
{
	struct rules_set *set = rd->set;

	for (*index = 0; *index < set->n_sources; ++*index)
		if (same_source(&set->sources[*index], &source))
			return 0;
	source.name = keep(set, source.name);
	if (source.name.p == NULL || !grow(&set->sources, set->n_sources, sizeof(*set->sources)))
		return fail(rd, "out of memory");
	set->sources[set->n_sources++] = source;
	return 0;
}

/* Reads ":addr:first" into *source; false for a modifier that there is none of here. */
static bool
modifiers_read(struct slice text, struct rules_source *source)
{
	while (text.len > 0) {
		struct slice word = slice_until(slice_drop(text, 1), ':');

		text = slice_drop(text, word.len + 1);
		if (slice_eq(word, SLICE("raw")))
			source->raw = true;
		else if (slice_eq(word, SLICE("addr")))
			source->addr = true;
		else if (slice_eq(word, SLICE("name")))
			source->display_name = true;
		else if (slice_eq(word, SLICE("first")))
			source->first = true;
		else if (slice_eq(word, SLICE("last")))
			source->last = true;
		else if (word.len > 0) /* "Subject:" is "Subject" */
			return false;
	}
	return true;
}

/* Reads "From:addr".  False for what only a whole SpamAssassin knows: the relays that it makes out
 * of Received fields, and :host, :domain, :ip, :revip. */
static bool
source_read(struct slice text, struct rules_source *source)
{
	struct slice name = slice_until(text, ':');

	*source = (struct rules_source){ .field = RULES_FIELD_NAMED, .name = name };
	if (slice_eq(name, SLICE("ALL")))
		source->field = RULES_FIELD_ALL;
	else if (slice_eq(name, SLICE("MESSAGEID")))
		source->field = RULES_FIELD_MESSAGE_ID;
	else if (slice_ieq(name, SLICE("ToCc")))
		source->field = RULES_FIELD_TOCC;
	else if (slice_ieq(name, SLICE("EnvelopeFrom")))
		source->field = RULES_FIELD_ENVELOPE_FROM;
	else if (slice_starts(name, SLICE("ALL-")) || slice_istarts(name, SLICE("X-Spam-Relays-")))
		return false;
	if (source->field != RULES_FIELD_NAMED)
		source->name = SLICE("");
	return modifiers_read(slice_drop(text, name.len), source);
}

static bool
is_field_name(struct slice text)
{
	struct slice name = slice_until(text, ':');

	for (size_t i = 0; i < name.len; i++)
		if (name.p[i] <= ' ' || name.p[i] > '~')
			return false;
	return name.len > 0;
}

/* "Field =~ /re/ [if-unset: text]": what stands behind the operator. */
static int
header_pattern_read(struct rules_reader *rd, struct known *entry, struct slice pattern)
{
	static const struct slice mark = { "[if-unset:", 10 };
	size_t at = slice_find(pattern, mark);

	if (at < pattern.len && slice_ends(pattern, SLICE("]"))) {
		struct slice unset = slice_drop(pattern, at + mark.len);

		unset.len--;
		entry->rule.has_unset = true;
		entry->rule.unset = keep(rd->set, slice_trim(unset));
		if (entry->rule.unset.p == NULL)
			return fail(rd, "out of memory");
		pattern = slice_trim(slice_head(pattern, at));
	}
	return pattern_read(rd, entry, pattern);
}

/* Takes "=~" or "!~" off the front of *args. */
static bool
operator_take(struct slice *args, bool *negate)
{
	*negate = slice_starts(*args, SLICE("!~"));
	if (!*negate && !slice_starts(*args, SLICE("=~")))
		return false;
	*args = slice_trim(slice_drop(*args, 2));
	return true;
}

/* The field of a header rule: up to a blank or the operator, which may stand close. */
static struct slice
field_take(struct slice *args)
{
	struct slice field;
	size_t n = 0;

	while (n < args->len && args->p[n] > ' ' && args->p[n] != '=' && args->p[n] != '!')
		n++;
	field = slice_head(*args, n);
	*args = slice_trim(slice_drop(*args, n));
	return field;
}

static int
header_read(struct rules_reader *rd, struct slice args)
{
	struct known *entry = entry_take(rd, "header", &args);
	struct rules_source source;
	struct slice field;
	bool exists, negate = false;

	if (entry == NULL)
		return -1;
	if (slice_starts(args, SLICE("eval:")) || slice_starts(args, SLICE("rbleval:"))) {
		define(rd, entry, false);
		return pass_over(rd, SLICE("header eval:"));
	}
	exists = slice_starts(args, SLICE("exists:"));
	if (exists)
		args = slice_drop(args, 7);
	field = field_take(&args);
	if (!is_field_name(field) || (!exists && !operator_take(&args, &negate)) ||
	    (exists ? args.len > 0 : args.len == 0))
		return fail(
		    rd, "%.*s: not \"header NAME FIELD =~ /pattern/\"", SLICE_FMT(entry->name));
	if (!source_read(field, &source)) {
		char what[128];

		define(rd, entry, false);
		(void)snprintf(what, sizeof(what), "header %.*s", SLICE_FMT(slice_head(field, 80)));
		return pass_over(rd, slice_str(what));
	}
	define(rd, entry, true);
	entry->rule.exists = exists;
	entry->rule.negate = negate;
	if (source_add(rd, source, &entry->rule.source) < 0)
		return -1;
	return exists ? 0 : header_pattern_read(rd, entry, args);
}

static int
body_read(struct rules_reader *rd, struct slice args)
{
	struct known *entry = entry_take(rd, "body", &args);

	if (entry == NULL)
		return -1;
	if (slice_starts(args, SLICE("eval:"))) {
		define(rd, entry, false);
		return pass_over(rd, SLICE("body eval:"));
	}
	define(rd, entry, true);
	entry->rule.body = true;
	return pattern_read(rd, entry, args);
}

/* ---- what is said about rules ---------------------------------------------------------------- */

/* A number, "(number)" when it is to be added to what is there. */
static bool
score_parse(struct rules_reader *rd, struct slice text, double *score, bool *relative)
{
	char copy[32];

	*relative = slice_starts(text, SLICE("(")) && slice_ends(text, SLICE(")")) && text.len > 2;
	if (*relative)
		text = slice_of(text.p + 1, text.len - 2);
	if (text.len >= sizeof(copy))
		return false;
	memcpy(copy, text.p, text.len);
	copy[text.len] = '\0';
	return rd->cfg->number(copy, score);
}

/* One score, or four: without network tests and Bayes, with network tests, with Bayes, with both.
 * Ours is the first: here, the network is asked by filters of their own. */
static int
score_read(struct rules_reader *rd, struct slice args)
{
	struct known *entry = entry_take(rd, "score", &args);
	double score = 0, first = 0;
	bool relative = false, first_relative = false;
	size_t n = 0;

	if (entry == NULL)
		return -1;
	for (; args.len > 0; n++) {
		struct slice word = rules_word_take(&args);

		if (!score_parse(rd, word, &score, &relative))
			return fail(rd, "score %.*s: \"%.*s\" is no number", SLICE_FMT(entry->name),
			    SLICE_FMT(slice_head(word, 40)));
		if (n == 0) {
			first = score;
			first_relative = relative;
		}
	}
	if (n != 1 && n != 4)
		return fail(rd, "score %.*s: takes one number or four", SLICE_FMT(entry->name));
	if (first_relative && !entry->scored)
		return fail(rd, "score %.*s: nothing there to add to", SLICE_FMT(entry->name));
	entry->score = first_relative ? entry->score + first : first;
	entry->scored = true;
	return 0;
}

static int
describe_read(struct rules_reader *rd, struct slice args)
{
	struct known *entry = entry_take(rd, "describe", &args);

	if (entry == NULL)
		return -1;
	entry->rule.describe = keep(rd->set, args);
	return entry->rule.describe.p != NULL ? 0 : fail(rd, "out of memory");
}

/* Of the flags, only nosubject changes what a pattern here finds. */
static int
tflags_read(struct rules_reader *rd, struct slice args)
{
	struct known *entry = entry_take(rd, "tflags", &args);

	if (entry == NULL)
		return -1;
	while (args.len > 0)
		if (slice_eq(rules_word_take(&args), SLICE("nosubject")))
			entry->rule.no_subject = true;
	return 0;
}

/* Rules whose patterns are templates: without the tags they would match something else. */
static int
replace_rules_read(struct rules_reader *rd, struct slice args)
{
	while (args.len > 0) {
		struct known *entry = entry_take(rd, "replace_rules", &args);

		if (entry == NULL)
			return -1;
		entry->template = true;
	}
	return pass_over(rd, SLICE("replace_rules"));
}

/* A rule of a kind that is not here yet takes the place of one of that name that is. */
static int
other_rule_read(struct rules_reader *rd, struct slice directive, struct slice args)
{
	struct slice name = rules_word_take(&args);
	struct known *entry = is_rule_name(name) ? entry_of(rd, name) : NULL;

	if (entry != NULL)
		define(rd, entry, false);
	return pass_over(rd, directive);
}

/* ---- files ----------------------------------------------------------------------------------- */

static int
directive_read(struct rules_reader *rd, struct slice directive, struct slice args)
{
	static const struct {
		const char *name;
		int (*read)(struct rules_reader *rd, struct slice args);
	} known[] = {
		{ "header", header_read },
		{ "body", body_read },
		{ "score", score_read },
		{ "describe", describe_read },
		{ "tflags", tflags_read },
		{ "replace_rules", replace_rules_read },
	};
	static const char *const kinds[] = { "meta", "uri", "rawbody", "full", "mimeheader",
		"uri_detail", "askdns", "urirhsbl", "urirhssub", "uridnsbl", "uridnssub" };

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (slice_eq(directive, slice_str(known[i].name)))
			return known[i].read(rd, args);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (slice_eq(directive, slice_str(kinds[i])))
			return other_rule_read(rd, directive, args);
	if (slice_eq(directive, SLICE("require_version")) && slice_eq(args, SLICE("@@VERSION@@")))
		return 0; /* a placeholder: whatever version there is */
	return pass_over(rd, directive);
}

int
rules_set_read(
    struct rules_set *set, const struct filter_config *cfg, const char *file, struct slice text)
{
	struct rules_reader *rd = set->reader;
	struct rules_lines *lines = malloc(sizeof(*lines));
	struct slice directive, args;
	int rc = -1;

	rd->cfg = cfg;
	rd->line = 0;
	rd->file = keep(set, slice_str(file)).p;
	if (lines == NULL || rd->file == NULL) {
		free(lines);
		return fail(rd, "out of memory");
	}
	rules_lines_init(lines, text);
	while ((rc = rules_lines_next(lines, &directive, &args)) > 0) {
		rd->line = lines->line;
		if (directive_read(rd, directive, args) < 0)
			break;
	}
	if (rc < 0) {
		rd->line = lines->line;
		(void)fail(rd, "%s", lines->why); /* -1 either way */
	}
	free(lines);
	return rc == 0 ? 0 : -1;
}

/* ---- the end --------------------------------------------------------------------------------- */

static double
score_of(const struct known *entry)
{
	if (entry->scored)
		return entry->score;
	if (slice_starts(entry->name, SLICE("__"))) /* parts of metas */
		return 0;
	return slice_starts(entry->name, SLICE("T_")) ? RULES_SCORE_TESTING : RULES_SCORE_DEFAULT;
}

static int
compare_order(const void *a, const void *b)
{
	const struct known *x = *(struct known *const *)a, *y = *(struct known *const *)b;

	return (x->order > y->order) - (x->order < y->order);
}

static void
warn_passed(const struct rules_reader *rd)
{
	for (size_t i = 0; i < rd->n_passed; i++) {
		const struct passed *passed = &rd->passed[i];
		char text[256];

		(void)snprintf(text, sizeof(text),
		    "\"%.*s\" is not supported: %zu line%s passed over",
		    SLICE_FMT(slice_head(passed->what, 120)), passed->lines,
		    passed->lines == 1 ? "" : "s");
		rd->cfg->warn(rd->cfg, passed->file, passed->line, text);
	}
}

/* The score given to a finding of our own; it is no rule to be missed. */
static double
own_score(struct rules_reader *rd, struct slice name)
{
	struct known key = { .name = name }, *entry;
	void *found = tfind(&key, &rd->names, compare_names);

	if (found == NULL)
		return 0;
	entry = *(struct known **)found;
	entry->unsupported = true;
	return entry->scored ? entry->score : 0;
}

/* A score for a rule that nobody defined is most likely a misspelt name. */
static void
warn_scores(const struct rules_reader *rd)
{
	const struct known *first = NULL;
	char text[256];
	size_t n = 0;

	for (size_t i = 0; i < rd->n_entries; i++) {
		const struct known *entry = rd->entries[i];

		if (!entry->scored || entry->defined || entry->unsupported || entry->template)
			continue;
		first = first != NULL ? first : entry;
		n++;
	}
	if (first == NULL)
		return;
	(void)snprintf(text, sizeof(text),
	    "%zu score%s a rule that is not there, the first is %.*s", n,
	    n == 1 ? " is for" : "s are for", SLICE_FMT(first->name));
	rd->cfg->warn(rd->cfg, first->file, first->line, text);
}

static void
reader_free(struct rules_reader *rd)
{
	if (rd == NULL)
		return;
	for (size_t i = 0; i < rd->n_entries; i++) {
		(void)tdelete(rd->entries[i], &rd->names, compare_names); /* it is in there */
		rules_regex_free(rd->entries[i]->regex);
		free(rd->entries[i]);
	}
	free(rd->entries);
	free(rd->passed);
	free(rd);
}

int
rules_set_finish(struct rules_set *set, const struct filter_config *cfg)
{
	struct rules_reader *rd = set->reader;

	rd->cfg = cfg;
	set->cut_score = own_score(rd, SLICE("RULES_CUT"));
	set->limit_score = own_score(rd, SLICE("RULES_LIMIT"));
	warn_passed(rd);
	warn_scores(rd);
	set->rules = calloc(rd->n_entries + 1, sizeof(*set->rules));
	if (set->rules == NULL)
		return cfg->fail(cfg, "files", NULL, 0, "out of memory");
	if (rd->n_entries > 0)
		qsort(rd->entries, rd->n_entries, sizeof(*rd->entries), compare_order);
	for (size_t i = 0; i < rd->n_entries; i++) {
		struct known *entry = rd->entries[i];
		double score = score_of(entry);

		if (!entry->defined || entry->template || (score == 0 && !set->keep_all))
			continue;
		entry->rule.name = entry->name;
		entry->rule.score = score;
		entry->rule.regex = entry->regex;
		entry->rule.describe = slice_of(entry->rule.describe.p, entry->rule.describe.len);
		entry->regex = NULL; /* the set owns it now */
		set->rules[set->n_rules++] = entry->rule;
	}
	reader_free(rd);
	set->reader = NULL;
	return 0;
}

struct rules_set *
rules_set_new(void)
{
	struct rules_set *set = calloc(1, sizeof(*set));

	if (set == NULL)
		return NULL;
	set->reader = calloc(1, sizeof(*set->reader));
	if (set->reader == NULL) {
		free(set);
		return NULL;
	}
	set->reader->set = set;
	return set;
}

void
rules_set_free(struct rules_set *set)
{
	struct rules_string *next;

	if (set == NULL)
		return;
	reader_free(set->reader);
	for (size_t i = 0; i < set->n_rules; i++)
		rules_regex_free((struct rules_regex *)(uintptr_t)set->rules[i].regex);
	free(set->rules);
	free(set->sources);
	for (struct rules_string *string = set->strings; string != NULL; string = next) {
		next = string->next;
		free(string);
	}
	free(set);
}

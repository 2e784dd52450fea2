/* tests/unit/filters/sa_corpus_test.c - the rule engine against what SpamAssassin 4.0.1 hit.
 *
 * Runs where SpamAssassin's stock rules are installed (or RELAYD_SA_RULES names their folder) and
 * the corpus is there: 400 messages with the names of the rules that hit.  Compared are the header
 * and body rules that were loaded; the counts of each kind are told, and the agreement has a floor.
 * All header hits agree.  Of the body hits, 21 of __SINGLE_WORD_LINE and one of TRACKER_ID differ
 * where HTML is laid out by lists, tables and forms, whose line ends SpamAssassin sets otherwise;
 * one of __HIGHBITS does where UTF-8 is declared iso-8859-1.  RELAYD_SA_VERBOSE names each.
 */
#include "unit/filters/canned.h"
#include "unit/unit.h"

#include "filters/rules/match.h"
#include "relayd/mail/header.h"
#include "relayd/mail/mime.h"
#include "relayd/mail/text.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CORPUS      SHARED_DATA_DIR "/sa-corpus-dev"
#define STOCK_RULES "/usr/share/spamassassin"
#define MESSAGE_MAX (4u << 20)
#define LINE_MAX_SA 65536

/* ---- files ----------------------------------------------------------------------------------- */

static struct slice
file_read(const char *path)
{
	FILE *file = fopen(path, "rb");
	char *bytes = malloc(MESSAGE_MAX);
	size_t n;

	ck_assert_msg(file != NULL && bytes != NULL, "%s", path);
	n = fread(bytes, 1, MESSAGE_MAX, file);
	(void)fclose(file); /* read only */
	return slice_of(bytes, n);
}

static const char *
rules_dir(void)
{
	const char *dir = getenv("RELAYD_SA_RULES");

	return dir != NULL ? dir : STOCK_RULES;
}

static struct rules_set *
stock_rules(void)
{
	struct rules_set *set = rules_set_new();
	struct canned_config cc;
	char pattern[512];
	glob_t found;

	canned_config(&cc, "rules", NULL, 0);
	(void)snprintf(pattern, sizeof(pattern), "%s/*.cf", rules_dir());
	ck_assert_int_eq(glob(pattern, 0, NULL, &found), 0);
	set->keep_all = true;
	for (size_t i = 0; i < found.gl_pathc; i++) {
		struct slice bytes = file_read(found.gl_pathv[i]);

		ck_assert_msg(
		    rules_set_read(set, &cc.cfg, found.gl_pathv[i], bytes) == 0, "%s", cc.said);
		free((void *)(uintptr_t)bytes.p);
	}
	globfree(&found);
	ck_assert_int_eq(rules_set_finish(set, &cc.cfg), 0);
	if (getenv("RELAYD_SA_VERBOSE") != NULL)
		printf("%s", cc.said);
	return set;
}

/* ---- messages -------------------------------------------------------------------------------- */

struct mail {
	struct arena arena;
	struct mime mime;
	struct filter_field *fields;
	size_t n_fields;
	struct filter_part *parts;
	size_t n_parts;
};

static struct slice
kept(struct mail *mail, struct buf *buf)
{
	struct slice copy = arena_copy(&mail->arena, buf_slice(buf));

	ck_assert_ptr_nonnull(copy.p);
	buf_reset(buf);
	return copy;
}

static void
fields_fill(struct mail *mail, struct slice message, struct buf *buf)
{
	struct header_iter it = header_iter_of(message);
	struct header_field field;

	mail->fields = arena_alloc(&mail->arena, 1000 * sizeof(*mail->fields));
	while (mail->n_fields < 1000 && header_next(&it, &field)) {
		struct filter_field *to = &mail->fields[mail->n_fields++];

		*to = (struct filter_field){ .name = field.name, .raw = field.raw };
		header_unfold(field.body, buf);
		to->value = kept(mail, buf);
		header_decode(field.body, buf);
		to->decoded = kept(mail, buf);
	}
}

static void
parts_fill(struct mail *mail, struct buf *buf)
{
	struct buf scratch = buf_heap(MESSAGE_MAX);

	mail->parts = arena_alloc(&mail->arena, mail->mime.n_parts * sizeof(*mail->parts));
	for (size_t i = 0; i < mail->mime.n_parts; i++) {
		const struct mime_part *part = &mail->mime.parts[i];
		struct filter_part *to = &mail->parts[mail->n_parts];

		if (part->kind != MIME_LEAF)
			continue;
		*to = (struct filter_part){ SLICE("text/plain"), SLICE(""), SLICE(""), SLICE("") };
		if (mime_is_text(part)) {
			text_of_part(&mail->mime, part, &scratch, buf);
			to->text = kept(mail, buf);
		}
		mail->n_parts++;
	}
	buf_fini(&scratch);
}

static void
mail_init(struct mail *mail, struct slice message)
{
	struct buf buf = buf_heap(MESSAGE_MAX);

	*mail = (struct mail){ .arena = arena_of(64u << 20) };
	ck_assert_int_eq(mime_parse(message, &mail->arena, &mail->mime), 0);
	fields_fill(mail, message, &buf);
	parts_fill(mail, &buf);
	buf_fini(&buf);
}

/* ---- comparing ------------------------------------------------------------------------------- */

enum kind {
	KIND_HEADER,
	KIND_BODY,
	KINDS,
};

struct tally {
	size_t both[KINDS], ours[KINDS], theirs[KINDS];
	size_t messages;
};

/* ",A,B," has "A". */
static bool
listed(const char *list, struct slice name)
{
	char key[RULES_NAME_BYTES_MAX + 3];

	(void)snprintf(key, sizeof(key), ",%.*s,", SLICE_FMT(name));
	return strstr(list, key) != NULL;
}

static char corpus[] = "/tmp/relayd-sa.XXXXXX";

static void
compare(const struct rules_set *set, const char *path, const char *list, struct tally *tally)
{
	char file[1024];
	struct slice message;
	struct rules_text text;
	struct canned can;
	struct mail mail;

	(void)snprintf(file, sizeof(file), "%s/%s", corpus, path);
	message = file_read(file);
	mail_init(&mail, message);
	canned_init(&can);
	can.budget = 64u << 20;
	can.fields = mail.fields;
	can.n_fields = mail.n_fields;
	can.parts = mail.parts;
	can.n_parts = mail.n_parts;
	ck_assert(rules_text_init(&text, &can.tx, set, 256 * 1024));
	for (size_t i = 0; i < set->n_rules; i++) {
		const struct rules_rule *rule = &set->rules[i];
		bool ours = rules_match(set, rule, &text) == RULES_MATCH_YES;
		bool theirs = listed(list, rule->name);

		if (rule->score == 0 && !slice_starts(rule->name, SLICE("__")))
			continue; /* switched off: SpamAssassin does not run those */
		if (!rule->body && set->sources[rule->source].field == RULES_FIELD_ENVELOPE_FROM)
			continue; /* it is not in the corpus */
		tally->both[rule->body] += ours && theirs;
		tally->ours[rule->body] += ours && !theirs;
		tally->theirs[rule->body] += !ours && theirs;
		if (ours != theirs && getenv("RELAYD_SA_VERBOSE") != NULL)
			printf("%s: %.*s: only %s\n", path, SLICE_FMT(rule->name),
			    ours ? "here" : "there");
	}
	tally->messages++;
	canned_fini(&can);
	arena_fini(&mail.arena);
	free((void *)(uintptr_t)message.p);
}

static void
compare_all(const struct rules_set *set, struct tally *tally)
{
	FILE *hits = fopen(CORPUS "/spamassassin-hits.tsv", "r");
	static char line[LINE_MAX_SA], list[LINE_MAX_SA + 8];

	ck_assert_ptr_nonnull(hits);
	while (fgets(line, sizeof(line), hits) != NULL) {
		char *rest = line, *path = strsep(&rest, "\t"), *score = strsep(&rest, "\t");
		char *rules = strsep(&rest, "\t"), *subrules = strsep(&rest, "\t\n");

		if (subrules == NULL || strchr(path, '/') == NULL || score == NULL)
			continue;
		(void)snprintf(list, sizeof(list), ",%s,%s,", rules, subrules);
		compare(set, path, list, tally);
	}
	(void)fclose(hits); /* read only */
}

START_TEST(header_and_body_rules_hit_what_spamassassin_hit)
{
	static const char *const names[] = { "header", "body" };
	static const size_t floor[] = { 999, 985 }; /* of a thousand */
	char command[1024];
	struct tally tally = { 0 };
	struct rules_set *set;

	if (access(rules_dir(), R_OK) != 0 || access(CORPUS, R_OK) != 0)
		return; /* nothing to compare with */
	ck_assert_ptr_nonnull(mkdtemp(corpus));
	(void)snprintf(
	    command, sizeof(command), "tar -C %s -xzf '%s/messages.tar.gz'", corpus, CORPUS);
	ck_assert_int_eq(system(command), 0);
	set = stock_rules();
	compare_all(set, &tally);
	rules_set_free(set);
	(void)snprintf(command, sizeof(command), "rm -r %s", corpus);
	ck_assert_int_eq(system(command), 0);
	for (int k = 0; k < KINDS; k++) {
		size_t all = tally.both[k] + tally.ours[k] + tally.theirs[k];

		printf("rules: %zu messages, %s rules: %zu hits in both, %zu only here, %zu only "
		       "there\n",
		    tally.messages, names[k], tally.both[k], tally.ours[k], tally.theirs[k]);
		ck_assert_uint_gt(tally.both[k], 100);
		ck_assert_uint_ge(tally.both[k] * 1000, all * floor[k]);
	}
}
END_TEST

UNIT_SUITE(sa_corpus)
{
	UNIT_TEST(header_and_body_rules_hit_what_spamassassin_hit);
}

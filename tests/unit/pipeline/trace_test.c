/* tests/unit/pipeline/trace_test.c - what a trace tells, and how it is found again. */
#include "unit/pipeline/world.h"

#include "relayd/core/clock.h"
#include "relayd/core/io.h"
#include "relayd/core/record.h"
#include "relayd/pipeline/trace_file.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define MAIL     "Subject: x\r\n\r\nbody\r\n"

struct found {
	size_t n, stop_at;
	char json[20][TRACE_JSON_MAX];
	struct id id[20], session[20];
};

static struct found *found;

static void
setup(void)
{
	found = calloc(1, sizeof(*found));
}

static void
teardown(void)
{
	free(found);
}

static bool
on_entry(void *arg, const struct trace_entry *entry)
{
	struct found *f = arg;

	ck_assert_uint_lt(f->n, 20);
	(void)snprintf(f->json[f->n], TRACE_JSON_MAX, "%.*s", SLICE_FMT(entry->json));
	f->id[f->n] = entry->id;
	f->session[f->n] = entry->session;
	f->n++;
	return f->stop_at == 0 || f->n < f->stop_at;
}

static uint64_t
look(const char *dir, const struct trace_query *q)
{
	const char *const dirs[] = { dir, "/nowhere/at/all" };
	struct err err = { 0 };
	uint64_t damaged;

	found->n = 0;
	ck_assert_msg(trace_read(dirs, 2, q, on_entry, found, &damaged, &err) == 0, "%s", err.msg);
	return damaged;
}

/* ---- what it tells --------------------------------------------------------------------------- */

static const char *
text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s != NULL ? s : "";
}

/* The first event that has key with that value. */
static const json_t *
event(const json_t *o, const char *key, const char *value)
{
	const json_t *events = json_object_get(o, "events");

	for (size_t i = 0; i < json_array_size(events); i++)
		if (strcmp(text(json_array_get(events, i), key), value) == 0)
			return json_array_get(events, i);
	ck_abort_msg("no event with %s = %s in %s", key, value, found->json[0]);
	return NULL;
}

START_TEST(a_trace_tells_stages_filters_facts_findings_and_the_verdict)
{
	struct config_filter filters[] = {
		SECTION("c", "connect", OPTION("finding", "C=1")),
		SECTION("l", "mail", OPTION("limit", "who/5/60"), OPTION("auth", "spf=pass")),
		SECTION("d", "mail", OPTION("asks", "zen.test"), OPTION("finding", "ZEN=4.5")),
		SECTION("e", "message", OPTION("fail", "yes")),
		SECTION("m", "message", OPTION("verdict", "accept")),
		SECTION("z", "message", OPTION("finding", "Z=9")),
	};
	struct trace_query q = { .has_id = true };
	struct world w;
	json_t *o;

	world_init(&w, "", filters, COUNT(filters));
	world_with_state(&w);
	world_with_trace(&w);
	ck_assert_int_eq(world_send(&w, MAIL), PIPELINE_GO_ON);
	world_end(&w, true);
	trace_flush(w.trace);
	q.has_id = false;
	q.from = SLICE("ALICE@sender.test");
	ck_assert_uint_eq(look(w.dir, &q), 0);
	ck_assert_uint_eq(found->n, 1);
	o = json_loads(found->json[0], 0, NULL);
	ck_assert_ptr_nonnull(o);
	ck_assert_str_eq(text(o, "ip"), "192.0.2.7");
	ck_assert_str_eq(text(o, "helo"), "client.test");
	ck_assert_str_eq(text(o, "from"), "alice@sender.test");
	ck_assert_str_eq(
	    json_string_value(json_array_get(json_object_get(o, "to"), 0)), "bob@example.test");
	ck_assert_str_eq(text(o, "verdict"), "accept");
	ck_assert_str_eq(text(o, "check"), "m");
	ck_assert_str_eq(text(o, "answer"), "250 2.0.0 kept");
	ck_assert_str_eq(text(o, "direction"), "inbound");
	ck_assert_uint_eq(strlen(text(o, "generation")), 8);
	ck_assert_uint_eq(strlen(text(o, "id")), ID_TEXT_LEN);
	ck_assert_double_eq(json_number_value(json_object_get(o, "score")), 5.5);
	ck_assert(json_is_true(json_object_get(o, "accepted")));
	ck_assert_str_eq(text(event(o, "finding", "C"), "filter"), "c");
	ck_assert_str_eq(text(event(o, "counter", "who"), "state"), "conforms");
	ck_assert_str_eq(text(event(o, "auth", "spf"), "result"), "pass");
	ck_assert_str_eq(text(event(o, "name", "zen.test"), "state"), "ok");
	ck_assert_str_eq(json_string_value(json_array_get(
			     json_object_get(event(o, "name", "zen.test"), "values"), 0)),
	    "127.0.0.2");
	ck_assert_ptr_nonnull(json_object_get(event(o, "name", "zen.test"), "ms"));
	ck_assert_str_eq(text(event(o, "filter", "e"), "status"), "error");
	ck_assert_str_eq(text(event(o, "verdict", "accept"), "filter"), "m");
	ck_assert_str_eq(text(event(o, "filter", "z"), "status"), "skipped");
	json_decref(o);
	world_fini(&w);
}
END_TEST

START_TEST(a_session_refused_before_data_has_a_trace)
{
	struct config_filter filters[] = { SECTION("r", "connect", OPTION("verdict", "reject")) };
	struct trace_query q = { .ip = SLICE("192.0.2.7") };
	struct world w;

	world_init(&w, "", filters, COUNT(filters));
	world_with_trace(&w);
	world_client(&w, "192.0.2.7", false);
	ck_assert_int_eq(world_connect(&w), PIPELINE_REJECT);
	pipeline_session_free(w.s);
	world_client(&w, "192.0.2.8", false);
	pipeline_note(
	    w.s, NULL, "recipient", SLICE("nobody@example.test"), SLICE("550 no such user"));
	pipeline_session_free(w.s);
	/* One that was not refused has none. */
	world_client(&w, "192.0.2.9", false);
	pipeline_session_free(w.s);
	w.s = NULL;
	trace_flush(w.trace);
	(void)look(w.dir, &q);
	ck_assert_uint_eq(found->n, 1);
	ASSERT_HAS(slice_str(found->json[0]), "\"verdict\":\"reject\",\"filter\":\"r\"");
	q.ip = SLICE("192.0.2.8");
	(void)look(w.dir, &q);
	ck_assert_uint_eq(found->n, 1);
	ASSERT_HAS(slice_str(found->json[0]), "{\"note\":\"recipient\",\"subject\":\"nobody@"
					      "example.test\",\"text\":\"550 no such user\"}");
	/* The session's id finds it too. */
	q = (struct trace_query){ .has_id = true, .id = found->session[0] };
	(void)look(w.dir, &q);
	ck_assert_uint_eq(found->n, 1);
	q = (struct trace_query){ 0 };
	(void)look(w.dir, &q);
	ck_assert_uint_eq(found->n, 2);
	world_fini(&w);
}
END_TEST

START_TEST(a_trace_is_bounded_and_says_that_it_was_cut)
{
	struct trace_query q = { 0 };
	char subject[900];
	struct world w;
	json_t *o;

	world_init(&w, "", NULL, 0);
	world_with_trace(&w);
	world_client(&w, "192.0.2.7", false);
	memset(subject, 'x', sizeof(subject));
	for (int i = 0; i < 200; i++)
		pipeline_note(w.s, NULL, "n", slice_of(subject, sizeof(subject)), SLICE("t"));
	ck_assert_int_eq(world_mail(&w, "a@sender.test"), PIPELINE_GO_ON);
	for (int i = 0; i < 200; i++)
		pipeline_note(
		    w.s, w.tx, "n", slice_of(subject, sizeof(subject)), SLICE("\"\\\n\xff\x01"));
	world_end(&w, false);
	trace_flush(w.trace);
	(void)look(w.dir, &q);
	ck_assert_uint_eq(found->n, 1);
	ck_assert_uint_gt(strlen(found->json[0]), 40000);
	ck_assert_uint_lt(strlen(found->json[0]), TRACE_JSON_MAX);
	o = json_loads(found->json[0], 0, NULL);
	ck_assert(json_is_true(json_object_get(o, "cut")));
	json_decref(o);
	world_fini(&w);
}
END_TEST

/* ---- files ----------------------------------------------------------------------------------- */

static char dir[64];

static void
make_dir(void)
{
	(void)snprintf(dir, sizeof(dir), "/tmp/relayd-trace-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void
remove_dir(void)
{
	char command[100];

	(void)snprintf(command, sizeof(command), "rm -rf %s", dir);
	ck_assert_int_eq(system(command), 0);
}

static struct trace *
open_trace(const char *role, unsigned index)
{
	struct err err = { 0 };
	struct trace *tr = trace_open(dir, role, index, &err);

	ck_assert_msg(tr != NULL, "%s", err.msg);
	return tr;
}

static void
today(const char *rest, char out[static 200])
{
	char iso[CLOCK_ISO_BYTES];

	clock_iso(clock_wall_ms(), iso);
	(void)snprintf(out, 200, "%s/%.10s.%s", dir, iso, rest);
}

static void
put(struct trace *tr, struct id id, const char *json)
{
	trace_append(tr, id, (struct id){ 0 }, slice_str(json));
	(void)usleep(2000); /* the next one is later, to the millisecond */
}

START_TEST(all_roles_are_read_in_the_order_of_time)
{
	struct trace *a, *b, *c;
	struct trace_query q = { .has_id = true, .id = id_new() };

	make_dir();
	a = open_trace("intake", 0);
	b = open_trace("intake", 1);
	c = open_trace("delivery", 0);
	put(a, q.id, "{\"n\":1}");
	put(c, q.id, "{\"n\":2}");
	put(b, id_new(), "{\"n\":0}");
	put(c, q.id, "{\"n\":3}");
	put(b, q.id, "{\"n\":4}");
	put(a, q.id, "{\"n\":5}");
	trace_close(a);
	trace_close(b);
	trace_close(c);
	ck_assert_uint_eq(look(dir, &q), 0);
	ck_assert_uint_eq(found->n, 5);
	for (size_t i = 0; i < 5; i++)
		ck_assert_int_eq(found->json[i][5], (char)('1' + i));
	found->stop_at = 2;
	(void)look(dir, &q);
	ck_assert_uint_eq(found->n, 2);
	remove_dir();
}
END_TEST

START_TEST(a_role_that_starts_again_goes_on_in_its_file)
{
	struct trace_query q = { 0 };
	struct trace *tr;
	char path[200];
	struct stat sb;

	make_dir();
	for (int i = 0; i < 3; i++) {
		tr = open_trace("intake", 0);
		put(tr, id_new(), "{\"n\":1}");
		trace_close(tr);
	}
	ck_assert_uint_eq(look(dir, &q), 0);
	ck_assert_uint_eq(found->n, 3);
	today("intake.0", path);
	ck_assert_int_eq(stat(path, &sb), 0);
	remove_dir();
}
END_TEST

START_TEST(a_torn_or_damaged_stretch_is_passed_over_and_counted)
{
	struct trace_query q = { 0 };
	struct trace *tr;
	char path[200];
	int fd;

	make_dir();
	tr = open_trace("intake", 0);
	put(tr, id_new(), "{\"n\":1}");
	trace_flush(tr);
	put(tr, id_new(), "{\"n\":2}");
	trace_close(tr);
	today("intake.0", path);
	fd = open(path, O_WRONLY);
	ck_assert_int_eq(pwrite(fd, "damage", 6, 64 + 40), 6);
	ck_assert_int_ge(lseek(fd, 0, SEEK_END), 0);
	ck_assert_int_eq(write(fd, "torn", 4), 4);
	(void)close(fd);
	tr = open_trace("intake", 0);
	put(tr, id_new(), "{\"n\":3}");
	trace_close(tr);
	ck_assert_uint_eq(look(dir, &q), 2);
	ck_assert_uint_eq(found->n, 2);
	ck_assert_str_eq(found->json[0], "{\"n\":2}");
	ck_assert_str_eq(found->json[1], "{\"n\":3}");
	remove_dir();
}
END_TEST

/* Appends one record of that type to today's file of intake 0, as nobody else writes it now. */
static void
append_record(uint16_t type, struct slice payload)
{
	uint8_t head[RECORD_FILE_BYTES];
	struct buf out = buf_heap(1 << 20);
	struct record_file file;
	char path[200];
	off_t at;
	int fd;

	today("intake.0", path);
	fd = open(path, O_RDWR);
	ck_assert_int_eq(pread(fd, head, sizeof(head), 0), sizeof(head));
	ck_assert_int_eq(
	    record_file_decode(slice_of(head, sizeof(head)), RECORD_TRACE, &file, NULL), 0);
	at = lseek(fd, 0, SEEK_END);
	record_append(&file, (uint64_t)at, type, payload, &out);
	ck_assert_int_eq(pwrite(fd, out.p, out.len, at), (ssize_t)out.len);
	(void)close(fd);
	buf_fini(&out);
}

START_TEST(entries_of_an_older_relayd_are_read_among_ours)
{
	char old[TRACE_HEAD_BYTES + 8] = "";
	struct trace_query q = { 0 };
	struct trace *tr;

	make_dir();
	trace_close(open_trace("intake", 0));
	memcpy(old + TRACE_HEAD_BYTES, "{\"n\":1}", 8 - 1);
	append_record(TRACE_RECORD, slice_of(old, sizeof(old) - 1));
	tr = open_trace("intake", 0);
	put(tr, id_new(), "{\"n\":2}");
	put(tr, id_new(), "{\"n\":3}");
	trace_close(tr);
	ck_assert_uint_eq(look(dir, &q), 0);
	ck_assert_uint_eq(found->n, 3);
	for (size_t i = 0; i < 3; i++)
		ck_assert_int_eq(found->json[i][5], (char)('1' + i));
	remove_dir();
}
END_TEST

static const struct {
	const char *bytes;
	size_t len, zeros; /* behind them */
} bad_blocks[] = {
	{ "", 0, 0 }, { "\1\0", 2, 0 }, /* half a length */
	{ "\0\0\0\0", 4, 0 },           /* shorter than an entry can be */
	{ "\47\0\0\0", 4, 39 },         /* the same by one */
	{ "\51\0\0\0", 4, 40 },         /* longer than the block by one */
	{ "\377\377\377\377", 4, 100 }, /* far longer */
	{ "\0\0\0\0\50\0\0\0", 8, 40 }, /* what looks like an entry behind one that cannot be */
	{ "", 0, TRACE_BLOCK_MAX + 1 }, /* a block that grows beyond its limit */
};

START_TEST(a_block_that_makes_no_sense_is_passed_over)
{
	size_t len = bad_blocks[_i].len + bad_blocks[_i].zeros;
	char *plain = calloc(1, len + 1), *packed = malloc(ZSTD_compressBound(len));
	struct trace_query q = { 0 };
	struct trace *tr;
	size_t n;

	memcpy(plain, bad_blocks[_i].bytes, bad_blocks[_i].len);
	n = ZSTD_compress(packed, ZSTD_compressBound(len), plain, len, 1);
	make_dir();
	tr = open_trace("intake", 0);
	put(tr, id_new(), "{\"n\":1}");
	trace_close(tr);
	append_record(TRACE_BLOCK, slice_of(packed, n));
	append_record(77, SLICE("a type to come"));
	append_record(TRACE_BLOCK, SLICE("no frame at all"));
	tr = open_trace("intake", 0);
	put(tr, id_new(), "{\"n\":2}");
	trace_close(tr);
	ck_assert_uint_eq(look(dir, &q), 0);
	ck_assert_uint_eq(found->n, 2);
	ck_assert_str_eq(found->json[0], "{\"n\":1}");
	ck_assert_str_eq(found->json[1], "{\"n\":2}");
	remove_dir();
	free(plain);
	free(packed);
}
END_TEST

START_TEST(a_file_that_is_no_trace_is_left_alone_and_another_name_taken)
{
	struct trace_query q = { 0 };
	struct trace *tr, *other;
	char path[200];
	int fd;

	make_dir();
	today("intake.0", path);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	ck_assert_int_eq(write(fd, "somebody's notes", 16), 16);
	(void)close(fd);
	tr = open_trace("intake", 0);
	other = open_trace("intake", 0); /* the first one still holds its file */
	put(tr, id_new(), "{\"n\":1}");
	put(other, id_new(), "{\"n\":2}");
	trace_close(tr);
	trace_close(other);
	ck_assert_uint_eq(look(dir, &q), 1);
	ck_assert_uint_eq(found->n, 2);
	remove_dir();
}
END_TEST

START_TEST(old_days_are_removed_and_nothing_else)
{
	static const char *const names[] = { "2020-01-01.intake.0", "2020-01-01.delivery.0",
		"notes.txt", "2020-01-01", "9999-12-31.intake.0" };
	static const bool stays[] = { false, false, true, true, true };
	char path[200];

	make_dir();
	for (size_t i = 0; i < COUNT(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		(void)close(open(path, O_WRONLY | O_CREAT, 0600));
	}
	trace_close(open_trace("intake", 0));
	for (size_t i = 0; i < COUNT(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		ck_assert_msg((access(path, F_OK) == 0) == stays[i], "%s", names[i]);
	}
	remove_dir();
}
END_TEST

static const struct {
	const char *from, *to;
	bool fits;
} queries[] = {
	{ "a@sender.test", "", true },
	{ "A@Sender.Test", "", true },
	{ "b@sender.test", "", false },
	{ "sender.test", "", true },
	{ "@sender.test", "", true },
	{ "ender.test", "", false },
	{ "", "bob@example.test", true },
	{ "", "carol@example.test", true },
	{ "", "example.test", true },
	{ "", "x@y.test", false },
	{ "a@sender.test", "carol@example.test", true },
	{ "b@sender.test", "carol@example.test", false },
};

START_TEST(addresses_and_domains_are_found)
{
	struct trace_query q = { .from = slice_str(queries[_i].from),
		.to = slice_str(queries[_i].to) };
	struct trace *tr;

	make_dir();
	tr = open_trace("intake", 0);
	put(tr, id_new(),
	    "{\"from\":\"a@sender.test\",\"to\":[\"bob@example.test\",\"Carol@Example.test\"]}");
	put(tr, id_new(), "not json at all");
	trace_close(tr);
	(void)look(dir, &q);
	ck_assert_uint_eq(found->n, queries[_i].fits);
	remove_dir();
}
END_TEST

START_TEST(a_single_recipient_is_found_too)
{
	struct trace_query q = { .to = SLICE("bob@example.test") };
	struct trace *tr;

	make_dir();
	tr = open_trace("delivery", 0);
	put(tr, id_new(), "{\"to\":\"bob@example.test\"}");
	trace_close(tr);
	(void)look(dir, &q);
	ck_assert_uint_eq(found->n, 1);
	q.since_ms = clock_wall_ms() + 1000;
	(void)look(dir, &q);
	ck_assert_uint_eq(found->n, 0);
	remove_dir();
}
END_TEST

UNIT_SUITE(pipeline_trace)
{
	tcase_add_checked_fixture(tc, setup, teardown);
	UNIT_TEST(a_trace_tells_stages_filters_facts_findings_and_the_verdict);
	UNIT_TEST(a_session_refused_before_data_has_a_trace);
	UNIT_TEST(a_trace_is_bounded_and_says_that_it_was_cut);
	UNIT_TEST(all_roles_are_read_in_the_order_of_time);
	UNIT_TEST(a_role_that_starts_again_goes_on_in_its_file);
	UNIT_TEST(a_torn_or_damaged_stretch_is_passed_over_and_counted);
	UNIT_TEST(entries_of_an_older_relayd_are_read_among_ours);
	UNIT_ROWS(a_block_that_makes_no_sense_is_passed_over, bad_blocks);
	UNIT_TEST(a_file_that_is_no_trace_is_left_alone_and_another_name_taken);
	UNIT_TEST(old_days_are_removed_and_nothing_else);
	UNIT_ROWS(addresses_and_domains_are_found, queries);
	UNIT_TEST(a_single_recipient_is_found_too);
}

/* tests/unit/review/imap_parse_test.c - IMAP commands: how they are cut out, read and refused. */
#include "unit/unit.h"

#include "relayd/review/imap/parse.h"
#include "relayd/review/imap/scan.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- scanning ---- */

static const struct {
	const char *in,
	    *events; /* C whole command, L literal asked for, ! long, N NUL, R refused */
	size_t len;  /* of in, or 0: up to its NUL */
} scans[] = {
	{ "a NOOP\r\n", "C[a NOOP]", 0 },
	{ "a NOOP\nb NOOP\n", "C[a NOOP]C[b NOOP]", 0 },
	{ "\r\na NOOP\r\n", "C[]C[a NOOP]", 0 },
	{ "a LOGIN {5}\r\nadmin {3}\r\nx y\r\n", "L5L3C[a LOGIN {5}\r\nadmin {3}\r\nx y]", 0 },
	{ "a LOGIN {5+}\r\nad\r\nn p\r\n", "L5C[a LOGIN {5+}\r\nad\r\nn p]", 0 },
	{ "a LOGIN {0}\r\n p\r\n", "L0C[a LOGIN {0}\r\n p]", 0 },
	{ "a X {3}x\r\n", "C[a X {3}x]", 0 },
	{ "a X {-3}\r\n", "C[a X {-3}]", 0 },
	{ "a X {99999999999}\r\n", "C[a X {99999999999}]", 0 },
	{ "a X {70000+}\r\n", "L70000", 0 }, /* refused: its octets are waited for */
	{ "a \0 b\r\nb NOOP\r\n", "NC[b NOOP]", 15 },
	{ "a \0 {3+}\r\n\n\nxrest\r\nb NOOP\r\n", "NC[b NOOP]", 27 },
	{ "unfinished", "", 0 },
};

/* Feeds in two pieces; literals over the limit are refused. */
static void
scan_cut(struct slice in, size_t cut, struct buf *out)
{
	struct slice pieces[2] = { slice_head(in, cut), slice_drop(in, cut) };
	struct imap_scanner sc;

	imap_scan_init(&sc);
	for (int i = 0; i < 2; i++)
		while (pieces[i].len > 0) {
			enum imap_scan event = imap_scan(&sc, &pieces[i]);
			struct slice text = imap_scan_command(&sc);

			switch (event) {
			case IMAP_SCAN_MORE:
				continue;
			case IMAP_SCAN_LITERAL:
				buf_printf(
				    out, "L%llu", (unsigned long long)imap_scan_literal_size(&sc));
				if (!imap_scan_accept(&sc))
					imap_scan_refuse(&sc);
				continue;
			case IMAP_SCAN_COMMAND:
				buf_printf(out, "C[%.*s]", SLICE_FMT(text));
				break;
			case IMAP_SCAN_LONG:
				buf_puts(out, "!");
				break;
			case IMAP_SCAN_REFUSED:
				buf_puts(out, "R");
				break;
			case IMAP_SCAN_NUL:
				buf_puts(out, "N");
				break;
			}
			imap_scan_next(&sc);
		}
	imap_scan_fini(&sc);
}

START_TEST(any_cut_gives_the_same_commands)
{
	struct slice in =
	    slice_of(scans[_i].in, scans[_i].len > 0 ? scans[_i].len : strlen(scans[_i].in));

	for (size_t cut = 0; cut <= in.len; cut++) {
		char storage[500];
		struct buf out = buf_over(storage, sizeof(storage) - 1);

		scan_cut(in, cut, &out);
		out.p[out.len] = '\0';
		ck_assert_str_eq(out.p, scans[_i].events);
	}
}
END_TEST

/* One octet below, at and above the limit, in one line and with literals. */
static const struct {
	size_t line;
	const char *tail, *events;
} longs[] = {
	{ IMAP_LINE_MAX - 2, "\r\nb NOOP\r\n", "C" },
	{ IMAP_LINE_MAX - 1, "\r\nb NOOP\r\n", "!C" },
	{ 3 * IMAP_LINE_MAX, "\r\nb NOOP\r\n", "!C" },
	{ IMAP_LINE_MAX, " {6+}\r\nab\r\ncdtail\r\nb NOOP\r\n",
	    "!C" }, /* its literal goes with it */
	{ 10, " {65536+}\r\n", "L" },
	{ 10, " {65537+}\r\n", "LR" },
};

START_TEST(a_command_over_a_limit_is_dropped_whole)
{
	struct buf in = buf_heap(1 << 20), out = buf_heap(2 << 20);
	char events[20] = "";

	while (in.len < longs[_i].line)
		buf_putc(&in, 'x');
	buf_puts(&in, longs[_i].tail);
	if (slice_ends(slice_str(longs[_i].tail), SLICE("+}\r\n"))) {
		while (in.len < longs[_i].line + 70000)
			buf_putc(&in, 'y');
		buf_puts(&in, "\r\n");
	}
	scan_cut(buf_slice(&in), in.len / 2, &out);
	for (size_t i = 0, n = 0; i < out.len && n < sizeof(events) - 1; i++) {
		if (strchr("CL!RN", out.p[i]) == NULL)
			continue;
		events[n++] = out.p[i];
		if (out.p[i] == 'C')
			i += slice_until(slice_drop(buf_slice(&out), i), ']').len;
	}
	ck_assert(strncmp(events, longs[_i].events, strlen(longs[_i].events)) == 0);
	buf_fini(&in);
	buf_fini(&out);
}
END_TEST

/* ---- parsing ---- */

static void
put_set(struct buf *out, const struct imap_set *set)
{
	for (size_t i = 0; i < set->n; i++)
		buf_printf(
		    out, "%s%u:%u", i > 0 ? "," : "", set->ranges[i].first, set->ranges[i].last);
}

static void
put_key(struct buf *out, const struct imap_key *key)
{
	buf_printf(out, "(%d", (int)key->kind);
	if (key->name.len > 0)
		buf_printf(out, " %.*s", SLICE_FMT(key->name));
	if (key->text.len > 0)
		buf_printf(out, " \"%.*s\"", SLICE_FMT(key->text));
	if (key->number > 0)
		buf_printf(out, " %lld", (long long)key->number);
	if (key->set.n > 0) {
		buf_putc(out, ' ');
		put_set(out, &key->set);
	}
	for (const struct imap_key *a = key->a; a != NULL; a = a->next)
		put_key(out, a);
	if (key->b != NULL)
		put_key(out, key->b);
	buf_putc(out, ')');
}

static void
put_command(struct buf *out, const struct imap_command *cmd)
{
	buf_printf(out, "%.*s|%d%s|", SLICE_FMT(cmd->tag), (int)cmd->verb, cmd->uid ? "u" : "");
	put_set(out, &cmd->set);
	buf_printf(out, "|%.*s|%.*s|%.*s|", SLICE_FMT(cmd->mailbox), SLICE_FMT(cmd->user),
	    SLICE_FMT(cmd->password));
	for (size_t i = 0; i < cmd->n_items; i++) {
		const struct imap_item *item = &cmd->items[i];

		buf_printf(out, "%s%d", i > 0 ? " " : "", (int)item->kind);
		if (item->kind == IMAP_ITEM_SECTION)
			buf_printf(out, "%.*s%s", SLICE_FMT(item->label), item->peek ? "p" : "");
		if (item->partial)
			buf_printf(out, "%u.%u", item->from, item->count);
	}
	buf_printf(out, "|%d%s %llu", (int)cmd->how, cmd->silent ? "s" : "",
	    (unsigned long long)cmd->flags);
	for (size_t i = 0; i < cmd->n_keywords; i++)
		buf_printf(out, " %.*s", SLICE_FMT(cmd->keywords[i]));
	if (cmd->key != NULL)
		put_key(out, cmd->key);
}

static const struct {
	const char *in;
	const char *out; /* NULL: it is refused */
} commands[] = {
	{ "a1 NOOP", "a1|1|||||"
		     "|0 0" },
	{ "a1 noop ", "a1|1|||||"
		      "|0 0" },
	{ "a1  NOOP", "a1|1|||||"
		      "|0 0" },
	{ "a1 NOOP x", NULL },
	{ "a1", NULL },
	{ "a1 ", NULL },
	{ " NOOP", NULL },
	{ "+ NOOP", NULL },
	{ "a+b NOOP", NULL },
	{ "a1 UID NOOP", NULL },
	{ "a1 FROBNICATE", NULL },
	{ "LOGIN admin admin", NULL },
	{ "a LOGIN admin secret", "a|4|||admin|secret||0 0" },
	{ "a LOGIN \"ad\\\"min\" {3}\r\na b", "a|4|||ad\"min|a b||0 0" },
	{ "a LOGIN {5+}\r\nadmin \"\"", "a|4|||admin|||0 0" },
	{ "a LOGIN admin", NULL },
	{ "a LOGIN admin \"x", NULL },
	{ "a LOGIN admin {9}\r\nshort", NULL },
	{ "a LOGIN admin {2}x", NULL },
	{ "a SELECT inbox", "a|7||inbox||||0 0" },
	{ "a SELECT \"a b\"", "a|7||a b||||0 0" },
	{ "a SELECT", NULL },
	{ "a SELECT a b", NULL },
	{ "a STATUS INBOX (MESSAGES UNSEEN)", "a|13||INBOX||||0 0" },
	{ "a STATUS INBOX (NOSUCH)", NULL },
	{ "a STATUS INBOX ()", NULL },
	{ "a STATUS INBOX MESSAGES", NULL },
	{ "a FETCH 1 FLAGS", "a|24|1:1||||0|0 0" },
	{ "a UID FETCH 1:3,7:* (UID FLAGS)", "a|24u|1:3,7:0||||1 0|0 0" },
	{ "a FETCH *:4 ALL", "a|24|0:4||||0 2 3 4|0 0" },
	{ "a FETCH 1 FAST", "a|24|1:1||||0 2 3|0 0" },
	{ "a FETCH 1 full", "a|24|1:1||||0 2 3 4 5|0 0" },
	{ "a FETCH 1 (ALL)", NULL },
	{ "a FETCH 1 BODY", "a|24|1:1||||5|0 0" },
	{ "a FETCH 1 BODY[]", "a|24|1:1||||7BODY[]|0 0" },
	{ "a FETCH 1 BODY.PEEK[]", "a|24|1:1||||7BODY[]p|0 0" },
	{ "a FETCH 1 BODY.PEEK", NULL },
	{ "a FETCH 1 body[1.2.header]", "a|24|1:1||||7BODY[1.2.HEADER]|0 0" },
	{ "a FETCH 1 BODY[1.MIME]", "a|24|1:1||||7BODY[1.MIME]|0 0" },
	{ "a FETCH 1 BODY[MIME]", NULL },
	{ "a FETCH 1 BODY[0]", NULL },
	{ "a FETCH 1 BODY[1.]", NULL },
	{ "a FETCH 1 BODY[1..2]", NULL },
	{ "a FETCH 1 BODY[X]", NULL },
	{ "a FETCH 1 BODY[TEXT]<5.10>", "a|24|1:1||||7BODY[TEXT]<5>5.10|0 0" },
	{ "a FETCH 1 BODY[TEXT]<5.0>", NULL },
	{ "a FETCH 1 BODY[TEXT]<5>", NULL },
	{ "a FETCH 1 BODY[HEADER.FIELDS (From \"To\")]",
	    "a|24|1:1||||7BODY[HEADER.FIELDS (From To)]|0 0" },
	{ "a FETCH 1 BODY[HEADER.FIELDS.NOT (\"a b\")]",
	    "a|24|1:1||||7BODY[HEADER.FIELDS.NOT (\"a b\")]|0 0" },
	{ "a FETCH 1 BODY[HEADER.FIELDS ()]", NULL },
	{ "a FETCH 1 BODY[HEADER.FIELDS From]", NULL },
	{ "a FETCH 1 (RFC822 RFC822.HEADER RFC822.TEXT RFC822.SIZE)",
	    "a|24|1:1||||7RFC822 7RFC822.HEADERp 7RFC822.TEXT 3|0 0" },
	{ "a FETCH 1 (FLAGS UID", NULL },
	{ "a FETCH 1 ()", NULL },
	{ "a FETCH 0 FLAGS", NULL },
	{ "a FETCH 1,, FLAGS", NULL },
	{ "a FETCH 4294967296 FLAGS", NULL },
	{ "a FETCH 1: FLAGS", NULL },
	{ "a FETCH FLAGS", NULL },
	{ "a STORE 1 FLAGS (\\Seen \\deleted $Junk)", "a|25|1:1|||||0 9 $Junk" },
	{ "a STORE 1 +FLAGS.SILENT \\Flagged", "a|25|1:1|||||1s 4" },
	{ "a STORE 1 -FLAGS ()", "a|25|1:1|||||2 0" },
	{ "a STORE 1 -FLAGS", NULL },
	{ "a STORE 1 FLAGS (\\Recent)", NULL },
	{ "a STORE 1 FLAGS (\\Nosuch)", NULL },
	{ "a STORE 1 FLAG (\\Seen)", NULL },
	{ "a COPY 1:2 Release", "a|27|1:2|Release||||0 0" },
	{ "a UID MOVE 5 Trash", "a|28u|5:5|Trash||||0 0" },
	{ "a EXPUNGE", "a|23||||||0 0" },
	{ "a EXPUNGE 1", NULL },
	{ "a UID EXPUNGE 1:*", "a|23u|1:0|||||0 0" },
	{ "a UID EXPUNGE", NULL },
	{ "a SEARCH ALL", "a|26||||||0 0(23(0))" },
	{ "a UID SEARCH 1:5 UNSEEN FROM \"x y\"",
	    "a|26u||||||0 0(23(19 1:5)(2)(16 FROM \"x y\"))" },
	{ "a SEARCH OR NOT SEEN (SUBJECT {1}\r\na TO b) LARGER 10",
	    "a|26||||||0 0(23(22(21(1))(23(16 SUBJECT \"a\")(16 TO \"b\")))(14 10))" },
	{ "a SEARCH CHARSET utf-8 TEXT x SENTSINCE 1-Feb-1994 KEYWORD $Junk",
	    "a|26||||||0 0(23(18 \"x\")(13 8797)(3 $Junk))" },
	{ "a SEARCH HEADER X-Foo \"\"", "a|26||||||0 0(23(16 X-Foo))" },
	{ "a SEARCH UID 3:* ON \"1-Jan-1970\"", "a|26||||||0 0(23(20 3:0)(9))" },
	{ "a SEARCH", NULL },
	{ "a SEARCH CHARSET utf-8", NULL },
	{ "a SEARCH NOT", NULL },
	{ "a SEARCH (SEEN", NULL },
	{ "a SEARCH ()", NULL },
	{ "a SEARCH NOSUCH", NULL },
	{ "a SEARCH ON 30-Feb-2024", NULL },
	{ "a SEARCH SUBJECT", NULL },
	{ "a CREATE \"anything (at", "a|16||||||0 0" },
	{ "a ID NIL", "a|3||||||0 0" },
	{ "a GETACL INBOX", "a|29||||||0 0" },
	{ "a AUTHENTICATE PLAIN", "a|5||||||0 0" },
	{ "a AUTHENTICATE PLAIN =", "a|5||||||0 0" },
	{ "a AUTHENTICATE", NULL },
};

START_TEST(a_command_is_read_or_refused_with_a_reason)
{
	struct arena arena = arena_of(IMAP_ARENA_BYTES);
	struct imap_command cmd;
	char storage[1000];
	struct buf out = buf_over(storage, sizeof(storage) - 1);
	const char *bad = imap_parse(slice_str(commands[_i].in), &arena, &cmd);

	ck_assert_msg((bad == NULL) == (commands[_i].out != NULL), "%s: %s", commands[_i].in,
	    bad != NULL ? bad : "accepted");
	if (bad != NULL) {
		ck_assert_uint_gt(strlen(bad), 10);
	} else {
		put_command(&out, &cmd);
		out.p[out.len] = '\0';
		ck_assert_str_eq(out.p, commands[_i].out);
	}
	arena_fini(&arena);
}
END_TEST

START_TEST(somebody_by_hand_is_told_about_tags)
{
	struct arena arena = arena_of(IMAP_ARENA_BYTES);
	struct imap_command cmd;

	ck_assert_ptr_nonnull(strstr(imap_parse(SLICE("LOGIN a b"), &arena, &cmd), "tag"));
	ck_assert_ptr_nonnull(strstr(imap_parse(SLICE("a FOO b"), &arena, &cmd), "FOO"));
	arena_fini(&arena);
}
END_TEST

static const struct {
	const char *before, *each, *after;
	size_t most; /* so many are taken, one more is refused */
} bounds[] = {
	{ "a SEARCH ", "NOT ", "ALL", IMAP_DEPTH_MAX - 1 },
	{ "a SEARCH ", "ALL ", "ALL", IMAP_KEYS_MAX - 2 },
	{ "a FETCH 1 (", "UID ", "UID)", IMAP_ITEMS_MAX - 1 },
	{ "a FETCH 1 BODY[HEADER.FIELDS (", "x ", "x)]", IMAP_FIELDS_MAX - 1 },
	{ "a FETCH 1 BODY[", "1.", "1]", IMAP_DEPTH_MAX - 1 },
	{ "a FETCH ", "1,", "1 UID", IMAP_RANGES_MAX - 1 },
	{ "a STORE 1 FLAGS (", "k ", "k)", IMAP_FLAGS_MAX - 1 },
};

START_TEST(every_list_is_bounded)
{
	for (size_t extra = 0; extra < 2; extra++) {
		struct arena arena = arena_of(IMAP_ARENA_BYTES);
		struct buf in = buf_heap(1 << 20);
		struct imap_command cmd;
		const char *bad;

		buf_puts(&in, bounds[_i].before);
		for (size_t i = 0; i < bounds[_i].most + extra; i++)
			buf_puts(&in, bounds[_i].each);
		buf_puts(&in, bounds[_i].after);
		bad = imap_parse(buf_slice(&in), &arena, &cmd);
		ck_assert_msg((bad == NULL) == (extra == 0), "%s", bad != NULL ? bad : "accepted");
		arena_fini(&arena);
		buf_fini(&in);
	}
}
END_TEST

/* ---- sets ---- */

static const struct {
	const char *in;
	uint32_t max;
	const char *out;
} sets[] = {
	{ "1", 5, "1:1" },
	{ "2:4", 5, "2:4" },
	{ "4:2", 5, "2:4" },
	{ "*", 5, "5:5" },
	{ "3:*", 5, "3:5" },
	{ "9:*", 5, "5:9" },
	{ "5,1,3", 5, "1:1,3:3,5:5" },
	{ "1:3,2:5,7", 9, "1:5,7:7" },
	{ "1,2,3", 9, "1:3" },
	{ "1:*", 0, "" },
	{ "1,*", 0, "1:1" },
	{ "1:4294967295,7", 9, "1:4294967295" },
};

START_TEST(a_set_is_brought_into_order)
{
	struct arena arena = arena_of(1000);
	struct slice in = slice_str(sets[_i].in);
	char storage[100];
	struct buf out = buf_over(storage, sizeof(storage) - 1);
	struct imap_set set;

	ck_assert(imap_set_parse(&in, &arena, &set));
	ck_assert_uint_eq(in.len, 0);
	imap_set_resolve(&set, sets[_i].max);
	put_set(&out, &set);
	out.p[out.len] = '\0';
	ck_assert_str_eq(out.p, sets[_i].out);
	for (uint32_t n = 1; n < 12; n++) {
		bool in_set = false;

		for (size_t i = 0; i < set.n; i++)
			in_set = in_set || (n >= set.ranges[i].first && n <= set.ranges[i].last);
		ck_assert_int_eq(imap_set_has(&set, n), in_set);
	}
	arena_fini(&arena);
}
END_TEST

START_TEST(numbers_are_written_as_a_short_set)
{
	char storage[100];
	struct buf out = buf_over(storage, sizeof(storage));
	struct imap_set_writer w = { .out = &out };
	static const uint32_t numbers[] = { 1, 2, 3, 7, 9, 10 };

	for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
		imap_set_put(&w, numbers[i]);
	imap_set_end(&w);
	ck_assert(slice_eq(buf_slice(&out), SLICE("1:3,7,9:10")));
}
END_TEST

UNIT_SUITE(imap_parse)
{
	UNIT_ROWS(any_cut_gives_the_same_commands, scans);
	UNIT_ROWS(a_command_over_a_limit_is_dropped_whole, longs);
	UNIT_ROWS(a_command_is_read_or_refused_with_a_reason, commands);
	UNIT_TEST(somebody_by_hand_is_told_about_tags);
	UNIT_ROWS(every_list_is_bounded, bounds);
	UNIT_ROWS(a_set_is_brought_into_order, sets);
	UNIT_TEST(numbers_are_written_as_a_short_set);
}

/* tests/unit/mail/mime_test.c - the tree of parts: shapes, offsets, limits, outside messages. */
#include "unit/unit.h"

#include "unit/mail/mime_check.h"

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* "multipart/mixed(text/plain text/html)", and a message with its child in []. */
static void
shape_of(const struct mime *mime, uint32_t index, struct buf *out)
{
	const struct mime_part *p = &mime->parts[index];

	buf_printf(out, "%.*s/%.*s", SLICE_FMT(p->type), SLICE_FMT(p->subtype));
	if (p->kind == MIME_LEAF)
		return;
	buf_putc(out, p->kind == MIME_MULTIPART ? '(' : '[');
	for (uint32_t i = p->first_child; i != MIME_NONE; i = mime->parts[i].next) {
		if (i != p->first_child)
			buf_putc(out, ' ');
		shape_of(mime, i, out);
	}
	buf_putc(out, p->kind == MIME_MULTIPART ? ')' : ']');
}

#define MIXED "Content-Type: multipart/mixed; boundary=b\r\n\r\n"

static const struct {
	const char *in, *shape;
	unsigned flags;
} shapes[] = {
	{ "", "text/plain", 0 },
	{ "Subject: x\r\n\r\nbody\r\n", "text/plain", 0 },
	{ "Hello World!\r\n", "text/plain", 0 },
	{ MIXED "--b\r\n\r\nx\r\n--b--\r\n", "multipart/mixed(text/plain)", 0 },
	{ MIXED "pre\r\n--b\r\n\r\nx\r\n--b\r\nContent-Type: text/html\r\n\r\ny\r\n--b--\r\npost",
	    "multipart/mixed(text/plain text/html)", 0 },
	{ MIXED "--b\n\nx\n--b--\n", "multipart/mixed(text/plain)", 0 },
	{ MIXED "--b \t\r\n\r\nx\r\n--b-- \r\n", "multipart/mixed(text/plain)", 0 },
	{ MIXED "--b\r\n\r\nx\r\n--bb\r\n\r\ny\r\n", "multipart/mixed(text/plain)", MIME_UNCLOSED },
	{ MIXED "--b\r\n", "multipart/mixed(text/plain)", MIME_UNCLOSED },
	{ MIXED "--b", "multipart/mixed(text/plain)", MIME_UNCLOSED },
	{ MIXED "--b--\r\n", "multipart/mixed", 0 },
	{ MIXED "no delimiter\r\n", "multipart/mixed", 0 },
	{ "Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n", "multipart/mixed", 0 },
	{ "Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n\r\nx\r\n----\r\n",
	    "multipart/mixed", 0 },
	{ "Content-Type: multipart/mixed; boundary*0=a; "
	  "boundary*1=b\r\n\r\n--ab\r\n\r\nx\r\n--ab--\r\n",
	    "multipart/mixed(text/plain)", 0 },
	{ "Content-Type: multipart/mixed; boundary=\"b \"\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n",
	    "multipart/mixed(text/plain)", 0 },
	{ "Content-Type: multipart/mixed boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n",
	    "multipart/mixed(text/plain)", 0 },
	{ "Content-Type: (c) Multipart (c) / (c) Mixed (c); (c) boundary (c) = (c) b "
	  "(c)\r\n\r\n--b\r\n\r\nx\r\n--b--",
	    "Multipart/Mixed(text/plain)", 0 },
	{ "Content-Type: text\r\n\r\nx", "text/plain", 0 },
	{ "Content-Type: text/html\r\nContent-Type: text/plain\r\n\r\nx", "text/html",
	    MIME_REPEATED },
	{ "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nFrom: "
	  "x\r\n\r\nx\r\n--b--\r\n",
	    "multipart/digest(message/rfc822[text/plain])", 0 },
	{ "Content-Type: message/rfc822\r\n\r\n" MIXED "--b\r\n\r\nx\r\n--b--\r\n",
	    "message/rfc822[multipart/mixed(text/plain)]", 0 },
	{ "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nWDogeQo=\r\n",
	    "message/rfc822", 0 },
	{ "Content-Type: message/rfc822\r\n", "message/rfc822[text/plain]", 0 },
	{ MIXED "--b\r\nContent-Type: multipart/alternative; "
		"boundary=c\r\n\r\n--c\r\n\r\nx\r\n--b\r\n\r\ny\r\n--b--",
	    "multipart/mixed(multipart/alternative(text/plain) text/plain)", MIME_UNCLOSED },
	{ MIXED "--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n--b\r\n\r\ny\r\n--b--",
	    "multipart/mixed(message/rfc822[text/plain] text/plain)", 0 },
	/* RFC 2046 section 5.1.2: an inner boundary that begins as the outer one */
	{ "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: multipart/mixed; "
	  "boundary=ab\r\n\r\n"
	  "--ab\r\n\r\nx\r\n--ab--\r\n--a--\r\n",
	    "multipart/mixed(multipart/mixed(text/plain))", 0 },
	/* the same boundary within: the inner one wins */
	{ MIXED "--b\r\n" MIXED "--b\r\n\r\nx\r\n--b--\r\n--b--\r\n",
	    "multipart/mixed(multipart/mixed(text/plain))", 0 },
};

START_TEST(a_message_has_its_shape)
{
	struct arena arena = arena_of(1 << 20);
	char storage[500];
	struct buf out = buf_over(storage, sizeof(storage) - 1);
	struct mime mime;

	ck_assert_int_eq(mime_parse(slice_str(shapes[_i].in), &arena, &mime), 0);
	shape_of(&mime, 0, &out);
	out.p[out.len] = '\0';
	ck_assert_str_eq(out.p, shapes[_i].shape);
	ck_assert_uint_eq(mime.flags, shapes[_i].flags);
	mime_check(&mime);
	arena_fini(&arena);
}
END_TEST

/* Example of RFC 2046 section 5.1.1. */
static const char simple[] = "From: Nathaniel Borenstein <nsb@bellcore.com>\r\n"
			     "To: Ned Freed <ned@innosoft.com>\r\n"
			     "Date: Sun, 21 Mar 1993 23:56:48 -0800 (PST)\r\n"
			     "Subject: Sample message\r\n"
			     "MIME-Version: 1.0\r\n"
			     "Content-type: multipart/mixed; boundary=\"simple boundary\"\r\n"
			     "\r\n"
			     "This is the preamble.  It is to be ignored.\r\n"
			     "\r\n"
			     "--simple boundary\r\n"
			     "\r\n"
			     "This is implicitly typed plain US-ASCII text.\r\n"
			     "It does NOT end with a linebreak.\r\n"
			     "--simple boundary\r\n"
			     "Content-type: text/plain; charset=us-ascii\r\n"
			     "\r\n"
			     "This is explicitly typed plain US-ASCII text.\r\n"
			     "It DOES end with a linebreak.\r\n"
			     "\r\n"
			     "--simple boundary--\r\n"
			     "\r\n"
			     "This is the epilogue.  It is also to be ignored.\r\n";

START_TEST(the_example_of_rfc_2046_has_exact_parts)
{
	struct arena arena = arena_of(1 << 20);
	const struct mime_part *p;
	struct mime mime;
	struct slice m = SLICE("");

	ck_assert_int_eq(mime_parse(slice_str(simple), &arena, &mime), 0);
	ck_assert_uint_eq(mime.n_parts, 3);
	p = &mime.parts[0];
	ck_assert_uint_eq(p->header_lines, 7);
	ck_assert_uint_eq(p->body_lines, 15);
	m = slice_head(slice_drop(mime.bytes, p->body), p->preamble_end - p->body);
	ck_assert(slice_eq(m, SLICE("This is the preamble.  It is to be ignored.\r\n\r\n")));
	ck_assert(slice_starts(slice_drop(mime.bytes, p->epilogue), SLICE("\r\nThis is the epi")));
	p = &mime.parts[1];
	ck_assert(
	    slice_eq(mime_body(&mime, p), SLICE("This is implicitly typed plain US-ASCII text.\r\n"
						"It does NOT end with a linebreak.")));
	ck_assert_uint_eq(p->body_lines, 1);
	ck_assert_uint_eq(p->header_lines, 1);
	p = &mime.parts[2];
	ck_assert(slice_ends(mime_body(&mime, p), SLICE("with a linebreak.\r\n")));
	ck_assert_uint_eq(p->body_lines, 2);
	ck_assert_uint_eq(p->header_lines, 2);
	ck_assert(slice_eq(mime_param_raw(p->params, p->n_params, "CHARSET"), SLICE("us-ascii")));
	arena_fini(&arena);
}
END_TEST

/* RFC 3501 section 6.4.5: the part numbers of its example, told by a marker in each part. */
static const char numbered[] =
    "Content-Type: multipart/mixed; boundary=A\r\n\r\n"
    "--A\r\nX: 1\r\n\r\n1\r\n"
    "--A\r\nX: 2\r\nContent-Type: application/octet-stream\r\n\r\n2\r\n"
    "--A\r\nX: 3\r\nContent-Type: message/rfc822\r\n\r\n"
    "Content-Type: multipart/mixed; boundary=B\r\n\r\n"
    "--B\r\nX: 3.1\r\n\r\n31\r\n"
    "--B\r\nX: 3.2\r\nContent-Type: application/octet-stream\r\n\r\n32\r\n--B--\r\n"
    "--A\r\nX: 4\r\nContent-Type: multipart/mixed; boundary=C\r\n\r\n"
    "--C\r\nX: 4.1\r\nContent-Type: image/gif\r\n\r\n41\r\n"
    "--C\r\nX: 4.2\r\nContent-Type: message/rfc822\r\n\r\n"
    "Content-Type: multipart/mixed; boundary=D\r\n\r\n"
    "--D\r\nX: 4.2.1\r\n\r\n421\r\n"
    "--D\r\nX: 4.2.2\r\nContent-Type: multipart/alternative; boundary=E\r\n\r\n"
    "--E\r\nX: 4.2.2.1\r\n\r\n4221\r\n--E\r\nX: 4.2.2.2\r\nContent-Type: "
    "text/richtext\r\n\r\n4222\r\n--E--\r\n"
    "--D--\r\n--C--\r\n--A--\r\n";

static const struct {
	const char *number; /* NULL at x: there is no such part */
	bool there;
} numbers[] = {
	{ "1", true },
	{ "2", true },
	{ "3", true },
	{ "3.1", true },
	{ "3.2", true },
	{ "4", true },
	{ "4.1", true },
	{ "4.2", true },
	{ "4.2.1", true },
	{ "4.2.2", true },
	{ "4.2.2.1", true },
	{ "4.2.2.2", true },
	{ "5", false },
	{ "0", false },
	{ "1.1", false },
	{ "3.3", false },
	{ "4.2.2.2.1", false },
	{ "3.1.1", false },
};

START_TEST(parts_are_numbered_as_imap_does)
{
	struct arena arena = arena_of(1 << 20);
	uint32_t number[8];
	size_t n = 0;
	const struct mime_part *p;
	char want[40];
	struct mime mime;

	for (const char *s = numbers[_i].number; *s != '\0'; s++)
		if (*s != '.')
			number[n++] = (uint32_t)(*s - '0');
	ck_assert_int_eq(mime_parse(slice_str(numbered), &arena, &mime), 0);
	p = mime_numbered(&mime, number, n);
	ck_assert_int_eq(p != NULL, numbers[_i].there);
	if (p != NULL) {
		(void)snprintf(want, sizeof(want), "X: %s\r\n", numbers[_i].number);
		ck_assert(slice_starts(mime_header(&mime, p), slice_str(want)));
	}
	ck_assert(mime_numbered(&mime, NULL, 0) == &mime.parts[0]);
	arena_fini(&arena);
}
END_TEST

START_TEST(part_1_of_a_simple_message_is_its_body)
{
	struct arena arena = arena_of(1 << 20);
	uint32_t one[2] = { 1, 1 };
	struct mime mime;

	ck_assert_int_eq(mime_parse(SLICE("A: b\r\n\r\nx"), &arena, &mime), 0);
	ck_assert(mime_numbered(&mime, one, 1) == &mime.parts[0]);
	ck_assert(mime_numbered(&mime, one, 2) == NULL);
	arena_reset(&arena);
	/* a message whose body is a message: its text is part 1.1 */
	ck_assert_int_eq(
	    mime_parse(SLICE("Content-Type: message/rfc822\r\n\r\nA: b\r\n\r\nx"), &arena, &mime),
	    0);
	ck_assert(mime_numbered(&mime, one, 1) == &mime.parts[0]);
	ck_assert(mime_numbered(&mime, one, 2) == &mime.parts[1]);
	arena_fini(&arena);
}
END_TEST

static const struct {
	const char *body, *name, *value; /* value NULL: no such parameter */
} params[] = {
	{ "text/plain; charset=utf-8", "charset", "utf-8" },
	{ "text/plain; charset=\"utf-8\" (comment)", "charset", "utf-8" },
	{ "text/plain; CHARSET=utf-8", "charset", "utf-8" },
	{ "text/plain;charset = utf-8;format=flowed", "format", "flowed" },
	{ "text/plain", "charset", NULL },
	{ "x/y; name=\"a \\\"q\\\" b\"", "name", "a \"q\" b" },
	{ "x/y; name=\"folded\r\n name\"", "name", "folded name" },
	{ "x/y; name=my file.pdf", "name", "my file.pdf" },
	{ "x/y; name=my file.pdf; x=y", "name", "my file.pdf" },
	{ "x/y; a=b name=c", "name", "c" },
	{ "x/y; a=b name=c", "a", "b" },
	{ "x/y;; ;name=c;", "name", "c" },
	{ "x/y; name=a; name=b", "name", "a" },
	{ "x/y; name=\"never closed", "name", "never closed" },
	{ "x/y; name=", "name", "" },
	{ "x/y; name", "name", NULL },
	/* RFC 2231 section 3 and 4 */
	{ "message/external-body; access-type=URL;\r\n URL*0=\"ftp://\";\r\n"
	  " URL*1=\"cs.utk.edu/pub/moore/bulk-mailer/bulk-mailer.tar\"",
	    "url", "ftp://cs.utk.edu/pub/moore/bulk-mailer/bulk-mailer.tar" },
	{ "application/x-stuff; title*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A", "title",
	    "This is ***fun***" },
	{ "application/x-stuff;\r\n title*0*=us-ascii'en'This%20is%20even%20more%20;\r\n"
	  " title*1*=%2A%2A%2Afun%2A%2A%2A%20;\r\n title*2=\"isn't it!\"",
	    "title", "This is even more ***fun*** isn't it!" },
	{ "x/y; name*1=b; name*0=a", "name", "ab" },
	{ "x/y; name*0=a; name*2=c", "name", "a" },
	{ "x/y; name*=utf-8''%C3%A4; name=a", "name", "\xc3\xa4" },
	{ "x/y; name*=iso-8859-1'de'%E4", "name", "\xc3\xa4" },
	{ "x/y; name*=no-quotes", "name", "no-quotes" },
	{ "x/y; name=\"=?utf-8?q?=C3=A4?=\"", "name", "\xc3\xa4" },
	{ "x/y; names=a", "name", NULL },
	{ "x/y; name*x=a", "name", NULL },
};

START_TEST(a_parameter_is_found_and_decoded)
{
	struct arena arena = arena_of(1 << 16);
	char storage[200];
	struct buf out = buf_over(storage, sizeof(storage) - 1);
	struct mime_param *p;
	struct slice value;
	size_t n;
	bool found;

	ck_assert_int_eq(mime_value(slice_str(params[_i].body), &arena, &value, &p, &n), 0);
	ck_assert(slice_has(value, '/'));
	found = mime_param(p, n, params[_i].name, &out);
	out.p[out.len] = '\0';
	ck_assert_int_eq(found, params[_i].value != NULL);
	ck_assert_str_eq(out.p, found ? params[_i].value : "");
	arena_fini(&arena);
}
END_TEST

START_TEST(the_number_of_parameters_is_bounded)
{
	struct arena arena = arena_of(1 << 20);
	struct buf body = buf_heap(1 << 20);
	struct mime_param *p;
	struct slice value;
	size_t n;

	buf_puts(&body, "x/y");
	for (int i = 0; i < 5000; i++)
		buf_printf(&body, "; name*%d=a", i);
	ck_assert_int_eq(mime_value(buf_slice(&body), &arena, &value, &p, &n), 0);
	ck_assert_uint_eq(n, MIME_PARAMS_MAX);
	buf_fini(&body);
	arena_fini(&arena);
}
END_TEST

START_TEST(depth_and_number_of_parts_are_bounded)
{
	struct arena arena = arena_of(8 << 20);
	struct buf in = buf_heap(8 << 20);
	struct mime mime;

	for (int i = 0; i < MIME_DEPTH_MAX + 20; i++)
		buf_puts(&in, "Content-Type: message/rfc822\r\n\r\n");
	ck_assert_int_eq(mime_parse(buf_slice(&in), &arena, &mime), 0);
	ck_assert_uint_eq(mime.flags, MIME_TOO_DEEP);
	ck_assert_uint_eq(mime.n_parts, MIME_DEPTH_MAX + 1);
	mime_check(&mime);
	buf_reset(&in);
	arena_reset(&arena);
	buf_puts(&in, MIXED);
	for (int i = 0; i < MIME_PARTS_MAX + 100; i++)
		buf_puts(&in, "--b\r\n\r\nx\r\n");
	buf_puts(&in, "--b--\r\n");
	ck_assert_int_eq(mime_parse(buf_slice(&in), &arena, &mime), 0);
	ck_assert_uint_eq(mime.flags, MIME_TOO_MANY);
	ck_assert_uint_eq(mime.n_parts, MIME_PARTS_MAX);
	mime_check(&mime);
	arena_fini(&arena);
	arena = arena_of(1000);
	ck_assert_int_eq(mime_parse(buf_slice(&in), &arena, &mime), -1);
	arena_fini(&arena);
	buf_fini(&in);
}
END_TEST

static const char *const repeated[] = { MIXED "--b\r\n", MIXED "--", "--b\r\n", "=?x?q?", "(",
	"a=", "Content-Type: multipart/mixed; boundary=\"", "; a*0*=%", "\r\n ", "<@" };

START_TEST(hostile_messages_take_linear_time)
{
	struct buf in = buf_heap(8 << 20);
	struct arena arena = arena_of(64 << 20);
	struct mime mime;

	buf_puts(&in, MIXED);
	while (in.len < (2 << 20))
		buf_puts(&in, repeated[_i]);
	ck_assert_int_eq(mime_parse(buf_slice(&in), &arena, &mime), 0);
	mime_check(&mime);
	arena_reset(&arena);
	buf_reset(&in);
	buf_puts(&in, "Content-Type: x/y; ");
	while (in.len < (2 << 20))
		buf_puts(&in, repeated[_i]);
	ck_assert_int_eq(mime_parse(buf_slice(&in), &arena, &mime), 0);
	arena_fini(&arena);
	buf_fini(&in);
}
END_TEST

/* ---- outside data: SHARED_DATA_DIR/mime-rfc and mime-malformed, skipped where missing ---- */

static struct buf
read_file(const char *path)
{
	struct buf b = buf_heap(1 << 20);
	FILE *f = fopen(path, "rb");
	char chunk[4096];
	size_t n;

	ck_assert_msg(f != NULL, "%s", path);
	while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0)
		buf_put(&b, slice_of(chunk, n));
	(void)fclose(f); /* only read */
	return b;
}

static struct buf
with_crlf(struct slice in)
{
	struct buf b = buf_heap(2 << 20);

	for (size_t i = 0; i < in.len; i++) {
		if (in.p[i] == '\n' && (i == 0 || in.p[i - 1] != '\r'))
			buf_putc(&b, '\r');
		buf_putc(&b, in.p[i]);
	}
	return b;
}

/* Another parser's leaf texts, in order, without white space: bodies of Text and Html parts, those
 * of messages within messages too. */
static void
peer_text(json_t *message, struct buf *out)
{
	json_t *part;
	size_t i;

	json_array_foreach(json_object_get(message, "parts"), i, part)
	{
		json_t *body = json_object_get(part, "body"),
		       *nested = json_object_get(body, "Message");
		const char *text = json_string_value(json_object_get(body, "Text"));
		const char *html = json_string_value(json_object_get(body, "Html"));

		if (nested != NULL)
			peer_text(nested, out);
		for (const char *s = text != NULL ? text : html; s != NULL && *s != '\0'; s++)
			if (strchr(" \t\r\n", *s) == NULL)
				buf_putc(out, *s);
	}
}

static void
our_text(const struct mime *mime, struct buf *out)
{
	struct buf text = buf_heap(1 << 20);

	for (size_t i = 0; i < mime->n_parts; i++) {
		if (mime_is_wrapped(&mime->parts[i])) {
			struct arena arena = arena_of(1 << 20);
			struct buf bytes = buf_heap(1 << 20);
			struct mime nested;

			ck_assert_int_eq(
			    mime_unwrap(mime, &mime->parts[i], &bytes, &arena, &nested), 0);
			our_text(&nested, out);
			buf_fini(&bytes);
			arena_fini(&arena);
		}
		if (!mime_is_text(&mime->parts[i]))
			continue;
		buf_reset(&text);
		mime_text(mime, &mime->parts[i], &text);
		for (size_t k = 0; k < text.len; k++)
			if (strchr(" \t\r\n", text.p[k]) == NULL)
				buf_putc(out, text.p[k]);
	}
	buf_fini(&text);
}

/* Where we differ from the peer on purpose, and why. */
static const char *const differs[] = {
	"mime-rfc/000",       /* bodies said to be base64 hold none: the peer shows them as text */
	"mime-malformed/002", /* equal text, but as a multipart without parts */
	"mime-malformed/004", /* "--ab" is no delimiter of "a" (RFC 2046 section 5.1.1) */
	"mime-malformed/008", /* the peer takes "--ab" for the inner "a" */
	"mime-malformed/012", /* the peer misses the outer delimiter inside an inner message */
	"mime-malformed/016", /* the same, with longer boundaries */
	"mime-malformed/020", /* the text before the first delimiter is a preamble to us */
	"mime-malformed/022", /* a message/rfc822 without a header: ours has a text/plain within */
};

static bool
is_listed(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(differs); i++)
		if (strncmp(name, differs[i], strlen(differs[i])) == 0)
			return true;
	return false;
}

static void
compare_case(const char *name, struct slice message, const char *json_path)
{
	struct arena arena = arena_of(4 << 20);
	struct buf ours = buf_heap(1 << 20), theirs = buf_heap(1 << 20);
	json_error_t error;
	json_t *peer = json_load_file(json_path, 0, &error);
	struct mime mime;

	ck_assert_msg(peer != NULL, "%s: %s", json_path, error.text);
	ck_assert_int_eq(mime_parse(message, &arena, &mime), 0);
	mime_check(&mime);
	our_text(&mime, &ours);
	peer_text(peer, &theirs);
	if (!is_listed(name))
		ck_assert_msg(slice_eq(buf_slice(&ours), buf_slice(&theirs)),
		    "%s: ours is %.*s, the peer's %.*s", name, SLICE_FMT(buf_slice(&ours)),
		    SLICE_FMT(buf_slice(&theirs)));
	json_decref(peer);
	buf_fini(&ours);
	buf_fini(&theirs);
	arena_fini(&arena);
}

static const char *const folders[] = { "mime-rfc", "mime-malformed" };

START_TEST(outside_messages_give_the_text_that_another_parser_sees)
{
	char dir_path[1024], path[2048], name[600];
	struct dirent *entry;
	size_t n = 0;
	DIR *dir;

	(void)snprintf(dir_path, sizeof(dir_path), "%s/%s", SHARED_DATA_DIR, folders[_i]);
	dir = opendir(dir_path);
	if (dir == NULL) {
		printf("skipped: %s is not there\n", dir_path);
		return;
	}
	while ((entry = readdir(dir)) != NULL) {
		struct buf lf, crlf;

		if (!slice_ends(slice_str(entry->d_name), SLICE(".eml")))
			continue;
		(void)snprintf(path, sizeof(path), "%s/%s", dir_path, entry->d_name);
		lf = read_file(path);
		crlf = with_crlf(buf_slice(&lf));
		(void)snprintf(name, sizeof(name), "%s/%.3s", folders[_i], entry->d_name);
		(void)snprintf(path, sizeof(path), "%s/%.3s.json", dir_path, entry->d_name);
		compare_case(name, buf_slice(&lf), path);
		(void)snprintf(path, sizeof(path), "%s/%.3s.crlf.json", dir_path, entry->d_name);
		compare_case(name, buf_slice(&crlf), path);
		buf_fini(&lf);
		buf_fini(&crlf);
		n++;
	}
	(void)closedir(dir); /* read only */
	ck_assert_uint_ge(n, 10);
}
END_TEST

/* Parses a file both ways; its text must have content where its body has. */
static void
check_corpus_file(const char *path)
{
	struct arena arena = arena_of(MIME_ARENA_BYTES(1 << 20));
	struct buf lf = read_file(path), crlf = with_crlf(buf_slice(&lf)), text = buf_heap(4 << 20);
	struct mime mime, again;

	ck_assert_int_eq(mime_parse(buf_slice(&lf), &arena, &mime), 0);
	mime_check(&mime);
	ck_assert_int_eq(mime_parse(buf_slice(&crlf), &arena, &again), 0);
	mime_check(&again);
	ck_assert_msg(mime.n_parts == again.n_parts, "%s: %zu parts with LF, %zu with CRLF", path,
	    mime.n_parts, again.n_parts);
	for (size_t i = 0; i < mime.n_parts; i++)
		ck_assert_uint_eq(mime.parts[i].body_lines, again.parts[i].body_lines);
	our_text(&mime, &text);
	ck_assert_msg(text.len > 0 || mime.flags != 0, "%s: no text", path);
	buf_fini(&text);
	buf_fini(&lf);
	buf_fini(&crlf);
	arena_fini(&arena);
}

START_TEST(real_mail_parses_the_same_with_lf_and_crlf)
{
	const char *tar = SHARED_DATA_DIR "/sa-corpus-dev/messages.tar.gz";
	char dir[] = "/tmp/relayd-corpus-XXXXXX", command[2048], path[2048];
	size_t n = 0;
	FILE *list;

	if (access(tar, R_OK) < 0) {
		printf("skipped: %s is not there\n", tar);
		return;
	}
	ck_assert(mkdtemp(dir) != NULL);
	(void)snprintf(command, sizeof(command), "tar -xzf '%s' -C %s && find %s -name '*.eml'",
	    tar, dir, dir);
	list = popen(command, "r");
	ck_assert(list != NULL);
	while (fgets(path, sizeof(path), list) != NULL) {
		path[strcspn(path, "\n")] = '\0';
		check_corpus_file(path);
		n++;
	}
	ck_assert_int_eq(pclose(list), 0);
	ck_assert_uint_eq(n, 400);
	(void)snprintf(command, sizeof(command), "rm -rf %s", dir);
	ck_assert_int_eq(system(command), 0);
}
END_TEST

UNIT_SUITE(mail_mime)
{
	UNIT_ROWS(a_message_has_its_shape, shapes);
	UNIT_TEST(the_example_of_rfc_2046_has_exact_parts);
	UNIT_ROWS(parts_are_numbered_as_imap_does, numbers);
	UNIT_TEST(part_1_of_a_simple_message_is_its_body);
	UNIT_ROWS(a_parameter_is_found_and_decoded, params);
	UNIT_TEST(the_number_of_parameters_is_bounded);
	UNIT_TEST(depth_and_number_of_parts_are_bounded);
	UNIT_ROWS(hostile_messages_take_linear_time, repeated);
	UNIT_TEST(real_mail_parses_the_same_with_lf_and_crlf);
	UNIT_ROWS(outside_messages_give_the_text_that_another_parser_sees, folders);
}

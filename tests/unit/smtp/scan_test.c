/* tests/unit/smtp/scan_test.c - message data and command lines, whole and in pieces. */
#include "unit/unit.h"

#include "relayd/core/buf.h"
#include "relayd/smtp/scan.h"

struct outcome {
	char text[400];
};

/* The message, "|", why it is refused, "|dots" "|eight", "|left=" what is behind the end. */
static struct outcome
scan(struct slice in, size_t cut, bool convert)
{
	struct outcome o = { "" };
	struct buf b = buf_over(o.text, sizeof(o.text) - 1);
	struct smtp_data d = { .convert = convert };
	struct slice piece = slice_head(in, cut), out;
	bool second = false;

	for (;;) {
		enum smtp_data_event event = smtp_scan_data(&d, &piece, &out);

		if (event == SMTP_DATA_BYTES && d.faults == 0) {
			buf_put(&b, out);
			continue;
		}
		if (event == SMTP_DATA_MORE && !second) {
			second = true;
			piece = slice_drop(in, cut);
			continue;
		}
		if (d.faults != 0)
			buf_reset(&b); /* what came before a fault is cut-dependent, and void */
		buf_printf(&b, "|%s%s%s", smtp_fault_name(d.faults), d.dots ? "|dots" : "",
		    d.eight_bit ? "|eight" : "");
		if (event == SMTP_DATA_END) {
			buf_puts(&b, "|left=");
			buf_put(&b, piece);
			if (!second)
				buf_put(&b, slice_drop(in, cut));
		}
		return o;
	}
}

static const struct {
	struct slice in;
	const char *out;
} rows[] = {
	{ SLICE("a\r\n.\r\nNEXT"), "a\r\n||left=NEXT" },
	{ SLICE(".\r\n"), "||left=" },
	{ SLICE("..\r\n.\r\n"), ".\r\n||dots|left=" },
	{ SLICE("...\r\n.\r\n"), "..\r\n||dots|left=" },
	{ SLICE(".a\r\n.\r\n"), "a\r\n||left=" },
	{ SLICE("a.\r\n.b.\r\n.\r\n"), "a.\r\nb.\r\n||left=" },
	{ SLICE("a\r\n.\r"), "a\r\n|" },
	{ SLICE("a\r\n\r\n\r\n.\r\n"), "a\r\n\r\n\r\n||left=" },
	{ SLICE("\xc3\xa9\r\n.\r\n"), "\xc3\xa9\r\n||eight|left=" },
	{ SLICE("123456789012345678901234567890\x80\r\n.\r\n"),
	    "123456789012345678901234567890\x80\r\n||eight|left=" },
	/* none of these ends the data, and all of them refuse it */
	{ SLICE("a\n.\nMAIL\r\n.\r\nX"), "|bare-lf|left=X" },
	{ SLICE("a\n.\r\nMAIL\r\n.\r\nX"), "|bare-lf|left=X" },
	{ SLICE("a\r\n.\nMAIL\r\n.\r\nX"), "|bare-lf|left=X" },
	{ SLICE("a\r.\rMAIL\r\n.\r\nX"), "|bare-cr|left=X" },
	{ SLICE("a\r.\r\nMAIL\r\n.\r\nX"), "|bare-cr|left=X" },
	{ SLICE("a\r\n.\rMAIL\r\n.\r\nX"), "|bare-cr|left=X" },
	{ SLICE("a\r\n.\r\r\nMAIL\r\n.\r\nX"), "|bare-cr|left=X" },
	{ SLICE("a\n\r.\n\rMAIL\r\n.\r\nX"), "|bare-lf|left=X" },
	{ SLICE("a\r\n\n.\r\nMAIL\r\n.\r\nX"), "|bare-lf|left=X" },
	{ SLICE("a\r\n\0.\r\nMAIL\r\n.\r\nX"), "|nul|left=X" },
	{ SLICE("a\r\n.\0\r\nMAIL\r\n.\r\nX"), "|nul|left=X" },
	{ SLICE("a\r\n\x85.\r\nMAIL\r\n.\r\nX"), "a\r\n\x85.\r\nMAIL\r\n||eight|left=X" },
	{ SLICE(".\n.\r\nMAIL\r\n.\r\nX"), "|bare-lf|left=X" },
	/* a CRLF is a CRLF, whatever stands before it */
	{ SLICE("a\r\r\n.\r\nX"), "|bare-cr|left=X" },
};

START_TEST(data_ends_with_crlf_dot_crlf_alone)
{
	for (size_t cut = 0; cut <= rows[_i].in.len; cut++)
		ck_assert_str_eq(scan(rows[_i].in, cut, false).text, rows[_i].out);
}
END_TEST

/* n bytes of text and CRLF in one line, optionally stuffed. */
static unsigned
faults_of_line(size_t n, bool stuffed, size_t cut)
{
	char line[2000];
	struct smtp_data d = { 0 };
	struct slice in, piece, out;

	memset(line, stuffed ? '.' : 'x', sizeof(line));
	memcpy(line + n, "\r\n.\r\n", 5);
	in = slice_of(line, n + 5);
	piece = slice_head(in, cut);
	while (smtp_scan_data(&d, &piece, &out) == SMTP_DATA_BYTES)
		continue;
	piece = slice_drop(in, cut);
	while (smtp_scan_data(&d, &piece, &out) == SMTP_DATA_BYTES)
		continue;
	return d.faults;
}

static const struct {
	struct slice in;
	const char *out;
} mended[] = {
	{ SLICE("a\nb\r\n.\r\nX"), "a\r\nb\r\n||left=X" },
	{ SLICE("a\rb\r\n.\r\nX"), "a\r\nb\r\n||left=X" },
	{ SLICE("a\n.\nMAIL\r\n.\r\nX"), "a\r\n.\r\nMAIL\r\n||dots|left=X" },
	{ SLICE("a\n.\r\nMAIL\r\n.\r\nX"), "a\r\n.\r\nMAIL\r\n||dots|left=X" },
	{ SLICE("a\r.\rMAIL\r\n.\r\nX"), "a\r\n.\r\nMAIL\r\n||dots|left=X" },
	{ SLICE("a\r.\r\nMAIL\r\n.\r\nX"), "a\r\n.\r\nMAIL\r\n||dots|left=X" },
	/* behind a true line end the first dot is stuffing, as ever */
	{ SLICE("a\r\n.\nMAIL\r\n.\r\nX"), "a\r\n\r\nMAIL\r\n||left=X" },
	{ SLICE("a\r\n.\rMAIL\r\n.\r\nX"), "a\r\n\r\nMAIL\r\n||left=X" },
	{ SLICE("a\r\n.\r\r\nMAIL\r\n.\r\nX"), "a\r\n\r\n\r\nMAIL\r\n||left=X" },
	{ SLICE("a\r\r\n.\r\nX"), "a\r\n\r\n||left=X" },
	{ SLICE("a\n\n\r\r\n.\r\nX"), "a\r\n\r\n\r\n\r\n||left=X" },
	{ SLICE("\n.\r\n.\r\nX"), "\r\n.\r\n||dots|left=X" },
	{ SLICE("a\n..b\n.c\r\n..d\r\n.\r\nX"), "a\r\n..b\r\n.c\r\n.d\r\n||dots|left=X" },
	{ SLICE("a\0\nMAIL\r\n.\r\nX"), "|nul|left=X" },
	{ SLICE("a\r\nb\r\n.\r\nX"), "a\r\nb\r\n||left=X" },
};

START_TEST(converted_data_has_true_line_ends_and_one_end)
{
	for (size_t cut = 0; cut <= mended[_i].in.len; cut++)
		ck_assert_str_eq(scan(mended[_i].in, cut, true).text, mended[_i].out);
}
END_TEST

START_TEST(a_converted_line_has_998_bytes_too)
{
	char text[1100];

	for (size_t n = 998; n <= 999; n++) {
		for (int ends = 0; ends < 2; ends++) {
			struct smtp_data d = { .convert = true };
			struct slice in = slice_of(text, n + 1), out;

			memset(text, 'x', n);
			text[n] = ends == 0 ? '\n' : '\r';
			text[n + 1] = 'y';
			in.len++;
			while (smtp_scan_data(&d, &in, &out) == SMTP_DATA_BYTES)
				continue;
			ck_assert_uint_eq(d.faults, n == 998 ? 0 : SMTP_FAULT_LINE);
		}
	}
}
END_TEST

START_TEST(a_text_line_has_998_bytes_and_crlf)
{
	for (size_t cut = 0; cut < 1004; cut += 3) {
		ck_assert_uint_eq(faults_of_line(998, false, cut), 0);
		ck_assert_uint_eq(faults_of_line(999, false, cut), SMTP_FAULT_LINE);
		ck_assert_uint_eq(
		    faults_of_line(999, true, cut), 0); /* the stuffed dot is not counted */
		ck_assert_uint_eq(faults_of_line(1000, true, cut), SMTP_FAULT_LINE);
	}
}
END_TEST

static const struct {
	struct slice in;
	const char *events;
} lines[] = {
	{ SLICE("NOOP\r\nRSET\r\n"), "[NOOP][RSET]" },
	{ SLICE("MAIL FROM:<a>\r\n"), "[MAIL| FROM:<a>]" },
	{ SLICE("\r\n"), "[]" },
	/* one line, one event, whatever an LF alone makes of it elsewhere */
	{ SLICE("NOOP\nRSET\r\n"), "bare" },
	{ SLICE("NOOP\nRSET\r\nQUIT\r\n"), "bare[QUIT]" },
	{ SLICE("NOOP\n"), "bare" },
	{ SLICE("\n\r\nQUIT\r\n"), "bare[QUIT]" },
	{ SLICE("\n\n\r\n\nA\r\r\nQUIT\r\n"), "barebare[QUIT]" },
	{ SLICE("A\nB\rC\0D\nE\r\r\nQUIT\r\n"), "bare[QUIT]" },
	{ SLICE("A\n12345678901234567890123\r\nQUIT\r\n"), "bare[QUIT]" },
	{ SLICE("NO\rOP\r\nRSET\r\n"), "bare[RSET]" },
	{ SLICE("NO\0OP\r\nRSET\r\n"), "bare[RSET]" },
	{ SLICE("NOOP\r\r\nRSET\r\n"), "bare[RSET]" },
	{ SLICE("1234567890123456789\r\nRSET\r\n"), "long[RSET]" },
	{ SLICE("123456789012345678\r\nRSET\r\n"), "[123456789012345678][RSET]" },
	{ SLICE("1234567890123456789012345678901234567890\n\r\n"), "long" },
	{ SLICE("1234567890123456789012345678901234567890\nRSET\r\nQUIT\r\n"), "long[QUIT]" },
	{ SLICE("1234567890123456789\n1234567890123456789\r\nQUIT\r\n"), "bare[QUIT]" },
	{ SLICE("12345678901234567890\n1234567890123456789\r\nQUIT\r\n"), "long[QUIT]" },
	{ SLICE("NOO"), "" },
};

static struct outcome
scan_lines(struct slice in, size_t cut)
{
	struct outcome o = { "" };
	struct buf b = buf_over(o.text, sizeof(o.text) - 1);
	char held[100];
	struct buf bytes = buf_over(held, sizeof(held));
	struct smtp_scanner sc = { 0 };

	for (int piece = 0; piece < 2; piece++) {
		struct slice rest;
		struct smtp_command cmd;
		enum smtp_scan got;

		buf_put(&bytes, piece == 0 ? slice_head(in, cut) : slice_drop(in, cut));
		rest = buf_slice(&bytes);
		while ((got = smtp_scan_command(&sc, &rest, 20, &cmd)) != SMTP_SCAN_MORE) {
			if (got == SMTP_SCAN_COMMAND)
				buf_printf(&b, "[%.*s%s%.*s]", SLICE_FMT(cmd.verb),
				    cmd.args.len > 0 ? "|" : "", SLICE_FMT(cmd.args));
			else
				buf_puts(&b, got == SMTP_SCAN_LONG ? "long" : "bare");
		}
		buf_consume(&bytes, bytes.len - rest.len);
	}
	return o;
}

START_TEST(any_cut_gives_the_same_commands)
{
	for (size_t cut = 0; cut <= lines[_i].in.len; cut++)
		ck_assert_str_eq(scan_lines(lines[_i].in, cut).text, lines[_i].events);
}
END_TEST

UNIT_SUITE(smtp_scan)
{
	UNIT_ROWS(data_ends_with_crlf_dot_crlf_alone, rows);
	UNIT_ROWS(converted_data_has_true_line_ends_and_one_end, mended);
	UNIT_TEST(a_text_line_has_998_bytes_and_crlf);
	UNIT_TEST(a_converted_line_has_998_bytes_too);
	UNIT_ROWS(any_cut_gives_the_same_commands, lines);
}

/* tests/unit/review/pop3_session_test.c - POP3 by transcripts: what the client says, what it hears,
 * and time. */
#include "unit/unit.h"

#include "relayd/review/pop3/session.h"

#include <stdlib.h>

static const char *const bodies[] = {
	"Subject: one\r\n\r\n.dot\r\n..\r\n\r\nlast\r\n",
	"Subject: two\r\n \r\n\r\nno end",
	"no header at all",
	"\r\nbody\r\n",
	"",
};

/* A maildrop that answers at once, and a transcript that says what it was asked. */
struct drop {
	struct pop3_session *s;
	struct pop3_turn turn;
	struct buf out;
	struct pop3_message messages[ARRAY_LEN(bodies)];
	bool late; /* questions are answered by hand */
	bool broken;
	size_t piece; /* bytes of a message at a time */
	enum { NOTHING, LOGIN, MESSAGE, UPDATE } asked;
	bool good;
	size_t index, n_bad;
	char updated[64];
};

static void
answer(struct drop *d)
{
	struct slice body = d->asked == MESSAGE ? slice_str(bodies[d->index]) : SLICE("");
	struct slice piece;

	switch (d->asked) {
	case LOGIN:
		if (d->good)
			pop3_maildrop(d->s, &d->turn, d->messages, ARRAY_LEN(bodies), 77);
		else
			pop3_refuse(d->s, &d->turn, "AUTH", "wrong name or password");
		break;
	case MESSAGE:
		if (d->broken) {
			pop3_refuse(d->s, &d->turn, "SYS/TEMP", "cannot read");
			break;
		}
		do {
			piece = slice_head(body, d->piece);
			body = slice_drop(body, piece.len);
		} while (pop3_body(d->s, &d->turn, piece, body.len == 0));
		break;
	case UPDATE:
		pop3_updated(d->s, &d->turn, !d->broken);
		break;
	case NOTHING:
		ck_abort_msg("nothing was asked");
	}
	d->asked = NOTHING;
}

static void
on_login(void *user, struct slice name, struct slice password)
{
	struct drop *d = user;

	d->asked = LOGIN;
	d->good = slice_eq(name, SLICE("admin")) && slice_eq(password, SLICE("pass word "));
	if (!d->late)
		answer(d);
}

static void
on_message(void *user, size_t index)
{
	struct drop *d = user;

	d->asked = MESSAGE;
	d->index = index;
	if (!d->late)
		answer(d);
}

static void
on_update(void *user)
{
	struct drop *d = user;
	struct buf list = buf_over(d->updated, sizeof(d->updated) - 1);

	for (size_t i = 0; i < ARRAY_LEN(bodies); i++)
		if (pop3_is_deleted(d->s, i))
			buf_printf(&list, "%zu ", i + 1);
	d->asked = UPDATE;
	if (!d->late)
		answer(d);
}

static void
on_bad(void *user)
{
	((struct drop *)user)->n_bad++;
}

static const struct users *
users_now(void *owner)
{
	static struct users *users;

	(void)owner;
	if (users == NULL)
		users = users_parse(SLICE("admin:*:*:\n"), "users", NULL);
	return users;
}

/* The certificate of "admin". */
static void
on_about(void *user, struct sasl_about *about)
{
	about->allowed = MECHANISM_BIT(MECHANISM_PLAIN) | MECHANISM_BIT(MECHANISM_EXTERNAL);
	about->tls = true;
	sasl_peer(about, "admin");
	about->users = users_now;
	about->owner = user;
}

static void
on_proved(void *user, struct slice name, bool proved)
{
	struct drop *d = user;

	d->asked = LOGIN;
	d->good = proved && slice_eq(name, SLICE("admin"));
	if (!d->late)
		answer(d);
}

static const struct pop3_ops ops = { on_login, on_message, on_update, on_bad, on_about, on_proved };

static void
drop_open(struct drop *d, bool may_delete)
{
	struct pop3_settings settings = {
		.hostname = "mx.test", .may_delete = may_delete, .is_private = true, .keep_days = 30
	};

	*d = (struct drop){ .out = buf_heap(1u << 20), .piece = SIZE_MAX };
	d->turn.out = &d->out;
	for (size_t i = 0; i < ARRAY_LEN(bodies); i++)
		d->messages[i] =
		    (struct pop3_message){ .uid = (uint32_t)(i + 10), .octets = strlen(bodies[i]) };
	d->s = pop3_session_new(&settings, &ops, d, &d->turn);
	ck_assert_ptr_nonnull(d->s);
}

static void
drop_close(struct drop *d)
{
	pop3_session_free(d->s);
	buf_fini(&d->out);
}

/* Gives all of in, in two calls. */
static void
say(struct drop *d, struct slice in, size_t cut)
{
	struct slice first = slice_head(in, cut), rest;
	size_t n = pop3_session_input(d->s, &d->turn, first);

	rest = slice_drop(in, n);
	n = pop3_session_input(d->s, &d->turn, rest);
	(void)n; /* an unfinished line is left */
}

#define IN    "C: USER admin\nS: +OK now PASS and the password\nC: PASS pass word \n" HELLO
#define HELLO "S: +OK 5 messages held, 83 octets: STAT, LIST, UIDL, RETR n, TOP n lines\n"
#define GREET "S: +OK relayd POP3 at mx.test: USER name, then PASS password\n"

static const struct {
	bool may_delete, broken;
	const char *transcript; /* C: and S: lines, "+600s", "!" at the end: the session is over */
	const char *updated;
} rows[] = {
	{ false, false, GREET IN "C: STAT\nS: +OK 5 83\nC: quit\nS: +OK goodbye\n!", "" },
	{ false, false,
	    GREET "C: CAPA\nS: +OK what can be done here\nS: USER\nS: SASL EXTERNAL PLAIN\nS: "
		  "TOP\nS: UIDL\nS: RESP-CODES\n"
		  "S: AUTH-RESP-CODE\nS: PIPELINING\nS: EXPIRE 30\nS: IMPLEMENTATION relayd\nS: "
		  ".\nC: QUIT\nS: +OK goodbye\n!",
	    "" },
	{ false, false,
	    GREET "C: USER admin\nS: +OK now PASS and the password\nC: PASS wrong\n"
		  "S: -ERR [AUTH] wrong name or password\nC: PASS again\nS: -ERR USER first\n" IN
		  "C: NOOP\nS: +OK still here\n",
	    "" },
	/* RFC 5034 section 4: with and without an initial response, given up, none that we have */
	{ false, false, GREET "C: AUTH PLAIN AGFkbWluAHBhc3Mgd29yZCA=\n" HELLO, "" },
	{ false, false, GREET "C: AUTH plain\nS: + \nC: AGFkbWluAHBhc3Mgd29yZCA=\n" HELLO, "" },
	{ false, false, GREET "C: AUTH EXTERNAL =\n" HELLO, "" },
	{ false, false,
	    GREET
	    "C: AUTH PLAIN AGFkbWluAHdyb25n\nS: -ERR [AUTH] wrong name or password\n"
	    "C: AUTH PLAIN cm9vdABhZG1pbgBwYXNzIHdvcmQg\nS: -ERR [AUTH] wrong name or password\n"
	    "C: AUTH PLAIN\nS: + \nC: *\nS: -ERR given up, as you wish\n"
	    "C: AUTH PLAIN !\nS: -ERR that is no response of this mechanism\n"
	    "C: AUTH LOGIN\nS: -ERR AUTH and a mechanism that CAPA lists, please\n"
	    "C: AUTH\nS: -ERR AUTH and a mechanism that CAPA lists, please\n" IN,
	    "" },
	{ false, false,
	    GREET "C: STAT\nS: -ERR log in first: USER, then PASS\nC: HELO x\n"
		  "S: -ERR not a command here: USER name, PASS password, AUTH mechanism, CAPA or "
		  "QUIT\nC: \n"
		  "S: -ERR not a command here: USER name, PASS password, AUTH mechanism, CAPA or "
		  "QUIT\nC: USER\nS: "
		  "-ERR USER and your name, please\n",
	    "" },
	{ false, false,
	    GREET IN "C: LIST\nS: +OK 5 messages\nS: 1 34\nS: 2 25\nS: 3 16\nS: 4 8\nS: 5 0\nS: .\n"
		     "C: LIST 2\nS: +OK 2 25\nC: UIDL 2\nS: +OK 2 77-11\nC: UIDL\nS: +OK 5 "
		     "messages\nS: 1 77-10\nS: 2 77-11\n"
		     "S: 3 77-12\nS: 4 77-13\nS: 5 77-14\nS: .\n",
	    "" },
	{ false, false,
	    GREET IN "C: RETR 1\nS: +OK 34 octets\nS: Subject: one\nS: \nS: ..dot\nS: ...\nS: \nS: "
		     "last\nS: .\n",
	    "" },
	{ false, false,
	    GREET IN "C: RETR 2\nS: +OK 25 octets\nS: Subject: two\nS:  \nS: \nS: no end\nS: .\n"
		     "C: RETR 5\nS: +OK 0 octets\nS: .\n",
	    "" },
	{ false, false,
	    GREET IN "C: TOP 1 0\nS: +OK 34 octets\nS: Subject: one\nS: \nS: .\n"
		     "C: TOP 1 2\nS: +OK 34 octets\nS: Subject: one\nS: \nS: ..dot\nS: ...\nS: .\n"
		     "C: TOP 1 99\nS: +OK 34 octets\nS: Subject: one\nS: \nS: ..dot\nS: ...\nS: "
		     "\nS: last\nS: .\n"
		     "C: TOP 2 0\nS: +OK 25 octets\nS: Subject: two\nS:  \nS: \nS: .\n"
		     "C: TOP 4 0\nS: +OK 8 octets\nS: \nS: .\nC: TOP 4 1\nS: +OK 8 octets\nS: \nS: "
		     "body\nS: .\n"
		     "C: TOP 3 0\nS: +OK 16 octets\nS: no header at all\nS: .\n"
		     "C: TOP 1\nS: -ERR TOP takes a message and a number of lines\nC: TOP 1 x\n"
		     "S: -ERR TOP takes a message and a number of lines\n",
	    "" },
	{ false, false,
	    GREET IN
	    "C: RETR 6\nS: -ERR no such message: there are 5\nC: RETR 0\nS: -ERR no such message: "
	    "there are 5\n"
	    "C: RETR x\nS: -ERR which message? Give its number, as LIST shows it\nC: RETR\n"
	    "S: -ERR which message? Give its number, as LIST shows it\nC: RETR "
	    "18446744073709551617\n"
	    "S: -ERR which message? Give its number, as LIST shows it\nC: STAT x\nS: -ERR this "
	    "command takes no argument\n"
	    "C: USER x\nS: -ERR you are logged in already\n",
	    "" },
	{ false, false,
	    GREET IN "C: DELE 1\nS: -ERR [SYS/PERM] DELE is off: this mailbox is shared. review { "
		     "pop3-delete = yes }"
		     " allows it\nC: QUIT\nS: +OK goodbye\n!",
	    "" },
	{ true, false,
	    GREET IN "C: DELE 1\nS: +OK message 1 will be dropped at QUIT\nC: RETR 1\n"
		     "S: -ERR message 1 is marked as deleted; RSET takes it back\nC: STAT\nS: +OK "
		     "4 49\nC: LIST\nS: +OK 4 messages\n"
		     "S: 2 25\nS: 3 16\nS: 4 8\nS: 5 0\nS: .\nC: DELE 5\nS: +OK message 5 will be "
		     "dropped at QUIT\nC: QUIT\n"
		     "S: +OK 2 dropped: in Trash until they expire\n!",
	    "1 5 " },
	{ true, false,
	    GREET IN "C: DELE 1\nS: +OK message 1 will be dropped at QUIT\nC: RSET\nS: +OK 5 "
		     "messages, 83 octets\n"
		     "C: QUIT\nS: +OK goodbye\n!",
	    "" },
	{ true, true,
	    GREET IN "C: RETR 1\nS: -ERR [SYS/TEMP] cannot read\nC: DELE 1\nS: +OK message 1 will "
		     "be dropped at QUIT\n"
		     "C: QUIT\nS: -ERR [SYS/TEMP] some deleted messages not removed\n!",
	    "1 " },
	{ true, false,
	    GREET IN
	    "C: DELE 1\nS: +OK message 1 will be dropped at QUIT\n+599s\nC: NOOP\nS: +OK still "
	    "here\n+599s\n"
	    "C: NOOP\nS: +OK still here\n+600s\nS: -ERR [SYS/TEMP] closing: nothing was dropped\n!",
	    "" },
	{ false, false,
	    GREET "+119s\nC: USER admin\nS: +OK now PASS and the password\n+120s\n"
		  "S: -ERR [SYS/TEMP] closing: nothing was dropped\n!",
	    "" },
};

/* The client's lines of a transcript up to where time passes or it ends, as the wire has them. */
static void
client_lines(const char **at, struct buf *client, struct buf *want)
{
	while (**at != '\0' && **at != '+' && **at != '!') {
		const char *end = strchr(*at, '\n');
		struct buf *to = **at == 'C' ? client : want;

		buf_put(to, slice_of(*at + 3, (size_t)(end - *at - 3)));
		buf_puts(to, "\r\n");
		*at = end + 1;
	}
}

static void
play(size_t row, size_t cut, size_t piece)
{
	struct buf client = buf_heap(1u << 16), want = buf_heap(1u << 16);
	const char *at = rows[row].transcript;
	struct drop d;

	drop_open(&d, rows[row].may_delete);
	d.broken = rows[row].broken;
	d.piece = piece;
	while (*at != '\0' && *at != '!') {
		client_lines(&at, &client, &want);
		say(&d, buf_slice(&client), cut % (client.len + 1));
		if (*at == '+') {
			d.turn.now_ms += strtol(at, NULL, 10) * 1000;
			at = strchr(at, '\n') + 1;
			pop3_session_tick(d.s, &d.turn);
		}
		buf_reset(&client);
	}
	ck_assert_msg(slice_eq(buf_slice(&d.out), buf_slice(&want)),
	    "row %zu cut %zu: got\n%.*s\nwanted\n%.*s", row, cut, (int)d.out.len, d.out.p,
	    (int)want.len, want.p);
	ck_assert_int_eq(pop3_session_is_over(d.s), *at == '!');
	ck_assert_str_eq(d.updated, rows[row].updated);
	buf_fini(&client);
	buf_fini(&want);
	drop_close(&d);
}

START_TEST(the_session_goes_as_the_transcript_says)
{
	play((size_t)_i, 0, SIZE_MAX);
}
END_TEST

START_TEST(any_cut_of_input_and_message_gives_the_same)
{
	for (size_t cut = 1; cut < 300; cut += 3)
		play((size_t)_i, cut, 1 + cut % 7);
}
END_TEST

START_TEST(wrong_passwords_and_nonsense_end_the_session)
{
	struct drop d;

	drop_open(&d, false);
	for (int i = 0; i < POP3_LOGINS_MAX; i++) {
		ck_assert(!pop3_session_is_over(d.s));
		say(&d, SLICE("USER admin\r\nPASS x\r\n"), 3);
	}
	ck_assert(pop3_session_is_over(d.s));
	drop_close(&d);
	drop_open(&d, false);
	for (int i = 0; i < POP3_BAD_COMMANDS; i++) {
		ck_assert(!pop3_session_is_over(d.s));
		say(&d, SLICE("GET / HTTP/1.1\r\n"), 3);
	}
	ck_assert(pop3_session_is_over(d.s));
	ck_assert_uint_eq(d.n_bad, POP3_BAD_COMMANDS);
	drop_close(&d);
}
END_TEST

static const struct {
	struct slice bytes;
	size_t repeat; /* of the first byte, in front */
	const char *want;
} lines[] = {
	{ SLICE("\r\n"), POP3_LINE_MAX - 2,
	    "-ERR not a command here: USER name, PASS password, AUTH mechanism, CAPA or QUIT\r\n" },
	{ SLICE("\r\n"), POP3_LINE_MAX - 1, "-ERR line too long\r\n" },
	{ SLICE("\r\n"), 5000, "-ERR line too long\r\n" },
	{ SLICE("CAPA\0\r\n"), 0, "-ERR a line of text, please\r\n" },
	{ SLICE("CA\rPA\r\n"), 0, "-ERR a line of text, please\r\n" },
	{ SLICE("quit\n"), 0, "+OK goodbye\r\n" },
};

START_TEST(lines_have_a_limit_and_hold_text)
{
	struct drop d;
	struct buf in = buf_heap(1u << 16);

	for (size_t cut = 0; cut < 6000; cut += 7) {
		drop_open(&d, false);
		buf_reset(&d.out);
		buf_reset(&in);
		for (size_t i = 0; i < lines[_i].repeat; i++)
			buf_putc(&in, 'x');
		buf_put(&in, lines[_i].bytes);
		say(&d, buf_slice(&in), cut);
		ck_assert(slice_eq(buf_slice(&d.out), slice_str(lines[_i].want)));
		drop_close(&d);
	}
	buf_fini(&in);
}
END_TEST

START_TEST(no_password_is_taken_in_the_clear)
{
	struct pop3_settings settings = { .hostname = "h" };
	struct drop d = { .out = buf_heap(4096) };

	d.turn.out = &d.out;
	d.s = pop3_session_new(&settings, &ops, &d, &d.turn);
	buf_reset(&d.out);
	say(&d, SLICE("USER admin\r\nPASS pass word \r\nCAPA\r\n"), 0);
	ck_assert(slice_starts(buf_slice(&d.out),
	    SLICE("-ERR [AUTH] no password in the clear: connect with TLS, to the pop3s port\r\n"
		  "-ERR USER first\r\n+OK what can be done here\r\nTOP\r\n")));
	ck_assert_int_eq(d.asked, NOTHING);
	drop_close(&d);
}
END_TEST

START_TEST(nothing_is_looked_at_while_a_question_is_open)
{
	struct slice in = SLICE("USER admin\r\nPASS pass word \r\nSTAT\r\nRETR 4\r\nNOOP\r\n");
	struct drop d;
	size_t n;

	drop_open(&d, false);
	d.late = true;
	n = pop3_session_input(d.s, &d.turn, in);
	ck_assert_uint_eq(n, 29);
	ck_assert(pop3_session_is_asking(d.s));
	ck_assert_uint_eq(pop3_session_input(d.s, &d.turn, slice_drop(in, n)), 0);
	ck_assert(pop3_session_deadline(d.s) == INT64_MAX);
	answer(&d);
	n += pop3_session_input(d.s, &d.turn, slice_drop(in, n));
	ck_assert_uint_eq(n, 43);
	pop3_session_shutdown(d.s, &d.turn); /* after the message */
	ck_assert(!pop3_session_is_over(d.s));
	answer(&d);
	ck_assert(pop3_session_is_over(d.s));
	ck_assert(slice_ends(buf_slice(&d.out), SLICE("+OK 8 octets\r\n\r\nbody\r\n.\r\n")));
	drop_close(&d);
}
END_TEST

START_TEST(a_long_list_goes_out_piece_by_piece)
{
	static struct pop3_message many[20000];
	struct pop3_settings settings = { .hostname = "h", .is_private = true };
	struct drop d = { .out = buf_heap(POP3_OUT_HIGH + 4096), .late = true };
	size_t rows_seen = 0;
	bool stat = false;

	d.turn.out = &d.out;
	d.s = pop3_session_new(&settings, &ops, &d, &d.turn);
	ck_assert_uint_eq(pop3_session_input(d.s, &d.turn, SLICE("USER a\r\nPASS b\r\n")), 16);
	pop3_maildrop(d.s, &d.turn, many, ARRAY_LEN(many), 1);
	buf_reset(&d.out);
	ck_assert_uint_eq(pop3_session_input(d.s, &d.turn, SLICE("LIST\r\nSTAT\r\n")), 6);
	for (;;) {
		ck_assert(!d.out.overflow);
		for (size_t i = 0; i < d.out.len; i++)
			rows_seen += d.out.p[i] == '\n';
		buf_reset(&d.out);
		if (stat)
			break;
		stat = pop3_session_input(d.s, &d.turn, SLICE("STAT\r\n")) == 6;
	}
	ck_assert_uint_eq(rows_seen, 20000 + 3);
	ck_assert(!pop3_session_has_more(d.s));
	drop_close(&d);
}
END_TEST

UNIT_SUITE(pop3_session)
{
	UNIT_ROWS(the_session_goes_as_the_transcript_says, rows);
	UNIT_ROWS(any_cut_of_input_and_message_gives_the_same, rows);
	UNIT_TEST(wrong_passwords_and_nonsense_end_the_session);
	UNIT_ROWS(lines_have_a_limit_and_hold_text, lines);
	UNIT_TEST(no_password_is_taken_in_the_clear);
	UNIT_TEST(nothing_is_looked_at_while_a_question_is_open);
	UNIT_TEST(a_long_list_goes_out_piece_by_piece);
}

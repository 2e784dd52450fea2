/* tests/unit/review/imap_session_test.c - transcripts of IMAP sessions on a real store.
 *
 * "1C: a NOOP" is a line that client 1 sends (with CRLF), "1S: a OK..." one that it must get next;
 * "..." stands for any rest of a line, and "1S: -" says that it gets nothing more.  "M: rcpt text"
 * brings a message, "T: 1" makes client 1's time run out, "X: 1" drops it.
 */
#include "unit/unit.h"

#include "unit/review/helper.h"

#include "relayd/review/imap/describe.h"
#include "relayd/review/imap/session.h"

#include <stdio.h>
#include <stdlib.h>

#define CLIENTS 3

struct client {
	struct imap_session *session;
	struct buf out;
	size_t read; /* of out, by the transcript */
	bool progress, bye, closed, logging_in;
	char user[64], password[64];
	size_t room; /* is_full() past so many octets that were not read */
};

struct rig {
	struct fixture f;
	struct client clients[CLIENTS];
	unsigned messages;
};

static struct buf *
client_out(void *owner)
{
	return &((struct client *)owner)->out;
}

static bool
client_is_full(void *owner)
{
	struct client *c = owner;

	return c->out.len - c->read > c->room;
}

static void
client_on_progress(void *owner)
{
	((struct client *)owner)->progress = true;
}

static void
client_login(void *owner, struct slice user, struct slice password)
{
	struct client *c = owner;

	(void)snprintf(c->user, sizeof(c->user), "%.*s", SLICE_FMT(user));
	(void)snprintf(c->password, sizeof(c->password), "%.*s", SLICE_FMT(password));
	c->logging_in = true;
}

static void
client_on_bye(void *owner)
{
	((struct client *)owner)->bye = true;
}

static void
client_on_closed(void *owner)
{
	((struct client *)owner)->closed = true;
}

static const struct imap_session_ops client_ops = {
	.out = client_out,
	.is_full = client_is_full,
	.on_progress = client_on_progress,
	.login = client_login,
	.on_bye = client_on_bye,
	.on_closed = client_on_closed,
};

/* The password of "admin" is "admin", and so on; "bob" sees his address, "org" a domain. */
static void
answer_login(struct client *c)
{
	static const char *const users[][2] = {
		{ "admin", "*" },
		{ "bob", "bob@example.org" },
		{ "org", "example.org" },
	};
	const char *scope = NULL;

	c->logging_in = false;
	for (size_t i = 0; i < ARRAY_LEN(users); i++)
		if (strcmp(c->user, users[i][0]) == 0 && strcmp(c->password, users[i][0]) == 0)
			scope = users[i][1];
	imap_session_login_done(c->session, c->user, scope, "wrong name or password", false);
}

/* Until no session has anything to do but wait for its client. */
static void
settle(struct rig *r)
{
	for (bool busy = true; busy;) {
		busy = false;
		for (size_t i = 0; i < CLIENTS; i++) {
			struct client *c = &r->clients[i];

			if (c->session == NULL || c->closed)
				continue;
			if (c->logging_in)
				answer_login(c);
			if (c->progress) {
				c->progress = false;
				imap_session_run(c->session);
				busy = true;
			}
			if (!imap_session_is_waiting(c->session) && !c->bye && !client_is_full(c))
				busy = true;
		}
		if (busy)
			(void)uv_run(&r->f.loop, UV_RUN_NOWAIT);
	}
}

static void
client_open(struct rig *r, size_t i, bool may_login)
{
	struct client *c = &r->clients[i];
	const struct imap_session_options options = { .store = r->f.store,
		.ops = &client_ops,
		.owner = c,
		.hostname = "mx.example.org",
		.may_login = may_login };

	*c = (struct client){ .out = buf_heap(64 << 20), .room = 1 << 30 };
	c->session = imap_session_open(&options);
	ck_assert_ptr_nonnull(c->session);
}

/* Input that is not taken is shown again when the session has gone on. */
static void
client_send(struct rig *r, struct client *c, struct slice bytes)
{
	while (bytes.len > 0) {
		size_t n = imap_session_read(c->session, bytes);

		bytes = slice_drop(bytes, n);
		settle(r);
		ck_assert(n > 0 || !imap_session_is_waiting(c->session) || bytes.len == 0 ||
			  c->bye || imap_session_read(c->session, SLICE("")) == 0);
	}
}

static void
rig_open(struct rig *r)
{
	memset(r, 0, sizeof(*r));
	fixture_open(&r->f);
	r->f.options.describe = imap_describe;
	r->f.options.describe_version = IMAP_DESCRIBE_VERSION;
	fixture_reopen(&r->f);
}

static void
client_close(struct rig *r, size_t i)
{
	struct client *c = &r->clients[i];

	if (c->session == NULL)
		return;
	if (!c->closed)
		imap_session_close(c->session);
	while (!c->closed)
		(void)uv_run(&r->f.loop, UV_RUN_ONCE);
	buf_fini(&c->out);
	c->session = NULL;
}

static void
rig_close(struct rig *r)
{
	for (size_t i = 0; i < CLIENTS; i++)
		client_close(r, i);
	fixture_close(&r->f);
}

/* ---- transcripts ---- */

static void
expect_line(struct client *c, const char *want, size_t line_no)
{
	struct slice left = slice_drop(buf_slice(&c->out), c->read);
	struct slice line = slice_until(left, '\n'), wanted = slice_str(want);
	bool prefix = slice_chop(&wanted, "...");

	if (strcmp(want, "-") == 0) {
		ck_assert_msg(
		    left.len == 0, "line %zu: not expected: %.*s", line_no, SLICE_FMT(left));
		return;
	}
	ck_assert_msg(left.len > 0, "line %zu: nothing came, expected: %s", line_no, want);
	c->read += line.len + 1;
	(void)slice_chop(&line, "\r"); /* a literal's lines may lack it */
	ck_assert_msg(prefix ? slice_starts(line, wanted) : slice_eq(line, wanted),
	    "line %zu: expected %s, got %.*s", line_no, want, SLICE_FMT(line));
}

static void
bring_message(struct rig *r, const char *text)
{
	struct slice rcpt = slice_until(slice_str(text), ' ');
	char rcpts[200], bytes[2000];

	(void)snprintf(rcpts, sizeof(rcpts), "%.*s", SLICE_FMT(rcpt));
	(void)snprintf(bytes, sizeof(bytes),
	    "Return-Path: <s@example.net>\r\nX-Relayd-To: %s\r\nReceived: from x\r\nSubject: %s\r\n"
	    "From: Ann <ann@example.net>\r\nTo: %s\r\nDate: Mon, 2 Mar 2026 10:15:42 +0000\r\n"
	    "Message-ID: <%u@example.net>\r\n\r\nBody of %s\r\n",
	    rcpts, text + rcpt.len + 1, rcpts, r->messages, text + rcpt.len + 1);
	ck_assert_int_eq(put(&r->f, test_id(++r->messages), rcpts, bytes), ERR_NONE);
}

static void
play_line(struct rig *r, const char *line, size_t line_no)
{
	size_t i = (size_t)(line[0] - '1');
	struct client *c = i < CLIENTS ? &r->clients[i] : NULL;
	char bytes[4000];

	if (line[0] == 'M') {
		bring_message(r, line + 3);
		settle(r);
	} else if (line[0] == 'T') {
		imap_session_bye(r->clients[line[3] - '1'].session, "You were silent for too long");
	} else if (line[0] == 'X') {
		client_close(r, (size_t)(line[3] - '1'));
	} else if (line[1] == 'C') {
		(void)snprintf(bytes, sizeof(bytes), "%s\r\n", line + 4);
		client_send(r, c, slice_str(bytes));
	} else if (line[1] == 'S') {
		settle(r);
		expect_line(c, line + 4, line_no);
	} else {
		client_open(r, i, line[1] != '!'); /* "1+" safe, "1!" not safe for passwords */
		expect_line(c, "* OK [CAPABILITY IMAP4rev1...", line_no);
	}
}

static void
play(const char *const *lines)
{
	struct rig r;

	rig_open(&r);
	for (size_t n = 0; lines[n] != NULL; n++)
		play_line(&r, lines[n], n + 1);
	rig_close(&r);
}

#define TRANSCRIPT(name, ...)                                                                      \
	START_TEST(name)                                                                           \
	{                                                                                          \
		static const char *const lines[] = { __VA_ARGS__, NULL };                          \
		play(lines);                                                                       \
	}                                                                                          \
	END_TEST

#define LOGIN(i)  i "+", i "C: l LOGIN admin admin", i "S: l OK [CAPABILITY IMAP4rev1..."
#define SELECT(i) LOGIN(i), i "C: s SELECT INBOX", i "S: * FLAGS (\\Answered..."
/* What came before the mailbox was looked at is not \Recent. */
#define SELECTED(i, exists)                                                                        \
	SELECT(i), i "S: * OK [PERMANENTFLAGS...", i "S: * " exists " EXISTS", i "S: * 0 RECENT"

TRANSCRIPT(a_user_logs_in_and_out, "1+", "1C: a CAPABILITY",
    "1S: * CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID IDLE NAMESPACE UIDPLUS UNSELECT MOVE CHILDREN "
    "SPECIAL-USE AUTH=PLAIN",
    "1S: a OK...", "1C: b LOGIN admin wrong",
    "1S: b NO [AUTHENTICATIONFAILED] wrong name or password", "1C: c SELECT INBOX",
    "1S: c BAD Log in first...", "1C: d LOGIN \"admin\" {5}", "1S: + Go ahead", "1C: admin",
    "1S: d OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID IDLE NAMESPACE UIDPLUS UNSELECT MOVE "
    "CHILDREN "
    "SPECIAL-USE] Logged in as admin; you see what is held for all",
    "1C: e LOGIN admin admin", "1S: e BAD You are logged in already", "1C: f FETCH 1 FLAGS",
    "1S: f BAD Select a mailbox first...", "1C: g NOOP", "1S: g OK...", "1C: h ID (\"name\" \"x\")",
    "1S: * ID (\"name\" \"relayd\"...", "1S: h OK...", "1C: i NAMESPACE",
    "1S: * NAMESPACE ((\"\" \"/\")) NIL NIL", "1S: i OK...", "1C: j LOGOUT", "1S: * BYE See you",
    "1S: j OK...", "1C: k NOOP", "1S: -")

TRANSCRIPT(authenticate_plain_takes_its_response_with_the_command_or_after_it, "1+",
    "1C: a AUTHENTICATE PLAIN AGFkbWluAGFkbWlu", "1S: a OK [CAPABILITY...", "2+",
    "2C: a AUTHENTICATE plain", "2S: + ", "2C: AGFkbWluAGFkbWlu", "2S: a OK...", "3+",
    "3C: a AUTHENTICATE PLAIN", "3S: + ", "3C: *", "3S: a BAD Cancelled",
    "3C: b AUTHENTICATE PLAIN !!!", "3S: b BAD...", "3C: c AUTHENTICATE CRAM-MD5",
    "3S: c NO [CANNOT]...", "3C: d AUTHENTICATE PLAIN AGFkbWluAHdyb25n",
    "3S: d NO [AUTHENTICATIONFAILED]...", "3C: e AUTHENTICATE PLAIN Ym9iAGFkbWluAGFkbWlu",
    "3S: e NO [AUTHORIZATIONFAILED]...")

TRANSCRIPT(passwords_are_not_taken_where_they_could_be_read, "1!", "1C: a LOGIN admin admin",
    "1S: a NO [PRIVACYREQUIRED]...", "1C: b AUTHENTICATE PLAIN AGFkbWluAGFkbWlu",
    "1S: b NO [PRIVACYREQUIRED]...", "1C: c CAPABILITY",
    "1S: * CAPABILITY IMAP4rev1 LITERAL+ SASL-IR ID IDLE NAMESPACE UIDPLUS UNSELECT MOVE CHILDREN "
    "SPECIAL-USE LOGINDISABLED",
    "1S: c OK...")

TRANSCRIPT(too_many_failed_logins_end_the_session, "1+", "1C: a LOGIN admin x", "1S: a NO...",
    "1C: a LOGIN admin x", "1S: a NO...", "1C: a LOGIN admin x", "1S: a NO...",
    "1C: a LOGIN admin x", "1S: a NO...", "1C: a LOGIN admin x", "1S: a NO...",
    "1S: * BYE Too many failed logins", "1S: -")

TRANSCRIPT(nonsense_gets_a_helpful_bad, "1+", "1C: LOGIN admin admin",
    "1S: LOGIN BAD Every command starts with a tag of your choice, as in: a1 LOGIN name password",
    "1C: ", "1S: -", "1C: a", "1S: a BAD...", "1C: {",
    "1S: * BAD Every command starts with a tag...", "1C: a FROBNICATE now",
    "1S: a BAD Unknown command FROBNICATE", "1C: a LOGIN admin",
    "1S: a BAD LOGIN takes a name and a password", "1C: a LOGIN admin {70000}",
    "1S: a BAD The literal is too long", "1C: a LOGIN admin admin", "1S: a OK...")

TRANSCRIPT(too_many_bad_commands_end_the_session, "1+", "1C: a X", "1S: a BAD...", "1C: a X",
    "1S: a BAD...", "1C: a X", "1S: a BAD...", "1C: a X", "1S: a BAD...", "1C: a X", "1S: a BAD...",
    "1C: a X", "1S: a BAD...", "1C: a X", "1S: a BAD...", "1C: a X", "1S: a BAD...", "1C: a X",
    "1S: a BAD...", "1C: a X", "1S: a BAD...", "1C: a X", "1S: a BAD...", "1C: a X", "1S: a BAD...",
    "1C: a X", "1S: a BAD...", "1C: a X", "1S: a BAD...", "1C: a X", "1S: a BAD...", "1C: a X",
    "1S: a BAD...", "1C: a X", "1S: a BAD...", "1C: a X", "1S: a BAD...", "1C: a X", "1S: a BAD...",
    "1C: a X", "1S: a BAD...", "1S: * BYE Too many bad commands", "1S: -")

TRANSCRIPT(mailboxes_are_listed_selected_and_told_about, "M: bob@example.org one",
    "M: bob@example.org two", LOGIN("1"), "1C: a LIST \"\" \"*\"",
    "1S: * LIST (\\HasNoChildren) \"/\" INBOX", "1S: * LIST (\\HasNoChildren) \"/\" Release",
    "1S: * LIST (\\HasNoChildren) \"/\" Released",
    "1S: * LIST (\\HasNoChildren \\Trash) \"/\" Trash", "1S: a OK...", "1C: a LIST \"\" R%d",
    "1S: * LIST (\\HasNoChildren) \"/\" Released", "1S: a OK...", "1C: a LIST \"in\" BOX",
    "1S: * LIST (\\HasNoChildren) \"/\" INBOX", "1S: a OK...", "1C: a LIST \"\" \"\"",
    "1S: * LIST (\\Noselect) \"/\" \"\"", "1S: a OK...", "1C: a LSUB \"\" T*",
    "1S: * LSUB (\\HasNoChildren) \"/\" Trash", "1S: a OK...", "1C: a SUBSCRIBE Trash",
    "1S: a OK...", "1C: a UNSUBSCRIBE Trash", "1S: a NO [CANNOT]...", "1C: a SUBSCRIBE Drafts",
    "1S: a NO [NONEXISTENT]...", "1C: a STATUS inbox (MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN)",
    "1S: * STATUS inbox (MESSAGES 2 RECENT 0 UIDNEXT 3 UIDVALIDITY...", "1S: a OK...",
    "1C: a STATUS Nowhere (MESSAGES)", "1S: a NO [NONEXISTENT]...", "1C: b SELECT INBOX",
    "1S: * FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)",
    "1S: * OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] Flags that are "
    "kept",
    "1S: * 2 EXISTS", "1S: * 0 RECENT", "1S: * OK [UNSEEN 1]...", "1S: * OK [UIDVALIDITY...",
    "1S: * OK [UIDNEXT 3]...", "1S: b OK [READ-WRITE] INBOX selected", "1C: c EXAMINE Trash",
    "1S: * FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)",
    "1S: * OK [PERMANENTFLAGS ()]...", "1S: * 0 EXISTS", "1S: * 0 RECENT",
    "1S: * OK [UIDVALIDITY...", "1S: * OK [UIDNEXT 1]...", "1S: c OK [READ-ONLY] Trash selected",
    "1C: d SELECT Nowhere", "1S: d NO [NONEXISTENT]...", "1C: e FETCH 1 FLAGS",
    "1S: e BAD Select a mailbox first...")

TRANSCRIPT(what_cannot_be_done_gets_a_clear_no, LOGIN("1"), "1C: a CREATE Drafts",
    "1S: a NO [CANNOT] The mailboxes are fixed...", "1C: a DELETE Trash", "1S: a NO [CANNOT]...",
    "1C: a RENAME INBOX x", "1S: a NO [CANNOT]...", "1C: a APPEND Release (\\Seen) {310}",
    "1S: a NO [CANNOT] Nothing can be appended...", "1C: a APPEND Release {3+}", "1C: xyz",
    "1S: a NO [CANNOT] Nothing can be appended...", "1C: a APPEND Release {99999+}", "1S: -",
    "X: 1", LOGIN("1"), "1C: a GETQUOTAROOT INBOX",
    "1S: a NO [CANNOT] This server does not have GETQUOTAROOT", "1C: a ENABLE CONDSTORE",
    "1S: a NO...", "1C: a STARTTLS", "1S: a BAD You are logged in already", "2+", "2C: a STARTTLS",
    "2S: a NO [CANNOT]...")

TRANSCRIPT(a_message_is_fetched_item_by_item, "M: bob@example.org one", SELECTED("1", "1"),
    "1S: * OK [UNSEEN 1]...", "1S: * OK [UIDV...", "1S: * OK [UIDN...", "1S: s OK...",
    "1C: a FETCH 1 (UID FLAGS RFC822.SIZE BODY.PEEK[HEADER.FIELDS (Subject)])",
    "1S: * 1 FETCH (UID 1 FLAGS () RFC822.SIZE 224 BODY[HEADER.FIELDS (Subject)] {16}",
    "1S: Subject: one", "1S: ", "1S: )", "1S: a OK Fetched", "1C: a UID FETCH 1 ENVELOPE",
    "1S: * 1 FETCH (UID 1 ENVELOPE (\"Mon, 2 Mar 2026 10:15:42 +0000\" \"one\" "
    "((\"Ann\" NIL \"ann\" \"example.net\")) ((\"Ann\" NIL \"ann\" \"example.net\")) "
    "((\"Ann\" NIL \"ann\" \"example.net\")) ((NIL NIL \"bob\" \"example.org\")) NIL NIL NIL "
    "\"<0@example.net>\"))",
    "1S: a OK Fetched", "1C: a FETCH 1 (BODY BODYSTRUCTURE)",
    "1S: * 1 FETCH (BODY (\"text\" \"plain\" NIL NIL NIL \"7BIT\" 13 1) BODYSTRUCTURE "
    "(\"text\" \"plain\" NIL NIL NIL \"7BIT\" 13 1 NIL NIL NIL NIL))",
    "1S: a OK...", "1C: a FETCH 1 BODY.PEEK[HEADER.FIELDS (X-Relayd-To Return-Path)]",
    "1S: * 1 FETCH (BODY[HEADER.FIELDS (X-Relayd-To Return-Path)] {62}",
    "1S: Return-Path: <s@example.net>", "1S: X-Relayd-To: bob@example.org", "1S: ", "1S: )",
    "1S: a OK...", "1C: a FETCH 1 (BODY.PEEK[TEXT] BODY.PEEK[1]<5.2> BODY.PEEK[2])",
    "1S: * 1 FETCH (BODY[TEXT] {13}", "1S: Body of one", "1S:  BODY[1]<5> {2}",
    "1S: of BODY[2] NIL)", "1S: a OK...", "1C: a FETCH 1 BODY.PEEK[]<220.100>",
    "1S: * 1 FETCH (BODY[]<220> {4}", "1S: ne", "1S: )", "1S: a OK...",
    "1C: a FETCH 1 BODY.PEEK[]<1000.10>", "1S: * 1 FETCH (BODY[]<1000> \"\")", "1S: a OK...",
    "1C: a FETCH 2 FLAGS", "1S: a BAD There are 1 messages here", "1C: a UID FETCH 7:9 FLAGS",
    "1S: a OK...", "1C: a UID FETCH * FLAGS", "1S: * 1 FETCH (UID 1 FLAGS ())", "1S: a OK...")

TRANSCRIPT(reading_a_body_makes_it_seen_unless_it_is_peeked_at, "M: bob@example.org one",
    SELECTED("1", "1"), "1S: * OK [UNSEEN 1]...", "1S: * OK [UIDV...", "1S: * OK [UIDN...",
    "1S: s OK...", "1C: a FETCH 1 RFC822.HEADER", "1S: * 1 FETCH (RFC822.HEADER {211}",
    "1S: Return-Path...", "1S: X-Relayd-To...", "1S: Received...", "1S: Subject...", "1S: From...",
    "1S: To...", "1S: Date...", "1S: Message-ID...", "1S: ", "1S: )", "1S: a OK...",
    "1C: a FETCH 1 BODY[TEXT]", "1S: * 1 FETCH (BODY[TEXT] {13}", "1S: Body of one",
    "1S:  FLAGS (\\Seen))", "1S: a OK...", "1C: a FETCH 1 RFC822.TEXT",
    "1S: * 1 FETCH (RFC822.TEXT {13}", "1S: Body of one", "1S: )", "1S: a OK...",
    "1C: a STORE 1 -FLAGS.SILENT (\\Seen)", "1S: a OK...", "1C: b EXAMINE INBOX", "1S: * FLAGS...",
    "1S: * OK...", "1S: * 1 EXISTS", "1S: * 0 RECENT", "1S: * OK [UNSEEN 1]...",
    "1S: * OK [UIDV...", "1S: * OK [UIDN...", "1S: b OK [READ-ONLY]...",
    "1C: a FETCH 1 (FLAGS BODY[TEXT])", "1S: * 1 FETCH (FLAGS () BODY[TEXT] {13}",
    "1S: Body of one", "1S: )", "1S: a OK...", "1C: a STORE 1 FLAGS (\\Seen)",
    "1S: a NO [CANNOT] The mailbox was opened read-only...", "1C: a COPY 1 Trash",
    "1S: a NO [CANNOT]...", "1C: a EXPUNGE", "1S: a NO [CANNOT]...", "1C: a CLOSE", "1S: a OK...")

TRANSCRIPT(flags_are_set_added_removed_and_told, "M: bob@example.org one", "M: bob@example.org two",
    SELECTED("1", "2"), "1S: * OK [UNSEEN 1]...", "1S: * OK [UIDV...", "1S: * OK [UIDN...",
    "1S: s OK...", "1C: a STORE 1:2 +FLAGS (\\Seen \\Flagged)",
    "1S: * 1 FETCH (UID 1 FLAGS (\\Flagged \\Seen))",
    "1S: * 2 FETCH (UID 2 FLAGS (\\Flagged \\Seen))", "1S: a OK...",
    "1C: a UID STORE 2 -FLAGS \\Flagged", "1S: * 2 FETCH (UID 2 FLAGS (\\Seen))", "1S: a OK...",
    "1C: a STORE 1 FLAGS.SILENT (\\Answered)", "1S: a OK...", "1C: a FETCH 1 FLAGS",
    "1S: * 1 FETCH (FLAGS (\\Answered))", "1S: a OK...", "1C: a STORE 1 +FLAGS ($Junk)",
    "1S: * FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Junk)",
    "1S: * OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Junk \\*)]...",
    "1S: * 1 FETCH (UID 1 FLAGS (\\Answered $Junk))", "1S: a OK...", "1C: a STORE 1 FLAGS ()",
    "1S: * 1 FETCH (UID 1 FLAGS ())", "1S: a OK...")

TRANSCRIPT(two_clients_see_what_the_other_does, "M: bob@example.org one", SELECTED("1", "1"),
    "1S: * OK [UNSEEN 1]...", "1S: * OK [UIDV...", "1S: * OK [UIDN...", "1S: s OK...",
    SELECTED("2", "1"), "2S: * OK [UNSEEN 1]...", "2S: * OK [UIDV...", "2S: * OK [UIDN...",
    "2S: s OK...", "1C: i IDLE", "1S: + Waiting...", "2C: a STORE 1 +FLAGS.SILENT (\\Flagged)",
    "2S: a OK...", "1S: * 1 FETCH (UID 1 FLAGS (\\Flagged))", "M: bob@example.org two",
    "1S: * 2 EXISTS", "1S: * 1 RECENT", "1S: -", "2S: -", "2C: b NOOP", "2S: * 2 EXISTS",
    "2S: * 0 RECENT", "2S: b OK...", "2C: c MOVE 1 Trash", "2S: * OK [COPYUID...",
    "2S: * 1 EXPUNGE", "2S: c OK Moved: 1 message", "1S: * 1 EXPUNGE", "1S: -", "1C: DONE",
    "1S: i OK...", "1C: j IDLE", "1S: + Waiting...", "1C: j NOOP",
    "1S: j BAD IDLE ends with the line DONE")

TRANSCRIPT(an_expunge_waits_while_numbers_are_in_use, "M: bob@example.org one",
    "M: bob@example.org two", SELECTED("1", "2"), "1S: * OK [UNSEEN 1]...", "1S: * OK [UIDV...",
    "1S: * OK [UIDN...", "1S: s OK...", SELECTED("2", "2"), "2S: * OK [UNSEEN 1]...",
    "2S: * OK [UIDV...", "2S: * OK [UIDN...", "2S: s OK...", "2C: a STORE 1 +FLAGS (\\Deleted)",
    "2S: * 1 FETCH (UID 1 FLAGS (\\Deleted))", "2S: a OK...", "2C: b EXPUNGE", "2S: * 1 EXPUNGE",
    "2S: b OK Dropped: 1 message",
    /* RFC 2180 section 4.1.1: what has gone can still be read under its number */
    "1C: a FETCH 1:2 (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])",
    "1S: * 1 FETCH (FLAGS (\\Deleted) BODY[HEADER.FIELDS (SUBJECT)] {16}", "1S: Subject: one",
    "1S: ", "1S: )", "1S: * 2 FETCH (FLAGS () BODY[HEADER.FIELDS (SUBJECT)] {16}",
    "1S: Subject: two", "1S: ", "1S: )", "1S: a OK...", "1C: b SEARCH ALL", "1S: * SEARCH 2",
    "1S: b OK...", "1C: c STORE 1:2 +FLAGS (\\Seen)", "1S: * 2 FETCH (UID 2 FLAGS (\\Seen))",
    "1S: c NO [EXPUNGEISSUED]...", "1C: d UID SEARCH ALL", "1S: * SEARCH 2", "1S: * 1 EXPUNGE",
    "1S: d OK...", "1C: e FETCH 1 (UID)", "1S: * 1 FETCH (UID 2)", "1S: e OK...")

TRANSCRIPT(release_trash_and_back, "M: bob@example.org one", "M: bob@example.org two",
    "M: bob@example.org three", SELECTED("1", "3"), "1S: * OK [UNSEEN 1]...", "1S: * OK [UIDV...",
    "1S: * OK [UIDN...", "1S: s OK...", "1C: a COPY 2 Release", "1S: * 2 EXPUNGE",
    "1S: a OK [COPYUID...", "1C: b UID MOVE 1,3 Trash", "1S: * OK [COPYUID...", "1S: * 2 EXPUNGE",
    "1S: * 1 EXPUNGE", "1S: b OK Moved: 2 messages", "1C: c UID MOVE 1 Trash",
    "1S: c OK There are no such messages", "1C: d STATUS Release (MESSAGES)",
    "1S: * STATUS Release (MESSAGES 1)", "1S: d OK...", "1C: e SELECT Trash", "1S: * FLAGS...",
    "1S: * OK [PERMANENTFLAGS (\\Answered \\Flagged \\Seen \\Draft \\*)]...", "1S: * 2 EXISTS",
    "1S: * 2 RECENT", "1S: * OK [UNSEEN 1]...", "1S: * OK [UIDV...", "1S: * OK [UIDN...",
    "1S: e OK...", "1C: f STORE 1 +FLAGS (\\Deleted)", "1S: * 1 FETCH (UID 1 FLAGS (\\Recent))",
    "1S: f OK...", "1C: g EXPUNGE", "1S: g OK Nothing was marked \\Deleted", "1C: h MOVE 1 INBOX",
    "1S: * OK [COPYUID...", "1S: * 1 EXPUNGE", "1S: h OK...", "1C: i MOVE 1 Released",
    "1S: i NO [CANNOT]...", "1C: j COPY 1 Nowhere",
    "1S: j NO [CANNOT] There is no such mailbox and none can be made...", "1C: k COPY 1 Trash",
    "1S: k OK...", "1C: l SELECT INBOX", "1S: * FLAGS...", "1S: * OK [PERM...", "1S: * 1 EXISTS")

TRANSCRIPT(uid_expunge_and_close_drop_only_what_is_marked, "M: bob@example.org one",
    "M: bob@example.org two", "M: bob@example.org three", SELECTED("1", "3"),
    "1S: * OK [UNSEEN 1]...", "1S: * OK [UIDV...", "1S: * OK [UIDN...", "1S: s OK...",
    "1C: a STORE 1,3 +FLAGS.SILENT (\\Deleted)", "1S: a OK...", "1C: b UID EXPUNGE 2:3",
    "1S: * 3 EXPUNGE", "1S: b OK Dropped: 1 message", "1C: c UNSELECT", "1S: c OK...",
    "1C: d STATUS INBOX (MESSAGES)", "1S: * STATUS INBOX (MESSAGES 2)", "1S: d OK...",
    "1C: e SELECT INBOX", "1S: * FLAGS...", "1S: * OK [PERM...", "1S: * 2 EXISTS", "1S: * 0 RECENT",
    "1S: * OK [UNSEEN...", "1S: * OK [UIDV...", "1S: * OK [UIDN...", "1S: e OK...", "1C: f CLOSE",
    "1S: f OK Closed", "1C: g STATUS INBOX (MESSAGES)", "1S: * STATUS INBOX (MESSAGES 1)",
    "1S: g OK...", "1C: h CLOSE", "1S: h BAD Select a mailbox first...")

TRANSCRIPT(a_scope_sees_only_its_own, "M: bob@example.org one", "M: eve@example.org two",
    "M: bob@example.net three", "1+", "1C: l LOGIN bob bob", "1S: l OK...",
    "1C: a STATUS INBOX (MESSAGES)", "1S: * STATUS INBOX (MESSAGES 1)", "1S: a OK...", "2+",
    "2C: l LOGIN org org", "2S: l OK...", "2C: a STATUS INBOX (MESSAGES)",
    "2S: * STATUS INBOX (MESSAGES 2)", "2S: a OK...")

TRANSCRIPT(search_finds_by_every_kind_of_key, "M: bob@example.org Winter sale",
    "M: eve@example.org =?utf-8?q?J=C3=84ger?=", "M: bob@example.org report", SELECTED("1", "3"),
    "1S: * OK [UNSEEN 1]...", "1S: * OK [UIDV...", "1S: * OK [UIDN...", "1S: s OK...",
    "1C: a STORE 2 +FLAGS.SILENT (\\Seen $Junk)", "1S: * FLAGS...", "1S: * OK [PERM...",
    "1S: a OK...", "1C: a SEARCH ALL", "1S: * SEARCH 1 2 3", "1S: a OK...", "1C: a SEARCH UNSEEN",
    "1S: * SEARCH 1 3", "1S: a OK...", "1C: a SEARCH KEYWORD $junk", "1S: * SEARCH 2",
    "1S: a OK...", "1C: a SEARCH UNKEYWORD nosuch", "1S: * SEARCH 1 2 3", "1S: a OK...",
    "1C: a SEARCH SUBJECT wInTeR", "1S: * SEARCH 1", "1S: a OK...",
    "1C: a SEARCH CHARSET UTF-8 SUBJECT {6+}", "1C: j\xc3\xa4ger", "1S: * SEARCH 2", "1S: a OK...",
    "1C: a SEARCH CHARSET iso-8859-1 SUBJECT {5+}", "1C: J\xe4ger", "1S: * SEARCH 2", "1S: a OK...",
    "1C: a SEARCH CHARSET x-nosuch SUBJECT a", "1S: a NO [BADCHARSET (UTF-8 US-ASCII)]...",
    "1C: a SEARCH TO eve", "1S: * SEARCH 2", "1S: a OK...", "1C: a SEARCH FROM ann@example.net",
    "1S: * SEARCH 1 2 3", "1S: a OK...", "1C: a SEARCH HEADER Message-ID 2@example",
    "1S: * SEARCH 3", "1S: a OK...", "1C: a SEARCH HEADER X-Relayd-To eve", "1S: * SEARCH 2",
    "1S: a OK...", "1C: a SEARCH HEADER X-None \"\"", "1S: * SEARCH", "1S: a OK...",
    "1C: a SEARCH NOT HEADER Cc \"\"", "1S: * SEARCH 1 2 3", "1S: a OK...",
    "1C: a SEARCH BODY \"of report\"", "1S: * SEARCH 3", "1S: a OK...",
    "1C: a SEARCH TEXT \"ann@\" BODY sale", "1S: * SEARCH 1", "1S: a OK...",
    "1C: a SEARCH OR BODY sale BODY report", "1S: * SEARCH 1 3", "1S: a OK...",
    "1C: a SEARCH NOT BODY sale", "1S: * SEARCH 2 3", "1S: a OK...", "1C: a UID SEARCH 2:*",
    "1S: * SEARCH 2 3", "1S: a OK...", "1C: a SEARCH UID 2", "1S: * SEARCH 2", "1S: a OK...",
    "1C: a SEARCH SENTON 2-Mar-2026", "1S: * SEARCH 1 2 3", "1S: a OK...",
    "1C: a SEARCH SENTBEFORE 2-Mar-2026", "1S: * SEARCH", "1S: a OK...",
    "1C: a SEARCH SENTSINCE 2-Mar-2026 SEEN", "1S: * SEARCH 2", "1S: a OK...",
    "1C: a SEARCH BEFORE 1-Jan-2020", "1S: * SEARCH", "1S: a OK...",
    "1C: a SEARCH SINCE 1-Jan-2020", "1S: * SEARCH 1 2 3", "1S: a OK...",
    "1C: a SEARCH LARGER 100 SMALLER 100000", "1S: * SEARCH 1 2 3", "1S: a OK...",
    "1C: a SEARCH NEW", "1S: * SEARCH", "1S: a OK...", "1C: a SEARCH OLD", "1S: * SEARCH 1 2 3",
    "1S: a OK...", "M: bob@example.org new", "1C: a NOOP", "1S: * 4 EXISTS", "1S: * 1 RECENT",
    "1S: a OK...", "1C: a SEARCH OR RECENT NEW", "1S: * SEARCH 4", "1S: a OK...")

TRANSCRIPT(silence_ends_with_a_bye, LOGIN("1"), "T: 1", "1S: * BYE You were silent for too long",
    "1S: -", SELECTED("2", "0"), "2S: * OK [UIDV...", "2S: * OK [UIDN...", "2S: s OK...",
    "2C: i IDLE", "2S: + Waiting...", "T: 2", "2S: * BYE You were silent for too long")

/* ---- beyond transcripts ---- */

START_TEST(pipelined_commands_are_answered_in_order)
{
	struct rig r;

	rig_open(&r);
	client_open(&r, 0, true);
	expect_line(&r.clients[0], "* OK...", 0);
	client_send(&r, &r.clients[0],
	    SLICE("a LOGIN admin admin\r\nb STATUS INBOX (MESSAGES)\r\nc IDLE\r\nDONE\r\nd "
		  "LOGOUT\r\n"));
	expect_line(&r.clients[0], "a OK...", 1);
	expect_line(&r.clients[0], "* STATUS INBOX (MESSAGES 0)", 2);
	expect_line(&r.clients[0], "b OK...", 3);
	expect_line(&r.clients[0], "+ Waiting...", 4);
	expect_line(&r.clients[0], "c OK...", 5);
	expect_line(&r.clients[0], "* BYE...", 6);
	expect_line(&r.clients[0], "d OK...", 7);
	ck_assert(r.clients[0].bye);
	rig_close(&r);
}
END_TEST

START_TEST(a_large_message_is_streamed_as_output_has_room)
{
	struct rig r;
	struct client *c = &r.clients[0];
	struct buf bytes = buf_heap(8 << 20), want = buf_heap(8 << 20), got = buf_heap(8 << 20);
	size_t most = 0;

	rig_open(&r);
	buf_puts(
	    &bytes, "X-Relayd-To: bob@example.org\r\nReceived: from x\r\nSubject: big\r\n\r\n");
	for (unsigned n = 0; bytes.len < (3 << 20); n++)
		buf_printf(&bytes, "line %u of a body\r\n", n);
	buf_printf(&want, "* 1 FETCH (BODY[] {%zu}\r\n", bytes.len);
	buf_put(&want, buf_slice(&bytes));
	buf_puts(&want, ")\r\nc OK Fetched\r\n");
	ck_assert_int_eq(
	    put_bytes(&r.f, test_id(1), "bob@example.org", buf_slice(&bytes), 0, NULL), ERR_NONE);
	client_open(&r, 0, true);
	client_send(&r, c, SLICE("a LOGIN admin admin\r\nb SELECT INBOX\r\n"));
	c->read = c->out.len = 0;
	c->room = 1000;
	ck_assert_uint_gt(imap_session_read(c->session, SLICE("c FETCH 1 BODY.PEEK[]\r\n")), 0);
	while (got.len < want.len) {
		(void)uv_run(&r.f.loop, UV_RUN_NOWAIT);
		most = c->out.len > most ? c->out.len : most;
		buf_put(&got, buf_slice(&c->out));
		c->out.len = 0;
		imap_session_run(c->session);
	}
	ck_assert(slice_eq(buf_slice(&got), buf_slice(&want)));
	ck_assert_uint_lt(most, 600000);
	buf_fini(&bytes);
	buf_fini(&want);
	buf_fini(&got);
	rig_close(&r);
}
END_TEST

/* A client that goes away while the store works for it leaves nothing behind, whatever it had asked
 * for. */
static const char *const last_words[] = {
	"c FETCH 1:* (ENVELOPE BODY[])\r\n",
	"c SEARCH TEXT body\r\n",
	"c STORE 1:* +FLAGS (\\Seen)\r\n",
	"c UID MOVE 1 Release\r\n",
	"c CLOSE\r\n",
	"c SELECT Trash\r\n",
	"c STATUS Trash (MESSAGES)\r\n",
	"c IDLE\r\n",
	"c AUTHENTICATE PLAIN\r\n",
	"c LOGIN {5}\r\n",
};

START_TEST(a_client_may_go_at_any_moment)
{
	for (unsigned rounds = 0; rounds < 6; rounds++) {
		struct rig r;

		rig_open(&r);
		for (int i = 0; i < 3; i++)
			bring_message(&r, "bob@example.org text");
		client_open(&r, 0, true);
		client_send(&r, &r.clients[0],
		    SLICE("a LOGIN admin admin\r\nb SELECT INBOX\r\nx STORE 2 +FLAGS.SILENT "
			  "\\Deleted\r\n"));
		(void)imap_session_read(r.clients[0].session, slice_str(last_words[_i]));
		for (unsigned n = 0; n < rounds; n++) {
			(void)uv_run(&r.f.loop, UV_RUN_NOWAIT);
			imap_session_run(r.clients[0].session);
		}
		rig_close(&r);
	}
}
END_TEST

UNIT_SUITE(imap_session)
{
	UNIT_TEST(a_user_logs_in_and_out);
	UNIT_TEST(authenticate_plain_takes_its_response_with_the_command_or_after_it);
	UNIT_TEST(passwords_are_not_taken_where_they_could_be_read);
	UNIT_TEST(too_many_failed_logins_end_the_session);
	UNIT_TEST(nonsense_gets_a_helpful_bad);
	UNIT_TEST(too_many_bad_commands_end_the_session);
	UNIT_TEST(mailboxes_are_listed_selected_and_told_about);
	UNIT_TEST(what_cannot_be_done_gets_a_clear_no);
	UNIT_TEST(a_message_is_fetched_item_by_item);
	UNIT_TEST(reading_a_body_makes_it_seen_unless_it_is_peeked_at);
	UNIT_TEST(flags_are_set_added_removed_and_told);
	UNIT_TEST(two_clients_see_what_the_other_does);
	UNIT_TEST(an_expunge_waits_while_numbers_are_in_use);
	UNIT_TEST(release_trash_and_back);
	UNIT_TEST(uid_expunge_and_close_drop_only_what_is_marked);
	UNIT_TEST(a_scope_sees_only_its_own);
	UNIT_TEST(search_finds_by_every_kind_of_key);
	UNIT_TEST(silence_ends_with_a_bye);
	UNIT_TEST(pipelined_commands_are_answered_in_order);
	UNIT_TEST(a_large_message_is_streamed_as_output_has_room);
	UNIT_ROWS(a_client_may_go_at_any_moment, last_words);
}

/* relayd/review/pop3/session.c - a POP3 session (RFC 1939, RFC 2449) without a socket. */
#include "relayd/review/pop3/session.h"

#include <assert.h>
#include <stdlib.h>

enum pop3_state {
	POP3_AUTHORIZATION, /* greeted: USER, PASS */
	POP3_TRANSACTION,   /* logged in */
	POP3_OVER,          /* said goodbye */
};
#define IN(state) (1u << POP3_##state)

enum pop3_question { POP3_NO_QUESTION, POP3_ASKS_LOGIN, POP3_ASKS_MESSAGE, POP3_ASKS_UPDATE };
enum pop3_list { POP3_NO_LIST, POP3_LIST_SIZES, POP3_LIST_UIDS };

/* A message on its way out. */
struct fetch {
	bool begun;   /* +OK was sent */
	bool header;  /* of TOP: before the empty line */
	bool limited; /* TOP: lines_left of the body are wanted */
	uint64_t lines_left;
	bool inside; /* of a line */
	bool blank;  /* nothing but CR in this line so far */
};

struct pop3_session {
	struct pop3_settings settings;
	const struct pop3_ops *ops;
	void *user;
	enum pop3_state state;
	enum pop3_question question;
	bool leaving;  /* ends when the question is answered */
	bool dropping; /* the rest of a line that is too long */
	int64_t deadline;
	unsigned logins_failed, bad;
	char name[POP3_NAME_MAX];
	size_t name_len;   /* 0: no USER yet */
	struct sasl *sasl; /* an AUTH is under way: the next line is a response */

	const struct pop3_message *messages;
	size_t n;
	uint32_t uidvalidity;
	bool *deleted;
	size_t n_deleted;
	size_t index; /* of the question */
	struct fetch fetch;
	enum pop3_list list;
	size_t next; /* of the list */
};

static void
enter(struct pop3_session *s, enum pop3_state state)
{
	s->state = state;
}

static void
ok(const struct pop3_turn *turn, const char *text)
{
	buf_printf(turn->out, "+OK %s\r\n", text);
}

static void
fail(const struct pop3_turn *turn, const char *text)
{
	buf_printf(turn->out, "-ERR %s\r\n", text);
}

/* A command that cannot be meant; too many of them and the session ends. */
static void
bad(struct pop3_session *s, const struct pop3_turn *turn, const char *text)
{
	s->ops->on_bad(s->user);
	if (++s->bad >= POP3_BAD_COMMANDS) {
		fail(turn, "too many commands that are none: goodbye");
		enter(s, POP3_OVER);
		return;
	}
	fail(turn, text);
}

static void
ask(struct pop3_session *s, enum pop3_question question)
{
	assert(s->question == POP3_NO_QUESTION);
	s->question = question;
}

static void
restart_clock(struct pop3_session *s, int64_t now_ms)
{
	s->deadline = now_ms + (s->state == POP3_AUTHORIZATION ? POP3_LOGIN_MS : POP3_IDLE_MS);
}

static void
answered(struct pop3_session *s, const struct pop3_turn *turn)
{
	s->question = POP3_NO_QUESTION;
	restart_clock(s, turn->now_ms);
	if (s->leaving)
		enter(s, POP3_OVER);
}

/* ---- arguments ------------------------------------------------------------------------------- */

/* Takes a word off the front of *args. */
static struct slice
word(struct slice *args)
{
	struct slice w = slice_until(*args, ' ');

	*args = slice_drop(*args, w.len + 1);
	return w;
}

static bool
no_args(struct pop3_session *s, const struct pop3_turn *turn, struct slice args)
{
	if (args.len == 0)
		return true;
	bad(s, turn, "this command takes no argument");
	return false;
}

/* The index of the message that a word names; false, and answered, when there is none. */
static bool
message(struct pop3_session *s, const struct pop3_turn *turn, struct slice number, size_t *index)
{
	uint64_t n;

	if (!slice_u64(number, SIZE_MAX, &n)) {
		bad(s, turn, "which message? Give its number, as LIST shows it");
		return false;
	}
	if (n == 0 || n > s->n) {
		buf_printf(turn->out, "-ERR no such message: there are %zu\r\n", s->n);
		return false;
	}
	if (s->deleted[n - 1]) {
		buf_printf(turn->out,
		    "-ERR message %zu is marked as deleted; RSET takes it back\r\n", (size_t)n);
		return false;
	}
	*index = (size_t)n - 1;
	return true;
}

/* ---- AUTHORIZATION --------------------------------------------------------------------------- */

static void
run_user(struct pop3_session *s, const struct pop3_turn *turn, struct slice args)
{
	if (!s->settings.is_private) {
		fail(turn, "[AUTH] no password in the clear: connect with TLS, to the pop3s port");
		return;
	}
	if (args.len == 0 || args.len > POP3_NAME_MAX) {
		bad(s, turn, "USER and your name, please");
		return;
	}
	memcpy(s->name, args.p, args.len);
	s->name_len = args.len;
	ok(turn, "now PASS and the password");
}

static void
run_pass(struct pop3_session *s, const struct pop3_turn *turn, struct slice args)
{
	size_t name_len = s->name_len;

	if (name_len == 0) {
		bad(s, turn, "USER first");
		return;
	}
	s->name_len = 0;
	ask(s, POP3_ASKS_LOGIN);
	s->ops->on_login(s->user, slice_of(s->name, name_len), args);
}

/* ---- AUTH: RFC 5034 ---- */

static struct sasl_about
about_of(const struct pop3_session *s)
{
	struct sasl_about about = {
		.service = "pop", .hostname = s->settings.hostname
	};

	if (s->ops->on_about != NULL)
		s->ops->on_about(s->user, &about);
	return about;
}

/* Appends the names, each behind a space; nothing where no login is taken. */
static void
put_mechanisms(const struct pop3_session *s, struct buf *out)
{
	struct sasl_about about = about_of(s);

	if (s->ops->on_about != NULL && s->settings.is_private)
		mechanisms_put(out, sasl_offer(&about), " ");
}

static void
end_exchange(struct pop3_session *s)
{
	sasl_free(s->sasl);
	s->sasl = NULL;
}

static void
ask_proved(struct pop3_session *s, bool proved)
{
	ask(s, POP3_ASKS_LOGIN);
	s->ops->on_proved(s->user, sasl_user(s->sasl), proved);
}

static void
sasl_round(
    struct pop3_session *s, const struct pop3_turn *turn, struct slice response, bool has_response)
{
	char storage[SASL_CHALLENGE_MAX];
	struct buf challenge = buf_over(storage, sizeof(storage));

	switch (sasl_step(s->sasl, response, has_response, &challenge)) {
	case SASL_CONTINUE:
		buf_puts(turn->out, "+ ");
		buf_put(turn->out, buf_slice(&challenge));
		buf_puts(turn->out, "\r\n");
		return;
	case SASL_CHECK:
		ask(s, POP3_ASKS_LOGIN);
		s->ops->on_login(s->user, sasl_user(s->sasl), sasl_password(s->sasl));
		break;
	case SASL_OK:
		ask_proved(s, true);
		break;
	case SASL_FAILED:
	case SASL_TRANSITION:
	case SASL_DENIED:
		ask_proved(s, false);
		break;
	case SASL_TOKEN: /* not offered: there is nobody to ask */
	case SASL_BAD:
		bad(s, turn, "that is no response of this mechanism");
		break;
	}
	end_exchange(s); /* what was asked has its copy */
}

static void
run_auth(struct pop3_session *s, const struct pop3_turn *turn, struct slice args)
{
	struct slice name = word(&args);
	struct sasl_about about = about_of(s);
	enum mechanism m = mechanism_named(name);

	if (!s->settings.is_private)
		fail(turn, "[AUTH] no login in the clear: connect with TLS, to the pop3s port");
	else if (s->ops->on_about == NULL || m == MECHANISM_COUNT ||
		 (sasl_offer(&about) & MECHANISM_BIT(m)) == 0)
		bad(s, turn, "AUTH and a mechanism that CAPA lists, please");
	else if ((s->sasl = sasl_start(m, &about)) == NULL)
		fail(turn, "[SYS/TEMP] out of memory");
	else
		sasl_round(s, turn, args, args.len > 0);
}

static void
response(struct pop3_session *s, const struct pop3_turn *turn, struct slice line)
{
	if (!slice_eq(line, SLICE("*"))) {
		sasl_round(s, turn, line, true);
		return;
	}
	end_exchange(s);
	fail(turn, "given up, as you wish");
}

/* Those that are not deleted. */
static uint64_t
octets(const struct pop3_session *s)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < s->n; i++)
		sum += s->deleted[i] ? 0 : s->messages[i].octets;
	return sum;
}

void
pop3_maildrop(struct pop3_session *s, const struct pop3_turn *turn,
    const struct pop3_message *messages, size_t n, uint32_t uidvalidity)
{
	assert(s->question == POP3_ASKS_LOGIN);
	s->deleted = calloc(n + 1, sizeof(*s->deleted));
	if (s->deleted == NULL) {
		pop3_refuse(s, turn, "SYS/TEMP", "out of memory");
		return;
	}
	s->messages = messages;
	s->n = n;
	s->uidvalidity = uidvalidity;
	enter(s, POP3_TRANSACTION);
	buf_printf(turn->out,
	    "+OK %zu messages held, %llu octets: STAT, LIST, UIDL, RETR n, TOP n lines\r\n", n,
	    (unsigned long long)octets(s));
	answered(s, turn);
}

void
pop3_refuse(
    struct pop3_session *s, const struct pop3_turn *turn, const char *code, const char *text)
{
	assert(s->question == POP3_ASKS_LOGIN || s->question == POP3_ASKS_MESSAGE);
	if (code[0] != '\0')
		buf_printf(turn->out, "-ERR [%s] %s\r\n", code, text);
	else
		fail(turn, text);
	if (s->question == POP3_ASKS_LOGIN && ++s->logins_failed >= POP3_LOGINS_MAX)
		enter(s, POP3_OVER);
	answered(s, turn);
}

/* ---- TRANSACTION ----------------------------------------------------------------------------- */

static void
run_stat(struct pop3_session *s, const struct pop3_turn *turn, struct slice args)
{
	if (no_args(s, turn, args))
		buf_printf(turn->out, "+OK %zu %llu\r\n", s->n - s->n_deleted,
		    (unsigned long long)octets(s));
}

static void
put_row(const struct pop3_session *s, const struct pop3_turn *turn, enum pop3_list list, size_t i)
{
	if (list == POP3_LIST_SIZES)
		buf_printf(
		    turn->out, "%zu %llu\r\n", i + 1, (unsigned long long)s->messages[i].octets);
	else
		buf_printf(turn->out, "%zu %u-%u\r\n", i + 1, s->uidvalidity, s->messages[i].uid);
}

/* Puts rows as far as there is room for them. */
static void
continue_list(struct pop3_session *s, const struct pop3_turn *turn)
{
	for (; s->next < s->n && turn->out->len < POP3_OUT_HIGH; s->next++)
		if (!s->deleted[s->next])
			put_row(s, turn, s->list, s->next);
	if (s->next == s->n) {
		buf_puts(turn->out, ".\r\n");
		s->list = POP3_NO_LIST;
	}
}

static void
list(struct pop3_session *s, const struct pop3_turn *turn, struct slice args, enum pop3_list kind)
{
	size_t index;

	if (args.len > 0) {
		if (message(s, turn, args, &index)) {
			buf_puts(turn->out, "+OK ");
			put_row(s, turn, kind, index);
		}
		return;
	}
	buf_printf(turn->out, "+OK %zu messages\r\n", s->n - s->n_deleted);
	s->list = kind;
	s->next = 0;
	continue_list(s, turn);
}

static void
run_list(struct pop3_session *s, const struct pop3_turn *turn, struct slice args)
{
	list(s, turn, args, POP3_LIST_SIZES);
}

static void
run_uidl(struct pop3_session *s, const struct pop3_turn *turn, struct slice args)
{
	list(s, turn, args, POP3_LIST_UIDS);
}

static void
fetch(struct pop3_session *s, size_t index, bool limited, uint64_t lines)
{
	s->index = index;
	s->fetch = (struct fetch){
		.header = true, .limited = limited, .lines_left = lines, .blank = true
	};
	ask(s, POP3_ASKS_MESSAGE);
	s->ops->on_message(s->user, index);
}

static void
run_retr(struct pop3_session *s, const struct pop3_turn *turn, struct slice args)
{
	size_t index;

	if (message(s, turn, args, &index))
		fetch(s, index, false, 0);
}

static void
run_top(struct pop3_session *s, const struct pop3_turn *turn, struct slice args)
{
	struct slice number = word(&args);
	uint64_t lines;
	size_t index;

	if (!message(s, turn, number, &index))
		return;
	if (slice_u64(args, UINT64_MAX, &lines))
		fetch(s, index, true, lines);
	else
		bad(s, turn, "TOP takes a message and a number of lines");
}

static void
run_dele(struct pop3_session *s, const struct pop3_turn *turn, struct slice args)
{
	size_t index;

	if (!message(s, turn, args, &index))
		return;
	if (!s->settings.may_delete) {
		fail(turn,
		    "[SYS/PERM] DELE is off: this mailbox is shared. review { pop3-delete = yes } "
		    "allows it");
		return;
	}
	s->deleted[index] = true;
	s->n_deleted++;
	buf_printf(turn->out, "+OK message %zu will be dropped at QUIT\r\n", index + 1);
}

static void
run_rset(struct pop3_session *s, const struct pop3_turn *turn, struct slice args)
{
	if (!no_args(s, turn, args))
		return;
	memset(s->deleted, 0, (s->n + 1) * sizeof(*s->deleted));
	s->n_deleted = 0;
	buf_printf(
	    turn->out, "+OK %zu messages, %llu octets\r\n", s->n, (unsigned long long)octets(s));
}

static void
run_noop(struct pop3_session *s, const struct pop3_turn *turn, struct slice args)
{
	if (no_args(s, turn, args))
		ok(turn, "still here");
}

static void
run_capa(struct pop3_session *s, const struct pop3_turn *turn, struct slice args)
{
	char storage[MECHANISMS_TEXT_MAX];
	struct buf names = buf_over(storage, sizeof(storage));

	if (!no_args(s, turn, args))
		return;
	put_mechanisms(s, &names);
	ok(turn, "what can be done here");
	if (s->settings.is_private)
		buf_puts(turn->out, "USER\r\n");
	if (names.len > 0)
		buf_printf(turn->out, "SASL%.*s\r\n", SLICE_FMT(buf_slice(&names)));
	buf_puts(turn->out, "TOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\n");
	if (s->settings.keep_days > 0)
		buf_printf(turn->out, "EXPIRE %u\r\n", s->settings.keep_days);
	buf_puts(turn->out, "IMPLEMENTATION relayd\r\n.\r\n");
}

static void
run_quit(struct pop3_session *s, const struct pop3_turn *turn, struct slice args)
{
	if (!no_args(s, turn, args))
		return;
	if (s->n_deleted > 0) {
		ask(s, POP3_ASKS_UPDATE);
		s->ops->on_update(s->user);
		return;
	}
	ok(turn, "goodbye");
	enter(s, POP3_OVER);
}

void
pop3_updated(struct pop3_session *s, const struct pop3_turn *turn, bool done)
{
	assert(s->question == POP3_ASKS_UPDATE);
	if (done)
		buf_printf(
		    turn->out, "+OK %zu dropped: in Trash until they expire\r\n", s->n_deleted);
	else
		fail(turn, "[SYS/TEMP] some deleted messages not removed");
	enter(s, POP3_OVER);
	answered(s, turn);
}

bool
pop3_is_deleted(const struct pop3_session *s, size_t index)
{
	return s->deleted[index];
}

/* ---- a message on its way out ---------------------------------------------------------------- */

/* A line ended; true when it was the last that is wanted. */
static bool
line_ended(struct fetch *f)
{
	bool blank = f->blank;

	f->inside = false;
	f->blank = true;
	if (!f->limited)
		return false;
	if (!f->header)
		return --f->lines_left == 0;
	f->header = !blank;
	return blank && f->lines_left == 0;
}

/* Sends bytes with dots doubled at the front of lines; true when no more lines are wanted. */
static bool
send_lines(struct fetch *f, struct buf *out, struct slice bytes)
{
	while (bytes.len > 0) {
		struct slice piece = slice_until(bytes, '\n');
		bool whole = piece.len < bytes.len;

		if (!f->inside && bytes.p[0] == '.')
			buf_putc(out, '.');
		piece.len += whole;
		buf_put(out, piece);
		f->blank = f->blank && slice_trim(piece).len == 0 && !slice_has(piece, ' ') &&
			   !slice_has(piece, '\t');
		f->inside = true;
		bytes = slice_drop(bytes, piece.len);
		if (whole && line_ended(f))
			return true;
	}
	return false;
}

bool
pop3_body(struct pop3_session *s, const struct pop3_turn *turn, struct slice bytes, bool last)
{
	struct fetch *f = &s->fetch;

	assert(s->question == POP3_ASKS_MESSAGE);
	if (!f->begun) {
		buf_printf(turn->out, "+OK %llu octets\r\n",
		    (unsigned long long)s->messages[s->index].octets);
		f->begun = true;
	}
	if (!send_lines(f, turn->out, bytes) && !last)
		return true;
	buf_puts(turn->out, f->inside ? "\r\n.\r\n" : ".\r\n");
	answered(s, turn);
	return false;
}

/* ---- commands -------------------------------------------------------------------------------- */

#define ANY (IN(AUTHORIZATION) | IN(TRANSACTION))

static const struct verb {
	const char *name;
	unsigned allowed; /* set of IN(state) */
	void (*run)(struct pop3_session *s, const struct pop3_turn *turn, struct slice args);
} verbs[] = {
	{ "USER", IN(AUTHORIZATION), run_user },
	{ "PASS", IN(AUTHORIZATION), run_pass },
	{ "AUTH", IN(AUTHORIZATION), run_auth },
	{ "CAPA", ANY, run_capa },
	{ "QUIT", ANY, run_quit },
	{ "NOOP", IN(TRANSACTION), run_noop },
	{ "STAT", IN(TRANSACTION), run_stat },
	{ "LIST", IN(TRANSACTION), run_list },
	{ "UIDL", IN(TRANSACTION), run_uidl },
	{ "RETR", IN(TRANSACTION), run_retr },
	{ "TOP", IN(TRANSACTION), run_top },
	{ "DELE", IN(TRANSACTION), run_dele },
	{ "RSET", IN(TRANSACTION), run_rset },
};

static const char *
hint(const struct pop3_session *s)
{
	if (s->state == POP3_AUTHORIZATION)
		return "not a command here: USER name, PASS password, AUTH mechanism, CAPA or QUIT";
	return "not a command here: STAT, LIST, UIDL, RETR n, TOP n lines, DELE n, RSET, NOOP, "
	       "CAPA, QUIT";
}

static void
command(struct pop3_session *s, const struct pop3_turn *turn, struct slice line)
{
	struct slice verb = word(&line);

	for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
		if (!slice_ieq(verb, slice_str(verbs[i].name)))
			continue;
		if (verbs[i].allowed & (1u << s->state))
			verbs[i].run(s, turn, line);
		else
			bad(s, turn,
			    s->state == POP3_AUTHORIZATION ? "log in first: USER, then PASS"
							   : "you are logged in already");
		return;
	}
	bad(s, turn, hint(s));
}

/* Takes a line off the front of *in and runs it; false when there is no whole one. */
static bool
take_line(struct pop3_session *s, const struct pop3_turn *turn, struct slice *in)
{
	struct slice line = slice_until(*in, '\n');
	bool whole = line.len < in->len, dropping = s->dropping;
	size_t max = s->sasl != NULL ? POP3_AUTH_LINE_MAX : POP3_LINE_MAX;

	if (!whole) {
		if (dropping || in->len >= max) {
			s->dropping = true; /* said once, when its end comes */
			*in = slice_drop(*in, in->len);
		}
		return false;
	}
	*in = slice_drop(*in, line.len + 1);
	s->dropping = false;
	restart_clock(s, turn->now_ms);
	(void)slice_chop(&line, "\r"); /* a LF alone is what some type by hand */
	if (dropping || line.len > max - 2) {
		end_exchange(s);
		bad(s, turn, "line too long");
	} else if (slice_has(line, '\0') || slice_has(line, '\r')) {
		end_exchange(s);
		bad(s, turn, "a line of text, please");
	} else if (s->sasl != NULL) {
		response(s, turn, line);
	} else {
		command(s, turn, line);
	}
	return true;
}

static bool
may_go_on(const struct pop3_session *s, const struct pop3_turn *turn)
{
	return s->question == POP3_NO_QUESTION && s->state != POP3_OVER &&
	       turn->out->len < POP3_OUT_HIGH;
}

size_t
pop3_session_input(struct pop3_session *s, const struct pop3_turn *turn, struct slice bytes)
{
	struct slice in = bytes;

	while (may_go_on(s, turn)) {
		if (s->list != POP3_NO_LIST)
			continue_list(s, turn);
		else if (!take_line(s, turn, &in))
			break;
	}
	if (s->state == POP3_OVER)
		return bytes.len; /* nobody will look at it */
	return bytes.len - in.len;
}

/* ---- the session ----------------------------------------------------------------------------- */

struct pop3_session *
pop3_session_new(const struct pop3_settings *settings, const struct pop3_ops *ops, void *user,
    const struct pop3_turn *turn)
{
	struct pop3_session *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->settings = *settings;
	s->ops = ops;
	s->user = user;
	enter(s, POP3_AUTHORIZATION);
	restart_clock(s, turn->now_ms);
	buf_printf(turn->out, "+OK relayd POP3 at %s: USER name, then PASS password\r\n",
	    settings->hostname);
	return s;
}

void
pop3_session_free(struct pop3_session *s)
{
	if (s == NULL)
		return;
	end_exchange(s);
	free(s->deleted);
	free(s);
}

bool
pop3_session_is_asking(const struct pop3_session *s)
{
	return s->question != POP3_NO_QUESTION;
}

bool
pop3_session_has_more(const struct pop3_session *s)
{
	return s->list != POP3_NO_LIST;
}

bool
pop3_session_is_over(const struct pop3_session *s)
{
	return s->state == POP3_OVER;
}

int64_t
pop3_session_deadline(const struct pop3_session *s)
{
	if (s->state == POP3_OVER || s->question != POP3_NO_QUESTION)
		return INT64_MAX;
	return s->deadline;
}

void
pop3_session_shutdown(struct pop3_session *s, const struct pop3_turn *turn)
{
	if (s->state == POP3_OVER)
		return;
	if (s->question != POP3_NO_QUESTION) {
		s->leaving = true;
		return;
	}
	if (s->list == POP3_NO_LIST) /* in the middle of a list it would be taken for a row */
		fail(turn, "[SYS/TEMP] closing: nothing was dropped");
	enter(s, POP3_OVER);
}

void
pop3_session_tick(struct pop3_session *s, const struct pop3_turn *turn)
{
	if (turn->now_ms >= pop3_session_deadline(s))
		pop3_session_shutdown(s, turn);
}

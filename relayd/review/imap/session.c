/* relayd/review/imap/session.c - an IMAP session: commands begin, run step by step, and end. */
#include "relayd/review/imap/session_internal.h"

#include "relayd/core/counters.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define WORK_ARENA_BYTES (IMAP_ARENA_BYTES + IMAP_COMMAND_MAX + 4096)

#define CAPABILITIES                                                                               \
	"IMAP4rev1 LITERAL+ SASL-IR ID IDLE NAMESPACE UIDPLUS UNSELECT MOVE CHILDREN SPECIAL-USE"

static void
enter(struct imap_session *s, enum imap_state state)
{
	s->state = state;
}

const char *
imap_capabilities(struct imap_session *s)
{
	struct buf out = buf_over(s->capabilities, sizeof(s->capabilities) - 1);
	struct sasl_about about = imap_sasl_about(s);

	buf_puts(&out, CAPABILITIES); /* all of it fits */
	if (s->state == IMAP_STATE_GREETED && s->may_login)
		mechanisms_put(&out, sasl_offer(&about), " AUTH=");
	else if (s->state == IMAP_STATE_GREETED)
		buf_puts(&out, " LOGINDISABLED");
	s->capabilities[out.len] = '\0';
	return s->capabilities;
}

/* ---- the simplest commands ---- */

static void
run_capability(struct imap_session *s)
{
	buf_printf(imap_out(s), "* CAPABILITY %s\r\n", imap_capabilities(s));
	imap_end(s, IMAP_OK, "That is what this server can do");
}

static void
run_noop(struct imap_session *s)
{
	imap_end(s, IMAP_OK, "%.*s done", SLICE_FMT(s->work->cmd.name));
}

static void
run_id(struct imap_session *s)
{
	buf_puts(imap_out(s), "* ID (\"name\" \"relayd\" \"version\" \"" RELAYD_VERSION "\")\r\n");
	imap_end(s, IMAP_OK, "Pleased to meet you");
}

static void
run_namespace(struct imap_session *s)
{
	buf_puts(imap_out(s), "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n");
	imap_end(s, IMAP_OK, "One namespace, without a prefix");
}

static void
run_logout(struct imap_session *s)
{
	buf_puts(imap_out(s), "* BYE See you\r\n");
	imap_view_close(&s->view);
	enter(s, IMAP_STATE_LOGOUT);
	imap_end(s, IMAP_OK, "Logged out");
}

static void
run_unselect(struct imap_session *s)
{
	imap_view_close(&s->view);
	enter(s, IMAP_STATE_AUTHENTICATED);
	imap_end(s, IMAP_OK, "Nothing was expunged");
}

/* ---- what is allowed when: RFC 3501 section 6 ---- */

#define IN(state) (1u << IMAP_STATE_##state)
#define ANY       (IN(GREETED) | IN(AUTHENTICATED) | IN(SELECTED))
#define LOGGED_IN (IN(AUTHENTICATED) | IN(SELECTED))

static const struct rule {
	unsigned allowed; /* set of IN(state) */
	void (*run)(struct imap_session *s);
} rules[IMAP_VERBS] = {
	[IMAP_CAPABILITY] = { ANY, run_capability },
	[IMAP_NOOP] = { ANY, run_noop },
	[IMAP_LOGOUT] = { ANY, run_logout },
	[IMAP_ID] = { ANY, run_id },
	[IMAP_OTHER] = { ANY, imap_run_refused },
	[IMAP_STARTTLS] = { IN(GREETED), imap_run_refused },
	[IMAP_LOGIN] = { IN(GREETED), imap_run_login },
	[IMAP_AUTHENTICATE] = { IN(GREETED), imap_run_authenticate },
	[IMAP_SELECT] = { LOGGED_IN, imap_run_select },
	[IMAP_EXAMINE] = { LOGGED_IN, imap_run_select },
	[IMAP_LIST] = { LOGGED_IN, imap_run_list },
	[IMAP_LSUB] = { LOGGED_IN, imap_run_list },
	[IMAP_SUBSCRIBE] = { LOGGED_IN, imap_run_subscribe },
	[IMAP_UNSUBSCRIBE] = { LOGGED_IN, imap_run_subscribe },
	[IMAP_STATUS] = { LOGGED_IN, imap_run_status },
	[IMAP_NAMESPACE] = { LOGGED_IN, run_namespace },
	[IMAP_IDLE] = { LOGGED_IN, imap_run_idle },
	[IMAP_CREATE] = { LOGGED_IN, imap_run_refused },
	[IMAP_DELETE] = { LOGGED_IN, imap_run_refused },
	[IMAP_RENAME] = { LOGGED_IN, imap_run_refused },
	[IMAP_APPEND] = { LOGGED_IN, imap_run_refused },
	[IMAP_CHECK] = { IN(SELECTED), run_noop },
	[IMAP_CLOSE] = { IN(SELECTED), imap_run_close },
	[IMAP_UNSELECT] = { IN(SELECTED), run_unselect },
	[IMAP_EXPUNGE] = { IN(SELECTED), imap_run_expunge },
	[IMAP_FETCH] = { IN(SELECTED), imap_run_fetch },
	[IMAP_STORE] = { IN(SELECTED), imap_run_store },
	[IMAP_SEARCH] = { IN(SELECTED), imap_run_search },
	[IMAP_COPY] = { IN(SELECTED), imap_run_copy },
	[IMAP_MOVE] = { IN(SELECTED), imap_run_copy },
};

static const char *
why_not_now(const struct imap_session *s, const struct rule *rule)
{
	if (s->state == IMAP_STATE_GREETED)
		return "Log in first, as in: a1 LOGIN name password";
	if (rule->allowed == IN(GREETED))
		return "You are logged in already";
	return "Select a mailbox first, as in: a2 SELECT INBOX";
}

/* ---- work ---- */

static void
work_free(struct imap_session *s)
{
	struct imap_work *w = s->work;

	if (w == NULL)
		return;
	s->work = NULL;
	s->view.quiet = false;
	if (w->cmd.password.len > 0)
		explicit_bzero(
		    (char *)(uintptr_t)w->cmd.password.p, w->cmd.password.len); /* our copy */
	sasl_free(w->sasl);
	if (w->target != NULL)
		store_box_close(w->target);
	if (w->moved)
		store_move_fini(&w->move);
	imap_batch_free(w->batch);
	if (w->search != NULL)
		free(w->search->hits);
	free(w->search);
	free(w->indexes);
	free(w->uids);
	buf_fini(&w->code);
	arena_fini(&w->arena);
	free(w);
}

static void
free_session(struct imap_session *s)
{
	const struct imap_session_ops *ops = s->ops;
	void *owner = s->owner;

	work_free(s);
	imap_view_close(&s->view);
	imap_scan_fini(&s->scanner);
	free(s->bye);
	free(s);
	ops->on_closed(owner);
}

static void
say_bye(struct imap_session *s, const char *text)
{
	if (s->state == IMAP_STATE_LOGOUT)
		return;
	buf_printf(imap_out(s), "* BYE %s\r\n", text);
	imap_view_close(&s->view);
	enter(s, IMAP_STATE_LOGOUT);
	s->ops->on_bye(s->owner);
}

static void
count_bad(struct imap_session *s)
{
	counter_add(COUNTER_BAD_COMMANDS, 1);
	if (++s->bad_in_a_row >= IMAP_BAD_MAX)
		imap_session_bye(s, "Too many bad commands");
}

/* Whether an EXPUNGE may be told at the end of this command: RFC 3501 section 7.4.1. */
static bool
may_expunge(const struct imap_command *cmd)
{
	return cmd->uid ||
	       (cmd->verb != IMAP_FETCH && cmd->verb != IMAP_STORE && cmd->verb != IMAP_SEARCH);
}

/* The last step of every command. */
static void
step_end(struct imap_session *s)
{
	static const char *const words[] = { "OK", "NO", "BAD" };
	struct imap_work *w = s->work;
	struct buf *out = imap_out(s);
	bool bad = w->ending == IMAP_BAD;

	if (imap_view_is_open(&s->view) &&
	    !imap_view_sync(&s->view, may_expunge(&w->cmd), IMAP_OUT_BYTES, out))
		return;
	buf_printf(out, "%.*s %s ", SLICE_FMT(w->cmd.tag), words[w->ending]);
	buf_put(out, buf_slice(&w->code));
	buf_printf(out, "%s\r\n", w->text);
	work_free(s);
	if (s->state == IMAP_STATE_LOGOUT) {
		s->ops->on_bye(s->owner);
		return;
	}
	if (bad)
		count_bad(s);
	else
		s->bad_in_a_row = 0;
	if (imap_view_failed(&s->view))
		say_bye(s, "Out of memory");
	else if (s->bye != NULL)
		say_bye(s, s->bye);
}

void
imap_end(struct imap_session *s, enum imap_ending ending, const char *fmt, ...)
{
	struct imap_work *w = s->work;
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(w->text, sizeof(w->text), fmt, ap); /* cut if need be */
	va_end(ap);
	for (char *c = w->text; *c != '\0'; c++)
		if (*c == '\r' || *c == '\n')
			*c = ' ';
	w->ending = ending;
	w->step = step_end;
	w->on_line = NULL;
	s->waiting = false;
}

void
imap_end_err(struct imap_session *s, const struct err *err)
{
	/* RFC 5530 section 3 */
	const char *code = err->code == ERR_DENIED      ? "CANNOT"
			   : err->code == ERR_LIMIT     ? "LIMIT"
			   : err->code == ERR_NOT_FOUND ? "NONEXISTENT"
							: "UNAVAILABLE";

	imap_end(s, IMAP_NO, "[%s] %s", code, err->msg);
}

void
imap_wait(struct imap_session *s)
{
	s->waiting = s->in_store = true;
}

static void
run_steps(struct imap_session *s)
{
	if (s->running)
		return;
	s->running = true;
	while (s->work != NULL && !s->waiting && !s->closing && !s->ops->is_full(s->owner))
		s->work->step(s);
	s->running = false;
}

void
imap_go_on(struct imap_session *s)
{
	s->waiting = s->in_store = false;
	if (s->closing) {
		free_session(s);
		return;
	}
	run_steps(s);
	s->ops->on_progress(s->owner);
}

void
imap_session_run(struct imap_session *s)
{
	run_steps(s);
}

/* ---- from bytes to work ---- */

static void
reply_bad(struct imap_session *s, struct slice tag, const char *text)
{
	if (tag.len > 0)
		buf_printf(imap_out(s), "%.*s BAD %s\r\n", SLICE_FMT(tag), text);
	else
		buf_printf(imap_out(s), "* BAD %s\r\n", text);
	count_bad(s);
	if (s->bye != NULL)
		say_bye(s, s->bye);
}

static void
begin(struct imap_session *s, struct imap_work *w, const char *bad)
{
	const struct rule *rule = bad == NULL ? &rules[w->cmd.verb] : NULL;

	s->work = w;
	if (bad != NULL && w->cmd.tag.len == 0) {
		work_free(s);
		reply_bad(s, SLICE(""), bad);
	} else if (bad != NULL) {
		imap_end(s, IMAP_BAD, "%s", bad);
	} else if ((rule->allowed & (1u << s->state)) == 0) {
		imap_end(s, IMAP_BAD, "%s", why_not_now(s, rule));
	} else {
		w->step = rule->run;
	}
	run_steps(s);
}

/* A whole command is in the scanner.  Its bytes are copied: the scanner is needed for the lines of
 * IDLE and AUTHENTICATE. */
static void
begin_command(struct imap_session *s)
{
	struct slice text = imap_scan_command(&s->scanner);
	struct imap_work *w;
	struct slice copy;

	if (text.len == 0) { /* a bare line end: no command, and no harm */
		imap_scan_next(&s->scanner);
		return;
	}
	w = calloc(1, sizeof(*w));
	if (w != NULL) {
		w->session = s;
		w->arena = arena_of(WORK_ARENA_BYTES);
		w->code = buf_heap(IMAP_OUT_BYTES);
	}
	copy = w != NULL ? arena_copy(&w->arena, text) : SLICE("");
	imap_scan_next(&s->scanner);
	if (w == NULL || copy.p == NULL) {
		free(w);
		say_bye(s, "Out of memory");
		return;
	}
	begin(s, w, imap_parse(copy, &w->arena, &w->cmd));
}

static const char append_refused[] =
    "[CANNOT] Nothing can be appended: only what was held by the gateway is kept here";

static void
refuse_command(struct imap_session *s)
{
	struct imap_command head;

	(void)imap_parse_head(imap_scan_command(&s->scanner), &head); /* tag may be empty */
	if (head.verb == IMAP_APPEND && s->state != IMAP_STATE_GREETED && head.tag.len > 0)
		buf_printf(imap_out(s), "%.*s NO %s\r\n", SLICE_FMT(head.tag), append_refused);
	else
		reply_bad(s, head.tag, "The literal is too long");
	imap_scan_next(&s->scanner);
}

/* A literal is announced: it may come, unless it is too long or the message of an APPEND. */
static void
on_literal(struct imap_session *s)
{
	struct imap_command head;
	bool append =
	    imap_parse_head(imap_scan_command(&s->scanner), &head) && head.verb == IMAP_APPEND;
	bool waits = imap_scan_literal_waits(&s->scanner);

	if (!append && s->work == NULL && imap_scan_accept(&s->scanner)) {
		if (waits)
			buf_puts(imap_out(s), "+ Go ahead\r\n");
		return;
	}
	imap_scan_refuse(&s->scanner);
	if (waits)
		refuse_command(s);
}

static void
on_long(struct imap_session *s, const char *text)
{
	struct imap_command head;

	(void)imap_parse_head(imap_scan_command(&s->scanner), &head); /* tag may be empty */
	reply_bad(s, head.tag, text);
	imap_scan_next(&s->scanner);
}

static void
on_command(struct imap_session *s)
{
	struct slice line = imap_scan_command(&s->scanner);

	if (s->work == NULL) {
		begin_command(s);
		return;
	}
	s->work->on_line(s, line);
	imap_scan_next(&s->scanner);
	run_steps(s);
}

static bool
takes_input(const struct imap_session *s)
{
	return !s->closing && s->state != IMAP_STATE_LOGOUT && !s->ops->is_full(s->owner) &&
	       (s->work == NULL || s->work->on_line != NULL);
}

size_t
imap_session_read(struct imap_session *s, struct slice bytes)
{
	struct slice in = bytes;

	while (in.len > 0 && takes_input(s)) {
		switch (imap_scan(&s->scanner, &in)) {
		case IMAP_SCAN_MORE:
			break;
		case IMAP_SCAN_COMMAND:
			on_command(s);
			break;
		case IMAP_SCAN_LITERAL:
			on_literal(s);
			break;
		case IMAP_SCAN_REFUSED:
			refuse_command(s);
			break;
		case IMAP_SCAN_LONG:
			on_long(s, "The command is too long");
			break;
		case IMAP_SCAN_NUL:
			on_long(s, "A NUL is no part of a command");
			break;
		}
	}
	return s->state == IMAP_STATE_LOGOUT ? bytes.len : bytes.len - in.len;
}

/* ---- the session ---- */

static void
on_news(struct imap_view *view)
{
	struct imap_session *s = container_of(view, struct imap_session, view);

	if (s->closing || s->work == NULL || s->work->cmd.verb != IMAP_IDLE || !s->waiting)
		return;
	s->waiting = false;
	s->ops->on_progress(s->owner); /* imap_session_run() tells all at once */
}

struct imap_session *
imap_session_open(const struct imap_session_options *options)
{
	struct imap_session *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->store = options->store;
	s->ops = options->ops;
	s->owner = options->owner;
	s->may_login = options->may_login;
	s->view.self = s;
	s->view.on_news = on_news;
	(void)snprintf(
	    s->hostname, sizeof(s->hostname), "%s", options->hostname); /* cut if need be */
	imap_scan_init(&s->scanner);
	enter(s, IMAP_STATE_GREETED);
	buf_printf(imap_out(s),
	    "* OK [CAPABILITY %s] %s quarantine ready, log in with: a1 LOGIN name password\r\n",
	    imap_capabilities(s), s->hostname);
	return s;
}

void
imap_session_bye(struct imap_session *s, const char *text)
{
	bool idle = s->work != NULL && s->work->cmd.verb == IMAP_IDLE;

	if (s->state == IMAP_STATE_LOGOUT)
		return;
	if (s->work == NULL || idle || (s->work->on_line != NULL && !s->in_store)) {
		say_bye(s, text);
		return;
	}
	free(s->bye);
	s->bye = strdup(text); /* without memory it just stays */
}

const char *
imap_session_user(const struct imap_session *s)
{
	return s->user;
}

const char *
imap_session_scope(const struct imap_session *s)
{
	return s->scope;
}

int64_t
imap_session_patience_ms(const struct imap_session *s)
{
	return s->state == IMAP_STATE_GREETED ? IMAP_LOGIN_MS : IMAP_IDLE_MS;
}

bool
imap_session_is_waiting(const struct imap_session *s)
{
	return s->work == NULL || s->work->on_line != NULL;
}

void
imap_session_close(struct imap_session *s)
{
	if (s == NULL)
		return;
	s->closing = true;
	if (!s->in_store)
		free_session(s);
}

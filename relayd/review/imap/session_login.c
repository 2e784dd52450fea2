/* relayd/review/imap/session_login.c - LOGIN, AUTHENTICATE and IDLE: commands that wait for
 * somebody else. */
#include "relayd/review/imap/session_internal.h"

#include <stdio.h>

static void
ask_owner(struct imap_session *s, struct slice user, struct slice password)
{
	s->waiting = true; /* until imap_session_login_done() */
	s->work->on_line = NULL;
	s->ops->login(s->owner, user, password);
}

static bool
passwords_are_safe(struct imap_session *s)
{
	if (!s->may_login) /* RFC 3501 section 6.2.3, RFC 8314 section 3.2 */
		imap_end(s, IMAP_NO,
		    "[PRIVACYREQUIRED] Passwords are only taken over TLS: use the IMAPS port");
	return s->may_login;
}

void
imap_run_login(struct imap_session *s)
{
	if (passwords_are_safe(s))
		ask_owner(s, s->work->cmd.user, s->work->cmd.password);
}

static const struct users *
no_users(void *owner)
{
	(void)owner;
	return NULL;
}

struct sasl_about
imap_sasl_about(const struct imap_session *s)
{
	struct sasl_about about = {
		.allowed = MECHANISM_BIT(MECHANISM_PLAIN),
		.tls = s->may_login,
		.service = "imap",
		.hostname = s->hostname,
		.users = no_users,
	};

	if (s->ops->about != NULL)
		s->ops->about(s->owner, &about);
	return about;
}

static void
say_proof(struct imap_session *s, bool ok)
{
	s->waiting = true; /* until imap_session_login_done() */
	s->work->on_line = NULL;
	s->ops->proved(s->owner, sasl_user(s->work->sasl), ok);
}

static void
sasl_round(struct imap_session *s, struct slice response, bool has_response)
{
	struct buf *out = imap_out(s);
	char storage[SASL_CHALLENGE_MAX];
	struct buf challenge = buf_over(storage, sizeof(storage));

	switch (sasl_step(s->work->sasl, response, has_response, &challenge)) {
	case SASL_CONTINUE:
		buf_puts(out, "+ ");
		buf_put(out, buf_slice(&challenge));
		buf_puts(out, "\r\n");
		s->waiting = true; /* for on_line() */
		return;
	case SASL_CHECK:
		ask_owner(s, sasl_user(s->work->sasl), sasl_password(s->work->sasl));
		return;
	case SASL_OK:
		say_proof(s, true);
		return;
	case SASL_FAILED:
	case SASL_TRANSITION:
		say_proof(s, false);
		return;
	case SASL_TOKEN: /* not offered: there is nobody to ask */
	case SASL_BAD:
		imap_end(s, IMAP_BAD, "That is no response of the mechanism in base64");
		return;
	case SASL_DENIED:
		imap_end(s, IMAP_NO, "[AUTHORIZATIONFAILED] You cannot act as somebody else");
		return;
	}
}

static void
on_response(struct imap_session *s, struct slice line)
{
	if (slice_eq(line, SLICE("*"))) { /* RFC 3501 section 6.2.2 */
		imap_end(s, IMAP_BAD, "Cancelled");
		return;
	}
	sasl_round(s, line, true);
}

void
imap_run_authenticate(struct imap_session *s)
{
	struct imap_work *w = s->work;
	struct sasl_about about = imap_sasl_about(s);
	enum mechanism m = mechanism_named(w->cmd.mechanism);
	char storage[MECHANISMS_TEXT_MAX];
	struct buf names = buf_over(storage, sizeof(storage));

	if (!passwords_are_safe(s))
		return;
	mechanisms_put(&names, sasl_offer(&about), " ");
	if (m == MECHANISM_COUNT || (sasl_offer(&about) & MECHANISM_BIT(m)) == 0)
		imap_end(s, IMAP_NO, "[CANNOT] This mechanism is not there; what is:%.*s",
		    SLICE_FMT(buf_slice(&names)));
	else if ((w->sasl = sasl_start(m, &about)) == NULL)
		imap_end(s, IMAP_NO, "[UNAVAILABLE] Out of memory");
	else {
		w->on_line = on_response;
		sasl_round(s, w->cmd.initial, w->cmd.has_initial);
	}
}

void
imap_session_login_done(
    struct imap_session *s, const char *user, const char *scope, const char *why, bool busy)
{
	if (scope != NULL) {
		s->failed_logins = 0;
		(void)snprintf(s->user, sizeof(s->user), "%s", user);    /* a name is shorter */
		(void)snprintf(s->scope, sizeof(s->scope), "%s", scope); /* a scope is no longer */
		s->state = IMAP_STATE_AUTHENTICATED;
		buf_printf(&s->work->code, "[CAPABILITY %s] ", imap_capabilities(s));
		imap_end(s, IMAP_OK, "Logged in as %s; you see what is held for %s", s->user,
		    strcmp(s->scope, "*") == 0 ? "all" : s->scope);
	} else {
		imap_end(s, IMAP_NO, "[%s] %s", busy ? "UNAVAILABLE" : "AUTHENTICATIONFAILED", why);
		if (!busy && ++s->failed_logins >= IMAP_LOGINS_MAX)
			imap_session_bye(s, "Too many failed logins");
	}
	imap_session_run(s);
	s->ops->on_progress(s->owner);
}

/* ---- IDLE: RFC 2177 ---- */

static void
step_idle(struct imap_session *s)
{
	if (imap_view_failed(&s->view)) {
		imap_end(s, IMAP_NO, "[UNAVAILABLE] Out of memory");
		return;
	}
	s->waiting = !imap_view_is_open(&s->view) ||
		     imap_view_sync(&s->view, true, IMAP_OUT_BYTES, imap_out(s));
}

static void
on_idle_line(struct imap_session *s, struct slice line)
{
	if (slice_ieq(slice_trim(line), SLICE("DONE")))
		imap_end(s, IMAP_OK, "Idle no more");
	else
		imap_end(s, IMAP_BAD, "IDLE ends with the line DONE");
}

void
imap_run_idle(struct imap_session *s)
{
	buf_puts(imap_out(s), "+ Waiting for news; end it with: DONE\r\n");
	s->work->on_line = on_idle_line;
	s->work->step = step_idle;
}

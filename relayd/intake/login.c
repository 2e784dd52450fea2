/* relayd/intake/login.c - AUTH of one client: what is offered, the exchange, who waits after
 * failures. */
#include "relayd/auth/introspect.h"
#include "relayd/auth/keytab.h"
#include "relayd/core/clock.h"
#include "relayd/core/log.h"
#include "relayd/intake/intake.h"

#include <stdlib.h>

/* What takes time: a password or a token on its way through the pool. */
struct login {
	struct session *session;
	bool token; /* which of the two it is */
	struct password_check password;
	struct introspect_check introspect;
};

/* ---- what is offered ---------------------------------------------------------------------- */

static const struct users *
users_now(void *owner)
{
	const struct session *s = owner;

	return s->gen->users;
}

static void
take_binding(const struct session *s, enum tls_binding kind, struct sasl_binding *out)
{
	unsigned char bytes[TLS_BINDING_MAX];
	size_t n = stream_tls_bind(smtp_server_stream(s->server), kind, bytes);

	out->len = n <= sizeof(out->bytes) ? n : 0;
	memcpy(out->bytes, bytes, out->len);
}

static struct sasl_about
about(struct session *s)
{
	const struct config *cfg = s->gen->cfg;
	const struct config_mechanisms *m = &s->gen->listeners[s->listener].mechanisms;
	struct sasl_about a = {
		.allowed = m->set,
		.without_tls = m->without_tls,
		.wants_scram = m->named,
		.tls = smtp_session_is_tls(smtp_server_session(s->server)),
		.has_tokens = introspect_command() != NULL && cfg->sasl.introspect != NULL,
		.has_keytab = keytab_is_open() && cfg->sasl.keytab != NULL,
		.service = "smtp",
		.hostname = cfg->hostname,
		.realm = cfg->sasl.realm,
		.users = users_now,
		.owner = s,
	};

	/* Only a certificate that client-ca vouches for has a name here; that of a proxy is not the
	 * client's. */
	if (s->tls != NULL && !s->spoken_for)
		sasl_peer(&a, s->tls->info.client_name);
	if (a.tls) {
		take_binding(s, TLS_BINDING_EXPORTER, &a.exporter);
		take_binding(s, TLS_BINDING_UNIQUE, &a.unique);
	}
	return a;
}

void
on_offer(void *user, struct buf *mechanisms)
{
	struct session *s = user;
	struct sasl_about a = about(s);
	char storage[MECHANISMS_TEXT_MAX];
	struct buf names = buf_over(storage, sizeof(storage));

	mechanisms_put(&names, sasl_offer(&a), " ");
	buf_put(mechanisms, slice_drop(buf_slice(&names), 1));
}

/* A mechanism that is not offered: the code says whether another one or TLS would do (RFC 4954
 * section 6). */
static void
refuse_mechanism(struct session *s, enum mechanism m, const struct sasl_about *a)
{
	char storage[MECHANISMS_TEXT_MAX];
	struct buf names = buf_over(storage, sizeof(storage));
	unsigned strong = MECHANISMS_SCRAM | MECHANISM_BIT(MECHANISM_GSSAPI) |
			  MECHANISM_BIT(MECHANISM_EXTERNAL) | MECHANISMS_TOKEN;
	unsigned offer = sasl_offer(a), bit = m != MECHANISM_COUNT ? MECHANISM_BIT(m) : 0;

	mechanisms_put(&names, offer, " ");
	pipeline_note(s->pipeline, NULL, "login",
	    slice_str(m != MECHANISM_COUNT ? mechanism_name(m) : ""), SLICE("mechanism"));
	if (!a->tls && (offer == 0 || (bit & a->allowed) != 0))
		session_answer(s, 538, "5.7.11", "Not in plain text: say STARTTLS first");
	else if (bit != 0 && (bit & (a->allowed | strong)) == 0)
		session_answer(s, 534, "5.7.9",
		    "%s is too weak for this server; what there is:%.*s", mechanism_name(m),
		    SLICE_FMT(buf_slice(&names)));
	else
		session_answer(s, 504, "5.5.4", "That mechanism is not offered; what there is:%.*s",
		    SLICE_FMT(buf_slice(&names)));
}

/* ---- who waits ---------------------------------------------------------------------------- */

static void
note_failure(struct session *s, struct slice user)
{
	struct backoff *b = s->in->backoff;
	int64_t now_ms = clock_mono_ms();

	backoff_failed(b, backoff_address(b, session_addr(s)), now_ms);
	/* Also for a name that nobody has: else the wait would tell which ones are users. */
	if (user.len > 0)
		backoff_user_failed(b, user, session_addr(s), now_ms);
}

static void
note_success(struct session *s, struct slice user)
{
	backoff_passed(s->in->backoff, user, session_addr(s), clock_mono_ms());
}

/* True when the address, or the user where one is named, has to wait, and was told. */
static bool
is_backed_off(struct session *s, struct slice user)
{
	const struct backoff *b = s->in->backoff;
	char ip[IP_TEXT_BYTES];
	int64_t now_ms = clock_mono_ms(), wait;

	if (user.len > 0)
		wait = backoff_user_wait_ms(b, user, session_addr(s), now_ms);
	else
		wait = backoff_wait_ms(b, backoff_address(b, session_addr(s)), now_ms);
	if (wait == 0)
		return false;
	counter_add(COUNTER_LIMIT_HITS, 1);
	counter_add(COUNTER_AUTH_DELAYED, 1);
	log_event("limit", kv_id("session", s->id), kv_str("what", "failed-logins"),
	    kv_int("wait_ms", wait));
	log_event("auth.fail", kv_id("session", s->id), kv_str("ip", session_ip(s, ip)),
	    kv_slice("user", user), kv_str("why", "back-off"), kv_int("wait_ms", wait));
	pipeline_note(s->pipeline, NULL, "login", user, SLICE("back-off"));
	session_answer(s, 454, "4.7.0", "Too many failed logins %s; wait %lld s",
	    user.len > 0 ? "of this user" : "from your address", (long long)(wait + 999) / 1000);
	return true;
}

/* ---- how it ends -------------------------------------------------------------------------- */

static void
end_exchange(struct session *s)
{
	sasl_free(s->sasl);
	s->sasl = NULL;
}

/* Others of the same address or user failed while this one was looked at: many tries at once are
 * not more tries, so its answer tells nothing.  True when that was said. */
static bool
is_one_too_many(struct session *s)
{
	if (!is_backed_off(s, SLICE("")) && !is_backed_off(s, sasl_user(s->sasl)))
		return false;
	end_exchange(s);
	return true;
}

static const char *
listener_name(const struct session *s)
{
	return s->in->role->listeners[s->listener].name;
}

static void
count_failure(struct session *s, const char *why)
{
	struct slice user = sasl_user(s->sasl);
	char ip[IP_TEXT_BYTES];

	counter_add(COUNTER_AUTH_FAILED, 1);
	note_failure(s, user);
	log_event("auth.fail", kv_id("session", s->id), kv_str("ip", session_ip(s, ip)),
	    kv_slice("user", user), kv_str("mechanism", mechanism_name(sasl_mechanism(s->sasl))),
	    kv_str("listener", listener_name(s)), kv_str("why", why));
	pipeline_note(s->pipeline, NULL, "login", user, slice_str(why));
}

/* Ends the exchange; its words for the client are the same whatever was wrong, but for a
 * transition. */
static void
login_failed(struct session *s, const char *why)
{
	if (is_one_too_many(s))
		return;
	count_failure(s, why);
	end_exchange(s);
	if (strcmp(why, "no-verifier") == 0)
		session_answer(s, 432, "4.7.12",
		    "This user has no secret for that mechanism yet; use PLAIN or set the "
		    "password");
	else
		session_answer(s, 535, "5.7.8", "User name or password not right");
}

static bool
keep_user(struct session *s, struct slice name)
{
	char *copy = strndup(name.p, name.len);

	if (copy == NULL)
		return false;
	free(s->user);
	s->user = copy;
	return true;
}

/* Looked up again: a reload may have come meanwhile. */
static void
login_passed(struct session *s)
{
	const struct user *user = users_find(s->gen->users, sasl_user(s->sasl));
	char ip[IP_TEXT_BYTES];

	if (is_one_too_many(s))
		return;
	if (user == NULL) {
		login_failed(s, "unknown-user");
		return;
	}
	if (!keep_user(s, user->name) ||
	    !pipeline_session_auth(s->pipeline, user->name, user->relay)) {
		end_exchange(s);
		session_answer(s, 454, "4.7.0", "Out of memory");
		return;
	}
	s->trusted = s->trusted || user->relay;
	counter_add(COUNTER_AUTH_OK, 1);
	note_success(s, user->name);
	log_event("auth.ok", kv_id("session", s->id), kv_str("ip", session_ip(s, ip)),
	    kv_slice("user", user->name),
	    kv_str("mechanism", mechanism_name(sasl_mechanism(s->sasl))),
	    kv_str("listener", listener_name(s)));
	end_exchange(s);
	session_answer(s, 235, "2.7.0", "Logged in");
}

static void
try_later(struct session *s, const char *what, const char *text)
{
	counter_add(COUNTER_LIMIT_HITS, 1);
	log_event("limit", kv_id("session", s->id), kv_str("what", what));
	pipeline_note(s->pipeline, NULL, "login", sasl_user(s->sasl), slice_str(text));
	end_exchange(s);
	session_answer(s, 454, "4.7.0", "%s; try again soon", text);
}

static const char *
why_failed(const struct session *s, enum sasl_status status)
{
	if (status == SASL_DENIED)
		return "other-identity";
	return (MECHANISM_BIT(sasl_mechanism(s->sasl)) & MECHANISMS_TOKEN) != 0 ? "token" : "proof";
}

/* The client leaves an exchange.  One that heard that it failed has failed, whether it says so or
 * not. */
static void
leave_exchange(struct session *s)
{
	enum sasl_status said = s->sasl != NULL ? sasl_said(s->sasl) : SASL_CONTINUE;

	if (said == SASL_FAILED || said == SASL_DENIED)
		count_failure(s, why_failed(s, said));
	end_exchange(s);
}

/* ---- what takes time ---------------------------------------------------------------------- */

static void settle(struct session *s, enum sasl_status status, struct slice challenge);

static struct login *
new_login(struct session *s, bool token)
{
	struct login *login = calloc(1, sizeof(*login));

	if (login == NULL)
		return NULL;
	login->session = s;
	login->token = token;
	return login;
}

static void
wait_for(struct session *s, struct login *login)
{
	s->login = login;
	s->waits++;
}

/* The answer is there; false when nobody wants it any more. */
static bool
came_back(struct login *login)
{
	struct session *s = login->session;

	s->login = NULL;
	if (s->server == NULL)
		end_exchange(s);
	return s->server != NULL;
}

static void
on_password(struct password_check *check)
{
	struct login *login = container_of(check, struct login, password);
	struct session *s = login->session;

	if (came_back(login)) {
		if (check->ok)
			login_passed(s);
		else
			login_failed(s, "password");
	}
	free(login);
	session_unwait(s);
}

static void
check_password(struct session *s)
{
	struct login *login = new_login(s, false);
	const struct user *user = users_find(s->gen->users, sasl_user(s->sasl));

	if (login != NULL) {
		login->password.done = on_password;
		if (password_check_start(s->in->passwords, &login->password, user,
			sasl_password(s->sasl), NULL) == 0) {
			wait_for(s, login);
			return;
		}
	}
	free(login);
	try_later(s, "logins", "Too many logins at once");
}

static void
told(struct session *s, const struct introspect_check *check)
{
	char storage[SASL_CHALLENGE_MAX];
	struct buf challenge = buf_over(storage, sizeof(storage));
	struct slice name = check->verdict == OAUTH_ACTIVE ? slice_str(check->name) : SLICE("");

	if (check->verdict == OAUTH_UNKNOWN)
		try_later(s, "introspection", "The token cannot be checked now");
	else
		settle(s, sasl_told(s->sasl, name, &challenge), buf_slice(&challenge));
}

static void
on_introspected(struct introspect_check *check)
{
	struct login *login = container_of(check, struct login, introspect);
	struct session *s = login->session;

	if (came_back(login))
		told(s, check);
	free(login);
	session_unwait(s);
}

static void
check_token(struct session *s)
{
	struct login *login = new_login(s, true);

	if (login != NULL) {
		login->introspect.done = on_introspected;
		if (introspect_check_start(
			s->in->role->loop, &login->introspect, sasl_token(s->sasl), NULL) == 0) {
			wait_for(s, login);
			return;
		}
	}
	free(login);
	try_later(s, "introspection", "Too many tokens at once");
}

void
session_login_lost(struct session *s)
{
	if (s->login != NULL && s->login->token)
		introspect_check_cancel(&s->login->introspect);
	else if (s->login != NULL)
		password_check_cancel(&s->login->password);
	else
		leave_exchange(s);
}

/* ---- the exchange ------------------------------------------------------------------------- */

static void
settle(struct session *s, enum sasl_status status, struct slice challenge)
{
	switch (status) {
	case SASL_CONTINUE:
		smtp_server_answer(s->server,
		    &(struct smtp_answer){ .code = 334, .enhanced = "", .text = challenge });
		return;
	case SASL_CHECK:
		check_password(s);
		return;
	case SASL_TOKEN:
		check_token(s);
		return;
	case SASL_OK:
		login_passed(s);
		return;
	case SASL_FAILED:
	case SASL_DENIED:
		login_failed(s, why_failed(s, status));
		return;
	case SASL_TRANSITION:
		login_failed(s, "no-verifier");
		return;
	case SASL_BAD:
		end_exchange(s);
		session_answer(s, 501, "5.5.2", "That is no response of this mechanism");
		return;
	}
}

static bool
begin_exchange(struct session *s, struct slice name)
{
	enum mechanism m = mechanism_named(name);
	struct sasl_about a;

	end_exchange(s);
	(void)session_move(s); /* nobody is logged in who could be gone */
	a = about(s);
	if (is_backed_off(s, SLICE("")))
		return false;
	if (m == MECHANISM_COUNT || (sasl_offer(&a) & MECHANISM_BIT(m)) == 0) {
		refuse_mechanism(s, m, &a);
		return false;
	}
	s->sasl = sasl_start(m, &a);
	if (s->sasl == NULL)
		session_answer(s, 454, "4.7.0", "Out of memory");
	return s->sasl != NULL;
}

void
on_auth(void *user, struct slice mechanism, struct slice response, bool has_response)
{
	struct session *s = user;
	char storage[SASL_CHALLENGE_MAX];
	struct buf challenge = buf_over(storage, sizeof(storage));
	enum sasl_status status;
	bool was_named;

	if (mechanism.len > 0 && !begin_exchange(s, mechanism))
		return;
	was_named = sasl_user(s->sasl).len > 0;
	status = sasl_step(s->sasl, response, has_response, &challenge);
	/* As soon as it says who it is, and before anything costs. */
	if (!was_named && sasl_user(s->sasl).len > 0 && is_backed_off(s, sasl_user(s->sasl)))
		end_exchange(s);
	else
		settle(s, status, buf_slice(&challenge));
}

void
session_auth_over(struct session *s)
{
	if (s->login == NULL)
		leave_exchange(s);
}

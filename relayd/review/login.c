/* relayd/review/login.c - who may look into the quarantine: name and password in, scope out. */
#include "relayd/review/login.h"

#include "relayd/auth/keytab.h"
#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/log.h"

#include <stdlib.h>

#define SLACK_MS 50 /* a timer counts from when the loop last looked at the clock */

struct login {
	uv_loop_t *loop;
	const struct config *cfg;
	struct users *users;
	struct password_pool *pool;
	struct backoff *backoff;
	size_t waiting;
};

static struct users *
parse(const struct config *cfg, struct err *err)
{
	struct slice bytes = SLICE("");

	if (cfg->users != NULL && !config_file(cfg, cfg->users, &bytes)) {
		(void)err_set(err, ERR_CONFIG, "%s: the users file is not there", cfg->users);
		return NULL;
	}
	return users_parse(bytes, cfg->users != NULL ? cfg->users : "users", err);
}

struct login *
login_open(uv_loop_t *loop, const struct config *cfg, struct backoff *failed, struct err *err)
{
	struct login *login = calloc(1, sizeof(*login));

	if (login == NULL || (login->users = parse(cfg, err)) == NULL) {
		if (login == NULL)
			(void)err_set(err, ERR_NOMEM, "review: out of memory");
		free(login);
		return NULL;
	}
	login->loop = loop;
	login->cfg = config_ref(cfg);
	login->pool = password_pool_new(loop);
	login->backoff = failed;
	if (login->pool == NULL) {
		(void)err_set(err, ERR_NOMEM, "review: out of memory");
		login_close(login);
		return NULL;
	}
	return login;
}

int
login_reload(struct login *login, const struct config *cfg, struct err *err)
{
	struct users *users = parse(cfg, err);

	if (users == NULL)
		return -1;
	users_free(login->users);
	login->users = users;
	config_unref((struct config *)(uintptr_t)login->cfg); /* counted, whoever holds it */
	login->cfg = config_ref(cfg);
	return 0;
}

void
login_close(struct login *login)
{
	if (login == NULL)
		return;
	password_pool_free(login->pool);
	users_free(login->users);
	config_unref((struct config *)(uintptr_t)login->cfg); /* as in login_reload() */
	free(login);
}

bool
login_holds(const struct login *login, const char *name, const char *scope)
{
	const struct user *user = users_find(login->users, slice_str(name));
	char now[SCOPE_BYTES_MAX + 1];

	return user != NULL && !users_is_locked(user) && scope_name(user->scope, now) &&
	       strcmp(now, scope) == 0;
}

/* ---- SASL ------------------------------------------------------------------------------------ */

static const struct users *
users_now(void *owner)
{
	const struct login *login = owner;

	return login->users;
}

static void
take_binding(const struct stream *stream, enum tls_binding kind, struct sasl_binding *out)
{
	unsigned char bytes[TLS_BINDING_MAX];
	size_t n = stream_tls_bind(stream, kind, bytes);

	out->len = n <= sizeof(out->bytes) ? n : 0;
	memcpy(out->bytes, bytes, out->len);
}

void
login_about(struct login *login, const struct stream *stream, struct sasl_about *about)
{
	const struct config_mechanisms *m = &login->cfg->sasl.mechanisms;
	struct tls_info info;

	about->allowed = m->set;
	about->without_tls = ~0u; /* a session that takes no login asks for nothing */
	about->wants_scram = m->named;
	about->has_keytab = keytab_is_open() && login->cfg->sasl.keytab != NULL;
	about->realm = login->cfg->sasl.realm;
	about->users = users_now;
	about->owner = login;
	take_binding(stream, TLS_BINDING_EXPORTER, &about->exporter);
	take_binding(stream, TLS_BINDING_UNIQUE, &about->unique);
	about->tls = stream_tls_info(stream, &info);
	if (about->tls) /* only a certificate that client-ca vouches for has a name here */
		sasl_peer(about, info.client_name);
}

/* ---- checks ---------------------------------------------------------------------------------- */

static struct slice
addr_of(const struct login_check *c)
{
	return slice_of(c->own.addr, c->own.addr_len);
}

static void
log_answer(const struct login_check *c)
{
	char ip[IP_TEXT_BYTES];

	ip_text(addr_of(c), ip);
	counter_add(c->ok ? COUNTER_AUTH_OK : COUNTER_AUTH_FAILED, 1);
	if (c->ok)
		log_event("auth.ok", kv_id("session", c->session), kv_str("service", c->service),
		    kv_str("ip", ip), kv_slice("user", slice_str(c->name)),
		    kv_slice("scope", slice_str(c->scope)));
	else
		log_event("auth.fail", kv_id("session", c->session), kv_str("service", c->service),
		    kv_str("ip", ip), kv_slice("user", slice_str(c->name)), kv_err("why", &c->why));
}

static void
finish(struct login_check *c)
{
	c->own.login->waiting--;
	explicit_bzero(c->own.password, sizeof(c->own.password));
	if (c->why.code != ERR_CANCELLED)
		log_answer(c);
	c->done(c);
}

static void
refuse(struct login_check *c, enum err_code code, const char *why)
{
	c->ok = false;
	(void)err_set(&c->why, code, "%s", why);
}

static uint64_t
wait_of(const struct login_check *c)
{
	const struct backoff *b = c->own.login->backoff;
	int64_t now_ms = clock_mono_ms();
	int64_t address = backoff_wait_ms(b, backoff_address(b, addr_of(c)), now_ms);
	int64_t user = backoff_user_wait_ms(b, slice_str(c->name), addr_of(c), now_ms);

	return (uint64_t)(address > user ? address : user);
}

static void
decide(struct login_check *c, bool proven)
{
	struct backoff *b = c->own.login->backoff;

	/* Others failed while this one was looked at: many tries at once are not more tries. */
	if (wait_of(c) > 0) {
		counter_add(COUNTER_AUTH_DELAYED, 1);
		refuse(c, ERR_BUSY, "too many failed logins: try later");
	} else if (!proven) {
		backoff_failed(b, backoff_address(b, addr_of(c)), clock_mono_ms());
		backoff_user_failed(b, slice_str(c->name), addr_of(c), clock_mono_ms());
		refuse(c, ERR_DENIED, "wrong name or password");
	} else if (c->scope[0] == '\0') {
		refuse(c, ERR_DENIED, "this user may not look into the quarantine");
	} else {
		backoff_passed(b, slice_str(c->name), addr_of(c), clock_mono_ms());
		c->ok = true;
	}
	finish(c);
}

static void
on_checked(struct password_check *check)
{
	struct login_check *c = container_of(check, struct login_check, own.check);

	if (c->why.code == ERR_CANCELLED)
		finish(c);
	else
		decide(c, check->ok);
}

/* The wait is over: the password, or what was proven, is looked at. */
static void
on_timer_closed(uv_handle_t *handle)
{
	struct login_check *c = container_of(handle, struct login_check, own.timer);
	const struct user *user;
	struct slice password = slice_of(c->own.password, c->own.password_len);

	c->own.timer_open = false;
	if (c->why.code != ERR_NONE) {
		finish(c);
		return;
	}
	user = users_find(c->own.login->users, slice_str(c->name));
	if (user != NULL && !scope_name(user->scope, c->scope))
		c->scope[0] = '\0';
	if (c->proof != LOGIN_PASSWORD) {
		/* Looked up again: a reload may have come meanwhile. */
		decide(c, c->proof == LOGIN_PROVEN && user != NULL && !users_is_locked(user));
		return;
	}
	c->own.check.done = on_checked;
	if (password_check_start(c->own.login->pool, &c->own.check, user, password, &c->why) < 0)
		finish(c);
}

static void
on_timer(uv_timer_t *timer)
{
	uv_close((uv_handle_t *)timer, on_timer_closed);
}

/* Names and passwords that are too long fit nobody: they are cut where they can fit nobody
 * either. */
static void
copy(struct login_check *c)
{
	struct slice user = slice_head(c->user, USERS_NAME_MAX);
	struct slice password = slice_head(c->password, PASSWORD_MAX);
	struct slice addr = slice_head(c->client_addr, sizeof(c->own.addr));

	memset(c->name, 0, sizeof(c->name));
	for (size_t i = 0; i < user.len; i++)
		c->name[i] = user.p[i] != '\0' ? user.p[i] : ':';
	if (c->user.len > USERS_NAME_MAX)
		c->name[0] = ':'; /* in no name: auth/users.h */
	memcpy(c->own.password, password.p, password.len);
	c->own.password_len = c->password.len > PASSWORD_MAX ? 0 : password.len;
	memcpy(c->own.addr, addr.p, addr.len);
	c->own.addr_len = addr.len;
}

void
login_check_start(struct login *login, struct login_check *c)
{
	uint64_t wait = 0;

	c->own.login = login;
	c->ok = false;
	c->why = (struct err){ 0 };
	c->scope[0] = '\0';
	copy(c);
	if (login->waiting++ >= LOGIN_WAITING_MAX)
		refuse(c, ERR_BUSY, "too many logins at once");
	else
		wait = wait_of(c);
	if (wait > 0) {
		counter_add(COUNTER_AUTH_DELAYED, 1);
		wait += SLACK_MS;
	}
	/* Neither fails for a handle that is not in use. */
	(void)uv_timer_init(login->loop, &c->own.timer);
	(void)uv_timer_start(&c->own.timer, on_timer, wait, 0);
	c->own.timer_open = true;
}

void
login_check_cancel(struct login_check *c)
{
	refuse(c, ERR_CANCELLED, "the session is gone");
	if (!c->own.timer_open)
		password_check_cancel(&c->own.check);
	else if (!uv_is_closing((uv_handle_t *)&c->own.timer))
		uv_close((uv_handle_t *)&c->own.timer, on_timer_closed);
}

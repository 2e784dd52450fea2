/* relayd/review/role.c - the review role as the supervisor knows it: the store and all that opens
 * on it. */
#include "relayd/auth/keytab.h"
#include "relayd/core/log.h"
#include "relayd/mail/charset.h"
#include "relayd/net/listener.h"
#include "relayd/review/control.h"
#include "relayd/review/http.h"
#include "relayd/review/imap/describe.h"
#include "relayd/review/imap/server.h"
#include "relayd/review/lmtp.h"
#include "relayd/review/login.h"
#include "relayd/review/pop3/server.h"
#include "relayd/review/release.h"
#include "relayd/review/store.h"
#include "relayd/supervisor/role.h"

#include <pwd.h>
#include <stdlib.h>
#include <unistd.h>

#define LOCK_WAIT_MS 15000 /* for the review of a relayd that was killed */

/* A listening socket of a protocol for mail clients or monitoring. */
struct door {
	struct review *review;
	enum role_listener_kind kind;
	struct listener *listener;
};

enum { IMAP, POP3, HTTP, SERVICES };

struct review {
	struct role *role;
	struct store *store;
	struct login *login;
	struct visitors *visitors;
	struct tls_server *tls; /* NULL: no IMAPS and POP3S */
	struct lmtp *lmtp;
	struct imap_server *imap;
	struct pop3_server *pop3;
	struct http *http;
	struct guests *guests[SERVICES]; /* of these three */
	struct release *release;
	struct review_control *control;
	struct door *doors;
	size_t n_doors;
	unsigned draining; /* parts that have not yet finished */
};

/* ---- connections ----------------------------------------------------------------------------- */

static void
on_accept(void *owner, int fd, const struct sockaddr *peer)
{
	struct door *door = owner;
	struct review *rv = door->review;

	switch (door->kind) {
	case ROLE_LISTENER_IMAP:
	case ROLE_LISTENER_IMAPS:
		guests_accept(rv->guests[IMAP], fd, peer, door->kind == ROLE_LISTENER_IMAPS);
		break;
	case ROLE_LISTENER_POP3:
	case ROLE_LISTENER_POP3S:
		guests_accept(rv->guests[POP3], fd, peer, door->kind == ROLE_LISTENER_POP3S);
		break;
	case ROLE_LISTENER_HTTP:
		guests_accept(rv->guests[HTTP], fd, peer, false);
		break;
	default:
		(void)close(fd); /* no door is opened for these */
		break;
	}
}

/* The uid that delivery runs as; our own where relayd was not started as root. */
static uid_t
delivery_uid(const struct config *cfg)
{
	const struct passwd *pw = getpwnam(cfg->user);

	return pw != NULL ? pw->pw_uid : geteuid();
}

static int
open_lmtp(struct review *rv, int fd, struct err *err)
{
	const struct lmtp_options options = { .loop = rv->role->loop,
		.fd = fd,
		.store = rv->store,
		.hostname = rv->role->config->hostname,
		.peer_uid = delivery_uid(rv->role->config) };

	rv->lmtp = lmtp_open(&options, err);
	return rv->lmtp != NULL ? 0 : -1;
}

static int
open_door(struct review *rv, const struct role_listener *l, struct err *err)
{
	struct door *door = &rv->doors[rv->n_doors];

	*door = (struct door){ .review = rv, .kind = l->kind };
	door->listener = listener_open(rv->role->loop, l->fd, on_accept, door, err);
	if (door->listener == NULL)
		return -1;
	rv->n_doors++;
	return 0;
}

static int
open_listeners(struct review *rv, struct err *err)
{
	const struct role *role = rv->role;

	rv->doors = calloc(role->n_listeners + 1, sizeof(*rv->doors));
	if (rv->doors == NULL)
		return err_set(err, ERR_NOMEM, "review: out of memory");
	for (size_t i = 0; i < role->n_listeners; i++) {
		const struct role_listener *l = &role->listeners[i];
		int rc;

		if (l->kind == ROLE_LISTENER_LMTP) {
			rc = open_lmtp(rv, l->fd, err);
		} else if (l->kind == ROLE_LISTENER_CONTROL) {
			rv->control =
			    review_control_open(role->loop, l->fd, (uid_t)-1, rv->store, err);
			rc = rv->control != NULL ? 0 : -1;
		} else {
			rc = open_door(rv, l, err);
		}
		if (rc < 0)
			return err_prefix(err, "%s", l->address);
	}
	return 0;
}

/* ---- start ----------------------------------------------------------------------------------- */

static int
open_store(struct review *rv, struct err *err)
{
	const struct config *cfg = rv->role->config;
	const struct store_options options = { .dir = cfg->quarantine.store,
		.keep_s = cfg->quarantine.keep_s,
		.lock_wait_ms = LOCK_WAIT_MS,
		.describe = imap_describe,
		.describe_version = IMAP_DESCRIBE_VERSION };

	rv->store = store_open(rv->role->loop, &options, err);
	return rv->store != NULL ? 0 : -1;
}

/* NULL in *tls when the config names no certificate: that is no error. */
static int
open_tls(const struct config *cfg, struct tls_server **tls, struct err *err)
{
	struct err why = { 0 };

	*tls = tls_server_of(cfg, &why);
	if (*tls != NULL || why.code == ERR_NOT_FOUND)
		return 0;
	*err = why;
	return -1;
}

static int
open_servers(struct review *rv, struct err *err)
{
	const struct config *cfg = rv->role->config;
	const struct imap_server_options imap = { .loop = rv->role->loop,
		.store = rv->store,
		.login = rv->login,
		.visitors = rv->visitors,
		.hostname = cfg->hostname,
		.tls = rv->tls };
	const struct pop3_server_options pop3 = { .loop = rv->role->loop,
		.store = rv->store,
		.login = rv->login,
		.visitors = rv->visitors,
		.config = cfg,
		.tls = rv->tls };
	const struct http_options http = { .loop = rv->role->loop,
		.pages = rv->role->pages,
		.store = rv->store,
		.visitors = rv->visitors,
		.workers = cfg->workers };

	rv->imap = imap_server_open(&imap, err);
	rv->pop3 = rv->imap != NULL ? pop3_server_open(&pop3, err) : NULL;
	rv->http = rv->pop3 != NULL ? http_open(&http, err) : NULL;
	if (rv->http == NULL)
		return -1;
	rv->guests[IMAP] = imap_server_guests(rv->imap);
	rv->guests[POP3] = pop3_server_guests(rv->pop3);
	rv->guests[HTTP] = http_guests(rv->http);
	return 0;
}

static int
open_release(struct review *rv, struct err *err)
{
	char path[ROLE_PATH_BYTES];
	const struct release_options options = { .loop = rv->role->loop,
		.store = rv->store,
		.path = path,
		.hostname = rv->role->config->hostname };

	role_release_path(rv->role->config, path);
	rv->release = release_open(&options, err);
	return rv->release != NULL ? 0 : -1;
}

/* What a login needs and could not open later. */
static int
role_prepare(struct role *role, struct err *err)
{
	const struct config *cfg = role->config;
	struct err why = { 0 };
	struct slice keytab;

	if (cfg->sasl.keytab != NULL && config_file(cfg, cfg->sasl.keytab, &keytab) &&
	    keytab_open(keytab, cfg->quarantine.store, err) < 0)
		return -1;
	/* A keytab for submission alone is no fault. */
	(void)sasl_prepare(keytab_is_open() ? "imap" : NULL, cfg->hostname, &why);
	return 0;
}

static int
role_start(struct role *role, struct err *err)
{
	struct review *rv = calloc(1, sizeof(*rv));

	if (rv == NULL)
		return err_set(err, ERR_NOMEM, "review: out of memory");
	rv->role = role;
	role->state = rv;
	charset_open();
	if (open_store(rv, err) < 0 ||
	    (rv->login = login_open(role->loop, role->config, &role->shared->logins, err)) ==
		NULL ||
	    (rv->visitors = visitors_new(role->config, err)) == NULL ||
	    open_tls(role->config, &rv->tls, err) < 0 || open_servers(rv, err) < 0 ||
	    open_release(rv, err) < 0)
		return -1;
	return open_listeners(rv, err);
}

static void
close_doors(struct review *rv)
{
	for (size_t i = 0; i < rv->n_doors; i++)
		listener_close(rv->doors[i].listener);
	rv->n_doors = 0;
}

/* Opens the doors of role->fresh and shuts the others; connections go on. */
static int
change_doors(struct review *rv, struct err *err)
{
	struct door *old = rv->doors;
	size_t n_old = rv->n_doors;
	int rc = 0;

	rv->doors = calloc(rv->role->n_fresh + 1, sizeof(*rv->doors));
	rv->n_doors = 0;
	if (rv->doors == NULL)
		rc = err_set(err, ERR_NOMEM, "review: out of memory");
	for (size_t i = 0; i < rv->role->n_fresh && rc == 0; i++)
		rc = open_door(rv, &rv->role->fresh[i], err);
	if (rc < 0) { /* as it was */
		close_doors(rv);
		free(rv->doors);
		rv->doors = old;
		rv->n_doors = n_old;
		return -1;
	}
	for (size_t i = 0; i < n_old; i++) {
		listener_last_call(old[i].listener);
		listener_close(old[i].listener);
	}
	free(old);
	return 0;
}

/* ---- reload ---------------------------------------------------------------------------------- */

static int
role_reload(struct role *role, const struct config *old, struct err *err)
{
	struct review *rv = role->state;
	struct tls_server *tls;
	struct err why = { 0 };
	struct slice keytab;

	(void)old; /* nothing here refers to it */
	if (role->config->sasl.keytab != NULL &&
	    config_file(role->config, role->config->sasl.keytab, &keytab) &&
	    keytab_replace(keytab, &why) < 0)
		log_event("limit", kv_str("what", "config"), kv_err("why", &why));
	if (open_tls(role->config, &tls, err) < 0)
		return -1;
	if (login_reload(rv->login, role->config, err) < 0 ||
	    (role->fresh != NULL && change_doors(rv, err) < 0)) {
		tls_server_unref(tls);
		return -1;
	}
	tls_server_unref(rv->tls);
	rv->tls = tls;
	store_set_keep(rv->store, role->config->quarantine.keep_s);
	visitors_reload(rv->visitors, role->config);
	imap_server_reload(rv->imap, role->config->hostname, tls);
	pop3_server_reload(rv->pop3, role->config, tls);
	return 0;
}

/* ---- drain and stop -------------------------------------------------------------------------- */

static void
on_part_drained(void *arg)
{
	struct review *rv = arg;

	if (--rv->draining == 0)
		role_finished(rv->role);
}

static void
role_drain(struct role *role)
{
	struct review *rv = role->state;

	close_doors(rv);
	if (rv->control != NULL)
		review_control_close(rv->control);
	rv->draining = rv->lmtp != NULL ? 5 : 4;
	if (rv->lmtp != NULL)
		lmtp_drain(rv->lmtp, on_part_drained, rv);
	for (size_t i = 0; i < ARRAY_LEN(rv->guests); i++)
		guests_drain(rv->guests[i], on_part_drained, rv);
	release_drain(rv->release, on_part_drained, rv);
}

static bool
is_idle(const struct review *rv)
{
	bool idle = (rv->lmtp == NULL || lmtp_is_idle(rv->lmtp)) && release_is_idle(rv->release) &&
		    (rv->control == NULL || review_control_is_idle(rv->control));

	for (size_t i = 0; i < ARRAY_LEN(rv->guests); i++)
		idle = idle && guests_is_idle(rv->guests[i]);
	return idle;
}

static void
close_all(struct review *rv)
{
	close_doors(rv);
	if (rv->lmtp != NULL)
		lmtp_close(rv->lmtp);
	for (size_t i = 0; i < ARRAY_LEN(rv->guests); i++)
		guests_close(rv->guests[i]);
	release_close(rv->release);
	if (rv->control != NULL)
		review_control_close(rv->control);
	while (!is_idle(rv))
		(void)uv_run(
		    rv->role->loop, UV_RUN_ONCE); /* what it returns is whether more is open */
}

static void
role_stop(struct role *role)
{
	struct review *rv = role->state;

	close_all(rv);
	store_close(rv->store);
	lmtp_free(rv->lmtp);
	imap_server_free(rv->imap);
	pop3_server_free(rv->pop3);
	http_free(rv->http);
	release_free(rv->release);
	review_control_free(rv->control);
	login_close(rv->login);
	visitors_free(rv->visitors);
	tls_server_unref(rv->tls);
	free(rv->doors);
	free(rv);
	role->state = NULL;
}

const struct role_ops review_role = {
	.prepare = role_prepare,
	.start = role_start,
	.reload = role_reload,
	.drain = role_drain,
	.stop = role_stop,
};

/* relayd/supervisor/sockets.c - every socket that relayd listens on: bound once, owned by the supervisor. */
#include "relayd/supervisor/sockets.h"

#include "relayd/core/buf.h"
#include "relayd/net/listener.h"
#include "relayd/supervisor/handover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPIES_MAX    60
#define ALL_MAX       (HANDOVER_LISTENERS_MAX * 4)

struct bound {
	enum role_kind role;
	bool every_worker;	/* a unix socket that all workers accept from */
	unsigned worker;
	struct role_listener listener;
};

struct sockets {
	struct bound all[ALL_MAX];
	size_t n;
	int control;
};

/* What to bind, and for whom. */
struct wanted {
	enum role_kind role;
	enum role_listener_kind kind;
	const char *name, *address;
	unsigned copies;
	const struct owner *owner;	/* of a unix socket's file, or NULL */
};

static int
give_to_owner(const char *address, const struct owner *owner, struct err *err)
{
	const char *path = address + strlen("unix:");

	if (owner != NULL && lchown(path, owner->uid, owner->gid) < 0)
		return err_sys(err, errno, "chown %s", path);
	return 0;
}

static int
bind_one(struct sockets *s, const struct wanted *w, struct err *err)
{
	struct listener_socket made[2 * COPIES_MAX];
	bool local = strncmp(w->address, "unix:", 5) == 0;
	size_t n = 0;
	int rc = 0;

	if (listener_bind(w->address, w->copies, made, &n, err) < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		struct bound *b = &s->all[s->n];

		if (s->n == ALL_MAX) {
			(void)close(made[i].fd);	/* given up */
			rc = err_set(err, ERR_LIMIT, "too many listeners");
			continue;
		}
		s->n++;
		b->role = w->role;
		b->every_worker = local;
		b->worker = made[i].copy;
		b->listener = (struct role_listener){ .kind = w->kind, 
			.fd = made[i].fd, .name = strdup(w->name), .address = strdup(made[i].name) };
	}
	if (rc < 0)
		return -1;
	return local ? give_to_owner(w->address, w->owner, err) : 0;
}

static int
bind_list(struct sockets *s, struct wanted w, const struct config_strings *addresses, struct err *err)
{
	for (size_t i = 0; i < addresses->n; i++) {
		w.address = addresses->v[i];
		if (bind_one(s, &w, err) < 0)
			return -1;
	}
	return 0;
}

static int
bind_smtp(struct sockets *s, const struct config *cfg, const struct owners *owners, struct err *err)
{
	for (size_t i = 0; i < cfg->n_listeners; i++) {
		struct wanted w = { .role = ROLE_INTAKE, .kind = ROLE_LISTENER_SMTP,
			.name = cfg->listeners[i].name, .copies = cfg->workers, .owner = &owners->mail };

		if (bind_list(s, w, &cfg->listeners[i].address, err) < 0)
			return -1;
	}
	return 0;
}

static int
bind_review(struct sockets *s, const struct config *cfg, struct err *err)
{
	const struct {
		enum role_listener_kind kind;
		const struct config_strings *addresses;
	} rows[] = {
		{ ROLE_LISTENER_IMAP, &cfg->review.imap },
		{ ROLE_LISTENER_IMAPS, &cfg->review.imaps },
		{ ROLE_LISTENER_POP3, &cfg->review.pop3 },
		{ ROLE_LISTENER_POP3S, &cfg->review.pop3s },
		{ ROLE_LISTENER_HTTP, &cfg->review.http },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct wanted w = { .role = ROLE_REVIEW, .kind = rows[i].kind, .name = "", .copies = 1 };

		if (bind_list(s, w, rows[i].addresses, err) < 0)
			return -1;
	}
	return 0;
}

/* The unix sockets between the roles, and for relayctl. */
static int
bind_seams(struct sockets *s, const struct config *cfg, const struct owners *owners, struct err *err)
{
	char path[ROLE_PATH_BYTES + 8] = "unix:";
	char *at = path + strlen(path);
	struct wanted w = { .name = "", .address = path, .copies = 1 };

	w.role = ROLE_REVIEW;
	w.kind = ROLE_LISTENER_LMTP;
	w.owner = &owners->mail;	/* delivery connects */
	role_lmtp_path(cfg, at);
	if (bind_one(s, &w, err) < 0)
		return -1;
	w.role = ROLE_INTAKE;
	w.kind = ROLE_LISTENER_RELEASE;
	w.owner = &owners->review;	/* review connects */
	role_release_path(cfg, at);
	if (bind_one(s, &w, err) < 0)
		return -1;
	w.kind = ROLE_LISTENER_CONTROL;
	w.owner = &owners->mail;
	w.role = ROLE_DELIVERY;
	role_control_path(cfg, "delivery", at);
	if (bind_one(s, &w, err) < 0)
		return -1;
	w.role = ROLE_REVIEW;
	role_control_path(cfg, "review", at);
	if (bind_one(s, &w, err) < 0)
		return -1;
	w.role = ROLE_KINDS;	/* nobody's but our own */
	role_control_path(cfg, "control", at);
	if (bind_one(s, &w, err) < 0)
		return -1;
	s->control = s->all[s->n - 1].listener.fd;
	return 0;
}

struct sockets *
sockets_bind(const struct config *cfg, const struct owners *owners, struct err *err)
{
	struct sockets *s = calloc(1, sizeof(*s));

	if (s == NULL) {
		err_set(err, ERR_NOMEM, "no memory for the listeners");
		return NULL;
	}
	if (bind_seams(s, cfg, owners, err) < 0 || bind_smtp(s, cfg, owners, err) < 0 ||
	    bind_review(s, cfg, err) < 0) {
		sockets_close(s);
		return NULL;
	}
	return s;
}

int
sockets_control(const struct sockets *s)
{
	return s->control;
}

size_t
sockets_of(const struct sockets *s, enum role_kind kind, unsigned index, struct role_listener *out,
    size_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n && n < max; i++)
		if (s->all[i].role == kind && (s->all[i].every_worker || s->all[i].worker == index))
			out[n++] = s->all[i].listener;
	return n;
}

static bool
same_strings(const struct config_strings *a, const struct config_strings *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->v[i], b->v[i]) != 0)
			return false;
	return true;
}

static bool
same_listeners(const struct config *a, const struct config *b)
{
	if (a->n_listeners != b->n_listeners)
		return false;
	for (size_t i = 0; i < a->n_listeners; i++)
		if (strcmp(a->listeners[i].name, b->listeners[i].name) != 0 ||
		    !same_strings(&a->listeners[i].address, &b->listeners[i].address))
			return false;
	return same_strings(&a->review.imap, &b->review.imap) &&
	    same_strings(&a->review.imaps, &b->review.imaps) &&
	    same_strings(&a->review.pop3, &b->review.pop3) &&
	    same_strings(&a->review.pop3s, &b->review.pop3s) &&
	    same_strings(&a->review.http, &b->review.http);
}

const char *
sockets_changed(const struct config *old, const struct config *cfg)
{
	if (!same_listeners(old, cfg))
		return "changed listeners need a restart";
	if (old->workers != cfg->workers)
		return "changed workers need a restart";
	if (strcmp(old->run, cfg->run) != 0 || strcmp(old->spool, cfg->spool) != 0 ||
	    strcmp(old->state, cfg->state) != 0 ||
	    strcmp(old->quarantine.store, cfg->quarantine.store) != 0)
		return "changed directories need a restart";
	if (strcmp(old->user, cfg->user) != 0 || strcmp(old->review.user, cfg->review.user) != 0)
		return "changed users need a restart";
	if (old->log_syslog != cfg->log_syslog)
		return "a changed log needs a restart";
	return NULL;
}

void
sockets_close(struct sockets *s)
{
	if (s == NULL)
		return;
	for (size_t i = 0; i < s->n; i++) {
		(void)close(s->all[i].listener.fd);	/* a listening socket: nothing to lose */
		free((void *)(uintptr_t)s->all[i].listener.name);
		free((void *)(uintptr_t)s->all[i].listener.address);
	}
	free(s);
}

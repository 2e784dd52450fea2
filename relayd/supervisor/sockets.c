/* relayd/supervisor/sockets.c - every socket that relayd listens on: bound once, owned by the
 * supervisor. */
#include "relayd/supervisor/sockets.h"

#include "relayd/core/buf.h"
#include "relayd/net/listener.h"
#include "relayd/supervisor/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPIES_MAX 60
#define ALL_MAX    (HANDOVER_LISTENERS_MAX * 4)

struct bound {
	enum role_kind role;
	bool every_worker;	/* a unix socket that all workers accept from */
	bool borrowed;		/* the old set has it too, until sockets_commit() */
	unsigned copy;		/* of the sockets of one address */
	char *wanted;		/* the address as in the config */
	struct role_listener listener;
};

struct sockets {
	struct bound all[ALL_MAX];
	size_t n;
	int control;
	const struct sockets *old;	/* while it is made */
};

/* What to bind, and for whom. */
struct wanted {
	enum role_kind role;
	enum role_listener_kind kind;
	const char *name, *address;
	unsigned copies;
	const struct owner *owner;	/* of a unix socket's file, or NULL */
};

static bool
is_local(const char *address)
{
	return strncmp(address, "unix:", 5) == 0;
}

static int
give_to_owner(const char *address, const struct owner *owner, struct err *err)
{
	const char *path = address + strlen("unix:");

	if (owner != NULL && lchown(path, owner->uid, owner->gid) < 0)
		return err_sys(err, errno, "chown %s", path);
	return 0;
}

static int
add(struct sockets *s, const struct wanted *w, const struct bound *like, struct err *err)
{
	struct bound *b = &s->all[s->n];

	if (s->n == ALL_MAX)
		return err_set(err, ERR_LIMIT, "too many listeners");
	*b = *like;
	b->role = w->role;
	b->every_worker = is_local(w->address);
	b->wanted = strdup(w->address);
	b->listener.kind = w->kind;
	b->listener.first = b->copy == 0 && !b->every_worker;
	b->listener.name = strdup(w->name);
	b->listener.address = strdup(like->listener.address);
	s->n++;
	return b->wanted != NULL && b->listener.name != NULL && b->listener.address != NULL
	    ? 0 : err_set(err, ERR_NOMEM, "no memory for the listeners");
}

/* Binds copies more, numbered from first. */
static int
bind_fresh(struct sockets *s, const struct wanted *w, const char *address, unsigned first,
    bool more, struct err *err)
{
	struct listener_socket made[2 * COPIES_MAX];
	unsigned copies = w->copies - first;
	size_t n = 0;
	int rc = more ? listener_bind_more(address, copies, made, &n, err)
		      : listener_bind(address, copies, made, &n, err);

	if (rc < 0)
		return -1;
	for (size_t i = 0; i < n; i++) {
		struct bound b = { .copy = first + made[i].copy,
			.listener = { .fd = made[i].fd, .address = made[i].name } };

		if (rc < 0 || s->n == ALL_MAX)
			(void)close(made[i].fd);	/* given up */
		if (rc == 0)
			rc = add(s, w, &b, err);
	}
	return rc;
}

/* The port behind the last colon. */
static const char *
port_of(const char *address)
{
	const char *colon = strrchr(address, ':');

	return colon != NULL ? colon : "";
}

/* Some socket of the old set has the port, maybe on another address: then the bind that shows that
 * nobody has it would meet ourselves. */
static bool
is_our_port(const struct sockets *old, const char *address)
{
	for (size_t i = 0; old != NULL && i < old->n && !is_local(address); i++)
		if (!is_local(old->all[i].wanted) &&
		    strcmp(port_of(old->all[i].listener.address), port_of(address)) == 0)
			return true;
	return false;
}

static bool
is_same(const struct bound *b, const struct wanted *w)
{
	return b->role == w->role && b->listener.kind == w->kind &&
	       strcmp(b->wanted, w->address) == 0;
}

/* Takes what the old set has of an address, and for more workers binds the same once more. */
static int
take_over(struct sockets *s, const struct wanted *w, unsigned *copies, struct err *err)
{
	size_t first = s->n, taken;

	for (size_t i = 0; s->old != NULL && i < s->old->n; i++) {
		struct bound b = s->old->all[i];

		if (!is_same(&b, w))
			continue;
		b.borrowed = true;
		if (add(s, w, &b, err) < 0)
			return -1;
		*copies = b.copy + 1 > *copies ? b.copy + 1 : *copies;
	}
	taken = s->n;
	if (is_local(w->address))
		return 0;
	for (size_t i = first; i < taken && *copies < w->copies; i++)
		if (s->all[i].copy == 0 &&
		    bind_fresh(s, w, s->all[i].listener.address, *copies, true, err) < 0)
			return -1;
	return 0;
}

static int
bind_one(struct sockets *s, const struct wanted *w, struct err *err)
{
	unsigned copies = 0;

	if (take_over(s, w, &copies, err) < 0)
		return -1;
	if (copies > 0)
		return 0;
	if (bind_fresh(s, w, w->address, 0, is_our_port(s->old, w->address), err) < 0)
		return -1;
	return is_local(w->address) ? give_to_owner(w->address, w->owner, err) : 0;
}

static int
bind_list(
    struct sockets *s, struct wanted w, const struct config_strings *addresses, struct err *err)
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
		struct wanted w = { .role = ROLE_INTAKE,
			.kind = ROLE_LISTENER_SMTP,
			.name = cfg->listeners[i].name,
			.copies = cfg->workers,
			.owner = &owners->mail };

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
		struct wanted w = {
			.role = ROLE_REVIEW, .kind = rows[i].kind, .name = "", .copies = 1
		};

		if (bind_list(s, w, rows[i].addresses, err) < 0)
			return -1;
	}
	return 0;
}

/* The unix sockets between the roles, and for relayctl. */
static int
bind_seams(
    struct sockets *s, const struct config *cfg, const struct owners *owners, struct err *err)
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

static bool
is_for(const struct bound *b, enum role_kind kind, unsigned index, unsigned n)
{
	return b->role == kind && (b->every_worker || b->copy % n == index);
}

/* What does not fit into a process would be listened on, and nobody would accept. */
static int
check_room(const struct sockets *s, unsigned workers, struct err *err)
{
	static const char *const names[] = { "intake", "delivery", "review" };

	for (size_t kind = 0; kind < ARRAY_LEN(names); kind++) {
		size_t used = 0;

		for (size_t i = 0; i < s->n;
		     i++) /* the first worker has as many as any other, or more */
			used += is_for(
			    &s->all[i], (enum role_kind)kind, 0, kind == ROLE_INTAKE ? workers : 1);
		if (used > HANDOVER_LISTENERS_MAX)
			return err_set(err, ERR_LIMIT,
			    "too many listeners: %zu sockets for one process of "
			    "%s, of at most %d",
			    used, names[kind], HANDOVER_LISTENERS_MAX);
	}
	return 0;
}

struct sockets *
sockets_bind(const struct config *cfg, const struct owners *owners, const struct sockets *old,
    struct err *err)
{
	struct sockets *s = calloc(1, sizeof(*s));

	if (s == NULL) {
		err_set(err, ERR_NOMEM, "no memory for the listeners");
		return NULL;
	}
	s->old = old;
	if (bind_seams(s, cfg, owners, err) < 0 || bind_smtp(s, cfg, owners, err) < 0 ||
	    bind_review(s, cfg, err) < 0 || check_room(s, cfg->workers, err) < 0) {
		sockets_undo(s);
		return NULL;
	}
	s->old = NULL;
	return s;
}

static bool
has_fd(const struct sockets *s, int fd)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->all[i].listener.fd == fd)
			return true;
	return false;
}

void
sockets_commit(struct sockets *fresh, struct sockets *old)
{
	for (size_t i = 0; i < old->n; i++)
		old->all[i].borrowed = has_fd(fresh, old->all[i].listener.fd);
	for (size_t i = 0; i < fresh->n; i++)
		fresh->all[i].borrowed = false;
	sockets_undo(old);
}

int
sockets_control(const struct sockets *s)
{
	return s->control;
}

size_t
sockets_of(const struct sockets *s, enum role_kind kind, unsigned index, unsigned n,
    struct role_listener *out, size_t max)
{
	size_t used = 0;

	for (size_t i = 0; i < s->n && used < max; i++)
		if (is_for(&s->all[i], kind, index, n))
			out[used++] = s->all[i].listener;
	return used;
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

bool
sockets_need_generation(const struct config *old, const struct config *cfg)
{
	if (old->n_listeners != cfg->n_listeners || old->workers != cfg->workers)
		return true;
	for (size_t i = 0; i < old->n_listeners; i++)
		if (strcmp(old->listeners[i].name, cfg->listeners[i].name) != 0 ||
		    !same_strings(&old->listeners[i].address, &cfg->listeners[i].address))
			return true;
	return false;
}

bool
sockets_same_review(const struct config *a, const struct config *b)
{
	return same_strings(&a->review.imap, &b->review.imap) &&
	    same_strings(&a->review.imaps, &b->review.imaps) &&
	    same_strings(&a->review.pop3, &b->review.pop3) &&
	    same_strings(&a->review.pop3s, &b->review.pop3s) &&
	    same_strings(&a->review.http, &b->review.http);
}

const char *
sockets_need_restart(const struct config *old, const struct config *cfg)
{
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

/* ---- handed to the supervisor that follows --------------------------------------------------- */

json_t *
sockets_encode(const struct sockets *s)
{
	json_t *list = json_array();

	for (size_t i = 0; i < s->n; i++) {
		const struct bound *b = &s->all[i];

		if (json_array_append_new(
			list, json_pack("{s:i, s:i, s:s, s:i, s:i, s:s, s:s}", "role", (int)b->role,
				  "copy", (int)b->copy, "wanted", b->wanted, "kind",
				  (int)b->listener.kind, "fd", b->listener.fd, "name",
				  b->listener.name, "address", b->listener.address)) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static int
decode_one(struct sockets *s, const json_t *item, struct err *err)
{
	struct bound b = { 0 };
	const char *wanted, *name, *address;
	int role, kind, copy, fd;
	struct wanted w;

	if (json_unpack((json_t *)(uintptr_t)item, "{s:i, s:i, s:s, s:i, s:i, s:s, s:s}", "role",
		&role, "copy", &copy, "wanted", &wanted, "kind", &kind, "fd", &fd, "name",
		&name, "address", &address) < 0)
		return err_set(err, ERR_FORMAT, "a listener was handed over that cannot be read");
	b.copy = (unsigned)copy;	/* all written by a relayd */
	b.listener.fd = fd;
	b.listener.address = address;
	w = (struct wanted){ .role = (enum role_kind)role, .kind = (enum role_listener_kind)kind,
		.name = name, .address = wanted };
	if (w.role == ROLE_KINDS)
		s->control = fd;
	return add(s, &w, &b, err);
}

struct sockets *
sockets_decode(const json_t *list, struct err *err)
{
	struct sockets *s = calloc(1, sizeof(*s));
	json_t *item;
	size_t i;

	if (s == NULL) {
		err_set(err, ERR_NOMEM, "no memory for the listeners");
		return NULL;
	}
	json_array_foreach (list, i, item) {
		if (decode_one(s, item, err) < 0) {
			sockets_close(s);
			return NULL;
		}
	}
	return s;
}

void
sockets_keep_on_exec(const struct sockets *s, bool keep)
{
	for (size_t i = 0; i < s->n; i++)
		(void)fcntl(
		    s->all[i].listener.fd, F_SETFD, keep ? 0 : FD_CLOEXEC); /* valid: cannot fail */
}

void
sockets_close(struct sockets *s)
{
	if (s == NULL)
		return;
	for (size_t i = 0; i < s->n; i++) {
		if (!s->all[i].borrowed)
			(void)close(
			    s->all[i].listener.fd); /* a listening socket: nothing to lose */
		free(s->all[i].wanted);
		free((void *)(uintptr_t)s->all[i].listener.name);
		free((void *)(uintptr_t)s->all[i].listener.address);
	}
	free(s);
}

void
sockets_undo(struct sockets *s)
{
	for (size_t i = 0; s != NULL && i < s->n; i++)
		if (!s->all[i].borrowed && is_local(s->all[i].wanted))
			(void)unlink(
			    s->all[i].wanted + strlen("unix:")); /* nobody will answer there */
	sockets_close(s);
}

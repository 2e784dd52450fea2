/* relayd/pipeline/session.c - sessions and transactions: what is known about a client and its
 * message. */
#include "relayd/core/clock.h"
#include "relayd/mail/address.h"
#include "relayd/pipeline/inside.h"
#include "relayd/pipeline/trace.h"

#include <assert.h>
#include <stdlib.h>

/* ---- sessions -------------------------------------------------------------------------------- */

/* What is known of the client now, for the filters. */
static void
show(struct pipeline_session *s)
{
	struct session_found *f = s->found;

	if (f == NULL)
		return;
	f->view = (struct filter_session){ .size = sizeof(f->view),
		.client_addr = slice_of(s->addr, s->addr_len),
		.client_ip = slice_str(f->ip),
		.helo = slice_str(s->helo),
		.auth_user = slice_str(s->user),
		.listener = slice_str(s->listener),
		.hostname = slice_str(s->pl->cfg->hostname),
		.tls = s->tls,
		.trusted = s->trusted,
		.session_id = slice_str(f->id_text) };
}

struct session_found *
pl_session_found(struct pipeline_session *s)
{
	struct session_found *f = s->found;

	if (f != NULL)
		return f;
	f = s->found = malloc(sizeof(*f));
	if (f == NULL)
		return NULL;
	f->connect = f->helo = pl_scope_of();
	f->story = pl_story_of();
	id_text(s->id, f->id_text);
	ip_text(slice_of(s->addr, s->addr_len), f->ip);
	show(s);
	return f;
}

static void
rest(struct pipeline_session *s)
{
	struct session_found *f = s->found;

	if (f == NULL || !pl_scope_is_empty(&f->connect) || !pl_scope_is_empty(&f->helo) ||
	    !pl_story_is_empty(&f->story))
		return;
	pl_scope_fini(&f->connect, true);
	pl_scope_fini(&f->helo, true);
	free(f);
	s->found = NULL;
}

/* Released mail comes through none of the config's listeners. */
static void
find_rules(struct pipeline_session *s)
{
	s->rules = s->release ? NULL : config_listener_named(s->pl->cfg, s->listener);
}

struct pipeline_session *
pipeline_session_new(struct pipeline *pl, struct facts *facts, struct trace *trace,
    const struct pipeline_client *client)
{
	struct slice addr = ip_normal(client->addr);
	struct pipeline_session *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->refs = 1;
	s->pl = pipeline_ref(pl);
	s->facts = facts;
	s->trace = trace;
	s->id = client->id;
	s->started_ms = clock_wall_ms();
	s->owner = client->owner;
	s->auth_required = client->auth_required;
	s->trusted = client->trusted;
	s->release = client->release;
	s->dry = client->dry;
	s->listener = client->listener;
	addr = slice_head(addr, sizeof(s->addr));
	memcpy(s->addr, addr.p, addr.len);
	s->addr_len = (uint8_t)addr.len;
	find_rules(s);
	return s;
}

void
pl_session_unref(struct pipeline_session *s)
{
	if (--s->refs > 0) {
		if (s->refs == 1)
			rest(s);
		return;
	}
	if (s->found != NULL)
		pl_story_fini(&s->found->story);
	free(s->found);
	pipeline_unref(s->pl);
	free(s->helo);
	free(s->user);
	free(s);
}

static bool
replace(char **kept, struct slice value)
{
	char *copy = strndup(value.p, value.len);

	if (copy == NULL)
		return false;
	free(*kept);
	*kept = copy;
	return true;
}

/* What was asked and found on HELO no longer holds. */
static void
drop_helo(struct pipeline_session *s)
{
	if (s->found != NULL)
		pl_scope_reset(&s->found->helo);
	s->stale_helo = s->helo != NULL && s->helo[0] != '\0';
	show(s);
}

static void
drop_connect(struct pipeline_session *s)
{
	if (s->found != NULL)
		pl_scope_reset(&s->found->connect);
	s->stale_connect = true;
	drop_helo(s);
}

bool
pipeline_session_helo(struct pipeline_session *s, struct slice helo)
{
	if (!replace(&s->helo, helo))
		return false;
	drop_helo(s);
	return true;
}

struct slice
pipeline_session_name(const struct pipeline_session *s)
{
	return slice_str(s->helo);
}

bool
pipeline_session_tls(struct pipeline_session *s, bool trusted)
{
	s->tls = true;
	free(s->helo); /* RFC 3207 section 4.2: what was learned before is discarded */
	free(s->user);
	s->helo = s->user = NULL;
	s->authenticated = false;
	s->trusted = trusted;
	drop_connect(s);
	return true;
}

void
pipeline_session_trust(struct pipeline_session *s)
{
	s->trusted = true;
	drop_connect(s);
}

bool
pipeline_session_auth(struct pipeline_session *s, struct slice user, bool trusted)
{
	if (!replace(&s->user, user))
		return false;
	s->authenticated = true;
	s->trusted = s->trusted || trusted;
	drop_connect(s);
	return true;
}

/* The scopes are over, and what was counted is settled. */
static void
end_scopes(struct pipeline_session *s)
{
	if (s->found == NULL)
		return;
	pl_scope_fini(&s->found->connect, s->any_accepted);
	pl_scope_fini(&s->found->helo, s->any_accepted);
}

void
pipeline_session_move(struct pipeline_session *s, struct pipeline *pl, bool trusted)
{
	struct pipeline *old = s->pl;

	if (pl == old)
		return;
	s->trusted = trusted;
	end_scopes(s); /* counters are known by the filters that took them */
	s->pl = pipeline_ref(pl);
	find_rules(s);
	drop_connect(s);
	pipeline_unref(old);
}

bool
pipeline_outbound(const struct pipeline_session *s)
{
	return s->trusted || (s->auth_required && !s->authenticated);
}

void
pipeline_note(struct pipeline_session *s, struct pipeline_tx *tx, const char *what,
    struct slice subject, struct slice text)
{
	if (tx == NULL)
		s->refused = true;
	if (tx != NULL || pl_session_found(s) != NULL) /* without memory the trace tells less */
		pl_story_note(pl_story_for(s, tx), what, subject, text);
}

/* ---- transactions ---------------------------------------------------------------------------- */

/* A path as filters see it: with the domain in A-labels (RFC 5890), as DNS and the config have it,
 * because SMTPUTF8 gives one domain many spellings.  What IDNA does not know is as it is; so is all
 * without room. */
static struct slice
path_shown(struct arena *arena, struct slice path)
{
	char storage[ADDRESS_PATH_MAX * 4];
	struct buf shown = buf_over(storage, sizeof(storage));
	struct slice local, domain, copy;

	if (!address_split(path, &local, &domain) || slice_is_ascii(domain))
		return path;
	buf_put(&shown, local);
	buf_putc(&shown, '@');
	if (!address_domain_ascii(domain, &shown) || shown.overflow)
		return path;
	copy = arena_copy(arena, buf_slice(&shown));
	return copy.p != NULL ? copy : path;
}

struct pipeline_tx *
pipeline_tx_begin(struct pipeline_session *s, struct id id, struct slice reverse_path)
{
	struct pipeline_tx *tx = calloc(1, sizeof(*tx));

	if (tx == NULL)
		return NULL;
	tx->arena = arena_of(TX_BYTES_MAX);
	tx->reverse_path = arena_copy(&tx->arena, reverse_path);
	if (tx->reverse_path.p == NULL || pl_session_found(s) == NULL) {
		arena_fini(&tx->arena);
		free(tx);
		return NULL;
	}
	tx->shown = path_shown(&tx->arena, tx->reverse_path);
	tx->refs = 1;
	tx->session = s;
	s->refs++;
	tx->pl = pipeline_ref(s->pl);
	tx->id = id;
	id_text(id, tx->id_text);
	tx->begun_ms = clock_wall_ms();
	tx->outbound = s->trusted;
	tx->scope = pl_scope_of();
	tx->content = pl_content_of(SLICE(""));
	tx->story = pl_story_of();
	return tx;
}

void
pl_tx_unref(struct pipeline_tx *tx)
{
	if (--tx->refs > 0)
		return;
	pl_content_fini(&tx->content);
	arena_fini(&tx->arena);
	arena_fini(&tx->scope.arena);
	pl_story_fini(&tx->story);
	pipeline_unref(tx->pl);
	pl_session_unref(tx->session);
	free(tx);
}

struct tx_rcpt *
pl_tx_rcpt_new(struct pipeline_tx *tx, const struct envelope_rcpt *path)
{
	struct tx_rcpt *rcpt = arena_alloc(&tx->arena, sizeof(*rcpt));

	if (rcpt == NULL)
		return NULL;
	rcpt->path.forward_path = arena_copy(&tx->arena, path->forward_path);
	rcpt->path.params = arena_copy(&tx->arena, path->params);
	rcpt->scope = pl_scope_of();
	if (rcpt->path.forward_path.p == NULL || rcpt->path.params.p == NULL)
		return NULL;
	rcpt->shown = path_shown(&tx->arena, rcpt->path.forward_path);
	return rcpt;
}

bool
pl_tx_rcpt_add(struct pipeline_tx *tx, struct tx_rcpt *rcpt)
{
	struct tx_rcpt **grown =
	    arena_grow(&tx->arena, tx->rcpts, tx->n_rcpts, &tx->cap_rcpts, sizeof(*grown));

	if (grown == NULL)
		return false;
	tx->rcpts = grown;
	tx->rcpts[tx->n_rcpts++] = rcpt;
	return true;
}

void
pipeline_tx_trim(struct pipeline_tx *tx, size_t n)
{
	while (tx->n_rcpts > n)
		pl_scope_fini(&tx->rcpts[--tx->n_rcpts]->scope, false);
}

void
pipeline_tx_hush(struct pipeline_tx *tx)
{
	tx->hushed = true;
}

void
pipeline_tx_end(struct pipeline_tx *tx, bool accepted, struct slice answer)
{
	if (tx == NULL)
		return;
	tx->session->any_accepted = tx->session->any_accepted || accepted;
	if (!tx->hushed)
		pl_tell_tx(tx, accepted, answer);
	for (size_t i = 0; i < tx->n_rcpts; i++)
		pl_scope_fini(&tx->rcpts[i]->scope, accepted);
	tx->n_rcpts = 0;
	/* Counters are settled now; a filter still in the pool sees only what is its own. */
	pl_scope_fini(&tx->scope, accepted);
	if (tx->message != NULL && tx->message->release != NULL)
		tx->message->release(tx->message);
	tx->message = NULL;
	tx->content.message = SLICE("");
	pl_tx_unref(tx);
}

void
pipeline_session_free(struct pipeline_session *s)
{
	if (s == NULL)
		return;
	pl_tell_session(s);
	end_scopes(
	    s); /* not when the last filter in the pool lets go: the state may be closed then */
	pl_session_unref(s);
}

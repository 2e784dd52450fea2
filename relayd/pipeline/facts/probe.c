/* relayd/pipeline/facts/probe.c - asks the next hop whether a recipient exists, and remembers
 * what it said. */
#include "relayd/pipeline/facts/probe.h"

#include "relayd/core/buf.h"
#include "relayd/core/siphash.h"
#include "relayd/net/round.h"
#include "relayd/pipeline/facts/probe_hop.h"
#include "relayd/state/state.h"

#include <openssl/rand.h>
#include <stdlib.h>

#define BUCKETS       4096
#define HOPS_MAX      256 /* kept; idle ones over it go */
#define KEY_BYTES_MAX 4096
#define TICK_MS       200 /* while something is asked */
#define TEXT_BYTES    200 /* of a reply that is remembered */

struct hop_slot {
	struct hop_slot *next;
	struct probe_hop *hop;
	unsigned wanted; /* by entries that look in the state first */
	char key[];      /* of the route: its hops and TLS */
};

/* A recipient at a next hop: asked for now, or remembered. */
struct probe_entry {
	struct probe *probe;
	struct probe_entry *hash_next;
	struct probe_entry *newer, *older; /* of those asked for, or of those remembered */
	struct probe_query *queries;
	struct hop_slot *slot; /* while it is looked up in the state; then it may be asked */
	struct state_request lookup;
	struct probe_ask *ask; /* while the next hop is asked */
	int64_t until_ms;      /* the deadline, or the end of what is remembered */
	unsigned refs;         /* by queries that are to be answered, and by the table */
	enum probe_outcome outcome;
	unsigned code;
	char enhanced[12];
	uint8_t text_len;
	char text[TEXT_BYTES];
	size_t key_len;
	char key[];
};

struct list {
	struct probe_entry *newest, *oldest;
	size_t n;
};

struct probe {
	struct probe_options options;
	uv_loop_t *loop;
	uv_timer_t tick;
	struct round *round;
	struct round_task work;
	struct probe_query *ready, *ready_last; /* to be answered from their entry */
	struct probe_entry *buckets[BUCKETS];
	uint8_t hash_key[16];
	struct list asked, known;
	struct hop_slot *hops;
	size_t n_hops;
	size_t lookups; /* in the state, that are to be answered */
	bool freed, tick_closed;
};

static void
list_push(struct list *list, struct probe_entry *e)
{
	e->newer = NULL;
	e->older = list->newest;
	*(list->newest != NULL ? &list->newest->newer : &list->oldest) = e;
	list->newest = e;
	list->n++;
}

static void
list_remove(struct list *list, struct probe_entry *e)
{
	*(e->newer != NULL ? &e->newer->older : &list->newest) = e->older;
	*(e->older != NULL ? &e->older->newer : &list->oldest) = e->newer;
	list->n--;
}

/* ---- the end -------------------------------------------------------------------------------- */

static void
free_if_done(struct probe *p)
{
	if (!p->freed || !p->tick_closed || p->ready != NULL || p->lookups > 0)
		return;
	round_unmark(p->round, &p->work);
	round_unref(p->round);
	tls_client_unref(p->options.tls_client);
	free(p);
}

static void
on_tick_closed(uv_handle_t *handle)
{
	struct probe *p = handle->data;

	p->tick_closed = true;
	free_if_done(p);
}

/* ---- entries -------------------------------------------------------------------------------- */

static void
entry_unref(struct probe_entry *e)
{
	if (e != NULL && --e->refs == 0)
		free(e);
}

/* Not remembered yet. */
static bool
is_asked(const struct probe_entry *e)
{
	return e->ask != NULL || e->slot != NULL;
}

/* Asks no further. */
static void
drop_ask(struct probe_entry *e)
{
	if (e->ask != NULL)
		probe_ask_drop(e->ask);
	if (e->slot != NULL)
		e->slot->wanted--;
	e->ask = NULL;
	e->slot = NULL; /* on_looked_up() sees that */
}

static struct probe_entry **
bucket_of(struct probe *p, struct slice key)
{
	return &p->buckets[siphash(p->hash_key, key) % BUCKETS];
}

static void
entry_forget(struct probe *p, struct probe_entry *e)
{
	struct probe_entry **at = bucket_of(p, slice_of(e->key, e->key_len));

	while (*at != e)
		at = &(*at)->hash_next;
	*at = e->hash_next;
	list_remove(is_asked(e) ? &p->asked : &p->known, e);
	entry_unref(e);
}

/* NULL where none is, or none that still counts. */
static struct probe_entry *
entry_find(struct probe *p, struct slice key)
{
	struct probe_entry *e = *bucket_of(p, key);

	while (e != NULL && !slice_eq(slice_of(e->key, e->key_len), key))
		e = e->hash_next;
	if (e == NULL || is_asked(e))
		return e;
	if (e->until_ms > (int64_t)uv_now(p->loop)) {
		list_remove(&p->known, e);
		list_push(&p->known, e);
		return e;
	}
	entry_forget(p, e);
	return NULL;
}

static struct probe_entry *
entry_new(struct probe *p, struct slice key)
{
	struct probe_entry *e = calloc(1, sizeof(*e) + key.len), **bucket = bucket_of(p, key);

	if (e == NULL)
		return NULL;
	e->probe = p;
	e->refs = 1;
	e->key_len = key.len;
	memcpy(e->key, key.p, key.len);
	e->hash_next = *bucket;
	*bucket = e;
	list_push(&p->known, e);
	return e;
}

static void
answer_from(const struct probe_entry *e, struct probe_answer *out)
{
	*out = (struct probe_answer){
		.outcome = e->outcome, .code = e->code, .text = slice_of(e->text, e->text_len)
	};
	memcpy(out->enhanced, e->enhanced, sizeof(out->enhanced));
}

/* ---- queries -------------------------------------------------------------------------------- */

static void
make_ready(struct probe *p, struct probe_query *q, struct probe_entry *e)
{
	q->entry = e;
	if (e != NULL)
		e->refs++;
	q->prev = p->ready_last;
	q->next = NULL;
	*(p->ready_last != NULL ? &p->ready_last->next : &p->ready) = q;
	p->ready_last = q;
	round_mark(p->round, &p->work, ROUND_WORK);
}

static struct probe_query *
pop_ready(struct probe *p)
{
	struct probe_query *q = p->ready;

	p->ready = q->next;
	*(q->next != NULL ? &q->next->prev : &p->ready_last) = NULL;
	return q;
}

static void
answer_ready(struct round_task *task)
{
	struct probe *p = container_of(task, struct probe, work);
	struct probe_query *q, *last = p->ready_last;
	bool more = last != NULL;

	while (more) {
		struct probe_answer answer = { .outcome = PROBE_CANCELLED,
			.text = SLICE("cancelled") };
		struct probe_entry *e;

		q = pop_ready(p);
		e = q->entry;
		more = q != last;
		if (e != NULL && !q->cancelled)
			answer_from(e, &answer);
		q->entry = NULL;
		q->probe = NULL;
		q->done(q, &answer);
		entry_unref(e);
	}
	if (p->ready != NULL)
		round_mark(p->round, &p->work, ROUND_WORK);
	free_if_done(p);
}

static void
answer_queries(struct probe *p, struct probe_entry *e, bool cancelled)
{
	struct probe_query *q;

	while ((q = e->queries) != NULL) {
		e->queries = q->next;
		make_ready(p, q, cancelled ? NULL : e);
	}
}

static uint32_t
lifetime_s(const struct probe *p, enum probe_outcome outcome)
{
	switch (outcome) {
	case PROBE_KNOWN:
		return p->options.known_s;
	case PROBE_UNKNOWN:
	case PROBE_REFUSED:
		return p->options.unknown_s;
	default:
		return p->options.unreachable_s;
	}
}

/* From asked to known, for so long. */
static void
settle(struct probe_entry *e, const struct probe_answer *answer, int64_t lifetime_ms)
{
	struct probe *p = e->probe;
	struct slice text = slice_head(answer->text, TEXT_BYTES);

	list_remove(&p->asked, e);
	drop_ask(e);
	list_push(&p->known, e);
	e->outcome = answer->outcome;
	e->code = answer->code;
	memcpy(e->enhanced, answer->enhanced, sizeof(e->enhanced));
	e->text_len = (uint8_t)text.len;
	memcpy(e->text, text.p, text.len);
	e->until_ms = (int64_t)uv_now(p->loop) + lifetime_ms;
	answer_queries(p, e, false);
	while (p->known.n > PROBE_ENTRIES_MAX)
		entry_forget(p, p->known.oldest);
}

/* ---- what the other workers know ------------------------------------------------------------- */

struct publication {
	struct state_request req;
	char key[];
};

static void
on_published(struct state_request *req)
{
	free(container_of(req, struct publication, req));
}

/* Out of memory, or a state that fails: the others ask for themselves. */
static void
publish(const struct probe_entry *e, const struct probe_answer *answer)
{
	struct probe *p = e->probe;
	struct publication *pub;

	if (p->options.state == NULL ||
	    (answer->outcome != PROBE_KNOWN && answer->outcome != PROBE_UNKNOWN))
		return;
	pub = calloc(1, sizeof(*pub) + e->key_len);
	if (pub == NULL)
		return;
	memcpy(pub->key, e->key, e->key_len);
	pub->req = (struct state_request){
		.op = STATE_PUT,
		.key = slice_of(pub->key, e->key_len),
		.number = answer->outcome == PROBE_KNOWN ? 1 : 0,
		.period_s = lifetime_s(p, answer->outcome),
		.done = on_published,
	};
	if (state_start(p->options.state, &pub->req, NULL) < 0)
		free(pub);
}

static void
on_answer(void *owner, const struct probe_answer *answer)
{
	struct probe_entry *e = owner;

	e->ask = NULL; /* it is over */
	publish(e, answer);
	settle(e, answer, (int64_t)lifetime_s(e->probe, answer->outcome) * 1000);
}

static void
ask_hop(struct probe_entry *e, struct probe_hop *hop)
{
	static const struct probe_answer no_memory = { .outcome = PROBE_UNREACHABLE,
		.text = { "out of memory", 13 } };
	size_t path = strlen(e->key) + 1; /* of the hop's part of the key, and its NUL */

	e->ask = probe_hop_ask(hop, slice_drop(slice_of(e->key, e->key_len), path), on_answer, e);
	if (e->ask == NULL)
		settle(e, &no_memory, 0);
}

static void
on_looked_up(struct state_request *req)
{
	struct probe_entry *e = container_of(req, struct probe_entry, lookup);
	struct probe *p = e->probe;
	struct hop_slot *slot = e->slot;
	struct probe_answer answer = { .outcome = req->number == 1 ? PROBE_KNOWN : PROBE_UNKNOWN,
		.text = SLICE("") };

	p->lookups--;
	if (slot != NULL && req->err.code == ERR_NONE && req->found) {
		settle(e, &answer, req->left_ms);
	} else if (slot != NULL) { /* not too late */
		slot->wanted--;
		e->slot = NULL;
		ask_hop(e, slot->hop);
	}
	entry_unref(e);
	free_if_done(p);
}

/* False: there is no state to look in, or it has no time. */
static bool
look_up(struct probe_entry *e, struct hop_slot *slot)
{
	struct probe *p = e->probe;

	if (p->options.state == NULL)
		return false;
	e->lookup = (struct state_request){
		.op = STATE_GET, .key = slice_of(e->key, e->key_len), .done = on_looked_up
	};
	if (state_start(p->options.state, &e->lookup, NULL) < 0)
		return false;
	e->slot = slot;
	slot->wanted++;
	e->refs++;
	p->lookups++;
	return true;
}

/* ---- time --------------------------------------------------------------------------------- */

static void
on_tick(uv_timer_t *timer)
{
	struct probe *p = timer->data;
	static const struct probe_answer late = { .outcome = PROBE_UNREACHABLE,
		.text = { "no answer in time", 17 } };
	struct probe_entry *e;

	while ((e = p->asked.oldest) != NULL && e->until_ms <= (int64_t)uv_now(p->loop)) {
		settle(e, &late, (int64_t)p->options.unreachable_s * 1000);
	}
	if (p->asked.n == 0)
		(void)uv_timer_stop(&p->tick); /* always 0 */
}

/* ---- next hops ------------------------------------------------------------------------------ */

/* The idle ones of routes that may be gone since a reload. */
static void
forget_idle_hops(struct probe *p)
{
	struct hop_slot **at = &p->hops, *slot;

	while ((slot = *at) != NULL) {
		if (slot->wanted > 0 || !probe_hop_idle(slot->hop)) {
			at = &slot->next;
			continue;
		}
		*at = slot->next;
		probe_hop_free(slot->hop);
		free(slot);
		p->n_hops--;
	}
}

static struct hop_slot *
hop_of(struct probe *p, const struct config_route *route, struct slice key, struct slice domain,
    struct err *err)
{
	struct probe_hop_options options = { .loop = p->loop,
		.hostname = p->options.hostname,
		.dns = p->options.dns,
		.tls_client = p->options.tls_client,
		.timeout_ms = p->options.timeout_ms };
	struct hop_slot *slot = p->hops;

	while (slot != NULL && !slice_eq(slice_str(slot->key), key))
		slot = slot->next;
	if (slot != NULL) {
		probe_hop_renew(slot->hop, route);
		return slot;
	}
	if (p->n_hops >= HOPS_MAX)
		forget_idle_hops(p);
	slot = calloc(1, sizeof(*slot) + key.len + 1);
	if (slot == NULL) {
		err_set(err, ERR_NOMEM, "out of memory");
		return NULL;
	}
	memcpy(slot->key, key.p, key.len);
	slot->hop = probe_hop_new(&options, route, domain, err);
	if (slot->hop == NULL) {
		free(slot);
		return NULL;
	}
	slot->next = p->hops;
	p->hops = slot;
	p->n_hops++;
	return slot;
}

/* What names a hop: what it is made of, as a reload may give the same name to another. */
static void
put_hop_key(struct buf *key, const struct config_route *route, struct slice domain)
{
	buf_printf(key, "%d", (int)route->tls);
	if (route->login != NULL)
		buf_printf(key, " login=%s", route->login);
	for (size_t i = 0; i < route->to.n; i++) {
		buf_printf(key, " %s", route->to.v[i]);
		if (strcmp(route->to.v[i], "mx") == 0)
			buf_printf(key, "=%.*s", SLICE_FMT(domain));
	}
}

struct keys {
	struct buf buf;
	size_t hop_len; /* of the hop; the whole is that of the recipient there */
	char storage[KEY_BYTES_MAX], domain[512];
	size_t domain_len;
};

/* The local part counts as it stands, the domain in any case (RFC 5321 section 2.4). */
static int
make_keys(struct keys *k, const struct config_route *route, struct slice path, struct err *err)
{
	const char *at = path.len > 0 ? memrchr(path.p, '@', path.len) : NULL;
	size_t local_len = at != NULL ? (size_t)(at - path.p) : path.len;
	struct slice domain = slice_drop(path, local_len + 1);

	if (domain.len >= sizeof(k->domain))
		return err_set(err, ERR_LIMIT, "the forward-path is too long");
	for (size_t i = 0; i < domain.len; i++)
		k->domain[i] = slice_lower(domain.p[i]);
	k->domain_len = domain.len;
	k->buf = buf_over(k->storage, sizeof(k->storage));
	put_hop_key(&k->buf, route, slice_of(k->domain, k->domain_len));
	k->hop_len = k->buf.len;
	buf_putc(&k->buf, '\0');
	buf_put(&k->buf, slice_head(path, local_len));
	buf_putc(&k->buf, '@');
	buf_put(&k->buf, slice_of(k->domain, k->domain_len));
	return k->buf.overflow ? err_set(err, ERR_LIMIT, "route and forward-path are too long") : 0;
}

/* ---- asking --------------------------------------------------------------------------------- */

static void
wait_for_entry(struct probe_entry *e, struct probe_query *q)
{
	q->entry = e;
	q->prev = NULL;
	q->next = e->queries;
	if (q->next != NULL)
		q->next->prev = q;
	e->queries = q;
}

/* A new entry that is asked for; NULL with *err. */
static struct probe_entry *
begin_asking(
    struct probe *p, const struct keys *keys, const struct config_route *route, struct err *err)
{
	struct slice key = buf_slice(&keys->buf);
	struct hop_slot *slot = hop_of(p, route, slice_head(key, keys->hop_len),
	    slice_of(keys->domain, keys->domain_len), err);
	struct probe_entry *e = slot != NULL ? entry_new(p, key) : NULL;

	if (e == NULL) {
		if (slot != NULL)
			err_set(err, ERR_NOMEM, "out of memory");
		return NULL;
	}
	list_remove(&p->known, e);
	list_push(&p->asked, e);
	if (!look_up(e, slot))
		ask_hop(e, slot->hop);
	if (!is_asked(e))
		return e; /* no memory to ask: an answer too */
	e->until_ms = (int64_t)uv_now(p->loop) + p->options.timeout_ms;
	if (!uv_is_active((uv_handle_t *)&p->tick))
		(void)uv_timer_start(&p->tick, on_tick, TICK_MS, TICK_MS); /* not closing: 0 */
	return e;
}

int
probe_query_start(struct probe *p, struct probe_query *q, const struct config_route *route,
    struct slice forward_path, struct err *err)
{
	struct keys keys;
	struct probe_entry *e;

	if (make_keys(&keys, route, forward_path, err) < 0)
		return -1;
	q->cancelled = false;
	e = entry_find(p, buf_slice(&keys.buf));
	if (e == NULL && p->asked.n >= PROBE_WAITING_MAX)
		return err_set(
		    err, ERR_LIMIT, "over %d recipients are being asked for", PROBE_WAITING_MAX);
	if (e == NULL && (e = begin_asking(p, &keys, route, err)) == NULL)
		return -1;
	q->probe = p;
	if (is_asked(e))
		wait_for_entry(e, q);
	else
		make_ready(p, q, e);
	return 0;
}

void
probe_query_cancel(struct probe_query *q)
{
	struct probe *p = q->probe;
	struct probe_entry *e = q->entry;

	if (p == NULL || q->cancelled)
		return;
	q->cancelled = true;
	if (e == NULL || !is_asked(e))
		return; /* it is to be answered in a moment */
	*(q->prev != NULL ? &q->prev->next : &e->queries) = q->next;
	if (q->next != NULL)
		q->next->prev = q->prev;
	make_ready(p, q, NULL);
}

bool
probe_cached(struct probe *p, const struct config_route *route, struct slice forward_path,
    struct probe_answer *answer)
{
	struct keys keys;
	struct probe_entry *e;

	if (make_keys(&keys, route, forward_path, NULL) < 0)
		return false;
	e = entry_find(p, buf_slice(&keys.buf));
	if (e == NULL || is_asked(e))
		return false;
	answer_from(e, answer);
	return true;
}

struct probe *
probe_new(uv_loop_t *loop, const struct probe_options *options, struct err *err)
{
	struct probe *p = calloc(1, sizeof(*p));

	if (p == NULL || (p->round = round_ref(loop)) == NULL) {
		free(p);
		err_set(err, ERR_NOMEM, "out of memory");
		return NULL;
	}
	p->loop = loop;
	p->options = *options;
	p->options.known_s = options->known_s != 0 ? options->known_s : PROBE_KNOWN_S;
	p->options.unknown_s = options->unknown_s != 0 ? options->unknown_s : PROBE_UNKNOWN_S;
	p->options.unreachable_s =
	    options->unreachable_s != 0 ? options->unreachable_s : PROBE_UNREACHABLE_S;
	p->options.timeout_ms = options->timeout_ms != 0 ? options->timeout_ms : PROBE_TIMEOUT_MS;
	if (p->options.tls_client != NULL)
		tls_client_ref(p->options.tls_client);
	p->work.run = answer_ready;
	(void)uv_timer_init(loop, &p->tick); /* cannot fail */
	p->tick.data = p;
	(void)RAND_bytes(
	    p->hash_key, sizeof(p->hash_key)); /* without them only collisions are easier */
	return p;
}

void
probe_set_lifetimes(struct probe *p, uint32_t known_s, uint32_t unknown_s, uint32_t unreachable_s)
{
	p->options.known_s = known_s;
	p->options.unknown_s = unknown_s;
	p->options.unreachable_s = unreachable_s;
}

void
probe_free(struct probe *p)
{
	struct probe_entry *e;
	struct hop_slot *slot;

	if (p == NULL || p->freed)
		return;
	p->freed = true;
	while ((e = p->asked.oldest) != NULL) {
		list_remove(&p->asked, e);
		list_push(&p->known, e);
		drop_ask(e);
		answer_queries(p, e, true);
	}
	while (p->known.oldest != NULL)
		entry_forget(p, p->known.oldest);
	while ((slot = p->hops) != NULL) {
		p->hops = slot->next;
		probe_hop_free(slot->hop);
		free(slot);
	}
	uv_close((uv_handle_t *)&p->tick, on_tick_closed);
}

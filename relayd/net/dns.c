/* relayd/net/dns.c - asks the DNS through c-ares on the loop.
 *
 * Questions for one name and type that are on their way share a flight; whatever ends it moves its
 * questions to the ready list, and the end of the loop round answers them.  c-ares has its own time
 * for each try; ours for the whole question is kept by the flights' order.
 */
#include "relayd/net/dns.h"

#include "relayd/core/cidr.h"
#include "relayd/net/dns_cache.h"
#include "relayd/net/dns_channel.h"
#include "relayd/net/dns_hosts.h"
#include "relayd/net/dns_parse.h"
#include "relayd/net/round.h"

#include <stdio.h>
#include <stdlib.h>

#define TIMEOUT_MS     5000
#define TICK_MS        100 /* while something is on its way */
#define FLIGHT_BUCKETS 256
#define ALIASES_MAX    8 /* questions that the aliases of one may cost more */

/* A question on its way. */
struct dns_flight {
	struct dns *dns;
	struct dns_flight *hash_next, *prev, *next;
	struct dns_query *queries;
	int64_t deadline_ms;
	bool waiting; /* in dns->oldest; false: given up, though c-ares still tries */
	enum dns_type type;
	unsigned aliases;             /* followed by a question more */
	uint32_t ttl_s;               /* for which they are good */
	char alias[DNS_NAME_MAX + 2]; /* the last of them: what is asked for now; "": name */
	char name[DNS_NAME_MAX + 1];  /* lower case, as asked */
};

struct dns {
	uv_loop_t *loop;
	struct dns_channel *channel;
	bool closing;
	uint32_t timeout_ms;
	uv_timer_t tick;
	struct dns_flight *buckets[FLIGHT_BUCKETS];
	struct dns_flight *oldest, *newest; /* all have the same time, so these are sorted */
	size_t in_flight;
	struct round *round;
	struct round_task work;
	struct dns_query *ready, *ready_last; /* to be answered: with entry, or cancelled without */
	struct dns_cache cache;
	struct dns_hosts *hosts;
	struct dns_stats stats;
	bool ready_held;
	unsigned refs; /* the timer, one for the owner and one while any is ready */
};

const char *
dns_status_name(enum dns_status status)
{
	static const char *const names[] = { "ok", "nodata", "nxdomain", "servfail", "timeout",
		"cancelled" };

	return names[status];
}

static int64_t
now_ms(const struct dns *dns)
{
	return (int64_t)uv_now(dns->loop);
}

static void
unref(struct dns *dns)
{
	if (--dns->refs > 0)
		return;
	dns_cache_fini(&dns->cache);
	dns_hosts_free(dns->hosts);
	round_unref(dns->round);
	free(dns);
}

/* ---- questions ------------------------------------------------------------------------------ */

static void
make_ready(struct dns *dns, struct dns_query *q, struct dns_entry *e)
{
	q->flight = NULL;
	q->entry = e;
	if (e != NULL)
		e->refs++;
	q->prev = dns->ready_last;
	q->next = NULL;
	*(dns->ready_last != NULL ? &dns->ready_last->next : &dns->ready) = q;
	dns->ready_last = q;
	if (!dns->ready_held) { /* dns_close() may come before they are answered */
		dns->ready_held = true;
		dns->refs++;
	}
	round_mark(dns->round, &dns->work, ROUND_WORK);
}

static void
ready_remove(struct dns *dns, struct dns_query *q)
{
	*(q->prev != NULL ? &q->prev->next : &dns->ready) = q->next;
	*(q->next != NULL ? &q->next->prev : &dns->ready_last) = q->prev;
}

static void
answer_ready(struct round_task *task)
{
	static const struct dns_answer cancelled = { .status = DNS_CANCELLED };
	struct dns *dns = container_of(task, struct dns, work);
	struct dns_query *q, *last = dns->ready_last;
	bool more = last != NULL;

	dns->refs++; /* an answer may close us */
	while (more && (q = dns->ready) != NULL) {
		struct dns_entry *e = q->entry;

		more = q != last;
		ready_remove(dns, q);
		q->dns = NULL;
		q->entry = NULL;
		q->done(q, e != NULL ? &e->answer : &cancelled);
		dns_entry_unref(e);
	}
	if (dns->ready != NULL) {
		round_mark(dns->round, &dns->work, ROUND_WORK);
	} else if (dns->ready_held) {
		dns->ready_held = false;
		unref(dns);
	}
	unref(dns);
}

/* ---- flights -------------------------------------------------------------------------------- */

static struct dns_flight **
flight_bucket(struct dns *dns, enum dns_type type, const char *name)
{
	size_t sum = (size_t)type;

	for (; *name != '\0'; name++)
		sum = sum * 31 + (unsigned char)*name;
	return &dns->buckets[sum % FLIGHT_BUCKETS];
}

static struct dns_flight *
flight_find(struct dns *dns, enum dns_type type, const char *name)
{
	struct dns_flight *f = *flight_bucket(dns, type, name);

	while (f != NULL && (f->type != type || strcmp(f->name, name) != 0))
		f = f->hash_next;
	return f;
}

static void
wait_list_remove(struct dns_flight *f)
{
	struct dns *dns = f->dns;

	if (!f->waiting)
		return;
	f->waiting = false;
	*(f->prev != NULL ? &f->prev->next : &dns->oldest) = f->next;
	*(f->next != NULL ? &f->next->prev : &dns->newest) = f->prev;
}

static void
wait_list_push(struct dns_flight *f)
{
	struct dns *dns = f->dns;

	f->waiting = true;
	f->deadline_ms = now_ms(dns) + dns->timeout_ms;
	f->next = NULL;
	f->prev = dns->newest;
	*(dns->newest != NULL ? &dns->newest->next : &dns->oldest) = f;
	dns->newest = f;
}

/* Every question of f is answered with e, or cancelled with NULL. */
static void
answer_flight(struct dns_flight *f, struct dns_entry *e)
{
	struct dns_query *q;

	wait_list_remove(f);
	while ((q = f->queries) != NULL) {
		f->queries = q->next;
		make_ready(f->dns, q, e);
	}
}

static void
flight_free(struct dns_flight *f)
{
	struct dns_flight **at = flight_bucket(f->dns, f->type, f->name);

	while (*at != f)
		at = &(*at)->hash_next;
	*at = f->hash_next;
	wait_list_remove(f);
	f->dns->in_flight--;
	free(f);
}

static struct dns_entry *
failure(enum dns_status status, enum dns_type type, const char *name)
{
	struct dns_answer answer = { .status = status, .ttl_s = DNS_FAILURE_S };

	return dns_entry_new(type, name, &answer);
}

static const char *
name_now(const struct dns_flight *f)
{
	return f->alias[0] != '\0' ? f->alias : f->name;
}

/* The alias that the answer broke off at becomes what f asks for.  False: it has had its share. */
static bool
follow_alias(struct dns_flight *f, const struct dns_parsed *parsed)
{
	if (parsed->alias[0] == '\0' || !f->waiting || f->aliases == ALIASES_MAX)
		return false;
	f->aliases++;
	f->ttl_s = parsed->alias_ttl_s < f->ttl_s ? parsed->alias_ttl_s : f->ttl_s;
	memcpy(f->alias, parsed->alias, sizeof(f->alias));
	return true;
}

/* NULL with *more: an alias is to be asked for first.  NULL else: out of memory. */
static struct dns_entry *
entry_of(struct dns_flight *f, int status, struct slice message, bool *more)
{
	struct dns_parsed parsed;

	*more = false;
	if (status == ARES_ETIMEOUT)
		return failure(DNS_TIMEOUT, f->type, f->name);
	if (status != ARES_SUCCESS && status != ARES_ENODATA && status != ARES_ENOTFOUND)
		return failure(DNS_SERVFAIL, f->type, f->name);
	dns_parse(message, f->type, name_now(f), &parsed);
	*more = follow_alias(f, &parsed);
	if (*more)
		return NULL;
	if (f->ttl_s < parsed.answer.ttl_s)
		parsed.answer.ttl_s = f->ttl_s;
	return dns_entry_new(f->type, f->name, &parsed.answer);
}

static void ask(struct dns_flight *f);

/* From c-ares, maybe even before ares_query() returns. */
static void
on_answer(void *arg, int status, int timeouts, unsigned char *message, int len)
{
	struct dns_flight *f = arg;
	struct dns *dns = f->dns;
	struct dns_entry *e;
	bool more;

	(void)timeouts;
	if (status == ARES_EDESTRUCTION || status == ARES_ECANCELLED) {
		answer_flight(f, NULL);
		flight_free(f);
		return;
	}
	e = entry_of(f, status, slice_of(message, len > 0 ? (size_t)len : 0), &more);
	if (more) { /* the last: it may answer, and free f, before it returns */
		ask(f);
		return;
	}
	if (e != NULL) {
		dns->stats.failures += e->answer.status == DNS_SERVFAIL;
		dns->stats.timeouts += e->answer.status == DNS_TIMEOUT && f->waiting;
		if (f->waiting || e->answer.status < DNS_SERVFAIL)
			dns_cache_put(&dns->cache, e, now_ms(dns));
	}
	answer_flight(f, e); /* out of memory: as if cancelled */
	dns_entry_unref(e);
	flight_free(f);
}

static void
ask(struct dns_flight *f)
{
	dns_channel_ask(f->dns->channel, name_now(f), dns_type_number(f->type), on_answer, f);
}

static void
give_up(struct dns_flight *f)
{
	struct dns *dns = f->dns;
	struct dns_entry *e = failure(DNS_TIMEOUT, f->type, f->name);

	dns->stats.timeouts++;
	if (e != NULL)
		dns_cache_put(&dns->cache, e, now_ms(dns));
	answer_flight(f, e); /* an answer that still comes goes to the cache */
	dns_entry_unref(e);
}

static void
on_tick(uv_timer_t *timer)
{
	struct dns *dns = timer->data;

	dns_channel_tick(dns->channel);
	while (dns->oldest != NULL && dns->oldest->deadline_ms <= now_ms(dns))
		give_up(dns->oldest);
	if (dns->in_flight == 0)
		(void)uv_timer_stop(&dns->tick); /* always 0 */
}

static bool
ask_as_arpa(struct slice addr, char out[static DNS_NAME_MAX + 1])
{
	static const char hex[] = "0123456789abcdef";
	char *p = out;

	if (addr.len == 4) {
		const unsigned char *b = (const unsigned char *)addr.p;

		(void)snprintf(
		    out, DNS_NAME_MAX + 1, "%u.%u.%u.%u.in-addr.arpa", b[3], b[2], b[1], b[0]);
		return true;
	}
	for (size_t i = addr.len; i-- > 0;) {
		*p++ = hex[(unsigned char)addr.p[i] & 15];
		*p++ = '.';
		*p++ = hex[(unsigned char)addr.p[i] >> 4];
		*p++ = '.';
	}
	(void)snprintf(p, 9, "ip6.arpa");
	return addr.len == 16;
}

static struct dns_flight *
flight_new(struct dns *dns, enum dns_type type, const char *name)
{
	struct dns_flight *f = calloc(1, sizeof(*f)), **bucket = flight_bucket(dns, type, name);

	if (f == NULL)
		return NULL;
	f->dns = dns;
	f->type = type;
	f->ttl_s = DNS_TTL_MAX_S;
	(void)snprintf(f->name, sizeof(f->name), "%s", name); /* checked by normal_name() */
	f->hash_next = *bucket;
	*bucket = f;
	dns->in_flight++;
	wait_list_push(f);
	return f;
}

static int
join_flight(struct dns *dns, struct dns_query *q, enum dns_type type, const char *name)
{
	struct dns_flight *f = flight_find(dns, type, name);
	bool fresh = f == NULL;

	if (fresh && (f = flight_new(dns, type, name)) == NULL)
		return -1;
	if (!f->waiting)
		wait_list_push(f);
	dns->stats.joined += !fresh;
	q->flight = f;
	q->prev = NULL;
	q->next = f->queries;
	if (q->next != NULL)
		q->next->prev = q;
	f->queries = q;
	if (!uv_is_active((uv_handle_t *)&dns->tick))
		(void)uv_timer_start(&dns->tick, on_tick, TICK_MS, TICK_MS); /* not closing: 0 */
	if (fresh) /* the last: it may answer, and free f, before it returns */
		ask(q->flight);
	return 0;
}

/* ---- asking --------------------------------------------------------------------------------- */

/* Lower case, without the final dot, and fit for a question. */
static bool
normal_name(struct slice name, char out[static DNS_NAME_MAX + 1])
{
	size_t label = 0;

	(void)slice_chop(&name, ".");
	if (name.len == 0 || name.len > DNS_NAME_MAX)
		return false;
	for (size_t i = 0; i < name.len; i++) {
		unsigned char c = (unsigned char)name.p[i];

		if (c <= ' ' || c == 0x7f || c == '\\') /* c-ares reads \ as an escape */
			return false;
		if (c == '.' ? label == 0 : label == 63)
			return false;
		label = c == '.' ? 0 : label + 1;
		out[i] = slice_lower(name.p[i]);
	}
	out[name.len] = '\0';
	return label > 0;
}

static int
question_name(
    enum dns_type type, struct slice name, char out[static DNS_NAME_MAX + 1], struct err *err)
{
	struct cidr addr;
	bool good;

	if (type == DNS_PTR)
		good = !slice_has(name, '/') && cidr_parse(name, &addr) &&
		       ask_as_arpa(slice_of(addr.addr, addr.len), out);
	else
		good = normal_name(name, out);
	if (!good)
		return err_set(err, ERR_FORMAT, "%.*s cannot be asked of the DNS",
		    SLICE_FMT(slice_head(name, 100)));
	return 0;
}

int
dns_query_start(
    struct dns *dns, struct dns_query *q, enum dns_type type, struct slice name, struct err *err)
{
	char text[DNS_NAME_MAX + 1];
	struct dns_entry *e;

	if (dns->closing)
		return err_set(err, ERR_CLOSED, "the resolver is closing");
	if (question_name(type, name, text, err) < 0)
		return -1;
	q->dns = dns;
	e = dns_cache_get(&dns->cache, type, text, now_ms(dns));
	if (e != NULL) {
		dns->stats.hits++;
		make_ready(dns, q, e);
		return 0;
	}
	dns->stats.misses++;
	if (dns->in_flight >= DNS_IN_FLIGHT_MAX && flight_find(dns, type, text) == NULL) {
		q->dns = NULL;
		return err_set(
		    err, ERR_LIMIT, "over %u questions are on their way", DNS_IN_FLIGHT_MAX);
	}
	if (join_flight(dns, q, type, text) < 0) {
		q->dns = NULL;
		return err_set(err, ERR_NOMEM, "out of memory");
	}
	return 0;
}

void
dns_query_cancel(struct dns_query *q)
{
	struct dns *dns = q->dns;

	if (dns == NULL)
		return;
	if (q->flight != NULL) {
		*(q->prev != NULL ? &q->prev->next : &q->flight->queries) = q->next;
		if (q->next != NULL)
			q->next->prev = q->prev;
		make_ready(dns, q, NULL);
	} else {
		dns_entry_unref(q->entry);
		q->entry = NULL;
	}
}

const struct dns_answer *
dns_cached(struct dns *dns, enum dns_type type, struct slice name)
{
	char text[DNS_NAME_MAX + 1];
	struct dns_entry *e;

	if (question_name(type, name, text, NULL) < 0)
		return NULL;
	e = dns_cache_get(&dns->cache, type, text, now_ms(dns));
	dns->stats.hits += e != NULL;
	return e != NULL ? &e->answer : NULL;
}

size_t
dns_hosts(const struct dns *dns, enum dns_type type, struct slice name, struct dns_record *records,
    size_t max)
{
	return dns_hosts_find(dns->hosts, type, name, records, max);
}

struct dns *
dns_open(uv_loop_t *loop, const struct dns_options *options, struct err *err)
{
	struct dns *dns = calloc(1, sizeof(*dns));

	if (dns == NULL || (dns->round = round_ref(loop)) == NULL) {
		free(dns);
		err_set(err, ERR_NOMEM, "out of memory");
		return NULL;
	}
	dns->loop = loop;
	dns->refs = 2; /* the owner and the timer */
	dns->timeout_ms = options->timeout_ms != 0 ? options->timeout_ms : TIMEOUT_MS;
	dns->work.run = answer_ready;
	dns_cache_init(
	    &dns->cache, options->cache_bytes != 0 ? options->cache_bytes : DNS_CACHE_BYTES);
	(void)uv_timer_init(loop, &dns->tick); /* cannot fail */
	dns->tick.data = dns;
	dns->hosts =
	    dns_hosts_read(options->hosts_file != NULL ? options->hosts_file : "/etc/hosts");
	dns->channel = dns_channel_open(loop, options, dns->timeout_ms, err);
	if (dns->channel != NULL)
		return dns;
	dns_close(dns);
	return NULL;
}

struct dns *
dns_open_config(uv_loop_t *loop, const struct config *cfg, struct err *err)
{
	struct dns_options options = {
		.servers = cfg->dns.servers.v,
		.n_servers = cfg->dns.servers.n,
		.timeout_ms = cfg->dns.timeout_ms,
	};

	return dns_open(loop, &options, err);
}

static void
on_tick_closed(uv_handle_t *handle)
{
	unref(handle->data);
}

void
dns_close(struct dns *dns)
{
	if (dns == NULL || dns->closing)
		return;
	dns->closing = true;
	dns_channel_close(dns->channel); /* ends every flight */
	uv_close((uv_handle_t *)&dns->tick, on_tick_closed);
	unref(dns);
}

uv_loop_t *
dns_loop(const struct dns *dns)
{
	return dns->loop;
}

void
dns_stats(const struct dns *dns, struct dns_stats *out)
{
	*out = dns->stats;
	out->entries = dns->cache.n;
	out->bytes = dns->cache.bytes;
	out->in_flight = dns->in_flight;
}

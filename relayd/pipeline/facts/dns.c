/* relayd/pipeline/facts/dns.c - DNS answers as facts. */
#include "relayd/pipeline/facts/dns.h"

#include <stdlib.h>

static bool
type_of(enum fact_kind kind, enum dns_type *type)
{
	static const enum dns_type types[] = {
		[FACT_DNS_A] = DNS_A,
		[FACT_DNS_AAAA] = DNS_AAAA,
		[FACT_DNS_TXT] = DNS_TXT,
		[FACT_DNS_MX] = DNS_MX,
		[FACT_DNS_PTR] = DNS_PTR,
	};

	if ((unsigned)kind > FACT_DNS_PTR)
		return false;
	*type = types[kind];
	return true;
}

struct fact
fact_of_dns(const struct dns_answer *answer, struct fact_value *values)
{
	struct fact fact = { .size = sizeof(fact), .ttl_s = answer->ttl_s, .values = values };

	switch (answer->status) {
	case DNS_OK:
		fact.state = FACT_OK;
		break;
	case DNS_NXDOMAIN:
		fact.nxdomain = true;
		fact.state = FACT_NONE;
		return fact;
	case DNS_NODATA:
		fact.state = FACT_NONE;
		return fact;
	case DNS_SERVFAIL:
	case DNS_TIMEOUT:
	case DNS_CANCELLED:
		fact.state = FACT_FAILED;
		return fact;
	}
	for (; fact.n < answer->n && fact.n < DNS_RECORDS_MAX; fact.n++)
		values[fact.n] = (struct fact_value){ .bytes = answer->records[fact.n].data,
			.number = answer->records[fact.n].preference };
	return fact;
}

/* A question on its way.  It outlives an asker who forgets it, until the resolver has let go. */
struct asked {
	struct dns_query query;
	struct fact_query *q; /* NULL: forgotten */
};

static void
on_answer(struct dns_query *query, const struct dns_answer *answer)
{
	struct asked *a = container_of(query, struct asked, query);
	struct fact_query *q = a->q;
	struct fact_value values[DNS_RECORDS_MAX];
	struct fact fact = fact_of_dns(answer, values);

	free(a);
	if (q == NULL)
		return;
	q->busy = false;
	q->work = NULL;
	q->done(q, &fact);
}

/* What cannot be asked for cannot exist. */
static const struct fact never = { .size = sizeof(never), .state = FACT_NONE, .nxdomain = true };
static const struct fact failed = { .size = sizeof(failed), .state = FACT_FAILED };

static const struct fact *
start(struct dns *dns, struct fact_query *q, enum dns_type type)
{
	struct asked *a = calloc(1, sizeof(*a));
	struct err err;

	if (a == NULL)
		return &failed;
	a->query.done = on_answer;
	a->q = q;
	if (dns_query_start(dns, &a->query, type, q->name, &err) < 0) {
		free(a);
		return err.code == ERR_FORMAT ? &never : &failed;
	}
	q->work = a;
	q->busy = true;
	return NULL;
}

static bool
ask(void *source, struct fact_query *q, const struct fact **out)
{
	static struct fact_value values[DNS_RECORDS_MAX]; /* one loop, and borrowed for one round */
	static struct fact fact;
	struct dns *dns = source;
	const struct dns_answer *cached;
	enum dns_type type;

	if (dns == NULL || !type_of(q->kind, &type)) {
		*out = &failed;
		return true;
	}
	cached = dns_cached(dns, type, q->name);
	if (cached == NULL) {
		*out = start(dns, q, type);
		return *out != NULL;
	}
	fact = fact_of_dns(cached, values);
	*out = &fact;
	return true;
}

static void
forget(void *source, struct fact_query *q)
{
	struct asked *a = q->work;

	(void)source; /* the question knows its resolver */
	a->q = NULL;
	q->work = NULL;
	q->busy = false;
	dns_query_cancel(&a->query);
}

const struct fact_source fact_source_dns = { .ask = ask, .forget = forget };

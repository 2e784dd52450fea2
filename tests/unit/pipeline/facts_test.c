/* tests/unit/pipeline/facts_test.c - DNS answers as facts, from a resolver to the asker. */
#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/pipeline/facts/dns.h"
#include "unit/unit.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- answers --------------------------------------------------------------------------------- */

static const struct {
	enum dns_status status;
	enum fact_state state;
	bool nxdomain;
} statuses[] = {
	{ DNS_NODATA, FACT_NONE, false },
	{ DNS_NXDOMAIN, FACT_NONE, true },
	{ DNS_SERVFAIL, FACT_FAILED, false },
	{ DNS_TIMEOUT, FACT_FAILED, false },
	{ DNS_CANCELLED, FACT_FAILED, false },
};

START_TEST(an_answer_without_data_says_why)
{
	struct dns_answer answer = { .status = statuses[_i].status, .ttl_s = 7 };
	struct fact_value values[DNS_RECORDS_MAX];
	struct fact fact = fact_of_dns(&answer, values);

	ck_assert_int_eq(fact.state, statuses[_i].state);
	ck_assert(fact.nxdomain == statuses[_i].nxdomain);
	ck_assert_uint_eq(fact.n, 0);
}
END_TEST

START_TEST(records_become_values_with_their_preference)
{
	static const struct dns_record records[] = { { { "a.test", 6 }, 10 },
		{ { "b.test", 6 }, 20 } };
	struct dns_answer answer = { .status = DNS_OK, .ttl_s = 300, .n = 2, .records = records };
	struct fact_value values[DNS_RECORDS_MAX];
	struct fact fact = fact_of_dns(&answer, values);

	ck_assert_int_eq(fact.state, FACT_OK);
	ck_assert_uint_eq(fact.ttl_s, 300);
	ck_assert_uint_eq(fact.n, 2);
	ck_assert(slice_eq(fact.values[1].bytes, SLICE("b.test")));
	ck_assert_int_eq(fact.values[1].number, 20);
}
END_TEST

/* ---- a server that knows one address for every name ------------------------------------------ */

struct server {
	uv_udp_t udp;
	char address[32];
	unsigned asked;
	bool silent;
};

static void
on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	static char storage[2048];

	(void)handle, (void)suggested;
	*buf = uv_buf_init(storage, sizeof(storage));
}

/* The question as it came, and one A record of 127.0.0.2 that lives a minute. */
static void
on_question(
    uv_udp_t *udp, ssize_t n, const uv_buf_t *buf, const struct sockaddr *from, unsigned flags)
{
	static const char record[] = "\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\2";
	struct server *s = container_of(udp, struct server, udp);
	char reply[600];
	size_t end = 12;
	uv_buf_t out;

	(void)flags;
	if (n < 17 || n > 500 || from == NULL)
		return;
	s->asked++;
	if (s->silent)
		return;
	while (buf->base[end] != 0)
		end += 1 + (size_t)(unsigned char)buf->base[end];
	end += 5;
	memcpy(reply, buf->base, end);
	memcpy(reply + 2, "\x81\x80\0\1\0\1\0\0\0\0", 10);
	memcpy(reply + end, record, sizeof(record) - 1);
	out = uv_buf_init(reply, (unsigned)(end + sizeof(record) - 1));
	ck_assert_int_gt(uv_udp_try_send(udp, &out, 1, from), 0);
}

static void
server_start(struct server *s, uv_loop_t *loop)
{
	struct sockaddr_in sin;
	int len = sizeof(sin);

	*s = (struct server){ 0 };
	ck_assert_int_eq(uv_ip4_addr("127.0.0.1", 0, &sin), 0);
	ck_assert_int_eq(uv_udp_init(loop, &s->udp), 0);
	ck_assert_int_eq(uv_udp_bind(&s->udp, (struct sockaddr *)&sin, 0), 0);
	ck_assert_int_eq(uv_udp_getsockname(&s->udp, (struct sockaddr *)&sin, &len), 0);
	(void)snprintf(s->address, sizeof(s->address), "127.0.0.1:%u", ntohs(sin.sin_port));
	ck_assert_int_eq(uv_udp_recv_start(&s->udp, on_alloc, on_question), 0);
}

struct world {
	uv_loop_t loop;
	struct server server;
	struct dns *dns;
	struct facts *facts;
	struct fact_query q;
	unsigned answered;
	enum fact_state state;
	char bytes[4];
};

static void
on_fact(struct fact_query *q, const struct fact *fact)
{
	struct world *w = container_of(q, struct world, q);

	w->answered++;
	w->state = fact->state;
	if (fact->n > 0)
		memcpy(w->bytes, fact->values[0].bytes.p, 4);
}

static void
begin(struct world *w, uint32_t timeout_ms)
{
	const char *servers[1];
	struct dns_options options = {
		.servers = servers, .n_servers = 1, .timeout_ms = timeout_ms
	};
	struct err err = { 0 };

	*w = (struct world){ 0 };
	ck_assert_int_eq(uv_loop_init(&w->loop), 0);
	server_start(&w->server, &w->loop);
	servers[0] = w->server.address;
	w->dns = dns_open(&w->loop, &options, &err);
	ck_assert_msg(w->dns != NULL, "%s", err.msg);
	w->facts = facts_open(&w->loop, w->dns, NULL);
	w->q = (struct fact_query){
		.kind = FACT_DNS_A, .name = SLICE("2.0.0.127.zen.test"), .done = on_fact
	};
}

/* Until it is answered, whatever the answer. */
static void
ask(struct world *w)
{
	const struct fact *fact;

	ck_assert(!facts_ask(w->facts, &w->q, &fact));
	ck_assert(w->q.busy);
	while (w->answered == 0)
		(void)uv_run(&w->loop, UV_RUN_ONCE);
	ck_assert(!w->q.busy);
}

/* It is known at once. */
static const struct fact *
known(struct world *w)
{
	const struct fact *fact = NULL;

	ck_assert(facts_ask(w->facts, &w->q, &fact));
	return fact;
}

static void
end(struct world *w)
{
	facts_close(w->facts);
	dns_close(w->dns);
	uv_close((uv_handle_t *)&w->server.udp, NULL);
	ck_assert_int_eq(uv_run(&w->loop, UV_RUN_DEFAULT), 0);
	ck_assert_int_eq(uv_loop_close(&w->loop), 0);
}

START_TEST(a_question_is_answered_and_then_known)
{
	const struct fact *fact;
	struct world w;

	begin(&w, 5000);
	ask(&w);
	ck_assert_int_eq(w.state, FACT_OK);
	ck_assert_mem_eq(w.bytes, "\x7f\0\0\2", 4);
	fact = known(&w);
	ck_assert_int_eq(fact->state, FACT_OK);
	ck_assert_uint_le(fact->ttl_s, 60);
	ck_assert_uint_eq(w.server.asked, 1);
	end(&w);
}
END_TEST

START_TEST(a_question_without_an_answer_fails_in_time)
{
	struct world w;

	begin(&w, 200);
	w.server.silent = true;
	ask(&w);
	ck_assert_int_eq(w.state, FACT_FAILED);
	end(&w);
}
END_TEST

START_TEST(a_forgotten_question_is_never_answered_and_may_go_at_once)
{
	struct fact_query *q = malloc(sizeof(*q));
	const struct fact *fact;
	struct world w;

	begin(&w, 5000);
	*q = w.q;
	ck_assert(!facts_ask(w.facts, q, &fact));
	facts_forget(w.facts, q);
	facts_forget(w.facts, q);
	free(q);
	for (int i = 0; i < 5; i++)
		(void)uv_run(&w.loop, UV_RUN_NOWAIT);
	ck_assert_uint_eq(w.answered, 0);
	end(&w);
}
END_TEST

START_TEST(what_no_name_can_be_does_not_exist)
{
	const struct fact *fact;
	struct world w;

	begin(&w, 5000);
	w.q.name = SLICE("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
			 "aaaaaaaaaa.test");
	fact = known(&w);
	ck_assert_int_eq(fact->state, FACT_NONE);
	ck_assert(fact->nxdomain);
	end(&w);
}
END_TEST

START_TEST(without_a_resolver_and_for_unknown_kinds_a_question_fails)
{
	struct fact_query q = { .kind = FACT_DNS_A, .name = SLICE("a.test"), .done = on_fact };
	const struct fact *fact;
	struct facts *f = facts_open(uv_default_loop(), NULL, NULL);

	ck_assert(facts_ask(f, &q, &fact));
	ck_assert_int_eq(fact->state, FACT_FAILED);
	q.kind = (enum fact_kind)99;
	ck_assert(facts_ask(f, &q, &fact));
	ck_assert_int_eq(fact->state, FACT_FAILED);
	facts_close(f);
}
END_TEST

/* ---- the pool -------------------------------------------------------------------------------- */

#define HEAVY_MS 1000 /* they may take */

static struct counters_page page;
static uv_sem_t began, gate;
static uv_loop_t pool_loop;
static unsigned n_done;

static void
wait_at_gate(struct facts_work *w)
{
	(void)w;
	uv_sem_post(&began);
	uv_sem_wait(&gate);
}

static void
on_done(struct facts_work *w)
{
	(void)w;
	n_done++;
}

static void
come_back(unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		uv_sem_post(&gate);
	for (unsigned end = n_done + n; n_done < end;)
		(void)uv_run(&pool_loop, UV_RUN_ONCE);
}

/* At the moment 1 of the clock. */
static struct facts *
open_pool(void)
{
	struct facts *f;

	clock_stand(1);
	counters_use(&page, "intake", 0);
	ck_assert_int_eq(uv_loop_init(&pool_loop), 0);
	ck_assert_int_eq(uv_sem_init(&began, 0) | uv_sem_init(&gate, 0), 0);
	n_done = 0;
	f = facts_open(&pool_loop, NULL, NULL);
	facts_set_deadlines(f, 1, HEAVY_MS);
	return f;
}

static void
fill_pool(struct facts *f, struct facts_work works[static FACTS_HEAVY_MAX])
{
	for (size_t i = 0; i < FACTS_HEAVY_MAX; i++) {
		works[i] = (struct facts_work){ .run = wait_at_gate, .done = on_done };
		facts_work_start(f, &works[i]);
	}
}

/* A full pool, in which all have begun. */
static struct facts *
full_pool(struct facts_work works[static FACTS_HEAVY_MAX])
{
	struct facts *f = open_pool();

	fill_pool(f, works);
	for (size_t i = 0; i < FACTS_HEAVY_MAX; i++)
		uv_sem_wait(&began);
	return f;
}

static void
close_pool(struct facts *f)
{
	facts_close(f);
	ck_assert_int_eq(uv_run(&pool_loop, UV_RUN_DEFAULT), 0);
	uv_sem_destroy(&began);
	uv_sem_destroy(&gate);
	ck_assert_int_eq(uv_loop_close(&pool_loop), 0);
	clock_stand(0);
}

START_TEST(a_pool_hangs_when_more_comes_and_all_in_it_are_late_until_one_is_back)
{
	struct facts_work works[FACTS_HEAVY_MAX], early, late;
	struct facts *f = full_pool(works);

	early = late = (struct facts_work){ .run = wait_at_gate, .done = on_done };
	clock_stand(HEAVY_MS);
	facts_work_start(f, &early);
	ck_assert_uint_eq(page.pool_hangs, 0);
	clock_stand(HEAVY_MS + 1);
	facts_work_start(f, &late);
	ck_assert_uint_eq(page.pool_hangs, 1);
	come_back(1);
	ck_assert_uint_eq(page.pool_hangs, 0);
	come_back(FACTS_HEAVY_MAX + 1);
	close_pool(f);
}
END_TEST

START_TEST(a_pool_hangs_when_who_waited_for_it_gives_up)
{
	struct facts_work works[FACTS_HEAVY_MAX], waits = { .run = wait_at_gate };
	struct facts *f = full_pool(works);

	facts_work_start(f, &waits);
	clock_stand(HEAVY_MS + 1);
	ck_assert_uint_eq(page.pool_hangs, 0);
	ck_assert(facts_work_cancel(&waits));
	ck_assert_uint_eq(page.pool_hangs, 1);
	come_back(FACTS_HEAVY_MAX);
	ck_assert_uint_eq(page.pool_hangs, 0);
	close_pool(f);
}
END_TEST

static void
wait_for_all(uv_work_t *work)
{
	(void)work;
	uv_sem_post(&began);
	uv_sem_wait(&gate);
}

START_TEST(what_never_began_because_all_threads_do_other_work_does_not_hang)
{
	struct facts_work works[FACTS_HEAVY_MAX],
	    one_more = { .run = wait_at_gate, .done = on_done };
	uv_work_t other[4]; /* libuv's threads */
	struct facts *f = open_pool();

	for (size_t i = 0; i < ARRAY_LEN(other); i++) {
		ck_assert_int_eq(uv_queue_work(&pool_loop, &other[i], wait_for_all, NULL), 0);
		uv_sem_wait(&began);
	}
	fill_pool(f, works);
	clock_stand(10 * HEAVY_MS);
	facts_work_start(f, &one_more);
	ck_assert_uint_eq(page.pool_hangs, 0);
	for (size_t i = 0; i < ARRAY_LEN(other); i++)
		uv_sem_post(&gate);
	come_back(FACTS_HEAVY_MAX + 1);
	close_pool(f);
}
END_TEST

UNIT_SUITE(pipeline_facts)
{
	UNIT_ROWS(an_answer_without_data_says_why, statuses);
	UNIT_TEST(records_become_values_with_their_preference);
	UNIT_TEST(a_question_is_answered_and_then_known);
	UNIT_TEST(a_question_without_an_answer_fails_in_time);
	UNIT_TEST(a_forgotten_question_is_never_answered_and_may_go_at_once);
	UNIT_TEST(what_no_name_can_be_does_not_exist);
	UNIT_TEST(without_a_resolver_and_for_unknown_kinds_a_question_fails);
	UNIT_TEST(a_pool_hangs_when_more_comes_and_all_in_it_are_late_until_one_is_back);
	UNIT_TEST(a_pool_hangs_when_who_waited_for_it_gives_up);
	UNIT_TEST(what_never_began_because_all_threads_do_other_work_does_not_hang);
}

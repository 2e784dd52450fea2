/* tests/unit/delivery/control_test.c - what the admin is told, and what he can do to the queue. */
#include "relayd/delivery/control.h"

#include "relayd/delivery/parts.h"
#include "relayd/net/control.h"
#include "relayd/net/listener.h"
#include "unit/delivery/fixture.h"
#include "unit/unit.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct fixture f;
static struct sink *upstream;
static int control_fd;
static char control_path[128];

static void
listen_control(void)
{
	struct listener_socket sockets[2];
	char address[160];
	size_t n = 0;
	struct err err;

	snprintf(control_path, sizeof(control_path), "%s/delivery.sock", f.dir);
	snprintf(address, sizeof(address), "unix:%s", control_path);
	ck_assert_msg(listener_bind(address, 1, sockets, &n, &err) == 0, "%s", err.msg);
	control_fd = sockets[0].fd;
}

static void
set_up(void)
{
	struct err err;

	fixture_init(&f);
	upstream = sink_open(NULL);
	listen_control();
	fixture_config(&f,
	    "route \"dead.test\" { to = { \"127.0.0.1:1\" }  tls = off  recipients = any }\n"
	    "route \"*\" { to = { \"127.0.0.1:%u\" }  tls = off  recipients = any }\n"
	    "queue { retry = { 1h }  expire = 2h  warn = 30m  reserve = 0K }\n",
	    sink_port(upstream));
	fixture_start(&f);
	ck_assert_int_eq(delivery_control(f.delivery, control_fd, (uid_t)-1, &err), 0);
}

static void
tear_down(void)
{
	fixture_fini(&f);
	close(control_fd);
	sink_close(upstream);
}

/* ---- a request, made by another thread ------------------------------------------------------- */

struct asking {
	json_t *request;
	json_t *lines; /* an array */
	struct err err;
	int rc;
	_Atomic bool done;
};

static void *
ask_in_thread(void *arg)
{
	struct asking *a = arg;
	struct control_client *c = control_connect(control_path, 8000, &a->err);
	json_t *line;

	a->rc = c != NULL ? control_send(c, a->request, &a->err) : -1;
	while (c != NULL && a->rc == 0 && (a->rc = control_next(c, &line, &a->err)) > 0) {
		json_array_append_new(a->lines, line);
		a->rc = 0;
	}
	control_disconnect(c);
	a->done = true;
	return NULL;
}

/* The lines of the answer; -1 in *rc for an error, whose text is in *err. */
static json_t *
ask(json_t *request, int *rc, struct err *err)
{
	struct asking a = { .request = request, .lines = json_array() };
	pthread_t thread;

	ck_assert_ptr_nonnull(request);
	ck_assert_int_eq(pthread_create(&thread, NULL, ask_in_thread, &a), 0);
	UNTIL(&f, a.done);
	pthread_join(thread, NULL);
	*rc = a.rc;
	*err = a.err;
	return a.lines;
}

static json_t *
answer(json_t *request, size_t lines)
{
	struct err err;
	int rc;
	json_t *v = ask(request, &rc, &err);

	ck_assert_msg(rc == 0, "%s", err.msg);
	ck_assert_uint_eq(json_array_size(v), lines);
	return v;
}

static const char *
text(json_t *lines, size_t n, const char *key)
{
	const char *s = json_string_value(json_object_get(json_array_get(lines, n), key));

	ck_assert_msg(s != NULL, "no %s", key);
	return s;
}

static json_int_t
number(json_t *lines, size_t n, const char *key)
{
	return json_integer_value(json_object_get(json_array_get(lines, n), key));
}

static const char *
id_of(struct id id)
{
	static char out[ID_TEXT_LEN + 1];

	id_text(id, out);
	return out;
}

/* One that its next hop refused for now, and one whose next hop is dead. */
static void
two_that_wait(struct id *refused, struct id *dead)
{
	sink_say(upstream, "RCPT", "one@", "450 4.2.0 greylisted", 1);
	*refused = fixture_mail(
	    &f, &(struct mail){ .from = "s@proven.test", .to = { "one@example.test" } });
	*dead = fixture_mail(&f, &(struct mail){ .from = "", .to = { "two@dead.test" } });
	fixture_run_ms(&f, 200);
	ck_assert_uint_eq(fixture_queued(&f), 2);
}

/* ---- looking --------------------------------------------------------------------------------- */

START_TEST(the_list_tells_who_waits_for_what)
{
	struct id refused, dead;
	json_t *v;

	two_that_wait(&refused, &dead);
	v = answer(json_pack("{s:s}", "op", "queue.list"), 2);
	ck_assert_str_eq(text(v, 0, "id"), id_of(refused));
	ck_assert_str_eq(text(v, 0, "from"), "s@proven.test");
	ck_assert_str_eq(json_string_value(json_array_get(
			     json_object_get(json_array_get(v, 0), "recipients"), 0)),
	    "one@example.test");
	ck_assert_str_eq(text(v, 0, "state"), "deferred");
	ck_assert_str_eq(text(v, 0, "why"), "450 4.2.0 greylisted");
	ck_assert_int_eq(number(v, 0, "attempts"), 1);
	ck_assert_int_ge(number(v, 0, "next_s"), 290); /* greylisted: not after an hour */
	ck_assert_int_le(number(v, 0, "next_s"), 300);
	ck_assert_int_eq(number(v, 0, "size"), 21);
	ck_assert_str_eq(text(v, 1, "id"), id_of(dead));
	ck_assert_str_eq(text(v, 1, "state"), "deferred");
	ck_assert_ptr_nonnull(strstr(text(v, 1, "why"), "refused"));
	ck_assert_int_eq(number(v, 1, "attempts"), 1);
	json_decref(v);
	json_decref(answer(json_pack("{s:s, s:s}", "op", "queue.list", "state", "active"), 0));
	json_decref(answer(json_pack("{s:s, s:s}", "op", "queue.list", "state", "deferred"), 2));
	json_decref(answer(json_pack("{s:s, s:s}", "op", "queue.list", "domain", "Dead.Test"), 1));
	json_decref(answer(json_pack("{s:s, s:s}", "op", "queue.list", "domain", "none.test"), 0));
}
END_TEST

START_TEST(a_long_list_streams)
{
	json_t *v;

	fixture_mails(&f, &(struct mail){ .from = "a@b.test", .to = { "x@dead.test" } }, 3000);
	UNTIL(&f, fixture_queued(&f) == 3000);
	v = answer(json_pack("{s:s}", "op", "queue.list"), 3000);
	json_decref(v);
}
END_TEST

START_TEST(a_message_is_shown_with_each_recipient)
{
	struct id refused, dead;
	json_t *v;

	two_that_wait(&refused, &dead);
	v = answer(json_pack("{s:s, s:s}", "op", "queue.show", "id", id_of(refused)), 2);
	ck_assert_str_eq(text(v, 0, "client"), "192.0.2.7");
	ck_assert_str_eq(text(v, 0, "helo"), "client.test");
	ck_assert_str_eq(text(v, 1, "to"), "one@example.test");
	ck_assert_str_eq(text(v, 1, "why"), "450 4.2.0 greylisted");
	ck_assert_ptr_nonnull(strstr(text(v, 1, "nexthop"), "127.0.0.1:"));
	json_decref(v);
}
END_TEST

START_TEST(a_body_comes_as_it_was_received)
{
	size_t len = 400001;
	char *bytes = malloc(len);
	struct id id;
	size_t base64 = 0;
	struct err err;
	json_t *v;
	int rc;

	memset(bytes, 'b', len);
	id = fixture_mail(
	    &f, &(struct mail){
		    .from = "a@b.test", .to = { "x@dead.test" }, .bytes = bytes, .len = len });
	UNTIL(&f, fixture_queued(&f) == 1);
	v = ask(json_pack("{s:s, s:s}", "op", "queue.body", "id", id_of(id)), &rc, &err);
	ck_assert_int_eq(rc, 0);
	for (size_t i = 0; i < json_array_size(v); i++)
		base64 += strlen(text(v, i, "base64"));
	ck_assert_uint_eq(base64, (len + 2) / 3 * 4);
	ck_assert_int_eq(strncmp(text(v, 0, "base64"), "YmJi", 4), 0);
	json_decref(v);
	free(bytes);
}
END_TEST

/* A pager may take its time, and a crash comes when it likes. */
START_TEST(what_was_sent_while_its_body_is_shown_is_sent_once)
{
	size_t len = 8u << 20;
	char *bytes = malloc(len), command[200];
	struct control_client *pager;
	struct err err;
	struct id id;
	json_t *request;

	memset(bytes, 'b', len);
	sink_slow(upstream, 300);
	id = fixture_mail(&f, &(struct mail){ .from = "a@b.test",
				  .to = { "one@example.test", "two@example.test" },
				  .bytes = bytes,
				  .len = len });
	UNTIL(&f, f.delivery->n_attempts == 1);
	pager = control_connect(control_path, 8000, &err);
	ck_assert_ptr_nonnull(pager);
	request = json_pack("{s:s, s:s}", "op", "queue.body", "id", id_of(id));
	ck_assert_int_eq(control_send(pager, request, &err), 0);
	UNTIL(&f, sink_count(upstream) == 1 && f.delivery->n_attempts == 0);
	ck_assert_ptr_nonnull(f.delivery->ops); /* it is still being shown */
	fixture_run_ms(&f, 50);
	snprintf(command, sizeof(command), "cp -a %s/spool %s/then", f.dir, f.dir);
	ck_assert_int_eq(system(command), 0); /* what kill -9 would leave */
	control_disconnect(pager);
	fixture_stop(&f, true);
	snprintf(command, sizeof(command), "cd %s && rm -r spool && mv then spool", f.dir);
	ck_assert_int_eq(system(command), 0);
	fixture_start(&f);
	UNTIL(&f, fixture_ready(&f));
	fixture_run_ms(&f, 500);
	ck_assert_uint_eq(sink_whole(upstream), 1);
	ck_assert_uint_eq(fixture_queued(&f), 0);
	free(bytes);
}
END_TEST

START_TEST(the_status_names_next_hops_that_are_down)
{
	struct id refused, dead;
	struct err err;
	bool found = false;
	json_t *v;
	int rc;

	two_that_wait(&refused, &dead);
	v = ask(json_pack("{s:s}", "op", "status"), &rc, &err);
	ck_assert_int_eq(rc, 0);
	ck_assert_str_eq(text(v, 0, "role"), "delivery");
	ck_assert_int_eq(number(v, 0, "messages"), 2);
	for (size_t i = 1; i < json_array_size(v); i++) {
		if (strcmp(text(v, i, "nexthop"), "127.0.0.1:1") != 0)
			continue;
		found = true;
		ck_assert_str_eq(text(v, i, "state"), "down");
		ck_assert_int_eq(number(v, i, "jobs"), 1);
	}
	ck_assert(found);
	json_decref(v);
}
END_TEST

/* ---- doing ----------------------------------------------------------------------------------- */

START_TEST(a_retry_sends_at_once)
{
	struct id refused, dead;

	two_that_wait(&refused, &dead);
	json_decref(answer(json_pack("{s:s, s:s}", "op", "queue.retry", "id", id_of(refused)), 1));
	UNTIL(&f, sink_count(upstream) == 1 && fixture_queued(&f) == 1);
}
END_TEST

START_TEST(a_retry_by_domain_takes_that_domain_alone)
{
	struct id refused, dead;
	json_t *v;

	two_that_wait(&refused, &dead);
	v = answer(json_pack("{s:s, s:s}", "op", "queue.retry", "domain", "dead.test"), 1);
	ck_assert_int_eq(number(v, 0, "retried"), 1);
	json_decref(v);
	fixture_run_ms(&f, 200);
	ck_assert_uint_eq(sink_whole(upstream), 0);
	v = answer(json_pack("{s:s, s:s}", "op", "queue.retry", "domain", "example.test"), 1);
	ck_assert_int_eq(number(v, 0, "retried"), 1);
	json_decref(v);
	UNTIL(&f, sink_count(upstream) == 1);
}
END_TEST

START_TEST(a_flush_retries_all)
{
	struct id refused, dead;
	json_t *v;

	two_that_wait(&refused, &dead);
	v = answer(json_pack("{s:s}", "op", "queue.flush"), 1);
	ck_assert_int_eq(number(v, 0, "retried"), 2);
	json_decref(v);
	UNTIL(&f, sink_count(upstream) == 1);
}
END_TEST

START_TEST(what_is_held_stays_held_when_it_cannot_be_read_for_a_moment)
{
	struct index_cursor c = { .log = 0 };
	struct index_msg *entry;
	struct err err;
	size_t parked = 0;

	fixture_mails(&f, &(struct mail){ .from = "a@b.test", .to = { "x@dead.test" } }, 100);
	UNTIL(&f, fixture_queued(&f) == 100);
	json_decref(answer(json_pack("{s:s, s:s}", "op", "queue.hold", "domain", "dead.test"), 1));
	while ((entry = index_cursor_next(journal_index(f.delivery->journal), &c)) != NULL) {
		if (!entry->parked)
			continue;
		parked++;
		entry->place++; /* there is no such record */
		ck_assert_ptr_null(tail_whole(f.delivery, entry, &err));
		entry->place--;
		ck_assert(entry->parked);
		ck_assert_uint_eq(((struct queue_parked *)entry->user)->slot.state, QUEUE_HELD);
	}
	ck_assert_uint_gt(parked, 0);
	json_decref(answer(json_pack("{s:s, s:s}", "op", "queue.list", "state", "held"), 100));
}
END_TEST

/* Spoils its record on the disk. */
static void
spoil(const struct index_msg *entry)
{
	char path[256], log[ID_TEXT_LEN + 1], name[SPOOLDIR_SEGMENT_NAME_BYTES], byte;
	off_t at = (off_t)entry->place * 8 + 60;
	int fd;

	id_text(entry->segment->log->id, log);
	spooldir_segment_name(entry->segment->number, name);
	snprintf(path, sizeof(path), "%s/spool/%s/%s", f.dir, log, name);
	fd = open(path, O_RDWR);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, &byte, 1, at), 1);
	byte ^= 0x20;
	ck_assert_int_eq(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

/* The id of a message that is parked, or of one that is not and whose bytes are not in memory. */
static struct id
one_that_is(bool parked)
{
	struct index_cursor c = { .log = 0 };
	struct index_msg *entry;

	while ((entry = index_cursor_next(journal_index(f.delivery->journal), &c)) != NULL)
		if (entry->parked == parked &&
		    (parked || ((struct queue_msg *)entry->user)->content == NULL))
			break;
	ck_assert_ptr_nonnull(entry);
	spoil(entry);
	return entry->id;
}

static const char *const refused_ops[] = { "queue.retry", "queue.bounce", "queue.reroute",
	"queue.body" };

START_TEST(what_is_damaged_is_shown_and_can_only_be_dropped)
{
	struct id refused, dead, ids[2];
	struct err err;
	json_t *v;
	int rc;

	two_that_wait(&refused, &dead);
	fixture_mails(&f, &(struct mail){ .from = "a@b.test", .to = { "x@dead.test" } }, 20);
	UNTIL(&f, fixture_queued(&f) == 22 && fixture_whole(&f) < 22);
	ids[0] = one_that_is(true);
	ids[1] = one_that_is(false);
	json_decref(answer(json_pack("{s:s}", "op", "queue.list"), 22));
	v = answer(json_pack("{s:s, s:s}", "op", "queue.list", "reason", "damaged"), 2);
	ck_assert(json_is_true(json_object_get(json_array_get(v, 0), "damaged")));
	ck_assert_ptr_nonnull(strstr(text(v, 1, "why"), "00000001.seg"));
	json_decref(v);
	for (size_t i = 0; i < 2; i++) {
		v = answer(json_pack("{s:s, s:s}", "op", "queue.show", "id", id_of(ids[i])), 1);
		ck_assert_str_eq(text(v, 0, "id"), id_of(ids[i]));
		ck_assert_ptr_nonnull(strstr(text(v, 0, "why"), "queue drop"));
		json_decref(v);
		for (size_t k = 0; k < ARRAY_LEN(refused_ops); k++) {
			json_decref(ask(json_pack("{s:s, s:s, s:s}", "op", refused_ops[k], "id",
					    id_of(ids[i]), "to", "127.0.0.1:9"),
			    &rc, &err));
			ck_assert_int_eq(rc, -1);
			ck_assert_msg(strstr(err.msg, "damaged: ") != NULL &&
					  strstr(err.msg, "00000001.seg") != NULL,
			    "%s: %s", refused_ops[k], err.msg);
		}
	}
	v = answer(
	    json_pack("{s:s, s:s, s:s}", "op", "queue.bounce", "reason", "damaged", "to", ""), 1);
	ck_assert_int_eq(number(v, 0, "bounced"), 0);
	json_decref(v);
	v = answer(json_pack("{s:s, s:s}", "op", "queue.count", "reason", "damaged"), 1);
	ck_assert_int_eq(number(v, 0, "matched"), 2);
	json_decref(v);
	v = answer(json_pack("{s:s, s:s}", "op", "queue.drop", "id", id_of(ids[0])), 1);
	ck_assert_int_eq(number(v, 0, "dropped"), 1);
	json_decref(v);
	ck_assert_uint_eq(fixture_queued(&f), 21);
	v = answer(json_pack("{s:s, s:s}", "op", "queue.drop", "reason", "damaged"), 1);
	ck_assert_int_eq(number(v, 0, "dropped"), 1);
	json_decref(v);
	ck_assert_uint_eq(fixture_queued(&f), 20);
	v = answer(json_pack("{s:s, s:i}", "op", "queue.drop", "size", 1), 1);
	ck_assert_int_eq(number(v, 0, "dropped"), 20);
	json_decref(v);
	ck_assert_uint_eq(f.delivery->queue.bytes, 0);
	fixture_stop(&f, true);
	fixture_start(&f);
	UNTIL(&f, fixture_ready(&f));
	ck_assert_uint_eq(fixture_queued(&f), 0);
}
END_TEST

START_TEST(what_is_dropped_stays_dropped)
{
	struct id refused, dead;

	two_that_wait(&refused, &dead);
	json_decref(answer(json_pack("{s:s, s:s}", "op", "queue.drop", "id", id_of(refused)), 1));
	ck_assert_uint_eq(fixture_queued(&f), 1);
	fixture_stop(&f, true);
	fixture_start(&f);
	UNTIL(&f, fixture_ready(&f));
	ck_assert_uint_eq(fixture_queued(&f), 1);
	ck_assert_uint_eq(sink_whole(upstream), 0);
}
END_TEST

START_TEST(a_drop_while_it_is_being_sent_ends_with_that_attempt)
{
	struct id id;

	sink_slow(upstream, 500);
	sink_say(upstream, ".", NULL, "451 4.3.0 later", 1);
	id = fixture_mail(&f, &(struct mail){ .from = "a@b.test", .to = { "one@example.test" } });
	fixture_run_ms(&f, 150);
	json_decref(answer(json_pack("{s:s, s:s}", "op", "queue.drop", "id", id_of(id)), 1));
	UNTIL(&f, fixture_queued(&f) == 0);
	ck_assert_uint_eq(sink_count(upstream), 0);
}
END_TEST

/* A request with one more member, and the count in its answer. */
static json_int_t
count(const char *op, const char *name, json_t *value, const char *counted)
{
	json_t *request = json_pack("{s:s, s:o}", "op", op, name, value);
	json_t *v = answer(request, 1);
	json_int_t n = number(v, 0, counted);

	json_decref(v);
	return n;
}

static void
restart(void)
{
	struct err err;

	fixture_stop(&f, true);
	fixture_start(&f);
	ck_assert_int_eq(delivery_control(f.delivery, control_fd, (uid_t)-1, &err), 0);
	UNTIL(&f, fixture_ready(&f));
}

static const struct {
	const char *name, *text; /* text NULL: number */
	json_int_t number, matched;
} predicates[] = {
	{ "domain", "dead.test", 0, 1 },
	{ "domain", "*.test", 0, 2 },
	{ "domain", "*.dead.test", 0, 0 },
	{ "sender", "S@proven.test", 0, 1 },
	{ "sender", "proven.test", 0, 1 },
	{ "sender", "@proven.test", 0, 1 },
	{ "sender", "<>", 0, 1 },
	{ "sender", "t@proven.test", 0, 0 },
	{ "state", "deferred", 0, 2 },
	{ "state", "held", 0, 0 },
	{ "reason", "450 4.2.0 GREY", 0, 1 },
	{ "reason", "refused", 0, 1 },
	{ "age_s", NULL, 3600, 0 },
	{ "age_s", NULL, 0, 2 },
	{ "size", NULL, 21, 2 },
	{ "size", NULL, 22, 0 },
};

START_TEST(a_predicate_fits_what_it_says)
{
	struct id refused, dead;

	two_that_wait(&refused, &dead);
	ck_assert_int_eq(count("queue.count", predicates[_i].name,
			     predicates[_i].text != NULL ? json_string(predicates[_i].text)
							 : json_integer(predicates[_i].number),
			     "matched"),
	    predicates[_i].matched);
}
END_TEST

START_TEST(all_predicates_must_fit)
{
	struct id refused, dead;
	json_t *v;

	two_that_wait(&refused, &dead);
	v = answer(json_pack("{s:s, s:s, s:s}", "op", "queue.count", "domain", "dead.test",
		       "sender", "proven.test"),
	    1);
	ck_assert_int_eq(number(v, 0, "matched"), 0);
	json_decref(v);
}
END_TEST

START_TEST(what_is_held_stays_until_it_is_let_go)
{
	struct id refused, dead;
	json_t *v;

	two_that_wait(&refused, &dead);
	ck_assert_int_eq(count("queue.hold", "domain", json_string("example.test"), "held"), 1);
	ck_assert_int_eq(count("queue.hold", "domain", json_string("example.test"), "held"), 0);
	restart();
	json_decref(answer(json_pack("{s:s}", "op", "queue.flush"), 1));
	fixture_run_ms(&f, 200);
	ck_assert_uint_eq(sink_whole(upstream), 0);
	v = answer(json_pack("{s:s, s:s}", "op", "queue.list", "state", "held"), 1);
	ck_assert_str_eq(text(v, 0, "id"), id_of(refused));
	ck_assert_ptr_nonnull(strstr(text(v, 0, "why"), "held by the admin"));
	ck_assert_ptr_nonnull(strstr(text(v, 0, "why"), "450 4.2.0"));
	json_decref(v);
	json_decref(answer(json_pack("{s:s, s:s}", "op", "queue.unhold", "id", id_of(refused)), 1));
	UNTIL(&f, sink_count(upstream) == 1 && fixture_queued(&f) == 1);
}
END_TEST

START_TEST(what_is_held_while_it_is_sent_is_not_tried_again)
{
	struct id id;

	sink_slow(upstream, 300);
	sink_say(upstream, ".", NULL, "451 4.3.0 later", 1);
	id = fixture_mail(&f, &(struct mail){ .from = "a@b.test", .to = { "one@example.test" } });
	fixture_run_ms(&f, 100);
	json_decref(answer(json_pack("{s:s, s:s}", "op", "queue.hold", "id", id_of(id)), 1));
	fixture_run_ms(&f, 500);
	json_decref(answer(json_pack("{s:s, s:s}", "op", "queue.list", "state", "held"), 1));
	json_decref(answer(json_pack("{s:s}", "op", "queue.flush"), 1));
	fixture_run_ms(&f, 200);
	ck_assert_uint_eq(sink_count(upstream), 0);
	json_decref(answer(json_pack("{s:s, s:s}", "op", "queue.drop", "id", id_of(id)), 1));
	ck_assert_uint_eq(fixture_queued(&f), 0);
}
END_TEST

START_TEST(a_bounce_by_hand_tells_the_sender)
{
	const struct sink_message *m;

	fixture_mail(&f, &(struct mail){ .from = "s@example.test",
			     .to = { "two@dead.test", "three@dead.test" },
			     .flags = ENVELOPE_AUTHENTIC });
	UNTIL(&f, fixture_queued(&f) == 1);
	fixture_run_ms(&f, 100);
	ck_assert_int_eq(count("queue.bounce", "domain", json_string("dead.test"), "bounced"), 1);
	UNTIL(&f, fixture_queued(&f) == 0 && sink_count(upstream) == 1);
	m = sink_message(upstream, 0);
	ck_assert_str_eq(m->forward_paths[0], "s@example.test");
	ck_assert_ptr_nonnull(strstr(m->bytes, "returned to its sender"));
	ck_assert_ptr_nonnull(strstr(m->bytes, "three@dead.test"));
}
END_TEST

START_TEST(what_is_rerouted_goes_there)
{
	char to[64];
	json_t *v;

	fixture_mail(&f, &(struct mail){ .from = "s@example.test",
			     .to = { "two@dead.test", "three@dead.test" } });
	UNTIL(&f, fixture_queued(&f) == 1);
	snprintf(to, sizeof(to), "127.0.0.1:%u", sink_port(upstream));
	v = answer(
	    json_pack("{s:s, s:s, s:s}", "op", "queue.reroute", "domain", "dead.test", "to", to),
	    1);
	ck_assert_int_eq(number(v, 0, "rerouted"), 1);
	json_decref(v);
	UNTIL(&f, sink_count(upstream) == 1 && fixture_queued(&f) == 0);
	ck_assert_uint_eq(sink_message(upstream, 0)->n_forward_paths, 2);
}
END_TEST

START_TEST(a_reroute_outlives_a_restart_and_can_be_undone)
{
	struct id refused, dead;
	json_t *v;

	two_that_wait(&refused, &dead);
	json_decref(answer(json_pack("{s:s, s:s, s:s}", "op", "queue.reroute", "id", id_of(refused),
			       "to", "127.0.0.1:2"),
	    1));
	UNTIL(&f, fixture_queued(&f) == 2);
	restart();
	v = answer(json_pack("{s:s, s:s}", "op", "queue.show", "id", id_of(refused)), 2);
	ck_assert_str_eq(text(v, 0, "via"), "127.0.0.1:2");
	ck_assert_str_eq(text(v, 1, "nexthop"), "127.0.0.1:2");
	json_decref(v);
	json_decref(answer(json_pack("{s:s, s:s, s:s}", "op", "queue.reroute", "id", id_of(refused),
			       "to", "routes"),
	    1));
	UNTIL(&f, sink_count(upstream) == 1);
}
END_TEST

START_TEST(top_names_the_deepest_first)
{
	json_t *v;

	fixture_mails(
	    &f, &(struct mail){ .from = "a@b.test", .to = { "x@dead.test" }, .age_ms = 90000 }, 3);
	fixture_mail(&f, &(struct mail){ .from = "a@b.test", .to = { "x@example.test" } });
	UNTIL(&f, sink_count(upstream) == 1 && fixture_queued(&f) == 3);
	v = answer(json_pack("{s:s}", "op", "top"), 3);
	ck_assert_str_eq(text(v, 0, "role"), "delivery");
	ck_assert_str_eq(text(v, 1, "nexthop"), "127.0.0.1:1");
	ck_assert_int_eq(number(v, 1, "jobs"), 3);
	ck_assert_int_ge(number(v, 1, "oldest_s"), 90);
	ck_assert_ptr_nonnull(strstr(text(v, 1, "error"), "refused"));
	ck_assert_int_eq(number(v, 2, "rate"), 1);
	ck_assert_int_eq(number(v, 2, "sent"), 1);
	json_decref(v);
	v = answer(json_pack("{s:s, s:i}", "op", "top", "limit", 1), 3);
	ck_assert_int_eq(number(v, 2, "more"), 1);
	json_decref(v);
}
END_TEST

START_TEST(the_last_dialogue_is_shown)
{
	struct id refused, dead;
	json_t *v, *lines;
	bool said = false, told = false;

	two_that_wait(&refused, &dead);
	v = answer(json_pack("{s:s, s:s}", "op", "queue.show", "id", id_of(refused)), 2);
	lines = json_object_get(json_array_get(v, 1), "dialogue");
	for (size_t i = 0; i < json_array_size(lines); i++) {
		const char *line = json_string_value(json_array_get(lines, i));

		told = told || strcmp(line, "C: RCPT TO:<one@example.test>") == 0;
		said = said || strcmp(line, "S: 450 4.2.0 greylisted") == 0;
	}
	ck_assert(told && said);
	json_decref(v);
}
END_TEST

static const struct {
	const char *request, *error;
} wrong[] = {
	{ "{\"op\":\"queue.show\",\"id\":\"nonsense\"}", "no message nonsense" },
	{ "{\"op\":\"queue.drop\",\"id\":\"aaaaaaaaaaaaaaaaaaaaaaaaaa\"}", "no message" },
	{ "{\"op\":\"queue.drop\"}", "id" },
	{ "{\"op\":\"queue.retry\"}", "needs" },
	{ "{\"op\":\"queue.list\",\"id\":\"x\"}", "id" },
	{ "{\"op\":\"queue.list\",\"state\":\"lost\"}", "state" },
	{ "{\"op\":\"queue.list\",\"age_s\":-1}", "age_s" },
	{ "{\"op\":\"queue.list\",\"size\":\"1K\"}", "size" },
	{ "{\"op\":\"queue.hold\"}", "predicate" },
	{ "{\"op\":\"queue.bounce\",\"domain\":\"\"}", "domain" },
	{ "{\"op\":\"queue.reroute\",\"domain\":\"x\"}", "\"to\"" },
	{ "{\"op\":\"queue.reroute\",\"domain\":\"x\",\"to\":\"a b\"}", "a b" },
	{ "{\"op\":\"queue.reroute\",\"domain\":\"x\",\"to\":\"mx\"}", "mx" },
	{ "{\"op\":\"queue.burn\"}", "queue.burn" },
	{ "{}", "knows no" },
};

START_TEST(a_wrong_request_gets_a_clear_error)
{
	struct err err;
	int rc;
	json_t *v = ask(json_loads(wrong[_i].request, 0, NULL), &rc, &err);

	ck_assert_int_eq(rc, -1);
	ck_assert_int_eq(err.code, ERR_DENIED);
	ck_assert_msg(strstr(err.msg, wrong[_i].error) != NULL, "%s", err.msg);
	json_decref(v);
}
END_TEST

UNIT_SUITE(delivery_control)
{
	tcase_add_checked_fixture(tc, set_up, tear_down);
	UNIT_TEST(the_list_tells_who_waits_for_what);
	UNIT_TEST(a_long_list_streams);
	UNIT_TEST(a_message_is_shown_with_each_recipient);
	UNIT_TEST(a_body_comes_as_it_was_received);
	UNIT_TEST(what_was_sent_while_its_body_is_shown_is_sent_once);
	UNIT_TEST(the_status_names_next_hops_that_are_down);
	UNIT_TEST(a_retry_sends_at_once);
	UNIT_TEST(a_retry_by_domain_takes_that_domain_alone);
	UNIT_TEST(a_flush_retries_all);
	UNIT_TEST(what_is_held_stays_held_when_it_cannot_be_read_for_a_moment);
	UNIT_TEST(what_is_damaged_is_shown_and_can_only_be_dropped);
	UNIT_TEST(what_is_dropped_stays_dropped);
	UNIT_TEST(a_drop_while_it_is_being_sent_ends_with_that_attempt);
	UNIT_ROWS(a_predicate_fits_what_it_says, predicates);
	UNIT_TEST(all_predicates_must_fit);
	UNIT_TEST(what_is_held_stays_until_it_is_let_go);
	UNIT_TEST(what_is_held_while_it_is_sent_is_not_tried_again);
	UNIT_TEST(a_bounce_by_hand_tells_the_sender);
	UNIT_TEST(what_is_rerouted_goes_there);
	UNIT_TEST(a_reroute_outlives_a_restart_and_can_be_undone);
	UNIT_TEST(top_names_the_deepest_first);
	UNIT_TEST(the_last_dialogue_is_shown);
	UNIT_ROWS(a_wrong_request_gets_a_clear_error, wrong);
}

/* tests/unit/intake/live_test.c - the intake role, from the socket to the spool. */
#include "unit/intake/rig.h"

#include "relayd/auth/password.h"
#include "unit/certs.h"

#include <relayd/filter.h>

#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define OPEN                                                                                       \
	"domains = { example.test }\nroute example.test { to = { \"127.0.0.1:9\" }  recipients = " \
	"any }\n"

/* Some line of the log has all of these. */
static void
logged(const char *event, const char *part, const char *other)
{
	for (char *line = rig_log; *line != '\0';) {
		char *end = strchrnul(line, '\n');
		char saved = *end;
		bool hit;

		*end = '\0';
		hit = strstr(line, event) != NULL && strstr(line, part) != NULL &&
		      strstr(line, other) != NULL;
		*end = saved;
		if (hit)
			return;
		line = saved == '\0' ? end : end + 1;
	}
	ck_abort_msg("no %s with %s and %s in:\n%s", event, part, other, rig_log);
}

/* ---- one message --------------------------------------------------------------------------- */

static void
greet(struct chat *c)
{
	chat_expect(c, "220 mx.example.test ESMTP");
	chat_ask(c, "EHLO client.test", "250 ENHANCEDSTATUSCODES");
}

static void
begin(struct chat *c)
{
	chat_ask(c, "MAIL FROM:<bob@sender.test>", "250 2.1.0");
	chat_ask(c, "RCPT TO:<ann@example.test>", "250 2.1.5");
	chat_ask(c, "DATA", "354 ");
}

static void
send_one(struct rig *rig)
{
	struct chat *c = chat_open(rig, "mx");

	greet(c);
	begin(c);
	chat_ask(c, "Subject: x\r\n\r\n..dot\r\n\xc3\xa9\r\n.", "250 2.0.0 Ok: queued as ");
	chat_ask(c, "QUIT", "221 2.0.0");
	chat_expect_end(c);
	chat_close(c);
}

START_TEST(what_is_answered_250_is_in_the_spool)
{
	struct rig_message *m = &rig_kept[0];

	rig_run(&(struct rig_setup){ .config = OPEN, .client = send_one });
	ck_assert_uint_eq(rig_n_kept, 1);
	ck_assert(slice_eq(m->body, SLICE("Subject: x\r\n\r\n.dot\r\n\xc3\xa9\r\n")));
	ck_assert_uint_eq(m->env.flags, ENVELOPE_DOTS | ENVELOPE_8BIT);
	ck_assert(slice_eq(m->env.reverse_path, SLICE("bob@sender.test")));
	ck_assert(slice_eq(m->env.helo, SLICE("client.test")));
	ck_assert(slice_eq(m->env.client_ip, SLICE("127.0.0.1")));
	ck_assert(slice_eq(m->env.listener, SLICE("mx")));
	ck_assert_uint_eq(m->env.n_copies, 1);
	ck_assert_int_eq(m->env.copies[0].route, ENVELOPE_FORWARD);
	ck_assert_uint_eq(m->env.copies[0].n_rcpts, 1);
	ck_assert(slice_eq(m->env.copies[0].rcpts[0].forward_path, SLICE("ann@example.test")));
	ck_assert_ptr_nonnull(strstr(m->copy, "Received: from client.test ([127.0.0.1])\r\n\tby "
					      "mx.example.test with ESMTP id "));
	ck_assert_ptr_nonnull(strstr(m->copy, "\r\n\tfor <ann@example.test>;\r\n"));
	ck_assert_ptr_nonnull(strstr(m->copy, "\r\nSubject: x\r\n\r\n.dot\r\n\xc3\xa9\r\n"));
	logged("event=connect ", "ip=127.0.0.1", "listener=mx");
	logged("event=message.accepted ",
	    "from=\"bob@sender.test\" to=\"ann@example.test\" rcpts=1", "size=24 ");
	logged("event=disconnect ", "messages=1", "");
}
END_TEST

static void
pipeline_many(struct rig *rig)
{
	struct chat *c = chat_open(rig, "mx");

	greet(c);
	for (int i = 0; i < 20; i++)
		chat_send(c,
		    "MAIL FROM:<>\r\nRCPT TO:<ann@example.test>\r\nRCPT TO:<ann@example.test>\r\n"
		    "RCPT TO:<eve@example.com>\r\nDATA\r\n");
	/* All of it was sent before one reply was read; the data are empty messages. */
	for (int i = 0; i < 20; i++)
		chat_send(c, i == 0 ? ".\r\n" : "");
	chat_expect(c, "250 2.1.0");
	chat_expect(c, "250 2.1.5");
	chat_expect(c, "250 2.1.5 Ok, named twice");
	chat_expect(c, "550 5.7.1 <eve@example.com>: ");
	chat_expect(c, "354 ");
	chat_expect(c, "250 2.0.0");
	chat_close(c);
}

START_TEST(pipelined_commands_behind_data_are_data)
{
	rig_run(&(struct rig_setup){ .config = OPEN, .client = pipeline_many });
	ck_assert_uint_eq(rig_n_kept, 1);
	ck_assert_uint_eq(rig_kept[0].env.copies[0].n_rcpts, 1);
	ck_assert_uint_eq(
	    rig_kept[0].body.len, 19 * strlen("MAIL FROM:<>\r\nRCPT TO:<ann@example.test>\r\n"
					      "RCPT TO:<ann@example.test>\r\n"
					      "RCPT TO:<eve@example.com>\r\nDATA\r\n"));
}
END_TEST

static void
pipeline_behind(struct rig *rig)
{
	struct chat *c = chat_open(rig, "mx");

	greet(c);
	begin(c);
	chat_send(c, "x\r\n.\r\nRSET\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.test>\r\nDATA\r\n"
		     "y\r\n.\r\nQUIT\r\n");
	chat_expect(c, "250 2.0.0 Ok: queued as ");
	chat_expect(c, "250 2.0.0 Ok\r\n");
	chat_expect(c, "250 2.1.0");
	chat_expect(c, "250 2.1.5");
	chat_expect(c, "354 ");
	chat_expect(c, "250 2.0.0 Ok: queued as ");
	chat_expect(c, "221 ");
	chat_expect_end(c);
	chat_close(c);
}

START_TEST(what_waits_behind_a_commit_goes_on)
{
	rig_run(&(struct rig_setup){ .config = OPEN, .client = pipeline_behind });
	ck_assert_uint_eq(rig_n_kept, 2);
}
END_TEST

static void
say_much(struct rig *rig)
{
	struct chat *c = chat_open(rig, "mx");
	static char bytes[6 * 50000 + 1];

	for (size_t i = 0; i < 50000; i++)
		memcpy(bytes + 6 * i, "HELP\r\n", 6);
	greet(c);
	chat_send(c, bytes); /* 4 MB of replies, which nobody reads yet */
	for (size_t i = 0; i < 50000; i++)
		chat_expect(c, "214 ");
	chat_ask(c, "QUIT", "221");
	chat_close(c);
}

START_TEST(replies_that_nobody_reads_hold_the_commands_back)
{
	rig_run(&(struct rig_setup){ .config = OPEN, .client = say_much });
}
END_TEST

static void
half_close(struct rig *rig)
{
	struct chat *c = chat_open(rig, "mx");

	chat_send(c, "HELO c\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.test>\r\nDATA\r\nx\r\n.\r\n");
	ck_assert_int_eq(shutdown(c->fd, SHUT_WR), 0);
	chat_expect(c, "220 ");
	chat_expect(c, "250 ");
	chat_expect(c, "250 ");
	chat_expect(c, "250 ");
	chat_expect(c, "354 ");
	chat_expect(c, "250 2.0.0 Ok");
	chat_expect_end(c);
	chat_close(c);
}

START_TEST(a_client_that_only_sends_gets_its_answers)
{
	rig_run(&(struct rig_setup){ .config = OPEN, .client = half_close });
	ck_assert_uint_eq(rig_n_kept, 1);
}
END_TEST

static void
vanish(struct rig *rig)
{
	struct chat *c = chat_open(rig, "mx");

	greet(c);
	begin(c);
	chat_send(c, "half a mess");
	chat_close(c);
	c = chat_open(rig, "mx"); /* another one is served meanwhile */
	greet(c);
	chat_close(c);
}

START_TEST(half_a_message_is_no_message)
{
	rig_run(&(struct rig_setup){ .config = OPEN, .client = vanish });
	ck_assert_uint_eq(rig_n_kept, 0);
}
END_TEST

/* ---- refusals ------------------------------------------------------------------------------- */

static void
be_refused(struct rig *rig)
{
	struct chat *c = chat_open(rig, "mx");

	greet(c);
	chat_ask(c, "MAIL FROM:<b@sender.test> SIZE=2000", "552 5.3.4");
	chat_ask(c, "MAIL FROM:<b@sender.test>", "250");
	chat_ask(c, "RCPT TO:<eve@example.com>", "550 5.7.1 <eve@example.com>: we are not");
	ck_assert_ptr_nonnull(strstr(c->line, " [id "));
	chat_ask(c, "RCPT TO:<nobody@example.test>",
	    "550 5.1.1 <nobody@example.test>: there is no such");
	chat_ask(c, "RCPT TO:<eve%example.com@example.test>", "550 5.1.1");
	chat_ask(c, "RCPT TO:<ANN@Example.Test>", "250");
	chat_ask(c, "RCPT TO:<postmaster>", "250");
	chat_ask(c, "RCPT TO:<bob@example.test>", "452 4.5.3");
	chat_ask(c, "DATA", "354");
	chat_ask(c, "a\nb\r\n.", "550 5.6.0 Message refused: a line ended with LF alone");
	begin(c);
	chat_ask(c, "a\r\nb\rc\r\n.", "550 5.6.0");
	begin(c);
	for (int i = 0; i < 100; i++)
		chat_send(c, "0123456789\r\n");
	chat_ask(c, ".", "552 5.3.4");
	begin(c);
	for (int i = 0; i < 51; i++)
		chat_send(c, "Received: x\r\n");
	chat_ask(c, "\r\n.", "554 5.4.6 Too many Received fields");
	begin(c);
	for (int i = 0; i < 50; i++)
		chat_send(c, "Received: x\r\n");
	chat_ask(c, "\r\n.", "250 2.0.0");
	chat_ask(c, "QUIT", "221");
	chat_close(c);
}

START_TEST(every_refusal_names_its_reason)
{
	rig_file("recipients", "ann@example.test\nbob@example.test\n");
	rig_run(&(struct rig_setup){ .client = be_refused,
	    .config = "domains = { example.test }\nlimits { message-size = 1K  recipients = 2 }\n"
		      "route example.test { to = { \"127.0.0.1:9\" }  recipients = "
		      "@DIR@/recipients }\n" });
	ck_assert_uint_eq(rig_n_kept, 1);
	ck_assert_int_eq(counter_get(COUNTER_RCPT_REFUSED), 3);
	logged("event=limit ", "what=\"message size\"", "");
	logged("event=limit ", "what=recipients", "");
	logged("event=message.rejected ", "rcpt=\"eve@example.com\"", "code=550 why=relay-denied");
	logged("event=message.rejected ", "rcpt=\"nobody@example.test\"", "why=unknown-recipient");
	logged("event=message.rejected ", "why=bare-lf", "code=550");
	logged("event=message.rejected ", "why=message-size", "code=552");
	logged("event=message.rejected ", "why=loop", "code=554");
	ck_assert_int_eq(counter_get(COUNTER_REJECTED), 4);
	ck_assert_int_eq(counter_get(COUNTER_ACCEPTED), 1);
}
END_TEST

static void
go_anywhere(struct rig *rig)
{
	struct chat *c = chat_open(rig, "mx");

	greet(c);
	chat_ask(c, "MAIL FROM:<ann@example.test>", "250");
	chat_ask(c, "RCPT TO:<eve@example.com>", "250");
	chat_ask(c, "RCPT TO:<eve@[192.0.2.1]>", "250");
	chat_ask(c, "DATA", "354");
	chat_ask(c, ".", "250");
	chat_close(c);
}

START_TEST(networks_may_relay)
{
	rig_run(&(struct rig_setup){ .client = go_anywhere,
	    .config =
		OPEN "networks = { 127.0.0.0/8 }\nroute \"*\" { to = { \"127.0.0.1:9\" } }\n" });
	ck_assert_uint_eq(rig_n_kept, 1);
	ck_assert_uint_eq(rig_kept[0].env.flags & ENVELOPE_OUTBOUND, ENVELOPE_OUTBOUND);
	ck_assert_ptr_null(strstr(rig_kept[0].copy, "\tfor <"));
	ck_assert_ptr_null(strstr(rig_kept[0].copy, "X-Relayd"));
}
END_TEST

static void
ask_the_dead(struct rig *rig)
{
	struct chat *c = chat_open(rig, "mx");

	greet(c);
	chat_ask(c, "MAIL FROM:<>", "250");
	chat_ask(c, "RCPT TO:<ann@example.test>", "450 4.4.1 <ann@example.test>: its mail server");
	chat_ask(c, "RCPT TO:<postmaster>", "250");
	chat_close(c);
}

START_TEST(an_upstream_that_cannot_be_asked_is_a_450)
{
	rig_run(&(struct rig_setup){ .client = ask_the_dead,
	    .config =
		"domains = { example.test }\nroute example.test { to = { \"127.0.0.1:9\" } }\n" });
}
END_TEST

/* ---- limits of connections, reload, drain ---------------------------------------------------- */

static void
crowd(struct rig *rig)
{
	struct chat *a = chat_open(rig, "mx"), *b = chat_open(rig, "mx"), *c;

	greet(a);
	greet(b);
	c = chat_open(rig, "mx");
	chat_expect(c, "421 4.7.0 Too many connections");
	chat_expect_end(c);
	chat_close(c);
	chat_ask(a, "QUIT", "221");
	chat_expect_end(a);
	chat_close(a);
	for (int tries = 0; tries < 1000; tries++) { /* until the server has noticed, too */
		c = chat_open(rig, "mx");
		chat_expect(c, "");
		if (c->line[0] == '2')
			break;
		chat_close(c);
	}
	ck_assert_int_eq(c->line[0], '2');
	chat_close(c);
	chat_close(b);
}

START_TEST(one_address_has_so_many_connections)
{
	rig_run(&(struct rig_setup){
	    .client = crowd, .config = OPEN "limits { connections-per-ip = 2 }\n" });
	ck_assert_int_gt(counter_get(COUNTER_SESSIONS_REFUSED), 0);
	logged("event=limit ", "what=connections-per-ip", "ip=127.0.0.1");
	ck_assert_int_eq(counter_get(COUNTER_SESSIONS_OPEN), 0);
}
END_TEST

static void
change(struct rig *rig)
{
	struct chat *c = chat_open(rig, "mx");

	greet(c);
	chat_ask(c, "MAIL FROM:<>", "250");
	rig_reload(rig, "domains = { other.test }\nroute other.test { to = { \"127.0.0.1:9\" }  "
			"recipients = any }\n");
	chat_ask(c, "RCPT TO:<ann@example.test>", "250"); /* ends as it began */
	chat_ask(c, "RCPT TO:<ann@other.test>", "550 5.7.1");
	chat_ask(c, "DATA", "354");
	chat_ask(c, ".", "250");
	chat_ask(c, "MAIL FROM:<>", "250");
	chat_ask(c, "RCPT TO:<ann@example.test>", "550 5.7.1");
	chat_ask(c, "RCPT TO:<ann@other.test>", "250");
	chat_close(c);
}

START_TEST(a_reload_holds_from_the_next_message_on)
{
	rig_run(&(struct rig_setup){ .client = change, .config = OPEN });
	ck_assert_uint_eq(rig_n_kept, 1);
}
END_TEST

static void
shake_hands(struct chat *c)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *ssl = SSL_new(ctx);

	ck_assert_int_eq(SSL_set_fd(ssl, c->fd), 1);
	ck_assert_int_eq(SSL_connect(ssl), 1);
	SSL_free(ssl);
	SSL_CTX_free(ctx);
}

static void
certify(struct rig *rig)
{
	struct test_cert cert = test_cert_new("EC", "mx.example.test");
	struct chat *c = chat_open(rig, "mx");

	rig_file("cert.pem", cert.certificate);
	rig_file("key.pem", cert.key);
	free(cert.certificate);
	free(cert.key);
	greet(c);
	chat_ask(c, "STARTTLS", "502");
	rig_reload(rig, OPEN "tls { certificate = { @DIR@/cert.pem } key = { @DIR@/key.pem } }\n");
	chat_ask(c, "MAIL FROM:<>", "250"); /* from here on the new config is in force */
	chat_ask(c, "RSET", "250");
	chat_ask(c, "STARTTLS", "220");
	shake_hands(c);
	chat_close(c);
}

START_TEST(a_certificate_that_a_reload_brings_is_used)
{
	rig_run(&(struct rig_setup){ .client = certify, .config = OPEN });
}
END_TEST

static void
leave(struct rig *rig)
{
	struct chat *idle = chat_open(rig, "mx"), *busy = chat_open(rig, "mx");

	greet(idle);
	greet(busy);
	begin(busy);
	rig_drain(rig);
	chat_expect(idle, "421 4.3.2");
	chat_expect_end(idle);
	chat_ask(busy, "x\r\n.", "250 2.0.0");
	chat_expect(busy, "421 4.3.2");
	chat_expect_end(busy);
	chat_close(idle);
	chat_close(busy);
}

START_TEST(a_drain_lets_a_message_end)
{
	rig_run(&(struct rig_setup){ .client = leave, .config = OPEN });
	ck_assert_uint_eq(rig_n_kept, 1);
}
END_TEST

/* ---- filters --------------------------------------------------------------------------------- */

/* Says of a message what its Subject says. */
static enum filter_status
judge_run(struct filter_tx *tx, const void *settings)
{
	static const struct {
		struct slice word;
		enum filter_verdict verdict;
	} words[] = { { SLICE("reject"), FILTER_REJECT }, { SLICE("defer"), FILTER_DEFER },
		{ SLICE("discard"), FILTER_DISCARD }, { SLICE("quarantine"), FILTER_QUARANTINE } };
	enum filter_stage stage = tx->host->stage(tx);
	struct slice text = stage == FILTER_MESSAGE ? tx->host->message(tx)
			    : stage == FILTER_RCPT  ? filter_envelope(tx)->forward_paths[0]
			    : stage == FILTER_MAIL  ? filter_envelope(tx)->reverse_path
						    : filter_session(tx)->helo;

	(void)settings;
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (slice_find(text, words[i].word) < text.len)
			filter_verdict(tx, words[i].verdict, SLICE("the judge has spoken"));
	return FILTER_DONE;
}

static int
judge_configure(const struct filter_config *cfg, void **settings)
{
	(void)cfg;
	*settings = NULL;
	return 0;
}

static const struct filter_option no_options[] = { { NULL, FILTER_OPTION_STRING } };
static const struct filter judge = {
	.abi = RELAYD_FILTER_ABI,
	.size = sizeof(struct filter),
	.name = "judge",
	.stages = FILTER_AT(FILTER_HELO) | FILTER_AT(FILTER_MAIL) | FILTER_AT(FILTER_RCPT) |
		  FILTER_AT(FILTER_MESSAGE),
	.options = no_options,
	.configure = judge_configure,
	.run = judge_run,
};
static const struct filter *const judges[] = { &judge, NULL };

static void
be_judged(struct rig *rig)
{
	struct chat *c = chat_open(rig, "mx");

	chat_expect(c, "220");
	chat_ask(c, "EHLO reject", "550 5.7.1 the judge has spoken [check judge, id ");
	ck_assert_ptr_null(strstr(c->line, "] [id"));
	chat_ask(c, "EHLO client.test", "250");
	chat_ask(c, "MAIL FROM:<defer@a.test>", "450 4.7.1 the judge");
	chat_ask(c, "MAIL FROM:<a@a.test>", "250");
	chat_ask(c, "RCPT TO:<reject@example.test>", "550 5.7.1 the judge");
	chat_ask(c, "RCPT TO:<ann@example.test>", "250");
	chat_ask(c, "DATA", "354");
	chat_ask(c, "Subject: reject\r\n.", "550 5.7.1 the judge");
	begin(c);
	chat_ask(c, "Subject: defer\r\n.", "451 4.7.1 the judge");
	begin(c);
	chat_ask(c, "Subject: discard\r\n.", "250 2.0.0 Ok: queued as");
	begin(c);
	chat_ask(c, "Subject: quarantine\r\n.", "250 2.0.0 Ok: queued as");
	chat_close(c);
}

START_TEST(a_verdict_is_an_answer)
{
	rig_run(&(struct rig_setup){
	    .client = be_judged, .filters = judges, .config = OPEN "filter judge { }\n" });
	ck_assert_uint_eq(rig_n_kept, 1);
	ck_assert_int_eq(rig_kept[0].env.copies[0].route, ENVELOPE_QUARANTINE);
	ck_assert_ptr_nonnull(strstr(rig_kept[0].copy, "X-Relayd-Verdict: quarantine"));
	logged("event=message.quarantined ", "held=1", "check=judge");
	logged("event=message.discarded ", "check=judge", "");
	logged("event=message.deferred ", "code=451", "check=judge");
	logged("event=message.deferred ", "from=\"defer@a.test\"", "code=450");
	ck_assert_int_eq(counter_get(COUNTER_QUARANTINED), 1);
	ck_assert_int_eq(counter_get(COUNTER_DISCARDED), 1);
	ck_assert_int_eq(counter_get(COUNTER_ACCEPTED), 1);
	ck_assert_int_eq(counter_get(COUNTER_DEFERRED), 2);
	ck_assert_int_eq(counter_get(COUNTER_REJECTED), 2);
}
END_TEST

/* ---- release --------------------------------------------------------------------------------- */

static void
give_back(struct rig *rig)
{
	struct chat *c = chat_open(rig, "");

	chat_expect(c, "220");
	chat_ask(c, "EHLO review", "250");
	chat_ask(c, "MAIL FROM:<b@sender.test> XID=aaaaaaaaaaaaaaaaaaaaaaaaaa XKEY=abc-1", "250");
	chat_ask(c, "RCPT TO:<gone@elsewhere.test>", "250");
	chat_ask(c, "DATA", "354");
	chat_ask(c, "Received: x\r\nSubject: reject\r\n\r\nx\r\n.", "250 2.0.0");
	chat_close(c);
}

START_TEST(what_review_releases_is_not_judged_again)
{
	struct envelope *env = &rig_kept[0].env;

	rig_file("recipients", "ann@example.test\n");
	rig_run(&(struct rig_setup){ .client = give_back,
	    .release = true,
	    .filters = judges,
	    .config = "domains = { example.test }\nfilter judge { }\n"
		      "route example.test { to = { \"127.0.0.1:9\" }  recipients = "
		      "@DIR@/recipients }\n" });
	ck_assert_uint_eq(rig_n_kept, 1);
	ck_assert_str_eq(rig_kept[0].copy, "Received: x\r\nSubject: reject\r\n\r\nx\r\n");
	ck_assert(slice_eq(env->release_key, SLICE("abc-1")));
	ck_assert(id_eq(env->origin, (struct id){ { 0 } }));
	ck_assert_int_eq(env->copies[0].route, ENVELOPE_FORWARD);
	ck_assert(slice_eq(env->copies[0].rcpts[0].forward_path, SLICE("gone@elsewhere.test")));
}
END_TEST

static void
knock(struct rig *rig)
{
	struct chat *c = chat_open(rig, "");

	chat_expect(c, "554 5.7.1 ");
	chat_expect_end(c);
	chat_close(c);
}

START_TEST(nobody_else_releases)
{
	rig_run(&(struct rig_setup){ .client = knock, .config = OPEN });
	logged("event=auth.fail ", "listener=release", "why=peer-uid");
}
END_TEST

/* ---- a full disk ----------------------------------------------------------------------------- */

static void
fill_up(struct rig *rig)
{
	struct chat *c = chat_open(rig, "mx");

	greet(c);
	begin(c);
	chat_ask(c, "x\r\n.", "250");
	rig_reload(rig, OPEN "queue { reserve = 1000000G }\n");
	chat_ask(c, "MAIL FROM:<>", "452 4.3.1 Out of disk space");
	rig_reload(rig, OPEN);
	begin(c);
	chat_ask(c, "x\r\n.", "250");
	chat_close(c);
}

START_TEST(the_reserve_of_the_disk_is_left_alone)
{
	rig_run(&(struct rig_setup){ .client = fill_up, .config = OPEN });
	ck_assert_uint_eq(rig_n_kept, 2);
}
END_TEST

UNIT_SUITE(intake_live)
{
	UNIT_TEST(what_is_answered_250_is_in_the_spool);
	UNIT_TEST(pipelined_commands_behind_data_are_data);
	UNIT_TEST(what_waits_behind_a_commit_goes_on);
	UNIT_TEST(replies_that_nobody_reads_hold_the_commands_back);
	UNIT_TEST(a_client_that_only_sends_gets_its_answers);
	UNIT_TEST(half_a_message_is_no_message);
	UNIT_TEST(every_refusal_names_its_reason);
	UNIT_TEST(networks_may_relay);
	UNIT_TEST(an_upstream_that_cannot_be_asked_is_a_450);
	UNIT_TEST(one_address_has_so_many_connections);
	UNIT_TEST(a_reload_holds_from_the_next_message_on);
	UNIT_TEST(a_certificate_that_a_reload_brings_is_used);
	UNIT_TEST(a_drain_lets_a_message_end);
	UNIT_TEST(a_verdict_is_an_answer);
	UNIT_TEST(what_review_releases_is_not_judged_again);
	UNIT_TEST(nobody_else_releases);
	UNIT_TEST(the_reserve_of_the_disk_is_left_alone);
}

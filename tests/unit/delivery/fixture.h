/* tests/unit/delivery/fixture.h - a spool, a config and a delivery in a directory of their own. */
#ifndef TESTS_UNIT_DELIVERY_FIXTURE_H
#define TESTS_UNIT_DELIVERY_FIXTURE_H

#include "relayd/delivery/delivery.h"
#include "relayd/mail/envelope.h"
#include "unit/delivery/sink.h"

struct fixture {
	char dir[64];
	uv_loop_t loop;
	struct config *cfg;
	struct delivery *delivery;
	struct spool *intake;
	struct shared shared;
	int poke_fd;
	struct fake_dns *dns; /* fixture_dns() */
};

void fixture_init(struct fixture *f);
/* Ends delivery and loop, and removes the directory. */
void fixture_fini(struct fixture *f);

/* A DNS with this zone (unit/fake_dns.h), for configs from here on. */
void fixture_dns(struct fixture *f, const char *zone);
/* The config: what is given (a printf format) behind hostname, directories and the like. */
void fixture_config(struct fixture *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* One route for all to 127.0.0.1:port, retries after a second. */
void fixture_config_to(struct fixture *f, unsigned port);
/* fixture_init(), and a server that takes all mail, by a config as above; to be closed after
 * fixture_fini(). */
struct sink *fixture_init_upstream(struct fixture *f);
void fixture_start(struct fixture *f);
/* Ends delivery as a drain does, or as it comes. */
void fixture_stop(struct fixture *f, bool drain);

/* A message to be committed. */
struct mail {
	const char *from;
	const char *to[8]; /* or n_to of them, by number: "user17@example.test" */
	size_t n_to;
	const char *domain; /* of those */
	const char *bytes;  /* NULL: a small one */
	size_t len;         /* 0: strlen */
	uint32_t flags;
	const char *params, *rcpt_params;
	const char *release_key;
	enum envelope_route route;
	const char *top;  /* inserted in front */
	int64_t age_ms;   /* received so long ago */
	struct id id;     /* of its own choice */
	struct id origin; /* a report, as an earlier delivery made it: about recipient 0 of that */
	enum envelope_tells tells;
};
/* Commits it as intake does, waits until it is durable, and pokes.  Its id. */
struct id fixture_mail(struct fixture *f, const struct mail *m);
/* Commits n of the same in one go. */
void fixture_mails(struct fixture *f, const struct mail *m, size_t n);

/* Runs the loop until cond holds; fails the test when it has run for twenty seconds. */
#define UNTIL(f, cond)                                                                             \
	do {                                                                                       \
		int64_t limit_ = fixture_limit();                                                  \
		while (!(cond)) {                                                                  \
			fixture_turn(f);                                                           \
			ck_assert_msg(!fixture_over(limit_), "waited in vain for " #cond);         \
		}                                                                                  \
	} while (0)
int64_t fixture_limit(void);
bool fixture_over(int64_t limit);
/* One round of the loop, at most 10 ms. */
void fixture_turn(struct fixture *f);
void fixture_run_ms(struct fixture *f, unsigned ms);

/* Messages and recipients in the queue of delivery. */
size_t fixture_queued(const struct fixture *f);
size_t fixture_queued_rcpts(const struct fixture *f);
/* Messages of them that are not parked. */
size_t fixture_whole(const struct fixture *f);
/* A silent connection counts like any other, however busy this machine is. */
void fixture_never_stall(struct fixture *f);
/* Connections to next hops that are there or on their way. */
unsigned fixture_connections(const struct fixture *f);
/* Jobs, parked ones too, whose next hop is shown by that name. */
size_t fixture_at(const struct fixture *f, const char *name);
bool fixture_ready(const struct fixture *f);

#endif

/* relayd/delivery/parts.h - the parts of delivery, and what each asks of the others.
 *
 *	tail	reads the logs: each message becomes jobs, each in the line of its next hop
 *	hop	one next hop: its line, its health, its addresses, its connections
 *	provider what next hops share that lead to the same hosts: a limit on connections, a rate
 *	attempt	one transaction: a job on a connection
 *	settle	what replies mean: sent, deferred, or a report; journal, log and trace
 *	report	a bounce, or a copy for the quarantine, written to our own log
 *	control	the admin's requests
 *
 * delivery.c owns them all and turns the wheel: once a loop round it reads what is new, gives every
 * next hop its turn, and writes the journal.
 */
#ifndef RELAYD_DELIVERY_PARTS_H
#define RELAYD_DELIVERY_PARTS_H

#include "relayd/delivery/bounce.h"
#include "relayd/delivery/content.h"
#include "relayd/delivery/delivery.h"
#include "relayd/delivery/outcome.h"
#include "relayd/delivery/queue.h"
#include "relayd/delivery/route.h"
#include "relayd/delivery/schedule.h"
#include "relayd/delivery/tls_policy.h"
#include "relayd/net/dns.h"
#include "relayd/net/tls.h"
#include "relayd/pipeline/trace.h"
#include "relayd/smtp/peer.h"
#include "relayd/spool/compact.h"
#include "relayd/spool/journal.h"
#include "relayd/spool/reader.h"
#include "relayd/spool/spool.h"
#include "relayd/spool/told.h"

struct hop;
struct conn;
struct report;
struct control;
struct control_op;
struct key_wait;

/* conn.c's */
struct conn_list {
	struct conn *head, *tail;
};

/* Transactions of the minute at hand and of the one before it. */
struct recent {
	int64_t since_ms; /* when now was begun */
	uint32_t now, before;
};

/* Next hops that wait for one thing, in their order. */
struct provider_line {
	struct hop *head, *tail;
	size_t n;
};

/* A provider of the config, or a host that MX records lead to. */
struct provider {
	struct delivery *d;
	struct provider *next; /* of one bucket: of a host */
	const char *name;
	const struct config_provider *conf; /* NULL: a host */
	const struct config_route *route;   /* of a host: whose connections they are; or NULL */
	unsigned n_conns;                   /* there or on their way */
	unsigned n_ready;                   /* of them: open */
	unsigned n_leaving;                 /* of them: about to end */
	struct conn_list idle; /* of them: without a transaction; those offered, then the longest */
	struct provider_line places, turns; /* those that wait for a connection; for the rate */
	struct hop *called;                 /* it was his turn in one of them; or NULL */
	struct schedule_node pace;          /* while the rate makes them wait */
	int64_t next_us;                    /* when the rate allows another transaction */
	struct recent recent;               /* of one of the config */
};

#define PROVIDER_HOSTS 1024 /* buckets: hosts that no connection leads to are not kept */

struct providers {
	struct provider *v; /* of the config, in its order */
	size_t n;
	struct provider *hosts[PROVIDER_HOSTS];
	struct schedule_heap pacing; /* those whose rate makes somebody wait */
};

struct delivery {
	uv_loop_t *loop;
	const struct config *cfg;
	struct shared *shared;
	int poke_fd;

	struct spooldir dir;
	struct journal *journal;
	struct reader *reader;
	struct spool *own; /* our log */
	struct compact *compact;
	struct trace *trace;
	struct dns *dns;
	struct tls_client *tls;

	struct routes *routes;
	uint32_t generation; /* of the routes */
	uint64_t plans;      /* copies planned so far */
	struct schedule schedule;
	struct queue queue;
	struct contents contents;

	struct hop **hops; /* by hash of their key */
	size_t n_hops, cap_hops;
	struct hop *turn_head, *turn_tail;         /* those that have something to do */
	struct hop *starving_head, *starving_tail; /* those that lack a connection: all are taken */
	struct schedule_heap waking; /* those that wait until they may be tried again */
	struct schedule_heap pacing; /* those that sent as many as their route lets them */
	unsigned n_conns;
	unsigned n_stalled; /* of them: silent for stall_ms, which is HOP_STALL_MS but in tests */
	int64_t stall_ms;
	struct conn_list busy_conns, idle_conns;
	struct providers providers;
	unsigned n_attempts;    /* transactions under way */
	unsigned n_waits;       /* requests to the journal, for what may not be sent before */
	struct key_wait *stuck; /* those whose sync failed */

	struct report *reports;
	unsigned n_reports;
	struct told told;            /* what reports of an earlier delivery say */
	bool untold;                 /* some of them are held until that is safe */
	struct journal_sync telling; /* it is being made safe */
	bool telling_failed;
	struct control *control;
	struct control_op *ops; /* requests that go on */
	int64_t alarm_ms;       /* when the quarantine was last reported to refuse mail */
	int64_t disk_alarm_ms;  /* when the disk was last reported to fail */

	uv_prepare_t prepare;
	uv_check_t check;
	uv_idle_t idle;    /* active while there is more to read than one round takes */
	uv_timer_t due;    /* for the next deferred job, or next hop */
	uv_timer_t sync;   /* of the journal */
	uv_timer_t safety; /* a look at the logs without a poke, and at who is late */
	uv_timer_t finish; /* the end of patience when draining */
	uv_timer_t nap;    /* until the next look at the logs while messages flow */
	uv_poll_t poke;
	int64_t due_at_ms;             /* what the timer is set to; -1: it is not */
	struct index_cursor warning;   /* who may have to be told that his mail is late */
	int64_t warn_ms;               /* when all are looked at again; 0: they are now */
	int64_t bounces_ms;            /* when the minute of the limit on bounces began */
	uint32_t bounces;              /* in it */
	int64_t place_ms;              /* the minute for those that it has no place for, */
	uint32_t places;               /* and how many wait for that */
	int64_t swept_ms;              /* when next hops that nobody needs were last looked for */
	struct journal_sync last_sync; /* before a drain is over */
	unsigned open_handles;
	int64_t taken_ms; /* when a message was last taken from a log, by uv_now() */
	bool flowing;     /* the one before it was taken shortly before */
	bool poked;       /* since the logs were last read */
	bool ready; /* all that was there at the start has been read: what needs a report may end */
	bool draining, closing, unhealthy;
	void (*drained)(void *data);
	void *drained_data;
};

#define FLOW_MS 5 /* messages nearer than this to one another flow: see takes_nap() */

/* New attempts may begin. */
bool delivery_may_start(const struct delivery *d);
/* The loop goes round once more before it sleeps: there is something to do, or to wait for. */
void delivery_wake(struct delivery *d);
/* An attempt or report has ended, for a drain that waits for it. */
void delivery_ended_one(struct delivery *d);

/* ---- tail.c ----------------------------------------------------------------------------- */

/* Reads on; at most so many messages as one round should take.  True: there is more. */
bool tail_read(struct delivery *d);
/* The routes, or what the admin said about the message, have changed: puts the recipients of a
 * taken job where they belong now.  True: the job is as it was, and still taken; else it is no
 * longer the caller's. */
bool tail_replan(struct delivery *d, struct queue_job *job, struct content *content);
/* All that was there at the start has been read: reports of an earlier delivery may go, as soon as
 * what they tell is safe in the journal. */
void tail_settle(struct delivery *d);
/* What waits for a sync of the journal that failed tries again. */
void tail_retry_keys(struct delivery *d);
/* The content of a message, kept or read again; a reference.  NULL with *err. */
struct content *tail_content(struct delivery *d, struct queue_msg *msg, struct err *err);
/* The first of a line, taken, read again where it was parked.  NULL: none is left, or many in a row
 * turned out to belong elsewhere, and others should have their turn before the rest. */
struct queue_job *tail_take(struct delivery *d, struct line *line);
/* The message of an entry that has a user, read again where it is parked, and where it was in line.
 * NULL: it cannot be read now (*err, which the admin was told), and waits a while; or without an
 * error, it was done with and is gone. */
struct queue_msg *tail_whole(struct delivery *d, struct index_msg *entry, struct err *err);
/* Parks a message when many are whole, and this one has time.  It may be gone then; so may id's, if
 * there is one. */
void tail_park(struct delivery *d, struct queue_msg *msg);
void tail_park_id(struct delivery *d, struct id id);

/* ---- hop.c ------------------------------------------------------------------------------ */

#define HOP_CONNECTIONS_MAX   20  /* to one next hop */
#define HOP_CONNECTIONS_NEW   2   /* before it has taken one */
#define HOP_CONNECTIONS_START 5   /* then; and one more with each message that went through */
#define HOPS_CONNECTIONS_MAX  400 /* to all of them, but for those that are stalled */
#define HOP_STALL_MS          250 /* who has opened, or sent a message, for so long is stalled */
#define HOPS_STALLED_MAX      1600 /* so many: dead next hops keep no live ones from theirs */
/* an address that failed is left alone so long while others work, */
#define HOP_ADDRESS_REST_MS 60000
/* and with each failure in a row twice as long, up to this */
#define HOP_ADDRESS_REST_MAX_MS 300000
#define HOP_FULL_MS    60000 /* one that took no more connections is asked for more after */
#define HOP_RESOLVE_MS 60000 /* names are looked up again after */
#define HOP_FAST_US    5000 /* usual time of a transaction under which one connection serves many */
#define HOP_FAST_JOBS  4    /* so many */
/* but not one on which nothing was answered for so long: mail goes around it */
#define HOP_LATE_MS 100
#define HOP_MOVES_A_ROUND 64 /* jobs that are routed again, of one next hop */
#define HOP_RATE_MS       60000
#define HOP_SHARE_JOBS    20 /* a connection of one of several that share is left after so many */
#define HOP_IDLE_MS       600000 /* one that nothing is queued for is forgotten after */

/* Why a next hop, or an address of it, cannot be used. */
struct hop_failure {
	bool permanent; /* and never will be: there is no such domain */
	unsigned code;  /* of the reply that said so; 0: there was none */
	char enhanced[12];
	char text[400];
	char remote[256]; /* the host that said so, or empty: we did */
};
/* Sets the text, cut where it is too long. */
void hop_failure_say(struct hop_failure *f, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

struct hop_address {
	struct sockaddr_storage addr;
	char name[256]; /* host: TLS verifies it */
	bool lmtp, implicit_tls;
	struct tls_policy tls;
	uint16_t target;           /* of the route */
	uint16_t priority, weight; /* of that target */
	int64_t rests_until_ms;    /* it failed */
	unsigned failures;         /* in a row: it has to show first that it is back */
	int64_t plain_until_ms;    /* TLS failed and the policy lets us go without */
	char plain_why[160];       /* then: how it failed */
	bool no_bdat;              /* it offers CHUNKING and does not know BDAT */
};

struct hop {
	struct delivery *d;
	struct route_hop *route;
	struct hop *next; /* of one hash */
	struct hop *turn_next, *starving_next;
	bool in_turn, starving;
	bool condemned; /* there is no way at all: all fails with why */
	bool gone;      /* no route leads here any more, as far as is known */
	size_t to_move; /* then so many of its line are yet to be routed again */

	struct line line;          /* to be sent */
	struct line failing;       /* to be settled as failed: see why */
	struct queue_job *filling; /* tail.c's: the job of the message at hand */
	uint64_t filling_for;
	uint32_t filled; /* recipients of it so far, finished ones too */
	uint32_t part;   /* the first of them in that job */

	struct hop_address *addresses; /* by priority, then as they are preferred */
	size_t n_addresses;
	bool shares; /* several targets have one priority */
	bool ails;   /* some of them rested of late */
	/* of the targets that share: who had less than his part */
	int32_t credit[ROUTE_TARGETS_MAX];
	int64_t resolved_ms;           /* 0: not yet */
	struct hop_resolve *resolving;

	struct conn *conns;
	unsigned n_conns, n_taken;
	unsigned window;  /* of connections */
	unsigned full_at; /* it refused one more than that; 0: it never did */
	int64_t full_until_ms; /* and is not asked for more before that */
	int64_t usual_us; /* of a transaction, smoothed; 0: not known */

	struct schedule_node pace;  /* while its route's rate makes it wait */
	int64_t next_us;            /* when the rate allows another transaction */
	unsigned source;            /* the next of its route's addresses */
	struct schedule_node wake;  /* while it is left alone */
	unsigned failures;          /* since it last worked */
	uint32_t missed;            /* failures ever */
	int64_t expires_ms;         /* nobody in line expires before that, but for the untold */
	struct hop_failure why;     /* of the last failure */
	struct hop_failure trouble; /* of the last address that failed */
	uint64_t sent;
	int64_t used_ms;

	/* for the admin */
	struct queue_reason *dialogue; /* of the connection that failed last, or NULL */
	char last_error[200]; /* a failure of its own, or a reply that deferred or failed mail */
	int64_t oldest_ms;    /* control_top.c's */
	struct recent recent;

	/* provider.c's */
	struct provider *waits_at; /* it waits in a line of that */
	struct provider_line *waits_in;
	struct hop *waits_next, *waits_prev;
	size_t wants;               /* for a connection to that one of its addresses */
	struct provider *called_by; /* it may send one, in its next turn */
	bool call_used;
	bool was_called; /* and could not: it is the first of the line that it joins */
};

/* The next hop with that key, made when it is new.  NULL with *err. */
struct hop *hop_get(struct delivery *d, const char *key, struct err *err);
struct hop *hop_of(const struct queue_job *job);
/* Monotonic, also of what is parked. */
int64_t hop_slot_born_ms(const struct line_slot *slot);
/* It has something to do: it gets its turn this round. */
void hop_touch(struct hop *hop);
/* Gives those touched so far their turn. */
void hops_run(struct delivery *d);
/* Until when it is left alone; 0: it is not. */
int64_t hop_quiet_until(const struct hop *hop);
/* Connections that it may have at once. */
unsigned hop_connections_max(const struct hop *hop);
/* It refused another connection while it served n, 1 or more. */
void hop_is_full(struct hop *hop, unsigned n);
/* Forgets past failures and tries now. */
void hop_retry(struct hop *hop);
/* Why it sends nothing now although it could be reached, in out; empty: there is no such reason. */
#define HOP_WAIT_BYTES 400
struct slice hop_waits_for(const struct hop *hop, char out[static HOP_WAIT_BYTES]);
/* A job for it that was never tried is not held back longer than a first retry. */
void hop_hurry(struct hop *hop);
/* A transaction on it came to its end, whatever that was. */
void hop_worked(struct hop *hop);
/* One more transaction. */
void recent_count(struct recent *r, int64_t now_ms);
/* Transactions in the last minute, about. */
unsigned recent_rate(const struct recent *r, int64_t now_ms);
void hop_note_error(struct hop *hop, struct slice text);
/* It refused a copy for the quarantine: the admin should know. */
void hop_alarm(struct hop *hop, const char *why);
/* None of its addresses can be used. */
void hop_failed(struct hop *hop, const struct hop_failure *why);
/* After the schedule's or the quarantine's attempts-th failure. */
int64_t hop_delay_ms(const struct hop *hop, unsigned attempts);
/* Those whose time has come may be tried again. */
void hops_wake(struct delivery *d, int64_t now_ms);
/* Frees those that nobody has needed for long; all: every one, without any jobs left. */
void hops_sweep(struct delivery *d, bool all);
void hops_touch_all(struct delivery *d);
/* Before the queue goes, which has the texts. */
void hops_forget_dialogues(struct delivery *d);
/* Stops all that is being looked up. */
void hops_cancel(struct delivery *d);
/* None waits for a provider, or was called by one. */
void hops_forget_providers(struct delivery *d);
/* After a reload: next hops that no route leads to hand their jobs to tail_replan(). */
void hops_reroute(struct delivery *d);

/* ---- resolve.c -------------------------------------------------------------------------- */

/* Looks all targets up; ends in hop->addresses and hop_touch(), or in hop_failed(). */
void resolve_start(struct hop *hop);
void resolve_cancel(struct hop *hop);

/* ---- address.c -------------------------------------------------------------------------- */

/* NULL: it was looked up again meanwhile, and is gone. */
struct hop_address *address_find(struct hop *hop, const struct sockaddr_storage *addr);
/* It does not rest; one that failed is tried by one connection at a time, to see whether it is
 * back. */
bool address_is_usable(const struct hop *hop, const struct hop_address *a, int64_t now_ms);
/* There is one that works as far as is known, before b where that is not NULL. */
bool address_any_sound(const struct hop *hop, const struct hop_address *b, int64_t now_ms);
/* a comes before b whatever turns are taken. */
bool address_is_before(const struct hop_address *a, const struct hop_address *b);
/* The best that can be used now, or NULL. */
struct hop_address *address_pick(struct hop *hop, int64_t now_ms);
/* It failed: it is left alone, the longer the more often it has failed in a row. */
void address_rest(struct hop *hop, struct hop_address *a, int64_t now_ms);

/* ---- conn.c, conn_pick.c ---------------------------------------------------------------- */

/* A connection that takes a job now, opened if need be and allowed; NULL when there is none. */
struct conn *conn_for(struct hop *hop);
void conn_send(struct conn *conn, struct peer_send *req);
/* A transaction began on it: its provider's rate counts that. */
void conn_count(const struct conn *conn);
/* A send that conn took is done; it took took_us from MAIL to the last reply, or 0 where there was
 * none.  refusal: of the session, where untried. */
void conn_sent(struct conn *conn, int64_t took_us, const struct smtp_outcome *refusal);
struct hop *conn_hop(const struct conn *conn);
/* A connection to that address is on its way there. */
bool conn_is_trying(const struct hop *hop, const struct hop_address *a);
/* The session has begun: the peer greeted us and we it. */
bool conn_is_open(const struct conn *conn);
/* What the peer offers, set of enum smtp_client_cap; 0 before it is open. */
unsigned conn_caps(const struct conn *conn);
bool conn_is_lmtp(const struct conn *conn);
/* How many recipients the peer takes at once (RCPTMAX); 0: it did not say, or not yet. */
uint32_t conn_rcpt_max(const struct conn *conn);
/* "mail1.corp[192.0.2.1:25]", for log and reports. */
const char *conn_name(const struct conn *conn);
/* Its host is in trouble.  True: there is another one, which is used from now on; this one
 * rests. */
bool conn_try_next(struct conn *conn);
/* What was said on it of late, a line an element: "C: RCPT TO:<a@b>", "S: 450 4.2.1 later". */
struct slice conn_dialogue(const struct conn *conn);
/* What came of TLS: "TLSv1.3 TLS_AES_256_GCM_SHA384, verified, resumed" or "none: TLS handshake:
 * ..."; empty where there was no question of it, or none yet.  out: CONN_TLS_BYTES. */
#define CONN_TLS_BYTES 320
struct slice conn_tls(const struct conn *conn, char out[static CONN_TLS_BYTES]);
/* The host alone, for reports; empty for a unix socket. */
const char *conn_host(const struct conn *conn);
/* The one at that provider that nobody has had use for longest, and whose next hop has nothing to
 * send; or NULL. */
struct conn *conn_spare(const struct provider *p);
/* Leaves by QUIT. */
void conn_give_up(struct conn *conn);
/* The providers are others: each connection counts where it belongs now. */
void conns_count_again(struct delivery *d);
/* Whether one more may be opened, to whatever next hop. */
bool conns_have_room(const struct delivery *d);
/* Next hops with mail in line behind connections that are late have their turn. */
void conns_late(struct delivery *d);
/* Looks which are stalled by now, and gives their places to those who lack a connection. */
void conns_stall(struct delivery *d);
/* When the next one is while somebody lacks a connection (monotonic); -1: nobody waits for that. */
int64_t conns_stall_due_ms(const struct delivery *d);
/* The next one who lacked a connection has his turn, when there is one. */
void conns_feed_starving(struct delivery *d);
/* Says QUIT on all when they are idle; now: drops them. */
void conns_leave(struct delivery *d, bool now);

/* ---- provider.c ------------------------------------------------------------------------- */

/* Where connections to a host, one of that target of a next hop, count; NULL: with nobody
 * else's. */
struct provider *provider_of(struct hop *hop, uint16_t target, const char *host);
/* It may be forgotten when no connection came of it. */
void provider_done(struct provider *p);
/* Connections to it at once. */
unsigned provider_connections_max(const struct provider *p);
/* Whether the rate lets the hop begin one more transaction; else it waits in line. */
bool provider_within_rate(struct provider *p, struct hop *hop);
/* Nobody is before the hop who lacks a connection. */
bool provider_is_open_to(const struct provider *p, const struct hop *hop);
/* Whether the hop may open a connection to that one of its addresses; else, if it has none, it
 * waits in line. */
bool provider_has_place(struct provider *p, struct hop *hop, size_t address);
/* The hop began a transaction there. */
void provider_count(struct provider *p, struct hop *hop);
/* The turn of a hop that was called is over. */
void provider_turn_over(struct hop *hop);
/* A connection may be of no more use to its next hop. */
void provider_spare(struct provider *p);
/* A connection ended: p may be gone. */
void provider_left(struct provider *p);
/* The hop waits no more. */
void provider_forget(struct hop *hop);
/* Who waited for a rate that allows another one is called. */
void providers_wake(struct delivery *d, int64_t now_ms);
/* Those of a config. */
int providers_init(
    struct providers *fresh, struct delivery *d, const struct config *cfg, struct err *err);
/* They take the place of those that are, while the config of those is still there. */
void providers_replace(struct delivery *d, struct providers *fresh);
void providers_fini(struct providers *all);

/* ---- attempt.c -------------------------------------------------------------------------- */

/* Sends a taken job on conn.  False: it could not begin, and the job was put back or settled. */
bool attempt_start(struct conn *conn, struct queue_job *job);

/* ---- settle.c --------------------------------------------------------------------------- */

struct settle {
	struct delivery *d;
	struct queue_job *job;   /* taken */
	struct content *content; /* a reference, handed over */
	/* of job->rcpts, in their order; or NULL: failure for all */
	const struct smtp_outcome *outcomes;
	const struct hop_failure *failure; /* for all without an outcome */
	const char *nexthop;               /* for the log */
	const char *remote;                /* the host that answered, or "" */
	unsigned caps;                     /* set of enum smtp_client_cap: what it offered */
	bool lmtp;                         /* it was the last hop: delivered, not relayed */
	struct conn *conn;                 /* of the attempt, or NULL */
	struct slice dialogue;             /* of the attempt, for the admin; or empty */
};

/* Applies the outcomes to queue and journal, logs and traces them, starts the report if one is due.
 * Job and content are no longer the caller's. */
void settle(const struct settle *s);
/* Leaves a taken job its first n recipients; the others go in front of its line. */
void settle_split(struct delivery *d, struct queue_job *job, uint32_t n);
/* A taken job that nothing came of: to the front of its line, as if it had not been taken. */
void settle_put_back(struct delivery *d, struct queue_job *job);
/* What is read next time would be no better: an admin has to decide. */
bool settle_is_damage(const struct err *err);
/* "damaged: SPOOL/LOG/SEGMENT, ...: what to do", in out. */
#define DAMAGE_BYTES 400
struct slice settle_damage(const struct delivery *d, const struct index_msg *entry,
    const struct err *err, char out[static DAMAGE_BYTES]);
/* entry could not be read: tells the admin, once where it is damaged.  When it is tried again,
 * monotonic. */
int64_t settle_note_unreadable(struct index_msg *entry, const struct err *err);
/* The message could not be read: it is tried again later, and the admin is told. */
void settle_unreadable(struct delivery *d, struct queue_job *job, const struct err *err);
/* A recipient was told about in a report. */
void settle_tell_report(struct delivery *d, const struct queue_job *job, enum outcome kind,
    const struct report_rcpt *rcpt, struct slice path, const char *nexthop, struct id report);
/* The next hop cannot be reached: tells about a job, or who is parked, that stands in its line.
 * Once each. */
void settle_tell(struct delivery *d, struct line_slot *slot, const struct hop_failure *why);
/* These recipients of a taken job are finished, with one outcome for all. */
void settle_finish(struct delivery *d, struct queue_job *job, const uint32_t *ordinals, size_t n,
    enum outcome outcome);
/* Puts a job back into its line, or defers it, or frees an empty one with its message. */
void settle_go_on(struct delivery *d, struct queue_job *job, int64_t due_ms);
/* A release that was made before: entry is done. */
void settle_duplicate(struct delivery *d, struct index_msg *entry, const struct envelope *env);
/* told.h's on_told(), data being the delivery: those who wait leave the queue, the others as soon
 * as their attempt has ended. */
void settle_told(void *data, struct index_msg *entry, struct id report, enum envelope_tells tells);
/* The admin does not want it: all that is not in the hands of an attempt.  The rest follows. */
void settle_drop(struct delivery *d, struct queue_msg *msg);
/* The same of an entry with a user that cannot be read. */
void settle_drop_unreadable(struct delivery *d, struct index_msg *entry);
/* A reader of the message's bytes is done with it. */
void settle_unpin(struct delivery *d, struct queue_msg *msg);

/* ---- report.c --------------------------------------------------------------------------- */

#define REPORTS_MAX    32    /* at a time */
#define REPORT_WAIT_MS 60000 /* when one cannot be written */

#define REPORT_LIMIT_MS 60000 /* queue { bounces } are so many in this time */

/* Writes the bounce, or the copy for the quarantine, that tells about some recipients of a job
 * (failed for good); takes job and content over.  When it is durable they are finished, and what is
 * left of the job goes on at due_ms. */
void report_start(const struct settle *s, enum outcome kind, const struct report_rcpt *rcpts,
    size_t n, int64_t due_ms);
bool report_may_start(const struct delivery *d);
/* All that was there at the start has been read: those that waited for it are written.  When
 * delivery ends, they are given up. */
void reports_go_on(struct delivery *d);
/* Recipients of that message that are finished by now need none: an earlier delivery made it. */
void report_told(struct delivery *d, const struct index_msg *entry);

/* One more report to a sender or the postmaster; false: too many in this minute. */
bool report_within_limit(struct delivery *d);
/* Until when there may be no more, monotonic; 0: there may. */
int64_t report_limited_ms(struct delivery *d);

/* ---- warn.c ----------------------------------------------------------------------------- */

#define WARN_EVERY_MS 60000

/* Tells senders whose mail is older than queue { warn }, once a message; some of them a round.
 * True: there is more to look at. */
bool warn_run(struct delivery *d);
void warn_stop(struct delivery *d);

/* ---- control.c -------------------------------------------------------------------------- */

/* Goes on with requests that walk the queue, a little each round.  True: there is more to do. */
bool control_run(struct delivery *d);
/* No more requests; those under way end. */
void control_stop(struct delivery *d);

#endif

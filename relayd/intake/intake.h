/* relayd/intake/intake.h - what the files of the intake role share; nobody else includes it.
 *
 *	intake.c	the role: start, listeners, limits of connections, reload, drain
 *	spread.c	how many workers take new connections
 *	arrival.c	a connection through a proxy, which first says whose it is
 *	session.c	one client: greeting, HELO, TLS
 *	login.c		its AUTH
 *	transaction.c	one message of it: MAIL to the answer after the dot
 *	rcpt.c		one recipient of that: RCPT to its answer
 *	report.c	what the log, the counters and the client hear of a message
 *
 * A session lives until its connection is gone and nothing that it waits for is on its way.  A
 * transaction lives until it is over and nobody reads its bytes any more.
 */
#ifndef RELAYD_INTAKE_INTAKE_H
#define RELAYD_INTAKE_INTAKE_H

#include "relayd/auth/password.h"
#include "relayd/auth/sasl.h"
#include "relayd/intake/crowd.h"
#include "relayd/intake/generation.h"
#include "relayd/intake/spread.h"
#include "relayd/mail/received.h"
#include "relayd/net/dns.h"
#include "relayd/net/listener.h"
#include "relayd/pipeline/facts/facts.h"
#include "relayd/pipeline/facts/probe.h"
#include "relayd/pipeline/pipeline.h"
#include "relayd/pipeline/trace.h"
#include "relayd/smtp/server.h"
#include "relayd/spool/spool.h"
#include "relayd/state/state.h"
#include "relayd/supervisor/role.h"

#define INTAKE_TRACE_MS         20 /* a trace is on its way to the disk so long */
#define INTAKE_TRACE_MARGIN     (256ull << 20)
#define INTAKE_TX_BYTES         (1u << 20) /* envelope of one transaction in memory */
#define INTAKE_LATE_MAX         100        /* connections over a limit that get a second look */
#define INTAKE_LATE_MS          20         /* after so long */
#define INTAKE_RELEASE_OPEN_MAX 100        /* connections of review */
#define INTAKE_REFUSALS_TRACED  100        /* connections over a limit, a second */
#define INTAKE_GIVEN_UP_TRACED  100        /* transactions that their client gave up, a second */
#define STEER_MS                1000 /* at most so long connections go where others than we said */

struct intake;
struct session;
struct transaction;
struct arrival;
struct late;

/* A listening socket of the role. */
struct entrance {
	struct intake *in;
	size_t index; /* of role->listeners and generation->listeners */
	struct listener *listener;
};

/* A socket of a sibling that is down. */
struct lent {
	struct entrance at;
	unsigned worker, number; /* whose, and which of its */
	int fd;                  /* ours */
	struct lent *next;
};

/* What a flood may leave behind in a second. */
struct intake_budget {
	int64_t second;
	unsigned used; /* in it */
};

struct intake {
	struct role *role;
	struct generation *gen; /* for sessions and transactions to come */
	struct spool *spool;
	struct dns *dns;
	struct state *state;
	struct facts *facts;
	struct trace *trace;
	struct probe *probe;          /* NULL until a config wants one */
	struct generation *probe_gen; /* whose host name it says */
	struct tls_client *tls_client;
	struct password_pool *passwords;
	struct backoff *backoff; /* in role->shared */
	struct entrance *entrances;
	size_t n_entrances;
	struct lent *lent;
	uv_timer_t trace_timer, late_timer;
	unsigned timers; /* that are open */
	struct session *sessions;
	struct late *late;
	size_t n_late;
	size_t n_sessions, n_release;
	size_t n_scanning; /* messages that the filters look at */
	struct arrival *arrivals;
	size_t n_arrivals;
	struct crowd crowd;
	struct spread spread; /* of the first worker of its generation; of the others all is 0 */
	int64_t steered_ms;
	bool retiring, draining, stopping;
	struct recipients_load load; /* of a reload */
	bool loading;
	struct intake_budget refusals, given_up; /* of traces */
};

/* For whom a client handed a message in (XFORWARD): for envelope and log, never for a check. */
struct session_forwarded {
	uint8_t addr[16];
	size_t addr_len;
	char helo[SMTP_HELO_MAX + 1];
};

/* What a session agreed on under TLS. */
struct session_tls {
	struct tls_info info;
};

/* A run of the pipeline, and who waits for it. */
struct session_stage {
	struct session *session;
	void (*judged)(struct session *s); /* when the run is over */
	struct pipeline_run run;
};

/* Each of these bytes is there for every idle client: what is not needed then is kept elsewhere. */
struct session {
	struct intake *in;
	struct generation *gen;     /* of this transaction, or of the last one */
	struct smtp_server *server; /* NULL: the connection is gone */
	struct pipeline_session *pipeline;
	struct session *prev, *next;
	struct id id;
	uint8_t addr[16];
	struct shared_client client; /* as it is counted */
	uint32_t messages;           /* accepted */
	uint32_t waits;              /* for what must end before the memory goes */
	uint16_t listener;           /* index */
	uint8_t addr_len;
	uint8_t blank; /* commands without a verb before HELO */
	bool release;  /* our own review role */
	bool counted;  /* in core/shared.h */
	bool trusted;
	bool running; /* a stage of the pipeline is on its way */
	bool greeted;
	bool spoken_for; /* by XCLIENT: the connection and its certificate are a proxy's */
	uint8_t early;   /* enum session_early: before the greeting */
	char *user;
	struct session_tls *tls;
	struct session_forwarded *forwarded; /* of the message to come or at hand, or NULL */
	struct sasl *sasl;
	struct login *login;         /* a password or a token is being checked */
	struct transaction *tx;      /* NULL between messages */
	struct session_stage *stage; /* NULL while no stage runs and there is no transaction */
};

_Static_assert(sizeof(struct session) <= 184, "an idle session has grown");

enum session_early { EARLY_UNTESTED, EARLY_STILL, EARLY_SPOKE };

/* ---- session.c ---- */

/* Takes fd over.  via: the address of the proxy that told who the peer is, or empty. */
void session_open(struct entrance *at, int fd, const struct sockaddr *peer, struct slice via);
/* Refuses a connection whose proxy did not say whose it is.  Takes fd over. */
void session_refuse_proxy(
    struct entrance *at, int fd, const struct sockaddr *peer, const char *why);
/* A second look at those that were over a limit. */
void session_try_late(struct intake *in);
struct slice session_addr(const struct session *s);
/* As text, into a buffer of IP_TEXT_BYTES; returned for use in a log line. */
const char *session_ip(const struct session *s, char text[static IP_TEXT_BYTES]);
/* Makes s->stage where there is none, for the stage to come.  NULL when out of memory. */
struct pipeline_run *session_stage(struct session *s);
/* Frees it where nothing needs it any more: called last by whatever answers a question. */
void session_rest(struct session *s);
/* What begins now, a transaction or a login, begins under the newest config, which also says anew
 * whether the client may relay.  False: the user that it logged in as is gone or locked. */
bool session_move(struct session *s);
/* Runs a stage of s->stage, whose rcpt, message and fields are set; judged() follows, now or later,
 * but not when the connection was lost meanwhile. */
void session_judge(struct session *s, enum filter_stage stage, void (*judged)(struct session *s));
/* 2xx or 354 in the usual words. */
void session_pass(struct session *s, unsigned code);
/* Answers with the pipeline's refusal. */
void session_refuse(struct session *s);
/* One wait less: frees the session when it was the last and the connection is gone. */
void session_unwait(struct session *s);
/* enhanced and text are ours, fmt is for text; text names its check in words. */
void session_answer(struct session *s, unsigned code, const char *enhanced, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* ---- login.c ---- */

void on_offer(void *user, struct buf *mechanisms);
void on_auth(void *user, struct slice mechanism, struct slice response, bool has_response);
/* The connection is gone: ends what a login waits for. */
void session_login_lost(struct session *s);
/* The client gave up: forgets what it said so far. */
void session_auth_over(struct session *s);

/* ---- transaction.c ---- */

void on_mail(void *user, const struct smtp_mail *mail);
void on_data(void *user);
void on_bytes(void *user, struct slice bytes);
void on_body(void *user, const struct smtp_body *body);
void on_reset(void *user, enum smtp_reset how, const char *why);
/* The connection is gone: ends what the transaction waits for. */
void transaction_lost(struct session *s);

/* ---- rcpt.c ---- */

void on_rcpt(void *user, const struct smtp_rcpt *rcpt);

/* ---- report.c ---- */

void on_limit(void *user, const char *what, const char *text);

/* ---- arrival.c ---- */

/* A fresh connection.  Takes fd over. */
void arrival_open(struct entrance *at, int fd, const struct sockaddr *peer);
/* Those that still wait for their header are let go; each tells intake_idle() when it is gone. */
void arrival_cancel_all(struct intake *in);

/* ---- intake.c ---- */

/* A session or an arrival is gone: maybe that was the last thing to wait for. */
void intake_idle(struct intake *in);

void intake_joined(struct intake *in, struct session *s);
void intake_left(struct intake *in, struct session *s);
void intake_traced(struct intake *in);
/* Takes one of max a second; false when they are used up. */
bool intake_may(struct intake_budget *b, unsigned max);
void intake_late(struct intake *in);

#endif

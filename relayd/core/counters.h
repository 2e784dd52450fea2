/* relayd/core/counters.h - what each role counts, in memory that others can read at any time.
 *
 * One page a process, in one file (RUN/counters) that the supervisor makes: relayctl reads it also
 * when a role hangs.  A page has one writer.  A name's meaning and type never change.
 */
#ifndef RELAYD_CORE_COUNTERS_H
#define RELAYD_CORE_COUNTERS_H

#include "relayd/core/err.h"
#include "relayd/core/slice.h"

#include <stdatomic.h>

/* X(symbol, name in /metrics without relayd_, c = counter, g = gauge or t = a gauge of a time, left
 * out while 0; help) */
#define COUNTERS(X)                                                                                \
	X(CONNECTIONS, "connections_total", 'c', "Connections accepted")                           \
	X(SESSIONS_OPEN, "sessions_open", 'g', "Sessions open now")                                \
	X(SESSIONS_REFUSED, "sessions_refused_total", 'c', "Connections refused by a limit")       \
	X(PROXY_REFUSED, "proxy_refused_total", 'c', "Connections refused for their PROXY header") \
	X(TLS_HANDSHAKES, "tls_handshakes_total", 'c', "TLS handshakes done")                      \
	X(TLS_FAILURES, "tls_failures_total", 'c', "TLS handshakes failed")                        \
	X(TLS_EXPIRY, "tls_certificate_expiry_seconds", 't',                                       \
	    "When the first certificate in use expires, Unix time")                                \
	X(AUTH_OK, "auth_ok_total", 'c', "Logins accepted")                                        \
	X(AUTH_FAILED, "auth_failed_total", 'c', "Logins refused")                                 \
	X(AUTH_DELAYED, "auth_delayed_total", 'c', "Logins put off after failed ones")             \
	X(BAD_COMMANDS, "bad_commands_total", 'c', "Commands or data that broke the protocol")     \
	X(RCPT_REFUSED, "recipients_refused_total", 'c', "Forward-paths refused at RCPT")          \
	X(ACCEPTED, "messages_accepted_total", 'c', "Messages answered 250 and kept")              \
	X(REJECTED, "messages_rejected_total", 'c', "Messages answered 5xx")                       \
	X(DEFERRED, "messages_deferred_total", 'c', "Messages answered 4xx")                       \
	X(QUARANTINED, "messages_quarantined_total", 'c', "Messages accepted for the quarantine")  \
	X(DISCARDED, "messages_discarded_total", 'c', "Messages answered 250 and dropped")         \
	X(BYTES_IN, "message_bytes_in_total", 'c', "Bytes of messages accepted")                   \
	X(FILTER_ERRORS, "filter_errors_total", 'c', "Filters that failed or timed out")           \
	X(LIMIT_HITS, "limit_hits_total", 'c', "Times a limit of the config was reached")          \
	X(SPOOL_SYNCS, "spool_syncs_total", 'c', "fdatasync calls of the spool")                   \
	X(SPOOL_BYTES, "spool_bytes_total", 'c', "Bytes written to the spool")                     \
	X(SPOOL_ERRORS, "spool_errors_total", 'c', "Failed writes and syncs of the spool")         \
	X(COMPACTED, "spool_compacted_messages_total", 'c',                                        \
	    "Open messages copied out of segments that were mostly done")                          \
	X(BYTES_IN_FLIGHT, "bytes_in_flight", 'g', "Bytes of messages on their way in")            \
	X(QUEUE_MESSAGES, "queue_messages", 'g', "Messages in the queue")                          \
	X(QUEUE_RECIPIENTS, "queue_recipients", 'g', "Recipients still to be delivered")           \
	X(QUEUE_DEFERRED, "queue_deferred", 'g', "Messages waiting for a retry")                   \
	X(QUEUE_BYTES, "queue_bytes", 'g', "Bytes of the messages in the queue")                   \
	X(SENT, "recipients_sent_total", 'c', "Recipients delivered to a next hop")                \
	X(SEND_DEFERRED, "recipients_deferred_total", 'c', "Delivery attempts put off")            \
	X(BOUNCED, "bounces_total", 'c', "Bounces made")                                           \
	X(OUT_CONNECTIONS, "out_connections_total", 'c', "Connections opened to next hops")        \
	X(OUT_OPEN, "out_connections_open", 'g', "Connections to next hops open now")              \
	X(DAMAGE, "spool_damaged_records_total", 'c', "Damaged records met and kept")              \
	X(STORED, "quarantine_stored_total", 'c', "Messages stored in the quarantine")             \
	X(RELEASED, "quarantine_released_total", 'c', "Recipients released from the quarantine")   \
	X(DROPPED, "quarantine_dropped_total", 'c', "Messages dropped from the quarantine")        \
	X(HELD, "quarantine_messages", 'g', "Messages held in the quarantine")                     \
	X(IMAP_OPEN, "imap_sessions_open", 'g', "IMAP sessions open now")                          \
	X(POP3_OPEN, "pop3_sessions_open", 'g', "POP3 sessions open now")                          \
	X(LOG_DROPPED, "log_lines_dropped_total", 'c', "Log lines dropped")                        \
	X(RESTARTS, "role_restarts_total", 'c', "Roles started again after they died")             \
	X(SYSCALLS_REFUSED, "system_calls_refused_total", 'c',                                     \
	    "System calls that the sandbox refused")                                               \
	X(RELOADS, "reloads_total", 'c', "Configs taken over")                                     \
	X(SCANNING, "messages_scanning", 'g', "Messages that filters look at now")                 \
	X(SESSIONS_ENDED, "sessions_ended_total", 'c', "Sessions ended by a limit of time or rate")

#define COUNTER_ENUM(symbol, name, type, help) COUNTER_##symbol,
enum counter { COUNTERS(COUNTER_ENUM) COUNTER_COUNT };
#undef COUNTER_ENUM

#define COUNTERS_PAGES  131	/* processes of one relayd: SHARED_WORKERS and three more */
#define COUNTERS_MAGIC  0x72637433u
#define COUNTERS_VALUES 120
#define COUNTERS_FILTER_BYTES 24 /* of a filter's name, its end included: what is longer is cut */
#define COUNTERS_WORKERS 3	/* page of the first intake worker, behind the other roles */

/* One process.  A page with started_ms 0 is not in use. */
struct counters_page {
	uint32_t magic;
	uint32_t values_used;		/* COUNTER_COUNT of the writer */
	char role[12];
	_Atomic uint32_t serving;	/* 1: it has said that it is ready */
	uint32_t index;
	_Atomic int32_t pid;
	_Atomic int64_t started_ms;	/* wall clock */
	_Atomic int64_t beat_ms;	/* wall clock of its last loop round, to the second */
	/* grows as a filter begins and as it ends on the loop: odd inside */
	_Atomic uint32_t filter_runs;
	_Atomic uint32_t pool_hangs;	/* 1: none of its filters in the pool may ever return */
	/* the one that runs, or ran last; true while filter_runs stands */
	char filter[COUNTERS_FILTER_BYTES];
	_Atomic int64_t values[COUNTERS_VALUES];
};

/* The file of all pages, mapped shared.  writable: as the supervisor or a role.  -1 with *err
 * set. */
int counters_map(int fd, bool writable, struct counters_page **pages, struct err *err);
/* Creates RUN/counters anew (who has the old one mapped keeps it), returning its descriptor, or
 * -1. */
int counters_create(const char *path, struct err *err);
/* True when the file is of this layout: made by another relayd, of an upgrade. */
bool counters_fit(int fd);
/* The process of this page has ended, and another may take it. */
void counters_clear(struct counters_page *page);
/* From here on this process counts in page; before, in memory of its own. */
void counters_use(struct counters_page *page, const char *role, unsigned index);

void counter_add(enum counter c, int64_t n);
void counter_set(enum counter c, int64_t value);
int64_t counter_get(enum counter c);
void counter_beat(void);
/* This process is ready. */
void counter_serving(void);
/* Around each filter that runs on the loop, so that one which never returns can be seen from
 * outside. */
void counter_filter_begins(const char *name);
void counter_filter_ended(void);
/* Whether work waits for a pool from which no filter may ever come back. */
void counter_pool_hangs(bool hangs);

struct counter_info {
	const char *name, *help;
	char type;	/* c, g or t */
};
const struct counter_info *counter_info(enum counter c);

struct buf;
/* All pages in use in the Prometheus text format, version 0.0.4. */
void counters_render(const struct counters_page *pages, struct buf *out);

#endif

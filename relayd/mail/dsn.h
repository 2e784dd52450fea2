/* relayd/mail/dsn.h - builds the message that tells a sender what became of his mail.
 *
 * multipart/report (RFC 6522) of a paragraph for people, message/delivery-status (RFC 3464) and the
 * original, or its header.  With utf8 set the types of RFC 6533.  Pure: time, id and host come from
 * the caller, so that the same input gives the same bytes, also after a crash.
 */
#ifndef RELAYD_MAIL_DSN_H
#define RELAYD_MAIL_DSN_H

#include "relayd/core/buf.h"
#include "relayd/core/err.h"
#include "relayd/core/id.h"

/* of a full original; a longer one is replaced by its header */
#define DSN_ORIGINAL_MAX (128u << 10)
#define DSN_HEADER_MAX (64u << 10) /* octets of the original's header; cut between two fields */
#define DSN_TEXT_MAX   1000        /* octets of one reply text */

enum dsn_action {
	DSN_FAILED,
	DSN_DELAYED,
	DSN_RELAYED,
	DSN_EXPIRED,
	DSN_DELIVERED
}; /* expired: failed, after retries */

struct dsn_rcpt {
	struct slice forward_path; /* without <> */
	struct slice orcpt;        /* value of ORCPT= ("rfc822;bob+2Bx@example.org"), or empty */
	enum dsn_action action;
	struct slice status; /* "5.1.1"; empty: "5.0.0", delayed "4.0.0" */
	/* name or address that answered, or empty: then we gave the reason */
	struct slice remote_mta;
	/* what it said: "550 5.1.1 no such user", lines joined; or our reason */
	struct slice reply;
	int64_t last_attempt_ms; /* wall clock; 0: none */
};

struct dsn {
	struct id id; /* of the report: its Message-ID and boundary */
	struct id original_id;
	struct slice hostname;      /* ours */
	struct slice postmaster;    /* mailbox that people may write to */
	struct slice reverse_path;  /* of the original: where the report goes, never empty */
	struct slice envid;         /* value of ENVID=, xtext; or empty */
	int64_t now_ms, arrival_ms; /* wall clock */
	int64_t retry_until_ms;     /* delayed: when we give up */
	const struct dsn_rcpt *rcpts;
	size_t n_rcpts;
	struct slice original; /* the message, or as much of it as begins it (header at least) */
	bool cut;              /* original is not all of it */
	bool full;             /* RET=FULL: all of it, unless it is cut or over DSN_ORIGINAL_MAX */
	bool utf8; /* the original came with SMTPUTF8, or an address is not ASCII: RFC 6533 */
	bool about_report; /* the original is a report of ours; this goes to the postmaster */
};

/* Appends the report in CRLF lines.  -1 with ERR_LIMIT when out is full. */
int dsn_build(const struct dsn *dsn, struct buf *out, struct err *err);
/* The report has octets above ASCII: send it with BODY=8BITMIME.  Its own header has some where its
 * reverse_path is not ASCII, and then only: it needs SMTPUTF8. */
bool dsn_is_8bit(struct slice report);

#endif

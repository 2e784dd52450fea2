/* relayd/intake/transaction.h - one message of a session; for transaction.c, rcpt.c and report.c
 * alone. */
#ifndef RELAYD_INTAKE_TRANSACTION_H
#define RELAYD_INTAKE_TRANSACTION_H

#include "relayd/core/arena.h"
#include "relayd/intake/alias.h"
#include "relayd/intake/intake.h"

struct transaction {
	struct session *session;
	unsigned refs; /* the session, and the pipeline while it reads the bytes */
	struct id id;
	char id_text[ID_TEXT_LEN + 1];
	struct arena arena;
	struct slice reverse_path, key;
	struct slice params; /* of MAIL, to hand on */
	enum smtp_body_type body_type;
	bool utf8, require_tls, tls_optional;
	bool has_origin;
	bool any_refused; /* of its recipients */
	struct id origin;
	struct slice *rcpts; /* accepted forward-paths */
	size_t n_rcpts, cap_rcpts;
	struct slice asked; /* the forward-path that is being judged */
	struct slice asked_params;
	/* Of each RCPT that was accepted: which of rcpts, as one may come twice, and an alias is
	 * many. */
	struct reply_of {
		uint32_t first, n;
	} * replies;
	size_t n_replies, cap_replies;
	struct each *each; /* the answers to all of them, while the message is being stored */
	struct {
		struct alias_paths paths; /* what asked stands for */
		size_t next;              /* of the paths: to be judged */
		size_t before; /* n_rcpts when it began: it is taken whole or not at all */
		bool looping, passed;
	} rcpt;
	struct pipeline_tx *pipeline;
	struct probe_query probe;
	struct directory_query directory;
	bool probing; /* a next hop or a directory is asked for a recipient */
	bool committing;
	bool scanning; /* counted in intake->n_scanning */
	struct spool_msg *msg;
	struct err failed; /* the first trouble of the spool with it */
	struct received_counter hops;
	struct smtp_body body;
	struct pipeline_message message;
	struct spool_commit commit;
};

/* Why we refuse something ourselves; why: one word for the log. */
struct refusal {
	unsigned code;
	const char *enhanced, *text, *why;
};

/* ---- transaction.c ---- */

void transaction_unref(struct transaction *tx);
/* A reply of the pipeline as the log and the trace have it. */
void reply_text(const struct pipeline_reply *reply, char out[static SMTP_REPLY_LINE_MAX]);

/* ---- report.c ---- */

/* Refused or put off by us, not by a filter: counts and logs; why is one word. */
void report_refused(const struct transaction *tx, unsigned code, const char *why);
/* The same for one recipient of it. */
void report_rcpt(const struct transaction *tx, unsigned code, const char *why);
/* What the pipeline said, and what followed from it. */
void report_judged(const struct transaction *tx);
void report_accepted(const struct transaction *tx);

#endif

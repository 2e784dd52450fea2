/* relayd/review/imap/session.h - an IMAP session: octets in, octets out, between them the store.
 *
 * No socket and no clock: the owner brings what came, sends what is written, and says when time is
 * up.  One command runs at a time (RFC 3501 section 5.5); while it does, or while output waits,
 * input is not taken.  All calls and callbacks are on the loop that the store lives on.
 */
#ifndef RELAYD_REVIEW_IMAP_SESSION_H
#define RELAYD_REVIEW_IMAP_SESSION_H

#include "relayd/auth/sasl.h"
#include "relayd/review/store.h"

#define IMAP_BAD_MAX    20           /* BAD replies in a row, then BYE */
#define IMAP_LOGINS_MAX 5            /* failed logins, then BYE */
#define IMAP_OUT_BYTES  (256u << 10) /* output in one go, about */

/* RFC 3501 section 5.4: at least 30 minutes once logged in. */
#define IMAP_IDLE_MS  (31 * 60 * 1000)
#define IMAP_LOGIN_MS (3 * 60 * 1000)

struct imap_session;

struct imap_session_ops {
	/* Where to append output. */
	struct buf *(*out)(void *owner);
	/* So much output waits that there should be no more before imap_session_run(). */
	bool (*is_full)(void *owner);
	/* Output came, or input can be taken again: something that the owner did not cause. */
	void (*on_progress)(void *owner);
	/* Answer with imap_session_login_done(), not inside of it.  The slices are gone
	 * afterwards. */
	void (*login)(void *owner, struct slice user, struct slice password);
	/* Fills in what surrounds an AUTHENTICATE.  NULL: it is PLAIN alone. */
	void (*about)(void *owner, struct sasl_about *about);
	/* AUTHENTICATE proved who it is, or did not; user may be empty then.  As login.  May be
	 * NULL with about. */
	void (*proved)(void *owner, struct slice user, bool ok);
	/* BYE was said: close when the output has left. */
	void (*on_bye)(void *owner);
	/* After imap_session_close(): the last that is heard of the session.  May run inside of
	 * it. */
	void (*on_closed)(void *owner);
};

struct imap_session_options {
	struct store *store;
	const struct imap_session_ops *ops;
	void *owner;
	const char *hostname; /* copied */
	bool may_login;       /* passwords are safe here: TLS, or not over a network */
};

/* Greets.  NULL when out of memory. */
struct imap_session *imap_session_open(const struct imap_session_options *options);
/* Takes as much as it can now; the rest is to be shown again after on_progress(). */
size_t imap_session_read(struct imap_session *s, struct slice bytes);
/* Output has left: goes on with what waited for that. */
void imap_session_run(struct imap_session *s);
/* scope: NULL when refused; then why is a sentence for the client, and busy tells that it was no
 * wrong password. */
void imap_session_login_done(
    struct imap_session *s, const char *user, const char *scope, const char *why, bool busy);
/* Says BYE with this text as soon as no command runs. */
void imap_session_bye(struct imap_session *s, const char *text);
/* Who logged in, and what of the quarantine he sees; "" before that. */
const char *imap_session_user(const struct imap_session *s);
const char *imap_session_scope(const struct imap_session *s);
/* How long a silent client may stay. */
int64_t imap_session_patience_ms(const struct imap_session *s);
/* Nothing is under way for the client: it is silent. */
bool imap_session_is_waiting(const struct imap_session *s);
/* Ends it; a request to the store that is under way is waited for.  Accepts NULL. */
void imap_session_close(struct imap_session *s);

#endif

/* relayd/review/pop3/session.h - a POP3 session (RFC 1939, RFC 2449, RFC 5034) without a socket.
 *
 * Bytes and the monotonic clock go in; replies come out, one for each command, in order.  What only
 * the glue can do is a question: a callback, answered by exactly one of the pop3_ calls that its
 * comment names, at once or later.  While a question is open nothing behind it is looked at.
 *
 * The maildrop is a picture taken at login: numbers and sizes stay as they are however others
 * change the mailbox.  Nothing is dropped before QUIT, and never when the connection just ends.
 */
#ifndef RELAYD_REVIEW_POP3_SESSION_H
#define RELAYD_REVIEW_POP3_SESSION_H

#include "relayd/auth/sasl.h"
#include "relayd/core/buf.h"

#define POP3_LINE_MAX      255   /* with CRLF: RFC 2449 section 4 */
#define POP3_AUTH_LINE_MAX 12288 /* the same, of a response to a challenge: RFC 4954 section 4 */
#define POP3_OUT_HIGH      (64u << 10)  /* output over this: no further command is taken */
#define POP3_IDLE_MS       (600 * 1000) /* RFC 1939 section 3 */
#define POP3_LOGIN_MS      (120 * 1000) /* between commands before the login */
#define POP3_LOGINS_MAX    4            /* that failed; then the session ends */
#define POP3_BAD_COMMANDS  20           /* then the session ends */
#define POP3_NAME_MAX      128

struct pop3_session;

struct pop3_message {
	uint32_t uid;
	uint64_t octets;
};

struct pop3_settings {
	const char *hostname; /* borrowed */
	bool is_private;      /* TLS or loopback: else no password is taken (RFC 8314) */
	bool may_delete;      /* review { pop3-delete } */
	uint32_t keep_days;   /* CAPA's EXPIRE; 0: not told */
};

struct pop3_ops {
	/* pop3_maildrop() or pop3_refuse().  The slices live as long as the call. */
	void (*on_login)(void *user, struct slice name, struct slice password);
	/* RETR or TOP of message index: pop3_body() until it returns false, or pop3_refuse() before
	 * the first. */
	void (*on_message)(void *user, size_t index);
	/* QUIT with messages to drop (pop3_is_deleted()): pop3_updated(). */
	void (*on_update)(void *user);
	/* News: a command was refused for its form or its moment. */
	void (*on_bad)(void *user);
	/* Fills in what surrounds an AUTH.  NULL: there is none. */
	void (*on_about)(void *user, struct sasl_about *about);
	/* AUTH proved who it is, or did not; name may be empty then.  As on_login(). */
	void (*on_proved)(void *user, struct slice name, bool ok);
};

/* Of one call: the clock, and where replies go. */
struct pop3_turn {
	int64_t now_ms;
	struct buf *out;
};

/* Greets.  NULL when out of memory. */
struct pop3_session *pop3_session_new(const struct pop3_settings *settings,
    const struct pop3_ops *ops, void *user, const struct pop3_turn *turn);
void pop3_session_free(struct pop3_session *s); /* accepts NULL */

/* Takes commands off the front of bytes, while no question is open and output is below
 * POP3_OUT_HIGH; returns how many bytes were taken.  Called with what is left, or nothing, again
 * once output has left: a long list goes out piece by piece. */
size_t pop3_session_input(struct pop3_session *s, const struct pop3_turn *turn, struct slice bytes);

/* The login is good: the messages are borrowed until the session is freed. */
void pop3_maildrop(struct pop3_session *s, const struct pop3_turn *turn,
    const struct pop3_message *messages, size_t n, uint32_t uidvalidity);
/* "-ERR [code] text"; code "" for none. */
void pop3_refuse(
    struct pop3_session *s, const struct pop3_turn *turn, const char *code, const char *text);
/* The next bytes of the message; last: there are no more.  False when no more are wanted: the
 * reply is complete. */
bool pop3_body(struct pop3_session *s, const struct pop3_turn *turn, struct slice bytes, bool last);
/* What was to be dropped was, or could not be. */
void pop3_updated(struct pop3_session *s, const struct pop3_turn *turn, bool ok);
bool pop3_is_deleted(const struct pop3_session *s, size_t index);

bool pop3_session_is_asking(const struct pop3_session *s);
/* More output is to come without input: call pop3_session_input() again. */
bool pop3_session_has_more(const struct pop3_session *s);
/* To be closed once the output is sent. */
bool pop3_session_is_over(const struct pop3_session *s);
/* When pop3_session_tick() is due: it says goodbye and ends the session; INT64_MAX for never. */
int64_t pop3_session_deadline(const struct pop3_session *s);
void pop3_session_tick(struct pop3_session *s, const struct pop3_turn *turn);
/* The server leaves: as a tick, at once or when the open question is answered. */
void pop3_session_shutdown(struct pop3_session *s, const struct pop3_turn *turn);

#endif

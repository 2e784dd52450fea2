/* relayd/net/stream.h - one connection over TCP or a unix socket, plain or TLS.
 *
 * A stream hands its owner what it reads and sends what the owner writes, once a loop round:
 * write as often as you like, all of it goes out in one system call before the loop sleeps.  A
 * stream closes once: on_close() is the last that is heard of it, whatever ended it, and the
 * stream is gone when it returns.  Every function may be called from every callback; after
 * stream_close() or stream_end() all of them are harmless until on_close() has come.
 *
 * The process ignores SIGPIPE.  No callback runs inside a stream_ function.  An idle plain
 * stream takes 0.3 KiB.
 */
#ifndef RELAYD_NET_STREAM_H
#define RELAYD_NET_STREAM_H

#include "relayd/core/buf.h"
#include "relayd/core/err.h"
#include "relayd/net/tls.h"

#include <sys/socket.h>
#include <uv.h>

#define STREAM_READ_BYTES (64u << 10)  /* of fresh input, the most that one on_read() shows */
#define STREAM_KEEP_BYTES (128u << 10) /* of kept input none of which is taken: ERR_LIMIT */
#define STREAM_OUT_BYTES  (8u << 20)   /* of copied output that waits: ERR_LIMIT */
#define STREAM_REFS_MAX   4096         /* runs by reference that wait at one time */
#define STREAM_END_MS     30000        /* for the rest of the output after stream_end() */
#define STREAM_LINGER_MS  2000         /* for the peer to read our last words */

struct stream;

/* Those that are NULL are not wanted; on_read and on_close are required. */
struct stream_ops {
	/* A connection that stream_connect() began is there. */
	void (*on_connect)(struct stream *s, void *owner);
	/* Bytes came.  Returns how many of them were taken; the rest is kept and shown again in
	 * front of what follows (or by stream_resume()).  Not called while paused. */
	size_t (*on_read)(struct stream *s, void *owner, struct slice bytes);
	/* Where the next bytes should be read to, at least 1 at *room, or 0 for nowhere
	 * special.  The on_read() that follows shows them there.  Not asked while input is
	 * kept.  It calls nothing of the stream. */
	size_t (*on_room)(struct stream *s, void *owner, char **room);
	/* The peer sends no more and all that it sent was shown.  The owner ends the stream
	 * sooner or later; without this callback the stream does, when its output is out. */
	void (*on_eof)(struct stream *s, void *owner);
	/* All output has left: what was written by reference may go. */
	void (*on_drain)(struct stream *s, void *owner);
	/* The handshake is done.  A failed one closes the stream with ERR_TLS. */
	void (*on_tls)(struct stream *s, void *owner);
	/* The deadline has passed; there is none any more.  Without this callback: closes,
	 * ERR_TIMEOUT. */
	void (*on_deadline)(struct stream *s, void *owner);
	/* Once.  why->code: ERR_NONE after stream_end() and stream_close(), ERR_CLOSED when the
	 * peer left, ERR_SYS, ERR_TLS, ERR_TIMEOUT, ERR_LIMIT.  s must not be used afterwards. */
	void (*on_close)(struct stream *s, void *owner, const struct err *why);
};

/* Takes over a connected stream socket, also when it fails.  Reading starts at once. */
struct stream *stream_open(
    uv_loop_t *loop, int fd, const struct stream_ops *ops, void *owner, struct err *err);
/* Connects to a TCP or unix address; on_connect() or on_close() tells how it went.  local: bind to
 * this address first, or NULL.  When the peer has closed, what it said before is shown, even if
 * a write of ours failed meanwhile. */
struct stream *stream_connect(uv_loop_t *loop, const struct sockaddr *to,
    const struct sockaddr *local, const struct stream_ops *ops, void *owner, struct err *err);
/* For an owner that changes hands (a protocol switch); ops live as long as the stream. */
void stream_own(struct stream *s, const struct stream_ops *ops, void *owner);

/* Copies bytes behind what was written before. */
void stream_write(struct stream *s, struct slice bytes);
/* The same, to format in place: append to it before the callback returns that it was asked for in,
 * and before anything is sent by stream_flush() or stream_end(). */
struct buf *stream_out(struct stream *s);
/* Without a copy: bytes stay as they are until on_drain() or on_close(). */
void stream_write_ref(struct stream *s, struct slice bytes);
/* Bytes written that have not left yet. */
size_t stream_pending(const struct stream *s);
/* Remembers the end of what was written so far; stream_passed(): all of it has left.  One mark
 * at a time. */
void stream_mark(struct stream *s);
bool stream_passed(const struct stream *s);
/* Sends now what can be sent, instead of at the end of this loop round. */
void stream_flush(struct stream *s);

/* No on_read() until stream_resume(), which shows what was kept (from the loop, not at once). */
void stream_pause(struct stream *s);
void stream_resume(struct stream *s);
/* Input that is kept, not yet taken. */
size_t stream_kept(const struct stream *s);
/* Copies the first n bytes of input that nobody has taken, of a plain stream also those that the
 * kernel still holds, and leaves them there.  0: there are none. */
size_t stream_peek(const struct stream *s, char *p, size_t n);

/* Calls on_deadline() at this time (clock_mono_ms()), 0 for never.  Costs nothing: set it at
 * will. */
void stream_deadline(struct stream *s, int64_t at_ms);

/* From here on TLS.  All input not yet taken is dropped, so that nothing said in plain text counts
 * as said under TLS (RFC 3207 section 6); output written before goes out in plain text.
 * Returns -1 with *err and the stream as it was.  host: the peer's name, for SNI and verification,
 * or an address as text. */
int stream_tls_accept(struct stream *s, struct tls_server *server, struct err *err);
int stream_tls_connect(struct stream *s, struct tls_client *client, enum tls_verify verify,
    const char *host, struct err *err);
/* False while the stream is plain or still shaking hands. */
bool stream_tls_info(const struct stream *s, struct tls_info *info);
/* As tls_bind(); 0 while there is no TLS. */
size_t stream_tls_bind(
    const struct stream *s, enum tls_binding kind, unsigned char out[static TLS_BINDING_MAX]);

/* Sends what was written (at most STREAM_END_MS), then closes; no on_read() any more. */
void stream_end(struct stream *s);
/* Closes now; output that waits is lost. */
void stream_close(struct stream *s);

/* The uid at the other end of a unix socket, or -1. */
uid_t stream_peer_uid(const struct stream *s);
uv_loop_t *stream_loop(const struct stream *s);

#endif

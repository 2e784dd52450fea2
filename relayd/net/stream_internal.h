/* relayd/net/stream_internal.h - the parts of a stream, for net/stream*.c alone. */
#ifndef RELAYD_NET_STREAM_INTERNAL_H
#define RELAYD_NET_STREAM_INTERNAL_H

#include "relayd/net/outq.h"
#include "relayd/net/round.h"
#include "relayd/net/stream.h"

#include <netinet/in.h>

struct stream_tls;

/* Output that the kernel did not take at once; the write request owns it until it has. */
struct stream_write {
	uv_write_t req;
	struct stream *s;
	struct outq q;
	size_t asked; /* bytes that the request covers */
};

struct stream {
	uv_tcp_t socket;  /* libuv takes any stream socket, so unix ones too */
	uv_timer_t timer; /* armed no earlier than needed, re-armed only when it fires */
	int64_t deadline_ms, armed_ms; /* 0: none */
	const struct stream_ops *ops;
	void *owner;
	struct round *round;
	struct round_task flush, work; /* output; what is to be called from the loop */
	struct outq out; /* plain bytes that wait; under TLS they are encrypted when they leave */
	struct stream_write *writing;
	struct stream_tls *tls;
	uint64_t sent;     /* bytes that the kernel took */
	uint64_t mark;     /* of these: where stream_mark() was, once mark_plain is 0 */
	size_t mark_plain; /* in front of the mark, still to be encrypted */
	struct buf keep;   /* input shown and not taken */
	struct err *why;   /* of the close; NULL: none */
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} peer;
	uint8_t open_handles;
	bool connecting, reading, paused;
	bool eof, eof_told;                       /* the peer sends no more; and the owner knows */
	bool wrote;                               /* since the last on_drain() */
	bool show_kept, tell_connect, tell_drain; /* what work does */
	bool ending, lingering, unread, closing;
	bool dialled, broken; /* stream_connect(); and the peer takes no more, its last words are read */
};

/* Closes with this reason, unless it is closing already.  The err may be that of the stack. */
void stream_fail(struct stream *s, const struct err *why);
void stream_failf(struct stream *s, enum err_code code, int sys, const char *what);

/* stream_read.c */
int stream_read_start(struct stream *s);
void stream_read_stop(struct stream *s);
/* Where plain bytes are read to, at least 1, and then shown from; under TLS by stream_tls.c. */
struct slice stream_room(struct stream *s);
void stream_show(struct stream *s, struct slice bytes);
void stream_show_kept(struct stream *s);
void stream_keep_none(struct stream *s);
void stream_at_eof(struct stream *s);

/* stream_write.c */
void stream_dirty(struct stream *s);
void stream_run_flush(struct round_task *task);
void stream_encrypted(struct stream *s, size_t n);
void stream_drop_output(struct stream *s);
void stream_end_with(struct stream *s, enum err_code code, const char *what);

/* stream_tls.c */
void stream_tls_input(struct stream *s, struct slice cipher);
/* Encrypts some of s->out.  1: call again when that has left; -1 after stream_fail(). */
int stream_tls_encrypt(struct stream *s);
struct outq *stream_tls_wire(struct stream *s);
void stream_tls_free(struct stream *s);

#endif

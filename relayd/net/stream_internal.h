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

/* What a stream needs while there is something to do.  An idle one has none of it. */
struct stream_busy {
	struct stream *s;
	struct round_task flush, work; /* output; what is to be called from the loop */
	struct outq out; /* plain bytes that wait; under TLS they are encrypted when they leave */
	struct stream_write *writing;
	uint64_t sent;     /* bytes that the kernel took */
	uint64_t mark;     /* of these: where stream_mark() was, once mark_plain is 0 */
	size_t mark_plain; /* in front of the mark, still to be encrypted */
	struct buf keep;   /* input shown and not taken */
	struct err *why;   /* of the close; NULL: none */
	bool wrote;        /* since the last on_drain() */
	bool show_kept, tell_connect, tell_drain; /* what work does */
};

/* Each of these bytes is there for every idle session. */
struct stream {
	uv_tcp_t socket; /* libuv takes any stream socket, so unix ones too */
	struct round_timer timer;
	const struct stream_ops *ops;
	void *owner;
	struct round *round;
	struct stream_busy *busy; /* NULL: nothing waits, in or out */
	struct stream_tls *tls;
	bool connecting : 1, reading : 1, paused : 1;
	bool eof : 1, eof_told : 1; /* the peer sends no more; and the owner knows */
	bool ending : 1, lingering : 1, unread : 1, closing : 1;
	/* stream_connect(); and the peer takes no more, its last words are read */
	bool dialled : 1, broken : 1;
};

/* An idle session has 1 KiB for all that it is, here and elsewhere: tests/bench/idle.py. */
_Static_assert(sizeof(struct stream) <= sizeof(uv_tcp_t) + 80, "an idle stream has grown");

/* Made when there is none.  NULL: out of memory, and the stream closes. */
struct stream_busy *stream_busy(struct stream *s);
/* Gives it back where nothing is left to do.  Called last in whatever the loop calls. */
void stream_rest(struct stream *s);
/* Has work run at the end of this round; *what is the flag that says which. */
void stream_later(struct stream *s, bool *what);
void stream_set_deadline(struct stream *s, int64_t at_ms);

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
struct stream_busy *stream_dirty(struct stream *s);
void stream_run_flush(struct round_task *task);
void stream_encrypted(struct stream *s, size_t n);
void stream_drop_output(struct stream *s);
void stream_end_with(struct stream *s, enum err_code code, const char *what);

/* stream_tls.c */
void stream_tls_input(struct stream *s, struct slice cipher);
/* Encrypts some of the output.  1: call again when that has left; -1 after stream_fail(). */
int stream_tls_encrypt(struct stream *s);
/* What goes to the kernel next, where the stream is busy or under TLS. */
struct outq *stream_tls_wire(struct stream *s);
void stream_tls_free(struct stream *s);

#endif

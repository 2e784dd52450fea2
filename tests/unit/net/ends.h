/* tests/unit/net/ends.h - streams over socket pairs, in one loop, and what one end sees of the
 * other. */
#ifndef TESTS_UNIT_NET_ENDS_H
#define TESTS_UNIT_NET_ENDS_H

#include "relayd/net/stream.h"

/* An end that records what happens to it, and does what the test set. */
struct end {
	struct stream *s;
	struct buf got;
	char room[64];
	size_t in_room; /* bytes that were read there */
	size_t offer_room;
	size_t take_max; /* of one on_read(); 0: all */
	unsigned reads, drains, closes, eofs, deadlines, tls, connects;
	enum err_code why;
	int sys;
	char msg[256];
	void (*then)(struct end *e); /* after each read */
	struct end *other;
	bool keep_after_eof, no_reply;
	struct tls_server *server;
};

extern uv_loop_t ends_loop;
void ends_begin(void);
/* Runs the loop to its end: nothing may be left in it, no handle, no request. */
void ends_finish(void);
/* Two connected sockets that do not block. */
void ends_pair(int type, int fds[2]);
/* Sends on a socket of the test's own. */
void ends_say(int fd, const char *text);
/* So many rounds of the loop, that wait for nothing. */
void ends_rounds(int n);
/* Runs the loop until the counter has come to n, or fails the test after 20 s. */
void ends_until(const unsigned *counter, unsigned n);

/* All callbacks, recorded; and no more than there must be. */
extern const struct stream_ops end_ops, end_plain_ops;
void end_on_close(struct stream *s, void *owner, const struct err *why);
/* A stream over fd that records in e; e->got is to be freed. */
void end_open(struct end *e, int fd);
void end_open_with(struct end *e, int fd, const struct stream_ops *which);
/* The only one in the loop, which begins; returns the socket at its other side. */
int end_alone(struct end *e);
/* Closes it, where it is still open, and fd; finishes the loop. */
void end_over(struct end *e, int fd);
/* It has got just this. */
void end_is(struct end *e, const char *text);
/* Runs the loop until it has got n bytes in all; no more may come. */
void end_until_got(struct end *e, size_t n);

#endif

/* tests/unit/review/wire.h - a client on the loop of a test: says lines, waits for what it
 * hears. */
#ifndef TESTS_UNIT_REVIEW_WIRE_H
#define TESTS_UNIT_REVIEW_WIRE_H

#include "relayd/core/buf.h"

#include <uv.h>

struct wire;

/* A listening unix socket at path, non-blocking. */
int wire_listen(const char *path);
/* Connects to it. */
struct wire *wire_open(uv_loop_t *loop, const char *path);
/* Two connected sockets: the wire has one, the other is returned in *fd for a server. */
struct wire *wire_pair(uv_loop_t *loop, int *fd);
void wire_say(struct wire *w, struct slice bytes);
/* Runs the loop until what was heard since the last call ends with `end`, and gives it,
 * NUL-terminated; valid until the next call.  Fails the test when the connection closes before, or
 * nothing comes. */
const char *wire_hear(struct wire *w, const char *end);
/* Says and hears. */
const char *wire_ask(struct wire *w, const char *line, const char *end);
/* Says and hears so many lines. */
const char *wire_lines(struct wire *w, const char *line, size_t n);
/* Runs the loop until the peer has closed; what was heard since. */
const char *wire_hear_end(struct wire *w);
bool wire_is_open(const struct wire *w);
/* Closes and frees. */
void wire_close(struct wire *w);

/* Runs the loop until *flag; fails the test after a while. */
void run_until(uv_loop_t *loop, const bool *flag);

#endif

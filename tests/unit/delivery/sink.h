/* tests/unit/delivery/sink.h - an SMTP or LMTP server in threads of its own, which says what it is
 * told to. */
#ifndef TESTS_UNIT_DELIVERY_SINK_H
#define TESTS_UNIT_DELIVERY_SINK_H

#include <stdbool.h>
#include <stddef.h>

struct sink;

/* On a free port of 127.0.0.1, or on a unix socket at path, where it speaks LMTP. */
struct sink *sink_open(const char *path);
/* On a port that was free a moment ago: to come back to life. */
struct sink *sink_open_port(unsigned port);
void sink_close(struct sink *s);
unsigned sink_port(const struct sink *s);

/* The next `times` commands that begin with `command` (and hold `with`, or NULL) get this reply
 * ("450 4.2.0 later") instead of the usual.  "CONNECT" is the greeting, "." the end of a message.
 * NULL: the connection is dropped without a word; a reply with 421 drops it, too. */
void sink_say(struct sink *s, const char *command, const char *with, const char *reply, int times);
/* Waits so long before each reply to the dot. */
void sink_slow(struct sink *s, unsigned ms);

struct sink_message {
	char reverse_path[300];
	char mail_params[600];
	char **forward_paths;
	size_t n_forward_paths;
	char *bytes; /* without dot-stuffing and the dot */
	size_t len;
	bool answered; /* false: it came whole, and got no reply or a refusal */
};

/* How many messages were taken with a 250. */
size_t sink_count(struct sink *s);
/* All that came whole, answered or not. */
size_t sink_whole(struct sink *s);
/* The n-th whole one, or NULL; lives until sink_close(). */
const struct sink_message *sink_message(struct sink *s, size_t n);
size_t sink_connections(struct sink *s);
/* The most that were open at one time. */
size_t sink_peak(struct sink *s);
/* Recipients taken in all. */
size_t sink_recipients(struct sink *s);

#endif

/* tests/unit/intake/rig.h - the intake role in this process, on loopback, with a client in a
 * thread.
 *
 *	rig_run(&(struct rig_setup){ .config = "...", .client = talk });
 *
 * The role runs until the client is done, drains and stops; what it kept is then read back.
 */
#ifndef TESTS_UNIT_INTAKE_RIG_H
#define TESTS_UNIT_INTAKE_RIG_H

#include "unit/unit.h"

#include "relayd/mail/envelope.h"
#include "relayd/supervisor/role.h"

#include <relayd/filter.h>

struct rig;

/* What the client thread does its talking with. */
struct chat {
	int fd;
	char line[2000]; /* the last reply's last line */
	char in[65536];
	size_t len;
};

struct rig_setup {
	const char *config; /* behind hostname, spool, state and the listener mx */
	void (*client)(struct rig *rig);
	bool release;                        /* review_uid is ours, else nobody's */
	const struct filter *const *filters; /* NULL: none */
};

struct rig_message {
	struct envelope env;
	struct slice body;
	char *copy; /* the first copy, edits applied; NUL-terminated */
};

/* Runs it; afterwards the messages kept are in rig_kept, the log in rig_log. */
void rig_run(const struct rig_setup *setup);
extern struct rig_message rig_kept[100];
extern size_t rig_n_kept;
/* What it logged. */
extern char rig_log[100000];

/* In the client thread: */
struct chat *chat_open(struct rig *rig, const char *listener);
void chat_close(struct chat *c);
/* Sends bytes as they are. */
void chat_send(struct chat *c, const char *bytes);
/* The next reply, all its lines, starts like this; it ends the test otherwise. */
void chat_expect(struct chat *c, const char *start);
/* A line and its reply. */
void chat_ask(struct chat *c, const char *line, const char *start);
/* The server has hung up. */
void chat_expect_end(struct chat *c);
/* Loads the config again, with this text instead; waits until it is in force. */
void rig_reload(struct rig *rig, const char *config);
/* Has the role drain. */
void rig_drain(struct rig *rig);
/* Files of the rig's folder, to be named in the config as @DIR@/name. */
void rig_file(const char *name, const char *text);

#endif

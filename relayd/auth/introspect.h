/* relayd/auth/introspect.h - asks the command of the config whose an OAuth token is.
 *
 * A role that has locked itself in can start nothing any more.  So before it does, it starts an
 * agent: a process of its own that knows one command and runs it, once for each connection that is
 * handed to it, with that connection as standard input and output.  The agent ends when the role
 * does.  There is one for the process, for life.
 *
 * The command reads the token, one line, to the end of its input, and writes an introspection
 * response (RFC 7662 section 2.2; auth/oauth.h) to its output.  Past the deadline it is killed.
 */
#ifndef RELAYD_AUTH_INTROSPECT_H
#define RELAYD_AUTH_INTROSPECT_H

#include "relayd/auth/oauth.h"
#include "relayd/auth/users.h"

#include <uv.h>

#define INTROSPECT_POOL_MAX     2  /* commands that run at one time, for one loop */
#define INTROSPECT_QUEUE_MAX    64 /* checks that wait; over it ERR_BUSY */
#define INTROSPECT_ANSWER_MAX   (64u << 10)
#define INTROSPECT_TOKEN_MAX    12288
/* How relayd is started as the agent: the option, the command, milliseconds; on this descriptor. */
#define INTROSPECT_AGENT_OPTION "--introspect-agent"
#define INTROSPECT_AGENT_FD     3

/* Starts the agent: before the sandbox, and before any thread. */
int introspect_open(const char *command, uint32_t timeout_ms, struct err *err);
/* The command that it was started with, or NULL when there is no agent. */
const char *introspect_command(void);
/* The agent, from main(): serves fd until it ends, then exits. */
_Noreturn void introspect_agent(int fd, const char *command, unsigned timeout_ms);

/* Owned by the caller until done has run. */
struct introspect_check {
	void (*done)(struct introspect_check *check);
	enum oauth_verdict verdict;
	char name[USERS_NAME_MAX + 1]; /* with OAUTH_ACTIVE: as the response has it */

	/* private */
	uv_work_t work;
	uv_loop_t *loop;
	struct introspect_check *next;
	bool cancelled;
	char *token;
};

/* Copies the token.  done runs once, from the loop, never inside this call; -1 with ERR_BUSY when
 * too many wait, ERR_NOT_FOUND without an agent. */
int introspect_check_start(
    uv_loop_t *loop, struct introspect_check *check, struct slice token, struct err *err);
/* done still runs once, with OAUTH_UNKNOWN. */
void introspect_check_cancel(struct introspect_check *check);

#endif

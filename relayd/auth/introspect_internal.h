/* relayd/auth/introspect_internal.h - what introspect.c and introspect_agent.c share. */
#ifndef RELAYD_AUTH_INTROSPECT_INTERNAL_H
#define RELAYD_AUTH_INTROSPECT_INTERNAL_H

#include "relayd/core/buf.h"

/* Asks the agent and waits for all of the answer; false past the deadline.  For the pool. */
bool introspect_ask(const char *token, struct buf *answer);

#endif

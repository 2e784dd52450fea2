/* relayd/delivery/control.h - the queue in the admin's hands: JSON lines on RUN/delivery.sock.
 *
 * A request is an object with "op" (net/control.h); the answer is lines of objects and {"ok":true},
 * or {"error":"..."}.
 *
 *	{"op":"status"}
 *		{"role":"delivery","messages":n,"recipients":n,"deferred":n,"bytes":n,"oldest_s":n,
 *		 "connections":n,"attempts":n,"ready":bool,"journal":"ok"|"failing"}
 *		then for each next hop that something waits for, or is sent to:
 *		{"nexthop":"...","state":"up"|"down","jobs":n,"waiting":n,"connections":n,
 *		 "usual_ms":n,"next_s":n,"why":"..."}	next_s and why only when it is down
 *	{"op":"queue.list"[,"domain":"example.org"][,"state":"active"|"deferred"|"held"]}
 *		a message a line, oldest first:
 *		{"id":"...","age_s":n,"size":n,"from":"...","recipients":["..."],"state":"...",
 *		 "attempts":n,"next_s":n,"why":"..."}
 *		recipients: those still open, at most 100, then "more":n; next_s: the earliest; active: it
 *		is being sent or next in line; a message whose next hop is down is deferred
 *	{"op":"queue.show","id":"..."}
 *		the line of queue.list with "received", "client", "helo", "user", "listener" and "origin",
 *		then for each open recipient
 *		{"to":"...","nexthop":"...","state":"...","attempts":n,"next_s":n,"why":"..."}
 *	{"op":"queue.body","id":"..."}
 *		{"base64":"..."} as often as needed: the message as it was received
 *	{"op":"queue.retry","id":"..."} or {"op":"queue.retry","domain":"..."}
 *		{"retried":n}: messages that are tried now, with their next hops
 *	{"op":"queue.flush"}
 *		{"retried":n}: the same for all
 *	{"op":"queue.drop","id":"..."}
 *		{"dropped":1}: nothing more is sent; what is on its way now may still arrive
 *
 * "domain" fits recipients at that domain, any case.
 */
#ifndef RELAYD_DELIVERY_CONTROL_H
#define RELAYD_DELIVERY_CONTROL_H

#include "relayd/core/err.h"

#include <sys/types.h>

struct delivery;

/* Serves a listening descriptor, which stays the caller's; other: a uid to let in, or -1. */
int delivery_control(struct delivery *d, int fd, uid_t other, struct err *err);

#endif

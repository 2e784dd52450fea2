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
 *		 "usual_ms":n,"next_s":n,"why":"...","waits_for":"..."}
 *		next_s and why only when it is down; waits_for: the limit that it waits for, if any
 *	{"op":"top"[,"limit":n]}
 *		the first line of status, then the next hops with most to do, at most limit (20):
 *		the line of status with "oldest_s":n,"rate":n (transactions a minute),"sent":n,
 *		"error":"..." (the last); then {"more":n} where some were left out; then the
 *		providers of the config with something to do, and hosts found by MX that some next
 *		hop waits for:
 *		{"provider" or "host":"...","connections":n,"max":n,"rate":n,
 *		 "lack_connection":n,"wait_for_rate":n}	next hops; rate: of a provider
 *	{"op":"queue.list"[,WHICH]}
 *		a message a line, oldest first, of those that were there when it began:
 *		{"id":"...","age_s":n,"size":n,"from":"...","recipients":["..."],"state":"...",
 *		 "attempts":n,"next_s":n,"why":"...","via":"..."}
 *		recipients: those still open, at most 100, then "more":n; next_s: the earliest;
 *		active: it is being sent or next in line; a message whose next hop is down is
 *		deferred; via: only where it was rerouted.  One whose record is damaged has
 *		"damaged":true, no "from" and no "recipients", and fits no predicate that needs
 *		them; it can be dropped, and no more
 *	{"op":"queue.show","id":"..."}
 *		the line of queue.list with "received", "client", "helo", "user", "listener" and
 *		"origin", then for each open recipient
 *		{"to":"...","nexthop":"...","state":"...","attempts":n,"next_s":n,"why":"...",
 *		 "dialogue":["C: ...","S: ..."]}
 *		dialogue: of the attempt that deferred it last
 *	{"op":"queue.body","id":"..."}
 *		{"base64":"..."} as often as needed: the message as it was received
 *	{"op":"queue.count"[,WHICH]}
 *		{"matched":n}
 *	{"op":"queue.retry","id":"..."} or {"op":"queue.retry",WHICH}, and so for all that follow
 *		{"retried":n}: messages that are tried now, with their next hops; not those held
 *	{"op":"queue.flush"}
 *		{"retried":n}: the same for all
 *	{"op":"queue.hold",...}
 *		{"held":n}: not sent before they are let go, also after a restart; none expires
 *	{"op":"queue.unhold",...}
 *		{"unheld":n}: in line again
 *	{"op":"queue.drop",...}
 *		{"dropped":n}: nothing more is sent; what is on its way now may still arrive
 *	{"op":"queue.bounce",...}
 *		{"bounced":n}: as if the next hop had refused them for good, but for what is on its
 *		way
 *	{"op":"queue.reroute",...,"to":"HOST[,HOST]"|"routes"}
 *		{"rerouted":n}: by these next hops instead of the routes, also after a restart; with
 *		the TLS that their routes ask for; "routes": by the routes again
 *
 * WHICH is any of these, and a message fits all that are given: "domain" (of an open recipient;
 * "*.x": below x), "sender" (an address, a domain, or "<>"), "age_s" and "size" (at least so much),
 * "state", "reason" (a part of why, in any case).
 */
#ifndef RELAYD_DELIVERY_CONTROL_H
#define RELAYD_DELIVERY_CONTROL_H

#include "relayd/core/err.h"

#include <sys/types.h>

struct delivery;

/* Serves a listening descriptor, which stays the caller's; other: a uid to let in, or -1. */
int delivery_control(struct delivery *d, int fd, uid_t other, struct err *err);

#endif

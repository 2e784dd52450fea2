/* relayd/review/control.h - the quarantine in the admin's hands: JSON lines on RUN/review.sock.
 *
 * A request is an object with "op" (net/control.h); the answer is lines of objects and {"ok":true},
 * or {"error":"..."}.
 *
 *	{"op":"status"}
 *		{"role":"review","held":n,"store":"ok"|"failing"}
 *	{"op":"quarantine.list"[,"state":"held"|"releasing"|"released"|"dropped"|"all"]}
 *		an item a line, newest first; without state what is held or being released:
 *		{"id":"...","stored":"2026-03-02T10:15:42.123Z","age_s":n,"size":n,"from":"...",
 *		 "header_from":"...","subject":"...","verdict":"...","score":"...","findings":"...",
 *		 "state":"...","recipients":["..."]}
 *		from: the reverse-path; header_from and subject decoded; state: held when it is for
 *		one recipient, else releasing, released, dropped; recipients: at most 100, then
 *		"more":n
 *	{"op":"quarantine.show","id":"..."}
 *		the same with "client" and "helo", "header" (a list of the original's fields,
 *		decoded), and as recipients a list of
 *		{"to":"...","state":"...","user":"...","asked":"...","done":"...","reply":"..."}
 *		user: who released or dropped it, asked: when; done and reply: what became of the
 *		release
 *	{"op":"quarantine.release","id":"..."[,"user":"..."]}
 *		{"released":n}: recipients whose release is now certain
 *	{"op":"quarantine.drop","id":"..."[,"user":"..."]}
 *		{"dropped":n}
 *
 * An id is that of the message.  It can stand for several items: the same message held twice, each
 * time for other recipients; all of them are meant.
 */
#ifndef RELAYD_REVIEW_CONTROL_H
#define RELAYD_REVIEW_CONTROL_H

#include "relayd/review/store.h"

struct review_control;

/* Serves a listening descriptor, which stays the caller's; other: a uid to let in, or -1. */
struct review_control *review_control_open(
    uv_loop_t *loop, int fd, uid_t other, struct store *store, struct err *err);
/* No new requests; run the loop until review_control_is_idle(), then free it. */
void review_control_close(struct review_control *ctl);
bool review_control_is_idle(const struct review_control *ctl);
void review_control_free(struct review_control *ctl); /* accepts NULL */

#endif

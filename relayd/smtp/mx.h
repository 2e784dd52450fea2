/* relayd/smtp/mx.h - the order in which the mail exchangers of a domain are tried.
 *
 * RFC 5321 section 5.1: by preference, equal ones in random order, and none at or behind
 * ourselves; RFC 7505: a lone "." says that the domain takes no mail.
 */
#ifndef RELAYD_SMTP_MX_H
#define RELAYD_SMTP_MX_H

#include "relayd/core/slice.h"

#define MX_HOSTS_MAX 20 /* of a domain that are looked at; the best of a longer list */

struct mx_host {
	struct slice name; /* without the final dot */
	uint16_t preference;
};

enum mx_verdict {
	MX_HOSTS,    /* v[0 .. *n) in the order to try */
	MX_IMPLICIT, /* no records: the domain itself (section 5.1, "implicit MX") */
	MX_NULL,     /* the domain takes no mail: 5.1.10 */
	MX_LOOP,     /* we are the best exchanger ourselves: 5.4.6 */
};

/* Sorts v in place and shortens it.  draw: a random number, for the order of equals. */
enum mx_verdict mx_order(
    struct mx_host *v, size_t *n, struct slice hostname, uint32_t (*draw)(void *arg), void *arg);

#endif

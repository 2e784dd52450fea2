/* relayd/core/err.h - what went wrong: a code for the program, a sentence for the operator.
 *
 * What can fail returns 0 or -1 (or a pointer or NULL) and fills a struct err.  Callers branch
 * on code, logs print msg, sys is the errno where there was one.
 */
#ifndef RELAYD_CORE_ERR_H
#define RELAYD_CORE_ERR_H

#include <stdbool.h>

enum err_code {
	ERR_NONE,
	ERR_SYS,	/* a system call failed; sys says how */
	ERR_NOMEM,
	ERR_LIMIT,	/* over a limit that has a name */
	ERR_FORMAT,	/* bytes that are not what they should be */
	ERR_CONFIG,	/* the config or a file that it names is wrong; msg starts with FILE:LINE */
	ERR_NOT_FOUND,
	ERR_EXISTS,
	ERR_DENIED,
	ERR_BUSY,	/* somebody else owns it now */
	ERR_FULL,	/* the disk, or what is reserved of it */
	ERR_DAMAGED,	/* a checksum does not fit */
	ERR_VERSION,	/* written by a newer relayd */
	ERR_TIMEOUT,
	ERR_CLOSED,	/* the peer is gone */
	ERR_TLS,
	ERR_PROTOCOL,	/* the peer broke the protocol */
	ERR_CANCELLED,
};

struct err {
	enum err_code code;
	int sys;
	char msg[256];
};

/* Both fill *err (which may be NULL) and return -1.  The format never takes a secret. */
int err_set(struct err *err, enum err_code code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Appends ": strerror(sys)" to the sentence; ENOSPC and EDQUOT become ERR_FULL. */
int err_sys(struct err *err, int sys, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Puts "context: " in front of err->msg; keeps code and sys.  Returns -1. */
int err_prefix(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* "limit", "damaged", ...: the value of why= in a log event. */
const char *err_code_name(enum err_code code);

#endif

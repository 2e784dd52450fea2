/* relayd/core/err.c - what went wrong: a code for the program, a sentence for the operator. */
#include "relayd/core/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int
err_set(struct err *err, enum err_code code, const char *fmt, ...)
{
	va_list ap;

	if (err == NULL)
		return -1;
	err->code = code;
	err->sys = 0;
	va_start(ap, fmt);
	(void)vsnprintf(err->msg, sizeof(err->msg), fmt, ap);	/* cut short is good enough */
	va_end(ap);
	return -1;
}

int
err_sys(struct err *err, int sys, const char *fmt, ...)
{
	size_t used;
	va_list ap;

	if (err == NULL)
		return -1;
	err->code = sys == ENOSPC || sys == EDQUOT ? ERR_FULL : sys == ENOMEM ? ERR_NOMEM : ERR_SYS;
	err->sys = sys;
	va_start(ap, fmt);
	(void)vsnprintf(err->msg, sizeof(err->msg), fmt, ap);	/* cut short is good enough */
	va_end(ap);
	used = strlen(err->msg);
	(void)snprintf(err->msg + used, sizeof(err->msg) - used, ": %s", strerror(sys));
	return -1;
}

int
err_prefix(struct err *err, const char *fmt, ...)
{
	char old[sizeof(err->msg)];
	size_t used;
	va_list ap;

	if (err == NULL)
		return -1;
	memcpy(old, err->msg, sizeof(old));
	va_start(ap, fmt);
	(void)vsnprintf(err->msg, sizeof(err->msg), fmt, ap);	/* cut short is good enough */
	va_end(ap);
	used = strlen(err->msg);
	(void)snprintf(err->msg + used, sizeof(err->msg) - used, ": %s", old);
	return -1;
}

const char *
err_code_name(enum err_code code)
{
	static const char *const names[] = {
		[ERR_NONE] = "none",
		[ERR_SYS] = "system",
		[ERR_NOMEM] = "memory",
		[ERR_LIMIT] = "limit",
		[ERR_FORMAT] = "format",
		[ERR_CONFIG] = "config",
		[ERR_NOT_FOUND] = "not-found",
		[ERR_EXISTS] = "exists",
		[ERR_DENIED] = "denied",
		[ERR_BUSY] = "busy",
		[ERR_FULL] = "full",
		[ERR_DAMAGED] = "damaged",
		[ERR_VERSION] = "version",
		[ERR_TIMEOUT] = "timeout",
		[ERR_CLOSED] = "closed",
		[ERR_TLS] = "tls",
		[ERR_PROTOCOL] = "protocol",
		[ERR_CANCELLED] = "cancelled",
	};

	return names[code];
}

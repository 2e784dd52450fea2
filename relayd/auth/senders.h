/* relayd/auth/senders.h - the file that says who may use which reverse-path.
 *
 *	# comment
 *	user address|@domain|* ...
 *
 * A user may have many lines.  Letters are compared without their case.  The null reverse-path is
 * everybody's: notifications are sent with it (RFC 8098 section 3).
 */
#ifndef RELAYD_AUTH_SENDERS_H
#define RELAYD_AUTH_SENDERS_H

#include "relayd/core/err.h"
#include "relayd/core/slice.h"

#define SENDERS_FILE_MAX (256u << 20)

struct senders;

/* Reads the bytes of the file, which are copied.  NULL with *err: ERR_CONFIG, "path:LINE: what is
 * wrong". */
struct senders *senders_parse(struct slice bytes, const char *path, struct err *err);
void senders_free(struct senders *s);
/* Entries, one a user and address. */
size_t senders_count(const struct senders *s);
/* mailbox: of a reverse-path, or empty for the null one. */
bool senders_allow(const struct senders *s, struct slice user, struct slice mailbox);

#endif

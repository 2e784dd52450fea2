/* relayd/auth/keytab.h - the Kerberos keys of the service, for GSSAPI.
 *
 * A role opens no key path: it has the bytes with the config, and shows them to the Kerberos
 * library as a file in memory.  There is one for the process, for life.
 */
#ifndef RELAYD_AUTH_KEYTAB_H
#define RELAYD_AUTH_KEYTAB_H

#include "relayd/core/err.h"
#include "relayd/core/slice.h"

/* Before any thread.  The replay cache (RFC 4120 section 3.2.3) is a file in dir, which the role
 * may write. */
int keytab_open(struct slice bytes, const char *dir, struct err *err);
/* Other keys from now on; ERR_NOT_FOUND when none were opened at the start. */
int keytab_replace(struct slice bytes, struct err *err);
bool keytab_is_open(void);

#endif

/* relayd/pipeline/facts/directory.h - asks an LDAP directory whether a recipient exists.
 *
 * One thread and one connection a directory, both made when first needed.  What waits is asked at
 * once, search behind search; answers are remembered for the lifetimes of the config.  A directory
 * that cannot be reached fails all that waits.
 */
#ifndef RELAYD_PIPELINE_FACTS_DIRECTORY_H
#define RELAYD_PIPELINE_FACTS_DIRECTORY_H

#include "relayd/core/config.h"
#include "relayd/core/err.h"
#include "relayd/mail/address.h"

#include <uv.h>

#define DIRECTORY_DOWN_MS     1000  /* trouble with an address is remembered */
#define DIRECTORY_BATCH_MAX   100   /* searches on their way */
#define DIRECTORY_WAITING_MAX 10000 /* questions; more are unreachable at once */
#define DIRECTORY_CACHE       8192  /* answers remembered */
#define DIRECTORY_FILTER_MAX  4096  /* bytes of a search filter */

struct directory;
struct directory_question;

enum directory_outcome {
	DIRECTORY_KNOWN, /* an entry fits the filter */
	DIRECTORY_UNKNOWN,
	DIRECTORY_UNREACHABLE, /* no connection, no bind, no answer, or an error: temporary */
	DIRECTORY_CANCELLED,
};

/* A request: done runs exactly once, from the loop, never inside directory_ask_start(). */
struct directory_query {
	void (*done)(struct directory_query *q, enum directory_outcome outcome);

	struct directory_question *question; /* private */
};

/* conf is one of cfg, which it holds on to.  NULL when out of memory. */
struct directory *directory_open(
    uv_loop_t *loop, const struct config *cfg, const struct config_ldap *conf, struct err *err);
/* What waits is answered DIRECTORY_CANCELLED from the loop; the memory goes when its thread has
 * ended, which may take as long as a search.  Accepts NULL. */
void directory_close(struct directory *d);

/* Asks for the address, and, where separator is not 0, for it without its extension too.  -1 with
 * *err: ERR_LIMIT, ERR_NOMEM or ERR_SYS. */
int directory_ask_start(struct directory *d, struct directory_query *q,
    const struct address *mailbox, char separator, struct err *err);
/* done comes when the search has ended, with DIRECTORY_CANCELLED. */
void directory_ask_cancel(struct directory_query *q);
/* What is remembered; false where nothing is. */
bool directory_cached(struct directory *d, const struct address *mailbox, char separator,
    enum directory_outcome *outcome);

/* Appends the search filter, its values escaped as RFC 4515 section 3 says; for the tests. */
void directory_filter(
    struct buf *out, const char *filter, const struct address *mailbox, char separator);

#endif

/* relayd/intake/recipients_load.h - the recipients of all routes of a config, read in the pool.
 *
 * A million lines take a good part of a second, in which the loop has mail to answer.  A file that
 * several routes name is read once; one that did not change since the old generation is not read
 * again.
 */
#ifndef RELAYD_INTAKE_RECIPIENTS_LOAD_H
#define RELAYD_INTAKE_RECIPIENTS_LOAD_H

#include "relayd/intake/recipients.h"

#include <uv.h>

/* The tables of a config; counted, by one loop. */
struct recipients_tables {
	unsigned refs;
	struct config *cfg;    /* a reference */
	struct recipients **v; /* by route, each a reference; NULL where they are not a file's */
};

/* A request: done runs once, from the loop. */
struct recipients_load {
	void (*done)(struct recipients_load *load);
	struct recipients_tables *tables; /* the result, to be taken; NULL: err says why */
	struct err err;

	uv_work_t work; /* private from here on */
	struct recipients_tables *made;
};

/* All at once, for who has no mail to answer.  NULL with *err: ERR_CONFIG, "FILE:LINE: what is
 * wrong". */
struct recipients_tables *recipients_tables_new(const struct config *cfg, struct err *err);
void recipients_tables_unref(struct recipients_tables *t); /* accepts NULL */

/* old are those in use.  Where nothing has to be read, *ready is the result and done never runs.
 * -1 with *err: out of memory. */
int recipients_load_start(uv_loop_t *loop, struct recipients_load *load, const struct config *cfg,
    struct recipients_tables *old, struct recipients_tables **ready, struct err *err);

#endif

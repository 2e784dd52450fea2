/* relayd/pipeline/scan.h - the filters over one message that is only looked at: relayctl scan.
 *
 * All stages run as for a real client; counters are never taken, nothing is traced or logged.
 */
#ifndef RELAYD_PIPELINE_SCAN_H
#define RELAYD_PIPELINE_SCAN_H

#include "relayd/pipeline/pipeline.h"

struct pipeline_scan {
	/* set by the caller, borrowed until done */
	struct pipeline *pipeline;
	struct facts *facts;
	struct slice ip; /* as text; empty: 127.0.0.1 */
	struct slice helo, reverse_path;
	const struct slice *forward_paths; /* none: postmaster of the first domain */
	size_t n_forward_paths;
	struct slice message;
	void (*done)(struct pipeline_scan *scan);

	/* the result, until pipeline_scan_fini() */
	const char *verdict; /* as in struct pipeline_run */
	const char *check;
	double score;
	struct slice findings;
	struct slice json; /* all of it, with the trace, as one object */

	void *work; /* private */
};

/* done runs once, from the loop, never inside this call.  -1 with *err: it never does (an ip that
 * is none, out of memory). */
int pipeline_scan_start(struct pipeline_scan *scan, struct err *err);
void pipeline_scan_fini(struct pipeline_scan *scan);

#endif

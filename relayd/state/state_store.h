/* relayd/state/state_store.h - the LMDB file behind the state; private to relayd/state.
 *
 * DIR/state.mdb, shared by the workers of a machine.  Only write transactions, so that no reader
 * can be left behind.  Opened once a process (an LMDB rule).  Used by one thread.
 *
 * Trust: as long as no machine stops under it, LMDB without sync is whole, whoever is killed.
 * DIR/state.mark says in which boot it was last opened, or that it was synced and closed: a store
 * of another boot that was not closed starts empty.  So does a damaged one, one of a newer relayd,
 * and a full one.
 */
#ifndef RELAYD_STATE_STATE_STORE_H
#define RELAYD_STATE_STATE_STORE_H

#include "relayd/state/state.h"

#define STORE_VERSION 1

struct store;

/* said: filled with a sentence for the log when the store had to start empty, else "". */
#define STORE_SAID_BYTES 256
struct store *state_store_open(
    const char *dir, uint64_t map_bytes, char said[static STORE_SAID_BYTES], struct err *err);
void state_store_close(struct store *st);
/* Answers a list of requests in one transaction: each has its result or err.  now_us: wall
 * clock. */
void state_store_run(struct store *st, struct state_request *list, int64_t now_us,
    char said[static STORE_SAID_BYTES]);
/* Entries that are there, expired ones not yet swept among them. */
uint64_t state_store_entries(struct store *st);

#endif

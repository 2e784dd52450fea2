/* relayd/spool/table.h - an intrusive hash table: the link lives in what is found. */
#ifndef RELAYD_SPOOL_TABLE_H
#define RELAYD_SPOOL_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct table_link {
	struct table_link *next;
	uint64_t hash;
};

struct table {
	struct table_link **heads; /* a power of two of them */
	size_t n_heads, n;
};

void table_fini(struct table *t); /* the links are their owners' */
/* Adds link under hash; false when out of memory and the table was empty. */
bool table_add(struct table *t, struct table_link *link, uint64_t hash);
void table_remove(struct table *t, struct table_link *link);
/* Walks the links of one hash: first with at NULL, then with the last answer; NULL at the end. */
struct table_link *table_next(const struct table *t, uint64_t hash, const struct table_link *at);
/* Calls each with every link, which it may free but not add to. */
void table_each(
    const struct table *t, void (*each)(void *data, struct table_link *link), void *data);

#endif

/* relayd/core/id.h - the one id of a message or session: 128 bits of time and random.
 *
 * Its text is 26 characters of base32 in lower case (RFC 4648 section 6, no padding).  Texts
 * sort by the millisecond they were made in, but correctness never depends on that.
 */
#ifndef RELAYD_CORE_ID_H
#define RELAYD_CORE_ID_H

#include "relayd/core/slice.h"

#define ID_TEXT_LEN 26

struct id {
	uint8_t bytes[16];	/* 48 bits of wall clock in ms, then 80 of random */
};

struct id id_new(void);
/* Derived from an id and a label, always the same: the bounce of a message and attempt. */
struct id id_derive(struct id from, struct slice label);
/* Writes ID_TEXT_LEN characters and a NUL. */
void id_text(struct id id, char out[static ID_TEXT_LEN + 1]);
/* False when text is not an id, in either case of letters. */
bool id_parse(struct slice text, struct id *out);
int64_t id_wall_ms(struct id id);

static inline bool
id_eq(struct id a, struct id b)
{
	return memcmp(a.bytes, b.bytes, sizeof(a.bytes)) == 0;
}

#endif

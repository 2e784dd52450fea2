/* relayd/core/config_section.h - a section of the config while it is read; for config*.c alone.
 *
 * The readers return -1 with *err telling file, line, option, value and what was expected.
 */
#ifndef RELAYD_CORE_CONFIG_SECTION_H
#define RELAYD_CORE_CONFIG_SECTION_H

#include "relayd/core/config_load.h"

#include <confuse.h>

/* A section while it is read; the lines of its options are known by section and title. */
struct section {
	struct config_all *all;
	cfg_t *cfg;
	const char *name, *title; /* "" at the top */
	struct err *err;
};

/* The n-th section of that name. */
struct section section_of(const struct section *root, const char *name, unsigned n);
/* Of an option, or of the section where the option is not said. */
int section_line(const struct section *s, const char *option);
int section_wrong(
    const struct section *s, const char *option, const char *value, const char *expected);
/* A copy that lives as long as the config; NULL for NULL, or out of memory. */
const char *section_keep(const struct section *s, const char *text);
/* The same in lower case, and a domain in A-labels (RFC 5890), as mail for it is looked up. */
const char *section_keep_lower(const struct section *s, const char *text);

int section_string(const struct section *s, const char *option, const char **out);
int section_list(
    const struct section *s, const char *option, bool lower, struct config_strings *out);
int section_duration(const struct section *s, const char *option, uint32_t *out);
int section_duration_ms(const struct section *s, const char *option, uint32_t *out);
int section_bytes(const struct section *s, const char *option, uint64_t *out);
int section_count(const struct section *s, const char *option, uint32_t *out);
int section_flag(const struct section *s, const char *option, bool *out);
/* "any" is 0, UINT32_MAX, and a pace of 0. */
int section_any_count(const struct section *s, const char *option, uint32_t *out);
int section_any_duration(const struct section *s, const char *option, uint32_t *out);
int section_any_pace(const struct section *s, const char *option, struct config_pace *out);
/* Addresses and networks. */
int section_networks(
    const struct section *s, const char *option, struct cidr **networks, size_t *count);
/* A limit of its own, at least 1; *out stays as it is where there is none. */
int section_own_count(const struct section *s, const char *option, uint32_t *out);
/* So many in so many seconds ("100/1m"); both stay as they are where there is none. */
int section_rate(const struct section *s, const char *option, uint32_t *n, uint32_t *seconds);
/* bytes, which message-size says, is in range. */
int section_message_size(const struct section *s, uint64_t bytes);
/* The text of "help". */
int section_help(const struct section *s, const char **out);
/* What "mechanisms" and "without-tls" say, else what *m has already. */
int section_mechanisms(const struct section *s, struct config_mechanisms *m);
/* One of the words; *out is its place among them. */
int section_word(
    const struct section *s, const char *option, const char *const *words, size_t n, int *out);
#define SECTION_WORD(s, option, out, ...)                                                          \
	section_word(s, option, (const char *const[]){ __VA_ARGS__ },                              \
	    ARRAY_LEN(((const char *const[]){ __VA_ARGS__ })), out)

#endif

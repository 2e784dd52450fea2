/* relayd/core/config_source.h - where the bytes of the config and its files come from.
 *
 * From the disk, or from a snapshot of what somebody else read from it.  All bytes stay where they
 * are until the source is freed; keys are wiped then.
 */
#ifndef RELAYD_CORE_CONFIG_SOURCE_H
#define RELAYD_CORE_CONFIG_SOURCE_H

#include "relayd/core/config.h"

struct buf;

/* ERR_SYS and a sentence that names path; ERR_NOT_FOUND when a snapshot does not have it. */
int config_source_read(struct config_source *src, const char *path, struct slice *bytes,
    struct err *err);
/* Calls each for the paths that fit the pattern, sorted; no path is no error. */
typedef int (*config_source_each)(void *arg, const char *path, struct err *err);
int config_source_glob(struct config_source *src, const char *pattern, config_source_each each,
    void *arg, struct err *err);
/* A source that has what config_source_keep() puts into it, copied, and reads other paths from the
 * disk; patterns fit only what it was given. */
struct config_source *config_source_renewed(void);
int config_source_keep(struct config_source *src, const char *path, struct slice bytes);
/* False: keys and the users file were held back. */
bool config_source_secrets(const struct config_source *src);

/* A snapshot that has it, secrets or not. */
bool config_source_has(const struct config_source *src, const char *path);
/* The file is on the disk, and others than its owner may read or write it. */
bool config_source_is_open(const struct config_source *src, const char *path);

/* The snapshot: begin once, then put each file. */
void config_source_begin_snapshot(struct buf *out, bool secrets);
/* The same with the config's generation, so that a role need not digest 30 MB of recipients
 * again. */
void config_source_begin_numbered(struct buf *out, bool secrets, uint32_t generation);
/* That number; 0: there is none. */
uint32_t config_source_generation(const struct config_source *src);
void config_source_put(struct buf *out, const char *path, struct slice bytes);

#endif

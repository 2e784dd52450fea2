/* relayd/core/config_outline.h - which option of which section stands on which line of the config.
 *
 * libconfuse gives values but forgets lines, and takes a repeated option or section silently.
 * The outline is read from the same text: it knows both.  It expects text that libconfuse took.
 */
#ifndef RELAYD_CORE_CONFIG_OUTLINE_H
#define RELAYD_CORE_CONFIG_OUTLINE_H

#include "relayd/core/arena.h"
#include "relayd/core/err.h"

struct config_outline;

/* Puts blanks where comments are, so that libconfuse counts lines right: it counts those of
 * comments twice. Returns the line of a comment that is not closed (it would hide the rest of the
 * config), or 0. */
int config_outline_blank(char *text, size_t len);
/* Reads text; NULL with *err (ERR_CONFIG, msg "LINE: ...", or ERR_LIMIT) when an option or a
 * section is given twice.  Allocates from the arena and keeps slices into text. */
struct config_outline *config_outline_read(struct slice text, struct arena *arena, struct err *err);
/* The line of an option ("" for the section itself; title "" where it has none), or 0. */
int config_outline_line(const struct config_outline *outline, const char *section,
    const char *title, const char *option);
/* The options of a section in the order written: the index-th one's name, NULL past the last. */
const char *config_outline_option(const struct config_outline *outline, const char *section,
    const char *title, size_t index);

#endif

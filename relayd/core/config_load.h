/* relayd/core/config_load.h - a config while it is being built; for config*.c alone. */
#ifndef RELAYD_CORE_CONFIG_LOAD_H
#define RELAYD_CORE_CONFIG_LOAD_H

#include "relayd/core/config.h"
#include "relayd/core/config_outline.h"

#define CONFIG_WARNINGS_MAX 64

struct config_all {
	struct config pub;
	unsigned refs;
	struct arena arena;
	struct config_source *src;
	struct config_outline *outline;
	const char *warnings[CONFIG_WARNINGS_MAX];
	size_t n_warnings;
};

struct cfg_t;
/* Fills all->pub from what libconfuse parsed out of text. */
int config_load_values(struct config_all *all, struct slice text, struct err *err);
/* What spans several sections: domains have routes, listeners have certificates, ... */
int config_check(struct config_all *all, struct err *err);

/* config.c: so that config_route_for() need not look at all routes. */
int config_index_routes(struct config_all *all, struct err *err);

/* config_tls.c: the files of the tls section are there, fit each other, and have not expired. */
int config_check_tls(struct config_all *all, struct err *err);

/* "FILE:LINE: text", the line being that of an option (or section, or file); returns -1. */
int config_fail(const struct config_all *all, struct err *err, int line, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
void config_warn(struct config_all *all, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Reads a file that the config names and adds it to all->pub.files. */
int config_add_file(
    struct config_all *all, const char *path, bool secret, int line, struct err *err);
/* The same, and has it read again when it changes. */
int config_add_watched(
    struct config_all *all, const char *path, bool secret, int line, struct err *err);

/* The password for a next hop, which delivery gets too; nobody but its owner may read the file. */
int config_add_outbound(struct config_all *all, const char *path, int line, struct err *err);

#endif

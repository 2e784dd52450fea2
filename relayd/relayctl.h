/* relayd/relayctl.h - what the commands of relayctl share; for relayctl*.c alone. */
#ifndef RELAYD_RELAYCTL_H
#define RELAYD_RELAYCTL_H

#include "relayd/core/config.h"
#include "relayd/supervisor/role.h"

#include <jansson.h>

#define CTL_TIMEOUT_MS 30000

enum ctl_exit { CTL_DONE, CTL_FAILED, CTL_USAGE };

struct ctl {
	const char *config_path;
	bool json;
	struct config *cfg;	/* without secrets; loaded by ctl_config() */
};

/* A command: argv[0] is its last word.  Returns an enum ctl_exit; what is wrong has been said. */
typedef int (*ctl_command)(struct ctl *ctl, int argc, char **argv);

/* Loads the config, saying what is wrong.  NULL on failure. */
const struct config *ctl_config(struct ctl *ctl);
/* "relayctl: ..." on standard error, one line; returns CTL_FAILED. */
int ctl_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int ctl_usage(const char *text);	/* returns CTL_USAGE */
/* The same, behind what is wrong. */
int ctl_wrong(const char *usage, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* CTL_DONE for what looks like an id; else says so, CTL_FAILED. */
int ctl_check_id(const char *text);

/* Sends a request (taken over) to RUN/NAME.sock and hands each line to on_line, which may be NULL.
 * Returns an enum ctl_exit. */
int ctl_request(struct ctl *ctl, const char *name, json_t *request,
    void (*on_line)(struct ctl *ctl, json_t *line, void *arg), void *arg);
/* The same without a word about a failure. */
int ctl_try_request(struct ctl *ctl, const char *name, json_t *request,
    void (*on_line)(struct ctl *ctl, json_t *line, void *arg), void *arg);
/* on_line for --json: the object as it is, one line. */
void ctl_print_json(json_t *line);
/* Text from outside, made safe for a terminal, cut to width characters (0: no limit). */
void ctl_print_safe(const char *text, size_t width);
/* The member as text; "" where there is none. */
const char *ctl_text(const json_t *line, const char *name);
/* "3m", "2h", "5d": a length of time, short. */
void ctl_age(int64_t seconds, char out[static 16]);

/* A member that is a number; 0 where there is none. */
int64_t ctl_number(const json_t *line, const char *name);
/* The first of a list of texts, and how many more; beyond: those that are not in it. */
void ctl_print_list(const json_t *list, int64_t beyond);
/* For ctl_request(): "name value" a line, lists one element a line. */
void ctl_print_members(struct ctl *ctl, json_t *line, void *arg);
/* The member that arg names: "3 dropped". */
void ctl_print_count(struct ctl *ctl, json_t *line, void *arg);
/* {"op":op,"id":id}; id may be NULL. */
json_t *ctl_request_of(const char *op, const char *id);

int ctl_status(struct ctl *ctl, int argc, char **argv);
int ctl_top(struct ctl *ctl, int argc, char **argv);
int ctl_check(struct ctl *ctl, int argc, char **argv);
int ctl_reload(struct ctl *ctl, int argc, char **argv);
int ctl_upgrade(struct ctl *ctl, int argc, char **argv);
int ctl_stop(struct ctl *ctl, int argc, char **argv);
int ctl_metrics(struct ctl *ctl, int argc, char **argv);
int ctl_queue(struct ctl *ctl, int argc, char **argv);
int ctl_quarantine(struct ctl *ctl, int argc, char **argv);
int ctl_trace(struct ctl *ctl, int argc, char **argv);
int ctl_spool(struct ctl *ctl, int argc, char **argv);
int ctl_scan(struct ctl *ctl, int argc, char **argv);
int ctl_user(struct ctl *ctl, int argc, char **argv);

#endif

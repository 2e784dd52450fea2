/* relayd/supervisor/supervisor.h - binds, starts, restarts, reloads and ends the roles; parses no
 * mail. */
#ifndef RELAYD_SUPERVISOR_SUPERVISOR_H
#define RELAYD_SUPERVISOR_SUPERVISOR_H

#include "relayd/supervisor/check.h"

/* Runs until SIGTERM, SIGINT or `relayctl stop`; the exit status of relayd.  What is wrong goes to
 * standard error, one line.  upgrade_fd: what another supervisor handed over as it became this one
 * by exec (supervisor/upgrade.h), or -1. */
int supervisor_run(const char *config_path, check_config check, int upgrade_fd);

/* The control socket RUN/control.sock (net/control.h) takes
 *	{"op":"reload"}		ends when every role has answered; lines {"warning":"..."} before
 *	{"op":"upgrade"}	becomes the program that now stands where this one came from; ends
 *				just before, with a line {"upgrades":N}
 *	{"op":"upgraded"}	ends when all roles serve, with a line
 *				{"upgrades":N,"version":...,"pid":N}
 *	{"op":"stop"}		ends when the drain has begun
 *	{"op":"status"}		a line a process: {"role","index","pid","state"} */

#endif

/* relayd/net/dns_channel.h - c-ares on a loop: its sockets watched, its clock driven; for
 * net/dns.c. */
#ifndef RELAYD_NET_DNS_CHANNEL_H
#define RELAYD_NET_DNS_CHANNEL_H

#include "relayd/net/dns.h"

#include <ares.h>

struct dns_channel;

/* timeout_ms is for all tries together.  NULL with *err. */
struct dns_channel *dns_channel_open(
    uv_loop_t *loop, const struct dns_options *options, uint32_t timeout_ms, struct err *err);
/* Ends every question with ARES_EDESTRUCTION before it returns; the memory goes with the loop's
 * next round.  Accepts NULL. */
void dns_channel_close(struct dns_channel *ch);
/* done may run before this returns. */
void dns_channel_ask(
    struct dns_channel *ch, const char *name, int type, ares_callback done, void *arg);
/* To be called every now and then while a question is on its way: c-ares tries again, or gives
 * up. */
void dns_channel_tick(struct dns_channel *ch);

#endif

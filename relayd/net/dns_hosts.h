/* relayd/net/dns_hosts.h - the hosts file, read once: names that an admin gave to addresses. */
#ifndef RELAYD_NET_DNS_HOSTS_H
#define RELAYD_NET_DNS_HOSTS_H

#include "relayd/net/dns.h"

#define DNS_HOSTS_BYTES (256u << 10) /* of the file that are looked at */

struct dns_hosts;

/* NULL when there is none: then nothing is found. */
struct dns_hosts *dns_hosts_read(const char *path);
void dns_hosts_free(struct dns_hosts *hosts);
/* Addresses of name, DNS_A or DNS_AAAA, at most max; hosts may be NULL. */
size_t dns_hosts_find(const struct dns_hosts *hosts, enum dns_type type, struct slice name,
    struct dns_record *records, size_t max);

#endif

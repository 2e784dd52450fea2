/* relayd/smtp/nexthop.c - what a route's "to" says, and the addresses that it leads to. */
#include "relayd/smtp/nexthop.h"

#include <arpa/inet.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <sys/un.h>

/* ---- the form ------------------------------------------------------------------------------- */

static bool
is_host_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '.' || c == '_';
}

static bool
is_host_name(struct slice name)
{
	for (size_t i = 0; i < name.len; i++)
		if (!is_host_char(name.p[i]))
			return false;
	return name.len > 0 && name.len <= DNS_NAME_MAX && name.p[0] != '.';
}

static int
parse_path(const char *text, struct slice path, struct nexthop *hop, struct err *err)
{
	if (path.len >= sizeof(((struct sockaddr_un *)0)->sun_path) ||
	    path.len >= sizeof(hop->path))
		return err_set(err, ERR_CONFIG,
		    "%s: the path of a unix socket has at most %zu bytes", text,
		    sizeof(hop->path) - 1);
	memcpy(hop->path, path.p, path.len);
	return 0;
}

static int
parse_host(const char *text, struct slice host, struct nexthop *hop, struct err *err)
{
	struct cidr addr;
	bool brackets = slice_starts(host, SLICE("[")) && slice_ends(host, SLICE("]"));

	if (brackets) {
		host = slice_head(slice_drop(host, 1), host.len - 2);
		if (slice_has(host, '/') || !slice_has(host, ':') || !cidr_parse(host, &addr))
			return err_set(
			    err, ERR_CONFIG, "%s: no IPv6 address in the brackets", text);
	} else if (!is_host_name(host)) {
		return err_set(err, ERR_CONFIG, "%s: no host name", text);
	}
	memcpy(hop->host, host.p, host.len);
	return 0;
}

/* " priority=10 weight=3" */
static int
parse_options(const char *text, struct slice rest, struct nexthop *hop, struct err *err)
{
	while ((rest = slice_trim(rest)).len > 0) {
		struct slice word = slice_until(rest, ' ');
		struct slice name = slice_until(word, '='), value = slice_drop(word, name.len + 1);
		uint16_t *out = slice_eq(name, SLICE("priority")) ? &hop->priority
				: slice_eq(name, SLICE("weight")) ? &hop->weight
								  : NULL;
		uint64_t n;

		rest = slice_drop(rest, word.len);
		if (out == NULL || !slice_u64(value, 1000, &n) || n == 0)
			return err_set(err, ERR_CONFIG,
			    "%s: expected priority=N or weight=N, 1 to 1000, behind the host",
			    text);
		*out = (uint16_t)n;
	}
	return 0;
}

int
nexthop_parse(const char *text, struct nexthop *hop, struct err *err)
{
	struct slice rest = slice_until(slice_str(text), ' '), host;
	const char *colon;
	uint64_t port;

	*hop = (struct nexthop){ .port = 25, .weight = 1 };
	if (parse_options(text, slice_drop(slice_str(text), rest.len), hop, err) < 0)
		return -1;
	if (slice_eq(rest, SLICE("mx"))) {
		hop->mx = true;
		return 0;
	}
	hop->lmtp = slice_starts(rest, SLICE("lmtp:"));
	hop->implicit_tls = slice_starts(rest, SLICE("smtps:"));
	if (hop->lmtp || slice_starts(rest, SLICE("smtp:")))
		rest = slice_drop(rest, 5);
	if (hop->implicit_tls)
		rest = slice_drop(rest, 6);
	else if (slice_starts(rest, SLICE("/")))
		return parse_path(text, rest, hop, err);
	colon = rest.len > 0 ? memrchr(rest.p, ':', rest.len) : NULL;
	if (colon == NULL)
		return err_set(err, ERR_CONFIG,
		    "%s: not HOST:PORT, smtps:HOST:PORT, lmtp:HOST:PORT, lmtp:/PATH or mx", text);
	host = slice_head(rest, (size_t)(colon - rest.p));
	if (!slice_u64(slice_drop(rest, host.len + 1), UINT16_MAX, &port) || port == 0)
		return err_set(
		    err, ERR_CONFIG, "%s: no port from 1 to 65535 behind the last colon", text);
	hop->port = (uint16_t)port;
	return parse_host(text, host, hop, err);
}

int
nexthop_mx(struct nexthop *hop, struct slice domain, struct err *err)
{
	*hop = (struct nexthop){ .mx = true, .port = 25, .weight = 1 };
	(void)slice_chop(&domain, ".");
	if (!is_host_name(domain))
		return err_set(
		    err, ERR_FORMAT, "%.*s: no domain name", SLICE_FMT(slice_head(domain, 100)));
	memcpy(hop->host, domain.p, domain.len);
	return 0;
}

/* ---- the answer ----------------------------------------------------------------------------- */

static struct sockaddr_storage
socket_address(const struct nexthop_resolve *req, const struct cidr *ip)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(req->hop.port) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(req->hop.port) };
	struct sockaddr_storage out = { 0 };

	if (ip->len == 4) {
		memcpy(&in.sin_addr, ip->addr, 4);
		memcpy(&out, &in, sizeof(in));
	} else {
		memcpy(&in6.sin6_addr, ip->addr, 16);
		memcpy(&out, &in6, sizeof(in6));
	}
	return out;
}

static void
add_address(struct nexthop_resolve *req, const struct cidr *ip, const char *host)
{
	if (req->n == NEXTHOP_ADDRESSES_MAX)
		return;
	req->addresses[req->n++] =
	    (struct nexthop_address){ .addr = socket_address(req, ip), .host = host };
}

static bool
any_is_ours(const struct nexthop_resolve *req, const struct cidr *ips, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct sockaddr_storage addr = socket_address(req, &ips[i]);

		if (req->is_ours(req->owner, (struct sockaddr *)&addr))
			return true;
	}
	return false;
}

/* RFC 5321 section 5.1: where an exchange is ourselves, by whatever name, what is at its preference
 * or behind it would bring the message back. */
static void
leave_ours_out(struct nexthop_resolve *req)
{
	unsigned limit = UINT16_MAX + 1u;
	size_t n = 0;

	for (size_t i = 0; i < req->n_hosts; i++) {
		const struct nexthop_host *host = &req->hosts[i];

		if (host->preference < limit && (any_is_ours(req, host->v6, host->n_v6) ||
						    any_is_ours(req, host->v4, host->n_v4)))
			limit = host->preference;
	}
	while (n < req->n_hosts && req->hosts[n].preference < limit)
		n++; /* they are in order */
	req->loop = req->loop || (n == 0 && req->n_hosts > 0);
	req->n_hosts = n;
}

static void
add_path(struct nexthop_resolve *req)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };

	memcpy(un.sun_path, req->hop.path, strlen(req->hop.path));
	memcpy(&req->addresses[0].addr, &un, sizeof(un));
	req->addresses[0].host = "localhost";
	req->n = 1;
}

static int
verdict(struct nexthop_resolve *req, struct err *err)
{
	const char *name = req->hop.host;

	if (req->hop.mx && req->is_ours != NULL && !req->cancelled)
		leave_ours_out(req);
	for (size_t i = 0; i < req->n_hosts; i++) {
		struct nexthop_host *host = &req->hosts[i];

		for (size_t k = 0; k < host->n_v6; k++)
			add_address(req, &host->v6[k], host->name);
		for (size_t k = 0; k < host->n_v4; k++)
			add_address(req, &host->v4[k], host->name);
	}
	if (req->cancelled)
		return err_set(err, ERR_CANCELLED, "cancelled");
	if (req->n > 0)
		return 0;
	if (req->null_mx)
		return err_set(err, ERR_NOT_FOUND, "%s takes no mail (null MX)", name);
	if (req->loop)
		return err_set(
		    err, ERR_NOT_FOUND, "the best mail exchange of %s is this host itself", name);
	if (req->timed_out)
		return err_set(err, ERR_TIMEOUT, "%s: no answer from the DNS", name);
	if (req->failed)
		return err_set(err, ERR_SYS, "%s: the DNS failed", name);
	if (req->by_mx)
		return err_set(err, ERR_SYS, "%s: its mail exchanges have no addresses", name);
	return err_set(
	    err, ERR_NOT_FOUND, "%s: %s", name, req->missing ? "no such host" : "no address");
}

static void
finish(struct nexthop_resolve *req)
{
	struct err err = { 0 };
	int rc = verdict(req, &err);

	if (rc < 0)
		req->n = 0;
	req->busy = false;
	round_unmark(req->round, &req->work);
	round_unref(req->round);
	req->done(req, rc < 0 ? &err : NULL);
}

static void
finish_from_loop(struct round_task *task)
{
	finish(container_of(task, struct nexthop_resolve, work));
}

/* The callbacks of requests run from the loop, so the last of them may end ours. */
static void
answered(struct nexthop_resolve *req)
{
	if (--req->waiting == 0)
		finish(req);
}

/* ---- hosts ---------------------------------------------------------------------------------- */

static void
note_failure(struct nexthop_resolve *req, enum dns_status status)
{
	req->timed_out = req->timed_out || status == DNS_TIMEOUT;
	req->failed = req->failed || status == DNS_SERVFAIL;
	req->missing = req->missing || status == DNS_NXDOMAIN;
	req->cancelled = req->cancelled || status == DNS_CANCELLED;
}

static size_t
take_addresses(struct cidr out[static NEXTHOP_PER_HOST], const struct dns_record *records, size_t n)
{
	n = n < NEXTHOP_PER_HOST ? n : NEXTHOP_PER_HOST;
	for (size_t i = 0; i < n; i++) {
		out[i] = (struct cidr){ .len = (uint8_t)records[i].data.len,
			.bits = (uint8_t)(records[i].data.len * 8) };
		memcpy(out[i].addr, records[i].data.p, records[i].data.len);
	}
	return n;
}

static void
on_a(struct dns_query *q, const struct dns_answer *answer)
{
	struct nexthop_host *host = q->owner;

	note_failure(host->req, answer->status);
	host->n_v4 = take_addresses(host->v4, answer->records, answer->n);
	answered(host->req);
}

static void
on_aaaa(struct dns_query *q, const struct dns_answer *answer)
{
	struct nexthop_host *host = q->owner;

	note_failure(host->req, answer->status);
	host->n_v6 = take_addresses(host->v6, answer->records, answer->n);
	answered(host->req);
}

static void
ask(struct nexthop_host *host, struct dns_query *q, enum dns_type type)
{
	struct nexthop_resolve *req = host->req;
	struct err err = { 0 };

	q->owner = host;
	q->done = type == DNS_A ? on_a : on_aaaa;
	if (dns_query_start(req->dns, q, type, slice_str(host->name), &err) == 0)
		req->waiting++;
	else
		note_failure(req, err.code == ERR_FORMAT ? DNS_NXDOMAIN : DNS_SERVFAIL);
}

static bool
is_known(struct nexthop_host *host)
{
	struct dns_record records[NEXTHOP_PER_HOST];
	struct slice name = slice_str(host->name);

	if (!slice_has(name, '/') && cidr_parse(name, &host->v4[0])) {
		host->n_v4 = 1; /* of either family: there is only this one */
		return true;
	}
	host->n_v6 = take_addresses(host->v6, records,
	    dns_hosts(host->req->dns, DNS_AAAA, name, records, NEXTHOP_PER_HOST));
	host->n_v4 = take_addresses(
	    host->v4, records, dns_hosts(host->req->dns, DNS_A, name, records, NEXTHOP_PER_HOST));
	if (host->n_v4 + host->n_v6 > 0)
		return true;
	if (slice_ieq(name, SLICE("localhost"))) /* RFC 6761 section 6.3 */
		host->n_v4 = cidr_parse(SLICE("127.0.0.1"), &host->v4[0]) ? 1 : 0;
	return host->n_v4 > 0;
}

static void
add_host(struct nexthop_resolve *req, struct slice name, uint16_t preference)
{
	struct nexthop_host *host = &req->hosts[req->n_hosts];

	if (req->n_hosts == NEXTHOP_HOSTS_MAX || name.len >= sizeof(host->name))
		return;
	req->n_hosts++;
	host->req = req;
	host->preference = preference;
	memcpy(host->name, name.p, name.len);
	host->name[name.len] = '\0';
	if (is_known(host))
		return;
	ask(host, &host->aaaa, DNS_AAAA);
	ask(host, &host->a, DNS_A);
}

/* ---- exchanges ------------------------------------------------------------------------------ */

static uint32_t
draw(void *arg)
{
	uint32_t n = 0;

	(void)arg;
	(void)RAND_bytes(
	    (unsigned char *)&n, sizeof(n)); /* without: no order among equals, no harm */
	return n;
}

static void
use_exchanges(struct nexthop_resolve *req, const struct dns_answer *answer)
{
	struct mx_host hosts[DNS_RECORDS_MAX];
	size_t n = answer->n;

	for (size_t i = 0; i < n; i++)
		hosts[i] = (struct mx_host){ .name = answer->records[i].data,
			.preference = answer->records[i].preference };
	switch (mx_order(hosts, &n, slice_str(req->hostname), draw, NULL)) {
	case MX_HOSTS:
		req->by_mx = true;
		for (size_t i = 0; i < n; i++)
			add_host(req, hosts[i].name, hosts[i].preference);
		break;
	case MX_IMPLICIT:
		add_host(req, slice_str(req->hop.host), 0);
		break;
	case MX_NULL:
		req->null_mx = true;
		break;
	case MX_LOOP:
		req->loop = true;
		break;
	}
}

static void
on_mx(struct dns_query *q, const struct dns_answer *answer)
{
	struct nexthop_resolve *req = q->owner;

	note_failure(req, answer->status);
	if (answer->status <= DNS_NODATA)
		use_exchanges(req, answer);
	answered(req);
}

static int
ask_for_exchanges(struct nexthop_resolve *req, struct err *err)
{
	req->mx = (struct dns_query){ .done = on_mx, .owner = req };
	if (dns_query_start(req->dns, &req->mx, DNS_MX, slice_str(req->hop.host), err) < 0)
		return -1;
	req->waiting++;
	return 0;
}

int
nexthop_resolve_start(
    struct dns *dns, struct nexthop_resolve *req, const struct nexthop *hop, struct err *err)
{
	if (hop->mx && hop->host[0] == '\0')
		return err_set(err, ERR_CONFIG, "mx: the domain is not known");
	req->round = round_ref(dns_loop(dns));
	if (req->round == NULL)
		return err_set(err, ERR_NOMEM, "out of memory");
	req->hop = *hop;
	req->dns = dns;
	req->n = req->n_hosts = req->waiting = 0;
	req->by_mx = req->missing = req->timed_out = req->failed = req->cancelled = false;
	req->null_mx = req->loop = false;
	req->work = (struct round_task){ .run = finish_from_loop };
	if (hop->path[0] != '\0')
		add_path(req);
	else if (!hop->mx)
		add_host(req, slice_str(hop->host), 0);
	else if (ask_for_exchanges(req, err) < 0) {
		round_unref(req->round);
		return -1;
	}
	req->busy = true;
	if (req->waiting == 0)
		round_mark(req->round, &req->work, ROUND_WORK);
	return 0;
}

void
nexthop_resolve_cancel(struct nexthop_resolve *req)
{
	if (!req->busy)
		return;
	req->cancelled = true;
	dns_query_cancel(&req->mx);
	for (size_t i = 0; i < req->n_hosts; i++) {
		dns_query_cancel(&req->hosts[i].a);
		dns_query_cancel(&req->hosts[i].aaaa);
	}
}

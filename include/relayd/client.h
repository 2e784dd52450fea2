/* relayd/client.h - what filters of the client's address share: its names in the DNS, and what is
 * remembered of it. */
#ifndef RELAYD_CLIENT_H
#define RELAYD_CLIENT_H

#include <relayd/filter.h>

#include <stdio.h>

#define CLIENT_REVERSED_MAX 64  /* 32 nibbles with their dots */
#define CLIENT_NAME_BYTES   254 /* RFC 1035 section 2.3.4, as text, with a NUL */
#define CLIENT_NAMES_MAX    8   /* of one address: more are not looked at */

/* "2.0.0.127" (RFC 5782 section 2.1), nibbles for IPv6 (section 2.4). */
static inline void
client_reversed(struct slice addr, char out[CLIENT_REVERSED_MAX])
{
	size_t at = 0;

	out[0] = '\0';
	for (size_t i = addr.len; i-- > 0;) {
		unsigned byte = (uint8_t)addr.p[i];
		const char *dot = i > 0 ? "." : "";

		if (addr.len == 4)
			at +=
			    (size_t)snprintf(out + at, CLIENT_REVERSED_MAX - at, "%u%s", byte, dot);
		else
			at += (size_t)snprintf(out + at, CLIENT_REVERSED_MAX - at, "%x.%x%s",
			    byte & 15, byte >> 4, dot);
	}
}

enum client_reverse {
	CLIENT_CONFIRMED,   /* the address has a name, and the name that address */
	CLIENT_UNCONFIRMED, /* it has a name, but none leads back (RFC 1912 section 2.1) */
	CLIENT_NAMELESS,    /* there is no PTR */
	CLIENT_UNKNOWN,     /* the DNS did not answer */
	CLIENT_ASKED,       /* FILTER_WAIT */
};

static inline bool
client_has(const struct fact *addresses, struct slice addr)
{
	for (size_t i = 0; i < addresses->n; i++)
		if (slice_eq(addresses->values[i].bytes, addr))
			return true;
	return false;
}

/* Forward-confirmed reverse DNS (RFC 8601 section 2.7.3); *name is the name that was confirmed, or
 * the first, or empty. */
static inline enum client_reverse
client_reverse(struct filter_tx *tx, struct slice *name)
{
	const struct filter_session *s = filter_session(tx);
	const struct fact *names = filter_fact(tx, FACT_DNS_PTR, s->client_ip);
	bool waits = false, unknown = false;

	*name = SLICE("");
	if (names == NULL)
		return CLIENT_ASKED;
	if (names->state != FACT_OK)
		return names->state == FACT_NONE ? CLIENT_NAMELESS : CLIENT_UNKNOWN;
	*name = names->n > 0 ? names->values[0].bytes : SLICE("");
	for (size_t i = 0; i < names->n && i < CLIENT_NAMES_MAX; i++) {
		const struct fact *back = filter_fact(tx,
		    s->client_addr.len == 4 ? FACT_DNS_A : FACT_DNS_AAAA, names->values[i].bytes);

		if (back == NULL) {
			waits = true;
		} else if (client_has(back, s->client_addr)) {
			*name = names->values[i].bytes;
			return CLIENT_CONFIRMED;
		} else {
			unknown = unknown || back->state == FACT_FAILED;
		}
	}
	if (waits)
		return CLIENT_ASKED;
	return unknown ? CLIENT_UNKNOWN : CLIENT_UNCONFIRMED;
}

enum client_listing { CLIENT_LISTED, CLIENT_NOT_LISTED, CLIENT_NOT_SAID, CLIENT_LOOKED_UP };

/* What a DNS list says about the client (RFC 5782).  An answer in 127.0.0.0/8 that fits() is a
 * listing; fits NULL: any.  127.255.255.0/24 is how lists in use say that the question itself was
 * refused (over a quota, through an open resolver).  LOOKED_UP: FILTER_WAIT. */
static inline enum client_listing
client_listing(struct filter_tx *tx, const char *reversed, const char *zone,
    bool (*fits)(const void *arg, struct slice addr), const void *arg)
{
	enum client_listing found = CLIENT_NOT_LISTED;
	char name[CLIENT_NAME_BYTES + CLIENT_REVERSED_MAX];
	const struct fact *answer;

	(void)snprintf(name, sizeof(name), "%s.%s", reversed, zone); /* too long: never found */
	answer = filter_fact(tx, FACT_DNS_A, slice_str(name));
	if (answer == NULL)
		return CLIENT_LOOKED_UP;
	if (answer->state == FACT_FAILED || answer->state == FACT_SKIPPED)
		return CLIENT_NOT_SAID;
	for (size_t i = 0; i < answer->n; i++) {
		struct slice a = answer->values[i].bytes;

		if (a.len != 4 || a.p[0] != 127)
			continue; /* somebody answers everything with an address of theirs */
		if (memcmp(a.p, "\x7f\xff\xff", 3) == 0)
			found = CLIENT_NOT_SAID;
		else if (fits == NULL || fits(arg, a))
			return CLIENT_LISTED;
	}
	return found;
}

#define CLIENT_MARK_BYTES 160

/* "600 rdns=1.2.0.192": the name of FACT_SEEN and FACT_MARK for what the workers remember of this
 * client for so many seconds.  what is short: at most 60 bytes. */
static inline struct slice
client_mark(
    struct filter_tx *tx, uint32_t seconds, const char *what, char out[CLIENT_MARK_BYTES])
{
	char reversed[CLIENT_REVERSED_MAX];
	int n;

	client_reversed(filter_session(tx)->client_addr, reversed);
	n = snprintf(out, CLIENT_MARK_BYTES, "%u %s=%s", seconds, what, reversed);
	return slice_of(out, (size_t)n);
}

static inline bool
client_is_zone(struct slice s)
{
	if (s.len == 0 || s.len > CLIENT_NAME_BYTES - 1 - CLIENT_REVERSED_MAX || s.p[0] == '.')
		return false;
	for (size_t i = 0; i < s.len; i++)
		if (memchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.",
			s.p[i], 65) == NULL)
			return false;
	return true;
}

#endif

/* relayd/net/dns_parse.c - a DNS message as an answer: bytes in, records out, no I/O. */
#include "relayd/net/dns_parse.h"

#include <ares.h>
#include <arpa/nameser.h>

#define CNAMES_MAX 16 /* of a chain */

struct record {
	char *name; /* ares_free_string() */
	unsigned type;
	uint32_t ttl;
	struct slice data; /* within the message, as names in it may point anywhere */
};

/* A cursor over the records of one message. */
struct walk {
	struct slice message;
	size_t at;
};

int
dns_type_number(enum dns_type type)
{
	static const int numbers[] = {
		[DNS_A] = ns_t_a,
		[DNS_AAAA] = ns_t_aaaa,
		[DNS_TXT] = ns_t_txt,
		[DNS_MX] = ns_t_mx,
		[DNS_PTR] = ns_t_ptr,
	};

	return numbers[type];
}

static unsigned
get16(const char *p)
{
	return (unsigned)(unsigned char)p[0] << 8 | (unsigned char)p[1];
}

static uint32_t
get32(const char *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

/* The name at p of message, decompressed; *len is what it takes there.  NULL: malformed. */
static char *
name_at(struct slice message, const char *p, size_t *len)
{
	char *name = NULL;
	long encoded;

	if (ares_expand_name((const unsigned char *)p, (const unsigned char *)message.p,
		(int)message.len, &name, &encoded) != ARES_SUCCESS)
		return NULL;
	*len = (size_t)encoded;
	return name;
}

static bool
next_record(struct walk *w, struct record *out)
{
	size_t len, left;
	const char *p;

	if (w->at >= w->message.len)
		return false;
	out->name = name_at(w->message, w->message.p + w->at, &len);
	if (out->name == NULL)
		return false;
	left = w->message.len - w->at;
	p = w->message.p + w->at + len;
	if (left < len + 10 || left - len - 10 < get16(p + 8)) {
		ares_free_string(out->name);
		return false;
	}
	out->type = get16(p);
	out->ttl = get32(p + 4);
	out->ttl = out->ttl > INT32_MAX ? 0 : out->ttl; /* RFC 2181 section 8 */
	out->data = slice_of(p + 10, get16(p + 8));
	w->at += len + 10 + out->data.len;
	return true;
}

/* Past header and question; false: none. */
static bool
begin(struct slice message, struct walk *w)
{
	size_t len;
	char *name;

	if (message.len < HFIXEDSZ || get16(message.p + 4) != 1)
		return false;
	name = name_at(message, message.p + HFIXEDSZ, &len);
	if (name == NULL)
		return false;
	ares_free_string(name);
	*w = (struct walk){ .message = message, .at = HFIXEDSZ + len + QFIXEDSZ };
	return w->at <= message.len;
}

/* ---- the data of one record ----------------------------------------------------------------- */

/* Appends to out->data; false when there is no room. */
static bool
put(struct dns_parsed *out, struct slice bytes)
{
	if (bytes.len > sizeof(out->data) - out->used)
		return false;
	memcpy(out->data + out->used, bytes.p, bytes.len);
	out->used += bytes.len;
	return true;
}

static bool
put_name(struct dns_parsed *out, struct slice message, const char *p)
{
	size_t len, start = out->used;
	char *name = name_at(message, p, &len);
	bool fits;

	if (name == NULL)
		return false;
	fits = put(out, name[0] != '\0' ? slice_str(name) : SLICE("."));
	ares_free_string(name);
	for (size_t i = start; i < out->used; i++)
		out->data[i] = slice_lower(out->data[i]);
	return fits;
}

/* The strings of a TXT record without anything between them (RFC 7208 section 3.3). */
static bool
put_strings(struct dns_parsed *out, struct slice data)
{
	while (data.len > 0) {
		struct slice string = slice_head(slice_drop(data, 1), (unsigned char)data.p[0]);

		if (string.len != (unsigned char)data.p[0] || !put(out, string))
			return false;
		data = slice_drop(data, 1 + string.len);
	}
	return true;
}

static bool
put_data(struct dns_parsed *out, const struct record *r, enum dns_type type, struct slice message)
{
	switch (type) {
	case DNS_A:
		return r->data.len == 4 && put(out, r->data);
	case DNS_AAAA:
		return r->data.len == 16 && put(out, r->data);
	case DNS_TXT:
		return put_strings(out, r->data);
	case DNS_MX:
		return r->data.len > 2 && put_name(out, message, r->data.p + 2);
	case DNS_PTR:
		return r->data.len > 0 && put_name(out, message, r->data.p);
	}
	return false;
}

/* In order of preference; equal ones as they came. */
static void
add_record(struct dns_parsed *out, const struct record *r, enum dns_type type, struct slice message)
{
	struct dns_answer *answer = &out->answer;
	size_t start = out->used, at = answer->n;
	uint16_t preference = type == DNS_MX && r->data.len >= 2 ? (uint16_t)get16(r->data.p) : 0;

	if (answer->n == DNS_RECORDS_MAX || !put_data(out, r, type, message)) {
		out->used = start; /* malformed, or too much: the others still count */
		return;
	}
	for (; at > 0 && out->records[at - 1].preference > preference; at--)
		out->records[at] = out->records[at - 1];
	out->records[at] =
	    (struct dns_record){ .data = slice_of(out->data + start, out->used - start),
		    .preference = preference };
	answer->n++;
	answer->ttl_s = r->ttl < answer->ttl_s ? r->ttl : answer->ttl_s;
}

/* ---- the message ---------------------------------------------------------------------------- */

/* Where the answer's CNAME of name leads, in *target; its TTL lowers *ttl. */
static bool
follow(struct walk answers, unsigned n, const char *name, char target[static DNS_NAME_MAX + 2],
    uint32_t *ttl)
{
	struct record r;
	bool found = false;

	for (; !found && n > 0 && next_record(&answers, &r); n--) {
		size_t len;
		char *to = NULL;

		if (r.type == ns_t_cname && slice_ieq(slice_str(r.name), slice_str(name)))
			to = name_at(answers.message, r.data.p, &len);
		found = to != NULL && strlen(to) <= DNS_NAME_MAX;
		if (found) {
			memcpy(target, to, strlen(to) + 1);
			*ttl = r.ttl < *ttl ? r.ttl : *ttl;
		}
		if (to != NULL)
			ares_free_string(to);
		ares_free_string(r.name);
	}
	return found;
}

/* The end of the chain of aliases that starts at name; how many there are, CNAMES_MAX for a
 * loop. */
static int
canonical(struct walk answers, unsigned n, const char *name, char out[static DNS_NAME_MAX + 2],
    uint32_t *ttl)
{
	char next[DNS_NAME_MAX + 2];
	size_t len = strnlen(name, DNS_NAME_MAX + 1);

	memcpy(out, name, len);
	out[len] = '\0';
	for (int i = 0; i < CNAMES_MAX; i++) {
		if (!follow(answers, n, out, next, ttl))
			return i;
		memcpy(out, next, sizeof(next));
	}
	return CNAMES_MAX;
}

/* How long an absence may be believed, in *ttl: the SOA of the zone says (RFC 2308 section 5).
 * False: there is none. */
static bool
negative_ttl(struct walk *w, unsigned answers, unsigned authorities, uint32_t *ttl)
{
	bool found = false;
	struct record r;

	for (unsigned i = 0; i < answers + authorities && next_record(w, &r); i++) {
		if (i >= answers && r.type == ns_t_soa && r.data.len >= 4) {
			uint32_t minimum = get32(r.data.p + r.data.len - 4);

			*ttl = minimum < r.ttl ? minimum : r.ttl;
			*ttl = *ttl < DNS_NEGATIVE_MAX_S ? *ttl : DNS_NEGATIVE_MAX_S;
			found = true;
		}
		ares_free_string(r.name);
	}
	return found;
}

/* Nothing is there for owner, to which so many aliases led.  Without an SOA, the chain was not
 * followed to its end: the server does not recurse, or the chain leaves its zones (RFC 1034 section
 * 3.6.2). */
static void
absence(struct walk w, const unsigned counts[static 2], unsigned rcode, const char *owner,
    int aliases, struct dns_parsed *out)
{
	uint32_t chain_ttl_s = out->answer.ttl_s;

	out->answer.ttl_s = DNS_FAILURE_S;
	if (aliases == CNAMES_MAX)
		return; /* somebody is to mend that */
	if (!negative_ttl(&w, counts[0], counts[1], &out->answer.ttl_s) && rcode == ns_r_noerror &&
	    aliases > 0) {
		memcpy(out->alias, owner, strlen(owner) + 1);
		out->alias_ttl_s = chain_ttl_s;
		return;
	}
	out->answer.status = rcode == ns_r_nxdomain ? DNS_NXDOMAIN : DNS_NODATA;
}

static void
collect(struct walk w, unsigned n, enum dns_type type, const char *name, struct dns_parsed *out)
{
	struct record r;

	for (; n > 0 && next_record(&w, &r); n--) {
		if (r.type == (unsigned)dns_type_number(type) &&
		    slice_ieq(slice_str(r.name), slice_str(name)))
			add_record(out, &r, type, w.message);
		ares_free_string(r.name);
	}
}

void
dns_parse(struct slice message, enum dns_type type, const char *name, struct dns_parsed *out)
{
	char owner[DNS_NAME_MAX + 2];
	unsigned rcode, counts[2]; /* answers, authorities */
	int aliases;
	struct walk w;

	out->answer = (struct dns_answer){
		.status = DNS_SERVFAIL, .ttl_s = DNS_FAILURE_S, .records = out->records
	};
	out->alias[0] = '\0';
	out->used = 0;
	if (!begin(message, &w))
		return;
	rcode = (unsigned char)message.p[3] & 0x0f;
	counts[0] = get16(message.p + 6);
	counts[1] = get16(message.p + 8);
	if (rcode != ns_r_noerror && rcode != ns_r_nxdomain)
		return;
	out->answer.ttl_s = DNS_TTL_MAX_S;
	aliases = canonical(w, counts[0], name, owner, &out->answer.ttl_s);
	collect(w, counts[0], type, owner, out);
	if (out->answer.n > 0)
		out->answer.status = DNS_OK;
	else
		absence(w, counts, rcode, owner, aliases, out);
}

/* filters/spf/check.c - evaluates SPF records: mechanisms over facts, with the limits of the
 * RFC. */
#include "filters/spf/check.h"

#include <arpa/inet.h>
#include <stdio.h>

#define NIBBLES_TEXT_BYTES 64 /* "1.0.0. ... .2": 32 nibbles and 31 dots */

enum match {
	MATCH_NO,
	MATCH_YES,
	MATCH_TEMPERROR,
	MATCH_PERMERROR,
	MATCH_PENDING,
};

/* One run of check_host() and all that it includes. */
struct check {
	struct filter_tx *tx;
	struct spf_outcome *out;
	struct spf_macros values; /* domain and validated change on the way */
	struct slice addr;        /* 4 or 16 bytes */
	unsigned lookups, voids;
	struct slice exp; /* of the record that said fail; empty: none */
	char client[INET6_ADDRSTRLEN], address[NIBBLES_TEXT_BYTES], time_s[24];
};

static enum spf_result check_host(struct check *c, struct slice domain, bool included);

const char *
spf_result_name(enum spf_result result)
{
	static const char *const names[] = {
		[SPF_NONE] = "none",
		[SPF_NEUTRAL] = "neutral",
		[SPF_PASS] = "pass",
		[SPF_FAIL] = "fail",
		[SPF_SOFTFAIL] = "softfail",
		[SPF_TEMPERROR] = "temperror",
		[SPF_PERMERROR] = "permerror",
		[SPF_PENDING] = "pending",
	};

	return names[result];
}

/* Notes who decided, and by what; the last word counts. */
static void
explain(struct check *c, struct slice domain, struct slice subject, const char *what)
{
	char *why = c->out->why;

	(void)snprintf(c->out->domain, sizeof(c->out->domain), "%.*s", SLICE_FMT(domain));
	(void)snprintf(why, sizeof(c->out->why), "%.*s%s%s", SLICE_FMT(slice_head(subject, 80)),
	    subject.len > 0 && *what != '\0' ? " " : "", what);
	for (; *why != '\0'; why++)
		if (*why < ' ' || *why > '~')
			*why = '?';
}

/* ---- facts ----------------------------------------------------------------------------------- */

static bool
fact_failed(const struct fact *fact)
{
	return fact->state == FACT_FAILED || fact->state == FACT_SKIPPED;
}

static const struct fact *
ask_address(struct check *c, struct slice name)
{
	return filter_fact(c->tx, c->addr.len == 4 ? FACT_DNS_A : FACT_DNS_AAAA, name);
}

/* Counts an answer without data: section 4.6.4.  False past the limit. */
static bool
void_allowed(struct check *c, const struct fact *fact)
{
	return fact->n > 0 || ++c->voids <= SPF_VOIDS_MAX;
}

/* The start of each mechanism that asks DNS: NULL, and why in *match, where it ends here. */
static const struct fact *
ask_term(struct check *c, enum fact_kind kind, struct slice name, enum match *match)
{
	const struct fact *fact = filter_fact(c->tx, kind, name);

	if (fact == NULL)
		*match = MATCH_PENDING;
	else if (fact_failed(fact))
		*match = MATCH_TEMPERROR;
	else if (!void_allowed(c, fact))
		*match = MATCH_PERMERROR;
	else
		return fact;
	return NULL;
}

/* ---- addresses ------------------------------------------------------------------------------- */

static bool
in_network(struct slice addr, const void *network, unsigned bits)
{
	const unsigned char *a = (const unsigned char *)addr.p, *b = network;
	size_t whole = bits / 8;
	unsigned char mask = (unsigned char)(0xff00u >> (bits % 8));

	return memcmp(a, b, whole) == 0 && (mask == 0 || ((a[whole] ^ b[whole]) & mask) == 0);
}

static bool
has_client(const struct check *c, const struct fact *addresses, const struct spf_term *term)
{
	unsigned bits = c->addr.len == 4 ? term->bits4 : term->bits6;

	for (size_t i = 0; i < addresses->n; i++) {
		struct slice bytes = addresses->values[i].bytes;

		if (bytes.len == c->addr.len && in_network(c->addr, bytes.p, bits))
			return true;
	}
	return false;
}

/* ---- names ----------------------------------------------------------------------------------- */

/* name is domain, or stands below it; all names stand below an empty one. */
static bool
is_within(struct slice name, struct slice domain)
{
	if (domain.len == 0 || name.len == domain.len)
		return slice_iends(name, domain);
	return slice_iends(name, domain) && name.p[name.len - domain.len - 1] == '.';
}

/* Asks for the addresses of the first names of an answer, all at once.  False: some are missing. */
static bool
ask_hosts(struct check *c, const struct fact *names)
{
	bool known = true;

	for (size_t i = 0; i < names->n && i < SPF_NAMES_MAX; i++) {
		struct slice name = spf_name(names->values[i].bytes);

		known = (name.len == 0 || ask_address(c, name) != NULL) && known;
	}
	return known;
}

/* Finds a name of the client within domain whose addresses have the client (section 5.5); any name
 * where domain is empty.  A DNS error passes over a name.  False: facts are missing. */
static bool
validated_name(struct check *c, const struct fact *names, struct slice domain, struct slice *found)
{
	static const struct spf_term exact = { .bits4 = 32, .bits6 = 128 };

	*found = SLICE("");
	if (!ask_hosts(c, names))
		return false;
	for (size_t i = 0; i < names->n && i < SPF_NAMES_MAX; i++) {
		struct slice name = spf_name(names->values[i].bytes);

		if (name.len == 0 || !is_within(name, domain) ||
		    fact_failed(ask_address(c, name)) ||
		    !has_client(c, ask_address(c, name), &exact))
			continue;
		if (found->len == 0 || name.len == domain.len)
			*found = name;
		if (name.len == domain.len) /* the domain itself goes first: section 7.3 */
			break;
	}
	return true;
}

/* The value of the p macro: the domain, else a name below it, else any validated name. */
static bool
set_validated(struct check *c)
{
	const struct fact *names = filter_fact(c->tx, FACT_DNS_PTR, c->values.client);
	struct slice found = SLICE("");

	if (names == NULL)
		return false;
	if (!fact_failed(names) &&
	    (!validated_name(c, names, c->values.domain, &found) ||
		(found.len == 0 && !validated_name(c, names, SLICE(""), &found))))
		return false;
	c->values.validated = found.len > 0 ? found : SLICE("unknown");
	return true;
}

/* The target-name of a term (section 4.8) in *name, empty for one that cannot exist. */
static bool
target(struct check *c, struct slice spec, struct slice domain, char buf[static SPF_NAME_BYTES_MAX],
    struct slice *name)
{
	c->values.domain = domain;
	if (spec.len > 0 && spf_macro_uses(spec, 'p') && !set_validated(c))
		return false;
	*name = spec.len > 0 ? spf_domain_expand(spec, &c->values, buf) : domain;
	return true;
}

/* ---- mechanisms ------------------------------------------------------------------------------ */

static enum match
match_include(struct check *c, struct slice name)
{
	switch (check_host(c, name, true)) {
	case SPF_PASS:
		return MATCH_YES;
	case SPF_FAIL:
	case SPF_SOFTFAIL:
	case SPF_NEUTRAL:
		return MATCH_NO;
	case SPF_TEMPERROR:
		return MATCH_TEMPERROR;
	case SPF_PENDING:
		return MATCH_PENDING;
	default:
		return MATCH_PERMERROR; /* none, too: section 5.2 */
	}
}

static enum match
match_a(struct check *c, struct slice name, const struct spf_term *term)
{
	enum match match = MATCH_NO;
	const struct fact *found =
	    ask_term(c, c->addr.len == 4 ? FACT_DNS_A : FACT_DNS_AAAA, name, &match);

	return found != NULL && has_client(c, found, term) ? MATCH_YES : match;
}

static enum match
match_mx(struct check *c, struct slice domain, const struct spf_term *term)
{
	enum match match = MATCH_NO;
	const struct fact *hosts = ask_term(c, FACT_DNS_MX, domain, &match);

	if (hosts == NULL)
		return match;
	if (hosts->n > SPF_NAMES_MAX)
		return MATCH_PERMERROR;
	if (!ask_hosts(c, hosts))
		return MATCH_PENDING;
	for (size_t i = 0; i < hosts->n; i++) {
		struct slice name = spf_name(hosts->values[i].bytes);

		if (name.len == 0) /* "." of RFC 7505, or no name at all */
			continue;
		if (fact_failed(ask_address(c, name)))
			return MATCH_TEMPERROR;
		if (has_client(c, ask_address(c, name), term))
			return MATCH_YES;
	}
	return MATCH_NO;
}

static enum match
match_ptr(struct check *c, struct slice domain)
{
	enum match match = MATCH_NO;
	const struct fact *names = ask_term(c, FACT_DNS_PTR, c->values.client, &match);
	struct slice found;

	if (names == NULL) /* an error matches nothing here: section 5.5 */
		return match == MATCH_TEMPERROR ? MATCH_NO : match;
	if (!validated_name(c, names, domain, &found))
		return MATCH_PENDING;
	return found.len > 0 ? MATCH_YES : MATCH_NO;
}

static enum match
match_exists(struct check *c, struct slice name)
{
	enum match match = MATCH_NO;
	const struct fact *found = ask_term(c, FACT_DNS_A, name, &match);

	return found != NULL && found->n > 0 ? MATCH_YES : match;
}

/* A mechanism that asks DNS, after its target-name is known. */
static enum match
match_name(struct check *c, const struct spf_term *term, struct slice name)
{
	if (++c->lookups > SPF_LOOKUPS_MAX)
		return MATCH_PERMERROR;
	if (name.len == 0 && term->mechanism != SPF_MECHANISM_INCLUDE)
		return MATCH_NO; /* what cannot be asked for does not exist: section 4.8 */
	switch (term->mechanism) {
	case SPF_MECHANISM_INCLUDE:
		return match_include(c, name);
	case SPF_MECHANISM_A:
		return match_a(c, name, term);
	case SPF_MECHANISM_MX:
		return match_mx(c, name, term);
	case SPF_MECHANISM_PTR:
		return match_ptr(c, name);
	default:
		return match_exists(c, name);
	}
}

static enum match
match_term(struct check *c, const struct spf_term *term, struct slice domain)
{
	char buf[SPF_NAME_BYTES_MAX];
	struct slice name;

	switch (term->mechanism) {
	case SPF_MECHANISM_ALL:
		return MATCH_YES;
	case SPF_MECHANISM_IP4:
		return c->addr.len == 4 && in_network(c->addr, term->addr, term->bits4) ? MATCH_YES
											: MATCH_NO;
	case SPF_MECHANISM_IP6:
		return c->addr.len == 16 && in_network(c->addr, term->addr, term->bits6) ? MATCH_YES
											 : MATCH_NO;
	default:
		if (!target(c, term->domain, domain, buf, &name))
			return MATCH_PENDING;
		return match_name(c, term, name);
	}
}

/* ---- records --------------------------------------------------------------------------------- */

/* The one SPF record of a domain: sections 4.4 and 4.5. */
static enum spf_result
record_find(struct check *c, struct slice domain, struct slice *text)
{
	const struct fact *texts = filter_fact(c->tx, FACT_DNS_TXT, domain);
	bool found = false;

	if (texts == NULL)
		return SPF_PENDING;
	if (fact_failed(texts)) {
		explain(c, domain, SLICE(""), "no answer from DNS for the record");
		return SPF_TEMPERROR;
	}
	for (size_t i = 0; i < texts->n; i++) {
		if (!spf_record_is(texts->values[i].bytes))
			continue;
		if (found) {
			explain(c, domain, SLICE(""), "more than one record");
			return SPF_PERMERROR;
		}
		*text = texts->values[i].bytes;
		found = true;
	}
	return found ? SPF_PASS : SPF_NONE;
}

/* The end of an evaluation by a term: its result, or an error. */
static enum spf_result
ended_by(struct check *c, const struct spf_term *term, enum match match, struct slice domain)
{
	switch (match) {
	case MATCH_YES:
		explain(c, domain, term->text, "");
		return term->result;
	case MATCH_PENDING:
		return SPF_PENDING;
	case MATCH_TEMPERROR:
		if (term->mechanism != SPF_MECHANISM_INCLUDE)
			explain(c, domain, term->text, "got no answer from DNS");
		return SPF_TEMPERROR;
	default:
		if (c->lookups > SPF_LOOKUPS_MAX || c->voids > SPF_VOIDS_MAX)
			explain(c, domain, term->text, "is over the limit of lookups");
		else if (term->mechanism == SPF_MECHANISM_MX)
			explain(c, domain, term->text, "has too many hosts");
		return SPF_PERMERROR;
	}
}

/* redirect= stands in for the whole record: section 6.1. */
static enum spf_result
redirect(struct check *c, struct slice spec, struct slice domain, bool included)
{
	char buf[SPF_NAME_BYTES_MAX];
	enum spf_result result;
	struct slice name;

	if (++c->lookups > SPF_LOOKUPS_MAX) {
		explain(c, domain, SLICE("redirect"), "is over the limit of lookups");
		return SPF_PERMERROR;
	}
	if (!target(c, spec, domain, buf, &name))
		return SPF_PENDING;
	result = check_host(c, name, included);
	return result == SPF_NONE ? SPF_PERMERROR : result;
}

static enum spf_result
evaluate(struct check *c, struct slice text, struct slice domain, bool included)
{
	struct spf_record record;
	struct spf_term term;

	if (!spf_record_parse(text, &record)) {
		explain(c, domain, record.bad, record.why);
		return SPF_PERMERROR;
	}
	while (spf_record_next(&record.terms, &term)) {
		enum match match = match_term(c, &term, domain);

		if (match == MATCH_NO)
			continue;
		if (!included && match == MATCH_YES && term.result == SPF_FAIL)
			c->exp = record.exp;
		return ended_by(c, &term, match, domain);
	}
	if (record.redirect.len > 0)
		return redirect(c, record.redirect, domain, included);
	explain(c, domain, SLICE(""), "no term matched");
	return SPF_NEUTRAL;
}

/* check_host() of section 4; recursion is bounded by SPF_LOOKUPS_MAX. */
static enum spf_result
check_host(struct check *c, struct slice domain, bool included)
{
	struct slice text = SLICE("");
	enum spf_result result;

	domain = spf_name(domain);
	if (domain.len == 0) {
		explain(c, domain, SLICE(""), "no domain to ask");
		return SPF_NONE;
	}
	explain(c, domain, SLICE(""), "no record");
	result = record_find(c, domain, &text);
	return result == SPF_PASS ? evaluate(c, text, domain, included) : result;
}

/* ---- explanations ---------------------------------------------------------------------------- */

static bool
is_printable(struct slice s)
{
	for (size_t i = 0; i < s.len; i++)
		if (s.p[i] < ' ' || s.p[i] > '~')
			return false;
	return true;
}

/* Sets what an explanation may use beyond a domain-spec.  False: facts are missing. */
static bool
set_exp_values(struct check *c, struct slice text)
{
	const struct fact *now;

	if (spf_macro_uses(text, 'p') && !set_validated(c))
		return false;
	if (!spf_macro_uses(text, 't'))
		return true;
	now = filter_fact(c->tx, FACT_TIME, SLICE(""));
	if (now == NULL)
		return false;
	(void)snprintf(c->time_s, sizeof(c->time_s), "%lld",
	    now->n > 0 ? (long long)now->values[0].number / 1000 : 0LL);
	c->values.time_s = slice_str(c->time_s);
	return true;
}

/* Fills in the explanation of a fail.  Whatever is wrong with it leaves it out (section 6.2);
 * false only when facts are missing. */
static bool
set_explanation(struct check *c)
{
	struct slice domain = slice_str(c->out->domain), name, text;
	char buf[SPF_NAME_BYTES_MAX];
	const struct fact *texts;
	size_t len;

	if (!target(c, c->exp, domain, buf, &name))
		return false;
	if (name.len == 0)
		return true;
	texts = filter_fact(c->tx, FACT_DNS_TXT, name);
	if (texts == NULL)
		return false;
	if (texts->n != 1 || fact_failed(texts))
		return true;
	text = texts->values[0].bytes;
	if (text.len > SPF_RECORD_BYTES_MAX || !spf_macro_valid(text, true))
		return true;
	if (!set_exp_values(c, text))
		return false;
	if (!spf_macro_expand(
		text, &c->values, c->out->explanation, SPF_EXPLANATION_BYTES_MAX, &len) ||
	    !is_printable(slice_of(c->out->explanation, len)))
		len = 0;
	c->out->explanation[len] = '\0';
	return true;
}

/* ---- the query ------------------------------------------------------------------------------- */

/* Section 5: an IPv4-mapped IPv6 client is an IPv4 client. */
static struct slice
unmapped(struct slice addr)
{
	static const char prefix[12] = "\0\0\0\0\0\0\0\0\0\0\xff\xff";

	return addr.len == 16 && memcmp(addr.p, prefix, sizeof(prefix)) == 0 ? slice_drop(addr, 12)
									     : addr;
}

static void
set_address(struct check *c, struct slice addr)
{
	static const char hex[] = "0123456789ABCDEF";
	size_t n = 0;

	c->addr = unmapped(addr);
	(void)inet_ntop(c->addr.len == 4 ? AF_INET : AF_INET6, c->addr.p, c->client,
	    sizeof(c->client)); /* cannot fail: family and room are right */
	c->values.client = c->values.address = slice_str(c->client);
	c->values.version = SLICE("in-addr");
	if (c->addr.len == 4)
		return;
	for (size_t i = 0; i < 16; i++) {
		unsigned char byte = (unsigned char)c->addr.p[i];

		c->address[n++] = hex[byte >> 4];
		c->address[n++] = '.';
		c->address[n++] = hex[byte & 15];
		c->address[n++] = '.';
	}
	c->values.address = slice_of(c->address, n - 1);
	c->values.version = SLICE("ip6");
}

/* Section 4.3: a sender without a local part has "postmaster". */
static void
set_sender(struct check *c, struct slice sender, char *buf, size_t cap)
{
	const char *at = memrchr(sender.p, '@', sender.len);
	size_t local = at != NULL ? (size_t)(at - sender.p) : 0;

	c->values.sender = sender;
	c->values.local_part = slice_head(sender, local);
	c->values.sender_domain = at != NULL ? slice_drop(sender, local + 1) : sender;
	if (local > 0)
		return;
	c->values.local_part = SLICE("postmaster");
	(void)snprintf(buf, cap, "postmaster@%.*s",
	    SLICE_FMT(slice_head(c->values.sender_domain, SPF_VALUE_BYTES_MAX)));
	c->values.sender = slice_str(buf);
}

enum spf_result
spf_check(struct filter_tx *tx, const struct spf_query *query, struct spf_outcome *out)
{
	char sender[SPF_VALUE_BYTES_MAX + sizeof("postmaster@")];
	struct check c = {
		.tx = tx,
		.out = out,
		.exp = SLICE(""),
		.values = { .helo = query->helo,
		    .receiver = query->receiver,
		    .validated = SLICE("unknown"),
		    .time_s = SLICE("") },
	};

	*out = (struct spf_outcome){ .result = SPF_NONE };
	if (query->client_addr.len != 4 && query->client_addr.len != 16)
		return out->result;
	set_address(&c, query->client_addr);
	set_sender(&c, query->sender, sender, sizeof(sender));
	out->result = check_host(&c, c.values.sender_domain, false);
	if (out->result == SPF_FAIL && c.exp.len > 0 && !set_explanation(&c))
		out->result = SPF_PENDING;
	return out->result;
}

/* filters/spf/record.c - one SPF record: every term read by the grammar, or refused by name. */
#include "filters/spf/record.h"

#include "filters/spf/macro.h"

#include <arpa/inet.h>

#define VERSION SLICE("v=spf1")

enum argument {
	ARGUMENT_NONE,
	ARGUMENT_DOMAIN, /* ":" domain-spec */
	ARGUMENT_DOMAIN_OPTIONAL,
	ARGUMENT_DOMAIN_CIDR, /* optional as well, and a dual-cidr-length */
	ARGUMENT_IP4,
	ARGUMENT_IP6,
};

/* Section 12: the mechanisms and what may follow their names. */
static const struct syntax {
	struct slice name;
	enum spf_mechanism mechanism;
	enum argument argument;
} mechanisms[] = {
	{ SLICE("all"), SPF_MECHANISM_ALL, ARGUMENT_NONE },
	{ SLICE("include"), SPF_MECHANISM_INCLUDE, ARGUMENT_DOMAIN },
	{ SLICE("a"), SPF_MECHANISM_A, ARGUMENT_DOMAIN_CIDR },
	{ SLICE("mx"), SPF_MECHANISM_MX, ARGUMENT_DOMAIN_CIDR },
	{ SLICE("ptr"), SPF_MECHANISM_PTR, ARGUMENT_DOMAIN_OPTIONAL },
	{ SLICE("ip4"), SPF_MECHANISM_IP4, ARGUMENT_IP4 },
	{ SLICE("ip6"), SPF_MECHANISM_IP6, ARGUMENT_IP6 },
	{ SLICE("exists"), SPF_MECHANISM_EXISTS, ARGUMENT_DOMAIN },
};

/* Notes what is wrong; always false. */
static bool
wrong(const char **why, const char *text)
{
	*why = text;
	return false;
}

/* Takes "/24" with its marker ("/" or "//") off the end of *arg; without one, *arg and *bits stay.
 * False for a length over max or with a leading zero (sections 5.6 and 12). */
static bool
cidr_chop(struct slice *arg, struct slice marker, unsigned max, unsigned *bits)
{
	size_t start = arg->len;
	struct slice head, digits;
	uint64_t n;

	while (start > 0 && arg->p[start - 1] >= '0' && arg->p[start - 1] <= '9')
		start--;
	head = slice_head(*arg, start);
	digits = slice_drop(*arg, start);
	if (digits.len == 0 || !slice_ends(head, marker))
		return true;
	if (!slice_u64(digits, max, &n) || (digits.len > 1 && digits.p[0] == '0'))
		return false;
	*bits = (unsigned)n;
	*arg = slice_head(head, head.len - marker.len);
	return true;
}

static bool
network_parse(struct slice text, int family, uint8_t addr[static 16])
{
	char copy[INET6_ADDRSTRLEN];

	if (text.len >= sizeof(copy) || slice_has(text, '\0'))
		return false;
	memcpy(copy, text.p, text.len);
	copy[text.len] = '\0';
	return inet_pton(family, copy, addr) == 1;
}

static bool
ip_parse(struct slice arg, enum argument kind, struct spf_term *term, const char **why)
{
	int family = kind == ARGUMENT_IP4 ? AF_INET : AF_INET6;
	bool lengths_ok;

	if (!slice_starts(arg, SLICE(":")))
		return wrong(why, "needs an address");
	arg = slice_drop(arg, 1);
	lengths_ok = kind == ARGUMENT_IP4 ? cidr_chop(&arg, SLICE("/"), 32, &term->bits4)
					  : cidr_chop(&arg, SLICE("/"), 128, &term->bits6);
	if (!lengths_ok)
		return wrong(why, "has a bad prefix length");
	if (!network_parse(arg, family, term->addr))
		return wrong(why, "has a bad address");
	return true;
}

static bool
domain_parse(struct slice arg, enum argument kind, struct spf_term *term, const char **why)
{
	if (kind == ARGUMENT_DOMAIN_CIDR && (!cidr_chop(&arg, SLICE("//"), 128, &term->bits6) ||
						!cidr_chop(&arg, SLICE("/"), 32, &term->bits4)))
		return wrong(why, "has a bad prefix length");
	if (arg.len == 0 && kind != ARGUMENT_DOMAIN)
		return true;
	if (!slice_starts(arg, SLICE(":")))
		return wrong(why, arg.len == 0 ? "needs a domain" : "is no mechanism");
	term->domain = slice_drop(arg, 1);
	if (!spf_domain_spec_valid(term->domain))
		return wrong(why, "has a bad domain");
	return true;
}

static bool
argument_parse(struct slice arg, enum argument kind, struct spf_term *term, const char **why)
{
	switch (kind) {
	case ARGUMENT_NONE:
		return arg.len == 0 || wrong(why, "takes no argument");
	case ARGUMENT_IP4:
	case ARGUMENT_IP6:
		return ip_parse(arg, kind, term, why);
	default:
		return domain_parse(arg, kind, term, why);
	}
}

static enum spf_result
qualifier_take(struct slice *text)
{
	enum spf_result result;

	switch (text->len > 0 ? text->p[0] : '\0') {
	case '+':
		result = SPF_PASS;
		break;
	case '-':
		result = SPF_FAIL;
		break;
	case '~':
		result = SPF_SOFTFAIL;
		break;
	case '?':
		result = SPF_NEUTRAL;
		break;
	default:
		return SPF_PASS;
	}
	*text = slice_drop(*text, 1);
	return result;
}

/* The bytes before the first ":", "/" or "=". */
static struct slice
name_of(struct slice text)
{
	return slice_until(slice_until(slice_until(text, ':'), '/'), '=');
}

static bool
directive_parse(struct slice text, struct spf_term *term, const char **why)
{
	struct slice rest = text, name;

	*term = (struct spf_term){ .text = text, .domain = SLICE(""), .bits4 = 32, .bits6 = 128 };
	term->result = qualifier_take(&rest);
	name = name_of(rest);
	for (size_t i = 0; i < sizeof(mechanisms) / sizeof(mechanisms[0]); i++) {
		if (!slice_ieq(name, mechanisms[i].name))
			continue;
		term->mechanism = mechanisms[i].mechanism;
		return argument_parse(
		    slice_drop(rest, name.len), mechanisms[i].argument, term, why);
	}
	return wrong(why, "is no mechanism");
}

/* name = ALPHA *( ALPHA / DIGIT / "-" / "_" / "." ) */
static bool
is_modifier_name(struct slice name)
{
	for (size_t i = 0; i < name.len; i++) {
		char c = slice_lower(name.p[i]);

		if (c >= 'a' && c <= 'z')
			continue;
		if (i == 0 || !slice_has(SLICE("0123456789-_."), c))
			return false;
	}
	return name.len > 0;
}

static bool
is_modifier(struct slice text)
{
	size_t n = name_of(text).len;

	return n < text.len && text.p[n] == '=';
}

static bool
modifier_parse(struct slice text, struct spf_record *record)
{
	struct slice name = name_of(text), value = slice_drop(text, name.len + 1);
	struct slice *place = NULL;

	if (!is_modifier_name(name))
		return wrong(&record->why, "has a bad modifier name");
	if (slice_ieq(name, SLICE("redirect")))
		place = &record->redirect;
	else if (slice_ieq(name, SLICE("exp")))
		place = &record->exp;
	if (place == NULL) /* unknown ones are ignored, but have to be well-formed: section 6 */
		return spf_macro_valid(value, false) || wrong(&record->why, "has a bad macro");
	if (place->len > 0)
		return wrong(&record->why, "is there twice");
	if (!spf_domain_spec_valid(value))
		return wrong(&record->why, "has a bad domain");
	*place = value;
	return true;
}

/* Terms are set apart by spaces, nothing else: section 4.6.1. */
static bool
term_take(struct slice *terms, struct slice *text)
{
	while (slice_starts(*terms, SLICE(" ")))
		*terms = slice_drop(*terms, 1);
	*text = slice_until(*terms, ' ');
	*terms = slice_drop(*terms, text->len);
	return text->len > 0;
}

bool
spf_record_is(struct slice text)
{
	return slice_istarts(text, VERSION) &&
	       (text.len == VERSION.len || text.p[VERSION.len] == ' ');
}

bool
spf_record_parse(struct slice text, struct spf_record *out)
{
	struct slice terms, one;
	struct spf_term term;

	*out = (struct spf_record){ SLICE(""), SLICE(""), SLICE(""), SLICE(""), "" };
	if (text.len > SPF_RECORD_BYTES_MAX)
		return wrong(&out->why, "the record is too long");
	if (!spf_record_is(text))
		return wrong(&out->why, "this is no SPF record");
	out->terms = terms = slice_drop(text, VERSION.len);
	while (term_take(&terms, &one)) {
		out->bad = one;
		if (is_modifier(one) ? !modifier_parse(one, out)
				     : !directive_parse(one, &term, &out->why))
			return false;
	}
	out->bad = SLICE("");
	return true;
}

bool
spf_record_next(struct slice *terms, struct spf_term *term)
{
	struct slice one;
	const char *why;

	while (term_take(terms, &one))
		if (!is_modifier(one))
			return directive_parse(one, term, &why);
	return false;
}

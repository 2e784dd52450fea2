/* relayd/mail/address.c - SMTP paths: one grammar for reverse-path, forward-path and mailbox. */
#include "relayd/mail/address.h"

#include "relayd/mail/charset.h"

#include <arpa/inet.h>
#include <idn2.h>

#define IP_TEXT_MAX 45

static bool
is_let_dig(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* RFC 5322 section 3.2.3 */
static bool
is_atext(char c)
{
	return is_let_dig(c) || (c != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL);
}

/* Octets of the UTF-8 character at the front of s, 0 if there is none; *status says why not. */
static size_t
take_utf8(struct slice s, unsigned flags, enum address_status *status)
{
	size_t n = utf8_char(s);

	if (n == 0)
		*status = ADDRESS_SYNTAX;
	else if ((flags & ADDRESS_UTF8) == 0)
		*status = ADDRESS_NEEDS_UTF8;
	return n;
}

/* Length of a Dot-string at the front of s, which may be 0. */
static size_t
dot_string(struct slice s, unsigned flags, enum address_status *status)
{
	size_t n = 0;
	bool atom = false; /* an atom ends here */

	while (n < s.len) {
		size_t step = 1;

		if ((unsigned char)s.p[n] >= 0x80) {
			step = take_utf8(slice_drop(s, n), flags, status);
			if (step == 0)
				break;
			atom = true;
		} else if (is_atext(s.p[n])) {
			atom = true;
		} else if (s.p[n] == '.' && atom) {
			atom = false;
		} else {
			break;
		}
		n += step;
	}
	return atom ? n : 0;
}

/* Length of a Quoted-string at the front of s, or 0.  qtextSMTP is printable or a space. */
static size_t
quoted_string(struct slice s, unsigned flags, enum address_status *status)
{
	size_t n = 1;

	while (n < s.len && s.p[n] != '"') {
		unsigned char c = (unsigned char)s.p[n];
		size_t step = 1;

		if (c >= 0x80)
			step = take_utf8(slice_drop(s, n), flags, status);
		else if (c == '\\')
			step = s.len - n > 1 && s.p[n + 1] >= ' ' && s.p[n + 1] < 0x7f ? 2 : 0;
		else if (c < ' ' || c == 0x7f)
			step = 0;
		if (step == 0)
			return 0;
		n += step;
	}
	return n < s.len ? n + 1 : 0;
}

static size_t
local_part(struct slice s, unsigned flags, enum address_status *status)
{
	return s.len > 0 && s.p[0] == '"' ? quoted_string(s, flags, status)
					  : dot_string(s, flags, status);
}

/* Length of one label at the front of s, or 0.  The underscore is no part of the grammar but in
 * use. */
static size_t
label(struct slice s, unsigned flags, enum address_status *status)
{
	size_t n = 0;

	while (n < s.len) {
		size_t step = 1;

		if ((unsigned char)s.p[n] >= 0x80)
			step = take_utf8(slice_drop(s, n), flags, status);
		else if (!is_let_dig(s.p[n]) && s.p[n] != '-' && s.p[n] != '_')
			break;
		if (step == 0)
			return 0;
		n += step;
	}
	return n > 0 && s.p[0] != '-' && s.p[n - 1] != '-' ? n : 0;
}

static bool
is_number(struct slice s)
{
	for (size_t i = 0; i < s.len; i++)
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
	return true;
}

/* Length of a Domain at the front of s, or 0. */
static size_t
domain_name(struct slice s, unsigned flags, enum address_status *status)
{
	size_t n = 0;

	for (;;) {
		struct slice rest = slice_drop(s, n);
		size_t len = label(rest, flags, status);

		if (len == 0)
			return 0;
		if (len > ADDRESS_LABEL_MAX)
			*status = ADDRESS_LONG;
		n += len;
		if (n < s.len && s.p[n] == '.')
			n++;
		else
			return is_number(slice_head(rest, len)) ? 0 : n;
	}
}

static bool
is_ip(int family, struct slice text)
{
	char name[IP_TEXT_MAX + 1];
	unsigned char addr[16];

	if (text.len > IP_TEXT_MAX || slice_has(text, '\0'))
		return false;
	memcpy(name, text.p, text.len);
	name[text.len] = '\0';
	return inet_pton(family, name, addr) == 1;
}

/* Standardized-tag ":" 1*dcontent: RFC 5321 section 4.1.3 */
static bool
is_general_literal(struct slice text)
{
	size_t tag = slice_until(text, ':').len;

	if (tag == 0 || tag + 1 >= text.len || text.p[tag - 1] == '-')
		return false;
	for (size_t i = 0; i < text.len; i++)
		if (i < tag ? !is_let_dig(text.p[i]) && text.p[i] != '-'
			    : text.p[i] <= ' ' || text.p[i] > '~' || text.p[i] == '[' ||
				  text.p[i] == '\\')
			return false;
	return true;
}

/* Length of an address-literal with its brackets, or 0. */
static size_t
literal(struct slice s)
{
	struct slice inner = slice_until(slice_drop(s, 1), ']');
	bool valid;

	if (inner.len + 2 > s.len)
		return 0;
	if (slice_istarts(inner, SLICE("IPv6:")))
		valid = is_ip(AF_INET6, slice_drop(inner, 5));
	else
		valid = is_ip(AF_INET, inner) || is_general_literal(inner);
	return valid ? inner.len + 2 : 0;
}

static size_t
domain_or_literal(struct slice s, unsigned flags, enum address_status *status)
{
	return s.len > 0 && s.p[0] == '[' ? literal(s) : domain_name(s, flags, status);
}

/* A Mailbox at the front of s: its length, or 0.  *status is changed only for the worse. */
static size_t
mailbox(struct slice s, unsigned flags, struct address *out, enum address_status *status)
{
	size_t local = local_part(s, flags, status), domain;

	if (local == 0 || local >= s.len || s.p[local] != '@')
		return 0;
	domain = domain_or_literal(slice_drop(s, local + 1), flags, status);
	if (domain == 0)
		return 0;
	*out = (struct address){
		.kind = ADDRESS_MAILBOX,
		.mailbox = slice_head(s, local + 1 + domain),
		.local = slice_head(s, local),
		.domain = slice_head(slice_drop(s, local + 1), domain),
		.literal = s.p[local + 1] == '[',
	};
	if (local > ADDRESS_LOCAL_MAX || domain > ADDRESS_DOMAIN_MAX ||
	    out->mailbox.len > ADDRESS_PATH_MAX - 2)
		*status = ADDRESS_LONG;
	return out->mailbox.len;
}

/* Length of "@a,@b:" at the front of s, or 0 with *status set where it does not fit. */
static size_t
source_route(struct slice s, unsigned flags, enum address_status *status)
{
	size_t n = 0;

	for (;;) {
		size_t len;

		if (n >= s.len || s.p[n] != '@') {
			*status = ADDRESS_SYNTAX;
			return 0;
		}
		len = domain_or_literal(slice_drop(s, n + 1), flags, status);
		n += 1 + len;
		if (len == 0 || n >= s.len || (s.p[n] != ',' && s.p[n] != ':')) {
			*status = ADDRESS_SYNTAX;
			return 0;
		}
		if (s.p[n++] == ':')
			break;
	}
	if (n > ADDRESS_ROUTE_MAX)
		*status = ADDRESS_LONG;
	return n;
}

/* A path without its <>, a source route ignored. */
static size_t
path_inside(struct slice s, unsigned flags, struct address *out, enum address_status *status)
{
	size_t route = s.len > 0 && s.p[0] == '@' ? source_route(s, flags, status) : 0;
	size_t len =
	    *status == ADDRESS_SYNTAX ? 0 : mailbox(slice_drop(s, route), flags, out, status);

	return len > 0 ? route + len : 0;
}

static enum address_status
bracketed_path(struct slice *in, unsigned flags, struct address *out)
{
	struct slice s = slice_drop(*in, 1);
	enum address_status status = ADDRESS_OK;
	size_t n = path_inside(s, flags, out, &status);

	if (n == 0 || n >= s.len || s.p[n] != '>')
		return ADDRESS_SYNTAX;
	if (status == ADDRESS_OK)
		*in = slice_drop(s, n + 1);
	return status;
}

static enum address_status
path(struct slice *in, unsigned flags, struct address *out)
{
	enum address_status status = ADDRESS_OK;
	size_t n;

	if (in->len > 0 && in->p[0] == '<')
		return bracketed_path(in, flags, out);
	if ((flags & ADDRESS_BARE) == 0)
		return ADDRESS_SYNTAX;
	n = path_inside(*in, flags, out, &status);
	if (n == 0 || (n < in->len && in->p[n] != ' '))
		return ADDRESS_SYNTAX;
	if (status == ADDRESS_OK)
		*in = slice_drop(*in, n);
	return status;
}

enum address_status
address_reverse_path(struct slice *in, unsigned flags, struct address *out)
{
	if (!slice_starts(*in, SLICE("<>")))
		return path(in, flags, out);
	*out = (struct address){ ADDRESS_NULL, SLICE(""), SLICE(""), SLICE(""), false };
	*in = slice_drop(*in, 2);
	return ADDRESS_OK;
}

enum address_status
address_forward_path(struct slice *in, unsigned flags, struct address *out)
{
	struct slice name = slice_head(slice_drop(*in, 1), strlen("postmaster"));

	if (!slice_istarts(*in, SLICE("<postmaster>")))
		return path(in, flags, out);
	*out = (struct address){ ADDRESS_POSTMASTER, name, name, SLICE(""), false };
	*in = slice_drop(*in, strlen("<postmaster>"));
	return ADDRESS_OK;
}

enum address_status
address_mailbox(struct slice text, unsigned flags, struct address *out)
{
	enum address_status status = ADDRESS_OK;
	size_t n = mailbox(text, flags, out, &status);

	return n == 0 || n < text.len ? ADDRESS_SYNTAX : status;
}

enum address_status
address_domain(struct slice text, unsigned flags)
{
	enum address_status status = ADDRESS_OK;
	size_t n = domain_or_literal(text, flags, &status);

	if (n == 0 || n < text.len)
		return ADDRESS_SYNTAX;
	return n > ADDRESS_DOMAIN_MAX ? ADDRESS_LONG : status;
}

const char *
address_status_text(enum address_status status)
{
	static const char *const texts[] = {
		[ADDRESS_OK] = "valid",
		[ADDRESS_SYNTAX] = "not a valid address",
		[ADDRESS_LONG] = "address too long",
		[ADDRESS_NEEDS_UTF8] = "non-ASCII address without SMTPUTF8",
	};

	return texts[status];
}

bool
address_split(struct slice mailbox, struct slice *local, struct slice *domain)
{
	const char *at = memrchr(mailbox.p, '@', mailbox.len);

	if (at == NULL)
		return false;
	*local = slice_head(mailbox, (size_t)(at - mailbox.p));
	*domain = slice_drop(mailbox, local->len + 1);
	return true;
}

bool
address_hides_route(const struct address *a)
{
	return slice_has(a->local, '%') || slice_has(a->local, '!') || slice_has(a->local, '@');
}

/* Appends a local part without quotes and quoted pairs. */
static void
put_unquoted(struct slice local, struct buf *out)
{
	if (local.len < 2 || local.p[0] != '"') {
		buf_put(out, local);
		return;
	}
	for (size_t i = 1; i + 1 < local.len; i++) {
		if (local.p[i] == '\\' && i + 2 < local.len)
			i++;
		buf_putc(out, local.p[i]);
	}
}

/* Appends a local part that was unquoted, with the quotes that it cannot do without. */
static void
put_quoted(struct slice plain, struct buf *out)
{
	enum address_status ignored;

	if (dot_string(plain, ADDRESS_UTF8, &ignored) == plain.len && plain.len > 0) {
		buf_put(out, plain);
		return;
	}
	buf_putc(out, '"');
	for (size_t i = 0; i < plain.len; i++) {
		if (plain.p[i] == '"' || plain.p[i] == '\\')
			buf_putc(out, '\\');
		buf_putc(out, plain.p[i]);
	}
	buf_putc(out, '"');
}

void
address_canonical(const struct address *a, struct buf *out)
{
	char storage[ADDRESS_LOCAL_MAX];
	struct buf plain = buf_over(storage, sizeof(storage));

	put_unquoted(a->local, &plain);
	put_quoted(plain.overflow ? a->local : buf_slice(&plain), out);
	if (a->domain.len > 0) {
		buf_putc(out, '@');
		address_lower(a->domain, out);
	}
}

bool
address_same(struct slice a, struct slice b)
{
	char store_a[2 * ADDRESS_PATH_MAX], store_b[2 * ADDRESS_PATH_MAX];
	struct buf canon_a = buf_over(store_a, sizeof(store_a));
	struct buf canon_b = buf_over(store_b, sizeof(store_b));
	struct address addr;

	if (slice_eq(a, b))
		return true;
	if (address_mailbox(a, ADDRESS_UTF8, &addr) != ADDRESS_OK)
		return false;
	address_canonical(&addr, &canon_a);
	if (address_mailbox(b, ADDRESS_UTF8, &addr) != ADDRESS_OK)
		return false;
	address_canonical(&addr, &canon_b);
	return slice_eq(buf_slice(&canon_a), buf_slice(&canon_b));
}

void
address_lower(struct slice domain, struct buf *out)
{
	char *at = domain.len > 0 ? buf_room(out, domain.len) : NULL;

	if (at == NULL)
		return;
	for (size_t i = 0; i < domain.len; i++)
		at[i] = slice_lower(domain.p[i]);
	buf_commit(out, domain.len);
}

bool
address_domain_ascii(struct slice domain, struct buf *out)
{
	char name[4 * ADDRESS_DOMAIN_MAX + 1];
	char *ascii = NULL;

	if (domain.len >= sizeof(name))
		return false;
	if (slice_is_ascii(domain)) {
		address_lower(domain, out);
		return !out->overflow;
	}
	memcpy(name, domain.p, domain.len);
	name[domain.len] = '\0';
	if (idn2_to_ascii_8z(name, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK)
		return false;
	address_lower(slice_str(ascii), out);
	idn2_free(ascii);
	return !out->overflow;
}

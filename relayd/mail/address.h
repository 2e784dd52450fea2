/* relayd/mail/address.h - addresses: the paths of SMTP and the address lists of header fields.
 *
 * A path is strict (RFC 5321 section 4.1.2, RFC 6531 section 3.3): what does not fit the grammar
 * has a status that says why, and is never repaired.  A list in a header field (RFC 5322 section
 * 3.4, obsolete syntax too) is tolerant: whatever the bytes are, items come out and the end is
 * reached.
 *
 * Tricks, and what becomes of them in a path:
 *	@a,@b:user@c	source route: checked, then ignored (RFC 5321 appendix C); mailbox is user@c
 *	user%b@c, b!u@c	an opaque local part, never routed by us; address_hides_route() tells
 *	user@c.		trailing dot: ADDRESS_SYNTAX;  user@.c, user@a..c, user@-c: the same
 *	user@1.2.3.4	last label all digits: ADDRESS_SYNTAX (RFC 3696 section 2), so that no
 *			resolver takes it for an address; user@[1.2.3.4] is a literal
 *	user@a_b.c	underscore: accepted, it is in use
 *	"a b"@c "a@b"@c	quoted local parts: accepted, kept as written
 *	u ser@c, NUL, CR, LF, controls, DEL: ADDRESS_SYNTAX
 *	non-ASCII	ADDRESS_NEEDS_UTF8, unless ADDRESS_UTF8 is given; bad UTF-8: ADDRESS_SYNTAX
 */
#ifndef RELAYD_MAIL_ADDRESS_H
#define RELAYD_MAIL_ADDRESS_H

#include "relayd/core/arena.h"
#include "relayd/core/buf.h"

#define ADDRESS_LOCAL_MAX  64   /* octets, quotes included: RFC 5321 section 4.5.3.1.1 */
#define ADDRESS_DOMAIN_MAX 255  /* section 4.5.3.1.2 */
#define ADDRESS_PATH_MAX   256  /* with <>, without a source route: section 4.5.3.1.3 */
#define ADDRESS_ROUTE_MAX  1024 /* octets of a source route */
#define ADDRESS_LABEL_MAX  63

enum address_status {
	ADDRESS_OK,
	ADDRESS_SYNTAX,     /* 501 5.1.3, reverse-path 501 5.1.7 */
	ADDRESS_LONG,       /* a limit above: the same replies */
	ADDRESS_NEEDS_UTF8, /* 553 5.6.7: not ASCII and no SMTPUTF8 */
};

enum address_flags {
	ADDRESS_UTF8 = 1, /* SMTPUTF8 was given */
	ADDRESS_BARE = 2, /* a path without <> is taken up to the next space */
};

enum address_kind {
	ADDRESS_NULL, /* <>: mailbox is empty */
	ADDRESS_MAILBOX,
	ADDRESS_POSTMASTER, /* <postmaster> in any case, without a domain (section 4.1.1.3) */
};

/* All slices point into what was parsed. */
struct address {
	enum address_kind kind;
	struct slice mailbox; /* local@domain as written: what an envelope stores */
	struct slice local;   /* as written, with its quotes */
	struct slice domain;  /* as written, "[...]" for a literal */
	bool literal;
};

/* Takes a path off the front of *in; what is left begins with the octet behind it.  *in is
 * unchanged on any status but ADDRESS_OK.  <postmaster> is for forward paths, <> for reverse
 * ones. */
enum address_status address_reverse_path(struct slice *in, unsigned flags, struct address *out);
enum address_status address_forward_path(struct slice *in, unsigned flags, struct address *out);
/* All of text is one mailbox without <>, such as an envelope stores; no postmaster, not empty. */
enum address_status address_mailbox(struct slice text, unsigned flags, struct address *out);
/* All of text is a domain or an address literal: the argument of EHLO. */
enum address_status address_domain(struct slice text, unsigned flags);
const char *address_status_text(enum address_status status);

/* Splits at the last @ without any check; false where there is none. */
bool address_split(struct slice mailbox, struct slice *local, struct slice *domain);
/* The local part names a route of its own: % or !, or @ within quotes. */
bool address_hides_route(const struct address *a);

/* Appends the one form of a mailbox that others compare with: domain in lower case, local part as
 * it is but for quotes and quoted pairs that it can do without. */
void address_canonical(const struct address *a, struct buf *out);
/* The same mailbox: domains compare without case, local parts octet for octet, unquoted.  Text that
 * is no mailbox equals only itself. */
bool address_same(struct slice a, struct slice b);
/* Appends domain in lower case (ASCII letters). */
void address_lower(struct slice domain, struct buf *out);
/* Appends the A-label form in lower case, for DNS and routes; false where IDNA has none. */
bool address_domain_ascii(struct slice domain, struct buf *out);

/* ---- address lists of header fields ---- */

#define ADDRESS_LIST_DEPTH 32 /* nested comments beyond it are text */

enum address_item_kind {
	ADDRESS_ITEM_MAILBOX,
	ADDRESS_ITEM_GROUP, /* name is the group's; its members follow */
	ADDRESS_ITEM_GROUP_END,
};

/* Unquoted, comments gone; encoded words as they are. */
struct address_item {
	enum address_item_kind kind;
	struct slice name;   /* display name, or the comment of the old form a@b (Name); or empty */
	struct slice route;  /* "@a,@b" of an obsolete route, or empty */
	struct slice local;  /* unquoted */
	struct slice domain; /* empty where the list has none */
};

struct address_list {
	struct slice rest;
	bool in_group;
};

static inline struct address_list
address_list_of(struct slice field_body)
{
	return (struct address_list){ .rest = field_body };
}

/* The next item, its text in the arena; false at the end, and when the arena is full. */
bool address_list_next(struct address_list *list, struct arena *arena, struct address_item *item);

#endif

/* relayd/mail/mime.h - the parts of a message, by offset (RFC 2045, 2046, 2183, 2231).
 *
 * One pass over the bytes, nothing is copied or decoded: a part is a range of the message, so that
 * the same tree serves a scan and IMAP's BODYSTRUCTURE.  Any bytes give a tree, and every byte is
 * in a leaf, a header, a preamble or an epilogue.  Time is linear; limits below: what lies beyond
 * them stays undivided in the part that it is in, and flags say so.
 *
 * What is tolerated: LF for CRLF; a delimiter right behind a header; blanks behind a delimiter; a
 * missing close delimiter; a boundary of any length and characters.  A delimiter line must
 * otherwise be the whole boundary: "--ab" does not delimit for "a".  Of two Content-Type fields or
 * two parameters of a name the first counts.  A multipart without one part of its own is a leaf,
 * and to be taken for text/plain.  A message/rfc822 with a transfer encoding (RFC 2046 section
 * 5.2.1 forbids it) is a leaf.
 */
#ifndef RELAYD_MAIL_MIME_H
#define RELAYD_MAIL_MIME_H

#include "relayd/core/arena.h"
#include "relayd/core/buf.h"

#define MIME_DEPTH_MAX           32 /* parts within parts */
#define MIME_PARTS_MAX           2000
#define MIME_PARAMS_MAX          100 /* of one field; further ones are ignored (RFC 2231 abuse) */
#define MIME_BOUNDARY_MAX        1000 /* octets; a longer one does not delimit */
#define MIME_NONE                UINT32_MAX
#define MIME_ARENA_BYTES(octets) ((size_t)(octets) + (24u << 20))

enum mime_kind {
	MIME_LEAF,
	MIME_MULTIPART,
	MIME_MESSAGE, /* message/rfc822, message/global: one child, the message */
};

enum mime_encoding {
	MIME_ENCODING_IDENTITY, /* 7bit, 8bit, binary, or none given */
	MIME_ENCODING_QP,
	MIME_ENCODING_BASE64,
	MIME_ENCODING_UNKNOWN, /* taken as it is */
};

enum mime_flags { /* of a tree */
	MIME_TOO_DEEP = 1,
	MIME_TOO_MANY = 2,
	MIME_UNCLOSED = 4, /* a multipart without its close delimiter */
	MIME_REPEATED = 8, /* a second Content-Type or Content-Transfer-Encoding in one header */
};

/* As written: unquoted, not decoded.  "filename*0*" keeps its name. */
struct mime_param {
	struct slice name, value;
};

struct mime_part {
	enum mime_kind kind;
	enum mime_encoding encoding;
	uint32_t parent, first_child, next; /* indexes into parts, or MIME_NONE */
	uint32_t last_child, n_children;
	uint32_t depth;           /* 0: the message itself */
	size_t header, body, end; /* offsets: [header, body) with its empty line, [body, end) */
	size_t preamble_end, epilogue; /* multipart: [body, preamble_end) and [epilogue, end) lie
					 * outside of its parts */
	uint32_t header_lines, body_lines; /* line ends in them */
	struct slice type,
	    subtype; /* as written; the default where none, or no valid one, is given */
	struct mime_param *params; /* of Content-Type */
	size_t n_params;
	struct slice disposition; /* "attachment", as written; empty without one */
	struct mime_param *disposition_params;
	size_t n_disposition_params;
	struct slice encoding_name; /* as written; empty without one */
	struct slice id, description, md5, language,
	    location; /* field bodies as they stand, or empty */
};

struct mime {
	struct slice bytes;      /* the message: outlives the tree */
	struct mime_part *parts; /* in the order of their headers; 0 is the message */
	size_t n_parts;
	unsigned flags; /* set of enum mime_flags */
};

/* -1 only when the arena is full: MIME_ARENA_BYTES is enough for any message of that many
 * octets. */
int mime_parse(struct slice message, struct arena *arena, struct mime *out);

/* The body as it stands. */
struct slice mime_body(const struct mime *mime, const struct mime_part *part);
struct slice mime_header(const struct mime *mime, const struct mime_part *part);
bool mime_is(const struct mime_part *part, const char *type, const char *subtype); /* NULL: any */
/* To be read as text: text/..., and a multipart without parts. */
bool mime_is_text(const struct mime_part *part);

/* A message/rfc822 with a transfer encoding, which has no parts here. */
bool mime_is_wrapped(const struct mime_part *part);
/* Decodes it into bytes, which outlive the tree, and parses that: for a scan.  As mime_parse(). */
int mime_unwrap(const struct mime *mime, const struct mime_part *part, struct buf *bytes,
    struct arena *arena, struct mime *out);

/* The part that IMAP numbers so (RFC 3501 section 6.4.5), such as {2, 1}; n 0 is the message. */
const struct mime_part *mime_numbered(const struct mime *mime, const uint32_t *number, size_t n);

/* The raw value of the first parameter of that name, in any case; empty without one. */
struct slice mime_param_raw(const struct mime_param *params, size_t n, const char *name);
/* Appends the value in UTF-8: RFC 2231 continuations and charsets, and RFC 2047 encoded words,
 * which many wrongly use here.  False without such a parameter. */
bool mime_param(const struct mime_param *params, size_t n, const char *name, struct buf *out);
/* Appends the name of an attachment: filename of the disposition, else name of the type. */
bool mime_filename(const struct mime_part *part, struct buf *out);

/* Appends the body without its transfer encoding; stops when out is full. */
void mime_decode(const struct mime *mime, const struct mime_part *part, struct buf *out);
/* Appends the decoded body in UTF-8 by its charset: for leaves that are text. */
void mime_text(const struct mime *mime, const struct mime_part *part, struct buf *out);

/* "value; name=value; ..." of Content-Type, Content-Disposition: comments dropped, quotes resolved.
 * -1 when the arena is full. */
int mime_value(struct slice field_body, struct arena *arena, struct slice *value,
    struct mime_param **params, size_t *n_params);

#endif

/* relayd/smtp/session_params.c - the parameters of MAIL and RCPT: what each says, and which are
 * known when.
 *
 * Those of RFC 3461 are checked here and kept as text: who hands the message on repeats them as
 * they came (section 5.2.1).
 */
#include "relayd/smtp/session_verbs.h"

#include "relayd/mail/charset.h"
#include "relayd/smtp/param.h"

#include <stdio.h>

struct params {
	struct smtp_session *session;
	const char *verb;
	struct smtp_mail *mail; /* or NULL: RCPT */
	struct buf key, kept;
	unsigned seen; /* set of 1 << row */
};

enum { VALUE = 1, NO_VALUE = 2, OURS = 4, AUTH = 8, MAIL = 16, RCPT = 32 };

struct row {
	struct slice name;
	unsigned flags;
	unsigned extension; /* offered, or 0 */
	bool (*take)(struct params *p, struct slice value);
};

static void
keep(struct params *p, const char *name, struct slice value)
{
	if (p->kept.len > 0)
		buf_putc(&p->kept, ' ');
	buf_puts(&p->kept, name);
	buf_putc(&p->kept, '=');
	buf_put(&p->kept, value);
}

/* ---- MAIL ------------------------------------------------------------------------------------ */

static bool
take_size(struct params *p, struct slice value)
{
	/* 20 digits at most (RFC 1870 section 3); more than fits is as good as too large. */
	if (value.len > 20)
		return false;
	for (size_t i = 0; i < value.len; i++)
		if (value.p[i] < '0' || value.p[i] > '9')
			return false;
	if (!slice_u64(value, UINT64_MAX, &p->mail->size))
		p->mail->size = UINT64_MAX;
	return true;
}

/* 7BIT and 8BITMIME are no promise that is held against a client (doc/relayd.8): what the data
 * turns out to hold counts.  BINARYMIME is. */
static bool
take_body(struct params *p, struct slice value)
{
	static const struct slice names[] = {
		[SMTP_BODY_7BIT] = SLICE("7BIT"),
		[SMTP_BODY_8BITMIME] = SLICE("8BITMIME"),
		[SMTP_BODY_BINARYMIME] = SLICE("BINARYMIME"),
	};
	size_t n = smtp_session_offers(p->session, SMTP_EXT_CHUNKING) ? 3 : 2;

	for (size_t i = 0; i < n; i++) {
		if (slice_ieq(value, names[i])) {
			p->mail->body = (enum smtp_body_type)i;
			return true;
		}
	}
	return false;
}

/* "<>" or a mailbox as xtext.  Nobody's word is taken for who wrote the mail, which is as good as
 * "<>" (RFC 4954 section 5). */
static bool
take_auth(struct params *p, struct slice value)
{
	char storage[ADDRESS_PATH_MAX];
	struct buf text = buf_over(storage, sizeof(storage));
	struct address mailbox;

	(void)p;
	if (!smtp_xtext_decode(value, &text))
		return false;
	return slice_eq(buf_slice(&text), SLICE("<>")) ||
	       address_mailbox(buf_slice(&text), ADDRESS_UTF8, &mailbox) == ADDRESS_OK;
}

static bool
take_ret(struct params *p, struct slice value)
{
	if (!slice_ieq(value, SLICE("FULL")) && !slice_ieq(value, SLICE("HDRS")))
		return false;
	keep(p, "RET", value);
	return true;
}

static bool
is_xtext(struct slice value)
{
	char plain[SMTP_ORCPT_MAX];
	struct buf out = buf_over(plain, sizeof(plain));

	return smtp_xtext_decode(value, &out);
}

static bool
take_envid(struct params *p, struct slice value)
{
	if (value.len > SMTP_ENVID_MAX || !is_xtext(value))
		return false;
	keep(p, "ENVID", value);
	return true;
}

static bool
take_utf8(struct params *p, struct slice value)
{
	(void)value; /* NO_VALUE */
	p->mail->utf8 = true;
	return true;
}

static bool
take_requiretls(struct params *p, struct slice value)
{
	(void)value; /* NO_VALUE */
	p->mail->require_tls = true;
	return true;
}

static bool
take_prdr(struct params *p, struct slice value)
{
	(void)value; /* NO_VALUE */
	p->mail->prdr = true;
	return true;
}

static bool
take_xid(struct params *p, struct slice value)
{
	p->mail->has_origin = true;
	return id_parse(value, &p->mail->origin);
}

static bool
take_xkey(struct params *p, struct slice value)
{
	if (!smtp_xtext_decode(value, &p->key))
		return false;
	p->mail->key = buf_slice(&p->key);
	return p->mail->key.len > 0;
}

/* ---- RCPT ------------------------------------------------------------------------------------ */

/* "NEVER", or a list of the others, each once (RFC 3461 section 4.1). */
static bool
take_notify(struct params *p, struct slice value)
{
	static const struct slice words[] = { SLICE("SUCCESS"), SLICE("FAILURE"), SLICE("DELAY") };
	struct slice rest = value;
	unsigned seen = 0;

	if (!slice_ieq(value, SLICE("NEVER"))) {
		do {
			struct slice word = slice_until(rest, ',');
			size_t i = 0;

			while (i < ARRAY_LEN(words) && !slice_ieq(word, words[i]))
				i++;
			if (i == ARRAY_LEN(words) || seen & 1u << i)
				return false;
			seen |= 1u << i;
			if (word.len + 1 == rest.len)
				return false; /* ends with a comma */
			rest = slice_drop(rest, word.len + 1);
		} while (rest.len > 0);
	}
	keep(p, "NOTIFY", value);
	return true;
}

static bool
is_atom(struct slice s)
{
	for (size_t i = 0; i < s.len; i++) {
		char c = slice_lower(s.p[i]);

		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'))
			return false;
	}
	return s.len > 0;
}

/* Of a character that utf8_char() found whole. */
static uint32_t
code_point(struct slice c)
{
	static const unsigned char lead[] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
	uint32_t code = (unsigned char)c.p[0] & lead[c.len];

	for (size_t i = 1; i < c.len; i++)
		code = code << 6 | ((unsigned char)c.p[i] & 0x3fu);
	return code;
}

static int
hex_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = slice_lower(c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Length of an EmbeddedUnicodeChar (RFC 6533 section 3) at the front, which stands for a character
 * of UTF-8: "\x{HEX}" with no zero too many.  0 where there is none. */
static size_t
embedded(struct slice text)
{
	struct slice hex = slice_until(slice_drop(text, 3), '}');
	uint32_t code = 0;

	if (!slice_starts(text, SLICE("\\x{")) || 3 + hex.len >= text.len || hex.len < 2 ||
	    hex.len > 6 || (hex.len > 2 && hex.p[0] == '0'))
		return 0;
	for (size_t i = 0; i < hex.len; i++) {
		if (hex_of(hex.p[i]) < 0)
			return 0;
		code = code << 4 | (uint32_t)hex_of(hex.p[i]);
	}
	if (code == 0 || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	return 3 + hex.len + 1;
}

/* What is ASCII passes hosts without SMTPUTF8 and is right in any transaction (utf-8-addr-xtext);
 * other text is so only in one that said it (utf-8-addr-unitext), and becomes such here. */
static bool
put_unitext(struct slice text, bool utf8, struct buf *out)
{
	while (text.len > 0) {
		bool escape = text.p[0] == '\\';
		size_t n = escape ? embedded(text) : utf8_char(text);

		if (n == 0 || (!escape && n > 1 && !utf8))
			return false;
		if (escape || n == 1)
			buf_put(out, slice_head(text, n));
		else
			buf_printf(out, "\\x{%X}", code_point(slice_head(text, n)));
		text = slice_drop(text, n);
	}
	return !out->overflow;
}

/* original-recipient-address = atom ";" xtext (RFC 3461 section 4.2, RFC 6533 section 3) */
static bool
take_orcpt(struct params *p, struct slice value)
{
	struct slice type = slice_until(value, ';'), address = slice_drop(value, type.len + 1);
	char ascii[SMTP_ORCPT_MAX];
	struct buf out = buf_over(ascii, sizeof(ascii));

	if (value.len > SMTP_ORCPT_MAX || !is_atom(type) || address.len == 0)
		return false;
	if (slice_ieq(type, SLICE("utf-8"))) {
		if (!put_unitext(value, p->session->utf8, &out))
			return false;
		value = buf_slice(&out);
	} else if (!is_xtext(address)) {
		return false;
	}
	keep(p, "ORCPT", value);
	return true;
}

/* ---- all of them ----------------------------------------------------------------------------- */

static const struct row rows[] = {
	{ SLICE("SIZE"), MAIL | VALUE, 0, take_size },
	{ SLICE("BODY"), MAIL | VALUE, 0, take_body },
	{ SLICE("AUTH"), MAIL | VALUE | AUTH, 0, take_auth },
	{ SLICE("RET"), MAIL | VALUE, SMTP_EXT_DSN, take_ret },
	{ SLICE("ENVID"), MAIL | VALUE, SMTP_EXT_DSN, take_envid },
	{ SLICE("SMTPUTF8"), MAIL | NO_VALUE, SMTP_EXT_UTF8, take_utf8 },
	{ SLICE("REQUIRETLS"), MAIL | NO_VALUE, SMTP_EXT_REQUIRETLS, take_requiretls },
	{ SLICE("PRDR"), MAIL | NO_VALUE, SMTP_EXT_PRDR, take_prdr },
	{ SLICE("XID"), MAIL | VALUE | OURS, 0, take_xid },
	{ SLICE("XKEY"), MAIL | VALUE | OURS, 0, take_xkey },
	{ SLICE("NOTIFY"), RCPT | VALUE, SMTP_EXT_DSN, take_notify },
	{ SLICE("ORCPT"), RCPT | VALUE, SMTP_EXT_DSN, take_orcpt },
};

static const struct row *
find(const struct params *p, struct slice name)
{
	const struct smtp_session *s = p->session;

	for (size_t i = 0; s->extended && i < ARRAY_LEN(rows); i++) {
		const struct row *row = &rows[i];

		if (slice_ieq(name, row->name) && row->flags & (p->mail != NULL ? MAIL : RCPT) &&
		    (!(row->flags & OURS) || s->service->x_relayd) &&
		    (!(row->flags & AUTH) || smtp_session_offers_auth(s)) &&
		    (row->extension == 0 ||
			smtp_session_offers(s, (enum smtp_extension)row->extension)))
			return row;
	}
	return NULL;
}

static bool
bad(const struct params *p, const char *text)
{
	smtp_session_refuse(p->session, slice_str(p->verb), 501, "5.5.4", text);
	return false;
}

/* A row's name is one of ours and short. */
static bool
wrong(const struct params *p, const struct row *row)
{
	char text[80];

	(void)snprintf(text, sizeof(text), "Parameter %.*s has a wrong value or stands twice",
	    SLICE_FMT(row->name));
	return bad(p, text);
}

static bool
unknown(const struct params *p, struct slice name)
{
	char text[128];

	(void)snprintf(text, sizeof(text), "Parameter %.*s is not known here",
	    SLICE_FMT(slice_head(name, 40)));
	smtp_session_refuse(p->session, slice_str(p->verb), 555, "5.5.4", text);
	return false;
}

static bool
take(struct params *p, struct slice args)
{
	struct slice name, value;
	enum smtp_param got;

	if (args.len > 0 && args.p[0] != ' ')
		return bad(p, "A space is missing behind the address");
	while ((got = smtp_param_next(&args, &name, &value)) == SMTP_PARAM_ONE) {
		const struct row *row = find(p, name);
		unsigned bit;

		if (row == NULL)
			return unknown(p, name);
		bit = 1u << (row - rows);
		if (p->seen & bit || (value.len > 0) != ((row->flags & VALUE) != 0) ||
		    !row->take(p, value))
			return wrong(p, row);
		p->seen |= bit;
	}
	if (got == SMTP_PARAM_BAD)
		return bad(p, "What follows the address is no parameter");
	return !p->kept.overflow || bad(p, "The parameters are too long");
}

bool
smtp_session_mail_params(struct smtp_session *s, struct slice args, struct smtp_mail *mail,
    struct smtp_session_room *room)
{
	struct params p = { .session = s,
		.verb = "MAIL",
		.mail = mail,
		.key = buf_over(room->key, sizeof(room->key)),
		.kept = buf_over(room->params, sizeof(room->params)) };

	if (!take(&p, args))
		return false;
	mail->params = buf_slice(&p.kept);
	return true;
}

bool
smtp_session_rcpt_params(struct smtp_session *s, struct slice args, struct smtp_rcpt *rcpt,
    struct smtp_session_room *room)
{
	struct params p = {
		.session = s, .verb = "RCPT", .kept = buf_over(room->params, sizeof(room->params))
	};

	if (!take(&p, args))
		return false;
	rcpt->params = buf_slice(&p.kept);
	return true;
}

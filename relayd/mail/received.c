/* relayd/mail/received.c - the Received field that we add, and the loop that many of them show. */
#include "relayd/mail/received.h"

#include "relayd/core/cidr.h"
#include "relayd/mail/date.h"

#define NAME "received:"

/* What a comment or a domain may show: anything that could end it, or the line, becomes "?". */
static void
put_safe(struct buf *out, struct slice text)
{
	text = slice_head(text, 255);
	for (size_t i = 0; i < text.len; i++) {
		char c = text.p[i];

		if (c <= ' ' || c >= 0x7f || c == '(' || c == ')' || c == '\\' || c == ';' ||
		    c == '"')
			c = '?';
		buf_putc(out, c);
	}
}

/* TCP-info of RFC 5321 section 4.4: an address literal. */
static void
put_client(struct buf *out, struct slice addr)
{
	char text[IP_TEXT_BYTES];

	if (addr.len == 0) {
		buf_puts(out, " (local)");
		return;
	}
	ip_text(addr, text);
	buf_puts(out, addr.len == 16 ? " ([IPv6:" : " ([");
	buf_puts(out, text);
	buf_puts(out, "])");
}

/* RFC 3848, and UTF8SMTPSA and UTF8LMTP of RFC 6531 section 4.3 */
static void
put_with(struct buf *out, const struct received *r)
{
	if (r->utf8)
		buf_puts(out, r->lmtp ? "UTF8LMTP" : "UTF8SMTP");
	else if (r->lmtp)
		buf_puts(out, "LMTP");
	else
		buf_puts(out, r->extended ? "ESMTP" : "SMTP");
	if (r->tls && (r->extended || r->lmtp))
		buf_putc(out, 'S');
	if (r->auth && (r->extended || r->lmtp))
		buf_putc(out, 'A');
}

static void
put_tls(struct buf *out, const struct received *r)
{
	if (!r->tls || r->tls_version == NULL)
		return;
	buf_puts(out, "\r\n\t(");
	put_safe(out, slice_str(r->tls_version));
	if (r->tls_cipher != NULL) {
		buf_putc(out, ' ');
		put_safe(out, slice_str(r->tls_cipher));
	}
	buf_putc(out, ')');
}

void
received_put(struct buf *out, const struct received *r)
{
	char date[DATE_BYTES];

	date_format((struct date){ .unix_s = r->wall_ms / 1000 }, date);
	buf_puts(out, "Received: from ");
	if (r->helo.len > 0)
		put_safe(out, r->helo);
	else
		buf_puts(out, "unknown");
	put_client(out, r->client_addr);
	buf_puts(out, "\r\n\tby ");
	buf_puts(out, r->hostname);
	buf_puts(out, " with ");
	put_with(out, r);
	buf_puts(out, " id ");
	buf_put(out, r->id);
	put_tls(out, r);
	if (r->forward_path.len > 0) {
		buf_puts(out, "\r\n\tfor <");
		buf_put(out, r->forward_path);
		buf_putc(out, '>');
	}
	buf_puts(out, ";\r\n\t");
	buf_puts(out, date);
	buf_puts(out, "\r\n");
}

static void
begin_line(struct received_counter *c)
{
	c->matched = 0;
	c->elsewhere = false;
}

/* The rest of a line that is no Received field: only its end matters. */
static struct slice
skip_line(struct received_counter *c, struct slice bytes)
{
	const char *lf = memchr(bytes.p, '\n', bytes.len);

	if (lf == NULL)
		return slice_drop(bytes, bytes.len);
	begin_line(c);
	return slice_drop(bytes, (size_t)(lf + 1 - bytes.p));
}

void
received_count(struct received_counter *c, struct slice bytes)
{
	while (bytes.len > 0 && !c->done) {
		char ch = bytes.p[0];

		if (c->elsewhere) {
			bytes = skip_line(c, bytes);
			continue;
		}
		bytes = slice_drop(bytes, 1);
		if (c->matched == 0 && ch == '\r')
			continue;
		if (c->matched == 0 && ch == '\n') {
			c->done = true;
		} else if (slice_lower(ch) == NAME[c->matched]) {
			c->matched++;
			c->elsewhere = c->matched == sizeof(NAME) - 1;
			c->fields += c->elsewhere;
		} else if (!(c->matched == sizeof(NAME) - 2 && (ch == ' ' || ch == '\t'))) {
			c->elsewhere = true; /* blanks may stand before the colon */
			if (ch == '\n')
				begin_line(c);
		}
	}
}

/* relayd/mail/dsn.c - builds the message that tells a sender what became of his mail. */
#include "relayd/mail/dsn.h"

#include "relayd/mail/charset.h"
#include "relayd/mail/date.h"
#include "relayd/mail/header.h"

#include <arpa/inet.h>
#include <stdio.h>

#define BOUNDARY_MAX    64
#define LINE_MAX_OCTETS 900 /* of a field of ours, below the 998 of RFC 5322 section 2.1.1 */
#define WORD_OCTETS     15 /* as =XX, in an encoded word of at most 75 (RFC 2047 section 2) */

static bool
is_8bit(struct slice s)
{
	for (size_t i = 0; i < s.len; i++)
		if ((unsigned char)s.p[i] >= 0x80)
			return true;
	return false;
}

bool
dsn_is_8bit(struct slice report)
{
	return is_8bit(report);
}

/* Appends text from outside as part of one line: no controls, valid UTF-8, no longer than max. */
static void
put_line_text(struct buf *out, struct slice text, size_t max)
{
	char storage[LINE_MAX_OCTETS];
	struct buf clean = buf_over(storage, max < sizeof(storage) ? max : sizeof(storage));

	(void)charset_to_utf8(
	    SLICE(""), slice_head(text, sizeof(storage)), &clean); /* cut is fine */
	for (size_t i = 0; i < clean.len; i++)
		if ((unsigned char)clean.p[i] < ' ' || clean.p[i] == 0x7f)
			clean.p[i] = ' ';
	buf_put(out, slice_trim(buf_slice(&clean)));
}

static void
put_date(struct buf *out, const char *field, int64_t wall_ms)
{
	char text[DATE_BYTES];

	date_format((struct date){ wall_ms / 1000, 0 }, text);
	buf_printf(out, "%s: %s\r\n", field, text);
}

/* "failed" of all that failed, "delayed" only if nothing else happened. */
static bool
all_are(const struct dsn *dsn, enum dsn_action action)
{
	for (size_t i = 0; i < dsn->n_rcpts; i++)
		if (dsn->rcpts[i].action != action)
			return false;
	return true;
}

static struct slice
original_header(const struct dsn *dsn)
{
	return slice_head(dsn->original, header_length(dsn->original));
}

/* A boundary that the original does not contain: its sender may guess the id, and must not be able
 * to write parts of our report. */
static void
choose_boundary(const struct dsn *dsn, char out[static BOUNDARY_MAX])
{
	char id[ID_TEXT_LEN + 1];
	unsigned n = 0;

	id_text(dsn->id, id);
	do
		(void)snprintf(out, BOUNDARY_MAX, "=_%s.%u", id, n++); /* fits */
	while (slice_find(dsn->original, slice_str(out)) < dsn->original.len);
}

/* ---- the header ---- */

static const char *
subject(const struct dsn *dsn)
{
	if (all_are(dsn, DSN_DELAYED))
		return "Your message is delayed";
	if (all_are(dsn, DSN_RELAYED))
		return "Your message was passed on";
	if (all_are(dsn, DSN_DELIVERED))
		return "Your message was delivered";
	if (dsn->about_report)
		return "A delivery report could not be delivered";
	return "Your message could not be delivered";
}

/* UTF-8 as encoded words (RFC 2047), one a line, none of which cuts a character. */
static void
put_encoded_words(struct buf *out, struct slice text)
{
	while (text.len > 0) {
		buf_puts(out, "\r\n =?utf-8?q?");
		for (size_t n = 0, len; text.len > 0; n += len) {
			len = utf8_char(text);
			len = len > 0 ? len : 1;
			if (n + len > WORD_OCTETS)
				break;
			for (size_t i = 0; i < len; i++)
				buf_printf(out, "=%02X", (unsigned char)text.p[i]);
			text = slice_drop(text, len);
		}
		buf_puts(out, "?=");
	}
}

/* The subject of the original follows ours as it is, encoded words included.  One in UTF-8 is
 * encoded, but where the report needs SMTPUTF8 all the same: its sender's server may not take
 * that. */
static void
put_subject(const struct dsn *dsn, struct buf *out)
{
	struct header_field field;
	char storage[LINE_MAX_OCTETS];
	struct buf old = buf_over(storage, sizeof(storage));

	buf_printf(out, "Subject: %s", subject(dsn));
	if (header_find(original_header(dsn), SLICE("subject"), 0, &field)) {
		header_unfold(field.body, &old);
		bool eight = is_8bit(buf_slice(&old));

		if (old.len > 0 && !old.overflow && (!eight || is_8bit(dsn->reverse_path))) {
			buf_puts(out, ":\r\n ");
			put_line_text(out, buf_slice(&old), LINE_MAX_OCTETS);
		} else if (old.len > 0 && !old.overflow && utf8_valid(buf_slice(&old))) {
			buf_putc(out, ':');
			put_encoded_words(out, slice_trim(buf_slice(&old)));
		}
	}
	buf_puts(out, "\r\n");
}

/* A thread in the sender's mail client: RFC 5322 section 3.6.4. */
static void
put_references(const struct dsn *dsn, struct buf *out)
{
	struct header_field field;
	struct slice id;

	if (!header_find(original_header(dsn), SLICE("message-id"), 0, &field))
		return;
	id = slice_trim(field.body);
	if (id.len < 3 || id.len > 250 || id.p[0] != '<' || id.p[id.len - 1] != '>' || is_8bit(id))
		return;
	for (size_t i = 0; i < id.len; i++)
		if (id.p[i] <= ' ')
			return;
	buf_printf(out, "In-Reply-To: %.*s\r\nReferences: %.*s\r\n", SLICE_FMT(id), SLICE_FMT(id));
}

static void
put_header(const struct dsn *dsn, const char *boundary, bool eight, struct buf *out)
{
	char id[ID_TEXT_LEN + 1];

	id_text(dsn->id, id);
	put_date(out, "Date", dsn->now_ms);
	buf_puts(out, "From: Mail Delivery System <");
	buf_put(out, dsn->postmaster);
	buf_puts(out, ">\r\nTo: <");
	buf_put(out, dsn->reverse_path);
	buf_puts(out, ">\r\n");
	put_subject(dsn, out);
	buf_printf(out, "Message-ID: <%s@%.*s>\r\n", id, SLICE_FMT(dsn->hostname));
	put_references(dsn, out);
	buf_printf(out,
	    "Auto-Submitted: auto-replied\r\n" /* RFC 3834 section 5.1 */
	    "MIME-Version: 1.0\r\n"
	    "Content-Type: multipart/report; report-type=%sdelivery-status;\r\n"
	    "\tboundary=\"%s\"\r\n"
	    "Content-Transfer-Encoding: %s\r\n"
	    "\r\n"
	    "This is a delivery report in MIME format.\r\n",
	    dsn->utf8 ? "global-" : "", boundary, eight ? "8bit" : "7bit");
}

/* ---- for people ---- */

static const char *
what_happened(const struct dsn *dsn)
{
	if (all_are(dsn, DSN_DELAYED))
		return "Your message has not been delivered yet to the recipients below.  You need "
		       "not\r\n"
		       "send it again: we keep trying";
	if (all_are(dsn, DSN_RELAYED))
		return "Your message was passed on to the mail server of the recipients below.  "
		       "That\r\n"
		       "server does not confirm delivery, so this is the last report from us.";
	if (all_are(dsn, DSN_DELIVERED))
		return "Your message was delivered to the recipients below.";
	if (dsn->about_report)
		return "A delivery report of this system could not be delivered to the sender "
		       "below, so he\r\n"
		       "does not know that his message was lost.  The report follows.  If you can "
		       "reach him\r\n"
		       "in another way, please tell him.";
	if (all_are(dsn, DSN_EXPIRED))
		return "Your message could not be delivered to the recipients below.  We tried "
		       "again and\r\n"
		       "again, and have given up.  If it still matters, please send it again, or "
		       "reach\r\n"
		       "the recipients in another way.";
	return "Your message could not be delivered to the recipients below.  The reason is "
	       "given\r\n"
	       "for each.  Please check the address for mistakes before you send it again; if "
	       "it\r\n"
	       "is right, ask the recipient in another way, and show this report to your "
	       "postmaster.";
}

static bool
returns_all(const struct dsn *dsn)
{
	return dsn->full && !dsn->cut && dsn->original.len <= DSN_ORIGINAL_MAX;
}

static bool
is_good(const struct dsn_rcpt *rcpt)
{
	return rcpt->action == DSN_RELAYED || rcpt->action == DSN_DELIVERED;
}

static void
put_reason(const struct dsn_rcpt *rcpt, struct buf *out)
{
	buf_puts(out, "    ");
	if (rcpt->remote_mta.len > 0) {
		buf_puts(out, "The server ");
		put_line_text(out, rcpt->remote_mta, 255);
		buf_puts(out, " said:\r\n    ");
	}
	put_line_text(
	    out, rcpt->reply.len > 0 ? rcpt->reply : SLICE("no reason is known"), DSN_TEXT_MAX);
	buf_puts(out, "\r\n");
}

static void
put_text(const struct dsn *dsn, const char *boundary, bool eight, struct buf *out)
{
	char date[DATE_BYTES], id[ID_TEXT_LEN + 1];

	buf_printf(out,
	    "\r\n--%s\r\n"
	    "Content-Type: text/plain; charset=utf-8\r\n"
	    "Content-Transfer-Encoding: %s\r\n"
	    "\r\n"
	    "This is the mail system of %.*s.\r\n\r\n%s",
	    boundary, eight ? "8bit" : "7bit", SLICE_FMT(dsn->hostname), what_happened(dsn));
	if (all_are(dsn, DSN_DELAYED)) {
		date_format((struct date){ dsn->retry_until_ms / 1000, 0 }, date);
		buf_printf(out, "%s%s.", dsn->retry_until_ms > 0 ? " until\r\n" : "",
		    dsn->retry_until_ms > 0 ? date : "");
	}
	buf_puts(out, "\r\n");
	for (size_t i = 0; i < dsn->n_rcpts; i++) {
		buf_puts(out, "\r\n<");
		put_line_text(out, dsn->rcpts[i].forward_path, 320);
		buf_puts(out, ">");
		if (is_good(&dsn->rcpts[i]) && !all_are(dsn, dsn->rcpts[i].action))
			buf_puts(out, dsn->rcpts[i].action == DSN_RELAYED
					  ? " has no trouble: it was passed on"
					  : " has no trouble: it was delivered");
		buf_puts(out, "\r\n");
		put_reason(&dsn->rcpts[i], out);
	}
	if (dsn->full && !returns_all(dsn))
		buf_puts(out,
		    "\r\nYour message is too long to be returned: only its header follows.\r\n");
	id_text(dsn->original_id, id);
	buf_printf(out, "\r\nIf you ask about it, please mention this id: %s\r\n", id);
}

/* ---- for programs: RFC 3464 ---- */

/* A host by its name, or by its address as RFC 5321 section 4.1.3 writes it. */
static void
put_host(const char *field, struct slice host, struct buf *out)
{
	char text[INET6_ADDRSTRLEN];
	uint8_t addr[16];
	const char *begin = "", *end = "";

	if (host.len < sizeof(text)) {
		memcpy(text, host.p, host.len);
		text[host.len] = '\0';
		if (inet_pton(AF_INET, text, addr) == 1)
			begin = "[";
		else if (inet_pton(AF_INET6, text, addr) == 1)
			begin = "[IPv6:";
		end = *begin != '\0' ? "]" : "";
	}
	buf_printf(out, "%s: dns; %s", field, begin);
	put_line_text(out, host, 255);
	buf_printf(out, "%s\r\n", end);
}

/* Appends an address with its type (section 2.3.1): utf-8 for one that is not ASCII (RFC 6533). */
static void
put_address(const char *field, struct slice address, struct buf *out)
{
	buf_printf(out, "%s: %s;", field, is_8bit(address) ? "utf-8" : "rfc822");
	put_line_text(out, address, 320);
	buf_puts(out, "\r\n");
}

static int
hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Appends xtext (RFC 3461 section 4) as what it stands for. */
static void
put_xtext(struct slice s, struct buf *out)
{
	char storage[LINE_MAX_OCTETS];
	struct buf plain = buf_over(storage, sizeof(storage));

	for (size_t i = 0; i < s.len; i++) {
		if (s.p[i] == '+' && s.len - i > 2 && hex_digit(s.p[i + 1]) >= 0 &&
		    hex_digit(s.p[i + 2]) >= 0) {
			buf_putc(
			    &plain, (char)(hex_digit(s.p[i + 1]) * 16 + hex_digit(s.p[i + 2])));
			i += 2;
		} else {
			buf_putc(&plain, s.p[i]);
		}
	}
	put_line_text(out, buf_slice(&plain), LINE_MAX_OCTETS);
}

static void
put_original_recipient(struct slice orcpt, struct buf *out)
{
	struct slice type = slice_until(orcpt, ';');

	if (type.len == 0 || type.len == orcpt.len)
		return;
	buf_puts(out, "Original-Recipient: ");
	put_line_text(out, type, 64);
	buf_puts(out, ";");
	put_xtext(slice_drop(orcpt, type.len + 1), out);
	buf_puts(out, "\r\n");
}

/* A reply begins with three digits; what does not is a reason of ours. */
static bool
is_smtp_reply(struct slice reply)
{
	uint64_t code;

	return slice_u64(slice_head(reply, 3), 599, &code) && code >= 200 && reply.len >= 3;
}

static void
put_rcpt(const struct dsn_rcpt *rcpt, struct buf *out)
{
	static const char *const actions[] = {
		[DSN_FAILED] = "failed",
		[DSN_DELAYED] = "delayed",
		[DSN_RELAYED] = "relayed",
		[DSN_EXPIRED] = "failed",
		[DSN_DELIVERED] = "delivered",
	};
	const char *status = rcpt->action == DSN_DELAYED ? "4.0.0" : "5.0.0";

	buf_puts(out, "\r\n");
	put_original_recipient(rcpt->orcpt, out);
	put_address("Final-Recipient", rcpt->forward_path, out);
	buf_printf(out, "Action: %s\r\nStatus: ", actions[rcpt->action]);
	if (is_good(rcpt))
		status = "2.0.0";
	put_line_text(out, rcpt->status.len > 0 ? rcpt->status : slice_str(status), 16);
	buf_puts(out, "\r\n");
	if (rcpt->remote_mta.len > 0)
		put_host("Remote-MTA", rcpt->remote_mta, out);
	if (rcpt->reply.len > 0) {
		buf_printf(
		    out, "Diagnostic-Code: %s; ", is_smtp_reply(rcpt->reply) ? "smtp" : "x-relayd");
		put_line_text(out, rcpt->reply, DSN_TEXT_MAX);
		buf_puts(out, "\r\n");
	}
	if (rcpt->last_attempt_ms > 0)
		put_date(out, "Last-Attempt-Date", rcpt->last_attempt_ms);
}

static void
put_status(const struct dsn *dsn, const char *boundary, struct buf *out)
{
	char id[ID_TEXT_LEN + 1];
	size_t from;

	id_text(dsn->original_id, id);
	buf_printf(out, "\r\n--%s\r\nContent-Type: message/%sdelivery-status\r\n", boundary,
	    dsn->utf8 ? "global-" : "");
	if (dsn->utf8)
		buf_puts(out, "Content-Transfer-Encoding: 8bit\r\n");
	buf_puts(out, "\r\n");
	from = out->len;
	if (dsn->envid.len > 0) {
		buf_puts(out, "Original-Envelope-Id: ");
		put_xtext(dsn->envid, out);
		buf_puts(out, "\r\n");
	}
	buf_printf(
	    out, "Reporting-MTA: dns; %.*s\r\nX-Relayd-Id: %s\r\n", SLICE_FMT(dsn->hostname), id);
	put_date(out, "Arrival-Date", dsn->arrival_ms);
	for (size_t i = 0; i < dsn->n_rcpts; i++) {
		put_rcpt(&dsn->rcpts[i], out);
		if (dsn->rcpts[i].action == DSN_DELAYED && dsn->retry_until_ms > 0)
			put_date(out, "Will-Retry-Until", dsn->retry_until_ms);
	}
	/* message/delivery-status is 7bit: RFC 3464 section 2.1 */
	for (size_t i = from; !dsn->utf8 && i < out->len; i++)
		if ((unsigned char)out->p[i] >= 0x80)
			out->p[i] = '?';
}

/* ---- the original ---- */

/* The header, cut between two fields where it is too long. */
static struct slice
returned_header(const struct dsn *dsn)
{
	struct header_iter it = header_iter_of(dsn->original);
	struct header_field field;
	size_t n = 0;

	while (header_next(&it, &field)) {
		if (dsn->original.len - it.rest.len > DSN_HEADER_MAX)
			break;
		n = dsn->original.len - it.rest.len;
	}
	return slice_head(dsn->original, n);
}

/* Text is lines that end with CRLF: whatever else a header had that came as BINARYMIME could end
 * our report in the eyes of a server that takes a bare CR or LF for a line end. */
static void
put_lines(struct slice text, struct buf *out)
{
	for (size_t i = 0; i < text.len; i++) {
		char c = text.p[i];
		bool cr_alone = c == '\r' && (i + 1 == text.len || text.p[i + 1] != '\n');
		bool lf_alone = c == '\n' && (i == 0 || text.p[i - 1] != '\r');

		buf_putc(out, c == '\0' || cr_alone || lf_alone ? '?' : c);
	}
}

static void
put_original(const struct dsn *dsn, const char *boundary, struct buf *out)
{
	bool all = returns_all(dsn);
	struct slice returned = all ? dsn->original : returned_header(dsn);
	const char *type = all         ? dsn->utf8 ? "message/global" : "message/rfc822"
			   : dsn->utf8 ? "message/global-headers"
				       : "text/rfc822-headers";

	buf_printf(out, "\r\n--%s\r\nContent-Type: %s\r\nContent-Transfer-Encoding: %s\r\n\r\n",
	    boundary, type, is_8bit(returned) ? "8bit" : "7bit");
	if (all && header_length(returned) == 0 && !slice_starts(returned, SLICE("\r\n")))
		buf_puts(out, "\r\n"); /* it has no header: what it begins with is none */
	put_lines(returned, out);
	if (!slice_ends(returned, SLICE("\r\n")))
		buf_puts(out, "\r\n");
	buf_printf(out, "\r\n--%s--\r\n", boundary);
}

int
dsn_build(const struct dsn *dsn, struct buf *out, struct err *err)
{
	char boundary[BOUNDARY_MAX];
	bool eight = dsn->utf8 || is_8bit(returns_all(dsn) ? dsn->original : returned_header(dsn));

	for (size_t i = 0; i < dsn->n_rcpts; i++)
		eight =
		    eight || is_8bit(dsn->rcpts[i].reply) || is_8bit(dsn->rcpts[i].forward_path);
	choose_boundary(dsn, boundary);
	put_header(dsn, boundary, eight, out);
	put_text(dsn, boundary, eight, out);
	put_status(dsn, boundary, out);
	put_original(dsn, boundary, out);
	if (out->overflow)
		return err_set(err, ERR_LIMIT, "delivery report over %zu bytes", out->max);
	return 0;
}

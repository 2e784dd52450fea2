/* relayd/mail/packed.c - texts in fewer bytes, as references to what the reader knows already. */
#include "relayd/mail/packed.h"

#include "relayd/core/le.h"
#include "relayd/core/varint.h"

#include <pthread.h>

#define MATCH_MIN 4
#define NIBBLE    15u

/* Part of the format of envelopes: another text is another version of them.  What is most common
 * stands last, and in its order, so that a reference to it is long. */
static const char fixed[] =
    "Return-Path: <>\r\nDKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=; s=; t=; "
    "h=From:To:"
    "Subject:Date:Message-ID; bh=; b=X-Relayd-Client: \r\nX-Relayd-Helo: \r\nX-Relayd-From: <>\r\n"
    "X-Relayd-To: <>,\r\n\tX-Relayd-Verdict: quarantine\r\nX-Relayd-Verdict: tag\r\n"
    "; spf=none smtp.helo=; spf=fail ; spf=softfail ; spf=neutral ; spf=pass smtp.mailfrom="
    "; dkim=pass header.d=; dmarc=pass header.from=\r\n (local) ([IPv6: with UTF8SMTPSA id "
    " with LMTP id  with ESMTPSA id  with SMTP id "
    "\r\n\t(TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384)\r\n\t(TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384)"
    "\r\n\t(TLSv1.3 TLS_AES_128_GCM_SHA256)\r\n\t(TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n\tfor <"
    "X-Relayd-Id: \r\nX-Relayd-Verdict: accept\r\nX-Relayd-Score: 0.0\r\nX-Relayd-Findings: "
    "none\r\n"
    "Authentication-Results: ; none\r\nReceived: from  ([])\r\n\tby  with ESMTPS id \r\n\tfor "
    "<>;\r\n\t";

static unsigned
hash(const char *p)
{
	return (le32_get(p) * 2654435761u) >> 22; /* below PACKED_HASHES */
}

/* What is in the window from there on is found from here on; place 0 is none. */
static void
note_range(struct packed *p, size_t from)
{
	for (size_t i = from > 0 ? from : 1; i + MATCH_MIN <= p->len; i++)
		p->at[hash(p->window + i)] = (uint16_t)i;
}

static struct packed fresh; /* once it is there, only read */

static void
make_fresh(void)
{
	packed_begin_read(&fresh);
	note_range(&fresh, 0);
}

void
packed_begin_read(struct packed *p)
{
	p->writes = false;
	p->len = sizeof(fixed) - 1;
	memcpy(p->window, fixed, sizeof(fixed) - 1);
}

void
packed_begin_write(struct packed *p)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	(void)pthread_once(&once, make_fresh); /* cannot fail */
	packed_begin_read(p);
	memcpy(p->at, fresh.at, sizeof(p->at));
	p->writes = true;
}

static bool
has_room(const struct packed *p, uint64_t bytes)
{
	return bytes <= PACKED_WINDOW - p->len;
}

void
packed_know(struct packed *p, struct slice text)
{
	size_t from = p->len;

	if (text.len == 0 || !has_room(p, text.len))
		return;
	memcpy(p->window + from, text.p, text.len);
	p->len += text.len;
	if (p->writes)
		note_range(p, from);
}

/* -- writing -- */

static void
put_count(struct buf *out, size_t n)
{
	if (n >= NIBBLE)
		varint_put(out, n - NIBBLE);
}

static size_t
nibble(size_t n)
{
	return n < NIBBLE ? n : NIBBLE;
}

/* match: bytes of the reference, or 0 at the end of the text. */
static void
put_step(struct buf *out, struct slice literals, size_t match, size_t place)
{
	size_t more = match > 0 ? match - MATCH_MIN : 0;

	buf_putc(out, (char)(nibble(literals.len) << 4 | nibble(more)));
	put_count(out, literals.len);
	buf_put(out, literals);
	if (match == 0)
		return;
	put_count(out, more);
	buf_putc(out, (char)(place & 0xff));
	buf_putc(out, (char)(place >> 8));
}

/* How many bytes at that place, of the first `known` of the window, are those that text begins
 * with. */
static size_t
match_at(const struct packed *p, size_t place, size_t known, struct slice text)
{
	size_t n = 0, max = place < known ? known - place : 0;

	if (max > text.len)
		max = text.len;
	while (n < max && p->window[place + n] == text.p[n])
		n++;
	return n;
}

void
packed_put(struct packed *p, struct slice text, struct buf *out)
{
	bool own = has_room(p, text.len); /* it can refer to itself */
	size_t i = 0, from = 0;

	varint_put(out, text.len);
	if (text.len == 0)
		return;
	if (own)
		memcpy(p->window + p->len, text.p, text.len);
	while (text.len - i >= MATCH_MIN) {
		uint16_t *at = &p->at[hash(text.p + i)];
		size_t known = p->len + (own ? i : 0);
		size_t n = *at > 0 ? match_at(p, *at, known, slice_drop(text, i)) : 0;

		if (n < MATCH_MIN) {
			if (own)
				*at = (uint16_t)known;
			i++;
			continue;
		}
		put_step(out, slice_of(text.p + from, i - from), n, *at);
		from = i += n;
	}
	if (from < text.len)
		put_step(out, slice_drop(text, from), 0, 0);
	if (own)
		p->len += text.len;
}

/* -- reading -- */

struct unpacking {
	const struct packed *p;
	struct slice *in;
	char *out; /* in the window, when own */
	size_t len, done;
	bool own;
};

/* The number whose low part is a nibble; false when it is over max. */
static bool
take_number(struct slice *in, unsigned low, size_t max, size_t *n)
{
	uint64_t more = 0;

	if (low == NIBBLE && !varint_take(in, &more))
		return false;
	*n = (size_t)more + low;
	return more <= max && *n <= max;
}

static bool
take_literals(struct unpacking *u, unsigned low)
{
	size_t n;

	if (!take_number(u->in, low, u->len - u->done, &n) || n > u->in->len)
		return false;
	memcpy(u->out + u->done, u->in->p, n);
	*u->in = slice_drop(*u->in, n);
	u->done += n;
	return true;
}

static bool
take_reference(struct unpacking *u, unsigned low)
{
	size_t n, place, known = u->p->len + (u->own ? u->done : 0), left = u->len - u->done;

	if (left < MATCH_MIN || !take_number(u->in, low, left - MATCH_MIN, &n) || u->in->len < 2)
		return false;
	n += MATCH_MIN;
	place = (size_t)(uint8_t)u->in->p[0] | (size_t)(uint8_t)u->in->p[1] << 8;
	*u->in = slice_drop(*u->in, 2);
	if (place > known || n > known - place)
		return false;
	memcpy(u->out + u->done, u->p->window + place, n);
	u->done += n;
	return true;
}

static bool
unpack(struct unpacking *u)
{
	while (u->done < u->len) {
		unsigned counts;

		if (u->in->len == 0)
			return false;
		counts = (uint8_t)u->in->p[0];
		*u->in = slice_drop(*u->in, 1);
		if (!take_literals(u, counts >> 4))
			return false;
		if (u->done == u->len)
			return (counts & NIBBLE) == 0;
		if (!take_reference(u, counts & NIBBLE))
			return false;
	}
	return true;
}

enum packed_result
packed_take(
    struct packed *p, struct slice *in, uint64_t max, struct arena *arena, struct slice *text)
{
	struct unpacking u = { .p = p, .in = in };
	uint64_t len;

	*text = SLICE("");
	if (!varint_take(in, &len))
		return PACKED_MALFORMED;
	if (len > max)
		return PACKED_LIMIT;
	if (len == 0)
		return PACKED_OK;
	u.len = (size_t)len;
	u.own = has_room(p, len);
	u.out = u.own ? p->window + p->len : arena_alloc(arena, u.len + 1);
	if (u.out == NULL)
		return PACKED_LIMIT;
	if (!unpack(&u))
		return PACKED_MALFORMED;
	*text = slice_of(u.out, u.len);
	if (!u.own)
		return PACKED_OK;
	p->len += u.len;
	*text = arena_copy(arena, *text);
	if (text->p != NULL)
		return PACKED_OK;
	*text = SLICE("");
	return PACKED_LIMIT;
}

/* relayd/review/imap/scan.c - commands out of bytes: lines, and the literals in them. */
#include "relayd/review/imap/scan.h"

void
imap_scan_init(struct imap_scanner *sc)
{
	*sc = (struct imap_scanner){ .text = buf_heap(IMAP_COMMAND_MAX) };
}

void
imap_scan_fini(struct imap_scanner *sc)
{
	buf_fini(&sc->text);
}

void
imap_scan_next(struct imap_scanner *sc)
{
	/* An idle session keeps no memory; a busy one allocates a few hundred octets again. */
	imap_scan_fini(sc);
	imap_scan_init(sc);
}

struct slice
imap_scan_command(const struct imap_scanner *sc)
{
	return buf_slice(&sc->text);
}

/* "{123}" or "{123+}" (RFC 7888) at the end of a line that has lost its line end. */
static bool
ends_with_literal(struct slice line, uint64_t *size, bool *waits)
{
	const char *open;
	struct slice digits;

	if (!slice_chop(&line, "}"))
		return false;
	open = memrchr(line.p, '{', line.len);
	if (open == NULL)
		return false;
	digits = slice_drop(line, (size_t)(open + 1 - line.p));
	*waits = !slice_chop(&digits, "+");
	return slice_u64(digits, UINT32_MAX, size);
}

/* A whole line is in: what it means. */
static enum imap_scan
line_ended(struct imap_scanner *sc)
{
	struct slice line = slice_drop(buf_slice(&sc->text), sc->line_at);
	bool literal;

	(void)slice_chop(&line, "\n");
	(void)slice_chop(&line, "\r"); /* a client by hand may send LF alone */
	literal = ends_with_literal(line, &sc->literal, &sc->waits);
	if (sc->has_nul && literal && !sc->waits) {
		sc->dropping = true;
		sc->in_literal = sc->literal > 0;
		return IMAP_SCAN_MORE;
	}
	if (sc->has_nul)
		return IMAP_SCAN_NUL;
	if (literal)
		return IMAP_SCAN_LITERAL;
	sc->text.len = sc->line_at + line.len;
	return sc->refused ? IMAP_SCAN_REFUSED : IMAP_SCAN_COMMAND;
}

static void
keep_tail(struct imap_scanner *sc, struct slice part)
{
	size_t n = sizeof(sc->tail);

	for (size_t i = part.len > n ? part.len - n : 0; i < part.len; i++) {
		memmove(sc->tail, sc->tail + 1, n - 1);
		sc->tail[n - 1] = part.p[i];
	}
}

/* Drops bytes up to the end of the line.  A literal that its sender does not wait with belongs to
 * what is dropped; of the line only the end is kept, to see it. */
static enum imap_scan
drop_line(struct imap_scanner *sc, struct slice *in)
{
	const char *lf = memchr(in->p, '\n', in->len);
	struct slice part = lf != NULL ? slice_head(*in, (size_t)(lf + 1 - in->p)) : *in;
	struct slice line;
	bool waits;

	keep_tail(sc, part);
	*in = slice_drop(*in, part.len);
	if (lf == NULL)
		return IMAP_SCAN_MORE;
	line = slice_of(sc->tail, sizeof(sc->tail));
	(void)slice_chop(&line, "\n");
	(void)slice_chop(&line, "\r"); /* as above */
	if (ends_with_literal(line, &sc->literal, &waits) && !waits) {
		sc->in_literal = true;
		return IMAP_SCAN_MORE;
	}
	sc->dropping = false;
	return sc->refused ? IMAP_SCAN_REFUSED : sc->has_nul ? IMAP_SCAN_NUL : IMAP_SCAN_LONG;
}

static enum imap_scan
take_line(struct imap_scanner *sc, struct slice *in)
{
	const char *lf = memchr(in->p, '\n', in->len);
	struct slice part = lf != NULL ? slice_head(*in, (size_t)(lf + 1 - in->p)) : *in;
	size_t line_len = sc->text.len - sc->line_at;

	if (part.len > IMAP_LINE_MAX - line_len || part.len > IMAP_COMMAND_MAX - sc->text.len) {
		sc->dropping = true;
		keep_tail(sc, slice_drop(buf_slice(&sc->text), sc->line_at));
		return drop_line(sc, in);
	}
	sc->has_nul = sc->has_nul || slice_has(part, '\0');
	buf_put(&sc->text, part);
	*in = slice_drop(*in, part.len);
	return lf != NULL ? line_ended(sc) : IMAP_SCAN_MORE;
}

static void
take_literal(struct imap_scanner *sc, struct slice *in)
{
	struct slice part = slice_head(*in, sc->literal < in->len ? (size_t)sc->literal : in->len);

	if (!sc->dropping)
		buf_put(&sc->text, part);
	*in = slice_drop(*in, part.len);
	sc->literal -= part.len;
	if (sc->literal > 0)
		return;
	sc->in_literal = false;
	sc->line_at = sc->text.len;
	memset(sc->tail, 0, sizeof(sc->tail));
}

enum imap_scan
imap_scan(struct imap_scanner *sc, struct slice *in)
{
	while (in->len > 0) {
		enum imap_scan event = IMAP_SCAN_MORE;

		if (sc->in_literal)
			take_literal(sc, in);
		else
			event = sc->dropping ? drop_line(sc, in) : take_line(sc, in);
		if (event != IMAP_SCAN_MORE)
			return event;
	}
	return IMAP_SCAN_MORE;
}

uint64_t
imap_scan_literal_size(const struct imap_scanner *sc)
{
	return sc->literal;
}

bool
imap_scan_literal_waits(const struct imap_scanner *sc)
{
	return sc->waits;
}

bool
imap_scan_accept(struct imap_scanner *sc)
{
	if (sc->literal > IMAP_LITERAL_MAX || sc->literal > IMAP_COMMAND_MAX - sc->text.len)
		return false;
	sc->in_literal = sc->literal > 0;
	sc->line_at = sc->text.len;
	return true;
}

void
imap_scan_refuse(struct imap_scanner *sc)
{
	if (sc->waits)
		return;
	sc->dropping = true;
	sc->refused = true;
	sc->in_literal = sc->literal > 0;
}

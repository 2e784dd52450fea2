/* relayd/smtp/scan.c - command lines and message data: bytes in, events out. */
#include "relayd/smtp/scan.h"

/* Takes what is there of a line that counts for nothing; true when it ended. */
static bool
drop_rest(struct smtp_scanner *sc, struct slice *in)
{
	while (in->len > 0) {
		struct slice text = slice_until(*in, '\n');
		bool cr = text.len > 0 ? text.p[text.len - 1] == '\r' : sc->cr;

		if (text.len == in->len) {
			*in = slice_drop(*in, text.len);
			sc->cr = cr;
			return false;
		}
		*in = slice_drop(*in, text.len + 1);
		if (cr) {
			*sc = (struct smtp_scanner){ 0 };
			return true;
		}
		sc->cr = false;
	}
	return false;
}

enum smtp_scan
smtp_scan_command(struct smtp_scanner *sc, struct slice *in, size_t max, struct smtp_command *cmd)
{
	bool told = sc->told;
	struct slice line;
	const char *lf;

	if (sc->dropping) {
		if (!drop_rest(sc, in))
			return SMTP_SCAN_MORE;
		if (!told)
			return SMTP_SCAN_LONG;
	}
	lf = memchr(in->p, '\n', in->len);
	line = slice_head(*in, lf != NULL ? (size_t)(lf + 1 - in->p) : in->len);
	if (lf == NULL && line.len < max)
		return SMTP_SCAN_MORE;
	if (lf == NULL || line.len > max) {
		*sc = (struct smtp_scanner){ .dropping = true };
		return drop_rest(sc, in) ? SMTP_SCAN_LONG : SMTP_SCAN_MORE;
	}
	*in = slice_drop(*in, line.len);
	if (!slice_chop(&line, "\r\n")) {
		*sc = (struct smtp_scanner){ .dropping = true, .told = true };
		return SMTP_SCAN_BARE;
	}
	if (slice_has(line, '\r') || slice_has(line, '\0'))
		return SMTP_SCAN_BARE;
	cmd->line = line;
	cmd->verb = slice_until(line, ' ');
	cmd->args = slice_drop(line, cmd->verb.len);
	return SMTP_SCAN_COMMAND;
}

static void
count(struct smtp_data *d, size_t n)
{
	if (n > SMTP_TEXT_LINE_MAX - d->line) {
		d->faults |= SMTP_FAULT_LINE;
		n = SMTP_TEXT_LINE_MAX - d->line;
	}
	d->line += (uint32_t)n;
}

/* Behind a CR: the line ends here or the CR was alone.  Returns how many bytes that took. */
static size_t
after_cr(struct smtp_data *d, char next)
{
	if (next != '\n') {
		d->faults |= d->convert ? 0u : (unsigned)SMTP_FAULT_BARE_CR;
		d->state = d->convert ? SMTP_DATA_OWES_LF : SMTP_DATA_TEXT;
		return 0;
	}
	count(d, 1);
	d->line = 0;
	d->state = SMTP_DATA_BOL;
	return 1;
}

/* The rest of the line at text, as far as it is there.  Returns how many bytes were looked at. */
static size_t
rest_of_line(struct smtp_data *d, struct slice text)
{
	const char *lf = memchr(text.p, '\n', text.len);
	struct slice line = slice_head(text, lf != NULL ? (size_t)(lf - text.p) : text.len);
	const char *cr = memchr(line.p, '\r', line.len);

	if (cr != NULL) { /* what follows it decides */
		count(d, (size_t)(cr + 1 - line.p));
		d->state = SMTP_DATA_CR;
		return (size_t)(cr + 1 - line.p);
	}
	d->state = SMTP_DATA_TEXT;
	if (lf == NULL) {
		count(d, line.len);
		return line.len;
	}
	if (d->convert) {
		d->state = SMTP_DATA_AT_LF;
		count(d, line.len);
		return line.len;
	}
	d->faults |= SMTP_FAULT_BARE_LF;
	count(d, line.len + 1);
	return line.len + 1;
}

static bool
owes(const struct smtp_data *d)
{
	return d->state == SMTP_DATA_OWES_LF || d->state == SMTP_DATA_OWES_CRLF ||
	       d->state == SMTP_DATA_AT_LF;
}

/* The rest of a line end that the client left out. */
static struct slice
pay(struct smtp_data *d, struct slice *in)
{
	struct slice end = d->state == SMTP_DATA_OWES_LF ? SLICE("\n") : SLICE("\r\n");

	if (d->state == SMTP_DATA_AT_LF)
		*in = slice_drop(*in, 1);
	count(d, end.len);
	d->line = 0;
	d->state = SMTP_DATA_CONVERTED;
	return end;
}

/* The longest run at in that needs no byte left out: up to a dot that begins a line. */
static struct slice
take_run(struct smtp_data *d, struct slice *in)
{
	struct slice rest = *in, run;

	while (rest.len > 0 && !(d->state == SMTP_DATA_BOL && rest.p[0] == '.') && !owes(d)) {
		if (d->state == SMTP_DATA_CONVERTED)
			d->dots = d->dots || rest.p[0] == '.';
		if (d->state == SMTP_DATA_CR)
			rest = slice_drop(rest, after_cr(d, rest.p[0]));
		else
			rest = slice_drop(rest, rest_of_line(d, rest));
	}
	run = slice_head(*in, in->len - rest.len);
	*in = rest;
	return run;
}

static bool
has_eight_bit(struct slice s)
{
	uint64_t all = 0, word;
	size_t i = 0;

	for (; s.len - i >= sizeof(word); i += sizeof(word)) {
		memcpy(&word, s.p + i, sizeof(word));
		all |= word;
	}
	for (; i < s.len; i++)
		all |= (uint64_t)(unsigned char)s.p[i];
	return (all & UINT64_C(0x8080808080808080)) != 0;
}

/* A dot began the line and is held back.  True when it was the final one. */
static bool
after_dot(struct smtp_data *d, struct slice *in)
{
	if (d->state == SMTP_DATA_DOT && in->p[0] == '\r') {
		d->state = SMTP_DATA_DOT_CR;
		*in = slice_drop(*in, 1);
		return false;
	}
	if (d->state == SMTP_DATA_DOT) {
		d->dots = d->dots || in->p[0] == '.';
		d->state = SMTP_DATA_TEXT;
		return false;
	}
	if (in->p[0] == '\n') {
		*in = slice_drop(*in, 1);
		return true;
	}
	d->faults |= d->convert ? 0u : (unsigned)SMTP_FAULT_BARE_CR;
	count(d, 1);
	d->state = d->convert ? SMTP_DATA_OWES_CRLF : SMTP_DATA_TEXT;
	return false;
}

enum smtp_data_event
smtp_scan_data(struct smtp_data *d, struct slice *in, struct slice *out)
{
	while (in->len > 0) {
		if (d->state == SMTP_DATA_DOT || d->state == SMTP_DATA_DOT_CR) {
			if (after_dot(d, in))
				return SMTP_DATA_END;
			continue;
		}
		if (d->state == SMTP_DATA_BOL && in->p[0] == '.') {
			d->state = SMTP_DATA_DOT;
			*in = slice_drop(*in, 1);
			continue;
		}
		*out = owes(d) ? pay(d, in) : take_run(d, in);
		if (out->len == 0)
			continue;
		d->eight_bit = d->eight_bit || has_eight_bit(*out);
		if (slice_has(*out, '\0'))
			d->faults |= SMTP_FAULT_NUL;
		if (d->faults == 0) {
			d->bytes += out->len;
			return SMTP_DATA_BYTES;
		}
	}
	return SMTP_DATA_MORE;
}

void
smtp_scan_chunk(struct smtp_data *d, struct slice run)
{
	struct slice rest = run;

	while (rest.len > 0) {
		d->dots = d->dots || (d->state == SMTP_DATA_BOL && rest.p[0] == '.');
		if (d->state == SMTP_DATA_CR)
			rest = slice_drop(rest, after_cr(d, rest.p[0]));
		else
			rest = slice_drop(rest, rest_of_line(d, rest));
	}
	d->eight_bit = d->eight_bit || has_eight_bit(run);
	if (slice_has(run, '\0'))
		d->faults |= SMTP_FAULT_NUL;
	d->bytes += run.len;
}

void
smtp_scan_chunk_end(struct smtp_data *d)
{
	if (d->state == SMTP_DATA_CR)
		d->faults |= SMTP_FAULT_BARE_CR;
}

const char *
smtp_fault_name(unsigned faults)
{
	if (faults & SMTP_FAULT_BARE_LF)
		return "bare-lf";
	if (faults & SMTP_FAULT_BARE_CR)
		return "bare-cr";
	if (faults & SMTP_FAULT_NUL)
		return "nul";
	return faults & SMTP_FAULT_LINE ? "long-line" : "";
}

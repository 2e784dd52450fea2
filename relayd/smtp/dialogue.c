/* relayd/smtp/dialogue.c - what a client and its peer said of late, for the admin to read. */
#include "relayd/smtp/dialogue.h"

#include <string.h>

/* Forgets the older half. */
static void
forget_half(struct dialogue *d)
{
	size_t n = d->len / 2;

	n += slice_until(slice_of(d->text + n, d->len - n), '\n').len;
	n = n < d->len ? n + 1 : n;
	d->len -= n;
	memmove(d->text, d->text + n, d->len);
}

static void
note_line(struct dialogue *d, char who, struct slice line)
{
	char *at;

	(void)slice_chop(&line, "\r");
	line = slice_head(line, DIALOGUE_LINE);
	if (line.len == 0)
		return;
	while (d->len + line.len + 4 > sizeof(d->text))
		forget_half(d);
	at = d->text + d->len;
	at[0] = who;
	at[1] = ':';
	at[2] = ' ';
	memcpy(at + 3, line.p, line.len);
	for (size_t i = 3; i < line.len + 3; i++)
		if ((unsigned char)at[i] < ' ' || at[i] == 0x7f)
			at[i] = '?'; /* it goes to a terminal */
	at[line.len + 3] = '\n';
	d->len += line.len + 4;
}

/* Of a login only who it was and how it ended: the rest is a secret, or something to guess it
 * from. */
static struct slice
without_secrets(char who, struct slice line, bool login)
{
	struct slice verb = slice_until(line, ' ');
	size_t n;

	if (!login)
		return line;
	if (who == 'S')
		return slice_starts(line, SLICE("334")) ? SLICE("334 (a challenge)") : line;
	if (!slice_eq(verb, SLICE("AUTH")))
		return SLICE("(the answer)");
	n = verb.len + 1;
	return slice_head(line, n + slice_until(slice_drop(line, n), ' ').len);
}

void
dialogue_note(struct dialogue *d, char who, struct slice said, bool login)
{
	while (said.len > 0) {
		struct slice line = slice_until(said, '\n');

		said = slice_drop(said, line.len + 1);
		note_line(d, who, without_secrets(who, line, login));
	}
}

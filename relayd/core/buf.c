/* relayd/core/buf.c - output bytes in a buffer that never grows past its limit. */
#include "relayd/core/buf.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define BUF_FIRST_BYTES 256

void
buf_fini(struct buf *b)
{
	if (b->heap)
		free(b->p);
	*b = (struct buf){ 0 };
}

void
buf_reset(struct buf *b)
{
	b->len = 0;
	b->overflow = false;
}

void
buf_consume(struct buf *b, size_t n)
{
	b->len -= n;
	if (b->len > 0)
		memmove(b->p, b->p + n, b->len);
}

static bool
grow(struct buf *b, size_t n)
{
	size_t cap = b->cap > 0 ? b->cap : BUF_FIRST_BYTES;
	char *p;

	if (!b->heap || n > b->max - b->len)
		return false;
	while (cap - b->len < n)
		cap *= 2;
	if (cap > b->max)
		cap = b->max;
	p = realloc(b->p, cap);
	if (p == NULL)
		return false;
	b->p = p;
	b->cap = cap;
	return true;
}

char *
buf_room(struct buf *b, size_t n)
{
	if (b->overflow || (n > b->cap - b->len && !grow(b, n))) {
		b->overflow = true;
		return NULL;
	}
	return b->p + b->len;
}

void
buf_put_grown(struct buf *b, struct slice s)
{
	char *at = s.len > 0 ? buf_room(b, s.len) : NULL;

	if (at == NULL)
		return;
	memcpy(at, s.p, s.len);
	b->len += s.len;
}

void
buf_int(struct buf *b, int64_t n)
{
	char text[21];
	char *at = text + sizeof(text);
	uint64_t left = n < 0 ? -(uint64_t)n : (uint64_t)n;

	do
		*--at = (char)('0' + left % 10);
	while ((left /= 10) > 0);
	if (n < 0)
		*--at = '-';
	buf_put(b, slice_of(at, (size_t)(text + sizeof(text) - at)));
}

void
buf_tenths(struct buf *b, double x)
{
	bool fits = x > -1e14 && x < 1e14;
	int64_t n = fits ? (int64_t)(x * 10 + (x < 0 ? -0.5 : 0.5)) : 0;

	if (!fits || (double)n / 10 != x || (n == 0 && signbit(x))) {
		buf_printf(b, "%.1f", x);
		return;
	}
	if (n < 0)
		buf_putc(b, '-');
	n = n < 0 ? -n : n;
	buf_int(b, n / 10);
	buf_putc(b, '.');
	buf_putc(b, (char)('0' + n % 10));
}

void
buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap, again;
	char text[512], *at;
	int n;

	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n < 0) {
		b->overflow = true;
	} else if ((size_t)n < sizeof(text)) {
		buf_put(b, slice_of(text, (size_t)n));
	} else if ((at = buf_room(b, (size_t)n + 1)) != NULL) {
		(void)vsnprintf(at, (size_t)n + 1, fmt, again);	/* measured just above */
		b->len += (size_t)n;
	}
	va_end(again);
}

/* relayd/core/arena.c - memory that is freed all at once, up to a byte limit. */
#include "relayd/core/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define BLOCK_FIRST_BYTES 1000
#define BLOCK_MAX_BYTES   65000
#define ALIGN             _Alignof(max_align_t)

struct arena_block {
	struct arena_block *next;
	size_t cap, used;
	_Alignas(max_align_t) char bytes[];
};

static struct arena_block *
add_block(struct arena *a, size_t n)
{
	size_t cap = a->blocks == NULL ? BLOCK_FIRST_BYTES : a->blocks->cap * 2;
	struct arena_block *b;

	if (cap > BLOCK_MAX_BYTES)
		cap = BLOCK_MAX_BYTES;
	if (cap < n)
		cap = n;
	b = malloc(sizeof(*b) + cap);
	if (b == NULL)
		return NULL;
	*b = (struct arena_block){ .next = a->blocks, .cap = cap };
	a->blocks = b;
	return b;
}

void *
arena_alloc(struct arena *a, size_t n)
{
	struct arena_block *b = a->blocks;
	void *p;

	a->lacked = a->lacked || n > a->max - a->used;
	if (n > a->max - a->used)
		return NULL;
	n = (n + ALIGN - 1) & ~(ALIGN - 1);
	if ((b == NULL || n > b->cap - b->used) && (b = add_block(a, n)) == NULL) {
		a->lacked = true;
		return NULL;
	}
	p = b->bytes + b->used;
	b->used += n;
	a->used = n < a->max - a->used ? a->used + n : a->max;
	return memset(p, 0, n);
}

void *
arena_grow(struct arena *a, void *items, size_t n, size_t *cap, size_t size)
{
	size_t more = *cap > 0 ? 2 * *cap : 4;
	void *grown;

	if (n < *cap)
		return items;
	grown = arena_alloc(a, more * size);
	if (grown == NULL)
		return NULL;
	if (n > 0)
		memcpy(grown, items, n * size);
	*cap = more;
	return grown;
}

struct slice
arena_copy(struct arena *a, struct slice s)
{
	char *p = s.len < SIZE_MAX ? arena_alloc(a, s.len + 1) : NULL;

	if (p == NULL)
		return (struct slice){ NULL, 0 };
	memcpy(p, s.p, s.len);
	return (struct slice){ p, s.len };
}

char *
arena_printf(struct arena *a, const char *fmt, ...)
{
	va_list ap, again;
	char *p;
	int n;

	va_start(ap, fmt);
	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	p = n >= 0 ? arena_alloc(a, (size_t)n + 1) : NULL;
	if (p != NULL)
		(void)vsnprintf(p, (size_t)n + 1, fmt, again);	/* measured just above */
	va_end(again);
	return p;
}

void
arena_reset(struct arena *a)
{
	struct arena_block *b = a->blocks;

	while (b != NULL && b->next != NULL) {
		struct arena_block *next = b->next;

		free(b);
		b = next;
	}
	if (b != NULL)
		b->used = 0;
	a->blocks = b;
	a->used = 0;
	a->lacked = false;
}

void
arena_fini(struct arena *a)
{
	arena_reset(a);
	free(a->blocks);
	a->blocks = NULL;
}

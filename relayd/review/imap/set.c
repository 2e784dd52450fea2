/* relayd/review/imap/set.c - sequence sets: "1:4,7,9:*" (RFC 3501 section 9). */
#include "relayd/review/imap/set.h"

#include <stdlib.h>

/* nz-number or "*", which is 0. */
static bool
take_number(struct slice *in, uint32_t *out)
{
	uint64_t n;
	size_t len = 0;

	if (in->len > 0 && in->p[0] == '*') {
		*out = 0;
		*in = slice_drop(*in, 1);
		return true;
	}
	while (len < in->len && in->p[len] >= '0' && in->p[len] <= '9')
		len++;
	if (!slice_u64(slice_head(*in, len), UINT32_MAX, &n) || n == 0)
		return false;
	*out = (uint32_t)n;
	*in = slice_drop(*in, len);
	return true;
}

static bool
take_range(struct slice *in, struct imap_range *out)
{
	if (!take_number(in, &out->first))
		return false;
	out->last = out->first;
	if (in->len == 0 || in->p[0] != ':')
		return true;
	*in = slice_drop(*in, 1);
	return take_number(in, &out->last);
}

static size_t
count_ranges(struct slice s)
{
	size_t n = 1;

	for (size_t i = 0; i < s.len && s.p[i] != ' ' && s.p[i] != ')'; i++)
		n += s.p[i] == ',' ? 1 : 0;
	return n;
}

bool
imap_set_parse(struct slice *in, struct arena *arena, struct imap_set *out)
{
	struct slice rest = *in;
	size_t n = count_ranges(rest);

	if (n > IMAP_RANGES_MAX)
		return false;
	out->ranges = arena_alloc(arena, n * sizeof(out->ranges[0]));
	if (out->ranges == NULL)
		return false;
	for (out->n = 0; out->n < n; out->n++) {
		if (out->n > 0) {
			if (rest.len == 0 || rest.p[0] != ',')
				return false;
			rest = slice_drop(rest, 1);
		}
		if (!take_range(&rest, &out->ranges[out->n]))
			return false;
	}
	*in = rest;
	return true;
}

static int
by_first(const void *a, const void *b)
{
	uint32_t x = ((const struct imap_range *)a)->first,
		 y = ((const struct imap_range *)b)->first;

	return x < y ? -1 : x > y;
}

/* "4:2" is "2:4", and "*:9" reaches from the last message to 9, on whichever side of it. */
static struct imap_range
resolved(struct imap_range r, uint32_t max)
{
	uint32_t first = r.first == 0 ? max : r.first, last = r.last == 0 ? max : r.last;

	return first <= last ? (struct imap_range){ first, last }
			     : (struct imap_range){ last, first };
}

void
imap_set_resolve(struct imap_set *set, uint32_t max)
{
	size_t n = 0;

	for (size_t i = 0; i < set->n; i++)
		if (max > 0 || (set->ranges[i].first > 0 && set->ranges[i].last > 0))
			set->ranges[n++] = resolved(set->ranges[i], max);
	set->n = n;
	if (n == 0)
		return;
	qsort(set->ranges, n, sizeof(set->ranges[0]), by_first);
	n = 1;
	for (size_t i = 1; i < set->n; i++) {
		struct imap_range *last = &set->ranges[n - 1], r = set->ranges[i];

		if (last->last != UINT32_MAX && r.first > last->last + 1)
			set->ranges[n++] = r;
		else if (r.last > last->last)
			last->last = r.last;
	}
	set->n = n;
}

bool
imap_set_has(const struct imap_set *set, uint32_t number)
{
	size_t low = 0, high = set->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (number < set->ranges[mid].first)
			high = mid;
		else if (number > set->ranges[mid].last)
			low = mid + 1;
		else
			return true;
	}
	return false;
}

uint32_t
imap_set_max(const struct imap_set *set)
{
	return set->n > 0 ? set->ranges[set->n - 1].last : 0;
}

void
imap_set_end(struct imap_set_writer *w)
{
	if (w->first == 0)
		return;
	buf_printf(w->out, "%s%u", w->any ? "," : "", w->first);
	if (w->last > w->first)
		buf_printf(w->out, ":%u", w->last);
	w->any = true;
	w->first = 0;
}

void
imap_set_put(struct imap_set_writer *w, uint32_t number)
{
	if (w->first > 0 && number == w->last + 1) {
		w->last = number;
		return;
	}
	imap_set_end(w);
	w->first = w->last = number;
}

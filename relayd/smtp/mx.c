/* relayd/smtp/mx.c - sorts mail exchangers and cuts loops (RFC 5321 section 5.1, RFC 7505). */
#include "relayd/smtp/mx.h"

static void
swap(struct mx_host *a, struct mx_host *b)
{
	struct mx_host t = *a;

	*a = *b;
	*b = t;
}

/* Draws an order of all, then sorts by preference alone: what was drawn stays among equals. */
static void
shuffle(struct mx_host *v, size_t n, uint32_t (*draw)(void *arg), void *arg)
{
	for (size_t i = n; i > 1; i--)
		swap(&v[i - 1], &v[draw(arg) % i]);
}

static void
insertion_sort(struct mx_host *v, size_t n)
{
	for (size_t i = 1; i < n; i++)
		for (size_t k = i; k > 0 && v[k].preference < v[k - 1].preference; k--)
			swap(&v[k], &v[k - 1]);
}

/* Where the first record stands that is not better than ours; n when we are not among them. */
static size_t
cut_at_ourselves(const struct mx_host *v, size_t n, struct slice hostname)
{
	for (size_t i = 0; i < n; i++) {
		if (!slice_ieq(v[i].name, hostname))
			continue;
		while (i > 0 && v[i - 1].preference == v[i].preference)
			i--;
		return i;
	}
	return n;
}

enum mx_verdict
mx_order(
    struct mx_host *v, size_t *n, struct slice hostname, uint32_t (*draw)(void *arg), void *arg)
{
	size_t kept = 0;

	if (*n == 0)
		return MX_IMPLICIT;
	for (size_t i = 0; i < *n; i++) {
		slice_chop(&v[i].name, ".");
		if (v[i].name.len > 0) /* "." beside others is a mistake and no host */
			v[kept++] = v[i];
	}
	if (kept == 0)
		return MX_NULL;
	shuffle(v, kept, draw, arg);
	insertion_sort(v, kept);
	*n = cut_at_ourselves(v, kept, hostname);
	if (*n == 0)
		return MX_LOOP;
	if (*n > MX_HOSTS_MAX)
		*n = MX_HOSTS_MAX;
	return MX_HOSTS;
}

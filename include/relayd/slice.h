/* relayd/slice.h - a borrowed view of bytes, shared by the daemon and its filters.
 *
 * Not NUL-terminated; p is never NULL, also when len is 0.  The owner of the bytes outlives
 * the slice.  ASCII rules apply wherever case is folded.
 */
#ifndef RELAYD_SLICE_H
#define RELAYD_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef _GNU_SOURCE	/* a filter need not be built with it */
void *memmem(const void *haystack, size_t haystack_len, const void *needle, size_t needle_len);
#endif

struct slice {
	const char *p;
	size_t len;
};

/* A slice of a string literal, also in a static initialiser. */
#define SLICE(literal) ((struct slice){ "" literal, sizeof(literal) - 1 })
/* The two arguments of a "%.*s". */
#define SLICE_FMT(s) (int)(s).len, (s).p

static inline struct slice
slice_of(const void *p, size_t len)
{
	return (struct slice){ p != NULL ? (const char *)p : "", p != NULL ? len : 0 };
}

/* The bytes of a C string without its NUL; empty for NULL. */
static inline struct slice
slice_str(const char *s)
{
	return s != NULL ? (struct slice){ s, strlen(s) } : SLICE("");
}

/* The first n bytes, or all of a shorter one. */
static inline struct slice
slice_head(struct slice s, size_t n)
{
	return (struct slice){ s.p, n < s.len ? n : s.len };
}

/* All but the first n bytes. */
static inline struct slice
slice_drop(struct slice s, size_t n)
{
	n = n < s.len ? n : s.len;
	return (struct slice){ s.p + n, s.len - n };
}

static inline bool
slice_eq(struct slice a, struct slice b)
{
	return a.len == b.len && memcmp(a.p, b.p, a.len) == 0;
}

static inline char
slice_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

static inline bool
slice_ieq(struct slice a, struct slice b)
{
	if (a.len != b.len)
		return false;
	for (size_t i = 0; i < a.len; i++)
		if (slice_lower(a.p[i]) != slice_lower(b.p[i]))
			return false;
	return true;
}

static inline bool
slice_starts(struct slice s, struct slice prefix)
{
	return s.len >= prefix.len && memcmp(s.p, prefix.p, prefix.len) == 0;
}

static inline bool
slice_istarts(struct slice s, struct slice prefix)
{
	return slice_ieq(slice_head(s, prefix.len), prefix);
}

static inline bool
slice_ends(struct slice s, struct slice suffix)
{
	return s.len >= suffix.len && memcmp(s.p + s.len - suffix.len, suffix.p, suffix.len) == 0;
}

static inline bool
slice_iends(struct slice s, struct slice suffix)
{
	return s.len >= suffix.len && slice_ieq(slice_drop(s, s.len - suffix.len), suffix);
}

/* No byte above 0x7f. */
static inline bool
slice_is_ascii(struct slice s)
{
	for (size_t i = 0; i < s.len; i++)
		if ((unsigned char)s.p[i] > 0x7f)
			return false;
	return true;
}

static inline bool
slice_has(struct slice s, char c)
{
	return memchr(s.p, c, s.len) != NULL;
}

/* What stands before the first c, or all of s. */
static inline struct slice
slice_until(struct slice s, char c)
{
	const char *at = (const char *)memchr(s.p, c, s.len);

	return at != NULL ? slice_head(s, (size_t)(at - s.p)) : s;
}

/* Takes suffix off the end of *s; false, and *s as it was, where it is not there. */
static inline bool
slice_chop(struct slice *s, const char *suffix)
{
	struct slice tail = slice_str(suffix);

	if (!slice_ends(*s, tail))
		return false;
	s->len -= tail.len;
	return true;
}

/* Without spaces, tabs, CR and LF at both ends. */
static inline struct slice
slice_trim(struct slice s)
{
	while (s.len > 0 && (s.p[0] == ' ' || s.p[0] == '\t' || s.p[0] == '\r' || s.p[0] == '\n'))
		s = slice_drop(s, 1);
	while (s.len > 0 && (s.p[s.len - 1] == ' ' || s.p[s.len - 1] == '\t' ||
				s.p[s.len - 1] == '\r' || s.p[s.len - 1] == '\n'))
		s.len--;
	return s;
}

/* Where needle first stands in s, or s.len; an empty needle stands at 0. */
static inline size_t
slice_find(struct slice s, struct slice needle)
{
	const char *at = (const char *)memmem(s.p, s.len, needle.p, needle.len);

	return at != NULL ? (size_t)(at - s.p) : s.len;
}

/* A decimal number of digits alone, at most max, into *out. */
static inline bool
slice_u64(struct slice s, uint64_t max, uint64_t *out)
{
	uint64_t n = 0;

	if (s.len == 0)
		return false;
	for (size_t i = 0; i < s.len; i++) {
		uint64_t digit = (uint64_t)(unsigned char)s.p[i] - '0';

		if (digit > 9 || digit > max || n > (max - digit) / 10)
			return false;
		n = n * 10 + digit;
	}
	*out = n;
	return true;
}

#endif

/* relayd/intake/recipients.c - the recipients that a file names, hashed. */
#include "relayd/intake/recipients.h"

#include "relayd/core/siphash.h"

#include <stdlib.h>
#include <sys/random.h>

#define KEY_MAX (ADDRESS_PATH_MAX + 2)

struct entry {
	uint64_t hash;     /* of its key */
	struct slice line; /* of the file; empty: a free place */
};

struct recipients {
	uint8_t secret[16];
	struct entry *table; /* open addressing, a power of two */
	size_t size, n;
};

/* What is hashed and compared: the canonical mailbox, or "@domain", in lower case. */
struct key {
	char text[KEY_MAX];
	struct buf buf;
};

static struct slice
lower(struct key *key)
{
	for (size_t i = 0; i < key->buf.len; i++)
		key->text[i] = slice_lower(key->text[i]);
	return buf_slice(&key->buf);
}

static struct slice
key_of_mailbox(struct key *key, const struct address *mailbox)
{
	key->buf = buf_over(key->text, sizeof(key->text));
	address_canonical(mailbox, &key->buf);
	return lower(key);
}

static struct slice
key_of_domain(struct key *key, struct slice domain)
{
	key->buf = buf_over(key->text, sizeof(key->text));
	buf_putc(&key->buf, '@');
	buf_put(&key->buf, domain);
	return lower(key);
}

/* False where the line is neither. */
static bool
key_of_line(struct key *key, struct slice line, struct slice *text)
{
	struct address mailbox;

	if (slice_starts(line, SLICE("@"))) {
		*text = key_of_domain(key, slice_drop(line, 1));
		return address_domain(slice_drop(line, 1), 0) == ADDRESS_OK;
	}
	if (address_mailbox(line, 0, &mailbox) != ADDRESS_OK)
		return false;
	*text = key_of_mailbox(key, &mailbox);
	return !key->buf.overflow;
}

/* The entry with that key, or the free place where it belongs. */
static struct entry *
find(const struct recipients *r, uint64_t hash, struct slice text)
{
	for (size_t at = (size_t)hash;; at++) {
		struct entry *e = &r->table[at & (r->size - 1)];
		struct key key;
		struct slice other = SLICE("");

		if (e->line.len == 0)
			return e;
		if (e->hash == hash && key_of_line(&key, e->line, &other) && slice_eq(text, other))
			return e;
	}
}

static size_t
count_lines(struct slice bytes)
{
	size_t n = 1;

	for (const char *lf; (lf = memchr(bytes.p, '\n', bytes.len)) != NULL; n++)
		bytes = slice_drop(bytes, (size_t)(lf + 1 - bytes.p));
	return n;
}

static int
add_line(struct recipients *r, struct slice line)
{
	struct key key;
	struct slice text = SLICE("");
	struct entry *e;
	uint64_t hash;

	if (!key_of_line(&key, line, &text))
		return -1;
	hash = siphash(r->secret, text);
	e = find(r, hash, text);
	r->n += e->line.len == 0; /* named twice is named */
	*e = (struct entry){ .hash = hash, .line = line };
	return 0;
}

static int
add_all(struct recipients *r, struct slice bytes, const char *path, struct err *err)
{
	for (size_t number = 1; bytes.len > 0; number++) {
		struct slice line = slice_until(bytes, '\n');

		bytes = slice_drop(bytes, line.len + 1);
		line = slice_trim(line);
		if (line.len == 0 || line.p[0] == '#')
			continue;
		if (add_line(r, line) < 0)
			return err_set(err, ERR_CONFIG,
			    "%s:%zu: neither an address nor @domain: %.*s", path, number,
			    SLICE_FMT(slice_head(line, 80)));
	}
	return 0;
}

struct recipients *
recipients_parse(struct slice bytes, const char *path, struct err *err)
{
	struct recipients *r = calloc(1, sizeof(*r));
	size_t lines = count_lines(bytes);

	if (r != NULL) {
		for (r->size = 16; r->size < 2 * lines; r->size *= 2)
			continue;
		r->table = calloc(r->size, sizeof(*r->table));
	}
	if (r == NULL || r->table == NULL ||
	    getrandom(r->secret, sizeof(r->secret), 0) != (ssize_t)sizeof(r->secret)) {
		recipients_free(r);
		err_set(err, ERR_NOMEM, "no memory for the recipients of %s", path);
		return NULL;
	}
	if (add_all(r, bytes, path, err) < 0) {
		recipients_free(r);
		return NULL;
	}
	return r;
}

void
recipients_free(struct recipients *r)
{
	if (r == NULL)
		return;
	free(r->table);
	free(r);
}

static bool
has_key(const struct recipients *r, struct slice text)
{
	return find(r, siphash(r->secret, text), text)->line.len > 0;
}

bool
recipients_has(const struct recipients *r, const struct address *mailbox)
{
	struct key key;

	return has_key(r, key_of_mailbox(&key, mailbox)) ||
	       has_key(r, key_of_domain(&key, mailbox->domain));
}

size_t
recipients_count(const struct recipients *r)
{
	return r->n;
}

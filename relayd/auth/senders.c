/* relayd/auth/senders.c - who may use which reverse-path. */
#include "relayd/auth/senders.h"

#include "relayd/auth/users.h"
#include "relayd/mail/address.h"

#include <stdlib.h>

struct entry {
	struct slice user, pattern; /* an address, "@domain" or "*" */
};

struct senders {
	char *bytes;
	struct entry *v; /* sorted */
	size_t n, room;
};

static int
compare(struct slice a, struct slice b)
{
	size_t n = a.len < b.len ? a.len : b.len;

	for (size_t i = 0; i < n; i++) {
		int order = slice_lower(a.p[i]) - slice_lower(b.p[i]);

		if (order != 0)
			return order;
	}
	return (a.len > b.len) - (a.len < b.len);
}

/* Names of users have a case, addresses have none. */
static int
by_user_and_pattern(const void *left, const void *right)
{
	const struct entry *a = left, *b = right;
	size_t n = a->user.len < b->user.len ? a->user.len : b->user.len;
	int order = memcmp(a->user.p, b->user.p, n);

	if (order == 0)
		order = (a->user.len > b->user.len) - (a->user.len < b->user.len);
	return order != 0 ? order : compare(a->pattern, b->pattern);
}

static struct slice
word(struct slice *line)
{
	size_t n = 0;
	struct slice w;

	*line = slice_trim(*line);
	while (n < line->len && line->p[n] != ' ' && line->p[n] != '\t')
		n++;
	w = slice_head(*line, n);
	*line = slice_drop(*line, n);
	return w;
}

static bool
is_pattern(struct slice text)
{
	struct address mailbox;

	if (slice_eq(text, SLICE("*")))
		return true;
	if (text.len > 0 && text.p[0] == '@')
		return address_domain(slice_drop(text, 1), ADDRESS_UTF8) == ADDRESS_OK;
	return address_mailbox(text, ADDRESS_UTF8, &mailbox) == ADDRESS_OK;
}

static bool
add(struct senders *s, struct entry entry)
{
	if (s->n == s->room) {
		size_t room = s->room > 0 ? 2 * s->room : 64;
		struct entry *grown = realloc(s->v, room * sizeof(*grown));

		if (grown == NULL)
			return false;
		s->v = grown;
		s->room = room;
	}
	s->v[s->n++] = entry;
	return true;
}

/* What is wrong with the line, or NULL. */
static const char *
parse_line(struct senders *s, struct slice line)
{
	struct slice user = word(&line), pattern = word(&line);

	if (user.len == 0 || user.p[0] == '#')
		return NULL;
	if (!users_name_is_good(user))
		return "that is no name of a user";
	if (pattern.len == 0)
		return "not: user address|@domain|* ...";
	for (; pattern.len > 0; pattern = word(&line)) {
		if (!is_pattern(pattern))
			return "expected an address, @domain or *";
		if (!add(s, (struct entry){ user, pattern }))
			return "out of memory";
	}
	return NULL;
}

static int
parse_all(struct senders *s, struct slice bytes, const char *path, struct err *err)
{
	for (size_t number = 1; bytes.len > 0; number++) {
		struct slice line = slice_until(bytes, '\n');
		const char *wrong = parse_line(s, line);

		if (wrong != NULL)
			return err_set(err, ERR_CONFIG, "%s:%zu: %s", path, number, wrong);
		bytes = slice_drop(bytes, line.len + 1);
	}
	if (s->n > 0)
		qsort(s->v, s->n, sizeof(*s->v), by_user_and_pattern);
	return 0;
}

struct senders *
senders_parse(struct slice bytes, const char *path, struct err *err)
{
	struct senders *s;

	if (bytes.len > SENDERS_FILE_MAX) {
		err_set(err, ERR_CONFIG, "%s:1: the file is over %u bytes", path, SENDERS_FILE_MAX);
		return NULL;
	}
	s = calloc(1, sizeof(*s));
	if (s == NULL || (s->bytes = malloc(bytes.len + 1)) == NULL) {
		err_set(err, ERR_NOMEM, "no memory for the senders");
		senders_free(s);
		return NULL;
	}
	memcpy(s->bytes, bytes.p, bytes.len);
	if (parse_all(s, slice_of(s->bytes, bytes.len), path, err) == 0)
		return s;
	senders_free(s);
	return NULL;
}

void
senders_free(struct senders *s)
{
	if (s == NULL)
		return;
	free(s->bytes);
	free(s->v);
	free(s);
}

size_t
senders_count(const struct senders *s)
{
	return s->n;
}

static bool
has(const struct senders *s, struct slice user, struct slice pattern)
{
	struct entry key = { user, pattern };

	return s->n > 0 && bsearch(&key, s->v, s->n, sizeof(key), by_user_and_pattern) != NULL;
}

bool
senders_allow(const struct senders *s, struct slice user, struct slice mailbox)
{
	struct slice local, domain;

	if (mailbox.len == 0 || has(s, user, mailbox) || has(s, user, SLICE("*")))
		return true;
	if (!address_split(mailbox, &local, &domain))
		return false;
	/* The domain with the "@" in front of it, which it has in the mailbox. */
	return has(s, user, slice_of(domain.p - 1, domain.len + 1));
}

/* relayd/intake/recipients.c - the recipients and aliases that a file names, hashed. */
#include "relayd/intake/recipients.h"

#include "relayd/core/siphash.h"

#include <stdlib.h>
#include <sys/random.h>

#define KEY_MAX (ADDRESS_PATH_MAX + 2)

/* A place of the table: where a line begins, and some bits of its hash, so that most lines that are
 * not meant need no look. */
struct place {
	uint32_t hash;
	uint32_t line; /* offset + 1; 0: free */
};

struct recipients {
	unsigned refs;
	struct config *cfg; /* that keeps the bytes, or NULL */
	uint8_t secret[16];
	struct slice bytes;
	struct place *table; /* open addressing, a power of two */
	size_t size, n;
	bool aliases;
};

/* What is hashed and compared: the canonical mailbox, or "@domain", in lower case. */
struct key {
	char text[KEY_MAX];
	struct buf buf;
	size_t at; /* of the last @ */
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
	key->at = key->buf.len - mailbox->domain.len - 1;
	return lower(key);
}

/* ---- lines -------------------------------------------------------------------------------- */

struct line {
	struct slice name;    /* address, or @domain */
	struct slice targets; /* empty: no alias */
	bool alias;
};

/* What stands before the colon, which may also stand in quotes and in an address literal. */
static size_t
name_length(struct slice line)
{
	bool quoted = false, literal = false;

	for (size_t i = 0; i < line.len; i++) {
		char c = line.p[i];

		if (quoted && c == '\\')
			i++;
		else if (c == '"')
			quoted = !quoted;
		else if (c == '[' || c == ']')
			literal = c == '[';
		else if (c == ':' && !quoted && !literal)
			return i;
	}
	return line.len;
}

static struct line
line_of(struct slice text)
{
	size_t n = name_length(text);

	return (struct line){
		.name = slice_trim(slice_head(text, n)),
		.targets = n < text.len ? slice_drop(text, n + 1) : SLICE(""),
		.alias = n < text.len,
	};
}

static struct slice
line_at(const struct recipients *r, size_t offset)
{
	return slice_trim(slice_until(slice_drop(r->bytes, offset), '\n'));
}

/* As mail for it is looked up: in A-labels (RFC 5890). */
static struct slice
ascii_domain(struct slice domain, char storage[static ADDRESS_DOMAIN_MAX])
{
	struct buf ascii = buf_over(storage, ADDRESS_DOMAIN_MAX);

	if (slice_is_ascii(domain) || !address_domain_ascii(domain, &ascii))
		return domain;
	return buf_slice(&ascii);
}

/* False where the name is neither. */
static bool
key_of_name(struct key *key, struct slice name, struct slice *text)
{
	char storage[ADDRESS_DOMAIN_MAX];
	struct address mailbox;

	if (!slice_starts(name, SLICE("@"))) {
		if (address_mailbox(name, ADDRESS_UTF8, &mailbox) != ADDRESS_OK)
			return false;
		mailbox.domain = ascii_domain(mailbox.domain, storage);
		*text = key_of_mailbox(key, &mailbox);
		return !key->buf.overflow;
	}
	if (address_domain(slice_drop(name, 1), ADDRESS_UTF8) != ADDRESS_OK)
		return false;
	key->buf = buf_over(key->text, sizeof(key->text));
	buf_putc(&key->buf, '@');
	buf_put(&key->buf, ascii_domain(slice_drop(name, 1), storage));
	*text = lower(key);
	return !key->buf.overflow;
}

bool
recipients_target(struct slice *targets, struct slice *target)
{
	bool quoted = false;
	size_t n = 0;

	while (n < targets->len && (quoted || targets->p[n] != ',')) {
		if (targets->p[n] == '"')
			quoted = !quoted;
		else if (quoted && targets->p[n] == '\\')
			n++;
		n++;
	}
	n = n < targets->len ? n : targets->len;
	*target = slice_trim(slice_head(*targets, n));
	*targets = slice_drop(*targets, n + 1);
	return target->len > 0;
}

/* ---- the table ---------------------------------------------------------------------------- */

/* The place of that key, or the free one where it belongs. */
static struct place *
find(const struct recipients *r, uint64_t hash, struct slice text)
{
	for (size_t at = (size_t)(hash >> 32);; at++) {
		struct place *p = &r->table[at & (r->size - 1)];
		struct key key;
		struct slice other = SLICE("");

		if (p->line == 0)
			return p;
		if (p->hash == (uint32_t)hash &&
		    key_of_name(&key, line_of(line_at(r, p->line - 1)).name, &other) &&
		    slice_eq(text, other))
			return p;
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

/* Mail for a domain with an explicit route may be sent there by an alias. */
static bool
is_allowed(const struct config *cfg, struct slice domain)
{
	char storage[ADDRESS_DOMAIN_MAX];
	const struct config_route *route;

	domain = ascii_domain(domain, storage);
	route = config_route_for(cfg, domain);
	return config_is_our_domain(cfg, domain) ||
	       (route != NULL && strcmp(route->domain, "*") != 0);
}

/* "" where the target is fine, else what is wrong with it. */
static const char *
check_target(const struct config *cfg, struct slice target)
{
	struct slice domain = slice_drop(target, 1);
	struct address mailbox;

	if (!slice_starts(target, SLICE("@"))) {
		if (address_mailbox(target, ADDRESS_UTF8, &mailbox) != ADDRESS_OK)
			return "the target is neither an address nor @domain";
		domain = mailbox.domain;
	} else if (address_domain(domain, ADDRESS_UTF8) != ADDRESS_OK) {
		return "the target is neither an address nor @domain";
	}
	return is_allowed(cfg, domain) ? ""
				       : "the domain of the target is not ours and has no route of "
					 "its own";
}

/* "" or what is wrong; *where is the part of the line that is meant. */
static const char *
add_line(struct recipients *r, const struct config *cfg, struct slice text, struct slice *where)
{
	struct line line = line_of(text);
	struct slice rest = line.targets, key_text = SLICE("");
	struct key key;
	struct place *p;
	uint64_t hash;
	const char *wrong;

	*where = line.name;
	if (!key_of_name(&key, line.name, &key_text))
		return "neither an address nor @domain";
	if (line.alias && slice_trim(line.targets).len == 0)
		return "an alias without a target";
	while (rest.len > 0) {
		(void)recipients_target(&rest, where); /* an empty one is wrong, and found so */
		wrong = check_target(cfg, *where);
		if (wrong[0] != '\0')
			return wrong;
	}
	*where = line.name;
	hash = siphash(r->secret, key_text);
	p = find(r, hash, key_text);
	if (p->line != 0 && (line.alias || line_of(line_at(r, p->line - 1)).alias))
		return "named twice, and an alias";
	r->aliases = r->aliases || line.alias;
	r->n += p->line == 0; /* a recipient named twice is named */
	*p = (struct place){ .hash = (uint32_t)hash, .line = (uint32_t)(text.p - r->bytes.p) + 1 };
	return "";
}

static int
add_all(struct recipients *r, const struct config *cfg, const char *path, struct err *err)
{
	struct slice bytes = r->bytes;

	if (slice_starts(bytes, SLICE("\xef\xbb\xbf"))) /* the byte order mark of another system */
		bytes = slice_drop(bytes, 3);
	for (size_t number = 1; bytes.len > 0; number++) {
		struct slice line = slice_until(bytes, '\n'), where;
		const char *wrong;

		bytes = slice_drop(bytes, line.len + 1);
		line = slice_trim(line);
		if (line.len == 0 || line.p[0] == '#')
			continue;
		wrong = add_line(r, cfg, line, &where);
		if (wrong[0] != '\0')
			return err_set(err, ERR_CONFIG, "%s:%zu: %s: %.*s", path, number, wrong,
			    SLICE_FMT(slice_head(where, 80)));
	}
	return 0;
}

struct recipients *
recipients_parse(const struct config *cfg, struct slice bytes, const char *path, struct err *err)
{
	struct recipients *r = bytes.len < UINT32_MAX ? calloc(1, sizeof(*r)) : NULL;
	size_t lines = count_lines(bytes);

	if (r != NULL) {
		r->refs = 1;
		r->bytes = bytes;
		for (r->size = 16; r->size < lines + lines / 2; r->size *= 2)
			continue;
		r->table = calloc(r->size, sizeof(*r->table));
	}
	if (r == NULL || r->table == NULL ||
	    getrandom(r->secret, sizeof(r->secret), 0) != (ssize_t)sizeof(r->secret)) {
		recipients_unref(r);
		err_set(err, ERR_NOMEM, "no memory for the recipients of %s", path);
		return NULL;
	}
	if (add_all(r, cfg, path, err) < 0) {
		recipients_unref(r);
		return NULL;
	}
	return r;
}

struct recipients *
recipients_ref(struct recipients *r)
{
	r->refs++;
	return r;
}

void
recipients_unref(struct recipients *r)
{
	if (r == NULL || --r->refs > 0)
		return;
	config_unref(r->cfg);
	free(r->table);
	free(r);
}

void
recipients_keep(struct recipients *r, const struct config *cfg)
{
	if (r->cfg == NULL)
		r->cfg = config_ref(cfg);
}

/* ---- looking up --------------------------------------------------------------------------- */

static bool
has_key(const struct recipients *r, struct slice text, struct line *line)
{
	const struct place *p = find(r, siphash(r->secret, text), text);

	if (p->line != 0)
		*line = line_of(line_at(r, p->line - 1));
	return p->line != 0;
}

/* Cuts the extension out of the local part; false where it has none.  A local part that needs its
 * quotes is opaque. */
static bool
cut_extension(struct key *key, char separator)
{
	const char *plus = memchr(key->text, separator, key->at);
	size_t n = plus != NULL ? (size_t)(plus - key->text) : 0;

	if (separator == '\0' || n == 0 || key->text[0] == '"')
		return false;
	memmove(key->text + n, key->text + key->at, key->buf.len - key->at);
	key->buf.len -= key->at - n;
	key->at = n;
	return true;
}

enum recipients_match
recipients_find(const struct recipients *r, const struct address *mailbox, char separator,
    struct slice *targets)
{
	struct key key;
	struct line line = { .alias = false };

	*targets = SLICE("");
	(void)key_of_mailbox(&key, mailbox); /* a mailbox fits */
	if (!has_key(r, buf_slice(&key.buf), &line) &&
	    !(cut_extension(&key, separator) && has_key(r, buf_slice(&key.buf), &line)) &&
	    !has_key(r, slice_drop(buf_slice(&key.buf), key.at), &line))
		return RECIPIENTS_UNKNOWN;
	*targets = line.targets;
	return line.alias ? RECIPIENTS_ALIAS : RECIPIENTS_KNOWN;
}

bool
recipients_name(const struct recipients *r, const struct address *mailbox)
{
	struct key key;
	struct line line;

	return has_key(r, key_of_mailbox(&key, mailbox), &line);
}

bool
recipients_has_aliases(const struct recipients *r)
{
	return r->aliases;
}

size_t
recipients_count(const struct recipients *r)
{
	return r->n;
}

size_t
recipients_bytes(const struct recipients *r)
{
	return sizeof(*r) + r->size * sizeof(*r->table);
}

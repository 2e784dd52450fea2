/* relayd/auth/users.c - the users file as the roles read it. */
#include "relayd/auth/users.h"

#include "relayd/auth/password.h"
#include "relayd/mail/address.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>

#define CRAM_MD5 "CRAM-MD5$"

struct users {
	char *bytes;
	size_t len;
	struct user *v; /* in the order of the file */
	struct user **by_name;
	size_t n;
	bool all_scram;
	unsigned char secret[EVP_MAX_MD_SIZE];
};

bool
users_name_is_good(struct slice name)
{
	for (size_t i = 0; i < name.len; i++)
		if (name.p[i] <= ' ' || name.p[i] >= 0x7f || name.p[i] == ':' || name.p[i] == '#')
			return false;
	return name.len > 0 && name.len <= USERS_NAME_MAX;
}

bool
users_scope_is_good(struct slice scope)
{
	struct address mailbox;

	if (scope.len == 0 || slice_eq(scope, SLICE("*")))
		return true;
	if (slice_has(scope, ':'))
		return false;
	if (slice_has(scope, '@'))
		return address_mailbox(scope, 0, &mailbox) == ADDRESS_OK;
	return address_domain(scope, 0) == ADDRESS_OK;
}

bool
users_scope_has(struct slice scope, struct slice mailbox)
{
	struct slice local, domain;

	if (scope.len == 0)
		return false;
	if (slice_eq(scope, SLICE("*")))
		return true;
	if (slice_has(scope, '@'))
		return address_same(scope, mailbox);
	return address_split(mailbox, &local, &domain) && slice_ieq(domain, scope);
}

/* ---- parsing ------------------------------------------------------------------------------ */

static struct slice
take_until(struct slice *in, char c)
{
	struct slice s = slice_until(*in, c);

	*in = slice_drop(*in, s.len + 1);
	return s;
}

static struct slice
verifier(const struct user *user, struct slice prefix)
{
	struct slice rest = user->verifiers;

	while (rest.len > 0) {
		struct slice word = take_until(&rest, ' ');

		if (slice_starts(word, prefix))
			return word;
	}
	return SLICE("");
}

static bool
is_verifier(struct slice word)
{
	struct scram_verifier scram;

	/* That it is base64 is seen when it is used. */
	return (slice_starts(word, SLICE(CRAM_MD5)) && word.len > strlen(CRAM_MD5)) ||
	       scram_parse(word, SCRAM_SHA_1, &scram) || scram_parse(word, SCRAM_SHA_256, &scram);
}

static bool
are_verifiers(const struct user *user)
{
	struct slice rest = user->verifiers;

	if (rest.len > USERS_VERIFIERS_MAX)
		return false;
	while (rest.len > 0) {
		struct slice word = take_until(&rest, ' ');
		struct slice kind = slice_head(word, slice_until(word, '$').len + 1);

		/* The first of a kind is this one: else it stands twice. */
		if (!is_verifier(word) || verifier(user, kind).p != word.p)
			return false;
	}
	return true;
}

/* What is wrong with the line, or NULL. */
static const char *
parse_line(struct slice line, struct user *user)
{
	size_t colons = 0;
	struct slice flags;

	for (size_t i = 0; i < line.len; i++)
		colons += line.p[i] == ':';
	if (colons < 3 || (colons > 3 && line.p[line.len - 1] == ':'))
		return "not name:hash:scope:flags or name:hash:scope:flags:verifiers";
	*user = (struct user){ .name = take_until(&line, ':') };
	user->hash = take_until(&line, ':');
	user->scope = take_until(&line, ':');
	flags = take_until(&line, ':');
	user->verifiers = line;
	if (!users_name_is_good(user->name))
		return "the name has a byte that a name cannot have, or is too long";
	if (user->hash.len == 0 || user->hash.len >= PASSWORD_HASH_MAX)
		return "the hash is empty or too long";
	if (!users_scope_is_good(user->scope))
		return "the scope is not \"*\", a domain or an address";
	if (!are_verifiers(user))
		return "a verifier is none that we know, is not whole, or stands twice";
	user->relay = slice_eq(flags, SLICE("relay"));
	return user->relay || flags.len == 0 ? NULL : "the only flag there is, is \"relay\"";
}

static bool
is_comment(struct slice line)
{
	return line.len == 0 || line.p[0] == '#';
}

static int
by_name(const void *left, const void *right)
{
	const struct user *a = *(struct user *const *)left, *b = *(struct user *const *)right;
	size_t n = a->name.len < b->name.len ? a->name.len : b->name.len;
	int order = memcmp(a->name.p, b->name.p, n);

	return order != 0 ? order : (a->name.len > b->name.len) - (a->name.len < b->name.len);
}

static size_t
line_of(const struct users *u, const struct user *user)
{
	size_t line = 1;

	for (const char *p = u->bytes; p < user->name.p; p++)
		line += *p == '\n';
	return line;
}

static int
index_names(struct users *u, const char *path, struct err *err)
{
	for (size_t i = 0; i < u->n; i++)
		u->by_name[i] = &u->v[i];
	qsort(u->by_name, u->n, sizeof(struct user *), by_name);
	for (size_t i = 1; i < u->n; i++) {
		const struct user *a = u->by_name[i - 1], *b = u->by_name[i];

		if (slice_eq(a->name, b->name))
			return err_set(err, ERR_CONFIG, "%s:%zu: user %.*s is there already", path,
			    line_of(u, a > b ? a : b), SLICE_FMT(b->name));
	}
	return 0;
}

static int
parse_all(struct users *u, struct slice bytes, const char *path, struct err *err)
{
	for (size_t number = 1; bytes.len > 0; number++) {
		struct slice line = take_until(&bytes, '\n');
		const char *wrong;

		if (is_comment(line))
			continue;
		wrong = parse_line(line, &u->v[u->n]);
		if (wrong != NULL)
			return err_set(err, ERR_CONFIG, "%s:%zu: %s", path, number, wrong);
		u->n++;
	}
	return index_names(u, path, err);
}

static size_t
count_lines(struct slice bytes)
{
	size_t n = 1;

	for (size_t i = 0; i < bytes.len; i++)
		n += bytes.p[i] == '\n';
	return n;
}

static bool
all_scram(const struct users *u)
{
	struct scram_verifier v;

	for (size_t i = 0; i < u->n; i++) {
		const struct user *user = &u->v[i];

		if (user->hash.p[0] != '*' && user->hash.p[0] != '!' &&
		    (!users_scram(user, SCRAM_SHA_1, &v) || !users_scram(user, SCRAM_SHA_256, &v)))
			return false;
	}
	return u->n > 0;
}

struct users *
users_parse(struct slice bytes, const char *path, struct err *err)
{
	struct users *u = calloc(1, sizeof(*u));
	size_t lines = count_lines(bytes);

	if (bytes.len > USERS_FILE_MAX) {
		err_set(err, ERR_CONFIG, "%s:1: the file is over %u bytes", path, USERS_FILE_MAX);
		goto fail;
	}
	if (u != NULL) {
		u->bytes = malloc(bytes.len + 1);
		u->v = calloc(lines, sizeof(*u->v));
		u->by_name = calloc(lines, sizeof(struct user *));
	}
	if (u == NULL || u->bytes == NULL || u->v == NULL || u->by_name == NULL) {
		err_set(err, ERR_NOMEM, "no memory for the users");
		goto fail;
	}
	memcpy(u->bytes, bytes.p, bytes.len);
	u->len = bytes.len;
	if (parse_all(u, slice_of(u->bytes, bytes.len), path, err) < 0)
		goto fail;
	if (EVP_Digest(bytes.p, bytes.len, u->secret, NULL, EVP_sha256(), NULL) == 1) {
		u->all_scram = all_scram(u);
		return u;
	}
	err_set(err, ERR_NOMEM, "no memory for the users");
fail:
	users_free(u);
	return NULL;
}

void
users_free(struct users *u)
{
	if (u == NULL)
		return;
	OPENSSL_cleanse(u->secret, sizeof(u->secret));
	if (u->bytes != NULL)
		OPENSSL_cleanse(u->bytes, u->len); /* passwords may be in it */
	free(u->bytes);
	free(u->v);
	free(u->by_name);
	free(u);
}

bool
users_is_locked(const struct user *user)
{
	return user->hash.p[0] == '!';
}

bool
users_scram(const struct user *user, enum scram_hash hash, struct scram_verifier *out)
{
	struct slice prefix = hash == SCRAM_SHA_1 ? SLICE("SCRAM-SHA-1$") : SLICE("SCRAM-SHA-256$");

	return scram_parse(verifier(user, prefix), hash, out);
}

struct slice
users_cram_md5(const struct user *user)
{
	return slice_drop(verifier(user, SLICE(CRAM_MD5)), strlen(CRAM_MD5));
}

bool
users_all_scram(const struct users *u)
{
	return u != NULL && u->all_scram;
}

const unsigned char *
users_secret(const struct users *u)
{
	return u->secret;
}

size_t
users_count(const struct users *u)
{
	return u->n;
}

const struct user *
users_at(const struct users *u, size_t i)
{
	return &u->v[i];
}

const struct user *
users_find(const struct users *u, struct slice name)
{
	struct user key = { .name = name }, *wanted = &key, **hit;

	if (u == NULL || u->n == 0)
		return NULL;
	hit = bsearch(&wanted, u->by_name, u->n, sizeof(struct user *), by_name);
	return hit != NULL ? *hit : NULL;
}

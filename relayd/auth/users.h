/* relayd/auth/users.h - the users file: who may log in, what they may see, and whether they may
 * relay.
 *
 *	# comment
 *	name:hash:scope:flags
 *	name:hash:scope:flags:verifiers
 *
 * name  1 .. USERS_NAME_MAX bytes of printable ASCII but ":" and "#" and space; no case folding
 * hash  what crypt(3) made of the password ("$y$..." for a new one); "*" in front: no login with a
 *       password (but with a certificate, a ticket or a token), "!": no login at all
 * scope "*", a domain, an address; empty: nothing to see (submission only)
 * flags "relay", or empty; words behind a comma are for the future and refused by name
 * verifiers  words with a space between them, each at most once: those of auth/scram.h, and
 *       CRAM-MD5$PASSWORD, the password itself in base64.  Without the one that a mechanism needs
 *       the user has the other mechanisms
 *
 * The file holds secrets (mode 0600); a role gets its bytes with the config, and never opens it.
 */
#ifndef RELAYD_AUTH_USERS_H
#define RELAYD_AUTH_USERS_H

#include "relayd/auth/scram.h"

#define USERS_NAME_MAX      128
#define USERS_FILE_MAX      (16u << 20)
#define USERS_VERIFIERS_MAX 2048
#define USERS_SECRET_BYTES  32

struct user {
	struct slice name, hash, scope;
	bool relay;
	struct slice verifiers; /* empty in an old line */
};

struct users;

/* Reads the bytes of a users file, which are copied.  NULL with *err: ERR_CONFIG, "path:LINE: what
 * is wrong", also for a name given twice. */
struct users *users_parse(struct slice bytes, const char *path, struct err *err);
void users_free(struct users *u);
size_t users_count(const struct users *u);
/* In the order of the file; i < users_count(). */
const struct user *users_at(const struct users *u, size_t i);
/* NULL for an unknown name; users may be NULL.  Borrowed from u. */
const struct user *users_find(const struct users *u, struct slice name);

/* "!": may not log in by any means. */
bool users_is_locked(const struct user *user);
/* False when the user has no verifier for this hash. */
bool users_scram(const struct user *user, enum scram_hash hash, struct scram_verifier *out);
/* The password in base64 that CRAM-MD5 needs; empty when it was not kept. */
struct slice users_cram_md5(const struct user *user);
/* Whether everybody with a password has a verifier for each hash, so that no client which prefers
 * SCRAM is turned away; false when there is nobody. */
bool users_all_scram(const struct users *u);
/* Known to who has the file alone, and the same as long as it stays the same. */
const unsigned char *users_secret(const struct users *u);

/* True when the scope covers a mailbox: "*", its domain, or the mailbox itself. */
bool users_scope_has(struct slice scope, struct slice mailbox);

bool users_name_is_good(struct slice name);
bool users_scope_is_good(struct slice scope);

/* ---- relayctl user --------------------------------------------------------------------------- */

enum users_change {
	USERS_ADD,    /* ERR_EXISTS when the name is there */
	USERS_PASSWD, /* a new hash and new verifiers; ERR_NOT_FOUND */
	USERS_REMOVE, /* ERR_NOT_FOUND */
};

/* Changes one user in the file, which ADD creates with mode 0600.  All other lines stay as they
 * are, comments too; the file is replaced whole (rename), with its owner and mode, under a lock, so
 * that neither a reader nor a second relayctl sees half a change. */
int users_edit(
    const char *path, enum users_change change, const struct user *user, struct err *err);

#endif

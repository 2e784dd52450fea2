/* relayd/auth/scram.h - what the server keeps of a password for SCRAM (RFC 5802, RFC 7677).
 *
 * A word of the users file, in the form of RFC 5803:
 *
 *	SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY	the last three in base64
 *
 * It proves a password without telling it, and lets nobody log in who reads it; but passwords can
 * be tried against it, as against any hash.
 */
#ifndef RELAYD_AUTH_SCRAM_H
#define RELAYD_AUTH_SCRAM_H

#include "relayd/core/buf.h"
#include "relayd/core/err.h"

#define SCRAM_ITERATIONS     10000 /* of a new one; RFC 7677 section 4 asks for 4096 at least */
#define SCRAM_ITERATIONS_MIN 1024
#define SCRAM_ITERATIONS_MAX 10000000
#define SCRAM_SALT_BYTES     16
#define SCRAM_WORD_MAX       256 /* bytes of one verifier */

enum scram_hash { SCRAM_SHA_1, SCRAM_SHA_256, SCRAM_HASHES };

struct scram_verifier {
	uint32_t iterations;
	struct slice salt, stored_key, server_key; /* base64 */
};

/* False when the word is not of this hash, or its parts are not what they should be. */
bool scram_parse(struct slice word, enum scram_hash hash, struct scram_verifier *out);
/* Appends the verifiers of a new password, for each hash, behind a space from the second on.
 * ERR_FORMAT for a password that SASLprep forbids (RFC 4013): it has no verifier. */
int scram_make(struct slice password, struct buf *out, struct err *err);

#endif

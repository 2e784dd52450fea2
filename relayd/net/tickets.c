/* relayd/net/tickets.c - the keys that session tickets are sealed with. */
#include "relayd/net/tickets.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEYS         3 /* the one that seals and two that still open: half a lifetime each */
#define NAME_BYTES   16
#define KEY_BYTES    32
#define TICKET_IV    16
#define READ_TRIES   10000
#define NOT_OURS     0 /* what OpenSSL's callback answers */
#define OURS         1
#define OURS_BUT_OLD 2

struct ticket_key {
	uint8_t name[NAME_BYTES], seal[KEY_BYTES], sign[KEY_BYTES];
};

/* A sequence lock: odd while the writer is at it.  The words are atomic so that a reader who meets
 * the writer reads nonsense at worst, and then reads again. */
#define WORDS (KEYS * sizeof(struct ticket_key) / sizeof(uint64_t))
struct tickets {
	_Atomic uint32_t sequence;
	_Atomic uint64_t words[WORDS];
	int64_t made_ms; /* the writer's own */
};
_Static_assert(sizeof(struct ticket_key) % sizeof(uint64_t) == 0, "keys are whole words");

static const struct tickets *in_use;

/* False when the writer is always at it: it was killed there, and this session gets no ticket. */
static bool
read_keys(const struct tickets *t, struct ticket_key keys[static KEYS])
{
	uint64_t words[WORDS];
	bool whole = false;

	for (unsigned tries = 0; tries < READ_TRIES && !whole; tries++) {
		uint32_t before = atomic_load_explicit(&t->sequence, memory_order_acquire);

		for (size_t i = 0; i < WORDS; i++)
			words[i] = atomic_load_explicit(&t->words[i], memory_order_relaxed);
		atomic_thread_fence(memory_order_acquire);
		whole = before % 2 == 0 &&
			before == atomic_load_explicit(&t->sequence, memory_order_relaxed);
	}
	memcpy(keys, words, sizeof(words));
	OPENSSL_cleanse(words, sizeof(words));
	return whole;
}

static void
write_keys(struct tickets *t, const struct ticket_key keys[static KEYS])
{
	uint64_t words[WORDS];

	memcpy(words, keys, sizeof(words));
	atomic_fetch_add_explicit(&t->sequence, 1, memory_order_acq_rel);
	atomic_thread_fence(memory_order_release);
	for (size_t i = 0; i < WORDS; i++)
		atomic_store_explicit(&t->words[i], words[i], memory_order_relaxed);
	atomic_fetch_add_explicit(&t->sequence, 1, memory_order_release);
	OPENSSL_cleanse(words, sizeof(words));
}

static bool
make_key(struct ticket_key *key)
{
	return RAND_bytes(key->name, sizeof(key->name)) == 1 &&
	       RAND_priv_bytes(key->seal, sizeof(key->seal)) == 1 &&
	       RAND_priv_bytes(key->sign, sizeof(key->sign)) == 1;
}

/* The places of keys that never were hold random bytes too: nobody knows a ticket for them. */
static bool
make_keys(struct tickets *t)
{
	struct ticket_key keys[KEYS];
	bool ok = true;

	for (size_t i = 0; i < KEYS; i++)
		ok = ok && make_key(&keys[i]);
	if (ok)
		write_keys(t, keys);
	OPENSSL_cleanse(keys, sizeof(keys));
	return ok;
}

struct tickets *
tickets_create(int *fd, struct err *err)
{
	struct tickets *t = MAP_FAILED;

	*fd = memfd_create("relayd-tickets", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd >= 0 && ftruncate(*fd, sizeof(*t)) == 0)
		t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (t == MAP_FAILED) {
		err_sys(err, errno, "memory for ticket keys");
		goto bad;
	}
	/* A kernel before 5.1 cannot, and a worker of ours would have to be taken over to care. */
	(void)fcntl(
	    *fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL);
	if (make_keys(t))
		return t;
	err_set(err, ERR_SYS, "no random numbers for ticket keys");
	(void)munmap(t, sizeof(*t)); /* a mapping of ours: cannot fail */
bad:
	if (*fd >= 0)
		(void)close(*fd); /* given up */
	*fd = -1;
	return NULL;
}

const struct tickets *
tickets_map(int fd, struct err *err)
{
	void *p = mmap(NULL, sizeof(struct tickets), PROT_READ, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED) {
		err_sys(err, errno, "map ticket keys");
		return NULL;
	}
	return p;
}

/* A memory that is sealed can be mapped for writing by nobody, also not by who comes after its
 * writer: so the keys move. */
struct tickets *
tickets_follow(int before, int *fd, struct err *err)
{
	struct tickets *t = tickets_create(fd, err);
	const struct tickets *old;
	struct ticket_key keys[KEYS];
	struct stat st;

	if (t == NULL || fstat(before, &st) < 0 || st.st_size != (off_t)sizeof(*t))
		return t;
	old = tickets_map(before, err);
	if (old == NULL)
		return t; /* fresh keys: clients make full handshakes for once */
	if (read_keys(old, keys)) {
		write_keys(t, keys);
		t->made_ms = old->made_ms;
	}
	OPENSSL_cleanse(keys, sizeof(keys));
	(void)munmap((void *)(uintptr_t)old, sizeof(*old)); /* a mapping of ours: cannot fail */
	return t;
}

void
tickets_turn(struct tickets *t, int64_t now_ms, uint32_t lifetime_s)
{
	struct ticket_key keys[KEYS], fresh;

	if (t->made_ms == 0)
		t->made_ms = now_ms;
	if (lifetime_s == 0 || now_ms - t->made_ms < (int64_t)lifetime_s * 1000 / 2)
		return;
	if (!make_key(&fresh))
		return; /* the old one serves until there are random numbers again */
	t->made_ms = now_ms;
	(void)read_keys(t, keys); /* we are the writer */
	memmove(&keys[1], &keys[0], sizeof(keys) - sizeof(keys[0]));
	keys[0] = fresh;
	write_keys(t, keys);
	OPENSSL_cleanse(keys, sizeof(keys));
	OPENSSL_cleanse(&fresh, sizeof(fresh));
}

/* ---- OpenSSL's callback --------------------------------------------------------------------- */

static bool
set_keys(struct ticket_key *key, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
    int sealing)
{
	char digest[] = "SHA256";
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->sign, KEY_BYTES),
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
		OSSL_PARAM_construct_end(),
	};

	return EVP_CipherInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->seal, iv, sealing) == 1 &&
	       EVP_MAC_CTX_set_params(mac, params) == 1;
}

static int
seal(struct ticket_key *key, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
    EVP_MAC_CTX *mac)
{
	memcpy(name, key->name, NAME_BYTES);
	if (RAND_bytes(iv, TICKET_IV) != 1 || !set_keys(key, iv, cipher, mac, 1))
		return -1;
	return OURS;
}

static int
open_sealed(struct ticket_key keys[static KEYS], const unsigned char *name, unsigned char *iv,
    EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac)
{
	for (size_t i = 0; i < KEYS; i++) {
		if (memcmp(name, keys[i].name, NAME_BYTES) != 0)
			continue;
		if (!set_keys(&keys[i], iv, cipher, mac, 0))
			return -1;
		return i == 0 ? OURS : OURS_BUT_OLD;
	}
	return NOT_OURS;
}

static int
on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
    EVP_MAC_CTX *mac, int sealing)
{
	struct ticket_key keys[KEYS];
	int answer;

	(void)ssl; /* all servers of a process share them */
	if (!read_keys(in_use, keys))
		answer = NOT_OURS;
	else if (sealing)
		answer = seal(&keys[0], name, iv, cipher, mac);
	else
		answer = open_sealed(keys, name, iv, cipher, mac);
	OPENSSL_cleanse(keys, sizeof(keys));
	return answer;
}

void
tickets_use(const struct tickets *t)
{
	in_use = t;
}

tickets_callback
tickets_in_use(void)
{
	return in_use != NULL ? on_ticket : NULL;
}

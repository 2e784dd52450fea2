/* relayd/core/shared.c - the memory that the roles of one relayd share: who sleeps, who is connected. */
#include "relayd/core/shared.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

int
shared_create(struct err *err)
{
	int fd = memfd_create("relayd-shared", MFD_CLOEXEC);
	struct shared *sh;

	if (fd < 0)
		return err_sys(err, errno, "memfd for shared counts");
	if (ftruncate(fd, sizeof(struct shared)) < 0) {
		err_sys(err, errno, "size of shared counts");
		(void)close(fd);	/* nothing in it */
		return -1;
	}
	sh = shared_map(fd, err);
	if (sh == NULL || getrandom(sh->hash_key, sizeof(sh->hash_key), 0) < 0 ||
	    backoff_init(&sh->logins) < 0) {
		(void)close(fd);	/* nothing in it */
		return -1;
	}
	sh->version = SHARED_VERSION;
	(void)munmap(sh, sizeof(*sh));	/* mapped again by whoever uses it */
	return fd;
}

struct shared *
shared_map(int fd, struct err *err)
{
	void *p = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p != MAP_FAILED)
		return p;
	err_sys(err, errno, "map shared counts");
	return NULL;
}

static bool
is_v4_mapped(struct slice addr)
{
	return addr.len == 16 && memcmp(addr.p, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0;
}

static uint64_t
hash(const struct shared *sh, uint64_t seed, struct slice bytes)
{
	uint64_t h, k;

	memcpy(&h, sh->hash_key, sizeof(h));
	memcpy(&k, sh->hash_key + 8, sizeof(k));
	h ^= seed;
	for (size_t i = 0; i < bytes.len; i++) {
		h ^= (uint8_t)bytes.p[i];
		h *= k | 1;
		h ^= h >> 29;
	}
	return h;
}

unsigned
shared_bucket(const struct shared *sh, struct slice addr, const char *apart)
{
	uint64_t seed = *apart != '\0' ? hash(sh, 0, slice_str(apart)) : 0;

	if (is_v4_mapped(addr))
		addr = slice_drop(addr, 12);
	addr = slice_head(addr, 8);	/* an IPv6 client counts as its /64 */
	return (unsigned)(hash(sh, seed, addr) % SHARED_BUCKETS);
}

unsigned
shared_listener(const struct shared *sh, const char *name)
{
	return (unsigned)(hash(sh, 0, slice_str(name)) % SHARED_LISTENERS);
}

bool
shared_fits(int fd)
{
	uint32_t head[2];
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_size == (off_t)sizeof(struct shared) &&
	    pread(fd, head, sizeof(head), 0) == (ssize_t)sizeof(head) && head[1] == SHARED_VERSION;
}

void
shared_use(struct shared *sh, unsigned worker)
{
	uint32_t slots = sh->slots;

	while (slots <= worker && !atomic_compare_exchange_weak(&sh->slots, &slots, worker + 1))
		continue;
}

uint32_t
shared_open(const struct shared *sh)
{
	uint32_t n = 0;

	for (size_t w = 0; w < sh->slots; w++)
		n += sh->workers[w].open;
	return n;
}

enum shared_answer
shared_join(struct shared *sh, unsigned worker, const struct shared_client *client,
    const struct shared_limits *limits)
{
	struct shared_worker *mine = &sh->workers[worker];
	uint32_t same = 0, here = 0, slots = sh->slots;

	for (size_t w = 0; w < slots; w++)
		same += sh->workers[w].by_ip[client->bucket];
	for (size_t w = 0; w < slots && limits->listener < UINT32_MAX; w++)
		here += sh->workers[w].by_listener[client->listener];
	if (shared_open(sh) >= limits->open)
		return SHARED_FULL;
	if (here >= limits->listener)
		return SHARED_LISTENER_FULL;
	if (same >= limits->ip || mine->by_ip[client->bucket] == UINT16_MAX)
		return SHARED_IP_FULL;
	atomic_fetch_add(&mine->open, 1);
	atomic_fetch_add(&mine->by_ip[client->bucket], 1);
	atomic_fetch_add(&mine->by_listener[client->listener], 1);
	return SHARED_IN;
}

void
shared_leave(struct shared *sh, unsigned worker, const struct shared_client *client)
{
	struct shared_worker *mine = &sh->workers[worker];

	atomic_fetch_sub(&mine->open, 1);
	atomic_fetch_sub(&mine->by_ip[client->bucket], 1);
	atomic_fetch_sub(&mine->by_listener[client->listener], 1);
}

void
shared_clear(struct shared *sh, unsigned worker)
{
	memset((void *)&sh->workers[worker], 0, sizeof(sh->workers[worker]));
}

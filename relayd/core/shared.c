/* relayd/core/shared.c - the memory that the roles of one relayd share: who sleeps, who is connected. */
#include "relayd/core/shared.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/random.h>
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
	if (sh == NULL || getrandom(sh->hash_key, sizeof(sh->hash_key), 0) < 0) {
		(void)close(fd);	/* nothing in it */
		return -1;
	}
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

unsigned
shared_bucket(const struct shared *sh, struct slice addr)
{
	uint64_t h, k;

	if (is_v4_mapped(addr))
		addr = slice_drop(addr, 12);
	addr = slice_head(addr, 8);	/* an IPv6 client counts as its /64 */
	memcpy(&h, sh->hash_key, sizeof(h));
	memcpy(&k, sh->hash_key + 8, sizeof(k));
	for (size_t i = 0; i < addr.len; i++) {
		h ^= (uint8_t)addr.p[i];
		h *= k | 1;
		h ^= h >> 29;
	}
	return (unsigned)(h % SHARED_BUCKETS);
}

uint32_t
shared_open(const struct shared *sh)
{
	uint32_t n = 0;

	for (size_t w = 0; w < SHARED_WORKERS; w++)
		n += sh->workers[w].open;
	return n;
}

bool
shared_join(struct shared *sh, unsigned worker, unsigned bucket, uint32_t max_open,
    uint32_t max_per_ip)
{
	struct shared_worker *mine = &sh->workers[worker];
	uint32_t same = 0;

	for (size_t w = 0; w < SHARED_WORKERS; w++)
		same += sh->workers[w].by_ip[bucket];
	if (same >= max_per_ip || shared_open(sh) >= max_open || mine->by_ip[bucket] == UINT16_MAX)
		return false;
	atomic_fetch_add(&mine->open, 1);
	atomic_fetch_add(&mine->by_ip[bucket], 1);
	return true;
}

void
shared_leave(struct shared *sh, unsigned worker, unsigned bucket)
{
	struct shared_worker *mine = &sh->workers[worker];

	atomic_fetch_sub(&mine->open, 1);
	atomic_fetch_sub(&mine->by_ip[bucket], 1);
}

void
shared_clear(struct shared *sh, unsigned worker)
{
	memset((void *)&sh->workers[worker], 0, sizeof(sh->workers[worker]));
}

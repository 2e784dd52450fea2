/* relayd/core/shared.c - the memory that the roles of one relayd share: who sleeps, who is
 * connected. */
#include "relayd/core/shared.h"

#include "relayd/core/siphash.h"

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

#define KEY_BYTES 300	/* a kind, an address, and the name of a listener, which may be cut */

/* kind keeps what is counted by different rules apart.  Never 0. */
static uint64_t
hash(const uint8_t key[static 16], char kind, struct slice bytes, const char *apart)
{
	struct slice name = slice_head(slice_str(apart), KEY_BYTES - 1 - bytes.len);
	char storage[KEY_BYTES];
	uint64_t h;

	storage[0] = kind;
	memcpy(storage + 1, bytes.p, bytes.len);
	memcpy(storage + 1 + bytes.len, name.p, name.len);
	h = siphash(key, slice_of(storage, 1 + bytes.len + name.len));
	return h != 0 ? h : 1;
}

static struct slice
normal(struct slice addr)
{
	return is_v4_mapped(addr) ? slice_drop(addr, 12) : addr;
}

uint64_t
shared_ip(const uint8_t hash_key[static 16], struct slice addr, const char *apart)
{
	addr = normal(addr);
	if (addr.len == 0)
		return 0;
	/* an IPv6 client counts as its /64 */
	return hash(hash_key, addr.len == 4 ? 'a' : 'A', slice_head(addr, 8), apart);
}

static bool
is_loopback(struct slice addr)
{
	return addr.len == 4 ? addr.p[0] == 127
			     : memcmp(addr.p, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1", 16) == 0;
}

uint64_t
shared_net(const uint8_t hash_key[static 16], struct slice addr, const char *apart)
{
	addr = normal(addr);
	if (addr.len == 0 || is_loopback(addr))
		return 0;
	if (addr.len == 4)
		return hash(hash_key, 'n', slice_head(addr, SHARED_NET_V4 / 8), apart);
	return hash(hash_key, 'N', slice_head(addr, SHARED_NET_V6 / 8), apart);
}

uint64_t
shared_listener(const struct shared *sh, const char *name)
{
	return hash(sh->hash_key, 'l', SLICE(""), name);
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

/* Of all workers. */
static uint32_t
count(const struct shared *sh, uint64_t key)
{
	uint32_t n = 0;

	for (size_t w = 0; w < sh->slots; w++)
		n += tally_get(&sh->workers[w].by, key);
	return n;
}

static bool
is_over(const struct shared *sh, uint64_t key, uint32_t limit)
{
	return key != 0 && limit < UINT32_MAX && count(sh, key) > limit;
}

/* Where there is no room to count it, it is as if it were not counted by this. */
static void
add(struct shared_worker *w, uint64_t *key)
{
	if (*key != 0 && !tally_add(&w->by, *key))
		*key = 0;
}

enum shared_answer
shared_join(struct shared *sh, unsigned worker, struct shared_client *client,
    const struct shared_limits *limits)
{
	struct shared_worker *mine = &sh->workers[worker];
	enum shared_answer answer = SHARED_IN;

	/* Counted first, then looked at: of two workers with one place left at most one takes
	 * it. */
	atomic_fetch_add(&mine->open, 1);
	add(mine, &client->listener);
	add(mine, &client->ip);
	add(mine, &client->net);
	if (limits->open < UINT32_MAX && shared_open(sh) > limits->open)
		answer = SHARED_FULL;
	else if (is_over(sh, client->listener, limits->listener))
		answer = SHARED_LISTENER_FULL;
	else if (is_over(sh, client->ip, limits->ip))
		answer = SHARED_IP_FULL;
	else if (is_over(sh, client->net, limits->net))
		answer = SHARED_NET_FULL;
	if (answer != SHARED_IN)
		shared_leave(sh, worker, client);
	return answer;
}

static void
drop(struct shared_worker *w, uint64_t key)
{
	if (key != 0)
		tally_drop(&w->by, key);
}

void
shared_leave(struct shared *sh, unsigned worker, const struct shared_client *client)
{
	struct shared_worker *mine = &sh->workers[worker];

	atomic_fetch_sub(&mine->open, 1);
	drop(mine, client->listener);
	drop(mine, client->ip);
	drop(mine, client->net);
}

void
shared_clear(struct shared *sh, unsigned worker)
{
	memset((void *)&sh->workers[worker], 0, sizeof(sh->workers[worker]));
}

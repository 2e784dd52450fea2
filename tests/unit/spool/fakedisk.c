/* tests/unit/spool/fakedisk.c - a disk in memory that fails as real ones do. */
#include "unit/spool/fakedisk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FDS_MAX   4096
#define NODES_MAX 65536
#define DISK_FULL ((size_t)-1)

struct range {
	uint64_t from, to;
};

struct node {
	bool used, is_dir, mapped;
	bool differs; /* what is safe may not be what is there now */
	bool failed;  /* a sync of it did */
	uint8_t *now, *safe;
	size_t now_len, safe_len, cap;
	struct range *dirty; /* since the last sync */
	size_t n_dirty;
	int locker; /* handle, or -1 */
};

struct entry {
	int dir, node;
	char name[IO_NAME_MAX];
};

struct entries {
	struct entry *v;
	size_t n;
};

/* A change of names that no sync covered: from leaves, to comes; either may be none (node -1). */
struct change {
	struct entry from, to;
	bool lasts; /* for make_last() */
};

static struct {
	struct node nodes[NODES_MAX];
	int n_nodes;
	int fds[FDS_MAX]; /* node, or -1 */
	int owners[FDS_MAX], owner;
	fakedisk_hook hook;
	struct fakedisk_fault fault; /* of the call being made */
	struct entries now, safe;
	struct change *changes;
	size_t n_changes;
	uint64_t points, cut_at;
	bool off;
	size_t short_write;
	uint64_t capacity;
	struct {
		unsigned calls, skip, times;
		int sys;
	} ops[FAKEDISK_OPS];
	uint64_t random;
	const struct node *bad;	/* cannot be read in bad_from to bad_to */
	uint64_t bad_from, bad_to;
} disk;

static uint64_t
next_random(void)
{
	disk.random ^= disk.random << 13;
	disk.random ^= disk.random >> 7;
	disk.random ^= disk.random << 17;
	return disk.random;
}

static int
fail(int sys)
{
	errno = sys;
	return -1;
}

/* 0: go on; -1: fails, and with *cut the power goes after the call did its work. */
static int
enter_bytes(enum fakedisk_op op, size_t bytes, bool *cut)
{
	*cut = false;
	if (disk.off)
		return fail(EIO);
	disk.ops[op].calls++;
	disk.fault = (struct fakedisk_fault){ 0 };
	if (disk.hook != NULL)
		disk.fault = disk.hook(op, bytes);
	if (disk.fault.sys != 0 && disk.fault.takes == 0)
		return fail(disk.fault.sys);
	if (op < FAKEDISK_READ) {
		disk.points++;
		if (disk.points == disk.cut_at)
			*cut = disk.off = true;
	}
	if (disk.ops[op].skip > 0)
		disk.ops[op].skip--;
	else if (disk.ops[op].times > 0) {
		disk.ops[op].times--;
		return fail(disk.ops[op].sys);
	}
	return 0;
}

static int
enter(enum fakedisk_op op, bool *cut)
{
	return enter_bytes(op, 0, cut);
}

/* Of a call that changes nothing. */
static int
look(enum fakedisk_op op)
{
	bool cut;

	return enter(op, &cut);
}

static struct entry *
find(struct entries *in, int dir, const char *name)
{
	for (size_t i = 0; i < in->n; i++)
		if (in->v[i].dir == dir && strcmp(in->v[i].name, name) == 0)
			return &in->v[i];
	return NULL;
}

static void
put(struct entries *in, const struct entry *e)
{
	struct entry *old = find(in, e->dir, e->name);

	if (old == NULL) {
		in->v = realloc(in->v, (in->n + 1) * sizeof(*in->v));
		assert(in->v != NULL);
		old = &in->v[in->n++];
	}
	*old = *e;
}

static void
drop(struct entries *in, const struct entry *e)
{
	struct entry *old = find(in, e->dir, e->name);

	if (old != NULL)
		*old = in->v[--in->n];
}

static void
apply(struct entries *in, const struct change *c)
{
	if (c->from.node >= 0)
		drop(in, &c->from);
	if (c->to.node >= 0)
		put(in, &c->to);
}

static void
change(const struct change *c)
{
	apply(&disk.now, c);
	disk.changes = realloc(disk.changes, (disk.n_changes + 1) * sizeof(*disk.changes));
	assert(disk.changes != NULL);
	disk.changes[disk.n_changes++] = *c;
}

static struct entry
entry_of(int dir, const char *name, int node)
{
	struct entry e = { .dir = dir, .node = node };

	(void)snprintf(e.name, sizeof(e.name), "%s", name);
	return e;
}

static int
new_node(bool is_dir)
{
	assert(disk.n_nodes < NODES_MAX);
	disk.nodes[disk.n_nodes] = (struct node){ .used = true, .is_dir = is_dir, .locker = -1 };
	return disk.n_nodes++;
}

static int
new_fd(int node)
{
	for (int fd = 0; fd < FDS_MAX; fd++)
		if (disk.fds[fd] < 0) {
			disk.fds[fd] = node;
			disk.owners[fd] = disk.owner;
			return fd;
		}
	return fail(EMFILE);
}

/* Node 0 is what paths start from: a path is one name in it. */
static int
node_of(int fd)
{
	assert(fd < FDS_MAX);
	return fd < 0 ? 0 : disk.fds[fd];
}

static int
fake_open_dir(int at, const char *name)
{
	struct entry *e = find(&disk.now, node_of(at), name);

	if (look(FAKEDISK_OPEN) < 0)
		return -1;
	if (strcmp(name, ".") == 0)
		return new_fd(node_of(at));
	if (e == NULL || !disk.nodes[e->node].is_dir)
		return fail(ENOENT);
	return new_fd(e->node);
}

static int
fake_make_dir(int at, const char *name)
{
	bool cut;

	if (find(&disk.now, node_of(at), name) != NULL)
		return fail(disk.off ? EIO : EEXIST);
	if (enter(FAKEDISK_CREATE, &cut) < 0)
		return -1;
	change(&(struct change){
	    .from = { .node = -1 }, .to = entry_of(node_of(at), name, new_node(true)) });
	return cut ? fail(EIO) : 0;
}

static int
fake_open(int dir, const char *name, int flags)
{
	struct entry *e = find(&disk.now, node_of(dir), name);
	bool cut;
	int node;

	if (!(flags & O_CREAT) || e != NULL) {
		if (look(FAKEDISK_OPEN) < 0)
			return -1;
		return e == NULL ? fail(ENOENT) : flags & O_EXCL ? fail(EEXIST) : new_fd(e->node);
	}
	if (enter(FAKEDISK_CREATE, &cut) < 0)
		return -1;
	node = new_node(false);
	change(
	    &(struct change){ .from = { .node = -1 }, .to = entry_of(node_of(dir), name, node) });
	return cut ? fail(EIO) : new_fd(node);
}

static void
fake_close(int fd)
{
	if (disk.fds[fd] >= 0 && disk.nodes[disk.fds[fd]].locker == fd)
		disk.nodes[disk.fds[fd]].locker = -1;
	disk.fds[fd] = -1;
}

static uint64_t
used_bytes(void)
{
	uint64_t used = 0;

	for (size_t i = 0; i < disk.now.n; i++)
		used += disk.nodes[disk.now.v[i].node].now_len;
	return used;
}

static void
grow(struct node *node, size_t len)
{
	if (len > node->cap) {
		assert(!node->mapped);
		node->cap = len * 2 > 4096 ? len * 2 : 4096;
		node->now = realloc(node->now, node->cap);
		assert(node->now != NULL);
	}
	if (len > node->now_len) {
		memset(node->now + node->now_len, 0, len - node->now_len);
		node->now_len = len;
	}
}

static void
mark_dirty(struct node *node, uint64_t from, uint64_t to)
{
	node->dirty = realloc(node->dirty, (node->n_dirty + 1) * sizeof(*node->dirty));
	assert(node->dirty != NULL);
	node->differs = true;
	node->dirty[node->n_dirty++] = (struct range){ from, to };
}

/* How much of a write of n bytes at offset the disk takes now. */
static size_t
write_limit(const struct node *node, uint64_t offset, size_t n)
{
	uint64_t used, grows = offset + n > node->now_len ? offset + n - node->now_len : 0;

	if (disk.short_write > 0 && n > disk.short_write)
		n = disk.short_write;
	if (disk.capacity == 0 || grows == 0)
		return n;
	used = used_bytes();
	if (used >= disk.capacity)
		return offset < node->now_len ? (size_t)(node->now_len - offset) : DISK_FULL;
	if (grows > disk.capacity - used)
		n = (size_t)(node->now_len + disk.capacity - used - offset);
	return n > 0 ? n : DISK_FULL;
}

static ssize_t
fake_pwritev(int fd, const struct iovec *iov, int n, uint64_t offset)
{
	struct node *node = &disk.nodes[node_of(fd)];
	size_t total = 0, limit, done = 0;
	bool cut;

	for (int i = 0; i < n; i++)
		total += iov[i].iov_len;
	if (enter_bytes(FAKEDISK_WRITE, total, &cut) < 0)
		return -1;
	limit = write_limit(node, offset, total);
	if (limit == DISK_FULL)
		return fail(ENOSPC);
	if (limit > total)
		limit = total;
	if (disk.fault.takes > 0 && disk.fault.takes < limit)
		limit = disk.fault.takes;
	if (node->now_len < offset) { /* what a hole in the file gives is lost with it */
		mark_dirty(node, node->now_len, offset);
	}
	grow(node, (size_t)offset + limit);
	for (int i = 0; i < n && done < limit; i++) {
		size_t part = iov[i].iov_len < limit - done ? iov[i].iov_len : limit - done;

		memcpy(node->now + offset + done, iov[i].iov_base, part);
		done += part;
	}
	mark_dirty(node, offset, offset + limit);
	if (disk.fault.then != NULL)
		disk.fault.then();
	if (disk.fault.sys != 0)
		return fail(disk.fault.sys);
	return cut ? fail(EIO) : (ssize_t)limit;
}

static ssize_t
fake_pread(int fd, void *out, size_t n, uint64_t offset)
{
	struct node *node = &disk.nodes[node_of(fd)];
	bool cut;

	if (enter(FAKEDISK_READ, &cut) < 0)
		return -1;
	if (offset >= node->now_len)
		return 0;
	if (n > node->now_len - offset)
		n = (size_t)(node->now_len - offset);
	if (node == disk.bad && offset < disk.bad_to && offset + n > disk.bad_from) {
		errno = EIO;
		return -1;
	}
	memcpy(out, node->now + offset, n);
	return (ssize_t)n;
}

static void
keep_sector(struct node *node, uint64_t from, uint64_t to)
{
	if (to > node->now_len)
		to = node->now_len;
	if (to > node->safe_len) {
		node->safe = realloc(node->safe, (size_t)to + 1);
		assert(node->safe != NULL);
		memset(node->safe + node->safe_len, 0, (size_t)to - node->safe_len);
		node->safe_len = (size_t)to;
	}
	if (from < to)
		memcpy(node->safe + from, node->now + from, (size_t)(to - from));
}

/* What was written since the last sync is safe.  What a failed sync covered is not: the kernel
 * forgets that it was never written. */
static void
make_safe(struct node *node)
{
	if (node->mapped)
		mark_dirty(node, 0, node->now_len);
	for (size_t i = 0; i < node->n_dirty; i++)
		keep_sector(node, node->dirty[i].from, node->dirty[i].to);
	node->n_dirty = 0;
	node->differs = node->mapped || node->failed;
}

/* The pages leave memory, and what is read next is what the disk has. */
static void
read_back(struct node *node)
{
	for (size_t i = 0; i < node->n_dirty; i++)
		for (uint64_t at = node->dirty[i].from; at < node->dirty[i].to; at++)
			if (at < node->now_len)
				node->now[at] = at < node->safe_len ? node->safe[at] : 0;
}

static int
fake_sync(int fd)
{
	bool cut;

	if (enter(FAKEDISK_SYNC, &cut) < 0) {
		if (disk.fault.lose)
			read_back(&disk.nodes[node_of(fd)]);
		disk.nodes[node_of(fd)].n_dirty = 0;
		disk.nodes[node_of(fd)].failed = true;
		return -1;
	}
	if (cut)
		return fail(EIO);
	make_safe(&disk.nodes[node_of(fd)]);
	return 0;
}

static int
node_in(const struct change *c)
{
	return c->from.node >= 0 ? c->from.node : c->to.node;
}

/* Applies the changes that last, and with each what happened to the same file before: a file that
 * was moved twice has one name at any time, on every file system that keeps a journal. */
static void
make_last(void)
{
	size_t kept = 0;

	for (size_t i = disk.n_changes; i-- > 0;)
		for (size_t j = 0; disk.changes[i].lasts && j < i; j++)
			if (node_in(&disk.changes[j]) == node_in(&disk.changes[i]))
				disk.changes[j].lasts = true;
	for (size_t i = 0; i < disk.n_changes; i++)
		if (disk.changes[i].lasts)
			apply(&disk.safe, &disk.changes[i]);
		else
			disk.changes[kept++] = disk.changes[i];
	disk.n_changes = kept;
}

static int
fake_sync_dir(int fd)
{
	int dir = node_of(fd);
	bool cut;

	if (enter(FAKEDISK_SYNC_DIR, &cut) < 0)
		return -1;
	if (cut)
		return fail(EIO);
	for (size_t i = 0; i < disk.n_changes; i++) {
		struct change *c = &disk.changes[i];

		c->lasts = (c->from.node >= 0 && c->from.dir == dir) ||
			   (c->to.node >= 0 && c->to.dir == dir);
	}
	make_last();
	return 0;
}

static int
fake_size(int fd, uint64_t *bytes)
{
	if (look(FAKEDISK_STAT) < 0)
		return -1;
	*bytes = disk.nodes[node_of(fd)].now_len;
	return 0;
}

static int
fake_rename(int from, const char *name, int to, const char *new_name)
{
	struct entry *e = find(&disk.now, node_of(from), name);
	struct change c;
	bool cut;

	if (e == NULL)
		return fail(disk.off ? EIO : ENOENT);
	c = (struct change){ .from = *e, .to = entry_of(node_of(to), new_name, e->node) };
	if (enter(FAKEDISK_RENAME, &cut) < 0)
		return -1;
	change(&c);
	return cut ? fail(EIO) : 0;
}

static int
fake_link(int from, const char *name, int to, const char *new_name)
{
	struct entry *e = find(&disk.now, node_of(from), name);
	struct change c = { .from = { .node = -1 } };
	bool cut;

	if (e == NULL)
		return fail(disk.off ? EIO : ENOENT);
	if (find(&disk.now, node_of(to), new_name) != NULL)
		return fail(disk.off ? EIO : EEXIST);
	c.to = entry_of(node_of(to), new_name, e->node);
	if (enter(FAKEDISK_LINK, &cut) < 0)
		return -1;
	change(&c);
	return cut ? fail(EIO) : 0;
}

static bool
is_empty(int dir)
{
	for (size_t i = 0; i < disk.now.n; i++)
		if (disk.now.v[i].dir == dir)
			return false;
	return true;
}

static int
fake_unlink(int dir, const char *name, bool is_dir)
{
	struct entry *e = find(&disk.now, node_of(dir), name);
	bool cut;

	if (e == NULL)
		return fail(disk.off ? EIO : ENOENT);
	if (is_dir != disk.nodes[e->node].is_dir)
		return fail(is_dir ? ENOTDIR : EISDIR);
	if (is_dir && !is_empty(e->node))
		return fail(ENOTEMPTY);
	if (enter(FAKEDISK_UNLINK, &cut) < 0)
		return -1;
	change(&(struct change){ .from = *e, .to = { .node = -1 } });
	return cut ? fail(EIO) : 0;
}

static int
fake_list(int fd, void (*each)(void *data, const char *name), void *data)
{
	int dir = node_of(fd);
	struct entry *all;
	size_t n = 0;

	if (look(FAKEDISK_LIST) < 0)
		return -1;
	/* As of now: whoever is told may remove it, and others too. */
	all = calloc(disk.now.n + 1, sizeof(*all));
	if (all == NULL)
		return fail(ENOMEM);
	for (size_t i = 0; i < disk.now.n; i++)
		if (disk.now.v[i].dir == dir)
			all[n++] = disk.now.v[i];
	for (size_t i = 0; i < n; i++)
		if (find(&disk.now, dir, all[i].name) != NULL)
			each(data, all[i].name);
	free(all);
	return 0;
}

static int
fake_free_bytes(int dir, uint64_t *bytes)
{
	uint64_t used = used_bytes();

	(void)dir; /* one disk for all */
	if (look(FAKEDISK_STAT) < 0)
		return -1;
	*bytes = disk.capacity == 0     ? UINT64_MAX / 2
		 : used < disk.capacity ? disk.capacity - used
					: 0;
	return 0;
}

static int
fake_lock(int fd)
{
	struct node *node = &disk.nodes[node_of(fd)];

	if (look(FAKEDISK_LOCK) < 0)
		return -1;
	if (node->locker >= 0 && node->locker != fd)
		return fail(EAGAIN);
	node->locker = fd;
	return 0;
}

static int
fake_locked(int fd, bool *locked)
{
	struct node *node = &disk.nodes[node_of(fd)];

	if (look(FAKEDISK_LOCK) < 0)
		return -1;
	*locked = node->locker >= 0 && node->locker != fd;
	return 0;
}

static void *
fake_map(int fd, size_t n, bool writable)
{
	struct node *node = &disk.nodes[node_of(fd)];

	if (look(FAKEDISK_MAP) < 0)
		return NULL;
	if (n > node->now_len) {
		errno = EIO;
		return NULL;
	}
	node->mapped = node->mapped || writable;
	node->differs = node->differs || writable;
	return node->now;
}

static void
fake_unmap(void *map, size_t n)
{
	(void)map; /* the disk's own memory */
	(void)n;
}

static const struct io_ops fakedisk_ops = {
	.open_dir = fake_open_dir,
	.make_dir = fake_make_dir,
	.open = fake_open,
	.close = fake_close,
	.pwritev = fake_pwritev,
	.pread = fake_pread,
	.sync = fake_sync,
	.sync_dir = fake_sync_dir,
	.size = fake_size,
	.rename = fake_rename,
	.link = fake_link,
	.unlink = fake_unlink,
	.list = fake_list,
	.free_bytes = fake_free_bytes,
	.lock = fake_lock,
	.locked = fake_locked,
	.map = fake_map,
	.unmap = fake_unmap,
};

void
fakedisk_free(void)
{
	for (int i = 0; i < disk.n_nodes; i++) {
		free(disk.nodes[i].now);
		free(disk.nodes[i].safe);
		free(disk.nodes[i].dirty);
	}
	free(disk.now.v);
	free(disk.safe.v);
	free(disk.changes);
	memset(disk.nodes, 0, (size_t)disk.n_nodes * sizeof(disk.nodes[0]));
	disk.n_nodes = 0;
	disk.now = disk.safe = (struct entries){ 0 };
	disk.changes = NULL;
	disk.n_changes = 0;
}

void
fakedisk_use(void)
{
	fakedisk_free();
	for (int fd = 0; fd < FDS_MAX; fd++)
		disk.fds[fd] = -1;
	memset(disk.ops, 0, sizeof(disk.ops));
	disk.points = disk.cut_at = disk.capacity = 0;
	disk.short_write = 0;
	disk.off = false;
	disk.hook = NULL;
	disk.bad = NULL;
	disk.owner = 0;
	disk.random = 88172645463325252u;
	(void)new_node(true); /* the root */
	io_use(&fakedisk_ops);
}

void
fakedisk_cut_at(uint64_t k)
{
	disk.cut_at = disk.points + k;
}

void
fakedisk_off(void)
{
	disk.off = true;
}

bool
fakedisk_is_off(void)
{
	return disk.off;
}

void
fakedisk_watch(fakedisk_hook hook)
{
	disk.hook = hook;
}

void
fakedisk_owner(int owner)
{
	disk.owner = owner;
}

void
fakedisk_close_all(int owner)
{
	for (int fd = 0; fd < FDS_MAX; fd++)
		if (disk.fds[fd] >= 0 && disk.owners[fd] == owner)
			fake_close(fd);
}

uint64_t
fakedisk_points(void)
{
	return disk.points;
}

static void
spoil_sector(struct node *node, uint64_t from, uint64_t to)
{
	keep_sector(node, from, to);
	for (uint64_t at = from; at < to && at < node->safe_len; at++)
		node->safe[at] = (uint8_t)(next_random() >> 32);
}

/* Every sector that a write since the last sync touched is there or not, or is spoilt. */
static void
tear(struct node *node, size_t sector, bool spoil)
{
	if (node->mapped)
		mark_dirty(node, 0, node->now_len);
	for (size_t i = 0; i < node->n_dirty; i++)
		for (uint64_t at = node->dirty[i].from / sector * sector; at < node->dirty[i].to;
		     at += sector)
			switch (next_random() >> 20 & 3) {
			case 0:
				keep_sector(node, at, at + sector);
				break;
			case 1:
				(spoil ? spoil_sector : keep_sector)(node, at, at + sector);
				break;
			}
	node->n_dirty = 0;
}

/* Every write since the last sync is there or not. */
static void
reorder(struct node *node)
{
	for (size_t i = 0; i < node->n_dirty; i++)
		if (next_random() >> 20 & 1)
			keep_sector(node, node->dirty[i].from, node->dirty[i].to);
}

static void
lose(struct node *node, enum fakedisk_loss loss)
{
	if (loss == FAKEDISK_KEPT)
		keep_sector(node, 0, node->now_len);
	else if (loss == FAKEDISK_REORDERED)
		reorder(node);
	else if (loss != FAKEDISK_DROPPED)
		tear(node, loss == FAKEDISK_TORN_4096 ? 4096 : 512, loss == FAKEDISK_GARBAGE_512);
	node->mapped = node->failed = node->differs = false;
	node->n_dirty = 0;
	node->now_len = 0;
	grow(node, node->safe_len);
	if (node->safe_len > 0)
		memcpy(node->now, node->safe, node->safe_len);
	node->locker = -1;
}

static bool
has_parent(const struct entries *in, const struct entry *e)
{
	for (size_t i = 0; i < in->n; i++)
		if (in->v[i].node == e->dir)
			return true;
	return e->dir == 0;
}

/* What lies in a directory that did not last is gone with it. */
static void
drop_unreachable(struct entries *in)
{
	for (size_t i = 0; i < in->n;)
		if (has_parent(in, &in->v[i])) {
			i++;
		} else {
			in->v[i] = in->v[--in->n];
			i = 0;
		}
}

void
fakedisk_kill(void)
{
	for (int fd = 0; fd < FDS_MAX; fd++)
		if (disk.fds[fd] >= 0)
			fake_close(fd);
}

void
fakedisk_reboot(enum fakedisk_loss loss, uint64_t seed)
{
	disk.random = seed * 0x9e3779b97f4a7c15u + 88172645463325252u;
	for (size_t i = 0; i < disk.n_changes; i++)
		disk.changes[i].lasts =
		    loss == FAKEDISK_KEPT || (loss != FAKEDISK_DROPPED && (next_random() & 1));
	make_last();
	disk.n_changes = 0;
	drop_unreachable(&disk.safe);
	free(disk.now.v);
	disk.now = (struct entries){ 0 };
	for (size_t i = 0; i < disk.safe.n; i++)
		put(&disk.now, &disk.safe.v[i]);
	for (int i = 0; i < disk.n_nodes; i++)
		if (disk.nodes[i].differs)
			lose(&disk.nodes[i], loss);
	fakedisk_kill();
	disk.off = false;
	disk.cut_at = 0;
	disk.capacity = 0;
	disk.short_write = 0;
	for (int op = 0; op < FAKEDISK_OPS; op++)
		disk.ops[op].skip = disk.ops[op].times = 0;
}

void
fakedisk_fail(enum fakedisk_op op, unsigned skip, unsigned times, int sys)
{
	disk.ops[op].skip = skip;
	disk.ops[op].times = times;
	disk.ops[op].sys = sys;
}

unsigned
fakedisk_calls(enum fakedisk_op op)
{
	return disk.ops[op].calls;
}

void
fakedisk_short_writes(size_t n)
{
	disk.short_write = n;
}

void
fakedisk_capacity(uint64_t bytes)
{
	disk.capacity = bytes;
}

/* "a/b" of an entry, by walking up. */
static void
path_of(const struct entry *e, char out[static 256])
{
	char below[256];

	(void)snprintf(out, 256, "%s", e->name);
	for (int dir = e->dir; dir != 0;)
		for (size_t i = 0; i < disk.now.n; i++)
			if (disk.now.v[i].node == dir) {
				memcpy(below, out, sizeof(below));
				(void)snprintf(out, 256, "%.63s/%.190s", disk.now.v[i].name, below);
				dir = disk.now.v[i].dir;
				break;
			}
}

static struct node *
find_file(const char *path)
{
	char name[256];

	for (size_t i = 0; i < disk.now.n; i++) {
		struct node *node = &disk.nodes[disk.now.v[i].node];

		path_of(&disk.now.v[i], name);
		if (!node->is_dir && strcmp(name, path) == 0)
			return node;
	}
	return NULL;
}

uint8_t *
fakedisk_bytes(const char *path, size_t *len)
{
	const struct node *node = find_file(path);

	if (node == NULL)
		return NULL;
	*len = node->now_len;
	return node->now;
}

void
fakedisk_bad(const char *path, uint64_t from, uint64_t to)
{
	disk.bad = path != NULL ? find_file(path) : NULL;
	disk.bad_from = from;
	disk.bad_to = to;
}

void
fakedisk_files(void (*each)(void *data, const char *path), void *data)
{
	char name[256];

	for (size_t i = 0; i < disk.now.n; i++)
		if (!disk.nodes[disk.now.v[i].node].is_dir) {
			path_of(&disk.now.v[i], name);
			each(data, name);
		}
}

/* relayd/core/counters.c - what each role counts, in memory that others can read at any time. */
#include "relayd/core/counters.h"

#include "relayd/core/buf.h"
#include "relayd/core/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(COUNTER_COUNT <= COUNTERS_VALUES, "a page has no room for the counters");

#define FILE_BYTES (COUNTERS_PAGES * sizeof(struct counters_page))

static struct counters_page own;
static struct counters_page *page = &own;

static const struct counter_info infos[] = {
#define COUNTER_INFO(symbol, name, type, help) { name, help, type },
	COUNTERS(COUNTER_INFO)
#undef COUNTER_INFO
};

int
counters_create(const char *path, struct err *err)
{
	int fd;

	(void)unlink(path);	/* open tells what is wrong */
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return err_sys(err, errno, "create %s", path);
	if (ftruncate(fd, (off_t)FILE_BYTES) < 0) {
		err_sys(err, errno, "size %s", path);
		(void)close(fd);	/* nothing was written */
		return -1;
	}
	return fd;
}

bool
counters_fit(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_size == (off_t)FILE_BYTES;
}

void
counters_clear(struct counters_page *gone)
{
	memset(gone, 0, sizeof(*gone));
}

int
counters_map(int fd, bool writable, struct counters_page **pages, struct err *err)
{
	struct stat st;
	void *p;

	if (fstat(fd, &st) < 0)
		return err_sys(err, errno, "stat counters");
	if (st.st_size < (off_t)FILE_BYTES)
		return err_set(err, ERR_FORMAT, "counters: the file is short");
	p = mmap(
	    NULL, FILE_BYTES, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return err_sys(err, errno, "map counters");
	*pages = p;
	return 0;
}

void
counters_use(struct counters_page *mine, const char *role, unsigned index)
{
	memset(mine, 0, sizeof(*mine));
	mine->magic = COUNTERS_MAGIC;
	mine->values_used = COUNTER_COUNT;
	mine->index = index;
	(void)snprintf(mine->role, sizeof(mine->role), "%s", role);	/* role names are short */
	atomic_store(&mine->pid, (int32_t)getpid());
	atomic_store(&mine->beat_ms, clock_wall_ms());
	atomic_store(&mine->started_ms, clock_wall_ms());
	page = mine;
}

/* A page has one writer, so that no locked instruction is needed. */
void
counter_add(enum counter c, int64_t n)
{
	int64_t old = atomic_load_explicit(&page->values[c], memory_order_relaxed);

	atomic_store_explicit(&page->values[c], old + n, memory_order_relaxed);
}

void
counter_set(enum counter c, int64_t value)
{
	atomic_store_explicit(&page->values[c], value, memory_order_relaxed);
}

int64_t
counter_get(enum counter c)
{
	return atomic_load_explicit(&page->values[c], memory_order_relaxed);
}

void
counter_beat(void)
{
	atomic_store_explicit(&page->beat_ms, clock_wall_ms(), memory_order_relaxed);
}

void
counter_serving(void)
{
	atomic_store(&page->serving, 1);
}

/* One writer, as of all of the page. */
static void
count_filter_run(void)
{
	uint32_t runs = atomic_load_explicit(&page->filter_runs, memory_order_relaxed);

	atomic_store_explicit(&page->filter_runs, runs + 1, memory_order_release);
}

void
counter_filter_begins(const char *name)
{
	size_t len = strnlen(name, COUNTERS_FILTER_BYTES - 1);

	memcpy(page->filter, name, len);
	page->filter[len] = '\0';
	count_filter_run();
}

void
counter_filter_ended(void)
{
	count_filter_run();
}

void
counter_pool_hangs(bool hangs)
{
	atomic_store_explicit(&page->pool_hangs, hangs, memory_order_relaxed);
}

const struct counter_info *
counter_info(enum counter c)
{
	return &infos[c];
}

static void
render_one(const struct counters_page *pages, unsigned c, struct buf *out)
{
	bool titled = false;

	for (size_t i = 0; i < COUNTERS_PAGES; i++) {
		const struct counters_page *p = &pages[i];

		if (p->magic != COUNTERS_MAGIC || p->started_ms == 0 || c >= p->values_used ||
		    (infos[c].type == 't' && p->values[c] == 0))
			continue;
		if (!titled)
			buf_printf(out, "# HELP relayd_%s %s\n# TYPE relayd_%s %s\n", infos[c].name,
			    infos[c].help, infos[c].name,
			    infos[c].type == 'c' ? "counter" : "gauge");
		titled = true;
		buf_printf(out, "relayd_%s{role=\"%.15s\",index=\"%u\"} %lld\n", infos[c].name,
		    p->role, p->index, (long long)p->values[c]);
	}
}

void
counters_render(const struct counters_page *pages, struct buf *out)
{
	for (unsigned c = 0; c < COUNTER_COUNT; c++)
		render_one(pages, c, out);
}

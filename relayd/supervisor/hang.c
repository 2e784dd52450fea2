/* relayd/supervisor/hang.c - notices that a worker is lost in a filter that never returns, or only
 * silent. */
#include "relayd/supervisor/hang.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* Of its main thread, the loop's, as in /proc/PID/stat: "PID (name) STATE ...", where the name may
 * have brackets too.  0: it cannot be seen. */
static char
state_of(int pid)
{
	char path[32], text[256];
	const char *name_end;
	ssize_t n;
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", pid); /* fits any number */
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return '\0';
	n = read(fd, text, sizeof(text) - 1);
	(void)close(fd); /* only read */
	text[n > 0 ? n : 0] = '\0';
	name_end = strrchr(text, ')');
	return name_end != NULL && name_end[1] == ' ' ? name_end[2] : '\0';
}

/* The beat is of a clock that may be set: all that counts is that it changes. */
static void
listen_for_beat(struct hang_watch *w, int64_t beat_ms)
{
	if (beat_ms != w->beat_ms)
		w->silent = 0;
	else if (w->silent < HANG_SILENT_LOOKS)
		w->silent++;
	w->beat_ms = beat_ms;
}

bool
hang_is_silent(const struct hang_watch *w)
{
	return w->silent >= HANG_SILENT_LOOKS;
}

enum hang
hang_look(struct hang_watch *w, const struct counters_page *page, int pid, unsigned most)
{
	uint32_t runs = atomic_load_explicit(&page->filter_runs, memory_order_acquire);
	bool in_filter = runs % 2 != 0 && runs == w->runs;
	bool in_pool = atomic_load_explicit(&page->pool_hangs, memory_order_relaxed) != 0;
	char state = in_filter || in_pool ? state_of(pid) : '\0';
	bool stopped = state == 'T' || state == 't';

	listen_for_beat(w, atomic_load_explicit(&page->beat_ms, memory_order_relaxed));
	w->runs = runs;
	w->in_filter = in_filter && !stopped ? w->in_filter + 1 : 0;
	w->in_pool = in_pool && !stopped ? w->in_pool + 1 : 0;
	if (w->in_filter >= most && state != 'D')
		return HANG_FILTER;
	return w->in_pool >= most ? HANG_POOL : HANG_NONE;
}

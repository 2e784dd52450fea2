/* relayd/supervisor/watch.c - notices that files of the config changed which are renewed by
 * themselves. */
#include "relayd/supervisor/watch.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FRESH_S 3 /* so old a file may have changed between its reading and our first look */

/* What tells one state of a file from another; all zero: there is none. */
struct watch_stamp {
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec modified, changed;
};

static struct watch_stamp
look_at(const char *path)
{
	struct watch_stamp s;
	struct stat st;

	memset(&s, 0, sizeof(s)); /* padding too: they are compared as bytes */
	if (stat(path, &st) < 0)
		return s;
	s.dev = st.st_dev;
	s.ino = st.st_ino;
	s.size = st.st_size;
	s.modified = st.st_mtim;
	s.changed = st.st_ctim;
	return s;
}

static void
look_at_all(const struct config *cfg, struct watch_stamp *out)
{
	for (size_t i = 0; i < cfg->n_files; i++)
		if (cfg->files[i].watched)
			*out++ = look_at(cfg->files[i].path);
}

void
watch_files(struct watch *w, const struct config *cfg)
{
	time_t now = time(NULL);

	watch_fini(w);
	w->cfg = cfg;
	for (size_t i = 0; i < cfg->n_files; i++)
		w->n += cfg->files[i].watched;
	w->known = calloc(w->n + 1, sizeof(*w->known));
	w->last = calloc(w->n + 1, sizeof(*w->last));
	if (w->known == NULL || w->last == NULL) {
		watch_fini(w);
		return;
	}
	look_at_all(cfg, w->known);
	for (size_t i = 0; i < w->n; i++)
		if (now - w->known[i].changed.tv_sec < FRESH_S)
			memset(&w->known[i], 0, sizeof(w->known[i])); /* looked into once more */
	memcpy(w->last, w->known, w->n * sizeof(*w->last));
}

bool
watch_look(struct watch *w)
{
	struct watch_stamp *now = w->n > 0 ? calloc(w->n, sizeof(*now)) : NULL;
	size_t bytes = w->n * sizeof(*now);
	bool still, news;

	if (now == NULL)
		return false;
	look_at_all(w->cfg, now);
	still = memcmp(now, w->last, bytes) == 0;
	news = still && memcmp(now, w->known, bytes) != 0;
	if (news)
		memcpy(w->known, now, bytes);
	free(w->last);
	w->last = now;
	return news;
}

void
watch_fini(struct watch *w)
{
	free(w->known);
	free(w->last);
	*w = (struct watch){ 0 };
}

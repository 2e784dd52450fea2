/* relayd/core/config_source.c - where the bytes of the config and its files come from. */
#include "relayd/core/config_source.h"

#include "relayd/core/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <glob.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BYTES_MAX (256u << 20)

struct loaded {
	struct loaded *next;
	char *path;
	struct slice bytes;
	void *owned;		/* what to free, or NULL */
};

struct config_source {
	bool snapshot, secrets;
	uint32_t generation;	/* of the snapshot */
	struct slice map;	/* of the snapshot, to be unmapped; or empty */
	struct slice whole;	/* the snapshot */
	bool renews;		/* with snapshot: what it lacks is read from the disk */
	struct loaded *first;	/* all that was read, or all that was handed over */
};

static struct loaded *
add(struct config_source *src, struct slice path, struct slice bytes, void *owned)
{
	struct loaded **at = &src->first;
	struct loaded *l = calloc(1, sizeof(*l));

	if (l == NULL || (l->path = strndup(path.p, path.len)) == NULL) {
		free(l);
		free(owned);
		return NULL;
	}
	l->bytes = bytes;
	l->owned = owned;
	while (*at != NULL)
		at = &(*at)->next;
	*at = l;
	return l;
}

struct config_source *
config_source_disk(void)
{
	struct config_source *src = calloc(1, sizeof(*src));

	if (src != NULL)
		src->secrets = true;
	return src;
}

struct config_source *
config_source_disk_public(void)
{
	return calloc(1, sizeof(struct config_source));
}

struct config_source *
config_source_renewed(void)
{
	struct config_source *src = config_source_disk();

	if (src != NULL)
		src->snapshot = src->renews = true;
	return src;
}

int
config_source_keep(struct config_source *src, const char *path, struct slice bytes)
{
	char *copy = malloc(bytes.len + 1);

	if (copy == NULL)
		return -1;
	memcpy(copy, bytes.p, bytes.len);
	return add(src, slice_str(path), slice_of(copy, bytes.len), copy) != NULL ? 0 : -1;
}

/* Takes n bytes off the front of *in. */
static bool
take(struct slice *in, size_t n, struct slice *out)
{
	if (in->len < n)
		return false;
	*out = slice_head(*in, n);
	*in = slice_drop(*in, n);
	return true;
}

static bool
take_u64(struct slice *in, uint64_t *out)
{
	struct slice raw;

	if (!take(in, sizeof(*out), &raw))
		return false;
	memcpy(out, raw.p, sizeof(*out));
	return true;
}

struct config_source *
config_source_snapshot(struct slice bytes, struct err *err)
{
	struct config_source *src = calloc(1, sizeof(*src));
	uint64_t secrets;

	if (src != NULL)
		src->whole = bytes;
	if (src == NULL || !take_u64(&bytes, &secrets))
		goto bad;
	src->snapshot = true;
	src->secrets = (secrets & 1) != 0;
	src->generation = (uint32_t)(secrets >> 32);
	while (bytes.len > 0) {
		uint64_t path_len, len;
		struct slice path, content;

		if (!take_u64(&bytes, &path_len) || !take_u64(&bytes, &len) ||
		    !take(&bytes, path_len, &path) || !take(&bytes, len, &content) ||
		    add(src, path, content, NULL) == NULL)
			goto bad;
	}
	return src;
bad:
	config_source_free(src);
	err_set(err, ERR_FORMAT, "the handed-over config is not whole");
	return NULL;
}

void
config_source_begin_snapshot(struct buf *out, bool secrets)
{
	config_source_begin_numbered(out, secrets, 0);
}

uint32_t
config_source_generation(const struct config_source *src)
{
	return src->generation;
}

void
config_source_begin_numbered(struct buf *out, bool secrets, uint32_t generation)
{
	uint64_t flag = (uint64_t)generation << 32 | secrets;

	buf_put(out, slice_of(&flag, sizeof(flag)));
}

void
config_source_put(struct buf *out, const char *path, struct slice bytes)
{
	uint64_t path_len = strlen(path), len = bytes.len;

	buf_put(out, slice_of(&path_len, sizeof(path_len)));
	buf_put(out, slice_of(&len, sizeof(len)));
	buf_puts(out, path);
	buf_put(out, bytes);
}

void
config_source_free(struct config_source *src)
{
	struct loaded *l = src != NULL ? src->first : NULL;

	while (l != NULL) {
		struct loaded *next = l->next;

		if (l->owned != NULL)
			explicit_bzero(l->owned, l->bytes.len);	/* it may be a private key */
		free(l->owned);
		free(l->path);
		free(l);
		l = next;
	}
	if (src != NULL && src->map.len > 0)
		(void)munmap((void *)(uintptr_t)src->map.p, src->map.len); /* its own, so valid */
	free(src);
}

void
config_source_own_map(struct config_source *src)
{
	src->map = src->whole;
}

bool
config_source_secrets(const struct config_source *src)
{
	return src->secrets;
}

static int
read_whole(int fd, const char *path, char **bytes, size_t *len, struct err *err)
{
	struct stat st;
	size_t used = 0, cap;
	char *p;

	if (fstat(fd, &st) < 0)
		return err_sys(err, errno, "cannot read %s", path);
	if (S_ISDIR(st.st_mode))
		return err_set(err, ERR_FORMAT, "cannot read %s: it is a directory", path);
	cap = st.st_size > 0 ? (size_t)st.st_size + 1 : 65536;
	if (cap > FILE_BYTES_MAX)
		return err_set(
		    err, ERR_LIMIT, "cannot read %s: over %u MiB", path, FILE_BYTES_MAX >> 20);
	p = malloc(cap);
	while (p != NULL) {
		ssize_t n = read(fd, p + used, cap - used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			err_sys(err, errno, "cannot read %s", path);
			free(p);
			return -1;
		}
		if (n == 0)
			break;
		used += (size_t)n;
		if (used == cap) {	/* it grows, or is no regular file */
			char *more = cap <= FILE_BYTES_MAX / 2 ? realloc(p, cap * 2) : NULL;

			if (more == NULL)
				free(p);
			p = more;
			cap *= 2;
		}
	}
	if (p == NULL)
		return err_set(err, ERR_NOMEM, "cannot read %s: too large", path);
	*bytes = p;
	*len = used;
	return 0;
}

static const struct loaded *
find(const struct config_source *src, const char *path)
{
	for (const struct loaded *l = src->first; l != NULL; l = l->next)
		if (strcmp(l->path, path) == 0)
			return l;
	return NULL;
}

bool
config_source_has(const struct config_source *src, const char *path)
{
	return src->snapshot && find(src, path) != NULL;
}

bool
config_source_is_open(const struct config_source *src, const char *path)
{
	struct stat st;

	if ((src->snapshot && !src->renews) || find(src, path) != NULL)
		return false;	/* looked at before */
	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 077) != 0;
}

int
config_source_read(
    struct config_source *src, const char *path, struct slice *bytes, struct err *err)
{
	const struct loaded *have = find(src, path);
	char *p = NULL;
	size_t len = 0;
	int fd, rc;

	if (have == NULL && src->snapshot && !src->renews)
		return err_set(err, ERR_NOT_FOUND, "%s was not handed over", path);
	if (have == NULL) {
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
		if (fd < 0)
			return err_sys(err, errno, "cannot read %s", path);
		rc = read_whole(fd, path, &p, &len, err);
		(void)close(fd);	/* read only */
		if (rc < 0)
			return -1;
		have = add(src, slice_str(path), slice_of(p, len), p);
		if (have == NULL)
			return err_set(err, ERR_NOMEM, "cannot keep %s", path);
	}
	*bytes = have->bytes;
	return 0;
}

static int
glob_snapshot(const struct config_source *src, const char *pattern, config_source_each each,
    void *arg, struct err *err)
{
	for (const struct loaded *l = src->first; l != NULL; l = l->next)
		if (fnmatch(pattern, l->path, FNM_PATHNAME | FNM_PERIOD) == 0 &&
		    each(arg, l->path, err) < 0)
			return -1;
	return 0;
}

int
config_source_glob(struct config_source *src, const char *pattern, config_source_each each,
    void *arg, struct err *err)
{
	glob_t found;
	int rc = 0;

	if (src->snapshot)
		return glob_snapshot(src, pattern, each, arg, err);
	switch (glob(pattern, 0, NULL, &found)) {
	case 0:
		for (size_t i = 0; i < found.gl_pathc && rc == 0; i++)
			rc = each(arg, found.gl_pathv[i], err);
		globfree(&found);
		return rc;
	case GLOB_NOMATCH:
		return 0;
	default:
		return err_set(err, ERR_SYS, "cannot list %s", pattern);
	}
}

/* relayd/supervisor/owner.c - the two users, and the directories that each owns. */
#include "relayd/supervisor/owner.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static int
find_user(const char *name, struct owner *out, struct err *err)
{
	const struct passwd *pw = getpwnam(name);

	if (pw == NULL)
		return err_set(err, ERR_CONFIG,
		    "user %s does not exist: adduser --system --group --no-create-home %s", name,
		    name);
	*out = (struct owner){ .uid = pw->pw_uid, .gid = pw->pw_gid };
	return 0;
}

int
owners_find(const struct config *cfg, struct owners *out, struct err *err)
{
	struct owner self = { .uid = getuid(), .gid = getgid() };

	*out = (struct owners){ .root = geteuid() == 0, .mail = self, .review = self };
	if (!out->root)
		return 0;
	return find_user(cfg->user, &out->mail, err) < 0 ||
		       find_user(cfg->review.user, &out->review, err) < 0
		   ? err_prefix(err, "%s", cfg->path)
		   : 0;
}

/* Each directory above path that is missing.  The roles go through it, whatever the mask of who
 * starts relayd. */
static int
make_parents(const char *path, struct err *err)
{
	char part[4096];

	if (snprintf(part, sizeof(part), "%s", path) >= (int)sizeof(part))
		return err_set(err, ERR_CONFIG, "%s: the path is too long", path);
	for (char *slash = part + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
		*slash = '\0';
		if (mkdir(part, 0755) < 0 ? errno != EEXIST : chmod(part, 0755) < 0)
			return err_sys(err, errno, "create %s", part);
		*slash = '/';
	}
	return 0;
}

static int
make_dir(const char *path, const struct owner *owner, bool root, struct err *err)
{
	struct stat st;

	if (make_parents(path, err) < 0)
		return -1;
	if (mkdir(path, 0700) == 0) {
		if (root && lchown(path, owner->uid, owner->gid) < 0)
			return err_sys(err, errno, "chown %s", path);
		return 0;
	}
	if (errno != EEXIST)
		return err_sys(err, errno, "create %s", path);
	if (stat(path, &st) < 0)
		return err_sys(err, errno, "%s", path);
	if (!S_ISDIR(st.st_mode))
		return err_set(err, ERR_DENIED, "%s is no directory", path);
	if (st.st_uid != owner->uid)
		return err_set(err, ERR_DENIED,
		    "%s belongs to uid %u, not to %u, whose role uses it: "
		    "chown -R %u:%u %s",
		    path, (unsigned)st.st_uid, (unsigned)owner->uid, (unsigned)owner->uid,
		    (unsigned)owner->gid, path);
	return 0;
}

int
owners_make_dirs(const struct config *cfg, const struct owners *owners, struct err *err)
{
	return make_dir(cfg->run, &owners->mail, owners->root, err) < 0 ||
	    make_dir(cfg->spool, &owners->mail, owners->root, err) < 0 ||
	    make_dir(cfg->state, &owners->mail, owners->root, err) < 0 ||
	    make_dir(cfg->quarantine.store, &owners->review, owners->root, err) < 0 ? -1 : 0;
}

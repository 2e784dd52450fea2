/* relayd/relayctl_spool.c - relayctl spool: what is on the disk, and what of it can be saved. */
#include "relayd/relayctl.h"

#include "relayd/core/clock.h"
#include "relayd/mail/envelope.h"
#include "relayd/spool/entry.h"
#include "relayd/spool/inspect.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char spool_usage[] = "spool check | salvage [--all] DIR | dump [SEGMENT]";

#define ARENA_MAX  (16u << 20)
#define COPY_BYTES (256u << 10)

/* A file that is damaged: "LOG/00000001.seg". */
struct damaged {
	char path[2 * IO_NAME_MAX + 2];
	struct damaged *next;
};

struct spool_look {
	struct ctl *ctl;
	uint64_t messages, open, damages, lost, orphans;
	struct damaged *damaged;
	/* salvage */
	int dir;
	bool all, failed;
	uint64_t saved;
};

static const char *
state_text(enum inspect_state state)
{
	static const char *const texts[] = { "unknown", "open", "done", "copy" };

	return texts[state];
}

/* ---- as text and JSON ------------------------------------------------------------------------ */

static json_t *
text_of(struct slice s)
{
	json_t *text = json_stringn(s.p, s.len);

	return text != NULL ? text : json_string("(not UTF-8)");
}

static json_t *
copy_json(const struct envelope_copy *copy)
{
	json_t *rcpts = json_array(), *edits = json_array();

	for (size_t i = 0; i < copy->n_rcpts; i++)
		json_array_append_new(
		    rcpts, json_pack("{s:o,s:o}", "path", text_of(copy->rcpts[i].forward_path),
			       "params", text_of(copy->rcpts[i].params)));
	for (size_t i = 0; i < copy->n_edits; i++)
		json_array_append_new(
		    edits, json_pack("{s:I,s:I,s:o}", "at", (json_int_t)copy->edits[i].at, "remove",
			       (json_int_t)copy->edits[i].remove, "insert",
			       text_of(copy->edits[i].insert)));
	return json_pack("{s:s,s:o,s:o,s:o}", "route",
	    copy->route == ENVELOPE_QUARANTINE ? "quarantine" : "forward", "reason",
	    text_of(copy->reason), "recipients", rcpts, "edits", edits);
}

/* NULL: not to be read. */
static json_t *
envelope_json(struct slice encoded)
{
	struct arena arena = arena_of(ARENA_MAX);
	char id[ID_TEXT_LEN + 1], received[CLOCK_ISO_BYTES];
	struct envelope env;
	struct err err;
	json_t *json = NULL, *copies = json_array();

	if (envelope_decode(encoded, &arena, &env, &err) == 0) {
		id_text(env.id, id);
		clock_iso(env.received_ms, received);
		for (size_t i = 0; i < env.n_copies; i++)
			json_array_append_new(copies, copy_json(&env.copies[i]));
		json = json_pack("{s:s,s:s,s:I,s:I,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:O}", "id", id,
		    "received", received, "flags", (json_int_t)env.flags, "size",
		    (json_int_t)env.size, "from", text_of(env.reverse_path), "params",
		    text_of(env.params), "ip", text_of(env.client_ip), "helo", text_of(env.helo),
		    "user", text_of(env.auth_user), "listener", text_of(env.listener),
		    "release_key", text_of(env.release_key), "copies", copies);
	}
	json_decref(copies);
	arena_fini(&arena);
	return json;
}

static json_t *
found_json(const struct inspect_found *f)
{
	static const char *const whats[] = { "message", "changes", "other", "damage", "orphan" };
	json_t *json = json_pack("{s:s,s:s,s:s,s:I,s:I}", "what", whats[f->what], "log", f->dir,
	    "file", f->file, "from", (json_int_t)f->at, "to", (json_int_t)f->next);
	char id[ID_TEXT_LEN + 1];

	if (f->has_id) {
		id_text(f->id, id);
		json_object_set_new(json, "id", json_string(id));
	}
	if (f->what == INSPECT_MESSAGE) {
		json_object_set_new(json, "state", json_string(state_text(f->state)));
		json_object_set_new(json, "size", json_integer((json_int_t)f->size));
		json_object_set_new(json, "envelope", envelope_json(f->envelope));
	}
	if (f->what == INSPECT_DAMAGE)
		json_object_set_new(json, "why", json_string(f->why.msg));
	return json;
}

static void
print_json(const struct inspect_found *f)
{
	json_t *json = found_json(f);

	if (json != NULL)
		ctl_print_json(json);
	json_decref(json);
}

/* "from <a> to <b> +2" */
static void
print_paths(struct slice encoded)
{
	json_t *env = envelope_json(encoded);
	size_t i, n = 0;
	const char *first = "";
	json_t *copy;

	if (env == NULL) {
		fputs("an envelope that cannot be read", stdout);
		return;
	}
	json_array_foreach(json_object_get(env, "copies"), i, copy)
	{
		const json_t *rcpts = json_object_get(copy, "recipients");

		if (n == 0)
			first = ctl_text(json_array_get(rcpts, 0), "path");
		n += json_array_size(rcpts);
	}
	putchar('<');
	ctl_print_safe(ctl_text(env, "from"), 60);
	fputs("> -> ", stdout);
	ctl_print_safe(first, 60);
	if (n > 1)
		printf(" +%zu", n - 1);
	json_decref(env);
}

static void
print_where(const struct inspect_found *f)
{
	printf("%s/%s %llu..%llu ", f->dir, f->file, (unsigned long long)f->at,
	    (unsigned long long)f->next);
}

static void
print_id(const struct inspect_found *f)
{
	char id[ID_TEXT_LEN + 1];

	id_text(f->id, id);
	fputs(id, stdout);
}

/* ---- check ----------------------------------------------------------------------------------- */

static void
note_damaged(struct spool_look *look, const struct inspect_found *f)
{
	struct damaged *d = calloc(1, sizeof(*d));

	if (d == NULL)
		return; /* told all the same; not saved from */
	(void)snprintf(d->path, sizeof(d->path), "%s/%s", f->dir, f->file); /* both fit */
	d->next = look->damaged;
	look->damaged = d;
}

static void
count(struct spool_look *look, const struct inspect_found *f)
{
	look->messages += f->what == INSPECT_MESSAGE;
	look->open += f->what == INSPECT_MESSAGE && f->state == INSPECT_OPEN;
	look->orphans += f->what == INSPECT_ORPHAN;
	if (f->what != INSPECT_DAMAGE)
		return;
	look->damages++;
	look->lost += f->has_id;
	note_damaged(look, f);
}

static bool
on_check(void *data, const struct inspect_found *f)
{
	struct spool_look *look = data;

	count(look, f);
	if (f->what != INSPECT_DAMAGE && f->what != INSPECT_ORPHAN)
		return true;
	if (look->ctl->json) {
		print_json(f);
		return true;
	}
	print_where(f);
	if (f->what == INSPECT_ORPHAN) {
		printf("a message's file of %llu bytes, whose record is not here",
		    (unsigned long long)f->size);
	} else {
		ctl_print_safe(f->why.msg, 0);
		if (f->has_id) {
			fputs(": message ", stdout);
			print_id(f);
		} else {
			fputs(": whose messages these were is not to be read", stdout);
		}
	}
	putchar('\n');
	return true;
}

static const char *
spool_path(struct ctl *ctl)
{
	return ctl_config(ctl) != NULL ? ctl->cfg->spool : NULL;
}

static void
free_damaged(struct spool_look *look)
{
	for (struct damaged *d = look->damaged, *next; d != NULL; d = next) {
		next = d->next;
		free(d);
	}
}

static int
check(struct ctl *ctl)
{
	struct spool_look look = { .ctl = ctl };
	struct err err = { 0 };
	uint64_t files = 0;

	if (inspect_spool(spool_path(ctl), NULL, on_check, &look, &files, &err) < 0) {
		free_damaged(&look);
		return ctl_fail("%s", err.msg);
	}
	free_damaged(&look);
	if (!ctl->json)
		printf("%llu files, %llu messages whole, %llu of them open; %llu damaged places, "
		       "%llu of them with a message that is known; %llu files without a record\n",
		    (unsigned long long)files, (unsigned long long)look.messages,
		    (unsigned long long)look.open, (unsigned long long)look.damages,
		    (unsigned long long)look.lost, (unsigned long long)look.orphans);
	return look.damages > 0 ? CTL_FAILED : CTL_DONE;
}

/* ---- dump ------------------------------------------------------------------------------------ */

static void
print_entry(void *data, const char *text)
{
	(void)data;
	printf("    %s\n", text);
}

static bool
on_dump(void *data, const struct inspect_found *f)
{
	struct spool_look *look = data;

	count(look, f);
	if (look->ctl->json) {
		print_json(f);
		return true;
	}
	print_where(f);
	switch (f->what) {
	case INSPECT_MESSAGE:
		fputs(f->type == SPOOLDIR_COPY ? "copy of message " : "message ", stdout);
		print_id(f);
		printf(" %s %llu bytes%s ", state_text(f->state), (unsigned long long)f->size,
		    f->in_file ? " in a file" : "");
		print_paths(f->envelope);
		break;
	case INSPECT_CHANGES:
		printf("changes, %zu bytes", f->payload.len);
		break;
	case INSPECT_OTHER:
		printf("type %u, %zu bytes", f->type, f->payload.len);
		break;
	case INSPECT_DAMAGE:
		fputs("damage: ", stdout);
		ctl_print_safe(f->why.msg, 0);
		break;
	case INSPECT_ORPHAN:
		printf("a file without a record, %llu bytes", (unsigned long long)f->size);
		break;
	}
	putchar('\n');
	if (f->what == INSPECT_CHANGES)
		entry_tell(f->payload, print_entry, NULL);
	return true;
}

static int
dump(struct ctl *ctl, const char *only)
{
	struct spool_look look = { .ctl = ctl };
	struct err err = { 0 };
	int rc = inspect_spool(spool_path(ctl), only, on_dump, &look, NULL, &err);

	free_damaged(&look);
	return rc < 0 ? ctl_fail("%s", err.msg) : CTL_DONE;
}

/* ---- salvage --------------------------------------------------------------------------------- */

static bool
is_damaged(const struct spool_look *look, const struct inspect_found *f)
{
	char path[2 * IO_NAME_MAX + 2];

	(void)snprintf(path, sizeof(path), "%s/%s", f->dir, f->file); /* both fit */
	for (const struct damaged *d = look->damaged; d != NULL; d = d->next)
		if (strcmp(d->path, path) == 0)
			return true;
	return false;
}

static bool
write_all(int fd, const char *p, size_t n)
{
	while (n > 0) {
		ssize_t got = write(fd, p, n);

		if (got < 0 && errno != EINTR)
			return false;
		if (got > 0) {
			p += got;
			n -= (size_t)got;
		}
	}
	return true;
}

static bool
copy_file(int fd, const struct inspect_found *f)
{
	char *room = malloc(COPY_BYTES);
	ssize_t n = room != NULL ? 0 : -1;
	bool good = room != NULL;

	for (uint64_t at = 0; good && at < f->size; at += (uint64_t)n) {
		struct err err;

		n = io_read(f->body_file, room, COPY_BYTES, at, &err);
		good = n > 0 && write_all(fd, room, (size_t)n);
	}
	free(room);
	return good;
}

/* Never over a file that is there: what was saved once is kept. */
static int
create(const struct spool_look *look, const struct inspect_found *f, const char *suffix)
{
	char name[ID_TEXT_LEN + 8], id[ID_TEXT_LEN + 1];

	id_text(f->id, id);
	(void)snprintf(name, sizeof(name), "%s.%s", id, suffix); /* fits */
	return openat(look->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
}

static bool
close_synced(int fd, bool good)
{
	good = good && fsync(fd) == 0;
	return close(fd) == 0 && good;
}

static bool
save_bytes(const struct spool_look *look, const struct inspect_found *f)
{
	int fd = create(look, f, "eml");

	if (fd < 0)
		return errno == EEXIST; /* a copy of it was met before */
	return close_synced(
	    fd, f->body_file != NULL ? copy_file(fd, f) : write_all(fd, f->body.p, f->body.len));
}

static bool
save_envelope(const struct spool_look *look, const struct inspect_found *f)
{
	json_t *json = found_json(f);
	char *text = json != NULL ? json_dumps(json, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
	int fd = text != NULL ? create(look, f, "json") : -1;
	bool good =
	    fd < 0 ? text != NULL && errno == EEXIST
		   : close_synced(fd, write_all(fd, text, strlen(text)) && write_all(fd, "\n", 1));

	free(text);
	json_decref(json);
	return good;
}

static bool
on_salvage(void *data, const struct inspect_found *f)
{
	struct spool_look *look = data;
	bool message = f->what == INSPECT_MESSAGE && (!f->in_file || f->body_file != NULL) &&
		       (look->all || is_damaged(look, f));

	if (!message && f->what != INSPECT_ORPHAN)
		return true;
	if (!save_bytes(look, f) || (message && !save_envelope(look, f))) {
		look->failed = true;
		return false;
	}
	look->saved++;
	if (!look->ctl->json) {
		print_where(f);
		fputs("saved as ", stdout);
		print_id(f);
		puts(message ? ".eml" : ".eml, without an envelope: its record is lost");
	}
	return true;
}

static bool
on_count(void *data, const struct inspect_found *f)
{
	count(data, f);
	return true;
}

static int
salvage_into(struct ctl *ctl, struct spool_look *look, const char *dir)
{
	struct err err = { 0 };
	int sys;

	if (mkdir(dir, 0700) < 0 && errno != EEXIST)
		return ctl_fail("make %s: %s", dir, strerror(errno));
	look->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (look->dir < 0)
		return ctl_fail("open %s: %s", dir, strerror(errno));
	errno = 0;
	if (inspect_spool(spool_path(ctl), NULL, on_salvage, look, NULL, &err) < 0)
		return ctl_fail("%s", err.msg);
	sys = errno;
	if (look->failed)
		return ctl_fail("write into %s: %s", dir, strerror(sys));
	if (ctl->json)
		printf("{\"saved\":%llu}\n", (unsigned long long)look->saved);
	else
		printf("%llu %s saved into %s\n", (unsigned long long)look->saved,
		    look->saved == 1 ? "message" : "messages", dir);
	return CTL_DONE;
}

static int
salvage(struct ctl *ctl, const char *dir, bool all)
{
	struct spool_look look = { .ctl = ctl, .all = all, .dir = -1 };
	struct err err = { 0 };
	int rc;

	if (inspect_spool(spool_path(ctl), NULL, on_count, &look, NULL, &err) < 0)
		rc = ctl_fail("%s", err.msg);
	else
		rc = salvage_into(ctl, &look, dir);
	if (look.dir >= 0)
		(void)close(look.dir); /* only read */
	free_damaged(&look);
	return rc;
}

int
ctl_spool(struct ctl *ctl, int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";
	bool all = argc == 4 && strcmp(argv[2], "--all") == 0;

	if (strcmp(verb, "check") != 0 && strcmp(verb, "dump") != 0 && strcmp(verb, "salvage") != 0)
		return argc > 1 ? ctl_wrong(spool_usage, "spool has no %s", verb)
				: ctl_usage(spool_usage);
	if (strcmp(verb, "salvage") == 0 && argc != 3 && !all)
		return ctl_wrong(spool_usage, "salvage: where to?  One directory");
	if (argc > (strcmp(verb, "check") == 0 ? 2 : 3) && !all)
		return ctl_wrong(spool_usage, "%s has no %s", verb, argv[argc - 1]);
	if (spool_path(ctl) == NULL)
		return CTL_FAILED;
	if (strcmp(verb, "check") == 0)
		return check(ctl);
	return strcmp(verb, "dump") == 0 ? dump(ctl, argc == 3 ? argv[2] : NULL)
	    : salvage(ctl, argv[argc - 1], all);
}

/* relayd/spool/journal_file.c - the files of the journal: their names, reading them all, making
 * the next. */
#include "relayd/spool/journal_file.h"

#include "relayd/core/counters.h"
#include "relayd/core/log.h"
#include "relayd/core/record_file.h"
#include "relayd/spool/entry.h"

#include <stdio.h>
#include <stdlib.h>

#define NAME_BYTES   24
#define WINDOW_BYTES (256u << 10)
#define REPLAY_TRIES 5

static void
file_name(uint64_t number, const char *suffix, char out[static NAME_BYTES])
{
	(void)snprintf(out, NAME_BYTES, "%08x.%s", (unsigned)number, suffix); /* fits */
}

static bool
file_number(const char *name, const char *suffix, uint64_t *number)
{
	char again[NAME_BYTES];

	*number = strtoul(name, NULL, 16);
	file_name(*number, suffix, again);
	return *number > 0 && strcmp(name, again) == 0;
}

/* The files of a journal, by number. */
struct listing {
	struct io_dir *dir;
	uint64_t snapshot, newest; /* the highest numbers, or 0 */
	uint64_t *journals;
	size_t n, cap;
	bool nomem;
};

static void
list_name(void *data, const char *name)
{
	struct listing *l = data;
	uint64_t number;

	if (file_number(name, "snap", &number)) {
		if (number > l->snapshot)
			l->snapshot = number;
	} else if (file_number(name, "jnl", &number)) {
		if (l->n == l->cap) {
			size_t cap = l->cap > 0 ? l->cap * 2 : 16;
			uint64_t *more = realloc(l->journals, cap * sizeof(*more));

			if (more == NULL) {
				l->nomem = true;
				return;
			}
			l->journals = more;
			l->cap = cap;
		}
		l->journals[l->n++] = number;
	} else {
		return;
	}
	if (number > l->newest)
		l->newest = number;
}

static int
compare_numbers(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int
list_files(struct listing *l, struct io_dir *dir, struct err *err)
{
	*l = (struct listing){ .dir = dir };
	if (io_list(dir, list_name, l, err) < 0)
		return -1;
	if (l->nomem)
		return err_set(err, ERR_NOMEM, "no memory to list the journal");
	if (l->n > 0)
		qsort(l->journals, l->n, sizeof(*l->journals), compare_numbers);
	return 0;
}

/* -- replay -- */

static void
report_damage(struct journal_replay *r, const char *name, const struct err *why)
{
	r->damaged = true;
	if (!r->owner)
		return; /* who told it, or will */
	counter_add(COUNTER_DAMAGE, 1);
	log_event("spool.damaged", kv_str("file", name), kv_err("why", why));
}

/* Applies the records of a file.  *whole: it ended with ENTRY_END. */
static int
replay_records(struct journal_replay *r, struct record_cursor *c, bool *whole, struct err *err)
{
	struct record rec;
	int event;

	while ((event = record_cursor_next(c, &rec, err)) != RECORD_END) {
		struct err why = { 0 };

		if (event < 0)
			return -1;
		if (event == RECORD_DAMAGE)
			err_set(&why, ERR_DAMAGED, "%llu bytes at %llu are no record",
			    (unsigned long long)(rec.next - rec.at), (unsigned long long)rec.at);
		else if (rec.type == ENTRY_CHANGES)
			(void)entry_apply(r->index, rec.payload, &why); /* told by why */
		*whole = event == RECORD_WHOLE && rec.type == ENTRY_END;
		if (why.code == ERR_NOMEM)
			return err_set(err, ERR_NOMEM, "%s", why.msg);
		if (why.code != ERR_NONE)
			report_damage(r, io_name(c->file), &why);
	}
	return 0;
}

/* Passes over damage; fails for a newer version, a file that is gone, and for the owner where a
 * disk does not read: who only looks goes by what there is. */
static int
replay_file(struct journal_replay *r, uint64_t number, enum record_kind kind, struct err *err)
{
	char name[NAME_BYTES];
	struct record_cursor c = { 0 };
	struct io_file *file;
	struct err why = { 0 };
	bool whole = false;
	uint64_t start = kind == RECORD_SNAPSHOT ? RECORD_FILE_BYTES : JOURNAL_SECTOR;
	int rc;

	file_name(number, kind == RECORD_SNAPSHOT ? "snap" : "jnl", name);
	file = io_open(r->dir, name, false, err);
	if (file == NULL)
		return -1;
	rc = record_cursor_init(&c, file, kind, start, WINDOW_BYTES, &why);
	/* What is known from here on was on the disk, not only in the memory of a process that
	 * died. */
	if (rc == 0 && r->owner)
		rc = io_sync(file, &why);
	c.lenient = !r->owner;
	if (rc == 0)
		rc = replay_records(r, &c, &whole, &why);
	if (rc < 0 && (why.code == ERR_DAMAGED || (!r->owner && why.code == ERR_SYS))) {
		report_damage(r, name, &why);
		rc = 0;
	} else if (rc < 0 && err != NULL) {
		*err = why;
	} else if (kind == RECORD_SNAPSHOT && !whole) {
		err_set(&why, ERR_DAMAGED, "the snapshot has no end");
		report_damage(r, name, &why);
	}
	r->bytes += c.scanner.at;
	r->files++;
	record_cursor_fini(&c);
	io_close(file);
	return rc;
}

/* The newest snapshot, then every file of changes behind it. */
static int
replay_once(struct journal_replay *r, struct err *err)
{
	struct listing l = { 0 };
	int rc = list_files(&l, r->dir, err);

	if (rc == 0 && l.snapshot > 0)
		rc = replay_file(r, l.snapshot, RECORD_SNAPSHOT, err);
	for (size_t i = 0; rc == 0 && i < l.n; i++)
		if (l.journals[i] > l.snapshot)
			rc = replay_file(r, l.journals[i], RECORD_JOURNAL, err);
	r->newest = l.newest;
	free(l.journals);
	return rc;
}

int
journal_replay(struct journal_replay *r, struct err *err)
{
	struct err why = { 0 };

	for (int i = 0; i < REPLAY_TRIES; i++) {
		index_fini(r->index);
		if (replay_once(r, &why) == 0)
			return 0;
		/* Beside a living owner files may go between the listing and the reading. */
		if (r->owner || why.code != ERR_NOT_FOUND)
			break;
	}
	if (err != NULL)
		*err = why;
	return -1;
}

struct io_file *
journal_file_create(struct io_dir *dir, const struct record_file *header, const struct buf *records,
    struct err *err)
{
	char name[NAME_BYTES], tmp[NAME_BYTES + 4];
	uint8_t head[RECORD_FILE_BYTES];
	struct iovec iov[2] = { { .iov_base = head, .iov_len = sizeof(head) },
		{ .iov_base = records->p, .iov_len = records->len } };
	struct io_file *file;

	file_name(header->number, header->kind == RECORD_SNAPSHOT ? "snap" : "jnl", name);
	(void)snprintf(tmp, sizeof(tmp), "%s.tmp", name); /* fits */
	record_file_encode(header, head);
	(void)io_unlink(dir, tmp, NULL); /* there is none most often */
	file = io_create(dir, tmp, err);
	if (file != NULL && io_write(file, iov, records->len > 0 ? 2 : 1, 0, err) == 0 &&
	    io_sync(file, err) == 0 && io_rename(file, name, err) == 0)
		return file;
	io_close(file);
	return NULL;
}

struct removal {
	struct io_dir *dir, *damaged;
	uint64_t number;
};

static void
remove_old(void *data, const char *name)
{
	const struct removal *r = data;
	uint64_t number;
	bool old = (file_number(name, "snap", &number) && number < r->number) ||
		   (file_number(name, "jnl", &number) && number <= r->number);

	if (old && r->damaged != NULL)
		(void)io_move(r->dir, name, r->damaged, name, NULL); /* else it stays, unread */
	else if (old)
		(void)io_unlink(r->dir, name, NULL); /* else the next snapshot removes it */
}

void
journal_file_remove_old(struct io_dir *dir, struct io_dir *damaged, uint64_t number)
{
	struct removal removal = { dir, damaged, number };

	(void)io_list(dir, remove_old, &removal, NULL); /* or the next snapshot does it */
}

/* relayd/spool/inspect.c - every record of a spool, for its admin to look at; changes nothing. */
#include "relayd/spool/inspect.h"

#include "relayd/core/record_file.h"
#include "relayd/mail/envelope.h"
#include "relayd/spool/entry.h"
#include "relayd/spool/journal.h"

#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#define WINDOW_BYTES (256u << 10)
#define VERIFY_BYTES (256u << 10)
#define JOURNAL_FROM 512 /* where the records of a file of changes begin */

struct names {
	char (*v)[IO_NAME_MAX];
	size_t n, cap;
	bool nomem;
};

struct look {
	struct spooldir dir;
	struct journal *journal;
	const char *only;
	inspect_cb cb;
	void *data;
	uint64_t files;
	bool stop;
};

/* One directory below the spool. */
struct place {
	struct look *look;
	const char *name;
	struct io_dir *dir;
	bool is_log, live;
	struct id log;
	struct index_log *known; /* of the journal, or NULL */
	struct names names;
	uint64_t durable, newest; /* of the page of a living writer */
	struct id *with_file;     /* messages whose records were seen, with a file */
	size_t n_with_file;
};

/* -- names -- */

static void
note_name(void *data, const char *name)
{
	struct names *names = data;

	if (names->n == names->cap) {
		size_t cap = names->cap > 0 ? names->cap * 2 : 64;
		void *more = realloc(names->v, cap * sizeof(*names->v));

		if (more == NULL) {
			names->nomem = true;
			return;
		}
		names->v = more;
		names->cap = cap;
	}
	(void)snprintf(
	    names->v[names->n++], IO_NAME_MAX, "%s", name); /* no name of ours is longer */
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(a, b);
}

static int
list(struct io_dir *dir, struct names *names, struct err *err)
{
	*names = (struct names){ 0 };
	if (io_list(dir, note_name, names, err) < 0)
		return -1;
	if (names->nomem)
		return err_set(err, ERR_NOMEM, "no memory to list a directory");
	if (names->n > 0)
		qsort(names->v, names->n, sizeof(*names->v), compare_names);
	return 0;
}

/* -- what is found -- */

static void
give(struct place *p, struct inspect_found *found)
{
	found->dir = p->name;
	found->live = p->live;
	if (!p->look->stop && !p->look->cb(p->look->data, found))
		p->look->stop = true;
}

static void
give_damage(struct place *p, struct inspect_found *found, const struct err *why)
{
	found->what = INSPECT_DAMAGE;
	found->why = *why;
	give(p, found);
}

/* Whether the file of a message is as its record says; found->body_file is open then. */
static int
verify_file(
    struct place *p, const struct spooldir_message *m, struct inspect_found *found, struct err *err)
{
	uint64_t seed = m->is_copy ? m->copy.file_seed : spooldir_file_seed(p->log);
	char name[SPOOLDIR_MESSAGE_NAME_BYTES];
	XXH3_state_t *sum = XXH3_createState();
	char *room = malloc(VERIFY_BYTES);
	uint64_t size = 0;
	ssize_t n = 0;

	spooldir_message_name(found->id, name);
	found->body_file = io_open(p->dir, name, false, err);
	if (found->body_file == NULL || io_size(found->body_file, &size, err) < 0) {
		n = -1;
	} else if (sum == NULL || room == NULL) {
		n = err_set(err, ERR_NOMEM, "no memory to verify a message");
	} else {
		XXH3_64bits_reset_withSeed(sum, seed);
		for (uint64_t at = 0; n >= 0 && at < size; at += (uint64_t)n) {
			n = io_read(found->body_file, room, VERIFY_BYTES, at, err);
			if (n == 0)
				break;
			if (n > 0)
				XXH3_64bits_update(sum, room, (size_t)n);
		}
		if (n >= 0 &&
		    (size != m->meta.file_bytes || XXH3_64bits_digest(sum) != m->meta.file_sum))
			n = err_set(err, ERR_DAMAGED, "%s does not fit its checksum", name);
	}
	XXH3_freeState(sum);
	free(room);
	return n < 0 ? -1 : 0;
}

static void
note_with_file(struct place *p, struct id id)
{
	struct id *more = realloc(p->with_file, (p->n_with_file + 1) * sizeof(*more));

	if (more == NULL)
		return; /* then its file is shown as one without a record */
	p->with_file = more;
	p->with_file[p->n_with_file++] = id;
}

/* NULL: the journal knows nothing of it. */
static struct index_segment *
segment_of(const struct index_log *log, uint32_t number)
{
	struct index_segment *s = log != NULL ? log->segments : NULL;

	while (s != NULL && s->number != number)
		s = s->next;
	return s;
}

static bool
is_there(const struct place *p, struct id log, uint32_t number)
{
	char name[SPOOLDIR_SEGMENT_NAME_BYTES], dir_name[ID_TEXT_LEN + 1];
	struct io_dir *dir;
	struct io_file *file;

	id_text(log, dir_name);
	spooldir_segment_name(number, name);
	dir = io_dir_open_at(p->look->dir.root, dir_name, NULL);
	file = dir != NULL ? io_open(dir, name, false, NULL) : NULL;
	io_close(file);
	io_dir_close(dir);
	return file != NULL;
}

/* As the next start of delivery will see it. */
static enum inspect_state
state_of_copy(const struct place *p, const struct spooldir_copy *copy)
{
	struct index_segment *from =
	    segment_of(index_log_find(journal_index(p->look->journal), copy->log), copy->segment);

	if (from != NULL && (from->retired || index_is_done(from, copy->place)))
		return INSPECT_DONE;
	return is_there(p, copy->log, copy->segment) ? INSPECT_COPY : INSPECT_OPEN;
}

static enum inspect_state
state_of(const struct place *p, uint32_t segment, uint64_t at, const struct spooldir_message *m)
{
	uint32_t place = (uint32_t)(at / RECORD_ALIGN);
	struct index_segment *s = segment_of(p->known, segment);
	const struct index_msg *msg = s != NULL ? index_at(s, place) : NULL;

	if (!p->is_log)
		return INSPECT_UNKNOWN;
	if (s != NULL && (s->retired || index_is_done(s, place)))
		return INSPECT_DONE;
	if (m->is_copy && (msg == NULL || (msg->flags & INDEX_COPIED) == 0))
		return state_of_copy(p, &m->copy);
	return INSPECT_OPEN;
}

static void
give_message(
    struct place *p, uint32_t segment, const struct record *rec, struct inspect_found *found)
{
	struct spooldir_message m;
	struct err why = { 0 };

	if (spooldir_message_decode(rec->type, rec->payload, &m, &why) < 0 ||
	    envelope_peek_id(m.envelope, &found->id, &why) < 0) {
		give_damage(p, found, &why);
		return;
	}
	found->envelope = m.envelope;
	found->body = m.body;
	found->has_id = true;
	found->state = state_of(p, segment, rec->at, &m);
	found->in_file = m.meta.in_file;
	found->size = m.meta.in_file ? m.meta.file_bytes : m.body.len;
	if (m.meta.in_file)
		note_with_file(p, found->id);
	/* The file of one that is done goes before its record. */
	if (!m.meta.in_file || found->state == INSPECT_DONE ||
	    verify_file(p, &m, found, &why) == 0 ||
	    (found->state == INSPECT_COPY && why.code == ERR_NOT_FOUND))
		give(p, found);
	else if (why.code != ERR_NOT_FOUND || p->is_log)
		give_damage(p, found, &why);
	io_close(found->body_file);
}

/* -- files -- */

static int
read_head(struct io_file *file, struct record_file *header, enum record_kind kind, struct err *err)
{
	uint8_t head[RECORD_FILE_BYTES];
	ssize_t n = io_read(file, head, sizeof(head), 0, err);

	return n < 0 ? -1 : record_file_decode(slice_of(head, (size_t)n), kind, header, err);
}

/* Beside a living owner: the file may have gone while it was read, to be written over. */
static bool
is_still(struct place *p, const char *name, const struct record_file *header)
{
	struct io_file *file = io_open(p->dir, name, false, NULL);
	struct record_file now;
	bool same = file != NULL && read_head(file, &now, header->kind, NULL) == 0 &&
		    memcmp(now.nonce, header->nonce, sizeof(now.nonce)) == 0;

	io_close(file);
	return same;
}

/* What the head of a damaged record still tells: whose it was. */
static void
ask_head(struct record_cursor *c, struct inspect_found *found)
{
	uint8_t head[RECORD_HEAD_BYTES];
	struct err why;
	struct spooldir_message m;
	uint16_t type;
	size_t bytes;
	char *payload = NULL;
	uint64_t bad_to = 0;

	if (io_read(c->file, head, sizeof(head), found->at, &why) == (ssize_t)sizeof(head) &&
	    record_check_head(
		&c->header, found->at, slice_of(head, sizeof(head)), &type, &bytes, &why) == 0 &&
	    (payload = malloc(bytes + 1)) != NULL &&
	    record_read_around(c->file, payload, bytes, found->at + sizeof(head), &bad_to, &why) ==
		(ssize_t)bytes &&
	    spooldir_message_decode(type, slice_of(payload, bytes), &m, &why) == 0 &&
	    envelope_peek_id(m.envelope, &found->id, &why) == 0)
		found->has_id = true;
	free(payload);
}

static void
give_record(
    struct place *p, struct record_cursor *c, const struct record *rec, struct inspect_found *found)
{
	bool message = c->header.kind == RECORD_SEGMENT &&
		       (rec->type == SPOOLDIR_MESSAGE || rec->type == SPOOLDIR_COPY);

	found->type = rec->type;
	found->payload = rec->payload;
	if (message) {
		give_message(p, (uint32_t)c->header.number, rec, found);
		return;
	}
	found->what = c->header.kind != RECORD_SEGMENT && rec->type == ENTRY_CHANGES
			  ? INSPECT_CHANGES
			  : INSPECT_OTHER;
	give(p, found);
}

static int
read_records(struct place *p, const char *name, struct record_cursor *c, struct err *err)
{
	struct record rec;
	int event;

	while (!p->look->stop && (event = record_cursor_next(c, &rec, err)) != RECORD_END) {
		struct inspect_found found = { .file = name,
			.at = rec.at,
			.next = rec.next,
			.payload = SLICE(""),
			.envelope = SLICE(""),
			.body = SLICE("") };
		struct err why;

		if (event < 0)
			return -1;
		if (event == RECORD_WHOLE) {
			give_record(p, c, &rec, &found);
			continue;
		}
		if (!is_still(p, name, &c->header))
			return 0;
		err_set(&why, ERR_DAMAGED, "no whole record");
		if (c->header.kind == RECORD_SEGMENT)
			ask_head(c, &found);
		give_damage(p, &found, &why);
	}
	return 0;
}

/* Where a segment ended: as the one behind it says, or the page of its writer; UINT64_MAX: open. */
static uint64_t
end_of(struct place *p, const struct record_file *header)
{
	char name[SPOOLDIR_SEGMENT_NAME_BYTES];
	struct io_file *next;
	struct record_file behind;
	uint64_t end = UINT64_MAX;

	if (!p->is_log)
		return end;
	spooldir_segment_name((uint32_t)header->number + 1, name);
	next = io_open(p->dir, name, false, NULL);
	if (next != NULL && read_head(next, &behind, RECORD_SEGMENT, NULL) == 0 &&
	    behind.base >= header->base)
		end = behind.base - header->base;
	else if (p->live &&
		 header->number >= p->newest) /* others are finished, their next ones gone */
		end = p->newest == header->number && p->durable > header->base
			  ? p->durable - header->base
			  : SPOOLDIR_BLOCK;
	io_close(next);
	return end;
}

static int
read_file(struct place *p, const char *name, enum record_kind kind, struct err *err)
{
	static const uint64_t starts[] = { [RECORD_SEGMENT] = SPOOLDIR_BLOCK,
		[RECORD_JOURNAL] = JOURNAL_FROM,
		[RECORD_SNAPSHOT] = RECORD_FILE_BYTES };
	struct err why = { 0 };
	struct io_file *file = io_open(p->dir, name, false, &why);
	struct record_cursor c = { 0 };
	struct inspect_found found = { .file = name, .next = RECORD_FILE_BYTES };
	int rc = file == NULL
		     ? -1
		     : record_cursor_init(&c, file, kind, starts[kind], WINDOW_BYTES, &why);

	if (rc == 0) {
		p->look->files++;
		c.lenient = true; /* what lies behind a bad place of the disk is whole */
		c.end = kind == RECORD_SEGMENT ? end_of(p, &c.header) : UINT64_MAX;
		if (c.end != UINT64_MAX)
			c.scanner.durable = c.end;
		rc = read_records(p, name, &c, &why);
	}
	record_cursor_fini(&c);
	io_close(file);
	if (rc == 0 || why.code == ERR_NOT_FOUND) /* removed meanwhile */
		return 0;
	if (why.code == ERR_DAMAGED || why.code == ERR_SYS) { /* others may be whole */
		give_damage(p, &found, &why);
		return 0;
	}
	*err = why;
	return -1;
}

static bool
kind_of(const char *name, enum record_kind *kind)
{
	struct slice s = slice_str(name);

	if (slice_ends(s, SLICE(".seg")))
		*kind = RECORD_SEGMENT;
	else if (slice_ends(s, SLICE(".jnl")))
		*kind = RECORD_JOURNAL;
	else if (slice_ends(s, SLICE(".snap")))
		*kind = RECORD_SNAPSHOT;
	else
		return false;
	return true;
}

/* -- directories -- */

static void
give_orphan(struct place *p, const char *name)
{
	struct inspect_found found = { .what = INSPECT_ORPHAN, .file = name, .in_file = true };

	if (!spooldir_message_id(name, &found.id))
		return;
	for (size_t i = 0; i < p->n_with_file; i++)
		if (id_eq(p->with_file[i], found.id))
			return;
	found.has_id = true;
	found.body_file = io_open(p->dir, name, false, NULL);
	if (found.body_file != NULL && io_size(found.body_file, &found.size, NULL) == 0)
		give(p, &found);
	io_close(found.body_file);
}

static bool
is_wanted(const struct place *p, const char *file)
{
	const char *only = p->look->only;
	size_t len = strlen(p->name);

	return only == NULL || (strncmp(only, p->name, len) == 0 && only[len] == '/' &&
				   strcmp(only + len + 1, file) == 0);
}

/* The id of the log that a segment put aside came from. */
static void
note_origin(struct place *p, const char *name)
{
	if (!p->is_log && strlen(name) > ID_TEXT_LEN)
		(void)id_parse(slice_of(name, ID_TEXT_LEN), &p->log); /* else it is no segment */
}

static int
read_files(struct place *p, struct err *err)
{
	for (size_t i = 0; i < p->names.n && !p->look->stop; i++) {
		const char *name = p->names.v[i];
		enum record_kind kind;

		if (!kind_of(name, &kind) || !is_wanted(p, name))
			continue;
		note_origin(p, name);
		if (read_file(p, name, kind, err) < 0)
			return -1;
	}
	/* Beside a living writer a file is there before its record. */
	for (size_t i = 0; i < p->names.n && !p->live && p->look->only == NULL; i++)
		give_orphan(p, p->names.v[i]);
	return 0;
}

/* Whether the writer of a log lives, and how far it got. */
static void
ask_writer(struct place *p)
{
	struct io_file *lock = io_open(p->dir, SPOOLDIR_LOCK, false, NULL);
	struct io_file *file = io_open(p->dir, SPOOLDIR_PAGE, false, NULL);
	struct spooldir_page page;

	if (lock != NULL && io_locked(lock, &p->live, NULL) < 0)
		p->live = false;
	if (file != NULL && io_read(file, &page, sizeof(page), 0, NULL) == (ssize_t)sizeof(page)) {
		p->durable = page.durable;
		p->newest = page.segment;
	}
	io_close(file);
	io_close(lock);
}

static int
look_into(struct look *look, const char *name, struct err *err)
{
	struct place p = { .look = look, .name = name };
	struct err why = { 0 };
	int rc;

	p.dir = io_dir_open_at(look->dir.root, name, &why);
	if (p.dir == NULL && why.code == ERR_NOT_FOUND)
		return 0; /* a log that went meanwhile */
	if (p.dir == NULL) {
		*err = why;
		return -1;
	}
	p.is_log = id_parse(slice_str(name), &p.log);
	if (p.is_log) {
		ask_writer(&p);
		p.known = index_log_find(journal_index(look->journal), p.log);
	}
	rc = list(p.dir, &p.names, err);
	if (rc == 0)
		rc = read_files(&p, err);
	free(p.names.v);
	free(p.with_file);
	io_dir_close(p.dir);
	return rc;
}

static int
look_at_all(struct look *look, struct err *err)
{
	struct names names;
	int rc = list(look->dir.root, &names, err);

	for (size_t i = 0; rc == 0 && i < names.n && !look->stop; i++) {
		const char *name = names.v[i];
		struct id id;

		if (id_parse(slice_str(name), &id) || strcmp(name, "journal") == 0 ||
		    strcmp(name, "damaged") == 0)
			rc = look_into(look, name, err);
	}
	free(names.v);
	return rc;
}

int
inspect_spool(
    const char *path, const char *only, inspect_cb cb, void *data, uint64_t *files, struct err *err)
{
	struct look look = { .only = only, .cb = cb, .data = data };
	int rc = -1;

	if (spooldir_open_readonly(&look.dir, path, err) < 0)
		return -1;
	look.journal = journal_open(NULL, &look.dir, err);
	if (look.journal != NULL)
		rc = look_at_all(&look, err);
	journal_close(look.journal);
	spooldir_close(&look.dir);
	if (files != NULL)
		*files = look.files;
	if (rc == 0 && only != NULL && look.files == 0 && !look.stop)
		return err_set(err, ERR_NOT_FOUND, "%s/%s is not there", path, only);
	return rc;
}

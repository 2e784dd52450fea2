/* relayd/review/body.c - the bytes of a held message in the database: chunks, each compressed
 * alone. */
#include "relayd/review/body.h"

#include "relayd/review/store.h"

#include <stdlib.h>

#define CHUNKS_SHIFT 20 /* a body has at most 2^20 chunks: 256 GiB */
#define STAGED_BATCH 256

static int64_t
chunk_id(int64_t body, uint64_t number)
{
	return (int64_t)((uint64_t)body << CHUNKS_SHIFT | number);
}

static int
chunk_add(struct db *db, int64_t id, struct slice bytes, struct err *err)
{
	size_t cap = ZSTD_compressBound(bytes.len), n;
	char *packed = malloc(cap);
	int rc = -1;

	if (packed == NULL)
		return err_set(err, ERR_NOMEM, "quarantine store: out of memory");
	n = ZSTD_compress2(db->compress, packed, cap, bytes.p, bytes.len);
	if (ZSTD_isError(n))
		(void)err_set(err, ERR_NOMEM, "zstd: %s", ZSTD_getErrorName(n));
	else
		rc = db_run(db, err, DB_CHUNK_ADD, "ib", id, slice_of(packed, n));
	free(packed);
	return rc;
}

int
body_append(struct db *db, int64_t *body, struct slice bytes, bool staged, struct err *err)
{
	uint64_t size = 0, number;

	if (*body == 0) {
		if (db_run(db, err, DB_BODY_NEW, "i", (int64_t)staged) < 0)
			return -1;
		*body = db_last_id(db);
	} else if (body_size(db, *body, &size, err) < 0) {
		return -1;
	}
	number = size / STORE_CHUNK_BYTES;
	if (size % STORE_CHUNK_BYTES != 0 ||
	    number + bytes.len / STORE_CHUNK_BYTES >= 1u << CHUNKS_SHIFT)
		return err_set(err, ERR_LIMIT, "quarantine store: a body ends where it ends");
	size += bytes.len;
	for (; bytes.len > 0; bytes = slice_drop(bytes, STORE_CHUNK_BYTES), number++)
		if (chunk_add(
			db, chunk_id(*body, number), slice_head(bytes, STORE_CHUNK_BYTES), err) < 0)
			return -1;
	return db_run(db, err, DB_BODY_GROW, "ii", *body, (int64_t)size);
}

int
body_size(struct db *db, int64_t body, uint64_t *size, struct err *err)
{
	int64_t n;

	if (db_int(db, err, &n, DB_BODY_SIZE, "i", body) < 0)
		return -1;
	*size = (uint64_t)n;
	return 0;
}

static int
damaged(struct err *err, int64_t body, uint64_t number)
{
	return err_set(err, ERR_DAMAGED, "quarantine store: chunk %llu of body %lld is damaged",
	    (unsigned long long)number, (long long)body);
}

/* Expands a chunk that must hold want bytes into plain. */
static int
chunk_get(struct db *db, int64_t body, uint64_t number, char *plain, size_t want, struct err *err)
{
	sqlite3_stmt *stmt = db_query(db, err, DB_CHUNK_GET, "i", chunk_id(body, number));
	int rc = db_next(db, stmt, err);
	struct slice packed;
	size_t n;

	if (rc < 0)
		return -1;
	if (rc == 0)
		return damaged(err, body, number);
	packed = db_bytes(stmt, 0);
	n = ZSTD_decompressDCtx(db->expand, plain, want, packed.p, packed.len);
	db_reset(stmt);
	if (ZSTD_isError(n) || n != want)
		return damaged(err, body, number);
	return 0;
}

/* Appends what [from, end) has in common with the chunk at its front; *from becomes its end. */
static int
read_chunk(struct db *db, int64_t body, uint64_t size, uint64_t *from, uint64_t end,
    struct buf *out, struct err *err)
{
	uint64_t number = *from / STORE_CHUNK_BYTES, begin = number * STORE_CHUNK_BYTES;
	size_t want = size - begin < STORE_CHUNK_BYTES ? (size_t)(size - begin) : STORE_CHUNK_BYTES;
	size_t skip = (size_t)(*from - begin), take;
	char *room, *plain;
	int rc;

	take = end - *from < want - skip ? (size_t)(end - *from) : want - skip;
	room = buf_room(out, take);
	if (room == NULL)
		return err_set(err, ERR_LIMIT, "message over %zu bytes", out->max);
	plain = take == want ? room : malloc(want);
	if (plain == NULL)
		return err_set(err, ERR_NOMEM, "quarantine store: out of memory");
	rc = chunk_get(db, body, number, plain, want, err);
	if (plain != room) {
		if (rc == 0)
			memcpy(room, plain + skip, take);
		free(plain);
	}
	if (rc == 0)
		buf_commit(out, take);
	*from += take;
	return rc;
}

int
body_read(
    struct db *db, int64_t body, uint64_t from, uint64_t max, struct buf *out, struct err *err)
{
	uint64_t size, end;

	if (body_size(db, body, &size, err) < 0)
		return -1;
	end = from < size && max < size - from ? from + max : size;
	while (from < end)
		if (read_chunk(db, body, size, &from, end, out, err) < 0)
			return -1;
	return 0;
}

int
body_keep(struct db *db, int64_t body, struct err *err)
{
	return db_run(db, err, DB_BODY_KEEP, "i", body);
}

int
body_drop(struct db *db, int64_t body, struct err *err)
{
	if (db_run(db, err, DB_CHUNK_DROP, "ii", chunk_id(body, 0), chunk_id(body + 1, 0) - 1) < 0)
		return -1;
	return db_run(db, err, DB_BODY_DROP, "i", body);
}

/* Up to STAGED_BATCH of them; 1 when there may be more. */
static int
drop_some_staged(struct db *db, struct err *err)
{
	sqlite3_stmt *stmt = db_query(db, err, DB_BODY_STAGED, "");
	int64_t bodies[STAGED_BATCH];
	size_t n = 0;
	int rc;

	while ((rc = db_next(db, stmt, err)) > 0) {
		bodies[n++] = sqlite3_column_int64(stmt, 0);
		if (n == STAGED_BATCH)
			break;
	}
	if (rc < 0)
		return -1;
	db_reset(stmt);
	for (size_t i = 0; i < n; i++)
		if (body_drop(db, bodies[i], err) < 0)
			return -1;
	return n == STAGED_BATCH;
}

int
body_drop_staged(struct db *db, struct err *err)
{
	int rc = 0;

	do {
		if (db_run(db, err, DB_BEGIN, "") < 0)
			return -1;
		rc = drop_some_staged(db, err);
		if (rc >= 0 && db_run(db, err, DB_COMMIT, "") < 0)
			rc = -1;
	} while (rc > 0);
	if (rc < 0 && db_in_transaction(db))
		(void)db_run(db, NULL, DB_ROLLBACK, ""); /* the first error is the one to tell */
	return rc;
}

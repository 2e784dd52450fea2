/* relayd/review/db.c - one SQLite connection of the quarantine store, its schema and statements. */
#include "relayd/review/db.h"

#include <stdarg.h>
#include <stdio.h>

#define DB_CACHE_KIB   8192 /* pages that a connection keeps */
#define DB_CHECKPOINT  2000 /* pages of the write-ahead log before it is carried over */
#define DB_BUSY_MS     10000
#define DB_COMPRESSION 1 /* zstd's level: mail gains little from more */

#define DB_TEXT(symbol, text) text,
static const char *const texts[DB_SQL_COUNT] = { DB_STATEMENTS(DB_TEXT) };
#undef DB_TEXT

/* Bodies are apart from items so that a large one can be written ahead of its commit; a chunk's id
 * is its body's, shifted, plus its number.  AUTOINCREMENT where an id must never come back. */
static const char schema[] =
    "CREATE TABLE body(id INTEGER PRIMARY KEY AUTOINCREMENT, size INTEGER NOT NULL,"
    " staged INTEGER NOT NULL);"
    "CREATE INDEX body_staged ON body(id) WHERE staged = 1;"
    "CREATE TABLE chunk(id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);"
    "CREATE TABLE item(id INTEGER PRIMARY KEY AUTOINCREMENT, msg BLOB NOT NULL,"
    " stored_ms INTEGER NOT NULL, changed_ms INTEGER NOT NULL, reverse_path TEXT NOT NULL,"
    " params TEXT NOT NULL, top BLOB NOT NULL, top_bytes INTEGER NOT NULL,"
    " body INTEGER NOT NULL UNIQUE, size INTEGER NOT NULL);"
    "CREATE INDEX item_msg ON item(msg);"
    "CREATE INDEX item_changed ON item(changed_ms);"
    "CREATE TABLE rcpt(id INTEGER PRIMARY KEY AUTOINCREMENT, item INTEGER NOT NULL,"
    " msg BLOB NOT NULL, path TEXT NOT NULL, params TEXT NOT NULL, address TEXT NOT NULL,"
    " domain TEXT NOT NULL, state INTEGER NOT NULL, actor TEXT, asked_ms INTEGER,"
    " done_ms INTEGER, reply TEXT, UNIQUE(msg, path));"
    "CREATE INDEX rcpt_item ON rcpt(item);"
    "CREATE INDEX rcpt_domain ON rcpt(domain, item);"
    "CREATE INDEX rcpt_address ON rcpt(address, item);"
    "CREATE INDEX rcpt_held ON rcpt(item) WHERE state = 0;"
    "CREATE INDEX rcpt_releasing ON rcpt(id) WHERE state = 1;"
    "CREATE TABLE scope(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE);"
    "CREATE TABLE box(scope INTEGER NOT NULL, box INTEGER NOT NULL,"
    " uidvalidity INTEGER NOT NULL, uidnext INTEGER NOT NULL, PRIMARY KEY(scope, box))"
    " WITHOUT ROWID;"
    "CREATE TABLE entry(scope INTEGER NOT NULL, box INTEGER NOT NULL, uid INTEGER NOT NULL,"
    " item INTEGER NOT NULL, stored_ms INTEGER NOT NULL, top INTEGER NOT NULL,"
    " size INTEGER NOT NULL, flags INTEGER NOT NULL, PRIMARY KEY(scope, box, uid))"
    " WITHOUT ROWID;"
    "CREATE UNIQUE INDEX entry_item ON entry(item, scope);"
    "CREATE TABLE keyword(scope INTEGER NOT NULL, n INTEGER NOT NULL, name TEXT NOT NULL,"
    " PRIMARY KEY(scope, n)) WITHOUT ROWID;"
    "CREATE TABLE description(item INTEGER PRIMARY KEY, version INTEGER NOT NULL,"
    " bytes BLOB NOT NULL);";

int
db_fail(struct db *db, struct err *err, const char *what)
{
	int code = db->sql != NULL ? sqlite3_errcode(db->sql) : SQLITE_NOMEM;
	const char *text = db->sql != NULL ? sqlite3_errmsg(db->sql) : "out of memory";
	int sys = db->sql != NULL ? sqlite3_system_errno(db->sql) : 0;
	enum err_code mine = ERR_SYS;

	if (code == SQLITE_FULL)
		mine = ERR_FULL;
	else if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB)
		mine = ERR_DAMAGED;
	else if (code == SQLITE_BUSY || code == SQLITE_LOCKED)
		mine = ERR_BUSY;
	else if (code == SQLITE_NOMEM)
		mine = ERR_NOMEM;
	(void)err_set(err, mine, "quarantine store: %s: %s", what, text);
	if (err != NULL && mine == ERR_SYS)
		err->sys = sys;
	return -1;
}

static int
exec(struct db *db, const char *sql, struct err *err)
{
	if (sqlite3_exec(db->sql, sql, NULL, NULL, NULL) != SQLITE_OK)
		return db_fail(db, err, "set up");
	return 0;
}

static int
pragma_int(struct db *db, const char *sql, int64_t *out, struct err *err)
{
	sqlite3_stmt *stmt = NULL;

	if (sqlite3_prepare_v2(db->sql, sql, -1, &stmt, NULL) != SQLITE_OK ||
	    sqlite3_step(stmt) != SQLITE_ROW) {
		(void)db_fail(db, err, "open");
		(void)sqlite3_finalize(stmt); /* repeats the error that was just reported */
		return -1;
	}
	*out = sqlite3_column_int64(stmt, 0);
	(void)sqlite3_finalize(stmt); /* a finished read */
	return 0;
}

static int
create(struct db *db, struct err *err)
{
	char magic[128];

	(void)snprintf(magic, sizeof(magic),
	    "PRAGMA application_id = %d; PRAGMA user_version = %d;", DB_MAGIC, DB_VERSION);
	if (exec(db, "BEGIN IMMEDIATE;", err) < 0 || exec(db, schema, err) < 0 ||
	    exec(db, magic, err) < 0 || exec(db, "COMMIT;", err) < 0)
		return -1;
	return 0;
}

/* Makes the tables of a new file, and knows a file that is not ours or not ours yet. */
static int
check_version(struct db *db, const char *path, struct err *err)
{
	int64_t magic, version, tables;

	if (pragma_int(db, "PRAGMA application_id", &magic, err) < 0 ||
	    pragma_int(db, "PRAGMA user_version", &version, err) < 0 ||
	    pragma_int(db, "SELECT count(*) FROM sqlite_schema", &tables, err) < 0)
		return -1;
	if (magic == 0 && version == 0 && tables == 0)
		return create(db, err);
	if (magic != DB_MAGIC)
		return err_set(err, ERR_DAMAGED, "%s is no quarantine store of relayd", path);
	if (version > DB_VERSION)
		return err_set(err, ERR_VERSION,
		    "%s was written by a newer relayd (version %lld, this one knows %d)", path,
		    (long long)version, DB_VERSION);
	if (version != DB_VERSION)
		return err_set(err, ERR_DAMAGED, "%s has the version %lld, which never was", path,
		    (long long)version);
	return 0;
}

/* Preparing all of them shows a schema that is not what it should be, before any mail is taken. */
static int
prepare_all(struct db *db, struct err *err)
{
	for (int i = 0; i < DB_SQL_COUNT; i++)
		if (sqlite3_prepare_v3(db->sql, texts[i], -1, SQLITE_PREPARE_PERSISTENT,
			&db->stmts[i], NULL) != SQLITE_OK)
			return db_fail(db, err, texts[i]);
	return 0;
}

static int
set_up(struct db *db, const char *path, bool writer, struct err *err)
{
	char pragmas[512];

	if (sqlite3_busy_timeout(db->sql, DB_BUSY_MS) != SQLITE_OK)
		return db_fail(db, err, "open");
	(void)snprintf(pragmas, sizeof(pragmas),
	    "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY;"
	    "PRAGMA cache_size = -%d; PRAGMA synchronous = FULL;",
	    DB_CACHE_KIB);
	if (exec(db, pragmas, err) < 0)
		return -1;
	if (!writer)
		return exec(db, "PRAGMA query_only = ON;", err);
	(void)snprintf(pragmas, sizeof(pragmas),
	    "PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;"
	    "PRAGMA wal_autocheckpoint = %d; PRAGMA journal_size_limit = 67108864;",
	    DB_CHECKPOINT);
	if (exec(db, pragmas, err) < 0)
		return -1;
	return check_version(db, path, err);
}

int
db_open(struct db *db, const char *path, bool writer, struct err *err)
{
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (writer ? SQLITE_OPEN_CREATE : 0);

	*db = (struct db){ .expand = ZSTD_createDCtx(),
		.compress = writer ? ZSTD_createCCtx() : NULL };
	if (db->expand == NULL || (writer && db->compress == NULL)) {
		(void)err_set(err, ERR_NOMEM, "quarantine store: out of memory");
		goto fail;
	}
	if (writer) {
		/* Both exist in this version of zstd, and 1 is a valid value of each. */
		(void)ZSTD_CCtx_setParameter(db->compress, ZSTD_c_compressionLevel, DB_COMPRESSION);
		(void)ZSTD_CCtx_setParameter(db->compress, ZSTD_c_checksumFlag, 1);
	}
	if (sqlite3_open_v2(path, &db->sql, flags, NULL) != SQLITE_OK) {
		(void)db_fail(db, err, path);
		goto fail;
	}
	if (set_up(db, path, writer, err) < 0 || prepare_all(db, err) < 0)
		goto fail;
	return 0;
fail:
	db_close(db);
	return -1;
}

void
db_close(struct db *db)
{
	for (int i = 0; i < DB_SQL_COUNT; i++)
		(void)sqlite3_finalize(db->stmts[i]); /* repeats errors of its last step */
	(void)sqlite3_close(db->sql);      /* nothing of it is left open that could refuse */
	(void)ZSTD_freeCCtx(db->compress); /* of a context without a dictionary: always 0 */
	(void)ZSTD_freeDCtx(db->expand);
	*db = (struct db){ 0 };
}

static int
bind(sqlite3_stmt *stmt, const char *types, va_list args)
{
	for (int i = 0; types[i] != '\0'; i++) {
		struct slice s;
		int rc = SQLITE_OK;

		switch (types[i]) {
		case 'i':
			rc = sqlite3_bind_int64(stmt, i + 1, va_arg(args, int64_t));
			break;
		case 's':
			s = va_arg(args, struct slice);
			rc = sqlite3_bind_text64(
			    stmt, i + 1, s.p, s.len, SQLITE_TRANSIENT, SQLITE_UTF8);
			break;
		case 'b':
			s = va_arg(args, struct slice);
			rc = sqlite3_bind_blob64(stmt, i + 1, s.p, s.len, SQLITE_STATIC);
			break;
		default:
			rc = sqlite3_bind_null(stmt, i + 1);
			break;
		}
		if (rc != SQLITE_OK)
			return -1;
	}
	return 0;
}

static sqlite3_stmt *
query(struct db *db, struct err *err, enum db_sql sql, const char *types, va_list args)
{
	sqlite3_stmt *stmt = db->stmts[sql];

	if (bind(stmt, types, args) < 0) {
		(void)db_fail(db, err, texts[sql]);
		return NULL;
	}
	return stmt;
}

sqlite3_stmt *
db_query(struct db *db, struct err *err, enum db_sql sql, const char *types, ...)
{
	sqlite3_stmt *stmt;
	va_list args;

	va_start(args, types);
	stmt = query(db, err, sql, types, args);
	va_end(args);
	return stmt;
}

void
db_reset(sqlite3_stmt *stmt)
{
	if (stmt == NULL)
		return;
	(void)sqlite3_reset(stmt); /* repeats the error of the last step, which was reported */
	(void)sqlite3_clear_bindings(stmt); /* cannot fail: lets go of borrowed blobs */
}

int
db_next(struct db *db, sqlite3_stmt *stmt, struct err *err)
{
	int rc = stmt != NULL ? sqlite3_step(stmt) : SQLITE_ERROR;

	if (rc == SQLITE_ROW)
		return 1;
	if (rc != SQLITE_DONE && stmt != NULL)
		(void)db_fail(db, err, sqlite3_sql(stmt));
	db_reset(stmt);
	return rc == SQLITE_DONE ? 0 : -1;
}

int
db_run(struct db *db, struct err *err, enum db_sql sql, const char *types, ...)
{
	sqlite3_stmt *stmt;
	va_list args;
	int rc;

	va_start(args, types);
	stmt = query(db, err, sql, types, args);
	va_end(args);
	rc = db_next(db, stmt, err);
	if (rc > 0)
		db_reset(stmt);
	return rc < 0 ? -1 : 0;
}

int
db_int(struct db *db, struct err *err, int64_t *out, enum db_sql sql, const char *types, ...)
{
	sqlite3_stmt *stmt;
	va_list args;
	int rc;

	va_start(args, types);
	stmt = query(db, err, sql, types, args);
	va_end(args);
	rc = db_next(db, stmt, err);
	if (rc == 0)
		return err_set(err, ERR_NOT_FOUND, "quarantine store: not there");
	if (rc < 0)
		return -1;
	*out = sqlite3_column_int64(stmt, 0);
	db_reset(stmt);
	return 0;
}

struct slice
db_bytes(sqlite3_stmt *stmt, int column)
{
	const void *p = sqlite3_column_blob(stmt, column);
	int len = sqlite3_column_bytes(stmt, column);

	return slice_of(p, len > 0 ? (size_t)len : 0);
}

int64_t
db_last_id(struct db *db)
{
	return sqlite3_last_insert_rowid(db->sql);
}

bool
db_in_transaction(struct db *db)
{
	return sqlite3_get_autocommit(db->sql) == 0;
}

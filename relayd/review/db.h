/* relayd/review/db.h - one SQLite connection of the quarantine store, its schema and statements.
 *
 * A connection belongs to one thread at a time.  Everything here blocks.  Errors of SQLite become
 * ERR_FULL, ERR_DAMAGED, ERR_BUSY, ERR_NOMEM or ERR_SYS with the sentence that SQLite gives.
 */
#ifndef RELAYD_REVIEW_DB_H
#define RELAYD_REVIEW_DB_H

#include "relayd/core/err.h"
#include "relayd/core/slice.h"

#include <sqlite3.h>
#include <zstd.h>

#define DB_FILE    "quarantine.db"
#define DB_VERSION 1          /* of the schema, in user_version */
#define DB_MAGIC   0x726c7971 /* "rlyq", in application_id */

/* X(symbol, text): every statement there is; prepared once for each connection, when first used. */
#define DB_STATEMENTS(X)                                                                           \
	X(BEGIN, "BEGIN IMMEDIATE")                                                                \
	X(BEGIN_READ, "BEGIN")                                                                     \
	X(COMMIT, "COMMIT")                                                                        \
	X(ROLLBACK, "ROLLBACK")                                                                    \
	X(SAVE, "SAVEPOINT request")                                                               \
	X(SAVE_KEEP, "RELEASE request")                                                            \
	X(SAVE_UNDO, "ROLLBACK TO request")                                                        \
	/* bodies */                                                                               \
	X(BODY_NEW, "INSERT INTO body(size, staged) VALUES (0, ?)")                                \
	X(BODY_SIZE, "SELECT size FROM body WHERE id = ?")                                         \
	X(BODY_GROW, "UPDATE body SET size = ?2 WHERE id = ?1")                                    \
	X(BODY_DROP, "DELETE FROM body WHERE id = ?")                                              \
	X(BODY_STAGED, "SELECT id FROM body WHERE staged = 1")                                     \
	X(BODY_KEEP, "UPDATE body SET staged = 0 WHERE id = ?")                                    \
	X(CHUNK_ADD, "INSERT INTO chunk(id, bytes) VALUES (?, ?)")                                 \
	X(CHUNK_GET, "SELECT bytes FROM chunk WHERE id = ?")                                       \
	X(CHUNK_DROP, "DELETE FROM chunk WHERE id BETWEEN ? AND ?")                                \
	/* items */                                                                                \
	X(ITEM_ADD, "INSERT INTO item(msg, stored_ms, changed_ms, reverse_path, params, top,"      \
		    " top_bytes, body, size) VALUES (?1, ?2, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")         \
	X(ITEM_GET, "SELECT top, top_bytes, body, size, stored_ms, msg FROM item WHERE id = ?")    \
	X(ITEM_INFO, "SELECT id, msg, stored_ms, reverse_path, top, top_bytes, body, size"         \
		     " FROM item WHERE id = ?")                                                    \
	X(ITEM_OF_MSG, "SELECT id FROM item WHERE msg = ? ORDER BY id")                            \
	X(ITEM_BEFORE, "SELECT id FROM item WHERE id < ? ORDER BY id DESC LIMIT ?")                \
	X(ITEM_TOUCH, "UPDATE item SET changed_ms = ?2 WHERE id = ?1")                             \
	X(ITEM_OLD, "SELECT id, body FROM item WHERE changed_ms < ?1 AND NOT EXISTS"               \
		    " (SELECT 1 FROM rcpt WHERE rcpt.item = item.id AND state = 1)"                \
		    " ORDER BY changed_ms LIMIT ?2")                                               \
	X(ITEM_DROP, "DELETE FROM item WHERE id = ?")                                              \
	X(ITEM_OF_DOMAIN, "SELECT DISTINCT item FROM rcpt WHERE domain = ? ORDER BY item")         \
	X(ITEM_OF_ADDRESS, "SELECT DISTINCT item FROM rcpt WHERE address = ? ORDER BY item")       \
	X(ITEM_ALL, "SELECT id FROM item ORDER BY id")                                             \
	X(HELD_COUNT, "SELECT count(DISTINCT item) FROM rcpt WHERE state = 0")                     \
	/* recipients */                                                                           \
	X(RCPT_HAS, "SELECT 1 FROM rcpt WHERE msg = ? AND path = ?")                               \
	X(RCPT_ADD, "INSERT INTO rcpt(item, msg, path, params, address, domain, state, asked_ms)"  \
		    " VALUES (?, ?, ?, ?, ?, ?, 0, ?)")                                            \
	X(RCPT_OF_ITEM, "SELECT id, path, state, actor, asked_ms, done_ms, reply FROM rcpt"        \
			" WHERE item = ? ORDER BY id")                                             \
	X(RCPT_SET, "UPDATE rcpt SET state = ?2, actor = ?3, asked_ms = ?4, done_ms = ?5,"         \
		    " reply = NULL WHERE id = ?1")                                                 \
	X(RCPT_DONE, "UPDATE rcpt SET state = ?2, done_ms = ?3, reply = ?4"                        \
		     " WHERE id = ?1 AND state = 1")                                               \
	X(RCPT_SAID, "UPDATE rcpt SET reply = ?2 WHERE id = ?1 AND state = 1")                     \
	X(RCPT_ITEM, "SELECT item FROM rcpt WHERE id = ? AND state = 1")                           \
	X(RCPT_DROP, "DELETE FROM rcpt WHERE item = ?")                                            \
	X(RCPT_RELEASING, "SELECT rcpt.id, item.id, item.msg, reverse_path, item.params, path,"    \
			  " rcpt.params, actor, size FROM rcpt JOIN item ON item.id = rcpt.item"   \
			  " WHERE state = 1 AND rcpt.id > ? ORDER BY rcpt.id LIMIT ?")             \
	/* scopes and their mailboxes */                                                           \
	X(SCOPE_ADD, "INSERT INTO scope(name) VALUES (?)")                                         \
	X(SCOPE_ID, "SELECT id FROM scope WHERE name = ?")                                         \
	X(BOX_ADD, "INSERT INTO box(scope, box, uidvalidity, uidnext) VALUES (?, ?, ?, 1)")        \
	X(BOX_GET, "SELECT uidvalidity, uidnext FROM box WHERE scope = ? AND box = ?")             \
	X(BOX_TAKE_UID, "UPDATE box SET uidnext = uidnext + 1 WHERE scope = ? AND box = ?"         \
			" RETURNING uidnext - 1")                                                  \
	X(ENTRY_ADD, "INSERT INTO entry(scope, box, uid, item, stored_ms, top, size, flags)"       \
		     " VALUES (?, ?, ?, ?, ?, ?, ?, ?)")                                           \
	X(ENTRY_GET, "SELECT uid, item, stored_ms, top, size, flags FROM entry"                    \
		     " WHERE scope = ? AND box = ? AND uid = ?")                                   \
	X(ENTRY_OF_BOX, "SELECT uid, item, stored_ms, top, size, flags FROM entry"                 \
			" WHERE scope = ? AND box = ? ORDER BY uid")                               \
	X(ENTRY_OF_ITEM, "SELECT uid, item, stored_ms, top, size, flags, scope, box, name"         \
			 " FROM entry JOIN scope ON scope.id = scope WHERE item = ?")              \
	X(ENTRY_TOP, "SELECT top FROM entry WHERE item = ? AND scope = ?")                         \
	X(ENTRY_FLAGS, "UPDATE entry SET flags = ?4 WHERE scope = ?1 AND box = ?2 AND uid = ?3")   \
	X(ENTRY_DROP, "DELETE FROM entry WHERE scope = ? AND box = ? AND uid = ?")                 \
	X(KEYWORD_ALL, "SELECT n, name FROM keyword WHERE scope = ? ORDER BY n")                   \
	X(KEYWORD_ADD, "INSERT INTO keyword(scope, n, name) VALUES (?, ?, ?)")                     \
	X(DESCRIPTION_GET, "SELECT bytes FROM description WHERE item = ? AND version = ?")         \
	X(DESCRIPTION_SET, "INSERT OR REPLACE INTO description(item, version, bytes)"              \
			   " SELECT id, ?2, ?3 FROM item WHERE id = ?1")                           \
	X(DESCRIPTION_DROP, "DELETE FROM description WHERE item = ?")

#define DB_ENUM(symbol, text) DB_##symbol,
enum db_sql { DB_STATEMENTS(DB_ENUM) DB_SQL_COUNT };
#undef DB_ENUM

struct db {
	sqlite3 *sql;
	sqlite3_stmt *stmts[DB_SQL_COUNT];
	ZSTD_CCtx *compress; /* the writer's */
	ZSTD_DCtx *expand;
};

/* Opens path.  The writer makes what is missing and is opened before any reader. */
int db_open(struct db *db, const char *path, bool writer, struct err *err);
void db_close(struct db *db);

/* Binds by letters: i int64_t, s struct slice as text, b struct slice as a blob, n NULL.  The
 * result is stepped with db_next() until that returns 0 or -1, or is given back with db_reset().
 * One statement is in use once at a time. */
sqlite3_stmt *db_query(struct db *db, struct err *err, enum db_sql sql, const char *types, ...);
/* 1 a row, 0 the end, -1 an error; the statement is reset after the last two, and NULL is -1. */
int db_next(struct db *db, sqlite3_stmt *stmt, struct err *err);
void db_reset(sqlite3_stmt *stmt);
/* Runs a statement that gives no rows. */
int db_run(struct db *db, struct err *err, enum db_sql sql, const char *types, ...);
/* The first column of the first row into *out.  ERR_NOT_FOUND without one. */
int db_int(struct db *db, struct err *err, int64_t *out, enum db_sql sql, const char *types, ...);
/* A column as bytes, valid until the next step. */
struct slice db_bytes(sqlite3_stmt *stmt, int column);
int64_t db_last_id(struct db *db);
/* True while a transaction is open; an I/O error or a full disk can end one by itself. */
bool db_in_transaction(struct db *db);
int db_fail(struct db *db, struct err *err, const char *what);

#endif

/* relayd/mail/charset.h - text in any charset to UTF-8, by iconv.
 *
 * Any bytes and any charset name give valid UTF-8.  Safe in several threads at once.
 */
#ifndef RELAYD_MAIL_CHARSET_H
#define RELAYD_MAIL_CHARSET_H

#include "relayd/core/buf.h"

#define CHARSET_NAME_MAX 63

/* Loads the conversion tables of all usual charsets and keeps them: once, before the process locks
 * itself in, because iconv reads them from disk.  Without it, charsets still work where files may
 * be read. */
void charset_open(void);
void charset_close(void);

enum charset_result {
	CHARSET_EXACT,
	CHARSET_REPLACED, /* what was invalid became U+FFFD */
	CHARSET_UNKNOWN,  /* no such charset: taken as UTF-8 if valid, else as windows-1252 */
};

/* Appends in as UTF-8; an empty name means US-ASCII, and octets above it are guessed as for an
 * unknown one. Stops between two characters when out is full (overflow is then set). */
enum charset_result charset_to_utf8(struct slice charset, struct slice in, struct buf *out);
/* The charset is one that charset_to_utf8() can convert. */
bool charset_known(struct slice charset);

/* Length of the valid UTF-8 character at the front of s (RFC 3629), or 0. */
size_t utf8_char(struct slice s);
bool utf8_valid(struct slice s);
/* Appends a code point; U+FFFD for what is none. */
void utf8_put(uint32_t code, struct buf *out);
/* Appends s with what differs only by case made one (ASCII, Latin, Greek, Cyrillic): to search
 * without case. Invalid octets stay as they are. */
void utf8_fold(struct slice s, struct buf *out);

#endif

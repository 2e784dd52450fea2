/* relayd/mail/date.h - dates of header fields (RFC 5322 section 3.3) and of IMAP (RFC 3501 section
 * 9). */
#ifndef RELAYD_MAIL_DATE_H
#define RELAYD_MAIL_DATE_H

#include "relayd/core/slice.h"

struct date {
	int64_t unix_s; /* seconds since 1970-01-01 UTC */
	int zone_min;   /* the zone it was written in, minutes east of UTC, within a day */
};

/* A date-time with all of the obsolete syntax: comments, named zones, years of two or three digits,
 * no day of week, no seconds.  False when it is none, or is no day of the calendar; years 1900 to
 * 9999. */
bool date_parse(struct slice body, struct date *out);

#define DATE_BYTES 40
/* "Mon, 2 Mar 2026 10:15:42 +0000" and a NUL. */
void date_format(struct date date, char out[static DATE_BYTES]);
/* " 2-Mar-2026 10:15:42 +0000": IMAP date-time without its quotes. */
void date_format_imap(struct date date, char out[static DATE_BYTES]);

/* "1-Feb-1994", as in SEARCH: *day is days since 1970-01-01. */
bool date_parse_imap_day(struct slice text, int64_t *day);
/* The day that a date shows in its own zone, whatever UTC says (RFC 3501 section 6.4.4 disregards
 * time and zone). */
int64_t date_day(struct date date);

#endif

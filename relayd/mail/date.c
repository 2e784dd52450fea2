/* relayd/mail/date.c - dates of header fields (RFC 5322 section 3.3) and of IMAP (RFC 3501 section
 * 9). */
#include "relayd/mail/date.h"

#include "relayd/core/buf.h"
#include "relayd/mail/header.h"

#define DAY_S    86400
#define WORD_MAX 32

static const char months[12][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep",
	"Oct", "Nov", "Dec" };
static const char days[7][4] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };

/* RFC 5322 section 4.3; any other name means -0000. */
static const struct {
	char name[4];
	int hours;
} zones[] = {
	{ "UT", 0 },
	{ "GMT", 0 },
	{ "UTC", 0 },
	{ "EST", -5 },
	{ "EDT", -4 },
	{ "CST", -6 },
	{ "CDT", -5 },
	{ "MST", -7 },
	{ "MDT", -6 },
	{ "PST", -8 },
	{ "PDT", -7 },
};

/* Days since 1970-01-01 of a day of the Gregorian calendar; month 1 to 12. */
static int64_t
day_number(int64_t year, int month, int day)
{
	int64_t y = month > 2 ? year : year - 1;
	int64_t era = y / 400, of_era = y - era * 400;
	int64_t of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static int
month_length(int64_t year, int month)
{
	static const int lengths[12] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return lengths[month - 1] + (month == 2 && leap ? 1 : 0);
}

/* The other way round: year, month and day of a day number not before the year 0. */
static void
day_split(int64_t number, int64_t *year, int *month, int *day)
{
	int64_t z = number + 719468, era = z / 146097, doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;

	*day = (int)(doy - (153 * mp + 2) / 5 + 1);
	*month = (int)(mp < 10 ? mp + 3 : mp - 9);
	*year = yoe + era * 400 + (*month <= 2 ? 1 : 0);
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool
is_letter(char c)
{
	c = slice_lower(c);
	return c >= 'a' && c <= 'z';
}

static struct slice
take_word(struct slice *s)
{
	struct slice word;
	size_t n = 0;

	while (n < s->len && n < WORD_MAX && is_letter(s->p[n]))
		n++;
	word = slice_head(*s, n);
	*s = slice_drop(*s, n);
	header_skip_cfws(s);
	return word;
}

/* A number of at most max_digits; digits counts them. */
static bool
take_number(struct slice *s, unsigned max_digits, int *out, unsigned *digits)
{
	*out = 0;
	for (*digits = 0; *digits < s->len && is_digit(s->p[*digits]); ++*digits) {
		if (*digits == max_digits)
			return false;
		*out = *out * 10 + (s->p[*digits] - '0');
	}
	*s = slice_drop(*s, *digits);
	header_skip_cfws(s);
	return *digits > 0;
}

static bool
take_char(struct slice *s, char c)
{
	if (s->len == 0 || s->p[0] != c)
		return false;
	*s = slice_drop(*s, 1);
	header_skip_cfws(s);
	return true;
}

/* 1 to 12, or 0: the first three letters count, so that "June" is one too. */
static int
month_of(struct slice word)
{
	for (int i = 0; i < 12; i++)
		if (slice_ieq(slice_head(word, 3), slice_of(months[i], 3)))
			return i + 1;
	return 0;
}

/* RFC 5322 section 4.3: two digits below 50 are 20xx; otherwise two or three digits count from
 * 1900. */
static int
full_year(int year, unsigned digits)
{
	if (digits == 2 && year < 50)
		return year + 2000;
	return digits <= 3 ? year + 1900 : year;
}

/* Day, month and year; RFC 850's "-" between them is taken too. */
static bool
take_day(struct slice *s, int64_t *number)
{
	int day, month, year;
	unsigned digits;

	if (!take_number(s, 2, &day, &digits))
		return false;
	(void)take_char(s, '-'); /* there or not */
	month = month_of(take_word(s));
	(void)take_char(s, '-'); /* there or not */
	if (month == 0 || !take_number(s, 4, &year, &digits) || digits < 2)
		return false;
	year = full_year(year, digits);
	if (year < 1900 || day < 1 || day > month_length(year, month))
		return false;
	*number = day_number(year, month, day);
	return true;
}

static bool
take_time(struct slice *s, int *seconds)
{
	int hour, minute, second = 0;
	unsigned digits;

	if (!take_number(s, 2, &hour, &digits) || !take_char(s, ':') ||
	    !take_number(s, 2, &minute, &digits))
		return false;
	if (take_char(s, ':') && !take_number(s, 2, &second, &digits))
		return false;
	if (hour > 23 || minute > 59 || second > 60) /* 60: a leap second */
		return false;
	*seconds = hour * 3600 + minute * 60 + (second > 59 ? 59 : second);
	return true;
}

static bool
take_zone(struct slice *s, int *minutes)
{
	bool west = s->len > 0 && s->p[0] == '-';
	struct slice word;
	unsigned digits;
	int zone;

	*minutes = 0;
	if (s->len > 0 && (s->p[0] == '+' || west)) {
		*s = slice_drop(*s, 1);
		if (!take_number(s, 4, &zone, &digits) || digits != 4 || zone % 100 > 59 ||
		    zone > 2359)
			return false;
		zone = zone / 100 * 60 + zone % 100;
		*minutes = west ? -zone : zone;
		return true;
	}
	word = take_word(s);
	for (size_t i = 0; i < sizeof(zones) / sizeof(zones[0]); i++)
		if (slice_ieq(word, slice_str(zones[i].name)))
			*minutes = zones[i].hours * 60;
	return true;
}

bool
date_parse(struct slice body, struct date *out)
{
	int64_t day;
	int seconds, zone;

	header_skip_cfws(&body);
	if (body.len > 0 && is_letter(body.p[0])) {
		(void)take_word(&body); /* the day of the week says nothing new */
		(void)take_char(&body, ',');
	}
	if (!take_day(&body, &day) || !take_time(&body, &seconds) || !take_zone(&body, &zone))
		return false;
	*out = (struct date){ day * DAY_S + seconds - (int64_t)zone * 60, zone };
	return true;
}

struct parts {
	int64_t year;
	int month, day, weekday, seconds;
};

/* What a clock in the zone of date shows; a year that does not fit is 1970. */
static struct parts
parts_of(struct date date)
{
	int64_t local = date.unix_s + (int64_t)date.zone_min * 60, number;
	struct parts p;

	if (local < -62167219200 || local >= 253402300800)
		local = 0;
	number = local >= 0 ? local / DAY_S : -((DAY_S - 1 - local) / DAY_S);
	day_split(number, &p.year, &p.month, &p.day);
	p.seconds = (int)(local - number * DAY_S);
	p.weekday = (int)(((number + 4) % 7 + 7) % 7);
	return p;
}

static void
put_padded(struct buf *b, int n, int digits)
{
	char text[4];

	for (int i = digits; i > 0; n /= 10)
		text[--i] = (char)('0' + n % 10);
	buf_put(b, slice_of(text, (size_t)digits));
}

/* "Jan", the year and the time, with the separator between day, month and year. */
static void
put_rest(struct buf *b, const struct parts *p, int zone_min, char separator)
{
	int zone = zone_min < 0 ? -zone_min : zone_min;

	buf_putc(b, separator);
	buf_puts(b, months[p->month - 1]);
	buf_putc(b, separator);
	put_padded(b, (int)(p->year % 10000), 4);
	buf_putc(b, ' ');
	put_padded(b, p->seconds / 3600, 2);
	buf_putc(b, ':');
	put_padded(b, p->seconds / 60 % 60, 2);
	buf_putc(b, ':');
	put_padded(b, p->seconds % 60, 2);
	buf_puts(b, zone_min < 0 ? " -" : " +");
	put_padded(b, zone / 60 % 100, 2);
	put_padded(b, zone % 60, 2);
	buf_putc(b, '\0');
}

/* Every message is stamped with one: this is no printf. */
void
date_format(struct date date, char out[static DATE_BYTES])
{
	struct parts p = parts_of(date);
	struct buf b = buf_over(out, DATE_BYTES); /* it fits */

	buf_puts(&b, days[p.weekday]);
	buf_puts(&b, ", ");
	buf_int(&b, p.day);
	put_rest(&b, &p, date.zone_min, ' ');
}

void
date_format_imap(struct date date, char out[static DATE_BYTES])
{
	struct parts p = parts_of(date);
	struct buf b = buf_over(out, DATE_BYTES); /* it fits */

	if (p.day < 10)
		buf_putc(&b, ' ');
	buf_int(&b, p.day);
	put_rest(&b, &p, date.zone_min, '-');
}

bool
date_parse_imap_day(struct slice text, int64_t *day)
{
	struct slice rest = text;

	return take_day(&rest, day) && rest.len == 0 && !slice_has(text, ' ');
}

int64_t
date_day(struct date date)
{
	int64_t local = date.unix_s + (int64_t)date.zone_min * 60;

	return local >= 0 ? local / DAY_S : -((DAY_S - 1 - local) / DAY_S);
}

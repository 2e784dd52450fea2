/* filters/dnsbl.c - scores clients that DNS block lists name (RFC 5782).
 *
 *	filter dnsbl { zones = { "zen.example.net=4.0", "bl.example.org=1.5" } }
 *
 * A list is asked for the client's address, reversed, below its zone; an answer in 127.0.0.0/8 is a
 * listing (section 2.1).  127.255.255.0/24 is how lists in use say that the question itself was
 * refused (over a quota, through an open resolver): no listing but a failure.
 */
#include <relayd/filter.h>

#include <stdio.h>
#include <stdlib.h>

#define NAME_BYTES   254 /* RFC 1035 section 2.3.4, as text, with a NUL */
#define REVERSED_MAX 64  /* 32 nibbles with their dots */

struct zone {
	char *name;
	double score;
};

struct dnsbl {
	struct zone *zones;
	size_t n;
};

/* ---- settings ----------------------------------------------------------------------------------- */

static void
release(void *settings)
{
	struct dnsbl *bl = settings;

	for (size_t i = 0; i < bl->n; i++)
		free(bl->zones[i].name);
	free(bl->zones);
	free(bl);
}

static bool
is_zone(struct slice s)
{
	if (s.len == 0 || s.len > NAME_BYTES - 1 - REVERSED_MAX || s.p[0] == '.')
		return false;
	for (size_t i = 0; i < s.len; i++)
		if (strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.",
			s.p[i]) == NULL ||
		    s.p[i] == '\0')
			return false;
	return true;
}

static bool
parse_zone(const struct filter_config *cfg, const char *text, struct zone *zone)
{
	struct slice name = slice_until(slice_str(text), '=');

	if (text[name.len] != '=' || !is_zone(name) ||
	    !cfg->number(text + name.len + 1, &zone->score))
		return false;
	zone->name = strndup(name.p, name.len);
	return zone->name != NULL;
}

static int
configure(const struct filter_config *cfg, void **settings)
{
	struct dnsbl *bl = calloc(1, sizeof(*bl));
	size_t n = 0;

	while (cfg->value(cfg, "zones", n) != NULL)
		n++;
	if (bl == NULL || (bl->zones = calloc(n + 1, sizeof(*bl->zones))) == NULL) {
		free(bl);
		return cfg->fail(cfg, NULL, NULL, 0, "out of memory");
	}
	for (; bl->n < n; bl->n++)
		if (!parse_zone(cfg, cfg->value(cfg, "zones", bl->n), &bl->zones[bl->n])) {
			release(bl);
			return cfg->fail(cfg, "zones", NULL, 0,
			    "expected \"zone=score\", such as \"zen.example.net=4.0\"");
		}
	if (n == 0)
		cfg->warn(cfg, NULL, 0, "asks nobody: no zones");
	*settings = bl;
	return 0;
}

/* ---- a client --------------------------------------------------------------------------------------- */

/* "2.0.0.127" (RFC 5782 section 2.1), nibbles for IPv6 (section 2.4). */
static void
reverse(struct slice addr, char out[static REVERSED_MAX])
{
	size_t at = 0;

	for (size_t i = addr.len; i-- > 0;) {
		unsigned byte = (uint8_t)addr.p[i];
		const char *dot = i > 0 ? "." : "";

		if (addr.len == 4)
			at += (size_t)snprintf(out + at, REVERSED_MAX - at, "%u%s", byte, dot);
		else
			at += (size_t)snprintf(
			    out + at, REVERSED_MAX - at, "%x.%x%s", byte & 15, byte >> 4, dot);
	}
}

enum listing { LISTED, NOT_LISTED, NOT_KNOWN };

static enum listing
look_at(const struct fact *answer)
{
	enum listing found = NOT_LISTED;

	if (answer->state == FACT_FAILED || answer->state == FACT_SKIPPED)
		return NOT_KNOWN;
	for (size_t i = 0; i < answer->n; i++) {
		struct slice a = answer->values[i].bytes;

		if (a.len != 4 || a.p[0] != 127)
			continue; /* somebody answers everything with an address of theirs */
		if (memcmp(a.p, "\x7f\xff\xff", 3) != 0)
			return LISTED;
		found = NOT_KNOWN;
	}
	return found;
}

static void
score(struct filter_tx *tx, const struct zone *zone)
{
	char name[NAME_BYTES + 8], why[NAME_BYTES + 64];
	struct slice ip = filter_session(tx)->client_ip;

	(void)snprintf(name, sizeof(name), "DNSBL:%s", zone->name); /* a zone is shorter */
	(void)snprintf(why, sizeof(why), "%.*s is listed in %s", SLICE_FMT(ip), zone->name);
	filter_score(tx, zone->score, slice_str(name), slice_str(why));
}

static enum filter_status
run(struct filter_tx *tx, const void *settings)
{
	const struct dnsbl *bl = settings;
	struct slice addr = filter_session(tx)->client_addr;
	char reversed[REVERSED_MAX], name[NAME_BYTES];
	bool waiting = false, listed = false, unknown = false;

	if (addr.len == 0)
		return FILTER_DONE; /* a unix socket */
	reverse(addr, reversed);
	for (size_t i = 0; i < bl->n; i++) {
		const struct fact *answer;
		enum listing found;

		(void)snprintf(name, sizeof(name), "%s.%s", reversed,
		    bl->zones[i].name); /* checked in is_zone() */
		answer = filter_fact(tx, FACT_DNS_A, slice_str(name));
		if (answer == NULL) {
			waiting = true; /* ask them all before we wait */
			continue;
		}
		found = look_at(answer);
		if (found == LISTED)
			score(tx, &bl->zones[i]);
		listed = listed || found == LISTED;
		unknown = unknown || found == NOT_KNOWN;
	}
	if (waiting)
		return FILTER_WAIT;
	/* What one list says counts also while another is down. */
	return unknown && !listed ? FILTER_ERROR : FILTER_DONE;
}

static const struct filter_option options[] = {
	{ "zones", FILTER_OPTION_LIST },
	{ NULL, FILTER_OPTION_STRING },
};

#ifdef RELAYD_FILTER_MODULE
const struct filter relayd_filter = {
#else
const struct filter filter_dnsbl = {
#endif
	.abi = RELAYD_FILTER_ABI,
	.size = sizeof(struct filter),
	.name = "dnsbl",
	.stages = FILTER_AT(FILTER_MAIL), /* when it is known whether the client may relay */
	.flags = FILTER_INBOUND,
	.options = options,
	.configure = configure,
	.release = release,
	.run = run,
};

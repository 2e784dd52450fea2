/* filters/dnsbl.c - scores clients that DNS lists name: block lists, and lists of the good (RFC 5782).
 *
 *	filter dnsbl {
 *		zones = { "zen.example.net=4.0", "bl.example.org=127.0.0.[4..7]=1.5", "dnswl.example=-2.0" }
 *	}
 *
 * A list is asked for the client's address, reversed, below its zone; an answer in 127.0.0.0/8 is a
 * listing (section 2.1), or only one that fits the pattern where there is one: each of its four numbers
 * is itself or a set, [1;4..7].  A zone may stand there several times, and is asked once.
 */
#include <relayd/client.h>

#include <ctype.h>
#include <stdlib.h>

struct zone {
	char *name;
	double score;
	bool any;           /* no pattern */
	uint8_t set[4][32]; /* of each number, a bit a value */
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

/* 0 to 255 off the front of *at, or -1. */
static int
take_number(const char **at)
{
	int value = 0;
	const char *from = *at;

	while (isdigit((unsigned char)**at) && *at - from < 3)
		value = value * 10 + (*(*at)++ - '0');
	return *at > from && value <= 255 ? value : -1;
}

static void
add(uint8_t set[static 32], int low, int high)
{
	for (int i = low; i <= high; i++)
		set[i / 8] |= (uint8_t)(1u << (i % 8));
}

/* "4" or "4..7", into the set. */
static bool
take_range(const char **at, uint8_t set[static 32])
{
	int low = take_number(at), high = low;

	if (strncmp(*at, "..", 2) == 0) {
		*at += 2;
		high = take_number(at);
	}
	if (low < 0 || high < low)
		return false;
	add(set, low, high);
	return true;
}

/* "4" or "[1;4..7]" */
static bool
take_set(const char **at, uint8_t set[static 32])
{
	int value;

	if (**at != '[') {
		value = take_number(at);
		if (value >= 0)
			add(set, value, value);
		return value >= 0;
	}
	do {
		(*at)++;
		if (!take_range(at, set))
			return false;
	} while (**at == ';');
	return *(*at)++ == ']';
}

/* "127.0.0.[4..7]" */
static bool
parse_pattern(struct slice text, struct zone *zone)
{
	char copy[128];
	const char *at = copy;

	if (text.len >= sizeof(copy))
		return false;
	memcpy(copy, text.p, text.len);
	copy[text.len] = '\0';
	for (size_t i = 0; i < 4; i++)
		if (!take_set(&at, zone->set[i]) || (i < 3 && *at++ != '.'))
			return false;
	return *at == '\0';
}

/* "zone=score" or "zone=pattern=score" */
static bool
parse_zone(const struct filter_config *cfg, const char *text, struct zone *zone)
{
	struct slice name = slice_until(slice_str(text), '=');
	const char *score = strrchr(text, '=');
	size_t pattern = name.len + 1;

	if (score == NULL || !client_is_zone(name) || !cfg->number(score + 1, &zone->score))
		return false;
	zone->any = score == text + name.len;
	if (!zone->any &&
	    !parse_pattern(slice_of(text + pattern, (size_t)(score - text) - pattern), zone))
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
			    "expected \"zone=score\", such as \"zen.example.net=4.0\" or "
			    "\"bl.example.org=127.0.0.[4..7]=1.5\"");
		}
	if (n == 0)
		cfg->warn(cfg, NULL, 0, "asks nobody: no zones");
	*settings = bl;
	return 0;
}

/* ---- a client --------------------------------------------------------------------------------------- */

static bool
fits(const void *arg, struct slice addr)
{
	const struct zone *zone = arg;

	for (size_t i = 0; i < 4 && !zone->any; i++) {
		uint8_t byte = (uint8_t)addr.p[i];

		if ((zone->set[i][byte / 8] & (1u << (byte % 8))) == 0)
			return false;
	}
	return true;
}

static void
score(struct filter_tx *tx, const struct zone *zone)
{
	char name[CLIENT_NAME_BYTES + 8], why[CLIENT_NAME_BYTES + 64];
	struct slice ip = filter_session(tx)->client_ip;

	(void)snprintf(name, sizeof(name), "%s:%s", zone->score < 0 ? "DNSWL" : "DNSBL",
	    zone->name); /* a zone is shorter */
	(void)snprintf(why, sizeof(why), "%.*s is listed in %s", SLICE_FMT(ip), zone->name);
	filter_score(tx, zone->score, slice_str(name), slice_str(why));
}

static enum filter_status
run(struct filter_tx *tx, const void *settings)
{
	const struct dnsbl *bl = settings;
	struct slice addr = filter_session(tx)->client_addr;
	char reversed[CLIENT_REVERSED_MAX];
	bool waiting = false, listed = false, unknown = false;

	if (addr.len == 0)
		return FILTER_DONE; /* a unix socket */
	client_reversed(addr, reversed);
	for (size_t i = 0; i < bl->n; i++) {
		enum client_listing found =
		    client_listing(tx, reversed, bl->zones[i].name, fits, &bl->zones[i]);

		if (found == CLIENT_LISTED)
			score(tx, &bl->zones[i]);
		waiting = waiting || found == CLIENT_LOOKED_UP; /* ask them all before we wait */
		listed = listed || found == CLIENT_LISTED;
		unknown = unknown || found == CLIENT_NOT_SAID;
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
	/* Where clients may log in, the session asks again once they have (pipeline_session_auth()). */
	.stages = FILTER_AT(FILTER_CONNECT),
	.flags = FILTER_INBOUND,
	.options = options,
	.configure = configure,
	.release = release,
	.run = run,
};

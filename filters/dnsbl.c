/* filters/dnsbl.c - scores clients that DNS lists name: block lists, and lists of the good (RFC
 * 5782).
 *
 *	filter dnsbl {
 *		zones = { "zen.example.net=4.0", "bl.example.org=127.0.0.[4..7]=1.5",
 *			"dnswl.example=-2.0" }
 *		remember = 10m
 *	}
 *
 * A list is asked for the client's address, reversed, below its zone; an answer in 127.0.0.0/8 is a
 * listing (section 2.1), or only one that fits the pattern where there is one: each of its four
 * numbers is itself or a set, [1;4..7].  A zone may stand there several times, and is asked once.
 *
 * A client that no block list names is remembered by its address, for all workers, with the lists
 * of the good that do: next time it waits for nothing.
 */
#include <relayd/client.h>

#include <ctype.h>
#include <stdlib.h>

#define REMEMBER_S 600

struct zone {
	char *name;
	double score;
	bool any;           /* no pattern */
	uint8_t set[4][32]; /* of each number, a bit a value */
};

struct dnsbl {
	struct zone *zones;
	size_t n;
	uint32_t remember_s;
	uint64_t id; /* of the zones as they stand in the config: others are remembered apart */
};

/* ---- settings -------------------------------------------------------------------------------- */

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

/* FNV-1a: nobody but the admin has a say in what goes in. */
static uint64_t
add_text(uint64_t id, const char *text)
{
	do
		id = (id ^ (uint8_t)*text) * 0x100000001b3u;
	while (*text++ != '\0');
	return id;
}

static int
configure(const struct filter_config *cfg, void **settings)
{
	struct dnsbl *bl = calloc(1, sizeof(*bl));
	const char *remember = cfg->value(cfg, "remember", 0);
	size_t n = 0;

	while (cfg->value(cfg, "zones", n) != NULL)
		n++;
	if (bl == NULL || (bl->zones = calloc(n + 1, sizeof(*bl->zones))) == NULL) {
		free(bl);
		return cfg->fail(cfg, NULL, NULL, 0, "out of memory");
	}
	bl->id = 0xcbf29ce484222325u;
	bl->remember_s = REMEMBER_S;
	if (remember != NULL && !cfg->duration(remember, &bl->remember_s)) {
		release(bl);
		return cfg->fail(cfg, "remember", NULL, 0, "expected a duration such as 10m");
	}
	for (size_t i = 0; i < n; i++)
		bl->id = add_text(bl->id, cfg->value(cfg, "zones", i));
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

/* ---- a client -------------------------------------------------------------------------------- */

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

/* Zone n: no block list names the client; else this one of the good does. */
static const struct fact *
memory(struct filter_tx *tx, const struct dnsbl *bl, enum fact_kind kind, size_t zone)
{
	char what[60], mark[CLIENT_MARK_BYTES];

	(void)snprintf(what, sizeof(what), "dnsbl-%016llx-%zu", (unsigned long long)bl->id, zone);
	return filter_fact(tx, kind, client_mark(tx, bl->remember_s, what, mark));
}

enum recalled { UNKNOWN, KNOWN, RECALLING };

/* A client that passed not long ago has what it had then. */
static enum recalled
recall(struct filter_tx *tx, const struct dnsbl *bl)
{
	const struct fact *passed = memory(tx, bl, FACT_SEEN, bl->n), *good;
	bool waiting = passed == NULL, known = passed != NULL && passed->state == FACT_OK;

	for (size_t i = 0; i < bl->n; i++) {
		if (bl->zones[i].score >= 0)
			continue;
		good = memory(
		    tx, bl, FACT_SEEN, i); /* all at once, and for nothing if it is unknown */
		if (good != NULL && good->state == FACT_OK && known)
			score(tx, &bl->zones[i]);
		waiting = waiting || good == NULL;
	}
	if (waiting)
		return RECALLING;
	return known ? KNOWN : UNKNOWN;
}

/* What is known of a client that passed; a store that fails only lets it be asked for again. */
static enum filter_status
keep(struct filter_tx *tx, const struct dnsbl *bl, const bool *listed)
{
	bool waiting = memory(tx, bl, FACT_MARK, bl->n) == NULL;

	for (size_t i = 0; i < bl->n; i++)
		if (listed[i] && memory(tx, bl, FACT_MARK, i) == NULL)
			waiting = true;
	return waiting ? FILTER_WAIT : FILTER_DONE;
}

static enum filter_status
ask(struct filter_tx *tx, const struct dnsbl *bl, bool *listed)
{
	char reversed[CLIENT_REVERSED_MAX];
	bool waiting = false, any = false, bad = false, unknown = false;

	client_reversed(filter_session(tx)->client_addr, reversed);
	for (size_t i = 0; i < bl->n; i++) {
		enum client_listing found =
		    client_listing(tx, reversed, bl->zones[i].name, fits, &bl->zones[i]);

		listed[i] = found == CLIENT_LISTED;
		if (listed[i])
			score(tx, &bl->zones[i]);
		waiting = waiting || found == CLIENT_LOOKED_UP; /* ask them all before we wait */
		any = any || listed[i];
		bad = bad || (listed[i] && bl->zones[i].score >= 0);
		unknown = unknown || found == CLIENT_NOT_SAID;
	}
	if (waiting)
		return FILTER_WAIT;
	/* What one list says counts also while another is down. */
	if (unknown)
		return any ? FILTER_DONE : FILTER_ERROR;
	return bad || bl->remember_s == 0 ? FILTER_DONE : keep(tx, bl, listed);
}

static enum filter_status
run(struct filter_tx *tx, const void *settings)
{
	const struct dnsbl *bl = settings;
	enum recalled recalled = UNKNOWN;
	bool *listed;

	if (filter_session(tx)->client_addr.len == 0 || bl->n == 0)
		return FILTER_DONE; /* a unix socket */
	if (bl->remember_s > 0)
		recalled = recall(tx, bl);
	if (recalled != UNKNOWN)
		return recalled == KNOWN ? FILTER_DONE : FILTER_WAIT;
	listed = tx->host->alloc(tx, bl->n * sizeof(*listed));
	return listed != NULL ? ask(tx, bl, listed) : FILTER_ERROR;
}

static const struct filter_option options[] = {
	{ "zones", FILTER_OPTION_LIST },
	{ "remember", FILTER_OPTION_DURATION },
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
	/* Where clients may log in, the session asks again once they have
	 * (pipeline_session_auth()). */
	.stages = FILTER_AT(FILTER_CONNECT),
	.flags = FILTER_INBOUND,
	.options = options,
	.configure = configure,
	.release = release,
	.run = run,
};

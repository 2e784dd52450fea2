/* filters/pregreet.c - catches clients that talk before they are greeted, and lets the suspicious
 * wait.
 *
 *	filter pregreet {
 *		suspect = { no-reverse-dns, "zen.example.net" }  delay = 6s
 *		action = reject  remember = 7d
 *	}
 *
 * A client waits for the greeting (RFC 5321 section 3.1); who does not listen sends spam by the
 * book and in a hurry.  Only a client with a reason for suspicion is made to wait; one that waited
 * well is remembered by its address (by its /64) for all workers, and waits for nothing next time.
 */
#include <relayd/client.h>

#include <stdlib.h>

#define DELAY_S    6
#define DELAY_MAX  30 /* clients give up after some minutes (RFC 5321 section 4.5.3.2.1) */
#define REMEMBER_S (7 * 86400)

struct pregreet {
	bool nameless; /* no reverse DNS is a reason */
	bool everybody;
	char **zones; /* a listing in one is another */
	size_t n;
	uint32_t delay_s, remember_s;
	bool reject;
	double score;
};

/* ---- settings -------------------------------------------------------------------------------- */

static void
release(void *settings)
{
	struct pregreet *set = settings;

	for (size_t i = 0; i < set->n; i++)
		free(set->zones[i]);
	free(set->zones);
	free(set);
}

static int
add_reason(const struct filter_config *cfg, struct pregreet *set, const char *text)
{
	if (strcmp(text, "no-reverse-dns") == 0)
		set->nameless = true;
	else if (strcmp(text, "all") == 0)
		set->everybody = true;
	else if (strchr(text, '.') == NULL || !client_is_zone(slice_str(text)))
		return cfg->fail(cfg, "suspect", NULL, 0,
		    "expected no-reverse-dns, all, or the zone of a DNS list");
	else if ((set->zones[set->n] = strdup(text)) == NULL)
		return cfg->fail(cfg, NULL, NULL, 0, "out of memory");
	else
		set->n++;
	return 0;
}

static int
read_suspects(const struct filter_config *cfg, struct pregreet *set)
{
	size_t n = 0;

	while (cfg->value(cfg, "suspect", n) != NULL)
		n++;
	set->zones = calloc(n + 1, sizeof(*set->zones));
	if (set->zones == NULL)
		return cfg->fail(cfg, NULL, NULL, 0, "out of memory");
	for (size_t i = 0; i < n; i++)
		if (add_reason(cfg, set, cfg->value(cfg, "suspect", i)) < 0)
			return -1;
	return 0;
}

static int
read_times(const struct filter_config *cfg, struct pregreet *set)
{
	const char *delay = cfg->value(cfg, "delay", 0);
	const char *remember = cfg->value(cfg, "remember", 0);

	set->delay_s = DELAY_S;
	set->remember_s = REMEMBER_S;
	if (delay != NULL && (!cfg->duration(delay, &set->delay_s) || set->delay_s > DELAY_MAX))
		return cfg->fail(cfg, "delay", NULL, 0, "expected a duration up to 30s");
	if (remember != NULL && !cfg->duration(remember, &set->remember_s))
		return cfg->fail(cfg, "remember", NULL, 0, "expected a duration such as 7d");
	return 0;
}

static int
read_action(const struct filter_config *cfg, struct pregreet *set)
{
	const char *action = cfg->value(cfg, "action", 0), *score = cfg->value(cfg, "score", 0);

	if (action != NULL && strcmp(action, "reject") != 0)
		return cfg->fail(cfg, "action", NULL, 0, "expected reject, or score = instead");
	if (score != NULL && !cfg->number(score, &set->score))
		return cfg->fail(cfg, "score", NULL, 0, "expected a score such as 5.0");
	if (action != NULL && score != NULL)
		return cfg->fail(cfg, "score", NULL, 0, "action = reject leaves nothing to score");
	set->reject = score == NULL;
	return 0;
}

static int
configure(const struct filter_config *cfg, void **settings)
{
	struct pregreet *set = calloc(1, sizeof(*set));

	if (set == NULL)
		return cfg->fail(cfg, NULL, NULL, 0, "out of memory");
	if (read_suspects(cfg, set) < 0 || read_times(cfg, set) < 0 || read_action(cfg, set) < 0) {
		release(set);
		return -1;
	}
	*settings = set;
	return 0;
}

/* ---- a client -------------------------------------------------------------------------------- */

enum suspicion { NOT_SUSPECT, SUSPECT, ASKED };

/* A list or a resolver that does not answer makes nobody suspect. */
static enum suspicion
suspect(struct filter_tx *tx, const struct pregreet *set)
{
	char reversed[CLIENT_REVERSED_MAX];
	struct slice name;
	enum client_reverse reverse = set->nameless ? client_reverse(tx, &name) : CLIENT_CONFIRMED;
	bool asked = reverse == CLIENT_ASKED;

	if (set->everybody || reverse == CLIENT_NAMELESS || reverse == CLIENT_UNCONFIRMED)
		return SUSPECT;
	client_reversed(filter_session(tx)->client_addr, reversed);
	for (size_t i = 0; i < set->n; i++) {
		enum client_listing found = client_listing(tx, reversed, set->zones[i], NULL, NULL);

		if (found == CLIENT_LISTED)
			return SUSPECT;
		asked = asked || found == CLIENT_LOOKED_UP;
	}
	return asked ? ASKED : NOT_SUSPECT;
}

#define MARK_BYTES 128

/* "604800 pregreet=192.0.2.1": FACT_SEEN and FACT_MARK; an IPv6 client is its /64. */
static struct slice
mark_name(struct filter_tx *tx, const struct pregreet *set, char out[static MARK_BYTES])
{
	char reversed[CLIENT_REVERSED_MAX];
	struct slice addr = filter_session(tx)->client_addr;
	int n;

	client_reversed(slice_head(addr, 8), reversed);
	n = snprintf(out, MARK_BYTES, "%u pregreet=%s", set->remember_s, reversed);
	return slice_of(out, (size_t)n);
}

static enum filter_status
judge(struct filter_tx *tx, const struct pregreet *set, struct slice said)
{
	char why[200];

	if (set->reject) {
		tx->host->verdict(tx, FILTER_REJECT, 554, SLICE("5.5.1"),
		    SLICE("You spoke before you were greeted (RFC 5321 section 3.1)"));
		return FILTER_DONE;
	}
	(void)snprintf(why, sizeof(why), "said \"%.*s\" before it was greeted",
	    SLICE_FMT(slice_head(said, 60))); /* it fits */
	filter_score(tx, set->score, SLICE("PREGREET"), slice_str(why));
	return FILTER_DONE;
}

/* Looks whether the client has spoken after waiting so long. */
static enum filter_status
listen(struct filter_tx *tx, const struct pregreet *set, uint32_t delay_s)
{
	char name[32], mark[MARK_BYTES];
	const struct fact *early;
	int n = snprintf(name, sizeof(name), "%u", delay_s);

	early = filter_fact(tx, FACT_EARLY, slice_of(name, (size_t)n));
	if (early == NULL)
		return FILTER_WAIT;
	if (early->state == FACT_OK)
		return judge(tx, set, early->n > 0 ? early->values[0].bytes : SLICE(""));
	/* It passed; a store that fails only makes it wait again. */
	if (early->state == FACT_NONE && delay_s > 0 && set->remember_s > 0 &&
	    filter_fact(tx, FACT_MARK, mark_name(tx, set, mark)) == NULL)
		return FILTER_WAIT;
	return FILTER_DONE;
}

static enum filter_status
run(struct filter_tx *tx, const void *settings)
{
	const struct pregreet *set = settings;
	char mark[MARK_BYTES];
	const struct fact *seen;

	if (filter_session(tx)->client_addr.len == 0)
		return FILTER_DONE; /* a unix socket */
	switch (suspect(tx, set)) {
	case ASKED:
		return FILTER_WAIT;
	case NOT_SUSPECT:
		return listen(tx, set, 0);
	case SUSPECT:
		break;
	}
	if (set->delay_s == 0 || set->remember_s == 0)
		return listen(tx, set, set->delay_s);
	seen = filter_fact(tx, FACT_SEEN, mark_name(tx, set, mark));
	if (seen == NULL)
		return FILTER_WAIT;
	return listen(tx, set, seen->state == FACT_OK ? 0 : set->delay_s);
}

static const struct filter_option options[] = {
	{ "suspect", FILTER_OPTION_LIST },
	{ "delay", FILTER_OPTION_DURATION },
	{ "remember", FILTER_OPTION_DURATION },
	{ "action", FILTER_OPTION_STRING },
	{ "score", FILTER_OPTION_NUMBER },
	{ NULL, FILTER_OPTION_STRING },
};

#ifdef RELAYD_FILTER_MODULE
const struct filter relayd_filter = {
#else
const struct filter filter_pregreet = {
#endif
	.abi = RELAYD_FILTER_ABI,
	.size = sizeof(struct filter),
	.name = "pregreet",
	.stages = FILTER_AT(FILTER_CONNECT),
	.flags = FILTER_INBOUND,
	.options = options,
	.configure = configure,
	.release = release,
	.run = run,
};

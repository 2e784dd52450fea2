/* filters/rdns.c - scores clients whose address has no name, or one that does not lead back to it.
 *
 *	filter rdns { none = 1.5  unconfirmed = 0.5  remember = 10m }
 *
 * A mail server with a name in both directions is what everybody asks for (RFC 1912 section 2.1);
 * what is missing here is cheap to say and says little by itself.  A client that has both is
 * remembered by its address, for all workers: next time it waits for nothing.
 */
#include <relayd/client.h>

#include <stdlib.h>

#define REMEMBER_S 600

struct rdns {
	double none, unconfirmed;
	uint32_t remember_s;
};

static int
configure(const struct filter_config *cfg, void **settings)
{
	struct rdns *set = calloc(1, sizeof(*set));
	const char *none = cfg->value(cfg, "none", 0);
	const char *unconfirmed = cfg->value(cfg, "unconfirmed", 0);
	const char *remember = cfg->value(cfg, "remember", 0);

	if (set == NULL)
		return cfg->fail(cfg, NULL, NULL, 0, "out of memory");
	set->none = 1.5;
	set->unconfirmed = 0.5;
	set->remember_s = REMEMBER_S;
	if (none != NULL && !cfg->number(none, &set->none)) {
		free(set);
		return cfg->fail(cfg, "none", NULL, 0, "expected a score such as 1.5");
	}
	if (unconfirmed != NULL && !cfg->number(unconfirmed, &set->unconfirmed)) {
		free(set);
		return cfg->fail(cfg, "unconfirmed", NULL, 0, "expected a score such as 0.5");
	}
	if (remember != NULL && !cfg->duration(remember, &set->remember_s)) {
		free(set);
		return cfg->fail(cfg, "remember", NULL, 0, "expected a duration such as 10m");
	}
	*settings = set;
	return 0;
}

static void
say(struct filter_tx *tx, double score, const char *name, const char *what, struct slice of)
{
	char why[CLIENT_NAME_BYTES + 128];
	struct slice ip = filter_session(tx)->client_ip;

	(void)snprintf(why, sizeof(why), "%.*s %s%.*s", SLICE_FMT(ip), what,
	    SLICE_FMT(slice_head(of, CLIENT_NAME_BYTES))); /* it fits */
	if (score != 0)
		filter_score(tx, score, slice_str(name), slice_str(why));
}

static enum filter_status
run(struct filter_tx *tx, const void *settings)
{
	const struct rdns *set = settings;
	char mark[CLIENT_MARK_BYTES];
	const struct fact *seen = NULL;
	struct slice name;

	if (filter_session(tx)->client_addr.len == 0)
		return FILTER_DONE; /* a unix socket */
	if (set->remember_s > 0) {
		seen = filter_fact(tx, FACT_SEEN, client_mark(tx, set->remember_s, "rdns", mark));
		if (seen == NULL)
			return FILTER_WAIT;
		if (seen->state == FACT_OK)
			return FILTER_DONE;
	}
	switch (client_reverse(tx, &name)) {
	case CLIENT_ASKED:
		return FILTER_WAIT;
	case CLIENT_UNKNOWN:
		return FILTER_ERROR; /* on-error decides */
	case CLIENT_NAMELESS:
		say(tx, set->none, "RDNS_NONE", "has no name in the DNS", SLICE(""));
		break;
	case CLIENT_UNCONFIRMED:
		say(tx, set->unconfirmed, "RDNS_UNCONFIRMED", "is not an address of its name ",
		    name);
		break;
	case CLIENT_CONFIRMED:
		/* A store that fails only lets it be asked for again. */
		if (seen != NULL && filter_fact(tx, FACT_MARK,
					client_mark(tx, set->remember_s, "rdns", mark)) == NULL)
			return FILTER_WAIT;
		break;
	}
	return FILTER_DONE;
}

static const struct filter_option options[] = {
	{ "none", FILTER_OPTION_NUMBER },
	{ "unconfirmed", FILTER_OPTION_NUMBER },
	{ "remember", FILTER_OPTION_DURATION },
	{ NULL, FILTER_OPTION_STRING },
};

#ifdef RELAYD_FILTER_MODULE
const struct filter relayd_filter = {
#else
const struct filter filter_rdns = {
#endif
	.abi = RELAYD_FILTER_ABI,
	.size = sizeof(struct filter),
	.name = "rdns",
	.stages = FILTER_AT(FILTER_CONNECT),
	.flags = FILTER_INBOUND,
	.options = options,
	.configure = configure,
	.release = free,
	.run = run,
};

/* filters/helo.c - scores what a client calls itself.
 *
 *	filter helo { own-name = 5.0  not-qualified = 1.0  unresolvable = 1.5  remember = 10m }
 *
 * RFC 5321 section 4.1.4 forbids to refuse mail because the name is not the client's; what is
 * counted here is a name that can be nobody's, or is ours.  A name that was found is remembered for
 * all workers: who comes with it then waits for nothing.
 */
#include <relayd/filter.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define REMEMBER_S 600
#define MARK_BYTES 300

enum test { LITERAL, BAD_LITERAL, OWN_NAME, NOT_QUALIFIED, UNRESOLVABLE, TESTS };

static const struct {
	const char *option, *finding, *what;
	double score;
} tests[TESTS] = {
	[LITERAL] = { "literal", "HELO_LITERAL", "is an address, no name", 0.5 },
	[BAD_LITERAL] = { "bad-literal", "HELO_BAD_LITERAL", "is not the client's address", 3.0 },
	[OWN_NAME] = { "own-name", "HELO_OWN_NAME", "is ours", 5.0 },
	[NOT_QUALIFIED] = { "not-qualified", "HELO_NOT_QUALIFIED", "is not a whole name", 1.0 },
	[UNRESOLVABLE] = { "unresolvable", "HELO_UNRESOLVABLE", "is not in the DNS", 1.5 },
};

struct helo {
	double score[TESTS];
	char **own; /* names besides the host name */
	size_t n_own;
	uint32_t remember_s;
};

static void
release(void *settings)
{
	struct helo *set = settings;

	for (size_t i = 0; i < set->n_own; i++)
		free(set->own[i]);
	free(set->own);
	free(set);
}

static int
configure(const struct filter_config *cfg, void **settings)
{
	struct helo *set = calloc(1, sizeof(*set));
	const char *remember = cfg->value(cfg, "remember", 0);
	size_t n = 0;

	while (cfg->value(cfg, "own", n) != NULL)
		n++;
	if (set == NULL || (set->own = calloc(n + 1, sizeof(*set->own))) == NULL) {
		free(set);
		return cfg->fail(cfg, NULL, NULL, 0, "out of memory");
	}
	for (; set->n_own < n; set->n_own++) {
		set->own[set->n_own] = strdup(cfg->value(cfg, "own", set->n_own));
		if (set->own[set->n_own] == NULL)
			break;
	}
	for (size_t i = 0; i < TESTS; i++) {
		const char *text = cfg->value(cfg, tests[i].option, 0);

		set->score[i] = tests[i].score;
		if (text != NULL && !cfg->number(text, &set->score[i])) {
			release(set);
			return cfg->fail(
			    cfg, tests[i].option, NULL, 0, "expected a score such as 1.5");
		}
	}
	set->remember_s = REMEMBER_S;
	if (remember != NULL && !cfg->duration(remember, &set->remember_s)) {
		release(set);
		return cfg->fail(cfg, "remember", NULL, 0, "expected a duration such as 10m");
	}
	*settings = set;
	return 0;
}

static void
say(struct filter_tx *tx, const struct helo *set, enum test test)
{
	char why[400];

	(void)snprintf(why, sizeof(why), "HELO %.*s %s",
	    SLICE_FMT(slice_head(filter_session(tx)->helo, 255)), tests[test].what); /* it fits */
	if (set->score[test] != 0)
		filter_score(tx, set->score[test], slice_str(tests[test].finding), slice_str(why));
}

/* The address inside "[192.0.2.1]" or "[IPv6:2001:db8::1]" (RFC 5321 section 4.1.3); 0: none. */
static size_t
read_literal(struct slice helo, unsigned char out[static 16])
{
	char text[64];
	int family = AF_INET;

	if (helo.len < 3 || helo.len >= sizeof(text) || helo.p[helo.len - 1] != ']')
		return 0;
	memcpy(text, helo.p + 1, helo.len - 2);
	text[helo.len - 2] = '\0';
	if (strncasecmp(text, "IPv6:", 5) == 0) {
		family = AF_INET6;
		memmove(text, text + 5, strlen(text + 5) + 1);
	}
	if (inet_pton(family, text, out) != 1)
		return 0;
	return family == AF_INET ? 4 : 16;
}

static enum filter_status
judge_literal(struct filter_tx *tx, const struct helo *set)
{
	const struct filter_session *s = filter_session(tx);
	unsigned char addr[16];
	size_t len = read_literal(s->helo, addr);

	if (len > 0 && slice_eq(slice_of(addr, len), s->client_addr))
		say(tx, set, LITERAL);
	else
		say(tx, set, BAD_LITERAL);
	return FILTER_DONE;
}

static bool
is_ours(const struct helo *set, const struct filter_session *s, struct slice name)
{
	for (size_t i = 0; i < set->n_own; i++)
		if (slice_ieq(slice_str(set->own[i]), name))
			return true;
	return slice_ieq(s->hostname, name);
}

/* Two labels at least, and an end that no address has. */
static bool
is_qualified(struct slice name)
{
	size_t dots = 0;

	for (size_t i = 0; i < name.len; i++)
		dots += name.p[i] == '.';
	return dots > 0 && name.p[0] != '.' &&
	       (name.p[name.len - 1] < '0' || name.p[name.len - 1] > '9');
}

/* "600 helo=mail.example.test", in lower case: FACT_SEEN and FACT_MARK. */
static const struct fact *
memory(struct filter_tx *tx, const struct helo *set, enum fact_kind kind, struct slice name)
{
	char mark[MARK_BYTES];
	int n = snprintf(mark, sizeof(mark), "%u helo=", set->remember_s);

	name = slice_head(name, sizeof(mark) - (size_t)n); /* a name of the DNS is shorter */
	for (size_t i = 0; i < name.len; i++)
		mark[(size_t)n + i] = slice_lower(name.p[i]);
	return filter_fact(tx, kind, slice_of(mark, (size_t)n + name.len));
}

/* A store that fails only lets it be looked up again. */
static enum filter_status
keep(struct filter_tx *tx, const struct helo *set, struct slice name)
{
	return set->remember_s > 0 && memory(tx, set, FACT_MARK, name) == NULL ? FILTER_WAIT
									       : FILTER_DONE;
}

/* A name with an address or a mail exchanger of its own exists. */
static enum filter_status
look_up(struct filter_tx *tx, const struct helo *set, struct slice name)
{
	static const enum fact_kind kinds[] = { FACT_DNS_A, FACT_DNS_AAAA, FACT_DNS_MX };
	const struct fact *seen = set->remember_s > 0 ? memory(tx, set, FACT_SEEN, name) : NULL;
	bool waits = false, failed = false;

	if (set->remember_s > 0 && seen == NULL)
		return FILTER_WAIT;
	if (seen != NULL && seen->state == FACT_OK)
		return FILTER_DONE;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		const struct fact *f = filter_fact(tx, kinds[i], name);

		if (f == NULL)
			waits = true;
		else if (f->state == FACT_OK)
			return keep(tx, set, name);
		else
			failed = failed || f->state != FACT_NONE;
	}
	if (waits)
		return FILTER_WAIT;
	if (failed)
		return FILTER_ERROR; /* on-error decides */
	say(tx, set, UNRESOLVABLE);
	return FILTER_DONE;
}

static enum filter_status
run(struct filter_tx *tx, const void *settings)
{
	const struct helo *set = settings;
	const struct filter_session *s = filter_session(tx);
	struct slice name = s->helo;

	if (s->client_addr.len == 0 || name.len == 0)
		return FILTER_DONE; /* a unix socket; nothing was said yet */
	if (name.p[0] == '[')
		return judge_literal(tx, set);
	(void)slice_chop(&name, "."); /* some write the root; it is the same name */
	if (is_ours(set, s, name))
		say(tx, set, OWN_NAME);
	else if (name.len == 0 || !is_qualified(name))
		say(tx, set, NOT_QUALIFIED);
	else if (set->score[UNRESOLVABLE] != 0)
		return look_up(tx, set, name);
	return FILTER_DONE;
}

static const struct filter_option options[] = {
	{ "literal", FILTER_OPTION_NUMBER },
	{ "bad-literal", FILTER_OPTION_NUMBER },
	{ "own-name", FILTER_OPTION_NUMBER },
	{ "not-qualified", FILTER_OPTION_NUMBER },
	{ "unresolvable", FILTER_OPTION_NUMBER },
	{ "own", FILTER_OPTION_LIST },
	{ "remember", FILTER_OPTION_DURATION },
	{ NULL, FILTER_OPTION_STRING },
};

#ifdef RELAYD_FILTER_MODULE
const struct filter relayd_filter = {
#else
const struct filter filter_helo = {
#endif
	.abi = RELAYD_FILTER_ABI,
	.size = sizeof(struct filter),
	.name = "helo",
	.stages = FILTER_AT(FILTER_HELO),
	.flags = FILTER_INBOUND,
	.options = options,
	.configure = configure,
	.release = release,
	.run = run,
};

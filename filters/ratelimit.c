/* filters/ratelimit.c - so many messages in so long, counted by client, sender, recipient, or a
 * pair of them.
 *
 *	filter ratelimit { key = { client-ip }  rate = "100/1m"  action = defer }
 *	filter bursts    { type = ratelimit  key = { sender, recipient }  rate = "20/1h" }
 *
 * action = defer (the default), reject or quarantine; count = attempts (the default), or accepted:
 * then a message that is not accepted does not count.  It runs at MAIL, at RCPT where the recipient
 * is part of the key.  An IPv6 client counts as its /64.
 */
#include <relayd/filter.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

#define KEY_BYTES 1200

enum part { CLIENT_IP, SENDER, RECIPIENT, PARTS };

static const char *const part_names[PARTS] = { "client-ip", "sender", "recipient" };

struct ratelimit {
	bool by[PARTS];
	uint64_t count;
	uint32_t period_s;
	char rate[40]; /* as written, for the reply */
	enum filter_verdict action;
	bool count_accepted;
};

/* ---- settings -------------------------------------------------------------------------------- */

static int
read_key(const struct filter_config *cfg, struct ratelimit *rl)
{
	const char *text;

	for (size_t i = 0; (text = cfg->value(cfg, "key", i)) != NULL; i++) {
		size_t part = 0;

		while (part < PARTS && strcmp(part_names[part], text) != 0)
			part++;
		if (part == PARTS || rl->by[part])
			return cfg->fail(cfg, "key", NULL, 0,
			    "expected some of client-ip, sender and recipient, each once");
		rl->by[part] = true;
	}
	for (size_t part = 0; part < PARTS; part++)
		if (rl->by[part])
			return 0;
	return cfg->fail(cfg, "key", NULL, 0, "expected client-ip, sender or recipient");
}

static int
read_rate(const struct filter_config *cfg, struct ratelimit *rl)
{
	const char *text = cfg->value(cfg, "rate", 0);
	struct slice count = slice_until(slice_str(text), '/');

	if (text == NULL || text[count.len] != '/' || strlen(text) >= sizeof(rl->rate) ||
	    !slice_u64(count, UINT32_MAX, &rl->count) || rl->count == 0 ||
	    !cfg->duration(text + count.len + 1, &rl->period_s) || rl->period_s == 0)
		return cfg->fail(cfg, "rate", NULL, 0, "expected a rate such as \"100/1m\"");
	(void)snprintf(rl->rate, sizeof(rl->rate), "%s", text); /* measured just above */
	return 0;
}

static int
read_action(const struct filter_config *cfg, struct ratelimit *rl)
{
	static const struct {
		const char *name;
		enum filter_verdict verdict;
	} actions[] = {
		{ "defer", FILTER_DEFER },
		{ "reject", FILTER_REJECT },
		{ "quarantine", FILTER_QUARANTINE },
	};
	const char *text = cfg->value(cfg, "action", 0);

	rl->action = FILTER_DEFER;
	for (size_t i = 0; text != NULL; i++) {
		if (i == sizeof(actions) / sizeof(actions[0]))
			return cfg->fail(
			    cfg, "action", NULL, 0, "expected defer, reject or quarantine");
		rl->action = actions[i].verdict;
		if (strcmp(actions[i].name, text) == 0)
			break;
	}
	return 0;
}

static int
read_count(const struct filter_config *cfg, struct ratelimit *rl)
{
	const char *text = cfg->value(cfg, "count", 0);

	if (text == NULL || strcmp(text, "attempts") == 0)
		return 0;
	rl->count_accepted = true;
	if (strcmp(text, "accepted") == 0)
		return 0;
	return cfg->fail(cfg, "count", NULL, 0, "expected attempts or accepted");
}

static int
configure(const struct filter_config *cfg, void **settings)
{
	struct ratelimit *rl = calloc(1, sizeof(*rl));

	if (rl == NULL)
		return cfg->fail(cfg, NULL, NULL, 0, "out of memory");
	if (read_key(cfg, rl) < 0 || read_rate(cfg, rl) < 0 || read_action(cfg, rl) < 0 ||
	    read_count(cfg, rl) < 0) {
		free(rl);
		return -1;
	}
	*settings = rl;
	return 0;
}

/* ---- a message ------------------------------------------------------------------------------- */

struct key {
	char text[KEY_BYTES];
	size_t len;
};

/* One part, in lower case and without quotes: nobody is another by capitals, nor by a quoted-string
 * or quoted pairs that the local part could do without (RFC 5321 section 4.1.2).  What does not fit
 * is cut, which only makes two very long ones share a counter. */
static void
add(struct key *k, enum part part, struct slice value)
{
	bool quoted = value.len > 0 && value.p[0] == '"';
	int n = snprintf(k->text + k->len, sizeof(k->text) - k->len, "%s%s=", k->len > 0 ? " " : "",
	    part_names[part]);

	k->len += (size_t)n;
	for (size_t i = quoted; i < value.len && i < 320 && k->len < sizeof(k->text); i++) {
		if (quoted && value.p[i] == '"') {
			quoted = false;
			continue;
		}
		if (quoted && value.p[i] == '\\' && i + 1 < value.len)
			i++;
		k->text[k->len++] = slice_lower(value.p[i]);
	}
}

static void
add_client(struct key *k, const struct filter_session *s)
{
	char text[INET6_ADDRSTRLEN + 4], net[16] = { 0 };

	if (s->client_addr.len != 16) {
		add(k, CLIENT_IP, s->client_ip);
		return;
	}
	memcpy(net, s->client_addr.p, 8);
	(void)inet_ntop(AF_INET6, net, text, INET6_ADDRSTRLEN); /* has room */
	(void)snprintf(text + strlen(text), 4, "/64");
	add(k, CLIENT_IP, slice_str(text));
}

static struct slice
make_key(struct filter_tx *tx, const struct ratelimit *rl, struct key *k)
{
	const struct filter_envelope *env = filter_envelope(tx);

	if (rl->by[CLIENT_IP])
		add_client(k, filter_session(tx));
	if (rl->by[SENDER])
		add(k, SENDER, env->reverse_path.len > 0 ? env->reverse_path : SLICE("<>"));
	if (rl->by[RECIPIENT])
		add(k, RECIPIENT, env->forward_paths[0]);
	return slice_of(k->text, k->len);
}

static enum filter_status
run(struct filter_tx *tx, const void *settings)
{
	const struct ratelimit *rl = settings;
	enum filter_stage stage = rl->by[RECIPIENT] ? FILTER_RCPT : FILTER_MAIL;
	struct filter_limit limit = {
		.count = rl->count, .period_s = rl->period_s, .count_accepted = rl->count_accepted
	};
	struct key key = { .len = 0 };
	char why[160];

	if (tx->host->stage(tx) != stage)
		return FILTER_DONE;
	limit.key = make_key(tx, rl, &key);
	switch (tx->host->reserve(tx, &limit)) {
	case 1:
		return FILTER_DONE;
	case 0:
		break;
	case -1:
		return FILTER_WAIT;
	default:
		return FILTER_ERROR;
	}
	(void)snprintf(why, sizeof(why), "Too many messages for one %s%s%s%s%s, over %s",
	    rl->by[CLIENT_IP] ? "client" : "", rl->by[CLIENT_IP] && rl->by[SENDER] ? " and " : "",
	    rl->by[SENDER] ? "sender" : "",
	    rl->by[RECIPIENT] && (rl->by[CLIENT_IP] || rl->by[SENDER]) ? " and " : "",
	    rl->by[RECIPIENT] ? "recipient" : "", rl->rate);
	filter_verdict(tx, rl->action, slice_str(why));
	return FILTER_DONE;
}

static const struct filter_option options[] = {
	{ "key", FILTER_OPTION_LIST },
	{ "rate", FILTER_OPTION_STRING },
	{ "action", FILTER_OPTION_STRING },
	{ "count", FILTER_OPTION_STRING },
	{ NULL, FILTER_OPTION_STRING },
};

#ifdef RELAYD_FILTER_MODULE
const struct filter relayd_filter = {
#else
const struct filter filter_ratelimit = {
#endif
	.abi = RELAYD_FILTER_ABI,
	.size = sizeof(struct filter),
	.name = "ratelimit",
	.stages = FILTER_AT(FILTER_MAIL) | FILTER_AT(FILTER_RCPT),
	.options = options,
	.configure = configure,
	.release = free,
	.run = run,
};

/* filters/allow.c - lets mail from known senders and clients pass: no filter behind it counts.
 *
 *	filter allow { senders = { "@partner.example", "bob@example.org" }
 *		clients = { 192.0.2.0/28 } }
 *
 * "@domain" is any sender of that domain alone, "@.domain" of any below it.  A reverse-path is what
 * the client says; where that is not enough, name clients.
 */
#include <relayd/filter.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

struct network {
	uint8_t addr[16];
	size_t len; /* 4 or 16 bytes */
	unsigned bits;
};

struct allow {
	struct slice *senders; /* of the text below */
	size_t n_senders;
	struct network *clients;
	size_t n_clients;
};

/* ---- settings -------------------------------------------------------------------------------- */

static bool
parse_network(const char *text, struct network *net)
{
	struct slice host = slice_until(slice_str(text), '/');
	char name[INET6_ADDRSTRLEN];
	uint64_t bits;

	if (host.len >= sizeof(name))
		return false;
	memcpy(name, host.p, host.len);
	name[host.len] = '\0';
	if (inet_pton(AF_INET, name, net->addr) == 1)
		net->len = 4;
	else if (inet_pton(AF_INET6, name, net->addr) == 1)
		net->len = 16;
	else
		return false;
	bits = net->len * 8;
	if (text[host.len] == '/' && !slice_u64(slice_str(text + host.len + 1), bits, &bits))
		return false;
	net->bits = (unsigned)bits;
	/* 192.0.2.7/28 is a slip of the pen, not a network. */
	for (size_t i = net->bits; i < net->len * 8; i++)
		if (net->addr[i / 8] & (0x80u >> (i % 8)))
			return false;
	return true;
}

static bool
is_sender(struct slice s)
{
	struct slice domain = slice_drop(s, slice_until(s, '@').len);

	return domain.len > 1 && !slice_has(slice_drop(domain, 1), '@') && !slice_has(s, ' ');
}

static size_t
count_values(const struct filter_config *cfg, const char *option)
{
	size_t n = 0;

	while (cfg->value(cfg, option, n) != NULL)
		n++;
	return n;
}

static void
release(void *settings)
{
	struct allow *al = settings;

	for (size_t i = 0; i < al->n_senders; i++)
		free((char *)(uintptr_t)al->senders[i].p); /* ours since strdup() */
	free(al->senders);
	free(al->clients);
	free(al);
}

static int
read_senders(const struct filter_config *cfg, struct allow *al)
{
	size_t n = count_values(cfg, "senders");

	al->senders = calloc(n + 1, sizeof(*al->senders));
	for (size_t i = 0; al->senders != NULL && i < n; i++) {
		const char *text = cfg->value(cfg, "senders", i);
		char *copy;

		if (!is_sender(slice_str(text)))
			return cfg->fail(cfg, "senders", NULL, 0,
			    "expected \"@domain\", \"@.domain\" or \"user@domain\"");
		copy = strdup(text);
		if (copy == NULL)
			return cfg->fail(cfg, "senders", NULL, 0, "out of memory");
		al->senders[al->n_senders++] = slice_str(copy);
	}
	return al->senders != NULL ? 0 : cfg->fail(cfg, "senders", NULL, 0, "out of memory");
}

static int
read_clients(const struct filter_config *cfg, struct allow *al)
{
	size_t n = count_values(cfg, "clients");

	al->clients = calloc(n + 1, sizeof(*al->clients));
	if (al->clients == NULL)
		return cfg->fail(cfg, "clients", NULL, 0, "out of memory");
	for (; al->n_clients < n; al->n_clients++)
		if (!parse_network(
			cfg->value(cfg, "clients", al->n_clients), &al->clients[al->n_clients]))
			return cfg->fail(cfg, "clients", NULL, 0,
			    "expected an address or a network such as 192.0.2.0/28");
	return 0;
}

static int
configure(const struct filter_config *cfg, void **settings)
{
	struct allow *al = calloc(1, sizeof(*al));

	if (al == NULL)
		return cfg->fail(cfg, NULL, NULL, 0, "out of memory");
	if (read_senders(cfg, al) < 0 || read_clients(cfg, al) < 0) {
		release(al);
		return -1;
	}
	if (al->n_senders + al->n_clients == 0)
		cfg->warn(cfg, NULL, 0, "allows nobody: neither senders nor clients");
	*settings = al;
	return 0;
}

/* ---- a message ------------------------------------------------------------------------------- */

static bool
has_client(const struct network *net, struct slice addr)
{
	unsigned whole = net->bits / 8, rest = net->bits % 8;

	if (addr.len != net->len || memcmp(addr.p, net->addr, whole) != 0)
		return false;
	return rest == 0 || (((uint8_t)addr.p[whole] ^ net->addr[whole]) >> (8 - rest)) == 0;
}

static bool
is_client(const struct allow *al, struct slice addr)
{
	for (size_t i = 0; i < al->n_clients; i++)
		if (has_client(&al->clients[i], addr))
			return true;
	return false;
}

/* What stands behind the last @: a quoted local part may hold others. */
static struct slice
domain_of(struct slice path)
{
	const char *at = memrchr(path.p, '@', path.len);

	return at != NULL ? slice_drop(path, (size_t)(at + 1 - path.p)) : SLICE("");
}

static bool
fits_sender(struct slice known, struct slice path)
{
	if (known.p[0] != '@')
		return slice_ieq(known, path);
	if (known.p[1] == '.')
		return slice_iends(domain_of(path), slice_drop(known, 1));
	return slice_ieq(domain_of(path), slice_drop(known, 1));
}

static enum filter_status
run(struct filter_tx *tx, const void *settings)
{
	const struct allow *al = settings;

	if (tx->host->stage(tx) == FILTER_CONNECT) {
		if (is_client(al, filter_session(tx)->client_addr))
			filter_verdict(tx, FILTER_ACCEPT, SLICE("an allowed client"));
		return FILTER_DONE;
	}
	for (size_t i = 0; i < al->n_senders; i++) {
		if (!fits_sender(al->senders[i], filter_envelope(tx)->reverse_path))
			continue;
		filter_verdict(tx, FILTER_ACCEPT, SLICE("an allowed sender"));
		break;
	}
	return FILTER_DONE;
}

static const struct filter_option options[] = {
	{ "senders", FILTER_OPTION_LIST },
	{ "clients", FILTER_OPTION_LIST },
	{ NULL, FILTER_OPTION_STRING },
};

#ifdef RELAYD_FILTER_MODULE
const struct filter relayd_filter = {
#else
const struct filter filter_allow = {
#endif
	.abi = RELAYD_FILTER_ABI,
	.size = sizeof(struct filter),
	.name = "allow",
	.stages = FILTER_AT(FILTER_CONNECT) | FILTER_AT(FILTER_MAIL),
	.options = options,
	.configure = configure,
	.release = release,
	.run = run,
};

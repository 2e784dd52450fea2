/* relayd/core/config.c - a loaded config: its life, its files, and who asks what of it. */
#include "relayd/core/config.h"

#include "relayd/core/buf.h"
#include "relayd/core/config_load.h"
#include "relayd/core/config_source.h"

#include <openssl/sha.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define CONFIG_BYTES_MAX (64u << 20)

static struct config_all *
all_of(const struct config *cfg)
{
	return container_of(cfg, struct config_all, pub);
}

int
config_fail(const struct config_all *all, struct err *err, int line, const char *fmt, ...)
{
	char text[sizeof(err->msg)];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);	/* cut short is good enough */
	va_end(ap);
	return err_set(err, ERR_CONFIG, "%s:%d: %s", all->pub.path, line > 0 ? line : 1, text);
}

void
config_warn(struct config_all *all, int line, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (all->n_warnings == CONFIG_WARNINGS_MAX)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);	/* cut short is good enough */
	va_end(ap);
	all->warnings[all->n_warnings] =
	    arena_printf(&all->arena, "%s:%d: %s", all->pub.path, line > 0 ? line : 1, text);
	all->n_warnings += all->warnings[all->n_warnings] != NULL;
}

int
config_add_file(struct config_all *all, const char *path, bool secret, int line, struct err *err)
{
	struct config_file *grown, *file;
	struct slice bytes;
	struct err why = { 0 };

	if (config_file(&all->pub, path, &bytes))
		return 0;
	if (secret && !config_source_secrets(all->src) && !config_source_has(all->src, path))
		return 0;	/* held back from this role: it has no use for it */
	if (config_source_read(all->src, path, &bytes, &why) < 0)
		return config_fail(all, err, line, "%s", why.msg);
	grown = arena_alloc(&all->arena, (all->pub.n_files + 1) * sizeof(*grown));
	if (grown == NULL)
		return config_fail(all, err, line, "too many files");
	if (all->pub.n_files > 0)
		memcpy(grown, all->pub.files, all->pub.n_files * sizeof(*grown));
	file = &grown[all->pub.n_files++];
	file->path = arena_copy(&all->arena, slice_str(path)).p;
	file->bytes = bytes;
	file->secret = secret;
	all->pub.files = grown;
	return 0;
}

int
config_add_watched(struct config_all *all, const char *path, bool secret, int line, struct err *err)
{
	if (config_add_file(all, path, secret, line, err) < 0)
		return -1;
	for (size_t i = 0; i < all->pub.n_files; i++)
		if (strcmp(all->pub.files[i].path, path) == 0)
			all->pub.files[i].watched = true;
	return 0;
}

int
config_add_outbound(struct config_all *all, const char *path, int line, struct err *err)
{
	if (config_source_is_open(all->src, path))
		return config_fail(all, err, line,
		    "%s can be read by others than its owner: chmod 600 %s", path, path);
	if (config_add_file(all, path, true, line, err) < 0)
		return -1;
	for (size_t i = 0; i < all->pub.n_files; i++)
		if (strcmp(all->pub.files[i].path, path) == 0)
			all->pub.files[i].outbound = true;
	return 0;
}

/* Tells generations apart: of two that differ in a byte, almost surely another number. */
static uint32_t
generation_of(const struct config *cfg)
{
	struct slice text;
	uint8_t digest[SHA256_DIGEST_LENGTH];
	uint32_t sum = 0;

	for (size_t i = 0; i <= cfg->n_files; i++) {
		uint32_t part;

		if (i < cfg->n_files && cfg->files[i].secret)
			continue;	/* so that roles without them agree on the number */
		text = i < cfg->n_files ? cfg->files[i].bytes : slice_str(cfg->path);
		SHA256((const uint8_t *)text.p, text.len, digest);
		memcpy(&part, digest, sizeof(part));
		sum = sum * 31 + part;
	}
	return sum;
}

struct config *
config_load(const char *path, struct config_source *src, struct err *err)
{
	struct config_all *all = src != NULL ? calloc(1, sizeof(*all)) : NULL;
	struct slice text;

	if (all == NULL) {
		config_source_free(src);
		err_set(err, ERR_NOMEM, "no memory for the config");
		return NULL;
	}
	all->refs = 1;
	all->src = src;
	all->arena = arena_of(CONFIG_BYTES_MAX);
	all->pub.path = arena_copy(&all->arena, slice_str(path)).p;
	if (config_source_read(src, path, &text, err) < 0)
		goto bad;
	if (config_add_file(all, path, false, 1, err) < 0 ||
	    config_load_values(all, text, err) < 0 || config_check(all, err) < 0)
		goto bad;
	all->pub.generation = config_source_generation(src);
	if (all->pub.generation == 0)
		all->pub.generation = generation_of(&all->pub);
	return &all->pub;
bad:
	config_unref(&all->pub);
	return NULL;
}

struct config *
config_renew(const struct config *cfg, struct err *err)
{
	struct config_source *src = config_source_renewed();

	for (size_t i = 0; i < cfg->n_files && src != NULL; i++) {
		const struct config_file *f = &cfg->files[i];

		if (!f->watched && config_source_keep(src, f->path, f->bytes) < 0) {
			config_source_free(src);
			src = NULL;
		}
	}
	return config_load(cfg->path, src, err);
}

bool
config_same_files(const struct config *a, const struct config *b)
{
	struct slice other;

	for (size_t i = 0; i < a->n_files; i++)
		if (!config_file(b, a->files[i].path, &other) ||
		    !slice_eq(a->files[i].bytes, other))
			return false;
	return a->n_files == b->n_files;
}

struct config *
config_ref(const struct config *cfg)
{
	struct config_all *all = all_of(cfg);

	all->refs++;
	return &all->pub;
}

void
config_unref(struct config *cfg)
{
	struct config_all *all;

	if (cfg == NULL)
		return;
	all = all_of(cfg);
	if (--all->refs > 0)
		return;
	config_source_free(all->src);
	arena_fini(&all->arena);
	free(all);
}

const char *
config_warning(const struct config *cfg, size_t n)
{
	const struct config_all *all = all_of(cfg);

	return n < all->n_warnings ? all->warnings[n] : NULL;
}

bool
config_file(const struct config *cfg, const char *path, struct slice *bytes)
{
	for (size_t i = 0; i < cfg->n_files; i++)
		if (strcmp(cfg->files[i].path, path) == 0) {
			*bytes = cfg->files[i].bytes;
			return true;
		}
	return false;
}

void
config_snapshot(const struct config *cfg, bool secrets, struct buf *out)
{
	config_source_begin_numbered(out, secrets, cfg->generation);
	for (size_t i = 0; i < cfg->n_files; i++)
		if (secrets || !cfg->files[i].secret || cfg->files[i].outbound)
			config_source_put(out, cfg->files[i].path, cfg->files[i].bytes);
}

/* "*", "*.example.org" or ".example.org" */
static bool
fits_pattern(const char *pattern, struct slice domain)
{
	bool below = slice_starts(slice_str(pattern), SLICE("*."));
	struct slice suffix = slice_drop(slice_str(pattern), below ? 1 : 0);

	if (strcmp(pattern, "*") == 0)
		return true;
	if (suffix.p[0] != '.' || slice_has(domain, '['))
		return false;
	return (domain.len > suffix.len && slice_iends(domain, suffix)) ||
	       (!below && slice_ieq(slice_drop(suffix, 1), domain));
}

/* FNV-1a; case does not count. */
static uint32_t
hash_domain(struct slice domain)
{
	uint32_t h = 2166136261u;

	for (size_t i = 0; i < domain.len; i++) {
		uint8_t c = (uint8_t)domain.p[i];

		h = (h ^ (c >= 'A' && c <= 'Z' ? c + 32u : c)) * 16777619u;
	}
	return h ^ h >> 15;
}

static bool
is_pattern(const struct config_route *route)
{
	return route->domain[0] == '*' || route->domain[0] == '.';
}

int
config_index_routes(struct config_all *all, struct err *err)
{
	struct config *cfg = &all->pub;
	size_t cap = 8;

	while (cap < 2 * cfg->n_routes)
		cap *= 2;
	cfg->by_domain = arena_alloc(&all->arena, cap * sizeof(uint32_t));
	cfg->patterns = arena_alloc(&all->arena, (cfg->n_routes + 1) * sizeof(uint32_t));
	if (cfg->by_domain == NULL || cfg->patterns == NULL)
		return err_set(err, ERR_LIMIT, "the config is too large");
	cfg->cap_by_domain = cap;
	for (uint32_t i = 0; i < cfg->n_routes; i++) {
		uint32_t at = hash_domain(slice_str(cfg->routes[i].domain));

		if (is_pattern(&cfg->routes[i])) {
			cfg->patterns[cfg->n_patterns++] = i;
			continue;
		}
		while (cfg->by_domain[at & (cap - 1)] != 0)
			at++;
		cfg->by_domain[at & (cap - 1)] = i + 1;
	}
	return 0;
}

const struct config_route *
config_route_for(const struct config *cfg, struct slice domain)
{
	const struct config_route *best = NULL;
	size_t best_len = 0;

	for (uint32_t at = hash_domain(domain), i;
	     cfg->cap_by_domain > 0 && (i = cfg->by_domain[at & (cfg->cap_by_domain - 1)]) != 0;
	     at++)
		if (slice_ieq(slice_str(cfg->routes[i - 1].domain), domain))
			return &cfg->routes[i - 1];
	for (size_t i = 0; i < cfg->n_patterns; i++) {
		const struct config_route *r = &cfg->routes[cfg->patterns[i]];

		if (fits_pattern(r->domain, domain) &&
		    (best == NULL || strlen(r->domain) > best_len)) {
			best = r;
			best_len = strlen(r->domain);
		}
	}
	return best;
}

/* The length of the longest pattern that fits, or 0. */
static size_t
longest_fit(const struct config_strings *patterns, struct slice name)
{
	size_t longest = 0;

	for (size_t i = 0; i < patterns->n; i++) {
		const char *pattern = patterns->v[i];
		size_t len = strlen(pattern);

		if (slice_ieq(slice_str(pattern), name))
			return SIZE_MAX;
		if (len > longest && fits_pattern(pattern, name))
			longest = len;
	}
	return longest;
}

const struct config_provider *
config_provider_for(const struct config *cfg, struct slice host, struct slice domain)
{
	const struct config_provider *best = NULL;
	size_t best_len = 0;

	for (size_t by = 0; by < 2 && best == NULL; by++) {
		for (size_t i = 0; i < cfg->n_providers; i++) {
			const struct config_provider *p = &cfg->providers[i];
			size_t len = by > 0 ? longest_fit(&p->hosts, host)
				     : domain.len > 0 ? longest_fit(&p->domains, domain) : 0;

			if (len > best_len) {
				best = p;
				best_len = len;
			}
		}
	}
	return best;
}

const struct config_policy *
config_policy_named(const struct config *cfg, struct slice name)
{
	for (size_t i = 0; i < cfg->n_policies; i++)
		if (slice_ieq(slice_str(cfg->policies[i].name), name))
			return &cfg->policies[i];
	return NULL;
}

bool
config_is_our_domain(const struct config *cfg, struct slice domain)
{
	for (size_t i = 0; i < cfg->domains.n; i++)
		if (slice_ieq(slice_str(cfg->domains.v[i]), domain))
			return true;
	return false;
}

const struct config_listener *
config_listener_named(const struct config *cfg, const char *name)
{
	for (size_t i = 0; i < cfg->n_listeners; i++)
		if (slice_ieq(slice_str(cfg->listeners[i].name), slice_str(name)))
			return &cfg->listeners[i];
	return NULL;
}

bool
config_is_proxy(const struct config_listener *listener, struct slice addr)
{
	if (addr.len == 0)
		return listener->n_proxy > 0;	/* who may open the socket is the admin's choice */
	for (size_t i = 0; i < listener->n_proxy; i++)
		if (cidr_has(&listener->proxy[i], addr))
			return true;
	return false;
}

bool
config_may_relay(const struct config *cfg, const uint8_t sha256[static 32])
{
	for (size_t i = 0; i < cfg->tls.n_relay_fingerprints; i++)
		if (memcmp(cfg->tls.relay_fingerprints[i], sha256, 32) == 0)
			return true;
	return false;
}

bool
config_in_networks(const struct config *cfg, struct slice addr)
{
	return cidr_any(cfg->networks, cfg->n_networks, addr);
}

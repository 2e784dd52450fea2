/* relayd/intake/generation.c - all that one config means to intake. */
#include "relayd/intake/generation.h"

#include "relayd/auth/senders.h"
#include "relayd/mail/envelope.h"
#include "relayd/spool/spool.h"

#include <stdlib.h>

#define GENERATION_TEXTS_MAX (1u << 20)

static struct smtp_service
release_service(const struct config *cfg)
{
	/* It was let in once, when the limits may have been wider. */
	return (struct smtp_service){
		.kind = SMTP_KIND_RELEASE,
		.hostname = cfg->hostname,
		.max_bytes = SPOOL_BYTES_MAX,
		.max_rcpts = ENVELOPE_RCPTS_MAX,
		.x_relayd = true,
		.extensions =
		    SMTP_EXT_CHUNKING | SMTP_EXT_DSN | SMTP_EXT_UTF8 | SMTP_EXT_REQUIRETLS,
	};
}

static struct smtp_service
smtp_service(const struct generation *gen, const struct config_listener *conf)
{
	bool tls = gen->tls != NULL && conf->tls != CONFIG_TLS_OFF;

	return (struct smtp_service){
		.kind = conf->lmtp ? SMTP_KIND_LMTP : SMTP_KIND_SMTP,
		.hostname = gen->cfg->hostname,
		.help = gen->cfg->help,
		.max_bytes =
		    conf->message_size > 0 ? conf->message_size : gen->cfg->limits.message_size,
		.max_rcpts = conf->recipients > 0 ? conf->recipients : gen->cfg->limits.recipients,
		.starttls = tls && conf->tls != CONFIG_TLS_IMPLICIT,
		.tls_required = conf->tls == CONFIG_TLS_REQUIRED,
		.auth = (tls || conf->mechanisms.without_tls != 0) && conf->auth_required &&
			gen->users != NULL,
		.auth_required = conf->auth_required,
		/* LMTP answers for each recipient anyway */
		.extensions = conf->lmtp ? SMTP_EXT_ALL & ~(unsigned)SMTP_EXT_PRDR : SMTP_EXT_ALL,
		.max_mails = gen->cfg->limits.messages,
		.session_s =
		    gen->cfg->limits.session_s < UINT32_MAX ? gen->cfg->limits.session_s : 0,
		.rate_bytes = gen->cfg->limits.data_rate.bytes,
		.rate_s = gen->cfg->limits.data_rate.seconds,
	};
}

/* What limits { } says, and what the listener says instead.  Clients that it has a limit of its own
 * for are counted apart; all connections together stay within limits { connections }. */
static void
set_limits(
    const struct config *cfg, const struct config_listener *conf, struct generation_listener *to)
{
	to->limits.open = cfg->limits.connections;
	to->limits.listener =
	    conf != NULL && conf->connections > 0 ? conf->connections : UINT32_MAX;
	to->limits.ip = cfg->limits.connections_per_ip;
	to->limits.net = cfg->limits.connections_per_net;
	to->apart = to->nets_apart = "";
	if (conf != NULL && conf->connections_per_ip > 0) {
		to->limits.ip = conf->connections_per_ip;
		to->apart = conf->name;
		if (to->limits.net < to->limits.ip)
			to->limits.net = to->limits.ip; /* one address may use what it has */
	}
	if (conf != NULL && conf->connections_per_net > 0) {
		to->limits.net = conf->connections_per_net;
		to->nets_apart = conf->name;
	}
}

static void
describe_named(struct generation *gen, const struct config_listener *conf,
    struct generation_listener *to, const struct role *role)
{
	to->conf = conf;
	to->service = smtp_service(gen, conf);
	to->implicit = conf->tls == CONFIG_TLS_IMPLICIT;
	to->submission = conf->auth_required;
	to->strict_eight_bit = conf->strict_eight_bit;
	to->mechanisms = conf->mechanisms;
	to->shared = shared_listener(role->shared, conf->name);
	if (conf->banner != NULL)
		to->greeting = arena_printf(&gen->texts, "%s %s", gen->cfg->hostname, conf->banner);
}

static void
describe_listener(struct generation *gen, const struct role *role, const struct role_listener *from,
    const struct generation_listener *old, struct generation_listener *to)
{
	const struct config_listener *conf =
	    from->kind == ROLE_LISTENER_SMTP ? config_listener_named(gen->cfg, from->name) : NULL;

	if (from->kind == ROLE_LISTENER_RELEASE) {
		to->service = release_service(gen->cfg);
	} else if (conf != NULL) {
		describe_named(gen, conf, to, role);
	} else if (old != NULL) {
		*to = *old;
		to->conf = NULL;
		to->greeting = NULL;
		to->service.hostname = gen->cfg->hostname;
		to->service.help = gen->cfg->help;
		to->service.starttls = to->service.starttls && gen->tls != NULL;
		to->service.auth = to->service.auth && gen->users != NULL;
	}
	set_limits(gen->cfg, conf, to);
}

static int
describe_listeners(
    struct generation *gen, const struct role *role, const struct generation *old, struct err *err)
{
	gen->listeners = calloc(role->n_listeners + 1, sizeof(*gen->listeners));
	if (gen->listeners == NULL)
		return err_set(err, ERR_NOMEM, "no memory for the listeners");
	gen->n_listeners = role->n_listeners;
	for (size_t i = 0; i < role->n_listeners; i++)
		describe_listener(gen, role, &role->listeners[i],
		    old != NULL ? &old->listeners[i] : NULL, &gen->listeners[i]);
	return 0;
}

static int
read_users(struct generation *gen, struct err *err)
{
	struct slice bytes;

	if (gen->cfg->users == NULL || !config_file(gen->cfg, gen->cfg->users, &bytes))
		return 0; /* no file, no logins */
	gen->users = users_parse(bytes, gen->cfg->users, err);
	return gen->users != NULL ? 0 : -1;
}

static int
read_senders(struct generation *gen, struct err *err)
{
	const char *path = gen->cfg->sasl.senders;
	struct slice bytes;

	if (path == NULL)
		return 0;
	if (!config_file(gen->cfg, path, &bytes))
		return err_set(err, ERR_CONFIG, "%s was not read", path);
	gen->senders = senders_parse(bytes, path, err);
	return gen->senders != NULL ? 0 : -1;
}

static int
open_directories(struct generation *gen, const struct role *role, struct err *err)
{
	const struct config *cfg = gen->cfg;

	gen->directories = calloc(cfg->n_ldaps + 1, sizeof(struct directory *));
	if (gen->directories == NULL)
		return err_set(err, ERR_NOMEM, "no memory for the directories");
	for (size_t i = 0; i < cfg->n_ldaps; i++) {
		gen->directories[i] = directory_open(role->loop, cfg, &cfg->ldaps[i], err);
		if (gen->directories[i] == NULL)
			return -1;
	}
	return 0;
}

static int
read_tls(struct generation *gen, struct err *err)
{
	struct err why = { 0 };

	gen->tls = tls_server_of(gen->cfg, &why);
	if (gen->tls != NULL || why.code == ERR_NOT_FOUND)
		return 0;
	*err = why;
	return -1;
}

struct generation *
generation_new(const struct role *role, const struct generation *old,
    struct recipients_tables *recipients, struct err *err)
{
	struct generation *gen = calloc(1, sizeof(*gen));

	if (gen == NULL) {
		recipients_tables_unref(recipients);
		err_set(err, ERR_NOMEM, "no memory for a config");
		return NULL;
	}
	gen->refs = 1;
	gen->texts = arena_of(GENERATION_TEXTS_MAX);
	gen->cfg = config_ref(role->config);
	gen->recipients = recipients;
	for (size_t i = 0; i < gen->cfg->n_routes; i++)
		gen->wants_probe =
		    gen->wants_probe || gen->cfg->routes[i].recipients == CONFIG_RECIPIENTS_PROBE;
	gen->pipeline = pipeline_new(gen->cfg, role_filters, err);
	if (gen->pipeline == NULL || read_tls(gen, err) < 0 || read_users(gen, err) < 0 ||
	    read_senders(gen, err) < 0 || open_directories(gen, role, err) < 0 ||
	    describe_listeners(gen, role, old, err) < 0) {
		generation_unref(gen);
		return NULL;
	}
	return gen;
}

struct generation *
generation_ref(struct generation *gen)
{
	gen->refs++;
	return gen;
}

void
generation_unref(struct generation *gen)
{
	if (gen == NULL || --gen->refs > 0)
		return;
	recipients_tables_unref(gen->recipients);
	for (size_t i = 0; gen->directories != NULL && i < gen->cfg->n_ldaps; i++)
		directory_close(gen->directories[i]);
	free(gen->directories);
	free(gen->listeners);
	arena_fini(&gen->texts);
	users_free(gen->users);
	senders_free(gen->senders);
	tls_server_unref(gen->tls);
	if (gen->pipeline != NULL)
		pipeline_unref(gen->pipeline);
	config_unref(gen->cfg);
	free(gen);
}

const struct recipients *
generation_recipients(const struct generation *gen, const struct config_route *route)
{
	size_t i = (size_t)(route - gen->cfg->routes);

	return i < gen->cfg->n_routes ? gen->recipients->v[i] : NULL;
}

struct directory *
generation_directory(const struct generation *gen, const struct config_route *route)
{
	return route->recipients == CONFIG_RECIPIENTS_LDAP
		   ? gen->directories[route->recipients_ldap - gen->cfg->ldaps]
		   : NULL;
}

/* relayd/config_try.c - builds what a config describes, to find what it alone does not show. */
#include "relayd/config_try.h"

#include "relayd/auth/senders.h"
#include "relayd/auth/users.h"
#include "relayd/delivery/route.h"
#include "relayd/intake/recipients_load.h"
#include "relayd/net/listener.h"
#include "relayd/net/tls.h"
#include "relayd/pipeline/pipeline.h"
#include "relayd/spool/spooldir.h"
#include "relayd/supervisor/role.h"

#include <stdlib.h>

struct addresses {
	const struct config_strings *list;
	int line;
};

static bool
stands_before(const struct addresses *lists, size_t list, size_t index)
{
	const char *address = lists[list].list->v[index];

	for (size_t i = 0; i <= list; i++)
		for (size_t j = 0; j < (i < list ? lists[i].list->n : index); j++)
			if (strcmp(lists[i].list->v[j], address) == 0)
				return true;
	return false;
}

/* What is to listen: of the right form, and each address once. */
static int
check_addresses(const struct config *cfg, const struct addresses *lists, size_t n, struct err *err)
{
	struct err why = { 0 };

	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < lists[i].list->n; j++) {
			if (listener_check(lists[i].list->v[j], &why) < 0)
				return err_set(err, ERR_CONFIG, "%s:%d: %s", cfg->path,
				    lists[i].line, why.msg);
			if (stands_before(lists, i, j))
				return err_set(err, ERR_CONFIG, "%s:%d: %s is listened on already",
				    cfg->path, lists[i].line, lists[i].list->v[j]);
		}
	return 0;
}

static int
check_listeners(const struct config *cfg, struct err *err)
{
	const struct config_strings *review[] = { &cfg->review.imap, &cfg->review.imaps,
		&cfg->review.pop3, &cfg->review.pop3s, &cfg->review.http };
	struct addresses *lists = calloc(cfg->n_listeners + ARRAY_LEN(review), sizeof(*lists));
	size_t n = 0;
	int rc;

	if (lists == NULL)
		return err_set(err, ERR_NOMEM, "out of memory");
	for (size_t i = 0; i < cfg->n_listeners; i++)
		lists[n++] =
		    (struct addresses){ &cfg->listeners[i].address, cfg->listeners[i].line };
	for (size_t i = 0; i < ARRAY_LEN(review); i++)
		lists[n++] = (struct addresses){ review[i], cfg->review.line };
	rc = check_addresses(cfg, lists, n, err);
	free(lists);
	return rc;
}

/* More than the config saw: chains, and what OpenSSL thinks of a key. */
static int
check_tls(const struct config *cfg, struct err *err)
{
	struct err why = { 0 };
	struct tls_server *tls = tls_server_of(cfg, &why);

	if (tls == NULL && why.code != ERR_NOT_FOUND) {
		*err = why;
		return -1;
	}
	tls_server_unref(tls);
	return 0;
}

/* Users and their reverse-paths; without the files, where they are not to be read, nothing. */
static int
check_logins(const struct config *cfg, struct err *err)
{
	struct slice bytes;
	struct users *users;
	struct senders *senders;

	if (cfg->users != NULL && config_file(cfg, cfg->users, &bytes)) {
		users = users_parse(bytes, cfg->users, err);
		if (users == NULL)
			return -1;
		users_free(users);
	}
	if (cfg->sasl.senders != NULL && config_file(cfg, cfg->sasl.senders, &bytes)) {
		senders = senders_parse(bytes, cfg->sasl.senders, err);
		if (senders == NULL)
			return -1;
		senders_free(senders);
	}
	return 0;
}

/* One line before anything starts, where each role would fail again and again. */
static int
check_spool(const struct config *cfg, struct err *err)
{
	struct spooldir dir;
	struct err why = { 0 };
	int rc = spooldir_open_readonly(&dir, cfg->spool, &why);

	spooldir_close(&dir);
	if (rc == 0 || (why.code != ERR_VERSION && why.code != ERR_DAMAGED))
		return 0; /* there is none yet, or it is not ours to look into */
	return err_set(err, ERR_CONFIG, "%s: spool: %s", cfg->path, why.msg);
}

int
config_try(const struct config *cfg, void (*warn)(const char *text), struct err *err)
{
	struct recipients_tables *recipients;
	struct routes *routes;
	struct pipeline *pl;

	if (check_listeners(cfg, err) < 0 || check_tls(cfg, err) < 0 ||
	    check_logins(cfg, err) < 0 || check_spool(cfg, err) < 0)
		return -1;
	recipients = recipients_tables_new(cfg, err);
	if (recipients == NULL)
		return -1;
	recipients_tables_unref(recipients);
	routes = routes_new(cfg, err);
	if (routes == NULL)
		return -1;
	routes_free(routes);
	pl = pipeline_new(cfg, role_filters, err);
	if (pl == NULL)
		return -1;
	for (size_t i = 0; pipeline_warning(pl, i) != NULL; i++)
		warn(pipeline_warning(pl, i));
	pipeline_unref(pl);
	return 0;
}

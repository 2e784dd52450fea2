/* relayd/main.c - the daemon: arguments, then the supervisor or one of its roles. */
#include "filters/builtin.h"
#include "relayd/auth/introspect.h"
#include "relayd/core/config.h"
#include "relayd/delivery/route.h"
#include "relayd/intake/recipients_load.h"
#include "relayd/net/listener.h"
#include "relayd/net/tls.h"
#include "relayd/pipeline/pipeline.h"
#include "relayd/supervisor/check.h"
#include "relayd/supervisor/role.h"
#include "relayd/supervisor/supervisor.h"
#include "relayd/supervisor/upgrade.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CONFIG_PATH "/etc/relayd/relayd.conf"

enum { OPT_ROLE = 256, OPT_INDEX, OPT_UPGRADE, OPT_TAKES };

static const char usage[] =
    "usage: relayd [-c FILE] [-n] [-V]\n"
    "  -c FILE  read this config (" CONFIG_PATH ")\n"
    "  -n       check the config and exit\n"
    "  -V       print the version and exit\n";

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
				return err_set(err, ERR_CONFIG, "%s:%d: %s", cfg->path, lists[i].line, why.msg);
			if (stands_before(lists, i, j))
				return err_set(err, ERR_CONFIG, "%s:%d: %s is listened on already",
				    cfg->path, lists[i].line, lists[i].list->v[j]);
		}
	return 0;
}

static int
check_listeners(const struct config *cfg, struct err *err)
{
	const struct config_strings *review[] = { &cfg->review.imap, &cfg->review.imaps, &cfg->review.pop3,
		&cfg->review.pop3s, &cfg->review.http };
	struct addresses *lists = calloc(cfg->n_listeners + ARRAY_LEN(review), sizeof(*lists));
	size_t n = 0;
	int rc;

	if (lists == NULL)
		return err_set(err, ERR_NOMEM, "out of memory");
	for (size_t i = 0; i < cfg->n_listeners; i++)
		lists[n++] = (struct addresses){ &cfg->listeners[i].address, cfg->listeners[i].line };
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

/* Builds what a config describes, beyond what config_load() could see. */
static int
check(const struct config *cfg, void (*warn)(const char *text), struct err *err)
{
	struct recipients_tables *recipients;
	struct routes *routes;
	struct pipeline *pl;

	if (check_listeners(cfg, err) < 0 || check_tls(cfg, err) < 0)
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

static void
print_warning(const char *text)
{
	fprintf(stderr, "%s (warning)\n", text);
}

/* relayd -n: nothing but the files of the config is touched, and no privilege is used on a module. */
static int
check_only(const char *path)
{
	struct err err = { 0 };
	struct config *cfg = config_load(path, config_source_disk(), &err);
	int rc = -1;

	if (cfg != NULL) {
		for (size_t i = 0; config_warning(cfg, i) != NULL; i++)
			print_warning(config_warning(cfg, i));
		rc = check_unprivileged(cfg, check, print_warning, &err);
	}
	if (rc < 0)
		fprintf(stderr, "%s\n", err.msg);
	config_unref(cfg);
	return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int
run_role(const char *name, const char *index)
{
	static const struct {
		const char *name;
		enum role_kind kind;
		const struct role_ops *ops;
	} roles[] = {
		{ "intake", ROLE_INTAKE, &intake_role },
		{ "delivery", ROLE_DELIVERY, &delivery_role },
		{ "review", ROLE_REVIEW, &review_role },
	};

	for (size_t i = 0; i < ARRAY_LEN(roles); i++)
		if (strcmp(roles[i].name, name) == 0)
			return role_run(roles[i].kind, (unsigned)strtoul(index, NULL, 10), roles[i].ops);
	fprintf(stderr, "relayd: no role %s\n", name);
	return EXIT_FAILURE;
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "role", required_argument, NULL, OPT_ROLE },
		{ "index", required_argument, NULL, OPT_INDEX },
		{ "upgrade", required_argument, NULL, OPT_UPGRADE },
		{ "takes", required_argument, NULL, OPT_TAKES },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	const char *path = CONFIG_PATH, *role = NULL, *index = "0";
	bool only_check = false;
	int opt, upgrade_fd = -1;

	if (argc == 4 && strcmp(argv[1], INTROSPECT_AGENT_OPTION) == 0)
		introspect_agent(
		    INTROSPECT_AGENT_FD, argv[2], (unsigned)strtoul(argv[3], NULL, 10));
	role_filters = filters_builtin;
	while ((opt = getopt_long(argc, argv, "c:nVh", options, NULL)) != -1) {
		switch (opt) {
		case 'c':
			path = optarg;
			break;
		case 'n':
			only_check = true;
			break;
		case 'V':
			printf("relayd %s\n", RELAYD_VERSION);
			return EXIT_SUCCESS;
		case 'h':
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		case OPT_ROLE:
			role = optarg;
			break;
		case OPT_INDEX:
			index = optarg;
			break;
		case OPT_UPGRADE:
			upgrade_fd = (int)strtol(optarg, NULL, 10);	/* checked by what is behind it */
			break;
		case OPT_TAKES:
			if (strtol(optarg, NULL, 10) == UPGRADE_VERSION)
				break;
			fprintf(stderr, "relayd %s does not take over from this one: restart\n",
			    RELAYD_VERSION);
			return EXIT_FAILURE;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind < argc) {
		fputs(usage, stderr);
		return 2;
	}
	if (role != NULL)
		return run_role(role, index);
	return only_check ? check_only(path) : supervisor_run(path, check, upgrade_fd);
}

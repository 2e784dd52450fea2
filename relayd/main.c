/* relayd/main.c - the daemon: arguments, then the supervisor or one of its roles. */
#include "filters/builtin.h"
#include "relayd/auth/introspect.h"
#include "relayd/config_try.h"
#include "relayd/core/config.h"
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

static void
print_warning(const char *text)
{
	fprintf(stderr, "%s (warning)\n", text);
}

/* relayd -n: nothing but the files of the config is touched, and no privilege is used on a
 * module. */
static int
check_only(const char *path)
{
	struct err err = { 0 };
	struct config *cfg = config_load(path, config_source_disk(), &err);
	int rc = -1;

	if (cfg != NULL) {
		for (size_t i = 0; config_warning(cfg, i) != NULL; i++)
			print_warning(config_warning(cfg, i));
		rc = check_unprivileged(cfg, config_try, print_warning, &err);
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
			return role_run(
			    roles[i].kind, (unsigned)strtoul(index, NULL, 10), roles[i].ops);
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
			upgrade_fd =
			    (int)strtol(optarg, NULL, 10); /* checked by what is behind it */
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
		fprintf(stderr, "relayd: %s: only options are taken\n%s", argv[optind], usage);
		return 2;
	}
	if (role != NULL)
		return run_role(role, index);
	return only_check ? check_only(path) : supervisor_run(path, config_try, upgrade_fd);
}

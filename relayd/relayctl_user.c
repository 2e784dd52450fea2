/* relayd/relayctl_user.c - relayctl user: the users file, and a reload so that it counts at once. */
#include "relayd/auth/password.h"
#include "relayd/auth/users.h"
#include "relayd/core/config_source.h"
#include "relayd/net/control.h"
#include "relayd/relayctl.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#define LINE_MAX_BYTES (PASSWORD_MAX + 2)

static const char user_usage[] =
    "user add NAME [--scope S] [--relay] | passwd NAME | list | remove NAME";

/* One line, without echo on a terminal. */
static int
read_line(const char *prompt, char *out, size_t size)
{
	bool terminal = isatty(STDIN_FILENO);
	struct termios was, quiet;
	char *got;

	if (terminal && tcgetattr(STDIN_FILENO, &was) == 0) {
		fputs(prompt, stderr);
		quiet = was;
		quiet.c_lflag &= ~(tcflag_t)ECHO;
		(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);	/* it echoes: seen at once */
	}
	got = fgets(out, (int)size, stdin);
	if (terminal) {
		(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &was);	/* as above */
		fputc('\n', stderr);
	}
	if (got == NULL || strchr(out, '\n') == NULL)
		return got != NULL && feof(stdin) ? 0 : -1;
	out[strcspn(out, "\r\n")] = '\0';
	return 0;
}

static int
read_password(char *out, size_t size)
{
	char again[LINE_MAX_BYTES];
	int rc = 0;

	if (read_line("Password: ", out, size) < 0 || out[0] == '\0')
		return ctl_fail("no password on standard input (one line, at most %d bytes)",
		    PASSWORD_MAX);
	if (isatty(STDIN_FILENO) &&
	    (read_line("Again: ", again, sizeof(again)) < 0 || strcmp(out, again) != 0))
		rc = ctl_fail("the two are not the same");
	explicit_bzero(again, sizeof(again));
	return rc;
}

/* A running relayd takes the change over at once; without one there is nothing to tell. */
static void
take_over(struct ctl *ctl)
{
	char path[ROLE_PATH_BYTES];
	struct err err = { 0 };
	struct control_client *client;
	json_t *line;
	int rc;

	role_control_path(ctl->cfg, "control", path);
	client = control_connect(path, CTL_TIMEOUT_MS, &err);
	if (client == NULL)
		return;
	rc = control_send(client, json_pack("{s:s}", "op", "reload"), &err);
	while (rc >= 0 && (rc = control_next(client, &line, &err)) > 0)
		json_decref(line);
	if (rc < 0)
		fprintf(stderr, "relayctl: the file is changed, but relayd did not reload: %s\n", err.msg);
	control_disconnect(client);
}

static int
change(struct ctl *ctl, enum users_change what, struct user *user)
{
	char password[LINE_MAX_BYTES], hash[PASSWORD_HASH_MAX];
	struct err err = { 0 };
	int rc = CTL_DONE;

	if (what != USERS_REMOVE) {
		if (read_password(password, sizeof(password)) != 0)
			return CTL_FAILED;
		if (password_hash(slice_str(password), hash, &err) < 0)
			rc = ctl_fail("%s", err.msg);
		explicit_bzero(password, sizeof(password));
		user->hash = slice_str(hash);
	}
	if (rc == CTL_DONE && users_edit(ctl->cfg->users, what, user, &err) < 0)
		rc = ctl_fail("%s", err.msg);
	if (rc == CTL_DONE)
		take_over(ctl);
	return rc;
}

static int
list(struct ctl *ctl)
{
	struct err err = { 0 };
	struct config_source *src = config_source_disk();
	struct slice bytes;
	struct users *users = NULL;

	if (src != NULL && config_source_read(src, ctl->cfg->users, &bytes, &err) == 0)
		users = users_parse(bytes, ctl->cfg->users, &err);
	config_source_free(src);
	if (users == NULL)
		return ctl_fail("%s", err.msg);
	for (size_t i = 0; i < users_count(users); i++) {
		const struct user *u = users_at(users, i);

		if (ctl->json) {
			json_t *line = json_pack("{s:s%, s:s%, s:b}", "name", u->name.p, u->name.len, "scope",
			    u->scope.p, u->scope.len, "relay", u->relay);

			ctl_print_json(line);
			json_decref(line);
			continue;
		}
		printf("%-24.*s %-30.*s %s\n", SLICE_FMT(u->name), SLICE_FMT(u->scope),
		    u->relay ? "relay" : "");
	}
	users_free(users);
	return CTL_DONE;
}

/* add NAME [--scope S] [--relay] */
static int
add(struct ctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {
		{ "scope", required_argument, NULL, 's' },
		{ "relay", no_argument, NULL, 'r' },
		{ 0 },
	};
	struct user user = { .scope = SLICE("") };
	int opt;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 's')
			user.scope = slice_str(optarg);
		else if (opt == 'r')
			user.relay = true;
		else
			return CTL_USAGE;
	}
	if (optind + 1 != argc)
		return ctl_usage(user_usage);
	user.name = slice_str(argv[optind]);
	if (!users_name_is_good(user.name))
		return ctl_fail("%s: a name is 1 to %d printable characters, none of them \":\", \"#\" or a "
		    "space", argv[optind], USERS_NAME_MAX);
	if (user.scope.len > 0 && !users_scope_is_good(user.scope))
		return ctl_fail("%.*s: a scope is \"*\", a domain or an address", SLICE_FMT(user.scope));
	return change(ctl, USERS_ADD, &user);
}

int
ctl_user(struct ctl *ctl, int argc, char **argv)
{
	struct user user = { 0 };
	const char *verb = argc > 1 ? argv[1] : "";

	if (strcmp(verb, "add") != 0 && strcmp(verb, "passwd") != 0 && strcmp(verb, "list") != 0 &&
	    strcmp(verb, "remove") != 0)
		return ctl_usage(user_usage);
	if (ctl_config(ctl) == NULL)
		return CTL_FAILED;
	if (ctl->cfg->users == NULL)
		return ctl_fail("%s names no users file: add users = /etc/relayd/users",
		    ctl->config_path);
	if (strcmp(verb, "add") == 0)
		return add(ctl, argc - 1, argv + 1);
	if (strcmp(verb, "list") == 0)
		return argc == 2 ? list(ctl) : ctl_usage(user_usage);
	if (argc != 3)
		return ctl_usage(user_usage);
	user.name = slice_str(argv[2]);
	return change(ctl, strcmp(verb, "passwd") == 0 ? USERS_PASSWD : USERS_REMOVE, &user);
}

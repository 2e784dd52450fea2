/* relayd/relayctl_user.c - relayctl user: the users file, and a reload so that it counts at
 * once. */
#include "relayd/auth/password.h"
#include "relayd/auth/users.h"
#include "relayd/core/config_source.h"
#include "relayd/net/control.h"
#include "relayd/relayctl.h"

#include <errno.h>
#include <getopt.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#define LINE_MAX_BYTES (PASSWORD_MAX + 2)

static const char user_usage[] = "user add NAME [--scope S] [--relay] [--cram-md5] | passwd NAME "
				 "[--cram-md5] | list | remove NAME";

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
		(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet); /* it echoes: seen at once */
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
		fprintf(stderr,
		    "relayctl: the file is changed, but the reload of relayd failed: %s\n",
		    err.msg);
	control_disconnect(client);
}

/* The crypt(3) hash and the SCRAM verifiers; with cram_md5 the password too, which that needs. */
static int
make_secrets(struct slice password, bool cram_md5, char hash[static PASSWORD_HASH_MAX],
    struct buf *verifiers, struct err *err)
{
	struct err why = { 0 };
	char *room;

	if (password_hash(password, hash, err) < 0)
		return -1;
	if (scram_make(password, verifiers, &why) < 0) {
		if (why.code != ERR_FORMAT) {
			*err = why;
			return -1;
		}
		buf_reset(verifiers);
		fprintf(stderr, "relayctl: no SCRAM for this user: %s\n", why.msg);
	}
	if (!cram_md5)
		return 0;
	if (verifiers->len > 0)
		buf_putc(verifiers, ' ');
	buf_puts(verifiers, "CRAM-MD5$");
	room = buf_room(verifiers, 4 * ((password.len + 2) / 3) + 1);
	if (room == NULL)
		return err_set(err, ERR_LIMIT, "the password is too long");
	buf_commit(verifiers, (size_t)EVP_EncodeBlock((unsigned char *)room,
	    (const unsigned char *)password.p, (int)password.len));
	return 0;
}

static int
change(struct ctl *ctl, enum users_change what, struct user *user, bool cram_md5)
{
	char password[LINE_MAX_BYTES], hash[PASSWORD_HASH_MAX], storage[USERS_VERIFIERS_MAX];
	struct buf verifiers = buf_over(storage, sizeof(storage));
	struct err err = { 0 };
	int rc = CTL_DONE;

	if (what != USERS_REMOVE) {
		if (read_password(password, sizeof(password)) != 0)
			return CTL_FAILED;
		if (make_secrets(slice_str(password), cram_md5, hash, &verifiers, &err) < 0)
			rc = ctl_fail("%s", err.msg);
		explicit_bzero(password, sizeof(password));
		user->hash = slice_str(rc == CTL_DONE ? hash : "");
		user->verifiers = buf_slice(&verifiers);
	}
	if (rc == CTL_DONE && users_edit(ctl->cfg->users, what, user, &err) < 0)
		rc = ctl_fail("%s", err.msg);
	explicit_bzero(storage, sizeof(storage));
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
			json_t *line = json_pack("{s:s%, s:s%, s:b}", "name", u->name.p,
			    u->name.len, "scope", u->scope.p, u->scope.len, "relay", u->relay);

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

/* add NAME [--scope S] [--relay] [--cram-md5], passwd NAME [--cram-md5], remove NAME */
static int
edit(struct ctl *ctl, enum users_change what, int argc, char **argv)
{
	static const struct option options[] = {
		{ "cram-md5", no_argument, NULL, 'c' },
		{ "scope", required_argument, NULL, 's' },
		{ "relay", no_argument, NULL, 'r' },
		{ 0 },
	};
	struct user user = { .scope = SLICE(""), .verifiers = SLICE("") };
	bool cram_md5 = false;
	int opt;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 's' && what == USERS_ADD)
			user.scope = slice_str(optarg);
		else if (opt == 'r' && what == USERS_ADD)
			user.relay = true;
		else if (opt == 'c' && what != USERS_REMOVE)
			cram_md5 = true;
		else
			return ctl_usage(user_usage);
	}
	if (optind + 1 != argc)
		return ctl_wrong(user_usage, "%s: whom?  One name", argv[0]);
	user.name = slice_str(argv[optind]);
	if (!users_name_is_good(user.name))
		return ctl_fail(
		    "%s: a name is 1 to %d printable characters, none of them \":\", \"#\" or a "
		    "space",
		    argv[optind], USERS_NAME_MAX);
	if (user.scope.len > 0 && !users_scope_is_good(user.scope))
		return ctl_fail(
		    "%.*s: a scope is \"*\", a domain or an address", SLICE_FMT(user.scope));
	return change(ctl, what, &user, cram_md5);
}

int
ctl_user(struct ctl *ctl, int argc, char **argv)
{
	static const struct {
		const char *verb;
		enum users_change what;
	} edits[] = { { "add", USERS_ADD }, { "passwd", USERS_PASSWD },
		{ "remove", USERS_REMOVE } };
	const char *verb = argc > 1 ? argv[1] : "";
	size_t i = 0;

	while (i < ARRAY_LEN(edits) && strcmp(verb, edits[i].verb) != 0)
		i++;
	if (i == ARRAY_LEN(edits) && (strcmp(verb, "list") != 0 || argc != 2))
		return argc > 1 ? ctl_wrong(user_usage, "user has no %s%s", verb,
		    strcmp(verb, "list") == 0 ? " with an argument" : "") : ctl_usage(user_usage);
	if (ctl_config(ctl) == NULL)
		return CTL_FAILED;
	if (ctl->cfg->users == NULL)
		return ctl_fail("%s names no users file: add users = /etc/relayd/users",
		    ctl->config_path);
	return i < ARRAY_LEN(edits) ? edit(ctl, edits[i].what, argc - 1, argv + 1) : list(ctl);
}

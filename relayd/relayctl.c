/* relayd/relayctl.c - the admin's tool: options, the table of commands, and what they share. */
#include "relayd/relayctl.h"

#include "filters/builtin.h"
#include "relayd/core/id.h"
#include "relayd/mail/charset.h"
#include "relayd/net/control.h"

#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define CONFIG_PATH "/etc/relayd/relayd.conf"

static const struct {
	const char *name;
	ctl_command run;
	const char *help;
} commands[] = {
	{ "status", ctl_status, "roles, uptime, connections, queue depth" },
	{ "top", ctl_top,
	    "[--once] [--limit N]: the roles and the next hops with most to do, live" },
	{ "check", ctl_check,
	    "config, DNS, certificates, directories, upstreams: what would fail" },
	{ "reload", ctl_reload, "take the config over" },
	{ "upgrade", ctl_upgrade,
	    "go on as the relayd that is installed now, without a refused connection" },
	{ "stop", ctl_stop, "finish what is short, and end" },
	{ "queue", ctl_queue,
	    "list | show | body | retry | hold | unhold | drop | bounce | reroute | flush" },
	{ "trace", ctl_trace, "ID | --from A | --to A | --ip I: what happened to it" },
	{ "scan", ctl_scan,
	    "[--ip I] [--helo H] [--from A] [--to A] FILE|DIR...: run the filters" },
	{ "quarantine", ctl_quarantine, "list | show ID | release ID | drop ID" },
	{ "spool", ctl_spool, "check | salvage [--all] DIR | dump [SEGMENT]: what is on the disk" },
	{ "user", ctl_user, "add NAME [--scope S] [--relay] | passwd NAME | list | remove NAME" },
	{ "metrics", ctl_metrics, "all counters in Prometheus text format" },
};

static void
print_usage(FILE *out)
{
	fputs("usage: relayctl [-c FILE] [--json] COMMAND\n", out);
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		fprintf(out, "  %-11s %s\n", commands[i].name, commands[i].help);
}

static void
complain(const char *fmt, va_list ap)
{
	fputs("relayctl: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
}

int
ctl_fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	complain(fmt, ap);
	va_end(ap);
	return CTL_FAILED;
}

int
ctl_usage(const char *text)
{
	fprintf(stderr, "usage: relayctl %s\n", text);
	return CTL_USAGE;
}

int
ctl_wrong(const char *usage, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	complain(fmt, ap);
	va_end(ap);
	return ctl_usage(usage);
}

int
ctl_check_id(const char *text)
{
	struct id id;

	return id_parse(slice_str(text), &id)
		   ? CTL_DONE
		   : ctl_fail("%s is no id: 26 characters, as in the 250 reply", text);
}

const struct config *
ctl_config(struct ctl *ctl)
{
	struct err err = { 0 };

	if (ctl->cfg == NULL) {
		ctl->cfg = config_load(ctl->config_path, config_source_disk_public(), &err);
		if (ctl->cfg == NULL)
			(void)ctl_fail("%s", err.msg);	/* the caller returns CTL_FAILED */
	}
	return ctl->cfg;
}

/* To the control socket of that name, whose path is then in path.  0, or -1 with *err, or with an
 * empty one when what is wrong has been said. */
static int
request(struct ctl *ctl, const char *name, json_t *body,
    void (*on_line)(struct ctl *ctl, json_t *line, void *arg), void *arg,
    char path[static ROLE_PATH_BYTES], struct err *err)
{
	const struct config *cfg = ctl_config(ctl);
	struct control_client *client = NULL;
	json_t *line;
	int rc;

	if (cfg != NULL) {
		role_control_path(cfg, name, path);
		client = control_connect(path, CTL_TIMEOUT_MS, err);
	}

	if (client == NULL) {
		json_decref(body);
		return -1;
	}
	rc = control_send(client, body, err);
	while (rc >= 0 && (rc = control_next(client, &line, err)) > 0) {
		if (ctl->json)
			ctl_print_json(line);
		else if (on_line != NULL)
			on_line(ctl, line, arg);
		json_decref(line);
	}
	control_disconnect(client);
	return rc;
}

int
ctl_try_request(struct ctl *ctl, const char *name, json_t *body,
    void (*on_line)(struct ctl *ctl, json_t *line, void *arg), void *arg)
{
	char path[ROLE_PATH_BYTES];
	struct err err = { 0 };

	return request(ctl, name, body, on_line, arg, path, &err) < 0 ? CTL_FAILED : CTL_DONE;
}

int
ctl_request(struct ctl *ctl, const char *name, json_t *body,
    void (*on_line)(struct ctl *ctl, json_t *line, void *arg), void *arg)
{
	char path[ROLE_PATH_BYTES];
	struct err err = { 0 };

	if (request(ctl, name, body, on_line, arg, path, &err) == 0)
		return CTL_DONE;
	if (err.code == ERR_NONE)
		return CTL_FAILED;
	if (err.sys == EACCES)
		return ctl_fail("%s: only root and the user of the role may", err.msg);
	return err.sys == ENOENT || err.sys == ECONNREFUSED
	    ? ctl_fail("relayd does not run: nobody listens on %s", path)
	    : ctl_fail("%s", err.msg);
}

void
ctl_print_json(json_t *line)
{
	char *text = json_dumps(line, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(12));

	puts(text != NULL ? text : "{}");
	free(text);
}

/* What would move a terminal's cursor, or turn the text around: C0, DEL and C1, separators of
 * lines, and the marks of bidirectional text. */
static bool
is_safe(struct slice c)
{
	static const struct {
		const char *first, *last;
	} bad[] = { { "\x01", "\x1f" }, { "\x7f", "\x7f" }, { "\xc2\x80", "\xc2\x9f" },
		{ "\xe2\x80\x8e", "\xe2\x80\x8f" }, { "\xe2\x80\xa8", "\xe2\x80\xae" },
		{ "\xe2\x81\xa6", "\xe2\x81\xa9" } };

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (strlen(bad[i].first) == c.len && memcmp(c.p, bad[i].first, c.len) >= 0 &&
		    memcmp(c.p, bad[i].last, c.len) <= 0)
			return false;
	return true;
}

void
ctl_print_safe(const char *text, size_t width)
{
	struct slice rest = slice_str(text);

	for (size_t n = 1; rest.len > 0; n++) {
		size_t len = utf8_char(rest);
		struct slice c = slice_head(rest, len > 0 ? len : 1);

		rest = slice_drop(rest, c.len);
		if (n == width && rest.len > 0) {
			putchar('~');
			return;
		}
		if (len > 0 && is_safe(c))
			printf("%.*s", SLICE_FMT(c));
		else
			putchar(c.p[0] == '\t' ? ' ' : '?'); /* a folded field */
	}
}

const char *
ctl_text(const json_t *line, const char *name)
{
	const char *text = json_string_value(json_object_get(line, name));

	return text != NULL ? text : "";
}

void
ctl_age(int64_t seconds, char out[static 16])
{
	static const struct {
		int64_t seconds;
		char unit;
	} units[] = { { 86400, 'd' }, { 3600, 'h' }, { 60, 'm' }, { 1, 's' } };

	for (size_t i = 0; i < ARRAY_LEN(units); i++)
		if (seconds >= 2 * units[i].seconds || units[i].seconds == 1) {
			(void)snprintf(out, 16, "%lld%c",
			    (long long)(seconds / units[i].seconds) % 100000, units[i].unit);
			return;
		}
}

/* As people write it: behind the command too.  Takes it out of the command's own words. */
static int
take_json(struct ctl *ctl, int argc, char **argv)
{
	int n = 1;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			ctl->json = true;
		else
			argv[n++] = argv[i];
	}
	argv[n] = NULL;
	return n;
}

static int
run(struct ctl *ctl, int argc, char **argv)
{
	argc = take_json(ctl, argc, argv);
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (strcmp(commands[i].name, argv[0]) == 0)
			return commands[i].run(ctl, argc, argv);
	fprintf(stderr, "relayctl: no command %s\n", argv[0]);
	print_usage(stderr);
	return CTL_USAGE;
}

/* What was too much for the buffer failed before, and nothing of it is left to be flushed. */
static int
end_output(void)
{
	bool lost = ferror(stdout) != 0;

	if (fflush(stdout) != 0)
		return ctl_fail("standard output: %s", strerror(errno));
	return lost ? ctl_fail("standard output: not all of it could be written") : CTL_DONE;
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	struct ctl ctl = { .config_path = CONFIG_PATH };
	int opt, status;

	role_filters = filters_builtin;
	(void)setlocale(LC_CTYPE, "C.UTF-8");	/* without it, only file names look odd */
	while ((opt = getopt_long(argc, argv, "+c:h", options, NULL)) != -1) {
		switch (opt) {
		case 'c':
			ctl.config_path = optarg;
			break;
		case 'j':
			ctl.json = true;
			break;
		case 'h':
			print_usage(stdout);
			return CTL_DONE;
		default:
			print_usage(stderr);
			return CTL_USAGE;
		}
	}
	if (optind == argc) {
		print_usage(stderr);
		return CTL_USAGE;
	}
	status = run(&ctl, argc - optind, argv + optind);
	config_unref(ctl.cfg);
	return status == CTL_DONE ? end_output() : status;
}

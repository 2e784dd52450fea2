/* relayd/relayctl_top.c - relayctl top: the roles, the queue and its next hops, live. */
#include "relayd/core/config_value.h"
#include "relayd/relayctl.h"

#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

#define REFRESH_S 2

static const char usage[] = "top [--once] [--limit N]";

static void
print_totals(const json_t *line)
{
	char oldest[16];

	ctl_age(ctl_number(line, "oldest_s"), oldest);
	printf("\nqueue: %lld messages, %lld recipients, %lld bytes, oldest %s; %lld connections; "
	       "journal %s\n\n",
	    (long long)ctl_number(line, "messages"), (long long)ctl_number(line, "recipients"),
	    (long long)ctl_number(line, "bytes"), oldest,
	    (long long)ctl_number(line, "connections"), ctl_text(line, "journal"));
	puts("depth  ready oldest conns  a min state next   next hop: last error");
}

static void
print_hop(const json_t *line)
{
	char oldest[16], next[16] = "";

	ctl_age(ctl_number(line, "oldest_s"), oldest);
	if (ctl_number(line, "next_s") > 0)
		ctl_age(ctl_number(line, "next_s"), next);
	printf("%5lld %6lld %6s %5lld %6lld %-5s %-6s ", (long long)ctl_number(line, "jobs"),
	    (long long)ctl_number(line, "waiting"), oldest,
	    (long long)ctl_number(line, "connections"), (long long)ctl_number(line, "rate"),
	    ctl_text(line, "state"), next);
	ctl_print_safe(ctl_text(line, "nexthop"), 60);
	if (*ctl_text(line, "waits_for") != '\0') {
		fputs(": waits for ", stdout);
		ctl_print_safe(ctl_text(line, "waits_for"), 100);
	}
	if (*ctl_text(line, "error") != '\0') {
		fputs(": ", stdout);
		ctl_print_safe(ctl_text(line, "error"), 120);
	}
	putchar('\n');
}

static void
print_provider(const json_t *line)
{
	bool host = json_object_get(line, "host") != NULL;
	long long lack = ctl_number(line, "lack_connection"),
		  rate = ctl_number(line, "wait_for_rate");

	fputs(host ? "host " : "provider ", stdout);
	ctl_print_safe(ctl_text(line, host ? "host" : "provider"), 60);
	printf(": %lld of %lld connections", (long long)ctl_number(line, "connections"),
	    (long long)ctl_number(line, "max"));
	if (!host)
		printf(", %lld a minute", (long long)ctl_number(line, "rate"));
	if (lack > 0)
		printf("; %lld next hops wait for a connection", lack);
	if (rate > 0)
		printf("; %lld next hops wait for its rate", rate);
	putchar('\n');
}

static void
print_line(struct ctl *ctl, json_t *line, void *arg)
{
	(void)ctl;
	(void)arg;
	if (json_object_get(line, "role") != NULL)
		print_totals(line);
	else if (json_object_get(line, "more") != NULL)
		printf("and %lld more\n", (long long)ctl_number(line, "more"));
	else if (json_object_get(line, "nexthop") == NULL)
		print_provider(line);
	else
		print_hop(line);
}

static int
show(struct ctl *ctl, uint32_t limit)
{
	char *status[] = { (char[]){ "status" }, NULL };
	int rc = ctl_status(ctl, 1, status);

	if (rc != CTL_DONE)
		return rc;
	return ctl_request(ctl, "delivery",
	    json_pack("{s:s, s:I}", "op", "top", "limit", (json_int_t)limit), print_line, NULL);
}

int
ctl_top(struct ctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {
		{ "once", no_argument, NULL, 'o' },
		{ "limit", required_argument, NULL, 'l' },
		{ 0 },
	};
	bool once = !isatty(STDOUT_FILENO);
	uint32_t limit = 20;
	int opt, rc;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'o')
			once = true;
		else if (opt != 'l')
			return ctl_usage(usage);
		else if (!config_count(optarg, &limit) || limit < 1 || limit > 1000)
			return ctl_wrong(usage, "--limit %s: expected 1 to 1000", optarg);
	}
	if (optind != argc)
		return ctl_wrong(usage, "top has no %s", argv[optind]);
	if (once || ctl->json)
		return show(ctl, limit);
	for (;;) {
		fputs("\033[H\033[2J", stdout);
		rc = show(ctl, limit);
		if (rc != CTL_DONE || fflush(stdout) != 0)
			return rc;
		(void)sleep(REFRESH_S); /* cut short by a signal is no harm */
	}
}

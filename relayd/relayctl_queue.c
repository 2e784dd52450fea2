/* relayd/relayctl_queue.c - relayctl queue: what waits, by hand. */
#include "relayd/core/config_value.h"
#include "relayd/relayctl.h"

#include <getopt.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char queue_usage[] = "queue list [WHICH] | show ID | body ID | flush |\n"
				  "    retry|hold|unhold|drop|bounce ID|WHICH [--yes] | reroute "
				  "ID|WHICH --to HOST[,HOST]|routes [--yes]\n"
				  "    WHICH: [--domain D] [--sender A|D|'<>'] [--age 4h] [--size "
				  "1M] [--state active|deferred|held]\n"
				  "           [--reason TEXT]; those that fit all";

/* ---- what is printed ------------------------------------------------------------------------ */

/* "2 attempts, next in 15m: ", as far as there were any, and there is a time for the next: none is
 * set for what is held, and none is needed for what goes now. */
static void
print_attempts(const json_t *line)
{
	int64_t attempts = ctl_number(line, "attempts"), next_s = ctl_number(line, "next_s");
	char next[16];

	if (attempts > 0)
		printf("%lld attempt%s%s", (long long)attempts, attempts == 1 ? "" : "s",
		    next_s > 0 ? ", " : ": ");
	if (next_s > 0) {
		ctl_age(next_s, next);
		printf("next in %s: ", next);
	}
}

static void
print_queued(struct ctl *ctl, json_t *line, void *arg)
{
	char age[16];
	size_t *rows = arg;

	(void)ctl;
	(*rows)++;
	ctl_age(ctl_number(line, "age_s"), age);
	printf("%s %5s %9lld %-8s ", ctl_text(line, "id"), age, (long long)ctl_number(line, "size"),
	    ctl_text(line, "state"));
	if (json_object_get(line, "from") != NULL) { /* not of one that is damaged */
		putchar('<');
		ctl_print_safe(ctl_text(line, "from"), 40);
		fputs("> -> ", stdout);
		ctl_print_list(json_object_get(line, "recipients"), ctl_number(line, "more"));
	}
	putchar('\n');
	fputs("    ", stdout);
	print_attempts(line);
	ctl_print_safe(ctl_text(line, "why"), 0);
	putchar('\n');
}

static void
print_body(struct ctl *ctl, json_t *line, void *arg)
{
	const char *text = ctl_text(line, "base64");
	size_t len = strlen(text), padded = 0;
	unsigned char *bytes = malloc(len / 4 * 3 + 3);
	int n;

	(void)ctl;
	(void)arg;
	if (bytes == NULL || len > INT32_MAX) {
		free(bytes);
		return;
	}
	n = EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)len);
	while (padded < 2 && padded < len && text[len - 1 - padded] == '=')
		padded++;
	if (n >= (int)padded)
		(void)fwrite(
		    bytes, 1, (size_t)n - padded, stdout); /* main() checks standard output */
	free(bytes);
}

/* ---- which messages ------------------------------------------------------------------------- */

struct which {
	json_t *request; /* owned, until it is sent */
	bool any, yes;
	char wrong[160]; /* what is wrong with it, or "" */
	bool bad;        /* something is; getopt_long() may have said what */
};

static void __attribute__((format(printf, 2, 3))) refuse(struct which *w, const char *fmt, ...)
{
	va_list ap;

	if (w->bad)
		return; /* the first one is enough */
	w->bad = true;
	va_start(ap, fmt);
	(void)vsnprintf(w->wrong, sizeof(w->wrong), fmt, ap); /* cut short is good enough */
	va_end(ap);
}

/* Of what was refused. */
static int
tell(struct which *w)
{
	json_decref(w->request);
	return w->wrong[0] != '\0' ? ctl_wrong(queue_usage, "%s", w->wrong)
				   : ctl_usage(queue_usage);
}

static void
put(struct which *w, const char *name, json_t *value)
{
	w->any = true;
	(void)json_object_set_new(w->request, name, value); /* out of memory: refused there */
}

static void
put_number(struct which *w, int opt, const char *text)
{
	uint32_t seconds;
	uint64_t bytes;

	if (opt == 'a' && config_duration(text, &seconds))
		put(w, "age_s", json_integer(seconds));
	else if (opt == 'z' && config_bytes(text, &bytes) && bytes <= INT64_MAX)
		put(w, "size", json_integer((json_int_t)bytes));
	else if (opt == 'a')
		refuse(w, "--age %s: expected a duration such as 30m, 4h or 2d", text);
	else
		refuse(w, "--size %s: expected a size such as 64K or 1M", text);
}

static bool
is_state(const char *text)
{
	return strcmp(text, "active") == 0 || strcmp(text, "deferred") == 0 ||
	       strcmp(text, "held") == 0;
}

static void
put_option(struct which *w, int opt)
{
	switch (opt) {
	case 'd':
		put(w, "domain", json_string(optarg));
		break;
	case 'f':
		put(w, "sender", json_string(optarg));
		break;
	case 'r':
		put(w, "reason", json_string(optarg));
		break;
	case 's':
		if (!is_state(optarg))
			refuse(w, "--state %s: expected active, deferred or held", optarg);
		put(w, "state", json_string(optarg));
		break;
	case 'a':
	case 'z':
		put_number(w, opt, optarg);
		break;
	case 't':
		(void)json_object_set_new(w->request, "to", json_string(optarg)); /* as in put() */
		break;
	case 'y':
		w->yes = true;
		break;
	default:
		w->bad = true;
	}
}

/* The options behind a verb, and the id where there is one. */
static struct which
which_of(const char *op, int argc, char **argv)
{
	static const struct option options[] = {
		{ "domain", required_argument, NULL, 'd' },
		{ "sender", required_argument, NULL, 'f' },
		{ "age", required_argument, NULL, 'a' },
		{ "size", required_argument, NULL, 'z' },
		{ "state", required_argument, NULL, 's' },
		{ "reason", required_argument, NULL, 'r' },
		{ "to", required_argument, NULL, 't' },
		{ "yes", no_argument, NULL, 'y' },
		{ 0 },
	};
	struct which w = { .request = ctl_request_of(op, NULL) };
	int opt;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
		put_option(&w, opt);
	if (optind < argc)
		(void)json_object_set_new(
		    w.request, "id", json_string(argv[optind])); /* as in put() */
	if (argc - optind > 1)
		refuse(&w, "%s: one id, not also %s", argv[0], argv[optind + 1]);
	else if (optind < argc && w.any)
		refuse(&w, "%s: an id, or what fits, but not both", argv[0]);
	return w;
}

static int
queue_list(struct ctl *ctl, int argc, char **argv)
{
	struct which w = which_of("queue.list", argc, argv);
	size_t rows = 0;
	int rc;

	if (optind < argc)
		refuse(&w, "list takes no id: queue show %s", argv[optind]);
	if (w.yes || json_object_get(w.request, "to") != NULL)
		refuse(&w, "list has no --yes and no --to");
	if (w.bad)
		return tell(&w);
	rc = ctl_request(ctl, "delivery", w.request, print_queued, &rows);
	if (rc == CTL_DONE && !ctl->json)
		printf("%zu %s\n", rows, rows == 1 ? "message" : "messages");
	return rc;
}

/* ---- what is done to them ------------------------------------------------------------------- */

struct verb {
	const char *verb, *op, *counted;
	bool asks; /* before it does it to all that fit */
	bool to;
};

static const struct verb verbs[] = {
	{ "retry", "queue.retry", "retried", false, false },
	{ "hold", "queue.hold", "held", true, false },
	{ "unhold", "queue.unhold", "unheld", false, false },
	{ "drop", "queue.drop", "dropped", true, false },
	{ "bounce", "queue.bounce", "bounced", true, false },
	{ "reroute", "queue.reroute", "rerouted", true, true },
};

static void
keep_count(struct ctl *ctl, json_t *line, void *arg)
{
	(void)ctl;
	*(int64_t *)arg = ctl_number(line, "matched");
}

/* How many it would be, and whether that is meant.  CTL_DONE: yes. */
static int
confirm(struct ctl *ctl, const struct verb *v, const json_t *request)
{
	json_t *count = json_deep_copy(request);
	struct ctl quiet = *ctl;
	int64_t n = 0;
	char answer[16];
	int rc;

	(void)json_object_set_new(count, "op", json_string("queue.count")); /* as in put() */
	quiet.json = false;
	rc = ctl_request(&quiet, "delivery", count, keep_count, &n);
	ctl->cfg = quiet.cfg;
	if (rc != CTL_DONE)
		return rc;
	if (n == 0)
		return ctl_fail("no message fits");
	if (!isatty(STDIN_FILENO))
		return ctl_fail("%lld messages fit; to %s them, say --yes", (long long)n, v->verb);
	fprintf(stderr, "%s %lld messages? [y/N] ", v->verb, (long long)n);
	if (fgets(answer, sizeof(answer), stdin) == NULL || (answer[0] != 'y' && answer[0] != 'Y'))
		return ctl_fail("nothing was done");
	return CTL_DONE;
}

static int
queue_do(struct ctl *ctl, const struct verb *v, int argc, char **argv)
{
	struct which w = which_of(v->op, argc, argv);
	bool by_id = optind < argc;
	int rc = CTL_DONE;

	if (!by_id && !w.any)
		refuse(&w, "%s: which?  An id, or what fits", v->verb);
	if (v->to != (json_object_get(w.request, "to") != NULL))
		refuse(&w, "%s",
		    v->to ? "reroute: where?  --to HOST:PORT, or --to routes"
			  : "only reroute has --to");
	if (w.bad)
		return tell(&w);
	if (by_id && ctl_check_id(argv[optind]) != CTL_DONE) {
		json_decref(w.request);
		return CTL_FAILED;
	}
	if (!by_id && v->asks && !w.yes)
		rc = confirm(ctl, v, w.request);
	if (rc == CTL_DONE)
		return ctl_request(
		    ctl, "delivery", w.request, ctl_print_count, (void *)(uintptr_t)v->counted);
	json_decref(w.request);
	return rc;
}

static int
queue_one(struct ctl *ctl, const char *verb, int argc, char **argv)
{
	bool body = strcmp(verb, "body") == 0;

	if (argc != 3)
		return ctl_wrong(queue_usage, "%s: of which?  One id", verb);
	if (ctl_check_id(argv[2]) != CTL_DONE)
		return CTL_FAILED;
	return ctl_request(ctl, "delivery",
	    ctl_request_of(body ? "queue.body" : "queue.show", argv[2]),
	    body ? print_body : ctl_print_members, NULL);
}

int
ctl_queue(struct ctl *ctl, int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";

	if (strcmp(verb, "list") == 0)
		return queue_list(ctl, argc - 1, argv + 1);
	if (strcmp(verb, "flush") == 0 && argc == 2)
		return ctl_request(ctl, "delivery", ctl_request_of("queue.flush", NULL),
		    ctl_print_count, (void *)(uintptr_t) "retried");
	if (strcmp(verb, "show") == 0 || strcmp(verb, "body") == 0)
		return queue_one(ctl, verb, argc, argv);
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (strcmp(verbs[i].verb, verb) == 0)
			return queue_do(ctl, &verbs[i], argc - 1, argv + 1);
	return argc > 1 ? ctl_wrong(queue_usage, "queue has no %s%s", verb,
			      strcmp(verb, "flush") == 0 ? " with an argument" : "")
			: ctl_usage(queue_usage);
}

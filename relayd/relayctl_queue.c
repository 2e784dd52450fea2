/* relayd/relayctl_queue.c - relayctl queue and quarantine: what waits and what is held, by hand. */
#include "relayd/relayctl.h"

#include <getopt.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

static const char queue_usage[] = "queue list [--domain D] [--state active|deferred|held] | show ID | "
				  "body ID | retry ID|--domain D | drop ID | flush";
static const char quarantine_usage[] = "quarantine list | show ID | release ID | drop ID";

static int64_t
number(const json_t *line, const char *name)
{
	return (int64_t)json_integer_value(json_object_get(line, name));
}

/* The first of a list of texts, and how many more. */
static void
print_list(const json_t *list, int64_t beyond)
{
	size_t n = json_array_size(list);
	const char *first = json_string_value(json_array_get(list, 0));

	ctl_print_safe(first != NULL ? first : "-", 40);
	if (n + (size_t)beyond > 1)
		printf(" +%lld", (long long)n - 1 + (long long)beyond);
}

static void
print_queued(struct ctl *ctl, json_t *line, void *arg)
{
	char age[16], next[16];
	size_t *rows = arg;

	(void)ctl;
	(*rows)++;
	ctl_age(number(line, "age_s"), age);
	ctl_age(number(line, "next_s"), next);
	printf("%s %5s %9lld %-8s <", ctl_text(line, "id"), age, (long long)number(line, "size"),
	    ctl_text(line, "state"));
	ctl_print_safe(ctl_text(line, "from"), 40);
	fputs("> -> ", stdout);
	print_list(json_object_get(line, "recipients"), number(line, "more"));
	putchar('\n');
	if (*ctl_text(line, "why") != '\0') {
		printf("    %lld attempts, next in %s: ", (long long)number(line, "attempts"), next);
		ctl_print_safe(ctl_text(line, "why"), 0);
		putchar('\n');
	}
}

/* "name: value" a line; lists one value a line. */
static void
print_members(struct ctl *ctl, json_t *line, void *arg)
{
	const char *key;
	json_t *value, *item;
	size_t i;

	(void)ctl;
	(void)arg;
	json_object_foreach(line, key, value) {
		printf("%-12s ", key);
		if (json_is_string(value)) {
			ctl_print_safe(json_string_value(value), 0);
		} else if (json_is_array(value)) {
			json_array_foreach(value, i, item) {
				char *text = json_dumps(item, JSON_ENCODE_ANY | JSON_COMPACT);

				printf("%s", i > 0 ? "\n             " : "");
				ctl_print_safe(json_is_string(item) ? json_string_value(item)
					: text != NULL ? text : "?", 0);
				free(text);
			}
		} else {
			char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

			printf("%s", text != NULL ? text : "?");
			free(text);
		}
		putchar('\n');
	}
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
	if (bytes == NULL || len > INT32_MAX)
		return;
	n = EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)len);
	while (padded < 2 && padded < len && text[len - 1 - padded] == '=')
		padded++;
	if (n >= (int)padded)
		(void)fwrite(bytes, 1, (size_t)n - padded, stdout);	/* main() checks standard output */
	free(bytes);
}

static void
print_count(struct ctl *ctl, json_t *line, void *arg)
{
	(void)ctl;
	printf("%lld %s\n", (long long)number(line, arg), (const char *)arg);
}

static json_t *
request_of(const char *op, const char *id)
{
	json_t *request = json_pack("{s:s}", "op", op);

	if (id != NULL)
		(void)json_object_set_new(request, "id", json_string(id));	/* out of memory: refused there */
	return request;
}

static bool
is_state(const char *text)
{
	return strcmp(text, "active") == 0 || strcmp(text, "deferred") == 0 || strcmp(text, "held") == 0;
}

/* --domain and --state into the request; what is left of the arguments is the caller's. */
static int
add_options(json_t *request, int argc, char **argv)
{
	static const struct option options[] = {
		{ "domain", required_argument, NULL, 'd' },
		{ "state", required_argument, NULL, 's' },
		{ 0 },
	};
	int opt;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt != 'd' && (opt != 's' || !is_state(optarg)))
			return -1;
		/* As above. */
		(void)json_object_set_new(request, opt == 'd' ? "domain" : "state", json_string(optarg));
	}
	return 0;
}

static int
queue_list(struct ctl *ctl, int argc, char **argv)
{
	json_t *request = request_of("queue.list", NULL);
	size_t rows = 0;
	int rc;

	if (add_options(request, argc, argv) < 0 || optind != argc) {
		json_decref(request);
		return ctl_usage(queue_usage);
	}
	rc = ctl_request(ctl, "delivery", request, print_queued, &rows);
	if (rc == CTL_DONE && !ctl->json)
		printf("%zu %s\n", rows, rows == 1 ? "message" : "messages");
	return rc;
}

static int
queue_retry(struct ctl *ctl, int argc, char **argv)
{
	json_t *request = request_of("queue.retry", NULL);
	bool domain;

	if (add_options(request, argc, argv) < 0)
		optind = argc + 1;	/* not usable */
	domain = json_object_get(request, "domain") != NULL;
	if (json_object_get(request, "state") != NULL || optind + (domain ? 0 : 1) != argc) {
		json_decref(request);
		return ctl_usage(queue_usage);
	}
	if (!domain)
		(void)json_object_set_new(request, "id", json_string(argv[optind]));	/* as above */
	return ctl_request(ctl, "delivery", request, print_count, (void *)(uintptr_t) "retried");
}

int
ctl_queue(struct ctl *ctl, int argc, char **argv)
{
	static const struct {
		const char *verb, *op;
		void (*on_line)(struct ctl *ctl, json_t *line, void *arg);
		const char *counted;
	} verbs[] = {
		{ "show", "queue.show", print_members, NULL },
		{ "body", "queue.body", print_body, NULL },
		{ "drop", "queue.drop", print_count, "dropped" },
	};
	const char *verb = argc > 1 ? argv[1] : "";

	if (strcmp(verb, "list") == 0)
		return queue_list(ctl, argc - 1, argv + 1);
	if (strcmp(verb, "retry") == 0)
		return queue_retry(ctl, argc - 1, argv + 1);
	if (strcmp(verb, "flush") == 0 && argc == 2)
		return ctl_request(ctl, "delivery", request_of("queue.flush", NULL), print_count,
		    (void *)(uintptr_t) "retried");
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (strcmp(verbs[i].verb, verb) == 0 && argc == 3)
			return ctl_request(ctl, "delivery", request_of(verbs[i].op, argv[2]),
			    verbs[i].on_line, (void *)(uintptr_t)verbs[i].counted);
	return ctl_usage(queue_usage);
}

static void
print_held(struct ctl *ctl, json_t *line, void *arg)
{
	char age[16];
	size_t *rows = arg;

	(void)ctl;
	(*rows)++;
	ctl_age(number(line, "age_s"), age);
	printf("%s %5s %9lld %-9s <", ctl_text(line, "id"), age, (long long)number(line, "size"),
	    ctl_text(line, "state"));
	ctl_print_safe(ctl_text(line, "from"), 40);
	fputs("> -> ", stdout);
	print_list(json_object_get(line, "recipients"), number(line, "more"));
	if (*ctl_text(line, "subject") != '\0') {
		fputs("\n    ", stdout);
		ctl_print_safe(ctl_text(line, "subject"), 74);
	}
	putchar('\n');
}

int
ctl_quarantine(struct ctl *ctl, int argc, char **argv)
{
	static const struct {
		const char *verb, *op, *counted;
	} verbs[] = {
		{ "release", "quarantine.release", "released" },
		{ "drop", "quarantine.drop", "dropped" },
	};
	const char *verb = argc > 1 ? argv[1] : "";
	size_t rows = 0;
	int rc;

	if (strcmp(verb, "list") == 0 && argc == 2) {
		rc = ctl_request(ctl, "review", request_of("quarantine.list", NULL), print_held, &rows);
		if (rc == CTL_DONE && !ctl->json)
			printf("%zu %s\n", rows, rows == 1 ? "message" : "messages");
		return rc;
	}
	if (strcmp(verb, "show") == 0 && argc == 3)
		return ctl_request(ctl, "review", request_of("quarantine.show", argv[2]), print_members,
		    NULL);
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (strcmp(verbs[i].verb, verb) == 0 && argc == 3)
			return ctl_request(ctl, "review", request_of(verbs[i].op, argv[2]), print_count,
			    (void *)(uintptr_t)verbs[i].counted);
	return ctl_usage(quarantine_usage);
}

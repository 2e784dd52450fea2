/* relayd/relayctl_quarantine.c - relayctl quarantine: what is held, by hand. */
#include "relayd/relayctl.h"

#include <stdio.h>
#include <stdlib.h>

static const char quarantine_usage[] = "quarantine list | show ID | release ID | drop ID";

int64_t
ctl_number(const json_t *line, const char *name)
{
	return (int64_t)json_integer_value(json_object_get(line, name));
}

/* The first of a list of texts, and how many more. */
void
ctl_print_list(const json_t *list, int64_t beyond)
{
	size_t n = json_array_size(list);
	const char *first = json_string_value(json_array_get(list, 0));

	ctl_print_safe(first != NULL ? first : "-", 40);
	if (n + (size_t)beyond > 1)
		printf(" +%lld", (long long)n - 1 + (long long)beyond);
}

/* "name: value" a line; lists one value a line. */
void
ctl_print_members(struct ctl *ctl, json_t *line, void *arg)
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

void
ctl_print_count(struct ctl *ctl, json_t *line, void *arg)
{
	(void)ctl;
	printf("%lld %s\n", (long long)ctl_number(line, arg), (const char *)arg);
}

json_t *
ctl_request_of(const char *op, const char *id)
{
	json_t *request = json_pack("{s:s}", "op", op);

	if (id != NULL)
		(void)json_object_set_new(
		    request, "id", json_string(id)); /* out of memory: refused there */
	return request;
}

static void
print_held(struct ctl *ctl, json_t *line, void *arg)
{
	char age[16];
	size_t *rows = arg;

	(void)ctl;
	(*rows)++;
	ctl_age(ctl_number(line, "age_s"), age);
	printf("%s %5s %9lld %-9s <", ctl_text(line, "id"), age,
	    (long long)ctl_number(line, "size"), ctl_text(line, "state"));
	ctl_print_safe(ctl_text(line, "from"), 40);
	fputs("> -> ", stdout);
	ctl_print_list(json_object_get(line, "recipients"), ctl_number(line, "more"));
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
		{ "show", "quarantine.show", NULL },
		{ "release", "quarantine.release", "released" },
		{ "drop", "quarantine.drop", "dropped" },
	};
	const char *verb = argc > 1 ? argv[1] : "";
	size_t rows = 0, op = 0;
	int rc;

	if (strcmp(verb, "list") == 0 && argc == 2) {
		rc = ctl_request(
		    ctl, "review", ctl_request_of("quarantine.list", NULL), print_held, &rows);
		if (rc == CTL_DONE && !ctl->json)
			printf("%zu %s\n", rows, rows == 1 ? "message" : "messages");
		return rc;
	}
	while (op < ARRAY_LEN(verbs) && strcmp(verbs[op].verb, verb) != 0)
		op++;
	if (op == ARRAY_LEN(verbs))
		return argc > 1 ? ctl_wrong(quarantine_usage, "quarantine has no %s%s", verb,
				      strcmp(verb, "list") == 0 ? " with an argument" : "")
				: ctl_usage(quarantine_usage);
	if (argc != 3)
		return ctl_wrong(quarantine_usage, "%s: which?  One id", verb);
	if (ctl_check_id(argv[2]) != CTL_DONE)
		return CTL_FAILED;
	return ctl_request(ctl, "review", ctl_request_of(verbs[op].op, argv[2]),
	    verbs[op].counted != NULL ? ctl_print_count : ctl_print_members,
	    (void *)(uintptr_t)verbs[op].counted);
}

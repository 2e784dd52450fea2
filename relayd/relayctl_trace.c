/* relayd/relayctl_trace.c - relayctl trace: what happened to a message or a session, told in
 * full. */
#include "relayd/core/cidr.h"
#include "relayd/pipeline/trace.h"

#include "relayd/relayctl.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#define ENTRIES_MAX 1000	/* of one answer; more are counted */

static const char trace_usage[] = "trace ID | --from A | --to A | --ip I";

struct telling {
	struct ctl *ctl;
	size_t told, more;
};

/* "key value" for each plain member; lists of texts joined. */
static void
print_members(const json_t *object, bool skip_first)
{
	const char *key, *before = " ";
	json_t *value, *item;
	size_t i;

	/* json_object_foreach takes it without const, and changes nothing. */
	json_object_foreach((json_t *)(uintptr_t)object, key, value) {
		if (skip_first) {
			skip_first = false;
			continue;
		}
		if (strcmp(key, "events") == 0)
			continue;
		printf("%s%s ", before, key);
		before = ", ";
		if (json_is_array(value)) {
			json_array_foreach(value, i, item) {
				char *text = json_dumps(item, JSON_ENCODE_ANY | JSON_COMPACT);

				printf("%s", i > 0 ? "," : "");
				ctl_print_safe(json_is_string(item) ? json_string_value(item)
					: text != NULL ? text : "?", 0);
				free(text);
			}
		} else if (json_is_string(value)) {
			ctl_print_safe(json_string_value(value), 0);
		} else {
			char *text = json_dumps(
			    value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6));

			printf("%s", text != NULL ? text : "?");
			free(text);
		}
	}
	putchar('\n');
}

static void
print_entry(const json_t *entry)
{
	const json_t *events = json_object_get(entry, "events");
	json_t *event;
	size_t i;

	printf("%s", ctl_text(entry, "t"));
	print_members(entry, true);
	json_array_foreach(events, i, event) {
		fputs("   ", stdout);
		print_members(event, false);
	}
}

static bool
on_entry(void *arg, const struct trace_entry *found)
{
	struct telling *t = arg;
	json_t *entry;

	if (t->told == ENTRIES_MAX) {
		t->more++;
		return true;
	}
	entry = json_loadb(found->json.p, found->json.len, 0, NULL);
	if (entry == NULL)
		return true;	/* damaged, but whole as a record: nothing to show */
	t->told++;
	if (t->ctl->json)
		ctl_print_json(entry);
	else
		print_entry(entry);
	json_decref(entry);
	return true;
}

static int
parse(int argc, char **argv, struct trace_query *query)
{
	static const struct option options[] = {
		{ "from", required_argument, NULL, 'f' },
		{ "to", required_argument, NULL, 't' },
		{ "ip", required_argument, NULL, 'i' },
		{ 0 },
	};
	struct cidr address;
	int opt;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'f')
			query->from = slice_str(optarg);
		else if (opt == 't')
			query->to = slice_str(optarg);
		else if (opt == 'i')
			query->ip = slice_str(optarg);
		else
			return ctl_usage(trace_usage);
	}
	if (query->ip.len > 0 && !cidr_parse(query->ip, &address))
		return ctl_wrong(trace_usage, "%.*s is no IP address", SLICE_FMT(query->ip));
	if (optind < argc) {
		if (ctl_check_id(argv[optind]) != CTL_DONE)
			return CTL_FAILED;
		query->has_id = id_parse(slice_str(argv[optind]), &query->id);
		optind++;
	}
	if (optind < argc)
		return ctl_wrong(trace_usage, "one id, not also %s", argv[optind]);
	return !query->has_id && query->from.len == 0 && query->to.len == 0 && query->ip.len == 0
		   ? ctl_wrong(trace_usage, "trace: of what?  An id, or --from, --to or --ip")
		   : CTL_DONE;
}

int
ctl_trace(struct ctl *ctl, int argc, char **argv)
{
	struct trace_query query = { .from = SLICE(""), .to = SLICE(""), .ip = SLICE("") };
	struct telling telling = { .ctl = ctl };
	char dir[ROLE_PATH_BYTES];
	const char *dirs[] = { dir };
	struct err err = { 0 };
	uint64_t damaged = 0;
	int rc = parse(argc, argv, &query);

	if (rc != CTL_DONE)
		return rc;
	if (ctl_config(ctl) == NULL)
		return CTL_FAILED;
	(void)snprintf(dir, sizeof(dir), "%s/trace", ctl->cfg->state);	/* too long: not found */
	if (trace_read(dirs, ARRAY_LEN(dirs), &query, on_entry, &telling, &damaged, &err) < 0)
		return ctl_fail("%s", err.msg);
	if (damaged > 0)
		fprintf(stderr, "relayctl: %llu damaged stretches of the traces were passed over\n",
		    (unsigned long long)damaged);
	if (telling.more > 0)
		fprintf(
		    stderr, "relayctl: %zu more fit; name the message by its id\n", telling.more);
	return telling.told > 0 ? CTL_DONE
	    : ctl_fail("no trace of that: they are kept for %d days", TRACE_KEEP_DAYS);
}

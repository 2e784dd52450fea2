/* tests/bench/bench_recipients.c - what a file of recipients costs: to load, to hold, to ask.
 *
 *	bench_recipients [LINES]
 *
 * A million lines by default, one in a hundred an alias.
 */
#include "relayd/core/buf.h"
#include "relayd/core/config_source.h"
#include "relayd/intake/recipients.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LOOKUPS 1000000

static const char conf[] = "hostname = mx.example.org\ndomains = { example.org }\n"
			   "route example.org { to = { \"127.0.0.1:25\" }  recipients = any }\n";

static double
now_s(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts); /* cannot fail */
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static struct buf
make_file(size_t lines)
{
	struct buf b = buf_heap(1u << 30);

	for (size_t i = 0; i < lines; i++)
		if (i % 100 == 99)
			buf_printf(
			    &b, "list.%zu@example.org: first.last.%zu@example.org\n", i, i - 1);
		else
			buf_printf(&b, "first.last.%zu@example.org\n", i);
	return b;
}

static struct config *
make_config(struct buf *snapshot)
{
	struct err err;
	struct config_source *src;

	config_source_begin_snapshot(snapshot, false);
	config_source_put(snapshot, "/conf", slice_str(conf));
	src = config_source_snapshot(buf_slice(snapshot), &err);
	return src != NULL ? config_load("/conf", src, &err) : NULL;
}

/* Half of them are there. */
static size_t
look_up(const struct recipients *r, size_t lines)
{
	size_t found = 0;

	for (size_t i = 0; i < LOOKUPS; i++) {
		char text[64];
		struct address mailbox;
		struct slice targets;

		(void)snprintf(text, sizeof(text), "First.Last.%zu@example.org",
		    i * 7919 % (2 * lines)); /* fits */
		if (address_mailbox(slice_str(text), 0, &mailbox) == ADDRESS_OK)
			found += recipients_find(r, &mailbox, '+', &targets) != RECIPIENTS_UNKNOWN;
	}
	return found;
}

int
main(int argc, char **argv)
{
	size_t lines = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000000, found;
	struct buf snapshot = buf_heap(1 << 20), file = make_file(lines);
	struct config *cfg = make_config(&snapshot);
	struct recipients *r;
	struct err err = { .msg = "no config" };
	double begun = now_s(), loaded;

	r = cfg != NULL ? recipients_parse(cfg, buf_slice(&file), "file", &err) : NULL;
	if (r == NULL) {
		fprintf(stderr, "%s\n", err.msg);
		return EXIT_FAILURE;
	}
	loaded = now_s();
	found = look_up(r, lines);
	printf(
	    "%zu lines, %.1f MB: loaded in %.3f s; table %.1f MB; %.0f ns a look-up (%zu found)\n",
	    lines, (double)file.len / 1e6, loaded - begun, (double)recipients_bytes(r) / 1e6,
	    (now_s() - loaded) / LOOKUPS * 1e9, found);
	recipients_unref(r);
	config_unref(cfg);
	buf_fini(&file);
	buf_fini(&snapshot);
	return EXIT_SUCCESS;
}

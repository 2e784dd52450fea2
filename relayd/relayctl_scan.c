/* relayd/relayctl_scan.c - relayctl scan: the filters of the config over message files, nothing
 * sent. */
#include "relayd/core/buf.h"
#include "relayd/core/config_source.h"
#include "relayd/net/dns.h"
#include "relayd/pipeline/facts/facts.h"
#include "relayd/pipeline/scan.h"
#include "relayd/relayctl.h"

#include <errno.h>
#include <fts.h>
#include <getopt.h>
#include <stdio.h>

#define MESSAGE_MAX (256u << 20)

static const char scan_usage[] =
    "scan [--json] [--ip I] [--helo H] [--from A] [--to A] FILE|DIR...";

struct scanning {
	struct ctl *ctl;
	uv_loop_t loop;
	struct dns *dns;
	struct facts *facts;
	struct pipeline *pipeline;
	struct slice ip, helo, from, to;
	size_t done, failed;
};

/* As on the wire: CRLF, and without the line that an mbox puts on top. */
static void
to_wire(struct slice file, struct buf *out)
{
	if (slice_starts(file, SLICE("From ")))
		file = slice_drop(file, slice_until(file, '\n').len + 1);
	while (file.len > 0) {
		struct slice line = slice_until(file, '\n');

		file = slice_drop(file, line.len + 1);
		(void)slice_chop(&line, "\r");	/* of CRLF; a lone LF gets its CR below */
		buf_put(out, line);
		buf_puts(out, "\r\n");
	}
}

static void
print_text(const char *path, const struct pipeline_scan *scan)
{
	printf("%-10s %8.1f  ", scan->verdict, scan->score);
	ctl_print_safe(path, 0);
	putchar('\n');
	if (scan->findings.len > 0)
		printf("                     %.*s\n", SLICE_FMT(scan->findings));
}

static void
print_json(const char *path, const struct pipeline_scan *scan)
{
	json_t *all = json_loadb(scan->json.p, scan->json.len, 0, NULL);

	if (all == NULL)
		all = json_object();
	/* Out of memory leaves a member out. */
	(void)json_object_set_new(all, "file", json_string(path));
	(void)json_object_set_new(all, "verdict", json_string(scan->verdict));
	(void)json_object_set_new(all, "score", json_real(scan->score));
	(void)json_object_set_new(all, "findings",
	    json_stringn(scan->findings.p, scan->findings.len));
	ctl_print_json(all);
	json_decref(all);
}

static void
on_scanned(struct pipeline_scan *scan)
{
	(void)scan;	/* uv_run() returns, for nothing else is under way */
}

static int
scan_bytes(struct scanning *s, const char *path, struct slice file)
{
	struct buf wire = buf_heap(MESSAGE_MAX);
	struct pipeline_scan scan = { .pipeline = s->pipeline, .facts = s->facts, .ip = s->ip,
		.helo = s->helo, .reverse_path = s->from, .forward_paths = &s->to,
		.n_forward_paths = s->to.len > 0, .done = on_scanned };
	struct err err = { 0 };
	int rc = -1;

	to_wire(file, &wire);
	scan.message = buf_slice(&wire);
	if (wire.overflow)
		(void)ctl_fail("%s: too large", path);	/* counted by the caller */
	else if (pipeline_scan_start(&scan, &err) < 0)
		(void)ctl_fail("%s: %s", path, err.msg);	/* as above */
	else {
		while (scan.verdict == NULL && uv_run(&s->loop, UV_RUN_ONCE) != 0)
			continue;
		if (scan.verdict == NULL)
			(void)uv_run(&s->loop, UV_RUN_NOWAIT);	/* its done() comes from there */
		if (s->ctl->json)
			print_json(path, &scan);
		else
			print_text(path, &scan);
		pipeline_scan_fini(&scan);
		rc = 0;
	}
	buf_fini(&wire);
	return rc;
}

static void
scan_file(struct scanning *s, const char *path)
{
	struct config_source *src = config_source_disk();
	struct err err = { 0 };
	struct slice file;

	if (src == NULL || config_source_read(src, path, &file, &err) < 0) {
		(void)ctl_fail("%s", err.msg);	/* counted below */
		s->failed++;
	} else if (scan_bytes(s, path, file) < 0) {
		s->failed++;
	} else {
		s->done++;
	}
	config_source_free(src);
}

static int
by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int
scan_paths(struct scanning *s, char **paths)
{
	FTS *tree = fts_open(paths, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, by_name);
	FTSENT *entry;

	if (tree == NULL)
		return ctl_fail("%s", strerror(errno));
	while ((entry = fts_read(tree)) != NULL) {
		if (entry->fts_info == FTS_F)
			scan_file(s, entry->fts_path);
		else if (entry->fts_info == FTS_NS || entry->fts_info == FTS_ERR ||
		    entry->fts_info == FTS_DNR) {
			(void)ctl_fail(
			    "%s: %s", entry->fts_path, strerror(entry->fts_errno)); /* counted */
			s->failed++;
		}
	}
	(void)fts_close(tree);	/* read only */
	return s->failed > 0 || s->done == 0 ? CTL_FAILED : CTL_DONE;
}

static int
open_all(struct scanning *s, struct err *err)
{
	if (uv_loop_init(&s->loop) < 0)
		return err_set(err, ERR_NOMEM, "no loop");
	s->pipeline = pipeline_new(s->ctl->cfg, role_filters, err);
	if (s->pipeline == NULL || (s->dns = dns_open_config(&s->loop, s->ctl->cfg, err)) == NULL)
		return -1;
	s->facts = facts_open(&s->loop, s->dns, NULL);
	if (s->facts == NULL)
		return err_set(err, ERR_NOMEM, "no memory for facts");
	facts_configure(s->facts, s->ctl->cfg);
	return 0;
}

static void
close_all(struct scanning *s)
{
	facts_close(s->facts);
	dns_close(s->dns);
	pipeline_unref(s->pipeline);
	(void)uv_run(&s->loop, UV_RUN_DEFAULT);	/* close callbacks */
	(void)uv_loop_close(&s->loop);		/* the process ends */
}

int
ctl_scan(struct ctl *ctl, int argc, char **argv)
{
	static const struct option options[] = {
		{ "ip", required_argument, NULL, 'i' },
		{ "helo", required_argument, NULL, 'h' },
		{ "from", required_argument, NULL, 'f' },
		{ "to", required_argument, NULL, 't' },
		{ 0 },
	};
	struct scanning s = { .ctl = ctl,
		.ip = SLICE(""),
		.helo = SLICE("localhost"),
		.from = SLICE(""),
		.to = SLICE("") };
	struct err err = { 0 };
	int opt, rc;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'i':
			s.ip = slice_str(optarg);
			break;
		case 'h':
			s.helo = slice_str(optarg);
			break;
		case 'f':
			s.from = slice_str(optarg);
			break;
		case 't':
			s.to = slice_str(optarg);
			break;
		default:
			return ctl_usage(scan_usage);
		}
	}
	if (optind == argc)
		return ctl_usage(scan_usage);
	if (ctl_config(ctl) == NULL)
		return CTL_FAILED;
	if (open_all(&s, &err) < 0)
		rc = ctl_fail("%s", err.msg);
	else
		rc = scan_paths(&s, argv + optind);
	close_all(&s);
	return rc;
}

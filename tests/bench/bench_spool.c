/* tests/bench/bench_spool.c - what a commit costs: messages a second and CPU, in groups of 1, 20
 * and 100.
 *
 *	bench_spool [DIR [MESSAGES [BYTES]]]
 *
 * One process writes groups to a log below DIR and reads them back as delivery does, with a journal
 * that is synced every 20 ms.  Nothing else runs: this is the floor for intake and delivery.
 */
#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/spool/reader.h"
#include "relayd/spool/spool.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define FLUSH_MS 20

struct bench {
	uv_loop_t loop;
	struct spool *spool;
	struct spooldir dir;
	struct journal *journal;
	struct reader *reader;
	struct spool_commit *commits;
	char *body;
	size_t bytes;
	unsigned group, waiting;
	uint64_t kept, read, failed;
	int64_t flushed_ms;
};

struct cost {
	int64_t wall_us;
	double user_s, system_s;
	int64_t syncs, written;
	long switches;
};

static double
seconds(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static struct cost
cost_now(void)
{
	struct rusage use;

	(void)getrusage(RUSAGE_SELF, &use); /* cannot fail with these arguments */
	return (struct cost){
		.wall_us = clock_mono_us(),
		.user_s = seconds(use.ru_utime),
		.system_s = seconds(use.ru_stime),
		.syncs = counter_get(COUNTER_SPOOL_SYNCS),
		.written = counter_get(COUNTER_SPOOL_BYTES),
		.switches = use.ru_nvcsw,
	};
}

static void
die(const struct err *err)
{
	fprintf(stderr, "bench_spool: %s\n", err->msg);
	exit(EXIT_FAILURE);
}

static void
on_done(struct spool_commit *req, const struct err *err)
{
	struct bench *b = req->data;

	b->waiting--;
	b->kept += err->code == ERR_NONE;
	b->failed += err->code != ERR_NONE;
}

static void
send_one(struct bench *b, struct spool_commit *req)
{
	struct envelope_rcpt rcpt = { SLICE("recipient@example.org"), SLICE("") };
	struct envelope_copy copy = { .reason = SLICE(""), .rcpts = &rcpt, .n_rcpts = 1 };
	const struct envelope env = {
		.id = id_new(),
		.received_ms = clock_wall_ms(),
		.reverse_path = SLICE("sender@example.com"),
		.params = SLICE(""),
		.client_ip = SLICE("192.0.2.1"),
		.client_addr = SLICE("\300\000\002\001"),
		.helo = SLICE("mx.example.com"),
		.auth_user = SLICE(""),
		.listener = SLICE("mx"),
		.release_key = SLICE(""),
		.copies = &copy,
		.n_copies = 1,
	};
	struct err err = { 0 };
	struct spool_msg *msg = spool_begin(b->spool, b->bytes, &err);

	if (msg == NULL || spool_write(msg, slice_of(b->body, b->bytes), &err) < 0)
		die(&err);
	*req = (struct spool_commit){ .done = on_done, .data = b };
	b->waiting++;
	spool_commit(req, msg, &env);
}

/* As delivery does it: everything there is, then what became of it. */
static void
read_back(struct bench *b)
{
	struct reader_item item;
	struct err err = { 0 };
	int rc;

	while ((rc = reader_next(b->reader, &item, &err)) > 0) {
		b->read++;
		journal_done(b->journal, item.msg);
	}
	if (rc < 0)
		die(&err);
	journal_write(b->journal);
	if (clock_mono_ms() - b->flushed_ms >= FLUSH_MS) {
		b->flushed_ms = clock_mono_ms();
		journal_flush(b->journal);
	}
}

static void
run(struct bench *b, uint64_t messages)
{
	while (b->kept + b->failed < messages) {
		for (unsigned i = 0; i < b->group; i++)
			send_one(b, &b->commits[i]);
		while (b->waiting > 0)
			(void)uv_run(&b->loop, UV_RUN_ONCE); /* alive while anybody waits */
		if (b->reader != NULL)
			read_back(b);
	}
}

static void
report(const struct bench *b, const struct cost *from, const struct cost *to)
{
	double n = (double)b->kept, wall_s = (double)(to->wall_us - from->wall_us) / 1e6;

	printf("%-6s groups of %3u: %8.0f messages/s, CPU s per 1000: %.4f user + %.4f system, "
	       "%.3f syncs, %.2f KiB written and %.2f switches a message%s\n",
	    b->reader != NULL ? "both" : "write", b->group, n / wall_s,
	    1000 * (to->user_s - from->user_s) / n, 1000 * (to->system_s - from->system_s) / n,
	    (double)(to->syncs - from->syncs) / n, (double)(to->written - from->written) / 1024 / n,
	    (double)(to->switches - from->switches) / n, b->failed > 0 ? " FAILED" : "");
}

static void
bench(const char *dir, unsigned group, uint64_t messages, size_t bytes, bool with_reader)
{
	const struct spool_settings set = { .memory = 64 << 20 };
	struct bench b = { .bytes = bytes, .group = group };
	struct err err = { 0 };
	struct cost from, to;

	(void)uv_loop_init(&b.loop); /* fails without memory; then nothing works */
	b.body = malloc(bytes);
	b.commits = calloc(group, sizeof(*b.commits));
	if (b.body == NULL || b.commits == NULL)
		exit(EXIT_FAILURE);
	memset(b.body, 'x', bytes);
	b.spool = spool_open(&b.loop, dir, &set, &err);
	if (b.spool == NULL || spooldir_open(&b.dir, dir, &err) < 0)
		die(&err);
	if (with_reader && (spooldir_lock(&b.dir, 0, &err) < 0 ||
			       (b.journal = journal_open(&b.loop, &b.dir, &err)) == NULL ||
			       (b.reader = reader_open(&b.dir, b.journal, &err)) == NULL))
		die(&err);
	if (with_reader)
		read_back(&b); /* what an earlier run left */
	b.read = 0;
	from = cost_now();
	run(&b, messages);
	to = cost_now();
	report(&b, &from, &to);
	reader_close(b.reader);
	journal_close(b.journal);
	spool_close(b.spool);
	spooldir_close(&b.dir);
	(void)uv_run(&b.loop, UV_RUN_DEFAULT); /* the handles close */
	(void)uv_loop_close(&b.loop);
	free(b.body);
	free(b.commits);
}

int
main(int argc, char **argv)
{
	static const unsigned groups[] = { 1, 20, 100 };
	char tmp[] = "bench-spool-XXXXXX";
	const char *dir = argc > 1 ? argv[1] : mkdtemp(tmp);
	uint64_t messages = argc > 2 ? strtoull(argv[2], NULL, 10) : 20000;
	size_t bytes = argc > 3 ? strtoull(argv[3], NULL, 10) : 4096;

	if (dir == NULL || messages == 0 || bytes == 0) {
		fprintf(stderr, "usage: bench_spool [DIR [MESSAGES [BYTES]]]\n");
		return EXIT_FAILURE;
	}
	for (size_t i = 0; i < ARRAY_LEN(groups); i++)
		bench(dir, groups[i], messages, bytes, false);
	for (size_t i = 0; i < ARRAY_LEN(groups); i++)
		bench(dir, groups[i], messages, bytes, true);
	printf("the spool is left in %s\n", dir);
	return EXIT_SUCCESS;
}

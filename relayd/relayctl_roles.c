/* relayd/relayctl_roles.c - relayctl status, reload, stop, metrics: the processes and what they
 * count. */
#include "relayd/core/buf.h"
#include "relayd/core/clock.h"
#include "relayd/relayctl.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define METRICS_MAX (4u << 20)
#define HANGS_MS    5000	/* a role beats every second */
#define UPGRADE_RETRY_MS 100
#define UPGRADE_RETRIES  100

/* The pages of a relayd, running or not, read only. */
static const struct counters_page *
pages_of(struct ctl *ctl)
{
	const struct config *cfg = ctl_config(ctl);
	char path[ROLE_PATH_BYTES];
	struct counters_page *pages = NULL;
	struct err err = { 0 };
	int fd;

	if (cfg == NULL)
		return NULL;
	(void)snprintf(path, sizeof(path), "%s/counters", cfg->run); /* too long: open refuses it */
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {
		(void)ctl_fail("relayd does not run: there is no %s", path);	/* told by NULL */
		return NULL;
	}
	if (fd < 0 || counters_map(fd, false, &pages, &err) < 0)
		(void)ctl_fail("%s: %s", path, fd < 0 ? strerror(errno) : err.msg); /* as above */
	if (fd >= 0)
		(void)close(fd);	/* the mapping stays */
	return pages;
}

static bool
in_use(const struct counters_page *p)
{
	return p->magic == COUNTERS_MAGIC && p->started_ms != 0;
}

static bool
alive(const struct counters_page *p)
{
	return kill(p->pid, 0) == 0 || errno == EPERM;
}

static const char *
state_of(const struct counters_page *p)
{
	if (!alive(p))
		return "down";
	if (clock_wall_ms() - p->beat_ms > HANGS_MS)
		return "hangs";
	return p->serving ? "up" : "starting";
}

static json_t *
page_json(const struct counters_page *p)
{
	json_t *all = json_pack("{s:s, s:i, s:i, s:s, s:I}", "role", p->role, "index",
	    (int)p->index, "pid", (int)p->pid, "state", state_of(p), "uptime_s",
	    (json_int_t)((clock_wall_ms() - p->started_ms) / 1000));

	for (unsigned c = 0; c < COUNTER_COUNT && c < p->values_used; c++)
		(void)json_object_set_new(all, counter_info(c)->name,
		    json_integer((json_int_t)p->values[c]));	/* out of memory: left out */
	return all;
}

/* The counters that say most about a role, one line. */
static void
print_role(const struct counters_page *p)
{
	static const struct {
		const char *role;
		struct {
			enum counter counter;
			const char *label;
		} columns[6];
	} rows[] = {
		{ "intake", { { COUNTER_SESSIONS_OPEN, "open" }, { COUNTER_ACCEPTED, "accepted" },
				{ COUNTER_QUARANTINED, "held" }, { COUNTER_REJECTED, "rejected" },
				{ COUNTER_DEFERRED, "deferred" },
				{ COUNTER_RCPT_REFUSED, "rcpt refused" } } },
		{ "delivery",
		    { { COUNTER_QUEUE_MESSAGES, "queued" }, { COUNTER_QUEUE_DEFERRED, "waiting" },
			{ COUNTER_OUT_OPEN, "open" }, { COUNTER_SENT, "sent" },
			{ COUNTER_SEND_DEFERRED, "put off" }, { COUNTER_BOUNCED, "bounced" } } },
		{ "review", { { COUNTER_HELD, "held" }, { COUNTER_STORED, "stored" },
				{ COUNTER_RELEASED, "released" }, { COUNTER_DROPPED, "dropped" },
				{ COUNTER_IMAP_OPEN, "IMAP" }, { COUNTER_POP3_OPEN, "POP3" } } },
		{ "supervisor", { { COUNTER_RESTARTS, "restarts" } } },
	};
	char up[16];

	ctl_age((clock_wall_ms() - p->started_ms) / 1000, up);
	printf("%-10s %3u %8d %-6s %7s ", p->role, p->index, p->pid, state_of(p), up);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (strcmp(rows[i].role, p->role) == 0)
			for (size_t c = 0; c < 6 && rows[i].columns[c].label != NULL; c++)
				printf(" %s %lld", rows[i].columns[c].label,
				    (long long)p->values[rows[i].columns[c].counter]);
	putchar('\n');
}

int
ctl_status(struct ctl *ctl, int argc, char **argv)
{
	const struct counters_page *pages;

	(void)argv;
	if (argc > 1)
		return ctl_usage("status");
	pages = pages_of(ctl);
	if (pages == NULL)
		return CTL_FAILED;
	if (!in_use(&pages[0]) || !alive(&pages[0]))
		return ctl_fail("relayd does not run (it did: pid %d)", (int)pages[0].pid);
	if (!ctl->json)
		puts("role       no.      pid state   uptime");
	for (size_t i = 0; i < COUNTERS_PAGES; i++) {
		json_t *line;

		if (!in_use(&pages[i]))
			continue;
		if (!ctl->json) {
			print_role(&pages[i]);
			continue;
		}
		line = page_json(&pages[i]);
		ctl_print_json(line);
		json_decref(line);
	}
	return CTL_DONE;
}

int
ctl_metrics(struct ctl *ctl, int argc, char **argv)
{
	const struct counters_page *pages;
	struct buf out = buf_heap(METRICS_MAX);

	(void)argv;
	if (argc > 1)
		return ctl_usage("metrics");
	pages = pages_of(ctl);
	if (pages == NULL)
		return CTL_FAILED;
	counters_render(pages, &out);
	(void)fwrite(out.p, 1, out.len, stdout);	/* main() checks standard output */
	buf_fini(&out);
	return CTL_DONE;
}

static void
print_warning(struct ctl *ctl, json_t *line, void *arg)
{
	(void)ctl;
	(void)arg;
	fprintf(stderr, "relayctl: warning: %s\n", ctl_text(line, "warning"));
}

int
ctl_reload(struct ctl *ctl, int argc, char **argv)
{
	(void)argv;
	if (argc > 1)
		return ctl_usage("reload");
	/* The config on disk may be the very thing that is wrong: relayd says so itself, with its
	 * line, if only its run directory can be found. */
	return ctl_request(ctl, "control", json_pack("{s:s}", "op", "reload"), print_warning, NULL);
}

struct upgraded {
	json_int_t count;	/* how often relayd was, since its first start */
	bool json;
};

static void
keep_count(struct ctl *ctl, json_t *line, void *arg)
{
	struct upgraded *up = arg;

	(void)ctl;
	up->count = json_integer_value(json_object_get(line, "upgrades"));
}

static void
print_upgraded(struct ctl *ctl, json_t *line, void *arg)
{
	struct upgraded *up = arg;

	keep_count(ctl, line, arg);
	if (up->json)
		ctl_print_json(line);
	else
		printf("relayd %s, pid %lld\n", ctl_text(line, "version"),
		    (long long)json_integer_value(json_object_get(line, "pid")));
}

/* Between the answer of the old relayd and the new one's first look at the socket a connection may
 * meet the old one's end; once it was taken by the new one, the answer comes when all roles
 * serve. */
static int
wait_for_upgrade(struct ctl *ctl, const struct upgraded *before)
{
	const struct timespec pause = { .tv_nsec = UPGRADE_RETRY_MS * 1000000L };
	struct upgraded now = *before;

	for (int i = 0; i < UPGRADE_RETRIES; i++) {
		(void)nanosleep(&pause, NULL);	/* a signal only makes it shorter */
		if (ctl_try_request(ctl, "control", json_pack("{s:s}", "op", "upgraded"),
			print_upgraded, &now) != CTL_DONE)
			continue;
		return now.count > before->count ? CTL_DONE
						 : ctl_fail("the upgrade failed: the log says why");
	}
	return ctl_fail("relayd does not answer any more: the log says why");
}

int
ctl_upgrade(struct ctl *ctl, int argc, char **argv)
{
	struct upgraded before = { .json = ctl->json };
	int status;

	(void)argv;
	if (argc > 1)
		return ctl_usage("upgrade");
	ctl->json = false;	/* lines are for us first */
	status =
	    ctl_request(ctl, "control", json_pack("{s:s}", "op", "upgrade"), keep_count, &before);
	return status == CTL_DONE ? wait_for_upgrade(ctl, &before) : status;
}

int
ctl_stop(struct ctl *ctl, int argc, char **argv)
{
	(void)argv;
	if (argc > 1)
		return ctl_usage("stop");
	return ctl_request(ctl, "control", json_pack("{s:s}", "op", "stop"), NULL, NULL);
}

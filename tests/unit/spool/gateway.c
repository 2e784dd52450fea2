/* tests/unit/spool/gateway.c - a small gateway on the disk of a test, whose promises are
 * checked. */
#include "unit/spool/gateway.h"

#include "relayd/core/counters.h"
#include "relayd/spool/syncer.h"
#include "unit/spool/fakedisk.h"
#include "unit/spool/gateway_parts.h"

#include <stdarg.h>
#include <unistd.h>

struct gateway gw;
int gateway_told_on = 2;

void
gateway_must(bool holds, const char *fmt, ...)
{
	va_list ap;

	if (holds)
		return;
	va_start(ap, fmt);
	(void)vdprintf(gateway_told_on, fmt, ap); /* the exit status tells, too */
	va_end(ap);
	(void)dprintf(gateway_told_on, "\n");
	_exit(1);
}

unsigned
gw_dice(unsigned n)
{
	gw.random ^= gw.random << 13;
	gw.random ^= gw.random >> 7;
	gw.random ^= gw.random << 17;
	return (unsigned)(gw.random >> 33) % n;
}

void
gw_pass_time(int64_t ms)
{
	gw.now_ms += ms;
	clock_stand(gw.now_ms);
}

void
gw_run_loop(uv_loop_t *loop)
{
	for (int i = 0; i < 12 && uv_loop_alive(loop); i++)
		(void)uv_run(loop, UV_RUN_NOWAIT);
}

/* Lets one role act; it may die of it. */
static bool
act(enum role role, void (*what)(void))
{
	gw.role = role;
	fakedisk_owner((int)role + 1);
	if (setjmp(gw.death) != 0)
		return false;
	what();
	return true;
}

/* -- the roles -- */

static bool
is_up(enum role role)
{
	return role == DELIVERY ? gw.delivery != NULL : gw.writers[role] != NULL;
}

static void
orphan_untold(void)
{
	for (unsigned i = 0; i < gw.n_posts; i++)
		gw.posts[i].orphaned = gw.posts[i].orphaned || !gw.posts[i].told;
}

static void
died(enum role role)
{
	orphan_untold();
	if (role == DELIVERY) {
		gw.delivery = NULL; /* its memory is lost with it */
		gw_each_fate(gw_forget_unwritten);
	} else {
		gw.writers[role] = NULL;
	}
}

void
gateway_die(void)
{
	fakedisk_close_all((int)gw.role + 1);
	died(gw.role);
	longjmp(gw.death, 1);
}

/* Starts it if it is not there; like its supervisor, again a little later when that fails. */
static bool
be_up(enum role role)
{
	for (int i = 0; i < 3 && !is_up(role); i++) {
		(void)act(role, role == DELIVERY ? gw_open_delivery : gw_open_writer);
		if (!is_up(role))
			gw_pass_time(1500);
	}
	return is_up(role);
}

static void
do_as(enum role role, void (*what)(void))
{
	if (be_up(role))
		(void)act(role, what);
}

/* A start of delivery that did not get far. */
static void
start_journal(void)
{
	struct delivery *d = calloc(1, sizeof(*d));
	struct err err = { 0 };

	gateway_must(d != NULL && uv_loop_init(&d->loop) == 0, "no loop");
	gateway_must(spooldir_open(&d->dir, RIG_DIR, &err) == 0 &&
			 (d->journal = journal_open(&d->loop, &d->dir, &err)) != NULL,
	    "no journal");
	gw_free_delivery(d);
}

void
gateway_start(uint64_t seed)
{
	memset(&gw, 0, sizeof(gw));
	gw.random = seed * 0x9e3779b97f4a7c15u + 88172645463325252u;
	gw.now_ms = FIRST_MS;
	clock_stand(gw.now_ms);
	syncer_use(SYNCER_IN_LOOP); /* the same steps every time */
	fakedisk_use();
	/* Sometimes so many that the journal's files become one during the work. */
	for (unsigned i = seed % 4 == 3 ? STARTS_MAX - 1 - gw_dice(3) : 0; i > 0; i--)
		(void)act(DELIVERY, start_journal);
}

static void
work_round(unsigned round)
{
	gw.amount = 1 + gw_dice(5);
	do_as(WRITER_A, gw_send_some);
	if (gw_dice(3) == 0)
		do_as(DELIVERY, gw_deliver_some);
	gw.amount = 1 + gw_dice(2);
	do_as(WRITER_B, gw_send_some);
	if (round % 4 == 1)
		do_as(WRITER_A, gw_send_release);
	do_as(DELIVERY, gw_deliver_some);
	if (gw_dice(2) == 0)
		do_as(DELIVERY, gw_sync_journal);
	gw_pass_time(400);
}

/* -- what must hold -- */

static void
check_fate(const struct post *p, unsigned r, bool there)
{
	const struct fate *f = &p->fates[r];
	bool bounces = f->plan == BOUNCE || f->plan == DEFER_BOUNCE;

	gateway_must(!bounces || f->delivered == 0, "message %u reached recipient %u, who bounces",
	    p->number, r);
	gateway_must(bounces || !f->bounced, "message %u bounced from recipient %u", p->number, r);
	gateway_must(!there || (bounces ? f->bounced : f->delivered > 0),
	    "message %u never reached recipient %u (promised %d, answer %d, plan %d, level %d, "
	    "is a bounce %d)",
	    p->number, r, p->promised, (int)p->code, (int)f->plan, (int)f->level, p->is_bounce);
}

static bool
is_key_delivered(unsigned key)
{
	for (unsigned i = 0; i < gw.n_posts; i++)
		if (gw.posts[i].key == key && gw.posts[i].fates[0].delivered > 0)
			return true;
	return false;
}

/* What was promised came to its end for each recipient; what was not did so for all or for none. */
static void
check_fates(void)
{
	for (unsigned i = 0; i < gw.n_posts; i++) {
		const struct post *p = &gw.posts[i];
		bool there = p->promised;

		for (unsigned r = 0; r < p->n_rcpts; r++)
			there = there || p->fates[r].delivered > 0 || p->fates[r].bounced;
		if (p->key != 0)
			gateway_must(
			    !p->promised || is_key_delivered(p->key), "release %u is lost", p->key);
		else
			for (unsigned r = 0; r < p->n_rcpts; r++)
				check_fate(p, r, there);
	}
}

static bool
all_done(void)
{
	const struct index *ix = gw.delivery != NULL ? journal_index(gw.delivery->journal) : NULL;

	return ix != NULL && gw.delivery->ready && ix->open == 0 && gw.delivery->n_jobs == 0;
}

/* Rounds of delivery until nothing is left to be done. */
static void
deliver_all(void)
{
	for (int i = 0, idle = 0; i < 40; i++) {
		do_as(DELIVERY, gw_deliver_some);
		do_as(DELIVERY, gw_sync_journal);
		idle = all_done() ? idle + 1 : 0;
		if (idle > 1) /* a bounce is read one round after it was made */
			return;
		gw_pass_time(1100);
	}
	gateway_must(false, "delivery does not come to an end");
}

void
gateway_work(void)
{
	for (unsigned round = 0; round < ROUNDS; round++) {
		work_round(round);
		if (round == 3 && is_up(WRITER_A))
			(void)act(WRITER_A, gw_close_writer);
		if (round == 5 && is_up(DELIVERY))
			(void)act(DELIVERY, gw_close_delivery);
	}
	deliver_all();
}

void
gateway_finish(void)
{
	unsigned before;

	gw_pass_time(5000);
	before = gw.n_posts;
	gw.amount = 2;
	do_as(WRITER_A, gw_send_some);
	do_as(WRITER_B, gw_send_some);
	deliver_all();
	for (unsigned i = 0; i < gw.n_posts; i++) {
		const struct post *p = &gw.posts[i];

		gateway_must(p->told || p->orphaned, "message %u is not answered", i);
		gateway_must(i < before || p->promised || p->is_bounce,
		    "mail is refused on a disk that works");
	}
	check_fates();
}

static void
lose_written(struct fate *f)
{
	if (f->level == WRITTEN)
		f->level = IN_MEMORY;
}

void
gateway_lost_pages(void)
{
	gw_each_fate(lose_written);
}

void
gateway_gone(bool power)
{
	gw_each_fate(power ? gw_forget_unsynced : gw_forget_unwritten);
	orphan_untold();
	gw.delivery = NULL;
	memset(gw.writers, 0, sizeof(gw.writers));
	gw_pass_time(120000); /* what is left of a start is old now */
}

static void
note_left(void *data, const char *path)
{
	const char *name = strrchr(path, '/');
	char own[ID_TEXT_LEN + 1];

	id_text(spool_id(gw.delivery->own), own);
	if (strstr(path, "spool/journal/") == NULL && strstr(path, "spool/spare/") == NULL &&
	    strstr(path, "spool/damaged/") == NULL && strcmp(name, "/format") != 0 &&
	    strcmp(path, "spool/lock") != 0 && strstr(path, own) == NULL &&
	    strstr(path, "spool/") == path && strchr(path + 6, '/') != NULL)
		(void)snprintf(data, 256, "%s", path);
}

void
gateway_recover(bool whole)
{
	char left[256] = "";

	counter_set(COUNTER_DAMAGE, 0);
	deliver_all();
	check_fates();
	gateway_must(!whole || counter_get(COUNTER_DAMAGE) == 0, "damage is reported");
	for (int i = 0; i < 4; i++) {
		do_as(DELIVERY, gw_deliver_some);
		do_as(DELIVERY, gw_sync_journal);
	}
	fakedisk_files(note_left, left);
	gateway_must(left[0] == '\0', "left behind: %s", left);
}

void
gateway_recover_some(void)
{
	for (int i = 0; i < 3; i++) {
		do_as(DELIVERY, gw_deliver_some);
		do_as(DELIVERY, gw_sync_journal);
	}
}

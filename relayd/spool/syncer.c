/* relayd/spool/syncer.c - runs the writes and syncs of one file series, one job at a time. */
#include "relayd/spool/syncer.h"

#include "relayd/core/clock.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct syncer {
	uv_async_t async; /* the thread has finished a job */
	uv_thread_t thread;
	uv_mutex_t mutex;
	uv_cond_t cond;
	bool has_thread, slow;
	int64_t average_us;
	struct syncer_job *job;   /* runs now; only the loop looks */
	struct syncer_job *given; /* under the mutex: what the thread is to run */
	bool finished, stop;      /* under the mutex */
};

static enum syncer_place forced;

void
syncer_use(enum syncer_place place)
{
	forced = place;
}

static bool
belongs_in_loop(const struct syncer *s, bool large)
{
	if (forced != SYNCER_BY_SPEED)
		return forced == SYNCER_IN_LOOP;
	return !s->slow && !large;
}

static void
run(struct syncer_job *job)
{
	int64_t began_us = clock_mono_us();

	job->err = (struct err){ 0 };
	(void)job->run(job, &job->err); /* told by job->err */
	job->took_us = clock_mono_us() - began_us;
}

static void
thread_main(void *data)
{
	struct syncer *s = data;

	uv_mutex_lock(&s->mutex);
	while (!s->stop) {
		struct syncer_job *job = s->given;

		if (job == NULL) {
			uv_cond_wait(&s->cond, &s->mutex);
			continue;
		}
		s->given = NULL;
		uv_mutex_unlock(&s->mutex);
		run(job);
		uv_mutex_lock(&s->mutex);
		s->finished = true;
		(void)uv_async_send(&s->async); /* fails only for another kind of handle */
	}
	uv_mutex_unlock(&s->mutex);
}

static void
finish(struct syncer *s)
{
	struct syncer_job *job = s->job;

	s->average_us += (job->took_us - s->average_us) / 8;
	s->slow = s->average_us > (s->slow ? SYNCER_FAST_US : SYNCER_SLOW_US);
	s->job = NULL;
	job->done(job);
}

static void
on_async(uv_async_t *async)
{
	struct syncer *s = async->data;
	bool finished;

	uv_mutex_lock(&s->mutex);
	finished = s->finished;
	s->finished = false;
	uv_mutex_unlock(&s->mutex);
	if (!finished)
		return;
	uv_unref((uv_handle_t *)&s->async);
	finish(s);
}

struct syncer *
syncer_open(uv_loop_t *loop, struct err *err)
{
	struct syncer *s = calloc(1, sizeof(*s));
	int rc = UV_ENOMEM;

	if (s != NULL && (rc = uv_async_init(loop, &s->async, on_async)) == 0) {
		s->async.data = s;
		uv_unref((uv_handle_t *)&s->async);
		if (uv_mutex_init(&s->mutex) != 0 || uv_cond_init(&s->cond) != 0)
			abort(); /* they only take memory that is there */
		return s;
	}
	err_sys(err, -rc, "a handle to sync with");
	free(s);
	return NULL;
}

/* The thread takes no signals: they are the loop's. */
static bool
start_thread(struct syncer *s)
{
	sigset_t all, old;

	sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old); /* cannot fail with these arguments */
	s->has_thread = uv_thread_create(&s->thread, thread_main, s) == 0;
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL); /* as above */
	return s->has_thread;
}

void
syncer_run(struct syncer *s, struct syncer_job *job, bool large)
{
	assert(s->job == NULL);
	s->job = job;
	/* Without a thread the loop waits for the disk: slow, and still right. */
	if (belongs_in_loop(s, large) || (!s->has_thread && !start_thread(s))) {
		run(job);
		finish(s);
		return;
	}
	uv_ref((uv_handle_t *)&s->async); /* the loop lives as long as somebody waits */
	uv_mutex_lock(&s->mutex);
	s->given = job;
	uv_cond_signal(&s->cond);
	uv_mutex_unlock(&s->mutex);
}

bool
syncer_busy(const struct syncer *s)
{
	return s != NULL && s->job != NULL;
}

static void
on_closed(uv_handle_t *handle)
{
	struct syncer *s = handle->data;

	uv_cond_destroy(&s->cond);
	uv_mutex_destroy(&s->mutex);
	free(s);
}

/* What the thread was given and has not taken runs here; what it runs it finishes. */
static void
join(struct syncer *s)
{
	uv_mutex_lock(&s->mutex);
	if (s->given != NULL) {
		run(s->given);
		s->given = NULL;
	}
	s->stop = true;
	uv_cond_signal(&s->cond);
	uv_mutex_unlock(&s->mutex);
	(void)uv_thread_join(&s->thread); /* it exists */
}

void
syncer_close(struct syncer *s)
{
	if (s == NULL)
		return;
	if (s->has_thread)
		join(s);
	if (s->job != NULL)
		finish(s);
	uv_close((uv_handle_t *)&s->async, on_closed);
}

/* relayd/review/release.c - hands what was released back to intake, each recipient exactly once.
 *
 * A sweep goes over all recipients that are releasing, page by page in the order of their numbers;
 * a release that comes meanwhile makes another sweep follow.  So nothing is kept here that the
 * store does not know, but how long to wait with whom.
 */
#include "relayd/review/release.h"

#include "relayd/core/clock.h"
#include "relayd/core/counters.h"
#include "relayd/core/log.h"
#include "relayd/review/store_admin.h"
#include "relayd/smtp/peer.h"

#include <stdlib.h>
#include <sys/un.h>

#define READ_BYTES   (256u << 10)
#define REPLY_BYTES  512
#define SLOTS        SMTP_CLIENT_AHEAD
#define HOSTNAME_MAX 256

/* A recipient on its way. */
struct slot {
	struct release *release;
	bool busy;
	const struct store_job *job; /* of the page */
	char xid[ID_TEXT_LEN + 1], xkey[RELEASE_KEY_BYTES];
	struct smtp_tx_rcpt rcpt;
	struct peer_send send;
	bool sending;    /* between peer_send_start() and its done() */
	bool peer_waits; /* for peer_body_ready() */
	struct store_original read;
	bool reading;
	struct buf now, ahead; /* what the peer has, and what comes next */
	uint64_t at;           /* bytes read of the original */
	struct err failed;     /* reading did */
	enum store_state result;
	char reply[REPLY_BYTES];
	struct store_job_done settle;
	bool settling;
};

struct retry {
	int64_t rcpt; /* 0: free */
	unsigned tries;
	int64_t at_ms;
};

struct release {
	struct release_options options;
	char hostname[HOSTNAME_MAX];
	struct peer_target target;
	struct peer *peer;
	uv_timer_t timer;
	bool timer_open;
	bool stopped; /* draining or closed: nothing new begins */
	bool sweeping, again, fetching;
	bool down; /* the socket does not answer: the sweep ends */
	unsigned down_tries;
	int64_t down_until_ms;
	struct store_jobs page;
	size_t next; /* of the page */
	struct slot slots[SLOTS];
	struct retry retries[RELEASE_RETRIES_MAX];
	void (*on_drained)(void *arg);
	void *drained_arg;
};

static void fill(struct release *r);
static void sweep(struct release *r);

/* ---- waits ----------------------------------------------------------------------------------- */

static int64_t
wait_ms(const struct release *r, unsigned tries)
{
	int64_t ms = r->options.retry_ms;

	while (tries-- > 0 && ms < RELEASE_RETRY_MAX_MS)
		ms *= 2;
	return ms < RELEASE_RETRY_MAX_MS ? ms : RELEASE_RETRY_MAX_MS;
}

static struct retry *
retry_of(struct release *r, int64_t rcpt)
{
	for (size_t i = 0; i < RELEASE_RETRIES_MAX; i++)
		if (r->retries[i].rcpt == rcpt)
			return &r->retries[i];
	return NULL;
}

/* Nobody there, or nobody who wants to talk now: all others can wait too. */
static void
socket_is_down(struct release *r)
{
	if (!r->down)
		r->down_until_ms = clock_mono_ms() + wait_ms(r, r->down_tries++);
	r->down = true;
}

static void
retry_later(struct release *r, int64_t rcpt)
{
	struct retry *retry = retry_of(r, rcpt);

	if (retry == NULL)
		retry = retry_of(r, 0);
	if (retry == NULL) { /* that many: all of them wait, then */
		retry = &r->retries[(uint64_t)rcpt % RELEASE_RETRIES_MAX];
		socket_is_down(r);
	}
	if (retry->rcpt != rcpt)
		*retry = (struct retry){ .rcpt = rcpt };
	retry->at_ms = clock_mono_ms() + wait_ms(r, retry->tries++);
}

static void
retry_forget(struct release *r, int64_t rcpt)
{
	struct retry *retry = retry_of(r, rcpt);

	if (retry != NULL)
		*retry = (struct retry){ 0 };
}

/* When the next sweep is due, INT64_MAX for never. */
static int64_t
next_due(const struct release *r)
{
	int64_t due = INT64_MAX;

	for (size_t i = 0; i < RELEASE_RETRIES_MAX; i++)
		if (r->retries[i].rcpt != 0 && r->retries[i].at_ms < due)
			due = r->retries[i].at_ms;
	if (r->down && due > r->down_until_ms)
		due = r->down_until_ms;
	return r->down && due < r->down_until_ms ? r->down_until_ms : due;
}

static void
on_timer(uv_timer_t *timer)
{
	sweep(timer->data);
}

static void
wait_for_due(struct release *r)
{
	int64_t due = next_due(r), now = clock_mono_ms();

	if (due == INT64_MAX || !r->timer_open || r->stopped)
		return;
	/* Fails only for a timer that is closing. */
	(void)uv_timer_start(&r->timer, on_timer, due > now ? (uint64_t)(due - now) : 0, 0);
}

/* ---- a recipient on its way ------------------------------------------------------------------ */

static void
check_drained(struct release *r)
{
	void (*done)(void *) = r->on_drained;

	if (done == NULL || !release_is_idle(r))
		return;
	r->on_drained = NULL;
	done(r->drained_arg);
}

static void
slot_free(struct slot *slot)
{
	struct release *r = slot->release;

	if (slot->sending || slot->reading || slot->settling)
		return;
	buf_fini(&slot->now);
	buf_fini(&slot->ahead);
	*slot = (struct slot){ .release = r };
	fill(r);
}

static void
log_result(const struct slot *slot)
{
	const struct store_job *job = slot->job;

	switch (slot->result) {
	case STORE_IS_RELEASED:
		counter_add(COUNTER_RELEASED, 1);
		log_event("quarantine.released", kv_id("id", job->id),
		    kv_slice("rcpt", job->forward_path), kv_slice("user", job->actor),
		    kv_str("key", slot->xkey), kv_slice("reply", slice_str(slot->reply)));
		break;
	case STORE_HELD:
		log_event("message.rejected", kv_id("id", job->id),
		    kv_slice("rcpt", job->forward_path), kv_slice("user", job->actor),
		    kv_str("why", "release"), kv_slice("reply", slice_str(slot->reply)));
		break;
	default:
		log_event("delivery.deferred", kv_id("id", job->id),
		    kv_slice("rcpt", job->forward_path), kv_str("why", "release"),
		    kv_slice("reply", slice_str(slot->reply)));
		break;
	}
}

static void
on_settled(struct store_job_done *done)
{
	struct slot *slot = container_of(done, struct slot, settle);
	struct release *r = slot->release;

	slot->settling = false;
	/* Not on disk: it is still releasing, and the key keeps a second copy away. */
	if (done->req.err.code != ERR_NONE)
		slot->result = STORE_RELEASING;
	if (slot->result == STORE_RELEASING)
		retry_later(r, slot->job->rcpt);
	else
		retry_forget(r, slot->job->rcpt);
	log_result(slot);
	slot_free(slot);
}

static void
settle(struct slot *slot, enum store_state result)
{
	slot->result = result;
	slot->settling = true;
	slot->settle = (struct store_job_done){ .rcpt = slot->job->rcpt,
		.state = result,
		.reply = slice_str(slot->reply),
		.done = on_settled };
	store_job_done(slot->release->options.store, &slot->settle);
}

static void
keep_reply(struct slot *slot, const struct smtp_outcome *outcome, const struct err *err)
{
	struct buf reply = buf_over(slot->reply, REPLY_BYTES - 1);

	if (outcome->code != 0) {
		buf_printf(&reply, "%u %s ", outcome->code, outcome->enhanced);
		buf_put(&reply, slice_head(outcome->text, REPLY_BYTES - 32));
	} else if (err != NULL) {
		buf_puts(&reply, err->msg);
	}
	slot->reply[reply.len] = '\0';
}

static void
on_sent(struct peer_send *send, const struct err *err)
{
	struct slot *slot = container_of(send, struct slot, send);
	struct release *r = slot->release;
	unsigned code = slot->rcpt.outcome.code;

	slot->sending = slot->peer_waits = false;
	if (err != NULL && err->code == ERR_CANCELLED) {
		slot_free(slot);
		return;
	}
	keep_reply(slot, &slot->rcpt.outcome, err);
	if (slot->failed.code != ERR_NONE && code == 0)
		keep_reply(slot, &slot->rcpt.outcome, &slot->failed);
	else if (code == 0 || (code < 500 && strcmp(slot->rcpt.outcome.command, "MAIL") == 0))
		socket_is_down(r); /* 452 to MAIL: the disk of intake is full */
	else
		r->down_tries = 0;
	if (code >= 200 && code < 300)
		settle(slot, STORE_IS_RELEASED);
	else if (code >= 500 || slot->failed.code == ERR_DAMAGED)
		settle(slot, STORE_HELD);
	else
		settle(slot, STORE_RELEASING);
}

/* ---- its bytes ------------------------------------------------------------------------------- */

static void on_read(struct store_original *read);

static void
read_ahead(struct slot *slot)
{
	slot->reading = true;
	slot->read = (struct store_original){
		.item = slot->job->item, .from = slot->at, .max = READ_BYTES, .done = on_read
	};
	store_original(slot->release->options.store, &slot->read);
}

static enum peer_body
on_body(struct peer_send *send, struct slice *runs, size_t *n)
{
	struct slot *slot = container_of(send, struct slot, send);

	*n = 0;
	if (slot->failed.code != ERR_NONE)
		return PEER_BODY_FAILED;
	if (slot->ahead.len == 0 && slot->at < slot->job->size) {
		slot->peer_waits = true;
		return PEER_BODY_WAIT;
	}
	buf_fini(&slot->now);
	slot->now = slot->ahead;
	slot->ahead = (struct buf){ 0 };
	if (slot->now.len > 0)
		runs[(*n)++] = buf_slice(&slot->now);
	if (slot->at >= slot->job->size)
		return PEER_BODY_END;
	read_ahead(slot);
	return PEER_BODY_MORE;
}

/* The parameters of MAIL that stand for a flag of ours; what is left, at the end, goes on as it
 * is. */
static uint32_t
take_flags(struct slice *params)
{
	static const struct {
		struct slice text;
		uint32_t flag;
	} known[] = {
		{ SLICE("BODY=BINARYMIME"), SMTP_TX_BINARY },
		{ SLICE("BODY=8BITMIME"), SMTP_TX_8BIT },
		{ SLICE("SMTPUTF8"), SMTP_TX_UTF8 },
		{ SLICE("REQUIRETLS"), SMTP_TX_REQUIRETLS },
	};
	uint32_t flags = SMTP_TX_DOTS;

	for (size_t i = 0; i < ARRAY_LEN(known); i++) {
		if (!slice_eq(slice_until(*params, ' '), known[i].text))
			continue;
		*params = slice_trim(slice_drop(*params, known[i].text.len));
		flags |= known[i].flag;
	}
	return flags;
}

static void
start_send(struct slot *slot)
{
	const struct store_job *job = slot->job;
	struct slice params = job->params;
	uint32_t flags = take_flags(&params);

	slot->rcpt =
	    (struct smtp_tx_rcpt){ .forward_path = job->forward_path, .params = job->rcpt_params };
	slot->send = (struct peer_send){ .tx = { .reverse_path = job->reverse_path,
					     .params = params,
					     .xid = slice_str(slot->xid),
					     .xkey = slice_str(slot->xkey),
					     .size = job->size,
					     .flags = flags,
					     .rcpts = &slot->rcpt,
					     .n_rcpts = 1 },
		.body = on_body,
		.done = on_sent };
	slot->sending = true;
	peer_send_start(slot->release->peer, &slot->send);
}

static void start_when_ready(struct slot *slot);

static void
on_read(struct store_original *read)
{
	struct slot *slot = container_of(read, struct slot, read);
	bool first = slot->at == 0 && !slot->sending;

	slot->reading = false;
	slot->ahead = read->bytes;
	slot->at += read->bytes.len;
	slot->failed = read->req.err;
	if (slot->failed.code == ERR_NONE && read->bytes.len == 0 && slot->at < slot->job->size)
		(void)err_set(
		    &slot->failed, ERR_DAMAGED, "quarantine store: the message is cut short");
	if (first && slot->failed.code == ERR_NONE) {
		start_when_ready(slot);
	} else if (first) {
		keep_reply(slot, &(struct smtp_outcome){ 0 }, &slot->failed);
		settle(slot, slot->failed.code == ERR_DAMAGED ? STORE_HELD : STORE_RELEASING);
	} else if (slot->sending && slot->peer_waits) {
		slot->peer_waits = false;
		peer_body_ready(&slot->send);
	} else if (!slot->sending) {
		slot_free(slot);
	}
}

/* ---- the connection -------------------------------------------------------------------------- */

static void
on_ready(struct peer *peer, void *owner)
{
	struct release *r = owner;

	(void)peer;
	fill(r);
}

static void
on_peer_closed(struct peer *peer, void *owner, const struct err *why)
{
	struct release *r = owner;

	(void)why; /* each send was told */
	if (r->peer == peer)
		r->peer = NULL;
	fill(r);
	check_drained(r);
}

static const struct peer_ops peer_ops = { .on_ready = on_ready, .on_close = on_peer_closed };

/* True when a send would be taken; opens the connection when there is none. */
static bool
have_peer(struct release *r)
{
	struct err err = { 0 };

	if (r->peer == NULL && !r->down)
		r->peer = peer_open(r->options.loop, &r->target, &peer_ops, r, &err);
	if (r->peer == NULL)
		socket_is_down(r);
	return r->peer != NULL && peer_can_send(r->peer);
}

/* Its first bytes are here: it leaves now, or when the connection that is closing has gone. */
static void
start_when_ready(struct slot *slot)
{
	struct release *r = slot->release;

	if (!r->stopped && have_peer(r)) {
		start_send(slot);
		return;
	}
	r->again = true; /* the next sweep has it */
	slot_free(slot);
}

/* ---- sweeps ---------------------------------------------------------------------------------- */

static bool
slots_are_free(const struct release *r)
{
	for (size_t i = 0; i < SLOTS; i++)
		if (r->slots[i].busy)
			return false;
	return true;
}

static struct slot *
free_slot(struct release *r)
{
	for (size_t i = 0; i < SLOTS; i++)
		if (!r->slots[i].busy)
			return &r->slots[i];
	return NULL;
}

static void
begin(struct slot *slot, const struct store_job *job)
{
	struct buf key;

	slot->busy = true;
	slot->job = job;
	id_text(job->id, slot->xid);
	key = buf_over(slot->xkey, sizeof(slot->xkey) - 1); /* the slot was zeroed */
	buf_printf(&key, "%.*s-%lld", ID_TEXT_LEN, slot->xid, (long long)job->rcpt);
	read_ahead(slot);
}

static void
end_sweep(struct release *r)
{
	r->sweeping = false;
	arena_fini(&r->page.arena);
	r->page.n = r->next = 0;
	if (r->stopped)
		return;
	if (r->again && !r->down)
		sweep(r);
	else
		wait_for_due(r);
}

static void on_page(struct store_jobs *page);

static void
fetch(struct release *r, int64_t after)
{
	r->fetching = true;
	r->page.after = after;
	r->page.done = on_page;
	store_jobs(r->options.store, &r->page);
}

static bool
is_due(struct release *r, int64_t rcpt)
{
	struct retry *retry = retry_of(r, rcpt);

	return retry == NULL || retry->at_ms <= clock_mono_ms();
}

/* Begins what there is room for; at the end of a page turns it. */
static void
fill(struct release *r)
{
	struct slot *slot;

	if (!r->sweeping || r->fetching)
		return;
	while (!r->stopped && !r->down && r->next < r->page.n && (slot = free_slot(r)) != NULL &&
	       (r->peer == NULL || peer_can_send(r->peer))) {
		const struct store_job *job = &r->page.jobs[r->next++];

		if (is_due(r, job->rcpt))
			begin(slot, job);
	}
	if (!slots_are_free(r) || (r->next < r->page.n && !r->stopped && !r->down))
		return;
	if (r->page.n == STORE_JOBS_MAX && !r->stopped && !r->down) {
		int64_t last = r->page.jobs[r->page.n - 1].rcpt;

		arena_fini(&r->page.arena);
		fetch(r, last);
		return;
	}
	end_sweep(r);
	check_drained(r);
}

static void
on_page(struct store_jobs *page)
{
	struct release *r = container_of(page, struct release, page);

	r->fetching = false;
	r->next = 0;
	if (page->req.err.code != ERR_NONE) {
		page->n = 0;
		socket_is_down(r); /* nothing can be released while the store cannot be read */
	}
	fill(r);
}

static void
sweep(struct release *r)
{
	if (r->stopped)
		return;
	r->again = r->sweeping;
	if (r->sweeping)
		return;
	r->sweeping = true;
	r->down = r->down && clock_mono_ms() < r->down_until_ms;
	fetch(r, 0);
}

static void
on_releasing(void *arg)
{
	sweep(arg);
}

/* ---- opening and closing --------------------------------------------------------------------- */

static int
set_target(struct release *r, const char *path, struct err *err)
{
	struct sockaddr_un *un = (struct sockaddr_un *)(void *)&r->target.addr;
	size_t len = strlen(path);

	if (len >= sizeof(un->sun_path))
		return err_set(err, ERR_CONFIG, "%s: too long for a socket", path);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, len + 1);
	r->target.hostname = r->hostname;
	r->target.tls = SMTP_CLIENT_TLS_OFF;
	return 0;
}

struct release *
release_open(const struct release_options *options, struct err *err)
{
	struct release *r = calloc(1, sizeof(*r));
	struct buf hostname;

	if (r == NULL) {
		(void)err_set(err, ERR_NOMEM, "release: out of memory");
		return NULL;
	}
	r->options = *options;
	if (r->options.retry_ms == 0)
		r->options.retry_ms = RELEASE_RETRY_MS;
	hostname = buf_over(r->hostname, HOSTNAME_MAX - 1); /* calloc ends it */
	buf_puts(&hostname, options->hostname);
	if (set_target(r, options->path, err) < 0) {
		free(r);
		return NULL;
	}
	for (size_t i = 0; i < SLOTS; i++)
		r->slots[i].release = r;
	(void)uv_timer_init(options->loop, &r->timer); /* cannot fail */
	r->timer.data = r;
	r->timer_open = true;
	store_on_releasing(options->store, on_releasing, r);
	/* From the loop: the pool must not be used before the role has locked itself in. */
	(void)uv_timer_start(&r->timer, on_timer, 0, 0);
	return r;
}

static void
on_timer_closed(uv_handle_t *handle)
{
	struct release *r = handle->data;

	r->timer_open = false;
	check_drained(r);
}

static void
stop(struct release *r)
{
	if (r->stopped)
		return;
	r->stopped = true;
	store_on_releasing(r->options.store, NULL, NULL);
	uv_close((uv_handle_t *)&r->timer, on_timer_closed);
}

void
release_drain(struct release *r, void (*done)(void *arg), void *arg)
{
	stop(r);
	r->on_drained = done;
	r->drained_arg = arg;
	if (r->peer != NULL)
		peer_quit(r->peer);
	fill(r);
	check_drained(r);
}

void
release_close(struct release *r)
{
	stop(r);
	if (r->peer != NULL)
		peer_close(r->peer);
	fill(r);
}

bool
release_is_idle(const struct release *r)
{
	return slots_are_free(r) && !r->fetching && !r->sweeping && r->peer == NULL &&
	       !r->timer_open;
}

void
release_free(struct release *r)
{
	free(r);
}

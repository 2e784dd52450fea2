/* relayd/pipeline/facts/directory.c - questions for a directory go to its thread, and answers come
 * back. */
#include "relayd/pipeline/facts/directory.h"

#include "relayd/core/clock.h"
#include "relayd/core/log.h"
#include "relayd/core/siphash.h"
#include "relayd/pipeline/facts/directory_ldap.h"

#include <openssl/rand.h>
#include <stdlib.h>

#define SAY_EVERY_MS 60000

struct directory_question {
	struct directory_question *next;
	struct directory_query *query; /* the loop's */
	bool cancelled;                /* the loop's */
	enum directory_outcome outcome;
	char filter[]; /* what names it in the cache too */
};

struct list {
	struct directory_question *first, **end;
	size_t n;
};

struct remembered {
	char *filter;
	int64_t until_ms;
	enum directory_outcome outcome;
};

struct directory {
	struct config *cfg;
	const struct config_ldap *conf;
	uv_async_t answered;
	uv_thread_t thread;
	bool threaded;   /* it was started */
	uv_mutex_t lock; /* for the lists, said, stopping and ended */
	uv_cond_t wake;
	struct list waiting, done;
	char said[DIRECTORY_SAID_BYTES];
	bool stopping, ended;
	/* the loop's own */
	size_t pending;
	bool closed;
	int64_t complained_ms;
	uint8_t secret[16];
	struct remembered cache[DIRECTORY_CACHE];
};

static void
push(struct list *list, struct directory_question *q)
{
	q->next = NULL;
	*(list->n++ > 0 ? list->end : &list->first) = q;
	list->end = &q->next;
}

static struct directory_question *
pop(struct list *list)
{
	struct directory_question *q = list->n > 0 ? list->first : NULL;

	if (q != NULL) {
		list->first = q->next;
		list->n--;
	}
	return q;
}

/* ---- filters -------------------------------------------------------------------------------- */

static void
put_escaped(struct buf *out, struct slice value)
{
	for (size_t i = 0; i < value.len; i++) {
		char c = value.p[i];

		if (c == '*' || c == '(' || c == ')' || c == '\\' || c == '\0')
			buf_printf(out, "\\%02x", (unsigned char)c);
		else
			buf_putc(out, c);
	}
}

static void
put_filter(struct buf *out, const char *filter, struct slice local, struct slice domain)
{
	for (const char *p = filter; *p != '\0'; p++) {
		if (*p != '%') {
			buf_putc(out, *p);
			continue;
		}
		switch (*++p) {
		case 's':
			put_escaped(out, local);
			buf_putc(out, '@');
			put_escaped(out, domain);
			break;
		case 'u':
			put_escaped(out, local);
			break;
		case 'd':
			put_escaped(out, domain);
			break;
		default:
			buf_putc(out, '%');
			break;
		}
	}
}

void
directory_filter(struct buf *out, const char *filter, const struct address *mailbox, char separator)
{
	char storage[ADDRESS_PATH_MAX + 2];
	struct buf text = buf_over(storage, sizeof(storage));
	struct slice local, domain, base;

	address_canonical(mailbox, &text);
	if (!address_split(buf_slice(&text), &local, &domain))
		return; /* a mailbox has an @ */
	base = separator != '\0' ? slice_until(local, separator) : local;
	if (base.len == 0 || base.len == local.len || local.p[0] == '"') {
		put_filter(out, filter, local, domain);
		return;
	}
	buf_puts(out, "(|");
	put_filter(out, filter, local, domain);
	put_filter(out, filter, base, domain);
	buf_putc(out, ')');
}

/* ---- the thread ----------------------------------------------------------------------------- */

static struct slice
password_of(const struct directory *d)
{
	struct slice bytes = SLICE("");

	if (d->conf->password_file != NULL && !config_file(d->cfg, d->conf->password_file, &bytes))
		return SLICE(""); /* without secrets: the bind fails */
	bytes = slice_until(bytes, '\n');
	return slice_ends(bytes, SLICE("\r")) ? slice_head(bytes, bytes.len - 1) : bytes;
}

static struct slice
authorities_of(const struct directory *d)
{
	struct slice bytes = SLICE("");

	if (d->conf->ca != NULL)
		(void)config_file(d->cfg, d->conf->ca, &bytes); /* none: nobody is vouched for */
	return bytes;
}

static size_t
take_batch(struct directory *d, struct directory_question **batch)
{
	size_t n = 0;

	uv_mutex_lock(&d->lock);
	while (d->waiting.n == 0 && !d->stopping)
		uv_cond_wait(&d->wake, &d->lock);
	while (!d->stopping && n < DIRECTORY_BATCH_MAX && (batch[n] = pop(&d->waiting)) != NULL)
		n++;
	uv_mutex_unlock(&d->lock);
	return n;
}

/* Trouble fails what waits behind, too: it must not wait for one timeout after the other. */
static void
give_back(struct directory *d, struct directory_question **batch, size_t n, const char *said)
{
	struct directory_question *q;

	uv_mutex_lock(&d->lock);
	for (size_t i = 0; i < n; i++)
		push(&d->done, batch[i]);
	if (said[0] != '\0') {
		memcpy(d->said, said, DIRECTORY_SAID_BYTES);
		while ((q = pop(&d->waiting)) != NULL) {
			q->outcome = DIRECTORY_UNREACHABLE;
			push(&d->done, q);
		}
	}
	uv_mutex_unlock(&d->lock);
	(void)uv_async_send(&d->answered); /* fails only for a handle of another kind */
}

static void
ask(struct directory *d, struct directory_ldap *ldap, struct directory_question **batch, size_t n)
{
	struct directory_search searches[DIRECTORY_BATCH_MAX] = { 0 };
	char said[DIRECTORY_SAID_BYTES] = "out of memory";

	for (size_t i = 0; i < n; i++)
		searches[i] = (struct directory_search){ .filter = batch[i]->filter,
			.outcome = DIRECTORY_UNREACHABLE };
	if (ldap != NULL)
		directory_ldap_run(ldap, searches, n, said);
	for (size_t i = 0; i < n; i++)
		batch[i]->outcome = searches[i].outcome;
	give_back(d, batch, n, said);
}

static void
thread_main(void *arg)
{
	struct directory *d = arg;
	struct directory_ldap *ldap =
	    directory_ldap_new(d->conf, password_of(d), authorities_of(d));
	struct directory_question *batch[DIRECTORY_BATCH_MAX];
	size_t n;

	while ((n = take_batch(d, batch)) > 0)
		ask(d, ldap, batch, n);
	directory_ldap_free(ldap);
	uv_mutex_lock(&d->lock);
	d->ended = true;
	uv_mutex_unlock(&d->lock);
	(void)uv_async_send(&d->answered); /* as above */
}

/* ---- the cache ------------------------------------------------------------------------------ */

static struct remembered *
place_of(struct directory *d, const char *filter)
{
	return &d->cache[siphash(d->secret, slice_str(filter)) % DIRECTORY_CACHE];
}

static void
remember(struct directory *d, const struct directory_question *q)
{
	struct remembered *r = place_of(d, q->filter);
	int64_t lifetime_ms = q->outcome == DIRECTORY_KNOWN     ? (int64_t)d->conf->known_s * 1000
			      : q->outcome == DIRECTORY_UNKNOWN ? (int64_t)d->conf->unknown_s * 1000
								: DIRECTORY_DOWN_MS;

	free(r->filter);
	*r = (struct remembered){ .filter = strdup(q->filter),
		.until_ms = clock_mono_ms() + lifetime_ms,
		.outcome = q->outcome };
}

static bool
recall(struct directory *d, const char *filter, enum directory_outcome *outcome)
{
	const struct remembered *r = place_of(d, filter);

	if (r->filter == NULL || strcmp(r->filter, filter) != 0 || r->until_ms <= clock_mono_ms())
		return false;
	*outcome = r->outcome;
	return true;
}

/* ---- the loop ------------------------------------------------------------------------------- */

static void
complain(struct directory *d, const char *said)
{
	int64_t now = clock_mono_ms();

	if (said[0] == '\0' || (d->complained_ms != 0 && now - d->complained_ms < SAY_EVERY_MS))
		return;
	d->complained_ms = now;
	log_event("limit", kv_str("what", "ldap"), kv_str("section", d->conf->name),
	    kv_slice("why", slice_str(said)));
}

static void
answer(struct directory *d, struct directory_question *q)
{
	bool cancelled = q->cancelled || d->closed;

	d->pending--;
	if (!d->closed)
		remember(d, q);
	q->query->question = NULL;
	q->query->done(q->query, cancelled ? DIRECTORY_CANCELLED : q->outcome);
	free(q);
}

static void
on_closed(uv_handle_t *handle)
{
	struct directory *d = container_of(handle, struct directory, answered);

	for (size_t i = 0; i < DIRECTORY_CACHE; i++)
		free(d->cache[i].filter);
	uv_mutex_destroy(&d->lock);
	uv_cond_destroy(&d->wake);
	config_unref(d->cfg);
	free(d);
}

static void
on_answered(uv_async_t *async)
{
	struct directory *d = container_of(async, struct directory, answered);
	struct list done;
	struct directory_question *q;
	char said[DIRECTORY_SAID_BYTES];
	bool ended;

	uv_mutex_lock(&d->lock);
	done = d->done;
	d->done = (struct list){ 0 };
	ended = d->ended || !d->threaded;
	while (ended && (q = pop(&d->waiting)) != NULL)
		push(&done, q);
	memcpy(said, d->said, sizeof(said));
	d->said[0] = '\0';
	uv_mutex_unlock(&d->lock);
	complain(d, said);
	while ((q = pop(&done)) != NULL)
		answer(d, q);
	if (!d->closed || !ended) {
		if (d->pending == 0 && !d->closed)
			uv_unref((uv_handle_t *)&d->answered);
		return;
	}
	if (d->threaded)
		(void)uv_thread_join(&d->thread); /* it has ended */
	uv_close((uv_handle_t *)&d->answered, on_closed);
}

struct directory *
directory_open(
    uv_loop_t *loop, const struct config *cfg, const struct config_ldap *conf, struct err *err)
{
	struct directory *d = calloc(1, sizeof(*d));

	if (d == NULL || uv_async_init(loop, &d->answered, on_answered) < 0) {
		free(d);
		err_set(err, ERR_NOMEM, "no memory for ldap %s", conf->name);
		return NULL;
	}
	uv_unref((uv_handle_t *)&d->answered);
	/* Neither fails (glibc initialises them in place). */
	(void)uv_mutex_init(&d->lock);
	(void)uv_cond_init(&d->wake);
	(void)RAND_bytes(
	    d->secret, sizeof(d->secret)); /* without them only collisions are easier */
	d->cfg = config_ref(cfg);
	d->conf = conf;
	return d;
}

void
directory_close(struct directory *d)
{
	if (d == NULL)
		return;
	d->closed = true;
	uv_ref((uv_handle_t *)&d->answered);
	uv_mutex_lock(&d->lock);
	d->stopping = true;
	uv_cond_signal(&d->wake);
	uv_mutex_unlock(&d->lock);
	if (!d->threaded)
		(void)uv_async_send(&d->answered); /* fails only for a handle of another kind */
}

static int
start_thread(struct directory *d, struct err *err)
{
	int rc;

	if (d->threaded)
		return 0;
	rc = uv_thread_create(&d->thread, thread_main, d);
	d->threaded = rc == 0;
	return rc == 0 ? 0 : err_sys(err, -rc, "thread of ldap %s", d->conf->name);
}

static int
make_filter(const struct directory *d, const struct address *mailbox, char separator,
    char storage[static DIRECTORY_FILTER_MAX], struct err *err)
{
	struct buf out = buf_over(storage, DIRECTORY_FILTER_MAX);

	directory_filter(&out, d->conf->filter, mailbox, separator);
	buf_putc(&out, '\0');
	return out.overflow
		   ? err_set(err, ERR_LIMIT, "the filter of ldap %s is too long", d->conf->name)
		   : 0;
}

int
directory_ask_start(struct directory *d, struct directory_query *q, const struct address *mailbox,
    char separator, struct err *err)
{
	char filter[DIRECTORY_FILTER_MAX];
	struct directory_question *question;

	if (make_filter(d, mailbox, separator, filter, err) < 0 || start_thread(d, err) < 0)
		return -1;
	if (d->pending >= DIRECTORY_WAITING_MAX)
		return err_set(
		    err, ERR_LIMIT, "over %d questions wait for ldap", DIRECTORY_WAITING_MAX);
	question = calloc(1, sizeof(*question) + strlen(filter) + 1);
	if (question == NULL)
		return err_set(err, ERR_NOMEM, "out of memory");
	memcpy(question->filter, filter, strlen(filter) + 1);
	question->query = q;
	q->question = question;
	if (d->pending++ == 0)
		uv_ref((uv_handle_t *)&d->answered);
	uv_mutex_lock(&d->lock);
	push(&d->waiting, question);
	uv_cond_signal(&d->wake);
	uv_mutex_unlock(&d->lock);
	return 0;
}

void
directory_ask_cancel(struct directory_query *q)
{
	if (q->question != NULL)
		q->question->cancelled = true;
}

bool
directory_cached(struct directory *d, const struct address *mailbox, char separator,
    enum directory_outcome *outcome)
{
	char filter[DIRECTORY_FILTER_MAX];

	return make_filter(d, mailbox, separator, filter, NULL) == 0 && recall(d, filter, outcome);
}

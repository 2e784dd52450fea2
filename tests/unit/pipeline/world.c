/* tests/unit/pipeline/world.c - a pipeline with scripted filters, canned facts and a state of its
 * own. */
#include "unit/pipeline/world.h"

#include "relayd/core/config_source.h"

#include <ftw.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH "/etc/relayd/relayd.conf"

/* ---- scripted filters ------------------------------------------------------------------------ */

#define LIST_MAX     8
#define SECTIONS_MAX 32

static struct counted {
	char section[32];
	atomic_uint runs;
} counted[SECTIONS_MAX];

struct script {
	struct counted *count;
	char *asks[LIST_MAX], *then[LIST_MAX], *findings[LIST_MAX], *auth, *properties;
	char *limit, *only, *verdict, *text, *code, *insert, *remove, *sleep;
	bool fail, spin;
};

static struct counted *
count_for(const char *section)
{
	size_t i = 0;

	while (counted[i].section[0] != '\0' && strcmp(counted[i].section, section) != 0)
		i++;
	(void)snprintf(counted[i].section, sizeof(counted[i].section), "%s", section);
	return &counted[i];
}

unsigned
world_runs(const char *section)
{
	return atomic_exchange(&count_for(section)->runs, 0);
}

static char *
one(const struct filter_config *cfg, const char *option, size_t i)
{
	const char *value = cfg->value(cfg, option, i);

	return value != NULL ? strdup(value) : NULL;
}

static void
many(const struct filter_config *cfg, const char *option, char *out[static LIST_MAX])
{
	for (size_t i = 0; i < LIST_MAX; i++)
		out[i] = one(cfg, option, i);
}

static int
script_configure(const struct filter_config *cfg, void **settings)
{
	struct script *sc = calloc(1, sizeof(*sc));

	sc->count = count_for(cfg->name);
	many(cfg, "asks", sc->asks);
	many(cfg, "then", sc->then);
	many(cfg, "finding", sc->findings);
	sc->auth = one(cfg, "auth", 0);
	sc->properties = one(cfg, "properties", 0);
	sc->limit = one(cfg, "limit", 0);
	sc->only = one(cfg, "only", 0);
	sc->verdict = one(cfg, "verdict", 0);
	sc->text = one(cfg, "text", 0);
	sc->code = one(cfg, "code", 0);
	sc->insert = one(cfg, "insert", 0);
	sc->remove = one(cfg, "remove", 0);
	sc->sleep = one(cfg, "sleep", 0);
	sc->fail = cfg->value(cfg, "fail", 0) != NULL;
	sc->spin = cfg->value(cfg, "spin", 0) != NULL;
	*settings = sc;
	return 0;
}

static void
script_release(void *settings)
{
	struct script *sc = settings;
	char *const all[] = { sc->auth, sc->properties, sc->limit, sc->only, sc->verdict, sc->text,
		sc->code, sc->insert, sc->remove, sc->sleep };

	for (size_t i = 0; i < LIST_MAX; i++) {
		free(sc->asks[i]);
		free(sc->then[i]);
		free(sc->findings[i]);
	}
	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		free(all[i]);
	free(sc);
}

/* FILTER_DONE when all are known. */
static enum filter_status
want(struct filter_tx *tx, char *const names[static LIST_MAX])
{
	enum filter_status status = FILTER_DONE;

	for (size_t i = 0; i < LIST_MAX && names[i] != NULL; i++) {
		const struct fact *fact = filter_fact(tx, FACT_DNS_A, slice_str(names[i]));

		if (fact == NULL)
			status = FILTER_WAIT;
		else if (fact->state == FACT_FAILED && status == FILTER_DONE)
			status = FILTER_ERROR;
	}
	return status;
}

static int
take(struct filter_tx *tx, const char *text)
{
	struct filter_limit limit = { .key = slice_until(slice_str(text), '/') };
	unsigned long long count;
	unsigned period;

	if (sscanf(text + limit.key.len, "/%llu/%u", &count, &period) != 2)
		abort();
	limit.count = count;
	limit.period_s = period;
	limit.count_accepted = slice_chop(&limit.key, "+accepted");
	return tx->host->reserve(tx, &limit);
}

static void
say(struct filter_tx *tx, const struct script *sc)
{
	static const char *const verdicts[] = { "accept", "quarantine", "reject", "defer",
		"discard" };

	for (size_t i = 0; i < LIST_MAX && sc->findings[i] != NULL; i++) {
		struct slice name = slice_until(slice_str(sc->findings[i]), '=');

		filter_score(tx, atof(sc->findings[i] + name.len + 1), name, SLICE("because"));
	}
	if (sc->auth != NULL) {
		struct slice method = slice_until(slice_str(sc->auth), '=');

		tx->host->auth_result(
		    tx, method, slice_str(sc->auth + method.len + 1), slice_str(sc->properties));
	}
	for (size_t i = 0; sc->verdict != NULL && i < ARRAY_LEN(verdicts); i++)
		if (strcmp(verdicts[i], sc->verdict) == 0)
			tx->host->verdict(tx, (enum filter_verdict)i,
			    sc->code != NULL ? (unsigned)atoi(sc->code) : 0, SLICE(""),
			    slice_str(sc->text));
}

static void
shape(struct filter_tx *tx, const struct script *sc)
{
	struct filter_edit edit = { .insert = SLICE("") };

	if (sc->insert != NULL) {
		edit.insert = slice_str(sc->insert);
		tx->host->edit(tx, &edit);
	}
	if (sc->remove != NULL) {
		unsigned at, n;

		if (sscanf(sc->remove, "%u/%u", &at, &n) != 2)
			abort();
		edit = (struct filter_edit){ .at = at, .remove = n, .insert = SLICE("") };
		tx->host->edit(tx, &edit);
	}
}

static enum filter_status
script_run(struct filter_tx *tx, const void *settings)
{
	const struct script *sc = settings;
	enum filter_status status;

	atomic_fetch_add(&sc->count->runs, 1);
	if (sc->sleep != NULL)
		(void)usleep((useconds_t)atoi(sc->sleep) * 1000);
	if (sc->spin)
		return FILTER_WAIT;
	/* Found in every run, also in those that end in FILTER_WAIT. */
	say(tx, sc);
	if (sc->only != NULL &&
	    !slice_eq(filter_envelope(tx)->forward_paths[0], slice_str(sc->only)))
		return FILTER_DONE;
	status = want(tx, sc->asks);
	if (status == FILTER_DONE)
		status = want(tx, sc->then);
	if (status != FILTER_DONE)
		return status;
	if (sc->limit != NULL) {
		switch (take(tx, sc->limit)) {
		case -1:
			return FILTER_WAIT;
		case -2:
			return FILTER_ERROR;
		case 0:
			filter_verdict(tx, FILTER_DEFER, SLICE("over the limit"));
			break;
		default:
			break;
		}
	}
	shape(tx, sc);
	return sc->fail ? FILTER_ERROR : FILTER_DONE;
}

static const struct filter_option script_options[] = {
	{ "asks", FILTER_OPTION_LIST },
	{ "then", FILTER_OPTION_LIST },
	{ "finding", FILTER_OPTION_LIST },
	{ "auth", FILTER_OPTION_STRING },
	{ "properties", FILTER_OPTION_STRING },
	{ "limit", FILTER_OPTION_STRING },
	{ "only", FILTER_OPTION_STRING },
	{ "verdict", FILTER_OPTION_STRING },
	{ "text", FILTER_OPTION_STRING },
	{ "code", FILTER_OPTION_COUNT },
	{ "insert", FILTER_OPTION_STRING },
	{ "remove", FILTER_OPTION_STRING },
	{ "sleep", FILTER_OPTION_COUNT },
	{ "fail", FILTER_OPTION_FLAG },
	{ "spin", FILTER_OPTION_FLAG },
	{ NULL, FILTER_OPTION_STRING },
};

#define SCRIPTED(symbol, kind, stage, flag)                                                        \
	static const struct filter symbol = { .abi = RELAYD_FILTER_ABI,                            \
		.size = sizeof(struct filter),                                                     \
		.name = kind,                                                                      \
		.stages = FILTER_AT(stage),                                                        \
		.flags = flag,                                                                     \
		.options = script_options,                                                         \
		.configure = script_configure,                                                     \
		.release = script_release,                                                         \
		.run = script_run }
SCRIPTED(at_connect, "connect", FILTER_CONNECT, 0);
SCRIPTED(at_helo, "helo", FILTER_HELO, 0);
SCRIPTED(at_mail, "mail", FILTER_MAIL, 0);
SCRIPTED(at_rcpt, "rcpt", FILTER_RCPT, 0);
SCRIPTED(at_message, "message", FILTER_MESSAGE, 0);
SCRIPTED(heavy, "heavy", FILTER_MESSAGE, FILTER_HEAVY);
SCRIPTED(shaper, "shaper", FILTER_MESSAGE, FILTER_SHAPER);
SCRIPTED(secure, "secure", FILTER_MAIL, FILTER_SECURITY);
SCRIPTED(inbound, "inbound", FILTER_MAIL, FILTER_INBOUND);

const struct filter *const world_filters[] = { &at_connect, &at_helo, &at_mail, &at_rcpt,
	&at_message, &heavy, &shaper, &secure, &inbound, NULL };

/* ---- facts ----------------------------------------------------------------------------------- */

struct world_pending {
	struct world_pending *next;
	struct fact_query *q;
};

static struct fact
fact_for(const struct world *w)
{
	static const struct fact_value value = { .bytes = { "\x7f\0\0\2", 4 } };
	struct fact fact = {
		.size = sizeof(fact), .state = FACT_OK, .ttl_s = 300, .n = 1, .values = &value
	};

	if (w->failing)
		return (struct fact){ .size = sizeof(fact), .state = FACT_FAILED };
	return fact;
}

static bool
canned_ask(void *source, struct fact_query *q, const struct fact **out)
{
	static struct fact fact;
	struct world *w = source;
	struct world_pending **end = &w->pending;

	buf_put(&w->asked, q->name);
	buf_putc(&w->asked, ' ');
	if (w->at_once) {
		fact = fact_for(w);
		*out = &fact;
		return true;
	}
	while (*end != NULL)
		end = &(*end)->next;
	*end = calloc(1, sizeof(**end));
	(*end)->q = q;
	q->busy = true;
	q->work = *end;
	return false;
}

static void
take_out(struct world *w, struct world_pending *p)
{
	struct world_pending **at = &w->pending;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	p->q->busy = false;
	free(p);
}

static void
canned_forget(void *source, struct fact_query *q)
{
	take_out(source, q->work);
}

bool
world_answer(struct world *w, const char *name)
{
	struct world_pending *p = w->pending;
	struct fact fact = fact_for(w);
	struct fact_query *q;

	while (p != NULL && name != NULL && !slice_eq(p->q->name, slice_str(name)))
		p = p->next;
	if (p == NULL)
		return false;
	q = p->q;
	take_out(w, p);
	q->done(q, &fact);
	return true;
}

const char *
world_asked(struct world *w)
{
	static char text[4096];

	(void)snprintf(text, sizeof(text), "%.*s", SLICE_FMT(buf_slice(&w->asked)));
	buf_reset(&w->asked);
	return text;
}

/* ---- life ------------------------------------------------------------------------------------ */

static const struct fact_source canned = { .ask = canned_ask, .forget = canned_forget };

static const char head[] = "hostname = mx.example.test\npostmaster = \"pm@example.test\"\n"
			   "domains = { example.test, strict.test }\n"
			   "route example.test { to = { \"127.0.0.1:25\" } }\n"
			   "route strict.test { to = { \"127.0.0.1:25\" } }\n";

static void
on_done(struct pipeline_run *run)
{
	container_of(run, struct world, run)->done = true;
}

static void
on_release(struct pipeline_message *message)
{
	container_of(message, struct world, message)->released++;
}

void
world_reload_text(struct world *w, const char *text)
{
	struct err err = { 0 };
	struct config_source *src;
	char *all;

	config_unref(w->cfg);
	buf_reset(&w->snapshot);
	ck_assert_int_gt(asprintf(&all, "%s%s", head, text), 0);
	config_source_begin_snapshot(&w->snapshot, true);
	config_source_put(&w->snapshot, PATH, slice_str(all));
	free(all);
	src = config_source_snapshot(buf_slice(&w->snapshot), &err);
	ck_assert_ptr_nonnull(src);
	w->cfg = config_load(PATH, src, &err);
	ck_assert_msg(w->cfg != NULL, "%s", err.msg);
}

void
world_load_text(struct world *w, const char *text)
{
	*w = (struct world){ .run = { .done = on_done } };
	w->snapshot = buf_heap(1 << 20);
	w->asked = buf_heap(1 << 20);
	w->message.release = on_release;
	(void)snprintf(w->dir, sizeof(w->dir), "/tmp/relayd-pipeline-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(w->dir));
	world_reload_text(w, text);
	ck_assert_int_eq(uv_loop_init(&w->loop), 0);
}

void
world_build(struct world *w, const struct filter *const *builtin)
{
	struct err err = { 0 };

	w->pl = pipeline_new(w->cfg, builtin, &err);
	ck_assert_msg(w->pl != NULL, "%s", err.msg);
	w->facts = facts_open(&w->loop, NULL, w->state);
	facts_use_source(w->facts, &canned, w);
}

void
world_init(struct world *w, const char *policies, struct config_filter *filters, size_t n)
{
	world_load_text(w, policies);
	w->cfg->filters = filters;
	w->cfg->n_filters = n;
	world_build(w, world_filters);
}

void
world_init_text(struct world *w, const char *text, const struct filter *const *builtin)
{
	world_load_text(w, text);
	world_build(w, builtin);
}

void
world_with_state(struct world *w)
{
	struct err err = { 0 };

	w->state = state_open(&w->loop, w->dir, 0, &err);
	ck_assert_msg(w->state != NULL, "%s", err.msg);
	facts_close(w->facts);
	w->facts = facts_open(&w->loop, NULL, w->state);
	facts_use_source(w->facts, &canned, w);
}

void
world_with_trace(struct world *w)
{
	struct err err = { 0 };

	w->trace = trace_open(w->dir, "intake", 0, &err);
	ck_assert_msg(w->trace != NULL, "%s", err.msg);
}

static int
remove_one(const char *path, const struct stat *sb, int type, struct FTW *ftw)
{
	(void)sb, (void)type, (void)ftw;
	return remove(path);
}

void
world_unload(struct world *w)
{
	ck_assert_int_eq(uv_loop_close(&w->loop), 0);
	config_unref(w->cfg);
	buf_fini(&w->snapshot);
	buf_fini(&w->asked);
	(void)nftw(w->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void
world_fini(struct world *w)
{
	if (w->tx != NULL)
		world_end(w, false);
	pipeline_session_free(w->s);
	(void)uv_run(&w->loop, UV_RUN_DEFAULT);
	state_close(w->state);
	trace_close(w->trace);
	(void)uv_run(&w->loop, UV_RUN_DEFAULT);
	facts_close(w->facts);
	ck_assert_ptr_null(w->pending);
	pipeline_unref(w->pl);
	world_unload(w);
}

/* ---- a client -------------------------------------------------------------------------------- */

void
world_client(struct world *w, const char *ip, bool trusted)
{
	struct cidr net;
	struct pipeline_client client = { .id = id_new(), .listener = "mx", .trusted = trusted };

	ck_assert(cidr_parse(slice_str(ip), &net));
	client.addr = slice_of(net.addr, net.len);
	w->s = pipeline_session_new(w->pl, w->facts, w->trace, &client);
	ck_assert_ptr_nonnull(w->s);
	w->run.session = w->s;
	w->run.tx = NULL;
}

bool
world_start(struct world *w, enum filter_stage stage)
{
	bool over;

	w->done = false;
	w->run.session = w->s;
	w->run.tx = w->tx;
	over = pipeline_start(&w->run, stage);
	ck_assert(!w->done); /* never inside start */
	w->done = over;
	return over;
}

void
world_wait(struct world *w, bool answering)
{
	while (!w->done) {
		if (answering && world_answer(w, NULL))
			continue;
		ck_assert_msg(uv_loop_alive(&w->loop), "nothing will end this stage");
		(void)uv_run(&w->loop, UV_RUN_ONCE);
	}
}

static enum pipeline_answer
run_stage(struct world *w, enum filter_stage stage)
{
	if (!world_start(w, stage))
		world_wait(w, true);
	return w->run.answer;
}

enum pipeline_answer
world_connect(struct world *w)
{
	return run_stage(w, FILTER_CONNECT);
}

enum pipeline_answer
world_helo(struct world *w, const char *name)
{
	ck_assert(pipeline_session_helo(w->s, slice_str(name)));
	return run_stage(w, FILTER_HELO);
}

enum pipeline_answer
world_mail(struct world *w, const char *reverse_path)
{
	w->tx = pipeline_tx_begin(w->s, id_new(), slice_str(reverse_path));
	ck_assert_ptr_nonnull(w->tx);
	return run_stage(w, FILTER_MAIL);
}

enum pipeline_answer
world_rcpt(struct world *w, const char *forward_path)
{
	w->run.rcpt =
	    (struct envelope_rcpt){ .forward_path = slice_str(forward_path), .params = SLICE("") };
	return run_stage(w, FILTER_RCPT);
}

enum pipeline_answer
world_message(struct world *w, const char *bytes)
{
	w->message.bytes = slice_str(bytes);
	w->run.message = &w->message;
	w->run.fields = SLICE("Received: by mx.example.test\r\n");
	return run_stage(w, FILTER_MESSAGE);
}

enum pipeline_answer
world_send(struct world *w, const char *bytes)
{
	world_client(w, "192.0.2.7", false);
	ck_assert_int_eq(world_connect(w), PIPELINE_GO_ON);
	ck_assert_int_eq(world_helo(w, "client.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_mail(w, "alice@sender.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(w, "bob@example.test"), PIPELINE_GO_ON);
	return world_message(w, bytes);
}

void
world_send_two(struct world *w, const char *reverse_path, const char *other, const char *bytes)
{
	world_client(w, "192.0.2.7", false);
	ck_assert_int_eq(world_mail(w, reverse_path), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(w, "bob@example.test"), PIPELINE_GO_ON);
	ck_assert_int_eq(world_rcpt(w, other), PIPELINE_GO_ON);
	ck_assert_int_eq(world_message(w, bytes), PIPELINE_GO_ON);
}

void
world_end(struct world *w, bool accepted)
{
	pipeline_tx_end(w->tx, accepted, accepted ? SLICE("250 2.0.0 kept") : SLICE(""));
	w->tx = NULL;
	w->run.tx = NULL;
}

struct slice
world_bytes(struct world *w, size_t copy, struct buf *out)
{
	struct envelope env = {
		.size = w->message.bytes.len, .copies = w->run.copies, .n_copies = w->run.n_copies
	};
	struct envelope_walk walk;
	struct envelope_run run;

	ck_assert_uint_lt(copy, w->run.n_copies);
	walk = envelope_walk_of(&env, &w->run.copies[copy]);
	buf_reset(out);
	while (envelope_walk_next(&walk, &run))
		buf_put(out, run.literal.len > 0
				 ? run.literal
				 : slice_head(slice_drop(w->message.bytes, (size_t)run.from),
				       (size_t)run.len));
	ck_assert(!out->overflow);
	ck_assert_uint_eq(out->len, envelope_copy_size(&env, &w->run.copies[copy]));
	return buf_slice(out);
}

/* relayd/pipeline/scan.c - the filters over one message that is only looked at. */
#include "relayd/pipeline/scan.h"

#include "relayd/pipeline/inside.h"
#include "relayd/pipeline/trace.h"

#include <stdlib.h>

/* A scan under way.  The client says HELO, MAIL, one RCPT for each forward-path, and the
 * message. */
struct scanning {
	struct pipeline_scan *scan;
	struct pipeline_session *session;
	struct pipeline_tx *tx;
	struct pipeline_run run;
	struct pipeline_message message;
	char *postmaster;        /* the recipient where none is given */
	enum filter_stage stage; /* what runs next */
	size_t next_rcpt;
	uv_timer_t begin;
	char *findings, *check;
	struct buf json;
};

/* ---- the result ------------------------------------------------------------------------------ */

static const char *
refusal_name(enum pipeline_answer answer)
{
	return answer == PIPELINE_REJECT ? "reject" : "defer";
}

static void
put_findings(struct buf *out, struct slice findings)
{
	buf_puts(out, "{");
	while (findings.len > 0) {
		struct slice pair = slice_until(findings, ',');
		const char *equals = memrchr(pair.p, '=', pair.len);
		size_t name = equals != NULL ? (size_t)(equals - pair.p) : pair.len;

		findings = slice_drop(findings, pair.len + 1);
		pl_json_text(out, slice_head(pair, name));
		buf_printf(out, ":%.*s%s", SLICE_FMT(slice_drop(pair, name + 1)),
		    findings.len > 0 ? "," : "");
	}
	buf_puts(out, "}");
}

static void
write_json(struct scanning *sc)
{
	const struct pipeline_scan *scan = sc->scan;

	sc->json = buf_heap(TRACE_JSON_MAX + 65536);
	buf_printf(
	    &sc->json, "{\"verdict\":\"%s\",\"score\":%.1f,\"check\":", scan->verdict, scan->score);
	pl_json_text(&sc->json, slice_str(scan->check));
	buf_puts(&sc->json, ",\"findings\":");
	put_findings(&sc->json, scan->findings);
	if (sc->run.reply.code != 0) {
		buf_printf(&sc->json,
		    ",\"code\":%u,\"enhanced\":\"%s\",\"text\":", sc->run.reply.code,
		    sc->run.reply.enhanced);
		pl_json_text(&sc->json, slice_str(sc->run.reply.text));
	}
	if (sc->tx != NULL) {
		buf_puts(&sc->json, ",\"trace\":");
		pl_tell_tx_json(sc->tx, false, SLICE(""), &sc->json);
	}
	buf_putc(&sc->json, '}');
}

static void
finish(struct scanning *sc)
{
	struct pipeline_scan *scan = sc->scan;
	bool judged = sc->stage == FILTER_MESSAGE;

	scan->verdict = judged ? sc->run.verdict : refusal_name(sc->run.answer);
	scan->score = sc->run.score;
	sc->findings = strndup(sc->run.findings.p, sc->run.findings.len);
	sc->check = strdup(sc->run.check);
	scan->findings = slice_str(sc->findings);
	scan->check = sc->check != NULL ? sc->check : "";
	write_json(sc);
	scan->json = buf_slice(&sc->json);
	pipeline_tx_end(sc->tx, false, SLICE(""));
	pipeline_session_free(sc->session);
	sc->tx = NULL;
	sc->session = NULL;
	scan->done(scan);
}

/* ---- the stages ------------------------------------------------------------------------------ */

static struct slice
rcpt_at(const struct scanning *sc, size_t i)
{
	return sc->scan->n_forward_paths > 0 ? sc->scan->forward_paths[i]
					     : slice_str(sc->postmaster);
}

static void
prepare(struct scanning *sc)
{
	sc->run.tx = sc->tx;
	switch (sc->stage) {
	case FILTER_HELO:
		(void)pipeline_session_helo(
		    sc->session, sc->scan->helo); /* empty where there is no room */
		break;
	case FILTER_MAIL:
		sc->tx = pipeline_tx_begin(sc->session, id_new(), sc->scan->reverse_path);
		sc->run.tx = sc->tx;
		break;
	case FILTER_RCPT:
		sc->run.rcpt = (struct envelope_rcpt){ .forward_path = rcpt_at(sc, sc->next_rcpt++),
			.params = SLICE("") };
		break;
	case FILTER_MESSAGE:
		sc->message.bytes = sc->scan->message;
		sc->run.message = &sc->message;
		sc->run.fields = SLICE("");
		break;
	case FILTER_CONNECT:
		break;
	}
}

/* False when all have run. */
static bool
go_on(struct scanning *sc)
{
	size_t rcpts = sc->scan->n_forward_paths > 0 ? sc->scan->n_forward_paths : 1;

	if (sc->run.answer != PIPELINE_GO_ON || sc->stage == FILTER_MESSAGE)
		return false;
	if (sc->stage != FILTER_RCPT || sc->next_rcpt == rcpts)
		sc->stage++;
	return true;
}

static void
step(struct scanning *sc)
{
	do {
		prepare(sc);
		if (sc->stage == FILTER_MAIL && sc->tx == NULL) {
			sc->run.answer = PIPELINE_DEFER; /* out of memory */
			break;
		}
		if (!pipeline_start(&sc->run, sc->stage))
			return;
	} while (go_on(sc));
	finish(sc);
}

static void
on_stage(struct pipeline_run *run)
{
	struct scanning *sc = container_of(run, struct scanning, run);

	if (go_on(sc))
		step(sc);
	else
		finish(sc);
}

static void
on_begin_closed(uv_handle_t *handle)
{
	struct scanning *sc = container_of(handle, struct scanning, begin);

	step(sc);
}

static void
on_begin(uv_timer_t *timer)
{
	uv_close((uv_handle_t *)timer, on_begin_closed);
}

/* ---- life ------------------------------------------------------------------------------------ */

static int
open_session(struct scanning *sc, struct err *err)
{
	struct slice ip = sc->scan->ip.len > 0 ? sc->scan->ip : SLICE("127.0.0.1");
	struct pipeline_client client = { .id = id_new(), .listener = "scan", .dry = true };
	struct cidr net;

	if (slice_has(ip, '/') || !cidr_parse(ip, &net))
		return err_set(
		    err, ERR_FORMAT, "%.*s is no IP address", SLICE_FMT(slice_head(ip, 60)));
	client.addr = slice_of(net.addr, net.len);
	client.trusted =
	    config_in_networks(sc->scan->pipeline->cfg, client.addr) && sc->scan->ip.len > 0;
	sc->session = pipeline_session_new(sc->scan->pipeline, sc->scan->facts, NULL, &client);
	return sc->session != NULL ? 0 : err_set(err, ERR_NOMEM, "out of memory for a scan");
}

static void
scanning_free(struct scanning *sc)
{
	if (sc == NULL)
		return;
	free(sc->postmaster);
	free(sc->findings);
	free(sc->check);
	buf_fini(&sc->json);
	free(sc);
}

static char *
postmaster_of(const struct config *cfg)
{
	size_t bytes = 300;
	char *text = malloc(bytes);

	if (text != NULL)
		(void)snprintf(text, bytes, "postmaster@%s",
		    cfg->domains.n > 0 ? cfg->domains.v[0]
				       : cfg->hostname); /* domains are shorter */
	return text;
}

int
pipeline_scan_start(struct pipeline_scan *scan, struct err *err)
{
	struct scanning *sc = calloc(1, sizeof(*sc));

	if (sc == NULL)
		return err_set(err, ERR_NOMEM, "out of memory for a scan");
	sc->scan = scan;
	if (open_session(sc, err) < 0) {
		scanning_free(sc);
		return -1;
	}
	sc->postmaster = postmaster_of(scan->pipeline->cfg);
	sc->run.session = sc->session;
	sc->run.done = on_stage;
	scan->work = sc;
	/* Neither fails on a live loop; done is never called inside this. */
	(void)uv_timer_init(facts_loop(scan->facts), &sc->begin);
	(void)uv_timer_start(&sc->begin, on_begin, 0, 0);
	return 0;
}

void
pipeline_scan_fini(struct pipeline_scan *scan)
{
	scanning_free(scan->work);
	scan->work = NULL;
}

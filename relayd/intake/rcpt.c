/* relayd/intake/rcpt.c - a recipient: from RCPT to its answer.
 *
 * It may be an alias for others, and is looked for in files, in a directory, or by asking its next
 * hop; each path that it stands for is judged by the filters.
 */
#include "relayd/intake/transaction.h"

#include "relayd/intake/relay.h"

#include <stdio.h>

static void
refuse_rcpt(struct session *s, const struct refusal *r)
{
	struct transaction *tx = s->tx;
	char note[SMTP_REPLY_LINE_MAX];

	tx->any_refused = true;
	report_rcpt(tx, r->code, r->why);
	(void)snprintf(note, sizeof(note), "%u %s %s", r->code, r->enhanced, r->text); /* short */
	pipeline_note(s->pipeline, tx->pipeline, "recipient", tx->asked, slice_str(note));
	session_answer(s, r->code, r->enhanced, "<%.*s>: %s", SLICE_FMT(tx->asked), r->text);
}

/* Its place, or n_rcpts. */
static size_t
find_rcpt(const struct transaction *tx, struct slice path)
{
	size_t i = 0;

	while (i < tx->n_rcpts && !slice_eq(tx->rcpts[i], path))
		i++;
	return i;
}

static bool
add_rcpt(struct transaction *tx, struct slice path)
{
	struct slice *grown =
	    arena_grow(&tx->arena, tx->rcpts, tx->n_rcpts, &tx->cap_rcpts, sizeof(*grown));

	if (grown == NULL)
		return false;
	tx->rcpts = grown;
	tx->rcpts[tx->n_rcpts++] = path;
	return true;
}

/* The session counts every RCPT that got 250; an answer for each has to find its recipient. */
static bool
add_reply(struct transaction *tx, size_t first, size_t n)
{
	struct reply_of *grown =
	    arena_grow(&tx->arena, tx->replies, tx->n_replies, &tx->cap_replies, sizeof(*grown));

	if (grown == NULL)
		return false;
	tx->replies = grown;
	tx->replies[tx->n_replies++] =
	    (struct reply_of){ .first = (uint32_t)first, .n = (uint32_t)n };
	return true;
}

/* What was taken of an alias is given back: else a client that tries again sends it twice. */
static void
forget_paths(struct transaction *tx)
{
	tx->n_rcpts = tx->rcpt.before;
	pipeline_tx_trim(tx->pipeline, tx->n_rcpts);
}

static const struct refusal too_many = { 452, "4.5.3", "too many recipients for one message",
	"memory" };

static void
refuse_paths(struct session *s)
{
	char note[SMTP_REPLY_LINE_MAX];

	forget_paths(s->tx);
	s->tx->any_refused = true;
	report_rcpt(s->tx, s->stage->run.reply.code, s->stage->run.check);
	reply_text(&s->stage->run.reply, note);
	pipeline_note(s->pipeline, s->tx->pipeline, "recipient", s->tx->asked, slice_str(note));
	session_refuse(s);
}

static void
named_twice(struct session *s, size_t rcpt)
{
	if (add_reply(s->tx, rcpt, 1))
		session_answer(s, 250, "2.1.5", "Ok, named twice");
	else
		refuse_rcpt(s, &too_many);
}

static void judge_paths(struct session *s);

static void
path_judged(struct session *s)
{
	struct transaction *tx = s->tx;

	if (s->stage->run.answer != PIPELINE_GO_ON) {
		refuse_paths(s);
		return;
	}
	if (!add_rcpt(tx, tx->rcpt.paths.v[tx->rcpt.next])) {
		forget_paths(tx);
		refuse_rcpt(s, &too_many);
		return;
	}
	tx->rcpt.next++;
	tx->rcpt.passed = true;
	if (!tx->rcpt.looping)
		judge_paths(s);
}

/* Those that the message has already are passed over. */
static bool
has_next_path(struct transaction *tx)
{
	while (tx->rcpt.next < tx->rcpt.paths.n &&
	       find_rcpt(tx, tx->rcpt.paths.v[tx->rcpt.next]) < tx->n_rcpts)
		tx->rcpt.next++;
	return tx->rcpt.next < tx->rcpt.paths.n;
}

/* One after the other, in a loop where the filters wait for nothing. */
static void
judge_paths(struct session *s)
{
	struct transaction *tx = s->tx;

	tx->refs++; /* a 421 ends it */
	tx->rcpt.passed = tx->rcpt.looping = true;
	while (tx->rcpt.passed && has_next_path(tx)) {
		tx->rcpt.passed = false;
		s->stage->run.tx = tx->pipeline;
		s->stage->run.rcpt = (struct envelope_rcpt){
			.forward_path = tx->rcpt.paths.v[tx->rcpt.next],
			.params = tx->asked_params,
		};
		session_judge(s, FILTER_RCPT, path_judged);
	}
	tx->rcpt.looping = false;
	if (tx->rcpt.passed && tx->n_rcpts == tx->rcpt.before)
		named_twice(s, find_rcpt(tx, tx->rcpt.paths.v[0]));
	else if (tx->rcpt.passed && add_reply(tx, tx->rcpt.before, tx->n_rcpts - tx->rcpt.before))
		session_pass(s, 250);
	else if (tx->rcpt.passed) {
		forget_paths(tx);
		refuse_rcpt(s, &too_many);
	}
	transaction_unref(tx);
}

/* The recipients exist, as far as we know: now the filters. */
static void
take_paths(struct session *s, struct alias_paths paths)
{
	struct transaction *tx = s->tx;

	tx->rcpt.paths = paths;
	tx->rcpt.next = 0;
	tx->rcpt.before = tx->n_rcpts;
	if (paths.n > 1 && tx->n_rcpts + paths.n > s->gen->cfg->limits.recipients) {
		counter_add(COUNTER_LIMIT_HITS, 1);
		refuse_rcpt(s, &too_many);
	} else {
		judge_paths(s);
	}
}

static void
judge_rcpt(struct session *s)
{
	take_paths(s, (struct alias_paths){ .v = &s->tx->asked, .n = 1 });
}

static const struct refusal unknown_rcpt = { 550, "5.1.1", "there is no such recipient here",
	"unknown-recipient" };

static bool
is_postmaster(struct slice mailbox)
{
	struct slice local, domain;

	return address_split(mailbox, &local, &domain) && slice_ieq(local, SLICE("postmaster"));
}

/* Nobody has that address; but <postmaster@> any domain of ours is one (RFC 5321 section 4.5.1). */
static void
refuse_unknown(struct session *s)
{
	struct transaction *tx = s->tx;
	const char *postmaster = s->gen->cfg->postmaster;

	if (!is_postmaster(tx->asked)) {
		refuse_rcpt(s, &unknown_rcpt);
		return;
	}
	tx->asked = arena_copy(&tx->arena, slice_str(postmaster));
	if (tx->asked.p != NULL) {
		judge_rcpt(s);
		return;
	}
	tx->asked = SLICE("");
	refuse_rcpt(s, &too_many);
}

/* Its own words, as a bounce would have them: what the sender is to do hangs on them. */
static void
refuse_as_next_hop(struct session *s, const struct probe_answer *answer)
{
	char text[SMTP_REPLY_LINE_MAX];

	(void)snprintf(text, sizeof(text), "its mail server refuses it: %.*s",
	    SLICE_FMT(answer->text)); /* a long one is cut, as a reply line is */
	refuse_rcpt(s, &(struct refusal){ answer->code == 552 ? 552 : 550,
			   answer->enhanced[0] == '5' ? answer->enhanced : "5.2.0", text,
			   "recipient-refused" });
}

static void
probed(struct session *s, const struct probe_answer *answer)
{
	static const struct refusal unreachable = { 450, "4.4.1",
		"its mail server cannot be asked now; try again later", "recipient-probe" };

	if (answer->outcome == PROBE_KNOWN)
		judge_rcpt(s);
	else if (answer->outcome == PROBE_REFUSED && !is_postmaster(s->tx->asked))
		refuse_as_next_hop(s, answer);
	else if (answer->outcome == PROBE_UNKNOWN || answer->outcome == PROBE_REFUSED)
		refuse_unknown(s);
	else
		refuse_rcpt(s, &unreachable);
}

static void
on_probed(struct probe_query *q, const struct probe_answer *answer)
{
	struct transaction *tx = container_of(q, struct transaction, probe);
	struct session *s = tx->session;

	tx->probing = false;
	if (s->server != NULL)
		probed(s, answer);
	else
		transaction_lost(s);
	session_unwait(s);
}

static void
probe_rcpt(struct session *s, const struct config_route *route)
{
	struct transaction *tx = s->tx;
	struct probe_answer answer = { .outcome = PROBE_UNREACHABLE, .text = SLICE("") };
	struct err err;

	if (probe_cached(s->in->probe, route, tx->asked, &answer)) {
		probed(s, &answer);
		return;
	}
	tx->probe = (struct probe_query){ .done = on_probed, .owner = tx };
	if (probe_query_start(s->in->probe, &tx->probe, route, tx->asked, &err) < 0) {
		probed(s, &answer);
		return;
	}
	tx->probing = true;
	s->waits++;
}

static void
directory_said(struct session *s, enum directory_outcome outcome)
{
	static const struct refusal unreachable = { 451, "4.4.3",
		"the directory of recipients cannot be asked now; try again later",
		"recipient-directory" };

	if (outcome == DIRECTORY_KNOWN)
		judge_rcpt(s);
	else if (outcome == DIRECTORY_UNKNOWN)
		refuse_unknown(s);
	else
		refuse_rcpt(s, &unreachable);
}

static void
on_directory(struct directory_query *q, enum directory_outcome outcome)
{
	struct transaction *tx = container_of(q, struct transaction, directory);
	struct session *s = tx->session;

	tx->probing = false;
	if (s->server != NULL)
		directory_said(s, outcome);
	else
		transaction_lost(s);
	session_unwait(s);
}

static void
ask_directory(struct session *s, struct directory *d, const struct address *forward_path)
{
	struct transaction *tx = s->tx;
	char extension = s->gen->cfg->recipients.extension;
	enum directory_outcome outcome = DIRECTORY_UNREACHABLE;
	struct err err;

	tx->directory = (struct directory_query){ .done = on_directory };
	if (directory_cached(d, forward_path, extension, &outcome) ||
	    directory_ask_start(d, &tx->directory, forward_path, extension, &err) < 0) {
		directory_said(s, outcome);
		return;
	}
	tx->probing = true;
	s->waits++;
}

/* The trace tells where an alias led. */
static void
note_alias(struct session *s, const struct alias_paths *paths)
{
	char storage[400];
	struct buf text = buf_over(storage, sizeof(storage));

	for (size_t i = 0; i < paths->n && !text.overflow; i++) {
		buf_puts(&text, i > 0 ? ", " : "");
		buf_put(&text, paths->v[i]);
	}
	pipeline_note(s->pipeline, s->tx->pipeline, "alias", s->tx->asked, buf_slice(&text));
}

/* In a file, and perhaps an alias there. */
static void
look_up_rcpt(struct session *s)
{
	static const struct refusal circle = { 451, "4.4.6",
		"its aliases lead in a circle; try again later", "alias-circle" };
	static const struct refusal limit = { 451, "4.3.5",
		"its aliases lead to too many addresses; try again later", "alias-limit" };
	struct transaction *tx = s->tx;
	struct alias_paths paths;

	switch (alias_expand(s->gen, &tx->arena, tx->asked, &paths)) {
	case ALIAS_KNOWN:
		if (paths.rewritten)
			note_alias(s, &paths);
		take_paths(s, paths);
		break;
	case ALIAS_UNKNOWN:
		refuse_unknown(s);
		break;
	case ALIAS_CIRCLE:
		refuse_rcpt(s, &circle);
		break;
	case ALIAS_LIMIT:
		counter_add(COUNTER_LIMIT_HITS, 1);
		refuse_rcpt(s, &limit);
		break;
	}
}

/* A recipient in one of our domains: does it exist? */
static void
check_ours(struct session *s, const struct address *forward_path)
{
	const struct config_route *route = config_route_for(s->gen->cfg, forward_path->domain);

	if (route != NULL && route->recipients == CONFIG_RECIPIENTS_PROBE && s->in->probe != NULL)
		probe_rcpt(s, route);
	else if (route != NULL && generation_recipients(s->gen, route) != NULL)
		look_up_rcpt(s);
	else if (route != NULL && generation_directory(s->gen, route) != NULL)
		ask_directory(s, generation_directory(s->gen, route), forward_path);
	else
		judge_rcpt(s);
}

/* A recipient in one of our domains that its next hop may take for one elsewhere.  An admin who has
 * such mailboxes names them. */
static void
check_routed(struct session *s, const struct address *forward_path)
{
	static const struct refusal routed = { 550, "5.7.1",
		"a local part with %, ! or @ asks for mail to be sent on, and you may not relay "
		"through us",
		"relay-routed" };
	const struct config_route *route = config_route_for(s->gen->cfg, forward_path->domain);
	const struct recipients *file = route != NULL ? generation_recipients(s->gen, route) : NULL;

	if (file == NULL)
		refuse_rcpt(s, &routed);
	else if (recipients_name(file, forward_path))
		check_ours(s, forward_path);
	else
		refuse_unknown(s);
}

/* The domain as the config has it: A-labels (RFC 5890); what IDNA does not know is as it is. */
static struct address
with_ascii_domain(const struct address *path, struct buf *domain)
{
	struct address a = *path;

	if (a.kind == ADDRESS_MAILBOX && !a.literal && address_domain_ascii(a.domain, domain) &&
	    !domain->overflow)
		a.domain = buf_slice(domain);
	return a;
}

void
on_rcpt(void *user, const struct smtp_rcpt *rcpt)
{
	static const struct refusal denied = { 550, "5.7.1",
		"we are not a mail server for that domain, and you may not relay through us",
		"relay-denied" };
	struct session *s = user;
	struct transaction *tx = s->tx;
	struct relay_client client = {
		.trusted = s->trusted || s->release,
		.submission = s->gen->listeners[s->listener].submission,
	};
	char storage[ADDRESS_DOMAIN_MAX];
	struct buf domain = buf_over(storage, sizeof(storage));
	struct address forward_path =
	    tx->utf8 ? with_ascii_domain(&rcpt->forward_path, &domain) : rcpt->forward_path;
	enum relay_verdict verdict = relay_check(s->gen->cfg, &client, &forward_path);
	size_t known;

	tx->asked =
	    arena_copy(&tx->arena, verdict == RELAY_POSTMASTER ? slice_str(s->gen->cfg->postmaster)
							       : forward_path.mailbox);
	tx->asked_params = arena_copy(&tx->arena, rcpt->params);
	if (tx->asked.p == NULL || tx->asked_params.p == NULL) {
		tx->asked = SLICE("");
		refuse_rcpt(s, &too_many);
	} else if (verdict == RELAY_DENIED) {
		refuse_rcpt(s, &denied);
	} else if ((known = find_rcpt(tx, tx->asked)) < tx->n_rcpts) {
		named_twice(s, known);
	} else if (verdict == RELAY_OURS && !s->release) {
		check_ours(s, &forward_path);
	} else if (verdict == RELAY_ROUTED) {
		check_routed(s, &forward_path);
	} else {
		judge_rcpt(s);
	}
}

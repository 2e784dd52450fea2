/* relayd/pipeline/reply.c - a refusal in words: which check, which id, and whom to ask. */
#include "relayd/pipeline/reply.h"

#include "relayd/pipeline/fields.h"

#include <stdio.h>

/* "4.7.1" of that class: three numbers, the first being that of the code (RFC 3463 section 2). */
static bool
is_enhanced(struct slice s, unsigned code)
{
	unsigned dots = 0;

	if (s.len < 5 || s.len > 9 || s.p[0] != (char)('0' + code / 100) || s.p[1] != '.' ||
	    s.p[s.len - 1] == '.')
		return false;
	for (size_t i = 0; i < s.len; i++) {
		if (s.p[i] == '.')
			dots++;
		else if (s.p[i] < '0' || s.p[i] > '9')
			return false;
	}
	return dots == 2;
}

static unsigned
default_code(enum filter_stage stage, bool reject)
{
	if (stage == FILTER_CONNECT)
		return reject ? 554 : 421; /* RFC 5321 section 3.1, RFC 5321 section 3.8 */
	if (stage == FILTER_MESSAGE || stage == FILTER_HELO)
		return reject ? 550 : 451;
	return reject ? 550 : 450;
}

/* "Listed in zen [check dnsbl, id abc, contact postmaster@example.org]" */
void
pl_reply_word(struct pipeline_reply *reply, const struct wording *w)
{
	char tail[200];
	struct buf text = buf_over(reply->text, sizeof(reply->text) - 1);
	bool fits = w->code / 100 == (w->reject ? 5u : 4u) && w->code % 100 <= 59;
	struct slice enhanced;

	reply->code = fits ? w->code : default_code(w->stage, w->reject);
	enhanced = is_enhanced(w->enhanced, reply->code) ? w->enhanced
		   : w->reject                           ? SLICE("5.7.1")
							 : SLICE("4.7.1");
	(void)snprintf(reply->enhanced, sizeof(reply->enhanced), "%.*s", SLICE_FMT(enhanced));
	(void)snprintf(tail, sizeof(tail), " [check %.40s, id %.26s, contact %.90s]", w->check,
	    w->id, w->postmaster); /* each bounded, together shorter than tail */
	pl_field_reply(&text, slice_head(w->text, sizeof(reply->text) - 1 - strlen(tail)));
	pl_field_reply(&text, slice_str(tail));
	reply->text[text.len] = '\0';
	reply->help = w->help;
}

const char *
pl_reply_contact(const struct pipeline_session *s)
{
	return s->pl->cfg->postmaster != NULL ? s->pl->cfg->postmaster : "postmaster";
}

/* Positions count from 1, in the order of the config. */
static const char *
help_of(const struct pipeline_session *s, unsigned position)
{
	const struct config *cfg = s->pl->cfg;

	return position >= 1 && position <= cfg->n_filters ? cfg->filters[position - 1].help : NULL;
}

void
pl_reply_decision(struct pipeline_reply *reply, const struct pipeline_run *run,
    enum filter_stage stage, const struct decision *d)
{
	struct wording w = { .stage = stage,
		.reject = d->verdict == FILTER_REJECT,
		.code = d->code,
		.enhanced = d->enhanced,
		.text = d->text,
		.check = d->filter,
		.id = run->tx != NULL ? run->tx->id_text : run->session->found->id_text,
		.help = help_of(run->session, d->position),
		.postmaster = pl_reply_contact(run->session) };

	if (w.text.len == 0)
		w.text = w.reject ? SLICE("Refused by local policy") : SLICE("Try again later");
	pl_reply_word(reply, &w);
}

void
pl_reply_score(
    struct pipeline_reply *reply, const struct pipeline_run *run, const struct judgement *j)
{
	char text[160];
	char name[41];
	struct buf clean = buf_over(name, sizeof(name) - 1);
	struct wording w = { .stage = FILTER_MESSAGE,
		.reject = true,
		.check = "score",
		.id = run->tx->id_text,
		.postmaster = pl_reply_contact(run->session) };

	if (j->most != NULL) {
		pl_field_token(&clean, slice_head(j->most->name, sizeof(name) - 1));
		name[clean.len] = '\0';
		w.check = name;
		w.help = help_of(run->session, j->most->position);
	}
	(void)snprintf(text, sizeof(text), "Looks like unwanted mail (score %.1f, limit %.1f)",
	    j->score, j->threshold);
	w.text = slice_str(text);
	pl_reply_word(reply, &w);
}

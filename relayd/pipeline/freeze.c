/* relayd/pipeline/freeze.c - what a filter in the pool sees: a copy of everything outside of it. */
#include "relayd/pipeline/job.h"

#include <stdlib.h>

static bool
freeze_facts(struct slot *s, struct frozen *fz, const struct scope *sc)
{
	for (const struct known_fact *kf = sc->facts; kf != NULL; kf = kf->next) {
		struct scope into = { .arena = s->out.arena, .facts = fz->facts };
		struct known_fact *copy;

		if (!kf->ready)
			continue;
		copy = pl_scope_add_fact(&into, kf->kind, kf->name);
		if (copy != NULL)
			pl_scope_fact_ready(copy, &kf->fact);
		s->out.arena = into.arena;
		fz->facts = into.facts;
		if (copy == NULL)
			return false;
		copy->scope = NULL;
	}
	return true;
}

static bool
freeze_answers(struct slot *s, struct frozen *fz)
{
	for (const struct reservation *r = pl_slot_scope(s)->reservations; r != NULL; r = r->next) {
		struct reservation_answer *a;

		if (r->module != s->module || r->stage != s->stage ||
		    r->status == RESERVATION_ASKED)
			continue;
		a = arena_alloc(&s->out.arena, sizeof(*a));
		if (a == NULL)
			return false;
		a->key = arena_copy(&s->out.arena, slice_of(r->key, r->key_len));
		a->answer = r->status == RESERVATION_TAKEN  ? 1
			    : r->status == RESERVATION_OVER ? 0
							    : -2;
		a->next = fz->answers;
		if (a->key.p == NULL)
			return false;
		fz->answers = a;
	}
	return true;
}

static bool
freeze_session(struct slot *s, struct frozen *fz)
{
	const struct filter_session *view = &s->job->session->found->view;
	struct slice *const parts[] = { &fz->session.client_addr, &fz->session.client_ip,
		&fz->session.helo, &fz->session.auth_user, &fz->session.listener,
		&fz->session.hostname, &fz->session.session_id };

	fz->session = *view;
	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		*parts[i] = arena_copy(&s->out.arena, *parts[i]);
		if (parts[i]->p == NULL)
			return false;
	}
	return true;
}

/* A copy of all that the filter may see, because the client may be gone, or have said something
 * else, before the pool is done. */
bool
pl_slot_freeze(struct slot *s)
{
	struct frozen *fz = arena_alloc(&s->out.arena, sizeof(*fz));
	const struct scope *scopes[JUDGE_SCOPES];

	if (fz == NULL || !freeze_session(s, fz) || !freeze_answers(s, fz))
		return false;
	pl_slot_scopes(s, scopes);
	for (size_t i = 0; i < JUDGE_SCOPES; i++)
		if (scopes[i] != NULL && !freeze_facts(s, fz, scopes[i]))
			return false;
	if (s->content != NULL && s->content != &s->own_content) {
		struct slice bytes = s->content->message;

		s->own_bytes = malloc(bytes.len + 1);
		if (s->own_bytes == NULL)
			return false;
		memcpy(s->own_bytes, bytes.p, bytes.len);
		s->own_content = pl_content_of(slice_of(s->own_bytes, bytes.len));
		s->content = &s->own_content;
	}
	s->frozen = fz;
	return true;
}

/* relayd/pipeline/scope.c - what is known within one scope: facts, findings, verdicts, counters
 * taken. */
#include "relayd/pipeline/scope.h"

#include <stdlib.h>

/* ---- counters -------------------------------------------------------------------------------- */

/* The scope is over: what becomes of a counter that it took. */
static void
reservation_settle(struct reservation *r, bool kept)
{
	bool back = r->count_accepted && !kept;

	if (r->status == RESERVATION_ASKED) {
		r->job = NULL;
		r->orphan = true;
		r->count_accepted = back; /* from here on: give back when it comes */
		return;
	}
	if (r->status == RESERVATION_TAKEN && back)
		state_give_back(r->state, &r->req);
	free(r);
}

bool
pl_reservation_answered(struct reservation *r)
{
	r->status = r->req.err.code != ERR_NONE ? RESERVATION_FAILED
		    : r->req.conforms           ? RESERVATION_TAKEN
						: RESERVATION_OVER;
	if (!r->orphan)
		return true;
	if (r->status == RESERVATION_TAKEN && r->count_accepted)
		state_give_back(r->state, &r->req);
	free(r);
	return false;
}

struct reservation *
pl_scope_reservation(
    const struct scope *sc, const struct module *m, enum filter_stage stage, struct slice key)
{
	struct reservation *r = sc->reservations;

	while (r != NULL && (r->module != m || r->stage != stage ||
				!slice_eq(slice_of(r->key, r->key_len), key)))
		r = r->next;
	return r;
}

struct reservation *
pl_scope_add_reservation(struct scope *sc, const struct module *m, enum filter_stage stage,
    const struct filter_limit *limit)
{
	struct slice section = slice_str(m->section->name);
	struct reservation *r = calloc(1, sizeof(*r) + limit->key.len + 1 + section.len + 2);

	if (r == NULL)
		return NULL;
	/* The key as the filter gave it, for pl_scope_reservation(), then the one that is counted:
	 * with the filter's name, so that two filters do not share a counter. */
	memcpy(r->key, limit->key.p, limit->key.len);
	r->req.key = slice_of(r->key, limit->key.len + 1 + section.len);
	memcpy(r->key + limit->key.len + 1, section.p, section.len);
	r->key_len = limit->key.len;
	r->req.op = STATE_TAKE;
	r->req.count = limit->count;
	r->req.period_s = limit->period_s;
	r->count_accepted = limit->count_accepted;
	r->module = m;
	r->asker = m->section->name;
	r->stage = stage;
	r->next = sc->reservations;
	sc->reservations = r;
	return r;
}

/* ---- facts ----------------------------------------------------------------------------------- */

struct known_fact *
pl_scope_fact(const struct scope *sc, enum fact_kind kind, struct slice name)
{
	struct known_fact *kf = sc->facts;

	while (kf != NULL && (kf->kind != kind || !slice_ieq(kf->name, name)))
		kf = kf->next;
	return kf;
}

struct known_fact *
pl_scope_add_fact(struct scope *sc, enum fact_kind kind, struct slice name)
{
	struct known_fact *kf;
	struct slice copy;

	if (sc->n_facts >= SCOPE_FACTS_MAX)
		return NULL;
	kf = arena_alloc(&sc->arena, sizeof(*kf));
	copy = arena_copy(&sc->arena, name);
	if (kf == NULL || copy.p == NULL)
		return NULL;
	for (size_t i = 0; i < copy.len; i++)
		((char *)(uintptr_t)copy.p)[i] = slice_lower(copy.p[i]); /* our own copy */
	*kf = (struct known_fact){ .next = sc->facts, .kind = kind, .name = copy, .scope = sc };
	sc->facts = kf;
	sc->n_facts++;
	return kf;
}

void
pl_scope_fact_ready(struct known_fact *kf, const struct fact *fact)
{
	struct arena *arena = &kf->scope->arena;
	struct fact_value *values = arena_alloc(arena, (fact->n + 1) * sizeof(*values));

	kf->ready = true;
	kf->job = NULL;
	kf->fact = (struct fact){ .size = sizeof(kf->fact), .state = FACT_FAILED };
	for (size_t i = 0; values != NULL && i < fact->n; i++) {
		values[i].number = fact->values[i].number;
		values[i].bytes = arena_copy(arena, fact->values[i].bytes);
		if (values[i].bytes.p == NULL)
			return;
	}
	if (values == NULL)
		return;
	kf->fact = *fact;
	kf->fact.size = sizeof(kf->fact);
	kf->fact.values = values;
}

void
pl_scope_drop_failed(struct scope *sc)
{
	struct known_fact **at = &sc->facts;

	while (*at != NULL) {
		struct known_fact *kf = *at;

		if (!kf->ready || kf->fact.state == FACT_FAILED || kf->fact.state == FACT_SKIPPED) {
			*at = kf->next;
			sc->n_facts--;
		} else {
			at = &kf->next;
		}
	}
}

const char *
pl_fact_kind_name(enum fact_kind kind)
{
	static const char *const names[] = {
		[FACT_DNS_A] = "a",
		[FACT_DNS_AAAA] = "aaaa",
		[FACT_DNS_TXT] = "txt",
		[FACT_DNS_MX] = "mx",
		[FACT_DNS_PTR] = "ptr",
		[FACT_TIME] = "time",
		[FACT_EARLY] = "early",
		[FACT_SEEN] = "seen",
		[FACT_MARK] = "mark",
	};

	return (unsigned)kind <= FACT_MARK ? names[kind] : "unknown";
}

const char *
pl_fact_state_name(enum fact_state state)
{
	static const char *const names[] = {
		[FACT_OK] = "ok",
		[FACT_NONE] = "none",
		[FACT_FAILED] = "failed",
		[FACT_SKIPPED] = "skipped",
	};

	return names[state];
}

#define APPEND(sc, list, item)                                                                     \
	do {                                                                                       \
		*((sc)->list##_end != NULL ? (sc)->list##_end : &(sc)->list) = (item);             \
		(item)->next = NULL;                                                               \
		(sc)->list##_end = &(item)->next;                                                  \
	} while (0)

/* ---- findings -------------------------------------------------------------------------------- */

bool
pl_scope_add_finding(struct scope *sc, const struct finding *f)
{
	struct finding *copy = arena_alloc(&sc->arena, sizeof(*copy));

	if (copy == NULL)
		return false;
	*copy = *f;
	copy->name = arena_copy(&sc->arena, f->name);
	copy->why = arena_copy(&sc->arena, f->why);
	if (copy->name.p == NULL || copy->why.p == NULL)
		return false;
	APPEND(sc, findings, copy);
	return true;
}

bool
pl_scope_add_auth_result(struct scope *sc, const struct auth_result *r)
{
	struct auth_result *copy = arena_alloc(&sc->arena, sizeof(*copy));

	if (copy == NULL)
		return false;
	*copy = *r;
	copy->method = arena_copy(&sc->arena, r->method);
	copy->result = arena_copy(&sc->arena, r->result);
	copy->properties = arena_copy(&sc->arena, r->properties);
	if (copy->method.p == NULL || copy->result.p == NULL || copy->properties.p == NULL)
		return false;
	APPEND(sc, auth_results, copy);
	return true;
}

bool
pl_scope_add_decision(struct scope *sc, const struct decision *d)
{
	struct decision *copy = arena_alloc(&sc->arena, sizeof(*copy));

	if (copy == NULL)
		return false;
	*copy = *d;
	copy->enhanced = arena_copy(&sc->arena, d->enhanced);
	copy->text = arena_copy(&sc->arena, d->text);
	if (copy->enhanced.p == NULL || copy->text.p == NULL)
		return false;
	APPEND(sc, decisions, copy);
	return true;
}

/* ---- the end --------------------------------------------------------------------------------- */

static void
settle_all(struct scope *sc, bool kept)
{
	while (sc->reservations != NULL) {
		struct reservation *r = sc->reservations;

		sc->reservations = r->next;
		reservation_settle(r, kept);
	}
}

bool
pl_scope_is_empty(const struct scope *sc)
{
	return sc->facts == NULL && sc->findings == NULL && sc->auth_results == NULL &&
	       sc->decisions == NULL && sc->reservations == NULL;
}

void
pl_scope_reset(struct scope *sc)
{
	struct scope fresh = pl_scope_of();

	arena_reset(&sc->arena);
	fresh.arena = sc->arena;
	fresh.reservations = sc->reservations;
	*sc = fresh;
}

void
pl_scope_trim(struct scope *sc)
{
	if (sc->findings != NULL || sc->decisions != NULL || sc->auth_results != NULL)
		return; /* they share their memory with the facts */
	pl_scope_reset(sc);
	arena_fini(&sc->arena);
}

void
pl_scope_fini(struct scope *sc, bool kept)
{
	settle_all(sc, kept);
	arena_fini(&sc->arena);
	*sc = pl_scope_of();
}

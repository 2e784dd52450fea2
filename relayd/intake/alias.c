/* relayd/intake/alias.c - what a forward-path of ours stands for. */
#include "relayd/intake/alias.h"

struct walk {
	const struct generation *gen;
	struct arena *arena;
	struct slice *seen; /* in the order they are to be looked at */
	bool *final;        /* of each: mail goes there */
	size_t n, cap;
	bool any_unknown;
};

static bool
grow(struct walk *w)
{
	size_t cap = w->cap > 0 ? 4 * w->cap : 4;
	struct slice *seen = arena_alloc(w->arena, cap * sizeof(*seen));
	bool *final = arena_alloc(w->arena, cap * sizeof(*final));

	if (seen == NULL || final == NULL)
		return false;
	if (w->n > 0) {
		memcpy(seen, w->seen, w->n * sizeof(*seen));
		memcpy(final, w->final, w->n * sizeof(*final));
	}
	w->seen = seen;
	w->final = final;
	w->cap = cap;
	return true;
}

/* Once each: what was seen is not looked at again. */
static bool
add(struct walk *w, struct slice path)
{
	for (size_t i = 0; i < w->n; i++)
		if (slice_ieq(w->seen[i], path))
			return true;
	if (w->n >= ALIAS_PATHS_MAX || (w->n == w->cap && !grow(w)))
		return false;
	w->final[w->n] = false;
	w->seen[w->n++] = path;
	return true;
}

/* "@domain" keeps the local part. */
static struct slice
path_of_target(struct walk *w, struct slice target, struct slice local)
{
	char *text;

	if (!slice_starts(target, SLICE("@")))
		return arena_copy(w->arena, target);
	text = arena_printf(w->arena, "%.*s%.*s", SLICE_FMT(local), SLICE_FMT(target));
	return text != NULL ? slice_str(text) : (struct slice){ NULL, 0 };
}

static bool
follow(struct walk *w, size_t i, const struct address *mailbox, struct slice targets)
{
	struct slice target;

	while (recipients_target(&targets, &target)) {
		struct slice path = path_of_target(w, target, mailbox->local);

		if (path.p == NULL)
			return false;
		if (slice_ieq(path, w->seen[i]))
			w->final[i] = true; /* it keeps a copy */
		else if (!add(w, path))
			return false;
	}
	return true;
}

/* The file that says who is in that domain, or NULL. */
static const struct recipients *
file_of(const struct walk *w, struct slice domain)
{
	const struct config *cfg = w->gen->cfg;
	const struct config_route *route = config_route_for(cfg, domain);

	return route != NULL && config_is_our_domain(cfg, domain)
		   ? generation_recipients(w->gen, route)
		   : NULL;
}

static bool
look_at(struct walk *w, size_t i)
{
	char storage[ADDRESS_DOMAIN_MAX];
	struct buf ascii = buf_over(storage, sizeof(storage));
	const struct recipients *file;
	struct address mailbox;
	struct slice targets;

	/* With a long local part "@domain" makes an address that is none. */
	if (address_mailbox(w->seen[i], ADDRESS_UTF8, &mailbox) != ADDRESS_OK) {
		w->any_unknown = true;
		return true;
	}
	/* The config and its files have A-labels (RFC 5890). */
	if (!mailbox.literal && address_domain_ascii(mailbox.domain, &ascii) && !ascii.overflow)
		mailbox.domain = buf_slice(&ascii);
	file = file_of(w, mailbox.domain);
	if (file == NULL) {
		w->final[i] = true;
		return true;
	}
	switch (recipients_find(file, &mailbox, w->gen->cfg->recipients.extension, &targets)) {
	case RECIPIENTS_UNKNOWN:
		w->any_unknown = true;
		return true;
	case RECIPIENTS_KNOWN:
		w->final[i] = true;
		return true;
	case RECIPIENTS_ALIAS:
		return follow(w, i, &mailbox, targets);
	}
	return true;
}

enum alias_result
alias_expand(const struct generation *gen, struct arena *arena, struct slice mailbox,
    struct alias_paths *out)
{
	struct walk w = { .gen = gen, .arena = arena };

	*out = (struct alias_paths){ 0 };
	if (!add(&w, mailbox))
		return ALIAS_LIMIT;
	for (size_t i = 0; i < w.n; i++)
		if (!look_at(&w, i))
			return ALIAS_LIMIT;
	for (size_t i = 0; i < w.n; i++)
		if (w.final[i])
			w.seen[out->n++] = w.seen[i];
	out->v = w.seen;
	out->rewritten = w.n > 1;
	if (out->n > 0)
		return ALIAS_KNOWN;
	return w.any_unknown ? ALIAS_UNKNOWN : ALIAS_CIRCLE;
}

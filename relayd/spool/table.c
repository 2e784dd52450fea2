/* relayd/spool/table.c - an intrusive hash table with chains, doubled as it fills. */
#include "relayd/spool/table.h"

#include <stdlib.h>

#define HEADS_FIRST 64

void
table_fini(struct table *t)
{
	free(t->heads);
	*t = (struct table){ 0 };
}

static struct table_link **
head_of(const struct table *t, uint64_t hash)
{
	return &t->heads[hash & (t->n_heads - 1)];
}

/* Twice the heads.  Without memory for them the chains only get longer. */
static void
grow(struct table *t)
{
	struct table bigger = { .n_heads = t->n_heads > 0 ? t->n_heads * 2 : HEADS_FIRST };

	bigger.heads = calloc(bigger.n_heads, sizeof(struct table_link *));
	if (bigger.heads == NULL)
		return;
	for (size_t i = 0; i < t->n_heads; i++)
		for (struct table_link *link = t->heads[i], *next; link != NULL; link = next) {
			struct table_link **head = head_of(&bigger, link->hash);

			next = link->next;
			link->next = *head;
			*head = link;
		}
	free(t->heads);
	t->heads = bigger.heads;
	t->n_heads = bigger.n_heads;
}

bool
table_add(struct table *t, struct table_link *link, uint64_t hash)
{
	struct table_link **head;

	if (t->n >= t->n_heads)
		grow(t);
	if (t->heads == NULL)
		return false;
	head = head_of(t, hash);
	link->hash = hash;
	link->next = *head;
	*head = link;
	t->n++;
	return true;
}

void
table_remove(struct table *t, struct table_link *link)
{
	struct table_link **at = head_of(t, link->hash);

	while (*at != link)
		at = &(*at)->next;
	*at = link->next;
	t->n--;
}

struct table_link *
table_next(const struct table *t, uint64_t hash, const struct table_link *at)
{
	struct table_link *link = at != NULL ? at->next : t->n > 0 ? *head_of(t, hash) : NULL;

	while (link != NULL && link->hash != hash)
		link = link->next;
	return link;
}

void
table_each(const struct table *t, void (*each)(void *data, struct table_link *link), void *data)
{
	for (size_t i = 0; i < t->n_heads; i++)
		for (struct table_link *link = t->heads[i], *next; link != NULL; link = next) {
			next = link->next;
			each(data, link);
		}
}

/* tests/unit/spool/gateway_mail.c - the messages of the gateway, and who writes them. */
#include "unit/spool/gateway_parts.h"

/* -- messages -- */

struct post *
gw_post_of(struct id id)
{
	for (unsigned i = 0; i < gw.n_posts; i++)
		if (id_eq(gw.posts[i].id, id))
			return &gw.posts[i];
	return NULL;
}

struct post *
gw_new_post(struct id id, size_t size, unsigned n_rcpts)
{
	struct post *p = &gw.posts[gw.n_posts];

	gateway_must(gw.n_posts < POSTS_MAX, "the test sends too much");
	*p = (struct post){ .id = id, .number = gw.n_posts++, .size = size, .n_rcpts = n_rcpts };
	return p;
}

void
gw_write_letter(const struct post *p, struct letter *l)
{
	*l = (struct letter){ .env = { .id = p->id,
				  .received_ms = FIRST_MS,
				  .reverse_path = p->is_bounce ? SLICE("") : SLICE("a@example.com"),
				  .params = SLICE(""),
				  .client_ip = SLICE("192.0.2.1"),
				  .client_addr = SLICE(""),
				  .helo = SLICE("mx"),
				  .auth_user = SLICE(""),
				  .listener = SLICE("l"),
				  .release_key = SLICE("") } };
	if (p->key != 0) {
		(void)snprintf(l->key, sizeof(l->key), "item %u", p->key); /* fits */
		l->env.release_key = slice_str(l->key);
	}
	if (p->is_bounce) {
		l->about = p->about;
		l->env.origin = p->origin;
		l->env.tells = ENVELOPE_TELLS_BOUNCED;
		l->env.about = &l->about;
		l->env.n_about = 1;
	}
	for (unsigned i = 0; i < p->n_rcpts; i++) {
		(void)snprintf(
		    l->paths[i], sizeof(l->paths[i]), "r%u-%u@example.org", p->number, i);
		l->rcpts[i] = (struct envelope_rcpt){ slice_str(l->paths[i]), SLICE("") };
	}
	/* The last of several goes another way: ordinals count over all copies. */
	l->env.n_copies = p->n_rcpts > 1 ? 2 : 1;
	l->env.copies = l->copies;
	l->copies[0] = (struct envelope_copy){ .reason = SLICE(""),
		.rcpts = l->rcpts,
		.n_rcpts = p->n_rcpts > 1 ? p->n_rcpts - 1 : 1 };
	l->copies[1] = (struct envelope_copy){ .route = ENVELOPE_QUARANTINE,
		.reason = SLICE("score"),
		.rcpts = &l->rcpts[p->n_rcpts - 1],
		.n_rcpts = 1 };
}

/* Hands it to the spool; done() tells.  False: refused at once. */
bool
gw_submit(struct spool *sp, struct post *p, struct spool_commit *req)
{
	static char bytes[BODY_MAX];
	struct err err = { 0 };
	struct spool_msg *draft = spool_begin(sp, BODY_MAX, &err);
	struct letter l;

	rig_fill(bytes, p->number, p->size);
	if (draft == NULL || spool_write(draft, slice_of(bytes, p->size), &err) < 0) {
		spool_abort(draft);
		return false;
	}
	gw_write_letter(p, &l);
	spool_commit(req, draft, &l.env);
	return true;
}

bool
gw_is_same_envelope(const struct post *p, struct slice encoded)
{
	struct arena arena = arena_of(64 << 10);
	struct envelope env;
	struct letter l;
	unsigned ordinal = 0;
	struct err err = { 0 };
	bool same;

	gw_write_letter(p, &l);
	same = envelope_decode(encoded, &arena, &env, &err) == 0 && env.size == p->size &&
	       env.n_copies == l.env.n_copies && slice_eq(env.reverse_path, l.env.reverse_path) &&
	       slice_eq(env.release_key, l.env.release_key) && env.tells == l.env.tells &&
	       env.n_about == l.env.n_about && id_eq(env.origin, l.env.origin);
	for (size_t c = 0; same && c < env.n_copies; c++) {
		same = env.copies[c].route == l.copies[c].route &&
		       env.copies[c].n_rcpts == l.copies[c].n_rcpts;
		for (size_t i = 0; same && i < env.copies[c].n_rcpts; i++)
			same = slice_eq(
			    env.copies[c].rcpts[i].forward_path, l.rcpts[ordinal++].forward_path);
	}
	arena_fini(&arena);
	return same;
}

/* -- writers -- */

static void
on_answer(struct spool_commit *req, const struct err *err)
{
	struct post *p = req->data;

	gateway_must(!p->told, "message %u was answered twice", p->number);
	p->told = true;
	p->code = err->code;
	p->promised = err->code == ERR_NONE;
}

static void
send_one(struct writer *w, size_t size, unsigned key)
{
	struct post *p = gw_new_post(id_new(), size, key != 0 ? 1 : 1 + gw_dice(RCPTS_MAX));

	p->key = key;
	for (unsigned i = 0; i < p->n_rcpts && key == 0; i++)
		p->fates[i].plan = (enum plan)(gw_dice(2) == 0 ? SEND : gw_dice(PLANS));
	p->req = (struct spool_commit){ .done = on_answer, .data = p };
	if (!gw_submit(w->spool, p, &p->req)) {
		p->told = true; /* 451 or 452 at MAIL */
		p->code = ERR_SYS;
	}
}

static struct writer *
writer(void)
{
	return gw.writers[gw.role];
}

void
gw_open_writer(void)
{
	struct writer *w = calloc(1, sizeof(*w));
	struct err err = { 0 };
	struct spool_settings set = { .segment_bytes = SEGMENT };

	gateway_must(w != NULL && uv_loop_init(&w->loop) == 0, "no loop");
	set.memory = gw.role == WRITER_B ? 1 : 0; /* then what is over 8 KiB becomes a file */
	set.reserve = gw.role == WRITER_A ? 4096 : 0;
	w->spool = spool_open(&w->loop, RIG_DIR, &set, &err);
	gw_run_loop(&w->loop);
	if (w->spool != NULL) {
		gw.writers[gw.role] = w;
		return;
	}
	gateway_must(uv_loop_close(&w->loop) == 0, "a failed start leaves handles");
	free(w);
}

void
gw_close_writer(void)
{
	struct writer *w = writer();

	gw.writers[gw.role] = NULL;
	spool_close(w->spool);
	gw_run_loop(&w->loop);
	gateway_must(uv_loop_close(&w->loop) == 0, "a closed spool leaves handles");
	free(w);
}

void
gw_send_some(void)
{
	static const size_t sizes[] = { 90, 700, 3000, 4040, 9000, 15000, 40000 };
	unsigned n = gw.amount;

	for (unsigned i = 0; i < n; i++)
		send_one(writer(), sizes[gw_dice(ARRAY_LEN(sizes))] + gw_dice(300), 0);
	gw_run_loop(&writer()->loop);
}

/* Review submits a release, and does not hear the answer: it submits it again. */
void
gw_send_release(void)
{
	unsigned key = ++gw.keys;

	send_one(writer(), 500 + gw_dice(2000), key);
	gw_run_loop(&writer()->loop);
	send_one(writer(), 500 + gw_dice(2000), key);
	gw_run_loop(&writer()->loop);
}

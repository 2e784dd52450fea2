/* relayd/intake/recipients_load.c - the recipients of all routes of a config, read in the pool. */
#include "relayd/intake/recipients_load.h"

#include <stdlib.h>

static struct recipients_tables *
tables_new(const struct config *cfg, struct err *err)
{
	struct recipients_tables *t = calloc(1, sizeof(*t));

	if (t != NULL) {
		t->refs = 1;
		t->cfg = config_ref(cfg);
		t->v = calloc(cfg->n_routes + 1, sizeof(struct recipients *));
	}
	if (t != NULL && t->v != NULL)
		return t;
	recipients_tables_unref(t);
	err_set(err, ERR_NOMEM, "no memory for the recipients");
	return NULL;
}

void
recipients_tables_unref(struct recipients_tables *t)
{
	if (t == NULL || --t->refs > 0)
		return;
	for (size_t i = 0; t->v != NULL && i < t->cfg->n_routes; i++)
		recipients_unref(t->v[i]);
	free(t->v);
	config_unref(t->cfg);
	free(t);
}

static bool
has_file(const struct config *cfg, size_t i)
{
	return cfg->routes[i].recipients == CONFIG_RECIPIENTS_FILE;
}

/* The place of another route with the same file that has its table, or n_routes. */
static size_t
same_file(const struct recipients_tables *t, const struct config *cfg, const char *path)
{
	size_t i = 0;

	while (i < cfg->n_routes && (t->v[i] == NULL || !has_file(cfg, i) ||
					strcmp(cfg->routes[i].recipients_file, path) != 0))
		i++;
	return i;
}

static int
read_one(struct recipients_tables *t, size_t i, struct err *err)
{
	const struct config_route *route = &t->cfg->routes[i];
	size_t other = same_file(t, t->cfg, route->recipients_file);
	struct slice bytes;

	if (other < t->cfg->n_routes) {
		t->v[i] = recipients_ref(t->v[other]);
		return 0;
	}
	if (!config_file(t->cfg, route->recipients_file, &bytes))
		return err_set(err, ERR_CONFIG, "%s:%d: %s was not read", t->cfg->path, route->line,
		    route->recipients_file);
	t->v[i] = recipients_parse(t->cfg, bytes, route->recipients_file, err);
	return t->v[i] != NULL ? 0 : -1;
}

/* In the pool: only t, and the bytes of its config. */
static int
read_all(struct recipients_tables *t, struct err *err)
{
	for (size_t i = 0; i < t->cfg->n_routes; i++)
		if (has_file(t->cfg, i) && t->v[i] == NULL && read_one(t, i, err) < 0)
			return -1;
	return 0;
}

/* On the loop: references of a config are for one thread. */
static void
keep_all(struct recipients_tables *t)
{
	for (size_t i = 0; i < t->cfg->n_routes; i++)
		if (t->v[i] != NULL)
			recipients_keep(t->v[i], t->cfg);
}

struct recipients_tables *
recipients_tables_new(const struct config *cfg, struct err *err)
{
	struct recipients_tables *t = tables_new(cfg, err);

	if (t != NULL && read_all(t, err) < 0) {
		recipients_tables_unref(t);
		return NULL;
	}
	if (t != NULL)
		keep_all(t);
	return t;
}

/* ---- after a reload ----------------------------------------------------------------------- */

static bool
same_bytes(const struct config *a, const struct config *b, const char *path_a, const char *path_b)
{
	struct slice x, y;

	return config_file(a, path_a, &x) && config_file(b, path_b, &y) && slice_eq(x, y);
}

/* Takes over what needs no reading; false where something does.  Where an alias may lead hangs on
 * the rest of the config too. */
static bool
take_over(struct recipients_tables *t, struct recipients_tables *old)
{
	bool same_config = same_bytes(t->cfg, old->cfg, t->cfg->path, old->cfg->path), all = true;

	for (size_t i = 0; i < t->cfg->n_routes; i++) {
		const char *path = t->cfg->routes[i].recipients_file;
		size_t from;

		if (!has_file(t->cfg, i))
			continue;
		from = same_file(old, old->cfg, path);
		if (from < old->cfg->n_routes &&
		    (same_config || !recipients_has_aliases(old->v[from])) &&
		    same_bytes(t->cfg, old->cfg, path, path))
			t->v[i] = recipients_ref(old->v[from]);
		all = all && t->v[i] != NULL;
	}
	return all;
}

static void
load_in_pool(uv_work_t *work)
{
	struct recipients_load *load = container_of(work, struct recipients_load, work);

	(void)read_all(load->made, &load->err); /* on_loaded() looks at err */
}

static void
on_loaded(uv_work_t *work, int status)
{
	struct recipients_load *load = container_of(work, struct recipients_load, work);

	if (status == UV_ECANCELED)
		(void)err_set(&load->err, ERR_CANCELLED, "stopping");
	if (load->err.code == ERR_NONE) {
		keep_all(load->made);
		load->tables = load->made;
	} else {
		recipients_tables_unref(load->made);
	}
	load->made = NULL;
	load->done(load);
}

int
recipients_load_start(uv_loop_t *loop, struct recipients_load *load, const struct config *cfg,
    struct recipients_tables *old, struct recipients_tables **ready, struct err *err)
{
	int rc;

	*ready = NULL;
	load->tables = NULL;
	load->err = (struct err){ .code = ERR_NONE };
	load->made = tables_new(cfg, err);
	if (load->made == NULL)
		return -1;
	if (take_over(load->made, old)) {
		*ready = load->made;
		return 0;
	}
	rc = uv_queue_work(loop, &load->work, load_in_pool, on_loaded);
	if (rc == 0)
		return 0;
	recipients_tables_unref(load->made);
	return err_sys(err, -rc, "read the recipients");
}

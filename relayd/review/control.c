/* relayd/review/control.c - the quarantine in the admin's hands: JSON lines on RUN/review.sock. */
#include "relayd/review/control.h"

#include "relayd/core/clock.h"
#include "relayd/mail/header.h"
#include "relayd/net/control.h"
#include "relayd/review/store_admin.h"
#include "relayd/review/top.h"

#include <stdlib.h>

#define RCPTS_SHOWN  100
#define FIELDS_SHOWN 200
#define DECODED_MAX  1024 /* bytes of a field that is shown */
#define DEFAULT_USER "relayctl"

struct review_control {
	struct control *control;
	struct store *store;
	size_t requests;
};

/* A list that goes out page by page. */
struct list {
	struct review_control *ctl;
	struct control_request *req;
	struct store_list_items items;
	bool all;        /* quarantine.list; else quarantine.show of one id */
	unsigned states; /* only items in one of them: set of 1 << enum store_state */
	struct id id;
	size_t shown; /* lines */
};

struct act {
	struct review_control *ctl;
	struct control_request *req;
	struct store_act act;
};

static void
finish(struct review_control *ctl, struct control_request *req, const struct err *err)
{
	control_end(req, err);
	ctl->requests--;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

/* Out of memory the member is missing. */
static void
set(json_t *object, const char *name, json_t *value)
{
	(void)json_object_set_new(object, name, value);
}

static void
set_int(json_t *object, const char *name, int64_t value)
{
	set(object, name, json_integer(value));
}

/* Bytes as a JSON string; where they are not UTF-8, "?" for all that is not ASCII. */
static json_t *
text_json(struct slice bytes)
{
	json_t *text = json_stringn(bytes.p, bytes.len);
	char *copy;

	if (text != NULL || (copy = malloc(bytes.len + 1)) == NULL)
		return text;
	for (size_t i = 0; i < bytes.len; i++)
		copy[i] = (signed char)bytes.p[i] >= 0 ? bytes.p[i] : '?';
	text = json_stringn(copy, bytes.len);
	free(copy);
	return text;
}

static void
set_bytes(json_t *object, const char *name, struct slice bytes)
{
	set(object, name, text_json(bytes));
}

static void
append_bytes(json_t *array, struct slice bytes)
{
	(void)json_array_append_new(array, text_json(bytes)); /* as set() */
}

static void
set_time(json_t *object, const char *name, int64_t ms)
{
	char iso[CLOCK_ISO_BYTES];

	if (ms == 0)
		return;
	clock_iso(ms, iso);
	set_bytes(object, name, slice_str(iso));
}

static void
set_field(json_t *object, const char *name, const struct store_info *info, const char *field)
{
	struct header_field f;
	struct buf text = buf_heap(DECODED_MAX * 8);

	if (header_find(info->head, slice_str(field), 0, &f)) {
		header_decode(slice_head(f.body, DECODED_MAX), &text);
		set_bytes(object, name, buf_slice(&text));
	}
	buf_fini(&text);
}

static void
set_top(json_t *object, const char *name, const struct store_info *info, const char *field)
{
	struct slice value = top_field(info->top, slice_str(field));

	if (value.len > 0)
		set_bytes(object, name, value);
}

/* Held when it is for one recipient, else releasing, and so on. */
static enum store_state
state_of(const struct store_info *info)
{
	enum store_state state = STORE_DROPPED;

	for (size_t i = 0; i < info->n_rcpts; i++)
		if (info->rcpts[i].state < state)
			state = info->rcpts[i].state;
	return state;
}

/* What list and show have in common. */
static json_t *
item_json(const struct store_info *info)
{
	json_t *o = json_object();
	char id[ID_TEXT_LEN + 1];

	id_text(info->id, id);
	set_bytes(o, "id", slice_str(id));
	set_time(o, "stored", info->stored_ms);
	set_int(o, "age_s", (clock_wall_ms() - info->stored_ms) / 1000);
	set_int(o, "size", (int64_t)info->size);
	set_bytes(o, "from", info->reverse_path);
	set_field(o, "header_from", info, "From");
	set_field(o, "subject", info, "Subject");
	set_top(o, "verdict", info, "X-Relayd-Verdict");
	set_top(o, "score", info, "X-Relayd-Score");
	set_top(o, "findings", info, "X-Relayd-Findings");
	set_bytes(o, "state", slice_str(store_state_name(state_of(info))));
	return o;
}

static json_t *
list_json(const struct store_info *info)
{
	json_t *o = item_json(info), *rcpts = json_array();

	for (size_t i = 0; i < info->n_rcpts && i < RCPTS_SHOWN; i++)
		append_bytes(rcpts, info->rcpts[i].forward_path);
	set(o, "recipients", rcpts);
	if (info->n_rcpts > RCPTS_SHOWN)
		set_int(o, "more", (int64_t)(info->n_rcpts - RCPTS_SHOWN));
	return o;
}

static json_t *
rcpt_json(const struct store_rcpt_info *rcpt)
{
	json_t *o = json_object();

	set_bytes(o, "to", rcpt->forward_path);
	set_bytes(o, "state", slice_str(store_state_name(rcpt->state)));
	if (rcpt->actor.len > 0) {
		set_bytes(o, "user", rcpt->actor);
		set_time(o, "asked", rcpt->asked_ms);
	}
	set_time(o, "done", rcpt->done_ms);
	if (rcpt->reply.len > 0)
		set_bytes(o, "reply", rcpt->reply);
	return o;
}

static json_t *
header_json(struct slice head)
{
	struct header_iter it = header_iter_of(head);
	struct header_field f;
	json_t *fields = json_array();
	struct buf line = buf_heap(DECODED_MAX * 8);

	for (size_t n = 0; n < FIELDS_SHOWN && header_next(&it, &f); n++) {
		buf_reset(&line);
		buf_put(&line, f.name);
		buf_puts(&line, ": ");
		header_decode(slice_head(f.body, DECODED_MAX), &line);
		append_bytes(fields, buf_slice(&line));
	}
	buf_fini(&line);
	return fields;
}

static json_t *
show_json(const struct store_info *info)
{
	json_t *o = item_json(info), *rcpts = json_array();

	set_top(o, "client", info, "X-Relayd-Client");
	set_top(o, "helo", info, "X-Relayd-Helo");
	for (size_t i = 0; i < info->n_rcpts; i++)
		(void)json_array_append_new(rcpts, rcpt_json(&info->rcpts[i])); /* as set() */
	set(o, "recipients", rcpts);
	set(o, "header", header_json(info->head));
	return o;
}

/* ---- quarantine.list and quarantine.show ----------------------------------------------------- */

static void
list_end(struct list *list, const struct err *err)
{
	finish(list->ctl, list->req, err);
	free(list);
}

static void on_items(struct store_list_items *items);

static void
list_next(struct list *list)
{
	list->items.id = list->all ? NULL : &list->id;
	list->items.done = on_items;
	store_list_items(list->ctl->store, &list->items);
}

static void
on_more(struct control_request *req)
{
	struct list *list = req->state;

	req->on_more = NULL;
	if (control_gone(req))
		list_end(list, NULL);
	else
		list_next(list);
}

static void
put_items(struct list *list)
{
	for (size_t i = 0; i < list->items.n; i++) {
		const struct store_info *info = &list->items.items[i];

		list->items.before = info->item;
		if ((list->states & (1u << state_of(info))) == 0)
			continue;
		control_line(list->req, list->all ? list_json(info) : show_json(info));
		list->shown++;
	}
}

static void
on_items(struct store_list_items *items)
{
	struct list *list = container_of(items, struct list, items);
	struct err err = items->req.err;
	bool more = list->all && items->n == STORE_LIST_MAX;

	if (err.code == ERR_NONE)
		put_items(list);
	arena_fini(&items->arena);
	if (err.code == ERR_NONE && !list->all && list->shown == 0)
		(void)err_set(&err, ERR_NOT_FOUND, "no such message in the quarantine");
	if (err.code != ERR_NONE || !more || control_gone(list->req)) {
		list_end(list, &err);
	} else if (control_full(list->req)) {
		list->req->state = list;
		list->req->on_more = on_more;
	} else {
		list_next(list);
	}
}

/* Without a name what can still be acted on; 0 for a name that is none. */
static unsigned
states_named(struct slice name)
{
	if (name.len == 0)
		return 1u << STORE_HELD | 1u << STORE_RELEASING;
	if (slice_eq(name, SLICE("all")))
		return ~0u;
	for (int state = STORE_HELD; state <= STORE_DROPPED; state++)
		if (slice_eq(name, slice_str(store_state_name((enum store_state)state))))
			return 1u << state;
	return 0;
}

static int
list_start(struct review_control *ctl, struct control_request *req, const struct id *id,
    unsigned states, struct err *err)
{
	struct list *list = calloc(1, sizeof(*list));

	if (list == NULL)
		return err_set(err, ERR_NOMEM, "out of memory");
	*list = (struct list){ .ctl = ctl, .req = req, .all = id == NULL, .states = states };
	if (id != NULL)
		list->id = *id;
	list->items.before = INT64_MAX;
	list_next(list);
	return 0;
}

static int
take_id(const struct control_request *req, struct id *id, struct err *err)
{
	if (id_parse(control_string(req, "id"), id))
		return 0;
	return err_set(err, ERR_FORMAT, "an id has %d letters and digits", ID_TEXT_LEN);
}

static int
op_list(struct review_control *ctl, struct control_request *req, struct err *err)
{
	unsigned states = states_named(control_string(req, "state"));

	if (states == 0)
		return err_set(
		    err, ERR_FORMAT, "state is held, releasing, released, dropped or all");
	return list_start(ctl, req, NULL, states, err);
}

static int
op_show(struct review_control *ctl, struct control_request *req, struct err *err)
{
	struct id id;

	if (take_id(req, &id, err) < 0)
		return -1;
	return list_start(ctl, req, &id, ~0u, err);
}

/* ---- quarantine.release and quarantine.drop -------------------------------------------------- */

static void
on_act(struct store_act *done)
{
	struct act *act = container_of(done, struct act, act);
	struct err err = done->req.err;

	if (err.code == ERR_NONE && done->n == 0)
		(void)err_set(
		    &err, ERR_EXISTS, "nothing of it is held any more: see quarantine show");
	if (err.code == ERR_NONE)
		control_line(act->req, json_pack("{s:I}", done->release ? "released" : "dropped",
					   (json_int_t)done->n));
	finish(act->ctl, act->req, &err);
	free(act);
}

static int
act_start(struct review_control *ctl, struct control_request *req, bool release, struct err *err)
{
	struct act *act = calloc(1, sizeof(*act));

	if (act == NULL)
		return err_set(err, ERR_NOMEM, "out of memory");
	act->ctl = ctl;
	act->req = req;
	act->act = (struct store_act){
		.release = release, .actor = control_string(req, "user"), .done = on_act
	};
	if (act->act.actor.len == 0)
		act->act.actor = SLICE(DEFAULT_USER);
	if (take_id(req, &act->act.id, err) < 0) {
		free(act);
		return -1;
	}
	store_act(ctl->store, &act->act);
	return 0;
}

static int
op_release(struct review_control *ctl, struct control_request *req, struct err *err)
{
	return act_start(ctl, req, true, err);
}

static int
op_drop(struct review_control *ctl, struct control_request *req, struct err *err)
{
	return act_start(ctl, req, false, err);
}

static int
op_status(struct review_control *ctl, struct control_request *req, struct err *err)
{
	(void)err; /* nothing to refuse */
	control_line(req, json_pack("{s:s, s:I, s:s}", "role", "review", "held",
			      (json_int_t)store_held(ctl->store), "store",
			      store_failing(ctl->store) ? "failing" : "ok"));
	finish(ctl, req, NULL);
	return 0;
}

/* ---- requests -------------------------------------------------------------------------------- */

/* -1 with *err: the request is not begun. */
static const struct op {
	const char *name;
	int (*start)(struct review_control *ctl, struct control_request *req, struct err *err);
} ops[] = {
	{ "status", op_status },
	{ "quarantine.list", op_list },
	{ "quarantine.show", op_show },
	{ "quarantine.release", op_release },
	{ "quarantine.drop", op_drop },
};

static void
on_request(void *owner, struct control_request *req)
{
	struct review_control *ctl = owner;
	struct slice name = control_string(req, "op");
	struct err err = { 0 };

	ctl->requests++;
	for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
		if (!slice_eq(name, slice_str(ops[i].name)))
			continue;
		if (ops[i].start(ctl, req, &err) < 0)
			finish(ctl, req, &err);
		return;
	}
	(void)err_set(&err, ERR_NOT_FOUND, "review does not know the operation \"%.*s\"",
	    (int)(name.len < 64 ? name.len : 64), name.p);
	finish(ctl, req, &err);
}

struct review_control *
review_control_open(uv_loop_t *loop, int fd, uid_t other, struct store *store, struct err *err)
{
	struct review_control *ctl = calloc(1, sizeof(*ctl));

	if (ctl == NULL) {
		(void)err_set(err, ERR_NOMEM, "control: out of memory");
		return NULL;
	}
	ctl->store = store;
	ctl->control = control_open(loop, fd, other, on_request, ctl, err);
	if (ctl->control == NULL) {
		free(ctl);
		return NULL;
	}
	return ctl;
}

void
review_control_close(struct review_control *ctl)
{
	if (ctl->control != NULL)
		control_close(ctl->control);
	ctl->control = NULL;
}

bool
review_control_is_idle(const struct review_control *ctl)
{
	return ctl->requests == 0;
}

void
review_control_free(struct review_control *ctl)
{
	free(ctl);
}

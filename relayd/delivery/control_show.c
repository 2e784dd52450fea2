/* relayd/delivery/control_show.c - what is told about a message in the queue. */
#include "relayd/delivery/control_parts.h"

#include "relayd/core/clock.h"

#include <stdio.h>

#define RECIPIENTS_SHOWN 100

json_t *
show_text(struct slice s)
{
	json_t *t = json_stringn(s.p, s.len);

	return t != NULL ? t : json_string("(not UTF-8)");
}

int64_t
show_seconds_until(int64_t at_ms)
{
	int64_t left = at_ms - clock_mono_ms();

	return at_ms == 0 || left < 0 ? 0 : (left + 999) / 1000;
}

/* ---- a job ---------------------------------------------------------------------------------- */

static const char *
state_of(const struct queue_job *job)
{
	if (job->slot.state == QUEUE_TAKEN)
		return "active";
	if (queue_is_held(job->msg))
		return "held";
	return job->slot.state == QUEUE_READY && hop_quiet_until(hop_of(job)) == 0 ? "active"
										   : "deferred";
}

/* When the job is tried next, monotonic; 0: now, or not before it is let go. */
static int64_t
next_of(const struct queue_job *job)
{
	if (job->slot.state == QUEUE_DEFERRED)
		return job->slot.due.due_ms;
	return job->slot.state == QUEUE_READY ? hop_quiet_until(hop_of(job)) : 0;
}

static unsigned
attempts_of(const struct queue_job *job)
{
	/* Failures of its next hop while it stood in line are attempts that it did not have to
	 * make. */
	return job->attempts +
	       (job->slot.state == QUEUE_READY ? hop_of(job)->missed - job->missed : 0u);
}

struct slice
show_why(const struct queue_job *job, const struct queue_rcpt *rcpt, char *out, size_t out_len)
{
	const struct hop *hop = hop_of(job);
	struct slice last = queue_reason_text(rcpt->why), waits;
	char waits_for[HOP_WAIT_BYTES];
	struct buf b = buf_over(out, out_len - 1);

	if (job->msg->entry->damaged && last.len > 0)
		return last;
	if (job->slot.state == QUEUE_READY && hop_quiet_until(hop) != 0)
		return slice_str(hop->why.text);
	if (job->slot.state != QUEUE_TAKEN && queue_is_held(job->msg))
		buf_puts(&b, job->msg->entry->waits ? "not before the whole spool has been read"
						    : "held by the admin");
	else if (job->slot.state == QUEUE_READY && (waits = hop_waits_for(hop, waits_for)).len > 0)
		buf_printf(&b, "in line for %.200s, which waits for %.*s", hop->route->name,
		    SLICE_FMT(slice_head(waits, 150)));
	else if (last.len > 0)
		return last;
	else
		buf_printf(&b, "%s %.300s",
		    job->slot.state == QUEUE_TAKEN ? "being sent to" : "in line for",
		    hop->route->name);
	if (last.len > 0)
		buf_printf(&b, "; before: %.*s", SLICE_FMT(slice_head(last, out_len / 2)));
	return buf_slice(&b);
}

/* ---- a message ------------------------------------------------------------------------------ */

struct summary {
	const char *state;
	unsigned attempts;
	int64_t next_ms;
	struct slice why;
};

/* Of all jobs: active if one is, held if it is, the earliest next attempt, the first reason. */
static struct summary
summary_of(const struct queue_msg *msg, char *out, size_t out_len)
{
	struct summary sum = { .next_ms = INT64_MAX, .why = SLICE("") };

	sum.state = queue_is_held(msg) ? "held" : "deferred";
	for (const struct queue_job *job = msg->jobs; job != NULL; job = job->sibling) {
		if (strcmp(state_of(job), "active") == 0)
			sum.state = "active";
		if (attempts_of(job) > sum.attempts)
			sum.attempts = attempts_of(job);
		if (next_of(job) < sum.next_ms)
			sum.next_ms = next_of(job);
		if (sum.why.len == 0 && job->n_rcpts > 0)
			sum.why = show_why(job, &job->rcpts[0], out, out_len);
	}
	return sum;
}

const char *
show_state(const struct queue_msg *msg)
{
	const char *state = queue_is_held(msg) ? "held" : "deferred";

	for (const struct queue_job *job = msg->jobs; job != NULL; job = job->sibling)
		if (strcmp(state_of(job), "active") == 0)
			state = "active";
	return state;
}

static void
put_recipients(json_t *line, const struct queue_msg *msg, const struct content *content)
{
	json_t *list = json_array();
	const struct envelope_copy *copy;
	const struct envelope_rcpt *rcpt;
	size_t n = 0;

	for (const struct queue_job *job = msg->jobs; job != NULL; job = job->sibling)
		for (uint32_t i = 0; i < job->n_rcpts; i++)
			if (n++ < RECIPIENTS_SHOWN &&
			    content_rcpt(content, job->rcpts[i].ordinal, &copy, &rcpt))
				json_array_append_new(list, show_text(rcpt->forward_path));
	json_object_set_new(line, "recipients", list);
	if (n > RECIPIENTS_SHOWN)
		json_object_set_new(line, "more", json_integer((json_int_t)(n - RECIPIENTS_SHOWN)));
}

json_t *
show_line(const struct queue_msg *msg, const struct content *content)
{
	char id[ID_TEXT_LEN + 1], why[700];
	struct summary sum = summary_of(msg, why, sizeof(why));
	json_t *line;

	id_text(msg->entry->id, id);
	line = json_pack("{s:s, s:I, s:I, s:o}", "id", id, "age_s",
	    (json_int_t)((clock_mono_ms() - msg->born_ms) / 1000), "size", (json_int_t)msg->size,
	    "from", show_text(content->env.reverse_path));
	if (line == NULL)
		return NULL;
	put_recipients(line, msg, content);
	json_object_set_new(line, "state", json_string(sum.state));
	json_object_set_new(line, "attempts", json_integer(sum.attempts));
	json_object_set_new(line, "next_s", json_integer(show_seconds_until(sum.next_ms)));
	json_object_set_new(line, "why", show_text(sum.why));
	if (msg->entry->via != NULL)
		json_object_set_new(line, "via", show_text(slice_str(msg->entry->via)));
	return line;
}

json_t *
show_broken(const struct delivery *d, const struct index_msg *entry, const struct err *err)
{
	char id[ID_TEXT_LEN + 1], why[DAMAGE_BYTES];
	int64_t born_ms = entry->parked
			      ? hop_slot_born_ms(&((const struct queue_parked *)entry->user)->slot)
			      : ((const struct queue_msg *)entry->user)->born_ms;

	id_text(entry->id, id);
	return json_pack("{s:s, s:I, s:I, s:b, s:s, s:o}", "id", id, "age_s",
	    (json_int_t)((clock_mono_ms() - born_ms) / 1000), "size", (json_int_t)entry->bytes,
	    "damaged", 1, "state", (entry->flags & INDEX_HELD) != 0 ? "held" : "deferred", "why",
	    show_text(settle_damage(d, entry, err, why)));
}

/* ---- queue.show ----------------------------------------------------------------------------- */

/* The last dialogue about it, a line an element. */
static void
put_dialogue(json_t *line, struct slice text)
{
	json_t *list = text.len > 0 ? json_array() : NULL;

	while (list != NULL && text.len > 0) {
		struct slice one = slice_until(text, '\n');

		text = slice_drop(text, one.len + 1);
		json_array_append_new(list, show_text(one));
	}
	if (list != NULL)
		json_object_set_new(line, "dialogue", list);
}

static struct slice
dialogue_of(const struct queue_job *job)
{
	const struct hop *hop = hop_of(job);

	if (job->slot.state == QUEUE_READY && hop_quiet_until(hop) != 0)
		return queue_reason_text(hop->dialogue);
	return queue_reason_text(job->dialogue);
}

static void
show_recipient(struct control_request *req, const struct queue_job *job,
    const struct queue_rcpt *open, struct slice forward_path)
{
	char why[700];
	json_t *line = json_pack("{s:o, s:s, s:s, s:I, s:I, s:o}", "to", show_text(forward_path),
	    "nexthop", hop_of(job)->route->name, "state", state_of(job), "attempts",
	    (json_int_t)attempts_of(job), "next_s", (json_int_t)show_seconds_until(next_of(job)),
	    "why", show_text(show_why(job, open, why, sizeof(why))));

	if (line != NULL)
		put_dialogue(line, dialogue_of(job));
	control_line(req, line);
}

void
show_message(
    struct control_request *req, const struct queue_msg *msg, const struct content *content)
{
	char received[CLOCK_ISO_BYTES], origin[ID_TEXT_LEN + 1];
	json_t *line = show_line(msg, content);
	const struct envelope_copy *copy;
	const struct envelope_rcpt *rcpt;

	if (line == NULL)
		return;
	clock_iso(content->env.received_ms, received);
	json_object_set_new(line, "received", json_string(received));
	json_object_set_new(line, "client", show_text(content->env.client_ip));
	json_object_set_new(line, "helo", show_text(content->env.helo));
	json_object_set_new(line, "user", show_text(content->env.auth_user));
	json_object_set_new(line, "listener", show_text(content->env.listener));
	if (id_wall_ms(content->env.origin) != 0) {
		id_text(content->env.origin, origin);
		json_object_set_new(line, "origin", json_string(origin));
	}
	control_line(req, line);
	for (const struct queue_job *job = msg->jobs; job != NULL; job = job->sibling)
		for (uint32_t i = 0; i < job->n_rcpts; i++)
			if (content_rcpt(content, job->rcpts[i].ordinal, &copy, &rcpt))
				show_recipient(req, job, &job->rcpts[i], rcpt->forward_path);
}

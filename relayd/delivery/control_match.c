/* relayd/delivery/control_match.c - which messages a request means. */
#include "relayd/delivery/control_parts.h"

#include "relayd/core/clock.h"
#include "relayd/mail/address.h"

static int
take_text(const struct control_request *req, const char *name, struct slice *out, struct err *err)
{
	const json_t *value = json_object_get(req->body, name);

	*out = control_string(req, name);
	if (value != NULL && out->len == 0)
		return err_set(err, ERR_FORMAT, "\"%s\" is a text that is not empty", name);
	return out->len > 0;
}

static int
take_number(const struct control_request *req, const char *name, int64_t *out, struct err *err)
{
	const json_t *value = json_object_get(req->body, name);

	if (value == NULL)
		return 0;
	*out = json_integer_value(value);
	if (!json_is_integer(value) || *out < 0)
		return err_set(err, ERR_FORMAT, "\"%s\" is a number that is not negative", name);
	return 1;
}

static bool
is_state(struct slice s)
{
	return slice_eq(s, SLICE("active")) || slice_eq(s, SLICE("deferred")) ||
	       slice_eq(s, SLICE("held"));
}

int
match_of(const struct control_request *req, struct control_match *m, struct err *err)
{
	int got[6];

	*m = (struct control_match){ .age_s = 0 };
	got[0] = take_text(req, "domain", &m->domain, err);
	got[1] = got[0] < 0 ? -1 : take_text(req, "sender", &m->sender, err);
	got[2] = got[1] < 0 ? -1 : take_text(req, "state", &m->state, err);
	got[3] = got[2] < 0 ? -1 : take_text(req, "reason", &m->reason, err);
	got[4] = got[3] < 0 ? -1 : take_number(req, "age_s", &m->age_s, err);
	got[5] = got[4] < 0 ? -1 : take_number(req, "size", &m->size, err);
	if (got[5] < 0)
		return -1;
	if (got[2] > 0 && !is_state(m->state))
		return err_set(err, ERR_FORMAT, "\"state\" is active, deferred or held");
	for (size_t i = 0; i < ARRAY_LEN(got); i++)
		m->any = m->any || got[i] > 0;
	return 0;
}

static bool
contains(struct slice text, struct slice part)
{
	for (size_t i = 0; i + part.len <= text.len; i++)
		if (slice_ieq(slice_head(slice_drop(text, i), part.len), part))
			return true;
	return false;
}

/* The reason of an open recipient holds the text, in any case. */
static bool
fits_reason(const struct queue_msg *msg, struct slice part)
{
	char text[400];

	for (const struct queue_job *job = msg->jobs; job != NULL; job = job->sibling)
		for (uint32_t i = 0; i < job->n_rcpts; i++)
			if (contains(show_why(job, &job->rcpts[i], text, sizeof(text)), part))
				return true;
	return false;
}

bool
match_quick(const struct control_match *m, const struct queue_msg *msg)
{
	if (msg->open == 0 || (clock_mono_ms() - msg->born_ms) / 1000 < m->age_s ||
	    msg->size < (uint64_t)m->size)
		return false;
	if (m->state.len > 0 && !slice_eq(m->state, slice_str(show_state(msg))))
		return false;
	return m->reason.len == 0 || fits_reason(msg, m->reason);
}

bool
match_broken(const struct control_match *m, const struct index_msg *entry, struct slice damage)
{
	const char *state = (entry->flags & INDEX_HELD) != 0 ? "held" : "deferred";

	return m->domain.len == 0 && m->sender.len == 0 && entry->bytes >= (uint64_t)m->size &&
	       (m->state.len == 0 || slice_eq(m->state, slice_str(state))) &&
	       (m->reason.len == 0 || contains(damage, m->reason));
}

bool
match_needs_envelope(const struct control_match *m)
{
	return m->domain.len > 0 || m->sender.len > 0;
}

/* "example.org" is that domain, "*.example.org" any below it. */
static bool
is_at(struct slice path, struct slice domain)
{
	struct slice local, at;

	if (!address_split(path, &local, &at))
		return false;
	if (slice_starts(domain, SLICE("*.")))
		return slice_iends(at, slice_drop(domain, 1));
	return slice_ieq(at, domain);
}

/* "<>" is the null reverse-path, "a@example.org" one address, "example.org" all of a domain. */
static bool
fits_sender(struct slice path, struct slice sender)
{
	if (slice_eq(sender, SLICE("<>")))
		return path.len == 0;
	if (sender.p[0] != '@' && slice_has(sender, '@'))
		return slice_ieq(path, sender);
	return is_at(path, slice_starts(sender, SLICE("@")) ? slice_drop(sender, 1) : sender);
}

/* An open recipient of it is at the domain. */
static bool
fits_domain(const struct queue_msg *msg, const struct content *content, struct slice domain)
{
	const struct envelope_copy *copy;
	const struct envelope_rcpt *rcpt;

	for (const struct queue_job *job = msg->jobs; job != NULL; job = job->sibling)
		for (uint32_t i = 0; i < job->n_rcpts; i++)
			if (content_rcpt(content, job->rcpts[i].ordinal, &copy, &rcpt) &&
			    is_at(rcpt->forward_path, domain))
				return true;
	return false;
}

bool
match_envelope(
    const struct control_match *m, const struct queue_msg *msg, const struct content *content)
{
	if (m->sender.len > 0 && !fits_sender(content->env.reverse_path, m->sender))
		return false;
	return m->domain.len == 0 || fits_domain(msg, content, m->domain);
}

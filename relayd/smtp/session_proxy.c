/* relayd/smtp/session_proxy.c - XCLIENT and XFORWARD: a trusted client tells for whom it speaks.
 *
 * Postfix's extensions, as its XCLIENT_README and XFORWARD_README describe them: NAME=value pairs,
 * the value as xtext, "[UNAVAILABLE]" and "[TEMPUNAVAIL]" for what is not known.  XCLIENT takes the
 * place of the client in every check; XFORWARD is for the log and the trace alone.
 */
#include "relayd/smtp/session_verbs.h"

#include "relayd/core/cidr.h"
#include "relayd/smtp/param.h"

#define VALUE_MAX 255 /* bytes, decoded */
#define FIELDS    7

struct origin {
	struct smtp_origin out;
	char values[FIELDS][VALUE_MAX];
};

/* What may be logged and shown. */
static bool
is_printable(struct slice s)
{
	for (size_t i = 0; i < s.len; i++)
		if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f)
			return false;
	return true;
}

static bool
take_addr(struct smtp_origin *o, struct slice value)
{
	struct cidr ip;

	if (value.len == 0)
		return true; /* not known */
	if (slice_istarts(value, SLICE("IPV6:")))
		value = slice_drop(value, strlen("IPV6:"));
	if (slice_has(value, '/') || !cidr_parse(value, &ip))
		return false;
	o->addr_len = ip.len;
	memcpy(o->addr, ip.addr, o->addr_len);
	return true;
}

static bool
take_port(struct smtp_origin *o, struct slice value)
{
	uint64_t port = 0;

	if (value.len > 0 && !slice_u64(value, UINT16_MAX, &port))
		return false;
	o->port = (uint16_t)port;
	return true;
}

static bool
take_proto(struct smtp_origin *o, struct slice value)
{
	o->proto = value;
	return value.len == 0 || slice_ieq(value, SLICE("SMTP")) ||
	       slice_ieq(value, SLICE("ESMTP"));
}

static bool
take_name(struct smtp_origin *o, struct slice value)
{
	o->name = value;
	return true;
}

static bool
take_helo(struct smtp_origin *o, struct slice value)
{
	o->helo = value;
	return !slice_has(value, ' ');
}

static bool
take_ident(struct smtp_origin *o, struct slice value)
{
	o->ident = value;
	return true;
}

static bool
take_source(struct smtp_origin *o, struct slice value)
{
	o->source = value;
	return value.len == 0 || slice_ieq(value, SLICE("LOCAL")) ||
	       slice_ieq(value, SLICE("REMOTE"));
}

static const struct {
	struct slice name;
	enum smtp_origin_field field;
	bool forward; /* of XFORWARD alone */
	bool (*take)(struct smtp_origin *o, struct slice value);
} fields[FIELDS] = {
	{ SLICE("NAME"), SMTP_ORIGIN_NAME, false, take_name },
	{ SLICE("ADDR"), SMTP_ORIGIN_ADDR, false, take_addr },
	{ SLICE("PORT"), SMTP_ORIGIN_PORT, false, take_port },
	{ SLICE("PROTO"), SMTP_ORIGIN_PROTO, false, take_proto },
	{ SLICE("HELO"), SMTP_ORIGIN_HELO, false, take_helo },
	{ SLICE("IDENT"), SMTP_ORIGIN_IDENT, true, take_ident },
	{ SLICE("SOURCE"), SMTP_ORIGIN_SOURCE, true, take_source },
};

static bool
take_field(struct origin *o, struct slice name, struct slice value, bool forward)
{
	for (size_t i = 0; i < FIELDS; i++) {
		struct buf plain = buf_over(o->values[i], VALUE_MAX);

		if (!slice_ieq(name, fields[i].name) || (fields[i].forward && !forward))
			continue;
		if (o->out.given & fields[i].field || !smtp_xtext_decode(value, &plain) ||
		    !is_printable(buf_slice(&plain)))
			return false;
		o->out.given |= fields[i].field;
		if (slice_ieq(buf_slice(&plain), SLICE("[UNAVAILABLE]")) ||
		    slice_ieq(buf_slice(&plain), SLICE("[TEMPUNAVAIL]")))
			return fields[i].take(&o->out, SLICE(""));
		return fields[i].take(&o->out, buf_slice(&plain));
	}
	return false;
}

static bool
parse(struct slice args, bool forward, struct origin *o)
{
	struct slice name, value;
	enum smtp_param got;

	o->out = (struct smtp_origin){ .name = SLICE(""),
		.helo = SLICE(""),
		.ident = SLICE(""),
		.source = SLICE(""),
		.proto = SLICE("") };
	while ((got = smtp_param_next(&args, &name, &value)) == SMTP_PARAM_ONE)
		if (value.len == 0 || !take_field(o, name, value, forward))
			return false;
	return got == SMTP_PARAM_END && o->out.given != 0;
}

/* False: the refusal is out. */
static bool
take(struct smtp_session *s, const char *verb, enum smtp_trust trust, struct slice args,
    struct origin *o)
{
	if (!(s->trust & trust))
		smtp_session_refuse(
		    s, slice_str(verb), 550, "5.7.1", "You may not speak for other clients here");
	else if (s->in_tx)
		smtp_session_refuse(
		    s, slice_str(verb), 503, "5.5.1", "Not within a transaction: RSET drops it");
	else if (!parse(args, trust == SMTP_TRUST_XFORWARD, o))
		smtp_session_refuse(s, slice_str(verb), 501, "5.5.4",
		    "Syntax: NAME=value ..., as EHLO lists the names, the values as xtext");
	else
		return true;
	return false;
}

void
smtp_session_xclient(struct smtp_session *s, struct slice args)
{
	struct origin o;

	if (!take(s, "XCLIENT", SMTP_TRUST_XCLIENT, args, &o))
		return;
	smtp_session_ask(s, SMTP_ASK_XCLIENT);
	s->ops->on_xclient(s->user, &o.out);
}

void
smtp_session_xforward(struct smtp_session *s, struct slice args)
{
	struct origin o;

	if (!take(s, "XFORWARD", SMTP_TRUST_XFORWARD, args, &o))
		return;
	s->ops->on_xforward(s->user, &o.out);
	smtp_session_say(s, 250, "2.0.0", "Ok");
}

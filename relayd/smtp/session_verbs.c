/* relayd/smtp/session_verbs.c - the commands of a server session: their order, arguments and replies. */
#include "relayd/smtp/session_verbs.h"

#include "relayd/smtp/param.h"

#include <stdio.h>

#define IN(state) (1u << SMTP_STATE_##state)
#define GREETED   (IN(READY) | IN(MAIL) | IN(RCPT))
#define ANY       (IN(HELO) | GREETED)

#define SMTP (1u << SMTP_KIND_SMTP | 1u << SMTP_KIND_RELEASE)
#define LMTP (1u << SMTP_KIND_LMTP)

/* How far a MAIL line may pass SMTP_COMMAND_MAX: SIZE 26 (RFC 1870 section 3), BODY 17 (RFC 6152
 * section 2), AUTH 500 (RFC 4954 section 3); our own XID and XKEY, the key as xtext. */
#define MAIL_EXTRA    (26 + 17 + 500)
#define XRELAYD_EXTRA (5 + ID_TEXT_LEN + 6 + 3 * SMTP_KEY_MAX)

enum { NO_ARGS = 1, NEEDS_TLS = 2, NEEDS_AUTH = 4 };

struct verb {
	const char *name;
	unsigned kinds;   /* set of enum smtp_kind */
	unsigned allowed; /* set of IN(state) */
	unsigned needs;
	const char *otherwise; /* 503 in any other state */
	void (*run)(struct smtp_session *s, const struct verb *v, struct slice args);
};

static void
bad_args(struct smtp_session *s, const struct verb *v, const char *text)
{
	smtp_session_refuse(s, slice_str(v->name), 501, "5.5.4", text);
}

/* ---- HELO --------------------------------------------------------------------------------- */

/* A name that can be logged and put in a Received field.  That it is a domain is not asked: printers
 * and gateways say their worst here (RFC 5321 section 4.1.4). */
static bool
is_helo_name(struct slice name)
{
	for (size_t i = 0; i < name.len; i++)
		if (name.p[i] <= ' ' || name.p[i] >= 0x7f)
			return false;
	return name.len > 0 && name.len <= SMTP_HELO_MAX;
}

static void
run_helo(struct smtp_session *s, const struct verb *v, struct slice args)
{
	char text[64];

	if (!is_helo_name(args)) {
		(void)snprintf(text, sizeof(text), "Say who you are: %s your.host.name", v->name);
		bad_args(s, v, text);
		return;
	}
	if (s->in_tx) { /* a new EHLO is a RSET too (RFC 5321 section 4.1.4) */
		smtp_session_enter(s, SMTP_STATE_READY);
		smtp_session_reset(s, SMTP_RESET_ASKED, "");
	}
	s->helo_extended = v->name[0] != 'H';
	smtp_session_ask(s, SMTP_ASK_HELO);
	s->ops->on_helo(s->user, args, s->helo_extended);
}

/* service->auth, here and now: never where a password could be read on the way. */
static bool
offers_auth(const struct smtp_session *s)
{
	return s->service->auth && s->tls;
}

static bool
offers_starttls(const struct smtp_session *s)
{
	return s->service->starttls && !s->tls;
}

void
smtp_session_say_hello(struct smtp_session *s)
{
	struct buf *out = s->turn->out;
	char size[40];

	(void)snprintf(size, sizeof(size), "SIZE %llu", (unsigned long long)s->service->max_bytes);
	smtp_reply_line(out, 250, s->extended, slice_str(s->service->hostname));
	if (!s->extended)
		return;
	smtp_reply_line(out, 250, true, SLICE("PIPELINING"));
	smtp_reply_line(out, 250, true, slice_str(size));
	smtp_reply_line(out, 250, true, SLICE("8BITMIME"));
	if (offers_starttls(s))
		smtp_reply_line(out, 250, true, SLICE("STARTTLS"));
	if (offers_auth(s))
		smtp_reply_line(out, 250, true, SLICE("AUTH PLAIN"));
	if (s->service->x_relayd)
		smtp_reply_line(out, 250, true, SLICE("X-RELAYD"));
	smtp_reply_line(out, 250, false, SLICE("ENHANCEDSTATUSCODES"));
}

/* ---- MAIL and RCPT ---------------------------------------------------------------------------- */

/* "FROM:" or "TO:", and the spaces that people put behind it. */
static bool
take_keyword(struct slice *args, struct slice keyword)
{
	if (!slice_istarts(*args, keyword))
		return false;
	*args = slice_drop(*args, keyword.len);
	while (args->len > 0 && args->p[0] == ' ')
		*args = slice_drop(*args, 1);
	return true;
}

static void
bad_address(struct smtp_session *s, const struct verb *v, enum address_status status)
{
	struct slice verb = slice_str(v->name);
	bool reverse = v->name[0] == 'M';

	if (status == ADDRESS_NEEDS_UTF8)
		smtp_session_refuse(s, verb, 553, "5.6.7", "An address here is ASCII only");
	else if (status == ADDRESS_LONG)
		smtp_session_refuse(s, verb, 501, reverse ? "5.1.7" : "5.1.3", "Address too long");
	else
		smtp_session_refuse(s, verb, 501, reverse ? "5.1.7" : "5.1.3",
		    reverse ? "That is no address. Syntax: MAIL FROM:<you@example.org>"
			    : "That is no address. Syntax: RCPT TO:<them@example.org>");
}

struct mail_params {
	struct smtp_mail *mail;
	struct buf *key;
	unsigned seen; /* set of 1 << row of param_rows */
};

static bool
param_size(struct mail_params *p, struct slice value)
{
	/* 20 digits at most (RFC 1870 section 3); more than fits is as good as too large. */
	if (value.len == 0 || value.len > 20)
		return false;
	for (size_t i = 0; i < value.len; i++)
		if (value.p[i] < '0' || value.p[i] > '9')
			return false;
	if (!slice_u64(value, UINT64_MAX, &p->mail->size))
		p->mail->size = UINT64_MAX;
	return true;
}

static bool
param_body(struct mail_params *p, struct slice value)
{
	(void)p; /* what the data turns out to hold counts, not what was announced */
	return slice_ieq(value, SLICE("7BIT")) || slice_ieq(value, SLICE("8BITMIME"));
}

static bool
param_auth(struct mail_params *p, struct slice value)
{
	(void)p; /* nobody's word is taken for who wrote the mail (RFC 4954 section 5) */
	return value.len > 0;
}

static bool
param_xid(struct mail_params *p, struct slice value)
{
	p->mail->has_origin = true;
	return id_parse(value, &p->mail->origin);
}

static bool
param_xkey(struct mail_params *p, struct slice value)
{
	if (!smtp_xtext_decode(value, p->key))
		return false;
	p->mail->key = buf_slice(p->key);
	return p->mail->key.len > 0;
}

static const struct param_row {
	struct slice name;
	bool ours; /* with service.x_relayd alone */
	bool auth; /* with service.auth alone */
	bool (*take)(struct mail_params *p, struct slice value);
} param_rows[] = {
	{ SLICE("SIZE"), false, false, param_size },
	{ SLICE("BODY"), false, false, param_body },
	{ SLICE("AUTH"), false, true, param_auth },
	{ SLICE("XID"), true, false, param_xid },
	{ SLICE("XKEY"), true, false, param_xkey },
};

static const struct param_row *
param_find(const struct smtp_session *s, struct slice name)
{
	for (size_t i = 0; s->extended && i < ARRAY_LEN(param_rows); i++) {
		const struct param_row *row = &param_rows[i];

		if (slice_ieq(name, row->name) && (!row->ours || s->service->x_relayd) &&
		    (!row->auth || offers_auth(s)))
			return row;
	}
	return NULL;
}

static void
unknown_param(struct smtp_session *s, const struct verb *v, struct slice name)
{
	char text[128];

	(void)snprintf(text, sizeof(text), "Parameter %.*s is not known here",
	    SLICE_FMT(slice_head(name, 40)));
	smtp_session_refuse(s, slice_str(v->name), 555, "5.5.4", text);
}

static bool
take_params(struct smtp_session *s, const struct verb *v, struct slice args, struct mail_params *p)
{
	struct slice name, value;
	enum smtp_param got;

	if (args.len > 0 && args.p[0] != ' ') {
		bad_args(s, v, "A space is missing behind the address");
		return false;
	}
	while ((got = smtp_param_next(&args, &name, &value)) == SMTP_PARAM_ONE) {
		const struct param_row *row = param_find(s, name);
		unsigned bit;

		if (row == NULL) {
			unknown_param(s, v, name);
			return false;
		}
		bit = 1u << (row - param_rows);
		if (p->seen & bit || !row->take(p, value)) {
			bad_args(s, v, "A parameter has a wrong value or stands twice");
			return false;
		}
		p->seen |= bit;
	}
	if (got == SMTP_PARAM_BAD)
		bad_args(s, v, "What follows the address is no parameter");
	return got == SMTP_PARAM_END;
}

static void
run_mail(struct smtp_session *s, const struct verb *v, struct slice args)
{
	char key_storage[SMTP_KEY_MAX];
	struct buf key = buf_over(key_storage, sizeof(key_storage));
	struct smtp_mail mail = { .key = SLICE("") };
	struct mail_params params = { .mail = &mail, .key = &key };
	enum address_status status;

	if (!take_keyword(&args, SLICE("FROM:"))) {
		bad_args(s, v, "Syntax: MAIL FROM:<you@example.org>");
		return;
	}
	status = address_reverse_path(&args, 0, &mail.reverse_path);
	if (status != ADDRESS_OK) {
		bad_address(s, v, status);
		return;
	}
	if (!take_params(s, v, args, &params))
		return;
	if (mail.size > s->service->max_bytes) {
		smtp_session_say(s, 552, "5.3.4", "Message would be over the size limit");
		s->ops->on_refused(s->user, slice_str(v->name), 552, "message size");
		return;
	}
	smtp_session_ask(s, SMTP_ASK_MAIL);
	s->ops->on_mail(s->user, &mail);
}

static void
run_rcpt(struct smtp_session *s, const struct verb *v, struct slice args)
{
	enum address_status status;
	struct address forward_path;

	if (!take_keyword(&args, SLICE("TO:"))) {
		bad_args(s, v, "Syntax: RCPT TO:<them@example.org>");
		return;
	}
	status = address_forward_path(&args, 0, &forward_path);
	if (status != ADDRESS_OK) {
		bad_address(s, v, status);
		return;
	}
	args = slice_trim(args);
	if (args.len > 0) {
		unknown_param(s, v, slice_until(slice_until(args, ' '), '='));
		return;
	}
	if (s->n_rcpts >= s->service->max_rcpts) {
		smtp_session_say(s, 452, "4.5.3", "Too many recipients for one message");
		s->ops->on_refused(s->user, slice_str(v->name), 452, "recipients");
		return;
	}
	smtp_session_ask(s, SMTP_ASK_RCPT);
	s->ops->on_rcpt(s->user, &forward_path);
}

/* ---- the rest ----------------------------------------------------------------------------------- */

static void
run_data(struct smtp_session *s, const struct verb *v, struct slice args)
{
	(void)v;
	(void)args; /* NO_ARGS */
	smtp_session_ask(s, SMTP_ASK_DATA);
	s->ops->on_data(s->user);
}

static void
run_rset(struct smtp_session *s, const struct verb *v, struct slice args)
{
	(void)v;
	(void)args; /* NO_ARGS */
	if (s->state != SMTP_STATE_HELO)
		smtp_session_enter(s, SMTP_STATE_READY);
	smtp_session_say(s, 250, "2.0.0", "Ok");
	smtp_session_reset(s, SMTP_RESET_ASKED, "");
}

static void
run_noop(struct smtp_session *s, const struct verb *v, struct slice args)
{
	(void)v;
	(void)args; /* any string: RFC 5321 section 4.1.1.9 */
	smtp_session_say(s, 250, "2.0.0", "Ok");
}

static void
run_quit(struct smtp_session *s, const struct verb *v, struct slice args)
{
	(void)v;
	(void)args; /* NO_ARGS */
	smtp_session_say(s, 221, "2.0.0", "Bye");
	smtp_session_enter(s, SMTP_STATE_CLOSED);
	smtp_session_reset(s, SMTP_RESET_ASKED, "");
}

static void
run_vrfy(struct smtp_session *s, const struct verb *v, struct slice args)
{
	if (args.len == 0)
		bad_args(s, v, "Syntax: VRFY mailbox");
	else
		smtp_session_say(s, 252, "2.5.2", "Not told here; send mail and see");
}

static void
run_help(struct smtp_session *s, const struct verb *v, struct slice args)
{
	(void)v;
	(void)args;
	smtp_session_say(s, 214, "2.0.0",
	    s->service->kind == SMTP_KIND_LMTP
		? "LHLO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP (RFC 2033)"
		: "EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP STARTTLS AUTH (RFC 5321)");
}

static void
run_starttls(struct smtp_session *s, const struct verb *v, struct slice args)
{
	(void)args; /* NO_ARGS */
	if (!offers_starttls(s)) {
		smtp_session_refuse(s, slice_str(v->name), s->tls ? 503 : 502, "5.5.1",
		    s->tls ? "TLS is on already" : "TLS is not offered here");
		return;
	}
	smtp_session_say(s, 220, "2.0.0", "Ready to start TLS");
	smtp_session_enter(s, SMTP_STATE_TLS);
}

static void
run_auth(struct smtp_session *s, const struct verb *v, struct slice args)
{
	struct slice mechanism = slice_until(args, ' '), response;
	bool has_response = mechanism.len < args.len;

	response = slice_trim(slice_drop(args, mechanism.len));
	if (!s->service->auth) {
		smtp_session_refuse(
		    s, slice_str(v->name), 502, "5.5.1", "AUTH is not offered here");
	} else if (!s->tls) {
		smtp_session_refuse(s, slice_str(v->name), 538, "5.7.11",
		    "No password in plain text: say STARTTLS first");
	} else if (s->authenticated) {
		smtp_session_refuse(s, slice_str(v->name), 503, "5.5.1", "Logged in already");
	} else if (mechanism.len == 0) {
		bad_args(s, v, "Syntax: AUTH PLAIN");
	} else if (!slice_ieq(mechanism, SLICE("PLAIN"))) {
		smtp_session_refuse(
		    s, slice_str(v->name), 504, "5.5.4", "The mechanism here is PLAIN");
	} else {
		smtp_session_ask(s, SMTP_ASK_AUTH);
		s->ops->on_auth(s->user, mechanism, response, has_response);
	}
}

void
smtp_session_response(struct smtp_session *s, struct slice line)
{
	if (slice_eq(line, SLICE("*"))) {
		smtp_session_enter(s, SMTP_STATE_READY);
		smtp_session_refuse(s, SLICE("AUTH"), 501, "5.7.0", "AUTH given up, as you wish");
		return;
	}
	smtp_session_ask(s, SMTP_ASK_AUTH);
	s->ops->on_auth(s->user, SLICE(""), line, true);
}

static void
run_unsupported(struct smtp_session *s, const struct verb *v, struct slice args)
{
	(void)args;
	smtp_session_refuse(
	    s, slice_str(v->name), 502, "5.5.1", "Not implemented; HELP lists what is");
}

/* A browser made to talk to us: its user would see to it that we read the rest as commands. */
static void
run_http(struct smtp_session *s, const struct verb *v, struct slice args)
{
	(void)args;
	smtp_session_say(s, 421, "4.7.0", "This is SMTP, not HTTP");
	s->ops->on_refused(s->user, slice_str(v->name), 421, "http");
	smtp_session_enter(s, SMTP_STATE_CLOSED);
	smtp_session_reset(s, SMTP_RESET_CLOSED, "");
}

static const char first_hello[] = "Say EHLO first";
static const char no_tx[] = "MAIL FROM:<...> comes first, then RCPT TO:<...>";

/* RFC 5321 section 4.1.4.  Needs: RFC 3207 section 4 lets NOOP, EHLO, STARTTLS and QUIT pass without
 * TLS; RFC 4954 section 4 and 6409 section 4.3. */
static const struct verb verbs[] = {
	{ "EHLO", SMTP, ANY, 0, "", run_helo },
	{ "HELO", SMTP, ANY, 0, "", run_helo },
	{ "LHLO", LMTP, ANY, 0, "", run_helo },
	{ "MAIL", SMTP | LMTP, IN(READY), NEEDS_TLS | NEEDS_AUTH, first_hello, run_mail },
	{ "RCPT", SMTP | LMTP, IN(MAIL) | IN(RCPT), 0, no_tx, run_rcpt },
	{ "DATA", SMTP | LMTP, IN(RCPT), NO_ARGS, no_tx, run_data },
	{ "RSET", SMTP | LMTP, ANY, NO_ARGS, "", run_rset },
	{ "NOOP", SMTP | LMTP, ANY, 0, "", run_noop },
	{ "QUIT", SMTP | LMTP, ANY, NO_ARGS, "", run_quit },
	{ "VRFY", SMTP | LMTP, ANY, NEEDS_TLS, "", run_vrfy },
	{ "HELP", SMTP | LMTP, ANY, 0, "", run_help },
	{ "STARTTLS", SMTP | LMTP, IN(READY), NO_ARGS, first_hello, run_starttls },
	{ "AUTH", SMTP, IN(READY), 0, first_hello, run_auth },
	{ "EXPN", SMTP | LMTP, ANY, 0, "", run_unsupported },
	{ "BDAT", SMTP | LMTP, ANY, 0, "", run_unsupported },
	{ "ETRN", SMTP, ANY, 0, "", run_unsupported },
	{ "TURN", SMTP, ANY, 0, "", run_unsupported },
	{ "GET", SMTP, ANY, 0, "", run_http },
	{ "POST", SMTP, ANY, 0, "", run_http },
	{ "CONNECT", SMTP, ANY, 0, "", run_http },
};

static const struct verb *
verb_find(const struct smtp_session *s, struct slice name)
{
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (slice_ieq(name, slice_str(verbs[i].name)) &&
		    verbs[i].kinds & 1u << s->service->kind)
			return &verbs[i];
	return NULL;
}

static size_t
line_max(const struct smtp_session *s, const struct verb *v)
{
	if (v != NULL && v->run == run_auth)
		return SMTP_AUTH_LINE_MAX;
	if (v != NULL && v->run == run_mail)
		return SMTP_COMMAND_MAX + MAIL_EXTRA + (s->service->x_relayd ? XRELAYD_EXTRA : 0);
	return SMTP_COMMAND_MAX;
}

static void
wrong_state(struct smtp_session *s, const struct verb *v)
{
	const char *text = v->otherwise;

	if (s->in_tx && v->run == run_mail)
		text = "A MAIL is open already: RSET drops it";
	else if (s->in_tx && v->run == run_data)
		text = "No recipient was accepted";
	else if (s->in_tx)
		text = "Not within a transaction: RSET drops it";
	else if (s->state == SMTP_STATE_HELO)
		text = first_hello;
	smtp_session_refuse(s, slice_str(v->name), 503, "5.5.1", text);
}

void
smtp_session_command(struct smtp_session *s, const struct smtp_command *cmd)
{
	const struct verb *v = verb_find(s, cmd->verb);
	struct slice args = slice_trim(cmd->args), verb = slice_head(cmd->verb, 20);

	if (cmd->line.len + 2 > line_max(s, v))
		smtp_session_refuse(s, verb, 500, "5.5.2", "Command line too long");
	else if (v == NULL)
		smtp_session_refuse(s, verb, 500, "5.5.2", "Command not known; HELP lists them");
	else if (!(v->allowed & 1u << s->state))
		wrong_state(s, v);
	else if (v->needs & NEEDS_TLS && s->service->tls_required && !s->tls)
		smtp_session_refuse(s, verb, 530, "5.7.0", "Say STARTTLS first");
	else if (v->needs & NEEDS_AUTH && s->service->auth_required && !s->authenticated)
		smtp_session_refuse(s, verb, 530, "5.7.0", "Log in first: AUTH PLAIN, under TLS");
	else if (v->needs & NO_ARGS && args.len > 0)
		bad_args(s, v, "This command takes nothing behind it");
	else
		v->run(s, v, args);
}

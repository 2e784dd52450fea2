/* relayd/smtp/session_verbs.c - the commands of a server session: their order, arguments and
 * replies. */
#include "relayd/smtp/session_verbs.h"

#include <stdio.h>

#define IN(state) (1u << SMTP_STATE_##state)
#define GREETED   (IN(READY) | IN(MAIL) | IN(RCPT) | IN(MORE))
#define ANY       (IN(HELO) | GREETED)

#define SMTP (1u << SMTP_KIND_SMTP | 1u << SMTP_KIND_RELEASE)
#define LMTP (1u << SMTP_KIND_LMTP)

/* How far a MAIL line may pass SMTP_COMMAND_MAX: SIZE 26 (RFC 1870 section 3), BODY 17 (RFC 6152
 * section 2, RFC 3030 section 3), AUTH 500 (RFC 4954 section 3), RET 9 and ENVID 107 (RFC 3461
 * section 4), SMTPUTF8 10 (RFC 6531 section 3.1), REQUIRETLS 11, PRDR 5; our own XID and XKEY, the
 * key as xtext.  RCPT: NOTIFY 29 and ORCPT 507; SMTPUTF8 has 10 for VRFY too. */
#define MAIL_EXTRA      (26 + 17 + 500 + 9 + 107 + 10 + 11 + 5)
#define RCPT_EXTRA      (29 + 507)
#define VRFY_EXTRA      10
#define LIMIT_SHOWN_MAX 999999
#define AUTH_LINE_MAX   300 /* of the EHLO reply: all mechanisms fit */
#define XRELAYD_EXTRA   (5 + ID_TEXT_LEN + 6 + 3 * SMTP_KEY_MAX)

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

/* A name that can be logged and put in a Received field.  That it is a domain is not asked:
 * printers and gateways say their worst here (RFC 5321 section 4.1.4). */
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
	if (smtp_session_in_vain(s, v->name))
		return;
	if (s->in_tx) { /* a new EHLO is a RSET too (RFC 5321 section 4.1.4) */
		smtp_session_enter(s, SMTP_STATE_READY);
		smtp_session_reset(s, SMTP_RESET_ASKED, "");
	}
	s->helo_extended = v->name[0] != 'H';
	smtp_session_ask(s, SMTP_ASK_HELO);
	s->ops->on_helo(s->user, args, s->helo_extended);
}

static bool
lacks_tls(const struct smtp_session *s)
{
	return s->service->tls_required && !s->tls;
}

/* Appends what AUTH takes here and now; the role knows. */
static void
put_mechanisms(const struct smtp_session *s, struct buf *out)
{
	if (s->service->auth && !lacks_tls(s))
		s->ops->on_offer(s->user, out);
}

bool
smtp_session_offers_auth(const struct smtp_session *s)
{
	char storage[AUTH_LINE_MAX];
	struct buf mechanisms = buf_over(storage, sizeof(storage));

	put_mechanisms(s, &mechanisms);
	return mechanisms.len > 0;
}

static void
say_auth(const struct smtp_session *s, struct buf *out)
{
	char storage[AUTH_LINE_MAX];
	struct buf line = buf_over(storage, sizeof(storage));
	size_t bare;

	buf_puts(&line, "AUTH ");
	bare = line.len;
	put_mechanisms(s, &line);
	if (line.len > bare)
		smtp_reply_line(out, 250, true, buf_slice(&line));
}

static bool
offers_starttls(const struct smtp_session *s)
{
	return s->service->starttls && !s->tls;
}

bool
smtp_session_offers(const struct smtp_session *s, enum smtp_extension extension)
{
	if (!s->extended || !(s->service->extensions & extension))
		return false;
	return extension != SMTP_EXT_REQUIRETLS || s->tls || s->service->x_relayd;
}

static void
hello_line(struct smtp_session *s, bool offered, const char *text)
{
	if (offered)
		smtp_reply_line(s->turn->out, 250, true, slice_str(text));
}

/* Six digits at most (RFC 9422 section 3): who obeys the lesser number is welcome all the same. */
static uint32_t
limit_value(uint32_t n)
{
	return n < LIMIT_SHOWN_MAX ? n : LIMIT_SHOWN_MAX;
}

static void
hello_limits(struct smtp_session *s)
{
	char text[64];
	struct buf b = buf_over(text, sizeof(text) - 1);

	buf_printf(&b, "LIMITS RCPTMAX=%u", limit_value(s->service->max_rcpts));
	if (s->service->max_mails > 0)
		buf_printf(&b, " MAILMAX=%u", limit_value(s->service->max_mails));
	smtp_reply_line(s->turn->out, 250, true, buf_slice(&b));
}

void
smtp_session_say_hello(struct smtp_session *s)
{
	bool chunking = smtp_session_offers(s, SMTP_EXT_CHUNKING);
	char size[40];

	smtp_reply_line(s->turn->out, 250, s->extended, slice_str(s->service->hostname));
	if (!s->extended)
		return;
	(void)snprintf(size, sizeof(size), "SIZE %llu", (unsigned long long)s->service->max_bytes);
	hello_line(s, true, "PIPELINING");
	hello_line(s, true, size);
	hello_line(s, true, "8BITMIME");
	hello_line(s, offers_starttls(s), "STARTTLS");
	say_auth(s, s->turn->out);
	hello_line(s, chunking, "CHUNKING");
	hello_line(s, chunking, "BINARYMIME");
	hello_line(s, smtp_session_offers(s, SMTP_EXT_DSN), "DSN");
	hello_line(s, smtp_session_offers(s, SMTP_EXT_UTF8), "SMTPUTF8");
	hello_line(s, smtp_session_offers(s, SMTP_EXT_REQUIRETLS), "REQUIRETLS");
	hello_line(s, smtp_session_offers(s, SMTP_EXT_PRDR), "PRDR");
	if (smtp_session_offers(s, SMTP_EXT_LIMITS))
		hello_limits(s);
	hello_line(s, s->trust & SMTP_TRUST_XCLIENT, "XCLIENT NAME ADDR PORT PROTO HELO");
	hello_line(
	    s, s->trust & SMTP_TRUST_XFORWARD, "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE");
	hello_line(s, s->service->x_relayd, "X-RELAYD");
	smtp_reply_line(s->turn->out, 250, false, SLICE("ENHANCEDSTATUSCODES"));
}

/* ---- MAIL and RCPT --------------------------------------------------------------------------- */

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

	if (status == ADDRESS_NEEDS_UTF8) /* RFC 6531 section 3.5 */
		smtp_session_refuse(s, verb, 553, "5.6.7",
		    smtp_session_offers(s, SMTP_EXT_UTF8)
			? "An address that is not ASCII wants SMTPUTF8 at MAIL"
			: "An address here is ASCII only");
	else if (status == ADDRESS_LONG)
		smtp_session_refuse(s, verb, 501, reverse ? "5.1.7" : "5.1.3", "Address too long");
	else
		smtp_session_refuse(s, verb, 501, reverse ? "5.1.7" : "5.1.3",
		    reverse ? "That is no address. Syntax: MAIL FROM:<you@example.org>"
			    : "That is no address. Syntax: RCPT TO:<them@example.org>");
}

static void
too_many_mails(struct smtp_session *s, const struct verb *v)
{
	static const char text[] = "Too many messages on one connection; connect again";

	smtp_session_say(s, 421, "4.7.0", text);
	s->ops->on_refused(s->user, slice_str(v->name), 421, text);
	smtp_session_enter(s, SMTP_STATE_CLOSED);
	smtp_session_reset(s, SMTP_RESET_CLOSED, "");
}

/* A non-ASCII address is read as one first: whether it is welcome, the parameters tell. */
static unsigned
address_flags(const struct smtp_session *s)
{
	return smtp_session_offers(s, SMTP_EXT_UTF8) ? ADDRESS_UTF8 : 0u;
}

static void
ask_mail(struct smtp_session *s, const struct verb *v, const struct smtp_mail *mail)
{
	if (!mail->utf8 && !slice_is_ascii(mail->reverse_path.mailbox)) {
		bad_address(s, v, ADDRESS_NEEDS_UTF8);
		return;
	}
	if (mail->size > s->service->max_bytes) {
		smtp_session_say(s, 552, "5.3.4", "Message would be over the size limit");
		s->ops->on_refused(s->user, slice_str(v->name), 552, "message size");
		smtp_session_bad(s);
		return;
	}
	if (s->service->max_mails > 0 && s->n_mails >= s->service->max_mails) {
		too_many_mails(s, v);
		return;
	}
	s->utf8 = mail->utf8;
	s->binary = mail->body == SMTP_BODY_BINARYMIME;
	s->prdr = mail->prdr;
	s->over_told = false;
	smtp_session_ask(s, SMTP_ASK_MAIL);
	s->ops->on_mail(s->user, mail);
}

static void
run_mail(struct smtp_session *s, const struct verb *v, struct slice args)
{
	struct smtp_session_room room;
	struct smtp_mail mail = { .key = SLICE(""), .params = SLICE("") };
	enum address_status status;

	if (!take_keyword(&args, SLICE("FROM:"))) {
		bad_args(s, v, "Syntax: MAIL FROM:<you@example.org>");
		return;
	}
	status = address_reverse_path(&args, address_flags(s), &mail.reverse_path);
	if (status != ADDRESS_OK)
		bad_address(s, v, status);
	else if (smtp_session_mail_params(s, args, &mail, &room))
		ask_mail(s, v, &mail);
}

static void
run_rcpt(struct smtp_session *s, const struct verb *v, struct slice args)
{
	struct smtp_session_room room;
	struct smtp_rcpt rcpt = { .params = SLICE("") };
	enum address_status status;

	if (!take_keyword(&args, SLICE("TO:"))) {
		bad_args(s, v, "Syntax: RCPT TO:<them@example.org>");
		return;
	}
	status = address_forward_path(&args, s->utf8 ? ADDRESS_UTF8 : 0u, &rcpt.forward_path);
	if (status != ADDRESS_OK) {
		bad_address(s, v, status);
		return;
	}
	if (!smtp_session_rcpt_params(s, args, &rcpt, &room))
		return;
	if (s->n_rcpts >= s->service->max_rcpts) {
		smtp_session_say(s, 452, "4.5.3", "Too many recipients for one message");
		if (!s->over_told) /* a client may well go through its list to the end */
			s->ops->on_refused(s->user, slice_str(v->name), 452, "recipients");
		s->over_told = true;
		return;
	}
	smtp_session_ask(s, SMTP_ASK_RCPT);
	s->ops->on_rcpt(s->user, &rcpt);
}

/* ---- the rest -------------------------------------------------------------------------------- */

static void
run_data(struct smtp_session *s, const struct verb *v, struct slice args)
{
	(void)args;      /* NO_ARGS */
	if (s->binary) { /* RFC 3030 section 3 */
		smtp_session_refuse(s, slice_str(v->name), 503, "5.5.1",
		    "A message with BODY=BINARYMIME comes by BDAT");
		return;
	}
	smtp_session_ask(s, SMTP_ASK_DATA);
	s->ops->on_data(s->user);
}

static void
run_bdat(struct smtp_session *s, const struct verb *v, struct slice args)
{
	(void)v;
	smtp_session_bdat(s, args);
}

static void
run_xclient(struct smtp_session *s, const struct verb *v, struct slice args)
{
	(void)v;
	smtp_session_xclient(s, args);
}

static void
run_xforward(struct smtp_session *s, const struct verb *v, struct slice args)
{
	(void)v;
	smtp_session_xforward(s, args);
}

static void
run_rset(struct smtp_session *s, const struct verb *v, struct slice args)
{
	(void)args; /* NO_ARGS */
	if (s->in_tx && smtp_session_in_vain(s, v->name))
		return;
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

/* What would be taken now or later in this session, and no more: no STARTTLS under TLS, nor AUTH
 * behind one. */
static void
run_help(struct smtp_session *s, const struct verb *v, struct slice args)
{
	bool lmtp = s->service->kind == SMTP_KIND_LMTP;
	char text[256];
	struct buf b = buf_over(text, sizeof(text) - 1);

	(void)v;
	(void)args;
	buf_puts(&b, lmtp ? "LHLO" : "EHLO HELO");
	buf_puts(&b, " MAIL RCPT DATA");
	if (s->service->extensions & SMTP_EXT_CHUNKING)
		buf_puts(&b, " BDAT");
	buf_puts(&b, " RSET NOOP QUIT VRFY HELP");
	if (offers_starttls(s))
		buf_puts(&b, " STARTTLS");
	if (s->service->auth && !s->authenticated)
		buf_puts(&b, " AUTH");
	if (s->trust & SMTP_TRUST_XCLIENT)
		buf_puts(&b, " XCLIENT");
	if (s->trust & SMTP_TRUST_XFORWARD)
		buf_puts(&b, " XFORWARD");
	buf_puts(&b, lmtp ? " (RFC 2033)" : " (RFC 5321)");
	text[b.len] = '\0';
	smtp_session_say(s, 214, "2.0.0", text);
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

/* sasl-mech of RFC 4422 section 3.1, in any case of letters. */
static bool
is_mechanism(struct slice name)
{
	for (size_t i = 0; i < name.len; i++) {
		char c = slice_lower(name.p[i]);

		if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '_')
			return false;
	}
	return name.len > 0 && name.len <= 20;
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
	} else if (s->authenticated) {
		smtp_session_refuse(s, slice_str(v->name), 503, "5.5.1", "Logged in already");
	} else if (!is_mechanism(mechanism)) {
		bad_args(s, v, "Syntax: AUTH mechanism; EHLO lists them");
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

/* RFC 5321 section 4.1.4.  Needs: RFC 3207 section 4 lets NOOP, EHLO, STARTTLS and QUIT pass
 * without TLS; RFC 4954 section 4 and 6409 section 4.3. */
static const struct verb verbs[] = {
	{ "EHLO", SMTP, ANY, 0, "", run_helo },
	{ "HELO", SMTP, ANY, 0, "", run_helo },
	{ "LHLO", LMTP, ANY, 0, "", run_helo },
	{ "MAIL", SMTP | LMTP, IN(READY), NEEDS_TLS | NEEDS_AUTH, first_hello, run_mail },
	{ "RCPT", SMTP | LMTP, IN(MAIL) | IN(RCPT), 0, no_tx, run_rcpt },
	{ "DATA", SMTP | LMTP, IN(RCPT), NO_ARGS, no_tx, run_data },
	{ "BDAT", SMTP | LMTP, ANY, 0, "", run_bdat }, /* looks at the state itself */
	{ "RSET", SMTP | LMTP, ANY, NO_ARGS, "", run_rset },
	{ "NOOP", SMTP | LMTP, ANY, 0, "", run_noop },
	{ "QUIT", SMTP | LMTP, ANY, NO_ARGS, "", run_quit },
	{ "VRFY", SMTP | LMTP, ANY, NEEDS_TLS, "", run_vrfy },
	{ "HELP", SMTP | LMTP, ANY, 0, "", run_help },
	{ "STARTTLS", SMTP | LMTP, IN(READY), NO_ARGS, first_hello, run_starttls },
	{ "AUTH", SMTP, IN(READY), NEEDS_TLS, first_hello, run_auth },
	{ "XCLIENT", SMTP | LMTP, ANY, 0, "", run_xclient },
	{ "XFORWARD", SMTP | LMTP, ANY, 0, "", run_xforward },
	{ "EXPN", SMTP | LMTP, ANY, 0, "", run_unsupported },
	{ "ETRN", SMTP, ANY, 0, "", run_unsupported },
	{ "TURN", SMTP, ANY, 0, "", run_unsupported },
	{ "GET", SMTP, ANY, 0, "", run_http },
	{ "POST", SMTP, ANY, 0, "", run_http },
	{ "CONNECT", SMTP, ANY, 0, "", run_http },
};

/* As a rule the first letter says no. */
static bool
is_called(const struct verb *v, struct slice name)
{
	size_t n = 0;

	while (
	    n < name.len && v->name[n] != '\0' && slice_lower(name.p[n]) == slice_lower(v->name[n]))
		n++;
	return n == name.len && v->name[n] == '\0';
}

static const struct verb *
verb_find(const struct smtp_session *s, struct slice name)
{
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (is_called(&verbs[i], name) && verbs[i].kinds & 1u << s->service->kind)
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
	if (v != NULL && v->run == run_rcpt)
		return SMTP_COMMAND_MAX + RCPT_EXTRA;
	if (v != NULL && v->run == run_vrfy)
		return SMTP_COMMAND_MAX + VRFY_EXTRA;
	return SMTP_COMMAND_MAX;
}

static void
wrong_state(struct smtp_session *s, const struct verb *v)
{
	const char *text = v->otherwise;

	if (s->state == SMTP_STATE_MORE)
		text = "The message comes by BDAT: BDAT ends it with LAST, RSET drops it";
	else if (s->in_tx && v->run == run_mail)
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
	else if (v->needs & NEEDS_TLS && lacks_tls(s))
		smtp_session_refuse(s, verb, 530, "5.7.0", "Say STARTTLS first");
	else if (v->needs & NEEDS_AUTH && s->service->auth_required && !s->authenticated)
		smtp_session_refuse(s, verb, 530, "5.7.0", "Log in first: AUTH, under TLS");
	else if (v->needs & NO_ARGS && args.len > 0)
		bad_args(s, v, "This command takes nothing behind it");
	else
		v->run(s, v, args);
}

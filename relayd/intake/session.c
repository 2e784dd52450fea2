/* relayd/intake/session.c - one client: greeting, HELO, TLS, login. */
#include "relayd/core/clock.h"
#include "relayd/core/log.h"
#include "relayd/intake/intake.h"
#include "relayd/net/proxy.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PROXY_V2_BLANKS 4 /* lines without a verb that its signature makes */

struct slice
session_addr(const struct session *s)
{
	return slice_of(s->addr, s->addr_len);
}

const char *
session_ip(const struct session *s, char text[static IP_TEXT_BYTES])
{
	ip_text(session_addr(s), text);
	return text;
}

static const char *
listener_name(const struct session *s)
{
	return s->release ? "release" : s->in->role->listeners[s->listener].name;
}

void
session_answer(struct session *s, unsigned code, const char *enhanced, const char *fmt, ...)
{
	char text[SMTP_REPLY_LINE_MAX];
	va_list ap;

	if (s->server == NULL)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap); /* a long one is cut, as a reply line is */
	va_end(ap);
	smtp_server_answer(s->server,
	    &(struct smtp_answer){ .code = code, .enhanced = enhanced, .text = slice_str(text) });
}

void
session_pass(struct session *s, unsigned code)
{
	if (s->server != NULL)
		smtp_server_answer(
		    s->server, &(struct smtp_answer){ .code = code, .text = SLICE("") });
}

/* ---- the pipeline ------------------------------------------------------------------------- */

static void
on_run_done(struct pipeline_run *run)
{
	struct session_stage *stage = container_of(run, struct session_stage, run);
	struct session *s = stage->session;

	s->running = false;
	if (s->server != NULL)
		stage->judged(s);
	else
		transaction_lost(s);
	session_unwait(s);
}

struct pipeline_run *
session_stage(struct session *s)
{
	if (s->stage == NULL)
		s->stage = calloc(1, sizeof(*s->stage));
	if (s->stage == NULL)
		return NULL;
	s->stage->session = s;
	return &s->stage->run;
}

void
session_rest(struct session *s)
{
	if (s->running || s->tx != NULL)
		return;
	free(s->stage);
	s->stage = NULL;
}

void
session_judge(struct session *s, enum filter_stage stage, void (*judged)(struct session *s))
{
	struct pipeline_run *run = &s->stage->run;

	run->session = s->pipeline;
	run->done = on_run_done;
	s->stage->judged = judged;
	if (pipeline_start(run, stage)) {
		judged(s);
		return;
	}
	s->running = true;
	s->waits++;
}

void
session_refuse(struct session *s)
{
	const struct pipeline_reply *reply = &s->stage->run.reply;

	if (s->server != NULL)
		smtp_server_answer(s->server, &(struct smtp_answer){ .code = reply->code,
						  .enhanced = reply->enhanced,
						  .text = slice_str(reply->text),
						  .help = slice_str(reply->help),
						  .named = true });
}

/* A client refused before it had a message. */
static void
log_refusal(const struct session *s)
{
	char ip[IP_TEXT_BYTES];
	const struct pipeline_run *run = &s->stage->run;
	bool reject = run->answer == PIPELINE_REJECT;

	counter_add(reject ? COUNTER_REJECTED : COUNTER_DEFERRED, 1);
	log_event(reject ? "message.rejected" : "message.deferred", kv_id("session", s->id),
	    kv_str("ip", session_ip(s, ip)), kv_int("code", run->reply.code),
	    kv_str("check", run->check), kv_slice("why", slice_str(run->reply.text)));
}

static void
greet(struct session *s)
{
	const char *greeting = s->gen->listeners[s->listener].greeting;

	if (greeting != NULL && s->server != NULL)
		smtp_server_answer(
		    s->server, &(struct smtp_answer){ .code = 220, .text = slice_str(greeting) });
	else
		session_pass(s, 220);
}

static void
connect_judged(struct session *s)
{
	s->greeted = true;
	if (s->stage->run.answer == PIPELINE_GO_ON) {
		greet(s);
	} else {
		log_refusal(s);
		session_refuse(s);
	}
	session_rest(s);
}

static void
on_connect(void *user)
{
	struct session *s = user;

	if (session_stage(s) == NULL)
		session_answer(s, 421, "4.3.0", "Out of memory");
	else
		session_judge(s, FILTER_CONNECT, connect_judged);
}

static void
helo_judged(struct session *s)
{
	if (s->stage->run.answer == PIPELINE_GO_ON) {
		session_pass(s, 250);
	} else {
		log_refusal(s);
		session_refuse(s);
	}
	session_rest(s);
}

static void
on_helo(void *user, struct slice name, bool extended)
{
	struct session *s = user;

	(void)extended; /* the session knows */
	if (!pipeline_session_helo(s->pipeline, name) || session_stage(s) == NULL)
		session_answer(s, 451, "4.3.0", "Out of memory");
	else
		session_judge(s, FILTER_HELO, helo_judged);
}

#define HEX_FINGERPRINT (7 + 2 * TLS_FINGERPRINT_BYTES + 1)

static const char *
fingerprint_text(const struct tls_info *info, char text[static HEX_FINGERPRINT])
{
	size_t n = 7;

	memcpy(text, "sha256:", n);
	for (size_t i = 0; i < TLS_FINGERPRINT_BYTES; i++, n += 2)
		(void)snprintf(
		    text + n, HEX_FINGERPRINT - n, "%02x", info->client_sha256[i]); /* fits */
	return text;
}

/* By its certificate, which is its own where nobody speaks for it. */
static bool
is_known_certificate(const struct session *s, const struct tls_info *info)
{
	return !s->release && !s->spoken_for && info->client &&
	       config_may_relay(s->gen->cfg, info->client_sha256);
}

static bool
is_of_networks(const struct session *s)
{
	return !s->release && config_in_networks(s->gen->cfg, session_addr(s));
}

/* A client that showed a certificate: it may be one of those that relay through us. */
static void
meet_client(struct session *s, const struct tls_info *info)
{
	char text[HEX_FINGERPRINT];
	bool relay = is_known_certificate(s, info);

	if (relay) {
		s->trusted = true;
		pipeline_session_trust(s->pipeline);
	}
	log_event("tls", kv_id("session", s->id), kv_str("version", info->version),
	    kv_str("cipher", info->cipher), kv_str("client", fingerprint_text(info, text)),
	    kv_str("name", info->client_name), kv_str("verified", info->verified ? "yes" : "no"),
	    kv_str("relay", relay ? "yes" : "no"));
}

/* What the client said before TLS is void (RFC 3207 section 4.2), also who it is. */
static void
forget(struct session *s)
{
	free(s->user);
	free(s->forwarded);
	s->user = NULL;
	s->forwarded = NULL;
	s->trusted = is_of_networks(s);
	(void)pipeline_session_tls(s->pipeline, s->trusted); /* takes no memory */
}

static void
on_tls(void *user, const struct tls_info *info)
{
	struct session *s = user;

	free(s->tls);
	s->tls = calloc(1, sizeof(*s->tls));
	if (s->tls != NULL)
		s->tls->info = *info; /* else Received tells less */
	forget(s);
	if (info->client)
		meet_client(s, info);
	else
		log_event("tls", kv_id("session", s->id), kv_str("version", info->version),
		    kv_str("cipher", info->cipher));
}

/* A PROXY header from an address that the config does not name for it: version 1 is a line with the
 * verb PROXY, version 2 begins with four lines that hold none. */
static bool
is_proxy_header(struct session *s, struct slice verb)
{
	if (pipeline_session_name(s->pipeline).len > 0 || s->release)
		return false;
	if (verb.len > 0)
		return slice_eq(verb, SLICE("PROXY"));
	return ++s->blank == PROXY_V2_BLANKS;
}

static void
refuse_header(struct session *s)
{
	char ip[IP_TEXT_BYTES];

	counter_add(COUNTER_PROXY_REFUSED, 1);
	log_event("limit", kv_id("session", s->id), kv_str("what", "proxy"),
	    kv_str("ip", session_ip(s, ip)), kv_str("listener", listener_name(s)),
	    kv_str("why", "a PROXY header from an address that proxy does not name"));
	if (s->server != NULL)
		smtp_server_shutdown(s->server, SMTP_END_PROXY);
}

static void
on_refused(void *user, struct slice verb, unsigned code, const char *text)
{
	struct session *s = user;
	bool limit = code == 452 || code == 552;

	if (code == 421) { /* the last word; without a command: there was none for too long */
		pipeline_note(s->pipeline, NULL,
		    verb.len == 0                    ? "timeout"
		    : slice_ieq(verb, SLICE("MAIL")) ? "limit"
						     : "command",
		    verb, slice_str(text));
		return;
	}
	if (slice_ieq(verb, SLICE("AUTH")))
		session_auth_over(s);
	if (is_proxy_header(s, verb))
		refuse_header(s);

	counter_add(limit ? COUNTER_LIMIT_HITS : COUNTER_BAD_COMMANDS, 1);
	if (limit)
		log_event("limit", kv_id("session", s->id), kv_str("what", text));
	pipeline_note(s->pipeline, NULL, limit ? "limit" : "command", verb, slice_str(text));
}

/* ---- clients that speak for others ------------------------------------------------------- */

static unsigned
trust_of(const struct session *s)
{
	const struct config_listener *conf = s->gen->listeners[s->listener].conf;
	unsigned trust = 0;

	if (conf == NULL)
		return 0;
	if (cidr_any(conf->xclient, conf->n_xclient, session_addr(s)))
		trust |= SMTP_TRUST_XCLIENT;
	if (cidr_any(conf->xforward, conf->n_xforward, session_addr(s)))
		trust |= SMTP_TRUST_XFORWARD;
	if (conf->convert_line_ends && config_in_networks(s->gen->cfg, session_addr(s)))
		trust |= SMTP_TRUST_LINE_ENDS;
	return trust;
}

static void
lose_user(struct session *s)
{
	char ip[IP_TEXT_BYTES];

	log_event("auth.fail", kv_id("session", s->id), kv_str("ip", session_ip(s, ip)),
	    kv_slice("user", slice_str(s->user)), kv_str("listener", listener_name(s)),
	    kv_str("why", "removed"));
	pipeline_note(s->pipeline, NULL, "login", slice_str(s->user), SLICE("removed"));
}

bool
session_move(struct session *s)
{
	struct generation *old = s->gen;
	const struct user *user;
	bool lost;

	if (old == s->in->gen)
		return true;
	s->gen = generation_ref(s->in->gen);
	user = s->user != NULL ? users_find(s->gen->users, slice_str(s->user)) : NULL;
	lost = s->user != NULL && (user == NULL || users_is_locked(user));
	s->trusted = is_of_networks(s) ||
		     (s->tls != NULL && is_known_certificate(s, &s->tls->info)) ||
		     (!lost && user != NULL && user->relay);
	pipeline_session_move(s->pipeline, s->gen->pipeline, s->trusted);
	smtp_session_serve(smtp_server_session(s->server), &s->gen->listeners[s->listener].service);
	if (!s->spoken_for) /* else the address is not that of who speaks */
		smtp_session_trust(smtp_server_session(s->server), trust_of(s));
	smtp_server_certify(s->server, s->gen->tls); /* what the service offers must be there */
	generation_unref(old);
	if (lost)
		lose_user(s);
	return !lost;
}

static struct pipeline_session *pipeline_of(struct session *s);

/* All that was known rested on the old address: another pipeline session, from the connect stage
 * on. */
static bool
become(struct session *s, const struct smtp_origin *origin)
{
	struct pipeline_session *pipeline;

	if (origin->given & SMTP_ORIGIN_ADDR) {
		memcpy(s->addr, origin->addr, origin->addr_len);
		s->addr_len = (uint8_t)origin->addr_len;
	}
	s->spoken_for = true;
	s->trusted = is_of_networks(s);
	pipeline = pipeline_of(s);
	if (pipeline == NULL)
		return false;
	session_auth_over(s); /* nothing waits: XCLIENT is a command of its own */
	pipeline_session_free(s->pipeline);
	s->pipeline = pipeline;
	free(s->user);
	free(s->forwarded);
	s->user = NULL;
	s->forwarded = NULL;
	s->early = EARLY_UNTESTED; /* how well its proxy listens says nothing */
	return true;
}

static void
on_xclient(void *user, const struct smtp_origin *origin)
{
	struct session *s = user;
	char ip[IP_TEXT_BYTES], via[IP_TEXT_BYTES];

	(void)session_ip(s, via);
	if (!become(s, origin)) {
		session_answer(s, 421, "4.3.0", "Out of memory");
		return;
	}
	log_event("connect", kv_id("session", s->id), kv_str("ip", session_ip(s, ip)),
	    kv_str("listener", listener_name(s)), kv_str("via", via),
	    origin->name.len > 0 ? kv_slice("name", origin->name) : (struct kv){ .type = KV_NONE });
	on_connect(s);
}

static void
on_xforward(void *user, const struct smtp_origin *origin)
{
	struct session *s = user;
	struct session_forwarded *f = s->forwarded;

	if (f == NULL)
		f = s->forwarded = calloc(1, sizeof(*f));
	if (f == NULL)
		return; /* the log tells less */
	if (origin->given & SMTP_ORIGIN_ADDR) {
		memcpy(f->addr, origin->addr, origin->addr_len);
		f->addr_len = origin->addr_len;
	}
	if (origin->given & SMTP_ORIGIN_HELO) {
		struct slice helo = slice_head(origin->helo, SMTP_HELO_MAX);

		memcpy(f->helo, helo.p, helo.len);
		f->helo[helo.len] = '\0';
	}
}

/* ---- beginning and end ----------------------------------------------------------------------- */

static void
free_session(struct session *s)
{
	pipeline_session_free(s->pipeline);
	intake_traced(s->in);
	sasl_free(s->sasl);
	free(s->tls);
	free(s->forwarded);
	free(s->stage);
	free(s->user);
	generation_unref(s->gen);
	intake_left(s->in, s);
	free(s);
}

void
session_unwait(struct session *s)
{
	if (--s->waits == 0)
		free_session(s);
}

static void
on_closed(void *user, const struct err *why)
{
	struct session *s = user;
	char ip[IP_TEXT_BYTES];

	s->server = NULL;
	if (s->counted)
		shared_leave(s->in->role->shared, s->in->role->index, &s->client);
	log_event("disconnect", kv_id("session", s->id), kv_str("ip", session_ip(s, ip)),
	    kv_int("messages", s->messages),
	    why->code == ERR_NONE ? (struct kv){ .type = KV_NONE }
				  : kv_str("why", err_code_name(why->code)));
	if (why->code == ERR_TLS && s->tls == NULL) /* no handshake */
		pipeline_note(s->pipeline, NULL, "tls", SLICE(""), slice_str(why->msg));
	if (s->running)
		pipeline_cancel(&s->stage->run);
	session_login_lost(s);
	transaction_lost(s);
	session_unwait(s);
}

static const struct smtp_server_ops ops = {
	.session = {
		.on_connect = on_connect,
		.on_helo = on_helo,
		.on_mail = on_mail,
		.on_rcpt = on_rcpt,
		.on_data = on_data,
		.on_bytes = on_bytes,
		.on_body = on_body,
		.on_reset = on_reset,
		.on_offer = on_offer,
		.on_auth = on_auth,
		.on_refused = on_refused,
		.on_limit = on_limit,
		.on_xclient = on_xclient,
		.on_xforward = on_xforward,
	},
	.on_tls = on_tls,
	.on_closed = on_closed,
};

/* Says one line to a client that gets no session, if the socket takes it, and hangs up. */
static void
turn_away(const struct session *s, int fd, unsigned code, const char *text)
{
	char storage[2 * SMTP_REPLY_LINE_MAX], id[ID_TEXT_LEN + 1];
	struct buf line = buf_over(storage, sizeof(storage));
	struct smtp_answer answer = {
		.code = code,
		.enhanced = code == 421 ? "4.7.0" : "5.7.1",
		.text = slice_str(text),
		.help = slice_str(s->gen->cfg->help),
	};

	id_text(s->id, id);
	smtp_reply_put(&line, &answer, slice_str(id));
	if (!s->gen->listeners[s->listener].implicit)
		(void)!write(fd, line.p, line.len); /* it is on its way out anyway */
	(void)close(fd);                            /* the same */
}

/* Those of this host, over a unix socket, have no address to tell them apart. */
static enum shared_answer
join(struct session *s)
{
	const struct generation_listener *l = &s->gen->listeners[s->listener];
	struct intake *in = s->in;
	const uint8_t *key = in->role->shared->hash_key;
	enum shared_answer answer;

	if (s->release)
		return in->n_release <= INTAKE_RELEASE_OPEN_MAX ? SHARED_IN : SHARED_FULL;
	s->client = (struct shared_client){ .listener = l->shared,
		.ip = shared_ip(key, session_addr(s), l->apart),
		.net = shared_net(key, session_addr(s), l->nets_apart) };
	answer = shared_join(in->role->shared, in->role->index, &s->client, &l->limits);
	s->counted = answer == SHARED_IN;
	return answer;
}

/* For relayctl trace --ip; a flood leaves INTAKE_REFUSALS_TRACED of them a second. */
static void
trace_refusal(struct session *s, const char *what, const char *text)
{
	char note[SMTP_REPLY_LINE_MAX];

	if (s->release || !intake_may(&s->in->refusals, INTAKE_REFUSALS_TRACED))
		return;
	s->pipeline = pipeline_of(s);
	(void)snprintf(note, sizeof(note), "421 4.7.0 %s", text); /* short */
	if (s->pipeline != NULL)
		pipeline_note(s->pipeline, NULL, "limit", slice_str(what), slice_str(note));
}

static void
refuse_connection(struct session *s, int fd, enum shared_answer answer)
{
	static const struct {
		const char *what, *text;
	} limits[] = {
		[SHARED_IN] = { "draining", "Too many connections; try again later" },
		[SHARED_FULL] = { "connections", "Too many connections; try again later" },
		[SHARED_LISTENER_FULL] = { "listener-connections",
		    "Too many connections here; try again later" },
		[SHARED_IP_FULL] = { "connections-per-ip",
		    "Too many connections from your address; try again later" },
		[SHARED_NET_FULL] = { "connections-per-net",
		    "Too many connections from your network; try again later" },
	};
	const char *what = s->release ? "releases" : limits[answer].what;
	char ip[IP_TEXT_BYTES];

	counter_add(COUNTER_SESSIONS_REFUSED, 1);
	counter_add(COUNTER_LIMIT_HITS, 1);
	log_event("limit", kv_str("what", what), kv_id("session", s->id),
	    kv_str("ip", session_ip(s, ip)), kv_str("listener", listener_name(s)));
	trace_refusal(s, what, limits[answer].text);
	turn_away(s, fd, 421, limits[answer].text);
	session_unwait(s);
}

/* Only our own review role may hand mail in without a check. */
static bool
is_review(const struct intake *in, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return false;
	if (peer.uid == in->role->review_uid)
		return true;
	log_event("auth.fail", kv_str("listener", "release"), kv_int("uid", peer.uid),
	    kv_str("why", "peer-uid"));
	return false;
}

static struct pipeline_session *
pipeline_of(struct session *s)
{
	struct pipeline_client client = {
		.id = s->id,
		.addr = session_addr(s),
		.listener = listener_name(s),
		.auth_required = s->gen->listeners[s->listener].submission,
		.trusted = s->trusted,
		.release = s->release,
		.owner = s,
	};

	return pipeline_session_new(s->gen->pipeline, s->in->facts, s->in->trace, &client);
}

static bool
start(struct session *s, int fd, struct slice via)
{
	const struct generation_listener *l = &s->gen->listeners[s->listener];
	struct smtp_server_setup setup = {
		.loop = s->in->role->loop,
		.fd = fd,
		.ops = &ops,
		.user = s,
		.service = &l->service,
		.id = s->id,
		.tls = s->gen->tls,
		.implicit = l->implicit,
	};
	struct err err = { 0 };
	char ip[IP_TEXT_BYTES], proxy[IP_TEXT_BYTES];

	s->pipeline = pipeline_of(s);
	s->server = smtp_server_open(&setup, &err); /* closes fd when it fails */
	if (s->server == NULL || s->pipeline == NULL) {
		log_event("limit", kv_str("what", "memory"), kv_err("why", &err));
		return false;
	}
	smtp_session_trust(smtp_server_session(s->server), trust_of(s));
	ip_text(via, proxy);
	log_event("connect", kv_id("session", s->id), kv_str("ip", session_ip(s, ip)),
	    kv_str("listener", listener_name(s)),
	    via.len > 0 ? kv_str("proxy", proxy) : (struct kv){ .type = KV_NONE });
	return true;
}

static void
begin(struct session *s, int fd, struct slice via)
{
	if (start(s, fd, via))
		smtp_server_start(s->server);
	else if (s->server != NULL)
		smtp_server_close(s->server); /* on_closed() sees to the rest */
	else
		on_closed(s, &(struct err){ .code = ERR_NOMEM });
}

/* A connection over a limit, for a moment. */
struct late {
	struct session *session;
	struct late *next;
	int fd;
	uint8_t via[16], via_len;
};

/* A client that is over its limit may have hung up a moment ago, which we did not see yet. */
static void
begin_late(struct session *s, int fd, struct slice via, enum shared_answer answer)
{
	struct intake *in = s->in;
	bool full = in->n_late >= INTAKE_LATE_MAX || in->draining;
	struct late *late = full ? NULL : malloc(sizeof(*late));

	if (late == NULL) {
		refuse_connection(s, fd, answer);
		return;
	}
	*late = (struct late){ .session = s, .next = in->late, .fd = fd };
	memcpy(late->via, via.p, via.len);
	late->via_len = (uint8_t)via.len;
	in->late = late;
	in->n_late++;
	intake_late(in);
}

void
session_try_late(struct intake *in)
{
	struct late *late = in->late, *next;

	in->late = NULL;
	in->n_late = 0;
	for (; late != NULL; late = next) {
		struct session *s = late->session;
		enum shared_answer answer = in->draining ? SHARED_IN : join(s);

		next = late->next;
		if (!in->draining && answer == SHARED_IN)
			begin(s, late->fd, slice_of(late->via, late->via_len));
		else
			refuse_connection(s, late->fd, answer);
		free(late);
	}
}

static struct session *
new_session(struct entrance *at, struct slice addr)
{
	struct intake *in = at->in;
	struct session *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->in = in;
	s->gen = generation_ref(in->gen);
	s->listener = (uint16_t)at->index; /* there are few */
	s->id = id_new();
	s->waits = 1; /* for the connection */
	memcpy(s->addr, addr.p, addr.len);
	s->addr_len = (uint8_t)addr.len;
	s->release = in->role->listeners[at->index].kind == ROLE_LISTENER_RELEASE;
	s->trusted = is_of_networks(s);
	intake_joined(in, s);
	return s;
}

static void
begin_or_wait(struct session *s, int fd, struct slice via)
{
	enum shared_answer answer = join(s);

	if (answer == SHARED_IN)
		begin(s, fd, via);
	else
		begin_late(s, fd, via, answer);
}

/* Where all mail seems to come from one machine, what rests on addresses is void, and the admin
 * should hear of it. */
static void
look_at_crowd(const struct session *s)
{
	struct intake *in = s->in;
	char ip[IP_TEXT_BYTES];

	if (s->release || s->gen->listeners[s->listener].submission ||
	    !crowd_is_one(&in->crowd, session_addr(s), uv_now(in->role->loop)))
		return;
	counter_add(COUNTER_LIMIT_HITS, 1);
	log_event("limit", kv_str("what", "one-client"), kv_str("ip", session_ip(s, ip)),
	    kv_str("why",
		s->trusted
		    ? "all clients come from this one private address, and networks lets it relay: "
		      "behind NAT or a proxy this is an open relay; see proxy in relayd.conf(5)"
		    : "all clients come from this one private address: behind NAT or a proxy, SPF, "
		      "DNSBL and limits by address see no client; see proxy in relayd.conf(5)"));
}

void
session_open(struct entrance *at, int fd, const struct sockaddr *peer, struct slice via)
{
	uint8_t storage[16];
	struct session *s = new_session(at, ip_of(peer, storage));

	if (s == NULL) {
		(void)close(fd); /* no memory to say more */
		return;
	}
	look_at_crowd(s);
	if (s->release && !is_review(s->in, fd)) {
		turn_away(s, fd, 554, "This socket is for the review role");
		session_unwait(s);
	} else {
		begin_or_wait(s, fd, via);
	}
}

void
session_refuse_proxy(struct entrance *at, int fd, const struct sockaddr *peer, const char *why)
{
	uint8_t storage[16];
	struct session *s = new_session(at, ip_of(peer, storage));
	char ip[IP_TEXT_BYTES], unread[PROXY_HEADER_MAX];

	if (s == NULL) {
		(void)close(fd); /* no memory to say more */
		return;
	}
	counter_add(COUNTER_PROXY_REFUSED, 1);
	log_event("limit", kv_id("session", s->id), kv_str("what", "proxy"),
	    kv_str("ip", session_ip(s, ip)), kv_str("listener", listener_name(s)),
	    kv_str("why", why));
	s->pipeline = pipeline_of(s);
	if (s->pipeline != NULL) /* else the trace knows nothing of it */
		pipeline_note(s->pipeline, NULL, "proxy", SLICE(""), slice_str(why));
	/* Closing with unread input resets the connection, and our line would be lost. */
	(void)!recv(fd, unread, sizeof(unread), MSG_DONTWAIT);
	turn_away(s, fd, 421, "A PROXY header has to come first from your address");
	session_unwait(s);
}

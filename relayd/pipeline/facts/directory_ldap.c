/* relayd/pipeline/facts/directory_ldap.c - a connection to an LDAP server (RFC 4511). */
#include "relayd/pipeline/facts/directory_ldap.h"

#include "relayd/core/clock.h"

#include <lber.h>
#include <ldap.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define AUTHORITIES "/etc/ssl/certs/ca-certificates.crt"

struct directory_ldap {
	const struct config_ldap *conf;
	struct slice password;
	char authorities[64]; /* path */
	int authorities_fd;   /* that it names, or -1 */
	LDAP *ld;             /* NULL: not connected */
	const char *uri;      /* of what was tried last, in conf */
	/* it failed, in the words of the library below; or "" */
	char why[DIRECTORY_SAID_BYTES / 2];
};

static struct timeval
timeval_of(int64_t ms)
{
	return (struct timeval){ .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
}

static void
disconnect(struct directory_ldap *l)
{
	if (l->ld != NULL)
		(void)ldap_unbind_ext_s(l->ld, NULL, NULL); /* frees it in any case */
	l->ld = NULL;
}

/* libldap says "Can't contact LDAP server" for most, and what TLS had against it only to its debug
 * log: so that is listened to, by the thread that asks. */
static _Thread_local struct directory_ldap *listening;

static void
on_words(const char *text)
{
	struct directory_ldap *l = listening;

	if (l != NULL && l->why[0] == '\0') /* the first says most */
		(void)snprintf(l->why, sizeof(l->why), "%.*s", (int)strcspn(text, "\n"), text);
}

static void
listen_to_library(void)
{
	int level = 0x8000; /* "none": what is said on any level, and nothing besides */

	/* Without these an error is told in fewer words. */
	(void)ldap_set_option(NULL, LDAP_OPT_DEBUG_LEVEL, &level);
	(void)ber_set_option(NULL, LBER_OPT_LOG_PRINT_FN, (const void *)on_words);
}

/* None of these fails for a fresh handle but TLS, which then fails when it is used. */
static void
set_options(const struct directory_ldap *l)
{
	struct timeval tv = timeval_of(l->conf->timeout_ms);
	int version = LDAP_VERSION3, fresh = 0, must = LDAP_OPT_X_TLS_HARD;
	int oldest = LDAP_OPT_X_TLS_PROTOCOL_TLS1_2;

	(void)ldap_set_option(l->ld, LDAP_OPT_PROTOCOL_VERSION, &version);
	(void)ldap_set_option(l->ld, LDAP_OPT_NETWORK_TIMEOUT, &tv);
	(void)ldap_set_option(l->ld, LDAP_OPT_TIMEOUT, &tv);
	(void)ldap_set_option(l->ld, LDAP_OPT_REFERRALS, LDAP_OPT_OFF);
	/* ldap.conf is out of a role's reach, and the environment has no say in who is trusted. */
	(void)ldap_set_option(l->ld, LDAP_OPT_X_TLS_CACERTFILE, l->authorities);
	(void)ldap_set_option(l->ld, LDAP_OPT_X_TLS_REQUIRE_CERT, &must);
	(void)ldap_set_option(l->ld, LDAP_OPT_X_TLS_PROTOCOL_MIN, &oldest);
	(void)ldap_set_option(l->ld, LDAP_OPT_X_TLS_NEWCTX, &fresh);
}

static int
bind_as(const struct directory_ldap *l)
{
	struct berval secret = {
		.bv_len = l->password.len,
		.bv_val = (char *)(uintptr_t)l->password.p, /* only read */
	};

	if (l->conf->bind == NULL)
		return LDAP_SUCCESS; /* anonymous without asking (RFC 4513 section 5.1) */
	return ldap_sasl_bind_s(l->ld, l->conf->bind, LDAP_SASL_SIMPLE, &secret, NULL, NULL, NULL);
}

static int
open_uri(struct directory_ldap *l, const char *uri)
{
	int rc = ldap_initialize(&l->ld, uri);

	l->uri = uri;
	if (rc != LDAP_SUCCESS) {
		l->ld = NULL;
		return rc;
	}
	set_options(l);
	if (l->conf->starttls)
		rc = ldap_start_tls_s(l->ld, NULL, NULL);
	/* Only the first thing asked connects: so that the next server is tried in time. */
	if (rc == LDAP_SUCCESS)
		rc = l->conf->bind != NULL ? bind_as(l) : ldap_connect(l->ld);
	if (rc != LDAP_SUCCESS)
		disconnect(l);
	return rc;
}

static int
connect_any(struct directory_ldap *l)
{
	int rc = LDAP_SERVER_DOWN;

	for (size_t i = 0; l->ld == NULL && i < l->conf->uri.n; i++)
		rc = open_uri(l, l->conf->uri.v[i]);
	return l->ld != NULL ? LDAP_SUCCESS : rc;
}

/* ---- searches ------------------------------------------------------------------------------ */

static int
start(struct directory_ldap *l, struct directory_search *s)
{
	static char none[] = LDAP_NO_ATTRS;
	char *attributes[] = { none, NULL };
	struct timeval tv = timeval_of(l->conf->timeout_ms);

	s->found = false;
	return ldap_search_ext(l->ld, l->conf->base, LDAP_SCOPE_SUBTREE, s->filter, attributes, 0,
	    NULL, NULL, &tv, 1, &s->id);
}

static void
finish(struct directory_ldap *l, struct directory_search *s, LDAPMessage *msg,
    char said[static DIRECTORY_SAID_BYTES])
{
	int code = LDAP_OTHER;

	if (ldap_parse_result(l->ld, msg, &code, NULL, NULL, NULL, NULL, 0) != LDAP_SUCCESS)
		code = LDAP_OTHER;
	s->answered = true;
	/* More than one entry fits: LDAP_SIZELIMIT_EXCEEDED, behind the first. */
	if (s->found)
		s->outcome = DIRECTORY_KNOWN;
	else if (code == LDAP_SUCCESS)
		s->outcome = DIRECTORY_UNKNOWN;
	else
		(void)snprintf(said, DIRECTORY_SAID_BYTES, "search: %s", ldap_err2string(code));
}

static void
take(struct directory_ldap *l, struct directory_search *searches, size_t n, LDAPMessage *msg,
    char said[static DIRECTORY_SAID_BYTES])
{
	int id = ldap_msgid(msg), type = ldap_msgtype(msg);

	for (size_t i = 0; i < n; i++) {
		if (searches[i].answered || searches[i].id != id)
			continue;
		if (type == LDAP_RES_SEARCH_ENTRY)
			searches[i].found = true;
		else if (type == LDAP_RES_SEARCH_RESULT)
			finish(l, &searches[i], msg, said);
	}
}

static bool
all_answered(const struct directory_search *searches, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!searches[i].answered)
			return false;
	return true;
}

/* Once over the connection; what is not answered then may be tried over another. */
static int
try_all(struct directory_ldap *l, struct directory_search *searches, size_t n,
    char said[static DIRECTORY_SAID_BYTES])
{
	int64_t deadline = clock_mono_ms() + l->conf->timeout_ms;
	int rc = LDAP_SUCCESS;

	for (size_t i = 0; i < n && rc == LDAP_SUCCESS; i++)
		if (!searches[i].answered)
			rc = start(l, &searches[i]);
	if (rc == LDAP_FILTER_ERROR)
		return rc;
	while (rc == LDAP_SUCCESS && !all_answered(searches, n)) {
		int64_t left = deadline - clock_mono_ms();
		struct timeval tv = timeval_of(left > 0 ? left : 0);
		LDAPMessage *msg = NULL;
		int type = ldap_result(l->ld, LDAP_RES_ANY, LDAP_MSG_ONE, &tv, &msg);

		if (type > 0)
			take(l, searches, n, msg, said);
		else
			rc = type == 0 ? LDAP_TIMEOUT : LDAP_SERVER_DOWN;
		if (msg != NULL)
			(void)ldap_msgfree(msg); /* its type again */
	}
	return rc;
}

static void
run(struct directory_ldap *l, struct directory_search *searches, size_t n,
    char said[static DIRECTORY_SAID_BYTES])
{
	bool reused = l->ld != NULL;
	int rc;

	said[0] = l->why[0] = '\0';
	for (size_t i = 0; i < n; i++) {
		searches[i].answered = false;
		searches[i].outcome = DIRECTORY_UNREACHABLE;
	}
	rc = connect_any(l);
	if (rc == LDAP_SUCCESS)
		rc = try_all(l, searches, n, said);
	/* An idle connection that the server has closed meanwhile is no trouble. */
	if (rc == LDAP_SERVER_DOWN && reused) {
		disconnect(l);
		rc = connect_any(l);
		if (rc == LDAP_SUCCESS)
			rc = try_all(l, searches, n, said);
	}
	if (rc == LDAP_SUCCESS)
		return;
	disconnect(l); /* late answers must not meet other questions */
	(void)snprintf(said, DIRECTORY_SAID_BYTES, "%s: %s%s%s", l->uri, ldap_err2string(rc),
	    l->why[0] != '\0' ? ": " : "", l->why); /* a long one is cut */
}

void
directory_ldap_run(struct directory_ldap *l, struct directory_search *searches, size_t n,
    char said[static DIRECTORY_SAID_BYTES])
{
	listening = l;
	run(l, searches, n, said);
	listening = NULL;
}

/* libldap takes authorities by a path only, and reads it when a connection is made: what is in the
 * config's memory gets one.  Without it nobody is trusted. */
static void
set_authorities(struct directory_ldap *l, struct slice pem)
{
	const char *system = secure_getenv("SSL_CERT_FILE");

	l->authorities_fd = -1;
	if (l->conf->ca == NULL) {
		(void)snprintf(l->authorities, sizeof(l->authorities), "%s",
		    system != NULL && strlen(system) < sizeof(l->authorities) ? system
									      : AUTHORITIES);
		return;
	}
	l->authorities_fd = memfd_create("relayd-ldap-ca", MFD_CLOEXEC);
	if (l->authorities_fd >= 0 &&
	    write(l->authorities_fd, pem.p, pem.len) != (ssize_t)pem.len) {
		(void)close(l->authorities_fd); /* of no use */
		l->authorities_fd = -1;
	}
	(void)snprintf(l->authorities, sizeof(l->authorities), "/proc/self/fd/%d",
	    l->authorities_fd); /* fits */
}

struct directory_ldap *
directory_ldap_new(const struct config_ldap *conf, struct slice password, struct slice authorities)
{
	static uv_once_t once = UV_ONCE_INIT;
	struct directory_ldap *l = calloc(1, sizeof(*l));

	if (l == NULL)
		return NULL;
	uv_once(&once, listen_to_library);
	l->conf = conf;
	l->password = password;
	set_authorities(l, authorities);
	return l;
}

void
directory_ldap_free(struct directory_ldap *l)
{
	if (l == NULL)
		return;
	disconnect(l);
	if (l->authorities_fd >= 0)
		(void)close(l->authorities_fd); /* memory */
	free(l);
}

/* relayd/net/tls_resume.c - sessions that a client may resume (RFC 8446 section 2.2, RFC 5077).
 *
 * A session is kept under all that it was agreed on with: how the peer was verified, by which name,
 * and at which address; it is never offered to anybody else.  The newest is, and again until there
 * is a newer one: RFC 8446 appendix C.4 would have it used once, so that nobody on the way can tell
 * that two connections are of one client, but with mail servers their addresses tell.  How the peer
 * was verified is not looked at again while sessions follow from one another, so that this ends
 * TLS_RESUME_S after the handshake that did it.
 */
#include "relayd/core/clock.h"
#include "relayd/net/tls_internal.h"

#include <stdio.h>
#include <stdlib.h>

struct kept {
	char *key;
	SSL_SESSION *session;
	int64_t born_ms; /* when the peer was verified */
	uint64_t turn;   /* when it was kept: a larger one is newer */
};

struct sessions {
	struct kept v[TLS_RESUME_MAX];
	size_t n;
	uint64_t turns;
};

static int ctx_index = -1, ssl_index = -1;

static void
drop(struct sessions *all, size_t i)
{
	free(all->v[i].key);
	SSL_SESSION_free(all->v[i].session);
	all->v[i] = all->v[--all->n];
}

static void
free_sessions(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long argl, void *argp)
{
	struct sessions *all = ptr;

	(void)parent, (void)ad, (void)idx, (void)argl, (void)argp;
	while (all != NULL && all->n > 0)
		drop(all, all->n - 1);
	free(all);
}

static void
free_out(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long argl, void *argp)
{
	struct tls_out *out = ptr;

	(void)parent, (void)ad, (void)idx, (void)argl, (void)argp;
	if (out != NULL)
		SSL_SESSION_free(out->offered);
	free(out);
}

static struct sessions *
sessions_of(const SSL *ssl)
{
	return SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), ctx_index);
}

struct tls_out *
tls_out_of(const SSL *ssl)
{
	return ssl_index >= 0 ? SSL_get_ex_data(ssl, ssl_index) : NULL;
}

/* Room for one more under key: the oldest of those that have it, or of all, goes. */
static void
make_room(struct sessions *all, const char *key)
{
	size_t same = 0, oldest_same = 0, oldest = 0;

	for (size_t i = 0; i < all->n; i++) {
		if (all->v[i].turn < all->v[oldest].turn)
			oldest = i;
		if (strcmp(all->v[i].key, key) != 0)
			continue;
		if (same++ == 0 || all->v[i].turn < all->v[oldest_same].turn)
			oldest_same = i;
	}
	if (same >= TLS_RESUME_EACH)
		drop(all, oldest_same);
	else if (all->n == TLS_RESUME_MAX)
		drop(all, oldest);
}

/* A copy: OpenSSL spoils its own when the connection ends without a word, which says nothing about
 * the session any more (RFC 5246 section 7.2.1), and one of TLS 1.3 when it is used. */
static void
keep(SSL *ssl, const SSL_SESSION *session)
{
	struct sessions *all = sessions_of(ssl);
	const struct tls_out *out = tls_out_of(ssl);
	SSL_SESSION *copy;
	char *key;

	if (out == NULL || out->key[0] == '\0' || SSL_SESSION_is_resumable(session) != 1)
		return;
	copy = SSL_SESSION_dup(session);
	key = strdup(out->key);
	if (copy == NULL || key == NULL) {
		SSL_SESSION_free(copy);
		free(key);
		return;
	}
	make_room(all, key);
	all->v[all->n++] = (struct kept){ key, copy, out->born_ms, ++all->turns };
}

/* Of TLS 1.3: tickets come when they come, after the handshake. */
static int
on_session(SSL *ssl, SSL_SESSION *session)
{
	keep(ssl, session);
	return 0; /* it is not taken over */
}

int
tls_resume_init(SSL_CTX *ctx, struct err *err)
{
	struct sessions *all = calloc(1, sizeof(*all));

	if (ctx_index < 0)
		ctx_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_sessions);
	if (ssl_index < 0)
		ssl_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, free_out);
	if (all == NULL || ctx_index < 0 || ssl_index < 0 ||
	    SSL_CTX_set_ex_data(ctx, ctx_index, all) != 1) {
		free(all);
		return err_set(err, ERR_NOMEM, "no memory for TLS sessions");
	}
	(void)SSL_CTX_set_session_cache_mode(
	    ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL); /* returns the old mode */
	SSL_CTX_sess_set_new_cb(ctx, on_session);
	return 0;
}

/* The newest under key, taken out until it has shown to be good; NULL: none. */
static SSL_SESSION *
take(struct sessions *all, const char *key, int64_t now_ms, int64_t *born_ms)
{
	SSL_SESSION *session;
	size_t best = TLS_RESUME_MAX;

	for (size_t i = all->n; i-- > 0;) {
		if (strcmp(all->v[i].key, key) != 0)
			continue;
		if (now_ms - all->v[i].born_ms >= TLS_RESUME_S * 1000) {
			drop(all, i); /* the last one comes here, which was looked at */
			if (best == all->n)
				best = i;
			continue;
		}
		if (best == TLS_RESUME_MAX || all->v[i].turn > all->v[best].turn)
			best = i;
	}
	if (best == TLS_RESUME_MAX)
		return NULL;
	session = all->v[best].session;
	*born_ms = all->v[best].born_ms;
	(void)SSL_SESSION_up_ref(session); /* cannot fail on a live one */
	drop(all, best);
	return session;
}

int
tls_resume_start(SSL *ssl, enum tls_verify verify, const char *host, const char *where)
{
	struct tls_out *out = calloc(1, sizeof(*out));
	SSL_SESSION *copy;
	int n;

	if (out == NULL || SSL_set_ex_data(ssl, ssl_index, out) != 1) {
		free(out);
		return -1;
	}
	out->born_ms = clock_mono_ms();
	n = snprintf(
	    out->key, sizeof(out->key), "%d %s %s", (int)verify, host != NULL ? host : "", where);
	if (where[0] == '\0' || n >= (int)sizeof(out->key)) {
		out->key[0] = '\0'; /* nothing is kept of it */
		return 0;
	}
	out->offered = take(sessions_of(ssl), out->key, out->born_ms, &out->resumes_ms);
	copy = out->offered != NULL ? SSL_SESSION_dup(out->offered) : NULL; /* it spoils this one */
	if (copy != NULL)
		(void)SSL_set_session(ssl, copy); /* else the handshake is a full one */
	SSL_SESSION_free(copy);
	return 0;
}

void
tls_resume_done(SSL *ssl)
{
	struct tls_out *out = tls_out_of(ssl);

	if (out == NULL || SSL_session_reused(ssl) != 1)
		return;
	out->born_ms = out->resumes_ms;
	keep(ssl, out->offered); /* it was good, and is until the peer sends another one */
}

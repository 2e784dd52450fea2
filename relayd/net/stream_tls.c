/* relayd/net/stream_tls.c - TLS between a stream's socket and its owner.
 *
 * OpenSSL reads from the bytes that just came and writes to a queue of the stream: there is no
 * socket and no buffer between, so that an idle session holds little more than its keys.
 */
#include "relayd/core/counters.h"
#include "relayd/net/sockaddr.h"
#include "relayd/net/stream_internal.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdlib.h>

#define RECORD_BYTES   (16u << 10)  /* RFC 8446 section 5.1 */
#define WIRE_BYTES     (128u << 10) /* encrypted ahead of the socket */
#define WIRE_BYTES_MAX (1u << 20)   /* with what was written before the handshake */
#define NO_DATA_MAX    64           /* records of a peer after the handshake that hold no data */

struct stream_tls {
	SSL *ssl;
	struct slice in;  /* cipher text that OpenSSL has not read; empty between two reads */
	struct outq wire; /* cipher text to send */
	bool done;        /* the handshake */
	bool bye;         /* our close_notify is in wire */
	/* records after the handshake that hold none: NO_DATA_MAX + 1 are too many */
	uint8_t no_data;
};

/* ---- OpenSSL's view of the stream ----------------------------------------------------------- */

static int
bio_read(BIO *bio, char *p, int n)
{
	struct stream_tls *tls = BIO_get_data(bio);
	struct slice got = slice_head(tls->in, (size_t)n);

	BIO_clear_retry_flags(bio);
	if (got.len == 0 || tls->no_data > NO_DATA_MAX) {
		BIO_set_retry_read(bio);
		return -1;
	}
	memcpy(p, got.p, got.len);
	tls->in = slice_drop(tls->in, got.len);
	return (int)got.len;
}

static int
bio_write(BIO *bio, const char *p, int n)
{
	struct stream_tls *tls = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	buf_put(&tls->wire.bytes, slice_of(p, (size_t)n));
	return tls->wire.bytes.overflow ? -1 : n;
}

static long
bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
	(void)bio;
	(void)num;
	(void)ptr;
	return cmd == BIO_CTRL_FLUSH ? 1 : 0; /* flushing is the stream's */
}

static BIO_METHOD *bio_method;

static void
make_bio_method(void)
{
	bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stream");
	if (bio_method == NULL || BIO_meth_set_read(bio_method, bio_read) != 1 ||
	    BIO_meth_set_write(bio_method, bio_write) != 1 ||
	    BIO_meth_set_ctrl(bio_method, bio_ctrl) != 1)
		abort(); /* out of memory before the first session */
}

/* Tickets, new keys and alerts are few.  A peer that sends nothing but a request for new keys costs
 * far more than it spends, and has an answer to each, which it need not fetch. */
static void
on_record(int sent, int version, int what, const void *p, size_t len, SSL *ssl, void *arg)
{
	struct stream_tls *tls = arg;
	bool outer = what == SSL3_RT_HEADER, inner = what == SSL3_RT_INNER_CONTENT_TYPE;

	(void)version;
	(void)ssl;
	/* TLS 1.3 calls every record one of data, until it is decrypted (RFC 8446 section 5.2). */
	if (!sent && tls->done && (outer || inner) && len > 0 &&
	    *(const uint8_t *)p != SSL3_RT_APPLICATION_DATA && tls->no_data <= NO_DATA_MAX)
		tls->no_data++;
}

static BIO *
bio_new(struct stream_tls *tls)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	BIO *bio;

	(void)pthread_once(&once, make_bio_method); /* cannot fail */
	bio = BIO_new(bio_method);
	if (bio != NULL) {
		BIO_set_data(bio, tls);
		BIO_set_init(bio, 1);
	}
	return bio;
}

/* ---- the beginning -------------------------------------------------------------------------- */

/* From here on nothing that was read in plain text counts, and what was written goes first. */
static void
take_over(struct stream *s, struct stream_tls *tls)
{
	outq_init(&tls->wire, STREAM_OUT_BYTES);
	if (s->busy != NULL) {
		tls->wire = s->busy->out;
		outq_init(&s->busy->out, STREAM_OUT_BYTES);
	}
	tls->wire.bytes.max += WIRE_BYTES_MAX;
	stream_keep_none(s);
	s->tls = tls;
	stream_dirty(s);
}

/* A server of TLS 1.3 has nothing more to say when the client's Finished is there, but for a
 * ticket. No client waits for that: it goes out with what we write next (RFC 8446 section
 * 4.6.1). */
static bool
only_ticket_left(const SSL *ssl)
{
	return SSL_is_server(ssl) == 1 && SSL_version(ssl) >= TLS1_3_VERSION;
}

static void
handshake(struct stream *s)
{
	struct stream_tls *tls = s->tls;
	struct err err = { 0 };
	int rc;

	ERR_clear_error();
	rc = SSL_do_handshake(tls->ssl);
	if (rc != 1 || !only_ticket_left(tls->ssl))
		stream_dirty(s);
	if (rc == 1) {
		tls->done = true;
		tls_connected(tls->ssl);
		counter_add(COUNTER_TLS_HANDSHAKES, 1);
		if (s->ops->on_tls != NULL)
			s->ops->on_tls(s, s->owner);
		return;
	}
	rc = SSL_get_error(tls->ssl, rc);
	if (rc == SSL_ERROR_WANT_READ || rc == SSL_ERROR_WANT_WRITE)
		return;
	counter_add(COUNTER_TLS_FAILURES, 1);
	tls_error(&err, tls->ssl, "TLS handshake");
	stream_flush(s); /* the alert that says why */
	stream_fail(s, &err);
}

static int
start(struct stream *s, SSL *ssl, struct err *err)
{
	struct stream_tls *tls = calloc(1, sizeof(*tls));
	BIO *bio = tls != NULL && ssl != NULL ? bio_new(tls) : NULL;
	int status;

	if (bio == NULL) {
		free(tls);
		SSL_free(ssl);
		return ssl != NULL ? err_set(err, ERR_NOMEM, "out of memory for TLS") : -1;
	}
	SSL_set_bio(ssl, bio, bio); /* ssl owns it now */
	SSL_set_msg_callback(ssl, on_record);
	(void)SSL_set_msg_callback_arg(ssl, tls); /* cannot fail */
	tls->ssl = ssl;
	take_over(s, tls);
	status = s->connecting || s->paused ? 0 : stream_read_start(s);
	if (status < 0)
		stream_failf(s, ERR_SYS, -status, "read");
	return 0;
}

static int
refuse(struct stream *s, struct err *err)
{
	if (s->closing || s->ending)
		return err_set(err, ERR_CLOSED, "the connection is closing");
	return err_set(err, ERR_EXISTS, "TLS is on already");
}

int
stream_tls_accept(struct stream *s, struct tls_server *server, struct err *err)
{
	if (s->closing || s->ending || s->tls != NULL)
		return refuse(s, err);
	return start(s, tls_accept(server, err), err);
}

int
stream_tls_connect(struct stream *s, struct tls_client *client, enum tls_verify verify,
    const char *host, struct err *err)
{
	char where[SOCKADDR_TEXT_BYTES] = "";
	struct sockaddr_storage peer = { 0 };
	int len = sizeof(peer);

	if (s->closing || s->ending || s->tls != NULL)
		return refuse(s, err);
	if (uv_tcp_getpeername(&s->socket, (struct sockaddr *)&peer, &len) == 0)
		sockaddr_text((struct sockaddr *)&peer, where);
	if (start(s, tls_connect(client, verify, host, where, err), err) < 0)
		return -1;
	handshake(s); /* the client speaks first; it cannot be done yet */
	return 0;
}

bool
stream_tls_info(const struct stream *s, struct tls_info *info)
{
	if (s->tls == NULL || !s->tls->done)
		return false;
	tls_describe(s->tls->ssl, info);
	return true;
}

size_t
stream_tls_bind(
    const struct stream *s, enum tls_binding kind, unsigned char out[static TLS_BINDING_MAX])
{
	return s->tls != NULL && s->tls->done ? tls_bind(s->tls->ssl, kind, out) : 0;
}

/* ---- bytes ---------------------------------------------------------------------------------- */

/* Fills one room with plain bytes and shows them.  False when the cipher text is used up. */
static bool
read_some(struct stream *s)
{
	struct stream_tls *tls = s->tls;
	struct slice room = stream_room(s);
	size_t n = 0, got;
	int why = SSL_ERROR_NONE;

	ERR_clear_error();
	while (n < room.len && why == SSL_ERROR_NONE) {
		/* The room is writable memory; a slice only says where it is. */
		int rc = SSL_read_ex(tls->ssl, (char *)(uintptr_t)room.p + n, room.len - n, &got);

		if (rc == 1)
			n += got;
		else
			why = SSL_get_error(tls->ssl, rc);
		if (rc == 1 && tls->in.len == 0 && SSL_has_pending(tls->ssl) == 0)
			why = SSL_ERROR_WANT_READ; /* asking would cost it a buffer */
	}
	if (n > 0)
		stream_show(s, slice_of(room.p, n));
	if (why == SSL_ERROR_NONE || why == SSL_ERROR_WANT_READ)
		return why == SSL_ERROR_NONE;
	if (why == SSL_ERROR_ZERO_RETURN) {
		stream_at_eof(s);
	} else {
		struct err err = { 0 };

		tls_error(&err, tls->ssl, "TLS");
		stream_fail(s, &err);
	}
	return false;
}

void
stream_tls_input(struct stream *s, struct slice cipher)
{
	struct stream_tls *tls = s->tls;
	size_t waits; /* for what we write next, or for the socket */

	tls->in = cipher;
	if (!tls->done)
		handshake(s);
	waits = outq_len(&tls->wire);
	while (tls->done && !s->closing && read_some(s))
		;
	tls->in = SLICE(""); /* read, or of a session that is over */
	if (tls->no_data > NO_DATA_MAX)
		stream_failf(s, ERR_LIMIT, 0, "too many TLS records without data");
	if (outq_len(&tls->wire) > waits)
		stream_dirty(s);
}

/* Output of a session that ends is dropped when the handshake never came to an end. */
static void
say_bye(struct stream *s)
{
	struct stream_tls *tls = s->tls;

	struct outq *out = &s->busy->out;

	if (!tls->done)
		outq_consume(out, outq_len(out));
	else if (!tls->bye && !s->eof && outq_len(out) == 0)
		(void)SSL_shutdown(
		    tls->ssl); /* close_notify: whether the peer answers is all the same */
	tls->bye = true;
}

int
stream_tls_encrypt(struct stream *s)
{
	struct stream_tls *tls = s->tls;
	struct outq *out = &s->busy->out;
	struct err err = { 0 };
	uv_buf_t run;
	size_t sent;

	if (tls == NULL)
		return 0;
	ERR_clear_error();
	while (tls->done && outq_len(&tls->wire) < WIRE_BYTES && outq_gather(out, &run, 1) == 1) {
		size_t n = run.len < RECORD_BYTES ? run.len : RECORD_BYTES;

		if (SSL_write_ex(tls->ssl, run.base, n, &sent) != 1) {
			tls_error(&err, tls->ssl, "TLS");
			stream_fail(s, &err);
			return -1;
		}
		outq_consume(out, sent);
		stream_encrypted(s, sent);
	}
	if (s->ending && (!tls->done || outq_len(out) == 0))
		say_bye(s);
	return tls->done && outq_len(out) > 0;
}

struct outq *
stream_tls_wire(struct stream *s)
{
	if (s->tls != NULL)
		return &s->tls->wire;
	return s->busy != NULL ? &s->busy->out : NULL;
}

void
stream_tls_free(struct stream *s)
{
	if (s->tls == NULL)
		return;
	SSL_free(s->tls->ssl);
	outq_fini(&s->tls->wire);
	free(s->tls);
	s->tls = NULL;
}

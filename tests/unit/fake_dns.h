/* tests/unit/fake_dns.h - a DNS server on the test's own loop that says what the test wants it
 * to.
 *
 * It serves a zone written as lines "name TYPE data", where data of MX is "10 host", of TXT the
 * strings between bars; a name alone with NODATA, SERVFAIL or SILENT; what is not there is
 * NXDOMAIN.  ALIAS is a CNAME that the server does not follow.
 */
#ifndef TESTS_UNIT_FAKE_DNS_H
#define TESTS_UNIT_FAKE_DNS_H

#include "relayd/core/buf.h"
#include "relayd/core/clock.h"

#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <check.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

struct fake_dns {
	uv_udp_t udp;
	const char *zone;
	unsigned asked;
	char name[32];      /* "127.0.0.1:PORT" */
	const char *server; /* the same: a list of one for struct dns_options */
	char buffer[4096];
};

static inline void
fake_put16(struct buf *b, unsigned n)
{
	buf_putc(b, (char)(n >> 8));
	buf_putc(b, (char)n);
}

static inline void
fake_put_name(struct buf *b, struct slice name)
{
	while (name.len > 0) {
		struct slice label = slice_until(name, '.');

		buf_putc(b, (char)label.len);
		buf_put(b, label);
		name = slice_drop(name, label.len + 1);
	}
	buf_putc(b, '\0');
}

static inline unsigned
fake_type(struct slice type)
{
	static const struct {
		const char *name;
		unsigned type;
	} types[] = { { "A", ns_t_a }, { "AAAA", ns_t_aaaa }, { "TXT", ns_t_txt },
		{ "MX", ns_t_mx }, { "PTR", ns_t_ptr }, { "CNAME", ns_t_cname },
		{ "SOA", ns_t_soa } };

	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (slice_eq(type, slice_str(types[i].name)))
			return types[i].type;
	return 0;
}

static inline void
fake_put_data(struct buf *b, unsigned type, struct slice data)
{
	unsigned char addr[16];
	char text[300];

	(void)snprintf(text, sizeof(text), "%.*s", SLICE_FMT(data));
	switch (type) {
	case ns_t_a:
		ck_assert_int_eq(inet_pton(AF_INET, text, addr), 1);
		buf_put(b, slice_of(addr, 4));
		break;
	case ns_t_aaaa:
		ck_assert_int_eq(inet_pton(AF_INET6, text, addr), 1);
		buf_put(b, slice_of(addr, 16));
		break;
	case ns_t_txt:
		while (data.len > 0) {
			struct slice string = slice_until(data, '|');

			buf_putc(b, (char)string.len);
			buf_put(b, string);
			data = slice_drop(data, string.len + 1);
		}
		break;
	case ns_t_mx:
		fake_put16(b, (unsigned)atoi(text));
		fake_put_name(b, slice_drop(data, slice_until(data, ' ').len + 1));
		break;
	default:
		fake_put_name(b, data);
	}
}

static inline void
fake_put_record(struct buf *b, struct slice owner, unsigned type, uint32_t ttl, struct slice data)
{
	char storage[2000];
	struct buf rdata = buf_over(storage, sizeof(storage));

	fake_put_data(&rdata, type, data);
	fake_put_name(b, owner);
	fake_put16(b, type);
	fake_put16(b, ns_c_in);
	fake_put16(b, ttl >> 16);
	fake_put16(b, ttl & 0xffff);
	fake_put16(b, (unsigned)rdata.len);
	buf_put(b, buf_slice(&rdata));
}

/* The SOA that says how long an absence counts. */
static inline void
fake_put_soa(struct buf *b, uint32_t minimum)
{
	fake_put_name(b, SLICE("test"));
	fake_put16(b, ns_t_soa);
	fake_put16(b, ns_c_in);
	fake_put16(b, 0);
	fake_put16(b, 600);
	fake_put16(b, 22);
	buf_putc(b, '\0');
	buf_putc(b, '\0');
	for (int i = 0; i < 4; i++) {
		fake_put16(b, 0);
		fake_put16(b, 9);
	}
	fake_put16(b, minimum >> 16);
	fake_put16(b, minimum & 0xffff);
}

/* Appends what the zone has for name, following aliases; the TTL grows by 10 with each record.
 * Returns how many records, -1 when it is to be silent, -2 for SERVFAIL; *exists: the name is
 * there. */
static inline int
fake_lookup(const char *zone, struct slice name, unsigned type, struct buf *out, bool *exists)
{
	struct slice rest = slice_str(zone);
	int n = 0;

	while (rest.len > 0) {
		struct slice line = slice_until(rest, '\n'), owner = slice_until(line, ' ');
		struct slice kind = slice_until(slice_drop(line, owner.len + 1), ' ');
		struct slice data = slice_drop(line, owner.len + kind.len + 2);
		bool cut = slice_eq(kind, SLICE("ALIAS"));
		unsigned this_type = cut ? ns_t_cname : fake_type(kind);

		rest = slice_drop(rest, line.len + 1);
		if (!slice_ieq(owner, name))
			continue;
		*exists = true;
		if (slice_eq(kind, SLICE("SILENT")) || slice_eq(kind, SLICE("SERVFAIL")))
			return kind.p[1] == 'I' ? -1 : -2;
		if (this_type == type || this_type == ns_t_cname) {
			fake_put_record(out, owner, this_type, 60 + 10 * (uint32_t)n, data);
			n++;
		}
		if (this_type == ns_t_cname && type != ns_t_cname && !cut) {
			int more = fake_lookup(zone, data, type, out, exists);

			return more < 0 ? more : n + more;
		}
	}
	return n;
}

static inline struct slice
fake_question_name(const char *message, char out[static 256])
{
	struct buf name = buf_over(out, 256);

	for (const char *p = message + 12; *p != '\0'; p += *p + 1) {
		if (name.len > 0)
			buf_putc(&name, '.');
		buf_put(&name, slice_of(p + 1, (size_t)(unsigned char)*p));
	}
	return buf_slice(&name);
}

/* False: no answer. */
static inline bool
fake_answer(const char *zone, const char *question, struct buf *out)
{
	char name[256];
	struct slice owner = fake_question_name(question, name);
	size_t question_len = 12 + owner.len + 2 + 4;
	unsigned type = (unsigned char)question[question_len - 3];
	char storage[4096];
	struct buf records = buf_over(storage, sizeof(storage));
	bool exists = false;
	int n = fake_lookup(zone, owner, type, &records, &exists);

	if (n == -1)
		return false;
	buf_put(out, slice_of(question, 2));
	fake_put16(out, 0x8580u | (n == -2 ? 2u : exists ? 0u : 3u));
	fake_put16(out, 1);
	fake_put16(out, n > 0 ? (unsigned)n : 0);
	fake_put16(out, n == 0 ? 1 : 0);
	fake_put16(out, 0);
	buf_put(out, slice_of(question + 12, question_len - 12));
	buf_put(out, buf_slice(&records));
	if (n == 0)
		fake_put_soa(out, 30);
	return true;
}

static inline void
fake_dns_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
	struct fake_dns *f = handle->data;

	(void)size;
	*buf = uv_buf_init(f->buffer, sizeof(f->buffer));
}

static inline void
fake_dns_on_question(
    uv_udp_t *udp, ssize_t n, const uv_buf_t *buf, const struct sockaddr *from, unsigned flags)
{
	struct fake_dns *f = udp->data;
	char storage[4096];
	struct buf out = buf_over(storage, sizeof(storage));
	uv_buf_t reply;

	(void)flags;
	if (n < 17 || from == NULL)
		return;
	f->asked++;
	if (!fake_answer(f->zone, buf->base, &out))
		return;
	reply = uv_buf_init(out.p, (unsigned)out.len);
	ck_assert_int_ge(uv_udp_try_send(udp, &reply, 1, from), 0);
}

static inline void
fake_dns_open(struct fake_dns *f, uv_loop_t *loop, const char *zone)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int len = sizeof(addr);

	*f = (struct fake_dns){ .zone = zone };
	ck_assert_int_eq(uv_udp_init(loop, &f->udp), 0);
	f->udp.data = f;
	ck_assert_int_eq(uv_udp_bind(&f->udp, (struct sockaddr *)&addr, 0), 0);
	ck_assert_int_eq(uv_udp_getsockname(&f->udp, (struct sockaddr *)&addr, &len), 0);
	ck_assert_int_eq(uv_udp_recv_start(&f->udp, fake_dns_alloc, fake_dns_on_question), 0);
	(void)snprintf(f->name, sizeof(f->name), "127.0.0.1:%u", ntohs(addr.sin_port));
	f->server = f->name;
}

static inline void
fake_dns_close(struct fake_dns *f)
{
	uv_close((uv_handle_t *)&f->udp, NULL);
}

/* Runs the loop until *done is 1, or fails the test after 20 s. */
static inline void
fake_until_done(uv_loop_t *loop, const unsigned *done)
{
	int64_t end = clock_mono_ms() + 20000;

	while (*done == 0 && clock_mono_ms() < end)
		uv_run(loop, UV_RUN_ONCE);
	ck_assert_uint_eq(*done, 1);
}

/* Ends the server and the loop, in which nothing else may be left. */
static inline void
fake_dns_finish(struct fake_dns *f, uv_loop_t *loop)
{
	fake_dns_close(f);
	uv_run(loop, UV_RUN_DEFAULT);
	ck_assert_int_eq(uv_loop_close(loop), 0);
}

#endif

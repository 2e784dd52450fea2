/* tests/unit/filters/allow_test.c - known senders and clients pass. */
#include "filters/builtin.h"
#include "unit/filters/canned.h"
#include "unit/unit.h"

static void *
settings(struct canned_config *cc)
{
	static const struct canned_option options[] = {
		{ "senders", "@partner.test" },
		{ "senders", "@.below.test" },
		{ "senders", "Bob@Example.test" },
		{ "clients", "192.0.2.16/28" },
		{ "clients", "198.51.100.7" },
		{ "clients", "2001:db8:1::/48" },
	};
	void *set = NULL;

	CANNED_CONFIG(cc, "allow", options);
	ck_assert_int_eq(canned_configure(cc, &filter_allow, &set), 0);
	return set;
}

static const struct {
	const char *sender;
	bool allowed;
} senders[] = {
	{ "anyone@partner.test", true },
	{ "anyone@PARTNER.Test", true },
	{ "anyone@sub.partner.test", false },
	{ "anyone@notpartner.test", false },
	{ "anyone@partner.test.evil", false },
	{ "\"x@partner.test\"@evil.test", false },
	{ "\"x@evil.test\"@partner.test", true },
	{ "a@mail.below.test", true },
	{ "a@below.test", false },
	{ "a@evilbelow.test", false },
	{ "bob@example.test", true },
	{ "carol@example.test", false },
	{ "", false },
	{ "partner.test", false },
};

START_TEST(a_sender_passes_by_address_or_domain)
{
	struct canned_config cc;
	struct canned can;
	void *set = settings(&cc);

	canned_init(&can);
	canned_client(&can, "203.0.113.1");
	can.stage = FILTER_MAIL;
	can.envelope.reverse_path = slice_str(senders[_i].sender);
	ck_assert_int_eq(canned_run(&can, &filter_allow, set), FILTER_DONE);
	ck_assert_uint_eq(can.n_verdicts, senders[_i].allowed);
	if (can.n_verdicts > 0)
		ck_assert_int_eq(can.verdict, FILTER_ACCEPT);
	canned_fini(&can);
	filter_allow.release(set);
}
END_TEST

static const struct {
	const char *ip;
	bool allowed;
} clients[] = {
	{ "192.0.2.16", true },
	{ "192.0.2.31", true },
	{ "192.0.2.15", false },
	{ "192.0.2.32", false },
	{ "198.51.100.7", true },
	{ "198.51.100.8", false },
	{ "2001:db8:1:ffff::1", true },
	{ "2001:db8:2::1", false },
};

START_TEST(a_client_passes_by_network)
{
	struct canned_config cc;
	struct canned can;
	void *set = settings(&cc);

	canned_init(&can);
	canned_client(&can, clients[_i].ip);
	can.stage = FILTER_CONNECT;
	ck_assert_int_eq(canned_run(&can, &filter_allow, set), FILTER_DONE);
	ck_assert_uint_eq(can.n_verdicts, clients[_i].allowed);
	canned_fini(&can);
	filter_allow.release(set);
}
END_TEST

START_TEST(a_unix_socket_is_no_client_of_a_network)
{
	struct canned_config cc;
	struct canned can;
	void *set = settings(&cc);

	canned_init(&can);
	can.session.client_addr = SLICE("");
	can.stage = FILTER_CONNECT;
	ck_assert_int_eq(canned_run(&can, &filter_allow, set), FILTER_DONE);
	ck_assert_uint_eq(can.n_verdicts, 0);
	canned_fini(&can);
	filter_allow.release(set);
}
END_TEST

static const struct canned_option refused[] = {
	{ "senders", "partner.test" },
	{ "senders", "@" },
	{ "senders", "" },
	{ "senders", "a@b@c" },
	{ "senders", "a b@c" },
	{ "clients", "192.0.2.1/33" },
	{ "clients", "192.0.2.1/28" },
	{ "clients", "192.0.2.0/" },
	{ "clients", "192.0.2" },
	{ "clients", "2001:db8::1/64" },
	{ "clients", "example.test" },
};

START_TEST(what_is_neither_sender_nor_network_is_refused)
{
	struct canned_config cc;
	void *set = NULL;

	canned_config(&cc, "allow", &refused[_i], 1);
	ck_assert_int_eq(canned_configure(&cc, &filter_allow, &set), -1);
	ck_assert_uint_eq(cc.failures, 1);
}
END_TEST

UNIT_SUITE(filter_allow)
{
	UNIT_ROWS(a_sender_passes_by_address_or_domain, senders);
	UNIT_ROWS(a_client_passes_by_network, clients);
	UNIT_TEST(a_unix_socket_is_no_client_of_a_network);
	UNIT_ROWS(what_is_neither_sender_nor_network_is_refused, refused);
}

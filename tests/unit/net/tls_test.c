/* tests/unit/net/tls_test.c - what is said about certificates and keys that will not do. */
#include "relayd/net/tls.h"

#include "unit/certs.h"
#include "unit/unit.h"

static struct test_cert rsa, ec;

static void
make_certs(void)
{
	rsa = test_cert_new("RSA", "mx.example.test");
	ec = test_cert_new("EC", "mx.example.test");
}

static void
free_certs(void)
{
	test_cert_free(&rsa);
	test_cert_free(&ec);
}

/* The certificate and key are chosen by a word, so that a row is readable. */
static struct slice
pem_of(const char *what)
{
	static char chain[20000], half[20000];

	if (strcmp(what, "rsa-cert") == 0)
		return slice_str(rsa.certificate);
	if (strcmp(what, "ec-cert") == 0)
		return slice_str(ec.certificate);
	if (strcmp(what, "rsa-key") == 0)
		return slice_str(rsa.key);
	if (strcmp(what, "ec-key") == 0)
		return slice_str(ec.key);
	if (strcmp(what, "chain") == 0) {
		(void)snprintf(chain, sizeof(chain), "%s%s", rsa.certificate, ec.certificate);
		return slice_str(chain);
	}
	if (strcmp(what, "spoilt-chain") == 0) {
		(void)snprintf(half, sizeof(half), "%s%.*s", rsa.certificate, 300, ec.certificate);
		strcat(half, "!!!!\n-----END CERTIFICATE-----\n");
		return slice_str(half);
	}
	if (strcmp(what, "half-cert") == 0)
		return slice_head(slice_str(rsa.certificate), 400);
	return slice_str(what);
}

static const struct row {
	const char *certificate, *key, *error; /* error NULL: good */
} rows[] = {
	{ "rsa-cert", "rsa-key", NULL },
	{ "ec-cert", "ec-key", NULL },
	{ "chain", "rsa-key", NULL },
	{ "", "rsa-key", "/c.pem: unreadable certificate" },
	{ "no PEM at all", "rsa-key", "/c.pem: unreadable certificate" },
	{ "half-cert", "rsa-key", "/c.pem: unreadable certificate" },
	{ "rsa-key", "rsa-key", "/c.pem: unreadable certificate" },
	{ "spoilt-chain", "rsa-key", "/c.pem: " },
	{ "rsa-cert", "", "/k.pem: unreadable key" },
	{ "rsa-cert", "rsa-cert", "/k.pem: unreadable key" },
	{ "rsa-cert", "ec-key", "/k.pem: the key does not fit the certificate in /c.pem" },
	{ "ec-cert", "rsa-key", "/k.pem: the key does not fit the certificate in /c.pem" },
};

START_TEST(a_bad_pair_is_refused_and_its_file_named)
{
	struct tls_pair pair = { .certificate_path = "/c.pem", .key_path = "/k.pem" };
	struct err err = { 0 };
	struct tls_server *server;

	pair.certificate = pem_of(rows[_i].certificate);
	pair.key = pem_of(rows[_i].key);
	server = tls_server_new(&pair, 1, &err);
	if (rows[_i].error == NULL) {
		ck_assert_msg(server != NULL, "%s", err.msg);
	} else {
		ck_assert_ptr_null(server);
		ck_assert_int_eq(err.code, ERR_CONFIG);
		ck_assert_msg(strstr(err.msg, rows[_i].error) == err.msg, "%s", err.msg);
	}
	tls_server_unref(server);
}
END_TEST

START_TEST(several_pairs_may_be_offered)
{
	struct tls_pair pairs[2] = {
		{ "/rsa.pem", "/rsa.key", slice_str(rsa.certificate), slice_str(rsa.key) },
		{ "/ec.pem", "/ec.key", slice_str(ec.certificate), slice_str(ec.key) },
	};
	struct err err = { 0 };
	struct tls_server *server = tls_server_new(pairs, 2, &err);

	ck_assert_msg(server != NULL, "%s", err.msg);
	tls_server_unref(tls_server_ref(server));
	tls_server_unref(server);
	pairs[1].key = slice_str(rsa.key);
	ck_assert_ptr_null(tls_server_new(pairs, 2, &err));
	ck_assert_ptr_nonnull(strstr(err.msg, "/ec.key"));
}
END_TEST

START_TEST(authorities_that_cannot_be_read_are_named)
{
	struct tls_client *client;
	struct err err = { 0 };
	char path[32];

	ck_assert_ptr_null(tls_client_new("/nonexistent/ca.pem", &err));
	ck_assert_int_eq(err.code, ERR_CONFIG);
	ck_assert_ptr_eq(strstr(err.msg, "/nonexistent/ca.pem"), err.msg);
	test_file("nothing of the kind\n", path);
	ck_assert_ptr_null(tls_client_new(path, &err));
	unlink(path);
	client = tls_client_new(NULL, &err); /* of the system, even when it has none */
	ck_assert_msg(client != NULL, "%s", err.msg);
	tls_client_unref(tls_client_ref(client));
	tls_client_unref(client);
	tls_client_unref(NULL);
	tls_server_unref(NULL);
}
END_TEST

START_TEST(a_host_to_verify_must_have_a_name)
{
	struct tls_client *client = tls_client_new(NULL, NULL);
	struct err err = { 0 };

	ck_assert_ptr_null(tls_connect(client, TLS_VERIFY_HOST, "", "", &err));
	ck_assert_ptr_null(tls_connect(client, TLS_VERIFY_HOST, NULL, "", &err));
	ck_assert_int_eq(err.code, ERR_TLS);
	tls_client_unref(client);
}
END_TEST

UNIT_SUITE(tls)
{
	tcase_add_unchecked_fixture(tc, make_certs, free_certs);
	UNIT_ROWS(a_bad_pair_is_refused_and_its_file_named, rows);
	UNIT_TEST(several_pairs_may_be_offered);
	UNIT_TEST(authorities_that_cannot_be_read_are_named);
	UNIT_TEST(a_host_to_verify_must_have_a_name);
}

/* tests/unit/net/tls_names_test.c - which hosts a certificate is for. */
#include "relayd/net/tls_internal.h"

#include "unit/certs.h"
#include "unit/unit.h"

static const struct {
	const char *name, *host;
	bool fits;
} rows[] = {
	{ "mx.example.test", "mx.example.test", true },
	{ "mx.example.test", "MX.Example.TEST", true },
	{ "mx.example.test", "x.example.test", false },
	{ "mx.example.test", "mx.example.test.", false },
	{ "mx.example.test", "", false },
	{ "*.example.test", "mx.example.test", true },
	{ "*.EXAMPLE.test", "mx.example.TEST", true },
	{ "*.example.test", "example.test", false },
	{ "*.example.test", ".example.test", false },
	{ "*.example.test", "a.mx.example.test", false },
	{ "m*.example.test", "mx.example.test", false },
	{ "*", "mx", false },
	{ "*", "mx.example.test", false },
	{ "mx.*.test", "mx.example.test", false },
};

START_TEST(a_wildcard_is_one_whole_label_on_the_left)
{
	struct test_cert pem = test_cert_new("EC", rows[_i].name);
	STACK_OF(X509) *list = tls_pem_certificates(slice_str(pem.certificate), "/c.pem", NULL);
	struct tls_names names;

	ck_assert_int_eq(tls_names_of(&names, sk_X509_value(list, 0), NULL), 0);
	ck_assert_uint_eq(names.n, 1); /* the common name counts only without others */
	ck_assert_int_eq(tls_names_fit(&names, rows[_i].host), rows[_i].fits);
	tls_names_fini(&names);
	sk_X509_pop_free(list, X509_free);
	test_cert_free(&pem);
}
END_TEST

START_TEST(an_address_is_no_name)
{
	struct test_cert pem = test_cert_new("EC", "IP:127.0.0.1");
	STACK_OF(X509) *list = tls_pem_certificates(slice_str(pem.certificate), "/c.pem", NULL);
	struct tls_names names;

	ck_assert_int_eq(tls_names_of(&names, sk_X509_value(list, 0), NULL), 0);
	ck_assert_uint_eq(names.n, 0);
	ck_assert(!tls_names_fit(&names, "127.0.0.1"));
	tls_names_fini(&names);
	sk_X509_pop_free(list, X509_free);
	test_cert_free(&pem);
}
END_TEST

UNIT_SUITE(tls_names)
{
	UNIT_ROWS(a_wildcard_is_one_whole_label_on_the_left, rows);
	UNIT_TEST(an_address_is_no_name);
}

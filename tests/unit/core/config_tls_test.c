/* tests/unit/core/config_tls_test.c - fingerprints that may relay, and files that are renewed. */
#include "unit/certs.h"
#include "unit/unit.h"

#include "relayd/core/config.h"

#include <string.h>

#define HEAD                                                                                       \
	"hostname = mx.example.org\ndomains = { example.org }\n"                                   \
	"route example.org { to = { \"mail1.corp:25\" } }\n"
#define DIGITS "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define COLONS                                                                                     \
	"00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:"  \
	"DD:EE:FF"

static char conf[32], list[32];

static struct config *
load(const char *text, struct err *err)
{
	test_file(text, conf);
	return config_load(conf, config_source_disk(), err);
}

static const struct {
	const char *fingerprint;
	bool good;
} rows[] = {
	{ "sha256:" DIGITS, true },
	{ "sha256:" COLONS, true },
	{ "SHA256:" DIGITS, false },
	{ DIGITS, false },
	{ "sha256:", false },
	{ "sha256:" DIGITS "00", false },
	{ "sha256:" COLONS ":", false },
	{ "sha256::" DIGITS, false },
	{ "sha256:00" COLONS, false },
	{ "sha256:g0112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", false },
	{ "sha256:0011", false },
};

START_TEST(a_fingerprint_is_64_digits)
{
	static const uint8_t want[32] = { 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,
		0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66,
		0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff };
	uint8_t other[32] = { 0 };
	char text[600];
	struct err err = { 0 };
	struct config *cfg;

	(void)snprintf(text, sizeof(text), HEAD "tls { relay-fingerprints = { \"%s\" } }\n",
	    rows[_i].fingerprint);
	cfg = load(text, &err);
	unlink(conf);
	ck_assert_msg((cfg != NULL) == rows[_i].good, "%s", err.msg);
	if (cfg != NULL) {
		ck_assert(config_may_relay(cfg, want));
		ck_assert(!config_may_relay(cfg, other));
	} else {
		ck_assert_ptr_nonnull(strstr(err.msg, ":4: relay-fingerprints = "));
	}
	config_unref(cfg);
}
END_TEST

START_TEST(a_file_of_fingerprints_is_renewed_and_nothing_else_is)
{
	static const uint8_t zeros[32] = { 0 };
	char text[600], many[64 * 80];
	struct err err = { 0 };
	struct config *cfg, *fresh;
	FILE *f;

	many[0] = '\0';
	for (int i = 1; i <= 40; i++)
		(void)snprintf(many + strlen(many), sizeof(many) - strlen(many),
		    "sha256:%064d\tnumber %d\r\n", i, i);
	test_file(many, list);
	(void)snprintf(text, sizeof(text), HEAD "tls { relay-fingerprints = { %s } }\n", list);
	cfg = load(text, &err);
	ck_assert_msg(cfg != NULL, "%s", err.msg);
	ck_assert_uint_eq(cfg->tls.n_relay_fingerprints, 40);
	ck_assert(!config_may_relay(cfg, zeros));
	fresh = config_renew(cfg, &err);
	ck_assert_msg(fresh != NULL, "%s", err.msg);
	ck_assert(config_same_files(cfg, fresh));
	config_unref(fresh);

	f = fopen(list, "w");
	fprintf(f, "# none of the old ones\n\nsha256:%064d\n", 0);
	fclose(f);
	f = fopen(conf, "w");
	fprintf(f, "this is no config");
	fclose(f);
	fresh = config_renew(cfg, &err);
	ck_assert_msg(fresh != NULL, "%s", err.msg);
	ck_assert(!config_same_files(cfg, fresh));
	ck_assert_uint_ne(cfg->generation, fresh->generation);
	ck_assert_uint_eq(fresh->tls.n_relay_fingerprints, 1);
	ck_assert(config_may_relay(fresh, zeros));
	config_unref(fresh);

	f = fopen(list, "w");
	fprintf(f, "sha256:%064d\nsha256:12\n", 0);
	fclose(f);
	ck_assert_ptr_null(config_renew(cfg, &err));
	ck_assert_ptr_nonnull(strstr(err.msg, ":2: expected sha256: and 64 digits"));
	unlink(list);
	ck_assert_ptr_null(config_renew(cfg, &err));
	config_unref(cfg);
	unlink(conf);
}
END_TEST

/* With both in one file the roles that get no keys do not get it either. */
START_TEST(a_file_with_certificate_and_key_is_a_secret)
{
	struct test_cert pem = test_cert_new("EC", "mx.example.org");
	char both[32], text[600], all[8000];
	struct err err = { 0 };
	struct config *cfg;

	(void)snprintf(all, sizeof(all), "%s%s", pem.certificate, pem.key);
	test_file(all, both);
	(void)snprintf(
	    text, sizeof(text), HEAD "tls { certificate = { %s }  key = { %s } }\n", both, both);
	cfg = load(text, &err);
	ck_assert_msg(cfg != NULL, "%s", err.msg);
	ck_assert_uint_eq(cfg->n_files, 2);
	ck_assert(cfg->files[1].secret && cfg->files[1].watched);
	ck_assert(!cfg->files[0].secret && !cfg->files[0].watched);
	config_unref(cfg);
	unlink(both);
	unlink(conf);
	test_cert_free(&pem);
}
END_TEST

UNIT_SUITE(config_tls)
{
	UNIT_ROWS(a_fingerprint_is_64_digits, rows);
	UNIT_TEST(a_file_of_fingerprints_is_renewed_and_nothing_else_is);
	UNIT_TEST(a_file_with_certificate_and_key_is_a_secret);
}

/* tests/unit/auth/senders_test.c - who may use which reverse-path; whose a token is. */
#include "unit/unit.h"

#include "relayd/auth/oauth.h"
#include "relayd/auth/senders.h"

#include <stdlib.h>

static const struct {
	const char *user, *mailbox;
	bool may;
} cases[] = {
	{ "ann", "ann@example.org", true },
	{ "ann", "Ann@EXAMPLE.org", true },
	{ "ann", "bob@example.org", false },
	{ "ann", "info@sales.example.org", true },
	{ "ann", "info@x.sales.example.org", false },
	{ "ann", "ann@example.net", true },
	{ "ann", "", true },
	{ "Ann", "ann@example.org", false },
	{ "bob", "anyone@anywhere.test", true },
	{ "eve", "ann@example.org", false },
	{ "eve", "", true },
	{ "an", "ann@example.org", false },
};

START_TEST(a_user_sends_in_its_names)
{
	struct err err;
	struct senders *s = senders_parse(
	    SLICE("# who\nann ann@example.org\t@Sales.example.org\r\n\nbob *\nann ann@example.net"),
	    "senders", &err);

	ck_assert_ptr_nonnull(s);
	ck_assert_uint_eq(senders_count(s), 4);
	ck_assert_int_eq(senders_allow(s, slice_str(cases[_i].user), slice_str(cases[_i].mailbox)),
	    cases[_i].may);
	senders_free(s);
}
END_TEST

static const char *const bad[][2] = {
	{ "ann\n", "senders:1: not: user" },
	{ "\na:b ann@example.org\n", "senders:2: that is no name" },
	{ "ann ann@\n", "senders:1: expected an address" },
	{ "ann @\n", "senders:1: expected an address" },
	{ "ann ann@example.org example.org\n", "senders:1: expected an address" },
};

START_TEST(a_wrong_line_is_named)
{
	struct err err;

	ck_assert_ptr_null(senders_parse(slice_str(bad[_i][0]), "senders", &err));
	ck_assert_int_eq(err.code, ERR_CONFIG);
	ck_assert_msg(strncmp(err.msg, bad[_i][1], strlen(bad[_i][1])) == 0, "%s", err.msg);
}
END_TEST

START_TEST(an_empty_file_lets_nobody_send)
{
	struct senders *s = senders_parse(SLICE(""), "senders", NULL);

	ck_assert_ptr_nonnull(s);
	ck_assert(!senders_allow(s, SLICE("ann"), SLICE("a@b.test")));
	senders_free(s);
}
END_TEST

/* ---- tokens ---------------------------------------------------------------------------------- */

static const struct {
	const char *json, *name;
	enum oauth_verdict verdict;
} responses[] = {
	{ "{\"active\":true,\"username\":\"ann\"}", "ann", OAUTH_ACTIVE },
	{ "{\"active\":true,\"sub\":\"Z5O3upPC88QrAjx00dis\",\"username\":\"ann\"}", "ann",
	    OAUTH_ACTIVE },
	{ "{\"active\":true,\"sub\":\"ann\",\"exp\":1001}", "ann", OAUTH_ACTIVE },
	{ "{\"active\":true,\"sub\":\"ann\",\"exp\":1000}", "", OAUTH_INACTIVE },
	{ "{\"active\":true,\"sub\":\"ann\",\"exp\":\"1001\"}", "", OAUTH_UNKNOWN },
	{ "{\"active\":true}", "", OAUTH_UNKNOWN },
	{ "{\"active\":false,\"username\":\"ann\"}", "", OAUTH_INACTIVE },
	{ "{\"active\":\"true\",\"username\":\"ann\"}", "", OAUTH_UNKNOWN },
	{ "{\"active\":false,\"active\":true,\"username\":\"ann\"}", "", OAUTH_UNKNOWN },
	{ "{\"active\":true,\"username\":\"a\\u0000b\"}", "", OAUTH_UNKNOWN },
	{ "[true]", "", OAUTH_UNKNOWN },
	{ "", "", OAUTH_UNKNOWN },
	{ "{\"error\":\"invalid_request\"}", "", OAUTH_UNKNOWN },
};

START_TEST(a_response_says_whose_a_token_is)
{
	char storage[100];
	struct buf name = buf_over(storage, sizeof(storage));

	ck_assert_int_eq(
	    oauth_read(slice_str(responses[_i].json), 1000, &name), responses[_i].verdict);
	ck_assert(slice_eq(buf_slice(&name), slice_str(responses[_i].name)));
}
END_TEST

static const struct {
	const char *message, *authzid, *token; /* token NULL: it is no request */
} requests[] = {
	{ "n,a=user@example.com,\1host=server.example.com\1port=587\1auth=Bearer vF9dft4qmT\1\1",
	    "user@example.com", "vF9dft4qmT" },
	{ "n,,\1auth=bearer  a.b-c_d~e+f/g==\1\1", "", "a.b-c_d~e+f/g==" },
	{ "y,,\1auth=Bearer a\1\1", "", "a" },
	{ "n,,\1auth=\1\1", "", "" },
	{ "n,,\1auth=Basic a\1\1", "", NULL },
	{ "n,,\1auth=Bearer \1\1", "", NULL },
	{ "n,,\1auth=Bearer a b\1\1", "", NULL },
	{ "n,,\1auth=Bearer a=b\1\1", "", NULL },
	{ "n,,\1auth=Bearer a\1auth=Bearer b\1\1", "", NULL },
	{ "n,,\1auth=Bearer a\1", "", NULL },
	{ "n,,\1host=x\1\1", "", NULL },
	{ "n,,\1\1", "", NULL },
	{ "n,,\1", "", NULL },
	{ "n,b=x,\1auth=Bearer a\1\1", "", NULL },
	{ "n,a=x\1auth=Bearer a\1\1", "", NULL },
	{ "p=tls-exporter,,\1auth=Bearer a\1\1", "", NULL },
	{ "n", "", NULL },
	{ "", "", NULL },
};

START_TEST(a_request_holds_a_token)
{
	struct oauth_request r;

	ck_assert_int_eq(
	    oauth_parse(slice_str(requests[_i].message), &r), requests[_i].token != NULL);
	if (requests[_i].token == NULL)
		return;
	ck_assert(slice_eq(r.authzid, slice_str(requests[_i].authzid)));
	ck_assert(slice_eq(r.token, slice_str(requests[_i].token)));
}
END_TEST

static const struct {
	const char *message, *name, *token; /* token NULL: it is none */
} old_requests[] = {
	{ "user=ann@example.com\1auth=Bearer vF9dft4qmT\1\1", "ann@example.com", "vF9dft4qmT" },
	{ "user=a=2C,b\1auth=bearer a.b==\1\1", "a=2C,b", "a.b==" },
	{ "user=ann\1auth=Bearer a\1", "", NULL },
	{ "user=ann\1auth=Bearer a\1\1\1", "", NULL },
	{ "user=ann\1auth=Bearer a\1host=x\1\1", "", NULL },
	{ "user=ann\1auth=Basic a\1\1", "", NULL },
	{ "user=ann\1auth=\1\1", "", NULL },
	{ "user=\1auth=Bearer a\1\1", "", NULL },
	{ "auth=Bearer a\1user=ann\1\1", "", NULL },
	{ "user=ann", "", NULL },
	{ "", "", NULL },
};

START_TEST(an_old_request_holds_a_name_and_a_token)
{
	struct oauth_request r;

	ck_assert_int_eq(
	    xoauth2_parse(slice_str(old_requests[_i].message), &r), old_requests[_i].token != NULL);
	if (old_requests[_i].token == NULL)
		return;
	ck_assert(slice_eq(r.authzid, slice_str(old_requests[_i].name)));
	ck_assert(slice_eq(r.token, slice_str(old_requests[_i].token)));
}
END_TEST

UNIT_SUITE(auth_senders)
{
	UNIT_ROWS(a_user_sends_in_its_names, cases);
	UNIT_ROWS(a_wrong_line_is_named, bad);
	UNIT_TEST(an_empty_file_lets_nobody_send);
	UNIT_ROWS(a_response_says_whose_a_token_is, responses);
	UNIT_ROWS(a_request_holds_a_token, requests);
	UNIT_ROWS(an_old_request_holds_a_name_and_a_token, old_requests);
}

/* tests/unit/filters/spf_cross_check_test.c - relayd's SPF and libspf2 over the same records.
 *
 * libspf2 errs in about 60 cases of the suite, so agreement there is counted and told, not asked
 * for in full.  On plain records, where it is sound, the two have to agree without exception.
 */
#include "unit/filters/spf_ask.h"
#include "unit/unit.h"

#include <netinet/in.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <stdio.h>
#include <spf2/spf.h>
#include <spf2/spf_dns_zone.h>

#define SUITE         SHARED_DATA_DIR "/spf-rfc7208/rfc7208-tests.yml"
#define AGREEMENT_MIN 130 /* of 203; a library that never ran would agree with nothing */

static void
quiet(const char *file, int line, const char *text)
{
	(void)file;
	(void)line;
	(void)text;
}

static const char *
libspf2_name(SPF_result_t result)
{
	switch (result) {
	case SPF_RESULT_NEUTRAL:
		return "neutral";
	case SPF_RESULT_PASS:
		return "pass";
	case SPF_RESULT_FAIL:
		return "fail";
	case SPF_RESULT_SOFTFAIL:
		return "softfail";
	case SPF_RESULT_NONE:
		return "none";
	case SPF_RESULT_TEMPERROR:
		return "temperror";
	case SPF_RESULT_PERMERROR:
		return "permerror";
	default: /* an error code without a result: what is left is bad syntax */
		return "permerror";
	}
}

static void
zone_add(SPF_dns_server_t *zone, const struct spf_zone_entry *entry)
{
	static const struct {
		const char *type;
		ns_type rr;
	} types[] = {
		{ "A", ns_t_a },
		{ "AAAA", ns_t_aaaa },
		{ "MX", ns_t_mx },
		{ "TXT", ns_t_txt },
		{ "SPF", ns_t_txt },
		{ "PTR", ns_t_ptr },
	};

	if (strcmp(entry->type, "TIMEOUT") == 0)
		SPF_dns_zone_add_str(zone, entry->owner, ns_t_any, TRY_AGAIN, NULL);
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (strcmp(entry->type, types[i].type) == 0 && strcmp(entry->data, "NONE") != 0)
			SPF_dns_zone_add_str(
			    zone, entry->owner, types[i].rr, NETDB_SUCCESS, entry->data);
}

static bool
has_own_txt(const struct spf_case *test, const char *owner)
{
	for (size_t i = 0; i < test->n_zone; i++)
		if (strcmp(test->zone[i].owner, owner) == 0 &&
		    strcmp(test->zone[i].type, "TXT") == 0)
			return true;
	return false;
}

static const char *
libspf2_ask(const struct spf_case *test)
{
	SPF_dns_server_t *zone = SPF_dns_zone_new(NULL, "case", 0);
	SPF_server_t *server;
	SPF_request_t *request;
	SPF_response_t *response = NULL;
	const char *name;

	for (size_t i = 0; i < test->n_zone; i++)
		if (strcmp(test->zone[i].type, "SPF") != 0 ||
		    !has_own_txt(test, test->zone[i].owner))
			zone_add(zone, &test->zone[i]);
	server = SPF_server_new_dns(zone, 0);
	request = SPF_request_new(server);
	if (strchr(test->host, ':') != NULL)
		SPF_request_set_ipv6_str(request, test->host);
	else
		SPF_request_set_ipv4_str(request, test->host);
	SPF_request_set_helo_dom(request, test->helo);
	if (test->mailfrom[0] != '\0')
		SPF_request_set_env_from(request, test->mailfrom);
	(void)SPF_request_query_mailfrom(request, &response); /* the result tells more */
	name = response != NULL ? libspf2_name(SPF_response_result(response)) : "permerror";
	SPF_response_free(response);
	SPF_request_free(request);
	SPF_server_free(server);
	SPF_dns_free(zone);
	return name;
}

START_TEST(libspf2_agrees_with_most_of_the_suite)
{
	struct spf_suite suite;
	size_t agree = 0, allowed = 0;

	SPF_warning_handler = SPF_info_handler = SPF_debug_handler = quiet;
	if (!spf_suite_load(&suite, SUITE))
		return; /* the suite is not there: nothing to compare with */
	for (size_t i = 0; i < suite.n_cases; i++) {
		struct spf_outcome ours;
		const char *theirs = libspf2_ask(&suite.cases[i]);

		agree += strcmp(spf_result_name(spf_ask(&suite.cases[i], &ours)), theirs) == 0;
		allowed += spf_case_allows(&suite.cases[i], theirs);
	}
	printf("spf: libspf2 agrees with %zu of %zu cases, %zu of its results are allowed\n", agree,
	    suite.n_cases, allowed);
	ck_assert_uint_ge(agree, AGREEMENT_MIN);
	spf_suite_free(&suite);
}
END_TEST

/* ---- plain records --------------------------------------------------------------------------- */

struct dice {
	uint32_t state;
};

static uint32_t
roll(struct dice *dice, uint32_t sides)
{
	dice->state = dice->state * 1664525u + 1013904223u;
	return (dice->state >> 16) % sides;
}

/* Mechanisms that libspf2 reads right; names that exist, so that nothing is void. */
static void
term_roll(struct dice *dice, unsigned depth, char *out, size_t cap)
{
	static const char *const qualifiers[] = { "", "", "+", "-", "~", "?" };
	const char *q = qualifiers[roll(dice, 6)];
	unsigned n = roll(dice, 4);

	switch (roll(dice, 9)) {
	case 0:
		(void)snprintf(
		    out, cap, " %sip4:192.0.2.%u/%u", q, roll(dice, 256), 1 + roll(dice, 32));
		break;
	case 1:
		(void)snprintf(
		    out, cap, " %sip6:2001:db8::%x/%u", q, roll(dice, 65536), 1 + roll(dice, 128));
		break;
	case 2:
		(void)snprintf(out, cap, " %sa:h%u.test/%u", q, n, 24 + roll(dice, 9));
		break;
	case 3:
		(void)snprintf(out, cap, " %smx:m%u.test", q, n);
		break;
	case 4:
		(void)snprintf(out, cap, " %sexists:%%{ir}.h%u.test", q, n);
		break;
	case 5:
		(void)snprintf(out, cap, " %sall", roll(dice, 2) ? "-" : "~");
		break;
	case 6:
		if (depth < 2) {
			(void)snprintf(out, cap, " %sinclude:d%u.test", q, depth + 1);
			break;
		}
		/* fall through */
	default:
		(void)snprintf(out, cap, " %sip4:192.0.2.%u", q, 16 * roll(dice, 16));
		break;
	}
}

static struct spf_zone_entry *
entry(struct spf_zone_entry **next, char data[static 400], const char *type, const char *owner)
{
	struct spf_zone_entry *to = (*next)++;

	*to = (struct spf_zone_entry){ .data = data };
	(void)snprintf(to->type, sizeof(to->type), "%s", type);
	(void)snprintf(to->owner, sizeof(to->owner), "%s", owner);
	return to;
}

static size_t
zone_roll(struct dice *dice, struct spf_zone_entry *zone, char data[][400], const char *exists)
{
	struct spf_zone_entry *next = zone;
	char owner[300];

	for (unsigned i = 0; i < 3; i++) {
		size_t len = (size_t)snprintf(data[0], 400, "v=spf1");

		for (unsigned k = 1 + roll(dice, 4); k > 0; k--)
			term_roll(dice, i, data[0] + len, 400 - len), len = strlen(data[0]);
		if (i < 2 && roll(dice, 3) == 0)
			(void)snprintf(data[0] + len, 400 - len, " redirect=d%u.test", i + 1);
		(void)snprintf(owner, sizeof(owner), "d%u.test", i);
		entry(&next, *data++, "TXT", owner);
	}
	for (unsigned i = 0; i < 4; i++) {
		(void)snprintf(data[0], 400, "192.0.2.%u", 16 * roll(dice, 16));
		(void)snprintf(owner, sizeof(owner), "h%u.test", i);
		entry(&next, *data++, "A", owner);
		(void)snprintf(data[0], 400, "h%u.test", roll(dice, 4));
		(void)snprintf(owner, sizeof(owner), "m%u.test", i);
		entry(&next, *data++, "MX", owner);
		(void)snprintf(data[0], 400, "127.0.0.2");
		(void)snprintf(owner, sizeof(owner), "%.40s.h%u.test", exists, i);
		entry(&next, *data++, "A", owner);
	}
	for (struct spf_zone_entry *e = zone; e < next; e++)
		e->len = strlen(e->data);
	return (size_t)(next - zone);
}

START_TEST(plain_records_give_what_libspf2_gives)
{
	struct dice dice = { 7208 };
	size_t results[SPF_PENDING] = { 0 };

	SPF_warning_handler = SPF_info_handler = SPF_debug_handler = quiet;
	for (unsigned round = 0; round < 3000; round++) {
		struct spf_zone_entry zone[16];
		static char data[16][400];
		struct spf_case test = {
			.helo = "mail.test", .mailfrom = "jo@d0.test", .zone = zone
		};
		unsigned last = 16 * roll(&dice, 16);
		struct spf_outcome ours;
		char reversed[40];
		const char *theirs;

		(void)snprintf(test.host, sizeof(test.host), "192.0.2.%u", last);
		(void)snprintf(reversed, sizeof(reversed), "%u.2.0.192", last);
		test.n_zone = zone_roll(&dice, zone, data, reversed);
		theirs = libspf2_ask(&test);
		results[spf_ask(&test, &ours)]++;
		if (strstr(ours.why, "limit") != NULL) /* libspf2 counts each record by itself */
			continue;
		ck_assert_msg(strcmp(spf_result_name(ours.result), theirs) == 0,
		    "round %u, client %s, \"%s\" \"%s\" \"%s\": %s (%s: %s), libspf2 has %s", round,
		    test.host, data[0], data[1], data[2], spf_result_name(ours.result), ours.domain,
		    ours.why, theirs);
	}
	ck_assert_uint_gt(results[SPF_PASS], 100);
	ck_assert_uint_gt(results[SPF_FAIL], 100);
	ck_assert_uint_gt(results[SPF_SOFTFAIL], 100);
	ck_assert_uint_gt(results[SPF_NEUTRAL], 100);
}
END_TEST

UNIT_SUITE(spf_cross_check)
{
	UNIT_TEST(libspf2_agrees_with_most_of_the_suite);
	UNIT_TEST(plain_records_give_what_libspf2_gives);
}

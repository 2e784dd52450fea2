/* tests/fuzz/fuzz_spf.c - SPF records and macros, parsed and evaluated over facts from the input.
 *
 * The first line is "4" or "6" (the client's address family), "!" where every other name gets no
 * answer, then the HELO name and the sender, apart by spaces.  The lines that follow are the TXT
 * records of r0.test, r1.test ...; an SPF record among them may name the others.
 */
#include "unit/filters/canned.c"

#include "filters/builtin.h"
#include "filters/spf/check.h"

#define RECORDS_MAX 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct slice
line_take(struct slice *in, char end)
{
	struct slice line = slice_until(*in, end);

	*in = slice_drop(*in, line.len + 1);
	return line;
}

/* What the parser takes it has to hand out again, term by term, within the record. */
static void
parse(struct slice text)
{
	struct spf_record record;
	struct spf_term term;
	struct slice rest;

	if (!spf_record_parse(text, &record)) {
		must(record.why[0] != '\0', "refused without a reason");
		return;
	}
	for (rest = record.terms; spf_record_next(&rest, &term);) {
		must(term.text.p >= text.p && term.text.p + term.text.len <= text.p + text.len,
		    "a term outside of its record");
		must(term.bits4 <= 32 && term.bits6 <= 128, "a prefix length");
		must(term.domain.len == 0 || spf_domain_spec_valid(term.domain), "a domain-spec");
	}
}

static size_t
facts_take(struct slice in, struct canned_fact rows[static RECORDS_MAX + 5])
{
	static const struct canned_fact hosts[] = {
		CANNED_A("h.test", "\xc0\x00\x02\x01"),
		CANNED_MX("h.test", 10, "h.test"),
		CANNED_PTR("192.0.2.1", "h.test"),
		CANNED_PTR("2001:db8::1", "h.test"),
		CANNED_AAAA("h.test", "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"),
	};
	static const char *const names[RECORDS_MAX] = { "r0.test", "r1.test", "r2.test", "r3.test",
		"r4.test", "r5.test", "r6.test", "r7.test" };
	size_t n = 0;

	for (; n < RECORDS_MAX && in.len > 0; n++) {
		struct slice text = line_take(&in, '\n');

		parse(text);
		rows[n] = (struct canned_fact){ FACT_DNS_TXT, names[n], FACT_OK, text, 0, false };
	}
	for (size_t i = 0; i < 5; i++)
		rows[n++] = hosts[i];
	return n;
}

static void
check(struct canned *can, const struct canned_option *option)
{
	struct canned_config cc;
	void *settings;

	canned_config(&cc, "spf", option, 1);
	must(canned_configure(&cc, &filter_spf, &settings) == 0, "settings");
	(void)canned_run(can, &filter_spf, settings); /* any end is fine, but in time */
	for (const char *p = can->text; *p != '\0'; p++)
		must(*p >= ' ' && *p <= '~', "a reply that is not plain");
	for (const char *p = can->properties; *p != '\0'; p++)
		must(*p >= ' ' && *p <= '~', "a property that is not plain");
	filter_spf.release(settings);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct canned_option reject[] = { { "fail", "reject" } };
	struct slice in = slice_of(data, size), first = line_take(&in, '\n');
	struct canned_fact rows[RECORDS_MAX + 5];
	static struct canned can;

	if (slice_has(first, '\0') || first.len > 600)
		return 0;
	canned_init(&can);
	canned_client(&can, slice_starts(first, SLICE("6")) ? "2001:db8::1" : "192.0.2.1");
	can.unknown = slice_has(slice_until(first, ' '), '!') ? FACT_FAILED : FACT_NONE;
	(void)line_take(&first, ' ');
	can.session.helo = line_take(&first, ' ');
	can.envelope.reverse_path = first;
	canned_facts(&can, rows, facts_take(in, rows));
	check(&can, reject);
	canned_fini(&can);
	return 0;
}

/* tests/fuzz/fuzz_rules.c - a rule file from the input over a message from the input.
 *
 * The two are set apart by a line "--".  Patterns that PCRE2 takes long for are cut short by its
 * limits; what is looked for is a fault in the reader, the texts and the addresses.
 */
#include "unit/filters/canned.c"

#include "filters/builtin.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct canned_option options[] = { { "max-text", "16K" } };
	struct slice in = slice_of(data, size), mark = SLICE("\n--\n");
	size_t at = slice_find(in, mark);
	struct canned_file file = { "files", "input.cf", slice_head(in, at) };
	struct canned_config cc;
	static struct canned can;
	void *settings;

	CANNED_CONFIG(&cc, "rules", options);
	cc.files = &file;
	cc.n_files = 1;
	if (canned_configure(&cc, &filter_rules, &settings) < 0)
		return 0;
	canned_init(&can);
	can.message = slice_drop(in, at + mark.len);
	can.envelope.reverse_path = SLICE("jo@example.org");
	(void)canned_run(&can, &filter_rules, settings); /* any end is fine, but in time */
	for (size_t i = 0; i < can.n_findings; i++)
		must(can.findings[i].name[0] != '\0', "a finding without a name");
	filter_rules.release(settings);
	canned_fini(&can);
	return 0;
}

/* tests/fuzz/fuzz_config.c - any text as a config: taken, or refused with a file and a line. */
#include "relayd/core/buf.h"
#include "relayd/core/config.h"
#include "relayd/core/config_source.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf bytes = buf_heap(1 << 20);
	struct config_source *src;
	struct config *cfg;
	struct err err = { 0 };

	config_source_begin_snapshot(&bytes, true);
	config_source_put(&bytes, "/c", slice_of(data, size));
	config_source_put(&bytes, "/etc/relayd/recipients", SLICE("a@example.org\n"));
	src = bytes.overflow ? NULL : config_source_snapshot(buf_slice(&bytes), &err);
	if (src != NULL) {
		cfg = config_load("/c", src, &err);
		if (cfg == NULL && (err.code != ERR_CONFIG || strncmp(err.msg, "/c:", 3) != 0))
			abort();	/* every fault has its line */
		config_unref(cfg);
	}
	buf_fini(&bytes);
	return 0;
}

/* tests/fuzz/fuzz_proxy.c - a PROXY header is judged once, within its limits, however it comes
 * in. */
#include "must.h"
#include "relayd/net/proxy.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The bytes in memory of just their size, so that a read behind them is seen. */
static enum proxy_scan
scan_copy(const uint8_t *data, size_t size, struct proxy_header *h)
{
	uint8_t *copy = malloc(size + (size == 0));
	enum proxy_scan scan;

	MUST(copy != NULL);
	if (size > 0)
		memcpy(copy, data, size);
	scan = proxy_scan(slice_of(copy, size), h);
	free(copy);
	return scan;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proxy_header whole, part;
	enum proxy_scan scan = scan_copy(data, size, &whole), so_far = PROXY_MORE;

	MUST(scan != PROXY_MORE || size < PROXY_HEADER_MAX);
	for (size_t n = 0; n < size && so_far == PROXY_MORE && n <= PROXY_HEADER_MAX; n++)
		so_far = scan_copy(data, n, &part);
	MUST(so_far == PROXY_MORE || so_far == scan);
	if (scan != PROXY_DONE)
		return 0;
	MUST(whole.bytes > 0 && whole.bytes <= size && whole.bytes <= PROXY_HEADER_MAX);
	MUST(whole.addr_len == 0 || whole.addr_len == 4 || whole.addr_len == 16);
	MUST(scan_copy(data, whole.bytes - 1, &part) == PROXY_MORE);
	MUST(scan_copy(data, whole.bytes, &part) == PROXY_DONE);
	MUST(memcmp(whole.client, part.client, 16) == 0 && whole.client_port == part.client_port);
	return 0;
}

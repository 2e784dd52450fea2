/* tests/fuzz/fuzz_address.c - paths are taken whole or not at all; a list always ends. */
#include "must.h"
#include "relayd/mail/address.h"
#include "relayd/mail/charset.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool
is_clean(struct slice s)
{
	for (size_t i = 0; i < s.len; i++)
		if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f)
			return false;
	return true;
}

/* What was accepted is within its limits, without controls, and survives a round trip. */
static void
check_mailbox(const struct address *a)
{
	char storage[2 * ADDRESS_PATH_MAX];
	struct buf canon = buf_over(storage, sizeof(storage));
	struct address again;

	MUST(a->local.len <= ADDRESS_LOCAL_MAX && a->domain.len <= ADDRESS_DOMAIN_MAX);
	MUST(a->mailbox.len <= ADDRESS_PATH_MAX - 2 && is_clean(a->mailbox));
	MUST(utf8_valid(a->mailbox));
	MUST(address_mailbox(a->mailbox, ADDRESS_UTF8, &again) == ADDRESS_OK);
	MUST(slice_eq(again.local, a->local) && slice_eq(again.domain, a->domain));
	address_canonical(a, &canon);
	MUST(!canon.overflow);
	MUST(address_mailbox(buf_slice(&canon), ADDRESS_UTF8, &again) == ADDRESS_OK);
	MUST(address_same(a->mailbox, buf_slice(&canon)));
}

static void
check_path(struct slice bytes, unsigned flags)
{
	struct slice in = bytes;
	struct address a;

	if (address_forward_path(&in, flags, &a) == ADDRESS_OK) {
		MUST(in.len < bytes.len && in.p + in.len == bytes.p + bytes.len);
		MUST(a.kind == ADDRESS_POSTMASTER || a.kind == ADDRESS_MAILBOX);
		if (a.kind == ADDRESS_MAILBOX)
			check_mailbox(&a);
	} else {
		MUST(in.p == bytes.p && in.len == bytes.len);
	}
	in = bytes;
	(void)address_reverse_path(&in, flags, &a); /* the same grammar: must only return */
	(void)address_domain(bytes, flags);
}

static void
check_list(struct slice bytes)
{
	struct address_list list = address_list_of(bytes);
	struct arena arena = arena_of(1 << 20);
	struct address_item item;
	size_t items = 0;

	while (address_list_next(&list, &arena, &item)) {
		MUST(!slice_has(item.name, '\n') && !slice_has(item.local, '\r'));
		MUST(++items <= bytes.len + 2);
		arena_reset(&arena);
	}
	arena_fini(&arena);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = slice_of(data, size);
	char ascii[1200];
	struct buf out = buf_over(ascii, sizeof(ascii));

	check_path(in, 0);
	check_path(in, ADDRESS_UTF8);
	check_path(in, ADDRESS_UTF8 | ADDRESS_BARE);
	check_list(in);
	(void)address_domain_ascii(slice_head(in, 300), &out); /* must only return */
	return 0;
}

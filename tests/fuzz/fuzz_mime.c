/* tests/fuzz/fuzz_mime.c - any bytes give a sound MIME tree, and all that reads it stays in
 * bounds. */
#include "must.h"
#include "unit/mail/mime_check.h"

#include "relayd/mail/charset.h"
#include "relayd/mail/date.h"
#include "relayd/mail/encoded_word.h"
#include "relayd/mail/text.h"

#include <stdlib.h>

#define OUT_MAX (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
read_fields(struct slice header, struct buf *out)
{
	struct header_iter it = header_iter_of(header);
	struct header_field field;
	struct date date;

	while (header_next(&it, &field)) {
		buf_reset(out);
		header_decode(field.body, out);
		MUST(utf8_valid(buf_slice(out)));
		MUST(!slice_has(buf_slice(out), '\n') && !slice_has(buf_slice(out), '\0'));
		(void)date_parse(field.body, &date); /* must only return */
	}
}

static void
read_part(const struct mime *mime, const struct mime_part *p, struct buf *scratch, struct buf *out)
{
	read_fields(mime_header(mime, p), out);
	buf_reset(out);
	if (mime_filename(p, out))
		MUST(utf8_valid(buf_slice(out)));
	buf_reset(out);
	mime_decode(mime, p, out);
	buf_reset(out);
	text_of_part(mime, p, scratch, out);
	MUST(utf8_valid(buf_slice(out)));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool opened;
	struct slice in = slice_of(data, size);
	struct arena arena = arena_of(MIME_ARENA_BYTES(size));
	struct buf scratch = buf_heap(OUT_MAX), out = buf_heap(OUT_MAX);
	uint32_t number[3] = { size > 0 ? data[0] % 4u : 0, size > 1 ? data[1] % 4u : 0, 1 };
	struct mime mime;

	if (!opened)
		charset_open();
	opened = true;
	MUST(mime_parse(in, &arena, &mime) == 0);
	mime_check(&mime);
	for (size_t i = 0; i < mime.n_parts && i < 50; i++)
		read_part(&mime, &mime.parts[i], &scratch, &out);
	for (size_t n = 0; n <= 3; n++)
		(void)mime_numbered(&mime, number, n); /* must only return */
	buf_fini(&scratch);
	buf_fini(&out);
	arena_fini(&arena);
	return 0;
}

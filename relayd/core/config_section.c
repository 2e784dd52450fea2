/* relayd/core/config_section.c - typed values out of a section of the config, and faults with their
 * line. */
#include "relayd/core/config_section.h"

#include "relayd/core/config_value.h"

#include <idn2.h>
#include <stdio.h>
#include <string.h>

#define HELP_MAX 400

int
section_line(const struct section *s, const char *option)
{
	int line = config_outline_line(s->all->outline, s->name, s->title, option);

	return line > 0 ? line : config_outline_line(s->all->outline, s->name, s->title, "");
}

int
section_wrong(const struct section *s, const char *option, const char *value, const char *expected)
{
	return config_fail(s->all, s->err, section_line(s, option), "%s = %s: expected %s", option,
	    value, expected);
}

const char *
section_keep(const struct section *s, const char *text)
{
	return text != NULL ? arena_copy(&s->all->arena, slice_str(text)).p : NULL;
}

/* The A-labels of a domain that is not ASCII, behind its "*." or "."; NULL for what IDNA does not
 * know. */
static const char *
a_labels(const struct section *s, const char *text)
{
	size_t wild = strspn(text, "*.");
	const char *kept;
	char *ascii;

	if (idn2_to_ascii_8z(text + wild, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK)
		return NULL;
	kept = arena_printf(&s->all->arena, "%.*s%s", (int)wild, text, ascii);
	idn2_free(ascii);
	return kept;
}

const char *
section_keep_lower(const struct section *s, const char *text)
{
	const char *ascii = slice_is_ascii(slice_str(text)) ? NULL : a_labels(s, text);
	struct slice copy = arena_copy(&s->all->arena, slice_str(ascii != NULL ? ascii : text));
	char *p = (char *)(uintptr_t)copy.p; /* ours: just copied */

	for (size_t i = 0; i < copy.len && p != NULL; i++)
		p[i] = slice_lower(p[i]);
	return p;
}

int
section_string(const struct section *s, const char *option, const char **out)
{
	const char *text = cfg_getstr(s->cfg, option);

	if (text != NULL && *text == '\0')
		return section_wrong(s, option, "\"\"", "a value");
	*out = section_keep(s, text);
	return 0;
}

int
section_list(const struct section *s, const char *option, bool lower, struct config_strings *out)
{
	unsigned n = cfg_size(s->cfg, option);

	*out = (struct config_strings){ .n = n };
	out->v = arena_alloc(&s->all->arena, (n + 1) * sizeof(*out->v));
	for (unsigned i = 0; i < n; i++) {
		const char *text = cfg_getnstr(s->cfg, option, i);

		if (text == NULL || *text == '\0')
			return section_wrong(s, option, "\"\"", "a value");
		if (out->v == NULL || (out->v[i] = lower ? section_keep_lower(s, text)
							 : section_keep(s, text)) == NULL)
			return config_fail(
			    s->all, s->err, section_line(s, option), "%s is too long", option);
	}
	return 0;
}

static bool
any_count(const char *text, uint32_t *out)
{
	*out = 0;
	return strcmp(text, "any") == 0 || (config_count(text, out) && *out > 0);
}

static bool
any_duration(const char *text, uint32_t *out)
{
	*out = UINT32_MAX;
	return strcmp(text, "any") == 0 || (config_duration(text, out) && *out > 0);
}

static bool
any_pace(const char *text, struct config_pace *out)
{
	*out = (struct config_pace){ 0 };
	return strcmp(text, "any") == 0 || config_pace(text, &out->bytes, &out->seconds);
}

#define READ_WITH(name, type, parse, expected)                                                     \
	int section_##name(const struct section *s, const char *option, type *out)                 \
	{                                                                                          \
		const char *text = cfg_getstr(s->cfg, option);                                     \
                                                                                                   \
		return parse(text, out) ? 0 : section_wrong(s, option, text, expected);            \
	}
READ_WITH(duration, uint32_t, config_duration, "a duration such as 30s, 5m, 4h or 7d")
READ_WITH(duration_ms, uint32_t, config_duration_ms, "a duration such as 500ms, 5s or 1m")
READ_WITH(bytes, uint64_t, config_bytes, "a size such as 64K, 50M or 1G")
READ_WITH(count, uint32_t, config_count, "a number")
READ_WITH(any_count, uint32_t, any_count, "a number from 1 on, or any")
READ_WITH(any_duration, uint32_t, any_duration, "a duration such as 30s, 5m, 4h or 7d, or any")
READ_WITH(any_pace, struct config_pace, any_pace, "a size over a duration such as 16K/2m, or any")
READ_WITH(flag, bool, config_flag, "yes or no")

/* One of the words; *out is its place among them. */
int
section_word(
    const struct section *s, const char *option, const char *const *words, size_t n, int *out)
{
	const char *text = cfg_getstr(s->cfg, option);
	char expected[160] = "";
	size_t used = 0;

	for (size_t i = 0; i < n; i++) {
		if (strcmp(text, words[i]) == 0) {
			*out = (int)i;
			return 0;
		}
		if (used < sizeof(expected))
			used += (size_t)snprintf(expected + used, sizeof(expected) - used, "%s%s",
			    i == 0      ? ""
			    : i + 1 < n ? ", "
					: " or ",
			    words[i]);
	}
	return section_wrong(s, option, text, expected);
}
struct section
section_of(const struct section *root, const char *name, unsigned n)
{
	cfg_t *cfg = cfg_getnsec(root->cfg, name, n);
	const char *title = cfg_title(cfg);

	return (struct section){ .all = root->all,
		.cfg = cfg,
		.name = name,
		.title = title != NULL ? title : "",
		.err = root->err };
}

/* ---- what several sections have -------------------------------------------------------------- */

int
section_networks(const struct section *s, const char *name, struct cidr **networks, size_t *count)
{
	unsigned n = cfg_size(s->cfg, name);

	*networks = arena_alloc(&s->all->arena, (n + 1) * sizeof(**networks));
	if (*networks == NULL)
		return config_fail(s->all, s->err, section_line(s, name), "%s is too long", name);
	for (unsigned i = 0; i < n; i++) {
		const char *text = cfg_getnstr(s->cfg, name, i);

		if (!cidr_parse(slice_str(text), &(*networks)[i]))
			return section_wrong(s, name, text,
			    "an address or network such as 192.0.2.0/24 or 2001:db8::/32, no host "
			    "bits set");
	}
	*count = n;
	return 0;
}

/* It ends up in reply lines, whole: RFC 5321 section 4.5.3.1.5. */
int
section_help(const struct section *s, const char **out)
{
	if (section_string(s, "help", out) < 0)
		return -1;
	for (const char *p = *out; p != NULL && *p != '\0'; p++)
		if (*p < ' ' || *p > '~' || p - *out >= HELP_MAX)
			return section_wrong(
			    s, "help", *out, "at most 400 printable ASCII characters");
	return 0;
}

int
section_message_size(const struct section *s, uint64_t bytes)
{
	return bytes >= 1024 && bytes <= (1ull << 32)
		   ? 0
		   : section_wrong(
			 s, "message-size", cfg_getstr(s->cfg, "message-size"), "1K to 4G");
}

int
section_own_count(const struct section *s, const char *option, uint32_t *out)
{
	if (cfg_getstr(s->cfg, option) == NULL)
		return 0;
	if (section_count(s, option, out) < 0)
		return -1;
	return *out > 0 ? 0 : section_wrong(s, option, "0", "at least 1");
}

int
section_rate(const struct section *s, const char *option, uint32_t *n, uint32_t *seconds)
{
	const char *text = cfg_getstr(s->cfg, option);
	const char *slash = text != NULL ? strchr(text, '/') : NULL;
	char number[16];

	if (text == NULL)
		return 0;
	(void)snprintf(
	    number, sizeof(number), "%.*s", slash != NULL ? (int)(slash - text) : 0, text);
	if (slash == NULL || slash - text >= (int)sizeof(number) || !config_count(number, n) ||
	    !config_duration(slash + 1, seconds) || *n == 0 || *seconds == 0)
		return section_wrong(s, option, text, "a number in a time, such as 100/1m");
	return 0;
}

int
section_mechanisms(const struct section *s, struct config_mechanisms *m)
{
	unsigned n = cfg_size(s->cfg, "mechanisms"), set = 0;
	char storage[MECHANISMS_TEXT_MAX];
	struct buf all = buf_over(storage, sizeof(storage) - 1);
	int word = 0;

	mechanisms_put(&all, (1u << MECHANISM_COUNT) - 1, " ");
	storage[all.len] = '\0';
	for (unsigned i = 0; i < n; i++) {
		const char *name = cfg_getnstr(s->cfg, "mechanisms", i);
		enum mechanism one = mechanism_named(slice_str(name));

		if (one == MECHANISM_COUNT)
			return section_wrong(s, "mechanisms", name, storage + 1);
		set |= MECHANISM_BIT(one);
	}
	if (n > 0)
		*m = (struct config_mechanisms){ set, true, m->without_tls };
	if (cfg_getstr(s->cfg, "without-tls") == NULL)
		return 0;
	if (SECTION_WORD(s, "without-tls", &word, "no", "hashed", "any") < 0)
		return -1;
	m->without_tls = word == 0 ? 0 : word == 1 ? ~MECHANISMS_READABLE : ~0u;
	return 0;
}

/* relayd/core/config_value.c - the value types of the config: durations, sizes, numbers, flags. */
#include "relayd/core/config_value.h"

#include "relayd/core/slice.h"

#include <math.h>
#include <stdlib.h>

#define DURATION_MAX_S (10u * 366 * 24 * 3600)

struct unit {
	const char *suffix;
	uint64_t factor;
};

/* A number of at most max with one of the units behind it; the factor is multiplied in. */
static bool
with_unit(const char *text, const struct unit *units, size_t n, uint64_t max, uint64_t *out)
{
	for (size_t i = 0; i < n; i++) {
		struct slice digits = slice_str(text);
		uint64_t value;

		if (!slice_chop(&digits, units[i].suffix) ||
		    !slice_u64(digits, max / units[i].factor, &value))
			continue;
		*out = value * units[i].factor;
		return true;
	}
	return false;
}

bool
config_duration(const char *text, uint32_t *seconds)
{
	static const struct unit units[] = { { "s", 1 }, { "m", 60 }, { "h", 3600 },
		{ "d", 86400 } };
	uint64_t value;

	if (!with_unit(text, units, ARRAY_LEN(units), DURATION_MAX_S, &value))
		return false;
	*seconds = (uint32_t)value;
	return true;
}

bool
config_duration_ms(const char *text, uint32_t *ms)
{
	static const struct unit units[] = {
		{ "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 }
	};
	uint64_t value;

	if (!with_unit(text, units, ARRAY_LEN(units), UINT32_MAX, &value))
		return false;
	*ms = (uint32_t)value;
	return true;
}

bool
config_bytes(const char *text, uint64_t *bytes)
{
	static const struct unit units[] = {
		{ "K", 1ull << 10 }, { "M", 1ull << 20 }, { "G", 1ull << 30 }, { "T", 1ull << 40 },
		{ "", 1 },
	};

	return with_unit(text, units, ARRAY_LEN(units), INT64_MAX, bytes);
}

bool
config_pace(const char *text, uint32_t *bytes, uint32_t *seconds)
{
	struct slice size = slice_until(slice_str(text), '/');
	char copy[24];
	uint64_t n;
	uint32_t s;

	if (size.len >= sizeof(copy) || text[size.len] != '/')
		return false;
	memcpy(copy, size.p, size.len);
	copy[size.len] = '\0';
	if (!config_bytes(copy, &n) || n == 0 || n > UINT32_MAX ||
	    !config_duration(text + size.len + 1, &s) || s == 0)
		return false;
	*bytes = (uint32_t)n;
	*seconds = s;
	return true;
}

bool
config_number(const char *text, double *number)
{
	struct slice s = slice_str(text);
	char *end;
	double value;

	if (s.len == 0 || s.len > 20 || strspn(text, "+-.0123456789") != s.len)
		return false;
	value = strtod(text, &end);
	if (*end != '\0' || end == text || !isfinite(value))
		return false;
	*number = value;
	return true;
}

bool
config_count(const char *text, uint32_t *count)
{
	uint64_t value;

	if (!slice_u64(slice_str(text), UINT32_MAX, &value))
		return false;
	*count = (uint32_t)value;
	return true;
}

bool
config_flag(const char *text, bool *flag)
{
	static const char *const words[] = { "no", "yes", "false", "true", "off", "on" };

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (strcmp(text, words[i]) == 0) {
			*flag = i % 2 == 1;
			return true;
		}
	return false;
}

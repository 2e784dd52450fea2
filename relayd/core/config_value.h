/* relayd/core/config_value.h - the value types of the config: durations, sizes, numbers, flags. */
#ifndef RELAYD_CORE_CONFIG_VALUE_H
#define RELAYD_CORE_CONFIG_VALUE_H

#include <stdbool.h>
#include <stdint.h>

/* Each is false, and *out untouched, when text is not of the type or out of range. */

/* "30s" "5m" "4h" "7d", at most 10 years. */
bool config_duration(const char *text, uint32_t *seconds);
/* The same and "500ms". */
bool config_duration_ms(const char *text, uint32_t *ms);
/* "100" "64K" "50M" "1G" "2T", K = 1024. */
bool config_bytes(const char *text, uint64_t *bytes);
/* "16K/2m": a size over a duration, both above 0. */
bool config_pace(const char *text, uint32_t *bytes, uint32_t *seconds);
/* "4", "4.5", "-1.25": no exponent, no inf. */
bool config_number(const char *text, double *number);
bool config_count(const char *text, uint32_t *count);
/* "yes" "no" "true" "false" "on" "off". */
bool config_flag(const char *text, bool *flag);

#endif

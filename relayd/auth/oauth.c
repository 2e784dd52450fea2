/* relayd/auth/oauth.c - OAUTHBEARER and XOAUTH2: what the client says, and what is known of a
 * token. */
#include "relayd/auth/oauth.h"

#include <jansson.h>

#define KVSEP '\x01'

static struct slice
take_until(struct slice *in, char c)
{
	struct slice part = slice_until(*in, c);

	*in = slice_drop(*in, part.len + 1);
	return part;
}

/* gs2-header of RFC 5801 section 4: "n,a=user@example.org,". */
static bool
take_header(struct slice *in, struct slice *authzid)
{
	struct slice flag = take_until(in, ','), name;

	if (!slice_eq(flag, SLICE("n")) && !slice_eq(flag, SLICE("y")))
		return false;
	if (!slice_has(*in, ','))
		return false;
	name = take_until(in, ',');
	if (name.len > 0 && (!slice_starts(name, SLICE("a=")) || slice_has(name, KVSEP)))
		return false;
	*authzid = slice_drop(name, 2);
	return true;
}

/* b64token of RFC 6750 section 2.1. */
static bool
is_token(struct slice token)
{
	size_t i = 0;

	while (i < token.len && token.p[i] != '=') {
		char c = slice_lower(token.p[i++]);

		if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') &&
		    (c == '\0' || strchr("-._~+/", c) == NULL))
			return false;
	}
	for (size_t k = i; k < token.len; k++)
		if (token.p[k] != '=')
			return false;
	return i > 0;
}

static bool
take_auth(struct slice value, struct oauth_request *out)
{
	if (value.len == 0)
		return true;
	if (!slice_istarts(value, SLICE("Bearer ")))
		return false;
	out->token = slice_trim(slice_drop(value, 7));
	return is_token(out->token);
}

bool
oauth_parse(struct slice message, struct oauth_request *out)
{
	bool has_auth = false;

	*out = (struct oauth_request){ .authzid = SLICE(""), .token = SLICE("") };
	/* kvsep, pairs that end with one, and one more. */
	if (slice_has(message, '\0') || !take_header(&message, &out->authzid) || message.len < 2 ||
	    message.p[0] != KVSEP || message.p[message.len - 1] != KVSEP)
		return false;
	message = slice_head(slice_drop(message, 1), message.len - 2);
	while (message.len > 0) {
		struct slice pair, key;

		if (!slice_has(message, KVSEP))
			return false;
		pair = take_until(&message, KVSEP);
		key = slice_until(pair, '=');
		if (key.len == 0 || key.len == pair.len)
			return false;
		if (!slice_eq(key, SLICE("auth")))
			continue; /* host, port and what is to come */
		if (has_auth || !take_auth(slice_drop(pair, key.len + 1), out))
			return false;
		has_auth = true;
	}
	return has_auth;
}

bool
xoauth2_parse(struct slice message, struct oauth_request *out)
{
	struct slice user = take_until(&message, KVSEP), auth = take_until(&message, KVSEP);

	*out = (struct oauth_request){ .authzid = SLICE(""), .token = SLICE("") };
	if (slice_has(user, '\0') || !slice_starts(user, SLICE("user=")) ||
	    !slice_starts(auth, SLICE("auth=")) || message.len != 1 || message.p[0] != KVSEP)
		return false;
	out->authzid = slice_drop(user, 5);
	return out->authzid.len > 0 && take_auth(slice_drop(auth, 5), out) && out->token.len > 0;
}

static const char *
name_in(const json_t *answer)
{
	const char *name = json_string_value(json_object_get(answer, "username"));

	return name != NULL ? name : json_string_value(json_object_get(answer, "sub"));
}

enum oauth_verdict
oauth_read(struct slice json, int64_t wall_s, struct buf *name)
{
	json_t *answer = json_loadb(json.p, json.len, JSON_REJECT_DUPLICATES, NULL);
	const json_t *active = json_object_get(answer, "active");
	const json_t *expires = json_object_get(answer, "exp");
	enum oauth_verdict verdict = OAUTH_UNKNOWN;

	if (json_is_false(active))
		verdict = OAUTH_INACTIVE;
	else if (json_is_true(active) && (expires == NULL || json_is_number(expires)))
		verdict = OAUTH_ACTIVE;
	if (verdict == OAUTH_ACTIVE && expires != NULL &&
	    json_number_value(expires) <= (double)wall_s)
		verdict = OAUTH_INACTIVE;
	if (verdict == OAUTH_ACTIVE && name_in(answer) == NULL)
		verdict = OAUTH_UNKNOWN;
	if (verdict == OAUTH_ACTIVE)
		buf_puts(name, name_in(answer));
	json_decref(answer);
	return verdict;
}

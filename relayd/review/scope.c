/* relayd/review/scope.c - whose held mail a user sees: "*", a domain or an address. */
#include "relayd/review/scope.h"

#include "relayd/mail/address.h"

bool
scope_name(struct slice text, char out[static SCOPE_BYTES_MAX + 1])
{
	struct slice domain = scope_domain(text);

	if (text.len == 0 || text.len > SCOPE_BYTES_MAX || text.p[0] == '@' ||
	    (domain.len == 0 && text.p[text.len - 1] == '@'))
		return false;
	for (size_t i = 0; i < text.len; i++) {
		if ((unsigned char)text.p[i] <= ' ' || text.p[i] == 0x7f)
			return false;
		out[i] = slice_lower(text.p[i]);
	}
	out[text.len] = '\0';
	return true;
}

bool
scope_has(struct slice scope, struct slice forward_path)
{
	if (slice_eq(scope, SLICE("*")))
		return true;
	if (slice_has(scope, '@'))
		return slice_ieq(scope, forward_path);
	return slice_ieq(scope, scope_domain(forward_path));
}

struct slice
scope_domain(struct slice forward_path)
{
	struct slice local, domain;

	return address_split(forward_path, &local, &domain) ? domain : SLICE("");
}

/* relayd/delivery/tls_policy.c - which TLS a host of a next hop is used with, and who says so. */
#include "relayd/delivery/tls_policy.h"

struct tls_policy
tls_policy_of(const struct route_hop *hop, size_t i, const char *host, bool unix_socket)
{
	struct tls_policy policy = { .need = SMTP_CLIENT_TLS_TRY, .by = "route" };

	(void)host; /* for those who ask what it publishes */
	if (hop->targets[i].implicit_tls)
		policy.need = SMTP_CLIENT_TLS_MUST;
	else if (unix_socket || hop->tls == CONFIG_TLS_OFF)
		policy.need = SMTP_CLIENT_TLS_OFF;
	else if (hop->tls == CONFIG_TLS_VERIFY || hop->tls == CONFIG_TLS_REQUIRED)
		policy.need = SMTP_CLIENT_TLS_MUST;
	policy.any_certificate = hop->tls != CONFIG_TLS_VERIFY;
	policy.plain_after = policy.need == SMTP_CLIENT_TLS_TRY;
	return policy;
}

/* relayd/intake/relay.c - for whom we take mail, and to where. */
#include "relayd/intake/relay.h"

enum relay_verdict
relay_check(
    const struct config *cfg, const struct relay_client *client, const struct address *forward_path)
{
	if (forward_path->kind == ADDRESS_POSTMASTER)
		return RELAY_POSTMASTER;
	if (forward_path->kind != ADDRESS_MAILBOX || (client->submission && !client->trusted))
		return RELAY_DENIED;
	if (!forward_path->literal && config_is_our_domain(cfg, forward_path->domain))
		return !client->trusted && address_hides_route(forward_path) ? RELAY_ROUTED
									     : RELAY_OURS;
	return client->trusted ? RELAY_ONWARD : RELAY_DENIED;
}

/* relayd/intake/crowd.c - notices when every client seems to be one private address. */
#include "relayd/intake/crowd.h"

#include "relayd/core/cidr.h"

/* RFC 1918, RFC 6598 (carrier NAT), RFC 3927, RFC 4193, RFC 4291 section 2.5.6, and loopback. */
static const char *const private_nets[] = { "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",
	"100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8", "fc00::/7", "fe80::/10", "::1/128" };

static bool
is_private(struct slice addr)
{
	for (size_t i = 0; i < sizeof(private_nets) / sizeof(private_nets[0]); i++) {
		struct cidr net;

		if (cidr_parse(slice_str(private_nets[i]), &net) && cidr_has(&net, addr))
			return true;
	}
	return false;
}

bool
crowd_is_one(struct crowd *c, struct slice addr, uint64_t now_ms)
{
	if (addr.len == 0)
		return false;
	if (!slice_eq(addr, slice_of(c->addr, c->addr_len))) {
		memcpy(c->addr, addr.p, addr.len);
		c->addr_len = (uint8_t)addr.len;
		c->same = 1;
		return false;
	}
	if (c->same < CROWD_CLIENTS)
		c->same++;
	if (c->same < CROWD_CLIENTS || now_ms < c->quiet_until_ms)
		return false;
	/* Looked at once in a while, also where it is one public address and no matter. */
	c->quiet_until_ms = now_ms + CROWD_AGAIN;
	return is_private(addr);
}

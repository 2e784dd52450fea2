/* relayd/core/cidr.c - IP addresses and networks; IPv4-mapped IPv6 is always taken as IPv4. */
#include "relayd/core/cidr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>

struct slice
ip_normal(struct slice addr)
{
	static const char mapped[12] = "\0\0\0\0\0\0\0\0\0\0\xff\xff";

	return addr.len == 16 && memcmp(addr.p, mapped, 12) == 0 ? slice_drop(addr, 12) : addr;
}

/* The first bits of a and b are the same. */
static bool
same_bits(const uint8_t *a, const uint8_t *b, unsigned bits)
{
	unsigned rest = bits % 8;

	return memcmp(a, b, bits / 8) == 0 &&
	    (rest == 0 || (a[bits / 8] ^ b[bits / 8]) >> (8 - rest) == 0);
}

bool
cidr_parse(struct slice text, struct cidr *out)
{
	struct slice host = slice_until(text, '/');
	bool prefixed = host.len < text.len;
	char name[IP_TEXT_BYTES];
	uint64_t bits;
	struct slice plain;
	uint8_t masked[16] = { 0 };

	if (host.len >= sizeof(name))
		return false;
	memcpy(name, host.p, host.len);
	name[host.len] = '\0';
	*out = (struct cidr){ 0 };
	if (inet_pton(AF_INET, name, out->addr) == 1)
		out->len = 4;
	else if (inet_pton(AF_INET6, name, out->addr) == 1)
		out->len = 16;
	else
		return false;
	bits = (uint64_t)out->len * 8;
	if (prefixed && !slice_u64(slice_drop(text, host.len + 1), bits, &bits))
		return false;
	plain = ip_normal(slice_of(out->addr, out->len));
	if (plain.len < out->len && bits >= 96) {
		memmove(out->addr, plain.p, 4);
		out->len = 4;
		bits -= 96;
	}
	out->bits = (uint8_t)bits;
	memcpy(masked, out->addr, (bits + 7) / 8);
	if (bits % 8 != 0)
		masked[bits / 8] &= (uint8_t)(0xff00u >> (bits % 8));
	return memcmp(masked, out->addr, out->len) == 0;
}

bool
cidr_has(const struct cidr *net, struct slice addr)
{
	addr = ip_normal(addr);
	return addr.len == net->len && same_bits(net->addr, (const uint8_t *)addr.p, net->bits);
}

bool
cidr_any(const struct cidr *nets, size_t n, struct slice addr)
{
	for (size_t i = 0; i < n; i++)
		if (cidr_has(&nets[i], addr))
			return true;
	return false;
}

struct slice
ip_of(const struct sockaddr *sa, uint8_t storage[static 16])
{
	struct slice addr = SLICE("");

	if (sa->sa_family == AF_INET)
		addr = slice_of(&((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
	else if (sa->sa_family == AF_INET6)
		addr = slice_of(&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
	addr = ip_normal(addr);
	memcpy(storage, addr.p, addr.len);
	return slice_of(storage, addr.len);
}

/* As inet_ntop() does, which formats by printf; every session shows its client's address. */
static void
ip4_text(const uint8_t *addr, char *out)
{
	for (int i = 0; i < 4; i++) {
		if (addr[i] >= 100)
			*out++ = (char)('0' + addr[i] / 100);
		if (addr[i] >= 10)
			*out++ = (char)('0' + addr[i] / 10 % 10);
		*out++ = (char)('0' + addr[i] % 10);
		*out++ = i < 3 ? '.' : '\0';
	}
}

void
ip_text(struct slice addr, char out[static IP_TEXT_BYTES])
{
	addr = ip_normal(addr);
	if (addr.len == 4)
		ip4_text((const uint8_t *)addr.p, out);
	else if (addr.len == 0 || inet_ntop(AF_INET6, addr.p, out, IP_TEXT_BYTES) == NULL)
		(void)snprintf(out, IP_TEXT_BYTES, "unix");	/* fits */
}

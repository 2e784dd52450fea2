/* relayd/core/mechanism.c - the SASL mechanisms that there are. */
#include "relayd/core/mechanism.h"

static const char *const names[MECHANISM_COUNT] = {
	[MECHANISM_SCRAM_SHA_256_PLUS] = "SCRAM-SHA-256-PLUS",
	[MECHANISM_SCRAM_SHA_1_PLUS] = "SCRAM-SHA-1-PLUS",
	[MECHANISM_GSSAPI] = "GSSAPI",
	[MECHANISM_EXTERNAL] = "EXTERNAL",
	[MECHANISM_OAUTHBEARER] = "OAUTHBEARER",
	[MECHANISM_XOAUTH2] = "XOAUTH2",
	[MECHANISM_SCRAM_SHA_256] = "SCRAM-SHA-256",
	[MECHANISM_SCRAM_SHA_1] = "SCRAM-SHA-1",
	[MECHANISM_PLAIN] = "PLAIN",
	[MECHANISM_LOGIN] = "LOGIN",
	[MECHANISM_CRAM_MD5] = "CRAM-MD5",
};

const char *
mechanism_name(enum mechanism m)
{
	return names[m];
}

enum mechanism
mechanism_named(struct slice name)
{
	unsigned m = 0;

	while (m < MECHANISM_COUNT && !slice_ieq(name, slice_str(names[m])))
		m++;
	return (enum mechanism)m;
}

void
mechanisms_put(struct buf *out, unsigned set, const char *sep)
{
	for (unsigned m = 0; m < MECHANISM_COUNT; m++) {
		if ((set & MECHANISM_BIT(m)) == 0)
			continue;
		buf_puts(out, sep);
		buf_puts(out, names[m]);
	}
}

/* relayd/auth/keytab.c - the Kerberos keys of the service, for GSSAPI. */
#include "relayd/auth/keytab.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static int memory = -1;

int
keytab_replace(struct slice bytes, struct err *err)
{
	if (memory < 0)
		return err_set(err, ERR_NOT_FOUND, "a keytab needs a restart");
	if (ftruncate(memory, 0) < 0 || pwrite(memory, bytes.p, bytes.len, 0) != (ssize_t)bytes.len)
		return err_sys(err, errno, "keep the keytab in memory");
	return 0;
}

int
keytab_open(struct slice bytes, const char *dir, struct err *err)
{
	char name[64], cache[4096];

	memory = memfd_create("keytab", MFD_CLOEXEC);
	if (memory < 0)
		return err_sys(err, errno, "memory for the keytab");
	(void)snprintf(name, sizeof(name), "FILE:/proc/self/fd/%d", memory); /* fits */
	if ((size_t)snprintf(cache, sizeof(cache), "file2:%s/krb5.rcache", dir) >= sizeof(cache))
		return err_set(err, ERR_LIMIT, "%s: the path is too long", dir);
	if (setenv("KRB5_KTNAME", name, 1) < 0 || setenv("KRB5RCACHENAME", cache, 1) < 0)
		return err_sys(err, errno, "set the keytab");
	return keytab_replace(bytes, err);
}

bool
keytab_is_open(void)
{
	return memory >= 0;
}

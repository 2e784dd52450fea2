/* relayd/net/dns_hosts.c - the hosts file, read once: names that an admin gave to addresses. */
#include "relayd/net/dns_hosts.h"

#include "relayd/core/cidr.h"

#include <stdio.h>
#include <stdlib.h>

struct host {
	struct cidr addr;
	struct slice names; /* of its line, with what is between them */
};

struct dns_hosts {
	char *text;
	struct host *hosts;
	size_t n;
};

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* The next word off the front of *s. */
static struct slice
take_word(struct slice *s)
{
	struct slice word;
	size_t n = 0;

	while (s->len > 0 && is_blank(s->p[0]))
		*s = slice_drop(*s, 1);
	while (n < s->len && !is_blank(s->p[n]))
		n++;
	word = slice_head(*s, n);
	*s = slice_drop(*s, n);
	return word;
}

static int
add_line(struct dns_hosts *hosts, struct slice line)
{
	struct slice rest = slice_until(line, '#'), ip = take_word(&rest);
	struct host *grown, host = { .names = rest };

	if (slice_has(ip, '/') || !cidr_parse(ip, &host.addr))
		return 0; /* a comment, or something like fe80::1%lo0 */
	grown = reallocarray(hosts->hosts, hosts->n + 1, sizeof(*grown));
	if (grown == NULL)
		return -1;
	hosts->hosts = grown;
	hosts->hosts[hosts->n++] = host;
	return 0;
}

static void
parse(struct dns_hosts *hosts, struct slice text)
{
	while (text.len > 0) {
		struct slice line = slice_until(text, '\n');

		if (add_line(hosts, line) < 0)
			return; /* out of memory: those so far */
		text = slice_drop(text, line.len + 1);
	}
}

struct dns_hosts *
dns_hosts_read(const char *path)
{
	struct dns_hosts *hosts = calloc(1, sizeof(*hosts));
	FILE *f = fopen(path, "re");

	if (hosts != NULL)
		hosts->text = malloc(DNS_HOSTS_BYTES);
	if (f != NULL && hosts != NULL && hosts->text != NULL) {
		size_t n = fread(hosts->text, 1, DNS_HOSTS_BYTES, f);
		char *fit = realloc(hosts->text, n + 1);

		hosts->text = fit != NULL ? fit : hosts->text;
		parse(hosts, slice_of(hosts->text, n));
	}
	if (f != NULL)
		(void)fclose(f); /* read only */
	return hosts;
}

void
dns_hosts_free(struct dns_hosts *hosts)
{
	if (hosts == NULL)
		return;
	free(hosts->hosts);
	free(hosts->text);
	free(hosts);
}

static bool
has_name(const struct host *host, struct slice name)
{
	struct slice rest = host->names, word;

	while ((word = take_word(&rest)).len > 0)
		if (slice_ieq(word, name))
			return true;
	return false;
}

size_t
dns_hosts_find(const struct dns_hosts *hosts, enum dns_type type, struct slice name,
    struct dns_record *records, size_t max)
{
	size_t n = 0, len = type == DNS_A ? 4 : 16;

	(void)slice_chop(&name, ".");
	for (size_t i = 0; hosts != NULL && i < hosts->n && n < max; i++)
		if (hosts->hosts[i].addr.len == len && has_name(&hosts->hosts[i], name))
			records[n++] =
			    (struct dns_record){ .data = slice_of(hosts->hosts[i].addr.addr, len) };
	return n;
}

/* relayd/relayctl_check.c - relayctl check: what would fail, found before mail does. */
#include "relayd/config_try.h"
#include "relayd/core/clock.h"
#include "relayd/core/config_source.h"
#include "relayd/net/dns.h"
#include "relayd/relayctl.h"
#include "relayd/supervisor/check.h"
#include "relayd/supervisor/owner.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECT_MS   5000
#define CERT_WARN_S  (14 * 86400)
#define FDS_BESIDE   200	/* of a worker: logs, resolver, next hops */

enum grade { GOOD, ODD, BAD };

struct checking {
	struct ctl *ctl;
	const struct config *cfg;
	unsigned bad;
	unsigned *odd;	/* shared with the child that tries the config */
};

static void say(struct checking *c, enum grade grade, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static void
say(struct checking *c, enum grade grade, const char *what, const char *fmt, ...)
{
	static const char *const words[] = { "ok", "warning", "FAILS" };
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);	/* cut short is good enough */
	va_end(ap);
	*c->odd += grade == ODD;
	c->bad += grade == BAD;
	if (c->ctl->json) {
		json_t *line = json_pack(
		    "{s:s, s:s, s:s}", "check", what, "result", words[grade], "text", text);

		ctl_print_json(line);
		json_decref(line);
		return;
	}
	printf("%-8s %-12s %s\n", words[grade], what, text);
}

static struct checking *warned;	/* config_try() has no argument of ours */

/* As root in a child, which ends without a flush of its own. */
static void
on_warning(const char *text)
{
	say(warned, ODD, "config", "%s", text);
	(void)fflush(stdout);	/* main() checks standard output */
}

static void
check_whole_config(struct checking *c)
{
	struct err err = { 0 };

	warned = c;
	for (size_t i = 0; config_warning(c->cfg, i) != NULL; i++)
		say(c, ODD, "config", "%s", config_warning(c->cfg, i));
	(void)fflush(stdout);	/* as above; and the child has nothing of it to say again */
	if (check_unprivileged(c->cfg, config_try, on_warning, &err) < 0)
		say(c, BAD, "config", "%s", err.msg);
	else
		say(c, GOOD, "config", "%s, %zu filters", c->ctl->config_path, c->cfg->n_filters);
}

static void
check_directory(struct checking *c, const char *path, const struct owner *owner)
{
	struct stat st;
	struct statvfs fs;

	if (stat(path, &st) < 0) {
		say(c, errno == ENOENT ? GOOD : BAD, "directory", "%s: %s", path,
		    errno == ENOENT ? "is made at the first start" : strerror(errno));
		return;
	}
	if (st.st_uid != owner->uid || !S_ISDIR(st.st_mode)) {
		say(c, BAD, "directory", "%s belongs to uid %u and not to %u, whose role uses it",
		    path, (unsigned)st.st_uid, (unsigned)owner->uid);
		return;
	}
	if (statvfs(path, &fs) == 0 && path == c->cfg->spool &&
	    (uint64_t)fs.f_bavail * fs.f_frsize <= c->cfg->queue.reserve) {
		say(c, BAD, "directory",
		    "%s has %llu MiB free, and queue { reserve } is %llu MiB: all mail "
		    "is put off",
		    path, (unsigned long long)fs.f_bavail * fs.f_frsize >> 20,
		    (unsigned long long)c->cfg->queue.reserve >> 20);
		return;
	}
	say(c, GOOD, "directory", "%s", path);
}

static void
check_owners(struct checking *c)
{
	struct owners owners;
	struct err err = { 0 };

	if (owners_find(c->cfg, &owners, &err) < 0) {
		say(c, BAD, "users", "%s", err.msg);
		return;
	}
	check_directory(c, c->cfg->run, &owners.mail);
	check_directory(c, c->cfg->spool, &owners.mail);
	check_directory(c, c->cfg->state, &owners.mail);
	check_directory(c, c->cfg->quarantine.store, &owners.review);
}

/* The first is what clients see that name no host. */
static void
check_certificate(struct checking *c, const char *path, struct slice pem, bool first)
{
	BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.len);
	X509 *cert = bio != NULL ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
	int days = 0, seconds = 0;

	if (cert == NULL || ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(cert)) != 1)
		say(c, BAD, "certificate", "%s cannot be read", path);
	else if (days < 0 || seconds < 0)
		say(c, BAD, "certificate", "%s has expired", path);
	else if ((int64_t)days * 86400 + seconds < CERT_WARN_S)
		say(c, ODD, "certificate", "%s expires in %d days", path, days);
	else if (first && X509_check_host(cert, c->cfg->hostname, 0, 0, NULL) != 1)
		say(c, ODD, "certificate", "%s is not for %s", path, c->cfg->hostname);
	else
		say(c, GOOD, "certificate", "%s, %d days left", path, days);
	X509_free(cert);
	BIO_free(bio);
}

static void
check_certificates(struct checking *c)
{
	struct slice pem;

	for (size_t i = 0; i < c->cfg->tls.certificates.n; i++)
		if (config_file(c->cfg, c->cfg->tls.certificates.v[i], &pem))
			check_certificate(c, c->cfg->tls.certificates.v[i], pem, i == 0);
	if (c->cfg->tls.certificates.n == 0)
		say(c, ODD, "certificate", "none: mail and logins are not encrypted");
}

static int
connect_in_time(int family, const struct sockaddr *addr, socklen_t len)
{
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct pollfd ready = { .fd = fd, .events = POLLOUT };
	int why = 0;
	socklen_t size = sizeof(why);

	if (fd < 0)
		return errno;
	if (connect(fd, addr, len) < 0 && errno != EINPROGRESS)
		why = errno;
	else if (poll(&ready, 1, CONNECT_MS) != 1)
		why = ETIMEDOUT;
	else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &size) < 0)
		why = errno;
	(void)close(fd);	/* nothing was sent */
	return why;
}

static int
try_unix(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(un.sun_path))
		return ENAMETOOLONG;
	memcpy(un.sun_path, path, strlen(path));
	return connect_in_time(AF_UNIX, (const struct sockaddr *)&un, sizeof(un));
}

static void
try_tcp(struct checking *c, const char *target, struct slice host, const char *port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found = NULL;
	char name[256];
	int why = 0;

	if (host.len > 1 && host.p[0] == '[')
		host = slice_of(host.p + 1, host.len - 2);
	(void)snprintf(name, sizeof(name), "%.*s", SLICE_FMT(host));	/* too long: not found */
	why = getaddrinfo(name, port, &hints, &found);
	if (why != 0) {
		say(c, BAD, "next hop", "%s: %s", target, gai_strerror(why));
		return;
	}
	for (const struct addrinfo *a = found; a != NULL; a = a->ai_next) {
		why = connect_in_time(a->ai_family, a->ai_addr, a->ai_addrlen);
		if (why == 0)
			break;
	}
	freeaddrinfo(found);
	say(c, why == 0 ? GOOD : BAD, "next hop", "%s%s%s", target, why != 0 ? ": " : "",
	    why != 0 ? strerror(why) : "");
}

static void
check_hop(struct checking *c, const char *target)
{
	const char *plain = strncmp(target, "lmtp:", 5) == 0 ? target + 5 : target;
	const char *colon = strrchr(plain, ':');
	int why;

	if (strcmp(target, "mx") == 0)
		return;
	if (plain[0] == '/') {
		why = try_unix(plain);
		say(c, why == 0 ? GOOD : BAD, "next hop", "%s%s%s", target, why != 0 ? ": " : "",
		    why != 0 ? strerror(why) : "");
		return;
	}
	if (colon == NULL || strchr(colon, ']') != NULL)
		try_tcp(c, target, slice_str(plain), "25");
	else
		try_tcp(c, target, slice_of(plain, (size_t)(colon - plain)), colon + 1);
}

struct lookup {
	struct dns_query query;
	enum dns_status status;
	bool done;
};

static void
on_answer(struct dns_query *q, const struct dns_answer *answer)
{
	struct lookup *l = q->owner;

	l->status = answer->status;
	l->done = true;
}

static void
look_up(struct checking *c, uv_loop_t *loop, struct dns *dns, const char *name, enum dns_type type,
    const char *what)
{
	struct lookup l = { .query = { .done = on_answer } };
	struct err err = { 0 };

	l.query.owner = &l;
	if (dns_query_start(dns, &l.query, type, slice_str(name), &err) < 0) {
		say(c, ODD, "dns", "%s of %s: %s", what, name, err.msg);
		return;
	}
	while (!l.done && uv_run(loop, UV_RUN_ONCE) != 0)
		continue;
	if (l.status == DNS_OK)
		say(c, GOOD, "dns", "%s of %s", what, name);
	else
		say(c, ODD, "dns", "%s of %s: %s", what, name,
		    l.status == DNS_NXDOMAIN || l.status == DNS_NODATA
			? "there is none"
			: "no answer from the servers");
}

static void
check_dns(struct checking *c)
{
	struct err err = { 0 };
	uv_loop_t loop;
	struct dns *dns;

	if (uv_loop_init(&loop) < 0)
		return;
	dns = dns_open_config(&loop, c->cfg, &err);
	if (dns == NULL) {
		say(c, BAD, "dns", "%s", err.msg);
	} else {
		look_up(c, &loop, dns, c->cfg->hostname, DNS_A, "the address");
		for (size_t i = 0; i < c->cfg->domains.n; i++)
			look_up(c, &loop, dns, c->cfg->domains.v[i], DNS_MX, "the MX");
		dns_close(dns);
	}
	(void)uv_run(&loop, UV_RUN_DEFAULT);	/* close callbacks */
	(void)uv_loop_close(&loop);		/* the process ends */
}

static void
check_limits(struct checking *c)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return;
	if (files.rlim_max < c->cfg->limits.connections + FDS_BESIDE)
		say(c, ODD, "limits", "%llu open files are allowed to a process started from here; "
		    "connections = %u wants more (LimitNOFILE)", (unsigned long long)files.rlim_max,
		    c->cfg->limits.connections);
	else
		say(c, GOOD, "limits", "open files");
}

int
ctl_check(struct ctl *ctl, int argc, char **argv)
{
	struct checking c = { .ctl = ctl };
	struct err err = { 0 };

	(void)argv;
	if (argc > 1)
		return ctl_usage("check");
	c.odd =
	    mmap(NULL, sizeof(*c.odd), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (c.odd == MAP_FAILED)
		return ctl_fail("out of memory");
	/* With the keys, as relayd itself reads it. */
	ctl->cfg = config_load(ctl->config_path, config_source_disk(), &err);
	if (ctl->cfg == NULL)
		return ctl_fail("%s", err.msg);
	c.cfg = ctl->cfg;
	check_whole_config(&c);
	check_owners(&c);
	check_certificates(&c);
	check_dns(&c);
	for (size_t i = 0; i < c.cfg->n_routes; i++)
		for (size_t t = 0; t < c.cfg->routes[i].to.n; t++)
			check_hop(&c, c.cfg->routes[i].to.v[t]);
	if (c.cfg->quarantine.to != NULL)
		check_hop(&c, c.cfg->quarantine.to);
	check_limits(&c);
	if (c.bad > 0)
		return ctl_fail("%u would fail, %u warnings", c.bad, *c.odd);
	return CTL_DONE;
}

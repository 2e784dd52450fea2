/* tests/unit/core/config_test.c - the config file: what is taken, and what is refused with which
 * words. */
#include "unit/unit.h"

#include "relayd/core/buf.h"
#include "relayd/core/config.h"
#include "relayd/core/config_source.h"
#include "relayd/core/config_value.h"

#include <stdio.h>
#include <stdlib.h>

#define PATH "/etc/relayd/relayd.conf"
#define HEAD "hostname = mx.example.org\ndomains = { example.org }\n"
#define ROUTE "route example.org { to = { \"mail1.corp:25\" } }\n"

/* A config as if read from PATH, with one more file beside it. */
static struct config *
load_with(const char *text, const char *path, const char *content, struct err *err)
{
	static struct buf b; /* the outcome borrows its bytes, until the next call */
	struct config_source *src;

	buf_fini(&b);
	b = buf_heap(1 << 20);
	config_source_begin_snapshot(&b, true);
	config_source_put(&b, PATH, slice_str(text));
	if (path != NULL)
		config_source_put(&b, path, slice_str(content));
	*err = (struct err){ 0 };
	src = config_source_snapshot(buf_slice(&b), err);
	ck_assert_ptr_nonnull(src);
	return config_load(PATH, src, err);
}

static const struct {
	const char *text, *msg;
} refused[] = {
	{ HEAD ROUTE "hostnam = x\n", PATH ":4: no such option 'hostnam'" },
	{ HEAD ROUTE "# a\n/* b */ // c\nhostnam = x\n", PATH ":6: no such option 'hostnam'" },
	{ HEAD ROUTE "run = \"/a # \"\nhostnam = x\n", PATH ":5: no such option 'hostnam'" },
	{ HEAD ROUTE "\n/* workers = 2\n", PATH ":5: a comment begins here that is not closed" },
	{ HEAD ROUTE "limits { messagesize = 5M }\n", PATH ":4: no such option 'messagesize'" },
	{ HEAD ROUTE "hostname = b.example.org\n",
	    PATH ":4: hostname is given twice (first on line 1)" },
	{ HEAD ROUTE "limits { recipients = 5\nrecipients = 6 }\n",
	    PATH ":5: recipients is given twice (first on line 4)" },
	{ HEAD ROUTE "dns { }\n\ndns { }\n",
	    PATH ":6: section dns is given twice (first on line 4)" },
	{ HEAD ROUTE ROUTE, PATH ":4: section route example.org is given twice (first on line 3)" },
	{ HEAD ROUTE "route EXAMPLE.org { to = { mx } }\n",
	    PATH ":4: section route EXAMPLE.org is given twice (first on line 3)" },
	{ HEAD,
	    PATH ":2: example.org has no route: add route example.org { to = { \"host:25\" } }" },
	{ HEAD "route \"*\" { to = { mx } }\n",
	    PATH ":2: example.org has no route: add route example.org { to = { \"host:25\" } }" },
	{ "domains = { }\n", PATH ":1: hostname is missing: hostname = mx.example.org" },
	{ HEAD ROUTE "limits { message-size = big }\n",
	    PATH ":4: message-size = big: expected a size such as 64K, 50M or 1G" },
	{ HEAD ROUTE "queue { retry = { 1m, soon } }\n",
	    PATH ":4: retry = soon: expected durations such as 1m, 5m, 1h" },
	{ HEAD ROUTE "networks = { 10.0.0.1/8 }\n", PATH
	    ":4: networks = 10.0.0.1/8: expected an address or network such as 192.0.2.0/24 or "
	    "2001:db8::/32, no host bits set" },
	{ HEAD ROUTE "listener mx { }\n", PATH ":4: listener mx has no address" },
	{ HEAD ROUTE "listener mx { address = { \"*:25\" } tls = implicit }\n",
	    PATH ":4: listener mx: tls = implicit needs tls { certificate key }" },
	{ HEAD ROUTE "listener mx { address = { \"*:25\" } tls = maybe }\n",
	    PATH ":4: tls = maybe: expected off, starttls, required or implicit" },
	{ HEAD ROUTE "listener s { address = { \"*:587\" } auth = required }\n",
	    PATH ":4: listener s: auth = required needs users = FILE" },
	{ HEAD ROUTE "tls { certificate = { /c.pem } key = { /k.pem } }\n",
	    PATH ":4: /c.pem was not handed over" },
	{ HEAD ROUTE "policy example.com { reject = 5 }\n",
	    PATH ":4: policy example.com: expected inbound, outbound, one of domains or the policy "
		 "of a listener" },
	{ HEAD ROUTE "listener a { address = { \"*:25\" } filters = { nix } }\n",
	    PATH ":4: listener a: there is no filter nix" },
	{ HEAD ROUTE "listener a { address = { \"*:25\" } policy = nix }\n",
	    PATH ":4: listener a: there is no policy nix" },
	{ HEAD ROUTE "listener a { address = { \"*:25\" }\nproxy = { 10.0.0.1/8 } }\n",
	    PATH ":5: proxy = 10.0.0.1/8: expected an address or network such as 192.0.2.0/24 or "
		 "2001:db8::/32, no host bits set" },
	{ HEAD ROUTE "listener a { address = { \"*:25\" }\nconnections = 0 }\n",
	    PATH ":5: connections = 0: expected at least 1" },
	{ HEAD ROUTE "listener a { address = { \"*:25\" }\nbanner = \"a\\nb\" }\n",
	    PATH ":5: banner = that: expected printable ASCII on one line" },
	{ HEAD ROUTE "listener a { address = { \"*:25\" }\nmessage-size = 1 }\n",
	    PATH ":5: message-size = 1: expected 1K to 4G" },
	{ HEAD ROUTE "limits {\nsession-time = 0s }\n",
	    PATH ":5: session-time = 0s: expected a duration such as 30s, 5m, 4h or 7d, or any" },
	{ HEAD ROUTE "limits {\ndata-rate = 16K }\n",
	    PATH ":5: data-rate = 16K: expected a size over a duration such as 16K/2m, or any" },
	{ HEAD ROUTE "limits {\ndata-rate = \"0/2m\" }\n",
	    PATH ":5: data-rate = 0/2m: expected a size over a duration such as 16K/2m, or any" },
	{ HEAD ROUTE "limits {\nfilter-time = 0s }\n",
	    PATH ":5: filter-time = 0s: expected 1s to 3m" },
	{ HEAD ROUTE "limits {\nfilter-time = 181s }\n",
	    PATH ":5: filter-time = 181s: expected 1s to 3m" },
	{ HEAD ROUTE "limits {\nscanning = 0 }\n", PATH ":5: scanning = 0: expected at least 1" },
	{ HEAD ROUTE "limits { banner = x }\n", PATH ":4: no such option 'banner'" },
	{ HEAD ROUTE "filter x { type = rules\n options = { \"a=b\" } }\n",
	    PATH ":5: options is for filters with a module; name the option itself" },
	{ HEAD ROUTE "review { imaps = { \"*:993\" } }\n",
	    PATH ":4: imaps needs tls { certificate key }" },
	{ HEAD "route example.org { to = { \"a:25\" } recipients = /nowhere }\n",
	    PATH ":3: /nowhere was not handed over" },
	{ HEAD ROUTE "provider big {\nhosts = { \"mx.*.example.com\" } }\n", PATH
	    ":5: hosts = mx.*.example.com: expected names, \"*.domain\", \".domain\" or \"*\"" },
	{ HEAD ROUTE "provider big { hosts = { a.example.com }\ndomains = { \"*example.com\" } }\n",
	    PATH ":5: domains = *example.com: expected names, \"*.domain\", \".domain\" or \"*\"" },
	{ HEAD ROUTE "provider big { hosts = { \"a..example.com\" } }\n",
	    PATH ":4: hosts = a..example.com: expected names, \"*.domain\", \".domain\" or \"*\"" },
	{ HEAD ROUTE "provider big { hosts = { \"mx.example.com:25\" } }\n", PATH
	    ":4: hosts = mx.example.com:25: expected names, \"*.domain\", \".domain\" or \"*\"" },
	{ HEAD ROUTE "provider big { rate = \"1/1s\" }\n",
	    PATH ":4: provider big needs hosts or domains" },
	{ HEAD ROUTE "provider big { hosts = { \"*\" }\nconnections = 0 }\n",
	    PATH ":5: connections = 0: expected at least 1" },
	{ HEAD ROUTE "provider big { hosts = { \"*\" }\nrate = 5 }\n",
	    PATH ":5: rate = 5: expected a number in a time, such as 100/1m" },
	{ HEAD ROUTE "provider a { hosts = { \"*.example.com\" } }\nprovider b {\nhosts = { "
		     "\"*.EXAMPLE.com\" } }\n",
	    PATH ":6: provider b: hosts = *.example.com is in provider a already" },
	{ HEAD ROUTE "spool = here\n", PATH ":4: spool = here: expected an absolute path" },
	{ HEAD ROUTE "workers = 61\n",
	    PATH ":4: workers = 61: expected auto or a number from 1 to 60" },
};

START_TEST(a_bad_config_is_refused_with_file_and_line)
{
	struct err err;

	ck_assert_ptr_null(load_with(refused[_i].text, NULL, NULL, &err));
	ck_assert_str_eq(err.msg, refused[_i].msg);
	ck_assert_int_eq(err.code, ERR_CONFIG);
}
END_TEST

START_TEST(a_domain_is_the_same_in_either_script)
{
	struct err err;
	struct config *c = load_with("hostname = mx.example.org\ndomains = { \"B\xc3\xbc"
				     "cher.example\" }\n"
				     "route \"b\xc3\xbc"
				     "cher.example\" { to = { \"a:25\" } }\n"
				     "route \"*.h\xc3\xb6rer.example\" { to = { \"b:25\" } }\n"
				     "policy \"b\xc3\xbc"
				     "cher.example\" { reject = 12.0 }\n",
	    NULL, NULL, &err);

	ck_assert_msg(c != NULL, "%s", err.msg);
	ck_assert(config_is_our_domain(c, SLICE("xn--bcher-kva.example")));
	ck_assert_ptr_eq(config_route_for(c, SLICE("xn--bcher-kva.example")), &c->routes[0]);
	ck_assert_ptr_eq(config_route_for(c, SLICE("a.xn--hrer-5qa.example")), &c->routes[1]);
	ck_assert_ptr_nonnull(config_policy_named(c, SLICE("xn--bcher-kva.example")));
	config_unref(c);
}
END_TEST

START_TEST(what_the_interface_shows_is_taken)
{
	const char *text =
	    "hostname   = mx.example.org\npostmaster = \"pm@example.org\" # comment\nworkers = 3\n"
	    "domains  = { example.org, Example.NET }\nnetworks = { 127.0.0.0/8, ::1/128 }\n"
	    "networks += { 10.0.0.0/8 } // more\n"
	    "dns { servers = { } timeout = 5s }\n"
	    "listener mx { address = { \"*:25\" } tls = starttls }\n"
	    "limits { message-size = 50M recipients = 1000 connections = 10000 connections-per-ip "
	    "= 50 "
	    "memory = 64M }\n"
	    "route example.org { to = { \"mail1.corp:25\", \"mail2.corp:25\" } tls = verify "
	    "recipients = "
	    "/etc/relayd/recipients }\n"
	    "route example.net { to = { \"lmtp:/run/dovecot/lmtp\" } recipients = probe }\n"
	    "route \"*\" { to = { mx } tls = opportunistic }\n"
	    "queue { retry = { 1m, 5m } warn = 4h expire = 5d reserve = 1G }\n"
	    "filter ratelimit { key = { client-ip } rate = \"100/1m\" action = defer }\n"
	    "filter bursts { type = ratelimit key = { sender, recipient } rate = \"20/1h\" }\n"
	    "filter own { module = \"/m/x.so\" options = { \"a=1\", \"b=x=y\", \"a=2\" } for = "
	    "both }\n"
	    "policy inbound { tag = 5.0 quarantine = 8.0 reject = 15.0 }\n"
	    "policy example.net { reject = 12.0 }\n"
	    "quarantine { keep = 30d }\nreview { imap = { \"127.0.0.1:143\" } pop3-delete = yes "
	    "}\n";
	struct err err;
	struct config *c = load_with(text, "/etc/relayd/recipients", "a@example.org\n", &err);
	struct slice bytes;

	ck_assert_msg(c != NULL, "%s", err.msg);
	ck_assert_str_eq(c->postmaster, "pm@example.org");
	ck_assert_uint_eq(c->workers, 3);
	ck_assert_uint_eq(c->n_networks, 3);
	ck_assert(config_in_networks(c, slice_of("\x0a\x01\x02\x03", 4)));
	ck_assert(config_is_our_domain(c, SLICE("EXAMPLE.net")));
	ck_assert_uint_eq(c->limits.message_size, 50u << 20);
	ck_assert_int_eq(c->listeners[0].tls, CONFIG_TLS_OFF);	/* no certificate: off, and said */
	ck_assert_ptr_nonnull(config_warning(c, 0));
	ck_assert_uint_eq(c->n_routes, 3);
	ck_assert_int_eq(config_route_for(c, SLICE("example.org"))->tls, CONFIG_TLS_VERIFY);
	ck_assert(config_file(c, "/etc/relayd/recipients", &bytes));
	ck_assert_uint_eq(bytes.len, 14);
	ck_assert_str_eq(config_route_for(c, SLICE("else.test"))->domain, "*");
	ck_assert_uint_eq(c->queue.retry_s[1], 300);
	ck_assert_uint_eq(c->queue.expire_s, 5 * 86400);
	ck_assert_str_eq(c->filters[1].type, "ratelimit");
	ck_assert_str_eq(c->filters[1].options[0].name, "key");
	ck_assert_uint_eq(c->filters[1].options[0].values.n, 2);
	ck_assert_str_eq(c->filters[2].options[0].values.v[1], "2");
	ck_assert_str_eq(c->filters[2].options[1].values.v[0], "x=y");
	ck_assert(config_policy_named(c, SLICE("example.net"))->has_reject);
	ck_assert(!config_policy_named(c, SLICE("example.net"))->has_tag);
	ck_assert(c->review.pop3_delete);
	config_unref(c);
}
END_TEST

static const struct {
	const char *host, *domain, *provider;
} provided[] = {
	{ "mx1.mail.example.com", "", "big" },
	{ "MX1.MAIL.Example.COM", "", "big" },
	{ "mail.example.com", "", NULL },
	{ "xmail.example.com", "", NULL },
	{ "example.net", "", "both" },
	{ "a.example.net", "", "both" },
	{ "mx.example.net", "", "one" },
	{ "mx.else.test", "example.org", "named" },
	{ "mx1.mail.example.com", "example.org", "named" },
	{ "mx1.mail.example.com", "www.example.org", "big" },
	{ "mx.else.test", "", NULL },
	{ "192.0.2.1", "", NULL },
};

START_TEST(a_host_belongs_to_the_provider_that_says_most)
{
	const struct config_provider *p;
	struct err err;
	struct config *c = load_with(HEAD ROUTE
	    "provider big { hosts = { \"*.mail.example.com\" } rate = \"100/1m\" }\n"
	    "provider both { hosts = { .example.net } connections = 3 }\n"
	    "provider one { hosts = { mx.example.net } }\n"
	    "provider named { domains = { example.org } }\n",
	    NULL, NULL, &err);

	ck_assert_msg(c != NULL, "%s", err.msg);
	ck_assert_uint_eq(c->providers[0].connections, 20);
	ck_assert_uint_eq(c->providers[0].rate_s, 60);
	ck_assert_uint_eq(c->providers[1].connections, 3);
	p = config_provider_for(c, slice_str(provided[_i].host), slice_str(provided[_i].domain));
	ck_assert_str_eq(
	    p != NULL ? p->name : "", provided[_i].provider != NULL ? provided[_i].provider : "");
	config_unref(c);
}
END_TEST

START_TEST(limits_have_defaults_and_may_be_any)
{
	struct err err;
	struct config *c = load_with(HEAD ROUTE, NULL, NULL, &err);

	ck_assert_msg(c != NULL, "%s", err.msg);
	ck_assert_uint_eq(c->limits.connections_per_net, 500);
	ck_assert_uint_eq(c->limits.session_s, 3600);
	ck_assert_uint_eq(c->limits.data_rate.bytes, 16384);
	ck_assert_uint_eq(c->limits.data_rate.seconds, 120);
	ck_assert_uint_eq(c->limits.filter_s, 60);
	ck_assert_uint_eq(c->limits.scanning, 500);
	config_unref(c);
	c = load_with(HEAD ROUTE "limits { connections-per-ip = 70  session-time = any  data-rate "
				 "= any  filter-time = 3m }\n",
	    NULL, NULL, &err);
	ck_assert_msg(c != NULL, "%s", err.msg);
	ck_assert_uint_eq(c->limits.connections_per_net, 700); /* follows that of one address */
	ck_assert_uint_eq(c->limits.session_s, UINT32_MAX);
	ck_assert_uint_eq(c->limits.filter_s, 180);
	ck_assert_uint_eq(c->limits.data_rate.seconds, 0);
	config_unref(c);
	c = load_with(HEAD ROUTE "limits {\nconnections-per-net = 49 }\n", NULL, NULL, &err);
	ck_assert_msg(c != NULL, "%s", err.msg);
	ck_assert_str_eq(config_warning(c, 1), PATH ":5: limits: connections-per-net is below "
						    "connections-per-ip, which means nothing then");
	config_unref(c);
	c = load_with(HEAD ROUTE "limits { connections-per-net = 60  data-rate = \"1K/3s\" }\n"
				 "listener a { address = { \"*:25\" }  connections-per-net = 7 }\n",
	    NULL, NULL, &err);
	ck_assert_msg(c != NULL, "%s", err.msg);
	ck_assert_uint_eq(c->limits.connections_per_net, 60);
	ck_assert_uint_eq(c->listeners[0].connections_per_net, 7);
	ck_assert_uint_eq(c->limits.data_rate.bytes, 1024);
	ck_assert_uint_eq(c->limits.data_rate.seconds, 3);
	config_unref(c);
}
END_TEST

START_TEST(a_snapshot_gives_the_same_config_again)
{
	struct err err;
	struct config *c =
	    load_with(HEAD ROUTE "users = /u\nfilter rules { files = { \"/r/*.cf\" } }\n", "/u",
		"admin:x\n", &err);
	struct buf whole = buf_heap(1 << 20), bare = buf_heap(1 << 20);
	struct slice bytes;
	struct config *again;

	ck_assert_msg(c != NULL, "%s", err.msg);
	config_snapshot(c, true, &whole);
	config_snapshot(c, false, &bare);
	again = config_load(PATH, config_source_snapshot(buf_slice(&whole), &err), &err);
	ck_assert_msg(again != NULL, "%s", err.msg);
	ck_assert(config_file(again, "/u", &bytes));
	ck_assert_uint_eq(again->generation, c->generation);
	config_unref(again);
	again = config_load(PATH, config_source_snapshot(buf_slice(&bare), &err), &err);
	ck_assert_msg(again != NULL, "%s", err.msg);
	ck_assert(!config_file(again, "/u", &bytes));
	ck_assert_uint_eq(again->generation, c->generation);
	config_unref(again);
	config_unref(c);
	buf_fini(&whole);
	buf_fini(&bare);
}
END_TEST

static const struct {
	const char *text;
	bool ok;
	uint64_t value;
} sizes[] = {
	{ "0", true, 0 },
	{ "64K", true, 65536 },
	{ "50M", true, 50u << 20 },
	{ "1G", true, 1u << 30 },
	{ "8388608T", false, 0 },
	{ "-1", false, 0 },
	{ "1.5G", false, 0 },
	{ "", false, 0 },
	{ "K", false, 0 },
};

START_TEST(sizes_have_units_of_1024)
{
	uint64_t value = 0;

	ck_assert_int_eq(config_bytes(sizes[_i].text, &value), sizes[_i].ok);
	ck_assert_uint_eq(value, sizes[_i].value);
}
END_TEST

START_TEST(durations_need_a_unit)
{
	uint32_t value;

	ck_assert(config_duration("30s", &value) && value == 30);
	ck_assert(config_duration("7d", &value) && value == 7 * 86400);
	ck_assert(!config_duration("30", &value));
	ck_assert(!config_duration("99999999999d", &value));
	ck_assert(config_duration_ms("500ms", &value) && value == 500);
	ck_assert(config_duration_ms("5s", &value) && value == 5000);
}
END_TEST

UNIT_SUITE(config)
{
	UNIT_ROWS(a_bad_config_is_refused_with_file_and_line, refused);
	UNIT_TEST(a_domain_is_the_same_in_either_script);
	UNIT_TEST(what_the_interface_shows_is_taken);
	UNIT_ROWS(a_host_belongs_to_the_provider_that_says_most, provided);
	UNIT_TEST(limits_have_defaults_and_may_be_any);
	UNIT_TEST(a_snapshot_gives_the_same_config_again);
	UNIT_ROWS(sizes_have_units_of_1024, sizes);
	UNIT_TEST(durations_need_a_unit);
}

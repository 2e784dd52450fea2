/* tests/unit/delivery/route_test.c - from forward-paths to next hops and back. */
#include "relayd/delivery/route.h"

#include "unit/unit.h"

#include <stdio.h>
#include <sys/stat.h>

#define STRINGS(...)                                                                               \
	{                                                                                          \
		(const char *[]){ __VA_ARGS__ },                                                   \
		    sizeof((const char *[]){ __VA_ARGS__ }) / sizeof(const char *)                 \
	}

/* What a route with a login needs beside it; borrowed till the next call. */
static const char *
password_file(void)
{
	static char path[160];
	FILE *f;

	snprintf(path, sizeof(path), "/tmp/route_test.%d.password", getpid());
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_int_eq(fchmod(fileno(f), 0600), 0);
	fputs("secret\nnot this\n", f);
	fclose(f);
	return path;
}

/* A config of routes alone: never counted down to nothing, so never freed. */
static struct config *
config_with(struct config_route *routes, size_t n)
{
	static char dir[128], path[160];
	static struct config *cfg;
	FILE *f;
	struct err err;

	snprintf(dir, sizeof(dir), "/tmp");
	snprintf(path, sizeof(path), "%s/route_test.%d.conf", dir, getpid());
	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	fprintf(f,
	    "hostname = mx.ours.test\npostmaster = \"post@ours.test\"\nrun = %s/r\n"
	    "spool = %s/s\nstate = %s/t\nquarantine { store = %s/q }\n",
	    dir, dir, dir, dir);
	for (size_t i = 0; i < n; i++) {
		fprintf(f, "route \"%s\" { to = {", routes[i].domain);
		for (size_t k = 0; k < routes[i].to.n; k++)
			fprintf(f, "%s \"%s\"", k > 0 ? "," : "", routes[i].to.v[k]);
		if (routes[i].login != NULL)
			fprintf(f, " }  login = %s  password-file = \"%s\"", routes[i].login,
			    password_file());
		else
			fputs(" }", f);
		fprintf(f, "  tls = %s  recipients = any }\n",
		    routes[i].tls == CONFIG_TLS_OFF        ? "off"
		    : routes[i].tls == CONFIG_TLS_VERIFY   ? "verify"
		    : routes[i].tls == CONFIG_TLS_REQUIRED ? "required"
							   : "opportunistic");
	}
	fclose(f);
	cfg = config_load(path, config_source_disk(), &err);
	unlink(path);
	unlink(password_file());
	ck_assert_msg(cfg != NULL, "%s", cfg == NULL ? err.msg : "");
	return cfg;
}

static struct config_route several[] = {
	{ .domain = "one.test",
	    .to = STRINGS("mail1.corp:25", "mail2.corp:2525"),
	    .tls = CONFIG_TLS_VERIFY },
	{ .domain = "two.test",
	    .to = STRINGS("lmtp:/run/Dovecot/lmtp"),
	    .tls = CONFIG_TLS_OPPORTUNISTIC },
	{ .domain = "three.test", .to = STRINGS("lmtp:[::1]:24"), .tls = CONFIG_TLS_OFF },
	{ .domain = "*.sub.test", .to = STRINGS("Sub1:25 weight=3 priority=2", "sub2:25") },
	{ .domain = ".all.sub.test", .to = STRINGS("all:25"), .tls = CONFIG_TLS_REQUIRED },
	{ .domain = "*", .to = STRINGS("mx"), .tls = CONFIG_TLS_OPPORTUNISTIC },
};
#define SEVERAL (sizeof(several) / sizeof(several[0]))

static const struct {
	const char *path, *key; /* NULL: none */
} rows[] = {
	{ "a@one.test", "verify mail1.corp:25,mail2.corp:2525" },
	{ "a@ONE.Test", "verify mail1.corp:25,mail2.corp:2525" },
	{ "\"a@b\"@one.test", "verify mail1.corp:25,mail2.corp:2525" },
	{ "a@sub.one.test", "opportunistic mx:sub.one.test" },
	{ "a@x.sub.test", "off sub1:25 priority=2 weight=3,sub2:25" },
	{ "a@sub.test", "opportunistic mx:sub.test" },
	{ "a@all.sub.test", "required all:25" },
	{ "a@deep.all.sub.test", "required all:25" },
	{ "a@xall.sub.test", "off sub1:25 priority=2 weight=3,sub2:25" },
	{ "a@two.test", "opportunistic lmtp:/run/Dovecot/lmtp" },
	{ "a@three.test", "off lmtp:[::1]:24" },
	{ "a@Elsewhere.example", "opportunistic mx:elsewhere.example" },
	{ "a@b\xc3\xbc"
	  "cher.example",
	    "opportunistic mx:xn--bcher-kva.example" },
	{ "a@[192.0.2.1]", "opportunistic 192.0.2.1:25" },
	{ "a@[IPv6:2001:db8::1]", "opportunistic [2001:db8::1]:25" },
	{ "postmaster", "opportunistic mx:ours.test" },
	{ "a@[192.0.2.999]", NULL },
	{ "a@[IPv6:192.0.2.1]", NULL },
	{ "a@[2001:db8::1]", NULL },
	{ "a@b c", NULL },
	{ "a@b,c", NULL },
	{ "a@-b.test", NULL },
};

START_TEST(each_path_has_its_next_hop)
{
	struct config *cfg = config_with(several, SEVERAL);
	struct routes *r = routes_new(cfg, NULL);
	char key[ROUTE_KEY_BYTES];
	struct route_hop *hop;

	ck_assert_ptr_nonnull(r);
	if (rows[_i].key == NULL) {
		struct err err;

		ck_assert_int_eq(routes_key(r, slice_str(rows[_i].path), key, &err), -1);
		ck_assert_int_eq(err.code, ERR_FORMAT);
	} else {
		ck_assert_int_eq(routes_key(r, slice_str(rows[_i].path), key, NULL), 0);
		ck_assert_str_eq(key, rows[_i].key);
		ck_assert(routes_has(r, key) || strchr(rows[_i].path, '[') != NULL);
		hop = route_hop_new(key, NULL);
		ck_assert_ptr_nonnull(hop);
		ck_assert(!hop->quarantine);
		route_hop_free(hop);
	}
	routes_free(r);
	config_unref(cfg);
}
END_TEST

START_TEST(without_a_route_for_all_a_domain_goes_by_its_mx)
{
	struct config *cfg = config_with(several, 1);
	struct routes *r = routes_new(cfg, NULL);
	char key[ROUTE_KEY_BYTES];

	ck_assert_int_eq(routes_key(r, SLICE("a@else.test"), key, NULL), 0);
	ck_assert_str_eq(key, "opportunistic mx:else.test");
	ck_assert(!routes_has(r, "off lmtp:[::1]:24"));
	routes_free(r);
	config_unref(cfg);
}
END_TEST

START_TEST(a_domain_that_got_a_route_of_its_own_makes_its_old_next_hop_stale)
{
	struct config *cfg = config_with(several, SEVERAL);
	struct routes *r = routes_new(cfg, NULL);

	ck_assert(routes_has(r, "opportunistic mx:else.test"));
	ck_assert(!routes_has(r, "opportunistic mx:one.test"));
	ck_assert(!routes_has(r, "opportunistic mail1.corp:25,mail2.corp:2525"));
	ck_assert(routes_has(r, routes_quarantine_key(r)));
	routes_free(r);
	config_unref(cfg);
}
END_TEST

START_TEST(the_targets_stand_in_the_order_of_failover)
{
	struct route_hop *hop = route_hop_new("verify mail1.corp:25,lmtp:h:24,mx:d.test", NULL);

	ck_assert_ptr_nonnull(hop);
	ck_assert_uint_eq(hop->n_targets, 3);
	ck_assert_int_eq(hop->tls, CONFIG_TLS_VERIFY);
	ck_assert_str_eq(hop->name, "mail1.corp:25,lmtp:h:24,mx:d.test");
	ck_assert_str_eq(hop->targets[0].host, "mail1.corp");
	ck_assert_uint_eq(hop->targets[0].port, 25);
	ck_assert(!hop->targets[0].lmtp);
	ck_assert(hop->targets[1].lmtp);
	ck_assert(hop->targets[2].mx);
	ck_assert_uint_eq(hop->n_normal, 3);
	route_hop_free(hop);
	hop = route_hop_new("off mx:d.test,fallback:b1:25,fallback:b2:25 priority=1", NULL);
	ck_assert_ptr_nonnull(hop);
	ck_assert_uint_eq(hop->n_normal, 1);
	ck_assert_uint_eq(hop->targets[1].priority, 1002);
	ck_assert_uint_eq(hop->targets[2].priority, 1001);
	route_hop_free(hop);
}
END_TEST

START_TEST(the_quarantine_is_a_next_hop_that_is_known_as_such)
{
	struct config *cfg = config_with(several, SEVERAL);
	struct routes *r = routes_new(cfg, NULL);
	struct route_hop *hop = route_hop_new(routes_quarantine_key(r), NULL);
	char wanted[256];

	snprintf(wanted, sizeof(wanted), "%s/quarantine.sock", cfg->run);
	ck_assert_ptr_nonnull(hop);
	ck_assert(hop->quarantine);
	ck_assert(hop->targets[0].lmtp);
	ck_assert_str_eq(hop->targets[0].path, wanted);
	route_hop_free(hop);
	routes_free(r);
	config_unref(cfg);
}
END_TEST

START_TEST(a_login_is_in_the_key_and_goes_to_no_host_but_the_routes_own)
{
	struct config_route smart = {
		.domain = "*", .to = STRINGS("smart:587"), .tls = CONFIG_TLS_VERIFY, .login = "us"
	};
	struct config *cfg = config_with(&smart, 1);
	struct routes *r = routes_new(cfg, NULL);
	char key[ROUTE_KEY_BYTES];
	struct route_hop *hop;
	struct err err = { 0 };

	ck_assert_int_eq(routes_key(r, SLICE("a@b.test"), key, NULL), 0);
	ck_assert_str_eq(key, "verify route=* login smart:587");
	hop = route_hop_new(key, NULL);
	ck_assert(hop->login);
	ck_assert_str_eq(hop->name, "smart:587");
	ck_assert_ptr_nonnull(routes_identity(r, hop, &err));
	ck_assert(slice_eq(routes_named(r, hop)->password, SLICE("secret")));
	route_hop_free(hop);
	routes_via_key(r, SLICE("a@b.test"), "other:25", key);
	ck_assert_str_eq(key, "verify other:25");
	hop = route_hop_new(key, NULL);
	ck_assert(!hop->login);
	ck_assert_ptr_null(routes_identity(r, hop, &err));
	route_hop_free(hop);
	routes_free(r);
	config_unref(cfg);
}
END_TEST

static const char *const broken[] = { "", "off", "off ", "maybe a:25", "off a:25,,b:25",
	"off lmtp:", "quarantine", "quarantine off ", "off mx:", "off fallback:b:25" };

START_TEST(what_is_no_key_is_no_next_hop)
{
	struct err err;

	ck_assert_ptr_null(route_hop_new(broken[_i], &err));
	ck_assert_int_eq(err.code, ERR_FORMAT);
}
END_TEST

UNIT_SUITE(delivery_route)
{
	UNIT_ROWS(each_path_has_its_next_hop, rows);
	UNIT_TEST(without_a_route_for_all_a_domain_goes_by_its_mx);
	UNIT_TEST(a_domain_that_got_a_route_of_its_own_makes_its_old_next_hop_stale);
	UNIT_TEST(the_targets_stand_in_the_order_of_failover);
	UNIT_TEST(a_login_is_in_the_key_and_goes_to_no_host_but_the_routes_own);
	UNIT_TEST(the_quarantine_is_a_next_hop_that_is_known_as_such);
	UNIT_ROWS(what_is_no_key_is_no_next_hop, broken);
}

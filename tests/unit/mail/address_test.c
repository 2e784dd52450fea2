/* tests/unit/mail/address_test.c - SMTP paths are strict, address lists swallow anything. */
#include "unit/unit.h"

#include "relayd/mail/address.h"

#define A64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define L63 "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

#define OK     ADDRESS_OK
#define SYNTAX ADDRESS_SYNTAX
#define LONG   ADDRESS_LONG
#define UTF8   ADDRESS_NEEDS_UTF8

static const struct {
	const char *in;
	unsigned flags;
	enum address_status status;
	const char *mailbox, *rest;
} paths[] = {
	{ "<user@example.org>", 0, OK, "user@example.org", "" },
	{ "<user@example.org> SIZE=10", 0, OK, "user@example.org", " SIZE=10" },
	{ "<userx@y.foo.org>", 0, OK, "userx@y.foo.org", "" },
	{ "<@hosta.int,@jkl.org:userc@d.bar.org>", 0, OK, "userc@d.bar.org", "" },
	{ "<@[192.0.2.1]:a@b.c>", 0, OK, "a@b.c", "" }, { "<@:a@b.c>", 0, SYNTAX, NULL, NULL },
	{ "<@a:>", 0, SYNTAX, NULL, NULL }, { "<@a,b@c.d>", 0, SYNTAX, NULL, NULL },
	{ "<@a,@b@c.d>", 0, SYNTAX, NULL, NULL },
	{ "<\"Joe.\\\\Blow\"@example.org>", 0, OK, "\"Joe.\\\\Blow\"@example.org", "" },
	{ "<\"a b\"@example.org>", 0, OK, "\"a b\"@example.org", "" },
	{ "<\"a@b>\"@example.org>", 0, OK, "\"a@b>\"@example.org", "" },
	{ "<\"\"@example.org>", 0, OK, "\"\"@example.org", "" },
	{ "<\"a\"b@example.org>", 0, SYNTAX, NULL, NULL },
	{ "<\"a\tb\"@example.org>", 0, SYNTAX, NULL, NULL },
	{ "<\"a@example.org>", 0, SYNTAX, NULL, NULL },
	{ "<user%b@example.org>", 0, OK, "user%b@example.org", "" },
	{ "<b!user@example.org>", 0, OK, "b!user@example.org", "" },
	{ "<user@example.org.>", 0, SYNTAX, NULL, NULL },
	{ "<user@.example.org>", 0, SYNTAX, NULL, NULL },
	{ "<user@example..org>", 0, SYNTAX, NULL, NULL },
	{ "<user@-example.org>", 0, SYNTAX, NULL, NULL },
	{ "<user@example-.org>", 0, SYNTAX, NULL, NULL },
	{ "<user@ex_ample.org>", 0, OK, "user@ex_ample.org", "" },
	{ "<user@localhost>", 0, OK, "user@localhost", "" },
	{ "<user@1.2.3.4>", 0, SYNTAX, NULL, NULL },
	{ "<user@3com.com>", 0, OK, "user@3com.com", "" },
	{ "<user@[1.2.3.4]>", 0, OK, "user@[1.2.3.4]", "" },
	{ "<user@[1.2.3.444]>", 0, SYNTAX, NULL, NULL },
	{ "<user@[IPv6:2001:db8::1]>", 0, OK, "user@[IPv6:2001:db8::1]", "" },
	{ "<user@[2001:db8::1]>", 0, OK, "user@[2001:db8::1]", "" }, /* a tag "2001" */
	{ "<user@[IPv6:2001:db8:::1]>", 0, SYNTAX, NULL, NULL },
	{ "<user@[x-tag:abc]>", 0, OK, "user@[x-tag:abc]", "" },
	{ "<user@[]>", 0, SYNTAX, NULL, NULL }, { "<user@[1.2.3.4>", 0, SYNTAX, NULL, NULL },
	{ "<u ser@example.org>", 0, SYNTAX, NULL, NULL },
	{ "< user@example.org>", 0, SYNTAX, NULL, NULL },
	{ "<user@example.org >", 0, SYNTAX, NULL, NULL },
	{ "<.user@example.org>", 0, SYNTAX, NULL, NULL },
	{ "<user.@example.org>", 0, SYNTAX, NULL, NULL },
	{ "<us..er@example.org>", 0, SYNTAX, NULL, NULL }, { "<user@>", 0, SYNTAX, NULL, NULL },
	{ "<@example.org>", 0, SYNTAX, NULL, NULL }, { "<user>", 0, SYNTAX, NULL, NULL },
	{ "<user@example.org", 0, SYNTAX, NULL, NULL },
	{ "<<user@example.org>>", 0, SYNTAX, NULL, NULL },
	{ "<user@example.org\x7f>", 0, SYNTAX, NULL, NULL }, { "", 0, SYNTAX, NULL, NULL },
	{ "<", 0, SYNTAX, NULL, NULL }, { "user@example.org", 0, SYNTAX, NULL, NULL },
	{ "user@example.org SIZE=1", ADDRESS_BARE, OK, "user@example.org", " SIZE=1" },
	{ "user@example.org>", ADDRESS_BARE, SYNTAX, NULL, NULL },
	{ "<" A64 "@example.org>", 0, OK, A64 "@example.org", "" },
	{ "<" A64 "a@example.org>", 0, LONG, NULL, NULL },
	{ "<a@" L63 ".org>", 0, OK, "a@" L63 ".org", "" },
	{ "<a@" L63 "b.org>", 0, LONG, NULL, NULL },
	/* 254 octets between the brackets is the most: 1 + 1 + 3 * 64 + 60 */
	{ "<a@" L63 "." L63 "." L63
	  ".cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc>",
	    0, OK,
	    "a@" L63 "." L63 "." L63
	    ".cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc",
	    "" },
	{ "<ab@" L63 "." L63 "." L63
	  ".cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc>",
	    0, LONG, NULL, NULL },
	{ "<j\xc3\xb6rg@example.org>", 0, UTF8, NULL, NULL },
	{ "<joerg@ex\xc3\xa4mple.org>", 0, UTF8, NULL, NULL },
	{ "<j\xc3\xb6rg@ex\xc3\xa4mple.org>", ADDRESS_UTF8, OK, "j\xc3\xb6rg@ex\xc3\xa4mple.org",
	    "" },
	{ "<j\xf6rg@example.org>", ADDRESS_UTF8, SYNTAX, NULL, NULL },
	{ "<j\xf6rg@example.org>", 0, SYNTAX, NULL, NULL },
	{ "<a\xed\xa0\x80@example.org>", ADDRESS_UTF8, SYNTAX, NULL, NULL }, /* a surrogate */
};

START_TEST(a_path_is_taken_or_refused_by_name)
{
	struct slice in = slice_str(paths[_i].in), before = in;
	struct address a;

	ck_assert_int_eq(address_forward_path(&in, paths[_i].flags, &a), paths[_i].status);
	if (paths[_i].status != ADDRESS_OK) {
		ck_assert(in.p == before.p && in.len == before.len);
		return;
	}
	ck_assert_int_eq(a.kind, ADDRESS_MAILBOX);
	ck_assert(slice_eq(a.mailbox, slice_str(paths[_i].mailbox)));
	ck_assert(slice_eq(in, slice_str(paths[_i].rest)));
	ck_assert_uint_eq(a.local.len + 1 + a.domain.len, a.mailbox.len);
	in = before;
	ck_assert_int_eq(address_reverse_path(&in, paths[_i].flags, &a), ADDRESS_OK);
}
END_TEST

START_TEST(null_and_postmaster_have_their_places)
{
	struct slice in = SLICE("<> BODY=8BITMIME");
	struct address a;

	ck_assert_int_eq(address_reverse_path(&in, 0, &a), ADDRESS_OK);
	ck_assert_int_eq(a.kind, ADDRESS_NULL);
	ck_assert_uint_eq(a.mailbox.len, 0);
	ck_assert(slice_eq(in, SLICE(" BODY=8BITMIME")));
	in = SLICE("<>");
	ck_assert_int_eq(address_forward_path(&in, 0, &a), ADDRESS_SYNTAX);
	in = SLICE("<PostMaster>");
	ck_assert_int_eq(address_forward_path(&in, 0, &a), ADDRESS_OK);
	ck_assert_int_eq(a.kind, ADDRESS_POSTMASTER);
	ck_assert(slice_eq(a.mailbox, SLICE("PostMaster")));
	in = SLICE("<postmaster>");
	ck_assert_int_eq(address_reverse_path(&in, 0, &a), ADDRESS_SYNTAX);
}
END_TEST

START_TEST(a_nul_is_refused)
{
	struct slice in = SLICE("<us\0er@example.org>");
	struct address a;

	ck_assert_int_eq(address_forward_path(&in, 0, &a), ADDRESS_SYNTAX);
	ck_assert_int_eq(address_mailbox(SLICE("user@exa\0mple.org"), 0, &a), ADDRESS_SYNTAX);
	ck_assert_int_eq(address_mailbox(SLICE("user@[1.2.3.4\0]"), 0, &a), ADDRESS_SYNTAX);
	ck_assert_int_eq(address_domain(SLICE("example.org\0"), 0), ADDRESS_SYNTAX);
}
END_TEST

START_TEST(a_long_source_route_is_refused)
{
	char bytes[2000] = "<";
	struct slice in;
	struct address a;

	while (strlen(bytes) < ADDRESS_ROUTE_MAX + 10)
		strcat(bytes, "@relay.example.org,");
	strcpy(bytes + strlen(bytes) - 1, ":a@b.c>");
	in = slice_str(bytes);
	ck_assert_int_eq(address_forward_path(&in, 0, &a), ADDRESS_LONG);
}
END_TEST

static const struct {
	const char *a, *b;
	bool same;
} pairs[] = {
	{ "user@example.org", "user@EXAMPLE.ORG", true },
	{ "User@example.org", "user@example.org", false },
	{ "\"user\"@example.org", "user@example.org", true },
	{ "\"us\\er\"@example.org", "user@example.org", true },
	{ "\"a b\"@example.org", "\"a\\ b\"@example.org", true },
	{ "\"a b\"@example.org", "\"ab\"@example.org", false },
	{ "\"a.b\"@x.org", "a.b@x.org", true },
	{ "\"a..b\"@x.org", "\"a.\\.b\"@x.org", true },
	{ "u@[IPv6:2001:DB8::1]", "u@[ipv6:2001:db8::1]", true },
	{ "no address", "no address", true },
	{ "no address", "NO address", false },
};

START_TEST(two_spellings_of_one_mailbox_are_the_same)
{
	struct slice a = slice_str(pairs[_i].a), b = slice_str(pairs[_i].b);

	ck_assert_int_eq(address_same(a, b), pairs[_i].same);
	ck_assert_int_eq(address_same(b, a), pairs[_i].same);
}
END_TEST

START_TEST(an_international_domain_becomes_a_labels)
{
	char storage[300];
	struct buf out = buf_over(storage, sizeof(storage));

	ck_assert(address_domain_ascii(SLICE("B\xc3\xbc"
					     "cher.Example"),
	    &out));
	ck_assert(slice_eq(buf_slice(&out), SLICE("xn--bcher-kva.example")));
	buf_reset(&out);
	ck_assert(address_domain_ascii(SLICE("EXAMPLE.org"), &out));
	ck_assert(slice_eq(buf_slice(&out), SLICE("example.org")));
	buf_reset(&out);
	ck_assert(!address_domain_ascii(SLICE("a\xe2\x80\xae"
					      "b.example"),
	    &out));
}
END_TEST

START_TEST(a_local_part_with_a_route_of_its_own_is_told)
{
	struct address a;

	ck_assert_int_eq(address_mailbox(SLICE("u%x@y.z"), 0, &a), ADDRESS_OK);
	ck_assert(address_hides_route(&a));
	ck_assert_int_eq(address_mailbox(SLICE("x!u@y.z"), 0, &a), ADDRESS_OK);
	ck_assert(address_hides_route(&a));
	ck_assert_int_eq(address_mailbox(SLICE("\"u@x\"@y.z"), 0, &a), ADDRESS_OK);
	ck_assert(address_hides_route(&a));
	ck_assert_int_eq(address_mailbox(SLICE("u+x@y.z"), 0, &a), ADDRESS_OK);
	ck_assert(!address_hides_route(&a));
}
END_TEST

/* name|route|local|domain; "name:" opens a group and "." ends it */
static const struct {
	const char *in, *out;
} lists[] = {
	{ "", "" },
	{ "john@x.test", "||john|x.test;" },
	/* RFC 5322 appendix A.1 */
	{ "\"Joe Q. Public\" <john.q.public@example.com>",
	    "Joe Q. Public||john.q.public|example.com;" },
	{ "Mary Smith <mary@x.test>, jdoe@example.org, Who? <one@y.test>",
	    "Mary Smith||mary|x.test;||jdoe|example.org;Who?||one|y.test;" },
	{ "<boss@nil.test>, \"Giant; \\\"Big\\\" Box\" <sysservices@example.net>",
	    "||boss|nil.test;Giant; \"Big\" Box||sysservices|example.net;" },
	{ "A Group:Ed Jones <c@a.test>,joe@where.test,John <jdoe@one.test>;",
	    "A Group:Ed Jones||c|a.test;||joe|where.test;John||jdoe|one.test;.;" },
	{ "Undisclosed recipients:;", "Undisclosed recipients:.;" },
	/* appendix A.5 */
	{ "Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>",
	    "Pete||pete|silly.test;" },
	{ "A Group(Some people)\r\n     :Chris Jones <c@(Chris's host.)public.example>,\r\n"
	  "         joe@example.org,\r\n  John <jdoe@one.test> (my dear friend); (the end of the "
	  "group)",
	    "A Group:Chris Jones||c|public.example;||joe|example.org;John||jdoe|one.test;.;" },
	{ "(Empty list)(start)Hidden recipients  :(nobody(that I know))  ;",
	    "Hidden recipients:.;" },
	/* appendix A.6.1 and A.6.3 */
	{ "Joe Q. Public <john.q.public@example.com>",
	    "Joe Q. Public||john.q.public|example.com;" },
	{ "Mary Smith <@node.test:mary@example.net>, , jdoe@test  . example",
	    "Mary Smith|@node.test|mary|example.net;||jdoe|test.example;" },
	{ "John Doe <jdoe@machine(comment).  example>", "John Doe||jdoe|machine.example;" },
	{ "<@a.test,\r\n @b.test:u@c.test>", "|@a.test,@b.test|u|c.test;" },
	{ "user@host (Real Name)", "Real Name||user|host;" },
	{ "=?utf-8?q?J=C3=B6rg?= <j@x>", "=?utf-8?q?J=C3=B6rg?=||j|x;" },
	{ "\"quoted local\"@x.test", "||quoted local|x.test;" },
	{ "u@[192.0.2.1]", "||u|[192.0.2.1];" },
	{ "postmaster", "||postmaster|;" },
	{ "a@b <c@d>", "a@b||c|d;" },
	{ "a@b, c@d; e@f", "||a|b;||c|d;||e|f;" },
	{ "<a@b", "||a|b;" },
	{ "g: a@b", "g:||a|b;.;" },
	{ "g: h: a@b;", "g:||h: a|b;.;" },
	{ ",,, ;;; ,", "" },
	{ "\"never closed", "||never closed|;" },
	{ "(never closed", "" },
	{ "<>", "|||;" },
	{ "a\r\nb <c@d>", "a b||c|d;" },
};

static void
list_text(struct slice in, struct buf *out)
{
	struct address_list list = address_list_of(in);
	struct arena arena = arena_of(1 << 20);
	struct address_item item;

	while (address_list_next(&list, &arena, &item)) {
		if (item.kind == ADDRESS_ITEM_GROUP)
			buf_printf(out, "%.*s:", SLICE_FMT(item.name));
		else if (item.kind == ADDRESS_ITEM_GROUP_END)
			buf_puts(out, ".;");
		else
			buf_printf(out, "%.*s|%.*s|%.*s|%.*s;", SLICE_FMT(item.name),
			    SLICE_FMT(item.route), SLICE_FMT(item.local), SLICE_FMT(item.domain));
	}
	arena_fini(&arena);
}

START_TEST(an_address_list_gives_its_items)
{
	char storage[1000];
	struct buf out = buf_over(storage, sizeof(storage) - 1);

	list_text(slice_str(lists[_i].in), &out);
	out.p[out.len] = '\0';
	ck_assert_str_eq(out.p, lists[_i].out);
}
END_TEST

START_TEST(a_full_arena_ends_a_list)
{
	struct address_list list = address_list_of(SLICE("Some Name <a@b>, c@d"));
	struct arena arena = arena_of(8);
	struct address_item item;

	ck_assert(!address_list_next(&list, &arena, &item));
	arena_fini(&arena);
}
END_TEST

UNIT_SUITE(mail_address)
{
	UNIT_ROWS(a_path_is_taken_or_refused_by_name, paths);
	UNIT_TEST(null_and_postmaster_have_their_places);
	UNIT_TEST(a_nul_is_refused);
	UNIT_TEST(a_long_source_route_is_refused);
	UNIT_ROWS(two_spellings_of_one_mailbox_are_the_same, pairs);
	UNIT_TEST(an_international_domain_becomes_a_labels);
	UNIT_TEST(a_local_part_with_a_route_of_its_own_is_told);
	UNIT_ROWS(an_address_list_gives_its_items, lists);
	UNIT_TEST(a_full_arena_ends_a_list);
}

/* tests/unit/net/tickets_test.c - ticket keys: who can open what, and until when. */
#include "relayd/net/tickets.h"

#include "unit/unit.h"

#include <openssl/evp.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LIFETIME_S 100
#define TURN_MS    (LIFETIME_S * 1000 / 2)

static struct tickets *writer;
static int fd;
static int64_t now;

struct sealed {
	unsigned char name[16], iv[16], bytes[64], tag[32];
	int len;
};

static void
set_up(void)
{
	struct err err = { 0 };

	writer = tickets_create(&fd, &err);
	ck_assert_msg(writer != NULL, "%s", err.msg);
	tickets_use(tickets_map(fd, &err));
	ck_assert_ptr_nonnull(tickets_in_use());
	now = 1000;
	tickets_turn(writer, now, LIFETIME_S);
}

static void
tear_down(void)
{
	tickets_use(NULL);
	ck_assert_ptr_null(tickets_in_use());
	close(fd);
}

/* What OpenSSL does with the callback, sealing or opening; the callback's answer. */
static int
use_key(struct sealed *s, int sealing, unsigned char tag[static 32], unsigned char *out)
{
	EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
	EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	EVP_MAC_CTX *mac = EVP_MAC_CTX_new(hmac);
	int answer = tickets_in_use()(NULL, s->name, s->iv, cipher, mac, sealing);
	int n = 0, more = 0;
	size_t tag_len = 0;

	if (answer > 0 && sealing) {
		ck_assert_int_eq(
		    EVP_EncryptUpdate(cipher, s->bytes, &n, (const unsigned char *)"secret", 6), 1);
		ck_assert_int_eq(EVP_EncryptFinal(cipher, s->bytes + n, &more), 1);
		s->len = n + more;
	}
	if (answer > 0) {
		ck_assert_int_eq(EVP_MAC_init(mac, NULL, 0, NULL), 1);
		ck_assert_int_eq(EVP_MAC_update(mac, s->bytes, (size_t)s->len), 1);
		ck_assert_int_eq(EVP_MAC_final(mac, tag, &tag_len, 32), 1);
		ck_assert_uint_eq(tag_len, 32);
	}
	if (answer > 0 && !sealing) {
		ck_assert_int_eq(EVP_DecryptUpdate(cipher, out, &n, s->bytes, s->len), 1);
		ck_assert_int_eq(EVP_DecryptFinal(cipher, out + n, &more), 1);
		ck_assert_int_eq(n + more, 6);
	}
	EVP_CIPHER_CTX_free(cipher);
	EVP_MAC_CTX_free(mac);
	EVP_MAC_free(hmac);
	return answer;
}

static int
open_it(struct sealed *s)
{
	unsigned char out[64] = "", tag[32];
	int answer = use_key(s, 0, tag, out);

	if (answer > 0) {
		ck_assert_mem_eq(tag, s->tag, 32);
		ck_assert_mem_eq(out, "secret", 6);
	}
	return answer;
}

START_TEST(a_key_opens_for_a_lifetime_after_it_sealed_last)
{
	struct sealed first = { 0 }, later = { 0 };

	ck_assert_int_eq(use_key(&first, 1, first.tag, NULL), 1);
	ck_assert_int_eq(open_it(&first), 1);
	tickets_turn(writer, now + TURN_MS - 1, LIFETIME_S);
	ck_assert_int_eq(open_it(&first), 1);
	tickets_turn(writer, now += TURN_MS, LIFETIME_S);
	ck_assert_int_eq(open_it(&first), 2); /* good, and to be given a new one */
	ck_assert_int_eq(use_key(&later, 1, later.tag, NULL), 1);
	ck_assert_mem_ne(first.name, later.name, 16);
	ck_assert_int_eq(open_it(&later), 1);
	tickets_turn(writer, now += TURN_MS, LIFETIME_S);
	ck_assert_int_eq(open_it(&first), 2);
	tickets_turn(writer, now += TURN_MS, LIFETIME_S);
	ck_assert_int_eq(open_it(&first), 0); /* gone for good */
	ck_assert_int_eq(open_it(&later), 2);
}
END_TEST

START_TEST(a_name_that_is_not_ours_is_no_ticket)
{
	struct sealed s = { 0 };

	ck_assert_int_eq(open_it(&s), 0);
}
END_TEST

START_TEST(another_process_reads_the_same_keys_and_cannot_write_them)
{
	struct sealed s = { 0 };
	struct err err = { 0 };

	ck_assert_int_eq(use_key(&s, 1, s.tag, NULL), 1);
	tickets_use(tickets_map(fd, &err)); /* a second view */
	ck_assert_int_eq(open_it(&s), 1);
	ck_assert_ptr_eq(mmap(NULL, 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	ck_assert_int_lt(write(fd, "x", 1), 0);
}
END_TEST

START_TEST(who_follows_a_writer_goes_on_with_its_keys)
{
	struct sealed s = { 0 };
	struct err err = { 0 };
	int next = -1;
	struct tickets *t;

	ck_assert_int_eq(use_key(&s, 1, s.tag, NULL), 1);
	t = tickets_follow(fd, &next, &err);
	ck_assert_ptr_nonnull(t);
	tickets_use(tickets_map(next, &err));
	ck_assert_int_eq(open_it(&s), 1);
	tickets_turn(t, now + TURN_MS, LIFETIME_S); /* the time of the keys goes on too */
	ck_assert_int_eq(open_it(&s), 2);
	close(next);
}
END_TEST

START_TEST(what_is_of_another_form_is_not_followed)
{
	struct sealed s = { 0 };
	struct err err = { 0 };
	int other = memfd_create("other", MFD_CLOEXEC), next = -1;

	ck_assert_int_eq(use_key(&s, 1, s.tag, NULL), 1);
	ck_assert_ptr_nonnull(tickets_follow(other, &next, &err));
	tickets_use(tickets_map(next, &err));
	ck_assert_int_eq(open_it(&s), 0);
	ck_assert_int_eq(use_key(&s, 1, s.tag, NULL), 1); /* fresh keys */
	close(next);
	close(other);
}
END_TEST

START_TEST(without_a_lifetime_nothing_turns)
{
	struct sealed s = { 0 };

	ck_assert_int_eq(use_key(&s, 1, s.tag, NULL), 1);
	tickets_turn(writer, now + 1000000, 0);
	ck_assert_int_eq(open_it(&s), 1);
}
END_TEST

UNIT_SUITE(tickets)
{
	tcase_add_checked_fixture(tc, set_up, tear_down);
	UNIT_TEST(a_key_opens_for_a_lifetime_after_it_sealed_last);
	UNIT_TEST(a_name_that_is_not_ours_is_no_ticket);
	UNIT_TEST(another_process_reads_the_same_keys_and_cannot_write_them);
	UNIT_TEST(who_follows_a_writer_goes_on_with_its_keys);
	UNIT_TEST(what_is_of_another_form_is_not_followed);
	UNIT_TEST(without_a_lifetime_nothing_turns);
}

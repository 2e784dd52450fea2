/* tests/unit/smtp/extension_test.c - transcripts of sessions that use what EHLO offers. */
#include "unit/smtp/play.h"

enum { PLAIN = 1, ALL = 5, LMTP = 6 }; /* of model_services */

#define EHLO                                                                                       \
	"S: 220 *\nC: EHLO c\nS: 250-mx.test\nS: 250-PIPELINING\nS: 250-SIZE 4000\n"               \
	"S: 250-8BITMIME\nS: 250-STARTTLS\nS: 250-CHUNKING\nS: 250-BINARYMIME\nS: 250-DSN\n"       \
	"S: 250-SMTPUTF8\nS: 250-PRDR\nS: 250-LIMITS RCPTMAX=3 MAILMAX=5\n"                        \
	"S: 250 ENHANCEDSTATUSCODES\n"
#define LHLO                                                                                       \
	"S: 220 *\nC: LHLO c\nS: 250-mx.test\nS: 250-PIPELINING\nS: 250-SIZE 4000\n"               \
	"S: 250-8BITMIME\nS: 250-CHUNKING\nS: 250-BINARYMIME\nS: 250-DSN\nS: 250-SMTPUTF8\n"       \
	"S: 250-REQUIRETLS\nS: 250-LIMITS RCPTMAX=3\nS: 250-X-RELAYD\nS: 250 "                     \
	"ENHANCEDSTATUSCODES\n"
#define MAIL "C: MAIL FROM:<a@b.test>\nS: 250 *\n"
#define RCPT "C: RCPT TO:<b@b.test>\nS: 250 *\n"
#define NOOP "C: NOOP\nS: 250 2.0.0 Ok\n"

static const struct row {
	const char *name;
	unsigned service;
	const char *transcript;
} rows[] = {
	{ "a message comes in chunks, its lines across them", ALL,
	    EHLO MAIL RCPT
	    "C> BDAT 6\\r\\nabcd\\r\\n\nS: 250 2.0.0 Ok, 6 bytes so far\nE* data\nE-\n"
	    "C> BDAT 1\\r\\n\\r\nS: 250 2.0.0 Ok, 7 bytes so far\n"
	    "C> BDAT 4 last\\r\\n\\n.\\r\\n\nS: 250 2.0.0 Ok\n"
	    "E: body 11 dots=1 eight=0\nE: reset 4 \n" NOOP },
	{ "one chunk may be all of it, or none", ALL,
	    EHLO MAIL RCPT
	    "C> BDAT 3 LAST\\r\\n\xc3\xa9x\nS: 451 4.3.0 *\nE* body 3 dots=0 eight=1\n" MAIL RCPT
	    "C: BDAT 0 LAST\nS: 250 2.0.0 *\nE* body 0 dots=0 eight=0\n" },
	{ "chunks and their commands may be pipelined", ALL,
	    EHLO
	    "C> MAIL FROM:<a@b.test>\\r\\nRCPT TO:<b@b.test>\\r\\nBDAT 6\\r\\nQUIT\\r\\nBDAT 6 "
	    "LAST\\r\\nQUIT\\r\\nNOOP\\r\\n\n"
	    "S: 250 2.1.0 *\nS: 250 2.1.5 *\nS: 250 2.0.0 Ok, 6 *\nS: 250 2.0.0 Ok\nS: 250 "
	    "2.0.0 Ok\nE* body 12 dots=0 eight=0\n" },
	{ "what follows a BDAT that is refused is no command", ALL,
	    EHLO "C> BDAT 6\\r\\nQUIT\\r\\nNOOP\\r\\n\nS: 503 5.5.1 MAIL and RCPT *\nS: 250 2.0.0 "
		 "*\n" MAIL "C> BDAT 6 LAST\\r\\nQUIT\\r\\nNOOP\\r\\n\nS: 503 5.5.1 No recipient "
		 "*\nS: 250 2.0.0 *\n" RCPT "C> BDAT 4 LAST\\r\\nab\\r\\n\nS: 250 *\n" },
	{ "a BDAT without a size ends the session", ALL,
	    EHLO MAIL RCPT "C: BDAT LAST\nS: 501 5.5.4 Syntax: BDAT *\nE* reset 5 \nX" },
	{ "a size that no number holds ends it too", ALL,
	    EHLO MAIL RCPT "C: BDAT 99999999999999999999\nS: 501 *\nX" },
	{ "DATA, MAIL and RCPT have no place between chunks; RSET drops them", ALL,
	    EHLO MAIL RCPT
	    "C> BDAT 2\\r\\nab\nS: 250 *\nC: DATA\nS: 503 5.5.1 The message comes by BDAT*\n"
	    "C: RCPT TO:<c@b.test>\nS: 503 *\nC: MAIL FROM:<>\nS: 503 *\n" NOOP
	    "C: RSET\nS: 250 *\nE* reset 0 \nC> BDAT 2 LAST\\r\\nab\nS: 503 *\n" MAIL RCPT
	    "C: DATA\nS: 354 *\nC: .\nS: 250 *\nE* body 0 dots=0 eight=0\n" },
	{ "EHLO between chunks drops them", ALL,
	    EHLO MAIL RCPT "C> BDAT 2\\r\\nab\nS: 250 *\nC: HELO c\nS: 250 mx.test\nE* reset 0 \n"
			   "C> BDAT 2 LAST\\r\\nab\nS: 502 5.5.1 BDAT is not offered*\n" NOOP },
	{ "BDAT is refused where it is not offered, its data with it", PLAIN,
	    "S: 220 *\nC: HELO c\nS: 250 *\n" MAIL RCPT
	    "C> BDAT 6 LAST\\r\\nQUIT\\r\\nNOOP\\r\\n\nS: 502 5.5.1 *\nS: 250 2.0.0 Ok\n" },
	{ "text in chunks has the rules of text", ALL,
	    EHLO MAIL RCPT
	    "C> BDAT 4\\r\\na\\nb\\n\nS: 550 5.6.0 Message refused: a line ended with LF*\n"
	    "E* reset 1 bare-lf\n" MAIL RCPT "C> BDAT 2\\r\\na\\r\nS: 250 *\nC> BDAT 1\\r\\nb\nS: "
	    "550 5.6.0 Message refused: a CR *\n" },
	{ "a CR may not end it", ALL,
	    EHLO MAIL RCPT "C> BDAT 2 LAST\\r\\na\\r\nS: 550 5.6.0 *\nE* reset 1 bare-cr\n" NOOP },
	{ "a binary message is any bytes, and comes by BDAT alone", ALL,
	    EHLO
	    "C: MAIL FROM:<a@b.test> BODY=BINARYMIME\nS: 250 *\nE* mail <a@b.test> size=0 key= "
	    "binary\n" RCPT "C: DATA\nS: 503 5.5.1 A message with BODY=BINARYMIME*\n"
	    "C> BDAT 7 LAST\\r\\n\\0\\r\\r\\n\\n.\\n\nS: 250 *\nE* body 7 dots=0 eight=0 "
	    "binary\n" MAIL RCPT
	    "C> BDAT 1 LAST\\r\\n\\0\nS: 550 5.6.0 Message refused: it holds a NUL*\n" },
	{ "binary that is text is none", ALL,
	    EHLO "C: MAIL FROM:<a@b.test> BODY=BINARYMIME\nS: 250 *\n" RCPT
		 "C> BDAT 5 LAST\\r\\nabc\\r\\n\nS: 250 *\nE* body 5 dots=0 eight=0\n" },
	{ "a chunk that leads over the size limit is refused and passed over", ALL,
	    EHLO MAIL RCPT "C> BDAT 1\\r\\na\nS: 250 *\nC: BDAT 4000 LAST\n"
			   "C: 456789012345678901234567890123456789012345678901234567890\n"
			   "S-\nC: RSET\nS-\nC: QUIT\nS-\n" },
	{ "LMTP answers the last chunk for each recipient", LMTP,
	    LHLO MAIL RCPT "C: RCPT TO:<c@b.test>\nS: 250 *\n"
			   "C> BDAT 2\\r\\nab\nS: 250 2.0.0 Ok, 2 *\n"
			   "C> BDAT 2 LAST\\r\\n\\r\\n\nS: 250 2.0.0 Ok\nS: 550 5.2.2 *\n" NOOP },
	{ "LMTP refuses the last chunk for each recipient", LMTP,
	    LHLO MAIL RCPT "C: RCPT TO:<c@b.test>\nS: 250 *\n"
			   "C> BDAT 2 LAST\\r\\na\\n\nS: 550 5.6.0 *\nS: 550 5.6.0 *\n" NOOP },
	{ "the role may refuse the data before it comes", ALL,
	    EHLO "C: MAIL FROM:<t@b.test>\nS: 250 *\n" RCPT
		 "C> BDAT 6 LAST\\r\\nQUIT\\r\\nNOOP\\r\\n\nS: 452 4.3.1 *\nS: 250 2.0.0 Ok\n"
		 "E* data\nE: reset 3 \n" },
	{ "DSN parameters are checked and kept", ALL,
	    EHLO
	    "C: MAIL FROM:<a@b.test> RET=HDRS ENVID=QQ+2B314 SIZE=10\nS: 250 *\n"
	    "E* mail <a@b.test> size=10 key= params=RET=HDRS ENVID=QQ+2B314\n"
	    "C: RCPT TO:<b@b.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;B+40b.test\nS: 250 *\n"
	    "E: rcpt <b@b.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;B+40b.test\n"
	    "C: RCPT TO:<c@b.test> notify=never\nS: 250 *\nE: rcpt <c@b.test> NOTIFY=never\n"
	    "C: RCPT TO:<b@b.test> NOTIFY=NEVER,DELAY\nS: 501 5.5.4 *\n"
	    "C: RCPT TO:<b@b.test> NOTIFY=DELAY,DELAY\nS: 501 *\n"
	    "C: RCPT TO:<b@b.test> NOTIFY=DELAY,\nS: 501 *\n"
	    "C: RCPT TO:<b@b.test> NOTIFY\nS: 501 *\nC: RCPT TO:<b@b.test> ORCPT=b\nS: 501 *\n"
	    "C: RCPT TO:<b@b.test> ORCPT=rfc822;a+b\nS: 501 *\n"
	    "C: RCPT TO:<b@b.test> ORCPT=;a\nS: 501 *\nC: RCPT TO:<b@b.test> RET=FULL\nS: 555 *\n"
	    "C: RSET\nS: 250 *\nC: MAIL FROM:<> RET=NO\nS: 501 *\nC: MAIL FROM:<> ENVID=+4\n"
	    "S: 501 *\nC: MAIL FROM:<> NOTIFY=NEVER\nS: 555 *\n" },
	{ "SMTPUTF8 is for addresses that are not ASCII", ALL,
	    EHLO
	    "C: MAIL FROM:<\xc3\xa9@b.test>\nS: 553 5.6.7 An address that is not ASCII wants "
	    "SMTPUTF8*\n" MAIL "C: RCPT TO:<\xc3\xa9@b.test>\nS: 553 5.6.7 *\n"
	    "C: RCPT TO:<b@b.test> ORCPT=utf-8;\xc3\xa9@b.test\nS: 501 5.5.4 Parameter ORCPT has a "
	    "wrong value*\n"
	    "C: RCPT TO:<b@b.test> ORCPT=utf-8;\\x{E9}\\x{1F600}@b.test\nS: 250 *\n"
	    "E* rcpt <b@b.test> ORCPT=utf-8;\\x{E9}\\x{1F600}@b.test\n"
	    "C: RCPT TO:<b@b.test> ORCPT=utf-8;\\x{E9\nS: 501 *\n"
	    "C: RCPT TO:<b@b.test> ORCPT=utf-8;\\x{}@b.test\nS: 501 *\n"
	    "C: RCPT TO:<b@b.test> ORCPT=utf-8;\\x{00}@b.test\nS: 501 *\n"
	    "C: RCPT TO:<b@b.test> ORCPT=utf-8;\\x{0E9}@b.test\nS: 501 *\n"
	    "C: RCPT TO:<b@b.test> ORCPT=utf-8;\\x{D800}@b.test\nS: 501 *\n"
	    "C: RCPT TO:<b@b.test> ORCPT=utf-8;\\x{110000}@b.test\nS: 501 *\n"
	    "C: RCPT TO:<b@b.test> ORCPT=utf-8;\\x{G0}@b.test\nS: 501 *\n"
	    "C: RCPT TO:<b@b.test> ORCPT=utf-8;a\\@b.test\nS: 501 *\nC: RSET\nS: 250 *\n"
	    "C: MAIL FROM:<\xc3\xa9@b.test> SMTPUTF8\nS: 250 *\n"
	    "E* mail <\xc3\xa9@b.test> size=0 key= utf8\n"
	    "C: RCPT TO:<\xc3\xbc@\xc3\xbc.test> ORCPT=utf-8;\xc3\xbc@b.test\nS: 250 *\n"
	    "E: rcpt <\xc3\xbc@\xc3\xbc.test> ORCPT=utf-8;\\x{FC}@b.test\n"
	    "C: RCPT TO:<\xff@b.test>\nS: 501 5.1.3 *\n"
	    "C: RCPT TO:<b@b.test> ORCPT=utf-8;\xff\nS: 501 *\nC: RSET\nS: 250 *\n"
	    "C: MAIL FROM:<\xff@b.test> SMTPUTF8\nS: 501 *\nC: MAIL FROM:<a@b.test> "
	    "SMTPUTF8=1\nS: 501 *\n" },
	{ "REQUIRETLS is offered under TLS alone", ALL,
	    EHLO
	    "C: MAIL FROM:<a@b.test> REQUIRETLS\nS: 555 *\nC: STARTTLS\nS: 220 *\nTLS\n"
	    "C: EHLO c\nS: 250-mx.test\nS: 250-PIPELINING\nS: 250-SIZE 4000\nS: 250-8BITMIME\n"
	    "S: 250-CHUNKING\nS: 250-BINARYMIME\nS: 250-DSN\nS: 250-SMTPUTF8\nS: 250-REQUIRETLS\n"
	    "S: 250-PRDR\nS: 250-LIMITS *\nS: 250 ENHANCEDSTATUSCODES\n"
	    "C: MAIL FROM:<a@b.test> REQUIRETLS=1\nS: 501 *\n"
	    "C: MAIL FROM:<a@b.test> REQUIRETLS\nS: 250 *\nE* mail <a@b.test> size=0 key= "
	    "requiretls\n" },
	{ "PRDR answers for each recipient and then for all", ALL,
	    EHLO
	    "C: MAIL FROM:<a@b.test> PRDR\nS: 250 *\n" RCPT RCPT
	    "C: DATA\nS: 354 *\nC: .\nS: 353 A reply for each recipient follows\nS: 250 2.0.0 Ok\n"
	    "S: 550 5.2.2 *\nS: 250 2.0.0 Ok\n" NOOP },
	{ "PRDR with one recipient, or a message nobody gets, has one reply", ALL,
	    EHLO "C: MAIL FROM:<a@b.test> PRDR\nS: 250 *\n" RCPT
		 "C: DATA\nS: 354 *\nC: .\nS: 250 2.0.0 Ok\nC: MAIL FROM:<a@b.test> PRDR\nS: 250 "
		 "*\n" RCPT RCPT "C: DATA\nS: 354 *\nC: x\nC: .\nS: 451 *\n" NOOP },
	{ "MAILMAX is how many messages one session has", ALL,
	    EHLO MAIL "C: RSET\nS: 250 *\n" MAIL "C: RSET\nS: 250 *\n" MAIL
		      "C: RSET\nS: 250 *\n" MAIL "C: RSET\nS: 250 *\n" MAIL
		      "C: RSET\nS: 250 *\nC: MAIL FROM:<a@b.test>\nS: 421 4.7.0 Too many *\nX" },
	{ "RCPTMAX is how many recipients a message has", ALL,
	    EHLO MAIL RCPT RCPT RCPT "C: RCPT TO:<b@b.test>\nS: 452 4.5.3 *\n" },
	{ "a trusted client may speak for another one", ALL,
	    "trust\nS: 220 *\nC: HELO p\nS: 250 *\n"
	    "C: XCLIENT NAME=mail.b.test ADDR=192.0.2.7 PORT=2525 PROTO=ESMTP HELO=m+2Eb.test\n"
	    "S: 220 mx.test ESMTP relayd\n"
	    "E* xclient 31 name=mail.b.test helo=m.b.test addr=c0000207 port=2525\n"
	    "C: MAIL FROM:<a@b.test>\nS: 503 5.5.1 Say EHLO first*\nC: HELO c\nS: 250 *\n"
	    "C: XCLIENT ADDR=IPv6:2001:db8::1 NAME=[UNAVAILABLE]\nS: 220 *\n"
	    "E* xclient 3 name= helo= addr=20010db8000000000000000000000001 port=0\n"
	    "C: XCLIENT ADDR=1.2.3\nS: 501 5.5.4 *\nC: XCLIENT LOGIN=x\nS: 501 *\n"
	    "C: XCLIENT\nS: 501 *\nC: XCLIENT PORT=70000\nS: 501 *\nC: XCLIENT NAME=a NAME=b\n"
	    "S: 501 *\nC: XCLIENT NAME=a+0Ab\nS: 501 *\nC: HELO c\nS: 250 *\n" MAIL
	    "C: XCLIENT ADDR=1.2.3.4\nS: 503 *\nC: RSET\nS: 250 *\n"
	    "C: XCLIENT NAME=x\nS: 554 *\nX" },
	{ "a trusted client may tell where a message came from", ALL,
	    "trust\nS: 220 *\nC: HELO p\nS: 250 *\n"
	    "C: XFORWARD NAME=m.b.test ADDR=192.0.2.7\nS: 250 2.0.0 Ok\n"
	    "E* xforward 3 name=m.b.test helo= addr=c0000207 port=0\n"
	    "C: XFORWARD HELO=m SOURCE=REMOTE IDENT=1a\nS: 250 *\nC: XFORWARD SOURCE=x\nS: 501 "
	    "*\n" MAIL "C: XFORWARD NAME=a\nS: 503 *\n" },
	{ "nobody else may", ALL,
	    EHLO "C: XCLIENT ADDR=1.2.3.4\nS: 550 5.7.1 You may not speak for other clients*\n"
		 "C: XFORWARD ADDR=1.2.3.4\nS: 550 5.7.1 *\n" },
	{ "a trusted client sees that it is, before and after XCLIENT", ALL,
	    "trust\nS: 220 *\nC: EHLO c\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: "
	    "250-*\n"
	    "S: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-LIMITS *\n"
	    "S: 250-XCLIENT NAME ADDR PORT PROTO HELO\n"
	    "S: 250-XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\nS: 250 *\n" },
	{ "HELP lists what there is; VRFY and EXPN are honest", ALL,
	    "S: 220 *\nC: HELP\n"
	    "S: 214 2.0.0 EHLO HELO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY HELP STARTTLS (RFC "
	    "5321)\n"
	    "C: VRFY bob\nS: 252 2.5.2 *\nC: EXPN staff\nS: 502 5.5.1 *\n" },
};

START_TEST(an_extension_works_as_the_transcript_says)
{
	play_transcript(rows[_i].name, rows[_i].service, rows[_i].transcript);
}
END_TEST

static const struct stream {
	unsigned service;
	bool tls;
	unsigned trust;
	struct slice bytes;
} streams[] = {
	{ ALL, false, 0,
	    SLICE("EHLO c\r\nMAIL FROM:<a@b.test> BODY=8BITMIME\r\nRCPT TO:<b@b.test>\r\nBDAT 9\r\n"
		  "a\r\n.\r\n\r\n.BDAT 4\r\n\r\n..BDAT 2 LAST\r\n\r\nBDAT 4\r\nQUITMAIL "
		  "FROM:<>\r\n") },
	{ ALL, true, 0,
	    SLICE("EHLO c\r\nMAIL FROM:<a@b.test> BODY=BINARYMIME REQUIRETLS PRDR\r\n"
		  "RCPT TO:<b@b.test>\r\nRCPT TO:<c@b.test>\r\nBDAT 3\r\n\0\r\nBDAT 3 LAST\r\n\n\r."
		  "MAIL FROM:<a@b.test>\r\nRCPT TO:<b@b.test>\r\nBDAT 3\r\na\rbBDAT 1 "
		  "LAST\r\nxBDAT\r\n") },
	{ LMTP, false, 0,
	    SLICE("LHLO c\r\nMAIL FROM:<t@b.test>\r\nRCPT TO:<b@b.test>\r\nRCPT TO:<b@b.test>\r\n"
		  "BDAT 4 LAST\r\nab\r\nMAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\nBDAT 0\r\nBDAT 1 "
		  "LAST\r\n"
		  "\rNOOP\r\n") },
	{ ALL, false, 3,
	    SLICE("EHLO c\r\nXFORWARD ADDR=192.0.2.1\r\nXCLIENT ADDR=IPV6:::1\r\nEHLO d\r\n"
		  "MAIL FROM:<\xc3\xa9@b.test> SMTPUTF8 RET=FULL\r\nRCPT TO:<\xc3\xa9@b.test> "
		  "NOTIFY=DELAY\r\nXCLIENT NAME=x\r\nRSET\r\nXCLIENT NAME=x\r\nNOOP\r\n") },
};

START_TEST(any_cut_of_an_extension_gives_the_same_replies)
{
	const struct stream *s = &streams[_i];

	same_for_every_cut(s->bytes, &model_services[s->service], s->tls, s->trust);
}
END_TEST

/* Over the limit by one chunk: all of it is passed over, then 552, and commands are read again. */
START_TEST(a_chunk_over_the_limit_is_counted_to_its_end)
{
	static char chunk[5000];
	struct model m;
	size_t before;

	memset(chunk, 'x', sizeof(chunk));
	for (size_t i = 98; i < sizeof(chunk); i += 100)
		memcpy(chunk + i, "\r\n", 2);
	model_init(&m, &model_services[ALL], false);
	model_start(&m);
	(void)model_feed(&m, SLICE("EHLO c\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<b@b.test>\r\n"
				   "BDAT 5000 LAST\r\n")); /* takes all of it */
	before = m.sent.len;
	ck_assert_uint_eq(model_feed(&m, slice_of(chunk, sizeof(chunk) - 1)).len, 0);
	ck_assert_uint_eq(m.sent.len, before);
	ck_assert_uint_eq(model_feed(&m, SLICE("\nNOOP\r\n")).len, 0);
	ck_assert(slice_starts(slice_drop(buf_slice(&m.sent), before), SLICE("552 5.3.4 ")));
	ck_assert(slice_ends(buf_slice(&m.sent), SLICE("\r\n250 2.0.0 Ok\r\n")));
	model_fini(&m);
}
END_TEST

UNIT_SUITE(smtp_extension)
{
	UNIT_ROWS(an_extension_works_as_the_transcript_says, rows);
	UNIT_ROWS(any_cut_of_an_extension_gives_the_same_replies, streams);
	UNIT_TEST(a_chunk_over_the_limit_is_counted_to_its_end);
}

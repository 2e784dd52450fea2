/* tests/unit/smtp/session_test.c - transcripts of sessions, and the properties of all of them. */
#include "unit/smtp/play.h"

#include "relayd/smtp/session.h"

struct row {
	const char *name;
	unsigned service; /* of model_services */
	const char *transcript;
};

#define HELLO "S: 220 mx.test ESMTP relayd\nC: HELO c\nS: 250 mx.test\nE* helo c 0\n"
#define ID    " [id aaaaaaaaaaaaaaaaaaaaaaaaaa]\n"

static const struct row rows[] = {
	{ "a session as every primer shows it", 0,
	    HELLO
	    "C: MAIL FROM:<alice@example.org>\nS: 250 2.1.0 Ok\nE: mail <alice@example.org> "
	    "size=0 key=\n"
	    "C: RCPT TO:<bob@example.test>\nS: 250 2.1.5 Ok\nE: rcpt <bob@example.test>\n"
	    "C: DATA\nS: 354 End data with <CR><LF>.<CR><LF>\nE: data\n"
	    "C: Subject: hello\nC: \nC: ..dots\nC: .\nS: 250 2.0.0 Ok\nE: body 25 dots=1 eight=0\n"
	    "E: reset 4 \nC: QUIT\nS: 221 2.0.0 Bye\nX" },
	{ "spaces behind the colon are taken, as people type them", 0,
	    HELLO "C: mail from: <a@b.test>  \nS: 250 2.1.0 Ok\nC: rcpt to:  <b@b.test>\nS: 250 "
		  "2.1.5 Ok" },
	{ "EHLO lists what is there, AUTH only under TLS", 0,
	    "S: 220 *\nC: EHLO c\nS: 250-mx.test\nS: 250-PIPELINING\nS: 250-SIZE 100000\n"
	    "S: 250-8BITMIME\nS: 250-STARTTLS\nS: 250 ENHANCEDSTATUSCODES\n"
	    "C: AUTH PLAIN good\nS: 538 5.7.11 *\n"
	    "C: STARTTLS\nS: 220 2.0.0 Ready to start TLS\nTLS\n"
	    "C: MAIL FROM:<a@b.test>\nS: 503 5.5.1 Say EHLO first*\n"
	    "C: EHLO c\nS: 250-mx.test\nS: 250-PIPELINING\nS: 250-SIZE 100000\nS: 250-8BITMIME\n"
	    "S: 250-AUTH PLAIN X-TEST\nS: 250 ENHANCEDSTATUSCODES\n"
	    "C: STARTTLS\nS: 503 5.5.1 TLS is on already*\n"
	    "C: AUTH LOGIN\nS: 504 5.5.4 *\n"
	    "C: AUTH PLAIN bad\nS: 535 5.7.8 *\nC: AUTH PLAIN\nS: 334 \nC: *\nS: 501 5.7.0 *\n"
	    "C: AUTH plain\nS: 334 \nC: good\nS: 235 *\nC: AUTH PLAIN good\nS: 503 5.5.1 Logged "
	    "in*" },
	{ "without a certificate and users neither is offered", 1,
	    "S: 220 *\nC: EHLO c\nS: 250-mx.test\nS: 250-PIPELINING\nS: 250-SIZE 300\nS: "
	    "250-8BITMIME\n"
	    "S: 250 ENHANCEDSTATUSCODES\nC: STARTTLS\nS: 502 5.5.1 *\nC: AUTH PLAIN x\nS: 502 "
	    "5.5.1 *" },
	{ "HELP names what is still to be had", 0,
	    "S: 220 *\nC: EHLO c\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250 *\n"
	    "C: HELP\nS: 214 2.0.0 EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP STARTTLS AUTH "
	    "(RFC "
	    "5321)\nC: STARTTLS\nS: 220 *\nTLS\nC: EHLO c\nS: 250-*\nS: 250-*\nS: 250-*\nS: "
	    "250-*\nS: 250-*\nS: 250 *\n"
	    "C: HELP\nS: 214 2.0.0 EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP AUTH (RFC "
	    "5321)\n"
	    "C: AUTH PLAIN good\nS: 235 *\n"
	    "C: HELP\nS: 214 2.0.0 EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP (RFC "
	    "5321)\n" },
	{ "what was said behind STARTTLS in plain text is dropped", 0,
	    "S: 220 *\nC: HELO c\nS: 250 *\nC> STARTTLS\\r\\nMAIL FROM:<a@b.test>\\r\\n\nS: 220 "
	    "2.0.0 *\nTLS\n"
	    "C: NOOP\nS: 250 2.0.0 Ok\nE* helo c 0\nE-" },
	{ "STARTTLS needs EHLO and takes no argument", 0,
	    "S: 220 *\nC: STARTTLS\nS: 503 5.5.1 Say EHLO*\nC: EHLO c\nS: 250-*\nS: 250-*\nS: "
	    "250-*\n"
	    "S: 250-*\nS: 250-*\nS: 250 *\nC: STARTTLS now\nS: 501 5.5.4 *" },
	{ "a listener that wants TLS and a login says so", 4,
	    "S: 220 *\nC: HELO c\nS: 250 *\nC: MAIL FROM:<a@b.test>\nS: 530 5.7.0 Say STARTTLS*\n"
	    "C: VRFY x\nS: 530 5.7.0 *\nC: NOOP\nS: 250 *\nC: STARTTLS\nS: 220 *\nTLS\nC: HELO "
	    "c\nS: 250 *\n"
	    "C: MAIL FROM:<a@b.test>\nS: 530 5.7.0 Log in*\nC: AUTH PLAIN good\nS: 235 *\n"
	    "C: MAIL FROM:<a@b.test>\nS: 250 *" },
	{ "commands in a wrong order are told what is missing", 0,
	    "S: 220 *\nC: MAIL FROM:<a@b.test>\nS: 503 5.5.1 Say EHLO first" ID
	    "C: DATA\nS: 503 5.5.1 Say EHLO first" ID "C: HELO c\nS: 250 *\n"
	    "C: RCPT TO:<a@b.test>\nS: 503 5.5.1 MAIL FROM:*\nC: DATA\nS: 503 5.5.1 MAIL FROM*\n"
	    "C: MAIL FROM:<>\nS: 250 *\nC: MAIL FROM:<>\nS: 503 5.5.1 A MAIL is open*\n"
	    "C: DATA\nS: 503 5.5.1 No recipient*\nC: RCPT TO:<nobody@b.test>\nS: 550 5.1.1 *\n"
	    "C: DATA\nS: 503 5.5.1 No recipient*\nC: RSET\nS: 250 *\nC: RCPT TO:<a@b.test>\nS: 503 "
	    "*" },
	{ "NOOP, HELP, VRFY, RSET and QUIT need no HELO", 0,
	    "S: 220 *\nC: NOOP hello\nS: 250 *\nC: HELP\nS: 214 2.0.0 EHLO *\nC: VRFY bob\nS: 252 "
	    "2.5.2 *\n"
	    "C: VRFY\nS: 501 *\nC: RSET\nS: 250 *\nC: RSET x\nS: 501 *\nC: EXPN list\nS: 502 5.5.1 "
	    "*\n"
	    "C: FOO\nS: 500 5.5.2 *\nC: QUIT\nS: 221 *\nX" },
	{ "HELO without a name is asked for one", 0,
	    "S: 220 *\nC: HELO\nS: 501 5.5.4 Say who you are: HELO your.host.name" ID
	    "C: EHLO a b\nS: 501 *\nC: EHLO x\nS: 550 5.7.1 *\nC: MAIL FROM:<a@b.test>\nS: 503 *" },
	{ "a new EHLO drops the transaction", 0,
	    HELLO
	    "C: MAIL FROM:<a@b.test>\nS: 250 *\nC: HELO d\nS: 250 *\nE* reset 0 \nE: helo d 0\n"
	    "C: RCPT TO:<a@b.test>\nS: 503 *" },
	{ "addresses that are none", 0,
	    HELLO "C: MAIL FROM:a@b.test\nS: 501 5.1.7 That is no address. Syntax: MAIL "
		  "FROM:<you@example.org>" ID "C: MAIL a@b\nS: 501 5.5.4 Syntax*\n"
		  "C: MAIL FROM:<a@b..test>\nS: 501 5.1.7 *\nC: MAIL FROM:<\xc3\xa9@b.test>\nS: "
		  "553 5.6.7 *\n"
		  "C: MAIL FROM:<a@b.test>\nS: 250 *\nC: RCPT TO:<>\nS: 501 5.1.3 *\n"
		  "C: RCPT TO:<a@b.test> NOTIFY=NEVER\nS: 555 5.5.4 Parameter NOTIFY*\n"
		  "C: RCPT TO:<Postmaster>\nS: 250 *\nE* rcpt <Postmaster>" },
	{ "parameters: known, unknown, doubled, wrong, without EHLO", 0,
	    HELLO
	    "C: MAIL FROM:<a@b.test> SIZE=1\nS: 555 5.5.4 Parameter SIZE*\n"
	    "C: EHLO c\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250 *\n"
	    "C: MAIL FROM:<a@b.test> SIZE=100001\nS: 552 5.3.4 *\n"
	    "C: MAIL FROM:<a@b.test> SIZE=99999999999999999999\nS: 552 5.3.4 *\n"
	    "C: MAIL FROM:<a@b.test> SIZE=x\nS: 501 *\nC: MAIL FROM:<a@b.test> SIZE=1 size=2\nS: "
	    "501 *\n"
	    "C: MAIL FROM:<a@b.test> BODY=9BIT\nS: 501 *\nC: MAIL FROM:<a@b.test>BODY=7BIT\nS: 501 "
	    "*\n"
	    "C: MAIL FROM:<a@b.test> SMTPUTF8\nS: 555 *\nC: MAIL FROM:<a@b.test> =x\nS: 501 *\n"
	    "C: MAIL FROM:<a@b.test> XKEY=k\nS: 555 *\nC: MAIL FROM:<a@b.test> AUTH=<>\nS: 555 *\n"
	    "C: MAIL FROM:<a@b.test> SIZE=100000 BODY=8bitmime\nS: 250 *" },
	{ "our own roles may name the message it comes from", 3,
	    "S: 220 *\nC: EHLO c\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-X-RELAYD\nS: 250 "
	    "*\n"
	    "C: MAIL FROM:<a@b.test> XID=aaaaaaaaaaaaaaaaaaaaaaaaaa XKEY=k+20y\nS: 250 *\n"
	    "E* mail <a@b.test> size=0 key=k y\nC: RSET\nS: 250 *\n"
	    "C: MAIL FROM:<> XID=short\nS: 501 *\nC: MAIL FROM:<> XKEY=+2\nS: 501 *\n"
	    "C: MAIL FROM:<> XKEY=+zz\nS: 501 *" },
	{ "too many recipients, too large a message", 1,
	    HELLO "C: MAIL FROM:<a@b.test>\nS: 250 *\nC: RCPT TO:<b@b.test>\nS: 250 *\nC: RCPT "
		  "TO:<c@b.test>\n"
		  "S: 250 *\nC: RCPT TO:<c@b.test>\nS: 452 4.5.3 *\nE* refused 452 RCPT\n"
		  "C: RCPT TO:<d@b.test>\nS: 452 4.5.3 *\nE-\nC: DATA\nS: 354 *\n"
		  "C: "
		  "34567890123456789012345678901234567890123456789012345678901234567890123456789012"
		  "345678901234567890\n"
		  "C: "
		  "34567890123456789012345678901234567890123456789012345678901234567890123456789012"
		  "345678901234567890\n"
		  "C: "
		  "34567890123456789012345678901234567890123456789012345678901234567890123456789012"
		  "345678901234567890\n"
		  "C: 1\nC: .\nS: 552 5.3.4 *\nE* reset 2 \nC: NOOP\nS: 250 *" },
	{ "pipelined commands are answered in order", 0,
	    HELLO "C> MAIL FROM:<a@b.test>\\r\\nRCPT TO:<nobody@b.test>\\r\\nRCPT "
		  "TO:<b@b.test>\\r\\nDATA\\r\\n\n"
		  "S: 250 2.1.0 *\nS: 550 5.1.1 *\nS: 250 2.1.5 *\nS: 354 *\n"
		  "C> x\\r\\n.\\r\\nMAIL FROM:<c@b.test>\\r\\nQUIT\\r\\n\nS: 451 4.3.0 *\nS: 250 "
		  "*\nS: 221 *\nX" },
	{ "commands wait behind an open question", 0,
	    HELLO
	    "later\nC> MAIL FROM:<a@b.test>\\r\\nRCPT TO:<b@b.test>\\r\\nNOOP\\r\\n\nS-\n"
	    "A: 250 2.1.0 fine\nS: 250 2.1.0 fine\nS-\nA: 450 4.7.1 wait\nS: 450 4.7.1 wait*\n"
	    "S: 250 2.0.0 Ok" },
	{ "an answer with 421 ends the session", 0,
	    HELLO "later\nC> MAIL FROM:<a@b.test>\\r\\nNOOP\\r\\n\nA: 421 4.7.0 enough\n"
		  "S: 421 4.7.0 enough*\nS-\nX" },
	{ "bare LF in commands", 0,
	    "S: 220 *\nC> NOOP\\nNOOP\\r\\n\nS: 500 5.5.2 A line ends with CRLF*\nS-\nC: NOOP\nS: "
	    "250 *" },
	{ "HTTP is shown the door", 0, "S: 220 *\nC: POST / HTTP/1.1\nS: 421 4.7.0 *\nX" },
	{ "five minutes of silence", 0,
	    HELLO
	    "C: MAIL FROM:<a@b.test>\nS: 250 *\n+299s\nS-\n+1s\nS: 421 4.4.2 *\nE* reset 5 \nX" },
	{ "silence within data", 0,
	    HELLO "C: MAIL FROM:<a@b.test>\nS: 250 *\nC: RCPT TO:<b@b.test>\nS: 250 *\nC: DATA\nS: "
		  "354 *\n"
		  "C: x\n+200s\nC: y\n+200s\nS-\n+100s\nS: 421 4.4.2 *\nX" },
	{ "no time runs while the role thinks", 0,
	    HELLO "later\nC: MAIL FROM:<a@b.test>\n+9000s\nS-\nA: 250 2.1.0 yes\nS: 250 "
		  "*\n+300s\nS: 421 *\nX" },
	{ "half a command is none", 0,
	    HELLO "C> NO\n+200s\nC> OP\n+99s\nS-\n+1s\nS: 421 4.4.2 Nothing heard*\nX" },
	{ "a line without an end is none either", 0,
	    HELLO "C: NOOP\nS: 250 *\n+200s\nC> x\n+200s\nS: 421 4.4.2 Nothing heard*\nX" },
	{ "a session lasts so long, whatever it says", 7,
	    HELLO "+250s\nC: NOOP\nS: 250 *\n+250s\nC: NOOP\nS: 250 *\n+250s\nC: NOOP\nS: 250 *\n"
		  "+249s\nC: NOOP\nS: 250 *\nS-\n+1s\nS: 421 4.4.2 This connection*\n"
		  "E* limit session-time\nX" },
	{ "a message under way when it ends has as long again", 7,
	    HELLO
	    "+250s\nC: NOOP\nS: 250 *\n+250s\nC: NOOP\nS: 250 *\n+250s\nC: NOOP\nS: 250 *\n"
	    "+249s\nC: MAIL FROM:<a@b.test>\nS: 250 *\n+2s\nS-\nC: RCPT TO:<b@b.test>\nS: 250 *\n"
	    "C: DATA\nS: 354 *\nC: .\nS: 250 *\nS-\n+0s\nS: 421 4.4.2 This connection*\nX" },
	{ "but not any time", 7,
	    HELLO "C: MAIL FROM:<a@b.test>\nS: 250 *\n+290s\nC: NOOP\nS: 250 *\n"
		  "+290s\nC: NOOP\nS: 250 *\n+290s\nC: NOOP\nS: 250 *\n+290s\nC: NOOP\nS: 250 *\n"
		  "+290s\nC: NOOP\nS: 250 *\n+290s\nC: NOOP\nS: 250 *\n+259s\nC: NOOP\nS: 250 "
		  "*\nS-\n+1s\n"
		  "S: 421 4.4.2 This connection*\nE* limit session-time\nE: reset 5 \nX" },
	{ "what ends while the role thinks is told behind its answer", 7,
	    HELLO "later\nC: MAIL FROM:<a@b.test>\n+3000s\nS-\nA: 451 4.3.0 no\nS: 451 *\nS-\n+0s\n"
		  "S: 421 4.4.2 This connection*\nX" },
	{ "data that drips", 7,
	    HELLO "C: MAIL FROM:<a@b.test>\nS: 250 *\nC: RCPT TO:<b@b.test>\nS: 250 *\nC: DATA\nS: "
		  "354 *\n"
		  "C: x\n+59s\nC: y\nS-\n+1s\nS: 421 4.4.2 Message data*\nE* limit data-rate\n"
		  "E: reset 5 \nX" },
	{ "data that is slow, but not too slow", 7,
	    HELLO "C: MAIL FROM:<a@b.test>\nS: 250 *\nC: RCPT TO:<b@b.test>\nS: 250 *\nC: DATA\nS: "
		  "354 *\n"
		  "C: 345678901234567890123456789012345678901234567890\n+30s\n"
		  "C: 345678901234567890123456789012345678901234567890\n+30s\nS-\n"
		  "C: 345678901234567890123456789012345678901234567890\n+30s\n"
		  "C: 345678901234567890123456789012345678901234567890\n+30s\nS-\n"
		  "C: .\nS: 250 *" },
	{ "one burst does not pay for a drip behind it", 7,
	    HELLO
	    "C: MAIL FROM:<a@b.test>\nS: 250 *\nC: RCPT TO:<b@b.test>\nS: 250 *\nC: DATA\nS: 354 "
	    "*\n"
	    "C: 345678901234567890123456789012345678901234567890123456789012345678901234567890"
	    "345678901234567890123456789012345678901234567890123456789012345678901234567890\n"
	    "C: 345678901234567890123456789012345678901234567890123456789012345678901234567890"
	    "345678901234567890123456789012345678901234567890123456789012345678901234567890\n"
	    "+60s\nS-\nC: x\n+60s\nS: 421 4.4.2 Message data*\nX" },
	{ "a chunk that drips", 7,
	    "S: 220 *\nC: EHLO c\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: "
	    "250 *\n"
	    "C: MAIL FROM:<a@b.test>\nS: 250 *\nC: RCPT TO:<b@b.test>\nS: 250 *\n"
	    "C> BDAT 500 LAST\\r\\nx\n+59s\nS-\nC> y\n+1s\nS: 421 4.4.2 Message data*\nX" },
	{ "a pace that we could not look at in time is nobody's fault", 7,
	    HELLO "C: MAIL FROM:<a@b.test>\nS: 250 *\nC: RCPT TO:<b@b.test>\nS: 250 *\nC: DATA\nS: "
		  "354 *\n"
		  "+200s\nS-\n+60s\nS: 421 4.4.2 Message data*\nX" },
	{ "an idle session is told that we close", 0, HELLO "shutdown\nS: 421 4.3.2 *\nX" },
	{ "a transaction may end first", 0,
	    HELLO
	    "C: MAIL FROM:<a@b.test>\nS: 250 *\nshutdown\nS-\nC: RCPT TO:<b@b.test>\nS: 250 *\n"
	    "C: DATA\nS: 354 *\nC: .\nS: 250 2.0.0 Ok\nS: 421 4.3.2 *\nX" },
	{ "RSET ends it too", 0,
	    HELLO "C: MAIL FROM:<a@b.test>\nS: 250 *\nshutdown\nC: RSET\nS: 250 *\nS: 421 *\nX" },
	{ "DATA that the role cannot take", 0,
	    HELLO "C: MAIL FROM:<t@b.test>\nS: 250 *\nC: RCPT TO:<b@b.test>\nS: 250 *\nC: DATA\n"
		  "S: 452 4.3.1 *\nE* reset 3 \nC: MAIL FROM:<>\nS: 250 *" },
	{ "LMTP answers for each recipient", 2,
	    "S: 220 mx.test LMTP relayd\nC: EHLO c\nS: 500 *\nC: HELO c\nS: 500 *\nC: LHLO c\nS: "
	    "250-mx.test\nS: 250-*\n"
	    "S: 250-*\nS: 250-*\nS: 250-X-RELAYD\nS: 250 *\nC: MAIL FROM:<>\nS: 250 *\nC: RCPT "
	    "TO:<a@b.test>\nS: 250 *\n"
	    "C: RCPT TO:<nobody@b.test>\nS: 550 *\nC: RCPT TO:<c@b.test>\nS: 250 *\nC: DATA\nS: "
	    "354 *\n"
	    "C: .\nS: 250 *\nS: 550 5.2.2 *\nS-\nC: NOOP\nS: 250 *" },
	{ "LMTP refuses broken data for each recipient", 2,
	    "S: 220 *\nC: LHLO c\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250 *\nC: "
	    "MAIL FROM:<>\nS: 250 *\n"
	    "C: RCPT TO:<a@b.test>\nS: 250 *\nC: RCPT TO:<c@b.test>\nS: 250 *\nC: DATA\nS: 354 *\n"
	    "C> a\\nb\\r\\n.\\r\\n\nS: 550 5.6.0 *\nS: 550 5.6.0 *\nS-" },
	{ "LMTP without a recipient has no data", 2,
	    "S: 220 *\nC: LHLO c\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250-*\nS: 250 *\nC: "
	    "MAIL FROM:<>\nS: 250 *\n"
	    "C: RCPT TO:<nobody@b.test>\nS: 550 *\nC: DATA\nS: 503 5.5.1 No recipient*" },
};

START_TEST(a_session_goes_as_the_transcript_says)
{
	play_transcript(rows[_i].name, rows[_i].service, rows[_i].transcript);
}
END_TEST

/* ---- properties ------------------------------------------------------------------------------ */

static const char *const streams[] = {
	"EHLO c\r\nMAIL FROM:<a@b.test> SIZE=10\r\nRCPT TO:<b@b.test>\r\nRCPT "
	"TO:<n@b.test>\r\nDATA\r\n"
	"Subject: x\r\n\r\n..\r\n.a\r\n\r\n.\r\nMAIL FROM:<r@b.test>\r\nQUIT\r\nNOOP\r\n",
	"EHLO c\r\nMAIL FROM:<a@b.test>\r\nRCPT "
	"TO:<b@b.test>\r\nDATA\r\na\n.\nb\r\n.\n\n.\r\n\r.\r\n.\r\r\n.\r\n"
	"NOOP\r\n.\r\n",
	"HELO c\r\nSTARTTLS\r\nEHLO d\r\nAUTH PLAIN\r\ngood\r\nAUTH\nFOO\rBAR\r\nMAIL "
	"FROM:<a@b.test>\r\n",
	"LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.test>\r\nRCPT "
	"TO:<b@b.test>\r\nDATA\r\n\xff\r\n.\r\nDATA\r\nRSET\r\nQUIT\r\n",
};

START_TEST(any_cut_gives_the_same_replies)
{
	for (size_t i = 0; i < 2 * ARRAY_LEN(model_services); i++)
		same_for_every_cut(slice_str(streams[_i]), &model_services[i / 2], i % 2 == 1, 0);
}
END_TEST

START_TEST(twenty_bad_commands_end_the_session)
{
	struct model m;
	unsigned replies = 0;

	model_init(&m, &model_services[0], false);
	model_start(&m);
	while (smtp_session_action(m.session) == SMTP_ACTION_NONE && replies < 100) {
		(void)model_feed(&m, SLICE("FOO\r\n")); /* takes all of it */
		replies++;
	}
	ck_assert_uint_eq(replies, SMTP_BAD_COMMANDS);
	ck_assert(slice_find(buf_slice(&m.sent), SLICE("\r\n421 4.7.0 Too many bad commands")) <
		  m.sent.len);
	model_fini(&m);
}
END_TEST

START_TEST(what_limits_tells_has_six_digits)
{
	static const struct smtp_service service = { .hostname = "mx.test",
		.max_bytes = 1000,
		.max_rcpts = 1000000,
		.max_mails = 4000000,
		.extensions = SMTP_EXT_LIMITS };
	struct model m;

	model_init(&m, &service, false);
	model_start(&m);
	(void)model_feed(&m, SLICE("EHLO c\r\n")); /* takes all of it */
	ck_assert(slice_find(buf_slice(&m.sent),
		      SLICE("LIMITS RCPTMAX=999999 MAILMAX=999999\r\n")) < m.sent.len);
	model_fini(&m);
}
END_TEST

/* A client that says the same over and over fills no log with it. */
static const struct {
	const char *before, *command;
	unsigned times;
	const char *last;
} stubborn[] = {
	{ "", "EHLO x\r\n", SMTP_BAD_COMMANDS, "\r\n421 4.7.0 Too many bad commands" },
	{ "EHLO c\r\n", "MAIL FROM:<a@b.test> SIZE=100001\r\n", SMTP_BAD_COMMANDS,
	    "\r\n421 4.7.0 Too many bad commands" },
	{ "EHLO c\r\n", "MAIL FROM:<r@b.test>\r\n", SMTP_BAD_PATHS,
	    "\r\n421 4.7.0 Too many refused messages in a row" },
	{ "", "EHLO c\r\n", SMTP_IN_VAIN + 1,
	    "\r\n421 4.7.0 Too many beginnings without a message" },
	{ "EHLO c\r\n", "MAIL FROM:<a@b.test>\r\nRSET\r\n", SMTP_IN_VAIN,
	    "\r\n421 4.7.0 Too many beginnings without a message" },
	{ "", "EHLO c\r\nMAIL FROM:<a@b.test>\r\n", SMTP_IN_VAIN + 1,
	    "\r\n421 4.7.0 Too many beginnings without a message" },
};

START_TEST(what_is_refused_all_the_time_ends_the_session)
{
	struct model m;
	unsigned refused = 0;

	model_init(&m, &model_services[0], false);
	model_start(&m);
	(void)model_feed(&m, slice_str(stubborn[_i].before)); /* takes all of it, as below */
	while (smtp_session_action(m.session) == SMTP_ACTION_NONE && refused < 200) {
		(void)model_feed(&m, slice_str(stubborn[_i].command));
		refused++;
	}
	ck_assert_uint_eq(refused, stubborn[_i].times);
	ck_assert(slice_find(buf_slice(&m.sent), SLICE("\r\n500 ")) == m.sent.len);
	ck_assert(slice_find(buf_slice(&m.sent), slice_str(stubborn[_i].last)) < m.sent.len);
	model_fini(&m);
}
END_TEST

START_TEST(a_hundred_refused_recipients_in_a_row_end_the_session)
{
	struct model m;
	unsigned refused = 0;

	model_init(&m, &model_services[0], false);
	model_start(&m);
	(void)model_feed(
	    &m, SLICE("HELO c\r\nMAIL FROM:<a@b.test>\r\n")); /* takes all of it, as below */
	for (unsigned i = 1; i < SMTP_BAD_PATHS; i++)
		(void)model_feed(&m, SLICE("RCPT TO:<nobody@b.test>\r\n"));
	(void)model_feed(&m, SLICE("RCPT TO:<b@b.test>\r\n")); /* one that is right */
	for (unsigned i = 0; i < 2 * SMTP_BAD_PATHS; i++)
		(void)model_feed(
		    &m, SLICE("RCPT TO:<deferred@b.test>\r\n")); /* these do not count */
	while (smtp_session_action(m.session) == SMTP_ACTION_NONE && refused < 200) {
		(void)model_feed(&m, SLICE("RCPT TO:<nobody@b.test>\r\n"));
		refused++;
	}
	ck_assert_uint_eq(refused, SMTP_BAD_PATHS);
	ck_assert(slice_find(buf_slice(&m.sent),
		      SLICE("\r\n421 4.7.0 Too many refused recipients in a row")) < m.sent.len);
	model_fini(&m);
}
END_TEST

/* A line of n bytes with its CRLF. */
static void
feed_line(struct model *m, const char *head, size_t n)
{
	char line[SMTP_AUTH_LINE_MAX + 10];

	memset(line, 'x', sizeof(line));
	memcpy(line, head, strlen(head));
	memcpy(line + n - 2, "\r\n", 2);
	(void)model_feed(m, slice_of(line, n)); /* takes all of it */
}

static const struct {
	const char *head;
	size_t bytes;
	const char *reply;
} limits[] = {
	{ "NOOP ", SMTP_COMMAND_MAX, "250" },
	{ "NOOP ", SMTP_COMMAND_MAX + 1, "500 5.5.2" },
	{ "AUTH PLAIN ", SMTP_AUTH_LINE_MAX, "535" },
	{ "AUTH PLAIN ", SMTP_AUTH_LINE_MAX + 1, "500 5.5.6" },
	{ "MAIL FROM:<a@b.test> SIZE=0000000000", SMTP_COMMAND_MAX + 685, "501 5.5.4" },
	{ "MAIL FROM:<a@b.test> ", SMTP_COMMAND_MAX + 686, "500 5.5.2" },
	{ "RCPT TO:<a@b.test> ", SMTP_COMMAND_MAX + 536, "503 5.5.1" },
	{ "RCPT TO:<a@b.test> ", SMTP_COMMAND_MAX + 537, "500 5.5.2" },
	{ "FOO", SMTP_AUTH_LINE_MAX, "500 5.5.2" },
	{ "FOO", SMTP_AUTH_LINE_MAX + 1, "500 5.5.6" },
};

START_TEST(a_command_line_has_its_limit)
{
	struct model m;
	size_t before;

	model_init(&m, &model_services[0], false);
	m.tls = true;
	model_start(&m);
	(void)model_feed(&m, SLICE("EHLO c\r\n")); /* takes all of it */
	before = m.sent.len;
	feed_line(&m, limits[_i].head, limits[_i].bytes);
	ck_assert_msg(
	    slice_starts(slice_drop(buf_slice(&m.sent), before), slice_str(limits[_i].reply)), "%s",
	    m.sent.p + before);
	model_fini(&m);
}
END_TEST

UNIT_SUITE(smtp_session)
{
	UNIT_ROWS(a_session_goes_as_the_transcript_says, rows);
	UNIT_ROWS(any_cut_gives_the_same_replies, streams);
	UNIT_TEST(twenty_bad_commands_end_the_session);
	UNIT_TEST(what_limits_tells_has_six_digits);
	UNIT_ROWS(what_is_refused_all_the_time_ends_the_session, stubborn);
	UNIT_TEST(a_hundred_refused_recipients_in_a_row_end_the_session);
	UNIT_ROWS(a_command_line_has_its_limit, limits);
}

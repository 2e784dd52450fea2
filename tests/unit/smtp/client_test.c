/* tests/unit/smtp/client_test.c - transcripts of client sessions.
 *
 *	S: line		the peer says it, with CRLF
 *	S> bytes	the same with nothing added, and \r \n \0 for those bytes
 *	C: line		what we say next	C-	we have said nothing more
 *	E: event	what the owner is told	E-	and nothing more
 *	send KIND	a transaction of client_model.h		no send	none is taken
 *	body / body!	it is sent; with ! it has no final CRLF
 *	handshake	is done
 *	quit		leave when what is queued is done
 *	wait MS		that is how long to wait for the peer
 */
#include "unit/unit.h"

#include "unit/smtp/client_model.h"

struct row {
	const char *name;
	bool lmtp;
	enum smtp_client_tls tls;
	const char *transcript;
};

#define PLAIN "S: 220 mx.test ESMTP\nC: EHLO me.test\nS: 250 mx.test\nE: ready\n"
#define PIPE  "S: 220 mx.test ESMTP\nC: EHLO me.test\nS: 250-mx.test\nS: 250 PIPELINING\nE: ready\n"
#define LMTP                                                                                       \
	"S: 220 mx.test LMTP\nC: LHLO me.test\nS: 250-mx.test\nS: 250-PIPELINING\nS: 250 "         \
	"X-RELAYD\nE: ready\n"

#define CHUNKS                                                                                     \
	"S: 220 mx.test ESMTP\nC: EHLO me.test\nS: 250-mx.test\nS: 250-PIPELINING\n"               \
	"S: 250-CHUNKING\nS: 250 BINARYMIME\nE: ready\n"

static const struct row rows[] = {
	{ "a binary message goes by BDAT once a recipient is there", false, 0,
	    CHUNKS
	    "send binary\nC: MAIL FROM:<a@x.test> BODY=BINARYMIME\nC: RCPT TO:<b@y.test>\nC-\n"
	    "S: 250 ok\nC-\nS: 250 ok\nC: BDAT 7 LAST\nE: body\nbody!\nC-\nwait 600000\n"
	    "S: 250 done\nE: done [250 done @.]\nE-\n" },
	{ "a binary message does not go where it is not offered", false, 0,
	    PIPE "send binary\nE: done [554 5.6.3 The next hop does not take binary messages @MAIL "
		 "local]\nC-\n" },
	{ "BDAT saves the dots, and the next transaction follows the message", false, 0,
	    CHUNKS
	    "send dots\nsend dots\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\n"
	    "C: RCPT TO:<c@y.test>\nC-\nS: 250 ok\nS: 550 5.1.1 no\nS: 250 ok\nC: BDAT 7 LAST\n"
	    "E: body\nbody\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: RCPT "
	    "TO:<c@y.test>\nC-\nS: 250 one\nE: done [550 5.1.1 no @RCPT] [250 one @.]\n"
	    "S: 250 ok\nS: 250 ok\nS: 250 ok\nC: BDAT 7 LAST\nE: body\nbody\nC-\nS: 451 4.3.0 two\n"
	    "E: done [451 4.3.0 two @.] [451 4.3.0 two @.]\nE-\n" },
	{ "no BDAT for nobody: RSET before the next", false, 0,
	    CHUNKS "send binary\nC: MAIL FROM:<a@x.test> BODY=BINARYMIME\nC: RCPT TO:<b@y.test>\n"
		   "S: 250 ok\nS: 550 no\nE: done [550 no @RCPT]\nC-\nsend one\nC: RSET\n"
		   "C: MAIL FROM:<a@x.test>\n" },
	{ "a BDAT that is refused before its end is the answer, and the end", false, 0,
	    CHUNKS "send binary\nC: MAIL FROM:<a@x.test> BODY=BINARYMIME\nC: RCPT TO:<b@y.test>\n"
		   "S: 250 ok\nS: 250 ok\nC: BDAT 7 LAST\nE: body\nS: 452 4.3.1 full\n"
		   "E: done [452 4.3.1 full @.]\nE: close protocol 452\n" },
	{ "without PIPELINING BDAT saves the wait for 354", false, 0,
	    "S: 220 mx.test ESMTP\nC: EHLO me.test\nS: 250-mx.test\nS: 250 CHUNKING\nE: ready\n"
	    "send sized\nC: MAIL FROM:<a@x.test>\nS: 250 ok\nC: RCPT TO:<b@y.test>\nC-\nS: 250 ok\n"
	    "C: BDAT 7 LAST\nE: body\nbody\nC-\nS: 250 ok\nE: done [250 ok @.]\n" },
	{ "a message of unknown size goes by DATA, any other by BDAT", false, 0,
	    CHUNKS
	    "send one\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: DATA\n"
	    "S: 250 ok\nS: 250 ok\nS: 354 go\nE: body\nbody\nC: .\nS: 250 ok\nE: done [250 ok @.]\n"
	    "send sized\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC-\nS: 250 ok\n"
	    "S: 250 ok\nC: BDAT 7 LAST\nE: body\nbody\nC-\nS: 550 5.7.1 no\n"
	    "E: done [550 5.7.1 no @.]\nE-\n" },
	{ "who offers CHUNKING and does not know BDAT says nothing about the message", false, 0,
	    CHUNKS
	    "send sized\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nS: 250 ok\n"
	    "S: 250 ok\nC: BDAT 7 LAST\nE: body\nbody\nS: 502 5.5.1 what?\nE: close protocol 0\n" },
	{ "nor does one that says so before the end of it", false, 0,
	    CHUNKS "send sized\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nS: 250 ok\n"
		   "S: 250 ok\nC: BDAT 7 LAST\nE: body\nS: 500 what?\nE: close protocol 0\n" },
	{ "nor does one that finds it out of place", false, 0,
	    CHUNKS
	    "send sized\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nS: 250 ok\n"
	    "S: 250 ok\nC: BDAT 7 LAST\nE: body\nbody\nS: 503 BDAT command used when CHUNKING not "
	    "advertised\nE: close protocol 0\n" },
	{ "a recipient's 500 is no word about BDAT, nor is 503 with LMTP", true, 0,
	    "S: 220 mx.test LMTP\nC: LHLO me.test\nS: 250-mx.test\nS: 250-PIPELINING\nS: 250 "
	    "CHUNKING\nE: ready\n"
	    "send dots\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: RCPT TO:<c@y.test>\n"
	    "S: 250 ok\nS: 250 ok\nS: 250 ok\nC: BDAT 7 LAST\nE: body\nbody\nS: 503 b\nE-\nS: 500 "
	    "c\nE: done [503 b @.] [500 c @.]\n" },
	{ "LMTP answers BDAT for each recipient", true, 0,
	    "S: 220 mx.test LMTP\nC: LHLO me.test\nS: 250-mx.test\nS: 250-PIPELINING\nS: 250 "
	    "CHUNKING\nE: ready\n"
	    "send dots\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: RCPT TO:<c@y.test>\n"
	    "S: 250 ok\nS: 250 ok\nS: 250 ok\nC: BDAT 7 LAST\nE: body\nbody\nS: 250 b\nE-\nS: 452 "
	    "4.2.2 c\nE: done [250 b @.] [452 4.2.2 c @.]\n" },
	{ "RCPTMAX leaves recipients over", false, 0,
	    "S: 220 mx.test ESMTP\nC: EHLO me.test\nS: 250-mx.test\nS: 250-PIPELINING\n"
	    "S: 250 LIMITS RCPTMAX=2 RCPTDOMAINMAX=1 MAILMAX=x\nE: ready\n"
	    "send three\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: RCPT TO:<c@y.test>\n"
	    "C: DATA\nS: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nE: body\nbody\nC: .\nS: 250 ok\n"
	    "E: done [250 ok @.] [250 ok @.] [452 4.5.3 The next hop takes fewer recipients at "
	    "once @MAIL local left]\n" },
	{ "MAILMAX is obeyed", false, 0,
	    "S: 220 mx.test ESMTP\nC: EHLO me.test\nS: 250-mx.test\nS: 250-PIPELINING\n"
	    "S: 250 LIMITS MAILMAX=2\nE: ready\n"
	    "send one\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: DATA\nsend one\nno send\n"
	    "S: 250 ok\nS: 250 ok\nS: 354 go\nE: body\nbody\nC: .\nC: MAIL FROM:<a@x.test>\nC: "
	    "RCPT "
	    "TO:<b@y.test>\nC: DATA\nS: 250 ok\nE: done [250 ok @.]\nno send\n" },
	{ "REQUIRETLS goes on only where it is offered", false, 0,
	    PIPE "send tls-all-the-way\nE: done [550 5.7.30 The next hop does not offer REQUIRETLS "
		 "@MAIL local]\nC-\n" },
	{ "REQUIRETLS is said where it is offered", false, 0,
	    "S: 220 mx.test ESMTP\nC: EHLO me.test\nS: 250-mx.test\nS: 250 REQUIRETLS\nE: ready\n"
	    "send tls-all-the-way\nC: MAIL FROM:<a@x.test> REQUIRETLS\n" },
	{ "an address that is not ASCII makes it SMTPUTF8", false, 0,
	    "S: 220 mx.test ESMTP\nC: EHLO me.test\nS: 250-mx.test\nS: 250 SMTPUTF8\nE: ready\n"
	    "send eai\nC: MAIL FROM:<a@x.test> SMTPUTF8\n" },
	{ "one command at a time where PIPELINING is not offered", false, 0,
	    "wait 300000\n" PLAIN
	    "wait 0\nsend two\nC: MAIL FROM:<a@x.test>\nC-\nwait 300000\nS: 250 ok\n"
	    "C: RCPT TO:<b@y.test>\nC-\nS: 250 ok\nC: RCPT TO:<c@y.test>\nC-\nS: 250 ok\nC: "
	    "DATA\nC-\nwait 120000\n"
	    "S: 354 go\nE: body\nwait 180000\nbody\nC: .\nwait 600000\nS: 250 2.0.0 queued as 7\n"
	    "E: done [250 2.0.0 queued as 7 @.] [250 2.0.0 queued as 7 @.]\nwait 0\n"
	    "quit\nC: QUIT\nwait 10000\nS: 221 bye\nE: close ok 0\nE-\nC-" },
	{ "all commands at once where it is", false, 0,
	    PIPE "send two\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: RCPT "
		 "TO:<c@y.test>\nC: DATA\nC-\n"
		 "S: 250 ok\nS: 250 ok\nS: 550 5.1.1 no c here\nS: 354 go\nE: body\nbody!\nC: \nC: "
		 ".\nS: 250 done\n"
		 "E: done [250 done @.] [550 5.1.1 no c here @RCPT]\nE-" },
	{ "the next transaction leaves with the dot, and its replies find it", false, 0,
	    PIPE "send one\nsend two\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: DATA\nC-\n"
		 "S: 250 ok\nS: 250 ok\nS: 354 go\nE: body\nC-\nbody\n"
		 "C: .\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: RCPT TO:<c@y.test>\nC: "
		 "DATA\nC-\nwait 600000\n"
		 "S: 451 4.3.0 no disk\nE: done [451 4.3.0 no disk @.]\nS: 250 a\nS: 250 b\nS: 250 "
		 "c\nS: 354 d\n"
		 "E: body\nsend one\nC-\nbody\nC: .\nC: MAIL FROM:<a@x.test>\nC: RCPT "
		 "TO:<b@y.test>\nC: DATA\n"
		 "S: 250 2\nE: done [250 2 @.] [250 2 @.]\nE-" },
	{ "one that comes while the dot is awaited leaves at once", false, 0,
	    PIPE "send one\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: DATA\nS: 250 ok\nS: "
		 "250 ok\nS: 354 go\n"
		 "E: body\nbody\nC: .\nC-\nsend one\nC: MAIL FROM:<a@x.test>\nC: RCPT "
		 "TO:<b@y.test>\nC: DATA\nC-" },
	{ "without PIPELINING the next one waits for the reply to the dot", false, 0,
	    PLAIN "send one\nsend one\nC: MAIL FROM:<a@x.test>\nS: 250 ok\nC: RCPT "
		  "TO:<b@y.test>\nS: 250 ok\nC: DATA\n"
		  "S: 354 go\nE: body\nbody\nC: .\nC-\nS: 250 ok\nE: done [250 ok @.]\nC: MAIL "
		  "FROM:<a@x.test>\nC-" },
	{ "a refused MAIL is the outcome of all, and the rest is not said", false, 0,
	    PLAIN "send two\nC: MAIL FROM:<a@x.test>\nS: 550 5.7.1 not you\n"
		  "E: done [550 5.7.1 not you @MAIL] [550 5.7.1 not you @MAIL]\nC-\nsend one\nC: "
		  "MAIL FROM:<a@x.test>" },
	{ "a refused MAIL with PIPELINING: the replies to the rest are taken and do not count",
	    false, 0,
	    PIPE "send two\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: RCPT "
		 "TO:<c@y.test>\nC: DATA\n"
		 "S: 451 4.7.1 later\nS: 503 what\nS: 503 what\nE-\nS: 503 no\n"
		 "E: done [451 4.7.1 later @MAIL] [451 4.7.1 later @MAIL]\nsend one\nC: MAIL "
		 "FROM:<a@x.test>" },
	{ "all recipients refused, one by one: no DATA, and RSET before the next", false, 0,
	    PLAIN "send one\nC: MAIL FROM:<a@x.test>\nS: 250 ok\nC: RCPT TO:<b@y.test>\nS: 550 no\n"
		  "E: done [550 no @RCPT]\nC-\nsend one\nC: RSET\nC-\nS: 250 reset\nC: MAIL "
		  "FROM:<a@x.test>\nC-" },
	{ "all recipients refused with PIPELINING: DATA fails, RSET goes along with the next",
	    false, 0,
	    PIPE "send one\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: DATA\nS: 250 ok\nS: "
		 "450 4.2.2 full\n"
		 "S: 554 no valid recipients\nE: done [450 4.2.2 full @RCPT]\nsend one\nC: "
		 "RSET\nC: MAIL FROM:<a@x.test>\n"
		 "C: RCPT TO:<b@y.test>\nC: DATA\nS: 250 reset\nS: 250 ok\nS: 250 ok\nS: 354 "
		 "go\nE: body\nE-" },
	{ "354 although all were refused: a lone dot, whose reply does not count", false, 0,
	    PIPE
	    "send one\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: DATA\nS: 250 ok\nS: 550 "
	    "5.1.1 no\n"
	    "S: 354 go\nC: .\nC-\nE-\nS: 250 took nothing\nE: done [550 5.1.1 no @RCPT]\nsend one\n"
	    "C: MAIL FROM:<a@x.test>" },
	{ "a refused DATA is the outcome of those accepted, and RSET comes before the next", false,
	    0,
	    PIPE "send two\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: RCPT "
		 "TO:<c@y.test>\nC: DATA\nS: 250 ok\n"
		 "S: 550 5.1.1 no\nS: 250 ok\nS: 452 4.3.1 full\nE: done [550 5.1.1 no @RCPT] [452 "
		 "4.3.1 full @DATA]\n"
		 "send one\nC: RSET\nC: MAIL FROM:<a@x.test>" },
	{ "LMTP answers the dot for each recipient that it accepted", true, 0,
	    LMTP "send two\nC: MAIL FROM:<a@x.test> XID=id26\nC: RCPT TO:<b@y.test>\nC: RCPT "
		 "TO:<c@y.test>\nC: DATA\n"
		 "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nE: body\nbody\nC: .\nS: 250 2.0.0 b "
		 "has it\nE-\n"
		 "S: 452 4.2.2 c is full\nE: done [250 2.0.0 b has it @.] [452 4.2.2 c is full "
		 "@.]\nE-" },
	{ "LMTP skips those refused", true, 0,
	    LMTP "send two\nC: MAIL FROM:<a@x.test> XID=id26\nC: RCPT TO:<b@y.test>\nC: RCPT "
		 "TO:<c@y.test>\nC: DATA\n"
		 "S: 250 ok\nS: 550 5.1.1 no b\nS: 250 ok\nS: 354 go\nE: body\nbody\nC: .\nS: 250 "
		 "c has it\n"
		 "E: done [550 5.1.1 no b @RCPT] [250 c has it @.]\nsend one\nC: MAIL "
		 "FROM:<a@x.test> XID=id26" },
	{ "LMTP with 354 and nobody accepted cannot go on", true, 0,
	    LMTP "send one\nC: MAIL FROM:<a@x.test> XID=id26\nC: RCPT TO:<b@y.test>\nC: DATA\nS: "
		 "250 ok\nS: 550 no\n"
		 "S: 354 go\nC: .\nE: done [550 no @RCPT]\nE: close protocol 0\nE-" },
	{ "LMTP has no HELO to fall back to", true, 0,
	    "S: 220 mx.test\nC: LHLO me.test\nS: 500 what\nE: close denied 500\nC-" },
	{ "our parameters go only where X-RELAYD is offered, as xtext", true, 0,
	    LMTP "send x\nC: MAIL FROM:<a@x.test> XID=id26 XKEY=item+207+2Bb@y.test\nC: RCPT "
		 "TO:<b@y.test>\nC: DATA" },
	{ "and nowhere else", false, 0, PLAIN "send x\nC: MAIL FROM:<a@x.test>\nC-" },
	{ "DSN parameters go only where DSN is offered", false, 0,
	    "S: 220 mx\nC: EHLO me.test\nS: 250-mx\nS: 250-dsn\nS: 250-PIPELINING\nS: 250 SIZE\nE: "
	    "ready\nsend dsn\n"
	    "C: MAIL FROM:<a@x.test> RET=HDRS ENVID=q\nC: RCPT TO:<b@y.test> NOTIFY=NEVER\nC: "
	    "DATA\n" },
	{ "and are left out elsewhere", false, 0,
	    PIPE "send dsn\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: DATA" },
	{ "the size is told where SIZE is offered", false, 0,
	    "S: 220 mx\nC: EHLO me.test\nS: 250-mx\nS: 250 SIZE 1000\nE: ready\nsend null\nC: MAIL "
	    "FROM:<> SIZE=1000" },
	{ "a message that is too large is not even offered", false, 0,
	    "S: 220 mx\nC: EHLO me.test\nS: 250-mx\nS: 250 SIZE 999\nE: ready\nsend null\n"
	    "E: done [552 5.3.4 Message is larger than the next hop takes @MAIL local]\nC-\nsend "
	    "one\n"
	    "C: MAIL FROM:<a@x.test>" },
	{ "8-bit mail goes to a peer with 8BITMIME", false, 0,
	    "S: 220 mx\nC: EHLO me.test\nS: 250-mx\nS: 250 8BITMIME\nE: ready\nsend 8bit\n"
	    "C: MAIL FROM:<a@x.test> BODY=8BITMIME" },
	{ "and to no other", false, 0,
	    PLAIN "send 8bit\nE: done [554 5.6.3 The next hop does not take 8-bit messages @MAIL "
		  "local]\nC-" },
	{ "UTF-8 mail goes to a peer with SMTPUTF8", false, 0,
	    "S: 220 mx\nC: EHLO me.test\nS: 250-mx\nS: 250 SMTPUTF8\nE: ready\nsend utf8\n"
	    "C: MAIL FROM:<a@x.test> SMTPUTF8" },
	{ "and to no other", false, 0,
	    PLAIN "send utf8\nE: done [554 5.6.9 The next hop does not take UTF-8 header fields "
		  "@MAIL local]\nC-" },
	{ "a UTF-8 address without SMTPUTF8 fails alone", false, 0,
	    PLAIN "send eai\nC: MAIL FROM:<a@x.test>\nS: 250 ok\nC: RCPT TO:<b@y.test>\nS: 550 no\n"
		  "E: done [553 5.6.7 The next hop does not take UTF-8 addresses @MAIL local] [550 "
		  "no @RCPT]\nE-" },
	{ "a path that holds a command is not sent, the others are", false, 0,
	    PIPE "send evil\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<c@y.test>\nC: RCPT TO:<\"e "
		 "f\"@y.test>\nC: DATA\nC-\n"
		 "S: 250 ok\nS: 250 c\nS: 250 e\nS: 354 go\nE: body\nbody\nC: .\nS: 250 took it\n"
		 "E: done [553 5.1.3 The forward-path cannot be sent @MAIL local] [250 took it @.] "
		 "[553 5.1.3 The forward-path cannot be sent @MAIL local] [250 took it @.]\nE-" },
	{ "nor a reverse-path", false, 0,
	    PLAIN
	    "send evil-from\nE: done [553 5.1.7 The reverse-path cannot be sent @MAIL local]\nC-" },
	{ "nor a parameter", false, 0,
	    PLAIN "send evil-param\nE: done [553 5.1.7 The reverse-path cannot be sent @MAIL "
		  "local]\nC-" },
	{ "a probe asks and resets", false, 0,
	    PIPE "send probe\nC: MAIL FROM:<>\nC: RCPT TO:<b@y.test>\nC: RSET\nC-\nS: 250 ok\nS: "
		 "250 2.1.5 ok\nE-\n"
		 "S: 250 ok\nE: done [250 2.1.5 ok @RCPT]\nsend one\nC: MAIL FROM:<a@x.test>" },
	{ "two probes do not wait for each other's replies to RSET", false, 0,
	    PLAIN "send probe\nsend probe\nC: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<b@y.test>\nS: "
		  "550 5.1.1 no\nC: RSET\n"
		  "S: 250 ok\nE: done [550 5.1.1 no @RCPT]\nC: MAIL FROM:<>\nC-" },
	{ "HELO where EHLO is not known, and no extension with it", false, SMTP_CLIENT_TLS_TRY,
	    "S: 220 mx\nC: EHLO me.test\nS: 502 what\nC: HELO me.test\nS: 250 mx\nE: ready\nsend "
	    "two\n"
	    "C: MAIL FROM:<a@x.test>\nC-" },
	{ "a greeting that refuses ends it", false, 0,
	    "S: 554 5.7.1 go away\nE: close denied 554\nC-" },
	{ "a temporary one too", false, 0, "S: 421 4.3.2 busy\nE: close denied 421\nC-" },
	{ "EHLO and HELO refused", false, 0,
	    "S: 220 mx\nC: EHLO me.test\nS: 550 no\nC: HELO me.test\nS: 550 5.7.1 bad name\nE: "
	    "close denied 550\nC-" },
	{ "STARTTLS where it is offered, and EHLO again", false, SMTP_CLIENT_TLS_TRY,
	    "S: 220 mx\nC: EHLO me.test\nS: 250-mx\nS: 250-SIZE 10\nS: 250 STARTTLS\nC: "
	    "STARTTLS\nC-\n"
	    "S> 220 go\\r\\n250 injected\\r\\n\nE: tls\nE-\nhandshake\nC: EHLO me.test\nC-\nS: "
	    "250-mx\n"
	    "S: 250 STARTTLS\nE: ready\nsend null\nC: MAIL FROM:<>\nC-" },
	{ "not where it is not wanted", false, SMTP_CLIENT_TLS_OFF,
	    "S: 220 mx\nC: EHLO me.test\nS: 250-mx\nS: 250 STARTTLS\nE: ready\nC-" },
	{ "a STARTTLS that is refused does not matter where it was only tried", false,
	    SMTP_CLIENT_TLS_TRY,
	    "S: 220 mx\nC: EHLO me.test\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: 454 4.7.0 not "
	    "now\nE: ready\nC-" },
	{ "it does where it must be", false, SMTP_CLIENT_TLS_MUST,
	    "S: 220 mx\nC: EHLO me.test\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: 454 4.7.0 not "
	    "now\n"
	    "E: close tls 454\nC-" },
	{ "so does one that is not offered", false, SMTP_CLIENT_TLS_MUST,
	    "S: 220 mx\nC: EHLO me.test\nS: 250 mx\nE: close tls 0\nC-" },
	{ "421 between transactions closes", false, 0,
	    PLAIN "S: 421 4.4.2 idle\nE: close closed 421\nC-" },
	{ "421 is the outcome of those that have none, and not of the next transaction", false, 0,
	    PIPE "send two\nsend one\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: RCPT "
		 "TO:<c@y.test>\nC: DATA\n"
		 "S: 250 ok\nS: 550 no b\nS: 421 4.3.2 going down\n"
		 "E: done [550 no b @RCPT] [421 4.3.2 going down @RCPT]\nE: close closed 421\nE-" },
	{ "421 to the MAIL of a session that has served others is no word about it", false, 0,
	    PIPE "send one\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: DATA\nS: 250 ok\n"
		 "S: 550 no\nS: 554 no\nE: done [550 no @RCPT]\n"
		 "send one\nC: RSET\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: DATA\n"
		 "S: 250 ok\nS: 421 4.7.0 enough\nE: close closed 421\nE-" },
	{ "421 to its RCPT is one", false, 0,
	    PIPE "send one\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: DATA\nS: 250 ok\n"
		 "S: 550 no\nS: 554 no\nE: done [550 no @RCPT]\n"
		 "send one\nC: RSET\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: DATA\n"
		 "S: 250 ok\nS: 250 ok\nS: 421 4.7.0 enough\n"
		 "E: done [421 4.7.0 enough @RCPT]\nE: close closed 421\nE-" },
	{ "421 instead of a reply to the dot", false, 0,
	    PIPE "send one\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: DATA\nS: 250 ok\nS: "
		 "250 ok\nS: 354 go\n"
		 "E: body\nbody\nC: .\nS: 421 4.3.2 going down\nE: done [421 4.3.2 going down @.]\n"
		 "E: close closed 421\nE-" },
	{ "a reply in the middle of the message breaks the session", false, 0,
	    PIPE "send one\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: DATA\nS: 250 ok\nS: "
		 "250 ok\nS: 354 go\n"
		 "E: body\nS: 552 5.3.4 too big\nE: done [552 5.3.4 too big @.]\nE: close protocol "
		 "552\nbody\nC-\nE-" },
	{ "a yes in the middle of the message is no yes", false, 0,
	    PIPE "send one\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: DATA\nS: 250 ok\nS: "
		 "250 ok\nS: 354 go\n"
		 "E: body\nS: 250 got it already\nE: close protocol 0\nE-" },
	{ "a reply that nobody asked for breaks the session", false, 0,
	    PLAIN "S: 250 hello\nE: close protocol 0\nC-" },
	{ "354 to MAIL is nonsense", false, 0,
	    PLAIN "send one\nC: MAIL FROM:<a@x.test>\nS: 354 go\nE: close protocol 0\nC-" },
	{ "250 to DATA is nonsense", false, 0,
	    PIPE "send one\nC: MAIL FROM:<a@x.test>\nC: RCPT TO:<b@y.test>\nC: DATA\nS: 250 ok\nS: "
		 "250 ok\nS: 250 ok\n"
		 "E: close protocol 0\nC-" },
	{ "what is no reply breaks the session", false, 0,
	    "S: hello there\nE: close protocol 0\nC-" },
	{ "a code out of range too", false, 0, "S: 620 mx\nE: close protocol 0\nC-" },
	{ "and one without a space", false, 0, "S: 220mx\nE: close protocol 0\nC-" },
	{ "lines of one reply are joined, unprintable bytes become ?", false, 0,
	    PLAIN "send one\nC: MAIL FROM:<a@x.test>\nS: 550-5.7.1 no\nS: 550-5.7.1\nS> 550 5.7.1 "
		  "see \\0\\r\xe9 here\\r\\n\n"
		  "E: done [550 5.7.1 no see ??? here @MAIL]" },
	{ "an enhanced code of another class is only text", false, 0,
	    PLAIN "send one\nC: MAIL FROM:<a@x.test>\nS: 450 5.7.1 what\nE: done [450 5.7.1 what "
		  "@MAIL]" },
	{ "a bare LF ends a reply line as well", false, 0,
	    "S> 220 mx\\n\nC: EHLO me.test\nS> 250 mx\\n\nE: ready" },
	{ "a code alone is a reply", false, 0, "S: 220\nC: EHLO me.test\nS: 250\nE: ready" },
	{ "QUIT waits for what is in work", false, 0,
	    PLAIN "send one\nquit\nC: MAIL FROM:<a@x.test>\nC-\nS: 550 no\nE: done [550 no "
		  "@MAIL]\nC: QUIT\nS: 221 bye\n"
		  "E: close ok 0" },
};

/* "\r", "\n" and "\0" as those bytes. */
static void
unescape(struct buf *out, struct slice text)
{
	for (size_t i = 0; i < text.len; i++) {
		char next = i + 1 < text.len && text.p[i] == '\\' ? text.p[i + 1] : ' ';

		if (next == 'r' || next == 'n' || next == '0') {
			buf_putc(out, next == 'r' ? '\r' : next == 'n' ? '\n' : '\0');
			i++;
		} else {
			buf_putc(out, text.p[i]);
		}
	}
}

static void
next_event_is(struct client_model *m, struct slice want, const char *name)
{
	struct slice got = slice_until(buf_slice(&m->events), '\n');

	ck_assert_msg(m->events.len > 0 && slice_eq(got, want), "%s: told \"%.*s\", not \"%.*s\"",
	    name, SLICE_FMT(got), SLICE_FMT(want));
	buf_consume(&m->events, got.len + 1);
}

static void
next_line_is(struct client_model *m, struct slice want, const char *name)
{
	char line[1200] = "(nothing)";
	bool any = client_model_line(m, line);

	ck_assert_msg(any && slice_eq(slice_str(line), want), "%s: said \"%s\", not \"%.*s\"", name,
	    line, SLICE_FMT(want));
}

static void
send_kind(struct client_model *m, struct slice kind)
{
	for (size_t i = 0; i < ARRAY_LEN(client_tx_kinds); i++) {
		if (slice_eq(slice_str(client_tx_kinds[i].name), kind)) {
			ck_assert(client_model_send(m, &client_tx_kinds[i]));
			return;
		}
	}
	ck_abort_msg("no transaction %.*s", SLICE_FMT(kind));
}

static void
owner_does(struct client_model *m, struct slice what, const char *name)
{
	if (slice_starts(what, SLICE("send ")))
		send_kind(m, slice_drop(what, 5));
	else if (slice_eq(what, SLICE("body")))
		smtp_client_body_done(m->c, true, &m->out);
	else if (slice_eq(what, SLICE("body!")))
		smtp_client_body_done(m->c, false, &m->out);
	else if (slice_eq(what, SLICE("no send")))
		ck_assert_msg(!smtp_client_can_send(m->c), "%s: would send", name);
	else if (slice_eq(what, SLICE("handshake")))
		smtp_client_tls_done(m->c, &m->out);
	else if (slice_eq(what, SLICE("quit")))
		smtp_client_quit(m->c, &m->out);
	else if (slice_starts(what, SLICE("wait ")))
		ck_assert_msg((uint32_t)atol(what.p + 5) == smtp_client_timeout_ms(m->c),
		    "%s: %.*s, not %u", name, SLICE_FMT(what), smtp_client_timeout_ms(m->c));
	else
		ck_abort_msg("%s: what is \"%.*s\"?", name, SLICE_FMT(what));
	client_model_pump(m);
}

static void
run_line(struct client_model *m, struct slice line, size_t step, const char *name)
{
	struct slice rest = slice_drop(line, 3);
	struct buf said = buf_heap(1u << 16);

	if (slice_starts(line, SLICE("S: "))) {
		buf_put(&said, rest);
		buf_puts(&said, "\r\n");
		client_model_feed(m, buf_slice(&said), step);
	} else if (slice_starts(line, SLICE("S> "))) {
		unescape(&said, rest);
		client_model_feed(m, buf_slice(&said), step);
	} else if (slice_starts(line, SLICE("C: "))) {
		next_line_is(m, rest, name);
	} else if (slice_eq(line, SLICE("C-"))) {
		ck_assert_msg(
		    m->out.len == 0, "%s: also said \"%.*s\"", name, SLICE_FMT(buf_slice(&m->out)));
	} else if (slice_starts(line, SLICE("E: "))) {
		next_event_is(m, rest, name);
	} else if (slice_eq(line, SLICE("E-"))) {
		ck_assert_msg(m->events.len == 0, "%s: also told \"%.*s\"", name,
		    SLICE_FMT(buf_slice(&m->events)));
	} else {
		owner_does(m, line, name);
	}
	buf_fini(&said);
}

static void
run_transcript(const struct row *row, size_t step)
{
	struct slice rest = slice_str(row->transcript);
	struct client_model m;

	client_model_init(&m, row->lmtp, row->tls);
	while (rest.len > 0) {
		struct slice line = slice_until(rest, '\n');

		rest = slice_drop(rest, line.len + 1);
		if (line.len > 0)
			run_line(&m, line, step, row->name);
	}
	client_model_fini(&m);
}

START_TEST(a_session_goes_as_its_transcript)
{
	run_transcript(&rows[_i], SIZE_MAX);
}
END_TEST

START_TEST(however_the_replies_are_cut)
{
	for (size_t step = 1; step < 8; step++)
		run_transcript(&rows[_i], step);
}
END_TEST

/* Feeds count times the same; the session must end by itself, within bounds. */
static void
is_cut_off(const char *line, size_t count)
{
	struct client_model m;

	client_model_init(&m, false, SMTP_CLIENT_TLS_OFF);
	for (size_t i = 0; i < count && !m.closed; i++)
		client_model_feed(&m, slice_str(line), SIZE_MAX);
	ck_assert(m.closed);
	ck_assert_int_eq(smtp_client_error(m.c, NULL)->code, ERR_PROTOCOL);
	client_model_fini(&m);
}

START_TEST(a_reply_without_an_end_is_cut_off)
{
	is_cut_off("220-more to come\r\n", SMTP_CLIENT_LINES_MAX + 1);
}
END_TEST

START_TEST(a_line_without_an_end_is_cut_off)
{
	is_cut_off("220 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 40);
}
END_TEST

START_TEST(the_longest_line_and_reply_are_taken)
{
	static const size_t steps[] = { SIZE_MAX, SMTP_CLIENT_LINE_MAX + 1,
		1 }; /* between CR and LF too */
	char line[SMTP_CLIENT_LINE_MAX + 2];

	memset(line, 'x', sizeof(line));
	memcpy(line, "220 ", 4);
	memcpy(line + SMTP_CLIENT_LINE_MAX, "\r\n", 2);
	for (size_t s = 0; s < ARRAY_LEN(steps); s++) {
		struct client_model m;

		client_model_init(&m, false, SMTP_CLIENT_TLS_OFF);
		for (int i = 1; i < SMTP_CLIENT_LINES_MAX; i++)
			client_model_feed(&m, SLICE("220-x\r\n"), SIZE_MAX);
		/* CRLF does not count, and one byte more than that is one too many. */
		client_model_feed(&m, slice_of(line, sizeof(line)), steps[s]);
		ck_assert_msg(!m.closed, "in steps of %zu", steps[s]);
		ck_assert_uint_gt(m.out.len, 0);
		client_model_fini(&m);
	}
}
END_TEST

static const struct stuff_row {
	const char *body, *wire;
} stuff_rows[] = {
	{ "", "" },
	{ "a\r\n", "a\r\n" },
	{ ".\r\n", "..\r\n" },
	{ "..\r\n.a\r\n", "...\r\n..a\r\n" },
	{ "a.\r\n.", "a.\r\n.." },
	{ "a\n.b\r\n", "a\n.b\r\n" },
	{ "\r\n.\r\n.\r\n", "\r\n..\r\n..\r\n" },
	{ "a\r.\r\n", "a\r.\r\n" },
	{ "a\r\r\n.\r\n", "a\r\r\n..\r\n" },
};

START_TEST(dots_are_stuffed_however_the_body_is_cut)
{
	struct slice body = slice_str(stuff_rows[_i].body);

	for (size_t a = 0; a <= body.len; a++) {
		for (size_t b = a; b <= body.len; b++) {
			struct slice runs[3] = { slice_head(body, a),
				slice_head(slice_drop(body, a), b - a), slice_drop(body, b) };
			struct smtp_stuffer st = { 0 };
			struct buf out = buf_heap(1000);
			struct slice piece;

			for (int i = 0; i < 3; i++)
				while (smtp_stuff_next(&st, &runs[i], &piece))
					buf_put(&out, piece);
			ck_assert_uint_eq(out.len, strlen(stuff_rows[_i].wire));
			ck_assert_mem_eq(out.len > 0 ? out.p : "", stuff_rows[_i].wire, out.len);
			buf_fini(&out);
		}
	}
}
END_TEST

UNIT_SUITE(smtp_client)
{
	UNIT_ROWS(a_session_goes_as_its_transcript, rows);
	UNIT_ROWS(however_the_replies_are_cut, rows);
	UNIT_TEST(a_reply_without_an_end_is_cut_off);
	UNIT_TEST(a_line_without_an_end_is_cut_off);
	UNIT_TEST(the_longest_line_and_reply_are_taken);
	UNIT_ROWS(dots_are_stuffed_however_the_body_is_cut, stuff_rows);
}

"""CHUNKING between whole mail servers: Exim sends to relayd by BDAT, relayd to Postfix and to Exim.
BINARYMIME, which neither of them has: from Perl's Net::SMTP over two gateways into the quarantine.

relayd sends by BDAT wherever it is offered.  Behind all of it is an upstream that keeps each message as it came.
"""
import imaplib
import os
import re
import shutil
import smtplib
import socketserver
import subprocess
import unittest

import exim
from exim import Exim
from harness import GTUBE, PATIENCE, RULES, GatewayTest, in_thread, message, wait_for
from postfix import Postfix

ANN, EVE, JOE, NOBODY = (name + "@example.test" for name in ("ann", "eve", "joe", "nobody"))
DOTS = ".\r\n..\r\n.dot\r\n"


def eight_bit(subject, lines=1):
    """With lines of dots at the begin, at the end and all the way."""
    body = DOTS + lines * ("gr\xfc\xdfe " * 9 + "\r\n.\r\n") + DOTS
    return message(subject, body).encode("latin-1")


def hand_in(port, text, *rcpts):
    """To a mail server that takes it for all of them."""
    with smtplib.SMTP("127.0.0.1", port, "laptop.example.net", timeout=PATIENCE) as c:
        c.sendmail("bob@example.net", rcpts, text, ["BODY=8BITMIME"])


class ChunkingTest(GatewayTest):
    def chain(self, next_hop, **changes):
        """The gateway before a port, which takes mail for the three recipients, and the rest to the
        upstream; an Exim before it."""
        with open(self.folder + "/recipients", "w") as f:
            f.write("\n".join([ANN, EVE, JOE, "@strict.test"]) + "\n")
        os.chmod(self.folder, 0o755)
        self.gw = self.gateway(domains="example.test, strict.test", routes="".join(
            'route %s { to = { "127.0.0.1:%d" }  recipients = %s/recipients }\n'
            % (domain, next_hop, self.folder) for domain in ("example.test", "strict.test"))
            + 'route "*" { to = { "127.0.0.1:%d" } }' % self.up.port, **changes)

    def exim(self, next_hop, **options):
        server = Exim(self.folder, next_hop, **options)
        self.addCleanup(server.stop)
        return server

    def setUp(self):
        super().setUp()
        self.up = self.upstream()

    def find_all(self, text, count):
        """All copies of the one message with the text, reports on it left out; the forward-paths of all."""
        def copies():
            found = [m for m in self.up.messages() if m[1]["reverse_path"] and text in m[0]]
            return found if sum(len(e["forward_paths"]) for _, e in found) >= count else None
        found = wait_for(copies, "the message for %d recipients" % count)
        return found, sorted(p for _, e in found for p in e["forward_paths"])

    def assert_whole(self, text, *rcpts):
        """It has come for these, byte for byte below the fields that were added."""
        found, paths = self.find_all(text[text.index(b"Message-ID: "):][:40], len(rcpts))
        self.assertEqual(paths, sorted(rcpts))
        body = text[text.index(b"\r\n\r\n"):]
        for got, _ in found:
            self.assertEqual(got[got.index(b"\r\n\r\n"):], body)


@unittest.skipIf(exim.WHY_NOT, exim.WHY_NOT)
@unittest.skipUnless(os.getuid() == 0 and shutil.which("postfix"), "needs root, and Postfix")
class FromEximToPostfix(ChunkingTest):
    """A client by BDAT, a next hop by BDAT, neither of them ours."""

    def setUp(self):
        super().setUp()
        self.postfix = Postfix(
            self.folder, "smtp:[127.0.0.1]:%d" % self.up.port, disable_mime_output_conversion="yes",
            smtpd_recipient_restrictions="check_recipient_access inline:{ { %s = 550 5.7.1 No } }, "
            "permit_mynetworks, reject" % JOE)
        self.addCleanup(self.postfix.stop)
        self.chain(self.postfix.port, networks="127.0.0.0/8", limits="connections-per-ip = 1000  "
                   "message-size = 2M")
        self.client = self.exim(self.gw.smtp, transport="hosts_avoid_tls = *")

    def by_bdat(self):
        """What relayd said to Postfix of its messages."""
        return re.findall(r"(?m)postfix/smtpd\[\d+\]: < \S+: ((?:BDAT|DATA).*)$", self.postfix.log())

    def test_a_message_goes_by_bdat_all_the_way(self):
        text = eight_bit("short")
        hand_in(self.client.port, text, ANN, EVE, NOBODY)
        self.assert_whole(text, ANN, EVE)
        for rcpt in (ANN, EVE):
            self.assertRegex(self.client.wait_log("> " + rcpt), r" L .*K ")
        self.assertIn("550 5.1.1", self.client.wait_log("** " + NOBODY))
        self.assertRegex(" ".join(self.by_bdat()), r"^BDAT \d+ LAST$")

    def test_a_message_of_many_chunks_goes_by_bdat_all_the_way(self):
        text = eight_bit("long", 5000)
        self.assertGreater(len(text), 256 << 10)
        hand_in(self.client.port, text, ANN, EVE)
        self.assert_whole(text, ANN, EVE)
        self.assertIn(" K ", self.client.wait_log("=> " + ANN))
        self.assertRegex(" ".join(self.by_bdat()), r"^BDAT \d{6} LAST$")

    def test_who_the_next_hop_refuses_is_told_of(self):
        text = eight_bit("parted")
        hand_in(self.client.port, text, ANN, JOE)
        self.assert_whole(text, ANN)
        report = self.up.find("Final-Recipient: rfc822;" + JOE)[0].decode("latin-1")
        self.assertIn("Action: failed\r\nStatus: 5.7.1\r\n", report)
        self.assertRegex(self.by_bdat()[0], r"^BDAT \d+ LAST$")

    def test_chunks_behind_a_refusal_are_passed_over(self):
        """Exim sends the first chunk before it has seen what became of the commands before it."""
        hand_in(self.client.port, eight_bit("unknown"), NOBODY)
        self.assertIn("550 5.1.1", self.client.wait_log("** " + NOBODY))
        hand_in(self.client.port, eight_bit("too long", 50000), ANN)
        self.assertIn("552 5.3.4", self.client.wait_log("** " + ANN))
        text = eight_bit("after them")
        hand_in(self.client.port, text, ANN)
        self.assert_whole(text, ANN)
        # What was within the chunks is no command that we refused.
        trace = self.gw.wait_trace(("--ip", "127.0.0.1"), "subject BDAT,", "subject RCPT,")
        self.assertEqual(set(re.findall(r"note command, subject (\S+),", trace)), {"BDAT", "RCPT"})
        self.up.find("Final-Recipient: rfc822;" + NOBODY)   # the bounces of Exim
        self.up.find("Final-Recipient: rfc822;" + ANN)


@unittest.skipIf(exim.WHY_NOT, exim.WHY_NOT)
class FromEximOutside(ChunkingTest):
    """Inbound mail by BDAT, under TLS and with PRDR, of which filters think something."""

    def setUp(self):
        super().setUp()
        self.chain(self.up.port, filters=RULES, policies="policy inbound { reject = 8.0 }\n"
                   "policy example.test { reject = 3000.0  quarantine = 2000.0 }")
        self.client = self.exim(self.gw.smtp)

    def test_what_a_filter_refuses_is_refused_to_the_last_chunk(self):
        hand_in(self.client.port, message("spam", GTUBE + "\r\n" + DOTS).encode(), "ann@strict.test")
        self.assertIn("550 5.7.1", self.client.wait_log("** ann@strict.test"))
        text = eight_bit("ham", 100)
        hand_in(self.client.port, text, "ann@strict.test")
        self.assert_whole(text, "ann@strict.test")
        self.assertRegex(self.client.wait_log("=> ann@strict.test"), r" X=TLS1\.3.* K ")

    def test_each_recipient_has_its_reply(self):
        text = message("parted", GTUBE + "\r\n" + DOTS).encode()
        hand_in(self.client.port, text, ANN, "ann@strict.test")
        self.assert_whole(text, ANN)
        self.assertRegex(self.client.wait_log("=> " + ANN), " PRDR .*K ")
        self.assertIn("550 5.7.1", self.client.wait_log("** ann@strict.test"))


@unittest.skipIf(exim.WHY_NOT, exim.WHY_NOT)
class ToExim(ChunkingTest):
    """Exim as the next hop."""

    def setUp(self):
        super().setUp()
        self.server = self.exim(
            self.up.port, rcpt="${if eq{$local_part}{joe}{deny message=not him}{accept}}",
            data="${if eq{$h_subject:}{bad}{deny message=not that}{accept}}")
        self.chain(self.server.port, networks="127.0.0.0/8")

    def test_a_message_goes_by_bdat(self):
        for lines in 1, 5000:
            text = eight_bit("of %d" % lines, lines)
            hand_in(self.gw.smtp, text, ANN, EVE, JOE)
            self.assert_whole(text, ANN, EVE)
            line = self.server.wait_log("<= bob@example.net", "of %d" % lines)
            self.assertRegex(line, r" L.* K ")
        text = message("plain").encode()    # no dots, nothing of 8 bits: by BDAT too
        hand_in(self.gw.smtp, text, ANN)
        self.assert_whole(text, ANN)
        self.assertRegex(self.server.wait_log("<= bob@example.net", "plain"), r" L.* K ")

    def test_what_it_refuses_is_told_of(self):
        hand_in(self.gw.smtp, eight_bit("half"), ANN, JOE)
        self.up.find("Final-Recipient: rfc822;" + JOE)
        hand_in(self.gw.smtp, eight_bit("bad"), EVE)
        report = self.up.find("Final-Recipient: rfc822;" + EVE)[0].decode("latin-1")
        self.assertIn("550 not that", report)


class Boaster(socketserver.ThreadingTCPServer):
    """Offers CHUNKING, and knows no BDAT: what comes behind it are commands for it."""
    allow_reuse_address = daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), BoasterSession)
        self.port, self.verbs, self.bodies = self.server_address[1], [], []
        in_thread(self.serve_forever)


class BoasterSession(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            self.talk()
        except ConnectionError:     # relayd has hung up
            pass

    def talk(self):
        self.say("220 boaster")
        while line := self.rfile.readline():
            verb = line[:4].decode("latin-1").upper().strip()
            self.server.verbs.append(verb)
            if verb == "EHLO":
                self.say("250-boaster\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 CHUNKING")
            elif verb == "DATA":
                self.say("354 go")
                body = b""
                while not body.endswith(b"\r\n.\r\n"):
                    body += self.rfile.readline()
                self.server.bodies.append(body)
                self.say("250 taken")
            else:
                self.say("250 ok" if verb in ("MAIL", "RCPT", "RSET", "QUIT") else "500 5.5.2 What?")

    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")


class ToABoaster(ChunkingTest):
    def test_the_message_goes_by_data_then(self):
        up = Boaster()
        self.addCleanup(up.server_close)
        self.addCleanup(up.shutdown)
        self.chain(up.port, networks="127.0.0.0/8")
        hand_in(self.gw.smtp, message("boast").encode(), ANN)
        wait_for(lambda: up.bodies, "the message by DATA")
        self.assertIn(b"Subject: boast\r\n", up.bodies[0])
        self.assertEqual(up.verbs.count("BDAT"), 1)
        self.assertIn("CHUNKING is offered, and BDAT is not known", self.gw.log())
        hand_in(self.gw.smtp, message("again").encode(), ANN)
        wait_for(lambda: len(up.bodies) == 2, "the next one")
        self.assertEqual((up.verbs.count("BDAT"), up.verbs.count("DATA")), (1, 2))


class Binary(GatewayTest):
    """What goes on as it is over SMTP and over LMTP, or not at all."""

    PERL = r"""
        use strict; use warnings; use Net::SMTP;
        my ($port, $to) = @ARGV;
        local $/; binmode STDIN; my $text = <STDIN>;
        my $c = Net::SMTP->new("127.0.0.1", Port => $port, Hello => "client.example.net") or die "connect";
        $c->mail('bob@example.net', Bits => "binary") or die "mail: " . $c->message;
        $c->to($to) or die "rcpt: " . $c->message;
        my $half = int(length($text) / 2);
        $c->bdat(substr($text, 0, $half)) or die "bdat: " . $c->message;
        $c->bdatlast(substr($text, $half)) or die "bdat last: " . $c->message;
        print $c->message; $c->quit;"""

    def send(self, port, text):
        """The last word of the reply: the id."""
        done = subprocess.run(["perl", "-e", self.PERL, str(port), ANN], input=text, capture_output=True,
                              timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.decode().split()[-1]

    def test_a_binary_message_is_kept_to_the_last_octet(self):
        back = self.gateway(filters=RULES,
                            routes='route example.test { to = { "127.0.0.1:1" }  recipients = any }')
        front = self.gateway(networks="127.0.0.0/8", routes="route example.test { to = { "
                             '"127.0.0.1:%d" }  recipients = any }' % back.smtp)
        back.add_user("admin", "secret", "--scope", "*")
        head = ("Subject: binary\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n"
                "\r\n--b\r\n\r\n%s\r\n--b\r\nContent-Type: application/octet-stream\r\n"
                "Content-Transfer-Encoding: binary\r\n\r\n" % GTUBE).encode()
        for n, times in (1, 1), (2, 2000):  # in the log, and in a file of its own
            text = head + times * bytes(range(256)) + b"\r\n.\r\n--b--\r\n"
            name = self.send(front.smtp, text)
            front.wait_log("event=delivery.sent id=%s " % name)
            held = re.search(r" id=(\S+) ", back.wait_log("event=quarantine.stored", n))[1]
            with imaplib.IMAP4("127.0.0.1", back.imap) as c:
                c.login("admin", "secret")
                c.select("INBOX")
                got = c.fetch(c.search(None, "HEADER", "X-Relayd-Id", held)[1][0].decode(),
                              "(BODY.PEEK[])")[1][0][1]
            # No literal of IMAP has a NUL (RFC 3501 section 9, CHAR8).
            self.assertTrue(got.endswith(text.replace(b"\0", b"\x80")))

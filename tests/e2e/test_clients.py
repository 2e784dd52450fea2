"""Mail servers and programs that send through relayd, and the extensions that they use of it."""
import os
import re
import shutil
import smtplib
import subprocess
import unittest

from harness import GTUBE, PATIENCE, RULES, GatewayTest, free_port, message, wait_for
from postfix import Postfix, needs_postfix


class Behind(GatewayTest):
    """A client, the gateway, an upstream that offers no more than the demo's."""

    networks = "127.0.0.0/8"

    def setUp(self):
        super().setUp()
        self.up = self.upstream()
        self.lmtp = free_port()
        self.gw = self.gateway(
            networks=self.networks, domains="example.test, strict.test",
            filters=RULES, policies="policy inbound { quarantine = 2000.0  reject = 3000.0 }\n"
            "policy strict.test { reject = 8.0 }", routes="""
            route example.test { to = { "127.0.0.1:%d" }  recipients = any }
            route strict.test { to = { "127.0.0.1:%d" }  recipients = any }
            route "*" { to = { "127.0.0.1:%d" } }""" % ((self.up.port,) * 3), extra="""
            listener lmtp { address = { "127.0.0.1:%d" }  protocol = lmtp
                            xforward = { 127.0.0.0/8 } }""" % self.lmtp)


class PostfixTest(Behind):
    def postfix(self, next_hop, **settings):
        server = Postfix(self.folder, next_hop, **settings)
        self.addCleanup(server.stop)
        return server

    def hand_in(self, server, text, rcpts, mail=(), rcpt_options=()):
        with smtplib.SMTP("127.0.0.1", server.port, "laptop.example.net", timeout=PATIENCE) as c:
            c.ehlo()
            c.command_encoding = "utf-8"
            for code, reply in ([c.docmd("MAIL FROM:<bob@example.net>" + "".join(" " + o for o in mail))]
                                + [c.docmd("RCPT TO:<%s>%s" % (r, "".join(" " + o for o in rcpt_options)))
                                   for r in rcpts] + [c.data(text)]):
                self.assertEqual(code, 250, reply)

    def said(self, server, pattern):
        """What Postfix said to us: the first line of its log that has the pattern."""
        line = r"(?m)^.*postfix/(?:smtp|lmtp)\[\d+\]: > \S+: (%s.*)$" % pattern
        return wait_for(lambda: re.search(line, server.log()), "Postfix saying " + pattern)[1]


@needs_postfix
class FromPostfix(PostfixTest):
    def test_a_mail_server_hands_its_mail_on(self):
        server = self.postfix("smtp:[127.0.0.1]:%d" % self.gw.smtp, smtp_tls_security_level="may")
        eight = message("dsn", "gr\xfc\xdfe").encode("latin-1")
        self.hand_in(server, eight, ["ann@example.test", "eve@example.com"],
                     ["BODY=8BITMIME", "RET=HDRS", "ENVID=QQ314159"],
                     ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;ann+40old.test"])
        report = self.up.find("Original-Envelope-Id: QQ314159\r\n")[0].decode()
        self.assertIn("Action: relayed\r\nStatus: 2.0.0\r\n", report)
        self.assertIn("Original-Recipient: rfc822;ann@old.test\r\n", report)
        got, envelope = self.up.find("Subject: dsn\r\nDate")
        self.assertIn("grüße".encode("latin-1"), got)
        self.assertEqual(sorted(envelope["forward_paths"]), ["ann@example.test", "eve@example.com"])
        self.assertRegex(got.decode("latin-1"), r"by mx\.example\.test with ESMTPS id")
        self.said(server, "STARTTLS")
        mail = self.said(server, "MAIL FROM:<bob@example.net>")
        for word in ("SIZE=", "BODY=8BITMIME", "RET=HDRS", "ENVID=QQ314159"):
            self.assertIn(word, mail)
        rcpt = self.said(server, "RCPT TO:<ann@example.test>")
        for word in ("NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;ann@old.test"):
            self.assertIn(word, rcpt)
        # MAIL, both RCPT and DATA in one go, and the replies behind them.
        turns = "".join(re.findall(r"(?m)^.*postfix/smtp\[\d+\]: ([<>]) \S+: (?=MAIL|RCPT|DATA|250 2\.1)",
                                   server.log()))
        self.assertIn(">>>><<<", turns)

    def test_addresses_beyond_ascii_pass(self):
        server = self.postfix("smtp:[127.0.0.1]:%d" % self.gw.smtp)
        self.hand_in(server, message("grüße", rcpt="jörg@example.test").encode(),
                     ["jörg@example.test"], ["SMTPUTF8", "BODY=8BITMIME"])
        got, envelope = self.up.find("Subject: grüße")
        self.assertEqual(envelope["forward_paths"], ["jörg@example.test"])
        self.assertIn("SMTPUTF8", self.said(server, "MAIL FROM:<bob@example.net>"))
        self.assertIn(b"with UTF8SMTP id", got)

    def test_a_flood_of_small_messages_loses_none(self):
        server = self.postfix("smtp:[127.0.0.1]:%d" % self.gw.smtp, smtp_tls_security_level="may",
                              debug_peer_list="")
        subprocess.run(["smtp-source", "-s", "10", "-m", "200", "-l", "4096", "-f", "bob@example.net",
                        "-t", "ann@example.test", "127.0.0.1:%d" % server.port], check=True, timeout=120)
        self.assertEqual(len(self.up.wait(200, 120)), 200)


@needs_postfix
class FromPostfixOutside(PostfixTest):
    """A relay of somebody else's: what it brings is inbound mail."""

    networks = ""

    def test_by_lmtp_each_recipient_has_its_reply(self):
        server = self.postfix("lmtp:inet:127.0.0.1:%d" % self.lmtp, lmtp_send_xforward_command="yes")
        self.hand_in(server, message("parted", GTUBE), ["ann@example.test", "ann@strict.test"])
        self.assertEqual(self.up.find("Subject: parted\r\nDate")[1]["forward_paths"],
                         ["ann@example.test"])
        wait_for(lambda: re.search(r"to=<ann@example\.test>.*status=sent \(250 2\.0\.0", server.log()),
                 "Postfix to have one delivered")
        refused = wait_for(lambda: re.search(r"to=<ann@strict\.test>.*status=bounced \((.*)\)",
                                             server.log()), "Postfix to have the other refused")[1]
        self.assertRegex(refused, r"said: 550[ -]5\.7\.1 ")
        self.said(server, "XFORWARD ")
        self.assertRegex(self.gw.wait_log("event=message.accepted"), r"for=127\.0\.0\.1")


class FromCurl(Behind):
    def curl(self, *options, port=None, text="", protocol="smtp"):
        done = subprocess.run(
            ["curl", "-sSv", "-k", *options, "%s://127.0.0.1:%d/client.example.net"
             % (protocol, port or self.gw.smtp)], input=text.encode(), capture_output=True, timeout=60,
            env={**os.environ, "LC_ALL": "C.UTF-8"})
        return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")

    def send(self, text, *rcpts, options=(), **how):
        with open(self.folder + "/mail", "w", newline="") as f:
            f.write(text)
        rcpts = [word for rcpt in rcpts for word in ("--mail-rcpt", rcpt)]
        return self.curl(*options, "--mail-from", "bob@example.net", *rcpts, "-T",
                         self.folder + "/mail", **how)

    def test_curl_sends_plain_and_under_tls(self):
        text = message("by curl", "..dot\r\n.\r\nend")
        status, said = self.send(text, "ann@example.test", "eve@example.com")
        self.assertEqual(status, 0, said)
        self.assertRegex(said, r"> MAIL FROM:<bob@example\.net> SIZE=%d" % len(text))
        got, envelope = self.up.find("by curl")
        self.assertTrue(got.endswith(text.encode()), got)
        self.assertEqual(sorted(envelope["forward_paths"]), ["ann@example.test", "eve@example.com"])
        for how in ({"options": ("--ssl-reqd",)},
                    {"protocol": "smtps", "port": self.gw.submissions}):
            status, said = self.send(message("tls"), "ann@example.test", **how)
            if "port" in how:       # a login is wanted there
                self.assertIn("530 5.7.0", said)
            else:
                self.assertEqual(status, 0, said)
                self.assertRegex(self.up.find("Subject: tls")[0].decode(), "with ESMTPS id")

    def test_curl_is_told_what_is_refused(self):
        status, said = self.send(message("allowed"), "@@", "ann@example.test",
                                 options=("--mail-rcpt-allowfails",))
        self.assertEqual(status, 0, said)
        self.assertIn("< 501 5.1.3", said)
        self.up.find("Subject: allowed")
        status, said = self.send(message("long", "x" * 999), "ann@example.test")
        self.assertNotEqual(status, 0, said)
        self.assertIn("< 550 5.6.0", said)

    def test_curl_asks_and_gets_honest_answers(self):
        self.assertRegex(self.curl("--mail-rcpt", "ann")[1], "< 252 ")
        self.assertRegex(self.curl("--request", "EXPN", "--mail-rcpt", "list")[1], "< 502 ")
        self.assertRegex(self.curl("--request", "NOOP")[1], "< 250 ")
        self.assertRegex(self.curl()[1], "(?s)> HELP.*< 214")

    def test_curl_sends_to_addresses_beyond_ascii(self):
        status, said = self.send(message("utf8"), "jörg@example.test")
        self.assertEqual(status, 0, said)
        self.assertIn("SMTPUTF8", re.search("> MAIL FROM.*", said)[0])
        self.assertEqual(self.up.find("Subject: utf8")[1]["forward_paths"], ["jörg@example.test"])

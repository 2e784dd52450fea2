"""What EHLO offers, used by real clients, and kept up to the next hop: one gateway before another.

The front offers everything, and so does the back; the upstream behind it offers next to nothing.
"""
import email.message
import email.policy
import os
import re
import shutil
import socketserver
import subprocess
import unittest

from harness import (GatewayTest, free_port, in_thread, make_certificate, message, tls_context,
                     wait_for)
from postfix import Postfix


class Plain:
    """A mail server as RFC 821 has it: no extension at all."""

    def __init__(self):
        self.messages = []
        plain = self

        class Session(socketserver.StreamRequestHandler):
            def handle(self):
                self.wfile.write(b"220 plain.test\r\n")
                while (line := self.rfile.readline()):
                    verb = line[:4].upper()
                    if verb == b"DATA":
                        self.wfile.write(b"354 go\r\n")
                        lines = []
                        while (line := self.rfile.readline()) not in (b".\r\n", b""):
                            lines.append(line)
                        plain.messages.append(b"".join(lines))
                    self.wfile.write(b"500 what?\r\n" if verb == b"EHLO" else b"250 ok\r\n")

        socketserver.ThreadingTCPServer.daemon_threads = True
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session)
        self.port = self.server.server_address[1]
        in_thread(self.server.serve_forever)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Chain(GatewayTest):
    """client -> front -> back -> upstream, all of it outbound mail of a trusted client."""

    back_limits = "connections-per-ip = 1000"

    @classmethod
    def setUpClass(cls):
        """One chain for all tests of a class; each looks for messages of its own."""
        stage = GatewayTest()
        stage.setUp()
        cls.addClassCleanup(stage.doCleanups)
        cls.up, cls.plain = stage.upstream(), Plain()
        cls.addClassCleanup(cls.plain.close)
        cls.back = stage.gateway(networks="127.0.0.0/8", limits=cls.back_limits,
                                 routes=cls.everything_to(cls.up.port))
        cls.addClassCleanup(stage.end, cls.back)
        cls.trusted, cls.lmtp = free_port(), free_port()
        cls.front = stage.gateway(
            networks="127.0.0.0/8", routes=cls.everything_to(cls.back.smtp)
            + '\nroute plain.test { to = { "127.0.0.1:%d" } }' % cls.plain.port, extra="""
            listener trusted { address = { "127.0.0.1:%d" }  xclient = { 127.0.0.0/8 }
                               xforward = { 127.0.0.0/8 }  eight-bit = refuse }
            listener lmtp { address = { "127.0.0.1:%d" }  protocol = lmtp }
            """ % (cls.trusted, cls.lmtp))
        cls.addClassCleanup(stage.end, cls.front)

    def setUp(self):
        pass

    def arrived(self, text):
        return [got for got, _ in self.up.messages() if text in got]

    @staticmethod
    def everything_to(port):
        return ('route example.test { to = { "127.0.0.1:%d" }  recipients = any }\n'
                'route "*" { to = { "127.0.0.1:%d" } }' % (port, port))

    def begin(self, client, mail=(), rcpts=(("ann@example.test", ()),)):
        client.ehlo()
        replies = [client.mail("bob@example.net", list(mail))]
        replies += [client.rcpt(rcpt, list(options)) for rcpt, options in rcpts]
        self.assertEqual({code for code, _ in replies}, {250}, replies)

    @staticmethod
    def bdat(client, chunk, last=False):
        """smtplib has no BDAT of its own; its connection and its replies are the real ones."""
        client.send(b"BDAT %d%s\r\n" % (len(chunk), b" LAST" if last else b"") + chunk)
        return client.getreply()

    def report(self, text):
        """The delivery report to bob that has the text in it."""
        got, envelope = self.up.find(text)
        self.assertEqual(envelope, {"reverse_path": "", "forward_paths": ["bob@example.net"]})
        return got.decode()

    def swaks(self, port, *options):
        done = subprocess.run(["swaks", "--server", "127.0.0.1", "--port", str(port), "--helo",
                               "client.example.net", "--from", "bob@example.net", *options],
                              capture_output=True, text=True, timeout=60)
        return done.stdout + done.stderr


class Extensions(Chain):
    def test_ehlo_lists_what_applies(self):
        with self.front.smtp_client() as c:
            c.ehlo()
            for word in ("chunking", "binarymime", "dsn", "smtputf8", "prdr", "limits"):
                self.assertTrue(c.has_extn(word), word)
            for word in ("requiretls", "xclient", "xforward"):
                self.assertFalse(c.has_extn(word), word)
            self.assertEqual(c.esmtp_features["limits"], "RCPTMAX=1000")
            c.starttls(context=tls_context())
            c.ehlo()
            self.assertTrue(c.has_extn("requiretls"))
        with self.front.smtp_client(self.trusted) as c:
            c.ehlo()
            self.assertIn("ADDR", c.esmtp_features["xclient"])
            self.assertIn("ADDR", c.esmtp_features["xforward"])

    def test_a_message_in_chunks_arrives_byte_for_byte(self):
        text = message("chunked", ".dot\r\n..two\r\n" + "x" * 900 + "\r\n\xe9\r\n").encode("latin-1")
        with self.front.smtp_client() as c:
            self.begin(c, ["BODY=8BITMIME"])
            for at in range(0, len(text), 100):
                code, reply = self.bdat(c, text[at:at + 100], at + 100 >= len(text))
                self.assertEqual(code, 250, reply)
            self.begin(c)
            self.assertEqual(self.bdat(c, b"a\nb\r\n")[0], 550)
            self.assertEqual(self.bdat(c, b"QUIT\r\n", True)[0], 503)
            self.begin(c)
            self.assertEqual(self.bdat(c, b"half")[0], 250)
            self.assertEqual(c.rset()[0], 250)
        self.assertTrue(self.up.find("chunked")[0].endswith(text))
        self.assertFalse(self.arrived(b"half") + self.arrived(b"a\nb"))

    def test_a_binary_message_bounces_where_it_cannot_go_on(self):
        text = message("binary", headers="Content-Transfer-Encoding: binary\r\nX-Not-Text: a\0b\nX-C: d\r.\r\n"
                       ).encode() + b"\0\r\n\xff\n"
        with self.front.smtp_client() as c:
            self.begin(c, ["BODY=BINARYMIME", "RET=HDRS", "ENVID=QQ+2B314"],
                       [("ann@example.test", ["ORCPT=rfc822;Ann+40example.test"])])
            code, reply = self.bdat(c, text, True)
            self.assertEqual(code, 250, reply)
        report = self.report("Original-Envelope-Id: QQ+314\r\n")
        self.assertIn("Original-Recipient: rfc822;Ann@example.test\r\n", report)
        self.assertIn("Action: failed\r\nStatus: 5.6.3\r\n", report)
        self.assertIn("Content-Type: text/rfc822-headers", report)
        self.assertIn("X-Not-Text: a?b?X-C: d?.\r\n", report)   # it is sent as text, so it is such
        self.assertNotRegex(report, r"\0|\r(?!\n)|(?<!\r)\n")

    def test_dsn_reaches_the_last_who_can_report(self):
        with self.front.smtp_client() as c:
            self.begin(c, ["ENVID=ok1"], [("ann@example.test", ["NOTIFY=SUCCESS,FAILURE"]),
                                          ("eve@example.test", ["NOTIFY=FAILURE"])])
            self.assertEqual(c.data(message("told"))[0], 250)
            self.begin(c, (), [("nobody@example.test", ["NOTIFY=NEVER"])])
            self.assertEqual(c.data(message("untold"))[0], 250)
        report = self.report("Your message was passed on")
        self.assertIn("Original-Envelope-Id: ok1\r\n", report)
        self.assertIn("Action: relayed\r\nStatus: 2.0.0\r\n", report)
        self.assertIn("ann@example.test", report)
        self.assertNotIn("eve@example.test>", report.split("Message-ID: <", 2)[0])
        self.back.wait_log(r"event=delivery\.bounced .*outcome=lost")
        self.assertFalse(self.arrived(b"untold"))

    def test_smtputf8_goes_no_further_than_it_is_offered(self):
        with self.front.smtp_client() as c:
            for domain, subject in ("example.test", "grüße"), ("plain.test", "hello"):
                text = email.message.EmailMessage(email.policy.SMTPUTF8)
                text["From"], text["To"] = "bob@example.net", "jörg@" + domain
                text["Subject"] = subject
                text.set_content("hello")
                c.send_message(text)    # smtplib says SMTPUTF8 by itself
            c.ehlo()
            c.command_encoding = "utf-8"
            self.assertEqual(c.docmd("MAIL FROM:<bob@example.net>")[0], 250)
            self.assertEqual(c.docmd("RCPT TO:<jörg@example.test>")[0], 553)
        got, envelope = self.up.find("Subject: grüße")
        self.assertEqual(envelope["forward_paths"], ["jörg@example.test"])
        self.assertIn(b"with UTF8SMTP id", got)
        report = self.report("5.6.7")
        self.assertIn("Content-Type: message/global-delivery-status", report)
        self.assertIn("Final-Recipient: utf-8;jörg@plain.test", report)

    def test_a_message_that_needs_no_smtputf8_goes_anywhere(self):
        with self.front.smtp_client() as c:
            self.begin(c, ["SMTPUTF8", "BODY=7BIT"], [("ann@plain.test", ())])
            self.assertEqual(c.data(message("ascii"))[0], 250)
        wait_for(lambda: self.plain.messages, "the message")
        self.assertIn(b"Subject: ascii", self.plain.messages[0])

    def test_an_original_recipient_outlives_smtputf8(self):
        """An ASCII message goes on without SMTPUTF8, its ORCPT in the form for that (RFC 6533)."""
        with self.front.smtp_client() as c:
            c.ehlo()
            c.command_encoding = "utf-8"
            self.assertEqual(c.docmd("MAIL FROM:<bob@example.net> SMTPUTF8")[0], 250)
            self.assertEqual(c.docmd("RCPT TO:<ann@example.test> "
                                     "ORCPT=utf-8;jörg@example.test")[0], 250)
            self.assertEqual(c.data(message("once another", body="was it"))[0], 250)
        self.assertEqual(self.up.find("was it")[1]["forward_paths"], ["ann@example.test"])

    def test_requiretls_waits_for_a_host_that_can_be_trusted(self):
        with self.front.smtp_client() as c:
            c.starttls(context=tls_context())
            self.begin(c, ["REQUIRETLS"])
            self.assertEqual(c.data(message("secret"))[0], 250)
            self.begin(c)
            self.assertEqual(c.data(message("open"))[0], 250)
        self.up.find("open")
        self.front.wait_log(r"event=delivery\.deferred .*certificate")     # a self-signed one
        self.assertFalse(self.arrived(b"secret"))

    def test_xclient_takes_the_place_of_the_client(self):
        said = self.swaks(self.trusted, "--to", "ann@example.test", "--xclient-addr", "192.0.2.77",
                          "--xclient-name", "far.example.net", "--h-Subject", "by proxy")
        self.assertIn("250 2.0.0 Ok: queued", said)
        self.assertIn(b"[192.0.2.77]", self.up.find("by proxy")[0])
        line = self.front.wait_log(r"event=connect .*via=127\.0\.0\.1")
        self.assertIn("ip=192.0.2.77", line)
        # 192.0.2.77 is none of our networks
        said = self.swaks(self.trusted, "--to", "ann@else.test", "--xclient-addr", "192.0.2.77")
        self.assertIn("550 5.7.1", said)
        said = self.swaks(self.front.smtp, "--to", "ann@example.test", "--xclient-addr", "192.0.2.77")
        self.assertIn("did not advertise XCLIENT", said)

    def test_xforward_is_told_and_not_believed(self):
        with self.front.smtp_client(self.trusted) as c:
            c.ehlo()
            self.assertEqual(c.docmd("XFORWARD", "ADDR=192.0.2.78 HELO=far.example.net")[0], 250)
            self.begin(c, (), [("ann@else.test", ())])      # still one of our networks
            self.assertEqual(c.data(message("forwarded"))[0], 250)
        self.assertIn(b"[127.0.0.1]", self.up.find("forwarded")[0])
        self.front.wait_log(r"event=message\.accepted .*for=192\.0\.2\.78")

    def test_prdr_and_lmtp_answer_for_each_recipient(self):
        said = self.swaks(self.front.smtp, "--to", "ann@example.test,eve@example.test", "--prdr",
                          "--h-Subject", "by prdr")
        self.assertRegex(said, r"(?s)353 .*250 2\.0\.0 .*250 2\.0\.0 .*250 2\.0\.0 ")
        said = self.swaks(self.lmtp, "--to", "ann@example.test,eve@example.test", "--protocol", "LMTP",
                          "--h-Subject", "by lmtp")
        self.assertRegex(said, r"(?s)250 2\.0\.0 Ok: queued.*250 2\.0\.0 Ok: queued")
        self.up.find("by prdr")
        self.assertIn(b"with LMTP id", self.up.find("by lmtp")[0])

    def test_a_strict_listener_wants_what_it_gets_announced(self):
        eight = "body \xe9\r\n".encode("latin-1")
        with self.front.smtp_client(self.trusted) as c:
            self.begin(c)
            self.assertEqual(c.data(message("strict").encode() + eight)[0], 554)
            self.begin(c, ["BODY=8BITMIME"])
            self.assertEqual(c.data(message("said so").encode() + eight)[0], 250)
            self.begin(c, ["BODY=8BITMIME"])
            self.assertEqual(c.data("Subject: grüße\r\n\r\n".encode())[0], 554)
        with self.front.smtp_client() as c:     # others are lenient
            self.begin(c)
            self.assertEqual(c.data(message("lenient").encode() + eight)[0], 250)
        self.up.find("said so")
        self.up.find("lenient")
        self.assertFalse(self.arrived(b"strict"))


class Limits(Chain):
    back_limits = "connections-per-ip = 1000  recipients = 3  messages = 2"

    def test_limits_are_obeyed(self):
        rcpts = [("r%d@example.test" % i, ()) for i in range(8)]
        with self.front.smtp_client() as c:
            for i in range(4):
                self.begin(c, (), rcpts)
                self.assertEqual(c.data(message("many %d" % i))[0], 250)
        def arrived():
            got = sorted(path for _, env in self.up.messages() for path in env["forward_paths"])
            return got if len(got) >= 32 else None
        self.assertEqual(wait_for(arrived, "all recipients upstream"),
                         sorted(4 * [path for path, _ in rcpts]))
        self.assertNotIn("what=recipients", self.back.log())
        self.assertNotRegex(self.back.log(), r"Too many messages")
        self.assertNotIn("event=delivery.deferred", self.front.log())


class TlsAllTheWay(Chain):
    """REQUIRETLS (RFC 8689) with next hops that an authority vouches for: to one that offers it too, and
    from there by LMTP into a box; and to one that does not, a Postfix."""

    @classmethod
    def setUpClass(cls):
        stage = GatewayTest()
        stage.setUp()
        cls.addClassCleanup(stage.doCleanups)
        cls.up, socket = stage.upstream(), stage.folder + "/box"
        make_certificate(stage.folder, "ca-", "DNS:ca.invalid", subject="authority")
        make_certificate(stage.folder, "host-", "IP:127.0.0.1", issuer="ca-")
        pem = [os.path.join(stage.folder, name) for name in ("host-cert.pem", "host-key.pem")]
        cls.box = stage.gateway(domains="example.test, example.net, verified.test", routes="".join(
            'route %s { to = { "127.0.0.1:%d" }  recipients = any }\n' % (domain, cls.up.port)
            for domain in ("example.test", "example.net", "verified.test")), extra="""
            listener box { address = { "unix:%s" }  protocol = lmtp }""" % socket)
        cls.back = stage.gateway(
            networks="127.0.0.0/8", tls="certificate = { %s }  key = { %s }" % tuple(pem),
            routes="""route example.test { to = { "lmtp:%s" }  recipients = any }
                      route "*" { to = { "lmtp:%s" } }""" % (socket, socket))
        cls.postfix = None
        if os.getuid() == 0 and shutil.which("postfix"):
            cls.postfix = Postfix(stage.folder, "discard:", smtpd_tls_security_level="may",
                                  smtpd_tls_cert_file=pem[0], smtpd_tls_key_file=pem[1])
            cls.addClassCleanup(cls.postfix.stop)
        cls.front = stage.gateway(
            env={"SSL_CERT_FILE": stage.folder + "/ca-cert.pem"}, networks="127.0.0.0/8",
            routes=cls.everything_to(cls.back.smtp) + """
            route verified.test { to = { "127.0.0.1:%d" }  tls = verify }
            route plain.test { to = { "127.0.0.1:%d" } }
            """ % (cls.back.smtp, cls.postfix.port if cls.postfix else free_port()))

    def send_required(self, subject, rcpt, mail=("REQUIRETLS",)):
        with self.front.smtp_client() as c:
            c.starttls(context=tls_context())
            self.begin(c, mail, [(rcpt, ())])
            code, reply = c.data(message(subject))
            self.assertEqual(code, 250, reply)
            return reply.decode().split()[-1]

    def test_it_is_kept_up_to_the_box(self):
        name = self.send_required("secret", "ann@example.test")
        got = self.up.find("Subject: secret")[0].decode()
        self.assertRegex(got, r"(?s)by mx\.example\.test with LMTP id .*with ESMTPS id .*with ESMTPS id")
        self.front.wait_log("event=delivery.sent .*id=%s" % name)

    def test_a_route_that_verifies_delivers_to_who_can_show_it(self):
        self.send_required("verified", "ann@verified.test", ())
        got, envelope = self.up.find("Subject: verified")
        self.assertRegex(got.decode(), "with ESMTPS id")
        self.assertEqual(envelope["forward_paths"], ["ann@verified.test"])

    def test_it_bounces_where_it_is_not_offered(self):
        if self.postfix is None:
            raise unittest.SkipTest("needs root, and Postfix")
        self.send_required("open", "eve@plain.test", ())
        wait_for(lambda: "to=<eve@plain.test>" in self.postfix.log(), "the message in Postfix")
        name = self.send_required("sealed", "joe@plain.test")
        report = self.report("joe@plain.test")      # itself by REQUIRETLS, up to the box
        self.assertIn("Action: failed\r\nStatus: 5.7.30\r\n", report)
        self.assertIn("The next hop does not offer REQUIRETLS", report)
        self.assertIn("text/rfc822-headers", report)    # RFC 8689 section 5: not the body
        self.assertNotIn("Hi there.", report)
        self.front.wait_log("event=delivery.bounced .*id=%s" % name)
        self.assertNotIn("joe@plain.test", self.postfix.log())

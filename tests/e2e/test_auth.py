"""Logins, with real clients: every mechanism, what is refused and with which words, who may send as whom."""
import base64
import os
import smtplib
import subprocess
import time
import unittest.mock
import warnings

from harness import ROOT, Chat, GatewayTest, message, tls_context
from kerberos import REALM, Kerberos

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import crypt

ALL = ("mechanisms = { SCRAM-SHA-256-PLUS, SCRAM-SHA-1-PLUS, SCRAM-SHA-256, SCRAM-SHA-1, PLAIN, LOGIN, "
       "CRAM-MD5, GSSAPI, OAUTHBEARER }")


def b64(text):
    return base64.b64encode(text.encode()).decode()


class AuthTest(GatewayTest):
    def start_with(self, extra, **users):
        """A gateway; users: name = (password, options...)."""
        self.up = self.upstream()
        gw = self.gateway(start=False, workers=1, extra=extra, routes="""
            route example.test { to = { "127.0.0.1:%d" }  recipients = any }
            route "*" { to = { "127.0.0.1:%d" } }""" % (self.up.port, self.up.port))
        for name, (password, *options) in users.items():
            gw.add_user(name, password, *options)
        return gw

    def run_client(self, *command, stdin="", env=None):
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60,
                              env={**os.environ, **(env or {})})
        return done.returncode, done.stdout + done.stderr

    def gsasl(self, mechanism, *options, port=None, user="ann", password="pencil", env=None):
        return self.run_client("gsasl", "--smtp", "--verbose", "-m", mechanism, "-a", user, "-p",
                               password, "--hostname=mx.example.test",
                               "--x509-ca-file=%s/cert.pem" % self.gw.dir, *options, "localhost",
                               str(port or self.gw.submission), env=env)

    def smtp(self, port=None):
        s = smtplib.SMTP("127.0.0.1", port or self.gw.submission, timeout=30)
        self.addCleanup(s.close)
        s.starttls(context=tls_context())
        s.ehlo()
        return s


class Clients(AuthTest):
    def setUp(self):
        super().setUp()
        self.gw = self.start_with("sasl { %s }" % ALL,
                                  ann=("pencil", "--relay", "--scope", "*", "--cram-md5")).start()

    def passed(self, mechanism, count=1):
        self.gw.wait_log(r'event=auth\.ok .*user="ann" mechanism=%s ' % mechanism, count)

    def test_gsasl_proves_without_telling(self):
        for mechanism, *options in (("SCRAM-SHA-256-PLUS",), ("SCRAM-SHA-1-PLUS",),
                                    ("SCRAM-SHA-256", "--no-cb"), ("SCRAM-SHA-1", "--no-cb")):
            status, text = self.gsasl(mechanism, *options)
            self.assertEqual(status, 0, text)
            self.assertIn("235 2.7.0", text)
            self.passed(mechanism)
        # TLS 1.2 binds with tls-unique, 1.3 with tls-exporter.
        status, text = self.gsasl("SCRAM-SHA-256-PLUS", "--priority=NORMAL:-VERS-TLS1.3")
        self.assertIn("235 2.7.0", text)
        self.assertIn("p=tls-unique,", base64.b64decode(
            [line for line in text.splitlines() if line.startswith("cD10bHM")][0]).decode())
        self.passed("SCRAM-SHA-256-PLUS", 2)
        self.assertRegex(self.gsasl("SCRAM-SHA-256-PLUS", password="pen")[1], r"(?m)^535 5\.7\.8 ")
        self.gw.wait_log("event=auth.fail .*mechanism=SCRAM-SHA-256-PLUS .*why=proof")
        self.assertNotIn("pencil", self.gw.log())
        self.imap_takes_it_too()

    def test_swaks_and_smtplib_log_in(self):
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            status, text = self.run_client(
                "swaks", "--server", "127.0.0.1:%d" % self.gw.submission, "-tls", "-a", mechanism,
                "-au", "ann", "-ap", "pencil", "-q", "AUTH")
            self.assertEqual(status, 0, text)
            self.assertIn("235 2.7.0", text)
            self.passed(mechanism)
        self.smtp().login("ann", "pencil")          # by itself: CRAM-MD5
        self.passed("CRAM-MD5", 2)
        self.msmtp_and_curl_send()

    def msmtp_and_curl_send(self):
        common = ["--host=localhost", "--port=%d" % self.gw.submission, "--tls=on", "--user=ann",
                  "--tls-trust-file=%s/cert.pem" % self.gw.dir, "--passwordeval=echo pencil",
                  "--from=ann@example.test", "--file=/dev/null"]
        for method in ("scram-sha-256", "plain"):
            status, text = self.run_client("msmtp", *common, "--auth=" + method,
                                           "eve@example.com", stdin=message("msmtp " + method))
            self.assertEqual(status, 0, text)
            self.up.find("msmtp " + method)
        status, text = self.run_client(
            "curl", "-sS", "--ssl-reqd", "-k", "smtp://127.0.0.1:%d/c.example" % self.gw.submission,
            "--user", "ann:pencil", "--mail-from", "ann@example.test", "--mail-rcpt",
            "eve@example.com", "-T", "-", stdin=message("by curl"))
        self.assertEqual(status, 0, text)
        self.assertRegex(self.up.find("by curl")[0].decode(), r"with ESMTPSA id")

    def imap_takes_it_too(self):
        status, text = self.run_client("gsasl", "--imap", "--verbose", "-m", "SCRAM-SHA-256", "-a",
                                       "ann", "-p", "pencil", "--no-starttls", "localhost",
                                       str(self.gw.imap))
        self.assertEqual(status, 0, text)
        self.gw.wait_log(r'role=review event=auth\.ok .*service=imap .*user="ann"')
        status, text = self.run_client("gsasl", "--imap", "--verbose", "-m", "SCRAM-SHA-256", "-a",
                                       "ann", "-p", "wrong", "--no-starttls", "localhost",
                                       str(self.gw.imap))
        self.assertIn("NO [AUTHENTICATIONFAILED]", text)


class Words(AuthTest):
    """What is told to whom, by RFC 4954."""

    def setUp(self):
        super().setUp()
        self.gw = self.start_with("", ann=("pencil", "--scope", "*"))
        with open(self.gw.dir + "/users", "a") as f:
            f.write("old:%s:*:\n" % crypt.crypt("pencil", crypt.mksalt(crypt.METHOD_SHA512)))

    def offer(self, s):
        return s.esmtp_features.get("auth", "").split()

    def test_an_old_users_file_works_as_before(self):
        self.gw.start()
        s = self.smtp()
        self.assertEqual(self.offer(s), ["PLAIN", "LOGIN"])     # SCRAM would fail for "old"
        s.login("old", "pencil")
        self.gw.ctl("user", "passwd", "old", stdin="pencil2\n")
        self.gw.wait_log("event=reload|role=intake.*event=reload", 1)
        s = self.smtp()
        self.assertEqual(self.offer(s)[0], "SCRAM-SHA-256-PLUS")
        self.assertIn("235 2.7.0", self.gsasl("SCRAM-SHA-256-PLUS", user="old",
                                              password="pencil2")[1])

    def test_each_refusal_has_its_code(self):
        self.gw.settings["extra"] = "sasl { mechanisms = { SCRAM-SHA-256, PLAIN } }"
        self.gw.write_config()
        self.gw.start()
        s = self.smtp()
        for command, code, text in (
                ("AUTH", 501, b"5.5.4"),
                ("AUTH ?", 501, b"5.5.4"),
                ("AUTH KERBEROS_V4", 504, b"5.5.4"),
                ("AUTH SCRAM-SHA-1", 504, b"5.5.4"),
                ("AUTH CRAM-MD5", 534, b"5.7.9"),
                ("AUTH LOGIN", 534, b"5.7.9"),
                ("AUTH PLAIN !!", 501, b"5.5.2"),
                ("AUTH PLAIN " + b64("\0ann\0wrong"), 535, b"5.7.8"),
                ("AUTH PLAIN " + b64("root\0ann\0pencil"), 535, b"5.7.8"),
                ("AUTH SCRAM-SHA-256 " + b64("n,,n=old,r=abc"), 432, b"4.7.12")):
            reply = s.docmd(command)
            self.assertEqual((reply[0], reply[1].split()[0]), (code, text), command)
        self.assertEqual(s.docmd("AUTH PLAIN")[0], 334)
        self.assertEqual(s.docmd("*")[:1], (501,))
        self.assertEqual(s.docmd("AUTH PLAIN")[0], 334)
        self.assertEqual(s.docmd("x" * 12287)[0], 500)
        self.assertEqual(s.docmd("MAIL FROM:<ann@example.test>")[0], 530)
        self.assertEqual(s.docmd("AUTH PLAIN " + b64("\0ann\0pencil"))[0], 235)
        self.assertEqual(s.docmd("AUTH PLAIN " + b64("\0ann\0pencil"))[0], 503)
        for value, code in (("<>", 250), ("ann+4", 501), ("ann@example.test", 250),
                            ("ann+2Bx@example.test", 250), ("nobody", 501), ("", 501)):
            self.assertEqual(s.docmd("MAIL FROM:<ann@example.test> AUTH=" + value)[0], code, value)
            s.docmd("RSET")
        s.docmd("MAIL FROM:<ann@example.test>")
        self.assertEqual(s.docmd("AUTH PLAIN")[0], 503)

    def test_without_tls_only_what_was_allowed(self):
        self.gw.settings["extra"] = """sasl { without-tls = hashed
            mechanisms = { SCRAM-SHA-256, PLAIN } }"""
        self.gw.write_config()
        self.gw.start()
        with Chat(self.gw.submission) as c:
            c.reply()
            self.assertIn("AUTH SCRAM-SHA-256\n", c.say("EHLO x.example.net").reply() + "\n")
            self.assertRegex(c.ask("AUTH PLAIN " + b64("\0ann\0pencil")), r"^538 5\.7\.11 ")
        status, text = self.gsasl("SCRAM-SHA-256", "--no-starttls")
        self.assertIn("235 2.7.0", text)

    def test_failures_cost_time_for_address_and_user(self):
        self.gw.start()
        s = self.smtp()
        codes = [s.docmd("AUTH PLAIN " + b64("\0ann\0wrong%d" % i))[0] for i in range(7)]
        self.assertEqual(codes[:5], [535] * 5)
        self.assertEqual(codes[6], 454)
        line = self.gw.wait_log("event=auth.fail .*why=back-off")
        self.assertRegex(line, r"wait_ms=\d+")
        self.assertRegex(self.gw.ctl("metrics").stdout,
                         r'relayd_auth_delayed_total\{role="intake",index="0"\} [1-9]')
        self.assertNotIn("wrong", self.gw.log())


class Senders(AuthTest):
    def test_a_user_sends_in_its_names_only(self):
        with open(self.folder + "/senders", "w") as f:
            f.write("ann ann@example.test @sales.example.test\n")
        os.chmod(self.folder + "/senders", 0o644)
        self.gw = self.start_with('sasl { senders = "%s/senders" }' % self.folder,
                                  ann=("pencil", "--relay"), bob=("pencil", "--relay")).start()
        s = self.smtp()
        s.login("ann", "pencil")
        for path, code in (("ann@example.test", 250), ("x@sales.example.test", 250), ("", 250),
                           ("bob@example.test", 553)):
            reply = s.docmd("MAIL FROM:<%s>" % path)
            self.assertEqual(reply[0], code, path)
            s.docmd("RSET")
        self.assertRegex(reply[1].decode(), r"^5\.7\.1 <bob@example\.test>: user ann may not send")
        self.gw.wait_log("event=message.rejected .*code=553 why=sender-login")
        s = self.smtp()
        s.login("bob", "pencil")
        self.assertEqual(s.docmd("MAIL FROM:<bob@example.test>")[0], 553)
        # Who did not log in is not asked.
        self.assertEqual(self.gw.send(sender="bob@example.test")[0], 250)


class Tokens(AuthTest):
    """OAUTHBEARER, and a command that knows three tokens."""

    def setUp(self):
        super().setUp()
        command = self.folder + "/introspect"
        with open(command, "w") as f:
            f.write("#!/bin/sh\nread -r token\ncase $token in\n"
                    "good) echo '{\"active\": true, \"username\": \"ann\"}' ;;\n"
                    "stranger) echo '{\"active\": true, \"username\": \"eve\"}' ;;\n"
                    "slow) exec sleep 60 ;;\n*) echo '{\"active\": false}' ;;\nesac\n")
        os.chmod(command, 0o755)
        self.gw = self.start_with('sasl { introspect = "%s"  introspect-timeout = 1s }' % command,
                                  ann=("pencil", "--relay")).start()

    def curl(self, token):
        return self.run_client(
            "curl", "-sSv", "--ssl-reqd", "-k", "smtp://127.0.0.1:%d/c.example" % self.gw.submission,
            "--user", "ann", "--oauth2-bearer", token, "--login-options", "AUTH=OAUTHBEARER",
            "--mail-from", "ann@example.test", "--mail-rcpt", "eve@example.com", "-T", "-",
            stdin=message("with a token"))

    def test_a_token_is_as_good_as_its_owner(self):
        status, text = self.curl("good")
        self.assertEqual(status, 0, text)
        self.up.find("with a token")
        for token in ("bad", "stranger"):
            self.assertIn("535 5.7.8", self.curl(token)[1])
        start = time.monotonic()
        self.assertIn("454 4.7.0", self.curl("slow")[1])
        self.assertLess(time.monotonic() - start, 15)
        self.gw.wait_log("event=limit .*what=introspection")
        with Chat(self.gw.submission) as c:
            c.reply()
            c.say("EHLO x").reply()
            self.assertRegex(c.ask("AUTH OAUTHBEARER"), "^538 5.7.11")
        self.assertNotIn("stranger", self.gw.log())


class Tickets(AuthTest):
    """GSSAPI, and a KDC."""

    def test_a_ticket_logs_in(self):
        krb = Kerberos(self.folder)
        self.addCleanup(krb.stop)
        krb.add("ann", "pencil")
        krb.add("eve", "pencil")
        keytab = krb.keytab("smtp/mx.example.test", "imap/mx.example.test")
        environment = {"KRB5_CONFIG": krb.env["KRB5_CONFIG"],
                       "LSAN_OPTIONS": "suppressions=%s/tests/lsan.supp" % ROOT}
        self.enterContext(unittest.mock.patch.dict(os.environ, environment))
        self.gw = self.start_with('sasl { keytab = "%s"  realm = %s }' % (keytab, REALM),
                                  ann=("pencil", "--scope", "*")).start()
        krb.ticket("ann", "pencil")
        for _ in range(2):
            status, text = self.gsasl("GSSAPI", "-z", "", "--service=smtp", env=krb.env)
            self.assertEqual(status, 0, text)
            self.assertIn("235 2.7.0", text)
        self.gw.wait_log(r'event=auth\.ok .*user="ann" mechanism=GSSAPI', 2)
        self.assertIn("535 5.7.8", self.gsasl("GSSAPI", "-z", "root", "--service=smtp",
                                              env=krb.env)[1])
        krb.ticket("eve", "pencil")         # a principal, but no user
        self.assertIn("535 5.7.8", self.gsasl("GSSAPI", "-z", "", "--service=smtp",
                                              env=krb.env)[1])
        krb.ticket("ann", "pencil")
        status, text = self.run_client(
            "gsasl", "--imap", "--verbose", "-m", "GSSAPI", "-a", "ann", "-z", "", "--no-starttls",
            "--hostname=mx.example.test", "--service=imap", "localhost", str(self.gw.imap),
            env=krb.env)
        self.assertIn(". OK [CAPABILITY", text)

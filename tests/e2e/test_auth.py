"""Logins, with real clients: every mechanism, what is refused and with which words, who may send as whom."""
import base64
import glob
import hashlib
import hmac
import imaplib
import os
import poplib
import re
import smtplib
import ssl
import subprocess
import threading
import time
import unittest.mock
import warnings

from harness import (GTUBE, PATIENCE, ROOT, Chat, GatewayTest, free_port, in_thread, make_certificate,
                     message, tls_context, wait_for)
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

    def test_where_tls_is_required_a_login_comes_behind_it(self):
        """RFC 3207 section 4, whatever a mechanism would be allowed elsewhere."""
        port = free_port()
        self.gw.settings["extra"] = """sasl {{ without-tls = any  mechanisms = {{ PLAIN }} }}
            listener hard {{ address = {{ "127.0.0.1:{0}" }}  tls = required  auth = required }}
            """.format(port)
        self.gw.write_config()
        self.gw.start()
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as s:
            s.ehlo()
            self.assertNotIn("auth", s.esmtp_features)
            self.assertRegex("%d %s" % s.docmd("AUTH PLAIN " + b64("\0ann\0pencil")), "^530 .*5.7.0")
            s.starttls(context=tls_context())
            s.ehlo()
            self.assertEqual(s.docmd("AUTH PLAIN " + b64("\0ann\0pencil"))[0], 235)

    def test_starttls_voids_a_login(self):
        """RFC 3207 section 4.2: who it was that logged in before is not known any more."""
        self.gw.settings["extra"] = "sasl { without-tls = any  mechanisms = { PLAIN } }"
        self.gw.write_config()
        self.gw.add_user("boss", "pencil", "--relay")
        self.gw.start()
        with smtplib.SMTP("127.0.0.1", self.gw.submission, timeout=30) as s:
            s.ehlo()
            self.assertEqual(s.docmd("AUTH PLAIN " + b64("\0boss\0pencil"))[0], 235)
            self.assertEqual(s.mail("boss@example.test")[0], 250)
            self.assertEqual(s.rcpt("eve@else.test")[0], 250)    # boss may relay
            s.docmd("RSET")
            self.assertEqual(s.starttls(context=tls_context())[0], 220)
            s.ehlo()
            self.assertEqual(s.docmd("MAIL FROM:<boss@example.test>")[0], 530)
            self.assertEqual(s.docmd("AUTH PLAIN " + b64("\0ann\0pencil"))[0], 235)
            self.assertEqual(s.mail("ann@example.test")[0], 250)
            self.assertEqual(s.docmd("RCPT TO:<eve@else.test>")[0], 550)  # ann may not

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


class Changes(AuthTest):
    def test_users_come_and_go_while_others_log_in(self):
        """No login is harmed by a change of the file, and each change counts as soon as it is made."""
        self.gw = self.start_with("", ann=("pencil", "--relay")).start()
        stop, done, failed = threading.Event(), [], []

        def submit(user, password):
            with smtplib.SMTP_SSL("127.0.0.1", self.gw.submissions, context=tls_context(),
                                  timeout=PATIENCE) as s:
                s.login(user, password)
                s.sendmail("ann@example.test", ["eve@example.com"], message("by " + user))

        def go_on():
            while not stop.is_set():
                try:
                    submit("ann", "pencil")
                    done.append(1)
                except (OSError, smtplib.SMTPException) as e:
                    failed.append(e)
        clients = [in_thread(go_on) for _ in range(3)]
        for n in range(8):
            self.gw.add_user("user%d" % n, "old", "--relay")
            submit("user%d" % n, "old")
            self.gw.ctl("user", "passwd", "user%d" % n, stdin="new\n")
            submit("user%d" % n, "new")
            self.gw.ctl("user", "remove", "user%d" % n)
        with self.assertRaises(smtplib.SMTPAuthenticationError):    # more would make all of us wait
            submit("user0", "new")
        stop.set()
        for client in clients:
            client.join()
        self.assertEqual(failed, [])
        self.assertGreater(len(done), 8)
        self.assertEqual(len(self.gw.pids("intake")), 1)
        self.up.wait(len(done) + 16, 60)

    def may_relay(self, s):
        """The reply to RCPT elsewhere, or to MAIL where that is refused already."""
        reply = s.docmd("MAIL FROM:<ann@example.test>")
        if reply[0] == 250:
            reply = s.docmd("RCPT TO:<eve@example.com>")
            s.docmd("RSET")
        return reply

    def test_a_session_keeps_no_right_that_was_taken_away(self):
        self.gw = self.start_with("", ann=("pencil", "--relay"), bob=("pencil", "--relay"),
                                  late=("pencil", "--relay"), kim=("pencil", "--relay"))
        self.gw.write_config(networks="127.0.0.0/8")
        self.gw.start()
        near = smtplib.SMTP("127.0.0.1", self.gw.smtp, timeout=PATIENCE)
        self.addCleanup(near.close)
        near.ehlo()
        gone, locked, kept, idle = (self.smtp() for _ in range(4))
        for s, user in (gone, "ann"), (locked, "bob"), (kept, "kim"):
            s.login(user, "pencil")
        self.assertEqual({self.may_relay(s)[0] for s in (near, gone, locked, kept)}, {250})
        self.gw.write_config(networks="")
        self.gw.ctl("user", "remove", "ann")
        self.gw.ctl("user", "passwd", "late", stdin="new\n")
        with open(self.gw.dir + "/users") as f:
            lines = f.read()
        with open(self.gw.dir + "/users", "w") as f:
            f.write(re.sub("(?m)^bob:", "bob:!", lines))
        self.gw.ctl("reload")
        self.assertEqual(self.may_relay(near)[0], 550)
        self.assertEqual(self.may_relay(kept)[0], 250)
        for s in gone, locked:
            code, text = self.may_relay(s)
            self.assertEqual(code, 421)
            self.assertRegex(text.decode(), r"^4\.7\.0 The user of this session may not log in any more")
        for user in "ann", "bob":
            self.gw.wait_log('event=auth.fail .*user="%s" .*why=removed' % user)
        # Who was there before the change, and logs in behind it, does so with what there is now.
        with self.assertRaises(smtplib.SMTPAuthenticationError):
            idle.login("late", "pencil", initial_response_ok=False)
        idle.login("late", "new")
        self.assertEqual(self.may_relay(idle)[0], 250)


    def test_nor_does_who_reads_the_quarantine(self):
        self.gw = self.start_with("", ann=("pencil", "--scope", "*"), bob=("pencil", "--scope", "*"),
                                  kim=("pencil", "--scope", "*"))
        self.gw.start()
        readers = {}
        for user in "ann", "bob", "kim":
            readers[user] = m = imaplib.IMAP4("127.0.0.1", self.gw.imap, timeout=PATIENCE)
            self.addCleanup(m.shutdown)
            m.login(user, "pencil")
            self.assertEqual(m.select()[0], "OK")
        readers["bob"].send(b"x IDLE\r\n")
        self.assertIn(b"Waiting", readers["bob"].readline())
        with open(self.gw.dir + "/users") as f:
            lines = f.read()
        with open(self.gw.dir + "/users", "w") as f:    # one is gone, one sees less
            f.write(re.sub(r"(?m)^ann:.*\n", "", re.sub(r"(?m)^(bob:[^:]*):\*:", r"\1:example.test:", lines)))
        self.gw.ctl("reload")
        for user in "ann", "bob":
            self.assertIn(b"* BYE Your login does not hold any more", readers[user].readline())
            self.gw.wait_log('event=auth.fail .*service=imap .*user="%s" why=removed' % user)
        self.assertEqual(readers["kim"].noop()[0], "OK")


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
                    "slow) exec sleep 60 ;;\n"
                    "failing) echo '{\"active\": true, \"username\": \"ann\"}'; exit 3 ;;\n"
                    "killed) echo '{\"active\": true, \"username\": \"ann\"}'; kill -9 $$ ;;\n"
                    "huge) exec yes '{' ;;\n*) echo '{\"active\": false}' ;;\nesac\n")
        os.chmod(command, 0o755)
        self.gw = self.start_with('sasl { introspect = "%s"  introspect-timeout = 1s }' % command,
                                  ann=("pencil", "--relay")).start()

    def curl(self, token, mechanism="OAUTHBEARER", user="ann"):
        return self.run_client(
            "curl", "-sSv", "--ssl-reqd", "-k", "smtp://127.0.0.1:%d/c.example" % self.gw.submission,
            "--user", user, "--oauth2-bearer", token, "--login-options", "AUTH=" + mechanism,
            "--mail-from", "ann@example.test", "--mail-rcpt", "eve@example.com", "-T", "-",
            stdin=message("with a token by " + mechanism))

    def test_what_was_there_before_still_works(self):
        status, text = self.curl("good", "XOAUTH2")
        self.assertEqual(status, 0, text)
        self.up.find("with a token by XOAUTH2")
        for user, token in (("ann", "bad"), ("bob", "good"), ("eve", "stranger")):
            self.assertIn("535 5.7.8", self.curl(token, "XOAUTH2", user)[1])

    def test_who_leaves_at_the_refusal_has_failed_too(self):
        """The challenge says it already (RFC 7628): a client that goes without an answer learnt as much."""
        bad = b64("n,,\x01auth=Bearer bad\x01\x01")
        leave = (lambda s: s.docmd("*"), lambda s: s.close(), lambda s: s.docmd("x" * 13000))
        for n in range(5):
            s = self.smtp()
            self.assertEqual(s.docmd("AUTH OAUTHBEARER", bad)[0], 334)
            leave[n % 3](s)
            self.gw.wait_log("event=auth.fail .*mechanism=OAUTHBEARER .*why=token", n + 1)
        self.assertEqual(self.smtp().docmd("AUTH OAUTHBEARER", bad)[0], 454)
        self.gw.wait_log("event=auth.fail .*why=back-off")

    def test_a_token_is_as_good_as_its_owner(self):
        status, text = self.curl("good")
        self.assertEqual(status, 0, text)
        self.up.find("with a token")
        for token in ("bad", "stranger"):
            self.assertIn("535 5.7.8", self.curl(token)[1])
        for token in ("failing", "killed", "huge"):     # whatever they say first
            self.assertIn("454 4.7.0 The token cannot be checked", self.curl(token)[1], token)
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


class Certificates(AuthTest):
    """EXTERNAL: who has a certificate of the admin's own authority needs no password."""

    def setUp(self):
        super().setUp()
        make_certificate(self.folder, "ca-", "DNS:ca.invalid", subject="authority")
        for name, alternative, issuer in (("ann-", "email:ann@example.test", "ca-"),
                                          ("eve-", "email:eve@example.test", "ca-"),
                                          ("old-", "DNS:old", "ca-"),
                                          ("self-", "email:ann@example.test", None)):
            make_certificate(self.folder, name, alternative, issuer=issuer)
        self.trusted = free_port()
        self.gw = self.start_with("""listener trusted {
            address = { "127.0.0.1:%d" }  tls = starttls  auth = required  xclient = { 127.0.0.0/8 } }"""
            % self.trusted, **{"ann@example.test": ("pencil", "--relay", "--scope", "*"),
                               "old": ("pencil", "--relay", "--scope", "*")})
        with open(self.gw.dir + "/users") as f:
            lines = f.read().replace("old:", "old:!")
        with open(self.gw.dir + "/users", "w") as f:
            f.write(lines)
        self.gw.write_config(tls=self.gw.settings["tls"] + " client-ca = %s/ca-cert.pem" % self.folder)
        self.gw.start()

    def curl(self, url, name, *options, user="ann@example.test", stdin=""):
        return self.run_client("curl", "-sSv", "--ssl-reqd", "-k", "--cert",
                               "%s/%scert.pem" % (self.folder, name), "--key", "%s/%skey.pem"
                               % (self.folder, name), "--user", user + ":", "--login-options",
                               "AUTH=EXTERNAL", *options, url, stdin=stdin)

    def submit(self, name, **how):
        return self.curl("smtp://127.0.0.1:%d/c.example" % self.gw.submission, name, "--mail-from",
                         "ann@example.test", "--mail-rcpt", "eve@example.com", "-T", "-",
                         stdin=message("by certificate"), **how)

    def test_a_certificate_submits(self):
        status, text = self.submit("ann-")
        self.assertEqual(status, 0, text)
        self.assertRegex(self.up.find("by certificate")[0].decode(), "with ESMTPSA id")
        self.gw.wait_log('event=auth.ok .*user="ann@example.test" mechanism=EXTERNAL')
        for name, user in (("ann-", "eve@example.test"),    # to act as somebody else
                           ("eve-", "eve@example.test"),    # a certificate, but no user
                           ("old-", "old")):                # a user that is locked
            status, text = self.submit(name, user=user)
            self.assertIn("535 5.7.8", text)
        status, text = self.submit("self-")                 # vouched for by nobody
        self.assertNotIn("EXTERNAL", text.split("* ", 1)[1].replace("AUTH=EXTERNAL", ""))
        self.assertNotEqual(status, 0, text)

    def test_a_certificate_opens_the_quarantine(self):
        self.gw.settings["filters"] = 'filter rules { files = { "%s/etc/rules/*.cf" } }' % ROOT
        self.gw.write_config()
        self.gw.ctl("reload")
        self.gw.hold("by certificate")
        status, text = self.curl("imaps://127.0.0.1:%d/INBOX;MAILINDEX=1" % self.gw.imaps, "ann-")
        self.assertEqual(status, 0, text)
        self.assertIn("Subject: by certificate", text)
        status, text = self.curl("pop3s://127.0.0.1:%d/1" % self.gw.pop3s, "ann-")
        self.assertEqual(status, 0, text)
        self.assertIn("Subject: by certificate", text)
        status, text = self.run_client(
            "mpop", "--host=localhost", "--port=%d" % self.gw.pop3s, "--tls=on", "--tls-starttls=off",
            "--tls-trust-file=%s/cert.pem" % self.gw.dir, "--auth=external",
            "--tls-cert-file=%s/ann-cert.pem" % self.folder, "--tls-key-file=%s/ann-key.pem" % self.folder,
            "--user=ann@example.test", "--auth-only", "--delivery=maildir," + self.folder)
        self.assertEqual(status, 0, text)
        for service in ("imap", "pop3"):
            self.gw.wait_log('role=review event=auth.ok .*service=%s .*user="ann@example.test"' % service)
        for port, scheme in ((self.gw.imaps, "imaps"), (self.gw.pop3s, "pop3s")):
            status, text = self.curl("%s://127.0.0.1:%d/" % (scheme, port), "eve-",
                                     user="eve@example.test")
            self.assertRegex(text, r"NO \[AUTHENTICATIONFAILED\]|-ERR \[AUTH\]")
            status, text = self.curl("%s://127.0.0.1:%d/" % (scheme, port), "self-")
            self.assertNotEqual(status, 0, text)
            self.assertNotRegex(text, "> .*(AUTHENTICATE|AUTH) EXTERNAL")

    def test_a_proxy_brings_no_login_of_its_own(self):
        """What the connection proved is the proxy's, and not of whom it speaks for."""
        context = tls_context()
        context.load_cert_chain(self.folder + "/ann-cert.pem", self.folder + "/ann-key.pem")
        with smtplib.SMTP("127.0.0.1", self.trusted, "proxy.example.test", timeout=30) as c:
            c.starttls(context=context)
            c.ehlo()
            self.assertIn("EXTERNAL", c.esmtp_features["auth"])
            self.assertEqual(c.docmd("AUTH EXTERNAL ="), (235, b"2.7.0 Logged in"))
            c.mail("ann@example.test")
            self.assertEqual(c.rcpt("eve@example.com")[0], 250)
            c.rset()
            self.assertEqual(c.docmd("XCLIENT ADDR=192.0.2.77")[0], 220)
            c.ehlo()
            self.assertNotIn("EXTERNAL", c.esmtp_features["auth"])
            self.assertEqual(c.docmd("AUTH EXTERNAL =")[0], 504)
            self.assertEqual(c.mail("ann@example.test")[0], 530)
            self.assertEqual(c.docmd("AUTH PLAIN " + b64("\0ann@example.test\0pencil"))[0], 235)
            c.mail("ann@example.test")
            self.assertEqual(c.rcpt("eve@example.com")[0], 250)
            self.gw.wait_log("event=auth.ok .*ip=192.0.2.77 .*mechanism=PLAIN")


class Scram:
    """A client of SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), bound to the TLS session by tls-unique."""

    def __init__(self, sock, user, password):
        self.binding, self.password, self.challenges = sock.get_channel_binding("tls-unique"), password, 0
        self.bare = "n=%s,r=fyko+d2lbbFgONRv9qkxdawL" % user
        self.first = "p=tls-unique,,%s" % self.bare
        self.proven = False

    def answer(self, challenge):
        self.challenges += 1
        if not challenge:
            return self.first.encode()
        fields = dict(part.split("=", 1) for part in challenge.decode().split(","))
        if "v" in fields:
            self.proven = fields["v"] == base64.b64encode(self.signature).decode()
            return b""
        salted = hashlib.pbkdf2_hmac("sha256", self.password.encode(), base64.b64decode(fields["s"]),
                                     int(fields["i"]))
        final = "c=%s,r=%s" % (base64.b64encode(b"p=tls-unique,," + self.binding).decode(), fields["r"])
        said = ",".join((self.bare, challenge.decode(), final)).encode()
        client = hmac.digest(salted, b"Client Key", "sha256")
        proof = hmac.digest(hashlib.sha256(client).digest(), said, "sha256")
        self.signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), said, "sha256")
        return ("%s,p=%s" % (final, base64.b64encode(
            bytes(a ^ b for a, b in zip(client, proof))).decode())).encode()


class Quarantine(AuthTest):
    """Logins of those who read what is held, from afar."""

    def setUp(self):
        super().setUp()
        self.gw = self.start_with("", ann=("pencil", "--scope", "*"))
        self.gw.settings["filters"] = 'filter rules { files = { "%s/etc/rules/*.cf" } }' % ROOT
        self.gw.write_config()
        self.gw.start()

    def old_tls(self):
        context = tls_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context

    def test_a_login_is_bound_to_its_connection(self):
        with imaplib.IMAP4_SSL("127.0.0.1", self.gw.imaps, ssl_context=self.old_tls()) as c:
            self.assertIn("AUTH=SCRAM-SHA-256-PLUS", c.capabilities)
            client = Scram(c.sock, "ann", "pencil")
            self.assertEqual(c.authenticate("SCRAM-SHA-256-PLUS", client.answer)[0], "OK")
            self.assertTrue(client.proven)
            self.assertEqual(c.select()[0], "OK")
        with imaplib.IMAP4_SSL("127.0.0.1", self.gw.imaps, ssl_context=self.old_tls()) as c:
            client = Scram(c.sock, "ann", "pencil")
            client.binding = b"of another connection"[:len(client.binding)]
            with self.assertRaisesRegex(imaplib.IMAP4.error, "AUTHENTICATIONFAILED"):
                c.authenticate("SCRAM-SHA-256-PLUS", client.answer)
        for forged in (False, True):
            c = poplib.POP3_SSL("127.0.0.1", self.gw.pop3s, context=self.old_tls())
            self.addCleanup(c.close)
            self.assertIn("SCRAM-SHA-256-PLUS", c.capa()["SASL"])
            client = Scram(c.sock, "ann", "pencil")
            client.binding = b"forged" if forged else client.binding
            c._putcmd("AUTH SCRAM-SHA-256-PLUS " + base64.b64encode(client.first.encode()).decode())
            while (line := c._getline()[0]).startswith(b"+ "):
                c._putline(base64.b64encode(client.answer(base64.b64decode(line[2:]))))
            self.assertRegex(line.decode(), r"^-ERR \[AUTH\]" if forged else r"^\+OK ")
            self.assertEqual(client.proven, not forged)

    def test_mpop_fetches_what_is_held(self):
        self.gw.hold("held for mpop")
        for folder in ("cur", "new", "tmp"):
            os.makedirs(self.folder + "/box/" + folder)
        for mechanism in ("scram-sha-256", "scram-sha-1", "plain", "user"):
            status, text = self.run_client(
                "mpop", "--host=localhost", "--port=%d" % self.gw.pop3s, "--tls=on",
                "--tls-starttls=off", "--tls-trust-file=%s/cert.pem" % self.gw.dir, "--debug",
                "--auth=" + mechanism, "--user=ann", "--passwordeval=echo pencil", "--keep=on",
                "--uidls-file=%s/uidls-%s" % (self.folder, mechanism),
                "--delivery=maildir,%s/box" % self.folder)
            self.assertEqual(status, 0, text)
            if mechanism != "user":
                self.assertIn("AUTH " + mechanism.upper(), text)
        got = glob.glob(self.folder + "/box/new/*")
        self.assertEqual(len(got), 4)
        with open(got[0]) as f:
            self.assertIn("held for mpop", f.read())
        status, text = self.run_client(
            "mpop", "--host=localhost", "--port=%d" % self.gw.pop3s, "--tls=on", "--tls-starttls=off",
            "--tls-trust-file=%s/cert.pem" % self.gw.dir, "--auth=scram-sha-256", "--user=ann",
            "--passwordeval=echo wrong", "--auth-only", "--delivery=maildir,%s/box" % self.folder)
        self.assertNotEqual(status, 0)
        self.assertIn("authentication failed (method SCRAM-SHA-256)", text)


class Patience(AuthTest):
    """Failures are counted in one place, whoever noticed them."""

    def test_more_workers_are_not_more_tries(self):
        self.gw = self.start_with("", ann=("pencil", "--scope", "*"))
        self.gw.write_config(workers=4)
        self.gw.start()
        self.crowd(self.gw)
        codes, workers = [], set()
        for i in range(40):     # a connection each: any worker
            codes.append(self.smtp().docmd("AUTH PLAIN " + b64("\0ann\0wrong%d" % i))[0])
            workers = {line.split("index=")[1].split()[0] for line in self.gw.log().splitlines()
                       if "event=auth.fail" in line}
            if codes[-1] == 454 and len(workers) > 1:
                break
        self.assertEqual(codes[:5], [535] * 5)
        self.assertIn(454, codes[5:])
        self.assertGreater(len(workers), 1)
        looked_at = 5 + codes[5:].count(535)
        wait_for(lambda: self.gw.log().count("why=password") >= looked_at, "the log of all")
        self.assertEqual(self.gw.log().count("why=password"), looked_at)
        self.assertLessEqual(codes.count(535), 7)   # one more every 2, 4, 8 seconds
        # And by another way it waits as well.
        start = time.monotonic()
        with imaplib.IMAP4("127.0.0.1", self.gw.imap) as c:
            c.login("ann", "pencil")
        self.assertGreater(time.monotonic() - start, 0.5)
        self.assertRegex(self.gw.ctl("metrics").stdout,
                         r'relayd_auth_delayed_total\{role="review",index="0"\} [1-9]')
        # A success ends it, for all.
        self.assertEqual(self.smtp().docmd("AUTH PLAIN " + b64("\0ann\0pencil"))[0], 235)

    def test_many_tries_at_once_are_not_more_tries(self):
        """Of twenty that are on their way when the first fails, five are looked at; the right one is the last."""
        self.gw = self.start_with("", ann=("pencil", "--scope", "*"))
        self.gw.write_config(workers=2)
        self.gw.start()
        self.crowd(self.gw)
        sessions = [self.smtp() for _ in range(20)]
        for i, s in enumerate(sessions):
            s.putcmd("AUTH PLAIN " + b64("\0ann\0" + ("wrong" if i < 19 else "pencil")))
        codes = [s.getreply()[0] for s in sessions]
        self.assertLessEqual(codes.count(535), 6)     # two workers may both see the last free place
        self.assertGreaterEqual(codes.count(535), 4)
        self.assertEqual(set(codes[:-1]), {535, 454})

        clients = [Chat(self.gw.imap) for _ in range(12)]
        for c in clients:
            self.addCleanup(c.close)
            c.line()
            c.say("a LOGIN nobody wrong")
        said = [c.line() for c in clients]
        self.assertEqual(len([line for line in said if "AUTHENTICATIONFAILED" in line]
                             + [line for line in said if "UNAVAILABLE" in line]), 12, said)
        self.assertLessEqual(len([line for line in said if "AUTHENTICATIONFAILED" in line]), 2)

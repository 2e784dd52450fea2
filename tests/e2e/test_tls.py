"""TLS as clients meet it: names, kinds of keys, tickets, client certificates, renewal, refusals."""
import hashlib
import os
import re
import smtplib
import socket
import ssl
import subprocess
import time
import unittest

from harness import Chat, GatewayTest, make_certificate, message, tls_context, wait_for


def der_of(path):
    with open(path) as f:
        return ssl.PEM_cert_to_DER_cert(f.read())


def fingerprint(path):
    return "sha256:" + hashlib.sha256(der_of(path)).hexdigest()


def pairs(folder, *names):
    """certificate = { ... } key = { ... } of the certificates with these names."""
    return "certificate = { %s }  key = { %s }" % tuple(
        ", ".join("%s/%s%s.pem" % (folder, name, what) for name in names)
        for what in ("cert", "key"))


class TlsTest(GatewayTest):
    def certificate(self, name, alternatives, **how):
        make_certificate(self.folder, name, alternatives, **how)
        return "%s/%scert.pem" % (self.folder, name)

    def shown(self, port, host=None, context=None):
        """What a server shows under TLS from the first byte, as DER."""
        with socket.create_connection(("127.0.0.1", port), 30) as s:
            with (context or tls_context()).wrap_socket(s, server_hostname=host) as t:
                return t.getpeercert(True)


class Certificates(TlsTest):
    def test_the_name_and_the_kind_of_key_choose(self):
        first = self.certificate("rsa-", "DNS:mx.example.test,DNS:mail.example.test", kind="rsa")
        ec = self.certificate("ec-", "DNS:mx.example.test")
        wild = self.certificate("wild-", "DNS:*.wild.test")
        gw = self.gateway(self.upstream(), tls=pairs(self.folder, "rsa-", "ec-", "wild-"))
        old = tls_context()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        old.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
        for port in (gw.submissions, gw.imaps, gw.pop3s):
            for host, context, expected in (
                    (None, None, ec),  # both kinds are there: ECDSA is cheaper
                    (None, old, first),
                    ("mx.example.test", None, ec),
                    ("MX.example.test", old, first),
                    ("mail.example.test", None, first),
                    ("a.wild.test", None, wild),
                    ("a.b.wild.test", None, ec),  # a wildcard is one label
                    ("unknown.test", None, ec)):
                with self.subTest(port=port, host=host, old=context is not None):
                    self.assertEqual(self.shown(port, host, context), der_of(expected))
        with self.assertRaises(ssl.SSLError):  # of that name there is no RSA key
            self.shown(gw.submissions, "a.wild.test", old)

    def test_a_changed_pair_is_served_without_a_restart(self):
        up = self.upstream()
        gw = self.gateway(up)
        pid = gw.process.pid
        before = der_of(gw.dir + "/cert.pem")
        self.assertEqual(self.shown(gw.submissions), before)
        make_certificate(self.folder, "new-", "DNS:localhost", days=90)
        with gw.smtp_client() as s:
            s.starttls(context=tls_context())
            s.ehlo()
            os.replace(self.folder + "/new-cert.pem", gw.dir + "/cert.pem")
            line = gw.wait_log("event=reload result=refused")
            self.assertIn("do not belong together", line)
            self.assertEqual(self.shown(gw.submissions), before)
            self.assertEqual(s.noop()[0], 250)
            with open(gw.config, "a") as f:
                f.write("nonsense\n")  # an edit that nobody asked to take over
            os.replace(self.folder + "/new-key.pem", gw.dir + "/key.pem")
            gw.wait_log("event=reload result=done .*why=changed-files")
            after = der_of(gw.dir + "/cert.pem")
            for port in (gw.submissions, gw.imaps, gw.pop3s):
                wait_for(lambda p=port: self.shown(p) == after, "the new certificate")
            s.sendmail("bob@example.net", ["ann@example.test"], message("renewed"))
        up.find("renewed")
        self.assertEqual((gw.process.pid, gw.process.child.poll()), (pid, None))

    def test_expiry_is_a_metric_a_check_and_a_warning(self):
        gw = self.gateway(self.upstream())
        gw.wait_log("role=supervisor .*ready=yes")
        text = gw.ctl("metrics").stdout
        for role in ("intake", "review"):
            at = int(re.search(r'relayd_tls_certificate_expiry_seconds{role="%s",index="0"} (\d+)'
                               % role, text)[1])
            self.assertAlmostEqual(at, time.time() + 2 * 86400, delta=3600)
        self.assertNotRegex(text, 'expiry_seconds{role="(delivery|supervisor)"')
        self.assertRegex(gw.ctl("check", check=False).stdout, r"warning\s+certificate.*expires in [12] days?")
        # Expired, and served all the same: mail goes on, and the log says why clients complain.
        subprocess.run(["openssl", "x509", "-in", gw.dir + "/cert.pem", "-signkey",
                        gw.dir + "/key.pem", "-days", "-1", "-out", gw.dir + "/old.pem"],
                       check=True, capture_output=True)
        os.replace(gw.dir + "/old.pem", gw.dir + "/cert.pem")
        gw.wait_log("warning=.*cert.pem expired on 20")
        gw.stop()
        gw.start()
        gw.wait_log("event=reload warning=.*cert.pem expired on 20", 2)
        self.assertEqual(self.shown(gw.submissions), der_of(gw.dir + "/cert.pem"))
        self.assertRegex(gw.ctl("check", check=False).stdout, r"FAILS\s+certificate.*has expired")


class Sessions(TlsTest):
    def resumes(self, port, context, session):
        """(resumed, the next session) of one more connection."""
        with socket.create_connection(("127.0.0.1", port), 30) as s:
            with context.wrap_socket(s, server_hostname="localhost", session=session) as t:
                t.recv(200)  # the greeting, and under TLS 1.3 the ticket
                return t.session_reused, t.session

    def test_a_ticket_is_good_with_every_worker_and_over_a_reload(self):
        gw = self.gateway(self.upstream(), workers=2)
        self.crowd(gw)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = tls_context()
            context.minimum_version = context.maximum_version = version
            for port in (gw.submissions, gw.imaps):
                with self.subTest(version=version, port=port):
                    resumed, session = self.resumes(port, context, None)
                    self.assertFalse(resumed)
                    for _ in range(12):
                        resumed, session = self.resumes(port, context, session)
                        self.assertTrue(resumed)
        workers = set(re.findall(r"role=intake index=(\d) event=tls", gw.log()))
        self.assertEqual(workers, {"0", "1"}, "both workers took some")
        resumed, session = self.resumes(gw.submissions, context, None)
        gw.ctl("reload")
        self.assertTrue(self.resumes(gw.submissions, context, session)[0])

    def test_tickets_are_good_after_an_upgrade_and_certificates_still_renewed(self):
        gw = self.gateway(self.upstream(), workers=1)
        context = tls_context()
        sessions = {port: self.resumes(port, context, None)[1] for port in (gw.submissions, gw.imaps)}
        gw.ctl("upgrade")
        for port, session in sessions.items():
            self.assertTrue(self.resumes(port, context, session)[0], port)
        make_certificate(self.folder, "new-", "DNS:localhost", days=90)
        for what in ("key", "cert"):
            os.replace("%s/new-%s.pem" % (self.folder, what), "%s/%s.pem" % (gw.dir, what))
        gw.wait_log("event=reload result=done .*why=changed-files")
        after = der_of(gw.dir + "/cert.pem")
        for port in sessions:
            wait_for(lambda p=port: self.shown(p) == after, "the new certificate")

    def test_without_a_lifetime_there_are_no_tickets(self):
        gw = self.gateway(self.upstream(), start=False)
        gw.write_config(tls=gw.settings["tls"] + " ticket-lifetime = 0s")
        gw.start()
        context = tls_context()
        _, session = self.resumes(gw.submissions, context, None)
        self.assertFalse(session is not None and session.has_ticket)


class Clients(TlsTest):
    def relay(self, gw, context):
        """The reply to a forward-path that is not ours, said under TLS by this client."""
        with gw.smtp_client() as s:
            s.starttls(context=context)
            s.ehlo()
            self.assertEqual(s.mail("bob@example.net")[0], 250)
            self.assertEqual(s.rcpt("ann@example.test")[0], 250)
            return s.rcpt("eve@elsewhere.test")[0]

    def client(self, name):
        context = tls_context()
        if name is not None:
            context.load_cert_chain("%s/%scert.pem" % (self.folder, name),
                                    "%s/%skey.pem" % (self.folder, name))
        return context

    def test_a_certificate_may_relay_by_its_fingerprint(self):
        self.certificate("ca-", "DNS:ca.invalid", subject="authority")
        self.certificate("known-", "DNS:branch.example.test", issuer="ca-")
        self.certificate("other-", "email:joe@example.test", issuer="ca-")
        self.certificate("self-", "DNS:printer.example.test")
        self.certificate("stranger-", "DNS:branch.example.test")
        with open(self.folder + "/relays", "w") as f:
            f.write("# who may\n%s the printer\n" % fingerprint(self.folder + "/self-cert.pem"))
        with_colons = fingerprint(self.folder + "/known-cert.pem").split(":")[1].upper()
        with_colons = "sha256:" + ":".join(re.findall("..", with_colons))
        gw = self.gateway(self.upstream(), start=False)
        gw.write_config(tls=gw.settings["tls"] + ' client-ca = %s/ca-cert.pem  relay-fingerprints '
                        '= { "%s", %s/relays }' % (self.folder, with_colons, self.folder))
        gw.start()
        for name, code, said in (
                ("known-", 250, 'name=branch.example.test verified=yes relay=yes'),
                ("self-", 250, 'name="" verified=no relay=yes'),
                ("other-", 550, 'name=joe@example.test verified=yes relay=no'),
                ("stranger-", 550, 'name="" verified=no relay=no'),
                (None, 550, None)):
            with self.subTest(client=name):
                self.assertEqual(self.relay(gw, self.client(name)), code)
                if said is not None:
                    gw.wait_log("event=tls .*client=%s %s" % (
                        fingerprint("%s/%scert.pem" % (self.folder, name)), said))
        # The file is one of those that are watched.
        with open(self.folder + "/relays", "w") as f:
            f.write(fingerprint(self.folder + "/stranger-cert.pem") + "\n")
        gw.wait_log("event=reload result=done .*why=changed-files")
        wait_for(lambda: self.relay(gw, self.client("stranger-")) == 250, "the new fingerprint")
        self.assertEqual(self.relay(gw, self.client("self-")), 550)

    def test_no_certificate_is_asked_for_unless_configured(self):
        gw = self.gateway(self.upstream())
        done = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % gw.submissions],
                              input=b"QUIT\r\n", capture_output=True, timeout=30)
        self.assertIn(b"No client certificate CA names sent", done.stdout)
        self.assertNotIn(b"Requested Signature Algorithms", done.stdout)


class Refusals(TlsTest):
    def s_client(self, gw, *options, stdin=b"QUIT\r\n"):
        done = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % gw.submissions,
                               *options], input=stdin, capture_output=True, timeout=30)
        return (done.stdout + done.stderr).decode("utf-8", "replace")

    def test_new_keys_again_and_again_end_the_session(self):
        """Each costs us more than the client: the keys, and an answer that it need not fetch."""
        gw = self.gateway(self.upstream(), workers=1)
        client = subprocess.Popen(["openssl", "s_client", "-connect", "127.0.0.1:%d" % gw.submissions,
                                   "-tls1_3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, bufsize=0)
        self.addCleanup(client.stdin.close)
        self.addCleanup(client.stdout.close)
        self.addCleanup(client.wait)
        self.addCleanup(client.kill)

        def ask(line, answer):
            try:
                client.stdin.write(line)
            except BrokenPipeError:
                return False
            return any(answer in said for said in client.stdout)
        self.assertTrue(ask(b"", b"220 mx"))
        done = 0
        while done < 200 and ask(b"K\n", b"KEYUPDATE") and ask(b"NOOP\r\n", b"250 2.0.0"):
            done += 1
        self.assertGreater(done, 10)  # some are right
        self.assertLess(done, 200)
        gw.wait_log("event=disconnect .*why=limit")

    def test_what_is_old_or_weak_is_refused(self):
        gw = self.gateway(self.upstream(), tls=pairs(self.folder, "rsa-", "ec-"), start=False)
        self.certificate("rsa-", "DNS:localhost", kind="rsa")
        self.certificate("ec-", "DNS:localhost")
        gw.start()
        for options, good in (
                (("-tls1_2",), True),
                (("-tls1_3",), True),
                (("-tls1", "-cipher", "ALL:@SECLEVEL=0"), False),
                (("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"), False),
                (("-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"), True),
                (("-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"), True),
                (("-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA256"), False),  # CBC
                (("-tls1_2", "-cipher", "AES128-GCM-SHA256"), False),  # no forward secrecy
                (("-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"), False),
                (("-tls1_2", "-cipher", "aNULL:eNULL:@SECLEVEL=0"), False),
                (("-tls1_2", "-sigalgs", "RSA+SHA1:ECDSA+SHA1", "-cipher",
                  "ALL:@SECLEVEL=0"), False),
                (("-tls1_3", "-groups", "ffdhe2048"), False)):
            with self.subTest(options=options):
                self.assertEqual("Cipher is (NONE)" not in self.s_client(gw, *options), good)

    def test_a_client_may_not_renegotiate(self):
        gw = self.gateway(self.upstream())
        self.assertRegex(self.s_client(gw, "-tls1_2", stdin=b"R\n"), "no renegotiation")

    def test_nothing_said_before_the_handshake_counts(self):
        """Also what comes in packets of its own, before and behind the reply to STARTTLS."""
        gw = self.gateway(self.upstream())
        injected = b"EHLO evil\r\nMAIL FROM:<injected@example.net>\r\nRCPT TO:<ann@example.test>\r\n"
        with socket.create_connection(("127.0.0.1", gw.smtp), 30) as s:
            s.recv(500)
            s.sendall(b"EHLO client.example.net\r\n")
            s.recv(2000)
            s.sendall(b"STARTTLS\r\n" + injected)
            self.assertEqual(s.recv(500)[:3], b"220")
            with tls_context().wrap_socket(s) as t:
                t.sendall(b"RCPT TO:<ann@example.test>\r\n")
                self.assertEqual(t.recv(500)[:3], b"503")
                t.sendall(b"EHLO client.example.net\r\nRCPT TO:<ann@example.test>\r\n")
                self.assertRegex(t.recv(2000), rb"(?s)^250-.*\r\n503 ")
        with socket.create_connection(("127.0.0.1", gw.smtp), 30) as s:
            s.recv(500)
            s.sendall(b"EHLO client.example.net\r\n")
            s.recv(2000)
            s.sendall(b"STARTTLS\r\n")
            self.assertEqual(s.recv(500)[:3], b"220")
            s.sendall(injected)  # where a handshake is due: the end
            s.settimeout(30)
            rest = b""
            while chunk := s.recv(500):
                rest += chunk
            self.assertNotIn(b"250", rest)
        self.assertNotIn("injected@", gw.log())


if __name__ == "__main__":
    unittest.main()

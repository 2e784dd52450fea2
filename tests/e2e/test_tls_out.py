"""TLS towards next hops: sessions that are resumed and those that must not be, and how it failed."""
import os
import re
import socketserver
import ssl
import threading
import unittest.mock

from harness import GatewayTest, make_certificate, message, wait_for


class TlsOut(GatewayTest):
    def inner(self, names="DNS:localhost", **changes):
        """A next hop with a certificate for these names, which takes one message a session."""
        self.up = self.upstream()
        gw = self.gateway(self.up, start=False, domains="example.test, example.org, example.com",
                          limits="messages = 1  connections-per-ip = 1000", workers=1, routes="""
            route "*" { to = { "127.0.0.1:%d" }  recipients = any }""" % self.up.port, **changes)
        make_certificate(gw.dir, "", names)
        return gw.start()

    def outer(self, port, ca=None, env=None, **policies):
        """A gateway with a route for each domain, by its TLS policy."""
        env = {**(env or {}), **({"SSL_CERT_FILE": ca} if ca else {})}
        gw = self.gateway(start=False, networks="127.0.0.0/8", routes="\n".join(
            'route %s { to = { "localhost:%d" }  tls = %s  recipients = any }'
            % (domain.replace("_", "."), port, policy)
            for domain, policy in {"example_test": "off", **policies}.items()))
        with unittest.mock.patch.dict(os.environ, env):
            gw.start()
        return gw

    def host(self, context):
        host = Host(context)
        self.addCleanup(host.stop)
        return host

    def send(self, gw, rcpt):
        self.assertEqual(gw.send(message("to " + rcpt), "ann@example.test", [rcpt])[0], 250)

    def tls_of(self, gw, rcpt):
        """What the log says of the TLS by which a message to rcpt left."""
        self.send(gw, rcpt)
        line = gw.wait_log('event=delivery.sent .*rcpt="%s"' % re.escape(rcpt))
        return re.search(' tls="([^"]*)"', line)[1]

    def resumes(self, gw, version, before_next=lambda: None):
        first = self.tls_of(gw, "one@example.com")
        self.assertRegex(first, r"^%s \S+, verified$" % version)
        for name in ("two", "three"):
            before_next()
            self.assertEqual(self.tls_of(gw, name + "@example.com"), first + ", resumed")

    def test_a_session_is_resumed(self):
        inner = self.inner()
        outer = self.outer(inner.smtp, inner.dir + "/cert.pem", example_com="verify")
        self.resumes(outer, "TLSv1.3")
        outer.wait_trace(("--to", "three@example.com"), "three@example.com")
        name = outer.ctl_json("trace", "--to", "three@example.com")[0]["id"]
        outer.wait_trace((name,), "tls TLSv1.3 .*, verified, resumed")

    def test_a_session_of_tls_1_2_is_resumed_too(self):
        make_certificate(self.folder, "", "DNS:localhost")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder + "/cert.pem", self.folder + "/key.pem")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        host = self.host(context)
        outer = self.outer(host.port, self.folder + "/cert.pem", example_com="verify")
        self.resumes(outer, "TLSv1.2", host.drop_all)

    def test_no_session_crosses_from_one_policy_to_another(self):
        inner = self.inner()        # nobody vouches for its certificate
        outer = self.outer(inner.smtp, example_com="required", example_org="verify")
        self.assertNotIn("resumed", self.tls_of(outer, "one@example.com"))
        self.assertIn(", resumed", self.tls_of(outer, "two@example.com"))
        self.send(outer, "three@example.org")
        line = outer.wait_log('event=delivery.deferred .*rcpt="three@example.org"')
        self.assertIn("self-signed certificate (of /CN=localhost)", line)
        self.assertNotIn("three@example.org", self.up.paths())

    def test_a_certificate_for_another_name_is_explained(self):
        inner = self.inner("DNS:mail.example.net,DNS:mx.example.net")
        outer = self.outer(inner.smtp, inner.dir + "/cert.pem", example_com="verify")
        self.send(outer, "one@example.com")
        why = r"(?i)TLS handshake: hostname mismatch \(it is for mail.example.net, mx.example.net\)"
        self.assertRegex(outer.wait_log("event=delivery.deferred"), why)
        name = wait_for(lambda: outer.ctl_json("queue", "list"), "the message in the queue")[0]["id"]
        show = outer.ctl("queue", "show", name).stdout
        self.assertRegex(show, "why .*" + why[4:])
        self.assertRegex(show, r"\(TLS failed: " + why[4:])
        outer.wait_trace((name,), why)

    def test_broken_tls_is_gone_without_only_where_that_is_allowed(self):
        host = self.host(None)
        outer = self.outer(host.port, example_com="opportunistic", example_org="required")
        self.assertRegex(self.tls_of(outer, "one@example.com"), "^none: TLS handshake: ")
        handshakes = host.handshakes
        host.drop_all()
        self.assertRegex(self.tls_of(outer, "two@example.com"), "^none: (it failed before: )?TLS handshake: ")
        self.assertEqual(host.handshakes, handshakes)   # what just failed is not tried each time
        self.send(outer, "three@example.org")
        self.assertRegex(outer.wait_log('event=delivery.deferred .*rcpt="three@example.org"'),
                         "TLS handshake: ")
        self.assertEqual(host.taken, ["one@example.com", "two@example.com"])


class Host(socketserver.ThreadingTCPServer):
    """Takes mail, with TLS of this context or without; context None: after STARTTLS comes what is no TLS."""
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, context):
        super().__init__(("127.0.0.1", 0), HostSession)
        self.context = context
        self.port = self.server_address[1]
        self.taken, self.handshakes, self.open = [], 0, set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def drop_all(self):
        for session in list(self.open):
            session.connection.shutdown(2)

    def stop(self):
        self.shutdown()
        self.server_close()


class HostSession(socketserver.StreamRequestHandler):
    def handle(self):
        self.server.open.add(self)
        try:
            self.talk()
        except OSError:
            pass
        self.server.open.discard(self)

    def talk(self):
        self.lines = self.rfile
        self.say("220 host")
        while self.answer(self.lines.readline().decode("latin-1").rstrip("\r\n")):
            pass

    def say(self, text):
        self.connection.sendall(text.encode() + b"\r\n")

    def answer(self, line):
        """To a command; false at the end."""
        verb = line[:4].upper()
        if verb == "EHLO":
            self.say("250 ok" if isinstance(self.connection, ssl.SSLSocket) else "250-host\r\n250 STARTTLS")
        elif verb == "STAR":
            self.server.handshakes += 1
            self.say("220 go")
            if self.server.context is None:
                self.connection.recv(10)
                self.say("this is no TLS, and never will be")
                return False
            self.connection = self.server.context.wrap_socket(self.connection, server_side=True)
            self.lines = self.connection.makefile("rb")
        elif verb == "RCPT":
            self.rcpt = re.search("<(.*)>", line)[1]
            self.say("250 2.1.5 ok")
        elif verb == "DATA":
            self.say("354 go")
            while self.lines.readline() not in (b".\r\n", b""):
                pass
            self.server.taken.append(self.rcpt)
            self.say("250 2.0.0 taken")
        elif line != "":
            self.say("221 bye" if verb == "QUIT" else "250 ok")
        return line != "" and verb != "QUIT"

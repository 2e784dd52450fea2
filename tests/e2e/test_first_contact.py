"""First contact: who talks before the greeting, who waits for it, DNS lists, HELO, reverse DNS."""
import re
import smtplib
import socket
import threading
import time

from harness import Chat, GatewayTest, free_port, message, wait_for

REVERSE = "127.in-addr.arpa"


class Greeting(GatewayTest):
    def greeting(self, gw, early=b""):
        """(what the server said first, after how long)."""
        start = time.monotonic()
        with socket.create_connection(("127.0.0.1", gw.smtp), 30) as s:
            s.sendall(early)
            said = s.recv(500).decode()
            return said, time.monotonic() - start

    def test_the_suspicious_wait_once_and_who_does_not_is_refused(self):
        dns = self.nsd({REVERSE: "2.0.0 PTR somebody.test.\n"})  # 127.0.0.1 has no name
        up = self.upstream()
        gw = self.gateway(up, dns=dns.server, workers=2, filters="filter pregreet { suspect = { "
                          "no-reverse-dns }  delay = 5s }")
        said, took = self.greeting(gw, b"EHLO in.a.hurry.test\r\n")
        self.assertRegex(said, r"^554 5\.5\.1 .*before you were greeted")
        self.assertLess(took, 4.9)  # no need to wait for more
        line = gw.wait_log("event=message.rejected")
        self.assertIn("check=pregreet", line)
        gw.wait_trace(("--ip", "127.0.0.1"), "before you were greeted")
        said, took = self.greeting(gw)
        self.assertRegex(said, "^220 ")
        self.assertGreater(took, 4.9)
        self.crowd(gw)
        for _ in range(8):  # any worker
            said, took = self.greeting(gw)
            self.assertRegex(said, "^220 ")
            self.assertLess(took, 4.9)
        self.assertEqual(gw.send(message("patient"))[0], 250)
        up.find("patient")
        gw.stop()  # and after a restart
        gw.start()
        self.assertLess(self.greeting(gw)[1], 4.9)

    def test_a_proxy_does_not_pass_for_its_clients(self):
        """XCLIENT: that the proxy waited for its greeting is not remembered of who it speaks for."""
        gw = self.gateway(self.upstream(), workers=1, dns=self.nsd({REVERSE: ""}).server,
                          filters="filter pregreet { suspect = { all }  delay = 2s }", extra="""
            listener proxied { address = { "127.0.0.1:%d" }  xclient = { 127.0.0.0/8 } }""" % (
                port := free_port()))
        with Chat(port) as c:
            self.assertRegex(c.reply(), "^220 ")
            c.say("EHLO proxy").reply()
            self.assertRegex(c.say("XCLIENT ADDR=127.7.7.7").reply(), "^220 ")
        start = time.monotonic()
        with socket.create_connection(("127.0.0.1", gw.smtp), 30, ("127.7.7.7", 0)) as s:
            self.assertRegex(s.recv(500).decode(), "^220 ")
        self.assertGreater(time.monotonic() - start, 1.9)

    def test_a_client_that_hangs_up_while_it_waits_leaves_nothing_behind(self):
        dns = self.nsd({REVERSE: ""})
        gw = self.gateway(self.upstream(), dns=dns.server, workers=1,
                          filters="filter pregreet { suspect = { all }  delay = 3s }")
        for _ in range(5):
            socket.create_connection(("127.0.0.1", gw.smtp), 30).close()
        kept = socket.create_connection(("127.0.0.1", gw.smtp), 30)
        gw.wait_log("event=connect .*listener=mx", 6)
        self.assertEqual(gw.stop(), 0)  # in the middle of it
        kept.close()


class Scores(GatewayTest):
    def findings(self, gw, helo):
        subject = "findings %d" % time.time_ns()
        with smtplib.SMTP("127.0.0.1", gw.smtp, helo, timeout=30) as s:
            s.sendmail("bob@sender.test", ["ann@example.test"], message(subject))
        head = re.sub(r"\r\n[ \t]+", " ", self.up.find(subject)[0].decode())
        found = re.search(r"X-Relayd-Findings: (.*)\r\n", head)[1].strip()
        return dict(pair.split("=") for pair in found.split(", ") if "=" in pair)

    def setUp(self):
        super().setUp()
        self.up = self.upstream()

    def test_lists_reverse_dns_and_helo_add_up(self):
        dns = self.nsd({REVERSE: "1.0.0 PTR client.sender.test.\n",
                        "sender.test": "client A 127.0.0.9\nmail A 127.0.0.1\nonly-mx MX 5 mail\n",
                        "bl.test": "1.0.0.127 A 127.0.0.4\n1.0.0.127 A 127.0.0.11\n",
                        "wl.test": "1.0.0.127 A 127.0.5.2\n"})
        gw = self.gateway(self.up, dns=dns.server, filters="""
            filter dnsbl { zones = { "bl.test=127.0.0.[2..5]=3.0", "bl.test=127.0.0.[6;7]=9.0",
                                     "wl.test=127.0.[0..9].[1..3]=-2.5" } }
            filter rdns { unconfirmed = 0.7 }
            filter helo { own = { example.test } }""")
        always = {"DNSBL:bl.test": "3.0", "DNSWL:wl.test": "-2.5", "RDNS_UNCONFIRMED": "0.7"}
        for helo, more in (("mail.sender.test", {}),
                           ("only-mx.sender.test", {}),
                           ("nobody.sender.test", {"HELO_UNRESOLVABLE": "1.5"}),
                           ("localhost", {"HELO_NOT_QUALIFIED": "1.0"}),
                           ("example.test", {"HELO_OWN_NAME": "5.0"}),
                           ("mx.example.test", {"HELO_OWN_NAME": "5.0"}),
                           ("[127.0.0.1]", {"HELO_LITERAL": "0.5"}),
                           ("[127.0.0.2]", {"HELO_BAD_LITERAL": "3.0"})):
            with self.subTest(helo=helo):
                self.assertEqual(self.findings(gw, helo), {**always, **more})

    def test_who_may_relay_is_not_judged_at_the_door(self):
        dns = self.nsd({REVERSE: "", "bl.test": "1.0.0.127 A 127.0.0.4\n"})
        gw = self.gateway(self.up, dns=dns.server, networks="127.0.0.0/8", filters="""
            filter dnsbl { zones = { "bl.test=50.0" } }
            filter pregreet { suspect = { all }  delay = 20s }""")
        start = time.monotonic()
        self.assertEqual(gw.send(message("trusted"))[0], 250)
        self.assertLess(time.monotonic() - start, 15)
        self.up.find("trusted")


class Listener(threading.Thread):
    """Between relayd and its DNS server: hands everything on, and notes the names that were asked for."""

    def __init__(self, server_port):
        super().__init__(daemon=True)
        self.port, self.to, self.asked = free_port(socket.SOCK_DGRAM), server_port, []
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", self.port))
        self.clients = {}
        self.start()

    @staticmethod
    def name_in(question):
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1:at + 1 + question[at]].decode())
            at += 1 + question[at]
        return ".".join(labels)

    def run(self):
        while True:
            try:
                packet, peer = self.sock.recvfrom(4096)
            except OSError:
                return
            if peer[1] == self.to:
                self.sock.sendto(packet, self.clients[packet[:2]])
            else:
                self.asked.append(self.name_in(packet))
                self.clients[packet[:2]] = peer
                self.sock.sendto(packet, ("127.0.0.1", self.to))


class Remembered(GatewayTest):
    ZONES = {REVERSE: "1.0.0 PTR client.sender.test.\n", "sender.test": "client A 127.0.0.1\n",
             "example.net": "client A 127.0.0.9\n", "bl.test": "", "wl.test": "1.0.0.127 A 127.0.5.2\n"}

    def start_with(self, zones, remember):
        self.dns = self.nsd(zones)
        self.listener = Listener(self.dns.port)
        self.addCleanup(self.listener.sock.close)
        self.up = self.upstream()
        return self.gateway(self.up, workers=2, dns='"127.0.0.1:%d"' % self.listener.port, filters="""
            filter dnsbl { zones = { "bl.test=4.0", "wl.test=127.0.[0..9].[1..3]=-2.5" }  remember = %s }
            filter rdns { none = 1.5  remember = %s }
            filter helo { remember = %s }""" % (remember, remember, remember))

    def findings(self, gw, subject):
        """Of a message by a new connection, and the names that the DNS was asked for since the start."""
        self.assertEqual(gw.send(message(subject))[0], 250)
        head = re.sub(r"\r\n[ \t]+", " ", self.up.find("Subject: " + subject)[0].decode())
        return re.search(r"X-Relayd-Findings: (.*)\r\n", head)[1].strip(), list(self.listener.asked)

    def again(self, gw):
        """Nothing is left in a worker's memory."""
        gw.stop()
        del self.listener.asked[:]
        gw.start()

    def test_a_known_good_client_waits_for_no_dns(self):
        gw = self.start_with(self.ZONES, "1h")
        with Chat(gw.smtp) as c:        # one connection, no message: it passed all the same
            c.reply()
            self.assertRegex(c.say("EHLO client.example.net").reply(), "^250")
        asked = {"1.0.0.127.bl.test", "1.0.0.127.wl.test", "1.0.0.127.in-addr.arpa",
                 "client.sender.test", "client.example.net"}
        self.assertEqual(set(self.listener.asked), asked)
        self.again(gw)
        findings, asked = self.findings(gw, "second")
        self.assertEqual((findings, asked), ("DNSWL:wl.test=-2.5", []))
        self.dns.stop()                 # so there is nobody to wait for
        self.again(gw)
        findings, asked = self.findings(gw, "third")
        self.assertEqual((findings, asked), ("DNSWL:wl.test=-2.5", []))

    def test_in_time_it_is_asked_again(self):
        gw = self.start_with(self.ZONES, "2s")
        self.findings(gw, "first")
        start = time.monotonic()
        self.again(gw)

        def asked():
            with Chat(gw.smtp) as c:
                c.reply()
            return "1.0.0.127.bl.test" in self.listener.asked
        wait_for(asked, "the lists to be asked again")
        self.assertGreater(time.monotonic() - start, 1)

    def test_who_did_not_pass_is_asked_for_each_time(self):
        gw = self.start_with({**self.ZONES, REVERSE: "", "bl.test": "1.0.0.127 A 127.0.0.2\n"}, "1h")
        for subject in ("first", "second"):
            findings, asked = self.findings(gw, subject)
            self.assertEqual(findings, "DNSBL:bl.test=4.0, DNSWL:wl.test=-2.5, RDNS_NONE=1.5")
            self.assertIn("1.0.0.127.bl.test", asked)
            self.assertIn("1.0.0.127.in-addr.arpa", asked)
            self.again(gw)

"""First contact: who talks before the greeting, who waits for it, DNS lists, HELO, reverse DNS."""
import re
import smtplib
import socket
import time

from harness import GatewayTest, message

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
        self.assertIn("before you were greeted", gw.ctl("trace", "--ip", "127.0.0.1").stdout)
        said, took = self.greeting(gw)
        self.assertRegex(said, "^220 ")
        self.assertGreater(took, 4.9)
        for _ in range(8):  # any worker
            said, took = self.greeting(gw)
            self.assertRegex(said, "^220 ")
            self.assertLess(took, 4.9)
        self.assertEqual(gw.send(message("patient"))[0], 250)
        up.find("patient")
        gw.stop()  # and after a restart
        gw.start()
        self.assertLess(self.greeting(gw)[1], 4.9)

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

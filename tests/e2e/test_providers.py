"""Many domains at one provider, found by MX: connections and a rate that they share."""
import os
import re
import socketserver
import subprocess
import threading
import time
import unittest

from harness import BUILD, GatewayTest, in_thread, listens, message, wait_for

DOMAINS = 10


class Host(socketserver.ThreadingTCPServer):
    """A mail server on port 25 of an address: takes all mail, each after pause_s, and keeps count."""
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 200

    def __init__(self, address, pause_s=0.0):
        super().__init__((address, 25), HostSession)
        self.pause_s = pause_s
        self.lock = threading.Lock()
        self.open = self.peak = self.connections = 0
        self.got = []               # (time, domain of the recipient)
        in_thread(self.serve_forever)

    def stop(self):
        self.shutdown()
        self.server_close()


class HostSession(socketserver.StreamRequestHandler):
    def handle(self):
        host = self.server
        with host.lock:
            host.open += 1
            host.connections += 1
            host.peak = max(host.peak, host.open)
        try:
            self.talk(host)
        except OSError:
            self.gone(host)

    def gone(self, host):
        with host.lock:
            host.open -= 1

    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")

    def talk(self, host):
        domain, body = None, False
        self.say("220 mx.big.example.com")
        for line in self.rfile:
            if body:
                body = line != b".\r\n"
                if not body:
                    time.sleep(host.pause_s)
                    with host.lock:
                        host.got.append((time.monotonic(), domain))
                    self.say("250 2.0.0 taken")
            elif line.upper().startswith(b"QUIT"):
                self.gone(host)     # before the client hears of it, and opens another one
                self.say("221 2.0.0 bye")
                return
            elif line.upper().startswith(b"DATA"):
                body = True
                self.say("354 go on")
            else:
                found = re.match(rb"RCPT TO:<[^@]*@([^>]*)>", line, re.I)
                domain = found[1].decode() if found else domain
                self.say("250 2.0.0 ok")
        self.gone(host)


class Providers(GatewayTest):
    def setUp(self):
        super().setUp()
        # MX hosts have addresses but no ports: their port is 25, which only root may bind here.
        if os.getuid() != 0 or listens(25):
            raise unittest.SkipTest("needs port 25 of loopback addresses")
        own_host = "".join("d%d MX 10 d%d-example-com.mail.big\n" % (i, i) for i in range(DOMAINS))
        one_host = "".join("e%d MX 10 mx.big\n" % i for i in range(DOMAINS))
        hosts = """*.mail.big A 127.0.0.41
mx.big A 127.0.0.41
small MX 10 mx.small
mx.small A 127.0.0.42
"""
        self.dns = self.nsd({"example.com": own_host + one_host + hosts})

    def host(self, address, pause_s=0.0):
        host = Host(address, pause_s)
        self.addCleanup(host.stop)
        return host

    def open_gateway(self, providers, route=""):
        self.route = route
        return self.gateway(networks="127.0.0.0/8", dns=self.dns.server,
                            queue="retry = { 1h }  reserve = 1M", routes=self.routes(providers))

    def routes(self, providers):
        return """route example.test { to = { "127.0.0.1:9" }  recipients = any }
                  route "*" { to = { mx } %s }
                  %s""" % (self.route, providers)

    def send(self, gw, letter, times, to=range(DOMAINS)):
        """So many messages to each of the domains; each of them is a transaction of its own."""
        with gw.smtp_client() as client:
            for n in range(times):
                client.sendmail("ann@example.test", ["eve@%s%d.example.com" % (letter, i) for i in to],
                                message("number %d" % n))

    def test_a_provider_bounds_connections_and_rate_of_all_its_domains(self):
        big, small = self.host("127.0.0.41"), self.host("127.0.0.42")
        gw = self.open_gateway('provider big { hosts = { "*.mail.big.example.com" }  connections = 3'
                               '  rate = "40/1s" }')
        self.send(gw, "d", 16)
        begun = time.monotonic()
        for _ in range(10):
            gw.send(message("small"), "ann@example.test", ["eve@small.example.com"])
        wait_for(lambda: len(small.got) == 10, "the mail to another provider")
        wait_for(lambda: len(big.got) == 16 * DOMAINS, "all mail")
        self.assertLessEqual(big.peak, 3)
        first, last = big.got[0][0], big.got[-1][0]
        self.assertGreater(last - first, (16 * DOMAINS - 40) / 40 - 0.2)    # a second's worth at once
        self.assertLess(small.got[-1][0], last)
        self.assertLess(big.connections, 5 * DOMAINS)
        print("\n%d in %.1f s over %d connections, at most %d; another provider's last after %.2f s"
              % (len(big.got), last - first, big.connections, big.peak, small.got[-1][0] - begun),
              flush=True)
        # All had their turn long before the last of anybody's.
        seen = [domain for _, domain in big.got]
        self.assertLess(max(seen.index("d%d.example.com" % i) for i in range(DOMAINS)), 145)

    def test_without_one_a_host_has_as_many_connections_as_one_domain(self):
        big = self.host("127.0.0.41", 0.1)
        gw = self.open_gateway("", "connections = 4")
        self.send(gw, "e", 12)
        wait_for(lambda: len(big.got) == 12 * DOMAINS, "all mail")
        self.assertEqual(big.peak, 4)
        print("\n%d over %d connections, at most %d" % (len(big.got), big.connections, big.peak),
              flush=True)
        # Connections go from domain to domain.
        self.assertLessEqual(big.connections, 8)

    def test_why_mail_waits_is_shown_and_a_reload_lets_it_go(self):
        big = self.host("127.0.0.41")
        gw = self.open_gateway('provider big { hosts = { "*.mail.big.example.com" }  rate = "1/1h" }')
        self.send(gw, "d", 1)
        wait_for(lambda: len(big.got) == 1, "the one")
        rows = wait_for(lambda: [r for r in gw.ctl_json("queue", "list") if "rate of" in r["why"]],
                        "a reason")
        self.assertIn("which waits for the rate of provider big", rows[0]["why"])
        self.assertIn("waits for the rate of provider big", gw.ctl("queue", "show", rows[0]["id"]).stdout)
        self.assertRegex(gw.ctl("top", "--once").stdout,
                         r"provider big: \d of 20 connections, 1 a minute; 9 next hops wait for its rate")
        hops = [r for r in gw.ctl_json("top") if "nexthop" in r]
        self.assertIn("the rate of provider big", [r.get("waits_for") for r in hops])
        gw.write_config(routes=self.routes('provider big { hosts = { "*.mail.big.*" } }'))
        self.assertRegex(gw.ctl("reload", check=False).stderr,
                         r'relayd\.conf:\d+: hosts = \*\.mail\.big\.\*: expected names')
        checked = subprocess.run([BUILD + "/relayd", "-n", "-c", gw.config], capture_output=True,
                                 text=True, timeout=60)
        self.assertEqual(checked.returncode, 1)
        self.assertRegex(checked.stderr, r'relayd\.conf:\d+: hosts = \*\.mail\.big\.\*: expected names')
        gw.write_config(routes=self.routes(""))
        gw.ctl("reload")
        wait_for(lambda: len(big.got) == DOMAINS, "the others")

    def test_a_provider_may_be_named_by_domains(self):
        big = self.host("127.0.0.41")
        gw = self.open_gateway('provider both { domains = { d0.example.com, e1.example.com }'
                               '  rate = "1/1h" }')
        self.send(gw, "d", 1, to=[0, 1])
        wait_for(lambda: len(big.got) == 2, "two at two providers")
        self.send(gw, "e", 1, to=[1, 2])
        wait_for(lambda: len(big.got) == 3, "one at another")
        self.assertEqual(big.got[2][1], "e2.example.com")
        wait_for(lambda: [r for r in gw.ctl_json("queue", "list") if "provider both" in r["why"]],
                 "the one that waits")


if __name__ == "__main__":
    unittest.main()

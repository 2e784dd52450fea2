"""Where mail goes when hosts fail: fallbacks, what they are not for, and the way back."""
import os
import re
import socket
import socketserver
import subprocess
import threading
import unittest

from harness import BUILD, GatewayTest, Nsd, free_port, listens, message, wait_for

FROM_US = "ann@example.test"


class StandIn(socketserver.ThreadingTCPServer):
    """A host that takes mail but for local parts that begin with "later"."""
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address=("127.0.0.1", 0)):
        super().__init__(address, StandInSession)
        self.port = self.server_address[1]
        self.taken = []         # forward-paths
        self.clients = []       # addresses of those who sent them
        self.hangs_up = False   # after each message
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self):
        self.shutdown()
        self.server_close()


class StandInSession(socketserver.StreamRequestHandler):
    def handle(self):
        rcpts, body = [], False
        self.say("220 stand-in")
        for line in self.rfile:
            line = line.decode().rstrip("\r\n")
            if body:
                if line == ".":
                    self.server.clients.append(self.client_address[0])
                    self.server.taken += rcpts
                    rcpts, body = [], False
                    self.say("250 2.0.0 taken")
                    if self.server.hangs_up:
                        return
            elif line.startswith("RCPT TO:<later"):
                self.say("450 4.2.1 later")
            elif line.startswith("RCPT"):
                rcpts.append(re.search("<(.*)>", line)[1])
                self.say("250 2.1.5 ok")
            elif line.startswith("DATA"):
                body = True
                self.say("354 go")
            elif line.startswith("QUIT"):
                self.say("221 bye")
                return
            else:
                self.say("250 ok")

    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")


class FailoverTest(GatewayTest):
    def stand_in(self, *address):
        host = StandIn(*address)
        self.addCleanup(host.stop)
        return host

    def send(self, gw, *rcpts):
        self.assertEqual(gw.send(message("failover"), FROM_US, rcpts)[0], 250)


class Fallback(FailoverTest):
    def start_with(self, to, fallback, **changes):
        return self.gateway(networks="127.0.0.0/8", routes="""
            route example.test { to = { "127.0.0.1:1" }  recipients = any }
            route "*" { to = { %s }  fallback = { %s } }""" % (to, fallback), **changes)

    def test_it_stands_in_while_the_others_are_down_and_no_longer(self):
        main = self.upstream()
        stand_in = self.stand_in()
        # priority=1 of the list of fallbacks is behind all of `to`.
        gw = self.start_with('"127.0.0.1:%d priority=9"' % main.port,
                             '"127.0.0.1:%d", "127.0.0.1:%d priority=1"' % (free_port(), stand_in.port))
        self.send(gw, "one@example.com")
        main.wait_paths(["one@example.com"])
        self.assertEqual(stand_in.taken, [])
        main.stop()
        self.send(gw, "two@example.com")
        self.send(gw, "later@example.com")
        wait_for(lambda: stand_in.taken == ["two@example.com"], "the message at the stand-in")
        line = gw.wait_log('event=delivery.deferred .*rcpt="later@example.com"')
        self.assertIn('nexthop="127.0.0.1:%d"' % stand_in.port, line)
        main.start()
        # Whatever was deferred goes where it belongs, and so does all that follows.
        wait_for(lambda: gw.ctl("queue", "flush") and len(main.paths()) == 2, "mail at the main host")
        self.send(gw, "three@example.com")
        main.wait_paths(["one@example.com", "later@example.com", "three@example.com"])
        self.assertEqual(stand_in.taken, ["two@example.com"])

    def test_a_fallback_is_a_host(self):
        gw = self.gateway(start=False, routes='route example.test { to = { "127.0.0.1:25" }  '
                          'fallback = { mx } }')
        done = subprocess.run([BUILD + "/relayd", "-c", gw.config, "-n"], capture_output=True,
                              text=True, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn('fallback: "mx" is no host', done.stderr)

    @unittest.skipUnless(os.getuid() == 0 and not listens(25), "needs port 25 of loopback addresses")
    def test_it_is_for_exchanges_that_are_down_and_not_for_domains_that_take_no_mail(self):
        dns = self.nsd({"example.com": """\
            @       MX 10 main
            main    A 127.0.0.41
            nomail  MX 0 .
            """})
        stand_in = self.stand_in()
        up = self.upstream()
        gw = self.gateway(networks="127.0.0.0/8", dns=dns.server, routes="""
            route example.test { to = { "127.0.0.1:%d" }  recipients = any }
            route "*" { to = { mx }  fallback = { "127.0.0.1:%d" } }""" % (up.port, stand_in.port))
        self.send(gw, "eve@example.com")
        wait_for(lambda: stand_in.taken == ["eve@example.com"], "the message at the stand-in")
        for rcpt, status in (("eve@nomail.example.com", r"5\.1\.10"), ("eve@none.example.com", r"5\.1\.2")):
            self.send(gw, rcpt)
            report = up.find("Final-Recipient: rfc822;" + rcpt)[0].decode()
            self.assertRegex(report, "Status: " + status)
        self.assertEqual(stand_in.taken, ["eve@example.com"])


class Race(FailoverTest):
    def silent(self, address, port):
        """A port that answers nobody: its queue is full."""
        listener = socket.create_server((address, port), family=socket.AF_INET6, backlog=0)
        self.addCleanup(listener.close)
        for _ in range(2):
            s = socket.socket(socket.AF_INET6)
            self.addCleanup(s.close)
            s.setblocking(False)
            s.connect_ex((address, port))

    def nexthop_of(self, gw, rcpt):
        self.send(gw, rcpt)
        line = gw.wait_log('event=delivery.sent .*rcpt="%s"' % rcpt)
        return re.search('nexthop="([^"]*)"', line)[1], int(re.search(r"delay_ms=(\d+)", line)[1])

    def test_the_address_that_answers_is_used_and_ipv6_first(self):
        v4, v6 = self.upstream(), StandInV6()
        self.addCleanup(v6.stop)
        self.silent("::1", v4.port)
        dns = self.nsd({"corp.test": "dual AAAA ::1\ndual A 127.0.0.1\n"})
        gw = self.gateway(networks="127.0.0.0/8", dns=dns.server, routes="""
            route example.test { to = { "127.0.0.1:1" }  recipients = any }
            route example.com { to = { "dual.corp.test:%d" } }
            route example.org { to = { "dual.corp.test:%d" } }""" % (v4.port, v6.port))
        name, delay = self.nexthop_of(gw, "one@example.com")
        self.assertEqual(name, "dual.corp.test[127.0.0.1:%d]" % v4.port)
        self.assertGreaterEqual(delay, 240)     # its head start
        self.assertLess(delay, 25000)           # and not the time that a connection may take
        self.assertEqual(self.nexthop_of(gw, "two@example.com")[0], name)
        self.assertEqual(self.nexthop_of(gw, "three@example.org")[0], "dual.corp.test[[::1]:%d]" % v6.port)
        self.assertEqual(v6.taken, ["three@example.org"])


class StandInV6(StandIn):
    address_family = socket.AF_INET6

    def __init__(self, port=0):
        super().__init__(("::1", port))


@unittest.skipUnless(os.getuid() == 0 and not listens(25), "needs port 25 of loopback addresses")
class MxRules(FailoverTest):
    """RFC 5321 section 5.1, with a real name server."""

    def start_with(self, zone, hosts=(("a", 51), ("b", 52)), second_dns="", **changes):
        self.hosts = {name: self.stand_in(("127.0.0.%d" % n, 25)) for name, n in hosts}
        dns = self.nsd({"example.com": "a A 127.0.0.51\nb A 127.0.0.52\n" + zone})
        self.up = self.upstream()
        return self.gateway(networks="127.0.0.0/8", dns=dns.server + second_dns, routes="""
            route example.test { to = { "127.0.0.1:%d" }  recipients = any }
            route "*" { to = { mx } }""" % self.up.port, **changes)

    def wait_at(self, name, *rcpts):
        wait_for(lambda: set(rcpts) <= set(self.hosts[name].taken), "%r at %s" % (rcpts, name))

    def test_equal_exchanges_share(self):
        names = ["d%d.example.com" % n for n in range(16)]
        gw = self.start_with("".join("d%d MX 10 a\nd%d MX 10 b\n" % (n, n) for n in range(16)))
        for name in names:
            self.send(gw, "eve@" + name)
        taken = lambda: self.hosts["a"].taken + self.hosts["b"].taken
        wait_for(lambda: len(taken()) == 16, "all messages")
        self.assertEqual(sorted(taken()), sorted("eve@" + name for name in names))
        self.assertTrue(self.hosts["a"].taken and self.hosts["b"].taken)

    def test_aliases_literals_and_ourselves(self):
        v6 = StandInV6(25)
        self.addCleanup(v6.stop)
        gw = self.start_with("""
real      MX 10 a
alias     CNAME real
exchange  MX 10 cname
cname     CNAME b
loop      MX 10 mx.example.test.
loop      MX 20 a
backup    MX 10 b
backup    MX 20 mx.example.test.
backup    MX 30 a
""")
        self.send(gw, "one@alias.example.com")
        self.wait_at("a", "one@alias.example.com")
        self.send(gw, "two@exchange.example.com", "three@backup.example.com", "four@[127.0.0.52]")
        self.wait_at("b", "two@exchange.example.com", "three@backup.example.com", "four@[127.0.0.52]")
        self.send(gw, "five@[IPv6:::1]")
        wait_for(lambda: v6.taken == ["five@[IPv6:::1]"], "the message by an IPv6 literal")
        self.send(gw, "six@loop.example.com")
        report = self.up.find("Final-Recipient: rfc822;six@loop.example.com")[0].decode()
        self.assertRegex(report, r"Status: 5\.4\.6")
        self.assertEqual(self.hosts["a"].taken, ["one@alias.example.com"])

    def test_aliases_that_leave_their_zone_are_followed(self):
        """Two servers that do not recurse have a zone each, and refuse what belongs to the other."""
        other = Nsd(self.folder + "/other", {"example.org": """
            mail     MX 10 exchange
            exchange CNAME b.example.com.
            round    CNAME round.example.com.
            """})
        self.addCleanup(other.stop)
        gw = self.start_with("there CNAME mail.example.org.\nround CNAME round.example.org.\n",
                             second_dns=", " + other.server)
        self.send(gw, "one@there.example.com")
        self.wait_at("b", "one@there.example.com")
        self.send(gw, "two@round.example.com")
        self.assertIn("two@round.example.com", gw.wait_log("event=delivery.deferred"))

    def test_an_exchange_at_an_address_of_ours_is_ourselves(self):
        gw = self.start_with("""
us      A 127.0.0.53
loop    MX 10 us
loop    MX 20 a
equal   MX 10 us
equal   MX 10 a
backup  MX 10 b
backup  MX 20 us
backup  MX 30 a
direct  A 127.0.0.53
""", extra='listener edge { address = { "127.0.0.53:25" } }')
        self.send(gw, "one@backup.example.com")
        self.wait_at("b", "one@backup.example.com")
        for rcpt in ("two@loop.example.com", "three@equal.example.com", "four@direct.example.com"):
            self.send(gw, rcpt)
            report = self.up.find("Final-Recipient: rfc822;" + rcpt)[0].decode()
            self.assertRegex(report, r"Status: 5\.4\.6")
        self.assertEqual(self.hosts["a"].taken, [])

    def test_any_address_that_leads_back_to_us_is_ourselves(self):
        """All of 127.0.0.0/8 is this host, 0.0.0.0 and :: are taken for it, and a mapped address for IPv4."""
        names = {"loopback": "A 127.9.9.9", "zero": "A 0.0.0.0", "none": "AAAA ::",
                 "mapped": "AAAA ::ffff:127.0.0.1"}
        gw = self.start_with("".join("%s MX 10 at-%s\nat-%s %s\n" % (name, name, name, address)
                                     for name, address in names.items()),
                             hosts=(), extra='listener edge { address = { "*:25" } }')
        for name in names:
            rcpt = "eve@%s.example.com" % name
            self.send(gw, rcpt)
            report = self.up.find("Final-Recipient: rfc822;" + rcpt)[0].decode()
            self.assertRegex(report, r"Status: 5\.4\.6")
            self.assertRegex(report, "best mail exchange of %s.example.com is this host" % name)
        for literal in ("[127.0.0.1]", "[0.0.0.0]", "[IPv6:::1]", "[IPv6:::ffff:127.0.0.2]"):
            self.send(gw, "eve@" + literal)
            report = self.up.find("Final-Recipient: rfc822;eve@" + literal)[0].decode()
            self.assertRegex(report, r"Status: 5\.1\.2")


class Sources(FailoverTest):
    def test_several_take_turns(self):
        host = self.stand_in()
        host.hangs_up = True
        gw = self.gateway(networks="127.0.0.0/8", routes="""
            route example.test { to = { "127.0.0.1:1" }  recipients = any }
            route "*" { to = { "127.0.0.1:%d" }
                        source = { 127.0.0.61, "2001:db8::1", 127.0.0.62, 127.0.0.63 } }""" % host.port)
        for n in range(6):
            self.send(gw, "eve%d@example.com" % n)
            wait_for(lambda: len(host.clients) == n + 1, "a message")
        self.assertEqual(host.clients, ["127.0.0.61", "127.0.0.62", "127.0.0.63"] * 2)

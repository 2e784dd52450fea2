"""Listeners: their options, unix sockets, the PROXY protocol, and their change without a refused connection."""
import contextlib
import imaplib
import json
import os
import re
import signal
import smtplib
import socket
import ssl
import struct
import subprocess
import threading
import time
import unittest
import unittest.mock

from harness import (BUILD, GTUBE, PATIENCE, ROOT, RULES, Chat, GatewayTest, free_port, in_thread,
                     message, tls_context, wait_for)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def proxy2(client="192.0.2.7", server="203.0.113.1", port=4711, extra=b"", command=0x21):
    body = (socket.inet_aton(client) + socket.inet_aton(server) + struct.pack(">HH", port, 25)
            + extra)
    return SIGNATURE + bytes([command, 0x11]) + struct.pack(">H", len(body)) + body


class UnixChat(Chat):
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(path)
        self.file = self.sock.makefile("rb")


class Load:
    """Threads that connect, send one message, and leave, again and again; what went wrong is kept."""

    def __init__(self, test, ports, threads=4):
        test.addCleanup(self.end)
        self.ports = ports
        self.faults, self.sent, self.ending = [], 0, False
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(threads)]
        for t in self.threads:
            t.start()

    def run(self, number):
        turn = 0
        while not self.ending:
            turn += 1
            ports = list(self.ports)
            port = ports[(number + turn) % len(ports)]
            try:
                with smtplib.SMTP("127.0.0.1", port, "load.example.net", timeout=PATIENCE) as s:
                    s.sendmail("load@example.net", ["ann@example.test"], message("load"))
                with self.lock:
                    self.sent += 1
            except (OSError, smtplib.SMTPException) as e:
                with self.lock:
                    self.faults.append("port %d: %r" % (port, e))
                self.ending = self.ending or len(self.faults) > 100

    def wait(self, more):
        """Until so many more have been sent from now."""
        aim = self.sent + more
        wait_for(lambda: self.sent >= aim or self.faults, "%d more messages" % more)

    def end(self):
        self.ending = True
        for t in self.threads:
            t.join(PATIENCE)
        return self.faults


class Options(GatewayTest):
    """What a listener may have of its own."""

    def test_each_has_its_banner_limits_filters_policy_and_tls(self):
        ports = {name: free_port() for name in ("strict", "plain", "named", "few")}
        path = self.folder + "/lmtp.sock"
        gw = self.gateway(self.upstream(), workers=1, filters=RULES, policies=(
            "policy inbound { reject = 10 }\npolicy soft { quarantine = 1.0  reject = 5000 }"), extra="""
            listener strict {{ address = {{ "127.0.0.1:{strict}", "[::1]:{strict}" }}  tls = required
              banner = "ESMTP no strangers"  message-size = 2K  recipients = 1 }}
            listener plain {{ address = {{ "127.0.0.1:{plain}", "unix:{path}" }}  filters = {{ }} }}
            listener named {{ address = {{ "127.0.0.1:{named}" }}  policy = soft }}
            listener few {{ address = {{ "127.0.0.1:{few}" }}  connections = 2  connections-per-ip = 1 }}
            """.format(path=path, **ports))
        with Chat(ports["strict"]) as c:
            self.assertEqual(c.reply(), "220 mx.example.test ESMTP no strangers")
            self.assertIn("250-SIZE 2048", c.say("EHLO x.example.net").reply())
            self.assertRegex(c.ask("MAIL FROM:<a@example.net>"), "^530 5.7.0 ")
        with smtplib.SMTP("::1", ports["strict"], timeout=PATIENCE) as s:
            s.starttls(context=tls_context())
            s.ehlo()
            self.assertEqual(s.mail("a@example.net")[0], 250)
            self.assertEqual(s.rcpt("ann@example.test")[0], 250)
            self.assertEqual(s.rcpt("bob@example.test")[0], 452)
        spam = message("spam", GTUBE)
        self.assertEqual(gw.send(spam)[0], 550)
        self.assertEqual(gw.send(spam, port=ports["plain"])[0], 250)  # no filter looks at it
        self.assertEqual(gw.send(spam, port=ports["named"])[0], 250)  # held
        wait_for(lambda: gw.ctl_json("quarantine", "list"), "what policy soft holds")
        with UnixChat(path) as c:
            self.assertRegex(c.reply(), "^220 ")
            self.assertRegex(c.say("EHLO local").reply(), "^250")
        with Chat(ports["few"]) as c:
            self.assertRegex(c.reply(), "^220 ")
            with Chat(ports["few"]) as d:
                self.assertRegex(d.reply(), "^421 ")
            with Chat(gw.smtp) as d:  # counted apart
                self.assertRegex(d.reply(), "^220 ")
        self.assertRegex(gw.wait_log("event=limit what=connections-per-ip"), "listener=few")


class Proxy(GatewayTest):
    def setUp(self):
        super().setUp()
        self.up = self.upstream()
        self.port, self.tls = free_port(), free_port()
        self.gw = self.gateway(self.up, workers=1, networks="198.51.100.0/24", extra="""
            listener front {{ address = {{ "127.0.0.1:{0}" }}  proxy = {{ 127.0.0.0/8 }}
              proxy-timeout = 1s  connections-per-ip = 1 }}
            listener fronttls {{ address = {{ "127.0.0.1:{1}" }}  tls = implicit
              proxy = {{ 127.0.0.1 }} }}
            """.format(self.port, self.tls))

    def metric(self, name):
        return sum(float(line.split()[-1]) for line in self.gw.ctl("metrics").stdout.splitlines()
                   if line.startswith("relayd_" + name + "{"))

    def transact(self, c, rcpt="ann@example.test"):
        self.assertRegex(c.reply(), "^220 ")
        self.assertRegex(c.say("EHLO x.example.net").reply(), "^250")
        self.assertRegex(c.ask("MAIL FROM:<a@example.net>"), "^250")
        return c.ask("RCPT TO:<%s>" % rcpt)

    def test_the_true_client_is_used_everywhere(self):
        for header, ip in ((proxy2(), "192.0.2.7"),
                           (b"PROXY TCP4 192.0.2.8 203.0.113.1 4711 25\r\n", "192.0.2.8"),
                           (b"PROXY TCP6 2001:db8::9 2001:db8::1 4711 25\r\n", "2001:db8::9"),
                           (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
                           (proxy2(command=0x20), "127.0.0.1")):
            with self.subTest(ip), Chat(self.port) as c:
                for byte in header[:5]:  # as slowly as it likes
                    c.say(bytes([byte]))
                c.say(header[5:])
                self.assertRegex(self.transact(c), "^250")
                c.ask("DATA")
                c.say("Subject: from %s" % ip).say("")
                self.assertRegex(c.ask("."), "^250")
            self.gw.wait_log(r'event=connect .* ip="?%s"? listener=front' % re.escape(ip))
            bytes_, _ = self.up.find("Subject: from %s" % ip)
            self.assertIn(b"[%s%s]" % (b"IPv6:" if ":" in ip else b"", ip.encode()), bytes_)
        self.assertRegex(self.gw.wait_log("event=connect .* ip=192.0.2.7"), "proxy=127.0.0.1")

    def test_networks_and_limits_are_those_of_the_client(self):
        with Chat(self.port) as c:
            c.say(proxy2("198.51.100.4"))
            self.assertRegex(self.transact(c, "far@example.com"), "^[245]50")
            with Chat(self.port) as d:
                d.say(proxy2("198.51.100.4"))
                self.assertRegex(d.reply(), "^421 ")  # one from each address
            with Chat(self.port) as d:
                d.say(proxy2("192.0.2.99"))
                self.assertRegex(self.transact(d, "far@example.com"), "^550 5.7.1")

    def test_a_missing_late_or_broken_header_is_refused(self):
        for sent, why in ((b"EHLO x\r\n", "no PROXY header"),
                          (b"PROXY TCP4 1.2.3.4\r\n", "an address is wrong"),
                          (SIGNATURE + b"\x21\x12\0\0", "the family or transport"),
                          (b"", "no PROXY header came"),
                          (b"PROXY TCP4", "did not come to its end")):
            before = self.metric("proxy_refused_total")
            with self.subTest(why), Chat(self.port) as c:
                c.say(sent)
                self.assertRegex(c.reply(), "^421 4.7.0 .*PROXY")
                self.assertEqual(c.line(), "")
            self.gw.wait_log("event=limit .*what=proxy .*listener=front .*" + why)
            self.assertEqual(self.metric("proxy_refused_total"), before + 1)

    def test_a_header_from_elsewhere_is_refused(self):
        for n, header in enumerate((b"PROXY TCP4 192.0.2.8 203.0.113.1 4711 25\r\n", proxy2())):
            with Chat(self.gw.smtp) as c:  # a listener without proxy
                self.assertRegex(c.reply(), "^220 ")
                c.say(header)
                replies = []
                while line := c.line():
                    replies.append(line)
                self.assertRegex(replies[0], "^500 ")
                self.assertRegex(replies[-1], r"^421 4\.7\.0 A PROXY header is not taken from your address")
            self.gw.wait_log("event=limit .*what=proxy .*listener=mx", n + 1)
        self.assertNotIn("ip=192.0.2.8", self.gw.log())

    def test_tls_from_the_first_byte_comes_behind_the_header(self):
        raw = socket.create_connection(("127.0.0.1", self.tls), PATIENCE)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = tls_context().wrap_bio(incoming, outgoing)
        with self.assertRaises(ssl.SSLWantReadError):
            tls.do_handshake()
        raw.sendall(proxy2() + outgoing.read())  # both in one segment
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                raw.sendall(outgoing.read())
                incoming.write(raw.recv(65536))
        raw.sendall(outgoing.read())
        while True:
            try:
                self.assertRegex(tls.read(1000), b"^220 ")
                break
            except ssl.SSLWantReadError:
                incoming.write(raw.recv(65536))
        raw.close()
        self.gw.wait_log("event=connect .* ip=192.0.2.7 listener=fronttls proxy=127.0.0.1")

    def test_one_private_address_for_all_is_said(self):
        for _ in range(100):
            with Chat(self.gw.smtp) as c:
                c.reply()
        self.assertRegex(self.gw.wait_log("event=limit what=one-client"), "ip=127.0.0.1 ")


class Generations(GatewayTest):
    """A reload that changes listeners starts new workers; the old ones go on with their sessions."""

    def test_under_load_nobody_is_refused(self):
        gw = self.gateway(self.upstream(), workers=1)
        extra = free_port()
        load = Load(self, [gw.smtp])
        load.wait(5)
        before = wait_for(lambda: gw.pids("intake"), "intake")
        with Chat(gw.smtp) as old:
            old.reply()
            self.assertRegex(old.say("EHLO x.example.net").reply(), "^250")
            gw.write_config(workers=2, extra=(
                'listener more { address = { "127.0.0.1:%d" }  banner = "ESMTP more" }' % extra))
            self.assertEqual(gw.ctl("reload").stderr, "")
            load.ports = [gw.smtp, extra]
            load.wait(10)
            with Chat(extra) as c:
                self.assertEqual(c.reply(), "220 mx.example.test ESMTP more")
            self.assertRegex(old.ask("MAIL FROM:<a@example.net>"), "^250")  # goes on as before
            self.assertRegex(old.ask("RSET"), "^250")
            self.assertIn(before[0], gw.pids("intake"))
        wait_for(lambda: not set(before) & set(gw.pids("intake")), "the end of the old worker")
        self.assertEqual(len(gw.pids("intake")), 2)
        load.ports = [gw.smtp]
        load.wait(5)
        gw.write_config(workers=1, extra="")
        self.assertEqual(gw.ctl("reload").stderr, "")
        wait_for(lambda: len(gw.pids("intake")) == 1, "one worker alone")
        load.wait(5)
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.1", extra), 1)
        self.assertEqual(load.end(), [])

    def test_another_address_on_our_own_port_and_a_port_of_somebody_else(self):
        gw = self.gateway(self.upstream(), workers=2)
        config = open(gw.config).read()
        with open(gw.config, "w") as f:
            f.write(config.replace('"127.0.0.1:%d"' % gw.smtp, '"*:%d"' % gw.smtp))
        self.assertEqual(gw.ctl("reload").stderr, "")
        self.assertEqual(gw.send()[0], 250)
        with socket.create_connection(("::1", gw.smtp), PATIENCE) as s:
            self.assertEqual(s.recv(3), b"220")
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            gw.write_config(extra='listener taken { address = { "127.0.0.1:%d" } }'
                            % other.getsockname()[1])
            done = gw.ctl("reload", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("in use", done.stderr)
        self.assertEqual(gw.send()[0], 250)

    def test_doors_of_review_change_too_and_connections_stay(self):
        gw = self.gateway(self.upstream(), workers=1)
        gw.add_user("admin", "pw", "--scope", "*")
        old, new = gw.pop3, free_port()
        with Chat(old) as c:
            self.assertRegex(c.line(), r"^\+OK")
            gw.write_config(pop3=new)
            self.assertEqual(gw.ctl("reload").stderr, "")
            with Chat(new) as d:
                self.assertRegex(d.line(), r"^\+OK")
            with self.assertRaises(OSError):
                socket.create_connection(("127.0.0.1", old), 1)
            self.assertRegex(c.ask("USER admin"), r"^\+OK")
            self.assertRegex(c.ask("PASS pw"), r"^\+OK")
        os.kill(gw.pids("review")[0], signal.SIGKILL)  # and the next one has them too
        wait_for(lambda: self.greets(new), "review again")

    @staticmethod
    def greets(port):
        try:
            with Chat(port) as c:
                return c.line().startswith("+OK")
        except OSError:
            return False


class Upgrade(GatewayTest):
    def test_under_load_nobody_is_refused_and_nothing_is_lost(self):
        up = self.upstream()
        gw = self.gateway(up, workers=1)
        load = Load(self, [gw.smtp], threads=3)
        load.wait(5)
        before = {role: wait_for(lambda: gw.pids(role), role)
                  for role in ("intake", "delivery", "review")}
        with Chat(gw.smtp) as old:
            old.reply()
            self.assertRegex(old.say("EHLO x.example.net").reply(), "^250")
            for n in (1, 2):
                done = gw.ctl_json("upgrade")
                self.assertEqual((done[0]["upgrades"], done[0]["pid"]), (n, gw.process.pid))
            load.wait(5)
            for role, pids in before.items():
                wait_for(lambda: role == "intake" or not set(pids) & set(gw.pids(role)),
                         "another " + role)
            self.assertRegex(old.ask("MAIL FROM:<a@example.net>"), "^250")
            self.assertRegex(old.ask("RSET"), "^250")
        wait_for(lambda: not set(before["intake"]) & set(gw.pids("intake")), "the old intake's end")
        gw.ctl("reload")
        load.wait(5)
        self.assertEqual(load.end(), [])
        up.wait(load.sent, 60)
        os.kill(gw.pids("intake")[0], signal.SIGKILL)  # still watched
        gw.wait_log("event=role.exit name=intake")
        wait_for(lambda: self.mail_passes(gw), "mail after a kill")

    @staticmethod
    def mail_passes(gw):
        try:
            return gw.send()[0] == 250
        except OSError:
            return False

    def test_a_config_or_program_that_does_not_fit_is_refused(self):
        gw = self.gateway(self.upstream(), workers=1)
        pids = wait_for(lambda: gw.pids("intake"), "intake")
        gw.write_config(extra="nonsense = 1")
        done = gw.ctl("--json", "upgrade", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("relayd.conf", done.stderr)
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            gw.write_config(extra='listener local { address = { "unix:%s/local" } }\n'
                            'listener taken { address = { "127.0.0.1:%d" } }'
                            % (gw.dir, other.getsockname()[1]))
            done = gw.ctl("upgrade", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("in use", done.stderr)
        self.assertFalse(os.path.exists(gw.dir + "/local"))
        gw.write_config(extra="")
        self.assertEqual(gw.pids("intake"), pids)
        self.assertEqual(gw.send()[0], 250)

    def test_a_role_that_stands_still_does_not_keep_the_next_from_starting(self):
        up = self.upstream()
        gw = self.gateway(up, workers=1)
        pid = wait_for(lambda: gw.pids("delivery"), "delivery")[0]
        os.kill(pid, signal.SIGSTOP)
        gw.ctl("upgrade", check=False)  # how long it waits is another matter
        self.assertEqual(gw.send(message("thawed"))[0], 250)
        gw.wait_log("event=limit what=drain pid=%d " % pid)
        wait_for(lambda: [p for p in gw.pids("delivery") if p != pid], "another delivery")
        up.find("Subject: thawed")

    @staticmethod
    def asked(pid):
        """The process that asks the new program whether it takes over, while there is one."""
        with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
            for child in f.read().split():
                try:
                    with open("/proc/%s/cmdline" % child, "rb") as g:
                        if b"--takes" in g.read():
                            return child
                except OSError:     # gone by now
                    pass
        return None

    def begin(self, gw, pid):
        upgrade = subprocess.Popen([BUILD + "/relayctl", "-c", gw.config, "upgrade"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(upgrade.wait)
        wait_for(lambda: self.asked(pid), "the question to the new program")
        return upgrade

    def test_a_reload_meanwhile_does_not_cross_it(self):
        gw = self.gateway(self.upstream(), workers=1)
        port = free_port()
        gw.write_config(extra='listener more { address = { "127.0.0.1:%d" } }' % port)
        upgrade = self.begin(gw, gw.process.pid)
        os.kill(gw.process.pid, signal.SIGHUP)
        self.assertEqual(upgrade.wait(PATIENCE), 0)
        with Chat(port) as c:
            self.assertRegex(c.reply(), "^220 ")
        self.assertEqual(gw.send()[0], 250)

    def test_a_signal_meanwhile_is_not_lost(self):
        gw = self.gateway(self.upstream(), start=False, workers=1)
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        relayd = subprocess.Popen([BUILD + "/relayd", "-c", gw.config], stderr=writer, stdin=subprocess.DEVNULL)
        self.addCleanup(relayd.kill)
        wait_for(lambda: [row["state"] for row in self.status(gw)] == ["up"] * 4, "relayd")
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:     # until nothing more fits: relayd waits a moment before it gives its log up
                os.write(writer, b"x" * 512)
        upgrade = self.begin(gw, relayd.pid)
        wait_for(lambda: self.asked(relayd.pid) is None, "the answer")
        os.kill(relayd.pid, signal.SIGTERM)
        os.close(writer)

        def drain():
            while os.read(reader, 65536):
                pass
        in_thread(drain)
        relayd.wait(PATIENCE)
        upgrade.wait()

    @staticmethod
    def status(gw):
        return [json.loads(line) for line in gw.ctl("--json", "status", check=False).stdout.splitlines()]


OPTIMISED = os.path.join(ROOT, "build")


@unittest.skipUnless(os.path.exists(OPTIMISED + "/relayd"), "the whole filter needs ./dev build")
class Sandbox(GatewayTest):
    """On the optimised build: with the sanitizers only the calls that kill are filtered."""

    def setUp(self):
        super().setUp()
        patch = unittest.mock.patch("harness.BUILD", OPTIMISED)
        patch.start()
        self.addCleanup(patch.stop)

    def test_no_role_needs_a_call_that_its_filter_refuses(self):
        up = self.upstream()
        gw = self.gateway(up, workers=1, filters=RULES)
        for role in ("intake", "delivery", "review"):
            pid = wait_for(lambda: gw.pids(role), role)[0]
            gw.wait_log("role=%s .*event=role.start|role=%s event=role.start" % (role, role))
            with open("/proc/%d/status" % pid) as f:
                status = f.read()
            self.assertRegex(status, r"(?m)^Seccomp:\s+2$", role)
            self.assertRegex(status, r"(?m)^NoNewPrivs:\s+1$", role)
        gw.add_user("admin", "pw", "--scope", "*")
        with gw.smtp_client() as s:
            s.starttls(context=tls_context())
            s.sendmail("bob@example.net", ["ann@example.test"], message("clean", ("x" * 70 + "\r\n") * 6000))
        up.find("Subject: clean")
        held = gw.hold("to be released")
        with imaplib.IMAP4_SSL("127.0.0.1", gw.imaps, ssl_context=tls_context()) as box:
            box.login("admin", "pw")
            self.assertEqual(box.select("INBOX")[1], [b"1"])
            self.assertEqual(box.fetch("1", "(BODYSTRUCTURE RFC822)")[0], "OK")
        gw.ctl("quarantine", "release", held)
        up.find("Subject: to be released")
        gw.ctl("reload")
        time.sleep(1.1)  # what is refused is told once a second
        self.assertEqual(re.findall(".*what=system-call.*", gw.log()), [])
        self.assertEqual(re.findall(".*event=role.exit.*", gw.log()), [])

"""Mail out: retries, failover, bounces, MX, LMTP, TLS, the queue in the admin's hands."""
import glob
import os
import re
import shutil
import socketserver
import subprocess
import threading
import unittest

from harness import (GTUBE, RULES, GatewayTest, Process, free_port, in_thread, listens, message,
                     wait_for)


class Retries(GatewayTest):
    def test_mail_waits_for_an_upstream_that_is_down(self):
        up = self.upstream()
        gw = self.gateway(up)
        up.stop()
        ids = [gw.send(message("wait %d" % i))[1].split()[-1] for i in range(20)]
        gw.wait_log("event=delivery.deferred")
        rows = wait_for(lambda: [r for r in gw.ctl_json("queue", "list")] or None, "a queue")
        self.assertEqual({r["id"] for r in rows}, set(ids))
        up.start()
        gw.ctl("queue", "flush")
        self.assertEqual(len(up.wait(20)), 20)
        wait_for(lambda: not gw.ctl_json("queue", "list"), "an empty queue")

    def test_the_second_host_takes_over(self):
        up = self.upstream()
        gw = self.gateway(routes='route example.test { to = { "127.0.0.1:%d", "127.0.0.1:%d" }  '
                          'recipients = any }' % (free_port(), up.port))
        self.assertEqual(gw.send(message("failover"))[0], 250)
        up.find("failover")

    def test_a_restart_loses_nothing(self):
        up = self.upstream()
        gw = self.gateway(up)
        up.stop()
        for i in range(10):
            self.assertEqual(gw.send(message("kept %d" % i))[0], 250)
        self.assertEqual(gw.stop(), 0)
        up.start()
        gw.start()
        self.assertEqual(len(up.wait(10)), 10)

    def test_drop_and_retry_by_hand(self):
        up = self.upstream()
        gw = self.gateway(up, queue="retry = { 1h }  reserve = 1M")
        up.stop()
        gone = gw.send(message("gone"))[1].split()[-1]
        kept = gw.send(message("kept"))[1].split()[-1]
        wait_for(lambda: len(gw.ctl_json("queue", "list", "--state", "deferred")) == 2, "two deferred")
        self.assertIn("gone", gw.ctl("queue", "body", gone).stdout)
        self.assertIn("ann@example.test", gw.ctl("queue", "show", kept).stdout)
        gw.ctl("queue", "drop", gone)
        up.start()
        gw.ctl("queue", "retry", kept)
        up.find("kept")
        wait_for(lambda: not gw.ctl_json("queue", "list"), "an empty queue")
        self.assertEqual(len(up.messages()), 1)
        self.assertEqual(gw.ctl("queue", "show", gone, check=False).returncode, 1)


class Dying(socketserver.ThreadingTCPServer):
    """An upstream whose connections end as `faults` say, one each: "banner" hangs up there, "421 mail"
    answers MAIL so and hangs up, "hang mid" hangs up amid the data.  Then it works."""
    allow_reuse_address = daemon_threads = True

    def __init__(self, faults):
        super().__init__(("127.0.0.1", 0), DyingSession)
        self.port = self.server_address[1]
        self.faults, self.lock = list(faults), threading.Lock()
        self.subjects = []  # of what was answered 250
        in_thread(self.serve_forever)

    def next_fault(self):
        with self.lock:
            return self.faults.pop(0) if self.faults else ""


class DyingSession(socketserver.StreamRequestHandler):
    def handle(self):
        self.fault = self.server.next_fault()
        try:
            self.say("banner", "220 dying")
            while True:
                line = self.rfile.readline()
                verb = line[:4].decode("latin-1").lower()
                if verb in ("quit", ""):
                    return
                if self.say(verb, "354 go" if verb == "data" else "250 ok") and verb == "data":
                    self.data()
        except (ConnectionError, StopIteration):
            pass

    def say(self, state, usual):
        """True: it was the usual reply."""
        if self.fault in (state, "hang " + state):
            raise StopIteration
        if self.fault.endswith(" " + state):
            self.wfile.write(self.fault[:3].encode() + b" not now\r\n")
            if self.fault.startswith("421"):
                raise StopIteration
            return False
        self.wfile.write(usual.encode() + b"\r\n")
        return True

    def data(self):
        body = b""
        while not body.endswith(b"\r\n.\r\n"):
            line = self.rfile.readline()
            if line == b"" or (self.fault == "hang mid" and len(body) > 20000):
                raise StopIteration
            body += line
        self.say("dot", "250 taken")
        if not self.fault.endswith(" dot"):
            self.server.subjects.append(re.search(rb"Subject: (\S+)", body)[1].decode())


class UpstreamsThatDie(GatewayTest):
    FAULTS = ("banner", "421 banner", "554 banner", "ehlo", "421 ehlo", "mail", "421 mail",
              "451 mail", "rcpt", "421 rcpt", "450 rcpt", "data", "421 data", "451 data",
              "hang mid", "dot", "421 dot", "451 dot")

    def test_no_fault_that_passes_loses_or_bounces_a_message(self):
        up = Dying(self.FAULTS)
        self.addCleanup(up.server_close)
        self.addCleanup(up.shutdown)
        gw = self.gateway(up, networks="127.0.0.0/8", queue="retry = { 1s }  reserve = 1M")
        names = ["m%02d" % i for i in range(10)]
        for name in names:
            self.assertEqual(gw.send(message(name, "x" * 70 + ("\r\n" + "y" * 70) * 5000),
                                     "ann@example.test")[0], 250)

        def all_there():
            gw.ctl("queue", "flush")
            return not up.faults and not gw.ctl_json("queue", "list")
        wait_for(all_there, "an empty queue", 60)
        self.assertEqual(sorted(up.subjects), names)  # none twice, and no report among them
        self.assertEqual(gw.ctl_json("quarantine", "list"), [])


class Fair(GatewayTest):
    FLOOD = 400

    def test_one_message_is_not_behind_a_flood_of_another_sender(self):
        up = self.upstream()
        gw = self.gateway(up, queue="retry = { 1h }  reserve = 1M")
        up.stop()
        with gw.smtp_client() as s:
            for n in range(self.FLOOD):
                s.sendmail("flood@example.net", ["ann@example.test"], message("flood %d" % n))
            s.sendmail("calm@example.org", ["ann@example.test"], message("calm"))
        wait_for(lambda: len(gw.ctl_json("queue", "list")) == self.FLOOD + 1,
                 "all of it in the queue")
        up.start()
        gw.ctl("queue", "flush")
        senders = [e["reverse_path"] for _, e in up.wait(self.FLOOD + 1, 120)]
        self.assertLess(senders.index("calm@example.org"), self.FLOOD // 3)


class ByHand(GatewayTest):
    def test_hold_reroute_and_top(self):
        up = self.upstream()
        other = self.upstream()
        gw = self.gateway(up, queue="retry = { 1h }  reserve = 1M")
        up.stop()
        held = gw.send(message("held"), sender="hold@example.net")[1].split()[-1]
        moved = gw.send(message("moved"), sender="move@example.net")[1].split()[-1]
        wait_for(lambda: len(gw.ctl_json("queue", "list", "--state", "deferred")) == 2, "two deferred")
        # Whether it was tried, or joined those that wait for a next hop that is down.
        self.assertEqual(len(re.findall(r"(?m)^    (?:1 attempt, )?next in (?:59|60)m: .*refused",
                                        gw.ctl("queue", "list").stdout)), 2)
        refused = gw.ctl("queue", "hold", "--sender", "hold@example.net", check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("1 messages fit; to hold them, say --yes", refused.stderr)
        self.assertIn("1 held", gw.ctl("queue", "hold", "--sender", "example.net", "--size", "1",
                                       "--sender", "hold@example.net", "--yes").stdout)
        self.assertEqual(gw.stop(), 0)
        gw.start()
        rows = wait_for(lambda: gw.ctl_json("queue", "list", "--state", "held"), "a held message")
        self.assertEqual([r["id"] for r in rows], [held])
        self.assertIn("held by the admin", rows[0]["why"])
        self.assertNotIn("next in", gw.ctl("queue", "list", "--state", "held").stdout)
        top = gw.ctl("top", "--once").stdout
        self.assertIn("127.0.0.1:%d" % up.port, top)
        self.assertIn("queue: 2 messages", top)
        gw.ctl("queue", "reroute", moved, "--to", "127.0.0.1:%d" % other.port)
        other.find("moved")
        gw.ctl("queue", "unhold", "--age", "0s")
        up.start()
        gw.ctl("queue", "flush")
        up.find("held")
        wait_for(lambda: not gw.ctl_json("queue", "list"), "an empty queue")


class Damaged(GatewayTest):
    def spoil(self, gw, text):
        """Flips a byte of the one segment that holds text."""
        paths = glob.glob(gw.dir + "/spool/*/*.seg")
        for path in paths:
            with open(path, "r+b") as f:
                at = f.read().find(text)
                if at >= 0:
                    f.seek(at)
                    f.write(bytes([text[0] ^ 0x20]))
                    return path
        self.fail("%r is in none of %s" % (text, paths))

    def test_a_damaged_message_is_shown_and_dropped_and_its_segment_goes(self):
        up = self.upstream()
        gw = self.gateway(up, queue="retry = { 1h }  reserve = 1M")
        up.stop()
        gw.send(message("first"))
        gw.wait_log("event=delivery.deferred")
        ids = {name: gw.send(message(name))[1].split()[-1] for name in ("Spoiled", "Dropped", "whole")}
        wait_for(lambda: len(gw.ctl_json("queue", "list", "--state", "deferred")) == 4, "four deferred")
        segment = self.spoil(gw, b"Dropped")
        self.spoil(gw, b"Spoiled")
        name = "/".join(segment.split("/")[-2:])
        rows = {r["id"]: r for r in gw.ctl_json("queue", "list")}
        self.assertEqual({i for i, r in rows.items() if r.get("damaged")}, {ids["Spoiled"], ids["Dropped"]})
        self.assertIn(name, rows[ids["Dropped"]]["why"])
        for words in ["list"], ["show", ids["Dropped"]]:
            said = gw.ctl("queue", *words).stdout
            self.assertIn("damaged: ", said)
            self.assertIn(name, said)
            self.assertIn("relayctl spool salvage", said)
        for words in ["retry"], ["bounce"], ["reroute", "--to", "127.0.0.1:9"], ["body"]:
            refused = gw.ctl("queue", words[0], ids["Dropped"], *words[1:], check=False)
            self.assertEqual(refused.returncode, 1)
            self.assertRegex(refused.stderr, "%s cannot be .*, it is damaged: .*%s" % (ids["Dropped"], name))
        self.assertIn("1 dropped", gw.ctl("queue", "drop", ids["Dropped"]).stdout)
        asked = gw.ctl("queue", "drop", "--reason", "damaged", check=False)
        self.assertIn("1 messages fit; to drop them, say --yes", asked.stderr)
        self.assertIn("1 dropped", gw.ctl("queue", "drop", "--reason", "damaged", "--yes").stdout)
        self.assertEqual(len(gw.ctl_json("queue", "list")), 2)
        up.start()
        gw.ctl("queue", "flush")
        up.find("whole")
        up.find("first")
        wait_for(lambda: not gw.ctl_json("queue", "list"), "an empty queue")
        self.assertEqual(gw.stop(), 0)
        gw.start()
        wait_for(lambda: not os.path.exists(segment), "the segment to go")
        self.assertEqual(gw.ctl_json("queue", "list"), [])
        self.assertEqual(len(up.messages()), 2)

    def test_what_was_damaged_while_it_was_stopped_is_reported_and_kept_for_the_admin(self):
        up = self.upstream()
        gw = self.gateway(up, queue="retry = { 1h }  reserve = 1M")
        up.stop()
        for name in "Spoiled", "whole":
            gw.send(message(name))
        wait_for(lambda: len(gw.ctl_json("queue", "list", "--state", "deferred")) == 2, "two deferred")
        self.assertEqual(gw.stop(), 0)
        segment = self.spoil(gw, b"Spoiled")
        up.start()
        gw.start()
        gw.wait_log("event=spool.damaged")
        gw.ctl("queue", "flush")
        up.find("whole")
        wait_for(lambda: not os.path.exists(segment), "the segment to go")
        self.assertEqual(gw.ctl_json("queue", "list"), [])
        self.assertEqual(os.listdir(gw.dir + "/spool/damaged"),
                         ["%s-%s" % tuple(segment.split("/")[-2:])])


class Bounces(GatewayTest):
    def test_a_refused_outbound_message_bounces_to_its_sender(self):
        up = self.upstream()
        gw = self.gateway(up, networks="127.0.0.0/8", routes="""
            route example.test { to = { "127.0.0.1:%d" }  recipients = any }
            route "*" { to = { "127.0.0.1:%d" } }""" % (up.port, up.port))
        gw.send(message("lost"), "ann@example.test", ["nobody@example.com", "eve@example.com"])
        report, envelope = up.find("delivery-status")
        self.assertEqual(envelope, {"reverse_path": "", "forward_paths": ["ann@example.test"]})
        text = report.decode()
        self.assertRegex(text, "Final-Recipient: rfc822; ?nobody@example.com")
        self.assertRegex(text, r"Status: 5\.1\.1")
        self.assertIn("No such user here", text)
        self.assertIn("Subject: lost", text)
        self.assertEqual(up.find("Subject: lost")[1]["forward_paths"], ["eve@example.com"])
        gw.wait_log("event=delivery.bounced")
        # The null reverse-path is never bounced.
        gw.send(message("null"), "", ["nobody@example.com"])
        wait_for(lambda: not gw.ctl_json("queue", "list"), "an empty queue")
        self.assertEqual(len([m for m in up.messages() if b"delivery-status" in m[0]]), 1)

    def test_what_the_upstream_refuses_of_unproven_mail_is_held(self):
        up = self.upstream()
        gw = self.gateway(up)
        gw.send(message("undeliverable"), rcpts=["nobody@example.test"])
        rows = wait_for(lambda: gw.ctl_json("quarantine", "list"), "the message in the quarantine")
        self.assertIn("nobody@example.test", str(rows[0]))
        self.assertEqual(up.messages(), [])

    def test_a_message_expires_after_a_failed_attempt(self):
        up = self.upstream()
        gw = self.gateway(networks="127.0.0.0/8", queue="retry = { 1s }  expire = 2s  reserve = 1M",
                          routes="""
            route example.test { to = { "127.0.0.1:%d" }  recipients = any }
            route "*" { to = { "127.0.0.1:%d" } }""" % (up.port, free_port()))
        gw.send(message("old"), "ann@example.test", ["eve@example.com"])
        report, _ = up.find("delivery-status")
        self.assertRegex(report.decode(), r"Status: 4\.4\.\d")


class ByMx(GatewayTest):
    def test_mx_by_preference_null_mx_and_address_fallback(self):
        up = self.upstream()
        # MX hosts have addresses but no ports: their port is 25, which only root may bind here.
        if os.getuid() != 0 or listens(25):
            raise unittest.SkipTest("needs port 25 of loopback addresses")
        dns = self.nsd({"example.com": """\
            @       MX 20 backup
            @       MX 10 main
            main    A 127.0.0.31
            backup  A 127.0.0.32
            nomail  MX 0 .
            direct  A 127.0.0.32
            """})
        backup = Process(self.folder, "backup", "python3", "-c", ACCEPT_ON, "127.0.0.32", self.folder)
        self.addCleanup(backup.stop)
        wait_for(lambda: os.path.exists(self.folder + "/ready"), "the backup host")
        gw = self.gateway(up, networks="127.0.0.0/8", dns=dns.server, routes="""
            route example.test { to = { "127.0.0.1:%d" }  recipients = any }
            route "*" { to = { mx } }""" % up.port)
        gw.send(message("one"), "ann@example.test", ["eve@example.com"])
        gw.send(message("two"), "ann@example.test", ["eve@direct.example.com"])
        wait_for(lambda: len(os.listdir(self.folder + "/got")) == 2, "two messages by MX")
        gw.send(message("three"), "ann@example.test", ["eve@nomail.example.com"])
        report, _ = up.find("delivery-status")
        self.assertRegex(report.decode(), r"Status: 5\.1\.10")

    def test_who_needs_no_tls_may_say_so(self):
        """TLS-Required: no (RFC 8689 section 3), to a host found by MX that offers no TLS."""
        if os.getuid() != 0 or listens(25):
            raise unittest.SkipTest("needs port 25 of loopback addresses")
        dns = self.nsd({"example.com": "@ MX 10 main\nmain A 127.0.0.33\n"})
        main = Process(self.folder, "main", "python3", "-c", ACCEPT_ON, "127.0.0.33", self.folder)
        self.addCleanup(main.stop)
        wait_for(lambda: os.path.exists(self.folder + "/ready"), "the host")
        gw = self.gateway(networks="127.0.0.0/8", dns=dns.server, queue="retry = { 1h }  reserve = 1M",
                          routes="""route example.test { to = { "127.0.0.33:25" }  tls = verify
                                                         recipients = any }
                                    route "*" { to = { mx }  tls = verify }""")
        no = "TLS-Required: no\r\n"
        for subject, rcpt, headers in (("by default", "eve@example.com", ""),
                                       ("yes", "eve@example.com", "TLS-Required: yes\r\n"),
                                       ("twice", "eve@example.com", no + no),
                                       ("the admin named it", "eve@example.test", no),
                                       ("no", "eve@example.com", no)):
            self.assertEqual(gw.send(message(subject, headers=headers), "ann@example.test", [rcpt])[0],
                             250)
        gw.wait_log(r"event=delivery\.sent")
        wait_for(lambda: len(gw.ctl_json("queue", "list")) == 4, "the other four in the queue")
        gw.wait_log(r"event=delivery\.deferred .*TLS")
        got = [open(path.path).read() for path in os.scandir(self.folder + "/got")]
        self.assertEqual([re.search("Subject: (.*)", text)[1] for text in got], ["no"])


class ByLmtp(GatewayTest):
    """To a store that is another relayd, over TCP and over a unix socket."""

    def test_each_recipient_has_its_own_outcome(self):
        up = self.upstream()
        domains = "example.test, strict.test, near.test"
        port, path = free_port(), self.folder + "/lmtp"
        self.gateway(domains=domains, filters=RULES, policies="policy strict.test { reject = 1 }",
                     routes="".join('route %s { to = { "127.0.0.1:%d" }  recipients = any }\n'
                                    % (domain, up.port) for domain in domains.split(", ")),
                     extra='listener box { address = { "127.0.0.1:%d", "unix:%s" }  protocol = lmtp }'
                     % (port, path))
        front = self.gateway(domains=domains, networks="127.0.0.0/8", routes="""
            route example.test {{ to = {{ "lmtp:127.0.0.1:{0}" }}  recipients = any }}
            route strict.test {{ to = {{ "lmtp:127.0.0.1:{0}" }}  recipients = any }}
            route near.test {{ to = {{ "lmtp:{1}" }}  recipients = any }}
            route example.net {{ to = {{ "127.0.0.1:{2}" }} }}""".format(port, path, up.port))
        name = front.send(message("stored", GTUBE), rcpts=[
            "ann@example.test", "ann@strict.test", "ann@near.test"])[1].split()[-1]
        for rcpt, event in (("ann@example.test", "sent"), ("ann@near.test", "sent"),
                            ("ann@strict.test", "bounced")):
            front.wait_log('event=delivery.%s id=%s rcpt="%s"' % (event, name, rcpt))
        self.assertEqual(sorted(e["forward_paths"] for data, e in up.wait(3)),
                         [["ann@example.test"], ["ann@near.test"], ["bob@example.net"]])
        report = up.find("Final-Recipient: rfc822;ann@strict.test")[0]
        self.assertIn(b"Diagnostic-Code: smtp;550", report.replace(b"; ", b";"))


# An SMTP server on port 25 of one address, as small as can be.
ACCEPT_ON = r"""
import os, socketserver, sys, time
address, folder = sys.argv[1:]
os.makedirs(folder + "/got")
class Session(socketserver.StreamRequestHandler):
    def handle(self):
        say = lambda t: self.wfile.write(t + b"\r\n")
        say(b"220 backup")
        body = None
        for line in self.rfile:
            if body is not None:
                if line == b".\r\n":
                    with open(folder + "/got/%d" % time.monotonic_ns(), "wb") as f:
                        f.write(b"".join(body))
                    body = None
                    say(b"250 ok")
                else:
                    body.append(line)
            elif line[:4].upper() == b"DATA":
                body = []
                say(b"354 go")
            elif line[:4].upper() == b"QUIT":
                say(b"221 bye")
                return
            else:
                say(b"250 ok")
socketserver.ThreadingTCPServer.allow_reuse_address = True
server = socketserver.ThreadingTCPServer((address, 25), Session)
server.daemon_threads = True
open(folder + "/ready", "w").close()
server.serve_forever()
"""


class BehindPostfix(GatewayTest):
    """The next hop is a real MTA's own test server, and the sender a real MTA's test client."""

    @unittest.skipUnless(shutil.which("smtp-sink") and shutil.which("smtp-source"),
                         "smtp-sink and smtp-source are not installed")
    def test_smtp_source_to_smtp_sink(self):
        port = free_port()
        sink = Process(self.folder, "sink", "smtp-sink", "-c", "-u", "nobody" if os.getuid() == 0
                       else os.environ.get("USER", "nobody"), "127.0.0.1:%d" % port, "100")
        self.addCleanup(sink.stop)
        sink.wait_port(port)
        gw = self.gateway(routes='route example.test { to = { "127.0.0.1:%d" }  recipients = any }'
                          % port)
        subprocess.run(["smtp-source", "-s", "10", "-m", "500", "-l", "4096", "-f", "a@example.net",
                        "-t", "b@example.test", "127.0.0.1:%d" % gw.smtp], check=True, timeout=120)
        wait_for(lambda: sum(r["recipients_sent_total"] for r in gw.ctl_json("status")
                             if r["role"] == "delivery") == 500, "500 messages in the sink", 60)


class Tls(GatewayTest):
    def test_verify_refuses_a_certificate_that_nobody_vouches_for(self):
        """Two gateways: the second offers STARTTLS with a certificate of its own making."""
        up = self.upstream()
        inner = self.gateway(up)
        outer = self.gateway(routes='route example.test { to = { "127.0.0.1:%d" }  recipients = any  '
                             'tls = verify }' % inner.smtp)
        self.assertEqual(outer.send(message("verify"))[0], 250)
        line = outer.wait_log("event=delivery.deferred")
        self.assertRegex(line.lower(), "certificate|tls")
        self.assertEqual(up.messages(), [])

    def test_opportunistic_takes_any_certificate(self):
        up = self.upstream()
        inner = self.gateway(up)
        outer = self.gateway(routes='route example.test { to = { "127.0.0.1:%d" }  '
                             'recipients = any }' % inner.smtp)
        self.assertEqual(outer.send(message("opportunistic"))[0], 250)
        self.assertRegex(up.find("opportunistic")[0].decode(), r"with ESMTPS id")


class FullDisk(GatewayTest):
    @unittest.skipUnless(os.getuid() == 0, "needs root to mount a small disk")
    def test_a_full_disk_is_452_and_nothing_is_lost(self):
        up = self.upstream()
        gw = self.gateway(up, start=False, queue="retry = { 1s }  reserve = 4M", workers=1)
        os.makedirs(gw.dir + "/spool", exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24M,mode=0700,uid=65534", "tmpfs",
                        gw.dir + "/spool"], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", gw.dir + "/spool"], check=False)
        up.stop()
        gw.start()
        accepted = 0
        text = message("fill", "x" * 70 + "\r\n" + ("y" * 70 + "\r\n") * 3000)
        for _ in range(200):
            code, said = gw.send(text)
            if code != 250:
                break
            accepted += 1
        self.assertEqual((code, said[:5]), (452, "4.3.1"))
        self.assertGreater(accepted, 10)
        up.start()
        gw.ctl("queue", "flush")
        up.wait(accepted, 60)
        wait_for(lambda: gw.send(message("room again"))[0] == 250, "room on the disk", 60)
        up.find("room again")
        self.assertEqual(len(up.messages()), accepted + 1)

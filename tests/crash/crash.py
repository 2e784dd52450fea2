#!/usr/bin/env python3
"""The long crash run: kill -9 of roles, the supervisor and all of them, under load, many rounds.

usage: crash.py [--rounds N] [--senders N] [--seed N]

Many senders write down every message that got a 250.  Meanwhile something is killed, again and
again.  At the end every one of these messages has to be at the next hop or in the quarantine,
whole; duplicates are counted: they are right only where a kill came between the next hop's reply
and its record (RFC 5321 section 4.1.1.4).
"""
import argparse
import hashlib
import os
import random
import re
import signal
import smtplib
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))
from harness import GTUBE, Gateway, Upstream, message, wait_for  # noqa: E402

MARK = re.compile(rb"Subject: crash (\d+)-(\d+) (held|sent)\r\n")


def body_for(sender, number):
    """Some sizes around those where the spool changes its ways; the digest tells a torn one."""
    size = (300, 4000, 70000, 300000)[(sender * 7 + number) % 4 if number % 40 == 0 else number % 2]
    line = ("%d-%d " % (sender, number)) * 8 + "\r\n"
    text = line * (size // len(line) + 1)
    return text + "digest " + hashlib.sha256(text.encode()).hexdigest()


def is_whole(data):
    head, _, tail = data.partition(b"\r\n\r\n")
    text, _, digest = tail.rpartition(b"digest ")
    return digest.strip().decode() == hashlib.sha256(text).hexdigest()


class Sender(threading.Thread):
    """Sends until told to stop; reconnects whenever it is cut off."""

    def __init__(self, gw, number, stop):
        super().__init__(daemon=True)
        self.gw, self.number, self.stop, self.acked, self.tries = gw, number, stop, [], 0

    def run(self):
        while not self.stop.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", self.gw.smtp, "c.example.net", timeout=30) as s:
                    while not self.stop.is_set():
                        self.send_one(s)
            except (OSError, smtplib.SMTPException):
                self.stop.wait(0.02)

    def send_one(self, session):
        self.tries += 1
        # One in sixty is held: its way leads through the quarantine and a release.
        kind = "held" if self.tries % 60 == 0 else "sent"
        body = body_for(self.number, self.tries)
        session.sendmail("s%d@example.net" % self.number, ["r@example.test"], message(
            "crash %d-%d %s" % (self.number, self.tries, kind), body,
            headers="X-Test: %s\r\n" % (GTUBE if kind == "held" else "clean")))
        self.acked.append((self.number, self.tries, kind))


class Run:
    def __init__(self, folder, senders, seed):
        self.random = random.Random(seed)
        self.up = Upstream(folder)
        with open(folder + "/rules.cf", "w") as f:
            f.write("header HELD X-Test =~ /GTUBE/\nscore HELD 9\n")
        self.gw = Gateway(folder, queue="retry = { 1s }  reserve = 1M",
                          filters='filter rules { files = { "%s/rules.cf" } }' % folder,
                          policies="policy inbound { quarantine = 8 }", routes='route example.test '
                          '{ to = { "127.0.0.1:%d" }  recipients = any }' % self.up.port)
        self.gw.start()
        self.stop = threading.Event()
        self.senders = [Sender(self.gw, n, self.stop) for n in range(senders)]
        self.kills = {}

    def kill(self, what):
        """Kills it and sees to it that relayd runs again."""
        self.kills[what] = self.kills.get(what, 0) + 1
        if what in ("supervisor", "group"):
            pids = [self.gw.process.pid]
            if what == "group":
                pids += [r["pid"] for r in self.gw.ctl_json("status") if r["role"] != "supervisor"]
            for pid in pids:
                self.kill_pid(pid)
            self.gw.process.child.wait()
            self.gw.process = None
            self.gw.start()
        else:
            for pid in self.gw.pids(what)[:1]:
                self.kill_pid(pid)

    @staticmethod
    def kill_pid(pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass    # it was just being killed and started again

    def rounds(self, count, progress):
        for sender in self.senders:
            sender.start()
        choices = ["intake", "delivery", "review", "supervisor", "group"]
        for n in range(count):
            time.sleep(self.random.uniform(0.05, 0.6))      # at a random moment
            self.kill(choices[n % len(choices)])
            progress(n + 1, sum(len(s.acked) for s in self.senders))
        self.stop.set()
        for sender in self.senders:
            sender.join(60)

    def arrived(self):
        """{(sender, number): times}, and what is malformed."""
        seen, torn = {}, []
        for data, _ in self.up.messages():
            m = MARK.search(data)
            if m is None or not is_whole(data):
                torn.append(data[:200])
                continue
            key = int(m[1]), int(m[2])
            seen[key] = seen.get(key, 0) + 1
        return seen, torn

    def release_all(self):
        """Releases what is held until nothing is; each kill so far may have left some half way."""
        def none_held():
            rows = [r for r in self.gw.ctl_json("quarantine", "list") if r["state"] == "held"]
            for row in rows:
                self.gw.ctl("quarantine", "release", row["id"], check=False)
            return not rows
        wait_for(none_held, "all released", 120)

    def verdict(self):
        acked = {(s, n) for sender in self.senders for s, n, _ in sender.acked}
        self.gw.ctl("queue", "flush")
        wait_for(lambda: not self.gw.ctl_json("queue", "list"), "an empty queue", 120)
        self.release_all()

        def all_there():
            return acked <= set(self.arrived()[0])
        try:
            wait_for(all_there, "all that was acknowledged", 60)
        except AssertionError:
            pass    # told below, by name
        seen, torn = self.arrived()
        lost = sorted(acked - set(seen))
        again = sum(n - 1 for n in seen.values())
        return len(acked), lost, torn, again

    def end(self):
        self.gw.stop()
        self.up.stop()


def run(folder, rounds, senders, seed, progress=lambda n, acked: None):
    os.chmod(folder, 0o755)
    r = Run(folder, senders, seed)
    try:
        r.rounds(rounds, progress)
        return (*r.verdict(), r.kills)
    finally:
        r.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--senders", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()

    def progress(n, acked):
        print("\r  %d of %d kills, %d messages acknowledged" % (n, args.rounds, acked), end="",
              flush=True)
    with tempfile.TemporaryDirectory(prefix="relayd-crash-") as folder:
        acked, lost, torn, again, kills = run(folder, args.rounds, args.senders, args.seed, progress)
    print("\nseed %d: %d acknowledged, %d lost, %d malformed, %d delivered twice; kills: %s"
          % (args.seed, acked, len(lost), len(torn), again,
             ", ".join("%s %d" % k for k in sorted(kills.items()))))
    for key in lost[:20]:
        print("  lost: sender %d, message %d" % key)
    sys.exit(1 if lost or torn else 0)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Ten thousand idle sessions and two thousand slow senders, while fifty fast ones go on.

usage: soak_smtp.py [--idle N] [--slow N] [--seconds S]

The fast senders run alone first, then beside the others; what they keep of their rate is printed, and the
exit status is 1 when it is less than 80 %, when a session of the others was lost, or when a message
that got a 250 did not arrive.  An idle session says EHLO and then nothing; a slow one sends a byte of its
message every two seconds.
"""
import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from idle import is_open, open_one
from servers import Relayd, Sink, build_tool, make_certificate, wait_for
from harness import BUILD

KEPT = 0.80
SLOW_EVERY_S = 2.0


class Slow(threading.Thread):
    """All slow senders: one thread, a byte of each in turn."""

    def __init__(self, socks):
        super().__init__(daemon=True)
        self.socks, self.stop, self.lost = socks, threading.Event(), 0

    def run(self):
        while not self.stop.wait(SLOW_EVERY_S):
            for sock in list(self.socks):
                try:
                    sock.send(b"x")
                except OSError:
                    self.socks.remove(sock)
                    self.lost += 1


def begin_slow(port, number):
    """A session in the middle of its message."""
    sock = open_one(port, number, None)
    for line, code in ((b"MAIL FROM:<slow@example.net>\r\n", b"250"),
                       (b"RCPT TO:<b@example.test>\r\n", b"250"), (b"DATA\r\n", b"354")):
        sock.sendall(line)
        reply = sock.recv(1000)
        if not reply.startswith(code):
            raise OSError("slow sender %d: %r" % (number, reply))
    return sock


def fast(port, seconds):
    """(messages a second, messages) of fifty senders for about so long."""
    tool, sent, start = build_tool("smtp_load", "-lssl", "-lcrypto"), 0, time.monotonic()
    while time.monotonic() - start < seconds:
        done = subprocess.run([tool, "-s", "50", "-m", "4000", str(port)], capture_output=True,
                              text=True, check=True, timeout=600)
        sent += json.loads(done.stdout)["accepted"]
    return sent / (time.monotonic() - start), sent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--idle", type=int, default=10000)
    parser.add_argument("--slow", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=20)
    args = parser.parse_args()
    os.environ.setdefault("RELAYD_BUILD", BUILD)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < args.idle + args.slow + 200:
        sys.exit("soak: this shell allows %d open files only (ulimit -Hn)" % hard)
    folder = tempfile.mkdtemp(prefix="relayd-soak-", dir="/var/tmp")
    try:
        make_certificate(folder)
        sink = Sink(folder)
        # The fast ones share one address; connections is what the load needs, and a little more.  The
        # slow ones are slower than data-rate allows by default.
        server = Relayd(folder, sink, limits="connections-per-ip = 1000  data-rate = any  connections = %d"
                        % (args.idle + args.slow + 200))
        alone, sent = fast(server.port, args.seconds)
        print("fast senders alone: %.0f messages/s" % alone, flush=True)
        idle = [open_one(server.port, n, None) for n in range(args.idle)]
        slow = Slow([begin_slow(server.port, args.idle + n) for n in range(args.slow)])
        slow.start()
        print("%d idle sessions and %d slow senders are there" % (len(idle), len(slow.socks)),
              flush=True)
        beside, more = fast(server.port, args.seconds)
        alive = sum(1 for sock in idle if is_open(sock))
        slow.stop.set()
        slow.join()
        wait_for(lambda: sink.count() >= sent + more, "all accepted messages in the sink", 120)
        print("fast senders beside them: %.0f messages/s, %.0f %% of their rate alone"
              % (beside, 100 * beside / alone))
        print("idle sessions alive: %d of %d; slow senders cut off: %d; accepted %d, arrived %d"
              % (alive, len(idle), slow.lost, sent + more, sink.count()))
        for sock in idle + slow.socks:
            sock.close()
        server.stop()
        sink.stop()
        sys.exit(0 if beside >= KEPT * alone and alive == len(idle) and slow.lost == 0 else 1)
    finally:
        shutil.rmtree(folder, True)


if __name__ == "__main__":
    main()

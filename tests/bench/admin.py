#!/usr/bin/env python3
"""The queue in the admin's hands when it is long: how long each request takes, and what memory it needs.

usage: admin.py [--depth N] [--bytes N] [--dir DIR]

A spool is filled with N messages (1,000,000) for a next hop that is down.  For each request of relayctl: seconds,
lines of the answer, the most private memory of the delivery role beyond what it had, and
the most of relayctl (0: it was over too soon).
"""
import argparse
import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time

from queues import Filled, private_bytes, route_to
from harness import BUILD, free_port, wait_for

REQUESTS = (("queue", "list"), ("--json", "queue", "list", "--state", "deferred"),
            ("queue", "list", "--domain", "nowhere.test"), ("queue", "list", "--age", "1d"),
            ("top", "--once"), ("queue", "hold", "--sender", "s7@example.net", "--yes"),
            ("queue", "list", "--state", "held"),
            ("queue", "retry", "--sender", "s8@example.net", "--yes"),
            ("queue", "drop", "--age", "0s", "--yes"))


def ask(gw, pid, words):
    """(seconds, lines, MiB more of delivery, KiB of relayctl)"""
    begin, before, peaks, own, lines = time.monotonic(), private_bytes(pid), [0], [0], 0
    child = subprocess.Popen([BUILD + "/relayctl", "-c", gw.config, *words], stdout=subprocess.PIPE)
    ended = threading.Event()

    def watch():
        while not ended.wait(0.02):
            peaks.append(private_bytes(pid) - before)
            with contextlib.suppress(OSError):      # it has ended
                own.append(private_bytes(child.pid))
    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in child.stdout:
        lines += 1
    ended.set()
    watcher.join()
    if child.wait() != 0:
        raise AssertionError("relayctl %s: %d" % (" ".join(words), child.returncode))
    return time.monotonic() - begin, lines, max(peaks) / 2**20, max(own) / 2**10


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=1024)
    parser.add_argument("--dir", default="/var/tmp")
    args = parser.parse_args()
    os.environ.setdefault("RELAYD_BUILD", BUILD)
    folder = tempfile.mkdtemp(prefix="relayd-bench-", dir=args.dir)
    try:
        server = Filled(folder, route_to(free_port()))     # nobody listens there
        server.fill(args.depth, args.bytes)
        server.start()
        wait_for(server.has_read_all, "all read", 600)
        print("%-44s %8s %9s %10s %10s" % ("%d messages" % args.depth, "s", "lines", "delivery",
                                           "relayctl"))
        for words in REQUESTS:
            print("%-44s %8.1f %9d %+6.1f MiB %6d KiB"
                  % (" ".join(words), *ask(server.gw, server.delivery(), words)), flush=True)
        server.stop()
    finally:
        shutil.rmtree(folder, True)


if __name__ == "__main__":
    main()

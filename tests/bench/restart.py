#!/usr/bin/env python3
"""A start with a full queue: how soon mail is taken and old mail leaves, and what the queue costs.

usage: restart.py [--depth N ...] [--bytes N] [--dir DIR]

A spool is filled with N messages for one next hop (bench_fill), and relayd started on it twice.  With
the next hop down: the time until a new message has its 250 and until all of the old ones are
known, and the private memory of the delivery role then; `B/message` is what a message adds to it
beyond the depth of the row before.  With the next hop there: the time until its 250 for a new message
and until the first old one has arrived.  Times in seconds from the start of the program, the
supervisor's check of its config included.  The depths 1,000, 100,000 and 1,000,000 need 5 GB;
10,000,000 go with `--depth 10000000 --bytes 512`.
"""
import argparse
import os
import shutil
import socket
import tempfile
import time

from servers import Sink
from harness import BUILD, free_port, wait_for
from queues import Filled, private_bytes, route_to

DEPTHS = (1000, 100_000, 1_000_000)
PATIENCE = 600


def send_one(port):
    """False where nobody listens yet."""
    try:
        sock = socket.create_connection(("127.0.0.1", port), 10)
    except OSError:
        return False
    with sock, sock.makefile("rwb") as f:
        for line in (None, b"EHLO new.example.net", b"MAIL FROM:<new@example.net>",
                     b"RCPT TO:<new@example.test>", b"DATA", b"Subject: new\r\n\r\nNew.\r\n."):
            if line is not None:
                f.write(line + b"\r\n")
                f.flush()
            while True:
                reply = f.readline()
                if reply[:1] not in (b"2", b"3"):
                    return False
                if reply[3:4] != b"-":
                    break
    return True


def run_down(server):
    begin = server.start()
    wait_for(lambda: send_one(server.port), "a 250", PATIENCE)
    accepted = time.monotonic() - begin
    wait_for(server.has_read_all, "all read", PATIENCE)
    known = time.monotonic() - begin
    time.sleep(2)       # the first look of the minute at all messages, and what was freed is given back
    memory = private_bytes(server.delivery())
    server.stop()
    return accepted, known, memory


def run_up(server, sink):
    before = sink.count()
    begin = server.start()
    accepted = None
    while True:
        if accepted is None and send_one(server.port):
            accepted = time.monotonic() - begin
        if sink.count() > before:
            break
        if time.monotonic() - begin > PATIENCE:
            raise AssertionError("nothing arrived")
        time.sleep(0.005)
    delivered = time.monotonic() - begin
    if accepted is None:
        wait_for(lambda: send_one(server.port), "a 250", PATIENCE)
        accepted = time.monotonic() - begin
    server.stop()
    return accepted, delivered


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, action="append")
    parser.add_argument("--bytes", type=int, default=4096)
    parser.add_argument("--dir", default="/var/tmp", help="where the spool is made: not a tmpfs")
    args = parser.parse_args()
    os.environ.setdefault("RELAYD_BUILD", BUILD)
    last = None
    print("%10s %8s | %8s %8s %9s %9s | %8s %9s" % (
        "depth", "filled s", "accepts", "known", "MiB", "B/message", "accepts", "delivers"))
    for depth in args.depth or DEPTHS:
        folder = tempfile.mkdtemp(prefix="relayd-bench-", dir=args.dir)
        try:
            server = Filled(folder, route_to(free_port()))     # nobody listens there
            filled = server.fill(depth, args.bytes)
            accepted, known, memory = run_down(server)
            each = (memory - last[1]) / (depth - last[0]) if last else 0
            last = depth, memory
            sink = Sink(folder)
            server.gw.write_config(routes=route_to(sink.port))
            again, delivered = run_up(server, sink)
            sink.stop()
            print("%10d %8.1f | %8.2f %8.2f %9.1f %9.0f | %8.2f %9.2f" % (
                depth, filled, accepted, known, memory / 2**20, each, again, delivered), flush=True)
        finally:
            shutil.rmtree(folder, True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What an idle session costs: private memory of the server's process tree, beside the peers.

usage: idle.py [--sessions N] [--peer NAME ...]

Opens N sessions, plain and then under TLS, each of which says EHLO and then nothing, and holds them.  The
clients have many loopback addresses, so that relayd runs with its default limits.  Postfix takes a
process a session and is given 100 of them; Haraka 1,000.
"""
import argparse
import os
import resource
import shutil
import socket
import ssl
import sys
import tempfile
import time

from servers import Haraka, Postfix, Relayd, Sink, make_certificate, tree
from harness import BUILD

PER_ADDRESS = 5         # below limits { connections-per-ip }


def private_kib(root):
    total = 0
    for pid in tree(root):
        try:
            with open("/proc/%d/smaps_rollup" % pid) as f:
                total += sum(int(line.split()[1]) for line in f if line.startswith("Private_"))
        except OSError:
            continue
    return total


def read_reply(sock):
    text = b""
    while True:
        more = sock.recv(4096)
        if not more:
            raise OSError("closed after %r" % text)
        text += more
        lines = text.split(b"\r\n")
        if len(lines) > 1 and lines[-1] == b"" and lines[-2][3:4] == b" ":
            return text


def open_one(port, number, context):
    """A session that has said EHLO."""
    n = number // PER_ADDRESS
    sock = socket.socket()
    sock.settimeout(30)
    sock.bind(("127.1.%d.%d" % (n // 250, n % 250 + 1), 0))
    sock.connect(("127.0.0.1", port))
    read_reply(sock)
    sock.sendall(b"EHLO idle.example.net\r\n")
    read_reply(sock)
    if context is not None:
        sock.sendall(b"STARTTLS\r\n")
        read_reply(sock)
        sock = context.wrap_socket(sock)
        sock.sendall(b"EHLO idle.example.net\r\n")
        read_reply(sock)
    return sock


def settled(root):
    """Private memory once it no longer falls."""
    last = private_kib(root)
    while True:
        time.sleep(1)
        now = private_kib(root)
        if now >= last * 0.99:
            return now
        last = now


def measure(server, count, tls):
    context = None
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for sock in [open_one(server.port, n, context) for n in range(4)]:   # warm
        sock.close()
    time.sleep(1)
    before, held = private_kib(server.pid), []
    try:
        for n in range(count):
            held.append(open_one(server.port, n, context))
    except OSError as e:
        print("%-8s %-5s refused session %d: %s" % (server.name, "TLS" if tls else "plain",
                                                    len(held) + 1, e))
    after = settled(server.pid)
    alive = sum(1 for sock in held if is_open(sock))
    print("%-8s %-5s %6d held, %6d alive  %9.2f KiB a session" % (
        server.name, "TLS" if tls else "plain", len(held), alive,
        (after - before) / max(len(held), 1)), flush=True)
    for sock in held:
        sock.close()


def is_open(sock):
    try:
        sock.setblocking(False)
        return sock.recv(1) != b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=10000)
    parser.add_argument("--peer", action="append", choices=("postfix", "haraka"))
    parser.add_argument("--alone", action="store_true", help="relayd without peers beside it")
    args = parser.parse_args()
    os.environ.setdefault("RELAYD_BUILD", BUILD)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < args.sessions + 100:
        sys.exit("idle: this shell allows %d open files only (ulimit -Hn)" % hard)
    peers = [] if args.alone else args.peer or ["postfix", "haraka"]
    folder = tempfile.mkdtemp(prefix="relayd-bench-", dir="/var/tmp")
    try:
        make_certificate(folder)
        sink = Sink(folder)
        relayd = Relayd(folder, sink, limits="")
        for tls in (False, True):
            measure(relayd, args.sessions, tls)
        relayd.stop()
        for name, kind, count in (("postfix", Postfix, 100), ("haraka", Haraka, 1000)):
            if name not in peers or (kind is Haraka and not Haraka.install()):
                continue
            server = kind(folder, sink)
            for tls in (False, True):
                measure(server, min(count, args.sessions), tls)
            server.stop()
        sink.stop()
    finally:
        shutil.rmtree(folder, True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Whether dead and slow next hops, and an upstream that was down, cost the others anything.

usage: fair.py [--messages N] [--domains N] [--bytes N] [--rounds N] [--dir DIR] [--only fair | backlog]

fair: N messages to as many domains, in turn, wait in a spool.  Each domain has a next hop of its own; of ten
of them one is dead (refuses, or never answers) or slow (10 s for each reply).  Printed is the rate at
which the mail of the live ones arrives, beside and without the mail of the others: the same number of
messages and domains, all live, and then with the tenth added.

backlog: with the upstream down, N messages are sent in, as fast as they are taken; the same with the
upstream there, to the end of the last one.  Then the upstream comes back, and the rate at which the backlog
goes out is set beside both.
"""
import argparse
import asyncio
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

from servers import Relayd, Sink
from harness import BUILD, free_port, wait_for
from queues import Filled, route_to

PATIENCE = 900


# ---- next hops that are slow ------------------------------------------------------------------

async def say_slowly(reader, writer):
    try:
        await asyncio.sleep(10)
        writer.write(b"220 slow.test ESMTP\r\n")
        while await reader.readline():
            await asyncio.sleep(10)
            writer.write(b"250 slow.test\r\n")
    except OSError:
        pass
    finally:
        writer.close()


def serve_slowly(port):
    async def run():
        server = await asyncio.start_server(say_slowly, "0.0.0.0", port, backlog=1024)
        async with server:
            await server.serve_forever()
    asyncio.run(run())


class Slow:
    def __init__(self):
        self.port = free_port()
        self.process = multiprocessing.Process(target=serve_slowly, args=(self.port,), daemon=True)
        self.process.start()

    def stop(self):
        self.process.kill()


class BlackHole:
    """A port whose queue of connections is full: a SYN is not answered."""

    def __init__(self):
        self.listener = socket.socket()
        self.listener.bind(("0.0.0.0", free_port()))
        self.listener.listen(0)
        self.port = self.listener.getsockname()[1]
        self.held = []
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", self.port))
            self.held.append(sock)

    def stop(self):
        for sock in [self.listener, *self.held]:
            sock.close()


# ---- fair -------------------------------------------------------------------------------------

def routes_of(domains, bad, sink, trouble):
    """The last `bad` of the domains have next hops in trouble.  Each domain has an address of its own."""
    lines = []
    for n in range(domains):
        address = "127.%d.%d.%d" % (100 + n // 62500, n // 250 % 250, n % 250 + 1)
        port = sink.port if n < domains - bad else trouble[n % len(trouble)]
        lines.append('route d%d.test { to = { "%s:%d" }  recipients = any  tls = off }'
                     % (n, address, port))
    return "\n".join(lines) + "\n"


def run_fair(folder, args, bad, troubles):
    """Messages a second to the live domains, from the first to the last of them."""
    domains, sink = args.domains, Sink(folder, "0.0.0.0")
    live = args.messages * (domains - bad) // domains
    gw = Filled(folder, routes_of(domains, bad, sink, [t.port for t in troubles]),
                domains=", ".join("d%d.test" % n for n in range(10)),
                queue="retry = { 5s }  reserve = 64M  warn = 0s")
    gw.fill(args.messages, args.bytes, domains)
    gw.start()
    wait_for(lambda: sink.count() > 0, "the first message", PATIENCE)
    begin, first = time.monotonic(), sink.count()
    wait_for(lambda: sink.count() >= live, "all to the live ones", PATIENCE)
    rate = (live - first) / (time.monotonic() - begin)
    gw.stop()
    sink.stop()
    return rate


class Refuses:
    def __init__(self):
        self.port = free_port()

    def stop(self):
        pass


def fair(args):
    """Pairs of runs, as the machine itself is faster and slower within minutes; the median counts."""
    shares = []
    for _ in range(args.rounds):
        alone, beside = (fair_once(args, bad) for bad in (0, args.domains // 10))
        shares.append(100 * beside / alone)
    print("fair     the live ones beside the others: %.0f %% of their rate alone; pair by pair %s"
          % (statistics.median(shares), " ".join("%.0f" % s for s in shares)))


def fair_once(args, bad):
    folder = tempfile.mkdtemp(prefix="relayd-bench-", dir=args.dir)
    troubles = [Refuses(), BlackHole(), Slow()]
    try:
        rate = run_fair(folder, args, bad, troubles)
    finally:
        for trouble in troubles:
            trouble.stop()
        shutil.rmtree(folder, True)
    print("fair     %7d messages, %6d domains, %5d of them dead or slow: %8.0f/s to the live"
          % (args.messages, args.domains, bad, rate), flush=True)
    return rate


# ---- backlog ----------------------------------------------------------------------------------

def send(port, count, size):
    begin = time.monotonic()
    subprocess.run(["smtp-source", "-s", "20", "-m", str(count), "-l", str(size), "-d", "-f",
                    "a@example.net", "-t", "b@example.test", "127.0.0.1:%d" % port], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=PATIENCE)
    return time.monotonic() - begin


def backlog(args):
    folder = tempfile.mkdtemp(prefix="relayd-bench-", dir=args.dir)
    try:
        sink = Sink(folder)
        relayd = Relayd(folder, sink)
        count = args.messages // 5
        send(relayd.port, 1000, args.bytes)
        wait_for(lambda: sink.count() >= 1000, "warm", PATIENCE)
        before, begin = sink.count(), time.monotonic()
        send(relayd.port, count, args.bytes)
        wait_for(lambda: sink.count() >= before + count, "all of it", PATIENCE)
        through = count / (time.monotonic() - begin)
        print("backlog  %8.0f/s end to end" % through, flush=True)
        sink.stop()
        took = send(relayd.port, args.messages, args.bytes)
        print("backlog  %8.0f/s taken in with the upstream down" % (args.messages / took), flush=True)
        sink = Sink(folder, port=sink.port)
        wait_for(lambda: sink.count() > 0, "the first of the backlog", PATIENCE)
        begin, first = time.monotonic(), sink.count()
        wait_for(lambda: sink.count() >= args.messages, "the backlog", PATIENCE)
        drained = (args.messages - first) / (time.monotonic() - begin)
        print("backlog  %8.0f/s out when it is back: %.1f times the end to end rate"
              % (drained, drained / through))
        relayd.stop()
        sink.stop()
    finally:
        shutil.rmtree(folder, True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--domains", type=int, default=10_000)
    parser.add_argument("--bytes", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", default="/var/tmp")
    parser.add_argument("--only", choices=("fair", "backlog"))
    args = parser.parse_args()
    os.environ.setdefault("RELAYD_BUILD", BUILD)
    if args.only != "backlog":
        fair(args)
    if args.only != "fair":
        backlog(args)


if __name__ == "__main__":
    main()

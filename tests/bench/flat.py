#!/usr/bin/env python3
"""What a message costs while much else is there: it should not depend on it.

usage: flat.py [--cell NAME] [--messages N] [--rounds N] [--depth N ...] [--sessions N ...]

Messages go through relayd to a sink, as in a cell of relay.py (20 sessions at a time, many messages of 4 KiB
each, unless said), and CPU seconds per 1,000 of them are counted for the whole process tree: with so many
messages in the spool that wait for a next hop which is down (100 to 1,000,000, which needs 5 GB), and with so
many other sessions open that have said EHLO and no more (1 to 10,000).  The rounds go over all depths, and all
numbers of sessions, in turn; the median of each is compared with that of the first.
"""
import argparse
import os
import shutil
import statistics
import tempfile
import time

from idle import open_one
from servers import Relayd, Sink, cpu_seconds, make_certificate, wait_for
from harness import BUILD, free_port
from queues import Filled, route_to
from relay import CELLS, send, wait_quiet


def cost(pid, port, sink, args):
    count = args.messages
    before, cpu = sink.count(), cpu_seconds(pid)
    send(port, CELLS[args.cell], count)
    wait_for(lambda: sink.count() - before >= count, "all in the sink", 300)
    time.sleep(0.5)     # what is finished after the last message counts too
    return (cpu_seconds(pid) - cpu) * 1000 / count


def tell(what, rows):
    first = statistics.median(rows[0][1])
    for amount, costs in rows:
        median = statistics.median(costs)
        print("%10d %-18s %9.3f [%.3f - %.3f] %+7.1f %%" % (
            amount, what, median, min(costs), max(costs), (median / first - 1) * 100), flush=True)


def depths(folder, args):
    """One gateway for each depth, all of them there at once, so that the rounds can alternate."""
    sink, servers = Sink(folder), []
    try:
        for depth in args.depth or (100, 10_000, 1_000_000):
            server = Filled(os.path.join(folder, str(depth)), route_to(sink.port) +
                            route_to(free_port(), '"*"'), networks="127.0.0.0/8")
            server.fill(depth, 4096, domains=1)
            server.start()
            wait_for(server.has_read_all, "all read", 600)
            servers.append((depth, server, []))
        for _, server, _ in servers:
            wait_for(server.gw.is_up, "all roles of relayd")
            send(server.port, CELLS[args.cell], 200)     # warm
        wait_quiet(sink)
        for _ in range(args.rounds):
            for _, server, costs in servers:
                costs.append(cost(server.gw.process.pid, server.port, sink, args))
        tell("in the spool", [(depth, costs) for depth, _, costs in servers])
    finally:
        for _, server, _ in servers:
            server.stop()
        sink.stop()


def sessions(folder, args):
    sink = Sink(folder)
    server = Relayd(folder, sink, limits="connections-per-ip = 20000  connections = 20000")
    try:
        send(server.port, CELLS[args.cell], 200)
        wait_quiet(sink)
        rows = [(number, []) for number in args.sessions or (1, 100, 10_000)]
        for _ in range(args.rounds):
            socks = []
            for number, costs in rows:      # they grow, and go at the end of the round
                while len(socks) < number:
                    socks.append(open_one(server.port, len(socks), None))
                costs.append(cost(server.pid, server.port, sink, args))
            for sock in socks:
                sock.close()
            time.sleep(1)   # for the server to see them go
        tell("sessions open", rows)
    finally:
        server.stop()
        sink.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cell", choices=sorted(c for c in CELLS if c != "20xtls"), default="20xmany")
    parser.add_argument("--messages", type=int, default=10000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--depth", type=int, action="append")
    parser.add_argument("--sessions", type=int, action="append")
    args = parser.parse_args()
    os.environ.setdefault("RELAYD_BUILD", BUILD)
    folder = tempfile.mkdtemp(prefix="relayd-bench-", dir="/var/tmp")
    print("CPU seconds per 1,000 messages, %s, median of %d rounds of %d [least - most], and beside the"
          " first" % (args.cell, args.rounds, args.messages))
    try:
        make_certificate(folder)
        sessions(folder, args)
        depths(folder, args)
    finally:
        shutil.rmtree(folder, True)


if __name__ == "__main__":
    main()

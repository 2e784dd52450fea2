#!/usr/bin/env python3
"""relayd beside Postfix and Haraka: messages through the whole way, interleaved on the same disk.

usage: relay.py [--rounds N] [--messages N] [--cell NAME ...] [--peer NAME ...] [--json FILE]
                [--journal]

A generator sends messages through the gateway to Postfix's smtp-sink.  A cell is a number of sessions and
either one message a session or many: 4 KiB from Postfix's smtp-source; `20x100k` has messages of
100 KiB, `20xtls` a full TLS handshake in every session (tests/bench/smtp_load.c).  Printed are
medians: messages accepted and delivered a second, CPU seconds a 1,000 messages of the server's
whole process tree (children that ended included; generator and sink are not; the lowest round in
brackets), flushes and KiB that reached the disk a message, and the ratios.  `ceiling` is the
generator straight into the sink.  Two shared cores run it all: trust CPU figures more than rates.
"""
import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

from servers import (Disk, Haraka, JournalledImage, Postfix, Relayd, Sink, build_tool,
                     cpu_seconds, make_certificate, tree, wait_for)
from harness import BUILD

CELLS = {"%dx%s" % (sessions, kind): {"sessions": sessions, "many": kind == "many", "bytes": 4096}
         for kind in ("one", "many") for sessions in (1, 20, 100)}
CELLS["20x100k"] = {"sessions": 20, "many": False, "bytes": 102400}
CELLS["20xtls"] = {"sessions": 20, "many": False, "bytes": 4096, "tls": True}


def send(port, cell, count):
    if cell.get("tls"):
        command = [build_tool("smtp_load", "-lssl", "-lcrypto"), "-t", "-s",
                   str(cell["sessions"]), "-m", str(count), "-l", str(cell["bytes"]), str(port)]
    else:
        command = ["smtp-source", "-s", str(cell["sessions"]), "-m", str(count), "-l",
                   str(cell["bytes"]), "-f", "a@example.net", "-t", "b@example.test",
                   *(["-d"] if cell["many"] else []), "127.0.0.1:%d" % port]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL,
                   timeout=600)


def measure(server, sink, disk, cell, count):
    os.sync()
    before, cpu, kib = sink.count(), cpu_seconds(server.pid), disk.kib_written()
    start = time.monotonic()
    send(server.port, cell, count)
    accepted = time.monotonic() - start
    wait_for(lambda: sink.count() - before >= count, "all in the sink", 300)
    arrived = time.monotonic() - start
    time.sleep(0.5)     # what is finished after the last message counts too
    return {"accepted": count / accepted, "arrived": count / arrived,
            "cpu": (cpu_seconds(server.pid) - cpu) * 1000 / count,
            "kib": (disk.kib_written() - kib) / count}


def flushes(server, sink, cell, count):
    """fdatasync and fsync calls a message, in a run of its own: watching them slows it."""
    out = tempfile.NamedTemporaryFile(prefix="flushes-", suffix=".txt")
    command = ["strace", "-f", "-c", "-e", "trace=fsync,fdatasync,sync_file_range", "-o", out.name]
    for pid in tree(server.pid):
        command += ["-p", str(pid)]
    strace = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)       # strace says nowhere that it has attached
    before = sink.count()
    send(server.port, cell, count)
    wait_for(lambda: sink.count() - before >= count, "all in the sink", 300)
    strace.send_signal(signal.SIGINT)
    strace.wait()
    calls = 0
    with open(out.name) as f:
        for line in f:
            words = line.split()
            if words and words[-1] in ("fsync", "fdatasync", "sync_file_range"):
                calls += int(words[3])
    return calls / count


def wait_quiet(sink):
    """Until the sink has had nothing new for half a second."""
    last, since = sink.count(), time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.1)
        if sink.count() != last:
            last, since = sink.count(), time.monotonic()


def ceiling(sink, cell, count):
    start = time.monotonic()
    send(sink.port, cell, count)
    print("%-9s %-8s %9.0f" % (cell["name"], "ceiling", count / (time.monotonic() - start)))


def run_cell(servers, sink, disk, cell, args):
    """{server name: medians}"""
    rows, out = {s.name: [] for s in servers}, {}
    count = args.messages if cell["bytes"] <= 4096 else max(args.messages // 4, 200)
    for server in servers:
        send(server.port, cell, max(200, cell["sessions"]))     # warm
    wait_quiet(sink)
    for _ in range(args.rounds):
        for server in servers:
            rows[server.name].append(measure(server, sink, disk, cell, count))
    for server in servers:
        wait_quiet(sink)
        row = {key: statistics.median(r[key] for r in rows[server.name])
               for key in rows[server.name][0]}
        row["cpu_min"] = min(r["cpu"] for r in rows[server.name])
        row["flush"] = flushes(server, sink, cell, max(400, cell["sessions"] * 4))
        out[server.name] = row
        print("%-9s %-8s %9.0f %9.0f %6.3f [%5.3f] %9.2f %8.1f" % (
            cell["name"], server.name, row["accepted"], row["arrived"], row["cpu"], row["cpu_min"],
            row["flush"], row["kib"]), flush=True)
    return out


def print_ratios(cell, table):
    ours = table["relayd"]
    for name, theirs in table.items():
        if name != "relayd":
            print("%-9s relayd / %-7s: %.1fx accepted, %.1fx arrived, %.1fx fewer CPU seconds" % (
                cell["name"], name, ours["accepted"] / theirs["accepted"],
                ours["arrived"] / theirs["arrived"], theirs["cpu"] / max(ours["cpu"], 1e-6)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--cell", action="append", choices=sorted(CELLS))
    parser.add_argument("--peer", action="append", choices=("postfix", "haraka"))
    parser.add_argument("--json")
    parser.add_argument("--alone", action="store_true", help="relayd without peers beside it")
    parser.add_argument("--journal", action="store_true",
                        help="on an ext4 with a journal (a loop image) instead of the disk of /var/tmp")
    args = parser.parse_args()
    os.environ.setdefault("RELAYD_BUILD", BUILD)
    # Not on tmpfs: what is measured is a queue on a disk.
    folder = tempfile.mkdtemp(prefix="relayd-bench-", dir="/var/tmp")
    peers = [] if args.alone else args.peer or ["postfix", "haraka"]
    servers, rows, image, top = [], [], None, folder
    try:
        if args.journal:
            os.chmod(folder, 0o755)
            image = JournalledImage(folder)
            folder = image.folder
        make_certificate(folder)
        sink, disk = Sink(folder), Disk(folder)
        servers.append(Relayd(folder, sink))
        if "postfix" in peers:
            servers.append(Postfix(folder, sink))
        if "haraka" in peers and Haraka.install():
            servers.append(Haraka(folder, sink))
        print("%d messages a run, %d rounds, medians; relayd from %s"
              % (args.messages, args.rounds, os.path.relpath(BUILD)))
        print("%-9s %-8s %9s %9s %14s %9s %8s" % ("cell", "server", "accept/s", "arrive/s",
                                                 "CPU s/1000", "flush/msg", "KiB/msg"))
        for name in args.cell or CELLS:
            cell = {"name": name, **CELLS[name]}
            if not cell.get("tls"):     # the sink has no TLS
                ceiling(sink, cell, args.messages)
            table = run_cell(servers, sink, disk, cell, args)
            print_ratios(cell, table)
            rows += [{"cell": name, "server": s, **row} for s, row in table.items()]
        if args.json:
            with open(args.json, "w") as f:
                json.dump(rows, f)
        for server in servers:
            server.stop()
        sink.stop()
    finally:
        if image is not None:
            image.close()
        shutil.rmtree(top, True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""relayd beside Postfix: messages through the whole way, interleaved on the same disk.

usage: relay.py [--rounds N] [--messages N] [--cell NAME ...] [--json FILE]

Postfix's smtp-source sends 4 KiB messages through the gateway to Postfix's smtp-sink.  A cell is a
number of sessions and either one message a session or many.  Printed are medians: messages
accepted and delivered a second, CPU seconds a 1,000 messages of the server's whole process tree
(children that ended included; generator and sink are not), flushes and KiB written a message, and
the ratios.  Both queue durably before the 250.  Postfix runs from a private directory with the
defaults of its package, but for the limit on connections from one address.  Two shared cores run it
all: trust CPU figures more than rates.
"""
import argparse
import glob
import json
import os
import pwd
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))
from harness import BUILD, Gateway, Process, free_port, listens, wait_for  # noqa: E402

CELLS = {"%dx%s" % (sessions, kind): (sessions, kind == "many")
         for sessions in (1, 20, 100) for kind in ("one", "many")}
MESSAGE_BYTES = 4096
TICK = os.sysconf("SC_CLK_TCK")


def tree(root):
    """The pids of a process and all below it."""
    parent = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as f:
                text = f.read()
        except OSError:
            continue
        pid = int(text.split(" ", 1)[0])
        parent[pid] = int(text.rpartition(")")[2].split()[1])
    found, added = {root}, True
    while added:
        more = {pid for pid, up in parent.items() if up in found} - found
        added = bool(more)
        found |= more
    return found


def cpu_seconds(root):
    """Of the tree, with what its dead children used: utime, stime, cutime, cstime."""
    total = 0
    for pid in tree(root):
        try:
            with open("/proc/%d/stat" % pid) as f:
                total += sum(int(n) for n in f.read().rpartition(")")[2].split()[11:15])
        except OSError:
            continue
    return total / TICK


def kib_written(root):
    total = 0
    for pid in tree(root):
        try:
            with open("/proc/%d/io" % pid) as f:
                total += sum(int(line.split()[1]) for line in f if line.startswith("write_bytes"))
        except OSError:
            continue
    return total / 1024


class Sink:
    """smtp-sink, counting; what it has taken is read from its counter on standard output."""

    def __init__(self, folder):
        self.port = free_port()
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        self.process = Process(folder, "sink", "smtp-sink", "-c", *user,
                               "127.0.0.1:%d" % self.port, "1024")
        self.process.wait_port(self.port)

    def count(self):
        """Its last words are `... mesg=M`, written over and over with a CR."""
        with open(self.process.log_path, "rb") as f:
            f.seek(max(0, os.path.getsize(self.process.log_path) - 200))
            found = re.findall(rb"mesg=(\d+)", f.read())
        return int(found[-1]) if found else 0

    def stop(self):
        self.process.stop(signal.SIGKILL)


class Relayd:
    name = "relayd"

    def __init__(self, folder, sink):
        self.gw = Gateway(folder, workers=os.environ.get("BENCH_WORKERS", "auto"),
                          limits="connections-per-ip = 2000", policies="",
                          routes='route example.test { to = { "127.0.0.1:%d" }  recipients = any  '
                          'tls = off }' % sink.port,
                          queue="retry = { 5s }  reserve = 64M")
        self.gw.start()
        self.port, self.pid = self.gw.smtp, self.gw.process.pid

    def stop(self):
        self.gw.stop()


class Postfix:
    name = "postfix"

    def __init__(self, folder, sink):
        self.dir = os.path.join(folder, "postfix")
        self.port = free_port()
        config, self.queue, data = (os.path.join(self.dir, n) for n in ("etc", "queue", "data"))
        for path in (config, self.queue, data):
            os.makedirs(path)
        os.chmod(folder, 0o755)
        owner = pwd.getpwnam("postfix")
        os.chown(data, owner.pw_uid, owner.pw_gid)
        self.log = os.path.join(self.dir, "log")
        with open(config + "/main.cf", "w") as f:
            f.write("\n".join([
                "compatibility_level = 3.6", "myhostname = mx.bench.test", "mydestination =",
                "mynetworks = 127.0.0.0/8", "inet_interfaces = 127.0.0.1", "inet_protocols = ipv4",
                "relay_domains = example.test", "relayhost = [127.0.0.1]:%d" % sink.port,
                "alias_maps =", "alias_database =", "biff = no",
                "smtpd_client_connection_count_limit = 0", "smtp_tls_security_level = none",
                "queue_directory = " + self.queue, "data_directory = " + data,
                "maillog_file = " + self.log, "maillog_file_prefixes = " + folder,
                "multi_instance_enable = no", ""]))
        with open("/usr/share/postfix/master.cf.dist") as f:
            master = f.read()
        lines = []
        for line in master.splitlines():
            words = line.split()
            if len(words) == 8 and words[:2] == ["smtp", "inet"]:
                words[0] = "127.0.0.1:%d" % self.port
            if len(words) >= 8 and not line.startswith((" ", "#")):
                words[4] = "n"      # no chroot: its private directory has no etc
                line = " ".join(words)
            lines.append(line)
        with open(config + "/master.cf", "w") as f:
            f.write("\n".join(lines) + "\n")
        for name in ("postfix-files", "dynamicmaps.cf"):
            if os.path.exists("/etc/postfix/" + name):
                shutil.copy("/etc/postfix/" + name, config)
        self.config = config
        self.control("start")
        wait_for(lambda: listens(self.port), "Postfix on port %d" % self.port)
        with open(self.queue + "/pid/master.pid") as f:
            self.pid = int(f.read())

    def control(self, verb):
        done = subprocess.run(["postfix", "-c", self.config, verb], capture_output=True, text=True)
        if done.returncode != 0:
            log = open(self.log).read() if os.path.exists(self.log) else ""
            sys.exit("relay: postfix %s failed:\n%s%s" % (verb, done.stderr, log[-2000:]))

    def stop(self):
        self.control("stop")


def send(port, sessions, many, count):
    subprocess.run(["smtp-source", "-s", str(sessions), "-m", str(count), "-l", str(MESSAGE_BYTES),
                    "-f", "a@example.net", "-t", "b@example.test", *(["-d"] if many else []),
                    "127.0.0.1:%d" % port], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, timeout=600)


def measure(server, sink, sessions, many, count):
    os.sync()
    before, cpu, kib = sink.count(), cpu_seconds(server.pid), kib_written(server.pid)
    start = time.monotonic()
    send(server.port, sessions, many, count)
    accepted = time.monotonic() - start
    wait_for(lambda: sink.count() - before >= count, "all in the sink", 300)
    arrived = time.monotonic() - start
    time.sleep(0.5)     # what is finished after the last message counts too
    return {"accepted": count / accepted, "arrived": count / arrived,
            "cpu": (cpu_seconds(server.pid) - cpu) * 1000 / count,
            "kib": (kib_written(server.pid) - kib) / count}


def flushes(server, sink, sessions, many, count):
    """fdatasync and fsync calls a message, in a run of its own: watching them slows it."""
    out = tempfile.NamedTemporaryFile(prefix="flushes-", suffix=".txt")
    command = ["strace", "-f", "-c", "-e", "trace=fsync,fdatasync,sync_file_range", "-o", out.name]
    for pid in tree(server.pid):
        command += ["-p", str(pid)]
    strace = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)       # strace says nowhere that it has attached
    before = sink.count()
    send(server.port, sessions, many, count)
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


def median(rows, key):
    return statistics.median(r[key] for r in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--cell", action="append", choices=sorted(CELLS))
    parser.add_argument("--json")
    parser.add_argument("--alone", action="store_true", help="relayd without Postfix beside it")
    args = parser.parse_args()
    os.environ.setdefault("RELAYD_BUILD", BUILD)
    # Not on tmpfs: what is measured is a queue on a disk.
    folder = tempfile.mkdtemp(prefix="relayd-bench-", dir="/var/tmp")
    table = {}
    try:
        sink = Sink(folder)
        servers = [Relayd(folder, sink)] + ([] if args.alone else [Postfix(folder, sink)])
        print("%d messages of %d bytes a run, %d rounds, medians; relayd from %s"
              % (args.messages, MESSAGE_BYTES, args.rounds, os.path.relpath(BUILD)))
        print("%-9s %-8s %9s %9s %13s %9s %8s" % ("cell", "server", "accept/s", "arrive/s",
                                                 "CPU s/1000", "flush/msg", "KiB/msg"))
        for cell in args.cell or CELLS:
            sessions, many = CELLS[cell]
            rows = {s.name: [] for s in servers}
            for server in servers:
                send(server.port, sessions, many, max(200, sessions))   # warm
            wait_quiet(sink)
            for _ in range(args.rounds):
                for server in servers:
                    rows[server.name].append(measure(server, sink, sessions, many, args.messages))
            for server in servers:
                wait_quiet(sink)
                flush = flushes(server, sink, sessions, many, max(400, sessions * 4))
                table[cell, server.name] = best = {
                    key: median(rows[server.name], key) for key in rows[server.name][0]}
                best["flush"] = flush
                print("%-9s %-8s %9.0f %9.0f %6.3f [%5.3f] %8.2f %8.1f" % (
                    cell, server.name, best["accepted"], best["arrived"], best["cpu"],
                    min(r["cpu"] for r in rows[server.name]), flush, best["kib"]), flush=True)
            if len(servers) == 2:
                ours, theirs = table[cell, "relayd"], table[cell, "postfix"]
                print("%-9s %-8s %8.1fx %8.1fx %6.1fx fewer" % (
                    cell, "ratio", ours["accepted"] / theirs["accepted"],
                    ours["arrived"] / theirs["arrived"], theirs["cpu"] / max(ours["cpu"], 1e-6)))
        if args.json:
            with open(args.json, "w") as f:
                json.dump([{"cell": c, "server": s, **row} for (c, s), row in table.items()], f)
        for server in servers:
            server.stop()
        sink.stop()
    finally:
        shutil.rmtree(folder, True)


def wait_quiet(sink):
    """Until the sink has had nothing new for half a second."""
    last, since = sink.count(), time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.1)
        if sink.count() != last:
            last, since = sink.count(), time.monotonic()


if __name__ == "__main__":
    main()

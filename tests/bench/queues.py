"""A relayd on a spool that was filled before, for what is measured with many messages in the queue."""
import os
import subprocess
import sys
import time

from servers import tree
from harness import BUILD, ROOT, Gateway, Process


class Filled:
    """A gateway whose spool bench_fill has filled; not started yet."""

    def __init__(self, folder, routes, **changes):
        self.gw = Gateway(folder, workers=os.environ.get("BENCH_WORKERS", "auto"), policies="",
                          **{"limits": "connections-per-ip = 20000", "routes": routes,
                             "queue": "retry = { 5s }  reserve = 64M", **changes})
        self.port = self.gw.smtp

    def fill(self, messages, size, domains=0, senders=1000):
        """How long it took."""
        spool = self.gw.dir + "/spool"
        os.makedirs(spool, 0o700, exist_ok=True)
        begin = time.monotonic()
        subprocess.run([build_target("bench_fill"), spool, *map(str, (messages, size, domains,
                                                                      senders))], check=True)
        if os.getuid() == 0:
            subprocess.run(["chown", "-R", self.gw.settings["user"], spool], check=True)
        return time.monotonic() - begin

    def start(self):
        """Does not wait for anything; the time it began."""
        begin = time.monotonic()
        self.gw.process = Process(self.gw.dir, "relayd", BUILD + "/relayd", "-c", self.gw.config)
        return begin

    def has_read_all(self):
        return "event=delivery.ready" in self.gw.log()

    def delivery(self):
        """The pid of that role."""
        for pid in tree(self.gw.process.pid):
            with open("/proc/%d/cmdline" % pid, "rb") as f:
                if b"delivery" in f.read():
                    return pid
        return None

    def stop(self):
        self.gw.stop()


def route_to(port, domain="example.test"):
    return ('route %s { to = { "127.0.0.1:%d" }  recipients = any  tls = off }\n' % (domain, port))


def private_bytes(pid):
    with open("/proc/%d/smaps_rollup" % pid) as f:
        return 1024 * sum(int(line.split()[1]) for line in f if line.startswith("Private_"))


def build_target(name):
    """The path of a program of tests/bench that needs the libraries of relayd."""
    folder = os.path.join(ROOT, "build", "bench")
    for command in (["cmake", "-G", "Ninja", "-S", ROOT, "-B", folder],
                    ["ninja", "-C", folder, name]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit("bench: %s does not build:\n%s" % (name, done.stdout[-3000:] + done.stderr))
    return os.path.join(folder, "tests", "bench", name)

"""The servers that are measured side by side, and how their use of the machine is counted.

All of them forward example.test to one sink, queue durably before the 250, and offer STARTTLS with the
same ECDSA certificate.  Postfix runs from a private directory with the defaults of its package, but
for the limit on connections from one address; Haraka (npm) with its own queue on disk, one process.
"""
import glob
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))
from harness import ROOT, Gateway, Process, free_port, listens, wait_for  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")
HARAKA = "3.3.4"


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


class Disk:
    """What the disk below a folder has written, by its own count; of all processes."""

    def __init__(self, folder):
        device = os.stat(folder).st_dev
        self.path = "/sys/dev/block/%d:%d/stat" % (os.major(device), os.minor(device))

    def kib_written(self):
        with open(self.path) as f:
            return int(f.read().split()[6]) / 2     # sectors of 512 bytes


class JournalledImage:
    """A folder on an ext4 with a journal, as most servers have it, in a file below folder; needs root."""

    def __init__(self, folder, mib=4096):
        self.file, self.mounted = os.path.join(folder, "ext4.image"), os.path.join(folder, "ext4")
        with open(self.file, "wb") as f:
            f.truncate(mib << 20)
        os.mkdir(self.mounted)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-O",
                        "has_journal", self.file], check=True)
        subprocess.run(["mount", "-o", "loop", self.file, self.mounted], check=True)
        self.folder = os.path.join(self.mounted, "bench")
        os.mkdir(self.folder)

    def close(self):
        subprocess.run(["umount", "-l", self.mounted], check=True)


class Sink:
    """smtp-sink, counting; what it has taken is read from its counter on standard output."""

    def __init__(self, folder, host="127.0.0.1", port=None):
        self.port = port or free_port()
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        self.process = Process(folder, "sink-%d" % time.monotonic_ns(), "smtp-sink", "-c", "-m", "2000", *user,
                               "%s:%d" % (host, self.port), "1024")
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

    def __init__(self, folder, sink, **changes):
        changes.setdefault("limits", "connections-per-ip = 20000")
        self.gw = Gateway(folder, workers=os.environ.get("BENCH_WORKERS", "auto"), policies="",
                          routes='route example.test { to = { "127.0.0.1:%d" }  recipients = any  '
                          'tls = off }' % sink.port,
                          queue="retry = { 5s }  reserve = 64M", **changes)
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
                "smtpd_tls_security_level = may", "smtpd_tls_cert_file = %s/cert.pem" % folder,
                "smtpd_tls_key_file = %s/key.pem" % folder,
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
            sys.exit("bench: postfix %s failed:\n%s%s" % (verb, done.stderr, log[-2000:]))

    def stop(self):
        self.control("stop")


class Haraka:
    """Its own queue on disk, as a relay; installed below build/ by npm."""
    name = "haraka"
    HOME = os.path.join(ROOT, "build", "haraka")

    @classmethod
    def install(cls):
        """False, with the reason said, where it cannot be had."""
        if os.path.exists(cls.HOME + "/node_modules/Haraka"):
            return True
        os.makedirs(cls.HOME, exist_ok=True)
        print("bench: installing Haraka %s with npm below build/haraka" % HARAKA, flush=True)
        try:
            done = subprocess.run(["npm", "install", "--prefix", cls.HOME, "--no-audit", "--no-fund",
                                   "Haraka@" + HARAKA], capture_output=True, text=True, timeout=300)
        except (OSError, subprocess.TimeoutExpired) as e:
            print("bench: without Haraka: %s" % e)
            return False
        if done.returncode != 0:
            print("bench: without Haraka: %s" % done.stderr.strip()[-300:])
        return done.returncode == 0

    def __init__(self, folder, sink):
        self.port = free_port()
        self.dir = os.path.join(folder, "haraka")
        for name in ("config", "queue", "plugins"):
            os.makedirs(os.path.join(self.dir, name))
        package = os.path.join(self.HOME, "node_modules", "Haraka")
        shutil.copy(package + "/config/connection.ini", self.dir + "/config")
        shutil.copy(folder + "/key.pem", self.dir + "/config/tls_key.pem")
        shutil.copy(folder + "/cert.pem", self.dir + "/config/tls_cert.pem")
        # Without parameters it makes some in the background, at 30 s of CPU.
        subprocess.run(["openssl", "dhparam", "-dsaparam", "-out",
                        self.dir + "/config/dhparams.pem", "2048"], check=True, capture_output=True)
        for name, text in (
                ("config/me", "mx.bench.test\n"), ("config/log.ini", "level=NOTICE\n"),
                ("config/tls.ini", "dhparam=dhparams.pem\n"),
                ("config/smtp.ini", "listen=127.0.0.1:%d\nnodes=0\ndaemonize=false\n"
                 "graceful_shutdown=false\n" % self.port),
                ("config/plugins", "tls\nto_sink\n"),
                ("config/outbound.ini", "local_mx_ok=true\nenable_tls=false\n"),
                ("plugins/to_sink.js", TO_SINK % sink.port)):
            with open(os.path.join(self.dir, name), "w") as f:
                f.write(text)
        self.process = Process(self.dir, "haraka", "node", package + "/bin/haraka", "-c", self.dir)
        self.process.wait_port(self.port)
        self.pid = self.process.pid

    def stop(self):
        self.process.stop(signal.SIGKILL)


TO_SINK = """
exports.register = function () {
  this.register_hook('rcpt', 'take')
  this.register_hook('get_mx', 'sink')
}
exports.take = function (next, connection) {
  connection.relaying = true
  next(OK)
}
exports.sink = function (next) {
  next(OK, { priority: 0, exchange: '127.0.0.1', port: %d })
}
"""


def make_certificate(folder):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes", "-days", "2", "-subj", "/CN=mx.bench.test", "-keyout",
                    folder + "/key.pem", "-out", folder + "/cert.pem"],
                   check=True, capture_output=True)


def build_tool(name, *libraries):
    """The path of tests/bench/<name>.c as a program below build/."""
    source, program = os.path.join(HERE, name + ".c"), os.path.join(ROOT, "build", name)
    if not os.path.exists(program) or os.path.getmtime(program) < os.path.getmtime(source):
        subprocess.run(["cc", "-std=c17", "-D_GNU_SOURCE", "-O2", "-o", program, source,
                        *libraries], check=True)
    return program

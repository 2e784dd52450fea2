"""What the end-to-end tests stand on: a gateway, an upstream and a DNS server of their own.

Everything is on loopback with free ports and below a temporary directory; waits are on events.
RELAYD_BUILD names the folder with relayd and relayctl (build/ by default).
"""
import contextlib
import glob
import itertools
import json
import os
import re
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("RELAYD_BUILD", os.path.join(ROOT, "build"))
SHARED = os.path.join(ROOT, "..", "shared", "data")
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
PATIENCE = 30  # seconds that an event may take on a loaded machine


PORTS_FROM, PORTS_EACH, PORTS_TAKERS = 10000, 500, 44


def take_ports():
    """Ports that only this process of all that test takes, below the kernel's own range."""
    for n in range(PORTS_TAKERS):
        claim = socket.socket(socket.AF_UNIX)   # an abstract name: gone with the process
        try:
            claim.bind("\0relayd-tests-%d" % n)
        except OSError:
            claim.close()
            continue
        for port in itertools.cycle(range(PORTS_FROM + n * PORTS_EACH,
                                          PORTS_FROM + (n + 1) * PORTS_EACH)):
            yield port
    raise AssertionError("more than %d test processes at once" % PORTS_TAKERS)


OUR_PORTS = take_ports()


def is_free(port, kind):
    with socket.socket(socket.AF_INET, kind) as s:
        try:
            s.bind(("127.0.0.1", port))
            return True
        except OSError:     # somebody else's, or still closing
            return False


def free_port(*kinds):
    """Of TCP, or of these kinds of socket, all of them."""
    for port in OUR_PORTS:
        if all(is_free(port, kind) for kind in kinds or [socket.SOCK_STREAM]):
            return port


def wait_for(condition, what, patience=PATIENCE):
    """The first true value of condition(); it is asked often, and not for ever."""
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("waited %d s in vain for %s" % (patience, what))
        time.sleep(0.02)


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def message(subject="hello", body="Hi there.", sender="bob@example.net", rcpt="ann@example.test",
            headers=""):
    return ("From: %s\r\nTo: %s\r\nSubject: %s\r\nDate: Mon, 02 Mar 2026 10:15:42 +0000\r\n"
            "Message-ID: <%d@e2e.invalid>\r\n%s\r\n%s\r\n"
            % (sender, rcpt, subject, time.time_ns(), headers, body))


class Process:
    """A child that ends with the test, and whose standard error is kept."""

    def __init__(self, folder, name, *command, env=None):
        self.log_path = os.path.join(folder, name + ".log")
        self.log_file = open(self.log_path, "ab")
        self.name = name
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log_file,
                                      stderr=self.log_file, start_new_session=True,
                                      env={**os.environ, **(env or {})})

    @property
    def pid(self):
        return self.child.pid

    def log(self):
        with open(self.log_path, "r", errors="replace") as f:
            return f.read()

    def wait_port(self, port):
        def ready():
            if self.child.poll() is not None:
                raise AssertionError("%s ended:\n%s" % (self.name, self.log()[-3000:]))
            return listens(port)
        wait_for(ready, "%s on port %d" % (self.name, port))

    def stop(self, number=signal.SIGTERM, patience=40):
        if self.child.poll() is None:
            self.child.send_signal(number)
        try:
            return self.child.wait(patience)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()
            raise AssertionError("%s did not end in %d s:\n%s"
                                 % (self.name, patience, self.log()[-3000:]))
        finally:
            self.log_file.close()


class Upstream:
    """The demo upstream on a port of its own; it can go and come back."""

    def __init__(self, folder, port=None):
        self.port = port or free_port()
        self.folder = folder
        self.stored = os.path.join(folder, "upstream-%d" % self.port)
        os.makedirs(self.stored, exist_ok=True)
        self.process = None
        self.start()

    def start(self):
        self.process = Process(self.folder, "upstream-%d" % self.port, sys.executable,
                               os.path.join(ROOT, "etc", "demo", "upstream.py"), str(self.port),
                               self.stored)
        self.process.wait_port(self.port)

    def stop(self):
        if self.process is not None:
            self.process.stop(signal.SIGKILL)
        self.process = None

    def messages(self):
        """[(bytes, envelope)] of what has arrived."""
        out = []
        for path in sorted(glob.glob(self.stored + "/*.json")):
            with open(path) as f, open(path[:-5] + ".eml", "rb") as g:
                out.append((g.read(), json.load(f)))
        return out

    def wait(self, count, patience=PATIENCE):
        wait_for(lambda: len(self.messages()) >= count,
                 "%d messages upstream" % count, patience)
        return self.messages()

    def paths(self):
        """The forward-paths of all that has arrived, sorted, a repeated one as often as it came."""
        return sorted(p for _, e in self.messages() for p in e["forward_paths"])

    def wait_paths(self, expected, patience=PATIENCE):
        """Waits until as many forward-paths have arrived; they must be these."""
        wait_for(lambda: len(self.paths()) >= len(expected), "%r upstream" % expected, patience)
        if self.paths() != sorted(expected):
            raise AssertionError("%r upstream, not %r" % (self.paths(), expected))

    def find(self, text, patience=PATIENCE):
        """The one message with text in it."""
        text = text.encode() if isinstance(text, str) else text
        return wait_for(lambda: [m for m in self.messages() if text in m[0]],
                        "%r upstream" % text, patience)[0]


def make_certificate(folder, name, alternatives, kind="ec", days=2, issuer=None, subject="localhost"):
    """NAMEcert.pem and NAMEkey.pem in folder, self-signed or signed by those of issuer."""
    new = ["rsa:2048"] if kind == "rsa" else ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    sign = [] if issuer is None else ["-CA", "%s/%scert.pem" % (folder, issuer),
                                      "-CAkey", "%s/%skey.pem" % (folder, issuer)]
    subprocess.run(["openssl", "req", "-x509", "-newkey", *new, "-nodes", "-days", str(days),
                    "-subj", "/CN=" + subject, *sign, "-addext",
                    "subjectAltName=" + alternatives, "-keyout", "%s/%skey.pem" % (folder, name),
                    "-out", "%s/%scert.pem" % (folder, name)], check=True, capture_output=True)


CONFIG = """\
hostname   = mx.example.test
postmaster = "postmaster@example.test"
user       = {user}
run        = {dir}/run
spool      = {dir}/spool
state      = {dir}/state
users      = {dir}/users
workers    = {workers}
domains    = {{ {domains} }}
networks   = {{ {networks} }}
dns {{ servers = {{ {dns} }}  timeout = 2s }}
tls {{ {tls} }}
listener mx          {{ address = {{ "127.0.0.1:{smtp}" }}  tls = starttls }}
listener submission  {{ address = {{ "127.0.0.1:{submission}" }}  tls = starttls  auth = required }}
listener submissions {{ address = {{ "127.0.0.1:{submissions}" }}  tls = implicit  auth = required }}
limits {{ {limits} }}
{routes}
queue {{ {queue} }}
{filters}
{policies}
quarantine {{ store = {dir}/quarantine  keep = 30d }}
review {{
  user = {user}
  imap = {{ "127.0.0.1:{imap}" }}  imaps = {{ "127.0.0.1:{imaps}" }}
  pop3 = {{ "127.0.0.1:{pop3}" }}  pop3s = {{ "127.0.0.1:{pop3s}" }}
  pop3-delete = {pop3_delete}
  http = {{ "127.0.0.1:{http}" }}
}}
{extra}
"""

DEFAULTS = {
    "workers": 2, "domains": "example.test", "networks": "", "dns": '"127.0.0.1:1"',
    "limits": "connections-per-ip = 1000",
    "queue": "retry = { 1s, 2s }  expire = 5d  reserve = 1M",
    "filters": "", "policies": "policy inbound { tag = 5.0  quarantine = 8.0  reject = 2000.0 }",
    "pop3_delete": "no", "extra": "",
}
PORTS = ("smtp", "submission", "submissions", "imap", "imaps", "pop3", "pop3s", "http")
RULES = 'filter rules { files = { "%s/etc/rules/*.cf" } }' % ROOT


class Gateway:
    """relayd with a config made of DEFAULTS and what the test changes, and these environment variables."""

    def __init__(self, folder, env=None, **changes):
        self.env = env
        self.dir = os.path.join(folder, "gw-%d" % time.monotonic_ns())
        os.makedirs(self.dir)
        self.settings = {**DEFAULTS, **{name: free_port() for name in PORTS},
                         "dir": self.dir, "user": self.user(folder), **changes}
        self.settings.setdefault("tls", "certificate = { %s/cert.pem }  key = { %s/key.pem }"
                                 % (self.dir, self.dir))
        self.config = os.path.join(self.dir, "relayd.conf")
        self.process = None
        self.make_files()
        self.write_config()

    @staticmethod
    def user(folder):
        """As root the roles become nobody, so all above must let nobody through."""
        if os.getuid() != 0:
            return "relayd"
        os.chmod(folder, 0o755)
        return "nobody"

    def __getattr__(self, name):
        try:
            return self.__dict__["settings"][name]
        except KeyError:
            raise AttributeError(name) from None

    def make_files(self):
        make_certificate(self.dir, "", "DNS:localhost,IP:127.0.0.1")
        open(self.dir + "/users", "w").close()
        os.chmod(self.dir + "/users", 0o600)

    def write_config(self, **changes):
        self.settings.update(changes)
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(CONFIG.format(**self.settings))

    def start(self):
        self.process = Process(self.dir, "relayd", BUILD + "/relayd", "-c", self.config,
                               env=self.env)
        for name in PORTS:
            self.process.wait_port(self.settings[name])
        wait_for(self.is_up, "all roles of relayd")     # sockets listen before, or of an older one
        return self

    def is_up(self):
        done = self.ctl("--json", "status", check=False)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        return (self.process.pid in [r["pid"] for r in rows] and
                {"intake", "delivery", "review"} <= {r["role"] for r in rows} and
                all(r["state"] == "up" for r in rows))

    def stop(self, number=signal.SIGTERM):
        if self.process is not None:
            process, self.process = self.process, None
            return process.stop(number)

    def log(self):
        with open(self.dir + "/relayd.log", errors="replace") as f:
            return f.read()

    def wait_log(self, pattern, count=1):
        """The last of count or more lines that fit the pattern."""
        def lines():
            found = [line for line in self.log().splitlines() if re.search(pattern, line)]
            return found if len(found) >= count else None
        return wait_for(lines, "%d of %s in the log" % (count, pattern))[-1]

    # ---- relayctl ----

    def ctl(self, *words, stdin="", check=True):
        done = subprocess.run([BUILD + "/relayctl", "-c", self.config, *words], input=stdin,
                              capture_output=True, text=True, timeout=120)
        if check and done.returncode != 0:
            raise AssertionError("relayctl %s: %d\n%s%s" % (" ".join(words), done.returncode,
                                                            done.stdout, done.stderr))
        return done

    def ctl_json(self, *words):
        return [json.loads(line) for line in self.ctl("--json", *words).stdout.splitlines()]

    def wait_trace(self, words, *patterns):
        """What relayctl trace says to these words, once all the patterns fit: each role writes its
        own traces, a moment after its reply, so that any of them may come first."""
        def text():
            out = self.ctl("trace", *words, check=False).stdout
            return out if all(re.search(p, out) for p in patterns) else None
        return wait_for(text, "a trace %s with %s" % (" ".join(words), patterns))

    def add_user(self, name="admin", password="secret", *options):
        self.ctl("user", "add", name, *options, stdin=password + "\n")

    def pids(self, role):
        return [row["pid"] for row in self.ctl_json("status")
                if row["role"] == role and row["state"] == "up"]

    # ---- clients ----

    def smtp_client(self, port=None, timeout=PATIENCE):
        return smtplib.SMTP("127.0.0.1", port or self.smtp, "client.example.net", timeout=timeout)

    def send(self, text=None, sender="bob@example.net", rcpts=("ann@example.test",), port=None):
        """(code, text) of the last reply; the session ends well."""
        with self.smtp_client(port) as s:
            s.ehlo()
            reply = s.mail(sender)
            for rcpt in rcpts if reply[0] < 400 else ():
                reply = s.rcpt(rcpt)
                if reply[0] >= 400:
                    break
            if reply[0] < 400:
                try:
                    reply = s.data(text if text is not None else message())
                except smtplib.SMTPDataError as e:
                    reply = e.smtp_code, e.smtp_error
        return reply[0], reply[1].decode("utf-8", "replace")

    def hold(self, subject="held", rcpts=("ann@example.test",), sender="spam@example.net"):
        """Sends GTUBE and waits until the quarantine has it; the id."""
        code, text = self.send(message(subject, GTUBE, sender, rcpts[0]), sender, rcpts)
        assert code == 250, text
        name = text.split()[-1]
        wait_for(lambda: [r for r in self.ctl_json("quarantine", "list") if r["id"] == name],
                 "%s in the quarantine" % name)
        return name


class Nsd:
    """A real authoritative DNS server for a zone file."""

    def __init__(self, folder, zones):
        self.port = free_port(socket.SOCK_DGRAM, socket.SOCK_STREAM)    # it serves both
        self.dir = os.path.join(folder, "nsd")
        os.makedirs(self.dir)
        text = textwrap.dedent("""\
            server:
              ip-address: 127.0.0.1@%d
              username: ""
              chroot: ""
              database: ""
              pidfile: ""
              zonesdir: "%s"
              logfile: "%s/log"
              xfrdfile: ""
              zonelistfile: "%s/zone.list"
              cookie-secret-file: ""
            remote-control:
              control-enable: no
            """) % (self.port, self.dir, self.dir, self.dir)
        for name, zone in zones.items():
            path = os.path.join(self.dir, name + ".zone")
            with open(path, "w") as f:
                f.write("$ORIGIN %s.\n$TTL 60\n@ SOA ns hostmaster 1 60 60 60 60\n@ NS ns\n"
                        "ns A 127.0.0.1\n%s" % (name, textwrap.dedent(zone)))
            text += 'zone:\n  name: "%s"\n  zonefile: "%s"\n' % (name, path)
        with open(self.dir + "/nsd.conf", "w") as f:
            f.write(text)
        nsd = shutil.which("nsd") or "/usr/sbin/nsd"
        self.process = Process(self.dir, "nsd", nsd, "-d", "-c", self.dir + "/nsd.conf")
        self.process.wait_port(self.port)

    @property
    def server(self):
        return '"127.0.0.1:%d"' % self.port

    def stop(self):
        self.process.stop()


class Ldap:
    """OpenLDAP's slapd on loopback with dc=example,dc=test and two mailboxes; with the paths of a certificate
    and its key, over TLS too: by StartTLS, and on another port from the first byte."""

    CONFIG = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {dir}/slapd.pid
database mdb
maxsize 10485760
suffix "dc=example,dc=test"
rootdn "cn=admin,dc=example,dc=test"
rootpw s3cret
directory {dir}/db
access to * by users read
"""
    ENTRIES = """\
dn: dc=example,dc=test
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: cn=Ann,dc=example,dc=test
objectClass: inetOrgPerson
cn: Ann
sn: Ann
mail: ann@example.test

dn: cn=Odd,dc=example,dc=test
objectClass: inetOrgPerson
cn: Odd
sn: Odd
mail: o*d@example.test
"""

    def __init__(self, folder, certificate=None, key=None):
        self.dir = os.path.join(folder, "ldap-%d" % time.monotonic_ns())
        os.makedirs(self.dir + "/db")
        self.port = free_port()
        self.tls_port = free_port() if certificate else None
        self.process = None
        with open(self.dir + "/slapd.conf", "w") as f:
            f.write("TLSCertificateFile %s\nTLSCertificateKeyFile %s\n" % (certificate, key)
                    if certificate else "")
            f.write(self.CONFIG.format(dir=self.dir))
        subprocess.run(["/usr/sbin/slapadd", "-f", self.dir + "/slapd.conf"],
                       input=self.ENTRIES.encode(), check=True, capture_output=True)
        self.start()

    def start(self):
        urls = "ldap://127.0.0.1:%d" % self.port
        if self.tls_port:
            urls += " ldaps://127.0.0.1:%d" % self.tls_port
        self.process = Process(self.dir, "slapd", "/usr/sbin/slapd", "-d", "0", "-f",
                               self.dir + "/slapd.conf", "-h", urls)
        self.process.wait_port(self.port)

    def stop(self):
        process, self.process = self.process, None
        if process is not None:
            process.stop()


class GatewayTest(unittest.TestCase):
    """A test that has a temporary folder, and whatever it starts is ended."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="relayd-e2e-")
        self.addCleanup(shutil.rmtree, self.folder, True)

    def upstream(self, **options):
        up = Upstream(self.folder, **options)
        self.addCleanup(up.stop)
        return up

    def gateway(self, upstream=None, start=True, **changes):
        if upstream is not None:
            changes.setdefault("routes", 'route example.test { to = { "127.0.0.1:%d" }  '
                               'recipients = any }' % upstream.port)
        gw = Gateway(self.folder, **changes)
        self.addCleanup(self.end, gw)
        return gw.start() if start else gw

    def end(self, gw):
        """A clean end, and nothing for the sanitizers to report."""
        status = gw.stop()
        log = gw.log() if os.path.exists(gw.dir + "/relayd.log") else ""
        for bad in ("ERROR: AddressSanitizer", "runtime error:", "ERROR: LeakSanitizer"):
            at = log.find(bad)
            if at >= 0:
                raise AssertionError(log[max(0, at - 200):at + 4000])
        if status not in (None, 0):
            raise AssertionError("relayd ended with %d:\n%s" % (status, log[-3000:]))

    def module(self, name, source, *flags):
        """The path of a filter module made of this C source."""
        path = os.path.join(self.folder, name)
        with open(path + ".c", "w") as f:
            f.write(source)
        subprocess.run(["cc", "-std=c17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-shared",
                        "-fPIC", *flags, "-I", ROOT + "/include", "-o", path + ".so", path + ".c"],
                       check=True)
        return path + ".so"

    def crowd(self, gw, size=80):
        """Idle clients from elsewhere, so many that a second worker takes connections too, as long as
        they stay (relayd/intake/spread.h); that the gateway has seen them all, and what ends them."""
        def seen():
            return len(re.findall(r"event=connect .*ip=127\.9\.", gw.log()))
        crowd, before = contextlib.ExitStack(), seen()
        self.addCleanup(crowd.close)
        for n in range(size):
            crowd.enter_context(socket.create_connection(("127.0.0.1", gw.smtp), PATIENCE,
                                                         ("127.9.%d.1" % n, 0)))
        wait_for(lambda: seen() >= before + size, "the crowd")
        return crowd.close

    def ldap(self, *certificate):
        server = Ldap(self.folder, *certificate)
        self.addCleanup(server.stop)
        return server

    def nsd(self, zones):
        dns = Nsd(self.folder, zones)
        self.addCleanup(dns.stop)
        return dns


def tls_context():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Chat:
    """A line protocol by hand, as with telnet."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.file = self.sock.makefile("rb")

    def line(self):
        return self.file.readline().decode("utf-8", "replace").rstrip("\r\n")

    def say(self, text):
        self.sock.sendall(text.encode() + b"\r\n" if isinstance(text, str) else text)
        return self

    def ask(self, text):
        return self.say(text).line()

    def reply(self):
        """An SMTP reply, all its lines joined."""
        lines = [self.line()]
        while lines[-1][3:4] == "-":
            lines.append(self.line())
        return "\n".join(lines)

    def close(self):
        self.file.close()
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def in_thread(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread

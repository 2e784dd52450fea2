#!/usr/bin/env python3
"""The demo: a gateway, an upstream behind it, a user, a few messages and what became of them.

usage: demo.py BUILD_DIR [--no-samples]

Everything is on 127.0.0.1 and below BUILD_DIR/demo.  Ends all it started on Ctrl-C.
"""
import glob
import json
import os
import signal
import smtplib
import socket
import subprocess
import sys
import textwrap
import time

PORTS = {"smtp": 2525, "submission": 2587, "submissions": 2465, "imap": 2143, "imaps": 2993,
         "pop3": 2110, "pop3s": 2995, "http": 2080, "upstream": 2600}
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RATE = 30  # messages a minute and sender
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

CONFIG = """\
# The demo's config, written anew at each start.
hostname   = mx.example.test
postmaster = "postmaster@example.test"
user       = {user}
run        = {dir}/run
spool      = {dir}/spool
state      = {dir}/state
users      = {dir}/users
workers    = 2

domains  = {{ example.test }}
networks = {{ }}                                  # relays nothing out

tls {{ certificate = {{ {dir}/cert.pem }}  key = {{ {dir}/key.pem }} }}

listener mx          {{ address = {{ "127.0.0.1:{smtp}" }}  tls = starttls }}
listener submission  {{ address = {{ "127.0.0.1:{submission}" }}  tls = starttls  auth = required }}
listener submissions {{ address = {{ "127.0.0.1:{submissions}" }}  tls = implicit  auth = required }}

limits {{ connections-per-ip = 1000 }}            # all of the demo comes from one address

route example.test {{ to = {{ "127.0.0.1:{upstream}" }}  recipients = probe }}

queue {{ retry = {{ 5s, 30s, 1m, 5m }}  reserve = 64M }}

filter ratelimit {{ key = {{ sender }}  rate = "{rate}/1m"  action = defer }}
filter rules     {{ files = {{ "{rules}/*.cf" }} }}

policy inbound {{ tag = 5.0  quarantine = 8.0  reject = 2000.0 }}

quarantine {{ store = {dir}/quarantine  keep = 30d }}
review {{
  user  = {user}
  imap  = {{ "127.0.0.1:{imap}" }}  imaps = {{ "127.0.0.1:{imaps}" }}
  pop3  = {{ "127.0.0.1:{pop3}" }}  pop3s = {{ "127.0.0.1:{pop3s}" }}
  http  = {{ "127.0.0.1:{http}" }}
}}
"""


def message(sender, rcpt, subject, body):
    return ("From: %s\r\nTo: %s\r\nSubject: %s\r\nDate: Mon, 02 Mar 2026 10:15:42 +0000\r\n"
            "Message-ID: <%d.%d@demo.invalid>\r\n\r\n%s\r\n"
            % (sender, rcpt, subject, time.time_ns(), os.getpid(), body))


class Demo:
    def __init__(self, build):
        self.build = os.path.abspath(build)
        self.dir = os.path.join(self.build, "demo")
        self.source = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        self.config = os.path.join(self.dir, "relayd.conf")
        self.log = os.path.join(self.dir, "relayd.log")
        self.stored = os.path.join(self.dir, "upstream")
        self.children = []

    # ---- starting ----

    def check_ports(self):
        for port in PORTS.values():
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    s.bind(("127.0.0.1", port))
                except OSError as e:
                    sys.exit("demo: port %d is in use (%s): end what listens there, "
                             "or another demo" % (port, e.strerror))

    def write_files(self):
        os.makedirs(self.dir, exist_ok=True)
        # Not umask-dependent: as root the roles run as another user, who must get here.
        os.chmod(self.dir, 0o755)
        cert, key = os.path.join(self.dir, "cert.pem"), os.path.join(self.dir, "key.pem")
        if not os.path.exists(key):
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                            "ec_paramgen_curve:P-256", "-nodes", "-days", "3650", "-subj",
                            "/CN=mx.example.test", "-addext",
                            "subjectAltName=DNS:mx.example.test,DNS:localhost,IP:127.0.0.1",
                            "-keyout", key, "-out", cert], check=True, capture_output=True)
        users = os.path.join(self.dir, "users")
        if not os.path.exists(users):
            open(users, "w").close()
            os.chmod(users, 0o600)
        with open(self.config, "w") as f:
            f.write(CONFIG.format(dir=self.dir, rate=RATE, rules=self.source + "/rules",
                                  user=self.user(), **PORTS))
        if "admin" not in open(users).read():
            subprocess.run([self.program("relayctl"), "-c", self.config, "user", "add", "admin",
                            "--scope", "*"], input="admin\n", text=True, check=True,
                           stdout=subprocess.DEVNULL)

    def user(self):
        """As root, the roles become nobody, provided that nobody can get to the demo's folder."""
        if os.getuid() != 0:
            return "relayd"
        folder = self.dir
        while folder != "/":
            if os.stat(folder).st_mode & 0o001 == 0:
                print("demo: %s is closed to others, so the roles run as root here" % folder)
                return "root"
            folder = os.path.dirname(folder)
        return "nobody"

    def program(self, name):
        return os.path.join(self.build, name)

    def start(self, *command, **options):
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True,
                                 **options)
        self.children.append(child)
        return child

    def wait_for_port(self, port, child):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if child.poll() is not None:
                    break
                time.sleep(0.02)
        tail = open(self.log).read()[-2000:] if os.path.exists(self.log) else ""
        sys.exit("demo: nothing answers on port %d; the log ends:\n%s" % (port, tail))

    def start_all(self):
        upstream = self.start(sys.executable, os.path.join(self.source, "demo", "upstream.py"),
                              str(PORTS["upstream"]), self.stored, stdout=subprocess.DEVNULL)
        self.wait_for_port(PORTS["upstream"], upstream)
        with open(self.log, "ab") as log:
            gateway = self.start(self.program("relayd"), "-c", self.config, stderr=log)
        for name in ("smtp", "imap", "pop3", "http"):
            self.wait_for_port(PORTS[name], gateway)
        return gateway

    # ---- the samples ----

    def send(self, sender, rcpt, text, session=None):
        """The final reply of the server as one line."""
        smtp = session or smtplib.SMTP("127.0.0.1", PORTS["smtp"], "demo.invalid", timeout=30)
        try:
            smtp.ehlo_or_helo_if_needed()
            for step in (lambda: smtp.mail(sender), lambda: smtp.rcpt(rcpt),
                         lambda: smtp.data(text)):
                code, said = step()
                if code >= 400:
                    smtp.rset()
                    break
        except smtplib.SMTPDataError as e:
            code, said = e.smtp_code, e.smtp_error
        if session is None:
            smtp.quit()
        return "%d %s" % (code, said.decode("utf-8", "replace").replace("\n", " "))

    def send_samples(self):
        to = "ann@example.test"
        rows = [("a clean message", self.send(
            "bob@example.net", to,
            message("bob@example.net", to, "Lunch", "Shall we meet at noon?")))]
        rows.append(("spam that the rules hold", self.send(
            "win@example.net", to, message("win@example.net", to, "You won", GTUBE))))
        with smtplib.SMTP("127.0.0.1", PORTS["smtp"], "demo.invalid", timeout=30) as session:
            for i in range(10 * RATE):      # on a slow disk the rate has room for some more
                said = self.send("list@example.net", to,
                                 message("list@example.net", to, "News %d" % i, "News."), session)
                if not said.startswith("2"):
                    break
        rows.append(("message %d of one sender in a minute" % (i + 1), said))
        rows.append(("one to an unknown recipient", self.send(
            "bob@example.net", "nobody@example.test", "")))
        rows.append(("one to a foreign domain", self.send(
            "bob@example.net", "eve@example.com", "")))
        return rows

    def ctl_json(self, *command):
        out = subprocess.run([self.program("relayctl"), "-c", self.config, "--json", *command],
                             capture_output=True, text=True).stdout
        return [json.loads(line) for line in out.splitlines()]

    def fate(self, said):
        """What became of an accepted message, once that is known."""
        if said.startswith("4"):
            return "put off: its sender tries again later"
        if said.startswith("5"):
            return "refused: its sender is told"
        name = said.split()[-1]
        end = time.monotonic() + 10
        while time.monotonic() < end:
            if any(row.get("id") == name for row in self.ctl_json("quarantine", "list")):
                return "held in the quarantine"
            for path in glob.glob(self.stored + "/*.eml"):
                with open(path, "rb") as f:
                    if name.encode() in f.read():
                        return "delivered: upstream/" + os.path.basename(path)
            time.sleep(0.05)
        return "queued: relayctl queue list"

    def print_table(self, rows):
        print("\n  What was sent through port %d, and what became of it:\n" % PORTS["smtp"])
        for what, said in rows:
            print("  %-38s %s" % (what, self.fate(said)))
            for line in textwrap.wrap(said, 70):
                print("      " + line)

    def print_help(self):
        ctl = "%s -c %s" % (os.path.relpath(self.program("relayctl")), os.path.relpath(self.config))
        print(textwrap.dedent("""
          Look further (user admin, password admin: on this machine only, it may not relay):

            curl -u admin:admin 'imap://127.0.0.1:{imap}/INBOX;UID=1'    read what is held
            curl -u admin:admin imap://127.0.0.1:{imap}/ -X 'LIST "" *'   its mailboxes
            telnet 127.0.0.1 {smtp}                       SMTP by hand (POP3: {pop3}, IMAP: {imap})
            any mail client: IMAP 127.0.0.1 port {imap} (TLS: {imaps}); move a message to
                             Release, and it is delivered
            curl http://127.0.0.1:{http}/metrics

            {ctl} status
            {ctl} quarantine list
            {ctl} trace --from win@example.net

          The upstream stores what it gets in {stored}; the log is {log}.
          Ctrl-C ends it all.""").format(
              ctl=ctl, stored=os.path.relpath(self.stored), log=os.path.relpath(self.log), **PORTS),
              flush=True)

    def end(self):
        for number in ENDINGS:      # asked for already: a second Ctrl-C would leave some running
            signal.signal(number, signal.SIG_IGN)
        for child in reversed(self.children):
            if child.poll() is None:
                child.terminate()
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)


def on_ending(number, _):
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(0)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    demo = Demo(sys.argv[1])
    # By hand: a shell starts what runs in its background with SIGINT ignored.  SIGHUP: the terminal went.
    for number in ENDINGS:
        signal.signal(number, on_ending)
    demo.check_ports()
    demo.write_files()
    try:
        gateway = demo.start_all()
        print("relayd demo: gateway, upstream and user are up (all on 127.0.0.1).", flush=True)
        if "--no-samples" not in sys.argv:
            demo.print_table(demo.send_samples())
        demo.print_help()
        gateway.wait()
        sys.exit("demo: relayd ended; see " + demo.log)
    except KeyboardInterrupt:
        print("\ndemo: ending", flush=True)
    finally:
        demo.end()


if __name__ == "__main__":
    main()

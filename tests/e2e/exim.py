"""An Exim of the test's own: it takes mail on loopback and sends all of it to one next hop.

Debian installs it in place of Postfix only, so `./dev test` unpacks it below build/.  Its binary knows
its user by name and not by number; libnss_wrapper gives it a passwd file in which there is one.
"""
import os
import pwd
import shutil

from harness import ROOT, Process, free_port, wait_for

PROGRAM = os.path.join(ROOT, "build", "exim4-daemon-light", "usr", "sbin", "exim4")
WHY_NOT = ("there is no Exim below build/: `./dev test` unpacks it, where apt-get can download it"
           if not os.path.exists(PROGRAM) else None)


class Exim:
    """Its log says how each message came (`<=`) and went (`=>`): K by CHUNKING, L by PIPELINING."""

    CONFIG = """\
primary_hostname = exim.example.net
spool_directory = {dir}/spool
log_file_path = {dir}/%slog
log_selector = +all
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
disable_ipv6 = true
host_lookup =
deliver_drop_privilege = true
exim_path = {program}
keep_environment = LD_PRELOAD : NSS_WRAPPER_PASSWD : NSS_WRAPPER_GROUP
tls_advertise_hosts =
dsn_advertise_hosts = *
acl_smtp_rcpt = {rcpt}
acl_smtp_data = {data}
begin routers
all:
  driver = manualroute
  transport = on
  route_list = * 127.0.0.1
  self = send
begin transports
on:
  driver = smtp
  port = {next_hop}
  allow_localhost
  {transport}
begin retry
* * F,1h,2s
"""

    def __init__(self, folder, next_hop, rcpt="accept", data="accept", transport=""):
        """next_hop is a port; rcpt and data are its access lists, transport is an option of its transport."""
        self.dir = os.path.join(folder, "exim-%d" % next_hop)
        os.makedirs(self.dir)
        os.chmod(folder, 0o755)
        self.port = free_port()
        # A copy: it runs itself again as nobody for a bounce, who cannot enter a tree below /root.
        program = shutil.copy(PROGRAM, self.dir)
        config = os.path.join(self.dir, "conf")
        with open(config, "w") as f:
            f.write(self.CONFIG.format(dir=self.dir, program=program, port=self.port, next_hop=next_hop,
                                       rcpt=rcpt, data=data, transport=transport))
        # Exim will not have root for its user; a user of another number only root can become.
        owner = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        os.chown(self.dir, owner.pw_uid, owner.pw_gid)
        for name, line in (("passwd", "Debian-exim:x:%d:%d::/:/bin/false\n" % owner[2:4]),
                           ("group", "Debian-exim:x:%d:\n" % owner.pw_gid)):
            shutil.copy("/etc/" + name, self.dir)
            with open(os.path.join(self.dir, name), "a") as f:
                f.write(line)
        self.process = Process(self.dir, "exim", program, "-C", config, "-bdf", "-q5s", env={
            "LD_PRELOAD": "libnss_wrapper.so", "NSS_WRAPPER_PASSWD": self.dir + "/passwd",
            "NSS_WRAPPER_GROUP": self.dir + "/group"})
        self.process.wait_port(self.port)

    def log(self):
        path = os.path.join(self.dir, "mainlog")
        if not os.path.exists(path):
            return ""
        with open(path, errors="replace") as f:
            return f.read()

    def wait_log(self, *words):
        """The first line of its log that has all the words."""
        def line():
            return next((line for line in self.log().splitlines() if all(w in line for w in words)),
                        None)
        return wait_for(line, "%r in the log of Exim" % (words,))

    def stop(self):
        self.process.stop()

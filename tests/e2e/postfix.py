"""A Postfix of the test's own: it takes mail on loopback and sends all of it to one next hop."""
import os
import pwd
import shutil
import subprocess
import unittest

from harness import free_port, listens, wait_for

needs_postfix = unittest.skipUnless(os.getuid() == 0 and shutil.which("postfix"),
                                    "needs root, and Postfix")


class Postfix:
    """Needs root.  Each line that it says to its next hop, and hears, is in its log."""

    def __init__(self, folder, next_hop, **settings):
        self.dir = os.path.join(folder, "postfix")
        self.config, self.queue, data = (os.path.join(self.dir, n) for n in ("etc", "queue", "data"))
        for path in (self.config, self.queue, data):
            os.makedirs(path)
        os.chmod(folder, 0o755)
        owner = pwd.getpwnam("postfix")
        os.chown(data, owner.pw_uid, owner.pw_gid)
        self.port = free_port()
        self.log_path = os.path.join(self.dir, "log")
        self.write("main.cf", "".join("%s = %s\n" % pair for pair in {
            "compatibility_level": "3.6", "myhostname": "postfix.example.net", "mydestination": "",
            "mynetworks": "127.0.0.0/8", "inet_interfaces": "127.0.0.1", "inet_protocols": "ipv4",
            "default_transport": next_hop, "relay_transport": next_hop, "local_transport": next_hop,
            "alias_maps": "", "alias_database": "", "biff": "no", "queue_directory": self.queue,
            "data_directory": data, "maillog_file": self.log_path, "maillog_file_prefixes": folder,
            "multi_instance_enable": "no", "smtputf8_enable": "yes", "debug_peer_list": "127.0.0.1",
            "debug_peer_level": "2", **settings}.items()))
        self.write("master.cf", self.master())
        for name in ("postfix-files", "dynamicmaps.cf"):
            if os.path.exists("/etc/postfix/" + name):
                shutil.copy("/etc/postfix/" + name, self.config)
        self.control("start")
        wait_for(lambda: listens(self.port), "Postfix on port %d" % self.port)

    def write(self, name, text):
        with open(os.path.join(self.config, name), "w") as f:
            f.write(text)

    def master(self):
        """The services of Debian's master.cf, ours alone on the port, none in a chroot without files."""
        lines = []
        with open("/usr/share/postfix/master.cf.dist") as f:
            for line in f.read().splitlines():
                words = line.split()
                if len(words) >= 8 and not line.startswith((" ", "#")):
                    words[0] = ("127.0.0.1:%d" % self.port if words[:2] == ["smtp", "inet"]
                                else words[0])
                    words[4] = "n"
                    line = " ".join(words)
                lines.append(line)
        return "\n".join(lines) + "\n"

    def control(self, verb):
        done = subprocess.run(["postfix", "-c", self.config, verb], capture_output=True, text=True,
                              timeout=180)
        if done.returncode != 0:
            raise AssertionError("postfix %s: %s%s" % (verb, done.stderr, self.log()[-2000:]))

    def log(self):
        if not os.path.exists(self.log_path):
            return ""
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def stop(self):
        self.control("stop")

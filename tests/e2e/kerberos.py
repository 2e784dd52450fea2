"""A Kerberos realm of its own for a test: a KDC, principals, a keytab for the service."""
import os
import subprocess

from harness import Process, free_port, wait_for

REALM = "EXAMPLE.TEST"


class Kerberos:
    def __init__(self, folder):
        self.dir = os.path.join(folder, "kerberos")
        os.makedirs(self.dir)
        self.port = free_port()
        self.env = {"KRB5_CONFIG": self.dir + "/krb5.conf",
                    "KRB5_KDC_PROFILE": self.dir + "/kdc.conf",
                    "KRB5CCNAME": "FILE:%s/tickets" % self.dir}
        with open(self.dir + "/krb5.conf", "w") as f:
            f.write("[libdefaults]\n default_realm = %s\n dns_lookup_kdc = false\n"
                    " dns_canonicalize_hostname = false\n rdns = false\n"
                    "[realms]\n %s = {\n  kdc = 127.0.0.1:%d\n }\n"
                    "[domain_realm]\n mx.example.test = %s\n localhost = %s\n"
                    % (REALM, REALM, self.port, REALM, REALM))
        with open(self.dir + "/kdc.conf", "w") as f:
            f.write("[kdcdefaults]\n kdc_listen = 127.0.0.1:%d\n kdc_tcp_listen = 127.0.0.1:%d\n"
                    "[realms]\n %s = {\n  database_name = %s/principal\n"
                    "  key_stash_file = %s/stash\n  acl_file = %s/acl\n }\n"
                    % (self.port, self.port, REALM, self.dir, self.dir, self.dir))
        self.run("kdb5_util", "create", "-s", "-P", "master", "-r", REALM)
        self.process = Process(self.dir, "kdc", "/usr/sbin/krb5kdc", "-n", "-P",
                               self.dir + "/pid", env=self.env)
        self.process.wait_port(self.port)

    def run(self, *command, stdin=""):
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60,
                              env={**os.environ, **self.env,
                                   "PATH": os.environ["PATH"] + ":/usr/sbin"})
        if done.returncode != 0:
            raise AssertionError("%s: %s%s" % (" ".join(command), done.stdout, done.stderr))
        return done.stdout

    def add(self, name, password):
        self.run("kadmin.local", "-q", "addprinc -pw %s %s" % (password, name))

    def keytab(self, *services):
        """The path of a keytab with new keys for the services."""
        path = self.dir + "/keytab"
        for service in services:
            self.run("kadmin.local", "-q", "addprinc -randkey " + service)
            self.run("kadmin.local", "-q", "ktadd -k %s %s" % (path, service))
        return path

    def ticket(self, name, password):
        self.run("kinit", name, stdin=password + "\n")

    def stop(self):
        self.process.stop()

"""A next hop that wants a login: relayd and Postfix as the smarthost, passwords that fit and that do not."""
import base64
import glob
import os
import re
import shutil
import socketserver
import subprocess
import threading
import unittest
import unittest.mock

from harness import BUILD, GatewayTest, Process, free_port, make_certificate, message, wait_for

PASSWORD = "pencil, 16 g"
MAIL = "ann@example.test", ["eve@example.com"]


class SmarthostTest(GatewayTest):
    def outer(self, port, password=PASSWORD, tls="verify", name="localhost", ca=None, mode=0o600,
              start=True, more="", **changes):
        """A gateway that logs in as ann at the smarthost."""
        path = self.folder + "/password"
        with open(path, "w", encoding="utf-8") as f:
            f.write(password + "\nnot this line\n")
        os.chmod(path, mode)
        changes.setdefault("networks", "127.0.0.0/8")
        gw = self.gateway(start=False, routes="""
            route "*" { to = { "%s:%d" }  tls = %s  login = ann  password-file = "%s"
                        recipients = any  %s }""" % (name, port, tls, path, more), **changes)
        if start:
            with unittest.mock.patch.dict(os.environ, {"SSL_CERT_FILE": ca} if ca else {}):
                gw.start()
        self.outer_gw = gw
        return gw

    def assert_no_secret(self, *gateways, password=PASSWORD):
        """Neither the password nor what PLAIN and LOGIN make of it is in a log, a trace or a queue."""
        secrets = [password, base64.b64encode(password.encode()).decode(),
                   base64.b64encode(("\0ann\0" + password).encode()).decode()]
        for gw in gateways:
            texts = [gw.log()]
            for path in glob.glob(gw.dir + "/spool/**", recursive=True):
                if os.path.isfile(path):
                    with open(path, "rb") as f:
                        texts.append(f.read().decode("utf-8", "replace"))
            texts += [gw.ctl("queue", "show", row["id"]).stdout
                      for row in gw.ctl_json("queue", "list")]
            for secret in secrets:
                self.assertFalse([t for t in texts if secret in t])

    def deferred(self, gw, pattern):
        """A message is deferred, and the log, the queue and the trace say why."""
        self.assertEqual(gw.send(message("to wait"), *MAIL)[0], 250)
        line = gw.wait_log("event=delivery.deferred")
        self.assertRegex(line, pattern)
        row = wait_for(lambda: gw.ctl_json("queue", "list"), "a message in the queue")[0]
        show = gw.ctl("queue", "show", row["id"]).stdout
        self.assertRegex(show, pattern)
        gw.wait_trace((row["id"],), pattern)
        return show


class OfRelayd(SmarthostTest):
    def setUp(self):
        super().setUp()
        self.up = self.upstream()

    def smarthost(self, mechanisms, password=PASSWORD):
        gw = self.gateway(start=False, extra="sasl { mechanisms = { %s } }" % mechanisms, routes="""
            route example.test { to = { "127.0.0.1:%d" }  recipients = any }
            route "*" { to = { "127.0.0.1:%d" } }""" % (self.up.port, self.up.port))
        gw.add_user("ann", password, "--relay", "--scope", "*")
        return gw.start()

    def test_the_best_mechanism_is_used(self):
        for offered, used in (
                ("SCRAM-SHA-256-PLUS, SCRAM-SHA-256, PLAIN, LOGIN", "SCRAM-SHA-256-PLUS"),
                ("SCRAM-SHA-1-PLUS, SCRAM-SHA-1, PLAIN", "SCRAM-SHA-1-PLUS"),
                ("SCRAM-SHA-256, SCRAM-SHA-1", "SCRAM-SHA-256"), ("SCRAM-SHA-1", "SCRAM-SHA-1"),
                ("PLAIN, LOGIN", "PLAIN"), ("LOGIN", "LOGIN")):
            with self.subTest(used):
                inner = self.smarthost(offered)
                outer = self.outer(inner.submission, ca=inner.dir + "/cert.pem")
                self.assertEqual(outer.send(message("by " + used), *MAIL)[0], 250)
                self.assertRegex(self.up.find("by " + used)[0].decode(), "with ESMTPSA id")
                inner.wait_log('event=auth.ok .*user="ann" mechanism=%s ' % used)
                self.assert_no_secret(outer, inner)

    def test_a_host_may_have_tls_from_the_first_byte(self):
        inner = self.smarthost("SCRAM-SHA-256-PLUS, PLAIN")
        outer = self.outer(inner.submissions, name="smtps:localhost", ca=inner.dir + "/cert.pem")
        self.assertEqual(outer.send(message("implicit"), *MAIL)[0], 250)
        self.assertRegex(self.up.find("implicit")[0].decode(), "with ESMTPSA id")
        inner.wait_log("event=auth.ok .*mechanism=SCRAM-SHA-256-PLUS ")
        self.assertRegex(outer.wait_log("event=delivery.sent"), 'tls="TLSv1.3 .*, verified')
        unknown = self.outer(inner.submissions, name="smtps:localhost")
        self.deferred(unknown, "TLS handshake: self-signed certificate")

    def test_a_wrong_password_defers_and_a_mended_one_delivers(self):
        inner = self.smarthost("SCRAM-SHA-256, PLAIN")
        outer = self.outer(inner.submission, password="wrong", ca=inner.dir + "/cert.pem")
        show = self.deferred(outer, 'login as .{0,2}ann.{0,2} was refused: ')
        self.assertIn("535", show)
        self.assertIn("AUTH SCRAM-SHA-256\n", show)
        self.assertNotIn("PLAIN ", show.split("AUTH SCRAM")[1])
        self.assertEqual(self.up.messages(), [])
        with open(self.folder + "/password", "w", encoding="utf-8") as f:
            f.write(PASSWORD)
        outer.ctl("reload")
        # The smarthost makes one that guessed wrong wait.
        wait_for(lambda: outer.ctl("queue", "flush") and self.up.messages(), "the message", 60)
        self.assertRegex(self.up.find("to wait")[0].decode(), "with ESMTPSA id")
        self.assert_no_secret(outer, inner)

    def test_a_user_without_a_verifier_is_let_in_by_the_next_mechanism(self):
        inner = self.smarthost("SCRAM-SHA-256, PLAIN")
        with open(inner.dir + "/users") as f:
            text = f.read()
        with open(inner.dir + "/users", "w") as f:
            f.write(re.sub(r" SCRAM-SHA-\S+", "", text))
        inner.ctl("reload")
        outer = self.outer(inner.submission, ca=inner.dir + "/cert.pem")
        self.assertEqual(outer.send(message("transition"), *MAIL)[0], 250)
        self.up.find("transition")
        inner.wait_log("event=auth.ok .*mechanism=PLAIN ")

    def test_a_response_too_long_for_the_command_follows_it(self):
        password = "long " * 90
        inner = self.smarthost("PLAIN", password)
        outer = self.outer(inner.submission, password=password, ca=inner.dir + "/cert.pem")
        self.assertEqual(outer.send(message("long"), *MAIL)[0], 250)
        self.up.find("long")
        self.assert_no_secret(outer, inner, password=password)

    def test_scram_alone_goes_without_tls(self):
        inner = self.smarthost("SCRAM-SHA-256, PLAIN")
        inner.stop()
        inner.write_config(extra="sasl { mechanisms = { SCRAM-SHA-256, PLAIN }  without-tls = any }")
        inner.start()
        outer = self.outer(inner.submission, tls="off")
        self.assertEqual(outer.send(message("plain wire"), *MAIL)[0], 250)
        self.assertRegex(self.up.find("plain wire")[0].decode(), "with ESMTPA id")
        inner.wait_log("event=auth.ok .*mechanism=SCRAM-SHA-256 ")

    def test_a_password_never_goes_out_in_the_clear(self):
        inner = self.smarthost("PLAIN, LOGIN")
        inner.stop()
        inner.write_config(extra="sasl { mechanisms = { PLAIN, LOGIN }  without-tls = any }")
        inner.start()
        outer = self.outer(inner.submission, tls="off")
        self.deferred(outer, "a password goes out under TLS alone")
        self.assertNotIn("event=auth", inner.log())
        self.assertEqual(self.up.messages(), [])

    def test_nothing_is_sent_where_no_login_is_offered(self):
        inner = self.smarthost("PLAIN")
        outer = self.outer(inner.smtp, ca=inner.dir + "/cert.pem")
        inner.stop()
        inner.write_config(networks="127.0.0.0/8", extra="sasl { mechanisms = { EXTERNAL } }")
        inner.start()       # it would take the message from anybody here
        self.deferred(outer, r"no login is offered that will do \(offered: none\)")
        self.assertEqual(self.up.messages(), [])

    def test_an_impostor_sees_no_password(self):
        inner = self.smarthost("PLAIN")
        outer = self.outer(inner.submission)        # its certificate is nobody's
        self.deferred(outer, "(?i)certificate")
        self.assertNotIn("event=auth", inner.log())

    def test_the_probe_of_a_recipient_logs_in_too(self):
        inner = self.smarthost("SCRAM-SHA-256")
        outer = self.outer(inner.submission, ca=inner.dir + "/cert.pem", networks="",
                           more="", start=False)
        outer.write_config(routes=outer.routes.replace("recipients = any", "recipients = probe"))
        with unittest.mock.patch.dict(os.environ, {"SSL_CERT_FILE": inner.dir + "/cert.pem"}):
            outer.start()
        self.assertEqual(outer.send(message("probed"))[0], 250)
        self.up.find("probed")
        inner.wait_log("event=auth.ok", 2)


class Impostor(socketserver.ThreadingTCPServer):
    """Offers SCRAM and answers to it as the test says, without knowing any password."""
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), ImpostorSession)
        self.port = self.server_address[1]
        self.answer = answer
        self.mails = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self):
        self.shutdown()
        self.server_close()


class ImpostorSession(socketserver.StreamRequestHandler):
    def handle(self):
        self.say("220 hello")
        for line in self.rfile:
            words = line.decode().split()
            if words[0] == "EHLO":
                self.say("250-hello\r\n250 AUTH SCRAM-SHA-256")
            elif words[0] == "AUTH":
                nonce = base64.b64decode(words[2]).decode().split("r=")[1]
                self.say(self.server.answer(nonce))
            elif words[0] == "MAIL":
                self.server.mails += 1
                self.say("250 ok")
            else:
                self.say("250 ok")

    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")


class Impostors(SmarthostTest):
    def refuses(self, answer, why):
        host = Impostor(answer)
        self.addCleanup(host.stop)
        self.deferred(self.outer(host.port, tls="off"), why)
        self.assertEqual(host.mails, 0)

    def test_one_that_does_not_know_the_password_gets_no_mail(self):
        self.refuses(lambda nonce: "235 2.7.0 come in", "it has not proven that it knows the password")

    def test_one_that_makes_us_work_is_left(self):
        first = lambda nonce: "r=%sxyz,s=%s,i=2000000000" % (nonce, base64.b64encode(b"salt").decode())
        self.refuses(lambda nonce: "334 " + base64.b64encode(first(nonce).encode()).decode(),
                     "2000000000 iterations are asked for, more than 600000")

    def test_what_is_no_answer_to_auth_ends_it(self):
        self.refuses(lambda nonce: "250 fine", "AUTH SCRAM-SHA-256 was answered 250")
        self.refuses(lambda nonce: "334 this is no base64!", "SCRAM-SHA-256: ")


class Config(SmarthostTest):
    def test_what_would_give_the_password_away_is_refused(self):
        for options, wrong in (({"mode": 0o644}, "can be read by others than its owner"),
                               ({"tls": "opportunistic"}, "login wants tls = verify"),
                               ({"password": ""}, "a password in its first line")):
            gw = self.outer(25, start=False, **options)
            done = subprocess.run([BUILD + "/relayd", "-c", gw.config, "-n"], capture_output=True,
                                  text=True, timeout=60)
            self.assertEqual(done.returncode, 1, options)
            self.assertIn(wrong, done.stdout + done.stderr)


POSTFIX_MAIN = """\
compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = smart.example.org
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks =
maillog_file = {dir}/maillog
maillog_file_prefixes = {dir}
smtpd_tls_security_level = encrypt
smtpd_tls_cert_file = {dir}/cert.pem
smtpd_tls_key_file = {dir}/key.pem
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
cyrus_sasl_config_path = {dir}/sasl
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions =
relayhost = [127.0.0.1]:{upstream}
alias_maps =
alias_database =
local_recipient_maps =
"""
POSTFIX_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
smtp unix - - n - - smtp
error unix - - n - - error
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


class OfPostfix(SmarthostTest):
    """Postfix with Cyrus SASL and a database of two users."""

    def postfix(self, mechanisms):
        at = self.folder + "/postfix-%d" % free_port()
        os.makedirs(at + "/sasl")
        os.makedirs(at + "/queue")
        os.makedirs(at + "/data")
        shutil.chown(at + "/data", "postfix")
        os.chmod(self.folder, 0o755)
        make_certificate(at, "", "DNS:localhost")
        port = free_port()
        db = at + "/sasldb"
        subprocess.run(["perl", "-MDB_File", "-e", r"""
            tie my %h, 'DB_File', $ARGV[0], O_RDWR|O_CREAT, 0600, $DB_HASH or die $!;
            $h{"ann\0smart.example.org\0userPassword"} = $ARGV[1];
            """, db, PASSWORD], check=True)
        shutil.chown(db, "postfix")
        with open(at + "/sasl/smtpd.conf", "w") as f:
            f.write("pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: %s\n"
                    "mech_list: %s\n" % (db, mechanisms))
        for name, text in (("main.cf", POSTFIX_MAIN), ("master.cf", POSTFIX_MASTER)):
            with open(at + "/" + name, "w") as f:
                f.write(text.format(dir=at, port=port, upstream=self.up.port))
        subprocess.run(["postfix", "-c", at, "start"], check=True, capture_output=True, timeout=60)
        self.addCleanup(subprocess.run, ["postfix", "-c", at, "stop"], capture_output=True,
                        timeout=60)
        Process.wait_port(unittest.mock.Mock(**{"child.poll.return_value": None}), port)
        return at, port

    @unittest.skipUnless(shutil.which("postfix") and os.getuid() == 0 and
                         glob.glob("/usr/lib/*/sasl2/libsasldb.so*"),
                         "needs root, Postfix and the modules of Cyrus SASL")
    def test_it_lets_us_relay_after_each_mechanism(self):
        self.up = self.upstream()
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN"):
            with self.subTest(mechanism):
                at, port = self.postfix(mechanism)
                outer = self.outer(port, ca=at + "/cert.pem")
                self.assertEqual(outer.send(message("by " + mechanism), *MAIL)[0], 250)
                self.up.find("by " + mechanism)
                with open(at + "/maillog") as f:
                    self.assertIn("sasl_method=%s, sasl_username=ann" % mechanism, f.read())
                self.assert_no_secret(outer)
        at, port = self.postfix("PLAIN")
        wrong = self.outer(port, password="not the pencil", ca=at + "/cert.pem")
        show = self.deferred(wrong, "was refused: .*authentication failed")
        self.assertRegex(show, r"C: AUTH PLAIN\n.*S: 535")
        self.assert_no_secret(wrong, password="not the pencil")

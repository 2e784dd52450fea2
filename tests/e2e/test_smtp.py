"""Mail in over SMTP, with real clients: what is taken, what is refused, and with which words."""
import base64
import os
import re
import smtplib
import subprocess

from harness import Chat, GatewayTest, make_certificate, message, tls_context, wait_for
from postfix import Postfix, needs_postfix


class Conversation(GatewayTest):
    """A session by hand, as every primer on SMTP shows it."""

    def setUp(self):
        super().setUp()
        self.up = self.upstream()
        self.gw = self.gateway(self.up)

    def test_the_primer_works_by_hand(self):
        with Chat(self.gw.smtp) as c:
            self.assertRegex(c.reply(), r"^220 mx\.example\.test ESMTP")
            self.assertRegex(c.ask("HELO client.example.net"), r"^250 mx\.example\.test")
            self.assertRegex(c.ask("MAIL FROM:<bob@example.net>"), r"^250 2\.1\.0 ")
            self.assertRegex(c.ask("RCPT TO:<ann@example.test>"), r"^250 2\.1\.5 ")
            self.assertRegex(c.ask("DATA"), r"^354 ")
            c.say("Subject: by hand").say("").say("..a dot").say("bye")
            self.assertRegex(c.ask("."), r"^250 2\.0\.0 .*queued as [a-z2-7]{26}$")
            self.assertRegex(c.ask("QUIT"), r"^221 2\.0\.0 ")
            self.assertEqual(c.line(), "")
        got, envelope = self.up.find("by hand")
        self.assertTrue(got.endswith(b"Subject: by hand\r\n\r\n.a dot\r\nbye\r\n"), got)
        self.assertEqual(envelope, {"reverse_path": "bob@example.net",
                                    "forward_paths": ["ann@example.test"]})

    def test_the_other_verbs_answer(self):
        with Chat(self.gw.smtp) as c:
            c.reply()
            self.assertRegex(c.say("HELP").reply(), r"^214")
            self.assertRegex(c.ask("NOOP"), r"^250")
            self.assertRegex(c.ask("VRFY ann"), r"^252")
            self.assertRegex(c.ask("MAIL FROM:<a@b.c>"), r"^503 5\.5\.1")
            c.say("EHLO client.example.net")
            features = c.reply().upper()
            for word in ("PIPELINING", "SIZE ", "8BITMIME", "ENHANCEDSTATUSCODES", "STARTTLS"):
                self.assertIn(word, features)
            self.assertNotIn("AUTH", features)      # only under TLS
            self.assertRegex(c.ask("RCPT TO:<ann@example.test>"), r"^503")
            self.assertRegex(c.ask("FROBNICATE"), r"^500 5\.5\.")
            self.assertRegex(c.ask("MAIL FROM:bob"), r"^501 5\.")
            self.assertRegex(c.ask("MAIL FROM:<bob@example.net>"), r"^250")
            self.assertRegex(c.ask("DATA"), r"^503|^554")
            self.assertRegex(c.ask("RSET"), r"^250")
            self.assertRegex(c.ask("MAIL FROM:<bob@example.net> SIZE=999999999999"), r"^552 5\.3\.4")

    def test_pipelined_commands_are_answered_in_order(self):
        with Chat(self.gw.smtp) as c:
            c.reply()
            c.say(b"EHLO c.example.net\r\nMAIL FROM:<b@example.net>\r\nRCPT TO:<x@else.test>\r\n"
                  b"RCPT TO:<ann@example.test>\r\nDATA\r\n")
            self.assertRegex(c.reply(), "^250")
            self.assertRegex(c.reply(), "^250 2.1.0")
            self.assertRegex(c.reply(), "^550 5.7.1")
            self.assertRegex(c.reply(), "^250 2.1.5")
            self.assertRegex(c.reply(), "^354")
            c.say(b"Subject: piped\r\n\r\nx\r\n.\r\nRSET\r\nQUIT\r\n")
            self.assertRegex(c.reply(), "^250 2.0.0")
            self.assertRegex(c.reply(), "^250")
            self.assertRegex(c.reply(), "^221")
        self.assertEqual(self.up.find("piped")[1]["forward_paths"], ["ann@example.test"])

    def test_postmaster_needs_no_domain(self):
        self.assertEqual(self.gw.send(message("to pm"), rcpts=["postmaster"])[0], 250)
        self.assertEqual(self.up.find("to pm")[1]["forward_paths"], ["postmaster@example.test"])

    def test_nothing_of_a_message_is_changed_but_fields_on_top(self):
        body = "".join("line %d %s\r\n" % (i, "x" * (i % 900)) for i in range(2000))
        text = message("bytes", body + "\r\n.\r\n..\r\n.x\r\nend")
        self.assertEqual(self.gw.send(text)[0], 250)
        got, _ = self.up.find("bytes")
        self.assertTrue(got.endswith(text.encode()))
        top = got[:-len(text)].decode()
        self.assertRegex(top, r"Received: from client\.example\.net \(.*127\.0\.0\.1")
        self.assertRegex(top, r"by mx\.example\.test with ESMTP id [a-z2-7]{26}")
        for line in top.split("\r\n"):
            self.assertLessEqual(len(line), 998)

    def test_a_large_message_goes_through_a_file(self):
        text = message("large", "0123456789abcde\r\n" * 200000)
        self.assertEqual(self.gw.send(text)[0], 250)
        self.assertTrue(self.up.find("large", 60)[0].endswith(text.encode()))


class Relaying(GatewayTest):
    """No open relay by any address trick, and a reply that says so."""

    def test_foreign_recipients_are_refused_from_outside(self):
        gw = self.gateway(self.upstream())
        for path in ("eve@example.com", "@example.test:eve@example.com",
                     "eve%example.com@example.org", '"eve@example.com"@example.org',
                     "eve@[127.0.0.1]", "eve@example.test.example.com", "eve@xexample.test",
                     "example.com!eve@else.test", "@example.test,@example.com:eve@example.com",
                     "eve%example.test@example.com", "example.test!eve@example.com",
                     '"eve@example.test"@example.com', "ann@example.test@example.com",
                     "ann+example.test@example.com", "<ann@example.test>@example.com",
                     "ann@example.test,eve@example.com", "ann@example.test:eve@example.com",
                     "ann@example.test%example.com", "eve@[IPv6:::1]", "@example.test",
                     "postmaster@example.com", '"postmaster"'):
            with self.subTest(path), Chat(gw.smtp) as c:
                c.reply()
                c.say("EHLO x.example.net").reply()
                c.ask("MAIL FROM:<bob@example.net>")
                self.assertRegex(c.ask("RCPT TO:<%s>" % path), r"^55[0-9] 5\.[17]\.\d|^501 5|^553 5")

    TRICKS = ("eve%example.com@EXAMPLE.test", "example.com!eve@example.test",
              '"eve@example.com"@example.test', '"eve\\@example.com"@example.test',
              '"eve%example.com"@example.test', "ann+x%example.com@example.test")

    def test_local_tricks_stay_local(self):
        """For us a percent or bang is just a part of a local part, whoever else would send it on."""
        up = self.upstream()
        gw = self.gateway(up, networks="127.0.0.0/8")
        self.assertEqual(gw.send(message("pct"), rcpts=["eve%example.com@EXAMPLE.test"])[0], 250)
        self.assertEqual(up.find("pct")[1]["forward_paths"][0].lower(),
                         "eve%example.com@example.test")

    @needs_postfix
    def test_a_next_hop_that_trusts_us_is_no_way_to_relay(self):
        """Postfix sends user%elsewhere@ours on to user@elsewhere for clients of its own networks."""
        own, world = self.upstream(), self.upstream()
        hop = Postfix(self.folder, "smtp:[127.0.0.1]:%d" % world.port, mydestination="example.test, "
                      "example.org", local_transport="smtp:[127.0.0.1]:%d" % own.port,
                      local_recipient_maps="")
        self.addCleanup(hop.stop)
        with open(self.folder + "/recipients", "w") as f:
            f.write('ann@example.test\n"odd!name"@example.test\n@example.org\n')
        for how in ("any", "probe", self.folder + "/recipients"):
            gw = self.gateway(domains="example.test, example.org", routes="".join(
                'route %s { to = { "127.0.0.1:%d" }  recipients = %s }\n' % (domain, hop.port, how)
                for domain in ("example.test", "example.org")),
                extra='recipients { extension = "+" }')
            for path in self.TRICKS + ("eve%example.com@example.org",):
                with self.subTest(recipients=how, path=path):
                    code, said = gw.send(rcpts=[path])
                    self.assertEqual((code, said[:5]), (550, "5.1.1" if "/" in how else "5.7.1"))
            self.assertEqual(gw.send(message("honest"), rcpts=["ann+x@example.test"])[0], 250)
            with gw.smtp_client() as c:     # a line has it: the admin knows what the next hop does
                c.ehlo()
                c.mail("bob@example.net")
                self.assertEqual(c.rcpt("odd!name@example.test")[0], 250 if "/" in how else 550)
        wait_for(lambda: len(own.messages()) == 3, "the honest mail")
        self.assertEqual(world.messages(), [])

    def test_networks_may_relay(self):
        other = self.upstream()
        up = self.upstream()
        gw = self.gateway(networks="127.0.0.0/8", routes="""
            route example.test { to = { "127.0.0.1:%d" }  recipients = any }
            route "*" { to = { "127.0.0.1:%d" } }""" % (up.port, other.port))
        self.assertEqual(gw.send(message("out"), "ann@example.test", ["eve@example.com"])[0], 250)
        got, envelope = other.find("out")
        self.assertEqual(envelope["forward_paths"], ["eve@example.com"])
        self.assertNotIn(b"X-Relayd-", got)     # outbound mail never gets the findings


class Recipients(GatewayTest):
    def names(self, *lines):
        """The path of a file of recipients."""
        with open(self.folder + "/names", "w", encoding="utf-8") as f:
            f.write("\n".join(lines) + "\n")
        return f.name

    def test_the_probe_asks_the_upstream(self):
        up = self.upstream()
        gw = self.gateway(up, workers=2, routes='route example.test { to = { "127.0.0.1:%d" }  '
                          'recipients = probe }' % up.port)
        code, text = gw.send(rcpts=["nobody@example.test"])
        self.assertEqual((code, text[:5]), (550, "5.1.1"))
        self.assertEqual(gw.send(rcpts=["ann@example.test"])[0], 250)
        up.stop()
        code, text = gw.send(rcpts=["new@example.test"])
        self.assertEqual((code, text[:2]), (450, "4."))
        self.crowd(gw)
        for _ in range(8):                          # remembered, also by the worker that did not ask
            self.assertEqual(gw.send(rcpts=["ann@example.test"])[0], 250)
            code, text = gw.send(rcpts=["nobody@example.test"])
            self.assertEqual((code, text[:5]), (550, "5.1.1"))

    @needs_postfix
    def test_what_the_next_hop_has_against_a_recipient_is_told(self):
        """Only that nobody is there is 5.1.1: a sender whose friend's box is full is to keep the address."""
        says = {"full": "552 5.2.2 Mailbox is full", "closed": "550 5.7.1 Members only",
                "none": "550 5.1.1 Nobody of that name", "postmaster": "550 5.7.1 Not he"}
        hop = Postfix(self.folder, "discard:", relay_domains="example.test",
                      smtpd_recipient_restrictions="check_recipient_access inline:{%s}, permit" % ", ".join(
                          "{%s@example.test=%s}" % item for item in says.items()))
        self.addCleanup(hop.stop)
        gw = self.gateway(workers=1, routes='route example.test { to = { "127.0.0.1:%d" }  '
                          'recipients = probe }' % hop.port)
        for _ in range(2):              # asked for, and remembered
            for name, said in (("full", r"its mail server refuses it: .*Mailbox is full"),
                               ("closed", r"its mail server refuses it: .*Members only"),
                               ("none", "there is no such recipient here")):
                code, text = gw.send(rcpts=[name + "@example.test"])
                self.assertEqual((str(code), text[:5]), tuple(says[name].split()[:2]))
                self.assertRegex(text, r"<%s@example\.test>: %s.* \[id " % (name, said))
        gw.wait_log(r"why=recipient-refused")
        self.assertEqual(gw.send(rcpts=["postmaster@example.test"])[0], 250)    # there is one always

    def test_a_domain_may_be_written_as_people_write_it(self):
        """In config and file, by an editor that puts a byte order mark in front; mail comes in either form."""
        path = self.names("\ufeffann@bücher.example", "müller@bücher.example", "info@bücher.example: "
                          "ann@bücher.example")
        gw = self.gateway(domains='"bücher.example"', routes='route "bücher.example" { to = { "127.0.0.1:1" }'
                          '  recipients = %s }' % path)
        with Chat(gw.smtp) as c:
            c.reply()
            c.say("EHLO client.example.net").reply()
            c.ask("MAIL FROM:<bob@example.net> SMTPUTF8")
            for domain in ("bücher.example", "xn--bcher-kva.example"):
                for name in ("ann", "müller", "info"):
                    self.assertRegex(c.ask("RCPT TO:<%s@%s>" % (name, domain)), "^250 ")
                self.assertRegex(c.ask("RCPT TO:<eve@%s>" % domain), "^550 5.1.1 ")

    def test_who_guesses_recipients_is_shown_out(self):
        gw = self.gateway(self.upstream(), limits="recipients = 1000", routes='route example.test '
                          '{ to = { "127.0.0.1:1" }  recipients = %s }' % self.names("ann@example.test"))
        guesses = ["RCPT TO:<guess%d@example.test>" % n for n in range(150)]
        c = Chat(gw.smtp)
        self.addCleanup(c.close)
        c.reply()
        c.say("EHLO client.example.net").reply()
        c.say("\r\n".join(["MAIL FROM:<bob@example.net>"] + guesses))
        self.assertRegex(c.reply(), "^250 ")
        for _ in range(100):
            self.assertRegex(c.reply(), "^550 5.1.1 ")
        self.assertRegex(c.reply(), "^421 4.7.0 Too many refused recipients in a row")
        self.assertEqual(c.reply(), "")
        gw.wait_trace(("--ip", "127.0.0.1"), "Too many refused recipients")
        self.assertEqual(gw.send(rcpts=["ann@example.test"])[0], 250)

    def test_what_a_probe_found_is_forgotten_in_time(self):
        up = self.upstream()
        gw = self.gateway(up, routes='route example.test { to = { "127.0.0.1:%d" } }' % up.port,
                          extra="recipients { known = 1s  unknown = 1s  unreachable = 1s }")
        self.assertEqual(gw.send(rcpts=["ann@example.test"])[0], 250)
        up.stop()
        wait_for(lambda: gw.send(rcpts=["ann@example.test"])[0] == 450, "a recipient forgotten")

    def test_a_file_names_addresses_and_domains(self):
        up = self.upstream()
        path = self.folder + "/recipients"
        with open(path, "w") as f:
            f.write("# ours\nann@example.test\n@example.org\n")
        gw = self.gateway(domains="example.test, example.org", routes="".join(
            'route %s { to = { "127.0.0.1:%d" }  recipients = %s }\n' % (d, up.port, path)
            for d in ("example.test", "example.org")))
        self.assertEqual(gw.send(rcpts=["Ann@Example.TEST"])[0], 250)
        self.assertEqual(gw.send(rcpts=["any@example.org"])[0], 250)
        self.assertEqual(gw.send(rcpts=["bob@example.test"])[0], 550)
        with open(path, "a") as f:
            f.write("bob@example.test\n")
        gw.ctl("reload")
        self.assertEqual(gw.send(rcpts=["bob@example.test"])[0], 250)


    def test_a_directory_knows_recipients(self):
        ldap = self.ldap()
        up = self.upstream()
        with open(self.folder + "/secret", "w") as f:
            f.write("s3cret\n")
        gw = self.gateway(up, domains="example.test, example.org", routes="""
            ldap corp { uri = { "ldap://127.0.0.1:%d" }  bind = "cn=admin,dc=example,dc=test"
                        password-file = %s/secret  base = "dc=example,dc=test"
                        filter = "(mail=%%s)"  timeout = 2s  known = 1s  unknown = 1s }
            route example.test { to = { "127.0.0.1:%d" }  recipients = "ldap:corp" }
            route example.org { to = { "127.0.0.1:%d" }  recipients = any }"""
                          % (ldap.port, self.folder, up.port, up.port),
                          extra='recipients { extension = "+" }')
        for rcpt in ("ann@example.test", "ANN+x@Example.test", "o*d@example.test"):
            self.assertEqual(gw.send(rcpts=[rcpt])[0], 250, rcpt)
        for rcpt in ("bob@example.test", "*@example.test", "a*@example.test", "oxd@example.test", "ann)(mail=*@example.test",
                     '"ann)(mail=*"@example.test', "ann%example.com@example.test"):
            code, text = gw.send(rcpts=[rcpt])
            self.assertIn((code, text[:5]), [(550, "5.1.1"), (501, "5.1.3"), (550, "5.7.1")], rcpt)
        self.assertEqual(gw.send(rcpts=["any@example.org"])[0], 250)
        ldap.stop()
        def unreachable():
            code, text = gw.send(rcpts=["ann@example.test"])
            return (code, text[:5]) == (451, "4.4.3")
        wait_for(unreachable, "a directory that is missed")
        gw.wait_log("event=limit what=ldap section=corp")
        ldap.start()
        wait_for(lambda: gw.send(rcpts=["ann@example.test"])[0] == 250, "the directory again")

    def test_a_directory_is_asked_under_tls_by_whom_its_authority_vouches_for(self):
        for name, alternative, issuer in (("ca-", "DNS:ca.invalid", None),
                                          ("other-", "DNS:ca.invalid", None),
                                          ("good-", "IP:127.0.0.1", "ca-"),
                                          ("named-", "DNS:ldap.example.test", "ca-")):
            make_certificate(self.folder, name, alternative, issuer=issuer,
                             subject=name + "subject.invalid")
        good, named = (self.ldap(*("%s/%s-%s.pem" % (self.folder, name, what)
                                   for what in ("cert", "key"))) for name in ("good", "named"))
        with open(self.folder + "/secret", "w") as f:
            f.write("s3cret\n")
        up = self.upstream()
        rows = (("starttls", good, "starttls", "ca", None), ("ldaps", good, "ldaps", "ca", None),
                ("wrong1", good, "starttls", "other", "TLS"), ("wrong2", good, "ldaps", "other", "TLS"),
                ("system1", good, "starttls", None, "TLS"), ("system2", good, "ldaps", None, "TLS"),
                ("name1", named, "starttls", "ca", "hostname"), ("name2", named, "ldaps", "ca", "hostname"))
        text = ""
        for name, server, how, ca, _ in rows:
            text += """
            ldap %s { uri = { "%s://127.0.0.1:%d" }  starttls = %s  %s
                      bind = "cn=admin,dc=example,dc=test"  password-file = %s/secret
                      base = "dc=example,dc=test"  filter = "(mail=%%u@example.test)"  timeout = 5s }
            route %s.test { to = { "127.0.0.1:%d" }  recipients = "ldap:%s" }""" % (
                name, "ldaps" if how == "ldaps" else "ldap",
                server.tls_port if how == "ldaps" else server.port, "yes" if how != "ldaps" else "no",
                "ca = %s/%s-cert.pem" % (self.folder, ca) if ca else "", self.folder, name, up.port, name)
        gw = self.gateway(domains=", ".join(name + ".test" for name, *_ in rows), routes=text)
        for name, _, _, _, why in rows:
            with self.subTest(name):
                code, said = gw.send(rcpts=["ann@%s.test" % name])
                if why is None:
                    self.assertEqual(code, 250, said)
                    code, said = gw.send(rcpts=["bob@%s.test" % name])
                    self.assertEqual((code, said[:5]), (550, "5.1.1"))
                    continue
                self.assertEqual((code, said[:5]), (451, "4.4.3"))
                line = gw.wait_log("event=limit what=ldap section=%s " % name)
                self.assertRegex(line, r'why="ldaps?://127.0.0.1:\d+: .*%s' % why)
        self.assertNotIn("s3cret", gw.log())

    def file_gateway(self, text, **changes):
        """A gateway, its upstream, and the path of the recipients of example.test with that text."""
        up = self.upstream()
        path = self.folder + "/recipients"
        with open(path, "w") as f:
            f.write(text)
        return self.gateway(up, routes="""
            route example.test { to = { "127.0.0.1:%d" }  recipients = %s }
            route partner.example { to = { "127.0.0.1:%d" } }
            route "*" { to = { "127.0.0.1:9" } }""" % (up.port, path, up.port), **changes), up, path

    def test_aliases_rewrite_the_envelope(self):
        gw, up, _ = self.file_gateway("ann@example.test\nbob@example.test\n"
                                      "sales@example.test: ann@example.test, bob@example.test, "
                                      "eve@partner.example\n"
                                      "one@example.test: two@example.test\n"
                                      "two@example.test: one@example.test\n",
                                      limits="recipients = 4  connections-per-ip = 1000",
                                      extra='recipients { extension = "+" }')
        self.assertEqual(gw.send(message("sold"), rcpts=["Ann@example.test",
                                                         "Sales+x@example.test"])[0], 250)
        def paths():
            found = [p for m in up.messages() if b"sold" in m[0] for p in m[1]["forward_paths"]]
            return sorted(found) if len(found) >= 4 else None
        self.assertEqual(wait_for(paths, "four copies upstream"),
                         ["Ann@example.test", "ann@example.test", "bob@example.test",
                          "eve@partner.example"])
        code, text = gw.send(rcpts=["one@example.test"])
        self.assertEqual((code, text[:5]), (451, "4.4.6"))
        code, text = gw.send(rcpts=["bob@example.test", "ann+1@example.test", "sales@example.test"])
        self.assertEqual((code, text[:5]), (452, "4.5.3"))
        gw.wait_trace(("--to", "Sales+x@example.test"), "eve@partner.example")

    def test_postmaster_of_our_domains_exists(self):
        gw, up, _ = self.file_gateway("ann@example.test\n")
        self.assertEqual(gw.send(message("pm"), rcpts=["PostMaster@Example.test"])[0], 250)
        self.assertEqual(up.find("pm")[1]["forward_paths"], ["postmaster@example.test"])

    def test_an_alias_leads_nowhere_but_where_a_route_does(self):
        gw, _, path = self.file_gateway("ann@example.test\n")
        with open(path, "a") as f:
            f.write("out@example.test: eve@example.com\n")
        done = gw.ctl("reload", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("recipients:2: the domain of the target is not ours", done.stderr)
        self.assertEqual(gw.send(rcpts=["out@example.test"])[0], 550)


    def test_a_file_that_changes_is_read_again(self):
        gw, _, path = self.file_gateway("ann@example.test\n")
        self.assertEqual(gw.send(rcpts=["bob@example.test"])[0], 550)
        with open(path + ".new", "w") as f:
            f.write("ann@example.test\nbob@example.test\n")
        os.rename(path + ".new", path)
        wait_for(lambda: gw.send(rcpts=["bob@example.test"])[0] == 250, "the new recipient")
        with open(path, "a") as f:
            f.write("not an address\n")
        gw.wait_log(r"event=reload result=refused .*recipients:3: neither an address")
        self.assertEqual(gw.send(rcpts=["bob@example.test"])[0], 250)   # what was right goes on


class Replies(GatewayTest):
    """A refusal says what it is about, an id, and where to read on; the admin finds it again."""

    HELP = "https://example.test/refused"
    LINE = r"^%d%s\d\.\d{1,3}\.\d{1,3} \S.*\[(check \S+, )?id [a-z0-9]{26}(, contact \S+)?\]$"

    def check(self, reply, code, help_text=HELP):
        """A reply of two lines, both with the enhanced code."""
        lines = reply.splitlines()
        self.assertEqual(len(lines), 2, reply)
        self.assertRegex(lines[0], self.LINE % (code, "-"))
        self.assertRegex(lines[1], r"^%d \d\.\d{1,3}\.\d{1,3} %s$" % (code, re.escape(help_text)))
        self.assertTrue(all(len(line) <= 510 for line in lines))
        self.assertEqual(lines[0][4:9], lines[1][4:9])

    def test_every_refusal_helps(self):
        gw = self.gateway(self.upstream(), extra='help = "%s"' % self.HELP)
        with Chat(gw.smtp) as c:
            c.reply()
            for line, code in (("MAIL FROM:<a@example.net>", 503), ("EHLO", 501),
                               ("FOO", 500)):
                self.check(c.say(line).reply(), code)
            c.say("EHLO x.example.net").reply()
            c.say("MAIL FROM:<a@example.net>").reply()
            self.check(c.say("RCPT TO:<eve@example.com>").reply(), 550)
            self.check(c.say("RCPT TO:<eve>").reply(), 501)
            self.check(c.say("DATA").reply(), 503)
            c.say("RCPT TO:<ann@example.test>").reply()
            c.say("DATA").reply()
            self.check(c.say("bare\nline\r\n.").reply(), 550)
        gw.wait_trace(("--ip", "127.0.0.1"), "MAIL", "FOO", "EHLO")

    def test_a_filter_has_its_own_help(self):
        gw = self.gateway(self.upstream(), extra='help = "%s"' % self.HELP, filters="""
            filter slow { type = ratelimit  key = { sender }  rate = "1/1h"  help = "ask Ann" }""")
        self.assertEqual(gw.send(sender="spam@example.net")[0], 250)
        with Chat(gw.smtp) as c:
            c.reply()
            c.say("EHLO x.example.net").reply()
            self.check(c.say("MAIL FROM:<spam@example.net>").reply(), 450, "ask Ann")

    def test_who_never_got_a_session_has_a_trace(self):
        gw = self.gateway(self.upstream(), limits="connections-per-ip = 1", workers=1,
                          extra='help = "%s"' % self.HELP)
        with Chat(gw.smtp) as first:
            first.reply()
            with Chat(gw.smtp) as c:
                self.check(c.reply(), 421)
        gw.wait_trace(("--ip", "127.0.0.1"), "connections-per-ip")

    def test_a_failed_login_and_a_failed_handshake_have_a_trace(self):
        gw = self.gateway(self.upstream())
        gw.add_user("ann", "right")
        gw.ctl("reload")
        with smtplib.SMTP("127.0.0.1", gw.submission, timeout=30) as s:
            s.starttls(context=tls_context())
            with self.assertRaises(smtplib.SMTPAuthenticationError):
                s.login("ann", "wrong")
        gw.wait_trace(("--ip", "127.0.0.1"), "login", "password")
        with Chat(gw.smtp) as c:
            c.reply()
            c.say("EHLO x.example.net").reply()
            self.assertRegex(c.say("STARTTLS").reply(), "^220")
            c.say("this is no handshake")
            self.assertEqual(c.reply(), "")
        gw.wait_trace(("--ip", "127.0.0.1"), "tls")


class Limits(GatewayTest):
    def test_limits_have_their_replies(self):
        up = self.upstream()
        gw = self.gateway(up, limits="message-size = 100K  recipients = 3  connections-per-ip = 4",
                          workers=1)
        code, text = gw.send(message("big", "x\r\n" * 50000))
        self.assertEqual((code, text[:5]), (552, "5.3.4"))
        code, text = gw.send(rcpts=["r%d@example.test" % i for i in range(4)])
        self.assertEqual((code, text[:5]), (452, "4.5.3"))
        held = [Chat(gw.smtp) for _ in range(4)]
        for chat in held:
            self.assertRegex(chat.line(), "^220")
        with Chat(gw.smtp) as c:
            self.assertRegex(c.line(), r"^421 4\.7\.0")
        for chat in held:
            chat.close()
        wait_for(lambda: gw.send()[0] == 250, "room for a connection again")
        with Chat(gw.smtp) as c:
            c.reply()
            self.assertRegex(c.ask("NOOP " + "x" * 3000), r"^500 5\.5\.")
        gw.wait_log("event=limit")

    def test_a_loop_is_cut(self):
        gw = self.gateway(self.upstream())
        hops = "".join("Received: from a by b; Mon, 02 Mar 2026 10:15:42 +0000\r\n"
                       for _ in range(120))
        code, text = gw.send(message("loop", headers=hops))
        self.assertEqual((code, text[:5]), (554, "5.4.6"))


class Login(GatewayTest):
    def setUp(self):
        super().setUp()
        self.up, self.other = self.upstream(), self.upstream()
        self.gw = self.gateway(start=False, routes="""
            route example.test { to = { "127.0.0.1:%d" }  recipients = any }
            route "*" { to = { "127.0.0.1:%d" } }""" % (self.up.port, self.other.port))
        self.gw.add_user("printer", "pa55", "--relay")
        self.gw.add_user("reader", "pa56", "--scope", "*")
        self.gw.start()

    def submit(self, user, password, rcpt, implicit):
        if implicit:
            s = smtplib.SMTP_SSL("127.0.0.1", self.gw.submissions, context=tls_context(), timeout=30)
        else:
            s = smtplib.SMTP("127.0.0.1", self.gw.submission, timeout=30)
            s.starttls(context=tls_context())
        with s:
            s.login(user, password, initial_response_ok=implicit)
            s.sendmail("printer@example.test", [rcpt], message("from " + rcpt))

    def test_who_may_relay_does(self):
        for implicit in (False, True):
            self.submit("printer", "pa55", "eve%d@example.com" % implicit, implicit)
            got, _ = self.other.find("from eve%d" % implicit)
            self.assertRegex(got.decode(), r"with ESMTPSA id")

    def test_who_may_not_relay_is_told(self):
        with self.assertRaises(smtplib.SMTPRecipientsRefused) as refused:
            self.submit("reader", "pa56", "eve@example.com", True)
        self.assertEqual(list(refused.exception.recipients.values())[0][0], 550)

    def test_wrong_passwords_and_plain_text_are_refused(self):
        with self.assertRaises(smtplib.SMTPAuthenticationError) as refused:
            self.submit("printer", "wrong", "eve@example.com", True)
        self.assertEqual(refused.exception.smtp_code, 535)
        self.gw.wait_log("event=auth.fail")
        self.assertNotIn("wrong", self.gw.log())
        with Chat(self.gw.submission) as c:
            c.reply()
            self.assertNotIn("AUTH", c.say("EHLO x.example.net").reply())
            token = base64.b64encode(b"\0printer\0pa55").decode()
            self.assertRegex(c.ask("AUTH PLAIN " + token), r"^5(38|03|30|02)")
            self.assertRegex(c.ask("MAIL FROM:<a@example.test>"), r"^530 5\.7\.0")


class Swaks(GatewayTest):
    """A client that is used for this everywhere."""

    def swaks(self, *options):
        return subprocess.run(["swaks", "--server", "127.0.0.1", "--to", "ann@example.test",
                               "--from", "bob@example.net", *options], capture_output=True,
                              text=True, timeout=60)

    def test_swaks_delivers_plain_tls_and_pipelined(self):
        up = self.upstream()
        gw = self.gateway(up)
        for n, options in enumerate((["--protocol", "SMTP"], ["--protocol", "ESMTP"], ["--tls"],
                                     ["--pipeline"])):
            done = self.swaks("--port", str(gw.smtp), "--header", "Subject: swaks %d" % n, *options)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            up.find("swaks %d" % n)
        self.assertRegex(up.find("swaks 2")[0].decode(), r"with ESMTPS id")

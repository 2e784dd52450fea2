"""What was held, in the mail clients that admins have: curl, imaplib, poplib, mbsync, fetchmail."""
import imaplib
import os
import poplib
import re
import shutil
import subprocess
import unittest

from harness import GTUBE, RULES, Chat, GatewayTest, message, tls_context, wait_for


class QuarantineTest(GatewayTest):
    """A gateway with rules that know GTUBE, and the user admin of scope *."""

    def setUp(self):
        super().setUp()
        self.up = self.upstream()
        self.gw = self.gateway(self.up, start=False, filters=RULES, pop3_delete="yes")
        self.gw.add_user("admin", "secret", "--scope", "*")
        self.gw.add_user("ann", "secret", "--scope", "ann@example.test")
        self.gw.start()

    def imap(self, user="admin", port=None):
        m = imaplib.IMAP4("127.0.0.1", port or self.gw.imap, timeout=30)
        self.addCleanup(m.shutdown)
        m.login(user, "secret")
        return m

    def released(self, subject):
        return self.up.find("Subject: " + subject)


class Release(QuarantineTest):
    def test_a_move_to_release_delivers_the_original_once(self):
        text = message("free me", GTUBE, "spam@example.net", "ann@example.test")
        code, said = self.gw.send(text, "spam@example.net", ["ann@example.test", "bob@example.test"])
        self.assertEqual(code, 250, said)
        name = said.split()[-1]
        m = self.imap()
        wait_for(lambda: int(m.select("INBOX")[1][0]) == 1, "the message in INBOX")
        _, data = m.fetch("1", "(BODY.PEEK[HEADER])")
        head = data[0][1].decode()
        for field in ("Return-Path: <spam@example.net>", "X-Relayd-Id: " + name,
                      "X-Relayd-Verdict: quarantine", "X-Relayd-Findings: ", "X-Relayd-Client: 127.0.0.1",
                      "X-Relayd-Helo: client.example.net", "X-Relayd-From: "):
            self.assertIn(field, head)
        self.assertIn("GTUBE", head)
        typ, data = m.uid("MOVE", "1", "Release") if "MOVE" in m.capabilities else (None, None)
        self.assertEqual(typ, "OK", data)
        got, envelope = self.released("free me")
        self.assertEqual(envelope["reverse_path"], "spam@example.net")
        self.assertTrue(got.endswith(text.encode()))
        self.assertNotIn(b"X-Relayd-", got)
        self.assertNotIn(b"Return-Path", got)
        self.assertEqual(got.count(b"Received:"), 1)
        wait_for(lambda: int(m.select("Released")[1][0]) == 1, "the message under Released")
        self.assertEqual(int(m.select("INBOX")[1][0]), 0)
        self.up.wait_paths(["ann@example.test", "bob@example.test"])
        self.gw.wait_log("event=quarantine.released")

    def test_twice_by_two_admins_is_still_once(self):
        for n in range(5):
            self.gw.hold("race %d" % n)
        one, two = self.imap(), self.imap()
        for m in (one, two):
            wait_for(lambda m=m: int(m.select("INBOX")[1][0]) == 5, "five in INBOX")
        tags = [m._new_tag() for m in (one, two)]
        for m, tag in ((one, tags[0]), (two, tags[1])):
            m.send(tag + b" UID COPY 1:* Release\r\n")
        for m, tag in ((one, tags[0]), (two, tags[1])):
            while not m.readline().startswith(tag):
                pass
        for n in range(5):
            self.released("race %d" % n)
        wait_for(lambda: int(one.select("Released")[1][0]) == 5, "all under Released")
        self.assertEqual(len(self.up.messages()), 5)

    def test_relayctl_lists_shows_releases_and_drops(self):
        first, second = self.gw.hold("by ctl"), self.gw.hold("dropped")
        self.assertIn(first, self.gw.ctl("quarantine", "list").stdout)
        self.assertIn("spam@example.net", self.gw.ctl("quarantine", "show", first).stdout)
        self.gw.ctl("quarantine", "release", first)
        self.released("by ctl")
        self.gw.ctl("quarantine", "drop", second)
        m = self.imap()
        wait_for(lambda: int(m.select("Trash")[1][0]) == 1, "the dropped one in Trash")
        self.assertEqual(self.gw.ctl("quarantine", "show", "a" * 26, check=False).returncode, 1)

    def test_kill_of_any_role_during_release_keeps_it_exactly_once(self):
        for n in range(12):
            self.gw.hold("kill %d" % n)
        m = self.imap()
        wait_for(lambda: int(m.select("INBOX")[1][0]) == 12, "twelve in INBOX")
        m.send(m._new_tag() + b" UID COPY 1:* Release\r\n")
        for role in ("review", "delivery", "intake", "review"):
            for pid in self.gw.pids(role):
                os.kill(pid, 9)
            wait_for(lambda: self.gw.pids(role), role + " again")
        again = wait_for(self.try_imap, "IMAP again")
        wait_for(lambda: int(again.select("INBOX")[1][0]) + int(again.select("Released")[1][0]) == 12,
                 "all in INBOX or Released", 60)
        if int(again.select("INBOX")[1][0]):
            again.uid("COPY", "1:*", "Release")
        for n in range(12):
            self.released("kill %d" % n)
        wait_for(lambda: int(again.select("Released")[1][0]) == 12, "all under Released", 60)
        self.assertEqual(len(self.up.messages()), 12)

    def try_imap(self):
        try:
            return self.imap()
        except (OSError, imaplib.IMAP4.error):
            return None


class Imap(QuarantineTest):
    def test_scopes_see_what_is_theirs(self):
        self.gw.hold("for ann", ["ann@example.test"])
        self.gw.hold("for bob", ["bob@example.test"])
        self.gw.hold("for both", ["ann@example.test", "bob@example.test"])
        admin, ann = self.imap(), self.imap("ann")
        self.assertEqual(int(admin.select("INBOX")[1][0]), 3)
        self.assertEqual(int(ann.select("INBOX")[1][0]), 2)
        _, data = ann.fetch("2", "(BODY.PEEK[HEADER.FIELDS (X-Relayd-To)])")
        self.assertIn(b"ann@example.test", data[0][1])
        self.assertNotIn(b"bob@example.test", data[0][1])
        ann.uid("MOVE", "2", "Release")
        got, envelope = self.released("for both")
        self.assertEqual(envelope["forward_paths"], ["ann@example.test"])

    def test_two_clients_see_each_other_at_once(self):
        self.gw.hold("first")
        one, two = self.imap(), self.imap()
        one.select("INBOX")
        two.select("INBOX")
        two.store("1", "+FLAGS", r"(\Flagged)")
        one.noop()      # says by itself what is new, not only who asks by FETCH
        self.assertIn(b"1 (UID 1 FLAGS (\\Flagged))", one.response("FETCH")[1])
        tag = one._new_tag()
        one.send(tag + b" IDLE\r\n")
        self.assertTrue(one.readline().startswith(b"+"))
        lines = []

        def told(what):
            while not any(what in line for line in lines):
                line = one.readline()
                self.assertTrue(line, lines)
                lines.append(line)
        two.store("1", "+FLAGS", r"(\Seen)")
        told(b"* 1 FETCH (UID 1 FLAGS (\\Flagged \\Seen))")
        self.gw.hold("second")
        told(b"* 2 EXISTS")
        two.uid("MOVE", "1", "Trash")
        told(b"* 1 EXPUNGE")
        one.send(b"DONE\r\n")
        while not one.readline().startswith(tag):
            pass

    def test_fetch_search_and_store(self):
        self.gw.hold("alpha")
        self.gw.hold("beta")
        m = self.imap(port=self.gw.imap)
        m.select("INBOX")
        self.assertEqual(m.search(None, "SUBJECT", "beta")[1], [b"2"])
        self.assertEqual(m.search(None, "TEXT", "GTUBE", "NOT", "SUBJECT", "alpha")[1], [b"2"])
        self.assertEqual(m.search(None, "UNSEEN")[1], [b"1 2"])
        typ, data = m.fetch("1:2", "(UID FLAGS ENVELOPE INTERNALDATE RFC822.SIZE BODYSTRUCTURE)")
        self.assertEqual((typ, len(data)), ("OK", 2))
        self.assertRegex(data[0].decode(), r'ENVELOPE \("Mon, 02 Mar 2026 10:15:42 \+0000" "alpha"')
        _, data = m.fetch("1", "(BODY.PEEK[TEXT]<0.10>)")
        self.assertEqual(data[0][1], GTUBE.encode()[:10])
        m.fetch("1", "(RFC822)")
        self.assertEqual(m.search(None, "SEEN")[1], [b"1"])
        _, whole = m.fetch("1", "(BODY.PEEK[])")
        size = int(re.search(rb"RFC822.SIZE (\d+)", m.fetch("1", "(RFC822.SIZE)")[1][0])[1])
        self.assertEqual(len(whole[0][1]), size)
        m.store("1", "+FLAGS", r"(\Deleted)")
        m.expunge()
        self.assertEqual(int(m.select("Trash")[1][0]), 1)

    def test_what_cannot_be_done_is_a_clear_no(self):
        m = self.imap()
        for typ, data in (m.create("Mine"), m.delete("INBOX"), m.rename("INBOX", "X"),
                          m.append("Release", None, None, b"Subject: x\r\n\r\n")):
            self.assertEqual(typ, "NO")
            self.assertGreater(len(data[0]), 10)
        names = b"\n".join(m.list()[1])
        for box in (b"INBOX", b"Release", b"Released", b"Trash"):
            self.assertIn(box, names)
        with self.assertRaises(imaplib.IMAP4.error):
            imaplib.IMAP4("127.0.0.1", self.gw.imap, timeout=30).login("admin", "wrong")
        self.gw.wait_log("event=auth.fail")

    def test_by_hand(self):
        with Chat(self.gw.imap) as c:
            self.assertRegex(c.line(), r"^\* OK ")
            c.say("a1 CAPABILITY")
            self.assertRegex(c.line(), r"^\* CAPABILITY IMAP4rev1")
            self.assertRegex(c.line(), r"^a1 OK")
            self.assertRegex(c.ask("a2 SELECT INBOX"), r"^a2 (NO|BAD) ")
            self.assertRegex(c.ask("a3 LOGIN admin secret"), r"^a3 OK|^\* CAPABILITY")
            self.assertRegex(c.ask("gibberish"), r"BAD")

    @unittest.skipUnless(shutil.which("curl"), "curl is not installed")
    def test_curl_reads_over_imaps(self):
        self.gw.hold("curled")
        out = subprocess.run(["curl", "-sk", "-u", "admin:secret",
                              "imaps://127.0.0.1:%d/INBOX;UID=1" % self.gw.imaps],
                             capture_output=True, timeout=60)
        self.assertIn(b"Subject: curled", out.stdout)

    @unittest.skipUnless(shutil.which("mbsync"), "isync is not installed")
    def test_mbsync_mirrors_it(self):
        for n in range(5):
            self.gw.hold("sync %d" % n)
        home = self.folder + "/mbsync"
        os.makedirs(home + "/mail")
        with open(home + "/rc", "w") as f:
            f.write("IMAPAccount q\nHost 127.0.0.1\nPort %d\nUser admin\nPass secret\nSSLType None\n"
                    "AuthMechs LOGIN\n\nIMAPStore far\nAccount q\n\nMaildirStore near\nPath %s/mail/\n"
                    "Inbox %s/mail/INBOX\nSubFolders Verbatim\n\nChannel c\nFar :far:\nNear :near:\n"
                    "Patterns *\nCreate Near\nSync Pull\nSyncState *\n" % (self.gw.imap, home, home))
        for _ in range(2):      # the second run finds nothing new
            done = subprocess.run(["mbsync", "-c", home + "/rc", "-a"], capture_output=True, text=True,
                                  timeout=120)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            new = os.listdir(home + "/mail/INBOX/new") + os.listdir(home + "/mail/INBOX/cur")
            self.assertEqual(len(new), 5)


class Pop3(QuarantineTest):
    def pop3(self, tls=False):
        p = (poplib.POP3_SSL("127.0.0.1", self.gw.pop3s, timeout=30, context=tls_context()) if tls
             else poplib.POP3("127.0.0.1", self.gw.pop3, timeout=30))
        p.user("admin")
        p.pass_("secret")
        return p

    def test_poplib_reads_and_drops(self):
        self.gw.hold("popped")
        self.gw.hold("stays")
        p = self.pop3(tls=True)
        self.assertEqual(p.stat()[0], 2)
        self.assertIn("UIDL", p.capa())
        self.assertIn(b"Subject: popped", p.retr(1)[1])
        self.assertEqual(len(p.top(2, 0)[1][-1]), 0)
        self.assertNotEqual(p.uidl(1), p.uidl(2))
        with self.assertRaises(poplib.error_proto) as busy:     # exclusive
            self.pop3()
        self.assertIn(b"IN-USE", busy.exception.args[0])
        p.dele(1)
        p.quit()
        p = wait_for(self.pop3, "the lock")
        self.assertEqual(p.stat()[0], 1)
        p.quit()
        self.assertEqual(int(self.imap().select("Trash")[1][0]), 1)

    def test_by_hand(self):
        with Chat(self.gw.pop3) as c:
            self.assertRegex(c.line(), r"^\+OK ")
            self.assertRegex(c.ask("STAT"), r"^-ERR ")
            self.assertRegex(c.ask("USER admin"), r"^\+OK")
            self.assertRegex(c.ask("PASS wrong"), r"^-ERR")
            self.assertRegex(c.ask("USER admin"), r"^\+OK")
            self.assertRegex(c.ask("PASS secret"), r"^\+OK")
            self.assertRegex(c.ask("STAT"), r"^\+OK 0 0")
            self.assertRegex(c.ask("RETR 1"), r"^-ERR ")
            self.assertRegex(c.ask("QUIT"), r"^\+OK")

    def test_pipelined_commands_are_answered_in_order(self):
        self.gw.hold("piped")
        with Chat(self.gw.pop3) as c:       # also behind an answer that takes its time
            c.say(b"USER admin\r\nPASS wrong\r\nUSER admin\r\nPASS secret\r\nSTAT\r\nTOP 1 0\r\nNOOP\r\nQUIT\r\n")
            said = c.file.read().decode()
        firsts = [line for line in said.splitlines() if re.match(r"\+OK|-ERR", line)]
        self.assertEqual([line[0] for line in firsts], list("++-++++++"), said)
        self.assertIn("Subject: piped", said)

    @unittest.skipUnless(shutil.which("fetchmail"), "fetchmail is not installed")
    def test_fetchmail_fetches_it(self):
        self.gw.hold("fetched")
        home = self.folder + "/fetchmail"
        os.makedirs(home, 0o700)
        rc = home + "/rc"
        with open(rc, "w") as f:
            f.write("poll 127.0.0.1 service %d protocol pop3 uidl auth password\n  user admin password "
                    "secret keep mda 'cat >> %s/got'\n" % (self.gw.pop3, home))
        os.chmod(rc, 0o600)
        done = subprocess.run(["fetchmail", "-f", rc, "--nosyslog", "--sslproto", "", "-v"],
                              capture_output=True, text=True, timeout=60,
                              env={**os.environ, "HOME": home, "FETCHMAILHOME": home})
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        with open(home + "/got") as f:
            self.assertIn("Subject: fetched", f.read())

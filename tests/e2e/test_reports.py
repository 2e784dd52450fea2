"""Bounces and other reports as a mail program reads them: RFC 3464, 6522, 3461, 6533, 3834."""
import email
import email.policy
import re
import socketserver
import threading
import unittest

from harness import GatewayTest, free_port, wait_for

DSN, EIGHT, UTF8 = "DSN", "8BITMIME", "SMTPUTF8"


class Peer(socketserver.ThreadingTCPServer):
    """A next hop that offers these extensions, and answers as told: replies[command and address] is said."""
    allow_reuse_address = daemon_threads = True

    def __init__(self, *extensions, replies=()):
        super().__init__(("127.0.0.1", 0), PeerSession)
        self.extensions, self.replies = extensions, list(replies)
        self.got = []       # (MAIL line, [RCPT line], bytes)
        self.lock = threading.Lock()
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self):
        self.shutdown()
        self.server_close()

    def reply(self, line):
        for text, reply in self.replies:
            if text.encode() in line:
                return reply.encode() + b"\r\n"
        return b"250 2.0.0 ok\r\n"

    def to(self, path):
        """The messages for that path."""
        with self.lock:
            return [g for g in self.got if any(b"<%s>" % path.encode() in r for r in g[1])]


class PeerSession(socketserver.StreamRequestHandler):
    def handle(self):
        peer, mail, rcpts = self.server, b"", []
        self.wfile.write(b"220 peer ESMTP\r\n")
        for line in self.rfile:
            word = line[:4].upper()
            reply = peer.reply(line)
            if word == b"EHLO":
                lines = ["peer"] + list(peer.extensions)
                reply = b"".join(b"250%s%s\r\n" % (b" " if i + 1 == len(lines) else b"-", text.encode())
                                 for i, text in enumerate(lines))
            elif word == b"MAIL":
                mail, rcpts = line, []
            elif word == b"RCPT" and reply[:1] == b"2":
                rcpts.append(line)
            elif word == b"DATA":
                self.wfile.write(b"354 go\r\n")
                body = []
                for text in self.rfile:
                    if text == b".\r\n":
                        break
                    body.append(text[1:] if text[:1] == b"." else text)
                with peer.lock:
                    peer.got.append((mail, rcpts, b"".join(body)))
            elif word == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            self.wfile.write(reply)


class Report:
    """A report, parsed as strictly as Python does."""

    def __init__(self, case, got):
        self.mail, self.rcpts, self.raw = got
        case.assertTrue(self.mail.upper().startswith(b"MAIL FROM:<>"), self.mail)
        for line in self.raw.split(b"\r\n"):
            case.assertLessEqual(len(line), 998)
            case.assertNotIn(b"\n", line)
            case.assertNotIn(b"\r", line)
        self.msg = email.message_from_bytes(self.raw, policy=email.policy.SMTPUTF8.clone(raise_on_defect=True))
        for part in self.msg.walk():
            case.assertEqual(part.defects, [])
            for name in part.keys():
                case.assertEqual(getattr(part[name], "defects", ()), (), name)
        case.assertEqual(self.msg.get_content_type(), "multipart/report")
        case.assertEqual(self.msg["auto-submitted"], "auto-replied")
        case.assertEqual(len(self.msg.get_payload()), 3)
        self.text, self.status, self.original = self.msg.get_payload()
        case.assertEqual("message/" + self.msg.get_param("report-type"), self.status.get_content_type())
        self.blocks = [self.fields(b) for b in self.status_text().strip("\r\n").split("\r\n\r\n")]
        for block in self.blocks[1:]:
            case.assertRegex(block["status"], r"^[245]\.\d{1,3}\.\d{1,3}$")
        case.assertIn("reporting-mta", self.blocks[0])

    def status_text(self):
        """The bytes of the second part, as they stand."""
        boundary = ("--" + self.msg.get_boundary()).encode()
        part = self.raw.split(boundary)[2]
        return part.split(b"\r\n\r\n", 1)[1].decode()

    @staticmethod
    def fields(block):
        return {name.lower(): value.strip() for name, value in
                (line.split(":", 1) for line in re.sub(r"\r\n[ \t]+", " ", block).split("\r\n") if line)}

    def about(self, path):
        return [b for b in self.blocks[1:] if b["final-recipient"].endswith(path)][0]

    def words(self):
        return self.text.get_content()


class Reports(GatewayTest):
    def send(self, ahead, back, mail, rcpts, text, to="ann@example.test", **changes):
        """Sends a message to that port; what comes back to the peer `back`, for that path."""
        self.addCleanup(back.close)
        changes.setdefault("queue", "retry = { 1s }  expire = 1h  reserve = 1M")
        self.gw = self.gateway(networks="127.0.0.0/8", routes="""
            route example.test { to = { "127.0.0.1:%d" }  recipients = any  tls = off }
            route "*" { to = { "127.0.0.1:%d" }  tls = off }""" % (back.port, ahead), **changes)
        with self.gw.smtp_client() as c:
            c.ehlo()
            for line in ["MAIL FROM:" + mail] + ["RCPT TO:" + r for r in rcpts] + ["DATA"]:
                c.send(line.encode() + b"\r\n")
                self.assertIn(c.getreply()[0], (250, 354), line)
            c.send(text.encode() + b".\r\n")
            self.assertEqual(c.getreply()[0], 250)
        return wait_for(lambda: back.to(to), "a report to " + to)[0]

    def report(self, ahead, back, *args, **named):
        """The same, as a report."""
        self.addCleanup(ahead.close)
        return Report(self, self.send(ahead.port, back, *args, **named))

    def test_a_failure_says_whom_where_and_why(self):
        ahead = Peer(EIGHT, DSN, replies=[("nobody", "550-5.1.1 no such\r\n550 5.1.1 user here"),
                                          ("odd", "550 4.2.1 of another class")])
        r = self.report(ahead, Peer(EIGHT), "<ann@example.test> RET=FULL ENVID=QQ+2B314+3D159",
                        ["<nobody@example.com> ORCPT=rfc822;no+2Bbody@example.com", '<"odd one"@example.com>',
                         "<silent@example.com> NOTIFY=NEVER", "<fine@example.com>"],
                        "Subject: =?utf-8?q?a=C3=A4?=\r\nMessage-ID: <1@a.b>\r\n\r\nbody\r\n")
        self.assertEqual(r.blocks[0]["original-envelope-id"], "QQ+314=159")
        self.assertEqual([b["final-recipient"] for b in r.blocks[1:]],
                         ["rfc822;nobody@example.com", 'rfc822;"odd one"@example.com'])
        nobody = r.about("nobody@example.com")
        self.assertEqual(nobody["original-recipient"], "rfc822;no+body@example.com")
        self.assertEqual((nobody["action"], nobody["status"]), ("failed", "5.1.1"))
        self.assertEqual(nobody["remote-mta"], "dns; [127.0.0.1]")
        self.assertEqual(nobody["diagnostic-code"], "smtp; 550 5.1.1 no such user here")
        self.assertEqual(r.about('"odd one"@example.com')["status"], "5.0.0")
        self.assertEqual(r.msg["subject"], "Your message could not be delivered: aä")
        self.assertEqual(r.msg["in-reply-to"], "<1@a.b>")
        self.assertEqual(r.original.get_content_type(), "message/rfc822")
        self.assertEqual(r.original.get_content().get_content(), "body\r\n")
        self.assertEqual(r.msg["content-transfer-encoding"], "7bit")

    def test_an_address_that_is_not_ascii_does_not_keep_the_report_from_its_sender(self):
        """His server takes no SMTPUTF8: nothing in the header of the report needs it."""
        r = self.report(Peer(EIGHT), Peer(EIGHT), "<ann@example.test> SMTPUTF8",
                        ["<ж@example.com> ORCPT=utf-8;\\x{436}@example.com"], "Subject: жжж, ж\r\n\r\nbody\r\n")
        self.assertNotIn(b"SMTPUTF8", r.mail)
        self.assertEqual(r.status.get_content_type(), "message/global-delivery-status")
        self.assertEqual(r.about("@example.com")["final-recipient"], "utf-8;ж@example.com")
        self.assertEqual(r.about("@example.com")["status"], "5.6.7")
        self.assertEqual(r.msg["subject"], "Your message could not be delivered: жжж, ж")
        self.assertIn("<ж@example.com>", r.words())
        r.raw.split(b"\r\n\r\n")[0].decode("ascii")

    def test_a_report_that_needs_smtputf8_says_so(self):
        ahead = Peer(EIGHT, UTF8, replies=[("example.com", "550 5.1.1 no")])
        self.addCleanup(ahead.close)
        mail, _, raw = self.send(ahead.port, Peer(EIGHT, UTF8), "<änn@example.test> SMTPUTF8", ["<ж@example.com>"],
                                 "Subject: ж\r\n\r\nbody\r\n", to="änn@example.test")
        self.assertIn(b"SMTPUTF8", mail)
        self.assertIn("To: <änn@example.test>", raw.decode())    # the email package does not know such
        self.assertIn("could not be delivered:\r\n ж\r\n", raw.decode())

    def test_an_8_bit_report_reaches_a_7_bit_server_in_ascii(self):
        back = Peer()
        r = self.report(Peer(EIGHT, replies=[("nobody", "550 5.1.1 no")]), back, "<ann@example.test>",
                        ["<nobody@example.com>"], "Subject: x\r\n\r\nsome töxt\r\n")
        r.raw.decode("ascii")
        self.assertEqual(r.about("nobody@example.com")["status"], "5.1.1")
        self.assertIn(b"some t??xt", r.raw)
        wait_for(lambda: not self.gw.ctl_json("queue", "list"), "an empty queue")
        self.assertEqual(len(back.got), 1)

    def test_of_a_message_without_a_header_all_is_returned(self):
        r = self.report(Peer(EIGHT, replies=[("nobody", "550 no")]), Peer(EIGHT), "<ann@example.test>",
                        ["<nobody@example.com>"], "no header at all\r\nbut text\r\n")
        self.assertEqual(r.original.get_content().get_content(), "no header at all\r\nbut text\r\n")
        self.assertEqual(r.about("nobody@example.com")["status"], "5.0.0")

    def test_of_a_long_message_the_header_is_returned_and_the_text_says_so(self):
        r = self.report(Peer(EIGHT, replies=[("nobody", "550 5.1.1 " + "x" * 490)]), Peer(EIGHT),
                        "<ann@example.test> RET=FULL", ["<nobody@example.com>"],
                        "Subject: %s\r\n\r\n%s" % ("s" * 989, ("z" * 998 + "\r\n") * 400))
        self.assertEqual(r.original.get_content_type(), "text/rfc822-headers")
        self.assertIn("s" * 989, r.original.get_content())
        self.assertIn("too long to be returned", r.words())
        self.assertLess(len(r.raw), 10000)

    def test_a_header_alone_is_returned_where_that_was_asked_for(self):
        r = self.report(Peer(EIGHT, replies=[("nobody", "550 no")]), Peer(EIGHT), "<ann@example.test> RET=HDRS",
                        ["<nobody@example.com>"], "Subject: x\r\n\r\nbody\r\n")
        self.assertEqual(r.original.get_content(), "Subject: x\r\n")
        self.assertNotIn("too long", r.words())

    def test_success_is_told_where_the_next_hop_would_not(self):
        r = self.report(Peer(EIGHT), Peer(EIGHT), "<ann@example.test> RET=FULL",
                        ["<ok@example.com> NOTIFY=SUCCESS", "<quiet@example.com>"], "Subject: x\r\n\r\nbody\r\n")
        self.assertEqual([b["action"] for b in r.blocks[1:]], ["relayed"])
        self.assertEqual(r.about("ok@example.com")["status"], "2.0.0")
        self.assertEqual(r.original.get_content_type(), "text/rfc822-headers")
        self.assertIn("passed on", r.words())

    def test_a_refused_bounce_goes_to_the_postmaster_and_says_what_it_is(self):
        r = self.report(Peer(EIGHT, replies=[("nobody", "550 5.1.1 no")]),
                        Peer(EIGHT, replies=[("<ann@", "550 5.7.1 go away")]), "<ann@example.test>",
                        ["<nobody@example.com>"], "Subject: x\r\n\r\nbody\r\n", to="postmaster@example.test")
        self.assertTrue(r.msg["subject"].startswith("A delivery report could not be delivered"))
        self.assertIn("does not know that his message was lost", r.words().replace("\n", " "))
        self.assertEqual(r.about("ann@example.test")["status"], "5.7.1")
        self.assertEqual(r.original.get_content().get_content_type(), "multipart/report")
        wait_for(lambda: not self.gw.ctl_json("queue", "list"), "an empty queue")

    def test_what_expires_says_so_and_names_no_server_that_was_silent(self):
        r = Report(self, self.send(free_port(), Peer(EIGHT), "<ann@example.test>", ["<nobody@example.com>"],
                                   "Subject: x\r\n\r\nbody\r\n",
                                   queue="retry = { 1s }  expire = 2s  reserve = 1M"))
        nobody = r.about("nobody@example.com")
        self.assertEqual((nobody["action"], nobody["status"][:4]), ("failed", "4.4."))
        self.assertTrue(nobody["diagnostic-code"].startswith("x-relayd; "))
        self.assertNotIn("remote-mta", nobody)
        self.assertIn("have given up", r.words())


if __name__ == "__main__":
    unittest.main()

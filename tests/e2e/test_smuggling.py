"""No second message hides in the first, and no command in another one's argument (SMTP smuggling).

A front and a back that read different line ends see different commands in the same bytes.  So between
each two states of a session goes what such a pair would be tricked with; what must come out is what
RFC 5321 makes of those bytes: a command ends with CRLF alone and has one reply, data ends with
<CRLF>.<CRLF> alone, and upstream arrive the honest messages, byte for byte.
"""
import base64
import re
import socket

from harness import PATIENCE, Chat, GatewayTest, free_port, tls_context, wait_for

# What somebody takes for a line end, and none of them is: alone, around a dot, behind a true one.
ENDS = (b"\n", b"\r", b"\0", b"\n\r", b"\r\r", b"\n\n", b"\n.\n", b"\r.\r", b"\n.\r", b"\0.\0", b"\r\n\n",
        b"\r\n\r", b"\r\n\0", b"\r\n.\n", b"\r\n.\r", b"\r\n.\0", b"\x0b", b"\x0c", b"\x85", b"\xc2\x85",
        b"\xe2\x80\xa8", b"\x1a", b"\r\0\n", b"%0d%0a", b"\\r\\n")
# The same for the end of a message; commands follow it.
DATA_ENDS = (b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\n.\r", b"\r.\n",
             b"\r\n.\r\r\n", b"\r\r\n.\r\r\n", b"\r\n\n.\r\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\0\r\n.\n",
             b"\r\n\r.\r\n", b"\n\n.\n\n", b"\r\r.\r\r", b"\r\0\n.\r\0\n", b"\r\n.\x0b\r\n", b"\r\n.\x1a\r\n",
             b"\x85.\x85", b"\xe2\x80\xa8.\xe2\x80\xa8", b"\r\n .\r\n", b"\r\n. \r\n", b"\r\n..\r\n",
             b"\r\n\t.\r\n", b"\r\n.\xc2\xa0\r\n", b"\r\n=2E\r\n")
EVIL = (b"RSET", b"MAIL FROM:<evil@example.net>", b"RCPT TO:<eve@example.test>", b"DATA",
        b"Subject: smuggled", b"", b"x", b".")
EHLO, MAIL, RCPT = (b"EHLO c.example.net\r\n", b"MAIL FROM:<bob@example.net>\r\n",
                    b"RCPT TO:<ann@example.test>\r\n")


def smuggle(lead, end):
    """One command of the front's: lead, and behind it what the back is to take for more."""
    return end.join((lead,) + EVIL) + b"\r\n"


def commands(sent):
    """How many commands those bytes are."""
    return sent.count(b"\r\n")


def is_text(data):
    """Whether all of it is lines that end with CRLF, without a NUL."""
    return b"\0" not in data and not re.search(rb"\r(?!\n)|(?<!\r)\n", data)


def without_stuffing(data):
    return re.sub(rb"(?m)^\.", b"", data)


def replies_in(said):
    """[code] of the replies; the bytes must be such and nothing else."""
    codes = []
    for line in said.decode("ascii").splitlines(True):
        m = re.fullmatch(r"(\d{3})([ -]).*\r\n", line)
        if m is None:
            raise AssertionError("no line of a reply: %r" % line)
        if m[2] == " ":
            codes.append(int(m[1]))
    return codes


class Smuggling(GatewayTest):
    hops = 1

    def setUp(self):
        super().setUp()
        self.up = self.upstream()
        self.expected = []      # messages, without the fields on top
        self.count = 0

    def honest(self, text=b"hello"):
        """The bytes of a message that is expected upstream."""
        self.count += 1
        data = b"Subject: honest %d\r\n\r\n%s\r\n" % (self.count, text)
        self.expected.append(data)
        return data

    def talk(self, sock, before, evil, after):
        """Sends all of it, cut within the evil part; [code] of all replies behind the greeting."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        at = len(evil) // 2
        for part in before + evil[:at], evil[at:] + after:
            sock.sendall(part)
        said = b""
        while chunk := sock.recv(65536):
            said += chunk
        return replies_in(said)

    def session(self, before, evil, after):
        with socket.create_connection(("127.0.0.1", self.gw.smtp), PATIENCE) as s:
            codes = self.talk(s, before, evil, after + b"QUIT\r\n")
        self.assertEqual((codes[0], codes[-1]), (220, 221), codes)
        return codes[1:-1]

    def arrived(self):
        """Upstream is what was expected, to whom and from whom, once each, and nothing waits."""
        wait_for(lambda: len(self.up.messages()) >= len(self.expected), "the messages upstream", 120)
        wait_for(lambda: not self.gw.ctl_json("queue", "list"), "an empty queue")
        got = []
        for text, envelope in self.up.messages():
            self.assertEqual(envelope, {"reverse_path": "bob@example.net",
                                        "forward_paths": ["ann@example.test"]}, text)
            top, _, rest = text.partition(b"Subject: honest ")
            self.assertEqual(len(re.findall(rb"(?m)^Received:", top)), self.hops)
            got.append(b"Subject: honest " + rest)
        self.assertEqual(sorted(got), sorted(self.expected))

    def test_between_commands_nothing_is_taken_for_a_line_end(self):
        self.gw = self.gateway(self.up)
        start = {"before EHLO": (b"", EHLO + MAIL + RCPT, (b"EHLO x", b"NOOP", b"")),
                 "after EHLO": (EHLO, MAIL + RCPT, (b"MAIL FROM:<bob@example.net>", b"VRFY ann",
                                                    b"RSET", b"STARTTLS ")),
                 "after MAIL": (EHLO + MAIL, RCPT, (b"RCPT TO:<ann@example.test>", b"NOOP")),
                 "after RCPT": (EHLO + MAIL + RCPT, b"", (b"NOOP", b"DATA ", b"RCPT TO:<x@else.test>")),
                 "before BDAT": (EHLO + MAIL + RCPT, b"", (b"BDAT ", b"BDAT 3"))}
        for name, (before, then, leads) in start.items():
            for lead in leads:
                for end in ENDS:
                    evil = smuggle(lead, end)
                    with self.subTest(state=name, lead=lead, end=end):
                        if b"\r\n" in end and (name == "before EHLO" or lead in (b"DATA ", b"STARTTLS ")):
                            continue    # like a PROXY header; the command, and what belongs to it
                        if lead.startswith(b"BDAT"):    # no size: no way to know where it ends
                            self.refused_bdat(before, evil)
                            continue
                        codes = self.session(before, evil, then + b"DATA\r\n" + self.honest() + b".\r\n")
                        self.assertEqual(len(codes), commands(before + evil + then) + 2, codes)
                        self.assertEqual(codes[-2:], [354, 250])
        self.after_the_dot()
        self.arrived()

    def refused_bdat(self, before, evil):
        """A session that ends there, or goes on with one reply a command."""
        with socket.create_connection(("127.0.0.1", self.gw.smtp), PATIENCE) as s:
            codes = self.talk(s, before, evil, b"QUIT\r\n")
        self.assertGreaterEqual(codes[1 + commands(before)], 500, codes)
        self.assertLessEqual(len(codes), 1 + commands(before + evil) + 1, codes)
        self.assertFalse({354} & set(codes))

    def after_the_dot(self):
        for end in ENDS:
            with self.subTest(state="after the dot", end=end):
                before = EHLO + MAIL + RCPT + b"DATA\r\n"
                evil = smuggle(b"", end)
                codes = self.session(before + self.honest() + b".\r\n", evil,
                                     MAIL + RCPT + b"DATA\r\n" + self.honest() + b".\r\n")
                self.assertEqual(len(codes), commands(before) + 1 + commands(evil) + 4, codes)
                self.assertEqual(codes[-4:], [250, 250, 354, 250])

    def gate(self):
        return self.gateway(self.up)

    def test_within_data_nothing_else_ends_it(self):
        self.gw = self.gate()
        tail = b"\r\n".join(EVIL[1:-1]) + b"\r\n"
        before = EHLO + MAIL + RCPT + b"DATA\r\n"
        for place, text in (("at the start", b""), ("in the header", b"Subject: "),
                            ("behind the header", b"Subject: s\r\n\r\n"),
                            ("in a line", b"Subject: s\r\n\r\ntext"),
                            ("behind a line", b"Subject: s\r\n\r\ntext\r\n"),
                            ("behind a CR", b"Subject: s\r\n\r\ntext\r"),
                            ("behind a dot", b"Subject: s\r\n\r\n..")):
            for end in DATA_ENDS:
                with self.subTest(place=place, end=end):
                    self.count += 1
                    data = text + end + tail
                    if text[:1] != b"S":
                        data = b"X: " + data
                    data = b"Subject: honest %d\r\n" % self.count + data
                    if b"\r\n.\r\n" in data:
                        continue    # a true one
                    if is_text(data):
                        self.expected.append(without_stuffing(data))
                    codes = self.session(before, data, b".\r\n" + MAIL + RCPT + b"DATA\r\n"
                                         + self.honest() + b".\r\n")
                    self.assertEqual(codes, [250, 250, 250, 354, 250 if is_text(data) else 550,
                                             250, 250, 354, 250])
        self.arrived()

    def test_a_chunk_is_as_long_as_it_said(self):
        self.gw = self.gate()
        before = EHLO + MAIL + RCPT
        tail = b"\r\n".join(EVIL[1:]) + b"\r\n"
        for end in DATA_ENDS + (b"\r\n.\r\n", b"\r\n.\r\nBDAT 0 LAST\r\n"):
            for cut in (None, 1, 2, len(end)):
                with self.subTest(end=end, cut=cut):
                    self.count += 1
                    data = b"Subject: honest %d\r\n\r\ntext%s%s" % (self.count, end, tail)
                    good = is_text(data)
                    if good:
                        self.expected.append(data)
                    if cut is None:
                        evil, replies = b"BDAT %d LAST\r\n%s" % (len(data), data), 1
                    else:   # the second chunk begins within the false end
                        at = data.index(end) + min(cut, len(end))
                        evil, replies = b"BDAT %d\r\n%sBDAT %d LAST\r\n%s" % (
                            at, data[:at], len(data) - at, data[at:]), 2
                    codes = self.session(before, evil, MAIL + RCPT + b"DATA\r\n" + self.honest()
                                         + b".\r\n")
                    self.assertEqual(len(codes), 3 + replies + 4, codes)
                    self.assertEqual(codes[-5] == 250, good, codes)
                    self.assertEqual(codes[-4:], [250, 250, 354, 250])
        self.arrived()

    def test_between_chunks_and_in_refused_ones_nothing_is_a_command(self):
        self.gw = self.gate()
        for end in ENDS + (b"\r\n",):
            for lead in (b"NOOP", b"MAIL FROM:<x@example.net>", b"RCPT TO:<x@example.test>", b"DATA "):
                evil = smuggle(lead, end)
                with self.subTest(state="in a refused chunk", lead=lead, end=end):
                    data = self.honest()
                    codes = self.session(EHLO + b"BDAT %d\r\n" % len(evil), evil, MAIL + b"BDAT %d LAST\r\n%s"
                                         % (len(evil), evil) + RCPT + b"BDAT %d LAST\r\n%s" % (len(data), data))
                    self.assertEqual(codes, [250, 503, 250, 503, 250, 250])
                if b"\r\n" in end:     # commands in truth, of which RSET drops the message
                    continue
                with self.subTest(state="between chunks", lead=lead, end=end):
                    data = self.honest()
                    codes = self.session(EHLO + MAIL + RCPT + b"BDAT 5\r\n" + data[:5], evil,
                                         b"BDAT %d LAST\r\n%s" % (len(data) - 5, data[5:]))
                    self.assertEqual(len(codes), 4 + commands(evil) + 1, codes)
                    self.assertEqual((codes[3], codes[-1]), (250, 250))
        self.arrived()

    def test_under_starttls_nothing_counts_that_was_said_before(self):
        self.gw = self.gateway(self.up)
        for end in ENDS + (b"\r\n",):
            with self.subTest(end=end), socket.create_connection(
                    ("127.0.0.1", self.gw.smtp), PATIENCE) as s:
                f = s.makefile("rb", buffering=0)   # reads no byte too many
                f.readline()
                s.sendall(EHLO)
                while f.readline()[3:4] == b"-":
                    pass
                s.sendall(b"STARTTLS\r\n" + (EHLO + smuggle(MAIL[:-2], end)) * 2)
                self.assertEqual(f.readline()[:3], b"220")
                with tls_context().wrap_socket(s) as t:
                    evil = smuggle(b"NOOP", end) if end != b"\r\n" else b""
                    codes = self.talk(t, EHLO, evil, MAIL + RCPT + b"DATA\r\n" + self.honest()
                                      + b".\r\nQUIT\r\n")
                self.assertEqual(len(codes), 1 + commands(evil) + 5)
                self.assertEqual(codes[-5:], [250, 250, 354, 250, 221])
        self.arrived()

    def test_an_auth_takes_one_line_and_no_more(self):
        self.gw = self.gateway(self.up, start=False)
        self.gw.add_user("bob", "pencil", "--relay")
        self.gw.start()
        token = base64.b64encode(b"\0bob\0pencil")
        before, after = EHLO + b"AUTH PLAIN\r\n", (b"AUTH PLAIN " + token + b"\r\n" + MAIL + RCPT
                                                   + b"DATA\r\n%s.\r\nQUIT\r\n")
        for end in ENDS:
            for evil, what in ((smuggle(b"", end), "challenge"), (smuggle(b"*", end), "end"),
                               (smuggle(b"=", end), "empty")):
                with self.subTest(end=end, response=what), tls_context().wrap_socket(
                        socket.create_connection(("127.0.0.1", self.gw.submissions), PATIENCE)) as s:
                    codes = self.talk(s, before, evil, after % self.honest())
                    self.assertEqual(codes[:3], [220, 250, 334])
                    self.assertEqual(len(codes), 3 + commands(evil) + 6, codes)
                    self.assertEqual(codes[-6:], [235, 250, 250, 354, 250, 221])
        self.arrived()

    def test_who_ends_every_line_with_lf_is_told_why(self):
        self.gw = self.gateway(self.up)
        with Chat(self.gw.smtp) as c:
            c.reply()
            self.assertRegex(c.say(b"EHLO c.example.net\n").reply(), r"^500 5\.5\.2 A line ends with CRLF")

    def test_who_is_trusted_may_have_its_lines_mended(self):
        """line-ends = convert, for networks alone: each message is one, and has no line end but CRLF."""
        for networks in ("127.0.0.0/8", "192.0.2.0/24"):
            port = free_port()
            self.gw = self.gateway(self.up, networks=networks, extra="""listener old {
                address = { "127.0.0.1:%d" }  line-ends = convert }""" % port)
            tail = b"\r\n".join(EVIL[1:-1]) + b"\r\n"
            for end in DATA_ENDS:
                if b"\0" in end:
                    continue
                self.count += 1
                data = b"Subject: honest %d\r\n\r\ntext%s%s" % (self.count, end, tail)
                good = is_text(data) or networks.startswith("127")
                with self.subTest(networks=networks, end=end), socket.create_connection(
                        ("127.0.0.1", port), PATIENCE) as s:
                    codes = self.talk(s, EHLO + MAIL + RCPT + b"DATA\r\n", data, b".\r\nQUIT\r\n")
                    self.assertEqual(codes, [220, 250, 250, 250, 354, 250 if good else 550, 221])
                if good:    # the stuffing of true lines goes, what is converted is text
                    self.expected.append(re.sub(rb"\r(?!\n)|(?<!\r)\n", b"\r\n",
                                                re.sub(rb"\r\n\.", b"\r\n", data)))
            self.arrived()
            self.gw.stop()


class SmugglingOnwards(Smuggling):
    """The same where the next hop offers CHUNKING, so that mail goes on by BDAT."""

    hops = 2
    test_between_commands_nothing_is_taken_for_a_line_end = None    # no other than before
    test_under_starttls_nothing_counts_that_was_said_before = None
    test_an_auth_takes_one_line_and_no_more = None
    test_who_ends_every_line_with_lf_is_told_why = None
    test_who_is_trusted_may_have_its_lines_mended = None

    def gate(self):
        back = super().gate()
        return self.gateway(routes='route example.test { to = { "127.0.0.1:%d" }  recipients = any }' % back.smtp)

"""Limits of connections, time, pace and scanning: each one's words, and that the neighbour stays."""
import re
import select
import time
import unittest

from harness import Chat, GatewayTest, free_port, in_thread, message, wait_for

HEADER = "Subject: slow\r\n\r\n"


class LimitTest(GatewayTest):
    def metric(self, gw, name):
        return sum(float(line.split()[-1]) for line in gw.ctl("metrics").stdout.splitlines()
                   if line.startswith("relayd_" + name + "{"))

    def greeted(self, port):
        c = Chat(port)
        self.addCleanup(c.close)
        self.assertRegex(c.reply(), "^220 ")
        self.assertRegex(c.say("EHLO client.example.net").reply(), "^250")
        return c

    def in_data(self, port):
        c = self.greeted(port)
        for line in ("MAIL FROM:<bob@example.net>", "RCPT TO:<ann@example.test>"):
            self.assertRegex(c.ask(line), "^250 ")
        self.assertRegex(c.ask("DATA"), "^354 ")
        return c.say(HEADER.encode())


class Connections(LimitTest):
    def setUp(self):
        super().setUp()
        self.up = self.upstream()
        self.port = free_port()

    def behind_proxy(self, limits, more=""):
        """A gateway that learns from PROXY headers who connects, so that we may be anybody."""
        self.gw = self.gateway(self.up, workers=2, limits=limits, extra="""
            listener front {{ address = {{ "127.0.0.1:{0}" }}  proxy = {{ 127.0.0.0/8 }}  {1} }}
            """.format(self.port, more))
        self.crowd(self.gw)

    def come(self, ip):
        c = Chat(self.port)
        self.addCleanup(c.close)
        version, server = (6, "2001:db8::1") if ":" in ip else (4, "203.0.113.1")
        c.say("PROXY TCP%d %s %s 4711 25" % (version, ip, server))
        return c

    def let_in(self, ip):
        c = self.come(ip)
        self.assertRegex(c.reply(), "^220 ", ip)
        return c

    def test_a_net_has_so_many_and_its_neighbour_as_many(self):
        self.behind_proxy("connections-per-ip = 2  connections-per-net = 3")
        for first, second, third, neighbour in (
                ("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.3.1"),
                ("2001:db8:1:1::1", "2001:db8:1:2::1", "2001:db8:1:3::1", "2001:db8:2:1::1")):
            with self.subTest(net=first):
                held = [self.let_in(first), self.let_in(first)]
                self.assertRegex(self.come(first).reply(), "^421 4.7.0 .*from your address")
                held.append(self.let_in(second))
                self.assertRegex(self.come(third).reply(), "^421 4.7.0 .*from your network")
                self.let_in(neighbour)
                self.gw.wait_trace(("--ip", third), "connections-per-net", "from your network")
                self.gw.wait_log('event=limit what=connections-per-net .*ip="?%s"? listener=front'
                                 % re.escape(third))
                held[0].ask("QUIT")
                held[0].close()

                def has_room():
                    c = self.come(third)
                    with c:
                        return c.reply().startswith("220 ") and c.ask("QUIT")
                wait_for(has_room, "room in the net again")
        self.assertGreaterEqual(self.metric(self.gw, "limit_hits_total"), 4)

    def test_no_two_addresses_share_a_count(self):
        self.behind_proxy("connections-per-ip = 1  connections-per-net = 1000")
        addresses = ["10.%d.%d.7" % (n % 8, n) for n in range(200)]
        for ip in addresses:  # had they shared 4096 counters, two of them would have clashed
            self.let_in(ip)
        for ip in addresses[::40]:
            self.assertRegex(self.come(ip).reply(), "^421 4.7.0 .*from your address")

    def test_a_listener_may_have_its_own(self):
        self.behind_proxy("connections-per-ip = 50", "connections-per-net = 1")
        self.let_in("192.0.2.1")
        self.assertRegex(self.come("192.0.2.2").reply(), "^421 4.7.0 .*from your network")
        self.let_in("192.0.3.1")

    def test_this_host_is_no_net(self):
        gw = self.gateway(self.up, limits="connections-per-ip = 50  connections-per-net = 2")
        for _ in range(5):
            self.greeted(gw.smtp)


class Time(LimitTest):
    def until_cut(self, c, words):
        """Says NOOP, and nothing else, until it is told to go; the last reply."""
        def cut():
            reply = c.ask("NOOP")
            return None if reply.startswith("250 ") else reply
        self.assertRegex(wait_for(cut, words), words)  # maybe our last NOOP crossed it

    def test_a_session_ends_after_its_time_and_a_message_under_way_first(self):
        up = self.upstream()
        gw = self.gateway(up, workers=1, limits="connections-per-ip = 50  session-time = 8s")
        busy = self.in_data(gw.smtp)
        begun = time.monotonic()
        talker = self.greeted(gw.smtp)
        self.until_cut(talker, r"^421 4\.4\.2 .*session-time.*\[id ")
        self.assertGreater(time.monotonic() - begun, 7)
        with self.greeted(gw.smtp) as late:  # who came later has time of its own
            self.assertRegex(late.ask("NOOP"), "^250 ")
        self.assertRegex(busy.ask("."), "^250 ")
        self.assertRegex(busy.line(), r"^421 4\.4\.2 .*session-time")
        up.find("slow")
        gw.wait_log("event=limit what=session-time session=.* ip=127.0.0.1 listener=mx", 2)
        gw.wait_trace(("--ip", "127.0.0.1"), "session-time")
        wait_for(lambda: self.metric(gw, "sessions_ended_total") >= 2, "two ended sessions")

    def test_data_that_drips_is_cut_and_data_that_is_slow_is_not(self):
        up = self.upstream()
        gw = self.gateway(up, workers=1, limits='connections-per-ip = 50  data-rate = "1K/6s"')
        drip, slow = self.in_data(gw.smtp), self.in_data(gw.smtp)
        begun = time.monotonic()

        def go_slow():
            while time.monotonic() - begun < 14:
                slow.say("x" * 400)
                time.sleep(0.5)  # this is its pace
        sender = in_thread(go_slow)
        wait_for(lambda: select.select([drip.sock], [], [], 0.3)[0] or drip.say(b"y") is None,
                 "the end of one that drips")
        self.assertGreater(time.monotonic() - begun, 5)
        self.assertRegex(drip.line(), r"^421 4\.4\.2 .*data-rate.*\[id ")
        sender.join()
        self.assertRegex(slow.ask("."), "^250 ")
        up.find("slow")
        gw.wait_log("event=limit what=data-rate session=.* ip=127.0.0.1 listener=mx")
        gw.wait_trace(("--ip", "127.0.0.1"), "data-rate")
        self.assertEqual(self.metric(gw, "sessions_ended_total"), 1)


class Scanning(LimitTest):
    SOURCE = r"""
    #include <relayd/filter.h>
    #include <time.h>
    #include <unistd.h>
    static enum filter_status
    run(struct filter_tx *tx, const void *settings)
    {
        (void)settings;
        while (slice_istarts(filter_envelope(tx)->reverse_path, SLICE("heavy@")) &&
            access(GATE, F_OK) < 0)
            (void)nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
        return FILTER_DONE;
    }
    const struct filter relayd_filter = { .abi = RELAYD_FILTER_ABI, .size = sizeof(struct filter),
        .name = "heavy", .stages = FILTER_AT(FILTER_MESSAGE), .flags = FILTER_HEAVY, .run = run };
    """

    def test_who_comes_while_too_many_are_scanned_is_told_so_early(self):
        gate = self.folder + "/gate"
        module = self.module("heavy", self.SOURCE, '-DGATE="%s"' % gate)
        up = self.upstream()
        gw = self.gateway(up, workers=1, limits="connections-per-ip = 50  scanning = 2",
                          filters='filter heavy { module = "%s" }' % module)
        sent = []
        in_time = self.in_data(gw.smtp)  # its MAIL came before
        for n in range(2):
            in_thread(lambda n=n: sent.append(gw.send(message("heavy %d" % n),
                                                      "heavy@example.net")))
        wait_for(lambda: self.metric(gw, "messages_scanning") == 2, "two messages being scanned")
        code, text = gw.send()
        self.assertEqual((code, text[:5]), (452, "4.3.1"))
        self.assertIn("scanned", text)
        self.assertRegex(in_time.ask("."), r"^452 4\.3\.1 .*scanned")
        gw.wait_log("event=limit what=scanning session=.* ip=127.0.0.1", 2)
        gw.wait_log("event=message.deferred .*code=452 why=scanning", 2)
        gw.wait_trace(("--ip", "127.0.0.1"), "452 4.3.1")
        self.assertEqual(sent, [])  # they are not harmed
        open(gate, "w").close()
        wait_for(lambda: len(sent) == 2, "the end of the scans")
        self.assertEqual([code for code, _ in sent], [250, 250])
        self.assertEqual(gw.send(message("after"))[0], 250)
        wait_for(lambda: self.metric(gw, "messages_scanning") == 0, "no message being scanned")


if __name__ == "__main__":
    unittest.main()

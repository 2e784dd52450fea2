"""What became of a client that never got to a message: relayctl trace --ip says it."""
import json
import smtplib
import socket
import time

from harness import PATIENCE, Chat, GatewayTest, free_port, tls_context, wait_for


class Traces(GatewayTest):
    def traced(self, gw, *parts, ip="127.0.0.1"):
        """The one trace of ip that has all these parts, as text for people; there must be one."""
        def found():
            done = gw.ctl("--json", "trace", "--ip", ip, check=False)
            return [entry for entry in map(json.loads, done.stdout.splitlines())
                    if all(part in json.dumps(entry) for part in parts)]
        entry = wait_for(found, "a trace with %r" % (parts,))[0]
        self.assertEqual(entry["ip"], ip)
        return gw.ctl("trace", entry["session"] if "session" in entry else entry["id"]).stdout

    def test_failed_logins_and_the_wait_behind_them(self):
        gw = self.gateway(self.upstream(), start=False)
        gw.add_user("ann", "pencil")
        gw.start()
        for _ in range(6):      # a session each, as they who guess do it
            with smtplib.SMTP_SSL("127.0.0.1", gw.submissions, context=tls_context(),
                                  timeout=PATIENCE) as c:
                c.ehlo()
                code = c.docmd("AUTH PLAIN AGFubgB3cm9uZw==")[0]
        self.assertEqual(code, 454)
        self.assertIn("password", self.traced(gw, '"login"', "ann", "password"))
        self.assertIn("back-off", self.traced(gw, '"login"', "back-off"))

    def test_a_flood_of_given_up_transactions_does_not_fill_the_disk(self):
        up = self.upstream()
        gw = self.gateway(up, workers=1)
        start = time.monotonic()
        for _ in range(100):
            with Chat(gw.smtp) as c:
                c.reply()
                c.say("EHLO client.example.net").reply()
                c.say(b"MAIL FROM:<bob@example.net>\r\nRCPT TO:<ann@example.test>\r\nRSET\r\n" * 95)
                self.assertEqual({c.line()[:4] for _ in range(285)}, {"250 "})
        seconds = time.monotonic() - start
        with Chat(gw.smtp) as c:
            c.reply()
            c.say("EHLO client.example.net").reply()
            self.assertRegex(c.ask("MAIL FROM:<eve@example.net>"), "^250 ")
            self.assertRegex(c.ask("RCPT TO:<ann@elsewhere.test>"), "^550 ")
        self.traced(gw, "eve@example.net", "may not relay")     # who was refused leaves one all the same
        gw.wait_log("event=limit .*what=given-up ip=127.0.0.1 ")
        kept = gw.ctl("--json", "trace", "--ip", "127.0.0.1").stdout.count("bob@example.net")
        self.assertGreater(kept, 90)
        self.assertLessEqual(kept, 100 * (seconds + 2))

    def test_more_connections_than_one_address_may_have(self):
        gw = self.gateway(self.upstream(), start=False, workers=2)
        gw.write_config(limits="connections-per-ip = 2")
        gw.start()
        wait_for(lambda: "connections-per-ip" in gw.log() or self.crowd(gw), "a refused connection")
        self.assertIn("421 4.7.0", self.traced(gw, '"limit"', "connections-per-ip"))

    def crowd(self, gw):
        """Three at once, of which one is one too many."""
        chats = [Chat(gw.smtp) for _ in range(3)]
        said = [c.reply()[:3] for c in chats]
        for c in chats:
            c.close()
        return "421" in said

    MODULE = """
    #include <relayd/filter.h>
    static enum filter_status
    run(struct filter_tx *tx, const void *settings)
    {
        (void)settings;
        if (slice_eq(tx->host->session(tx)->helo, SLICE("impostor.test")))
            filter_verdict(tx, FILTER_REJECT, SLICE("nobody is called that"));
        return FILTER_DONE;
    }
    const struct filter relayd_filter = { .abi = RELAYD_FILTER_ABI, .size = sizeof(struct filter),
        .name = "names", .stages = FILTER_AT(FILTER_HELO), .run = run };
    """

    def test_a_name_that_a_filter_refuses(self):
        module = self.module("names", self.MODULE)
        gw = self.gateway(self.upstream(), filters='filter names { module = "%s" }' % module)
        with Chat(gw.smtp) as c:
            c.reply()
            self.assertRegex(c.say("EHLO impostor.test").reply(), "^550 5.7.1 .*nobody is called that")
        self.assertIn("helo impostor.test", self.traced(gw, "nobody is called that", "reject"))

    def test_a_connection_that_a_filter_refuses(self):
        gw = self.gateway(self.upstream(), filters="filter pregreet { suspect = { all }  delay = 3s }")
        with Chat(gw.smtp) as c:
            c.say("EHLO in.a.hurry.test")
            self.assertRegex(c.reply(), "^554 5.5.1 ")
        self.traced(gw, "pregreet", "before you were greeted", "reject")

    def test_who_is_too_slow(self):
        port = free_port()
        gw = self.gateway(self.upstream(), extra="""listener behind { address = { "127.0.0.1:%d" }
            proxy = { 127.0.0.0/8 }  proxy-timeout = 1s }""" % port)
        with Chat(port) as c:       # a proxy that says nothing
            self.assertRegex(c.reply(), "^421 ")
        self.assertIn("no PROXY header came", self.traced(gw, '"proxy"'))

    def test_a_handshake_that_fails(self):
        gw = self.gateway(self.upstream())
        with socket.create_connection(("127.0.0.1", gw.submissions), PATIENCE) as s:
            s.sendall(b"EHLO what.is.tls\r\n")
            while s.recv(1000):
                pass
        self.traced(gw, '"tls"')

"""The wall clock jumps by a month and back while relayd runs: deadlines are of the other clock."""
import os
import time
import unittest.mock

from harness import ROOT, GatewayTest, free_port, message, wait_for

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


class ClockJumps(GatewayTest):
    """On the optimised build: the sanitizers' library has to be the first one preloaded."""

    def setUp(self):
        super().setUp()
        patch = unittest.mock.patch("harness.BUILD", os.path.join(ROOT, "build"))
        patch.start()
        self.addCleanup(patch.stop)

    def send_on(self, in_days):
        """Sends messages until both roles have the day that is so many days from now; returns how many."""
        day = time.strftime("%Y-%m-%d", time.gmtime(time.time() + in_days * 86400))
        sent = 0

        def once():
            nonlocal sent
            code, said = self.gw.send(message("jump"), "bob@example.net", ["ann@example.test"])
            self.assertEqual(code, 250, said)
            sent += 1
            name = said.split()[-1]
            line = self.gw.wait_log("event=delivery.sent id=" + name)
            accepted = self.gw.wait_log("event=message.accepted id=" + name)
            return line.startswith("t=" + day) and accepted.startswith("t=" + day)
        wait_for(once, "the day " + day)
        return sent

    def attempts(self):
        row, = self.gw.ctl_json("queue", "list")
        return row["attempts"]

    def test_mail_is_taken_delivered_and_kept_whatever_the_clock_says(self):
        self.up = self.upstream()
        self.gw = gw = self.gateway(start=False, workers=1, networks="127.0.0.0/8",
                                    queue="retry = { 1s }  expire = 5d  warn = 4h  reserve = 1M",
                                    routes="""
            route example.test { to = { "127.0.0.1:%d" }  recipients = any }
            route example.net { to = { "127.0.0.1:%d" }  recipients = any }"""
                                    % (self.up.port, free_port()))
        gw.env = {"LD_PRELOAD": FAKETIME, "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME": "+30d",
                  "FAKETIME_START_AFTER_SECONDS": "5", "FAKETIME_STOP_AFTER_SECONDS": "11"}
        gw.start()
        gw.send(message("waits"), "ann@example.test", ["bob@example.net"])
        gw.wait_log("event=delivery.deferred")
        sent, attempts = 0, 0
        for days in 0, 30, 0:
            sent += self.send_on(days)
            # What waits is tried as before, and neither expires nor is warned about.
            wait_for(lambda: self.attempts() > attempts, "another attempt")
            attempts = self.attempts()
        self.assertEqual(len(self.up.messages()), sent)
        for bad in ("spool.error", "role.crash", "event=bounce", "delivery.bounced", "delayed"):
            self.assertNotIn(bad, gw.log())
        self.assertTrue(all(r["state"] == "up" for r in gw.ctl_json("status")))

"""A few late messages do not keep the disk: their segments are emptied, whatever is killed meanwhile."""
import glob
import hashlib
import os
import re
import signal
import unittest

from harness import GatewayTest, message, wait_for

SEGMENT = 16 << 20      # SPOOL_SEGMENT_BYTES
SLACK = 64 << 20        # COMPACT_SLACK_BYTES
LIVE = 27               # messages for the upstream that works, to one for the other
ROUNDS = 24


def body_of(number, size):
    line = hashlib.sha256(b"%d" % number).hexdigest() + "\r\n"
    return line * (size // len(line))


class Compaction(GatewayTest):
    def segments(self, gw):
        """Bytes of the logs, without the spares."""
        total = 0
        for path in glob.glob(gw.dir + "/spool/*/*.seg"):
            if "/spare/" not in path:
                try:
                    total += os.stat(path).st_size
                except FileNotFoundError:
                    pass    # it has just gone
        return total

    def fill(self, gw):
        """Some segments of mail, with a few late ones in each: {id: (subject, sha256 of its body)}."""
        late, number = {}, 0
        with gw.smtp_client() as s:
            for n in range(ROUNDS):
                for i in range(LIVE + 1):
                    number += 1
                    is_late = i == LIVE // 2
                    rcpt = "ann@late.test" if is_late else "ann@example.test"
                    # Large ones have files of their own.
                    body = body_of(number, 400000 if is_late and n % 8 == 3 else 200000)
                    subject = "number %d" % number
                    s.ehlo_or_helo_if_needed()
                    s.mail("bob@example.net")
                    s.rcpt(rcpt)
                    code, said = s.data(message(subject, body, rcpt=rcpt))
                    self.assertEqual(code, 250)
                    if is_late:
                        late[said.decode().split()[-1]] = (
                            subject, hashlib.sha256(body.encode()).hexdigest())
        return late

    def check_arrived(self, up, expected):
        """Each once, with its bytes."""
        seen = {}
        for data, _ in up.messages():
            head, _, body = data.partition(b"\r\n\r\n")
            subject = re.search(rb"Subject: (.*)\r\n", head)[1].decode()
            self.assertNotIn(subject, seen)
            seen[subject] = hashlib.sha256(body[:-2]).hexdigest()     # message() ends in a line of its own
        self.assertEqual(seen, dict(expected))

    def queue_ids(self, gw):
        return {r["id"] for r in gw.ctl_json("queue", "list")}

    def test_the_disk_is_given_back_and_each_late_message_arrives_once(self):
        up, gone = self.upstream(), self.upstream()
        gone.stop()
        gw = self.gateway(up, start=False, workers=1, domains="example.test, late.test",
                          queue="retry = { 1s, 2s }  expire = 5d  reserve = 1M",
                          routes='route example.test { to = { "127.0.0.1:%d" }  recipients = any }\n'
                          'route late.test { to = { "127.0.0.1:%d" }  recipients = any }'
                          % (up.port, gone.port))
        gw.start()
        late = self.fill(gw)
        self.assertGreater(len(late) * (LIVE + 1) * 200000, 7 * SEGMENT)
        # Once in the middle of it, by the role, and once all of it.
        gw.wait_log("event=spool.compacted")
        for pid in gw.pids("delivery"):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(up.messages()) >= ROUNDS * LIVE, "all the others", 120)
        gw.wait_log("event=spool.compacted", 2)
        pids = [gw.process.pid] + [r["pid"] for r in gw.ctl_json("status")
                                   if r["role"] != "supervisor"]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        gw.process.child.wait()
        gw.process = None
        gw.start()
        # What is open takes little; and there is the slack, and a segment each for intake and delivery.
        wait_for(lambda: self.segments(gw) <= SLACK + 3 * SEGMENT, "room on the disk", 120)
        wait_for(lambda: self.queue_ids(gw) == set(late), "the late ones in the queue", 60)
        check = gw.ctl("spool", "check")
        self.assertIn("%d of them open; 0 damaged places" % len(late), check.stdout)
        self.assertIn("copy of message", gw.ctl("spool", "dump").stdout)

        self.check_by_hand(gw, late)
        gone.start()
        gw.ctl("queue", "flush")
        gone.wait(len(late), 120)
        wait_for(lambda: not self.queue_ids(gw), "an empty queue", 60)
        self.check_arrived(gone, late.values())
        wait_for(lambda: self.segments(gw) <= 3 * SEGMENT, "nothing left", 60)
        self.assertFalse(glob.glob(gw.dir + "/spool/*/*.msg"))

    def check_by_hand(self, gw, late):
        """What the admin can do with a message that was copied."""
        dump = gw.ctl("spool", "dump").stdout
        copied = [i for i in re.findall(r"copy of message (\S+) open", dump) if i in late]
        self.assertGreater(len(copied), 2)
        shown, held, dropped = copied[:3]
        self.assertIn("ann@late.test", gw.ctl("queue", "show", shown).stdout)
        self.assertIn(late[shown][0], gw.ctl("queue", "body", shown).stdout)
        gw.ctl("queue", "hold", held)
        self.assertEqual([r["id"] for r in gw.ctl_json("queue", "list", "--state", "held")], [held])
        gw.ctl("queue", "unhold", held)
        gw.ctl("queue", "retry", held)
        gw.ctl("queue", "drop", dropped)
        del late[dropped]
        self.assertEqual(self.queue_ids(gw), set(late))


if __name__ == "__main__":
    unittest.main()

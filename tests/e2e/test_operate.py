"""Running it: start, config, reload, kill -9, status, traces, metrics, and what goes wrong."""
import contextlib
import glob
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import time
import unittest

from harness import (BUILD, GTUBE, PATIENCE, ROOT, RULES, Chat, GatewayTest, free_port, message,
                     wait_for)


NOT_THERE = {"state": "down", "pid": 0}


def relayd(*options, timeout=60):
    return subprocess.run([BUILD + "/relayd", *options], capture_output=True, text=True,
                          timeout=timeout)


class Config(GatewayTest):
    def test_the_example_passes(self):
        done = relayd("-n", "-c", ROOT + "/etc/relayd.conf")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_faults_are_named_with_file_and_line(self):
        for change, pattern in (
                ({"extra": "colour = red"}, r"relayd\.conf:\d+: .*colour"),
                ({"extra": 'listener two { address = { "127.0.0.1:99999" } }'}, r":\d+: .*99999"),
                ({"extra": 'listener two { address = { "hello" } }'}, r":\d+: .*hello"),
                ({"extra": 'listener two { address = { "[::1]:2", "[::1]:2" } }'}, r":\d+: .*already"),
                ({"extra": "hostname = again.test"}, r":\d+: hostname is given twice"),
                ({"limits": "message-size = huge"}, r":\d+: message-size = huge: expected"),
                ({"filters": "filter spf { rate = 5/1m }"}, r":\d+: .*rate"),
                ({"filters": "filter nosuch { }"}, r":\d+: .*nosuch"),
                ({"extra": "policy outbound { tag = 1"}, r":\d+: section policy outbound is not closed"),
                ({"extra": "route x.test { to = { mail } }"}, r":\d+: route x\.test: to: mail: not HOST:PORT"),
                ({"dns": "dns.test"}, r":\d+: servers = dns\.test: expected an address"),
                ({"domains": "example.test, \"two words\""}, r":\d+: domains: two words is no domain name"),
                ({"limits": "recipients = 0"}, r":\d+: recipients = 0: expected at least 1"),
                ({"routes": ""}, r":\d+: example\.test has no route")):
            with self.subTest(change):
                gw = self.gateway(self.up if "routes" not in change else None, start=False, **change)
                for options in (("-n", "-c", gw.config), ("-c", gw.config)):
                    done = relayd(*options)
                    self.assertEqual(done.returncode, 1)
                    self.assertRegex(done.stderr, pattern)
                    self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def test_faults_in_files_of_logins_are_found_before_a_role_meets_them(self):
        gw = self.gateway(self.up, start=False, extra="sasl { senders = %s/senders }" % self.folder)
        for users, senders, pattern in (("no line of ours\n", "", r"users:1: "),
                                        ("", "one:two three\n", r"senders:1: ")):
            with open(gw.dir + "/users", "w") as f, open(self.folder + "/senders", "w") as g:
                f.write(users)
                g.write(senders)
            for done in (relayd("-n", "-c", gw.config), relayd("-c", gw.config)):
                self.assertEqual(done.returncode, 1)
                self.assertRegex(done.stderr, pattern)
            self.assertRegex(gw.ctl("check", check=False).stdout, "(?m)^FAILS .*" + pattern)

    def test_wrong_words_for_relayctl_are_told(self):
        gw = self.gateway(self.up, start=False)
        for words, status, pattern in (
                ("queue foo", 2, "queue has no foo"), ("queue list --state new", 2, "active, deferred or held"),
                ("queue list --age old", 2, "--age old: expected a duration"),
                ("queue list --size big", 2, "--size big: expected a size"),
                ("queue show", 2, "One id"), ("queue show abc", 1, "abc is no id"), ("queue drop", 2, "which"),
                ("queue reroute abc", 2, "--to HOST:PORT"), ("queue hold abc", 1, "abc is no id"),
                ("quarantine foo", 2, "quarantine has no foo"), ("quarantine release", 2, "which"),
                ("quarantine drop abc", 1, "abc is no id"), ("top --limit 0", 2, "1 to 1000"),
                ("trace", 2, "of what"), ("trace abc", 1, "abc is no id"), ("trace --ip abc", 2, "no IP address"),
                ("spool foo", 2, "spool has no foo"), ("spool salvage", 2, "where to"),
                ("user foo", 2, "user has no foo"), ("user add", 2, "whom"), ("nosuch", 2, "no command nosuch"),
                ("status", 1, "relayd does not run"), ("reload", 1, "relayd does not run")):
            with self.subTest(words):
                done = gw.ctl(*words.split(), check=False)
                self.assertEqual(done.returncode, status, done.stderr)
                self.assertRegex(done.stderr, "^relayctl: .*" + pattern)

    def setUp(self):
        super().setUp()
        self.up = self.upstream()

    def test_an_unreadable_certificate_and_a_wrong_key(self):
        gw = self.gateway(self.up, start=False)
        other = self.gateway(self.up, start=False)
        os.replace(other.dir + "/key.pem", gw.dir + "/key.pem")
        self.assertRegex(relayd("-c", gw.config).stderr, r"cert\.pem and its key do not belong")
        os.unlink(gw.dir + "/cert.pem")
        done = relayd("-c", gw.config)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r":\d+: cannot read .*cert\.pem: No such file")

    def test_a_port_in_use_is_named(self):
        gw = self.gateway(self.up, start=False)
        with socket.socket() as s:
            s.bind(("127.0.0.1", gw.smtp))
            s.listen()
            done = relayd("-c", gw.config)
        self.assertEqual(done.returncode, 1)
        self.assertIn("127.0.0.1:%d" % gw.smtp, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    @unittest.skipIf(os.getuid(), "as another user all roles have what it makes")
    def test_the_mask_of_a_careful_root_locks_no_role_out(self):
        up = self.upstream()
        gw = self.gateway(up, start=False)
        with open(gw.config) as f:
            config = f.read()
        with open(gw.config, "w") as f:
            f.write(re.sub(r"%s/(run|spool|state|quarantine)\b" % gw.dir, gw.dir + r"/made/for/\1", config))
        before = os.umask(0o077)
        self.addCleanup(os.umask, before)
        gw.start()
        self.assertEqual(gw.send(message("masked"))[0], 250)
        up.find("Subject: masked")

    def test_more_sockets_than_a_process_is_given_are_refused(self):
        gw = self.gateway(self.upstream(), start=False, workers=1)
        gw.write_config(extra="listener many { address = { %s } }" % ", ".join(
            '"unix:%s/%d"' % (gw.dir, n) for n in range(510)))
        done = subprocess.run([BUILD + "/relayd", "-c", gw.config], capture_output=True, text=True,
                              timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn("too many listeners: 514 sockets for one process of intake, of at most 512",
                      done.stderr)

    def test_a_second_relayd_is_refused(self):
        gw = self.gateway(self.up)
        done = relayd("-c", gw.config)
        self.assertEqual(done.returncode, 1)
        self.assertIn("runs already", done.stderr)
        self.assertEqual(gw.send()[0], 250)


class Reload(GatewayTest):
    def setUp(self):
        super().setUp()
        self.up = self.upstream()
        self.gw = self.gateway(self.up)

    def test_new_values_apply_and_no_session_is_dropped(self):
        with Chat(self.gw.smtp) as c:
            c.reply()
            c.say("EHLO x.example.net").reply()
            self.gw.write_config(filters=RULES, policies="policy inbound { reject = 10 }")
            self.gw.ctl("reload")
            self.assertRegex(c.ask("MAIL FROM:<a@example.net>"), "^250")
            self.assertRegex(c.ask("RCPT TO:<ann@example.test>"), "^250")
            self.assertRegex(c.ask("DATA"), "^354")
            c.say("Subject: x").say("")
            self.assertRegex(c.ask("."), "^250")
        self.assertEqual(self.gw.send(message("no", GTUBE))[0], 550)
        self.gw.write_config(domains="example.test, new.test", routes="".join(
            'route %s { to = { "127.0.0.1:%d" }  recipients = any }\n' % (d, self.up.port)
            for d in ("example.test", "new.test")))
        self.assertEqual(self.gw.send(rcpts=["a@new.test"])[0], 550)
        os.kill(self.gw.process.pid, signal.SIGHUP)
        self.gw.wait_log("role=supervisor event=reload result=done", 2)
        self.assertEqual(self.gw.send(message("new"), rcpts=["a@new.test"])[0], 250)
        self.up.find("Subject: new")

    def test_a_bad_config_is_refused_and_the_old_stays(self):
        self.gw.write_config(extra="nonsense = 1")
        done = self.gw.ctl("reload", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"relayd\.conf:\d+: ")
        os.kill(self.gw.process.pid, signal.SIGHUP)
        self.gw.wait_log(r"event=reload result=refused .*relayd\.conf:\d+")
        self.assertEqual(self.gw.send()[0], 250)

    def test_other_directories_need_a_restart_and_say_so(self):
        config = open(self.gw.config).read()
        with open(self.gw.config, "w") as f:
            f.write(config.replace("/spool\n", "/spool2\n"))
        self.assertIn("restart", self.gw.ctl("reload").stderr)

    def test_users_change_at_once(self):
        self.gw.add_user("late", "pw", "--scope", "*")
        with Chat(self.gw.pop3) as c:
            c.line()
            c.ask("USER late")
            self.assertRegex(c.ask("PASS pw"), r"^\+OK")

    def test_who_stands_still_is_named_and_has_the_config_once_it_goes_on(self):
        pid = self.gw.pids("delivery")[0]
        self.gw.write_config(policies="policy inbound { tag = 2.0 }")
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(os.kill, pid, signal.SIGCONT)
        done = self.gw.ctl("reload", check=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr.splitlines()), (1, "", [
            "relayctl: delivery (pid %d) has not taken the config yet: it does not answer; all others have" % pid]))
        self.gw.wait_log("event=reload result=late why=")
        os.kill(pid, signal.SIGCONT)
        self.gw.wait_log("event=reload result=done")
        self.assertEqual((self.gw.ctl("reload").stderr, self.gw.pids("delivery")), ("", [pid]))


class Kills(GatewayTest):
    def setUp(self):
        super().setUp()
        self.up = self.upstream()
        self.gw = self.gateway(self.up)

    def test_any_role_is_started_again(self):
        for role in ("intake", "delivery", "review"):
            before = self.gw.pids(role)
            os.kill(before[0], signal.SIGKILL)
            wait_for(lambda: len(self.gw.pids(role)) == len(before) and
                     before[0] not in self.gw.pids(role), role + " again")
            wait_for(lambda: self.try_send(role), "mail after " + role)
            self.up.find("Subject: after " + role)
        self.gw.wait_log("event=role.exit", 3)

    def try_send(self, role):
        try:
            return self.gw.send(message("after " + role))[0] == 250
        except OSError:
            return False

    def worker(self, index):
        return next((row for row in self.gw.ctl_json("status")
                    if row["role"] == "intake" and row["index"] == index), NOT_THERE)

    def greetings(self, count):
        greeted = 0
        for _ in range(count):
            with Chat(self.gw.smtp) as c:
                greeted += c.reply().startswith("220")
        return greeted

    def sockets(self, index):
        folder = "/proc/%d/fd" % self.worker(index)["pid"]
        return sorted(os.readlink(folder + "/" + name) for name in os.listdir(folder)
                      if "socket:" in os.readlink(folder + "/" + name))

    def while_down(self, served):
        """Has served() be true while worker 0 is down, and waits until it is up again."""
        for attempt in range(12):  # each death doubles the back-off
            pid = wait_for(lambda: self.worker(0)["state"] == "up" and self.worker(0)["pid"],
                           "the worker")
            os.kill(pid, signal.SIGKILL)
            if attempt < 5:
                wait_for(lambda: self.worker(0)["pid"] != pid, "its end")
                continue
            wait_for(lambda: self.worker(0)["state"] == "down", "its end")
            if served() and self.worker(0)["state"] == "down":
                break
        else:
            self.fail("never were all served while the worker was down")
        wait_for(lambda: self.worker(0)["state"] == "up", "the worker")

    def test_siblings_accept_for_a_worker_in_back_off(self):
        before = wait_for(lambda: self.sockets(1), "the sibling")
        self.while_down(lambda: self.greetings(24) == 24)
        wait_for(lambda: len(self.sockets(1)) <= len(before), "the sockets given back")
        self.assertEqual(self.gw.send()[0], 250)

    def test_siblings_accept_for_a_worker_that_stands_still_and_it_goes_on(self):
        before, pid = wait_for(lambda: self.sockets(1), "the sibling"), self.worker(0)["pid"]
        os.kill(pid, signal.SIGSTOP)
        self.addCleanup(os.kill, pid, signal.SIGCONT)
        self.assertEqual(self.greetings(24), 24)
        self.assertEqual((self.worker(0)["state"], self.worker(0)["pid"]), ("hangs", pid))
        os.kill(pid, signal.SIGCONT)
        wait_for(lambda: len(self.sockets(1)) <= len(before), "the sockets given back")
        self.assertEqual((self.gw.send()[0], self.worker(0)["pid"]), (250, pid))

    def test_a_proxy_may_speak_when_the_worker_it_came_to_is_back(self):
        port = free_port()
        self.gw.write_config(extra="""listener front {{ address = {{ "127.0.0.1:{0}" }}
            proxy = {{ 127.0.0.0/8 }}  proxy-timeout = 2m }}""".format(port))
        self.gw.stop()
        self.gw.start()
        before = len(wait_for(lambda: self.sockets(1), "the sibling"))
        held = []

        def connect():
            for c in held:
                c.close()
            held[:] = [Chat(port) for _ in range(24)]
            for c in held:
                self.addCleanup(c.close)
            wait_for(lambda: len(self.sockets(1)) >= before + 24 or
                     self.worker(0)["state"] == "up", "the connections at the sibling")
            return True
        self.while_down(connect)
        wait_for(lambda: len(self.sockets(1)) <= before + 24, "the sockets given back")
        for c in held:
            c.say("PROXY TCP4 192.0.2.7 203.0.113.1 4711 25")
            self.assertRegex(c.reply(), "^220 ")

    def test_a_killed_supervisor_leaves_nothing_and_another_goes_on(self):
        self.up.stop()
        for i in range(5):
            self.assertEqual(self.gw.send(message("orphan %d" % i))[0], 250)
        roles = [row["pid"] for row in self.gw.ctl_json("status") if row["role"] != "supervisor"]
        self.gw.process.child.kill()
        self.gw.process.child.wait()
        self.gw.process = None
        self.up.start()
        self.gw.start()
        wait_for(lambda: not any(os.path.exists("/proc/%d" % pid) for pid in roles),
                 "the end of the old roles", 40)
        self.assertEqual(self.gw.send(message("after"))[0], 250)
        self.assertEqual(len(self.up.wait(6)), 6)

    def test_it_ends_while_every_role_waits_to_be_started_again(self):
        # What they need breaks under them, so that none can serve any more.
        with open(self.gw.dir + "/spool/format", "w") as f:
            f.write("relayd spool 99\n")
        os.remove(self.gw.dir + "/quarantine/quarantine.db")
        os.mkdir(self.gw.dir + "/quarantine/quarantine.db")
        for role in "intake", "delivery", "review":
            for pid in self.gw.pids(role):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: all(row["state"] == "down" for row in self.gw.ctl_json("status")
                             if row["role"] != "supervisor"), "the end of all roles")
        self.assertEqual(self.gw.stop(), 0)

    def test_sigterm_drains(self):
        with Chat(self.gw.smtp) as c:
            c.reply()
            c.say("EHLO x.example.net").reply()
            c.ask("MAIL FROM:<a@example.net>")
            c.ask("RCPT TO:<ann@example.test>")
            c.ask("DATA")
            c.say("Subject: drained").say("")
            os.kill(self.gw.process.pid, signal.SIGTERM)
            self.assertRegex(c.ask("."), "^250")
        self.assertEqual(self.gw.process.child.wait(40), 0)
        self.gw.stop()
        self.gw.start()
        self.up.find("Subject: drained")

    SLOW = r"""
    #include <relayd/filter.h>
    #include <unistd.h>
    static enum filter_status run(struct filter_tx *tx, const void *settings)
    { (void)tx; (void)settings; return FILTER_DONE; }
    __attribute__((constructor)) static void load(void) { (void)sleep(2); }
    const struct filter relayd_filter = { .abi = RELAYD_FILTER_ABI, .size = sizeof(struct filter),
        .name = "slow", .stages = FILTER_AT(FILTER_MAIL), .run = run };
    """

    def test_a_reload_under_way_starts_nobody_after_sigterm(self):
        module = self.module("slow", self.SLOW)
        with Chat(self.gw.smtp) as c:
            c.reply()
            c.ask("HELO x.example.net")
            c.ask("MAIL FROM:<a@example.net>")
            c.ask("RCPT TO:<ann@example.test>")
            c.ask("DATA")   # this session keeps its worker from ending
            self.gw.write_config(workers=3, filters='filter slow { module = "%s" }' % module)
            os.kill(self.gw.process.pid, signal.SIGHUP)
            wait_for(lambda: self.children() > 4, "the check of the new config")
            os.kill(self.gw.process.pid, signal.SIGTERM)
            self.gw.wait_log("event=reload result=refused .*about to end")
            self.assertRegex(c.ask("."), "^250")
        self.assertEqual(self.gw.process.child.wait(40), 0)
        self.assertEqual(self.gw.log().count("event=role.start pid="), 5)   # and none of them twice
        self.assertNotIn("signal=9", self.gw.log())

    def children(self):
        pid = self.gw.process.pid
        with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
            return len(f.read().split())


class Workers(GatewayTest):
    def takers(self, gw, messages):
        """The workers that took so many messages by a connection each."""
        before = len(gw.log())
        for n in range(messages):
            self.assertEqual(gw.send(message("to a worker"))[0], 250)

        def logged():
            return re.findall(r"role=intake index=(\d+) event=message.accepted", gw.log()[before:])
        wait_for(lambda: len(logged()) >= messages, "the log of all messages")
        return set(logged())

    def test_few_connections_share_one_and_many_have_all(self):
        gw = self.gateway(self.upstream(), workers=3)
        self.assertEqual(self.takers(gw, 10), {"0"})
        leave = self.crowd(gw, 200)
        self.assertEqual(self.takers(gw, 60), {"0", "1", "2"})  # else 1 in 10^10
        os.kill(gw.pids("intake")[0], signal.SIGKILL)           # the siblings have its queue meanwhile
        self.assertTrue(self.takers(gw, 10))
        leave()
        wait_for(lambda: len(gw.pids("intake")) == 3, "all workers")
        self.assertTrue(self.takers(gw, 10))

    def test_the_workers_of_a_new_config_or_relayd_share_alike(self):
        gw = self.gateway(self.upstream(), workers=2)
        for workers, change in ((3, "reload"), (2, "reload"), (2, "upgrade")):
            gw.write_config(workers=workers)
            gw.ctl(change)
            self.assertEqual(len(self.takers(gw, 10)), 1, change)
            leave = self.crowd(gw, 200)
            self.assertEqual(len(self.takers(gw, 60)), workers, change)
            leave()


class Damage(GatewayTest):
    def setUp(self):
        super().setUp()
        self.up = self.upstream()
        self.gw = self.gateway(self.up, queue="retry = { 1h }  reserve = 1M")
        self.up.stop()

    def segments(self):
        return sorted((p for p in glob.glob(self.gw.dir + "/spool/**", recursive=True)
                       if os.path.isfile(p) and os.path.getsize(p) > 100), key=os.path.getsize)

    def test_a_damaged_segment_is_reported_and_the_rest_is_delivered(self):
        for i in range(20):
            self.assertEqual(self.gw.send(message("seg %02d" % i, ("body %02d " % i * 8 + "\r\n") * 25))[0], 250)
        self.gw.stop()
        hit = 0
        for path in self.segments():
            with open(path, "r+b") as f:
                at = f.read().find(b"body 07 body 07")
                if at >= 0:
                    f.seek(at + 40)
                    f.write(b"\xff\xff\xff\xff")
                    hit += 1
        self.assertEqual(hit, 1)
        self.up.start()
        self.gw.start()
        self.gw.ctl("queue", "flush")
        got = b"".join(m[0] for m in self.up.wait(19))
        for i in range(20):
            self.assertEqual(b"Subject: seg %02d" % i in got, i != 7)
        self.assertRegex(self.gw.log(), r"(?i)damage")

    def test_a_spool_of_a_newer_version_is_refused(self):
        self.gw.send(message("x"))
        self.gw.stop()
        with open(self.gw.dir + "/spool/format", "w") as f:
            f.write("relayd spool 99\n")
        done = relayd("-c", self.gw.config)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^\S+/relayd\.conf: spool: \S+/spool/format: .*newer relayd "
                         r"\(format 99, this one knows \d+\)\n$")
        self.assertRegex(self.gw.ctl("check", check=False).stdout, r"FAILS +config .*newer relayd")


class Tools(GatewayTest):
    def setUp(self):
        super().setUp()
        self.up = self.upstream()
        self.gw = self.gateway(self.up, filters=RULES)

    def test_status_metrics_and_health(self):
        self.gw.send()
        rows = {(r["role"], r["index"]) for r in self.gw.ctl_json("status")}
        self.assertEqual(rows, {("supervisor", 0), ("delivery", 0), ("review", 0), ("intake", 0),
                                ("intake", 1)})
        for row in self.gw.ctl_json("status"):
            self.assertGreaterEqual(row["uptime_s"], 0)
            self.assertGreater(row["pid"], 1)
        self.assertRegex(self.gw.ctl("metrics").stdout,
                         r'relayd_messages_accepted_total\{role="intake"')
        h = http.client.HTTPConnection("127.0.0.1", self.gw.http, timeout=30)
        h.request("GET", "/metrics")
        reply = h.getresponse()
        self.assertEqual(reply.status, 200)
        self.assertIn("text/plain", reply.getheader("Content-Type"))
        self.assertIn(b"# TYPE relayd_messages_accepted_total counter", reply.read())
        h.request("GET", "/health")
        self.assertEqual(h.getresponse().status, 200)
        self.assertIn("intake", self.gw.ctl("status").stdout)

    def test_pipelined_http_requests_are_all_answered(self):
        asked = 100     # far more than the output that may wait
        with socket.create_connection(("127.0.0.1", self.gw.http), 30) as s:
            s.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * asked)
            said = b""
            while said.count(b"HTTP/1.1 200 ") < asked:
                some = s.recv(1 << 16)
                self.assertTrue(some)
                said += some

    def test_pipelined_control_requests_are_all_answered(self):
        asked = 600     # more than a read takes at once
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(PATIENCE)
            s.connect(self.gw.dir + "/run/delivery.sock")
            s.sendall(b'{"op":"top"}\n{"op":"queue.list"}\n' * (asked // 2))
            said = b""
            while said.count(b'{"ok":true}') < asked:
                some = s.recv(1 << 16)
                self.assertTrue(some)
                said += some

    def test_the_trace_explains_a_message(self):
        code, said = self.gw.send(message("traced", GTUBE))
        name = said.split()[-1]
        self.gw.wait_trace((name,), "GTUBE", "bob@example.net")
        for how in (("--from", "bob@example.net"), ("--to", "ann@example.test"),
                    ("--ip", "127.0.0.1")):
            self.assertIn(name, self.gw.ctl("trace", *how).stdout)
        self.assertEqual(self.gw.ctl("trace", "a" * 26, check=False).returncode, 1)

    def test_a_refused_session_has_a_trace_too(self):
        with self.gw.smtp_client() as s:
            s.ehlo()
            s.mail("stranger@example.net")
            s.rcpt("eve@example.com")
        self.gw.wait_trace(("--from", "stranger@example.net"), "eve@example.com")
        # An admin is asked why mail to someone does not come.
        self.gw.wait_trace(("--to", "eve@example.com"), "stranger@example.net")
        self.assertEqual(self.gw.ctl("trace", "--to", "adam@example.com", check=False).returncode, 1)

    def test_what_comes_from_outside_moves_no_terminal(self):
        """An address of SMTPUTF8 may hold C1 controls: U+009B begins an escape sequence, as a byte too."""
        with self.gw.smtp_client() as s:
            s.ehlo()
            s.mail("c1@example.net", ["SMTPUTF8"])
            s.send("RCPT TO:<x\u009b31m\u0085y\u202ez\u2066\u2028\u00fc@example.com>\r\n")
            self.assertEqual(s.getreply()[0], 550)
        text = self.gw.wait_trace(("--from", "c1@example.net"), "@example.com")    # it is UTF-8
        self.assertIn("x?31m?y?z??\u00fc@example.com", text)
        self.assertNotRegex(text, "[\u0080-\u009f\u2028-\u202e\u2066]")

    def test_scan_runs_the_filters_over_files(self):
        os.makedirs(self.folder + "/mail")
        for name, body in (("spam.eml", GTUBE), ("ham.eml", "Hello")):
            with open(self.folder + "/mail/" + name, "w", newline="") as f:
                f.write(message("x", body))
        rows = {os.path.basename(r["file"]): r
                for r in self.gw.ctl_json("scan", self.folder + "/mail")}
        self.assertEqual(rows["spam.eml"]["verdict"], "quarantine")
        self.assertEqual(rows["ham.eml"]["verdict"], "accept")
        self.assertIn("GTUBE", str(rows["spam.eml"]["findings"]))

    def test_json_may_stand_before_the_command_and_behind_it(self):
        held = self.gw.hold("held")
        for words in (("--json", "quarantine", "list"), ("quarantine", "--json", "list"),
                      ("quarantine", "list", "--json")):
            self.assertEqual(json.loads(self.gw.ctl(*words).stdout)["id"], held, words)

    def test_bad_usage_is_2_and_refusals_are_1(self):
        for words in ((), ("nonsense",), ("queue",), ("queue", "frob"),
                      ("queue", "list", "--state", "bogus"), ("user", "add")):
            self.assertEqual(self.gw.ctl(*words, check=False).returncode, 2, words)
        done = self.gw.ctl("user", "remove", "nobody-here", check=False)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1))
        self.assertEqual(self.gw.ctl("check").returncode, 0)

    @unittest.skipIf(os.getuid(), "without root there is no privilege to drop")
    def test_a_module_is_checked_without_privileges(self):
        module = self.module("nosy", r"""
        #include <relayd/filter.h>
        #include <stdio.h>
        #include <unistd.h>
        static enum filter_status run(struct filter_tx *tx, const void *settings)
        { (void)tx; (void)settings; return FILTER_DONE; }
        __attribute__((constructor)) static void load(void)
        { (void)fprintf(stderr, "loaded by %d\n", (int)geteuid()); }
        const struct filter relayd_filter = { .abi = RELAYD_FILTER_ABI, .size = sizeof(struct filter),
            .name = "nosy", .stages = FILTER_AT(FILTER_MAIL), .run = run };
        """)
        self.gw.write_config(filters='filter nosy { module = "%s" }\nfilter ratelimit { }' % module)
        done = self.gw.ctl("check", check=False)
        self.assertNotIn("loaded by 0", done.stderr)
        self.assertIn("loaded by 65534", done.stderr)
        self.assertRegex(done.stdout, "FAILS +config .*ratelimit")  # and what it says is heard

    def test_output_that_is_lost_is_a_failure(self):
        with open("/dev/full", "w") as full:
            for words in ("status",), ("metrics",):     # less than a buffer, and more
                done = subprocess.run([BUILD + "/relayctl", "-c", self.gw.config, *words],
                                      stdout=full, stderr=subprocess.PIPE, text=True)
                self.assertEqual(done.returncode, 1, words)
                self.assertIn("standard output", done.stderr)

    def test_a_low_soft_limit_of_open_files_is_raised(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        gw = self.gateway(self.upstream(), start=False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        try:
            gw.start()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for role in ("intake", "delivery", "review"):
            with open("/proc/%d/limits" % gw.pids(role)[0]) as f:
                line, = (line for line in f if line.startswith("Max open files"))
            self.assertEqual(line.split()[3:5], [str(hard), str(hard)], role)

    def test_stop_ends_it(self):
        self.gw.ctl("stop")
        self.assertEqual(self.gw.process.child.wait(40), 0)
        self.assertIn("does not run", self.gw.ctl("status", check=False).stderr)

    def test_log_lines_have_time_role_and_event_and_never_break(self):
        self.gw.send(message("log"), "log@example.net")
        with Chat(self.gw.smtp) as c:
            c.reply()
            c.ask('HELO evil"\tevent=forged')
        self.gw.wait_log("event=delivery.sent")
        for line in self.gw.log().splitlines():
            if line.startswith("t="):
                self.assertRegex(line, r"^t=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z role=\w+ "
                                 r"(index=\d+ )?event=[a-z.0-9]+( |$)")
        events = set(re.findall(r" event=([a-z.]+)", self.gw.log()))
        self.assertLessEqual({"role.start", "connect", "disconnect", "message.accepted",
                              "delivery.sent"}, events)


class Spool(GatewayTest):
    """relayctl spool: beside a running relayd, and on what is left of a damaged spool."""

    def setUp(self):
        super().setUp()
        up = self.upstream()
        up.stop()       # all of it stays in the queue
        self.gw = self.gateway(up, queue="retry = { 1h }  reserve = 1M", workers=1)
        large = "\r\n".join("large %d" % n for n in range(40000))
        self.texts = ["first", large, "spoilt-here", "last"]
        for text in self.texts:
            self.assertEqual(self.gw.send(message("spool", text))[0], 250)
        wait_for(lambda: len(self.gw.ctl_json("queue", "list")) == 4, "four in the queue")

    def spoil(self):
        """One bit of the third message; its path and the id."""
        for path in glob.glob(self.gw.dir + "/**/*.seg", recursive=True):
            with open(path, "r+b") as f:
                data = f.read()
                at = data.find(b"spoilt-here")
                if at >= 0:
                    f.seek(at)
                    f.write(b"S")
                    return path
        raise AssertionError("the third message is in no segment")

    def test_a_running_spool_is_whole_and_told(self):
        done = self.gw.ctl("spool", "check")
        self.assertRegex(done.stdout, r" 4 messages whole, 4 of them open; 0 damaged places")
        rows = [r for r in self.gw.ctl_json("spool", "dump") if r["what"] == "message"]
        self.assertEqual({r["id"] for r in rows},
                         {r["id"] for r in self.gw.ctl_json("queue", "list")})
        for row in rows:
            self.assertEqual(row["envelope"]["from"], "bob@example.net")
            self.assertEqual(row["envelope"]["copies"][0]["recipients"][0]["path"],
                             "ann@example.test")
        one = "%s/%s" % (rows[0]["log"], rows[0]["file"])
        self.assertIn(rows[0]["id"], self.gw.ctl("spool", "dump", one).stdout)
        self.assertRegex(self.gw.ctl("spool", "dump").stdout, r"\n    log \d+ [a-z2-7]{26}\n")
        self.assertEqual(self.gw.ctl("spool", "dump", "no/such.seg", check=False).returncode, 1)
        self.assertEqual(self.gw.ctl("spool", "mend", check=False).returncode, 2)

    def test_what_is_whole_is_saved_from_a_damaged_segment(self):
        ids = [r["id"] for r in self.gw.ctl_json("queue", "list")]
        self.gw.stop()
        path = self.spoil()
        done = self.gw.ctl("spool", "check", check=False)
        self.assertEqual(done.returncode, 1, done.stdout)
        where = "/".join(path.split("/")[-2:])
        line = [text for text in done.stdout.splitlines() if text.startswith(where)]
        self.assertEqual(len(line), 1, done.stdout)
        lost = [i for i in ids if line[0].endswith(": message " + i)]
        self.assertEqual(len(lost), 1, done.stdout)
        out = self.gw.dir + "/saved"
        self.gw.ctl("spool", "salvage", out)
        self.assertEqual(sorted(os.listdir(out)),
                         sorted(i + end for i in ids if i not in lost for end in (".eml", ".json")))
        with open("%s/%s.eml" % (out, next(i for i in ids if i not in lost)), "rb") as f:
            self.assertIn(b"Subject: spool\r\n", f.read())
        sizes = [os.path.getsize(out + "/" + name) for name in os.listdir(out)]
        self.assertGreater(max(sizes), len(self.texts[1]))


class Slow(GatewayTest):
    def test_a_silent_client_hurts_nobody(self):
        gw = self.gateway(self.upstream(), workers=1)
        idle = [socket.create_connection(("127.0.0.1", gw.smtp)) for _ in range(200)]
        start = time.monotonic()
        self.assertEqual(gw.send()[0], 250)
        self.assertLess(time.monotonic() - start, 10)
        for s in idle:
            s.close()

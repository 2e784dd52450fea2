"""The pipeline as a client and an admin see it: SPF, DNS lists, rules, rates, policies, modules."""
import contextlib
import smtplib
import subprocess

from harness import BUILD, GTUBE, RULES, GatewayTest, in_thread, message, wait_for

ZONE = """\
    pass   TXT "v=spf1 ip4:127.0.0.1 -all"
    fail   TXT "v=spf1 -all"
    soft   TXT "v=spf1 ~all"
    chain  TXT "v=spf1 include:pass.sender.test -all"
    bad    TXT "v=spf1 ip4:1.2.3.4.5 -all"
    pass   MX 10 mail
    mail   A 127.0.0.1
    """


class Dns(GatewayTest):
    """A real DNS server with a local zone."""

    def setUp(self):
        super().setUp()
        self.up = self.upstream()
        self.dns = self.nsd({"sender.test": ZONE, "list.test": "1.0.0.127 A 127.0.0.2\n"})

    def test_spf_results_become_scores_and_a_field(self):
        gw = self.gateway(self.up, dns=self.dns.server,
                          filters="filter spf { fail = 9.0  softfail = 5.5 }")
        for name, result in (("pass", "pass"), ("soft", "softfail"), ("chain", "pass")):
            code, said = gw.send(message("spf " + name), "a@%s.sender.test" % name)
            self.assertEqual(code, 250, said)
            head = self.up.find("Subject: spf " + name)[0].decode()
            self.assertRegex(head, r"Authentication-Results: mx\.example\.test;(?s:.{0,120})spf=%s" % result)
            self.assertIn("smtp.mailfrom=a@%s.sender.test" % name, head.replace("\r\n\t", " "))
        self.assertIn("X-Relayd-Verdict: tag", self.up.find("Subject: spf soft")[0].decode())
        code, said = gw.send(message("spf fail"), "a@fail.sender.test")
        self.assertEqual(code, 250)
        row = wait_for(lambda: gw.ctl_json("quarantine", "list"), "the failed one held")[0]
        self.assertEqual(row["id"], said.split()[-1])

    def test_dns_trouble_is_a_4xx_and_never_a_guess(self):
        gw = self.gateway(self.up, dns='"127.0.0.1:1"', filters="filter spf { fail = 9.0 }")
        code, said = gw.send(message("trouble"), "a@pass.sender.test")
        self.assertEqual((code // 100, said[:2]), (4, "4."))
        gw.wait_log("event=filter.error")

    def test_a_listed_client_is_refused(self):
        gw = self.gateway(self.up, dns=self.dns.server, policies="policy inbound { reject = 4.0 }",
                          filters='filter dnsbl { zones = { "list.test=4.0" } }')
        code, said = gw.send(message("listed"))
        self.assertEqual((code, said[:5]), (550, "5.7.1"))
        self.assertIn("dnsbl", said.lower())


class Rates(GatewayTest):
    def test_the_rate_of_a_sender_is_kept_across_workers_and_restarts(self):
        up = self.upstream()
        gw = self.gateway(up, filters='filter ratelimit { key = { sender }  rate = "5/1h"  '
                          'action = defer }')
        self.crowd(gw)
        codes = [gw.send(message("n%d" % i), "one@example.net")[0] for i in range(8)]
        self.assertEqual(codes[:5], [250] * 5)
        self.assertTrue(all(c // 100 == 4 for c in codes[5:]), codes)
        self.assertEqual(gw.send(message("other"), "two@example.net")[0], 250)
        gw.stop()
        gw.start()
        code, said = gw.send(message("again"), "one@example.net")
        self.assertEqual(code // 100, 4)
        self.assertIn("ratelimit", said.lower())


class Policies(GatewayTest):
    def test_each_recipient_has_the_verdict_of_its_domain(self):
        up = self.upstream()
        routes = "".join('route %s { to = { "127.0.0.1:%d" }  recipients = any }\n' % (d, up.port)
                         for d in ("example.test", "lax.test"))
        with open(self.folder + "/r.cf", "w") as f:
            f.write("header MEDIUM Subject =~ /medium/\nscore MEDIUM 9\n")
        gw = self.gateway(domains="example.test, lax.test", routes=routes,
                          filters='filter rules { files = { "%s/r.cf" } }' % self.folder,
                          policies="policy inbound { quarantine = 8 }\n"
                          "policy lax.test { quarantine = 100 }")
        code, said = gw.send(message("medium"), rcpts=["ann@example.test", "bob@lax.test"])
        self.assertEqual(code, 250)
        got, envelope = up.find("Subject: medium")
        self.assertEqual(envelope["forward_paths"], ["bob@lax.test"])
        row = wait_for(lambda: gw.ctl_json("quarantine", "list"), "the held copy")[0]
        self.assertIn("ann@example.test", str(row))
        self.assertNotIn("bob@lax.test", str(row))

    def test_reject_names_the_check_and_the_id(self):
        gw = self.gateway(self.upstream(), filters=RULES, policies="policy inbound { reject = 10 }")
        code, said = gw.send(message("no", GTUBE))
        self.assertEqual(code, 550)
        self.assertRegex(said, r"(?i)rules|GTUBE")
        self.assertRegex(said, r"[a-z2-7]{26}")
        self.assertRegex(gw.wait_log("event=message.rejected"), "GTUBE|rules")

    def test_fields_of_ours_from_outside_are_removed(self):
        up = self.upstream()
        gw = self.gateway(up)
        gw.send(message("forged", headers="X-Relayd-Verdict: clean\r\nX-RELAYD-Score: 0\r\n"
                        "Authentication-Results: mx.example.test; spf=pass\r\n"
                        "Authentication-Results: other.example; spf=pass\r\n"))
        head = up.find("Subject: forged")[0].decode()
        self.assertNotIn("X-Relayd-Verdict: clean", head)
        self.assertNotIn("X-RELAYD-Score", head)
        self.assertNotIn("mx.example.test; spf=pass", head)
        self.assertIn("other.example; spf=pass", head)


class Modules(GatewayTest):
    SOURCE = r"""
    #include <relayd/filter.h>
    static enum filter_status
    run(struct filter_tx *tx, const void *settings)
    {
        const struct filter_envelope *env = filter_envelope(tx);
        (void)settings;
        if (slice_istarts(env->reverse_path, SLICE("villain@")))
            filter_verdict(tx, FILTER_REJECT, SLICE("no villains"));
        return FILTER_DONE;
    }
    static const struct filter_option options[] = { { "mood", FILTER_OPTION_STRING }, { 0 } };
    const struct filter relayd_filter = { .abi = RELAYD_FILTER_ABI, .size = sizeof(struct filter),
        .name = "villain", .stages = FILTER_AT(FILTER_MAIL), .options = options, .run = run };
    """

    def test_a_filter_from_outside_the_tree_is_loaded(self):
        module = self.module("villain", self.SOURCE)
        gw = self.gateway(self.upstream(), filters='filter villain { module = "%s"  '
                          'options = { "mood=grim" } }' % module)
        code, said = gw.send(sender="villain@example.net")
        self.assertEqual(code // 100, 5)
        self.assertIn("no villains", said)
        self.assertEqual(gw.send()[0], 250)

    FOOTER = r"""
    #include <relayd/filter.h>
    static enum filter_status
    run(struct filter_tx *tx, const void *settings)
    {
        const struct filter_envelope *env = filter_envelope(tx);
        struct filter_edit edit = { .at = tx->host->message(tx).len };
        (void)settings;
        edit.insert = slice_istarts(env->reverse_path, SLICE("odd@"))
            ? SLICE("odd\rline\n") : SLICE(".\r\nRSET\r\n\xc3\xa9\r\n..\r\n");
        tx->host->edit(tx, &edit);
        return FILTER_DONE;
    }
    const struct filter relayd_filter = { .abi = RELAYD_FILTER_ABI, .size = sizeof(struct filter),
        .name = "footer", .stages = FILTER_AT(FILTER_MESSAGE), .flags = FILTER_SHAPER, .run = run };
    """

    def test_what_a_shaper_adds_cannot_end_the_message(self):
        module = self.module("footer", self.FOOTER)
        up = self.upstream()
        gw = self.gateway(up, filters='filter footer { module = "%s" }' % module)
        self.assertEqual(gw.send(message("dotted", "The end."))[0], 250)
        got = up.find("Subject: dotted")[0]
        self.assertTrue(got.endswith(b"The end.\r\n.\r\nRSET\r\n\xc3\xa9\r\n..\r\n"), got)
        self.assertEqual(gw.send(message("plain", "The end."), sender="odd@example.net")[0], 250)
        self.assertTrue(up.find("Subject: plain")[0].endswith(b"The end.\r\n"))
        gw.wait_log("event=filter.error .*filter=footer why=edit-no-text")
        self.assertEqual(len(up.messages()), 2)

    HANGS = r"""
    #include <relayd/filter.h>
    #include <unistd.h>
    static enum filter_status
    run(struct filter_tx *tx, const void *settings)
    {
        (void)settings;
        while (slice_istarts(filter_envelope(tx)->reverse_path, SLICE("hang@")))
            (void)pause();
        return FILTER_DONE;
    }
    const struct filter relayd_filter = { .abi = RELAYD_FILTER_ABI, .size = sizeof(struct filter),
        .name = "hangs", .stages = FILTER_AT(STAGE), .flags = FLAGS, .run = run };
    """

    def test_one_that_never_returns_costs_its_worker_and_others_little(self):
        module = self.module("hangs", self.HANGS, "-DSTAGE=FILTER_MAIL", "-DFLAGS=0")
        up = self.upstream()
        gw = self.gateway(up, workers=2, limits="filter-time = 20s",
                          filters='filter lost { module = "%s" }' % module)
        self.assertEqual(gw.send(message("before"))[0], 250)
        with gw.smtp_client(timeout=300) as c:
            c.ehlo()
            c.putcmd("mail", "FROM:<hang@example.net>")
            self.assertEqual(gw.send(message("meanwhile"))[0], 250)     # by the other worker
            pids = {row["state"]: row["pid"] for row in gw.ctl_json("status")
                    if row["role"] == "intake"}
            self.assertEqual(sorted(pids), ["hangs", "up"])
            lost = pids["hangs"]
            gw.write_config(filters="")
            late = gw.ctl("reload", check=False)
            self.assertEqual(late.returncode, 1)
            self.assertRegex(late.stderr, r"^relayctl: intake worker \d+ \(pid %d\) has not taken the config "
                             r"yet: its filter lost does not return \(.*; all others have\n$" % lost)
            gw.wait_log("event=reload result=late why=")
            self.assertNotIn("event=role.exit", gw.log())       # so it was told before
            with self.assertRaises(smtplib.SMTPServerDisconnected):
                c.getreply()
        gw.wait_log('event=role.exit name=intake .*signal=9 filter=lost why="killed: the filter did not return"')
        gw.wait_log("event=reload result=done")
        wait_for(gw.is_up, "the worker again")
        self.assertEqual(gw.send(message("after"), "hang@example.net")[0], 250)
        for subject in "before", "meanwhile", "after":
            up.find("Subject: " + subject)
        self.assertEqual(gw.log().count("event=role.exit"), 1)

    def test_heavy_ones_that_never_return_hold_no_mail_and_end_their_worker_when_more_waits(self):
        module = self.module("heavy", self.HANGS, "-DSTAGE=FILTER_MESSAGE", "-DFLAGS=FILTER_HEAVY")
        up = self.upstream()
        gw = self.gateway(up, workers=1, limits="filter-time = 2s",
                          filters='filter lost { module = "%s" }' % module)
        self.assertEqual(gw.send(message("before"))[0], 250)
        answers = []
        hung = [in_thread(lambda n=n: answers.append(gw.send(message("hung %d" % n), "hang@example.net")))
                for n in range(2)]      # all that the pool has room for
        for thread in hung:
            thread.join()
        self.assertEqual([code for code, _ in answers], [250, 250])     # on-error = accept
        gw.wait_log("event=filter.error .*filter=lost", 2)
        self.assertEqual(gw.log().count("event=role.exit"), 0)          # nobody waited for them
        with contextlib.suppress(smtplib.SMTPServerDisconnected):
            gw.send(message("waits"))
        gw.wait_log('event=role.exit name=intake .*signal=9 why="killed: no heavy filter came back, '
                    'and mail waits for them"')
        wait_for(gw.is_up, "the worker again")
        self.assertEqual(gw.send(message("after"))[0], 250)
        for subject in "before", "hung 0", "hung 1", "after":
            up.find("Subject: " + subject)
        self.assertEqual(gw.log().count("event=role.exit"), 1)

    def test_one_that_is_none_is_refused_with_its_line(self):
        gw = self.gateway(self.upstream(), start=False,
                          filters='filter x { module = "/nowhere/x.so" }')
        done = subprocess.run([BUILD + "/relayd", "-n", "-c", gw.config], capture_output=True,
                              text=True)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"relayd\.conf:\d+: ")
        self.assertIn("/nowhere/x.so", done.stderr)

"""The demo of `./dev run`: what it shows, and that it ends all it started."""
import os
import signal
import subprocess
import sys

from harness import BUILD, ROOT, GatewayTest, free_port, wait_for

# The demo itself, but on free ports: another one may run on this machine.
ON_PORTS = """\
import sys
sys.path.insert(0, sys.argv[1])
import demo
demo.PORTS = dict(zip(demo.PORTS, map(int, sys.argv[3].split(","))))
del sys.argv[3], sys.argv[1]
demo.main()
"""


class Demo(GatewayTest):
    def setUp(self):
        super().setUp()
        os.chmod(self.folder, 0o755)
        for name in ("relayd", "relayctl"):
            os.symlink(os.path.join(BUILD, name), os.path.join(self.folder, name))
        self.addCleanup(self.kill_all)

    def started(self):
        """The processes that are of this demo, by a word in the environment that all of them have."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/environ" % pid, "rb") as f:
                    words = f.read()
            except OSError:
                continue
            if b"OF_DEMO=" + os.fsencode(self.folder) in words:
                found.append(int(pid))
        return found

    def kill_all(self):
        for pid in self.started():
            os.kill(pid, signal.SIGKILL)

    def start(self):
        """As a shell starts what is to run in its background: with SIGINT ignored."""
        ports = ",".join(str(free_port()) for _ in range(9))
        out = open(self.folder + "/out", "w")
        self.addCleanup(out.close)
        return subprocess.Popen(
            [sys.executable, "-c", ON_PORTS, os.path.join(ROOT, "etc", "demo"), self.folder, ports],
            env={**os.environ, "OF_DEMO": self.folder}, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))

    def out(self):
        with open(self.folder + "/out") as f:
            return f.read()

    def wait_for_table(self, demo):
        wait_for(lambda: "Ctrl-C ends it all" in self.out() or demo.poll() is not None, "the table")
        self.assertIsNone(demo.poll(), self.out())

    def test_it_shows_each_fate_and_ends_all_it_started(self):
        demo = self.start()
        self.wait_for_table(demo)
        for row in (r"a clean message +delivered: upstream/",
                    r"spam that the rules hold +held in the quarantine\n +250 ",
                    r"message \d+ of one sender in a minute +put off.*\n +450 4\.7\.1 ",
                    r"an? unknown recipient +refused.*\n +550 5\.1\.1 ",
                    r"a foreign domain +refused.*\n +550 5\.7\.1 "):
            self.assertRegex(self.out(), row)
        self.assertGreaterEqual(len(self.started()), 7)     # with the supervisor and four roles
        demo.send_signal(signal.SIGINT)
        demo.send_signal(signal.SIGINT)     # impatient
        self.assertEqual(demo.wait(120), 0, self.out())
        wait_for(lambda: not self.started(), "the end of all")

    def test_a_terminal_that_goes_ends_it_too(self):
        demo = self.start()
        self.wait_for_table(demo)
        demo.send_signal(signal.SIGHUP)
        demo.wait(120)
        wait_for(lambda: not self.started(), "the end of all")

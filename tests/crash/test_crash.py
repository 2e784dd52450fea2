"""A short run of crash.py, as part of every test run."""
import os
import shutil
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import crash  # noqa: E402


class KilledUnderLoad(unittest.TestCase):
    def test_every_250_is_delivered_whole(self):
        folder = tempfile.mkdtemp(prefix="relayd-crash-")
        self.addCleanup(shutil.rmtree, folder, True)
        acked, lost, torn, again, kills = crash.run(folder, rounds=25, senders=10, seed=7)
        print("  crash: %d acknowledged, %d delivered twice, kills: %s" % (acked, again, kills))
        self.assertGreater(acked, 100)
        self.assertEqual(lost, [])
        self.assertEqual(torn, [])
        self.assertLess(again, acked / 10)


if __name__ == "__main__":
    unittest.main()

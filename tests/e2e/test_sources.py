"""What a reader of the sources may rely on."""
import glob
import os
import unittest

from harness import ROOT

COLUMNS = 100   # with tabs of eight


class Sources(unittest.TestCase):
    def test_no_line_of_c_is_wider_than_a_hundred_columns(self):
        folders = ("filters", "include", "relayd", "tests")
        paths = [path for folder in folders for kind in "ch"
                 for path in glob.glob("%s/%s/**/*.%s" % (ROOT, folder, kind), recursive=True)]
        self.assertGreater(len(paths), 400)
        wide = []
        for path in paths:
            with open(path) as f:
                wide += ["%s:%d" % (os.path.relpath(path, ROOT), n) for n, line in enumerate(f, 1)
                         if len(line.rstrip("\n").expandtabs()) > COLUMNS]
        self.assertEqual(wide, [])

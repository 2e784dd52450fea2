#!/usr/bin/env python3
"""Every test of relayd, in order of how fast it tells: unit, fuzz (some seconds a target), end to
end, crash.  usage: run.py [unit|fuzz|e2e|crash ...]

The unit and end-to-end tests run on the build with AddressSanitizer and UBSan.  Ends with
`N passed, N failed` and an exit status that says the same.
"""
import concurrent.futures
import glob
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SANITIZED = os.path.join(ROOT, "build", "sanitize")
FUZZ = os.path.join(ROOT, "build", "fuzz")
CORPORA = os.path.join(ROOT, "..", "shared", "data")    # not ours: the RFC 7208 suite of SPF and others
FUZZ_SECONDS = int(os.environ.get("FUZZ_SECONDS", "8"))
UNIT_SECONDS = 1800     # of one program; on a busy machine of two cores the longest took 10 minutes
SANITIZER = {
    # The public suppression is for what libraries keep until the end on purpose.
    "ASAN_OPTIONS": "abort_on_error=0:detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "CK_FORK": "yes",
}


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def add(self, name, passed, failed, seconds, output=""):
        self.passed += passed
        self.failed += failed
        word = "ok" if failed == 0 else "FAILED"
        print("  %-34s %5d passed %s %6.1f s" % (name, passed, word, seconds), flush=True)
        if failed:
            print(output[-6000:], flush=True)


def run(command, timeout, cwd=ROOT, env=None):
    """(exit status, output, seconds); a hang is a failure, not an endless wait."""
    start = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, cwd=cwd,
                              env={**os.environ, **SANITIZER, **(env or {})}, stdin=subprocess.DEVNULL)
        status, output = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as e:
        status, output = -1, (e.stdout or b"") + b"\ntimed out after %d s" % timeout
    return status, output.decode("utf-8", "replace"), time.monotonic() - start


def unit(tally):
    print("unit (AddressSanitizer, UBSan):")
    programs = sorted(p for p in glob.glob(SANITIZED + "/tests/unit_*") if os.access(p, os.X_OK))
    if not programs:
        tally.add("unit programs", 0, 1, 0, "none was built")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for program, (status, output, took) in zip(programs,
                                                   pool.map(lambda p: run([p], UNIT_SECONDS), programs)):
            m = re.search(r"Checks: (\d+), Failures: (\d+), Errors: (\d+)", output)
            checks = int(m[1]) if m else 0
            bad = int(m[2]) + int(m[3]) if m else 1
            bad = max(bad, 1 if status != 0 or checks == 0 else 0)
            tally.add(os.path.basename(program), checks - min(bad, checks), bad, took, output)
    if not os.path.isdir(CORPORA):
        tally.skipped += 1
        print("  skipped: the suites of SPF, MIME and SpamAssassin, as there is no ../shared/data")


def fuzz_one(target):
    name = os.path.basename(target)[len("fuzz_"):]
    seeds = os.path.join(ROOT, "tests", "fuzz", "seeds", name)
    with tempfile.TemporaryDirectory() as corpus:
        dictionary = os.path.join(CORPORA, "fuzz-dict", name + ".dict")
        extra = ["-dict=" + dictionary] if os.path.exists(dictionary) else []
        return run([target, "-max_total_time=%d" % FUZZ_SECONDS, "-rss_limit_mb=2048",
                    "-timeout=20", "-artifact_prefix=" + corpus + "/", *extra, corpus, seeds],
                   FUZZ_SECONDS + 120)


def fuzz(tally):
    print("fuzz (%d s each, from the seeds):" % FUZZ_SECONDS)
    targets = sorted(p for p in glob.glob(FUZZ + "/tests/fuzz_*") if os.access(p, os.X_OK))
    if not targets:
        tally.add("fuzz targets", 0, 1, 0, "none was built")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for target, (status, output, took) in zip(targets, pool.map(fuzz_one, targets)):
            tally.add(os.path.basename(target), status == 0, status != 0, took, output)


def classes(folder):
    """module.Class of every test class, without running anything of it."""
    sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
    names, todo = set(), [unittest.TestLoader().discover(os.path.join(ROOT, "tests", folder), "test_*.py")]
    while todo:
        item = todo.pop()
        if isinstance(item, unittest.TestSuite):
            todo.extend(item)
        else:
            names.add(type(item).__module__ + "." + type(item).__qualname__
                      if type(item).__module__ != "unittest.loader" else item.id())
    return sorted(names)


def python_class(folder, name):
    """(passed, failed, skipped, seconds, output) of one class, in a process of its own."""
    env = {"PYTHONPATH": os.path.join(ROOT, "tests", "e2e"),
           "RELAYD_BUILD": os.environ.get("RELAYD_BUILD", SANITIZED)}
    status, output, took = run([sys.executable, "-W", "ignore", "-m", "unittest", "-v", name], 600,
                               os.path.join(ROOT, "tests", folder), env)
    ran = re.search(r"^Ran (\d+) test", output, re.M)
    bad, skipped = (sum(int(n) for n in re.findall(word + r"=(\d+)", output))
                    for word in ("(?:failures|errors)", "skipped"))
    count = int(ran[1]) if ran else 0
    bad = max(bad, 1 if status != 0 or count == 0 else 0)
    return max(count - bad - skipped, 0), bad, skipped, took, output


def python_tests(tally, folder, at_once):
    names = classes(folder)
    if not names:
        tally.add(folder, 0, 1, 0, "no test was found")
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        for name, result in zip(names, pool.map(lambda n: python_class(folder, n), names)):
            passed, bad, skipped, took, output = result
            tally.add(name, passed, bad, took, output)
            tally.skipped += skipped
            for line in re.findall(r".* skipped .*", output):
                print("  " + line)


def e2e(tally):
    print("end to end, with real peers (AddressSanitizer, UBSan):")
    python_tests(tally, "e2e", 3)


def crash(tally):
    print("crash:")
    python_tests(tally, "crash", 1)


def main():
    stages = {"unit": unit, "fuzz": fuzz, "e2e": e2e, "crash": crash}
    wanted = sys.argv[1:] or list(stages)
    if any(name not in stages for name in wanted):
        sys.exit(__doc__)
    tally, start = Tally(), time.monotonic()
    for name in wanted:
        stages[name](tally)
    print("\nall of %s in %d s" % (", ".join(wanted), time.monotonic() - start))
    print("%d passed, %d failed, %d skipped" % (tally.passed, tally.failed, tally.skipped))
    sys.exit(1 if tally.failed or not tally.passed else 0)


if __name__ == "__main__":
    main()

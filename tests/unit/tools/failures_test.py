#!/usr/bin/python3
"""tools/failures names what failed in the logs of all that tools/test runs."""
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
UNIT = """Running suite(s): peer
95%: Checks: 20, Failures: 1, Errors: 1
tests/unit/cluster/peer_test.c:12:F:peer:hears:3: Assertion 'a == 1' failed: a == 2, 1 == 1
./tests/unit/cluster/world.h:67:E:peer:waits:0: (after this point) Test timeout expired
"""
PYTEST = """collecting ... collected 3 items
tests/proto/test_x.py::test_a PASSED                                     [ 33%]
tests/proto/test_x.py::test_b[one two] FAILED                            [ 66%]
tests/proto/test_x.py::test_c ERROR                                      [100%]
__________ test_b __________
tests/proto/test_x.py:12: in test_b
    assert 1 == 2
E   assert 1 == 2
=========== short test summary info ============
SKIPPED [1] tests/proto/test_x.py:9: no such client
FAILED tests/proto/test_x.py::test_b[one two] - assert 1 == 2
ERROR tests/proto/test_x.py::test_c - OSError: no
==== 1 failed, 1 passed, 1 error in 0.10s ====
"""
ASAN = """100%: Checks: 4, Failures: 0, Errors: 0
==7==ERROR: LeakSanitizer: detected memory leaks
    #0 0x5 in malloc
SUMMARY: AddressSanitizer: 5 byte(s) leaked in 1 allocation(s).
"""
UNITTEST = """..F
======================================================================
FAIL: test_words (__main__.Check.test_words)
----------------------------------------------------------------------
  File "check_test.py", line 60, in test_words
Ran 3 tests in 0.10s
"""
BUILD = """  CC cluster/peer.c
cluster/peer.c: In function 'hear':
cluster/peer.c:77:9: error: unused variable 'x' [-Werror=unused-variable]
cc1: all warnings being treated as errors
make: *** [Makefile:62: build/release/cluster/peer.o] Error 1
"""
SIM = """seed 12 ok ops 5
seed 13 FAILED at 1.250000 s: an acknowledged record is lost
sim: seeds 1..200 run 200 failed 1 operations 5
"""


class Failures(unittest.TestCase):
    def failures(self, log):
        with tempfile.NamedTemporaryFile("w") as f:
            f.write(log)
            f.flush()
            done = subprocess.run([ROOT / "tools/failures", "what ran", f.name],
                                  capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    def names(self, log, *told):
        lines = self.failures(log)
        self.assertEqual(len(lines), len(told), lines)
        for line, words in zip(lines, told):
            self.assertTrue(line.startswith("what ran: "), line)
            self.assertIn(words, line)

    def test_programs_of_check(self):
        self.names(UNIT, "peer_test.c:12:F:peer:hears:3: Assertion 'a == 1'", "E:peer:waits:0:")

    def test_files_of_pytest(self):
        self.names(PYTEST, "FAILED tests/proto/test_x.py::test_b[one two] - assert 1 == 2",
                   "ERROR tests/proto/test_x.py::test_c")

    def test_pytest_that_was_ended(self):
        self.names("".join(PYTEST.splitlines(True)[:3]) + "tests/proto/test_x.py::test_c ",
                   "test_b[one two] FAILED", "test_x.py::test_c")
        self.assertTrue(self.failures(PYTEST[:240])[0].endswith(" FAILED"))

    def test_a_sanitizer(self):
        self.names(ASAN, "5 byte(s) leaked")
        self.names("x/y.c:3:4: runtime error: signed integer overflow\n", "y.c:3:4")

    def test_scripts_builds_and_rules(self):
        self.names(UNITTEST, "FAIL: test_words")
        self.names(BUILD, "peer.c:77:9: error: unused variable")
        self.names("a/b.c:12: 101 columns\ncheck: 3 files, 1 findings\n", "b.c:12: 101 columns")

    def test_the_simulator(self):
        self.names(SIM, "seed 13 FAILED at 1.250000 s: an acknowledged record is lost")

    def test_whoever_says_nothing(self):
        self.names("", "empty")
        self.names("Running suite(s): peer\nended with 139\n", "ended with 139")

    def test_many_are_cut(self):
        self.assertEqual(len(self.failures(UNIT * 50)), 4)


if __name__ == "__main__":
    unittest.main()

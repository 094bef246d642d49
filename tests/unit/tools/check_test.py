#!/usr/bin/python3
"""Plants one violation at a time in a small clean tree: tools/check must name each of them, and
must find nothing in the clean tree."""
import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
CLEAN = {
    "server/base/err.h": "#ifndef BASE_ERR_H\n#define BASE_ERR_H\nint base_err(void);\n#endif\n",
    "server/base/err.c": '#include "server/base/err.h"\n\nint base_err(void)\n{\n\treturn 0;\n}\n',
    "server/net/conn.h": '#include "server/base/err.h"\n',
    "storage/store.h": '#include "server/base/err.h"\n',
    "storage/record_batch.h": '#include "server/base/err.h"\n',
    "storage/store_rocks.c": '#include <rocksdb/c.h>\n#include "storage/store.h"\n',
    "cluster/partition.h": '#include "storage/store.h"\n#include "server/net/conn.h"\n',
    "cluster/consensus.c": "#include <raft.h>\n",
    "server/net/tls.c": "#include <wolfssl/ssl.h>\n",
    "server/broker/broker.h": '#include "cluster/partition.h"\n',
    "protocols/mqtt/mqtt.c":
        '#include "server/broker/broker.h"\n#include "storage/record_batch.h"\n'
        '#include "server/net/conn.h"\n#include "protocols/mqtt/mqtt.h"\n',
    "protocols/mqtt/mqtt.h": "struct mqtt;\n",
    "protocols/kafka/kafka.h": "struct kafka;\n",
    "server/modules.c": '#include "protocols/mqtt/mqtt.h"\n#include "storage/store.h"\n',
}


class Check(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.folder.name)
        (self.root / ".clang-format").write_bytes((ROOT / ".clang-format").read_bytes())
        for name, text in CLEAN.items():
            self.put(name, text)
            self.put(os.path.dirname(name) + "/README.md", "what it is\n")

    def tearDown(self):
        self.folder.cleanup()

    def put(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run_check(self, *rules):
        done = subprocess.run([ROOT / "tools/check", "--root", self.root, *rules],
                              capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    def refuses(self, name, text, *words):
        self.put(name, text)
        status, out = self.run_check("layers", "sizes", "words", "readme")
        self.assertEqual(status, 1, out)
        lines = [line for line in out.splitlines() if line.startswith(name)]
        self.assertEqual(len(lines), 1, out)
        for word in words:
            self.assertIn(word, lines[0])

    def test_passes_the_clean_tree(self):
        self.assertEqual(self.run_check(), (0, ""))

    def test_base_includes_nothing_above(self):
        self.refuses("server/base/x.c", '#include "server/net/conn.h"\n', ":1:", "server/net")

    def test_base_does_not_see_the_stored_form(self):
        self.refuses("server/base/x.c", '#include "storage/record_batch.h"\n', "storage")

    def test_net_and_storage_are_strangers(self):
        self.refuses("server/net/x.c", '\n#include "storage/store.h"\n', ":2:", "storage")
        (self.root / "server/net/x.c").unlink()
        self.refuses("storage/x.c", '#include "server/net/conn.h"\n', "server/net")

    def test_cluster_does_not_know_the_broker(self):
        self.refuses("cluster/x.c", '#include "server/broker/broker.h"\n', "server/broker")

    def test_adapters_see_neither_cluster_nor_store(self):
        self.refuses("protocols/mqtt/x.c", '#include "cluster/partition.h"\n', "cluster")
        (self.root / "protocols/mqtt/x.c").unlink()
        self.refuses("protocols/mqtt/y.c", '#include "storage/store.h"\n', "storage")

    def test_adapters_are_strangers_to_each_other(self):
        self.refuses("protocols/mqtt/x.c", '#include "protocols/kafka/kafka.h"\n', "kafka")

    def test_includes_start_at_the_root(self):
        self.refuses("storage/x.c", '#include "store.h"\n', "root")

    def test_private_headers_stay_in_their_folder(self):
        self.put("storage/plog_priv.h", "struct plog;\n")
        self.refuses("cluster/x.c", '#include "storage/plog_priv.h"\n', "private")

    def test_libraries_have_one_home(self):
        self.refuses("cluster/partition.c", "#include <raft.h>\n", "raft")
        (self.root / "cluster/partition.c").unlink()
        self.refuses("storage/x.c", "#include <rocksdb/c.h>\n", "rocksdb")
        (self.root / "storage/x.c").unlink()
        self.refuses("server/net/conn.c", "#include <wolfssl/ssl.h>\n", "wolfssl")

    def body(self, lines, head="int f(void)"):
        return "%s\n{\n%s}\n" % (head, "\tf();\n" * (lines - 3))

    def test_long_functions(self):
        self.put("storage/x.c", self.body(70))
        self.assertEqual(self.run_check("sizes"), (0, ""))
        self.refuses("storage/x.c", "#include <stdio.h>\n\n" + self.body(71), ":3:", "71 lines")

    def test_a_long_test_counts_too(self):
        self.refuses("tests/unit/x_test.c", self.body(90, "START_TEST(a)") + "END_TEST\n", "90")

    def test_a_reason_excuses_a_long_function(self):
        self.put("storage/x.c", "/* long: one case per packet\n * in order. */\n" + self.body(99))
        self.assertEqual(self.run_check("sizes"), (0, ""))

    def test_long_files_and_lines(self):
        self.refuses("storage/x.h", "int x;\n" * 1001, "1001 lines")
        (self.root / "storage/x.h").unlink()
        self.refuses("storage/y.h", "\tint %s;\n" % ("y" * 90), "103 columns")

    def test_forbidden_functions(self):
        for name in ("strcpy", "strcat", "sprintf", "strtok", "atoi", "gmtime", "rand"):
            self.refuses("storage/x.c", "int f(void)\n{\n\treturn %s(0);\n}\n" % name,
                         ":3:", name)

    def test_words_in_comments_and_strings_are_fine(self):
        self.put("storage/x.c", '/* not sprintf(x) */\nconst char *f = "strcpy(a)";\n'
                                "int g(void)\n{\n\treturn my_atoi(snprintf(0));\n}\n")
        self.assertEqual(self.run_check("words"), (0, ""))

    def test_conditional_code_inside_a_function(self):
        self.refuses("storage/x.c", "int f(void)\n{\n#ifdef X\n\treturn 1;\n#endif\n}\n", "#if")

    def test_locks_outside_their_home(self):
        self.refuses("storage/x.c", "int f(void)\n{\n\treturn pthread_mutex_lock(0);\n}\n",
                     "pthread_mutex_lock")

    def test_a_todo_without_an_issue(self):
        self.put("storage/x.c", "/* TODO(#12): later */\n")
        self.assertEqual(self.run_check("words"), (0, ""))
        self.refuses("storage/x.c", "/* TODO: later */\n", "issue")

    def test_format(self):
        self.put("storage/x.c", "int f( void ) { return 0 ; }\n")
        status, out = self.run_check("format")
        self.assertEqual(status, 1)
        self.assertTrue(out.startswith("storage/x.c:"), out)

    def test_a_folder_without_a_readme(self):
        self.put("protocols/http/http.c", "int http;\n")
        status, out = self.run_check("readme")
        self.assertEqual((status, out), (1, "protocols/http:1: no README.md\n"))

    def test_an_unknown_rule(self):
        self.assertEqual(self.run_check("colour")[0], 2)


if __name__ == "__main__":
    unittest.main()

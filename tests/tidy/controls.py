#!/usr/bin/env python3
"""Negative controls of tidy.py: a small tree with one fault of each kind; each check must find its own, no more."""
import os
import subprocess
import sys
import tempfile

TIDY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tidy.py")
LONG = "int f(int x)\n{\n" + "    x++;\n" * 69 + "    return x;\n}\n"
GOOD = {
    "include/cox/base/err.h": "#include <stdint.h>\n",
    "include/cox/store.h": '#include "cox/base/err.h"\n',
    "orchestrator/engine/step.h": "",
    "orchestrator/engine/step.c": '#include "step.h"\n#include "cox/base/err.h"\n#include <string.h>\n',
    "lib/base/late.c": "int late(void) { return COX_PLANTED(\"late\"); }\n",
    "tests/planted/bugs.json": '[{"name": "late", "what": "x", "where": "lib/base/late.c", "tests": ["sim"]}]',
    "lib/rpc/server.c": "#include <grpc/grpc.h>\n#include <stdio.h>\n",
    "worker/slot.c": "/* system(1) */\nconst char *s = \"atoi(\";\nint x = a->random(3);\n" + LONG.replace("    x++;\n", "", 10),
    **{f"{d}/README.md": "[x](#here) [y](https://example.com) `[z](no)`\n" for d in
       ("include", "orchestrator", "orchestrator/engine", "lib", "lib/base", "lib/rpc", "worker", "tests", "tests/unit")},
    "tests/unit/test_x.c": "#include <cmocka.h>\n#include \"grpc/health/v1/health.pb-c.h\"\n",
}
# check, file, text put there (None: the file is removed), what the only complaint must contain
FAULTS = [
    ("includes", "orchestrator/engine/a.c", "#include <stdio.h>\n", "orchestrator/engine may not use stdio.h"),
    ("includes", "orchestrator/engine/a.c", "#include <time.h>\n", "may not use time.h"),
    ("includes", "orchestrator/engine/a.c", '#include "cox/store.h"\n', "may not use cox/store.h"),
    ("includes", "orchestrator/engine/a.c", "#include <event2/event.h>\n", "may not use event"),
    ("includes", "worker/a.c", "#  include <grpc/grpc.h>\n", "worker may not use grpc"),
    ("includes", "tests/unit/a.c", "#include <grpc/status.h>\n", "tests may not use grpc"),
    ("includes", "orchestrator/main.c", '#include "engine/step.h"\n', "may not look inside orchestrator/engine"),
    ("includes", "worker/a.c", '#include "../orchestrator/engine/step.h"\n', "worker may not look inside"),
    ("includes", "include/cox/base/a.h", '#include "cox/store.h"\n', "include/cox/base may not use cox/store.h"),
    ("includes", "lib/base/a.c", "#include <jansson.h>\n", "lib/base may not use jansson"),
    ("includes", "cli/a.c", '#include "cox/nothing.h"\n', "there is no cox/nothing.h"),
    ("includes", "elsewhere/a.c", "\n", "no part of the house"),
    ("size", "worker/a.c", "int x;\n" * 801, "801 lines"),
    ("size", "worker/a.c", LONG, "f has 72 lines"),
    ("calls", "worker/a.c", 'int n = atoi("1");\n', "worker/a.c:1: atoi"),
    ("calls", "worker/a.c", "\nvoid f(void) { strcpy (a, b); }\n", "worker/a.c:2: strcpy"),
    ("calls", "worker/a.c", "int x = rand();\n", "rand: use cox_rng_u64"),
    ("calls", "worker/a.c", "int x = system(s);\n", "system"),
    ("calls", "tests/unit/a.c", "int x = usleep(1000);\n", "usleep: wait for the event"),
    ("readmes", "worker/README.md", None, "worker: has no README.md"),
    ("readmes", "worker/handlers/a.c", "\n", "worker/handlers: has no README.md"),
    ("links", "worker/README.md", "see [this](../lib/nothing.md)\n", "worker/README.md:1: ../lib/nothing.md"),
    ("links", "worker/README.md", "```\n[no](x)\n```\n[a](../lib/README.md#b)\n[x](gone.c)\n", "README.md:5: gone.c"),
    ("planted", "worker/a.c", "int x = COX_PLANTED(\"lost\");\n", "worker/a.c:1: lost: has no row"),
    ("planted", "lib/base/late.c", "\n", "late: planted nowhere"),
    ("planted", "tests/planted/bugs.json", '[{"name": "late", "what": "x", "where": "a.c", "tests": ["sim"]}]', "not in a.c"),
    ("planted", "tests/planted/bugs.json", '[{"name": "late", "what": "x", "where": "lib/base/late.c", "tests": []}]', "a row has"),
    ("planted", "tests/planted/bugs.json", None, "lib/base/late.c:1: late: has no row"),
]


def put(root, name, text):
    path = os.path.join(root, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if text is None:
        os.unlink(path)
        return
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def complaints_of(check, changes):
    with tempfile.TemporaryDirectory() as root:
        for name, text in [*GOOD.items(), *changes]:
            put(root, name, text)
        done = subprocess.run([sys.executable, TIDY, "--root", root, check], check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode().splitlines()


def main():
    n_bad = 0
    for check in ("includes", "size", "calls", "readmes", "links", "planted"):
        code, lines = complaints_of(check, [])
        if code != 0 or lines:
            n_bad += 1
            print(f"{check}: complains about a good tree:", *lines)
    for check, name, text, expected in FAULTS:
        code, lines = complaints_of(check, [(name, text)])
        if code != 1 or len(lines) != 1 or expected not in lines[0]:
            n_bad += 1
            print(f"{check}: planted \"{expected}\" in {name}, found:", *lines)
    return 1 if n_bad else 0


if __name__ == "__main__":
    sys.exit(main())

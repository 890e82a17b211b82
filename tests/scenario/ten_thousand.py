#!/usr/bin/env python3
"""The task of ten-thousand.sh: 100 chains of 100 steps, of whose attempts 5 % fail.

usage: ten_thousand.py document BODY               prints the task
       ten_thousand.py check OUTPUTS DESCRIPTION   compares every output and every step's attempts
"""
import json
import sys

import steps

N_STEPS = 10000
WIDTH = 100
FAIL_PERCENT = 5
NAMES = ["s%05d" % i for i in range(N_STEPS)]


def document(body):
    graph = {}
    for i, name in enumerate(NAMES):
        given = "first" if i < WIDTH else "${{ steps.%s.output.value }}" % NAMES[i - WIDTH]
        graph[name] = {"run": {"argv": [body, "--fail", str(FAIL_PERCENT), given], "output": "json"}}
    retry = {"max_attempts": 10, "initial_backoff": "10ms", "max_backoff": "100ms", "on": ["EXIT_NONZERO"]}
    return {"api_version": "v1", "name": "ten-thousand", "defaults": {"retry": retry}, "steps": graph,
            "outputs": {name: "${{ steps.%s.output }}" % name for name in NAMES}}


def check(outputs, description):
    bad = steps.Complaints()
    values, n_failed = {}, 0
    attempts = {s["address"].split("/", 1)[1]: s["attempts"] for s in description["steps"]}
    bad.expect(sorted(outputs) == sorted(NAMES), "other outputs than steps")
    for i, name in enumerate(NAMES):
        given = "first" if i < WIDTH else values[NAMES[i - WIDTH]]
        values[name] = steps.value(name, steps.input_hash([given]))
        last = steps.last_attempt(description["id"], name, FAIL_PERCENT)
        n_failed += last - 1
        expected = {"step": name, "attempt": last, "value": values[name]}
        bad.expect(outputs.get(name) == expected, name, "gave", outputs.get(name), "expected", expected)
        ends = ["FAILED"] * (last - 1) + ["SUCCEEDED"]
        found = [a["status"] for a in attempts.get(name, [])]
        bad.expect(found == ends, name, "has attempts", found, "expected", ends)
    print(f"{n_failed} attempts failed, {100 * n_failed / (N_STEPS + n_failed):.1f} %")
    bad.exit()


def load(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def main(verb=None, *args):
    if verb == "document":
        json.dump(document(*args), sys.stdout)
    elif verb == "check":
        check(*map(load, args))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])

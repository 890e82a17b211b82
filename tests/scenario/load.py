#!/usr/bin/env python3
"""The task that kill-*.sh have under way while they kill things, and what must be true of each in the end.

usage: load.py document BODY LOGS          prints the task: a -> b1 b2 b3 -> c; a tenth of all attempts fail
       load.py slow BODY LOGS MS           one step that takes so long
       load.py check LIST RESULTS LOGS     LIST: "KEY ID" of each acknowledged task; RESULTS: those tasks as
                                           lines of JSON; LOGS: what their steps have written
       load.py ran-once LOGS TASK STEP     the step was started once and has ended
       load.py chain                       20 steps for cox-bench's worker, each given what the one before gave
       load.py check-chains LIST RESULTS   as check, of such tasks
"""
import json
import sys

import steps

FAIL_PERCENT = 10
CHAIN_LEN = 20
CHAIN_RESULT = "".join(chr(ord("a") + i % 26) for i in range(100))  # tests/bench: put_result
NEEDS = {"a": [], "b1": ["a"], "b2": ["a"], "b3": ["a"], "c": ["b1", "b2", "b3"]}


def task(name, graph):
    retry = {"max_attempts": 12, "initial_backoff": "10ms", "max_backoff": "50ms", "on": ["EXIT_NONZERO"]}
    return {"api_version": "v1", "name": name, "defaults": {"retry": retry}, "steps": graph,
            "outputs": {step: "${{ steps.%s.output }}" % step for step in graph}}


def document(body, logs):
    def run(step):
        given = ["${{ toJSON(steps.%s.output) }}" % n for n in NEEDS[step]]
        return {"run": {"argv": [body, "--log", logs, "--fail", str(FAIL_PERCENT), "--work", "5", *given],
                        "output": "json"}}
    return task("load", {step: run(step) for step in NEEDS})


def slow(body, logs, ms):
    return task("slow", {"long": {"run": {"argv": [body, "--log", logs, "--work", ms], "output": "json"}}})


def chain():
    graph = {"s1": {"uses": "noop@1"}}
    for i in range(2, CHAIN_LEN + 1):
        graph[f"s{i}"] = {"uses": "noop@1", "with": {"prev": "${{ steps.s%d.output }}" % (i - 1)}}
    return {"api_version": "v1", "name": "chain", "steps": graph,
            "outputs": {"last": "${{ steps.s%d.output }}" % CHAIN_LEN}}


def check_step(bad, task_id, step, outputs, lines):
    where = f"{task_id}/{step}"
    output = outputs.get(step) or {}
    given = steps.input_hash([steps.text(outputs.get(n)) for n in NEEDS[step]])
    starts = [line for line in lines if line.what == "start"]
    ends = [line for line in lines if line.what == "end" and line.attempt == output.get("attempt")]
    attempts = [line.attempt for line in starts]

    bad.expect(output.get("value") == steps.value(step, given), where, "gave", output, "for the input", given)
    bad.expect(all(line.hash == given for line in starts), where, "was given something else than", given, starts)
    bad.expect(len(set(attempts)) == len(attempts), where, "ran an attempt twice:", attempts)
    bad.expect(not steps.fails(task_id, step, output.get("attempt"), FAIL_PERCENT), where, "gave a failed attempt's output")
    bad.expect([line.hash for line in ends] == [output.get("value")], where, "the attempt that counts ended as", ends)


def read_acknowledged(bad, path):
    """The ids, after a look at whether each key gave one."""
    with open(path, encoding="ascii") as f:
        pairs = {tuple(line.split()) for line in f}
    keys, ids = ({pair[i] for pair in pairs} for i in (0, 1))
    bad.expect(len(keys) == len(ids) == len(pairs) > 0, len(keys), "keys gave", len(ids), "tasks in", len(pairs), "pairs")
    return ids


def read_results(path):
    with open(path, encoding="utf-8") as f:
        return {t["id"]: t for t in map(json.loads, f)}


def check(list_path, results_path, folder):
    bad = steps.Complaints()
    ids, results, logs = read_acknowledged(bad, list_path), read_results(results_path), steps.read_logs(folder)
    for task_id in sorted(ids):
        t = results.get(task_id) or {}
        bad.expect(t.get("status") == "SUCCEEDED", task_id, "is", t.get("status"), t.get("error"))
        for step in NEEDS if t.get("status") == "SUCCEEDED" else []:
            check_step(bad, task_id, step, t["outputs"], logs.get((task_id, step), []))
    for task_id, step in logs:
        bad.expect(task_id in ids or step == "long", task_id, "ran, and nobody knows it")
    n_lines = sum(line.what == "start" for lines in logs.values() for line in lines)
    print(len(ids), "tasks,", len(logs), "steps,", n_lines, "attempts")
    bad.exit()


def check_chains(list_path, results_path):
    bad = steps.Complaints()
    ids, results = read_acknowledged(bad, list_path), read_results(results_path)
    expected = ("SUCCEEDED", {"total": CHAIN_LEN, "by_status": {"SUCCEEDED": CHAIN_LEN}}, {"last": CHAIN_RESULT})
    for task_id in sorted(ids):
        t = results.get(task_id) or {}
        found = (t.get("status"), t.get("steps"), t.get("outputs"))
        bad.expect(found == expected, task_id, "is", found, t.get("error"))
    print(len(ids), "tasks,", len(ids) * CHAIN_LEN, "steps")
    bad.exit()


def ran_once(folder, task_id, step):
    lines = steps.read_logs(folder).get((task_id, step), [])
    print(*lines, sep="\n")
    sys.exit([line.what for line in lines] != ["start", "end"])


VERBS = {"document": document, "slow": slow, "check": check, "ran-once": ran_once, "chain": chain,
         "check-chains": check_chains}


def main(verb=None, *args):
    if verb not in VERBS:
        sys.exit(__doc__)
    made = VERBS[verb](*args)
    if made:
        json.dump(made, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])

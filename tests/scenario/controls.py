#!/usr/bin/env python3
"""Plants faults in what a run would leave behind, and expects the checks of these scripts to find each.

Makes a run up from steps.py, as if all had gone well; the checks must pass. Then one thing is changed at a
time. Prints a line a control.
"""
import contextlib
import copy
import io
import json
import os
import sys
import tempfile

import load
import steps
import ten_thousand
import wfformat


def passes(check, *args):
    """What a check says of something, without its words."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            check(*args)
        except SystemExit as end:
            return not end.code
    return True


class Run:
    """Two tasks of load.py, as their client, the orchestrator and the steps' logs tell of them."""
    def __init__(self):
        self.acknowledged = [["key-1", "t0-000001"], ["key-2", "t0-000002"]]
        self.results = [self.make(task_id) for _, task_id in self.acknowledged]

    def make(self, task_id):
        outputs, self.logs = {}, getattr(self, "logs", {})
        for step, before in load.NEEDS.items():
            given = steps.input_hash([steps.text(outputs[b]) for b in before])
            last = steps.last_attempt(task_id, step, load.FAIL_PERCENT)
            value = steps.value(step, given)
            outputs[step] = {"step": step, "attempt": last, "value": value}
            self.logs[task_id, step] = [["start", task_id, step, n, given, n] for n in range(1, last + 1)]
            self.logs[task_id, step].append(["end", task_id, step, last, value, last])
        return {"id": task_id, "status": "SUCCEEDED", "error": None, "outputs": outputs}

    def check(self):
        with tempfile.TemporaryDirectory() as folder:
            logs = os.path.join(folder, "logs")
            os.mkdir(logs)
            for (task_id, step), lines in self.logs.items():
                with open(os.path.join(logs, f"{task_id}.{step}"), "w", encoding="ascii") as f:
                    f.writelines(" ".join(map(str, line)) + "\n" for line in lines)
            names = [os.path.join(folder, name) for name in ("list", "results")]
            with open(names[0], "w", encoding="ascii") as f:
                f.writelines(" ".join(line) + "\n" for line in self.acknowledged)
            with open(names[1], "w", encoding="utf-8") as f:
                f.writelines(json.dumps(t) + "\n" for t in self.results)
            return passes(load.check, *names, logs)


def lost_task(run):
    run.results.pop()


def unfinished_task(run):
    run.results[0]["status"] = "RUNNING"


def key_twice(run):
    run.acknowledged.append(["key-1", "t0-000002"])


def unknown_task(run):
    run.logs["t0-000003", "a"] = run.logs["t0-000001", "a"]


def wrong_value(run):
    run.results[0]["outputs"]["c"]["value"] = "0" * 16


def other_attempts_output(run):
    run.results[1]["outputs"]["a"]["attempt"] += 1


def other_input(run):
    run.logs["t0-000002", "b2"][0][4] = "0" * 16


def attempt_twice(run):
    run.logs["t0-000001", "b1"].insert(0, run.logs["t0-000001", "b1"][0])


def never_ran(run):
    del run.logs["t0-000002", "c"]


FAULTS = [lost_task, unfinished_task, key_twice, unknown_task, wrong_value, other_attempts_output, other_input,
          attempt_twice, never_ran]


def workflow_passes(change=lambda outputs, logs: None):
    outputs, logs, now = {}, {}, 0
    for step, before in wfformat.shape_of("montage:8"):
        given = steps.input_hash([], " ".join(outputs[b] for b in before))
        outputs[step] = steps.value(step, given)
        logs[step] = [["start", "t0-000001", step, 1, given, now], ["end", "t0-000001", step, 1, outputs[step], now + 1]]
        now += 2
    change(outputs, logs)
    with tempfile.TemporaryDirectory() as folder:
        for step, lines in logs.items():
            with open(os.path.join(folder, f"t0-000001.{step}"), "w", encoding="ascii") as f:
                f.writelines(" ".join(map(str, line)) + "\n" for line in lines)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as f:
            json.dump(outputs, f)
            f.flush()
            return passes(wfformat.check, "montage:8", "t0-000001", f.name, folder)


def started_early(_, logs):
    logs["add"][0][5] = logs["table"][1][5] - 1


def ran_again(_, logs):
    logs["model"] *= 2


def thousands_pass(change=lambda outputs, description: None):
    task_id, values, outputs, described = "t0-000001", {}, {}, []
    for i, step in enumerate(ten_thousand.NAMES):
        given = "first" if i < ten_thousand.WIDTH else values[ten_thousand.NAMES[i - ten_thousand.WIDTH]]
        values[step] = steps.value(step, steps.input_hash([given]))
        last = steps.last_attempt(task_id, step, ten_thousand.FAIL_PERCENT)
        outputs[step] = {"step": step, "attempt": last, "value": values[step]}
        described.append({"address": f"{task_id}/{step}", "attempts": [
            {"status": "SUCCEEDED" if n == last else "FAILED"} for n in range(1, last + 1)]})
    description = {"id": task_id, "steps": described}
    change(outputs, description)
    return passes(ten_thousand.check, outputs, description)


def one_value_of_another(outputs, _):
    outputs["s09999"] = outputs["s09998"]


def one_attempt_more(_, description):
    description["steps"][5000]["attempts"].insert(0, {"status": "FAILED"})


def main():
    n_failed = 0

    def report(name, fine):
        nonlocal n_failed
        n_failed += not fine
        print("ok" if fine else "not ok", name)

    good = Run()
    report("a load without a fault passes", good.check())
    for fault in FAULTS:
        run = copy.deepcopy(good)
        fault(run)
        report(f"found: {fault.__name__}", not run.check())
    report("a workflow without a fault passes", workflow_passes())
    for fault in (started_early, ran_again):
        report(f"found: {fault.__name__}", not workflow_passes(fault))
    report("ten thousand steps without a fault pass", thousands_pass())
    for fault in (one_value_of_another, one_attempt_more):
        report(f"found: {fault.__name__}", not thousands_pass(fault))
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())

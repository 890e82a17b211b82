#!/usr/bin/env python3
"""A workflow as a task whose steps pass data along, and the proof that it ran in order.

A step's standard input is the values of all steps before it, separated by spaces; it answers with a hash of its
name and that. So the last value depends on every step, and on the order of none but those that need each other.

usage: wfformat.py document SHAPE BODY LOGS          prints the task
       wfformat.py check SHAPE ID OUTPUTS LOGS       OUTPUTS: the task's, JSON; LOGS: what its steps wrote
SHAPE: a file in WfFormat (.json or .json.gz, wfcommons.org), or montage:N or bwa:N for a generated graph
"""
import gzip
import json
import re
import sys

import steps


def read_shape(path):
    """[(step, [steps before it])], in an order in which each comes after those it needs."""
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as f:
        tasks = json.load(f)["workflow"]["specification"]["tasks"]
    parents = {t["id"]: set(t["parents"]) for t in tasks}
    for t in tasks:
        for child in t["children"]:
            parents[child].add(t["id"])
    return in_order({name(i): sorted(map(name, before)) for i, before in parents.items()})


def name(task_id):
    return re.sub(r"[^a-z0-9_]", "_", task_id.lower())[:63]


def in_order(parents):
    order, ready = [], [s for s, before in parents.items() if not before]
    left = {s: len(before) for s, before in parents.items()}
    children = {}
    for s, before in parents.items():
        for b in before:
            children.setdefault(b, []).append(s)
    while ready:
        s = ready.pop()
        order.append((s, parents[s]))
        for child in children.get(s, []):
            left[child] -= 1
            if left[child] == 0:
                ready.append(child)
    assert len(order) == len(parents), "the workflow has a cycle"
    return order


def montage(n):
    """Images are projected, neighbours compared, all fitted to one background, and added up."""
    g = {"project_%d" % i: [] for i in range(n)}
    for i in range(n):
        for k in (1, 2, 7):
            g["diff_%d_%d" % (i, k)] = sorted({"project_%d" % i, "project_%d" % ((i + k) % n)})
    g["concat"] = [s for s in g if s.startswith("diff")]
    g["model"] = ["concat"]
    for i in range(n):
        g["background_%d" % i] = ["model", "project_%d" % i]
    g["table"] = ["background_%d" % i for i in range(n)]
    g["add"] = ["table"] + g["table"]
    g["view"] = ["add"]
    return in_order(g)


def bwa(n):
    """Reads are split and indexed, each part aligned, all parts joined."""
    g = {"reduce": [], "index": []}
    for i in range(n):
        g["align_%d" % i] = ["index", "reduce"]
    g["cat_out"] = ["align_%d" % i for i in range(n)]
    g["cat_err"] = list(g["cat_out"])
    return in_order(g)


def shape_of(text):
    kind, _, n = text.partition(":")
    return {"montage": montage, "bwa": bwa}[kind](int(n)) if n.isdigit() else read_shape(text)


def document(shape, body, logs):
    graph = {}
    for step, before in shape_of(shape):
        run = {"argv": [body, "--log", logs, "--stdin"], "output": "json",
               "stdin": " ".join("${{ steps.%s.output.value }}" % b for b in before)}
        graph[step] = {"run": run}
    return {"api_version": "v1", "name": "workflow", "steps": graph,
            "outputs": {step: "${{ steps.%s.output.value }}" % step for step in graph}}


def check(shape, task_id, outputs_path, folder):
    bad = steps.Complaints()
    with open(outputs_path, encoding="utf-8") as f:
        outputs = json.load(f)
    logs = steps.read_logs(folder)
    order = shape_of(shape)
    values, ends, n_edges = {}, {}, 0
    for step, before in order:
        lines = logs.get((task_id, step), [])
        values[step] = steps.value(step, steps.input_hash([], " ".join(values[b] for b in before)))
        bad.expect(outputs.get(step) == values[step], step, "did not give", values[step])
        bad.expect([line.what for line in lines] == ["start", "end"], step, "ran otherwise than once:", lines)
        ends[step] = lines[-1].ns if lines else 0
        for b in before:
            n_edges += 1
            bad.expect(lines and lines[0].ns >= ends[b], step, "was started before the end of", b)
    print(len(order), "steps,", n_edges, "edges")
    bad.exit()


def main(verb=None, *args):
    if verb == "document":
        json.dump(document(*args), sys.stdout)
    elif verb == "check":
        check(*args)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])

#!/usr/bin/env python3
"""The sim suite: check.py PROGRAM SLICE. Slices are below; COX_TEST_LONG=1 asks for 20 times as many seeds."""
import json
import os
import pathlib
import re
import subprocess
import sys

LONG = 20 if os.environ.get("COX_TEST_LONG") else 1


def run(program, *args, expect=0):
    """One call; its JSON. Prints what broke, with the command that shows it again."""
    p = subprocess.run([program, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                       errors="replace")
    out = json.loads(p.stdout) if p.stdout.startswith("{") else {}
    if p.returncode != expect or out.get("ok") != (expect == 0):
        sys.stderr.write(p.stderr[-20000:])
        sys.exit(f"{' '.join(map(str, args))}: exit {p.returncode}, expected {expect}\n{p.stdout}")
    return out


def small(program):
    total = run(program, "--seed", 1, "--runs", 200 * LONG)
    for kind, n in total["kinds"].items():
        assert n > 0, f"a slice without {kind} tests less than it says"
    for what in ("crashes", "deaths", "adopted", "duplicates", "evaluations", "checkpoints", "lost_messages", "compiles",
                 "composes", "fetches", "loads", "frames", "waits", "signals", "continuations", "maps", "batches_given",
                 "pauses", "sleeps", "retries", "forks", "scheduled", "reboots", "reordered"):
        assert total[what] > 0, f"a slice without {what} tests less than it says"


def calm(program):
    run(program, "--seed", 1, "--runs", 100 * LONG, "--faults", "off")


def large(program):
    run(program, "--seed", 1, "--runs", LONG, "--workers", 40, "--tasks", 200)


def each(program):
    run(program, "--seed", 5000, "--runs", 25 * LONG, "--check", "each")


def same(program):
    """A seed is a history: in another process, at other addresses, alone or in a row."""
    row = run(program, "--seed", 40, "--runs", 20)
    assert row == run(program, "--seed", 40, "--runs", 20)
    one = run(program, "--seed", 59)
    assert one == run(program, "--seed", 59) and one["trace_hash"] != row["trace_hash"]
    assert one["trace_hash"] != run(program, "--seed", 60)["trace_hash"]


def planted(program):
    """What is broken on purpose is found, and soon."""
    text = run_help(program)
    names = [line.split()[0] for line in text.split("must be caught:\n")[1].split("\n\n")[0].splitlines()]
    assert len(names) > 14
    rare = {"forget-owners": 7200}  # one history in thousands shows it: from the first seed on it would take a minute
    for name in names:
        found = run(program, "--seed", rare.get(name, 1), "--runs", 2000, "--plant", name, expect=1)
        again = run(program, *found["again"].split()[1:], "--shorten", "off", expect=1)
        assert again["broken"] == found["broken"], f"{name}: {found['broken']}; again: {again['broken']}"
        print(f"{name}: seed {found['seed']}: {found['broken']}")


def shorten(program):
    """What breaks breaks the same in a much smaller history, which one command shows again."""
    factors = []
    for name in ("lose-batch", "skip-payload", "forget-keys", "lose-sleepers"):
        found = run(program, "--seed", 1, "--runs", 2000, "--tasks", 30, "--plant", name, expect=1)
        short = run(program, *found["again"].split()[1:], expect=1)
        again = run(program, *short["shortened"].split()[1:], expect=1)
        assert again["invariant"] == found["invariant"], f"{name}: {found['broken']}; shorter: {again['broken']}"
        assert again["events"] == short["shortened_events"]
        assert again["events"] <= found["events"]
        factors.append(found["events"] / again["events"])
        print(f"{name}: {found['events']} events, {again['events']} after {short['shortened_tries']} tries:\n"
              f"  {short['shortened']}")
    assert sorted(factors)[-2] >= 4, f"histories become smaller by {factors}"


def found(program):
    """Seeds whose history a judge once misread, or an engine got wrong."""
    run(program, "--seed", 310037, "--tasks", 60)  # a key expires while frames of its task are on record
    run(program, "--seed", 500369, "--tasks", 60)  # a word comes too late for a task that another client runs again
    run(program, "--seed", 600317, "--tasks", 60)  # a key expires while its client asks: two tasks, one of them unheard of
    run(program, "--seed", 60540, "--tasks", 8)  # a fork ends, the state forgets whose values it has, their owner goes


def rules(program):
    """tests/rules.md names what there is."""
    tests = pathlib.Path(__file__).resolve().parents[1]
    named = re.findall(r"`([a-z/_.A-Z0-9-]+): ([\w ]+)`", (tests / "rules.md").read_text())
    assert len(named) > 30
    for path, name in named:
        assert re.search(rf"\b{name}\b", (tests / path).read_text()), f"rules.md: {path} has no {name}"


def run_help(program):
    return subprocess.run([program, "--help"], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    {f.__name__: f for f in (small, calm, large, each, same, planted, shorten, found, rules)}[sys.argv[2]](sys.argv[1])

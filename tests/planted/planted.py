#!/usr/bin/env python3
"""Negative controls: each bug of bugs.json is switched on by itself, and its tests must fail.

usage: planted.py BUILD [--slice] [NAME...]     without names: every bug
       planted.py --absent PROGRAM...           is a program free of planted bugs?

BUILD is a build folder with -Dplanted=true; what the tests need is built there first. --slice plays one bug for
each unit or trace test that is asked first by some, and takes seconds. Prints a line a bug: "ok NAME: caught by TEST after N seeds (what it said)" or "not ok NAME:
missed by TEST...", and before them a line for each test used, which must pass as long as nothing is planted: a test
that always fails catches everything. Exits 1 after a "not ok".
"""
import concurrent.futures
import json
import os
import re
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.normpath(os.path.join(HERE, "..", ".."))
SIM_RUNS = 2000
SIM_RUNS_SOUND = 200
LIMIT_S = {"sim": 900, "scenario": 400}  # else:
LIMIT_S_ELSE = 300
SLOW = {"trace/trace-schedules", "trace/trace-map_random"}
SCENARIO_TARGETS = ["coxd", "cox-worker", "cox-sandbox", "cox", "cox-bench", "cox-modelsim", "tests/scenario/step-body", "tests/scenario/operate",
                    "tests/scenario/libhold-sync.so"]
BESIDE = {"unit/cgroups": ["cox-sandbox"], "unit/sandbox": ["cox-sandbox"]}  # what a test starts


class Build:
    """A build folder, and how each test is run there."""

    def __init__(self, folder):
        self.folder = os.path.abspath(folder)
        listing = subprocess.run(["meson", "introspect", "--tests", self.folder], check=True, stdout=subprocess.PIPE)
        self.programs = {}
        for test in json.loads(listing.stdout):
            suite = test["suite"][0].split(":")[-1]
            if suite in ("unit", "trace", "fault", "fuzz"):
                self.programs[f"{suite}/{test['name'].split(' / ')[-1]}"] = test["cmd"]

    def targets(self, test):
        kind, name = test.split()[0].split("/") if "/" in test else (test.split()[0], "")
        if kind == "sim":
            return ["cox-sim"]
        if kind in ("scenario", "security"):
            if not os.access(f"{ROOT}/tests/{kind}/{name}.sh", os.X_OK):
                sys.exit(f"bugs.json: there is no tests/{kind}/{name}.sh")
            return SCENARIO_TARGETS
        if test.split()[0] not in self.programs:
            sys.exit(f"bugs.json: {test}: no such test in {self.folder}")
        return [os.path.relpath(word, self.folder) for word in self.programs[test.split()[0]]
                if word.startswith(self.folder + "/")] + BESIDE.get(test.split()[0], [])

    def make(self, tests):
        targets = sorted({target for test in tests for target in self.targets(test)})
        done = subprocess.run(["ninja", "-C", self.folder, *targets], check=False, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(done.stdout[-4000:] + "\nthe build failed")

    def command(self, test, n_runs):
        words = test.split()
        if words[0] == "sim":
            runs = [] if "--runs" in words else ["--runs", str(n_runs)]
            seed = [] if "--seed" in words else ["--seed", "1"]
            return [f"{self.folder}/cox-sim", *seed, *runs, *words[1:]]
        if words[0].startswith(("scenario/", "security/")):
            return [f"{ROOT}/tests/{words[0]}.sh", *words[1:]]
        return [*self.programs[words[0]], *words[1:]]


def call(build, command, plant, limit_s):
    """(exit code, output); the code is None when it did not end by itself."""
    env = {k: v for k, v in os.environ.items() if k not in ("COX_PLANT", "COX_TEST_LONG")}
    env["COX_BUILD"] = build.folder
    if plant:
        env["COX_PLANT"] = plant
    with subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, start_new_session=True) as process:
        try:
            text, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return None, ""
    return process.returncode, text.decode(errors="replace")


def what_it_said(text):
    """The line that tells most, of a test that failed."""
    failed = re.search(r"^\[  FAILED  \] (\w+)$", text, flags=re.M)
    test = failed.group(1) + ": " if failed else ""
    for pattern in (r"^not ok (.*)", r"^\[\s+ERROR\s+\] --- (?!.* !!)(.*)", r"^(.*runtime error:.*)",
                    r"^(.*Assertion .*)", r"^.*(error: .*)"):
        found = re.search(pattern, text, flags=re.M)
        if found:
            return test + re.sub(r"\[ +LINE +\] --- |\S*/", "", found.group(1)).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return test + (lines[-1] if lines else "nothing")


def simulated(build, command, plant, text):
    """What cox-sim found, and whether the same seed finds it again alone."""
    line = next((line for line in reversed(text.splitlines()) if line.startswith("{")), None)
    if line is None:
        return "1 seed", "it crashed: " + what_it_said(text)
    out = json.loads(line)
    n = out["seed"] - int(command[command.index("--seed") + 1]) + 1
    _, again = call(build, [command[0], *out["again"].split()[1:], "--shorten", "off"], plant, LIMIT_S["sim"])
    if f'"broken":{json.dumps(out["broken"])}' not in again:
        raise AssertionError(f"seed {out['seed']}: {out['broken']}; alone: {again.splitlines()[-1]}")
    return f"{n} seed{'s' if n > 1 else ''}", out["broken"]


class LeftOut(Exception):
    """A test passed over a planted bug, but had left out what this host cannot give."""


def attempt(build, test, plant):
    """None when the test passes; else (after how many seeds, what it said)."""
    kind = re.split(r"[ /]", test)[0]
    command = build.command(test, SIM_RUNS if plant else SIM_RUNS_SOUND)
    code, text = call(build, command, plant, LIMIT_S.get(kind, LIMIT_S_ELSE))
    if code is None:
        return "1 run", "it did not end"
    if code == 0 and plant and "[  SKIPPED ]" in text:
        raise LeftOut(test)
    if code == 0:
        said = re.search(r"^(skip .*)", text, flags=re.M) if kind == "scenario" and "\nok " not in "\n" + text else None
        return ("0 runs", said.group(1)) if said and not plant else None
    if kind == "sim":
        return simulated(build, command, plant, text)
    return "1 run", what_it_said(text)


def row_sound(build, test):
    found = attempt(build, test, None)
    if found is None:
        return True, f"ok {test} passes when nothing is planted"
    return False, f"not ok {test} fails when nothing is planted ({found[1]})"


def row_bug(build, bug, tests):
    try:
        for test in tests:
            found = attempt(build, test, bug["name"])
            if found:
                return True, f"ok {bug['name']}: caught by {test} after {found[0]} ({found[1][:160]})"
    except LeftOut as e:
        return True, f"skip {bug['name']} {e} leaves out what this host cannot give"
    except AssertionError as e:
        return False, f"not ok {bug['name']}: cannot be shown again: {e}"
    return False, f"not ok {bug['name']}: missed by {', '.join(tests)}"


def one_each(bugs):
    first = {}
    for bug in bugs:
        test = bug["tests"][0]
        if re.match("(unit|trace)/", test) and test not in SLOW:
            first.setdefault(test, (bug, [test]))
    return list(first.values())


def play(folder, in_slice, names):
    with open(f"{HERE}/bugs.json", encoding="utf-8") as f:
        bugs = json.load(f)
    unknown = set(names) - {bug["name"] for bug in bugs}
    if unknown:
        sys.exit(f"no such bug: {' '.join(sorted(unknown))}")
    chosen = [(bug, bug["tests"]) for bug in bugs if not names or bug["name"] in names]
    if in_slice:
        chosen = one_each(bugs)
    build = Build(folder)
    used = sorted({test for _, tests in chosen for test in tests})
    build.make(used)
    n_bad = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = [pool.submit(row_sound, build, test) for test in used]
        rows += [pool.submit(row_bug, build, bug, tests) for bug, tests in chosen]
        for row in rows:
            good, line = row.result()
            n_bad += not good
            print(line, flush=True)
    return 1 if n_bad else 0


def absent(programs):
    """A user's program must not even ask. Reads the symbol tables; the library's own archive is the control."""
    n_bad = 0
    for program in programs:
        listing = subprocess.run(["nm", "-P", program], check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if not re.search(rb"^cox_\w+ ", listing.stdout, flags=re.M):
            print(f"{program}: no symbol of ours, so nothing can be said")
            n_bad += 1
        if re.search(rb"^cox_planted ", listing.stdout, flags=re.M):
            print(f"{program}: holds planted bugs")
            n_bad += 1
    return 1 if n_bad or not programs else 0


def main(args):
    if args[:1] == ["--absent"]:
        return absent(args[1:])
    if not args or args[0].startswith("-"):
        sys.exit(__doc__)
    return play(args[0], "--slice" in args, [a for a in args[1:] if a != "--slice"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

#!/usr/bin/env python3
"""The house rules that a machine can check, over the files of the repository.

usage: tidy.py [--root DIR] [CHECK...]      without CHECK: all of them

Prints one "place: complaint" a line. Exits 0 when there is none, 1 when there is one, 77 when every check
asked for had to be skipped (a tool is missing).
"""
import json
import os
import re
import shutil
import subprocess
import sys

import includes

FILE_LINES_MAX = 800
FUNCTION_LINES_MAX = 70

# Longer than the limit, and rightly so: a switch with one short case a message or record.
LONG_FUNCTIONS = {}

# Waiting for a time instead of an event makes tests slow and flaky; here time is what is meant.
MAY_SLEEP = {"tests/scenario/step_body.c"}  # a step that takes a while is what it is for

BANNED = {
    "strcpy": "memcpy with a known length, or cox_strdup",
    "strcat": "cox_buf_append_str",
    "sprintf": "snprintf or cox_buf_printf",
    "vsprintf": "vsnprintf",
    "strtok": "a loop over a cox_slice",
    "gets": "fgets or getline",
    "atoi": "strtol with its errors checked",
    "atol": "strtol with its errors checked",
    "atof": "strtod with its errors checked",
    "rand": "cox_rng_u64",
    "srand": "cox_rng_init",
    "random": "cox_rng_u64",
    "system": "fork and exec, or posix_spawn",
    "popen": "fork and exec, or posix_spawn",
    "alloca": "cox_alloc or an arena",
    "tmpnam": "mkstemp",
    "mktemp": "mkstemp",
}
SLEEPS = ("sleep", "usleep", "nanosleep", "clock_nanosleep")


class Skipped(Exception):
    """A check that cannot be done here."""


def repository_files(root):
    """Paths of what is, or could be, committed: no build folders, nothing ignored."""
    if os.path.exists(os.path.join(root, ".git")) and shutil.which("git"):
        listing = subprocess.run(
            ["git", "-c", "safe.directory=*", "-C", root, "ls-files", "-coz", "--exclude-standard"],
            check=True, stdout=subprocess.PIPE)
        names = sorted(set(listing.stdout.decode().split("\0")) - {""})
        return [name for name in names if os.path.isfile(os.path.join(root, name))]
    names = []
    for folder, subfolders, files in os.walk(root):
        inside = os.path.relpath(folder, root)
        subfolders[:] = sorted(s for s in subfolders
                               if not (inside == "." and s.startswith("build"))
                               and s not in ("node_modules", ".git", "__pycache__"))
        names += [os.path.normpath(os.path.join(inside, f)) for f in files]
    return sorted(names)


def read(root, name):
    with open(os.path.join(root, name), encoding="utf-8", errors="replace") as f:
        return f.read()


def c_files(files):
    return [f for f in files if f.endswith((".c", ".h"))]


def code_only(text):
    """The text with comments and literals blanked, line breaks kept."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match.group())
    return re.sub(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", blank, text, flags=re.S)


def check_includes(root, files):
    return includes.complaints(files, lambda name: read(root, name))


def functions(code):
    """(name, first line, lines) of each function: in our style it starts and ends with a brace in column 0."""
    lines = code.split("\n")
    start = None
    for number, line in enumerate(lines, 1):
        if line == "{":
            start = number
        elif line == "}" and start:
            head = number_of_head = start - 1
            while head > 1 and lines[head - 2].strip() and not lines[head - 2].startswith(("}", "#")):
                head -= 1
            names = re.findall(r"(\w+)\s*\(", " ".join(lines[head - 1:number_of_head]))
            yield (names[0] if names else "?"), start, number - start + 1
            start = None


def check_size(root, files):
    for name in c_files(files):
        text = read(root, name)
        n_lines = text.count("\n")
        if n_lines > FILE_LINES_MAX:
            yield f"{name}: {n_lines} lines; a file has at most {FILE_LINES_MAX}"
        for function, at, length in functions(code_only(text)):
            if length > FUNCTION_LINES_MAX and f"{name}:{function}" not in LONG_FUNCTIONS:
                yield f"{name}:{at}: {function} has {length} lines; a function has at most {FUNCTION_LINES_MAX}"


def check_calls(root, files):
    pattern = re.compile(r"(?<![\w.>])(" + "|".join([*BANNED, *SLEEPS]) + r")\s*\(")
    for name in c_files(files):
        for number, line in enumerate(code_only(read(root, name)).split("\n"), 1):
            for call in pattern.findall(line):
                if call in BANNED:
                    yield f"{name}:{number}: {call}: use {BANNED[call]}"
                elif name not in MAY_SLEEP:
                    yield f"{name}:{number}: {call}: wait for the event itself (or see MAY_SLEEP in tidy.py)"


def check_format(root, files):
    tool = next((t for t in ("clang-format-14", "clang-format") if shutil.which(t)), None)
    if not tool:
        raise Skipped("clang-format is not installed")
    version = subprocess.run([tool, "--version"], check=True, stdout=subprocess.PIPE).stdout.decode()
    if not re.search(r"version 14\.", version):
        raise Skipped(f"clang-format 14 decides, and this is {version.strip()}")
    names = c_files(files)
    if not names:
        return
    done = subprocess.run([tool, "--dry-run", *names], cwd=root, stderr=subprocess.PIPE, check=False)
    places = re.findall(r"^(\S+?):(\d+):\d+: (?:warning|error): ", done.stderr.decode(), flags=re.M)
    for name in sorted({place[0] for place in places}):
        at = sorted({int(line) for n, line in places if n == name})
        yield f"{name}:{at[0]}: not as .clang-format says, on {len(at)} lines from here on (scripts/tidy --fix)"
    if done.returncode != 0 and not places:
        yield f"{tool}: {done.stderr.decode().strip()}"


def check_readmes(root, files):
    folders = {f.split("/")[0] for f in files if "/" in f and not f.startswith(".")}
    folders |= {os.path.dirname(f) for f in files if f.endswith(".c") and "/" in f}
    for folder in sorted(folders):
        if f"{folder}/README.md" not in files:
            yield f"{folder}: has no README.md"


def check_links(root, files):
    for name in files:
        if not name.endswith(".md"):
            continue
        text = re.sub(r"^(```|~~~).*?^\1", lambda m: "\n" * m.group().count("\n"), read(root, name), flags=re.S | re.M)
        text = re.sub(r"`[^`\n]*`", "", text)
        for number, line in enumerate(text.split("\n"), 1):
            for target in re.findall(r"\]\(\s*<?([^)\s>]+)", line):
                if re.match(r"[a-z][a-z0-9+.-]*:|#", target):
                    continue
                path = os.path.normpath(os.path.join(os.path.dirname(name), target.split("#")[0]))
                if not os.path.exists(os.path.join(root, path)):
                    yield f"{name}:{number}: {target} leads nowhere"


PLANTED = "tests/planted/bugs.json"


def check_planted(root, files):
    """Each planted bug has a row, and each row a place: COX_PLANTED("name") in the file that it says."""
    places = {}
    for name in c_files(files):
        if name != "include/cox/base/plant.h":
            text = read(root, name)
            for found in re.finditer(r'\bCOX_PLANTED\(\s*"([^"]*)"\)', text):
                number = text.count("\n", 0, found.start()) + 1
                places.setdefault(found.group(1), []).append(f"{name}:{number}")
    rows = json.loads(read(root, PLANTED)) if PLANTED in files else []
    for row in rows:
        bug = row.get("name", "?")
        if set(row) != {"name", "what", "where", "tests"} or not row["tests"]:
            yield f"{PLANTED}: {bug}: a row has name, what, where and tests"
        elif bug not in places:
            yield f"{PLANTED}: {bug}: planted nowhere"
        elif row["where"] not in {place.split(":")[0] for place in places[bug]}:
            yield f"{PLANTED}: {bug}: planted in {places[bug][0]}, not in {row['where']}"
    known = [row.get("name") for row in rows]
    for bug in sorted({bug for bug in known if known.count(bug) > 1}):
        yield f"{PLANTED}: {bug}: two rows"
    for bug in sorted(set(places) - set(known)):
        yield f"{places[bug][0]}: {bug}: has no row in {PLANTED}"


CHECKS = {
    "includes": check_includes,
    "size": check_size,
    "calls": check_calls,
    "format": check_format,
    "readmes": check_readmes,
    "links": check_links,
    "planted": check_planted,
}


def main(args):
    root = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    if args[:1] == ["--root"]:
        root, args = args[1], args[2:]
    chosen = args or list(CHECKS)
    if not all(c in CHECKS for c in chosen):
        sys.exit(__doc__ + "\nchecks: " + " ".join(CHECKS))
    files = repository_files(root)
    n_bad = n_skipped = 0
    for check in chosen:
        try:
            for complaint in CHECKS[check](root, files):
                print(complaint)
                n_bad += 1
        except Skipped as why:
            print(f"tidy {check}: skipped: {why}", file=sys.stderr)
            n_skipped += 1
    return 1 if n_bad else 77 if n_skipped == len(chosen) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

#!/usr/bin/env python3
"""Is a library pure? Reads what it leaves undefined against a list of what it may call.

usage: symbols.py [--also REGEX] CC LIBRARY.a ALLOWED.a...

It may use cox_* symbols of the allowed archives, and what REGEX matches whole.

A pure library has no clock, no random numbers, no input or output, no threads, no memory of its own making:
whatever it would take from the machine is an input instead. Exits 1 with one line a forbidden symbol. Each run
also adds an object that calls time(2) and expects to find it: a check that cannot fail proves nothing.
"""
import os
import re
import subprocess
import sys
import tempfile

ALLOWED = {"memcpy", "memset", "memmove", "memcmp", "memchr", "strlen", "strcmp"}
# What compilers add by themselves: position-independent code, stack protector, fortified copies, sanitizers.
COMPILER = re.compile(r"_GLOBAL_OFFSET_TABLE_|__stack_chk_fail|__mem(cpy|set|move)_chk|__(asan|ubsan|tsan|gcov|llvm)_\w+|"
                      r"__sanitizer_\w+|_Unwind_\w+|__tls_get_addr")
# Base offers these to shells; they are how the machine would get in.
IMPURE = re.compile(r"cox_(clock_|log|ring_|asprintf)\w*")


def symbols(paths):
    """(defined, undefined) over all objects together."""
    listing = subprocess.run(["nm", "-P", *paths], check=True, stdout=subprocess.PIPE).stdout.decode()
    defined, undefined = set(), set()
    for line in listing.splitlines():
        fields = line.split()
        if len(fields) >= 2 and len(fields[1]) == 1:
            (undefined if fields[1] in "Uwv" else defined).add(fields[0])
    return defined, undefined - defined


def forbidden(paths, offered, also):
    _, undefined = symbols(paths)
    return sorted(s for s in undefined
                  if s not in ALLOWED and not COMPILER.fullmatch(s) and not re.fullmatch(also, s)
                  and (s not in offered or IMPURE.fullmatch(s)))


def planted_object(cc, folder):
    source, target = os.path.join(folder, "planted.c"), os.path.join(folder, "planted.o")
    with open(source, "w", encoding="ascii") as f:
        f.write("#include <time.h>\nlong planted(void);\nlong planted(void) { return (long)time(0); }\n")
    subprocess.run([*cc.split(), "-c", source, "-o", target], check=True)
    return target


def main(also, cc, library, *allowed):
    defined, _ = symbols([library])
    if not defined:
        print(f"{library} is empty")
        return 1
    offered, _ = symbols(allowed)
    offered = {s for s in offered if s.startswith("cox_")}
    bad = forbidden([library], offered, also)
    for symbol in bad:
        print(f"{os.path.basename(library)} uses {symbol}, which no pure code may")
    with tempfile.TemporaryDirectory() as folder:
        found = forbidden([library, planted_object(cc, folder)], offered, also)
    if "time" not in set(found) - set(bad):
        print("negative control: a planted call of time() was not found")
        return 1
    return 1 if bad else 0


if __name__ == "__main__":
    regex, args = "", sys.argv[1:]
    if args[:1] == ["--also"]:
        regex, args = args[1], args[2:]
    if len(args) < 3:
        sys.exit(__doc__)
    sys.exit(main(regex, *args))

#!/usr/bin/env python3
"""check.py PROGRAM: each log here, written by an earlier version, is what that version said it is."""
import difflib
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


def main(program):
    logs = sorted(HERE.glob("*.log"))
    assert len(logs) >= 3, "the logs of earlier versions are gone"
    for log in logs:
        p = subprocess.run([program, log], capture_output=True, text=True)
        assert p.returncode == 0, f"{log.name}: {p.stderr}"
        said = log.with_suffix(".view").read_text()
        if p.stdout != said:
            diff = difflib.unified_diff(said.splitlines(), p.stdout.splitlines(), "as written", "as read now",
                                        lineterm="")
            sys.exit(f"{log.name}: this version makes something else of it\n" + "\n".join(diff))
        print(f"{log.name}: {said.count(chr(10))} lines of what is in it")


if __name__ == "__main__":
    main(sys.argv[1])

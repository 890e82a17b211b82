"""What step-body does (step_body.c), done again: hashes, values, which attempts fail; and its logs."""
import collections
import json
import os

Line = collections.namedtuple("Line", "what task step attempt hash ns")


def fnv1a(*parts):
    h = 14695981039346656037
    for part in parts:
        for byte in part:
            h = ((h ^ byte) * 1099511628211) & 0xFFFFFFFFFFFFFFFF
    return h


def input_hash(inputs, stdin=None):
    """16 hexadecimal digits of what a step was given: its arguments, then its standard input, if it reads it."""
    texts = [*inputs] + ([] if stdin is None else [stdin])
    return "%016x" % fnv1a(*(text.encode() + b"\0" for text in texts))


def value(step, hash_of_input):
    return "%016x" % fnv1a(f"{step} {hash_of_input}".encode())


def fails(task, step, attempt, percent):
    return fnv1a(f"{task}/{step}/{attempt}".encode()) % 100 < percent


def last_attempt(task, step, percent):
    """The first attempt that does not fail."""
    attempt = 1
    while fails(task, step, attempt, percent):
        attempt += 1
    return attempt


def text(output):
    """An output as toJSON gives it."""
    return json.dumps(output, separators=(",", ":"))


def read_logs(folder):
    """{(task, step): [Line, ...]} of all logs in a folder."""
    logs = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), encoding="ascii") as f:
            lines = [Line(w[0], w[1], w[2], int(w[3]), w[4], int(w[5])) for w in map(str.split, f)]
        logs[tuple(name.split(".", 1))] = lines
    return logs


class Complaints:
    """Gathers what is wrong; prints the first few."""
    def __init__(self):
        self.n = 0

    def expect(self, fine, *words):
        if not fine:
            self.n += 1
            if self.n <= 20:
                print(*words)

    def exit(self):
        if self.n:
            print(self.n, "in all")
        raise SystemExit(1 if self.n else 0)

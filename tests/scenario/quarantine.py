#!/usr/bin/env python3
"""Puts records into the log, or into what was kept aside, of a coxd that does not run.

    quarantine.py refused DIR TASK [PAUSED]  a record of TASK that cannot be; behind it, in the same commit, one
                                             that pauses another task
    quarantine.py crash DIR TASK             one that nothing is wrong with, but for a worker that nobody named
    quarantine.py mend DIR TASK              the poisoned record becomes one that means nothing, as if coxd had
                                             learnt to read it
    quarantine.py aside DIR TASK             prints how many records and entities are kept aside
"""
import sqlite3
import struct
import sys
import zlib

STEP_OPENED, ASSIGNED, TASK_PAUSED = 3, 6, 25
NO_STEP = 99999
NO_WORKER = 99999


def task_number(text):
    shard, counter = text[1:].split("-")
    digits = "0123456789abcdefghjkmnpqrstvwxyz"
    number = 0
    for c in counter:
        number = number * 32 + digits.index(c)
    return int(shard) << 48 | number


def record(kind, task, step=0, more=b""):
    body = struct.pack("<QIq", task, step, 0) + more
    return struct.pack("<BI", kind, len(body)) + body


def append(path, records):
    db = sqlite3.connect(path + "/log.db", isolation_level=None)
    last = db.execute("SELECT max(coalesce((SELECT max(last_seq) FROM log), 0), seq) FROM dropped").fetchone()[0]
    body = b"".join(records)
    head = struct.pack("<B3xIQI", 1, len(records), last + 1, len(body))
    row = head + struct.pack("<I", zlib.crc32(head + body)) + body
    db.execute("INSERT INTO log(last_seq, d) VALUES(?, ?)", (last + len(records), row))
    db.close()
    return last + 1


def main():
    verb, path, task = sys.argv[1], sys.argv[2], task_number(sys.argv[3])
    poison = record(STEP_OPENED, task, NO_STEP)
    if verb == "refused":
        print(append(path, [poison] + [record(TASK_PAUSED, task_number(t)) for t in sys.argv[4:]]))
        return
    if verb == "crash":  # its last step, which waits for the one before it
        print(append(path, [record(ASSIGNED, task, 2, struct.pack("<QQI", 1, 99999, NO_WORKER))]))
        return
    db = sqlite3.connect(path + "/state.db", isolation_level=None)
    if verb == "mend":
        harmless = record(TASK_PAUSED + 1, task)  # it goes on: nobody has paused it
        done = db.execute("UPDATE aside SET d = ?, crc = ? WHERE root = ? AND d = ?",
                          (harmless, zlib.crc32(harmless), task, poison))
        assert done.rowcount == 1, done.rowcount
    elif verb == "aside":
        print(db.execute("SELECT count(*) FROM aside WHERE root = ?", (task,)).fetchone()[0])
    db.close()


main()

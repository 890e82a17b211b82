#!/usr/bin/env python3
"""lib/cron against Python's zoneinfo, over the machine's own zone files.

usage: cron_zones.py CRON_SAY

Offsets of every zone from 1970 to 2099; next runs of some expressions from 2026 to 2037, walked through minute by
minute (fields with *) or day by day (fixed times) by the rules that cox/cron.h states. Prints what differs.
"""
import datetime as dt
import os
import random
import subprocess
import sys
import zoneinfo

UTC = dt.timezone.utc
ROOT = next((p for p in zoneinfo.TZPATH if os.path.isdir(p)), None)
DENSE = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]
EXPRESSIONS = ["0 * * * *", "30 2 * * *", "15,45 1-3 * * *", "*/15 2 * * *", "* 2 * * 0", "0 0 29 2 *", "30 2 1 * 0",
               "0 0 * * *", "*/20 * * 3,10 *"]


def stamp(*date):
    return int(dt.datetime(*date, tzinfo=UTC).timestamp())


def field(text, low, high):
    values = set()
    for item in text.split(","):
        item, _, step = item.partition("/")
        first, last = (low, high) if item == "*" else (int(item.split("-")[0]), int(item.split("-")[-1]))
        values |= set(range(first, last + 1, int(step or 1)))
    return values


class Cron:
    def __init__(self, text):
        texts = text.split()
        self.minutes, self.hours, self.days, self.months, self.weekdays = (
            field(t, *r) for t, r in zip(texts, [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]))
        self.both = "*" in texts[2] or "*" in texts[4]
        self.fixed = "*" not in texts[0] and "*" not in texts[1]

    def on_day(self, day):
        by = day.day in self.days, (day.weekday() + 1) % 7 in self.weekdays
        return day.month in self.months and (all(by) if self.both else any(by))

    def matches(self, local):
        return local.minute in self.minutes and local.hour in self.hours and self.on_day(local)


def moment_of_change(zone, low, high):
    """The first second with the offset that holds at `high`, of two with one change between them."""
    def offset(s):
        return dt.datetime.fromtimestamp(s, zone).utcoffset()
    after = offset(high)
    while high - low > 1:
        mid = (low + high) // 2
        low, high = (low, mid) if offset(mid) == after else (mid, high)
    return high


def runs_fixed(cron, zone, begin, end):
    runs, day = set(), dt.datetime.fromtimestamp(begin, zone).date() - dt.timedelta(2)
    while day <= dt.datetime.fromtimestamp(end, zone).date():
        for hour in cron.hours if cron.on_day(day) else ():
            for minute in cron.minutes:
                local = dt.datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
                at = int(local.timestamp())
                if dt.datetime.fromtimestamp(at, zone).replace(tzinfo=None) != local.replace(tzinfo=None):
                    at = moment_of_change(zone, at - 86400, at)
                runs.add(at)
        day += dt.timedelta(1)
    return sorted(r for r in runs if begin < r <= end)


def runs_walked(cron, zone, begin, end):
    return [s for s in range(begin - begin % 60 + 60, end + 1, 60) if cron.matches(dt.datetime.fromtimestamp(s, zone))]


def say(program, name, lines):
    result = subprocess.run([program, os.path.join(ROOT, name)], input="\n".join(lines) + "\n", text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if result.returncode != 0:
        sys.exit(f"{name}: cron-say ended with {result.returncode}: {result.stdout}")
    return result.stdout.split("\n"), int(result.stderr)


def changes(zone, begin, end):
    """Moments about which the offset changes, with the seconds around them."""
    offset, ret = None, []
    for s in range(begin, end, 43200):
        now = dt.datetime.fromtimestamp(s, zone).utcoffset()
        if offset is not None and now != offset:
            at = moment_of_change(zone, s - 43200, s)
            ret += [at - 1, at, at + 1]
        offset = now
    return ret


def check_offsets(program, name, rng):
    zone = zoneinfo.ZoneInfo(name)
    begin = stamp(2026, 1, 1) if name in DENSE else stamp(1970, 1, 2)
    times = [rng.randrange(begin, stamp(2099, 1, 1)) for _ in range(400)]
    if name in DENSE:
        times += changes(zone, begin, stamp(2038, 1, 1))
    lines, size = say(program, name, ["offset " + " ".join(map(str, times))])
    wrong = 0
    for s, got in zip(times, map(int, lines[0].split())):
        expected = int(dt.datetime.fromtimestamp(s, zone).utcoffset().total_seconds())
        if got != expected:
            wrong += 1
            if wrong == 1:
                print(f"{name}: {s}: {got}, zoneinfo says {expected}")
    if name in DENSE and size > 1200:
        print(f"{name}: {size} bytes")
        wrong += 1
    return wrong


def check_runs(program, name):
    zone, wrong = zoneinfo.ZoneInfo(name), 0
    for text in EXPRESSIONS:
        cron = Cron(text)
        if cron.fixed:
            windows = [(stamp(2026, 1, 1), stamp(2037, 12, 31))]
        else:
            windows = [(c - 90000, c + 90000) for c in changes(zone, stamp(2026, 1, 1), stamp(2038, 1, 1))[1::3]]
            windows = windows or [(stamp(2026, 3, 1), stamp(2026, 3, 9))]
        for begin, end in windows:
            expected = (runs_fixed if cron.fixed else runs_walked)(cron, zone, begin, end)
            lines, _ = say(program, name, [f"next {len(expected) + 1} {begin} {text}"])
            got = [int(w) for w in lines[0].split() if w != "never"]
            if [g for g in got if g <= end] != expected:
                differ = sorted(set(g for g in got if g <= end) ^ set(expected))[:3]
                print(f"{name}: {text} after {begin}: differs at " +
                      ", ".join(str(dt.datetime.fromtimestamp(s, zone)) for s in differ))
                wrong += 1
    return wrong


def main(program):
    if ROOT is None:
        print("no zone files on this machine")
        return 77
    rng = random.Random(1)
    names = sorted(zoneinfo.available_timezones())
    wrong = sum(check_offsets(program, name, rng) for name in names)
    wrong += sum(check_runs(program, name) for name in DENSE)
    print(f"{len(names)} zones, {wrong} wrong")
    return 1 if wrong or len(names) < 100 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

#!/usr/bin/env python3
"""Makes records of cox-bench's lines, shows them beside the last ones from such a machine, and keeps them.

usage: record_bench.py LINES RESULTS [--record]
"""
import datetime
import json
import os
import subprocess
import sys


def git(*args):
    done = subprocess.run(["git", "-c", "safe.directory=*", *args], stdout=subprocess.PIPE, check=False)
    return done.stdout.decode().strip()


def read(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def records_of(lines):
    """A record a workload: when, of what, where, the medians, and the runs they are of."""
    when = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    commit = git("rev-parse", "--short=12", "HEAD") + ("-changed" if git("status", "--porcelain", "-uno") else "")
    load = os.getloadavg()[0]
    runs = {}
    for line in lines:
        if "median" not in line:
            runs.setdefault(line["workload"], []).append(line)
            continue
        own = runs[line["workload"]]
        yield {"date": when, "commit": commit, "workload": line["workload"], "runs": line["runs"],
               "median": line["median"], "all": {k: [r[k] for r in own] for k in line["median"]},
               "cpu_s": own[-1]["cpu_s"], "settings": own[-1]["settings"], "machine": own[-1]["machine"],
               "load_average": round(load, 2)}


def place(record):
    """Figures can be compared between records with the same of these."""
    m, s = record["machine"], record["settings"]
    return (record["workload"], m["model"], m["cores"], m["filesystem"], s["store"], s["tasks"], s["steps_per_task"])


def show(record, last):
    for name, value in record["median"].items():
        text = f"{record['workload']:4} {name:16} {value:12,.1f}"
        low, high = min(record["all"][name]), max(record["all"][name])
        text += f"   ({low:,.1f} to {high:,.1f})"
        if last and name in last["median"]:
            before = last["median"][name]
            text += f"   {100 * (value / before - 1):+.1f} % since {last['commit']} of {last['date'][:10]}"
        print(text)


def main(lines_path, results_path, *options):
    lasts = {place(record): record for record in read(results_path)}
    records = list(records_of(read(lines_path)))
    for record in records:
        show(record, lasts.get(place(record)))
    if "--record" in options:
        with open(results_path, "a", encoding="utf-8") as f:
            f.writelines(json.dumps(record) + "\n" for record in records)


if len(sys.argv) < 3:
    sys.exit(__doc__)
main(*sys.argv[1:])

#!/usr/bin/env python3
"""check.py PROGRAM: small runs of cox-sim-placement, and what must hold of them."""
import json
import subprocess
import sys

POLICIES = ["program", "session", "cache_aware", "least_request", "power_of_two", "round_robin"]
SMALL = {"endpoints": 4, "minutes": 4, "warm_minutes": 2}
bad = 0


def run(**what):
    done = subprocess.run([sys.argv[1]] + ["%s=%s" % item for item in what.items()], stdout=subprocess.PIPE, check=True)
    line = json.loads(done.stdout)
    line.pop("wall_s")
    return line


def check(name, cond, seen):
    global bad
    bad += not cond
    print(("ok " if cond else "not ok ") + name + ("" if cond else ": %s" % (seen,)))


light = {p: run(policy=p, rate=0.08, seed=3, **SMALL) for p in POLICIES}
for p, line in light.items():
    check(p + ": the same seed, the same run", line == run(policy=p, rate=0.08, seed=3, **SMALL), line)
    check(p + ": another seed, another run", line != run(policy=p, rate=0.08, seed=4, **SMALL), line)
    check(p + ": all programs of the window end", line["programs"] > 0 and line["unfinished"] == 0 and line["refused"] == 0, line)
    check(p + ": nobody finds more than all prompts have in common", 0 < line["hit_rate"] <= line["oracle_hit_rate"], line)
    check(p + ": it is the same work for all", line["calls"] == light["program"]["calls"] and
          line["input_tokens"] == light["program"]["input_tokens"], line)
check("session never moves", light["session"]["moves"] == 0 and light["round_robin"]["moves"] > 0, light["session"])
for p in POLICIES:
    line = run(policy=p, rate=0.4, in_flight_max=6, seed=5, cut=1, **SMALL)
    check(p + ": never more in flight than allowed, by the engines' count", line["credit_exceeded"] == 0 and line["busy"] > 0.5, line)
own, others = light["program"]["program_mean_s"], min(light[p]["program_mean_s"] for p in POLICIES[1:])
check("few calls: knowing programs costs nothing", own <= 1.05 * others, (own, others))
heavy = {p: run(policy=p, rate=0.15, seed=3, **SMALL) for p in ("program", "least_request")}
check("many calls: prefixes are still found", heavy["program"]["hit_rate"] >= 0.9 * heavy["program"]["oracle_hit_rate"], heavy["program"])
check("many calls: and programs end sooner than where nobody looks for them",
      1.5 * heavy["program"]["program_mean_s"] <= heavy["least_request"]["program_mean_s"], heavy)
sys.exit(1 if bad else 0)

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
bound = run(policy="least_request", ideal=1, rate=0.15, seed=3, **SMALL)
check("a cache that all share finds all that is to be found, and nobody is sooner than with it",
      bound["hit_rate"] >= 0.99 * bound["oracle_hit_rate"] and bound["program_mean_s"] <= 1.01 * heavy["program"]["program_mean_s"], bound)
fan = {p: run(policy=p, rate=0.03, seed=3, fan_max=8, **SMALL) for p in ("program", "session")}
check("several agents at once: it is the same work for all, and all end",
      fan["program"]["calls"] == fan["session"]["calls"] > 0 and fan["program"]["input_tokens"] == fan["session"]["input_tokens"] and
      fan["program"]["unfinished"] == 0, fan)
# 1.7 times what can be done, three quarters of it one tenant's; each other one brings far less than its share.
shared = {p: run(policy=p, rate=0.3, seed=3, tenants=4, heavy=10, patience=3, **{**SMALL, "minutes": 12})["classes"] for p in ("program", "session")}
check("a tenant who brings too much waits for it, and others do not",
      1.3 * shared["program"][1]["program_mean_s"] <= shared["program"][0]["program_mean_s"] and
      1.3 * shared["program"][1]["program_mean_s"] <= shared["session"][1]["program_mean_s"], shared)
# More at times than the caches hold: it passes.
burst = run(policy="program", rate=0.33, seed=100, minutes=40, warm_minutes=10, cut=1)
check("more programs than caches hold for a while: those inside go on as ever, and it passes",
      burst["in_system"][3] < 1.3 * burst["in_system"][1] and burst["hit_rate"] >= 0.95 * burst["pooled_hit_rate"], burst)
sys.exit(1 if bad else 0)

#!/usr/bin/env python3
"""Runs cox-sim-placement for every policy, load and seed, and writes what came of it.

    compare.py PROGRAM OUT [--jobs N] [--seeds N] [--trace FILE] [PART...]

Parts: saturation, agents, others, expects, vary, fan, classes, trace, many (default: all; trace only with --trace). Those after
saturation use the rates that it has found. Appends to OUT/placement.jsonl, a line a run, and
makes OUT/placement.md and OUT/placement.svg of all lines that are there.
"""
import argparse
import concurrent.futures
import datetime
import json
import os
import subprocess
import sys

POLICIES = ["program", "session", "cache_aware", "least_request", "power_of_two", "round_robin"]
COLOURS = {"program": "#0b6e4f", "session": "#c8553d", "cache_aware": "#3d5a98", "least_request": "#8d6a9f",
           "power_of_two": "#b08900", "round_robin": "#777777"}
LOADS = [50, 80, 95]
WINDOW = {"minutes": 15, "warm_minutes": 5, "patience": 2}
LONG = {"minutes": 30, "warm_minutes": 10, "seed": 99, "seeds": 3}  # short windows are too noisy to say whether the system grows
VARIED = {"kv_tokens": 430000, "prefill_tokens_per_s": 30000, "output_tokens": 200, "result_tokens": 600, "gap_ms": 2000,
          "decode_attention_ns": 60, "step_us": 6500}
SETTINGS = [(None, None)] + [(n, int(v * f)) for n, v in VARIED.items() for f in (0.5, 1.5)]
FAN = {"fan_max": 8}
# No policy can find more in the caches than this, nor spread calls more freely.
IDEAL = {"policy": "least_request", "ideal": 1}


def run(program, **what):
    words = [program] + ["%s=%s" % item for item in what.items()]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return json.loads(done.stdout)


def setting(name, value):
    return {name: value} if name else {}


class Lines:
    def __init__(self, path):
        self.path = path
        self.lines = [json.loads(l) for l in open(path)] if os.path.exists(path) else []

    def add(self, part, line, **more):
        line = {"part": part, **more, **line}
        with open(self.path, "a") as f:
            f.write(json.dumps(line) + "\n")
        self.lines.append(line)

    def of(self, part, **what):
        return [l for l in self.lines if l["part"] == part and all(l.get(k) == v for k, v in {"ideal": 0, **what}.items()
                                                                   if k != "ideal" or "ideal" in l)]

    def rate(self, name=None, value=None, policy="program"):
        return self.of("saturation", varied=name, value=value, policy=policy)[-1]["saturation"]


def saturation(a, pool, lines):
    def find(t):
        name, value, policy = t
        what = {**FAN, "seeds": 1} if name == "fan" else setting(name, value)
        most = 0.125 if name == "fan" else run(a.program, capacity=1, **what)["capacity"]
        found = run(a.program, policy=policy, saturation=round(most * (0.88 if policy == "program" else 0.7), 4), **{**LONG, **what})
        return {"varied": name, "value": value, "policy": policy, "capacity": most, **found}

    todo = [(None, None, p) for p in POLICIES[:3]] + [(n, v, p) for n, v in SETTINGS[1:] for p in POLICIES[:2]] + [("fan", None, "program")]
    for line in pool.map(find, todo):
        lines.add("saturation", line)


def agents(a, pool, lines):
    whats = [{"policy": p} for p in POLICIES] + [IDEAL]
    todo = [(w, load, seed) for load in LOADS for seed in range(1, a.seeds + 1) for w in whats]
    for line in pool.map(lambda t: run(a.program, rate=lines.rate(), load=t[1], seed=t[2], **WINDOW, **t[0]), todo):
        lines.add("agents", line)


def others(a, pool, lines):
    """At 95 % of what the best of the others can do for long."""
    rate = max(lines.rate(policy=p) for p in POLICIES[1:3])
    todo = [(w, seed) for seed in range(1, a.seeds + 1) for w in [{"policy": p} for p in POLICIES[:3]] + [IDEAL]]
    for line in pool.map(lambda t: run(a.program, rate=rate, load=95, seed=t[1], **WINDOW, **t[0]), todo):
        lines.add("others", line)


def expects(a, pool, lines):
    """Programs say when their tools will be done, wrong by a factor (lognormal, sigma 0.5)."""
    for line in pool.map(lambda s: run(a.program, policy="program", expects=1, rate=lines.rate(), load=95, seed=s, **WINDOW), range(1, a.seeds + 1)):
        lines.add("expects", line)


def vary(a, pool, lines):
    todo = [(n, v, w, seed) for seed in range(1, a.vary_seeds + 1) for n, v in SETTINGS[1:] for w in [{"policy": p} for p in POLICIES[:3]] + [IDEAL]]
    for t, line in zip(todo, pool.map(lambda t: run(a.program, rate=lines.rate(t[0], t[1]), load=95, seed=t[3], **WINDOW, **{**t[2], t[0]: t[1]}), todo)):
        lines.add("vary", line, varied=t[0], value=t[1])


def fan(a, pool, lines):
    rate = lines.rate("fan")
    todo = [(w, load, seed) for load in (50, 95) for seed in range(1, 3) for w in [{"policy": p} for p in POLICIES[:3]] + [IDEAL]]
    for line in pool.map(lambda t: run(a.program, rate=rate, load=t[1], seed=t[2], **WINDOW, **FAN, **t[0]), todo):
        lines.add("fan", line)


def classes(a, pool, lines):
    rate = lines.rate()
    kinds = {"tenants": {"tenants": 10, "heavy": 10, "rate": 1.4 * rate}, "alone": {"tenants": 10, "heavy": 0, "rate": 1.4 * rate * 9 / 19},
             "bands": {"bands": 1, "rate": 1.15 * rate}, "dated": {"dated_ms": 30000, "rate": 1.15 * rate}}
    todo = [(k, p) for k in kinds for p in POLICIES[:3]]
    for t, line in zip(todo, pool.map(lambda t: run(a.program, policy=t[1], seed=1, **WINDOW, **kinds[t[0]]), todo)):
        lines.add("classes", line, kind=t[0])


def trace(a, pool, lines):
    what = {"trace": a.trace, "known": 1}
    # A trace has an end, so a rate is too high when calls take ten times as long as at a quarter of it.
    rate = 1.0
    low = run(a.program, policy="program", rate=rate / 4, **what)["call_mean_s"]
    while run(a.program, policy="program", rate=rate, **what)["call_mean_s"] < 3 * low:
        rate *= 1.15
    lines.add("trace-saturation", {"saturation": rate, "call_mean_s_at_quarter": low})
    todo = [(w, load) for load in LOADS for w in [{"policy": p} for p in POLICIES] + [{**IDEAL, "ideal": 2}]]
    for line in pool.map(lambda t: run(a.program, rate=rate, load=t[1], **what, **t[0]), todo):
        lines.add("trace", line)


def many(a, pool, lines):
    lines.add("many", run(a.program, policy="program", endpoints=10000, rate=300, minutes=1, warm_minutes=1, timed=1,
                          context_max=40000, scrape_ms=5000, cut=1))


# ---- what is written -----------------------------------------------------------------------------------------

def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else float("nan")


def row(lines, name):
    cells = [name] + ["%.3f" % mean(l[k] for l in lines) for k in ("hit_rate", "pooled_hit_rate", "oracle_hit_rate")]
    for key in ("ttft_p50_s", "ttft_p99_s", "call_mean_s", "call_p50_s", "call_p99_s"):
        cells.append("%.2f" % mean(l[key] for l in lines))
    if "program_mean_s" in lines[0]:
        for key in ("program_mean_s", "program_p50_s", "program_p99_s", "model_time_mean_s"):
            cells.append("%.0f" % mean(l[key] for l in lines))
    cells.append("%d" % sum(l["unfinished"] for l in lines))
    cells.append("%.1f" % (100 * mean(l["wasted_tokens"] / l["input_tokens"] for l in lines)))
    return "| " + " | ".join(cells) + " |"


def table(out, lines, part, loads=LOADS, ideal=1):
    for load in loads:
        some = lines.of(part, load=load)
        if not some:
            continue
        programs = "program_mean_s" in some[0]
        head = ["%d %% load" % load, "hit rate", "one cache", "oracle", "TTFT p50 s", "p99", "call mean s", "p50", "p99"]
        head += ["program mean s", "p50", "p99", "without gaps"] if programs else []
        head += ["unfinished", "wasted %"]
        out.append("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
        out += [row(lines.of(part, load=load, policy=p), p) for p in POLICIES if lines.of(part, load=load, policy=p)]
        if lines.of(part, load=load, ideal=ideal):
            out.append(row(lines.of(part, load=load, ideal=ideal), "*bound*"))


def ratio(lines, key, part, ideal=0, **what):
    """How many times longer the best of the others takes than the router's own policy, or than the bound."""
    own = mean(l[key] for l in lines.of(part, ideal=ideal, **({} if ideal else {"policy": "program"}), **what))
    others = {p: mean(l[key] for l in lines.of(part, policy=p, **what)) for p in POLICIES[1:] if lines.of(part, policy=p, **what)}
    best = min(others, key=others.get)
    return others[best] / own, best


def by_seed(lines, part, **what):
    """The same by seed, as a text: least to most."""
    found = sorted(ratio(lines, "program_mean_s", part, seed=seed, **what)[0] for seed in {l["seed"] for l in lines.of(part, policy="program", **what)})
    return "%.2f" % found[0] if len(found) < 2 else "%.2f to %.2f" % (found[0], found[-1])


def compared(lines, part, head, **what):
    a, who = ratio(lines, "program_mean_s", part, **what)
    b, _ = ratio(lines, "model_time_mean_s", part, **what)
    most, _ = ratio(lines, "program_mean_s", part, ideal=1, **what)
    own = lines.of(part, policy="program", **what)
    return "| %s | %.2f (%s) | %s | %.2f | %.2f | %.3f |" % (head, a, who, by_seed(lines, part, **what), most, b,
                                                         mean(l["hit_rate"] / l["oracle_hit_rate"] for l in own))


COMPARED = ["program mean: best other / ours", "by seed", "best other / bound", "best other / ours without gaps", "hit rate / oracle's"]


def report_agents(out, lines):
    rates = {p: lines.rate(policy=p) for p in POLICIES[:3]}
    first = lines.of("saturation", varied=None, policy="program")[-1]
    out += ["", "## Programs of agents", "",
            "Eight engines (`h100-llama-8b`); programs of 10 to 50 turns (fewer where the context reaches 100,000 tokens), whose prompts grow by about 1,200",
            "tokens a turn, eight shared system prompts of 6,016 tokens, tools that take 2 s in the median and 4 in the mean. Load is a part of the rate",
            "at which the system begins to grow under the best policy, found over 30 minutes and three seeds that are not measured: "
            + ", ".join("%s %.3f" % i for i in rates.items()) + " programs/s.",
            "What the engines could do at most, if they always found all and ran as many at once as their caches hold, is about %.3f (drawn, not run)." % first["capacity"],
            "Means over %d seeds, what comes in %g minutes after a warm-up of %g; who has not ended after twice that is counted with the time that he has taken, which"
            % (len({l["seed"] for l in lines.of("agents")}), WINDOW["minutes"], WINDOW["warm_minutes"]),
            "is kind to policies that do not keep up: the longer the run, the further behind they are.", "",
            "Oracle: a cache without bounds that all share; one cache: as large as the eight together, least recently used first. *Bound*: engines that all share",
            "the cache without bounds, so that each call goes to whoever runs the fewest and finds all that was ever computed. No placement can do that."]
    table(out, lines, "agents")
    if not lines.of("agents"):
        return
    out += ["", "| load | " + " | ".join(COMPARED) + " |", "|---" * 6 + "|"]
    out += [compared(lines, "agents", "%d %%" % load, load=load) for load in LOADS if lines.of("agents", load=load)]
    if lines.of("others"):
        out.append(compared(lines, "others", "%.2f programs/s" % lines.of("others")[0]["rate"]))
    out += ["", "At 95 % the others are beyond what they can do for long. The last line is at 95 % of the most that any of them can, where all keep up: there",
            "even the bound is little better, for time goes into decoding, which no placement makes shorter. What knowing programs gives is that rate: %.2f times" % (rates["program"] / max(rates[p] for p in POLICIES[1:3])),
            "as many programs on the same engines, %.0f %% of what they could do at most." % (100 * rates["program"] / first["capacity"])]
    said = lines.of("expects")
    if said:
        out += ["", "When programs say how long their tools will take (wrong by a factor, lognormal with sigma 0.5), a program takes %.0f s in the mean at 95 %%, else %.0f s."
                % (mean(l["program_mean_s"] for l in said), mean(l["program_mean_s"] for l in lines.of("agents", load=95, policy="program")))]
    out += ["", "Where a call's time goes at 95 %:", "", "| | waits in the queue s | prefill s | decode s |", "|---|---|---|---|"]
    for name, some in [(p, lines.of("agents", load=95, policy=p)) for p in POLICIES[:3]] + [("*bound*", lines.of("agents", load=95, ideal=1))]:
        out.append("| %s | %.2f | %.2f | %.2f |" % (name, *[mean(l[k] for l in some) for k in ("queued_s", "prefill_s", "decode_s")]))


def report_vary(out, lines):
    seeds = len({l["seed"] for l in lines.of("vary")})
    out += ["", "## Parameters varied by half", "",
            "Each at 95 %% of the rate that it has under our policy (found as above), %s; `session` and `cache_aware` beside ours. The rate that `session`"
            % ("one seed" if seeds == 1 else "up to %d seeds" % seeds),
            "can do for long says how far beyond that it is.", "",
            "| parameter | value | ours, programs/s | session | " + " | ".join(COMPARED) + " |", "|---" * 9 + "|"]
    for name, value in sorted({(l["varied"], l["value"]) for l in lines.of("vary")}):
        out.append(compared(lines, "vary", "`%s` | %d | %.3f | %.3f" % (name, value, lines.rate(name, value), lines.rate(name, value, "session")), varied=name, value=value))


def report_fan(out, lines):
    out += ["", "## Programs that call several agents at once", "",
            "Every fourth turn calls 3 to 8 agents instead of a tool, each with a conversation of its own of 1 to 6 turns, and goes on when the last has ended. All calls",
            "are of one program, as those of a task are. Load is a part of %.3f programs/s, found on one seed and so rather low; two seeds. Ours finds" % lines.rate("fan"),
            "less in the caches than `session`, which keeps all of a program in one place, and is done sooner all the same, as siblings spread."]
    table(out, lines, "fan", (50, 95))
    out += ["", "| load | " + " | ".join(COMPARED) + " |", "|---" * 6 + "|"]
    out += [compared(lines, "fan", "%d %%" % load, load=load) for load in (50, 95) if lines.of("fan", load=load)]


def report_classes(out, lines):
    out += ["", "## Tenants, bands, deadlines", "", "One seed. Ten tenants, of whom the first brings ten times what each other one does, all together 1.4 times what the engines can do for long: the",
            "nine others together have less than their share. Beside it what those nine take alone, as much as before.", "",
            "| | the heavy tenant's programs, mean s | the others', mean s | p99 | the others' alone, mean s | p99 |", "|---|---|---|---|---|---|"]
    def of(kind, policy):
        return lines.of("classes", kind=kind, policy=policy)[0]["classes"]
    for p in POLICIES[:3]:
        heavy, light, alone = of("tenants", p)[0], of("tenants", p)[1], of("alone", p)[1]
        out.append("| %s | %.0f | %.0f | %.0f | %.0f | %.0f |" % (p, heavy["program_mean_s"], light["program_mean_s"], light["program_p99_s"], alone["program_mean_s"], alone["program_p99_s"]))
    out += ["", "A fifth of the programs of the high band, a fifth of the low one, at 1.15 times what the engines can do for long:", "",
            "| | high, mean s | p99 | normal | p99 | low | p99 |", "|---|---|---|---|---|---|---|"]
    for p in POLICIES[:3]:
        out.append("| %s | " % p + " | ".join("%.0f | %.0f" % (c["program_mean_s"], c["program_p99_s"]) for c in of("bands", p)) + " |")
    out += ["", "Calls of a fifth of the programs have 30 s each, at the same load; late are those that ended after that, and those that were refused because they would:", "",
            "| | late of those with a deadline, % | their call p99 s | the others' |", "|---|---|---|---|"]
    for p in POLICIES[:3]:
        dated, free = of("dated", p)[:2]
        out.append("| %s | %.1f | %.1f | %.1f |" % (p, 100 * dated["late"] / max(1, dated["calls"] + lines.of("classes", kind="dated", policy=p)[0]["refused"]), dated["call_p99_s"], free["call_p99_s"]))


def report_trace(out, lines, s):
    def call_mean(**what):
        return mean(l["call_mean_s"] for l in lines.of("trace", load=95, **what))
    others = {p: call_mean(policy=p) for p in POLICIES[1:]}
    best = min(others, key=others.get)
    out += ["", "## Requests of the Mooncake conversation trace", "",
            "12,031 real requests in an hour (FAST'25 release), played as fast as the load says; at 100 %% they come %.2f times as fast as they were recorded, where" % s["saturation"],
            "calls take three times as long in the mean as at a quarter of that. Which requests belong together is not in it and is inferred. Little is",
            "found again (people come back after their prompts have been evicted), so there is less to win: at 95 %% the mean call takes %.2f times as long" % (others[best] / call_mean(policy="program")),
            "with the best of the others (%s). *Bound*: engines that share one cache as large as theirs together; the best of the others takes %.2f times as long as that." % (best, others[best] / call_mean(ideal=2))]
    table(out, lines, "trace", ideal=2)


def report(lines, out_dir):
    out = ["# Placement, simulated", "",
           "**Simulated**, on virtual time: the router's own placement in front of simulated engines, their costs fitted to published",
           "figures ([which](../../tests/modelsim/README.md#the-cost-model-and-where-its-figures-come-from)). No GPU took part.",
           "Made by `tests/modelsim/placement/compare.py`; [how](../../tests/modelsim/placement/README.md). Every run is a line of",
           "[placement.jsonl](placement.jsonl). Last written %s." % datetime.date.today().isoformat(), "",
           "![mean completion of programs by load](placement.svg)"]
    if lines.of("saturation", varied=None):
        report_agents(out, lines)
    for part, text in (("vary", report_vary), ("fan", report_fan), ("classes", report_classes)):
        if lines.of(part):
            text(out, lines)
    for s in lines.of("trace-saturation")[-1:]:
        report_trace(out, lines, s)
    for l in lines.of("many")[-1:]:
        out += ["", "## Ten thousand endpoints", "",
                "%s decisions over %s endpoints, %s calls measured: p50 %.1f µs, p99 %.1f µs of wall time each, on the machine and under the load of that day; hit rate %.3f (oracle %.3f:"
                " the rest is system prompts, which each engine has to read once)."
                % (format(l["decisions"], ","), format(l["endpoints"], ","), format(l["calls"], ","), l["decision_p50_us"], l["decision_p99_us"], l["hit_rate"], l["oracle_hit_rate"])]
    with open(os.path.join(out_dir, "placement.md"), "w") as f:
        f.write("\n".join(out) + "\n")
    with open(os.path.join(out_dir, "placement.svg"), "w") as f:
        f.write(plot(lines))


def plot(lines):
    """Bars of mean completion without gaps, by load, on a scale that is cut at five times the router's own."""
    width, height, left, bottom = 760, 300, 60, 40
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">' % (width, height),
             '<rect width="100%" height="100%" fill="white"/>',
             '<text x="%d" y="18">Mean completion of programs, tool gaps taken out, seconds (simulated; less is better)</text>' % left]
    groups = [(load, [(p, mean(l["model_time_mean_s"] for l in lines.of("agents", load=load, policy=p))) for p in POLICIES
                      if lines.of("agents", load=load, policy=p)]) for load in LOADS]
    groups = [g for g in groups if g[1]]
    top = max([5 * dict(g[1]).get("program", 0) for g in groups] or [1])
    for i, (load, bars) in enumerate(groups):
        x0 = left + i * (width - left - 130) / max(1, len(groups))
        for j, (policy, value) in enumerate(bars):
            h = min(value / top, 1) * (height - bottom - 50)
            x, y = x0 + j * 30, height - bottom - h
            parts.append('<rect x="%.0f" y="%.1f" width="26" height="%.1f" fill="%s"/>' % (x, y, h, COLOURS[policy]))
            parts.append('<text x="%.0f" y="%.1f" text-anchor="middle" font-size="10">%.0f%s</text>' % (x + 13, y - 3, value, "" if value <= top else " ↑"))
        parts.append('<text x="%.0f" y="%d">%d %% load</text>' % (x0 + 60, height - bottom + 18, load))
    for j, policy in enumerate(POLICIES):
        parts.append('<rect x="%d" y="%d" width="12" height="12" fill="%s"/>' % (width - 120, 50 + j * 20, COLOURS[policy]))
        parts.append('<text x="%d" y="%d">%s</text>' % (width - 102, 60 + j * 20, policy))
    return "\n".join(parts) + "\n</svg>\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("program")
    p.add_argument("out")
    p.add_argument("parts", nargs="*")
    p.add_argument("--jobs", type=int, default=os.cpu_count())
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--vary-seeds", type=int, default=2)
    p.add_argument("--trace")
    a = p.parse_intermixed_args()
    known = {f.__name__: f for f in (saturation, agents, others, expects, vary, fan, classes, trace, many)}
    lines = Lines(os.path.join(a.out, "placement.jsonl"))
    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        for part in a.parts or [k for k in known if k != "trace" or a.trace]:
            if part == "report":
                continue
            lines.lines = [l for l in lines.lines if l["part"] not in (part, {"trace": "trace-saturation"}.get(part))]
            with open(lines.path, "w") as f:
                f.writelines(json.dumps(l) + "\n" for l in lines.lines)
            known[part](a, pool, lines)
            print(part, "done", file=sys.stderr)
            report(lines, a.out)
    report(lines, a.out)


main()

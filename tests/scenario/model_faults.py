"""Model calls through coxd while servers of cox-modelsim do what servers do: model_faults.py MODE URL SIM [...]

URL is coxd's HTTP port, SIM the simulator's admin URL. Each call has a request id of its own, by which the simulator says
what reached it. Modes:

  faults      each fault at one of the endpoints, under load; a line a check
  cancel N    N streams that are left at once; prints how long the last of them lived on at its server
  hold N S    N streams of S tokens; prints "begun" once all have begun, then a line a check
  measure N R times of N calls a side, R a second, that healthy endpoints answered: of two that are alone, and of two beside one
              with each fault; a table, no check. Five endpoints a fault: models a0, b0, a1, ...
"""
import asyncio
import json
import random
import sys
import time
import urllib.request

MODE, URL, SIM = sys.argv[1:4]
HOST, PORT = URL.split("//")[1].split(":")
LIMIT_S = 90
FAILED = []
SEED = int(sys.argv[sys.argv.index("--seed") + 1]) if "--seed" in sys.argv else random.randrange(1 << 32)
RANDOM = random.Random(SEED)


def report(name, expected, found):
    if expected == found:
        print(f"ok {name}", flush=True)
        return
    FAILED.append(name)
    print(f"    expected: {expected}\n    found:    {found}\nnot ok {name}", flush=True)


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=LIMIT_S) as answer:
        return answer.read().decode()


def state():
    return json.loads(ask(SIM + "/sim/state"))


def set_faults(endpoint, **faults):
    ask(SIM + "/sim/faults", {"endpoint": endpoint, "reset": True, **faults})


def records(ids):
    """What reached the simulator of these calls: {id: [record, ...]}, once all of it has ended."""
    found, after = {}, 0
    while True:
        page = json.loads(ask(f"{SIM}/sim/calls?after={after}"))
        for r in page["calls"]:
            if r["request_id"] in ids:
                found.setdefault(r["request_id"], []).append(r)
        if page["next"] == after or not page["calls"]:
            return found
        after = page["next"]


def metric(name, **labels):
    total = 0
    for line in ask(URL + "/metrics").splitlines():
        if line.startswith(name + "{") and all(f'{k}="{v}"' in line for k, v in labels.items()):
            total += float(line.rsplit(" ", 1)[1])
    return int(total)


def books(model):
    return {"output": metric("cox_model_tokens_total", model=model, direction="output"),
            "wasted": metric("cox_model_wasted_tokens_total", model=model)}


# ---- a call ----

class Call:
    n = 0

    def __init__(self, stream, tokens=12, prompt=60, model="small"):
        Call.n += 1
        self.id, self.stream = f"{SEED:x}-{Call.n}", stream
        self.body = {"model": model, "max_tokens": tokens, "ignore_eos": True, "stream": stream,
                     "messages": [{"role": "user", "content": f"{self.id} " + "word " * prompt}]}
        if stream:
            self.body["stream_options"] = {"include_usage": True}
        self.outcome, self.endpoint, self.usage, self.head, self.reader, self.writer = "lost", "", None, {}, None, None
        self.waited_s, self.tries, self.n_events = 0.0, 0, 0

    async def begin(self):
        body = json.dumps(self.body).encode()
        self.reader, self.writer = await asyncio.open_connection(HOST, int(PORT), limit=1 << 22)
        self.writer.write((f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nx-request-id: {self.id}\r\nConnection: close\r\n"
                           f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body)
        await self.writer.drain()
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        self.head = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:] if ":" in line)}
        self.endpoint, self.tries = self.head.get("x-cox-endpoint", ""), int(self.head.get("x-cox-tries", 0))

    async def pieces(self):
        if "content-length" in self.head:
            yield await self.reader.readexactly(int(self.head["content-length"]))
            return
        while True:
            n = int(await self.reader.readline(), 16)
            piece = await self.reader.readexactly(n + 2)
            if n == 0:
                return
            yield piece[:-2]

    def take(self, event):
        self.n_events += 1
        if "error" in event:
            self.outcome = "error"
        self.usage = event.get("usage") or self.usage
        return any(c.get("finish_reason") for c in event.get("choices", []))

    async def read(self):
        text, finished = b"", False
        async for piece in self.pieces():
            text += piece
            while self.status == 200 and self.stream and b"\n\n" in text:
                event, text = text.split(b"\n\n", 1)
                event = event.removeprefix(b"data: ")
                if event == b"[DONE]":
                    self.outcome = "answered" if finished and self.outcome != "error" else self.outcome
                else:
                    finished |= self.take(json.loads(event))
        if self.status != 200:
            self.outcome = "error" if json.loads(text)["error"]["message"] else "lost"
        elif not self.stream and self.take(json.loads(text)):
            self.outcome = "answered"

    async def whole(self):
        """Never raises: what is not answered and not refused in words is lost."""
        began = time.monotonic()
        try:
            await asyncio.wait_for(self.begin(), LIMIT_S)
            await asyncio.wait_for(self.read(), LIMIT_S)
        except (OSError, EOFError, ValueError, asyncio.TimeoutError) as e:
            self.why = repr(e)
        self.waited_s = time.monotonic() - began
        if self.writer:
            self.writer.close()
        return self


async def load(n, at_once, model="small"):
    """n calls, half of them streams, so many at once."""
    calls = [Call(RANDOM.random() < 0.5, model=model) for _ in range(n)]
    left = list(calls)

    async def one_after_the_other():
        while left:
            await left.pop().whole()

    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    return calls


def idle():
    end = time.monotonic() + LIMIT_S
    while state()["in_flight"] > 0:
        if time.monotonic() > end:
            raise TimeoutError("calls stay under way at the simulator")
        time.sleep(0.02)


# ---- faults ----

N_ENDPOINTS = 3 # of a model; the first is the sick one

# Before anything of an answer has come: nobody need hear of it.
EARLY = {
    "refuses connections": {"refuse": True},
    "says 500": {"error_500": 1},
    "says 500 at times": {"error_500": 0.3},
    "says 429": {"error_429": 1, "retry_after_s": 1},
    "hangs before the first token": {"hang_first": 0.2},
    "is ten times slower": {"slow": 10},
    "has no metrics": {"metrics": "404"},
    "has garbage for metrics": {"metrics": "garbage"},
    "hangs when asked for metrics": {"metrics": "hang"},
}
# After some tokens: a stream's reader is told, who waits for the whole need not hear of it.
LATE = {
    "is killed in mid-stream": {"kill": 0.3, "after_tokens": 4},
    "hangs after some tokens": {"hang_after": 0.1, "after_tokens": 4},
    "closes half of its sockets": {"half_close": 0.2, "after_tokens": 4},
    "sends garbage": {"garbage": 0.3, "after_tokens": 4},
}


FLAPPING = "has metrics that come and go"
NAMES = [*EARLY, *LATE, FLAPPING]


def settled(model, output):
    """What coxd says that it has charged: it makes its numbers anew a few times a second."""
    end = time.monotonic() + 10
    while books(model)["output"] != output and time.monotonic() < end:
        time.sleep(0.05)
    return books(model)


def judge(name, model, calls, seen, endpoints, in_flight_max):
    answered = sum(c.usage["completion_tokens"] for c in calls if c.outcome == "answered")
    after = settled(model, answered)
    outcomes = {o: sum(c.outcome == o for c in calls) for o in ("answered", "error", "lost")}
    broken = [c for c in calls if c.outcome == "error"]
    tries = {c.id: [r["outcome"] for r in seen.get(c.id, [])] for c in calls}
    print(f"    one that {name}: {outcomes}, of tries {json.dumps({o: sum(t.count(o) for t in tries.values()) for o in set(sum(tries.values(), []))})}, "
          f"wasted tokens {after['wasted']}", flush=True)
    report(f"one that {name}: it was asked", True, endpoints[0]["calls"] > 0 or name == "refuses connections")
    report(f"one that {name}: no call is lost", [], [(c.id, c.stream, getattr(c, "why", "")) for c in calls if c.outcome == "lost"])
    if name in LATE:
        report(f"one that {name}: whole answers are fetched elsewhere", [], [(c.id, c.status) for c in broken if not c.stream])
    else:
        report(f"one that {name}: every call is answered", [], [(c.id, c.status, c.head) for c in broken])
    report(f"one that {name}: each is answered once", [],
           [(c.id, tries[c.id]) for c in calls if tries[c.id].count("answered") != (c.outcome == "answered")])
    report(f"one that {name}: what was answered is charged, once", answered, after["output"])
    n_begun = sum(r["outcome"] != "answered" and r["first_ns"] > 0 for c in calls for r in seen.get(c.id, []))
    if n_begun > 0 or name not in [*LATE, "hangs before the first token"]:
        report(f"one that {name}: what was given up after it had begun counts as wasted", n_begun > 0, after["wasted"] > 0)
    report(f"one that {name}: no endpoint had more than it takes, by its own count", [],
           [e["in_flight_max"] for e in endpoints if e["in_flight_max"] > in_flight_max])


async def flap(endpoint):
    while True:
        for metrics in ("garbage", "ok", "404", "stale"):
            await asyncio.get_running_loop().run_in_executor(None, lambda m=metrics: set_faults(endpoint, metrics=m))
            await asyncio.sleep(0.05)


async def all_faults():
    flapping = asyncio.create_task(flap(NAMES.index(FLAPPING) * N_ENDPOINTS))
    calls = await asyncio.gather(*(load(60, 12, f"m{i}") for i in range(len(NAMES))))
    flapping.cancel()
    return calls


def faults(in_flight_max):
    """Each at a model of its own, all at the same time: a breaker that has opened for one would hide the next."""
    for i, name in enumerate(NAMES):
        set_faults(i * N_ENDPOINTS, **EARLY.get(name, LATE.get(name, {})))
    loads = asyncio.run(all_faults())
    for i in range(len(NAMES)):
        set_faults(i * N_ENDPOINTS)
    idle()
    seen, endpoints = records({c.id for calls in loads for c in calls}), state()["endpoints"]
    for i, (name, calls) in enumerate(zip(NAMES, loads)):
        judge(name, f"m{i}", calls, seen, endpoints[i * N_ENDPOINTS:][:N_ENDPOINTS], in_flight_max)


# ---- leaving ----

async def leave(n):
    calls = [Call(True, 100000) for _ in range(n)]
    await asyncio.gather(*(c.begin() for c in calls))
    for c in calls:
        await c.reader.readline()
    at_once = state()
    report(f"{n} streams are under way", n, at_once["in_flight"])
    left_ns = time.monotonic_ns()
    for c in calls:
        c.writer.transport.abort()
    await asyncio.sleep(0)
    closed_ns = time.monotonic_ns()
    await asyncio.get_running_loop().run_in_executor(None, idle)
    after = state()
    report(f"{n} streams are cancelled at their servers", n, after["cancelled"] - at_once["cancelled"])
    print(f"    {n} connections were closed in {(closed_ns - left_ns) / 1e6:.1f} ms; the last server's slot was free "
          f"{(after['last_cancel_ns'] - left_ns) / 1e6:.1f} ms after the first of them", flush=True)


async def hold(n, tokens):
    calls = [Call(True, tokens) for _ in range(n)]
    await asyncio.gather(*(c.begin() for c in calls))
    print("begun", flush=True)

    async def rest(c):
        try:
            await asyncio.wait_for(c.read(), LIMIT_S)
        except (OSError, EOFError, ValueError, asyncio.TimeoutError) as e:
            c.why = repr(e)

    await asyncio.gather(*(rest(c) for c in calls))
    report(f"{n} streams come to their ends", [], [(c.id, c.outcome, getattr(c, "why", "")) for c in calls if c.outcome != "answered"])
    report("each with all its tokens", {tokens}, {c.usage["completion_tokens"] for c in calls if c.usage})


# ---- measuring ----

A_PAIR, N_BLOCKS = 5, 10 # endpoints: two of the base, and three of which the first is sick


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")


async def arrive(n, rate, model, gaps):
    """n calls at moments that do not depend on how those before them went. Who hangs is not waited for: -> calls, tasks left."""
    loop, calls = asyncio.get_running_loop(), [Call(gaps.random() < 0.5, model=model) for _ in range(n)]
    tasks, at = [], loop.time()
    for c in calls:
        at += gaps.expovariate(rate)
        await asyncio.sleep(max(0, at - loop.time()))
        tasks.append(loop.create_task(c.whole()))
    done, left = await asyncio.wait(tasks, timeout=1)
    return calls, left


async def pair(i, name, n_calls, rate):
    """Blocks of both models in turn, the same moments for both, so that what else this host does befalls both. The first is warm-up."""
    sides, left = {"a": [], "b": []}, set()
    flapping = asyncio.create_task(flap(i * A_PAIR + 2)) if name == FLAPPING else None
    for block in range(N_BLOCKS + 1):
        for side in ("ab", "ba")[block % 2]:
            calls, more = await arrive(n_calls // N_BLOCKS if block else 200, rate, f"{side}{i}", random.Random(f"{SEED} {i} {block}"))
            left |= more
            if block:
                sides[side].append(calls)
    if flapping:
        flapping.cancel()
    set_faults(i * A_PAIR + 2)
    for task in left:
        task.cancel()
    return sides["a"], sides["b"]


class Server:
    """What the simulator says of calls that have ended, read page by page."""
    after = 0

    def times(self):
        found = {}
        while True:
            page = json.loads(ask(f"{SIM}/sim/calls?after={self.after}"))
            for r in page["calls"]:
                if r["outcome"] == "answered":
                    found[r["request_id"]] = (r["ended_ns"] - r["begun_ns"]) / 1e6
            if page["next"] == self.after:
                return found
            self.after = page["next"]


def p99(blocks, of):
    return quantile([of(c) for calls in blocks for c in calls], 0.99)


def change(a, b, of):
    """Of the 99th percentile, percent; and between what it is in nine of ten draws of as many blocks."""
    draws = []
    for _ in range(100):
        drawn = [RANDOM.choices(side, k=len(side)) for side in (a, b)]
        draws.append(100 * (p99(drawn[1], of) / p99(drawn[0], of) - 1))
    return 100 * (p99(b, of) / p99(a, of) - 1), quantile(draws, 0.05), quantile(draws, 0.95)


def measure(n_calls, rate):
    print(f"{n_calls} calls a side at {rate} a second, half of them streams of 12 tokens; ms. base | with a third endpoint, which ...\n"
          f"{'':29} {'p50':>11} {'p99':>13} {'change (9 of 10 draws)':>26} {'p99 waited':>11} {'p99 at server':>13} {'p99 rest':>11}  "
          f"{'sick':>5} {'again':>5} {'error':>5} {'open':>4}", flush=True)
    server, endpoints = Server(), state()["endpoints"]
    for i, name in enumerate(["is as the others", *NAMES]):
        sick = endpoints[i * A_PAIR + 2]["url"].split("//")[1].split("/")[0]
        set_faults(i * A_PAIR + 2, **EARLY.get(name, LATE.get(name, {})))
        a, b = asyncio.run(pair(i, name, n_calls, rate))
        took = server.times()
        healthy = [[[c for c in calls if c.outcome == "answered" and c.tries <= 1 and c.id in took and not c.endpoint.startswith(sick)]
                    for calls in side] for side in (a, b)]

        def both(of, digits=1):
            return "|".join(f"{p99(side, of):.{digits}f}" for side in healthy)

        def total(c):
            return 1000 * c.waited_s

        def waited(c):
            return int(c.head.get("x-cox-waited-us", 0)) / 1000

        more, low, high = change(*healthy, total)
        everyone = [c for calls in b for c in calls]
        print(f"{name:29} {'|'.join(f'{quantile([total(c) for calls in side for c in calls], 0.5):.1f}' for side in healthy):>11} "
              f"{both(total):>13} {more:+9.0f} % ({low:+.0f} to {high:+.0f}) {both(waited):>11} {both(lambda c: took[c.id]):>13} "
              f"{both(lambda c: total(c) - waited(c) - took[c.id]):>11}  {sum(c.endpoint.startswith(sick) for c in everyone):5} "
              f"{sum(c.tries > 1 for c in everyone):5} {sum(c.outcome == 'error' for c in everyone):5} "
              f"{sum(c.outcome == 'lost' for c in everyone):4}", flush=True)


print(f"    seed {SEED}", flush=True)
if MODE == "faults":
    faults(int(sys.argv[4]))
elif MODE == "cancel":
    asyncio.run(leave(int(sys.argv[4])))
elif MODE == "hold":
    asyncio.run(hold(int(sys.argv[4]), int(sys.argv[5])))
else:
    measure(int(sys.argv[4]), float(sys.argv[5]))
sys.exit(1 if FAILED else 0)

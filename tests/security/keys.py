"""Keys of attempts, tried by steps, from their host, and by workers.

usage: keys.py GRPC HTTP FOLDER WORKER LEVEL...     what steps of WORKER reach at these levels
       keys.py GRPC HTTP FOLDER WORKER programs     what its programs store
       keys.py GRPC HTTP FOLDER thieves             what workers reach that hold an attempt, or none
       (PYTHONPATH has what protoc made of proto/; FOLDER has NAME.token, and WORKER.dir is where the worker works)

Prints lines as tests/README.md says; exits 1 after a "not ok".
"""
import glob
import hashlib
import json
import os
import queue
import socket
import sys
import time
import urllib.error
import urllib.request

import grpc
from coxswain.v1 import blob_service_pb2 as blobs
from coxswain.v1 import worker_service_pb2 as workers

GRPC, HTTP, FOLDER, WORKER = sys.argv[1:5]
LIMIT_S = 60
LARGE = 8 << 20
FAILED = []


def token(name):
    return open(f"{FOLDER}/{name}.token", encoding="ascii").read().strip()


def report(name, expected, seen):
    good = expected == seen
    if not good:
        FAILED.append(name)
        print(f"    expected: {str(expected)[:1000]}\n    seen:     {str(seen)[:1000]}")
    print(("ok " if good else "not ok ") + name, flush=True)


# ---- tasks ----

def http(method, path, who="alpha", body=None, raw=False):
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{HTTP}{path}", method=method, data=data, headers={
        "Authorization": "Bearer " + token(who), "Content-Type": "application/octet-stream" if raw else "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return answer.read() if raw else json.load(answer)
    except urllib.error.HTTPError as e:
        raise RuntimeError(f"{method} {path}: {e.code} {e.read(1000)}") from e


def store(data, who="alpha"):
    name = "sha256:" + hashlib.sha256(data).hexdigest()
    http("PUT", "/api/v1/blobs/" + name, who, data, raw=True)
    return {"$blob": name, "size": len(data)}


def submit(steps, who="alpha", **inputs):
    declared = {name: {"type": "object"} for name in inputs}
    return http("POST", "/api/v1/tasks", who, {"document": {"api_version": "v1", "name": "keys", "inputs": declared, "steps": steps},
                                               "inputs": inputs})["id"]


def ended(task, who="alpha"):
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        found = http("GET", f"/api/v1/tasks/{task}?wait=10s", who)["task"]
        if found["status"] in ("SUCCEEDED", "FAILED", "CANCELLED"):
            return found
    raise TimeoutError(f"{task} has not ended")


def output(task, step="s", who="alpha"):
    found = ended(task, who)
    if found["status"] != "SUCCEEDED":
        raise RuntimeError(found)
    return http("GET", f"/api/v1/tasks/{task}/steps/{step}/output", who)


# What a step does: each request of a list, to its own listener unless it names another place.
CODE = r'''
import json, os, socket, sys
plan, url, own = json.load(sys.stdin), os.environ["COX_BLOBS_URL"], os.environ["COX_ATTEMPT_KEY"]
def ask(q):
    port = int(url.split(":")[2].split("/")[0])
    try:
        s = socket.create_connection(("127.0.0.1", q.get("port") or port), timeout=30)
    except OSError as e:
        return [type(e).__name__, ""]
    key = own if q.get("key", "own") == "own" else q["key"]
    head = f"{q.get('method', 'GET')} {q['path']} HTTP/1.1\r\nHost: x\r\n" + (f"Authorization: Bearer {key}\r\n" if key else "")
    body = b"x" * q.get("body", 0)
    length = q.get("length", len(body) if q.get("method") == "POST" else None)
    head += (f"Content-Length: {length}\r\n" if length is not None else "") + q.get("more", "") + "\r\n"
    try:
        s.sendall(head.encode() + body)
    except OSError:
        pass
    got = b""
    try:
        while True:
            piece = s.recv(1 << 20)
            if not piece:
                break
            got += piece
    except OSError as e:
        got += type(e).__name__.encode()
    status = got.split(b" ", 2)[1].decode() if got.startswith(b"HTTP/1.1 ") else got[:40].decode()
    body = got.split(b"\r\n\r\n", 1)[-1]
    return [int(status) if status.isdigit() else status, body.decode("utf-8", "replace") if len(body) < 300 else len(body)]
answers = [ask(q) for q in plan["ask"]]
if plan.get("hold"):
    port = int(url.split(":")[2].split("/")[0])
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
    for s in held:
        s.sendall(f"GET {plan['hold']} HTTP/1.1\r\nAuthorization: Bearer {own}\r\n\r\n".encode())
if plan.get("tell"):
    with open("key.new", "w") as f:
        f.write(own + "\n" + url)
    os.chmod("key.new", 0o644)
    os.rename("key.new", "key-" + plan["tell"])
    while not os.path.exists("go"):
        import time; time.sleep(0.05)
print(json.dumps({"answers": answers, "lines": len(open("/proc/net/dev").readlines()), "key": own}))
'''


COUNT = "import sys; d = sys.stdin.buffer.read(); print(len(d), d.count(b'x'))"


def step(level, plan, with_input=False, **more):
    return {"run": {"argv": ["python3", "-c", CODE], "stdin": json.dumps(plan), "sandbox": level, "output": "json",
                    "env": {"INPUT": "${{ inputs.x }}"} if with_input else {}}, "requires": f"name == {WORKER}", **more}


def try_all(level, asks, **inputs):
    """What a step at this level is answered; `inputs` are what its own input refers to."""
    return output(submit({"s": step(level, {"ask": asks}, with_input=bool(inputs))}, **inputs))


class Victim:
    """A step that has told us its key and where it asks, and waits."""

    def __init__(self, level, blob, who="alpha", hold=None):
        self.name, self.who = f"{level}-{os.urandom(4).hex()}", who
        self.task = submit({"s": step(level, {"ask": [], "tell": self.name, "hold": hold}, with_input=True)}, who, x=blob)
        self.key, self.url = self.told()

    def told(self):
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end:
            for path in glob.glob(f"{FOLDER}/{WORKER}.dir/**/key-{self.name}", recursive=True):
                self.dir = os.path.dirname(path)
                return open(path, encoding="ascii").read().split("\n")
            time.sleep(0.05)
        raise TimeoutError("a step has not told its key: " + str(http("GET", f"/api/v1/tasks/{self.task}", self.who)))

    def end(self):
        open(self.dir + "/go", "w").close()
        return ended(self.task, self.who)

    def kill(self):
        http("POST", f"/api/v1/tasks/{self.task}:cancel", self.who, {})
        return ended(self.task, self.who)


def ask_host(url, key, path):
    """From the host: the status, or what went wrong."""
    try:
        s = socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0])), timeout=30)
        s.sendall(f"GET {path} HTTP/1.1\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
        got = s.recv(100)
        return int(got.split(b" ")[1]) if got else "closed"
    except OSError as e:
        return type(e).__name__


# ---- steps ----

def path(blob):
    return "/blobs/" + blob["$blob"]


def own_and_others(level, mine, others, of_beta):
    hexa = mine["$blob"][7:]
    tricks = [f"/blobs/{hexa}", f"/blobs/sha256:{hexa}/", f"/blobs/../blobs/sha256:{hexa}", f"/blobs//sha256:{hexa}",
              f"/blobs/sha256%3a{hexa}", f"/blobs/sha256:../../{hexa}", f"/blobs/sha256:{hexa}%00", "/etc/passwd", "/blobs/../../etc/passwd"]
    asks = [{"path": path(mine)}, {"path": path(others)}, {"path": path(of_beta)}, {"path": "/blobs/sha256:" + "0" * 64}]
    asks += [{"path": path(mine), "key": key} for key in (None, "COXKEY-" + "0" * 48, "x")] + [{"path": trick} for trick in tricks]
    found = try_all(level, asks, x=mine)
    answers = found["answers"]
    report(f"{level}: a step reads the blob of its input", [200, LARGE], answers[0])
    report(f"{level}: that of another task, of another tenant and none are alike", [answers[3]] * 2, answers[1:3])
    report(f"{level}: and are not found", 404, answers[3][0])
    report(f"{level}: no key and guessed ones are refused alike", [[401, answers[4][1]]] * 3, answers[4:7])
    report(f"{level}: tricks with paths lead nowhere", [404] * len(tricks), [a[0] for a in answers[7:]])
    report(f"{level}: the key is kept out of the output", "***", found["key"])
    task = submit({"s": {"run": {"argv": ["sh", "-c", "env; env >&2; exit 3"], "sandbox": level}, "requires": f"name == {WORKER}"}})
    told = json.dumps(ended(task)) + http("GET", f"/api/v1/tasks/{task}/logs?step=s", raw=True).decode()
    report(f"{level}: and out of errors and logs", (True, False), ("COX_ATTEMPT_KEY=***" in told, "COXKEY-" in told))
    if level == "strict":
        report("strict: and there was no network but the loopback", 3, found["lines"])


def bodies(level):
    asks = [{"path": "/blobs", "method": "POST", "length": (1 << 30) + 1}, {"path": "/blobs", "method": "POST", "length": 900 << 20},
            {"path": "/blobs", "method": "POST", "length": None, "more": "Transfer-Encoding: chunked\r\n"},
            {"path": "/blobs", "more": "X: " + "x" * 100000 + "\r\n"},
            {"path": "/blobs", "method": "POST", "length": "1\r\nContent-Length: 2"}, {"path": "/blobs", "method": "POST", "body": 5}]
    answers = output(submit({"s": step(level, {"ask": asks}, resources={"disk": "64Mi"})}))["answers"]
    report(f"{level}: bodies and heads that are too large, and such without a length, are refused", [413, 507, 411, 431, 400, 201],
           [a[0] for a in answers])


def stores(level):
    """A value that is too large for an output goes from step to step."""
    first = step(level, {"ask": [{"path": "/blobs", "method": "POST", "body": LARGE}]})
    first["run"]["argv"][2] = CODE.replace('{"answers": answers', '{"file": json.loads(answers[0][1]), "answers": answers')
    task = submit({"make": first, "s": {"run": {"argv": ["python3", "-c", COUNT], "sandbox": level,
                                               "stdin": "${{ steps.make.output.file }}"},
                                       "needs": ["make"], "requires": f"name == {WORKER}"}})
    found = output(task)["stdout"].split()
    report(f"{level}: what a step stores, another reads", [str(LARGE)] * 2, found)
    name = http("GET", f"/api/v1/tasks/{task}/steps/make/output")["file"]["$blob"]
    report(f"{level}: and so does who may read the task", LARGE, len(http("GET", "/api/v1/blobs/" + name, raw=True)))


def victims(level, mine, others):
    victim, other = Victim(level, mine), Victim("none", others)
    if level == "strict":
        report("strict: its key is worth nothing on the host", 401, ask_host(other.url, victim.key, path(mine)))
        report("strict: where it asks, nobody listens on the host", "ConnectionRefusedError", ask_host(victim.url, victim.key, path(mine)))
    else:
        report(f"{level}: who has the key of a step has its blobs, as it has", 200, ask_host(victim.url, victim.key, path(mine)))
        report(f"{level}: and nothing else", 404, ask_host(victim.url, victim.key, path(others)))
    # another step has learnt both keys, and tries them where it can
    port = int(other.url.split(":")[2].split("/")[0])
    asks = [{"path": path(mine), "key": victim.key}, {"path": path(others), "key": other.key}, {"path": path(others), "key": other.key, "port": port}]
    answers = [a[0] for a in try_all(level, asks)["answers"]]
    report(f"{level}: keys of other steps", {"strict": [401, 401, "ConnectionRefusedError"]}.get(level, [200, 200, 200]), answers)
    victim.end()
    report(f"{level}: the key dies with its attempt", {"strict": 401}.get(level, 401), ask_host(other.url, victim.key, path(mine)))
    other.kill()
    report(f"{level}: also when that is killed", 401, ask_host(other.url, other.key, path(others)))


def slow_readers(level, mine):
    victim = Victim(level, mine, hold=path(mine))
    found = try_all(level, [{"path": path(mine)}], x=mine)
    report(f"{level}: readers that do not read hold up nobody else", [200, LARGE], found["answers"][0])
    report(f"{level}: and go with their step", "SUCCEEDED", victim.end()["status"])


def attack_by_steps(levels):
    mine, others = store(os.urandom(LARGE)), store(os.urandom(20))
    of_beta = store(b"beta's secret " * 9, "beta")
    beta = submit({"s": {"run": {"argv": ["cat"], "stdin": "${{ inputs.x }}"}, "requires": f"name == {WORKER}"}}, "beta", x=of_beta)
    output(beta, who="beta")  # it is in the worker's cache
    for level in levels:
        own_and_others(level, mine, others, of_beta)
        stores(level)
        victims(level, mine, others)
    bodies(levels[-1])
    slow_readers(levels[-1], mine)


def programs():
    """A program has a key a call, also one that is kept warm."""
    found = [output(submit({"s": {"uses": "keep@1", "with": {"n": LARGE}, "requires": f"name == {WORKER}"}})) for _ in range(2)]
    sizes = [len(http("GET", "/api/v1/blobs/" + f["file"]["$blob"], raw=True)) for f in found]
    report(f"programs of {WORKER}: what they store is there", [LARGE] * 2, sizes)
    before = [f["before"].split(":")[:2] for f in found]
    if WORKER == "main":
        report("programs: the key of the call before is dead", [["there was none"], ["cox.store", " 401"]], before)
    else:
        report("programs in a sandbox: no process has seen another call", [["there was none"]] * 2, before)


# ---- workers ----

class FakeWorker:
    """A stream that says Hello and takes one attempt."""

    def __init__(self, name, label):
        self.out = queue.Queue()
        attach = CHANNEL.stream_stream("/coxswain.v1.WorkerService/Attach", workers.AttachRequest.SerializeToString,
                                       workers.AttachResponse.FromString)
        self.stream = attach(iter(self.out.get, None), metadata=AS_WORKER)
        hello = workers.Hello(worker_id=name, boot_id=os.urandom(8).hex(), slots=1, handlers=["run"], version="test", labels={"name": label})
        self.out.put(workers.AttachRequest(hello=hello, credit=workers.Credit(granted=1)))
        self.key = next(self.stream).welcome.session_key

    def take(self):
        for m in self.stream:
            if m.assigns:
                self.attempt = m.assigns[0]
                return self
        raise RuntimeError("the stream has ended")

    def said(self, key=None, tenant="alpha", **change):
        ref = self.attempt.ref
        n = {"task": ref.task, "step": ref.step, "epoch": ref.token.epoch, "counter": ref.token.counter, **change}
        return [("cox-attempt", f"{n['task']}/{n['step']}/{n['epoch']}/{n['counter']}"), ("cox-session", self.key if key is None else key),
                ("cox-tenant", tenant)]

    def report(self):
        self.out.put(workers.AttachRequest(results=[workers.Result(ref=self.attempt.ref, status=3, output_json=b"1")]))
        for m in self.stream:
            if m.answers:
                return

    def end(self):
        self.out.put(None)


def read(blob, metadata):
    get = CHANNEL.unary_stream("/coxswain.v1.BlobService/GetBlob", blobs.GetBlobRequest.SerializeToString, blobs.GetBlobResponse.FromString)
    try:
        return sum(len(m.data) for m in get(blobs.GetBlobRequest(hash=blob["$blob"]), metadata=AS_WORKER + metadata, timeout=LIMIT_S))
    except grpc.RpcError as e:
        return e.code().name


def write(data, metadata):
    put = CHANNEL.stream_unary("/coxswain.v1.BlobService/PutBlob", blobs.PutBlobRequest.SerializeToString, blobs.PutBlobResponse.FromString)
    first = blobs.PutBlobRequest(hash="sha256:" + hashlib.sha256(data).hexdigest(), size=len(data), data=data)
    try:
        put(iter([first]), metadata=AS_WORKER + metadata, timeout=LIMIT_S)
        return "stored"
    except grpc.RpcError as e:
        return e.code().name


def call_model(metadata):
    """As a worker does for a process; there are no models here, so what is let in is told so: 404."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]}).encode()
    request = urllib.request.Request(f"http://{HTTP}/v1/chat/completions", body,
                                     {"Content-Type": "application/json", **dict(AS_WORKER + metadata)})
    try:
        return urllib.request.urlopen(request, timeout=LIMIT_S).status
    except urllib.error.HTTPError as e:
        return [e.code, json.load(e)["error"]["code"]]


def attach_says(*messages):
    """What ends a stream on which a worker says all this."""
    attach = CHANNEL.stream_stream("/coxswain.v1.WorkerService/Attach", workers.AttachRequest.SerializeToString,
                                   workers.AttachResponse.FromString)
    try:
        for _ in attach(iter(messages), metadata=AS_WORKER, timeout=LIMIT_S):
            pass
        return "nothing"
    except grpc.RpcError as e:
        return [e.code().name, e.details()]


def play_the_router(ref):
    """What only the orchestrator's own router may say."""
    def hello(name, handler):
        return workers.AttachRequest(hello=workers.Hello(worker_id=name, boot_id=os.urandom(8).hex(), slots=1, handlers=[handler]))
    spend = workers.AttachRequest(spends=[workers.Spend(ref=ref)])
    report("a worker cannot offer models", ["INVALID_ARGUMENT", "hello.handlers: \"model\" is offered by the orchestrator's router alone"],
           attach_says(hello("fake-d", "model")))
    report("a worker cannot spend for an attempt", ["INVALID_ARGUMENT", "spends: are the orchestrator's router's to report"],
           attach_says(hello("fake-d", "run"), spend))


def attack_by_workers():
    mine, of_beta = store(b"alpha's own " * 9), store(b"beta's secret " * 10, "beta")
    tasks = {who: submit({"s": {"run": {"argv": ["true"]}, "requires": f"name == fake-{who}"}}, who) for who in ("alpha", "beta")}
    a, b, idle = FakeWorker("fake-a", "fake-alpha").take(), FakeWorker("fake-b", "fake-beta").take(), FakeWorker("fake-c", "nobody")
    report("a worker reads and writes for the attempt that it holds", [len(b"alpha's own " * 9), "stored"],
           [read(mine, a.said()), write(os.urandom(9), a.said())])
    wrong = {
        "without naming an attempt": ("FAILED_PRECONDITION", []),
        "without naming an attempt, but its tenant": ("FAILED_PRECONDITION", [("cox-tenant", "alpha")]),
        "for an attempt that another worker holds": ("ABORTED", a.said(key=b.key)),
        "for one, from a worker that holds none": ("ABORTED", a.said(key=idle.key)),
        "with a guessed key": ("ABORTED", a.said(key="0" * 32)),
        "without its stream's key": ("ABORTED", a.said(key="")),
        "for an attempt that nobody has": ("ABORTED", a.said(counter=a.attempt.ref.token.counter + 1000)),
        "for one of an earlier start": ("ABORTED", a.said(epoch=a.attempt.ref.token.epoch + 1)),
        "for another step": ("ABORTED", a.said(step=a.attempt.ref.step + 1)),
        "for another task": ("ABORTED", a.said(task=b.attempt.ref.task)),
        "in words": ("INVALID_ARGUMENT", [("cox-attempt", "1/2/3/x"), ("cox-session", a.key), ("cox-tenant", "alpha")]),
    }
    for name, (expected, metadata) in wrong.items():
        report("blobs " + name + " are refused", [expected] * 2, [read(mine, metadata), write(os.urandom(9), metadata)])
    report("a worker calls models for the attempt that it holds", [404, "model_not_found"], call_model(a.said()))
    for name, (expected, metadata) in wrong.items():
        if expected != "FAILED_PRECONDITION":
            report("model calls " + name + " are refused",
                   [401, "invalid_api_key"] if expected == "ABORTED" else [400, "bad_attempt"], call_model(metadata))
    report("nor of another tenant", [401, "invalid_api_key"], call_model(a.said(tenant="beta")))
    report("nor does an attempt of one tenant open the space of another", ["ABORTED"] * 2,
           [read(of_beta, a.said(tenant="beta")), write(os.urandom(9), a.said(tenant="beta"))])
    report("nor is what lies there found in its own", "NOT_FOUND", read(of_beta, a.said()))
    play_the_router(a.attempt.ref)
    a.report()
    report("an attempt that has ended calls no model", [401, "invalid_api_key"], call_model(a.said()))
    report("an attempt that has ended opens nothing", ["ABORTED"] * 2, [read(mine, a.said()), write(os.urandom(9), a.said())])
    gone = b.said(tenant="beta")
    report("one that goes on does", len(b"beta's secret " * 10), read(of_beta, gone))
    b.end()
    end = time.monotonic() + LIMIT_S
    while read(of_beta, gone) != "ABORTED" and time.monotonic() < end:
        time.sleep(0.05)
    report("a stream that is gone holds nothing", "ABORTED", read(of_beta, gone))
    idle.end()
    for who, task in tasks.items():
        if who == "beta":
            http("POST", f"/api/v1/tasks/{task}:cancel", who, {})


if WORKER == "thieves":
    CHANNEL = grpc.insecure_channel(GRPC)
    AS_WORKER = [("authorization", "Bearer " + token("worker"))]
    attack_by_workers()
elif sys.argv[5:] == ["programs"]:
    programs()
else:
    attack_by_steps(sys.argv[5:])
print("the end")
sys.exit(1 if FAILED else 0)

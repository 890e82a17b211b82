#!/usr/bin/env python3
"""Asks every route of a coxd's HTTP side, well and wrongly. Prints "ok NAME", "not ok NAME" or "skip NAME WHY" lines.

usage: http_edge.py HOST:PORT [PROTOSET]
"""
import gzip
import hashlib
import http.client
import json
import os
import re
import resource
import socket
import struct
import sys
import time

HOST = sys.argv[1]
PATIENCE_S = 20
failed = 0
asked = set()  # (verb, path of /openapi.json, went well)

ONE = {"api_version": "v1", "name": "one", "labels": {"suite": "http"},
       "steps": {"a": {"run": {"argv": ["printf", "hello"]}}}, "outputs": {"text": "${{ steps.a.output.stdout }}"}}
FAILS = {"api_version": "v1", "name": "fails", "steps": {"a": {"run": {"argv": ["false"]}}}}
LONG = {"api_version": "v1", "name": "long", "steps": {"a": {"run": {"argv": ["sleep", "60"]}}}}
ASKS = {"api_version": "v1", "name": "asks", "steps": {"a": {"approval": {"prompt": "go on?"}}}}
# it waits for a program that nobody offers
AGENT = {"api_version": "v1", "name": "agent", "steps": {"a": {"agent": {"input": "x", "tools": [{"uses": "nobody@1"}]}}}}
SIGNALLED = {"api_version": "v1", "name": "signalled", "steps": {"a": {"wait": {"signal": "go"}}}}
TEMPLATE = {"api_version": "v1", "kind": "template", "name": "kept", "version": 1,
            "steps": {"a": {"run": {"argv": ["true"]}}}}
SCHEDULE = {"api_version": "v1", "kind": "schedule", "name": "nightly", "schedule": {"cron": "0 3 * * *"},
            "steps": {"a": {"run": {"argv": ["true"]}}}}


def report(name, ok, seen=""):
    global failed
    failed += not ok
    if not ok:
        print(f"{name}: {str(seen)[:2000]}")
    print(f"{'ok' if ok else 'not ok'} {name}", flush=True)


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = {k.lower(): v for k, v in response.getheaders()}
        self.raw = response.read()
        packed = self.headers.get("content-encoding") == "gzip"
        self.body = gzip.decompress(self.raw) if packed and self.raw else self.raw
        self.json = None
        if self.headers.get("content-type", "").startswith("application/json") and self.body:
            self.json = json.loads(self.body)

    @property
    def error(self):
        return (self.json or {}).get("error", {}) if isinstance(self.json, dict) else {}

    def __str__(self):
        return f"{self.status} {self.headers} {self.body[:600]!r}"


def ask(verb, path, body=None, headers=None):
    """One request on a connection of its own. A body that is no bytes is sent as JSON."""
    headers = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        headers.setdefault("Content-Type", "application/json")
    connection = http.client.HTTPConnection(HOST, timeout=PATIENCE_S)
    try:
        connection.request(verb, path, body=body, headers=headers)
        return Answer(connection.getresponse())
    finally:
        connection.close()


long_tasks = []  # what holds slots until it is cancelled


def submit(document):
    a = ask("POST", "/api/v1/tasks", document)
    if a.status != 200:
        return None
    if document is LONG:
        long_tasks.append(a.json["id"])
    return a.json["id"]


def free_slots():
    while long_tasks:
        ask("POST", f"/api/v1/tasks/{long_tasks.pop()}:cancel")


def submit_ended(document):
    task = submit(document)
    return task and ask("GET", f"/api/v1/tasks/{task}?wait=20s").json["task"]["id"]


def await_status(task, status):
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if ask("GET", f"/api/v1/tasks/{task}").json["task"]["status"] == status:
            return True
        time.sleep(0.05)
    return False


def check_error(a, status, code):
    e = a.error
    return (a.status == status and e.get("status") == status and e.get("code") == code and bool(e.get("message")) and
            set(e) == {"code", "status", "message", "reason", "retry_delay_ms", "violations"})


def ask_ended(verb, *request):
    """A task's status is final a moment before the archive has it, from which a retry begins: coxd says so, and to try again."""
    until = time.monotonic() + PATIENCE_S
    a = ask(verb, *request)
    while a.status == 400 and "just ending; try again" in a.error.get("message", "") and time.monotonic() < until:
        time.sleep(0.02)
        a = ask(verb, *request)
    return a


def route(verb, path, good, bad, check=None):
    """A route of /openapi.json: `good` and `bad` give (path, body, headers); `bad` also (status, code)."""
    name = f"{verb} {path}"
    request = good()
    a = ask_ended(verb, *request)
    asked.add((verb.lower(), path, True))
    if a.status == 501 and a.error.get("reason") == "NOT_SERVED":
        print(f"skip {name} its method is not served by this version")
    else:
        report(name, a.status == 200 and (check is None or check(a)), a)
    *request, status, code = bad
    a = ask(verb, *request)
    asked.add((verb.lower(), path, False))
    if a.status != 501 or code == "UNIMPLEMENTED":
        report(f"{name}, wrongly", check_error(a, status, code), a)
    free_slots()


def same(*request):
    return lambda: request


def on(document, tail, body=None, ended=False):
    """A request to a new task."""
    def make():
        task = submit_ended(document) if ended else submit(document)
        return (f"/api/v1/tasks/{task}{tail}", body, None)
    return make


def test_routes():
    task = "/api/v1/tasks/{id}"
    none = "/api/v1/tasks/t0-zzzzzz"
    missing = (404, "NOT_FOUND")
    invalid = (400, "INVALID_ARGUMENT")
    report("a worker runs what is submitted", submit_ended(ONE) is not None)
    route("GET", "/api/v1/tasks", same("/api/v1/tasks?label=suite=http&status=SUCCEEDED"),
          ("/api/v1/tasks?status=DONE", None, None, *invalid),
          lambda a: a.json["tasks"] and a.json["tasks"][0]["labels"] == {"suite": "http"})
    route("POST", "/api/v1/tasks", same("/api/v1/tasks", {"document": ONE, "labels": {"a": "b"}}),
          ("/api/v1/tasks", {"api_version": "v1", "name": "x", "steps": {"a": {"run": {"argv": "x"}}}}, None, *invalid),
          lambda a: a.json["id"] and a.json["existed"] is False)
    route("POST", "/api/v1/tasks:batch", same("/api/v1/tasks:batch", {"tasks": [{"document": ONE}, {"document": {}}]}),
          ("/api/v1/tasks:batch", {"tasks": 1}, None, *invalid),
          lambda a: [r["code"] for r in a.json["results"]] == [0, 3])
    route("GET", "/api/v1/tasks:batch", lambda: (f"/api/v1/tasks:batch?id={submit(ONE)}&id={submit(ONE)}&wait=20s",),
          ("/api/v1/tasks:batch?wait=x", None, None, *invalid),
          lambda a: [t["status"] for t in a.json["tasks"]] == ["SUCCEEDED"] * 2)
    route("GET", task, on(ONE, "?wait=20s"), (none, None, None, *missing),
          lambda a: a.json["task"]["status"] == "SUCCEEDED" and a.json["task"]["outputs"] == {"text": "hello"})
    route("DELETE", task, on(ONE, "", None, True), (none, None, None, *missing))
    route("POST", task + ":cancel", on(LONG, ":cancel", {"reason": "enough"}), (none + ":cancel", None, None, *missing),
          lambda a: a.json["status"] in ("CANCELLED", "RUNNING", "PENDING"))
    route("POST", task + ":pause", on(LONG, ":pause"), (none + ":pause", None, None, *missing))

    def paused():
        t = submit(LONG)
        ask("POST", f"/api/v1/tasks/{t}:pause")
        return (f"/api/v1/tasks/{t}:resume",)
    route("POST", task + ":resume", paused, (none + ":resume", None, None, *missing))
    route("POST", task + ":retry", on(FAILS, ":retry", None, True), (none + ":retry", None, None, *missing))
    route("POST", task + ":fork", on(ONE, ":fork", {"at": "a"}, True), (none + ":fork", {"at": 1}, None, *invalid),
          lambda a: bool(a.json["id"]))

    def asking(verb):
        def make():
            t = submit(ASKS)
            await_status(t, "WAITING")
            return (f"/api/v1/tasks/{t}:{verb}", {"step": "a", "comment": "fine"})
        return make
    route("POST", task + ":approve", asking("approve"), (none + ":approve", {"step": "a"}, None, *missing))
    route("POST", task + ":reject", asking("reject"), (none + ":reject", {"approve": True}, None, *invalid))
    route("POST", task + ":signal", on(SIGNALLED, ":signal", {"name": "go", "payload": {"n": 1}}),
          (none + ":signal", {"name": "go"}, None, *missing))

    def agent_begun():
        t = submit(AGENT)
        until = time.monotonic() + 30
        while ask("GET", f"/api/v1/tasks/{t}/steps/a").json["steps"][0]["status"] != "WAITING" and time.monotonic() < until:
            time.sleep(0.05)
        return (f"/api/v1/tasks/{t}:message", {"step": "a", "text": "hi"})
    route("POST", task + ":message", agent_begun, (none + ":message", {"txt": "hi"}, None, *invalid))
    route("POST", task + ":token", on(ONE, ":token", {"expires_in": "60s"}, True),
          (none + ":token", {}, None, *missing), lambda a: a.json["token"].startswith("coxt_"))
    route("GET", task + ":explain", on(LONG, ":explain"), (none + ":explain", None, None, *missing),
          lambda a: bool(a.json["summary"]))
    route("GET", task + "/events", on(ONE, "/events"), (none + "/events", None, None, *missing),
          lambda a: b"event: task" in a.body and a.body.endswith(b"id: end\nevent: end\ndata: {}\n\n"))
    route("GET", task + "/output", on(ONE, "/output", None, True), (none + "/output", None, None, *missing),
          lambda a: a.json == {"text": "hello"})
    route("GET", task + "/logs", on(ONE, "/logs?step=a&follow", None, True), (none + "/logs?step=a", None, None, *missing),
          lambda a: a.body == b"hello" and a.headers["content-type"].startswith("text/plain"))
    route("GET", task + "/steps", on(ONE, "/steps", None, True), (none + "/steps", None, None, *missing),
          lambda a: [s["status"] for s in a.json["steps"]] == ["SUCCEEDED"])
    route("GET", task + "/steps/{step}", on(ONE, "/steps/a", None, True), (none + "/steps/a", None, None, *missing),
          lambda a: a.json["steps"][0]["output"]["exit_code"] == 0)
    route("GET", task + "/steps/{step}:explain", on(LONG, "/steps/a:explain"),
          (none + "/steps/a:explain", None, None, *missing), lambda a: bool(a.json["summary"]))
    route("GET", task + "/steps/{step}/output", on(ONE, "/steps/a/output", None, True),
          (none + "/steps/a/output", None, None, *missing), lambda a: a.json["stdout"] == "hello")
    route("GET", task + "/steps/{step}/logs", on(ONE, "/steps/a/logs", None, True),
          (none + "/steps/a/logs", None, None, *missing), lambda a: a.body == b"hello")
    blob = os.urandom(300000)
    digest = "sha256:" + hashlib.sha256(blob).hexdigest()
    route("PUT", "/api/v1/blobs/{hash}", same(f"/api/v1/blobs/{digest}", blob),
          ("/api/v1/blobs/sha256:" + "0" * 64, b"x", None, *invalid), lambda a: "existed" in a.json)
    route("GET", "/api/v1/blobs/{hash}", same(f"/api/v1/blobs/{digest}?offset=100000"),
          ("/api/v1/blobs/sha256:" + "0" * 64, None, None, *missing), lambda a: a.body == blob[100000:])
    route("POST", "/api/v1/templates", same("/api/v1/templates", TEMPLATE),
          ("/api/v1/templates", {"api_version": "v1"}, None, *invalid), lambda a: a.json["template"]["name"] == "kept")
    route("GET", "/api/v1/templates", same("/api/v1/templates"), ("/api/v1/templates?page_size=-1", None, None, *invalid),
          lambda a: [t["name"] for t in a.json["templates"]] == ["kept"])
    route("GET", "/api/v1/templates/{ref}", same("/api/v1/templates/kept@1"),
          ("/api/v1/templates/none", None, None, *missing), lambda a: a.json["template"]["document"]["name"] == "kept")
    route("DELETE", "/api/v1/templates/{ref}", same("/api/v1/templates/kept@1"),
          ("/api/v1/templates/none@1", None, None, *missing))
    route("POST", "/api/v1/schedules", same("/api/v1/schedules", SCHEDULE),
          ("/api/v1/schedules", {"document": {"kind": "schedule"}}, None, *invalid),
          lambda a: a.json["schedule"]["next_run_at"])
    route("GET", "/api/v1/schedules", same("/api/v1/schedules"), ("/api/v1/schedules?x=1", None, None, *invalid),
          lambda a: [s["name"] for s in a.json["schedules"]] == ["nightly"])
    route("GET", "/api/v1/schedules/{name}", same("/api/v1/schedules/nightly"),
          ("/api/v1/schedules/none", None, None, *missing), lambda a: a.json["schedule"]["name"] == "nightly")
    route("DELETE", "/api/v1/schedules/{name}", same("/api/v1/schedules/nightly"),
          ("/api/v1/schedules/none", None, None, *missing))
    route("GET", "/api/v1/workers", same("/api/v1/workers"), ("/api/v1/workers?page_size=x", None, None, *invalid),
          lambda a: [w["id"] for w in a.json["workers"]] == ["w1"])
    route("GET", "/api/v1/workers/{id}", same("/api/v1/workers/w1"), ("/api/v1/workers/w2", None, None, *missing),
          lambda a: a.json["worker"]["slots"] == 4)
    route("POST", "/api/v1/workers/{id}:cordon", same("/api/v1/workers/w1:cordon"),
          ("/api/v1/workers/w1:cordon", {"uncordon": True}, None, *invalid))
    route("POST", "/api/v1/workers/{id}:uncordon", same("/api/v1/workers/w1:uncordon", {}),
          ("/api/v1/workers/w1:uncordon", [], None, *invalid))
    route("GET", "/api/v1/stats", same("/api/v1/stats?prefix=cox_tasks"), ("/api/v1/stats?p=1", None, None, *invalid),
          lambda a: any(s["name"] == "cox_tasks_finished_total" for s in a.json["samples"]))
    route("GET", "/api/v1/stats/history", same("/api/v1/stats/history?metric=cox_steps_finished_total&since=2026-01-01T00:00:00Z&step=10s"),
          ("/api/v1/stats/history?metric=cox_steps_finished_total&step=ten", None, None, *invalid),
          lambda a: isinstance(a.json["series"], list))
    route("GET", "/api/v1/models", same("/api/v1/models"), ("/api/v1/models?x=1", None, None, *invalid),
          lambda a: [m["name"] for m in a.json["models"]] == ["told"])
    route("GET", "/api/v1/models/{name}", same("/api/v1/models/told"), ("/api/v1/models/none", None, None, *missing),
          lambda a: a.json["model"]["name"] == "told")
    route("GET", "/api/v1/usage", same("/api/v1/usage"), ("/api/v1/usage?x=1", None, None, *invalid))
    route("GET", "/healthz", same("/healthz"), ("/healthz", b"x", None, *invalid), lambda a: a.body == b"ok\n")
    route("GET", "/readyz", same("/readyz"), ("/readyz", b"x", None, *invalid), lambda a: a.body == b"ok\n")
    route("GET", "/metrics", same("/metrics"), ("/metrics", b"x", None, *invalid),
          lambda a: b"# TYPE cox_tasks_finished_total counter" in a.body)
    route("GET", "/openapi.json", same("/openapi.json"), ("/openapi.json", b"x", None, *invalid),
          lambda a: a.json["openapi"] == "3.1.0")


def test_draining_worker():
    """Last: the worker leaves."""
    route("POST", "/api/v1/workers/{id}:drain", same("/api/v1/workers/w1:drain"),
          ("/api/v1/workers/w2:drain", None, None, 404, "NOT_FOUND"))


def test_all_routes_were_asked():
    api = ask("GET", "/openapi.json").json
    described = {(verb, path) for path, verbs in api["paths"].items() for verb in verbs}
    for well in (True, False):
        of = {(v, p) for v, p, w in asked if w == well}
        report(f"every route was asked {'well' if well else 'wrongly'}", of == described, sorted(of ^ described))


# ---- streams -----------------------------------------------------------------------------------------------------


class Raw:
    """A connection on which bytes are ours to choose."""

    def __init__(self, text=b"", receive_len=None):
        host, port = HOST.rsplit(":", 1)
        self.socket = socket.socket()
        if receive_len:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_len)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect((host, int(port)))
        self.data = b""
        self.send(text)

    def send(self, text):
        self.socket.sendall(text)

    def until(self, pattern):
        """Reads until the pattern is there; False when the connection ends before."""
        while not re.search(pattern, self.data, re.S):
            try:
                piece = self.socket.recv(65536)
            except OSError:
                return False
            if not piece:
                return False
            self.data += piece
        return True

    def rest(self):
        self.until(rb"(?!)")
        return self.data

    def close(self):
        self.socket.close()


def get(path, *headers):
    return (f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n" + "".join(h + "\r\n" for h in headers) + "\r\n").encode()


def test_events():
    task = submit({"api_version": "v1", "name": "two", "steps": {
        "a": {"run": {"argv": ["sleep", "0.3"]}}, "b": {"needs": ["a"], "run": {"argv": ["true"]}}}})
    a = ask("GET", f"/api/v1/tasks/{task}/events")
    events = [dict(line.split(": ", 1) for line in event.split("\n") if not line.startswith(":"))
              for event in a.body.decode().strip().split("\n\n")]
    kinds = [e["event"] for e in events]
    report("events tell of the task and its steps", kinds[0] == "task" and "step" in kinds and kinds[-1] == "end", kinds)
    ids = [int(e["id"]) for e in events if e.get("id", "end") != "end"]
    report("their ids rise", ids == sorted(ids) and len(ids) > 1, ids)
    last = json.loads([e for e in events if e["event"] == "task"][-1]["data"])
    report("the last tells how it ended", last["task"]["status"] == "SUCCEEDED" and last["step"] is None, last)
    a = ask("GET", f"/api/v1/tasks/{task}/events", headers={"Last-Event-ID": str(ids[0])})
    report("a resume goes on from there", b'"reset":true' in a.body and b"event: end" in a.body, a)
    a = ask("GET", f"/api/v1/tasks/{task}/events?after_seq=1", headers={"Last-Event-ID": str(ids[0])})
    report("and wins over where the stream began at first", a.status == 200 and b"event: end" in a.body, a)
    a = ask("GET", f"/api/v1/tasks/{task}/events", headers={"Last-Event-ID": "end"})
    report("after the end there is nothing to come back for", a.status == 204, a)
    a = ask("GET", f"/api/v1/tasks/{task}/events", headers={"Last-Event-ID": "x"})
    report("an id that is none is refused", check_error(a, 400, "INVALID_ARGUMENT"), a)
    a = ask("HEAD", f"/api/v1/tasks/{task}/events")
    report("HEAD of a stream ends at once", a.status == 200 and a.raw == b"", a)
    a = ask("GET", f"/api/v1/tasks/{submit(ONE)}/logs?step=a&follow", headers={"Accept": "text/event-stream"})
    report("logs come as events too", a.body.startswith(b"event: log\ndata: {") and b"aGVsbG8" in a.body, a)
    asked.add(("get", "/api/v1/stats/events", True))
    stats = Raw(get("/api/v1/stats/events?every=100ms"))
    report("statistics as events", stats.until(rb"event: stats.*event: stats") or b" 501 " in stats.data, stats.data)
    stats.close()
    a = ask("GET", "/api/v1/stats/events?every=x")
    asked.add(("get", "/api/v1/stats/events", False))
    report("statistics as events, wrongly", check_error(a, 400, "INVALID_ARGUMENT"), a)


def test_reader_that_leaves():
    """Its call is given up: the watch of a task that stays is gone, and others are served."""
    task = submit(LONG)
    readers = [Raw(get(f"/api/v1/tasks/{task}/events")) for _ in range(50)]
    report("fifty readers at once", all(r.until(rb"event: task") for r in readers))
    for r in readers[:25]:
        r.close()
    for r in readers[25:]:  # and these by a reset
        r.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        r.close()
    report("their leaving harms nobody", ask("POST", f"/api/v1/tasks/{task}:cancel").status == 200)


def test_slow_reader():
    """It takes nothing while a step prints a lot: the step is not slowed, others are served, memory stays."""
    task = submit({"api_version": "v1", "name": "loud", "steps": {
        "a": {"run": {"argv": ["sh", "-c", "head -c 20000000 /dev/zero | tr '\\0' x; sleep 1"]}}}})
    slow = Raw(get(f"/api/v1/tasks/{task}/logs?step=a&follow"), receive_len=4096)
    began = time.monotonic()
    a = ask("GET", f"/api/v1/tasks/{task}?wait=20s")
    report("a reader that takes nothing holds nobody", a.json["task"]["status"] == "SUCCEEDED" and
           time.monotonic() - began < 15, a)
    report("others are served meanwhile", ask("GET", "/healthz").status == 200)
    slow.close()


# ---- bounds and guards -------------------------------------------------------------------------------------------


def test_bodies():
    inflated = json.dumps({"document": ONE}).encode()
    json_type = {"Content-Type": "application/json"}
    a = ask("POST", "/api/v1/tasks", gzip.compress(inflated), {**json_type, "Content-Encoding": "gzip"})
    report("a gzip body", a.status == 200, a)
    bomb = gzip.compress(b" " * (17 << 20) + inflated)
    a = ask("POST", "/api/v1/tasks", bomb, {**json_type, "Content-Encoding": "gzip"})
    report("a gzip body that inflates beyond its bound", check_error(a, 413, "OUT_OF_RANGE"), a)
    a = ask("POST", "/api/v1/tasks", b"no gzip", {**json_type, "Content-Encoding": "gzip"})
    report("a body that is no gzip", check_error(a, 400, "INVALID_ARGUMENT"), a)
    a = ask("POST", "/api/v1/tasks", inflated, {**json_type, "Content-Encoding": "br"})
    report("another content coding", check_error(a, 415, "INVALID_ARGUMENT"), a)
    a = ask("POST", "/api/v1/tasks", inflated, {"Content-Type": "text/plain"})
    report("another content type", check_error(a, 415, "INVALID_ARGUMENT"), a)
    big = Raw(f"POST /api/v1/tasks HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
              f"Content-Length: {17 << 20}\r\n\r\n".encode())
    report("a body said to be too long is refused before it comes",
           big.until(rb"HTTP/1.1 413 .*Connection: close\r\n\r\n"), big.data)
    big.close()
    a = Raw((f"PUT /api/v1/blobs/sha256:{'0' * 64} HTTP/1.1\r\nHost: {HOST}\r\n"
             "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n").encode())
    report("a blob without a length", a.until(rb"HTTP/1.1 411 "), a.data)
    a.close()
    chunked = Raw((f"POST /api/v1/tasks HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
                   f"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n").encode())
    report("a body is asked for", chunked.until(rb"^HTTP/1.1 100 Continue\r\n\r\n"), chunked.data)
    chunked.send(b"".join(b"%x\r\n%s\r\n" % (len(inflated[i:i + 9]), inflated[i:i + 9])
                          for i in range(0, len(inflated), 9)) + b"0\r\n\r\n")
    report("and taken in chunks", chunked.until(rb'HTTP/1.1 200 OK.*"existed":false'), chunked.data)
    chunked.close()


def test_missing_blob_while_busy():
    """However long it takes to find out: what is not there is not begun as if it were."""
    body = json.dumps({"document": {**ONE, "inputs": {"text": {"type": "string", "default": "x" * 3900000}}}}).encode()
    head = (f"POST /api/v1/tasks HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode()
    busy = [Raw(head + body) for _ in range(12)]
    answers = [ask("GET", f"/api/v1/blobs/sha256:{'0' * 64}") for _ in range(5)]
    report("a blob that is not there, while much else is done", all(check_error(a, 404, "NOT_FOUND") for a in answers),
           answers)
    a = ask("GET", "/api/v1/tasks/t0-zzzzzz/logs?step=a")
    report("a log that is not there", check_error(a, 404, "NOT_FOUND"), a)
    for raw in busy:
        raw.until(rb"HTTP/1.1 .*}")
        raw.close()


def test_answers_nobody_takes():
    """Beyond a bound on all of them together no more are made, until their readers have left."""
    task = submit_ended({"api_version": "v1", "name": "large", "inputs": {"text": {"type": "string", "default": "x" * 3900000}},
                         "steps": {"a": {"run": {"argv": ["true"]}}}, "outputs": {"text": "${{ inputs.text }}"}})
    readers = [Raw(get(f"/api/v1/tasks/{task}/output"), receive_len=4096) for _ in range(75)]
    deadline = time.monotonic() + PATIENCE_S
    a = ask("GET", f"/api/v1/tasks/{task}/output")
    while a.status == 200 and time.monotonic() < deadline:
        time.sleep(0.1)
        a = ask("GET", f"/api/v1/tasks/{task}/output")
    report("answers that nobody takes are bounded", check_error(a, 429, "RESOURCE_EXHAUSTED"), a)
    a = ask("GET", "/api/v1/tasks?page_size=1")
    report("small ones are given all the same", a.status == 200, a)
    report("probes are answered all the same", ask("GET", "/readyz").status == 200)
    for r in readers:
        r.close()
    a = ask("GET", f"/api/v1/tasks/{task}/output")
    while a.status == 429 and time.monotonic() < deadline:
        time.sleep(0.1)
        a = ask("GET", f"/api/v1/tasks/{task}/output")
    report("and when the readers have left, there is room", a.status == 200, str(a)[:300])


def test_heads():
    cases = [
        ("GET / HTTP/1.1\r\n\r\n", 400), ("NONSENSE\r\n\r\n", 400), (f"GET / HTTP/3.0\r\nHost: {HOST}\r\n\r\n", 505),
        (f"GET /{'a' * 9000} HTTP/1.1\r\nHost: {HOST}\r\n\r\n", 414),
        (f"GET /healthz HTTP/1.1\r\nHost: {HOST}\r\nX: {'a' * 40000}\r\n\r\n", 431),
        (f"GET /healthz HTTP/1.1\r\nHost: {HOST}\r\n" + "A: b\r\n" * 101 + "\r\n", 431),
        (f"POST /api/v1/tasks HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (f"GET /api/v1/tasks?a=%zz HTTP/1.1\r\nHost: {HOST}\r\n\r\n", 400),
    ]
    for text, status in cases:
        raw = Raw(text.encode())
        raw.until(rb"\r\n\r\n.*}")
        report(f"{text[:30].strip()!r} is {status}", raw.data.startswith(b"HTTP/1.1 %d " % status), raw.data)
        raw.close()


def test_connections():
    raw = Raw(get("/healthz") + get("/readyz") + get("/healthz", "Connection: close"))
    data = raw.rest()
    report("requests one behind the other, then the end", data.count(b"HTTP/1.1 200 OK") == 3 and data.count(b"ok\n") == 3,
           data)
    raw = Raw(b"GET /healthz HTTP/1.0\r\n\r\n")
    report("HTTP/1.0", raw.rest().startswith(b"HTTP/1.1 200 OK") and b"Connection: close" in raw.data, raw.data)
    for i in range(2000):  # more than may be open at once
        Raw(b"GET /hea").close()
    report("connections that come and go", ask("GET", "/healthz").status == 200)
    idle = [Raw() for _ in range(1100)]
    report("the oldest idle ones give way", ask("GET", "/healthz").status == 200)
    for raw in idle:
        raw.close()
    test_full_of_readers()


def test_full_of_readers():
    """At the bound, but for one place: who idles in it, or says nothing, gives it to the next one."""
    task = submit({"api_version": "v1", "name": "watched", "steps": {"w": {"wait": {"signal": "go"}}}})
    readers = [Raw(get(f"/api/v1/tasks/{task}/events")) for _ in range(1023)]
    report("as many readers of events as there are connections, but for one", all(r.until(rb"200 OK.*event: task") for r in readers))
    last = [Raw(get("/healthz"))]
    report("the last place serves", last[0].until(rb"ok\n"), last[0].data)
    for what in ("the one who idles", "who idles again", "who says nothing"):
        raw = Raw(get("/healthz"))
        report(f"{what} gives it to the next", raw.until(rb"ok\n"), raw.data)
        last += [raw, Raw()] if what == "who idles again" else [raw]
    report("and readers go on", ask("POST", f"/api/v1/tasks/{task}:signal", {"name": "go"}).status == 200 and
           all(r.until(rb"event: end") for r in readers[:5] + readers[-5:]))
    for raw in readers + last:
        raw.close()



def test_guards():
    for host, status in ((HOST, 200), ("localhost:1", 200), ("a.localhost", 200), ("[::1]:7", 200),
                         ("coxswain.example:443", 200), ("evil.example", 403), ("127.0.0.1.evil.example", 403)):
        a = ask("GET", "/healthz", None, {"Host": host})
        report(f"Host: {host} is {status}", a.status == status, a)
    for origin, status in ((f"http://{HOST}", 200), ("https://ok.example", 200), ("https://evil.example", 403), ("null", 403)):
        a = ask("POST", "/api/v1/tasks", ONE, {"Origin": origin})
        cors = a.headers.get("access-control-allow-origin")
        report(f"Origin: {origin} is {status}", a.status == status and cors == ("https://ok.example" if "ok." in origin else None), a)
    a = ask("GET", "/healthz", None, {"Origin": "https://evil.example"})
    report("a page of elsewhere cannot read", a.status == 200 and "access-control-allow-origin" not in a.headers, a)
    a = ask("OPTIONS", "/api/v1/tasks", None, {"Origin": "https://ok.example", "Access-Control-Request-Method": "POST"})
    report("a preflight", a.status == 204 and "POST" in a.headers["access-control-allow-methods"] and
           a.headers["allow"] == "GET, HEAD, POST, OPTIONS", a)


def test_words():
    a = ask("GET", "/nothing")
    report("no route", check_error(a, 404, "NOT_FOUND") and a.error["reason"] == "NO_ROUTE", a)
    a = ask("PATCH", "/api/v1/tasks")
    report("no such method", check_error(a, 405, "UNIMPLEMENTED") and a.headers["allow"] == "GET, HEAD, POST, OPTIONS", a)
    a = ask("POST", "/api/v1/tasks", {"api_version": "v1", "name": "x", "steps": {"a": {"run": {"argv": 1}}}})
    v = a.error["violations"]
    report("violations of a document name their place", a.status == 400 and v and v[0]["field"].startswith("steps.a"), a)
    prompt = "".join(chr(0x4e00 + i) for i in range(400))
    task = submit({"api_version": "v1", "name": "asks", "steps": {
        name: {"approval": {"prompt": prompt[i:]}} for i, name in enumerate(("a", "bb", "ccc", "dddd"))}})
    await_status(task, "WAITING")
    a = ask("GET", f"/api/v1/tasks/{task}:explain")
    report("what is cut is not cut within a character", a.status == 200 and "waits for an approval" in a.body.decode() and
           "\ufffd" not in a.body.decode(), a)
    ask("POST", f"/api/v1/tasks/{task}:cancel")
    a = ask("HEAD", "/openapi.json")
    b = ask("GET", "/openapi.json")
    report("HEAD is GET without its body", a.status == 200 and a.raw == b"" and
           a.headers["content-length"] == str(len(b.raw)), a)
    a = ask("GET", "/openapi.json", None, {"Accept-Encoding": "gzip"})
    report("large answers are compressed", a.headers.get("content-encoding") == "gzip" and a.body == b.body, a.headers)
    a = ask("GET", "/healthz", None, {"Accept-Encoding": "gzip"})
    report("small ones are not", "content-encoding" not in a.headers, a)
    first, second = (ask("POST", "/api/v1/tasks", ONE, {"Idempotency-Key": "http-1"}) for _ in range(2))
    report("Idempotency-Key", first.json["id"] == second.json["id"] and second.json["existed"] is True, second)
    a = ask("POST", "/api/v1/tasks", {**ONE, "name": "other"}, {"Idempotency-Key": "http-1"})
    report("a key with another document", a.status in (400, 409) and a.error["reason"] != "", a)


def plain(value):
    """What the two ways to write JSON have in common: no nulls, 64-bit integers as numbers, no ".000" in times."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, str) and re.fullmatch(r"-?\d+", value):
        return int(value)
    return value[:-5] + "Z" if isinstance(value, str) and re.fullmatch(r".*T[0-9:]{8}\.000Z", value) else value


def test_json_as_protobuf_has_it(protoset):
    """Messages without enums and embedded JSON, whose words are ours, are written as protobuf's own code does."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
    except ImportError:
        print("skip JSON as protobuf has it: python3-protobuf is not installed")
        return
    pool = descriptor_pool.DescriptorPool()
    with open(protoset, "rb") as f:
        for file in descriptor_pb2.FileDescriptorSet.FromString(f.read()).file:
            pool.Add(file)
    task = submit_ended(ONE)
    for name, path in (("GetStatsResponse", "/api/v1/stats"),
                       ("GetHistoryResponse", "/api/v1/stats/history?metric=cox_tasks_finished_total&step=10s"),
                       ("ExplainResponse", f"/api/v1/tasks/{task}:explain"),
                       ("ListSchedulesResponse", "/api/v1/schedules")):
        a = ask("GET", path)
        kind = message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName("coxswain.v1." + name))
        message = json_format.Parse(a.body, kind())
        back = json_format.MessageToDict(message, including_default_value_fields=True,
                                         preserving_proto_field_name=True)
        ours = json.loads(a.body)
        report(f"{name} is the JSON that protobuf writes", plain(back) == plain(ours), (plain(back), plain(ours)))


def test_list_of_many_labels():
    """A page ends before it is too long for an answer."""
    labels = {f"name-{i}": "x" * 250 for i in range(60)}
    tasks = [{"document": {**ASKS, "name": "labelled"}, "labels": labels} for _ in range(400)]
    n = sum(len(ask("POST", "/api/v1/tasks:batch", {"tasks": tasks}).json["results"]) for _ in range(3))
    found, token = 0, ""
    while True:
        a = ask("GET", f"/api/v1/tasks?page_size=1000&label=name-1={labels['name-1']}&page_token={token}")
        if a.status != 200:
            break
        found += len(a.json["tasks"])
        token = a.json["next_page_token"]
        if not token:
            break
    report("a list of tasks with many labels", a.status == 200 and found == n == 1200, f"{found} of {n}, {str(a)[:500]}")


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # 1,100 connections; often 1,024 may be open
    test_routes()
    if len(sys.argv) > 2:
        test_json_as_protobuf_has_it(sys.argv[2])
    test_events()
    test_reader_that_leaves()
    test_slow_reader()
    test_bodies()
    test_missing_blob_while_busy()
    test_answers_nobody_takes()
    test_heads()
    test_connections()
    test_guards()
    test_words()
    test_list_of_many_labels()
    test_draining_worker()
    test_all_routes_were_asked()
    return 3 if failed else 0  # 1 is Python's own, for an exception


if __name__ == "__main__":
    sys.exit(main())

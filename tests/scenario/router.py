"""What the OpenAI edge says and does, looked at from both sides: the client's, and the servers' own counts.

usage: router.py HOST:PORT READY_FILE_OF_COX_MODELSIM
"""
import gzip
import http.client
import json
import resource
import select
import socket
import sys
import time

PATIENCE_S = 30
host, port = sys.argv[1].split(":")
ready = json.load(open(sys.argv[2], encoding="utf-8"))
admin = ready["admin"].removeprefix("http://")
failed = False
HELLO = [{"role": "user", "content": "hello"}]


def report(name, ok, seen=""):
    global failed
    if not ok:
        failed = True
        print(str(seen)[:600])
    print(("ok " if ok else "not ok ") + name)


def ask(method, path, body=None, headers=None, raw=None):
    c = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
    data = raw if raw is not None else json.dumps(body).encode() if body is not None else None
    c.request(method, path, data, {"Content-Type": "application/json", "Authorization": "Bearer anything", **(headers or {})})
    r = c.getresponse()
    return r, r.read()


def chat(headers=None, **body):
    return ask("POST", "/v1/chat/completions", {"model": "sim", "messages": HELLO, **body}, headers)


def sim(path):
    c = http.client.HTTPConnection(admin, timeout=PATIENCE_S)
    c.request("GET", path)
    return json.loads(c.getresponse().read())


def running():
    return sum(e["running"] + e["waiting"] for e in sim("/sim/state")["endpoints"])


def until(what, limit_s=PATIENCE_S):
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if what():
            return True
        select.select([], [], [], 0.01)
    return False


def is_error(r, body, status, code):
    e = json.loads(body)["error"]
    return r.status == status and set(e) == {"message", "type", "param", "code"} and e["code"] == code and bool(e["message"])


def test_answers():
    r, body = chat({"x-request-id": "mine-7", "x-session-id": "s"})
    a = json.loads(body)
    report("a chat completion", r.status == 200 and a["choices"][0]["message"]["content"], body)
    report("with the client's own request id", r.getheader("x-request-id") == "mine-7", r.headers)
    report("and who answered", r.getheader("x-cox-model") == "sim" and r.getheader("x-cox-endpoint"), r.headers)
    r, body = chat(stream=True, max_tokens=5)
    events = body.decode().split("\n\n")
    report("a stream ends with [DONE]", events[-2:] == ["data: [DONE]", ""], body)
    report("and has no usage that was not asked for", not any(json.loads(e[6:]).get("usage") for e in events[:-2]), body)
    r, body = chat(stream=True, max_tokens=5, stream_options={"include_usage": True})
    last = json.loads(body.decode().split("\n\n")[-3][6:])
    report("nor lacks one that was", last["usage"]["completion_tokens"] == 5 and last["choices"] == [], body)
    r, body = ask("POST", "/v1/completions", {"model": "sim", "prompt": "once", "max_tokens": 3})
    report("a text completion", r.status == 200 and json.loads(body)["choices"][0]["text"], body)
    r, body = ask("POST", "/v1/embeddings", {"model": "sim", "input": ["a", "b"], "dimensions": 4})
    report("embeddings", r.status == 200 and len(json.loads(body)["data"]) == 2, body)
    packed = gzip.compress(json.dumps({"model": "sim", "messages": HELLO}).encode())
    r, body = ask("POST", "/v1/chat/completions", raw=packed, headers={"Content-Encoding": "gzip"})
    report("a body that is compressed", r.status == 200, body)
    r, body = chat(tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}], unknown={"kept": [1]})
    report("tools, and fields that we do not know", r.status == 200 and "tool_calls" in json.loads(body)["choices"][0]["message"], body)


def test_models():
    r, body = ask("GET", "/v1/models")
    report("the models", [m["id"] for m in json.loads(body)["data"]] == ["sim"], body)
    r, body = ask("GET", "/v1/models/sim")
    report("one of them", json.loads(body)["object"] == "model", body)
    r, body = ask("GET", "/v1/models/none")
    report("and one that is not", is_error(r, body, 404, "model_not_found"), body)


def test_errors():
    r, body = ask("POST", "/v1/chat/completions", {"model": "none", "messages": HELLO})
    report("no such model", is_error(r, body, 404, "model_not_found"), body)
    r, body = ask("POST", "/v1/chat/completions", {"model": "sim"})
    report("no messages", is_error(r, body, 400, None) and json.loads(body)["error"]["param"] == "messages", body)
    r, body = ask("POST", "/v1/chat/completions", raw=b"{")
    report("no JSON", is_error(r, body, 400, None), body)
    r, body = ask("POST", "/v1/nowhere", {})
    report("no such path", is_error(r, body, 404, "no_route"), body)
    r, body = ask("GET", "/v1/chat/completions")
    report("another method", is_error(r, body, 405, "method_not_allowed") and "POST" in r.getheader("Allow"), body)
    r, body = ask("POST", "/v1/embeddings", raw=b"x", headers={"Content-Type": "text/plain"})
    report("another type", is_error(r, body, 415, "unsupported_media_type"), body)
    r, body = ask("POST", "/v1/chat/completions", raw=b"", headers={"Content-Length": str(17 << 20)})
    report("a body that is too large", is_error(r, body, 413, "body_too_large"), body)


def stream_of(tokens):
    body = json.dumps({"model": "sim", "stream": True, "max_tokens": tokens, "min_tokens": tokens, "messages": HELLO}).encode()
    s = socket.create_connection((host, int(port)), PATIENCE_S)
    s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
              b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return s


def test_hang_up():
    streams = [stream_of(100000) for _ in range(20)]
    for s in streams:
        s.recv(100)
    report("twenty streams run", until(lambda: running() == 20), sim("/sim/state"))
    for s in streams:
        s.close()
    report("clients that hang up leave nothing running", until(lambda: running() == 0), sim("/sim/state"))


def test_many_streams():
    """More than there are connections otherwise."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    streams = {}
    for n in range(1300):
        s = stream_of(30)
        streams[s.fileno()] = s, bytearray()
        if n % 100 == 99: # a crowd that has said nothing yet would be no calls, and the first of it would have to go
            s.recv(1, socket.MSG_PEEK) # (and those that have ended go by themselves: idle ones would be too many)
    whole, poll = 0, select.poll()
    for fd in streams:
        poll.register(fd, select.POLLIN)
    end = time.monotonic() + 2 * PATIENCE_S
    while streams and time.monotonic() < end:
        for fd, _ in poll.poll(1000):
            s, seen = streams[fd]
            piece = s.recv(65536)
            seen += piece
            if not piece or seen.endswith(b"0\r\n\r\n"):
                whole += b"data: [DONE]" in seen
                poll.unregister(fd)
                s.close()
                del streams[fd]
    report("1,300 streams at once, each whole", whole == 1300, whole)


for test in (test_answers, test_models, test_errors, test_hang_up, test_many_streams):
    test()
sys.exit(1 if failed else 0)

#!/usr/bin/env python3
"""Checks cox-modelsim over its sockets: modelsim.py READY_FILE. Prints ok and not ok lines, and at last: done."""
import base64
import http.client
import json
import socket
import struct
import sys
import time

READY = json.load(open(sys.argv[1]))
LIMIT_S = 60
TOOL = {"type": "function", "function": {"name": "look", "parameters": {
    "type": "object", "properties": {"path": {"type": "string"}, "depth": {"type": "integer"}}, "required": ["path"]}}}


def place(i):
    host, port = READY["endpoints"][i].split("/")[2].split(":")
    return host, int(port)


def ask(path, body=None, endpoint=0, headers=None):
    c = http.client.HTTPConnection(*place(endpoint), timeout=LIMIT_S)
    c.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers or {})
    r = c.getresponse()
    data = r.read()
    c.close()
    return r, data


def chat(text="hello", endpoint=0, **more):
    messages = more.pop("messages", [{"role": "user", "content": text}])
    r, data = ask("/v1/chat/completions", {"model": "m", "messages": messages, **more}, endpoint)
    return r, json.loads(data)


def stream(endpoint=0, **more):
    """The data of each event of an answer that comes to its end."""
    c = http.client.HTTPConnection(*place(endpoint), timeout=LIMIT_S)
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hello"}], **more}
    c.request("POST", "/v1/chat/completions", json.dumps(body))
    text = c.getresponse().read() # IncompleteRead, where it does not come to its end
    c.close()
    return [line[6:] for line in text.decode(errors="replace").split("\n") if line.startswith("data: ")]


def open_call(endpoint=0, n=1, **more):
    """Connections with a call under way, of which nothing has been read."""
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}], **more}).encode()
    conns = []
    for _ in range(n):
        s = socket.create_connection(place(endpoint), LIMIT_S)
        s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        conns.append(s)
    return conns


def state(endpoint=None):
    host, port = READY["admin"][7:].split(":")
    c = http.client.HTTPConnection(host, int(port), timeout=LIMIT_S)
    c.request("GET", "/sim/state")
    s = json.loads(c.getresponse().read())
    c.close()
    return s if endpoint is None else s["endpoints"][endpoint]


def faults(**what):
    host, port = READY["admin"][7:].split(":")
    c = http.client.HTTPConnection(host, int(port), timeout=LIMIT_S)
    c.request("POST", "/sim/faults", json.dumps({"reset": True, **what}))
    r = c.getresponse()
    r.read()
    c.close()
    return r.status


def until(what):
    end = time.monotonic() + LIMIT_S
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def check(name, cond, seen=None):
    if not cond:
        print("    ", seen)
    print("ok" if cond else "not ok", name, flush=True)


def answers():
    r, a = chat(max_tokens=12)
    check("the Server header says that it is a simulator", "simulator" in r.getheader("server"), r.getheader("server"))
    text, usage = a["choices"][0]["message"]["content"], a["usage"]
    check("max_tokens cuts, and four bytes are a token", len(text) == 48 and a["choices"][0]["finish_reason"] == "length" and
          usage["completion_tokens"] == 12 and usage["total_tokens"] == 12 + usage["prompt_tokens"], a)
    check("the same prompt has the same answer", chat(max_tokens=12)[1]["choices"][0]["message"]["content"] == text)
    events = stream(max_tokens=12, stream_options={"include_usage": True})
    parts = [json.loads(e) for e in events[:-1]]
    said = "".join(p["choices"][0]["delta"].get("content", "") for p in parts if p["choices"])
    check("a stream says the same, token by token", said == text and events[-1] == "[DONE]" and len(parts) == 15, events)
    check("and its usage at last", parts[-1]["usage"] == {**usage, "prompt_tokens_details": parts[-1]["usage"]["prompt_tokens_details"]}, parts[-1])
    check("without being asked it says none", not any('"usage"' in e for e in stream(max_tokens=2)))
    word = text.split()[2]
    cut = chat(max_tokens=12, stop=[word])[1]["choices"][0]
    check("it stops where it is told", cut["message"]["content"] == text[:text.index(word)] and cut["finish_reason"] == "stop", cut)
    check("n choices", [c["index"] for c in chat(n=3, max_tokens=2)[1]["choices"]] == [0, 1, 2])
    made = json.loads(chat(response_format={"type": "json_schema", "json_schema": {"schema": TOOL["function"]["parameters"]}})
                      [1]["choices"][0]["message"]["content"])
    check("JSON fits its schema", isinstance(made["path"], str) and isinstance(made["depth"], int), made)
    r, a = ask("/v1/completions", {"model": "m", "prompt": ["a", "b"], "max_tokens": 3})
    check("completions", [len(c["text"]) for c in json.loads(a)["choices"]] == [12, 12], a)
    r, a = ask("/v1/embeddings", {"model": "m", "input": ["a", "b"], "dimensions": 5})
    floats = [d["embedding"] for d in json.loads(a)["data"]]
    r, a = ask("/v1/embeddings", {"model": "m", "input": ["a", "b"], "dimensions": 5, "encoding_format": "base64"})
    packed = [list(struct.unpack("<5f", base64.b64decode(d["embedding"]))) for d in json.loads(a)["data"]]
    check("embeddings, as numbers and in base64", len(floats) == 2 and
          all(abs(x - y) < 1e-4 for f, p in zip(floats, packed) for x, y in zip(f, p)), (floats, packed))
    for what, body in {"no messages": {"model": "m"}, "no JSON": "x", "n 0": {"messages": [{"role": "user"}], "n": 0}}.items():
        r, a = ask("/v1/chat/completions", body)
        check("400 with OpenAI's error for " + what, r.status == 400 and "message" in json.loads(a)["error"], a)


def tools():
    a = chat(tools=[TOOL])[1]["choices"][0]
    call = a["message"]["tool_calls"][0]
    check("a tool is called", a["finish_reason"] == "tool_calls" and call["function"]["name"] == "look" and
          isinstance(json.loads(call["function"]["arguments"])["depth"], int) and call["id"].startswith("call_"), a)
    messages = [{"role": "user", "content": "hello"}, a["message"], {"role": "tool", "tool_call_id": call["id"], "content": "42"}]
    check("and its result answered with text", chat(messages=messages, tools=[TOOL])[1]["choices"][0]["finish_reason"] == "stop")
    deltas = [json.loads(e)["choices"][0]["delta"].get("tool_calls") for e in stream(tools=[TOOL])[:-1]]
    deltas = [d[0] for d in deltas if d]
    check("streamed the same", deltas[0]["id"] == call["id"] and
          "".join(d["function"]["arguments"] for d in deltas) == call["function"]["arguments"], deltas)
    faults(no_tool_ids=True, index_from_one=True)
    deltas = [json.loads(e)["choices"][0]["delta"].get("tool_calls") for e in stream(tools=[TOOL])[:-1]]
    deltas = [d[0] for d in deltas if d]
    check("ids can be missing, and indices begin at 1", all("id" not in d and d["index"] == 1 for d in deltas) and deltas, deltas)
    faults()


def script():
    a = chat("what about the weather today?")[1]
    call = a["choices"][0]["message"]["tool_calls"][0]
    check("a scripted tool call, with its usage", call["id"] == "call_w" and json.loads(call["function"]["arguments"]) ==
          {"city": "Oslo"} and a["usage"]["prompt_tokens"] == 11 and a["usage"]["prompt_tokens_details"]["cached_tokens"] == 7, a)
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}, {"role": "tool", "content": "rain"}]
    check("by role and turn", chat(messages=messages)[1]["choices"][0]["message"]["content"] == "It rains in Oslo.")
    r, a = ask("/v1/chat/completions", {"model": "bad-1", "messages": [{"role": "user", "content": "x"}]})
    check("a scripted error", r.status == 429 and r.getheader("retry-after") == "3" and
          json.loads(a)["error"]["code"] == "rate_limit_exceeded", a)
    said = [chat("once")[1]["choices"][0]["message"]["content"] for _ in range(2)]
    check("a rule is used up", said[0] == "only once" and said[1] != "only once", said)


def cache():
    messages = [{"role": "user", "content": "word " * 1000}]
    first = chat(messages=messages, endpoint=1)[1]
    check("nothing is cached at first", first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0, first["usage"])
    messages += [first["choices"][0]["message"], {"role": "user", "content": "and now?"}]
    second = chat(messages=messages, endpoint=1)[1]["usage"]
    before = first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"]
    cached = second["prompt_tokens_details"]["cached_tokens"]
    check("the next turn finds the prompt and the answer, in whole blocks", before - 32 <= cached <= before and cached % 16 == 0,
          (before, second))
    check("another endpoint has its own cache", chat(messages=messages)[1]["usage"]["prompt_tokens_details"]["cached_tokens"] == 0)
    r, text = ask("/metrics", endpoint=1)
    values = dict(line.rsplit(" ", 1) for line in text.decode().split("\n") if line and not line.startswith("#"))
    hits = [float(v) for k, v in values.items() if k.startswith("vllm:prefix_cache_hits_total{")]
    check("/metrics counts it under vLLM's names", hits == [float(cached)] and
          any(k.startswith("vllm:cache_config_info{") and 'num_gpu_blocks="' in k for k in values), values)


def breaks():
    faults(endpoint=0, kill=1, after_tokens=5)
    s, data, reset = open_call(max_tokens=40)[0], b"", False
    try:
        while piece := s.recv(65536):
            data += piece
    except ConnectionResetError:
        reset = True
    s.close()
    check("killed after 5 tokens", reset and data.count(b'"content":"') - data.count(b'"content":""') == 5, data)
    check("the other endpoint is not", stream(endpoint=1, max_tokens=4)[-1] == "[DONE]")
    faults(endpoint=0, half_close=1, after_tokens=3)
    s = open_call(max_tokens=40)[0]
    data = b""
    while piece := s.recv(65536):
        data += piece
    check("half closed after 3", b"[DONE]" not in data and data.count(b"data: ") == 4, data)
    s.close()
    faults(endpoint=0, garbage=1, after_tokens=2)
    events = stream(max_tokens=40)
    bad = 0
    for e in events:
        try:
            json.loads(e)
        except ValueError:
            bad += 1
    check("garbage after 2", bad >= 2 and "[DONE]" not in events, events)
    faults(endpoint=0, error_500=1)
    check("500", chat()[0].status == 500)
    faults(endpoint=0, error_429=1, retry_after_s=7)
    r = chat()[0]
    check("429 with Retry-After", r.status == 429 and r.getheader("retry-after") == "7")
    faults(endpoint=0, error_500=0.5)
    seen = {chat(max_tokens=1)[0].status for _ in range(60)}
    check("a rate of one half is neither never nor always", seen == {200, 500}, seen)
    faults(endpoint=0, refuse=True)
    try:
        socket.create_connection(place(0), LIMIT_S).close()
        refused = False
    except ConnectionRefusedError:
        refused = True
    faults()
    check("connections are refused, and then no more", refused and chat(max_tokens=1)[0].status == 200)
    texts = {}
    for kind in ("ok", "404", "garbage", "stale"):
        faults(endpoint=0, metrics=kind)
        r, data = ask("/metrics")
        chat(max_tokens=1)
        texts[kind] = r.status, data
    check("/metrics: 404 and garbage", texts["404"][0] == 404 and b"<html>" in texts["garbage"][1], texts)
    check("/metrics: stale", ask("/metrics")[1] == texts["stale"][1])
    faults()
    check("an unknown fault is refused", faults(kil=1) == 400)


def hangs():
    for kind, n_tokens in (("hang_first", 0), ("hang_after", 2)):
        faults(endpoint=0, **{kind: 1}, after_tokens=2)
        s = open_call(max_tokens=8)[0]
        s.settimeout(1)
        data = b""
        try:
            while piece := s.recv(65536):
                data += piece
        except socket.timeout:
            pass
        check(kind + ": so many tokens, and then nothing", data.count(b'"content":"') - data.count(b'"content":""') == n_tokens, data)
        check(kind + ": it is in flight", state(0)["in_flight"] == 1)
        s.close()
        check(kind + ": until the client goes", until(lambda: state(0)["in_flight"] == 0))
    faults()


def cancels():
    before = state(0)
    conns = open_call(n=200, max_tokens=2000, ignore_eos=True)
    check("200 calls are in flight, by its own count", until(lambda: state(0)["in_flight"] == 200), state(0))
    for s in conns:
        s.close()
    gone = time.monotonic_ns()
    check("all are cancelled when their clients go", until(lambda: state(0)["in_flight"] == 0) and
          state(0)["cancelled"] - before["cancelled"] == 200, state(0))
    now = state(0)
    check("and nothing of them runs, waits or holds blocks", now["running"] == now["waiting"] == now["kv_held"] == 0, now)
    check("the most that was in flight is kept", now["in_flight_max"] == 200 and state()["in_flight_max"] == 200)
    print("     last one seen %.1f ms after the last was closed" % ((now["last_cancel_ns"] - gone) / 1e6))
    c = http.client.HTTPConnection(*place(0), timeout=LIMIT_S)
    c.request("POST", "/v1/chat/completions", json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}],
                                                          "max_tokens": 1}), {"x-request-id": "find-me"})
    check("the request's id is answered", c.getresponse().getheader("x-request-id") == "find-me")
    at, found = 0, None
    while True:
        page = json.loads(ask("/sim/calls?after=%d" % at)[1])
        found = next((r for r in page["calls"] if r["request_id"] == "find-me"), found)
        if page["next"] == at:
            break
        at = page["next"]
    check("and remembered with the call", found and found["outcome"] == "answered" and
          found["begun_ns"] <= found["first_ns"] <= found["ended_ns"] and found["output_tokens"] == 1, found)


for part in (answers, tools, script, cache, breaks, hangs, cancels):
    part()
print("done")

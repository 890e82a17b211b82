#!/usr/bin/env python3
"""A model server for model-values.sh, and what that asks: model_values.py COMMAND ARG...

    serve FILE                   serves on a free port, its URL goes to FILE. The last message says what to answer:
                                     "much N"    N bytes
                                     "echo"      what the other messages have, in bytes and SHA-256
                                     "hold N"    "one N, ", and "two." once /go was asked for
    large FILE N                 exit 0 if the step's output in FILE is an answer of N bytes
    text FILE STEP               prints what token events of FILE make of a step's text
"""
import hashlib
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

go = threading.Event()


def event(delta, finish=None):
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).encode() + b"\n\n"


class Model(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path == "/go":
            go.set()
        body = b'{"object": "list", "data": [{"id": "m"}]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        *before, last = [m["content"] for m in request["messages"]]
        verb, _, rest = last.partition(" ")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if verb == "much":
            left = int(rest)
            while left > 0:
                self.chunk(event({"content": "y" * min(left, 65536)}))
                left -= 65536
        elif verb == "echo":
            seen = [f"{len(m.encode())} {hashlib.sha256(m.encode()).hexdigest()}" for m in before]
            self.chunk(event({"content": ", ".join(seen)}))
        elif verb == "hold":
            self.chunk(event({"content": f"one {rest}, "}))
            go.wait(60)
            self.chunk(event({"content": "two."}))
        self.chunk(event({}, "stop"))
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")


def serve(path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    with open(path + ".tmp", "w", encoding="utf-8") as f:
        f.write(f"http://127.0.0.1:{server.server_port}/v1\n")

    os.rename(path + ".tmp", path)
    server.serve_forever()


def large(path, n):
    with open(path, encoding="utf-8") as f:
        content = json.load(f)["content"]
    if content != "y" * int(n):
        sys.exit(f"an answer of {len(content)} bytes")


def text(path, step):
    whole = ""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith("data: "):
                continue
            data = json.loads(line[6:])
            if data.get("text") is not None and data.get("step", "").endswith("/" + step):
                whole = ("" if data["reset"] else whole) + data["text"]
    sys.stdout.write(whole)


if __name__ == "__main__":
    {"serve": serve, "large": large, "text": text}[sys.argv[1]](*sys.argv[2:])

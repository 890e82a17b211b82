#!/usr/bin/env python3
"""A server of the Model Context Protocol, and a bad one when it is told to be: nothing but the standard library.

    mcp_server.py [QUIRK...]                       on its standard input and output
    mcp_server.py --http READY_FILE [QUIRK...]     over streamable HTTP; writes its URL to READY_FILE

Quirks: `modern` (revision 2026-07-28 alone), `dual` (both eras), without either the older era; `version=V`, and what QUIRKS
below names. A tool named after a way to misbehave misbehaves in that way. What it was asked is written to standard
error, or, over HTTP, told by the tool `requests`."""
import base64
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODERN = "2026-07-28"
QUIRKS = {
    "banner": "greets people on standard output",
    "garbage": "writes lines that are no messages, without end",
    "unknown-ids": "answers what nobody asked, without end",
    "twice": "answers everything twice",
    "mute": "never answers anything",
    "mute-before": "never answers what comes before initialize",
    "ping": "asks for a sign of life before it answers, and waits for it",
    "pages": "lists its tools page by page",
    "endless-pages": "has always another page",
    "same-cursor": "gives the same cursor again and again",
    "many-tools": "has 5000 tools",
    "bad-tools": "has tools that none could be offered",
    "deep-schema": "has a tool whose schema is too deep to be read",
    "header": "wants a parameter as a header, and looks for it",
    "strict-order": "takes no request before it has heard that it is initialized",
    "forgetful": "forgets its session after each request",
    "forgets-always": "forgets its session at once",
    "cut": "cuts its streams, and goes on where it was asked to",
    "auth": "wants to know who asks",
    "redirect": "is elsewhere",
    "busy": "answers 503",
    "html": "answers with a page",
    "accepted": "accepts requests, and does not answer them",
    "keeps-open": "leaves its streams open after the answer",
}
quirks = set(sys.argv[1:])
lock = threading.Lock()
heard = []  # of each request: its method, or its headers over HTTP
answered = threading.Event()


def text(value, **more):
    return {"content": [{"type": "text", "text": value}], **more}


def tools():
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    plain = ["echo", "pid", "cwd", "env", "slow", "fails", "image", "structured", "crash", "hang", "big", "says", "refuses", "asks", "state",
             "odd-type", "nothing", "requests", "twice", "crowd"]
    if "header" in quirks:
        schema = {"type": "object", "properties": {"text": {"type": "string", "x-mcp-header": "Text"}}}
    if "deep-schema" in quirks:
        for _ in range(100):
            schema = {"type": "object", "properties": {"x": schema}}
    if "many-tools" in quirks:
        plain += [f"tool{i}" for i in range(5000)]
    listed = [{"name": name, "description": f"Does {name}.", "inputSchema": schema} for name in plain]
    if "bad-tools" in quirks:
        listed += [{"name": "echo", "inputSchema": {}}, {"name": "", "inputSchema": {}}, {"name": "no-schema"},
                   {"name": "long", "inputSchema": {}, "description": "x" * 300000},
                   {"name": "number", "inputSchema": {"properties": {"n": {"type": "number", "x-mcp-header": "N"}}}}]
    return listed


def page(params):
    listed, cursor = tools(), params.get("cursor")
    if "endless-pages" in quirks:
        return {"tools": [], "nextCursor": str(int(cursor or 0) + 1)}
    if "same-cursor" in quirks:
        return {"tools": [], "nextCursor": "again"}
    if "pages" in quirks:
        at = int(cursor or 0)
        more = {"nextCursor": str(at + 3)} if at + 3 < len(listed) else {}
        return {"tools": listed[at:at + 3], **more}
    return {"tools": listed}


def call(params, notify):
    """The result of a tool, or None when there will be none; ValueError is an error of the protocol."""
    name, arguments = params["name"], params.get("arguments") or {}
    said = str(arguments.get("text", ""))
    token = params.get("_meta", {}).get("progressToken")
    if name in ("echo", "twice"):
        return text(said)
    if name == "pid":
        return text(str(os.getpid()))
    if name == "cwd":
        return text(os.getcwd())
    if name == "env":
        return text(os.environ.get(said, "not set"))
    if name == "slow":
        for i in range(3):
            notify("notifications/progress", {"progressToken": token, "progress": i + 1, "total": 3, "message": f"part {i + 1}"})
        notify("notifications/message", {"level": "info", "logger": "slow", "data": "nearly there"})
        return text("done")
    if name == "crowd":  # until so many are in here at once
        with lock:
            heard.append("crowd")
        while sum(1 for h in heard if h == "crowd") < int(said):
            time.sleep(0.01)
        return text("together")
    if name == "fails":
        return text("it broke: " + said, isError=True)
    if name == "image":
        return {"content": [{"type": "text", "text": "look"}, {"type": "image", "mimeType": "image/png", "data": base64.b64encode(b"png").decode()},
                            {"type": "resource_link", "uri": "file:///x", "name": "x"},
                            {"type": "resource", "resource": {"uri": "file:///y", "text": "y"}}]}
    if name == "structured":
        return text("{}", structuredContent={"n": 1})
    if name == "crash":
        print("about to crash", file=sys.stderr, flush=True)
        os._exit(3)
    if name == "hang":
        return None
    if name == "big":
        return text("x" * int(said))
    if name == "says":
        print(said, file=sys.stderr, flush=True)
        return text("said")
    if name == "asks":
        return {"resultType": "input_required", "inputRequests": {"who": {"method": "elicitation/create", "params": {}}}, "requestState": "s"}
    if name == "state":
        if params.get("requestState") == "one":
            return text("by the state")
        return {"resultType": "input_required", "requestState": "one"}
    if name == "nothing":
        return {}
    if name == "odd-type":
        return {"resultType": "dream", "content": []}
    if name == "requests":
        return text(json.dumps(heard))
    raise ValueError(f"Unknown tool: {name}" if name != "refuses" else "it will not")


def answer(message, notify, session):
    """The answer to a request; None: there is none. `session` is what this peer has agreed with the server."""
    method, params = message["method"], message.get("params", {})
    meta = params.get("_meta", {})
    modern = "io.modelcontextprotocol/protocolVersion" in meta
    out = {"jsonrpc": "2.0", "id": message["id"]}
    if "mute" in quirks or ("mute-before" in quirks and method == "server/discover"):
        return None
    if modern and not quirks & {"modern", "dual"}:
        return {**out, "error": {"code": -32602, "message": "Invalid request parameters"}}
    if modern and meta["io.modelcontextprotocol/protocolVersion"] != MODERN:
        return {**out, "error": {"code": -32022, "message": "Unsupported protocol version", "data": {"supported": [MODERN]}}}
    if not modern and "modern" in quirks:
        return {**out, "error": {"code": -32601, "message": "Method not found"}}
    if method == "server/discover":
        versions = [q[8:] for q in quirks if q.startswith("version=")] or [MODERN]
        return {**out, "result": {"resultType": "complete", "supportedVersions": versions, "capabilities": {"tools": {}}}}
    if method == "initialize":
        version = next((q[8:] for q in quirks if q.startswith("version=")), params["protocolVersion"])
        return {**out, "result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "fake", "version": "1"}}}
    if "strict-order" in quirks and not modern and not session.get("initialized"):
        return {**out, "error": {"code": -32602, "message": "Received request before initialization was complete"}}
    try:
        result = page(params) if method == "tools/list" else call(params, notify) if method == "tools/call" else {}
    except ValueError as e:
        return {**out, "error": {"code": -32602 if str(e).startswith("Unknown") else -32000, "message": str(e)}}
    if result is None:
        return None
    if modern:
        result = {"resultType": "complete", **result}
    return {**out, "result": result}


# ---- standard input and output ----

def put(message):
    with lock:
        print(json.dumps(message), flush=True)


def notify_stdio(method, params):
    put({"jsonrpc": "2.0", "method": method, "params": params})


def serve_one(message, session):
    if "ping" in quirks and message["method"] == "tools/call":
        answered.clear()
        put({"jsonrpc": "2.0", "id": "p", "method": "ping"})
        answered.wait()
    reply = answer(message, notify_stdio, session)
    if reply:
        put(reply)
        if "twice" in quirks:
            put(reply)


def serve_stdio():
    session = {}
    if "banner" in quirks:
        print("Welcome!", flush=True)
    while quirks & {"garbage", "unknown-ids"}:
        print("garbage" if "garbage" in quirks else '{"jsonrpc": "2.0", "id": 4711, "result": {}}', flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        print("asked", message.get("method", "to hear an answer"), file=sys.stderr, flush=True)
        if "method" not in message:
            answered.set()
        elif "id" in message:
            threading.Thread(target=serve_one, args=(message, session), daemon=True).start()
        elif message["method"] == "notifications/initialized":
            session["initialized"] = True
        else:
            heard.append(message["method"])


# ---- streamable HTTP ----

sessions = {}  # by id; "streams": what was not delivered, by event id


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def plain(self, status, body=b"", kind="application/json", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def event(self, message, event_id=None):
        head = f"id: {event_id}\r\n" if event_id else ""
        data = json.dumps(message) if message is not None else ""
        self.wfile.write(f"{head}event: message\r\ndata: {data}\r\n\r\n".encode())
        self.wfile.flush()

    def note(self, what):
        with lock:
            heard.append({"what": what, **{k.lower(): v for k, v in self.headers.items()}})

    def lost(self, message):
        """Is the session that it names gone? Answers then."""
        name = self.headers.get("Mcp-Session-Id")
        if message.get("method") in ("initialize", "server/discover") or quirks & {"modern", "dual"}:
            return False
        if not name:
            self.plain(400, b'{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}')
            return True
        if name not in sessions or "forgets-always" in quirks and "method" in message and "id" in message:
            self.plain(404, b'{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null}')
            return True
        return False

    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.note(message.get("method", "answer"))
        if "auth" in quirks and self.headers.get("Authorization") != "Bearer open-sesame":
            return self.plain(401, b'{"error": "who are you?"}', WWW_Authenticate="Bearer")
        if "redirect" in quirks:
            return self.plain(307, Location="http://127.0.0.1:1/elsewhere")
        if "busy" in quirks:
            return self.plain(503, b"try later")
        if "html" in quirks:
            return self.plain(200, b"<html>", "text/html")
        if self.lost(message):
            return None
        session = sessions.get(self.headers.get("Mcp-Session-Id"), {})
        if "id" not in message or "method" not in message:
            session["initialized"] = session.get("initialized") or message.get("method") == "notifications/initialized"
            return self.plain(202)
        return self.do_request(message, session)

    def mismatch(self, message):
        """What a server of the newer era looks for in the headers."""
        params = message.get("params", {})
        wanted = {"Mcp-Method": message["method"], "MCP-Protocol-Version": MODERN}
        if message["method"] == "tools/call":
            wanted["Mcp-Name"] = params["name"]
            if "header" in quirks and "text" in params.get("arguments", {}):
                wanted["Mcp-Param-Text"] = params["arguments"]["text"]
        for name, value in wanted.items():
            found = self.headers.get(name, "")
            if found.startswith("=?base64?"):
                found = base64.b64decode(found[9:-2]).decode()
            if found != value:
                return f"Header mismatch: {name} is {found!r}, expected {value!r}"
        return None

    def do_request(self, message, session):
        modern = "io.modelcontextprotocol/protocolVersion" in message.get("params", {}).get("_meta", {})
        wrong = self.mismatch(message) if modern and quirks & {"modern", "dual"} else None
        if wrong:
            body = {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32020, "message": wrong}}
            return self.plain(400, json.dumps(body).encode())
        if modern and not quirks & {"modern", "dual"}:
            return self.plain(400, b'{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}')
        if "accepted" in quirks and message["method"] == "tools/call":
            return self.plain(202)
        if message["method"] == "initialize" or message["method"] == "server/discover" or not message["method"].startswith("tools/call"):
            reply = answer(message, lambda *a: None, session)
            headers = {}
            if message["method"] == "initialize" and "error" not in reply:
                name = f"session-{len(sessions)}"
                sessions[name] = {}
                headers = {"Mcp_Session_Id": name}
            return self.plain(200, json.dumps(reply).encode(), **headers)
        return self.do_stream(message, session)

    def do_stream(self, message, session):
        name = self.headers.get("Mcp-Session-Id")
        self.stream()
        if "cut" in quirks:
            key = f"{name}.{len(heard)}"
            session[key] = message
            self.wfile.write(b"retry: 10\n\n")
            return self.event(None, key)
        reply = answer(message, lambda method, params: self.event({"jsonrpc": "2.0", "method": method, "params": params}), session)
        if "ping" in quirks:
            self.event({"jsonrpc": "2.0", "id": "p", "method": "ping"})
        if reply:
            self.event(reply)
        if "forgetful" in quirks:
            sessions.pop(name, None)
        while reply is None or "keeps-open" in quirks:
            self.wfile.write(b": still here\n\n")
            self.wfile.flush()
            time.sleep(0.05)
        return None

    def do_GET(self):
        self.note("GET")
        last, name = self.headers.get("Last-Event-ID"), self.headers.get("Mcp-Session-Id")
        session = sessions.get(name, {})
        if not last or last not in session:
            return self.plain(405)
        self.stream()
        return self.event(answer(session.pop(last), lambda *a: None, session), last + "+")

    def do_DELETE(self):
        self.note("DELETE")
        sessions.pop(self.headers.get("Mcp-Session-Id"), None)
        self.plain(200)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # who is cut off goes away


if __name__ == "__main__":
    known = set(QUIRKS) | {"modern", "dual"}
    if sys.argv[1:2] == ["--http"]:
        quirks -= {"--http", sys.argv[2]}
    unknown = {q for q in quirks if q not in known and not q.startswith("version=")}
    if unknown:
        sys.exit(f"unknown quirks: {unknown}")
    if sys.argv[1:2] == ["--http"]:
        server = Server(("127.0.0.1", 0), Handler)
        with open(sys.argv[2] + ".new", "w") as f:
            f.write(f"http://127.0.0.1:{server.server_address[1]}/mcp\n")
        os.rename(sys.argv[2] + ".new", sys.argv[2])
        server.serve_forever()
    else:
        serve_stdio()

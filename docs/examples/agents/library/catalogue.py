#!/usr/bin/env python3
"""A catalogue of documents, as a server of the Model Context Protocol on standard input and output: search, and order, which an agent is not
allowed. See ../mcp/units.py, of which this has the protocol."""
import json
import sys

DOCUMENTS = [
    {"number": 1149, "title": "A Standard for the Transmission of IP Datagrams on Avian Carriers"},
    {"number": 2324, "title": "Hyper Text Coffee Pot Control Protocol (HTCPCP/1.0)"},
    {"number": 7168, "title": "The Hyper Text Coffee Pot Control Protocol for Tea Efflux Appliances (HTCPCP-TEA)"},
    {"number": 9110, "title": "HTTP Semantics"},
]
TOOLS = [
    {"name": "search", "description": "Finds documents by a word of their title; gives their numbers.",
     "inputSchema": {"type": "object", "properties": {"word": {"type": "string", "minLength": 3}}, "required": ["word"]}},
    {"name": "order", "description": "Orders a printed copy, and pays.",
     "inputSchema": {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}},
]


def call(name, arguments):
    if name == "order":
        raise SystemExit("nobody was to order anything")
    found = [d for d in DOCUMENTS if arguments["word"].lower() in d["title"].lower()]
    text = "\n".join(f'{d["number"]}: {d["title"]}' for d in found) or "nothing found"
    return {"content": [{"type": "text", "text": text}], "structuredContent": {"documents": found}}


for line in sys.stdin:
    message = json.loads(line)
    method, params = message.get("method"), message.get("params", {})
    if "id" not in message or not method:
        continue
    answer = {"jsonrpc": "2.0", "id": message["id"]}
    if method == "initialize":
        answer["result"] = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}},
                            "serverInfo": {"name": "catalogue", "version": "1"}}
    elif method == "tools/list":
        answer["result"] = {"tools": TOOLS}
    elif method == "tools/call":
        answer["result"] = call(params["name"], params.get("arguments", {}))
    else:
        answer["error"] = {"code": -32601, "message": "Method not found"}
    print(json.dumps(answer), flush=True)

#!/usr/bin/env python3
"""A server of the Model Context Protocol in forty lines of Python's library: two tools, on standard input and output. It speaks revision
2025-11-25, whose messages are JSON-RPC, a line each; servers are commonly made with an SDK, which does this for them."""
import json
import sys

FACTORS = {"km": 1000.0, "m": 1.0, "mi": 1609.344, "ft": 0.3048}
UNIT = {"type": "string", "enum": sorted(FACTORS)}
TOOLS = [
    {"name": "convert", "description": "Converts a length.",
     "inputSchema": {"type": "object", "properties": {"value": {"type": "number"}, "from": UNIT, "to": UNIT}, "required": ["value", "from", "to"]},
     "outputSchema": {"type": "object", "properties": {"value": {"type": "number"}}, "required": ["value"]}},
    {"name": "units", "description": "The units there are.", "inputSchema": {"type": "object"}},
]


def call(name, arguments):
    if name == "units":
        return {"content": [{"type": "text", "text": unit} for unit in sorted(FACTORS)]}
    if arguments["to"] not in FACTORS:
        return {"content": [{"type": "text", "text": f"there is no unit {arguments['to']}: expected one of {', '.join(sorted(FACTORS))}"}],
                "isError": True}
    value = round(arguments["value"] * FACTORS[arguments["from"]] / FACTORS[arguments["to"]], 3)
    return {"content": [{"type": "text", "text": f"{value} {arguments['to']}"}], "structuredContent": {"value": value}}


for line in sys.stdin:
    message = json.loads(line)
    method, params = message.get("method"), message.get("params", {})
    if "id" not in message or not method:
        continue
    answer = {"jsonrpc": "2.0", "id": message["id"]}
    if method == "initialize":
        answer["result"] = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}},
                            "serverInfo": {"name": "units", "version": "1"}}
    elif method == "tools/list":
        answer["result"] = {"tools": TOOLS}
    elif method == "tools/call":
        print("asked for", params["name"], file=sys.stderr)  # standard error is the step's log
        answer["result"] = call(params["name"], params.get("arguments", {}))
    else:
        answer["error"] = {"code": -32601, "message": "Method not found"}
    print(json.dumps(answer), flush=True)

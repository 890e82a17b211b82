#!/usr/bin/env python3
"""What model-steps.sh asks: model_steps.py COMMAND ARG..., exit 0 if it is so.

    faults ADMIN JSON            POST /sim/faults
    sim ADMIN EXPRESSION         holds for /sim/state (a Python expression over its members)
    usage FILE EXPRESSION        holds for the usage in `cox task get -o json`
    events HTTP TASK FILE        GET .../events?tokens=true until its end, into FILE
    text FILE STEP               prints what token events of FILE make of a step's text; complains of their order
"""
import json
import sys
import urllib.request


def get(url, data=None):
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def holds(expression, members):
    ok = bool(eval(expression, {"__builtins__": {}}, members))
    if not ok:
        print(f"not so: {expression}\n{json.dumps(members, indent=1)}")
    return ok


def events(path):
    """Each event of a file of server-sent events: its name and its data."""
    name = None
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("event: "):
                name = line[7:].strip()
            elif line.startswith("data: "):
                yield name, json.loads(line[6:])


def text(path, step):
    """The step's text, as a reader puts it together who does what `reset` says."""
    whole, first = "", True
    for name, data in events(path):
        if first and name != "task":
            sys.exit(f"the first event is {name}, expected the task")
        first = False
        if name == "token" and data["step"].endswith("/" + step):
            whole = ("" if data["reset"] else whole) + data["text"]
    return whole


def main(command, *args):
    if command == "faults":
        get(args[0] + "/sim/faults", args[1].encode())
    elif command == "sim":
        return holds(args[1], get(args[0] + "/sim/state"))
    elif command == "usage":
        with open(args[0], encoding="utf-8") as f:
            return holds(args[1], json.load(f)["usage"])
    elif command == "events":
        with urllib.request.urlopen(f"http://{args[0]}/api/v1/tasks/{args[1]}/events?tokens=true", timeout=120) as answer:
            with open(args[2], "wb") as f:
                for line in answer:
                    f.write(line)
    elif command == "text":
        sys.stdout.write(text(*args))
    else:
        sys.exit(__doc__)
    return True


if __name__ == "__main__":
    sys.exit(0 if main(*sys.argv[1:]) else 1)

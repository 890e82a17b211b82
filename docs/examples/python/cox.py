"""Tools for Coxswain in Python: copy this one file beside your program. Needs Python 3.9 and nothing else.

    #!/usr/bin/env python3
    import cox

    @cox.tool
    def shout(text: str, times: int = 1) -> str:
        \"\"\"Says it louder.\"\"\"
        return text.upper() * times

    cox.main()

The file, executable and named like the function, goes into a worker's --handler-dir or a task's bundle. The
schemas come from the type hints, the description from the docstring. Standard output belongs to the protocol:
what the tool prints goes to the log, as does what it logs. When it fails, that is what `cox task logs` shows.

    cox.context                     the call: task_id, step, attempt, workspace, bundle, blobs, index, ...
    raise cox.Error(code, message)  the step fails with this code; retryable=True or False decides about retries
    return cox.call_again(steps, state)   run these steps, then call me again: cox.context.steps, .state
    cox.store(data)                 keeps bytes or a file of up to 1 GiB: {"$blob", "size"}, for the output to name
    cox.context.open_blob(value)    opens such a value of the input
    cox.submit(document, inputs)    submits a task of its own and waits for its outputs ($COX_HTTP)
"""
import dataclasses
import enum
import http.client
import inspect
import io
import json
import logging
import os
import sys
import time
import traceback
import types
import typing
import urllib.error
import urllib.parse
import urllib.request

__all__ = ["tool", "main", "context", "Error", "call_again", "store", "submit"]


class Error(Exception):
    """Ends the call. `code` is one of the codes of the task format; others become INTERNAL. `retryable` None
    leaves it to the step's `retry.on` whether this code is tried again."""

    def __init__(self, code, message, retryable=None):
        super().__init__(message)
        self.code, self.message, self.retryable = code, message, retryable


class Context:
    """What is known of the call that runs now."""

    def __init__(self, fields=None):
        fields = fields or {}
        again = fields.get("continuation") or {}
        self.task_id = fields.get("task_id", "")
        self.step = fields.get("step", "")
        self.attempt = fields.get("attempt", 0)
        self.idempotency_key = fields.get("idempotency_key", "")
        self.traceparent = fields.get("traceparent")
        # Asked for only when it is needed: the directory of the call before may be gone.
        self.workspace = fields["workspace"] if "workspace" in fields else os.getcwd()
        self.bundle = fields.get("bundle")
        self.blobs = fields.get("blobs")
        self.blobs_url = fields.get("blobs_url")  # with the key, where the worker takes blobs of this call
        self.models_url = fields.get("models_url")  # and where it calls models: OPENAI_BASE_URL
        self.key = fields.get("key")
        self.index = (fields.get("item") or {}).get("index")
        self.again = bool(again)  # called again after call_again
        self.state = again.get("state")
        self.steps = again.get("steps") or {}  # name -> {"status", "output", "error"}
        self.n_submitted = 0

    def open_blob(self, value):
        """Opens {"$blob": "sha256:...", "size": N} for reading bytes."""
        return open(os.path.join(self.blobs, value["$blob"].split(":", 1)[1]), "rb")


class _Current:
    """Always the call that runs now, also for `from cox import context`."""

    def __getattr__(self, name):
        return getattr(_call, name)


_call = Context()
context = _Current()
_tool = None


@dataclasses.dataclass
class _CallAgain:
    steps: dict
    state: object


def call_again(steps, state=None):
    """Return this: `steps` is what `steps:` of a task holds, `state` comes back as cox.context.state."""
    return _CallAgain(steps, state)


# ---- schemas ---------------------------------------------------------------------------------------------

_SIMPLE = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
_UNIONS = tuple(u for u in (typing.Union, getattr(types, "UnionType", None)) if u)


def _object_schema(hints, optional):
    return {"type": "object", "properties": {name: _schema(hint) for name, hint in hints.items()},
            "required": [name for name in hints if name not in optional], "additionalProperties": False}


def _schema(hint):
    """The JSON Schema of a type hint; {} allows anything."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in _SIMPLE:
        return {"type": _SIMPLE[hint]}
    if origin in _UNIONS:
        return {"anyOf": [_schema(arg) for arg in args]}
    if origin is typing.Literal:
        return {"enum": list(args)}
    if origin is typing.Annotated:
        described = [text for text in args[1:] if isinstance(text, str)]
        return {**_schema(args[0]), **({"description": described[0]} if described else {})}
    if hint in (list, tuple, set) or origin in (list, set):
        return {"type": "array", **({"items": _schema(args[0])} if args else {})}
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return {"type": "array", "items": _schema(args[0])}
        return {"type": "array", "prefixItems": [_schema(arg) for arg in args], "minItems": len(args),
                "maxItems": len(args)}
    if hint is dict or origin is dict:
        return {"type": "object", **({"additionalProperties": _schema(args[1])} if args else {})}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"enum": [member.value for member in hint]}
    if dataclasses.is_dataclass(hint):
        optional = {f.name for f in dataclasses.fields(hint)
                    if f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING}
        return _object_schema(typing.get_type_hints(hint, include_extras=True), optional)
    if typing.is_typeddict(hint) if hasattr(typing, "is_typeddict") else hasattr(hint, "__total__"):
        return _object_schema(typing.get_type_hints(hint, include_extras=True),
                              getattr(hint, "__optional_keys__", frozenset()))
    return {}


def _arguments(text):
    """The lines "name: what it is" under "Args:" in a docstring."""
    found, inside = {}, False
    for line in inspect.cleandoc(text or "").splitlines():
        if line.strip() in ("Args:", "Arguments:"):
            inside = True
        elif inside and line and not line[0].isspace():
            inside = False
        elif inside and ":" in line:
            name, _, what = line.partition(":")
            found[name.split("(")[0].strip()] = what.strip()
    return found


class _Tool:
    def __init__(self, function, version, idempotent):
        self.function = function
        hints = typing.get_type_hints(function, include_extras=True)
        parameters = inspect.signature(function).parameters.values()
        for p in parameters:
            if p.kind not in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                raise TypeError(f"{function.__name__}: parameter {p.name} must have a name")
        self.hints = {p.name: hints.get(p.name, typing.Any) for p in parameters}
        optional = {p.name for p in parameters if p.default is not p.empty}
        self.input_schema = _object_schema(self.hints, optional)
        for name, what in _arguments(function.__doc__).items():
            if name in self.input_schema["properties"]:
                self.input_schema["properties"][name].setdefault("description", what)
        self.description = {
            "name": function.__name__, "version": version,
            "description": inspect.cleandoc(function.__doc__ or "").split("\n\n")[0],
            "input_schema": self.input_schema, "idempotent": idempotent, "serve": True}
        if "return" in hints and hints["return"] is not typing.Any:
            self.description["output_schema"] = _schema(hints["return"])

    def call(self, given):
        if given is None:
            given = {}
        if not isinstance(given, dict):
            raise Error("INPUT_INVALID", "input: expected an object", retryable=False)
        return self.function(**{name: _revive(self.hints.get(name), value) for name, value in given.items()})


def _revive(hint, value):
    """Enums, dataclasses and tuples as the function's hints have them."""
    args = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Annotated:
        return _revive(args[0], value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(value)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        hints = typing.get_type_hints(hint, include_extras=True)
        return hint(**{name: _revive(hints.get(name), v) for name, v in value.items()})
    if typing.get_origin(hint) is list and args and isinstance(value, list):
        return [_revive(args[0], v) for v in value]
    if typing.get_origin(hint) in (tuple, set) and isinstance(value, list):
        return typing.get_origin(hint)(value)
    return value


def _plain(value):
    """For json.dumps: what is not JSON by itself."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8", "replace")
    raise TypeError(f"a {type(value).__name__} is not JSON")


def tool(function=None, *, version="1.0.0", idempotent=False):
    """Makes this function what the program offers; the first number of `version` is what `uses: name@1` names."""
    def register(f):
        global _tool
        if _tool:
            raise TypeError("a program offers one tool; put the second into a file of its own")
        _tool = _Tool(f, version, idempotent)
        return f
    return register(function) if function else register


# ---- serving ---------------------------------------------------------------------------------------------

def _enter(fields):
    """A process is kept warm and serves calls of many steps: where it is and what it sees follows the call."""
    global _call
    _call = Context(fields)
    os.chdir(_call.workspace)
    names = {"COX_TASK_ID": _call.task_id, "COX_STEP": _call.step, "COX_ATTEMPT": str(_call.attempt),
             "COX_WORKSPACE": _call.workspace, "COX_IDEMPOTENCY_KEY": _call.idempotency_key,
             "COX_BLOBS_URL": _call.blobs_url, "COX_ATTEMPT_KEY": _call.key, "OPENAI_BASE_URL": _call.models_url,
             "OPENAI_API_KEY": _call.key if _call.models_url else None, "TRACEPARENT": _call.traceparent, "COX_BUNDLE": _call.bundle, "COX_BLOBS": _call.blobs,
             "COX_ITEM": None if _call.index is None else str(_call.index)}
    for name, value in names.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _place(e):
    """Where in the tool's own file it went wrong."""
    lines = [f.lineno for f in traceback.extract_tb(e.__traceback__) if f.filename == sys.argv[0]]
    return f" ({os.path.basename(sys.argv[0])}:{lines[-1]})" if lines else ""


def _answer(line):
    call = json.loads(line)
    answer = {"id": call.get("id")}
    try:
        _enter(call.get("context") or {})
        value = _tool.call(call.get("input"))
        if isinstance(value, _CallAgain):
            answer["continue"] = {"steps": value.steps, "state": value.state}
        else:
            answer["output"] = value
        return json.dumps(answer, default=_plain, allow_nan=False)
    except Error as e:
        error = {"code": e.code, "message": e.message}
        if e.retryable is not None:
            error["retryable"] = e.retryable
    except Exception as e:  # whatever the tool did: the next call is another one
        logging.exception("%s failed", _tool.description["name"])
        error = {"code": "INTERNAL", "message": f"{type(e).__name__}: {e}{_place(e)}"}
    return json.dumps({"id": call.get("id"), "error": error})


def main():
    """Describes the tool, or serves calls until there are no more."""
    if not _tool:
        sys.exit("cox.main: no function is marked with @cox.tool")
    if "--describe" in sys.argv[1:]:
        print(json.dumps(_tool.description))
        return
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    lines = io.TextIOWrapper(os.fdopen(os.dup(0), "rb"), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # print() and children write to the log, not between the answers
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # nor do they read the calls, or wait for one
    os.close(nothing)
    sys.stdout = sys.stderr
    for line in lines:
        answers.write(_answer(line) + "\n")
        answers.flush()


# ---- large values ----------------------------------------------------------------------------------------

_CODES = {413: "OUTPUT_TOO_LARGE", 507: "RESOURCE_EXHAUSTED", 429: "UNAVAILABLE", 503: "UNAVAILABLE"}


def store(data):
    """Keeps bytes, or a file (a path, or one that is open for reading bytes), and returns {"$blob": ..., "size": ...}.
    Put that into the output: {"model": cox.store("model.bin")}. A step that it is handed to finds the file in
    cox.context.blobs, and opens it with cox.context.open_blob. Nothing of a file is held in memory."""
    if isinstance(data, (str, os.PathLike)):
        with open(data, "rb") as file:
            return store(file)
    if not _call.key:
        raise Error("UNAVAILABLE", "cox.store: this worker takes no blobs from programs")
    place = urllib.parse.urlsplit(_call.blobs_url)
    length = len(data) if isinstance(data, (bytes, bytearray, memoryview)) else os.fstat(data.fileno()).st_size - data.tell()
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=600)
    headers = {"Authorization": "Bearer " + _call.key, "Content-Length": str(length)}
    try:
        try:
            connection.request("POST", place.path, data, headers)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was refused before all of it was sent: the answer says why
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException) as e:
        raise Error("UNAVAILABLE", f"cox.store: {type(e).__name__}: {e}") from e
    finally:
        connection.close()
    if response.status != 201:
        raise Error(_CODES.get(response.status, "INTERNAL"), f"cox.store: {response.status}: {answer['error']['message']}")
    return answer


# ---- tasks of its own ------------------------------------------------------------------------------------

def _request(method, path, body=None):
    base = os.environ.get("COX_HTTP", "http://127.0.0.1:7601")
    if "://" not in base:
        base = "http://" + base
    headers = {"Content-Type": "application/json"}
    if os.environ.get("COX_TOKEN"):
        headers["Authorization"] = "Bearer " + os.environ["COX_TOKEN"]
    request = urllib.request.Request(base + path, method=method, headers=headers,
                                     data=None if body is None else json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)
    except urllib.error.HTTPError as e:
        retryable = e.code in (408, 425, 429) or e.code >= 500
        raise Error("UNAVAILABLE" if retryable else "INPUT_INVALID",
                    f"{method} {path}: {e.code}: {e.read(500).decode('utf-8', 'replace')}") from e
    except OSError as e:
        raise Error("UNAVAILABLE", f"{base}: {e}") from e


def submit(document, inputs=None, key=None, wait=True, timeout_s=3600):
    """Submits a task document (a dict) and returns its outputs; its id at once with wait=False. Without a `key`,
    the attempts of one step submit each of their tasks once. Waiting holds the slot; call_again does not."""
    _call.n_submitted += 1
    if key is None and _call.idempotency_key:
        key = f"{_call.idempotency_key}/{_call.n_submitted}"
    body = {"document": document, "inputs": inputs or {}}
    if key:
        body["key"] = key
    task = _request("POST", "/api/v1/tasks", body)["id"]
    deadline = time.monotonic() + timeout_s
    while wait:
        found = _request("GET", f"/api/v1/tasks/{urllib.parse.quote(task)}?wait=30s")["task"]
        if found["status"] == "SUCCEEDED":
            return found.get("outputs")
        if found["status"] in ("FAILED", "CANCELLED"):
            error = found.get("error") or {}
            raise Error(error.get("code") or "CANCELLED", f"task {task}: {error.get('message') or found['status']}")
        if time.monotonic() > deadline:
            raise Error("TIMEOUT", f"task {task} is {found['status']} after {timeout_s} s")
    return task

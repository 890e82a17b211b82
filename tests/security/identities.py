"""Who may do what, tried from outside, over gRPC and HTTP.

usage: identities.py GRPC HTTP FOLDER PID     (PYTHONPATH has what protoc made of proto/; FOLDER has NAME.token, tokens.yaml)

What each role may call is read from the page that users read, docs/security.md; which methods there are, from the contract.
Prints lines as tests/README.md says; exits 1 after a "not ok".
"""
import hashlib
import http.client
import importlib
import json
import os
import re
import signal
import sys
import threading
import time

import grpc
from coxswain.v1 import blob_service_pb2 as blobs
from coxswain.v1 import task_service_pb2 as tasks
from coxswain.v1 import types_pb2 as types

GRPC, HTTP, FOLDER, PID = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
TOKENS = {f[:-6]: open(f"{FOLDER}/{f}", encoding="ascii").read().strip() for f in os.listdir(FOLDER) if f.endswith(".token")}
CHANNEL = grpc.insecure_channel(GRPC)
NO, NOT_ALLOWED, NONE = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND
NOT_SERVED = grpc.StatusCode.UNIMPLEMENTED
ROLES = ["reader", "submitter", "approver", "operator", "admin"]
LIMIT_S = 30
FAILED = []


def report(name, good, seen=""):
    if not good:
        FAILED.append(name)
        print("    seen: " + str(seen)[:2000])
    print(("ok " if good else "not ok ") + name, flush=True)


def none(name, wrong):
    """`wrong` lists what should not be."""
    report(name, not wrong, wrong)


# ---- calls ----

MODULES = ["coxswain.v1.task_service", "coxswain.v1.template_service", "coxswain.v1.schedule_service", "coxswain.v1.fleet_service",
           "coxswain.v1.stats_service", "coxswain.v1.blob_service", "coxswain.v1.admin_service", "coxswain.v1.worker_service",
           "externalscaler.externalscaler", "grpc.health.v1.health", "grpc.reflection.v1.reflection"]


def load(module):
    """grpc.* would be looked for in the library of that name."""
    path = f"{FOLDER}/pb/{module.replace('.', '/')}_pb2.py"
    spec = importlib.util.spec_from_file_location(module.replace(".", "_") + "_pb2", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


METHODS = [method for module in MODULES for service in load(module).DESCRIPTOR.services_by_name.values()
           for method in service.methods]


def message_class(descriptor):
    from google.protobuf import message_factory
    return message_factory.MessageFactory().GetPrototype(descriptor)


def call(method, who=None, tenant=None, request=None, more=()):
    """(status, text) of a call, as far as its first answer; status OK when there was one, or a well-ended stream."""
    out = message_class(method.output_type)
    request = request if request is not None else message_class(method.input_type)()
    path = f"/{method.containing_service.full_name}/{method.name}"
    metadata = list(more)
    if who is not None:
        metadata.append(("authorization", "Bearer " + TOKENS.get(who, who)))
    if tenant is not None:
        metadata.append(("cox-tenant", tenant))
    fds = METHOD_STREAMS[method.full_name]
    kind = ("stream" if fds[0] else "unary") + "_" + ("stream" if fds[1] else "unary")
    rpc = getattr(CHANNEL, kind)(path, request_serializer=lambda m: m.SerializeToString(), response_deserializer=out.FromString)
    try:
        sent = iter([request]) if fds[0] else request
        answer = rpc(sent, metadata=metadata, timeout=LIMIT_S)
        if fds[1]:
            first = next(iter(answer), None)
            answer.cancel()
            return grpc.StatusCode.OK, first
        return grpc.StatusCode.OK, answer
    except grpc.RpcError as error:
        return error.code(), error.details()


def streams():
    from google.protobuf import descriptor_pb2
    found = {}
    for module in MODULES:
        proto = descriptor_pb2.FileDescriptorProto()
        load(module).DESCRIPTOR.CopyToProto(proto)
        for service in proto.service:
            for method in service.method:
                found[f"{proto.package}.{service.name}.{method.name}"] = (method.client_streaming, method.server_streaming)
    return found


METHOD_STREAMS = streams()


def task_method(name):
    return next(m for m in METHODS if m.name == name and m.containing_service.name == "TaskService")


def task_call(method, who, of=None, /, **fields):
    return call(task_method(method), who, of, getattr(tasks, method + "Request")(**fields))


def ask(verb, path, who=None, body=None, headers=()):
    connection = http.client.HTTPConnection(HTTP, timeout=LIMIT_S)
    connection.putrequest(verb, path)
    if who is not None:
        connection.putheader("Authorization", "Bearer " + TOKENS.get(who, who))
    for name, value in headers:
        connection.putheader(name, value)
    data = json.dumps(body).encode() if body is not None else b""
    if body is not None:
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(data)))
    connection.endheaders(data or None)
    answer = connection.getresponse()
    return connection, answer


def status(*args, **kwargs):
    connection, answer = ask(*args, **kwargs)
    connection.close()
    return answer.status


# ---- the page ----

def page():
    """{(service, method): set of roles}, of whom all tenants are needed, and of what strangers may call."""
    may, whole, anybody = {}, set(), set()
    text = open(f"{ROOT}/docs/security.md", encoding="utf-8").read()
    for line in text[text.index("<!-- roles -->"):text.index("<!-- end -->")].splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) != 8 or "/" not in cells[0]:
            continue
        service, method = cells[0].split("/")
        key = (service.split(".")[-1], method)
        may[key] = {role for role, cell in zip(ROLES + ["worker"], cells[1:7]) if cell == "x"}
        if "all tenants" in cells[7]:
            whole.add(key)
        if "strangers" in cells[7]:
            anybody.add(key)
    return may, whole, anybody


MAY, WHOLE, ANYBODY = page()


def change_row(name, change):
    """`change` makes another text of the token's row."""
    path = f"{FOLDER}/tokens.yaml"
    rows = re.split(r"(?m)^(?=- )", open(path, encoding="ascii").read())
    changed = [change(row) if re.match(rf"- name: {name}\n", row) else row for row in rows]
    assert changed != rows
    with open(path, "w", encoding="ascii") as file:
        file.write("".join(changed))
    os.kill(PID, signal.SIGHUP)


def revoke(name):
    change_row(name, lambda row: "")


def await_no(who):
    end = time.monotonic() + LIMIT_S
    while task_call("ListTasks", who)[0] != NO and time.monotonic() < end:
        time.sleep(0.02)
    return task_call("ListTasks", who)[0] == NO


# ---- the generated table ----

def every_method():
    key_of = {m.full_name: (m.containing_service.name, m.name) for m in METHODS}
    none("the page lists every method of the contract", [k for k in key_of.values() if k not in MAY])
    wrong = {who: [] for who in ("a stranger", "garbage", "an expired token", "a revoked token", "the wrong role", "another tenant",
                                 "an identity of one tenant where all are meant", "the right role")}
    n = dict.fromkeys(wrong, 0)

    def expect(who, method, seen, good):
        n[who] += 1
        if not good:
            wrong[who].append((method.full_name, seen))
    for m in METHODS:
        key = key_of[m.full_name]
        if key in ANYBODY:
            expect("the right role", m, call(m), call(m)[0] == grpc.StatusCode.OK)
            continue
        for who, token in (("a stranger", None), ("garbage", "cox_0000"), ("an expired token", "expired"),
                           ("a revoked token", "revoked")):
            seen = call(m, token)
            expect(who, m, seen, seen[0] == NO)
        for role in ROLES + ["worker"]:
            seen = call(m, role + "-all")
            if role in MAY[key]:
                expect("the right role", m, (role, seen), seen[0] not in (NO, NOT_ALLOWED))
            else:
                expect("the wrong role", m, (role, seen), seen[0] in (NOT_ALLOWED, NOT_SERVED))
            if role == "worker" or role not in MAY[key] or m.containing_service.name in ("Health", "ServerReflection"):
                continue
            seen = call(m, role + "-b", "alpha")
            expect("another tenant", m, (role, seen), seen[0] == NOT_ALLOWED)
            if key in WHOLE:
                seen = call(m, role + "-b")
                expect("an identity of one tenant where all are meant", m, (role, seen), seen[0] == NOT_ALLOWED)
    for who, found in wrong.items():
        good = "is let in" if who == "the right role" else "is refused"
        none(f"every gRPC method: {who} {good} ({n[who]} calls)", found)


def every_path():
    connection, answer = ask("GET", "/openapi.json", "reader-all")
    paths = json.load(answer)["paths"]
    connection.close()
    found, n = {"a stranger": [], "garbage": [], "a token in the query": []}, 0
    for path, item in paths.items():
        where = re.sub(r"\{[^}]*\}", "x", path)
        for verb in item:
            if verb not in ("get", "post", "put", "delete") or path in ("/healthz", "/readyz"):
                continue
            n += 1
            for name, who, query in (("a stranger", None, ""), ("garbage", "x" * 100, ""),
                                     ("a token in the query", None, "?token=" + TOKENS["admin-all"])):
                seen = status(verb.upper(), where + query, who)
                if seen != 401:
                    found[name].append((verb, path, seen))
    for name, wrong in found.items():
        none(f"every HTTP path: {name} gets 401 ({n} requests)", wrong)
    none("probes need nobody", [p for p in ("/healthz", "/readyz") if status("GET", p) != 200])
    seen = [status("GET", "/metrics", who) for who in ("reader-a", "submitter-all", "reader-all")]
    report("/metrics: a reader of one tenant, a submitter: 403; a reader of all: 200", seen == [403, 403, 200], seen)


# ---- tokens ----

def garbage():
    wrong = []
    token = TOKENS["reader-a"]
    for text in ("", " ", token[:-1], token + "0", token.upper(), " " + token, token * 50, "a" * 7000, "coxt_", "coxt_00.00",
                 "coxt_" + "0" * 400 + "." + "0" * 64, hashlib.sha256(token.encode()).hexdigest(), "\"", "Bearer " + token):
        seen = call(task_method("ListTasks"), more=[("authorization", "Bearer " + text)])
        if seen[0] not in (NO, grpc.StatusCode.RESOURCE_EXHAUSTED):
            wrong.append((text[:80], seen))
    for text in ("Basic " + token, token, "Bearer", "bearer=" + token):
        seen = call(task_method("ListTasks"), more=[("authorization", text)])
        if seen[0] != NO:
            wrong.append((text[:80], seen))
    none("tokens that are cut, longer, hashed, in capitals, huge or of another scheme are none", wrong)
    seen = call(task_method("ListTasks"), "reader-a", more=[("authorization", "Bearer " + TOKENS["admin-all"])])
    report("two tokens at once are refused", seen[0] == NO, seen)
    seen = status("GET", "/api/v1/tasks", "reader-a", headers=[("Authorization", "Bearer " + TOKENS["admin-all"])])
    report("two Authorization headers are refused", seen in (400, 401), seen)


def smuggling():
    wrong = []
    for headers in ([("Cox-Tenant", "alpha")], [("cox-tenant", "beta"), ("cox-tenant", "alpha")], [("Cox-Tenant", "beta,alpha")],
                    [("Cox-Tenant", "beta"), ("COX-TENANT", "alpha")], [("Cox-Tenant", "")], [("Cox-Tenant", "*")],
                    [("Cox-Tenant", "../alpha")]):
        seen = status("GET", "/api/v1/tasks", "reader-b", headers=headers)
        if seen not in (400, 403):
            wrong.append((headers, seen))
    none("a tenant that is another's, said twice, a list, empty or a path is refused", wrong)
    for headers in ([("Cox_Tenant", "alpha")], [("X-Cox-Tenant", "alpha")], [("Grpc-Metadata-Cox-Tenant", "alpha")]):
        connection, answer = ask("GET", "/api/v1/tasks", "reader-b", headers=headers)
        found = json.load(answer)
        connection.close()
        if answer.status not in (200, 400) or any(t["tenant"] != "beta" for t in found.get("tasks", [])):
            wrong.append((headers, answer.status, found))
    none("headers that look like the tenant's change nothing", wrong)


# ---- tenants ----

def document(**fields):
    doc = {"api_version": "v1", "name": "t", "steps": {"say": {"run": {"argv": ["sh", "-c", "echo $WORDS"], "env": {"WORDS": "w"}}}}}
    return json.dumps({**doc, **fields}).encode()


def submit(who, tenant=None, **fields):
    code, answer = task_call("SubmitTask", who, tenant, document=document(**fields.pop("doc", {})), **fields)
    assert code == grpc.StatusCode.OK, answer
    return answer.id


def ended(who, task):
    code, answer = task_call("GetTask", who, id=task, wait={"seconds": LIMIT_S})
    assert code == grpc.StatusCode.OK, answer
    return answer.task


def await_reason(who, task, reason, or_runs=False):
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        steps = task_call("DescribeTask", who, id=task)[1].steps
        if any(reason in step.reason or (or_runs and step.status == types.STEP_STATUS_RUNNING) for step in steps):
            return True
        time.sleep(0.05)
    return False


BY_ID = {"GetTask": {}, "DescribeTask": {}, "WatchTask": {}, "GetOutput": {}, "GetLogs": {"step": "say"}, "Explain": {}, "CancelTask": {},
         "PauseTask": {}, "ResumeTask": {}, "RetryTask": {}, "ForkTask": {}, "ApproveStep": {"step": "ask", "approve": True},
         "SignalTask": {"name": "go"}, "DeleteTask": {}, "CreateTaskToken": {}}


def looks_like_none(what, task):
    """Every method, with this id and with one that there never was, by the admin of another tenant."""
    missing = "t0-zzzzzz"
    wrong = []
    for name, fields in BY_ID.items():
        theirs = task_call(name, "admin-b", id=task, **fields)
        no = task_call(name, "admin-b", id=missing, **fields)
        if theirs[0] != no[0] or str(theirs[1]).replace(task, "ID") != str(no[1]).replace(missing, "ID") or theirs[0] != NONE:
            wrong.append((name, theirs, no))
    batch = task_call("BatchGetTasks", "admin-b", ids=[task])[1].tasks[0]
    if batch.status or batch.name:
        wrong.append(("BatchGetTasks", batch))
    none(f"another tenant's task, {what}, is like none to {len(BY_ID) + 1} methods", wrong)


def all_asleep():
    """Until every task that waits has left memory."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        connection, answer = ask("GET", "/metrics", "admin-all")
        text = answer.read().decode()
        connection.close()
        n_asleep, n_waiting = (int(re.search("^" + re.escape(name) + r" (\d+)", text, re.M).group(1))
                               for name in ("cox_tasks_asleep", 'cox_tasks{status="WAITING"}'))
        if n_asleep == n_waiting > 0:
            return True
        time.sleep(0.05)
    return False


def tenants():
    quick = submit("admin-a", doc={"labels": {"secret": "s"}})
    ended("admin-a", quick)
    waiting = submit("admin-a", doc={"steps": {"ask": {"approval": {"prompt": "well?"}}}})
    busy = submit("admin-a", doc={"steps": {"say": {"run": {"argv": ["sleep", "600"]}}}})
    end = time.monotonic() + LIMIT_S
    while task_call("GetTask", "admin-a", id=busy)[1].task.status != 2 and time.monotonic() < end:
        time.sleep(0.05)
    looks_like_none("running", busy)
    looks_like_none("ended", quick)
    report("what only waits falls asleep", all_asleep(), waiting)
    looks_like_none("asleep", waiting)
    none("and nothing happened to them", [t for t, s in ((quick, 5), (busy, 2), (waiting, 3))
                                          if task_call("GetTask", "admin-a", id=t)[1].task.status != s])
    mine = submit("admin-b")
    ended("admin-b", mine)
    lists = {who: [t.id for t in task_call("ListTasks", who)[1].tasks] for who in ("reader-a", "reader-b")}
    report("lists have only theirs", mine in lists["reader-b"] and quick in lists["reader-a"] and not
           set(lists["reader-a"]) & set(lists["reader-b"]), lists)
    first = task_call("ListTasks", "reader-a", page_size=1)[1]
    page_two = task_call("ListTasks", "reader-b", page_token=first.next_page_token)[1]
    none("a page token of another tenant leads to no task of theirs", [t.id for t in page_two.tasks if t.tenant != "beta"])
    by_label = task_call("ListTasks", "reader-b", labels={"secret": "s"})[1]
    none("nor does a label", list(by_label.tasks))
    keys = {tenant: task_call("SubmitTask", "admin-" + tenant, document=document(), key="same")[1] for tenant in ("a", "b")}
    report("an idempotency key is one's own", keys["a"].id != keys["b"].id and not keys["b"].existed, keys)
    seen = task_call("ListTasks", "both", "beta")[1].tasks
    report("an identity of two tenants sees the one that it names", {t.tenant for t in seen} == {"beta"}, seen)
    kept()
    queue_of_others()
    statistics()
    task_call("CancelTask", "admin-a", id=busy)
    return quick, waiting


def kept():
    post = [status("POST", "/api/v1/templates", "operator-a", {"api_version": "v1", "kind": "template", "name": "tpl",
                                                             "steps": {"a": {"run": {"argv": ["true"]}}}}),
            status("POST", "/api/v1/schedules", "submitter-a", {"api_version": "v1", "kind": "schedule", "name": "sch",
                                                              "schedule": {"cron": "0 0 1 1 *"},
                                                              "steps": {"a": {"run": {"argv": ["true"]}}}})]
    report("a template and a schedule are kept", post == [200, 200], post)
    seen = [status(verb, f"/api/v1/{kind}/{name}", "admin-b") for kind, there, no in (("templates", "tpl@1", "none@1"),
            ("schedules", "sch", "none")) for name in (there, no) for verb in ("GET", "DELETE")]
    report("templates and schedules of another tenant are like none", set(seen) == {404}, seen)


def queue_of_others():
    theirs = [submit("submitter-a", doc={"steps": {"say": {"run": {"argv": ["sleep", "600"]}}}}) for _ in range(7)]
    placed = all(await_reason("reader-a", task, "busy", or_runs=True) for task in theirs)
    report("steps of a tenant take all slots and wait for more", placed)
    seen = ""
    end = time.monotonic() + LIMIT_S
    while "before it" not in seen and time.monotonic() < end:  # one that was offered a slot and lost it again is the first
        mine = submit("submitter-b")
        await_reason("reader-b", mine, "busy")
        seen = str(task_call("Explain", "reader-all", "beta", id=mine)[1])
    told = [str(task_call("Explain", "reader-b", None, id=mine, **more)[1]) for more in ({}, {"step": "say"})]
    report("how many of others' wait before it is told to who may see all, and to no one else",
           "before it" in seen and all("busy" in text and "before it" not in text for text in told), repr((seen, told)))
    for task in theirs:
        task_call("CancelTask", "admin-a", id=task)
    ended("submitter-b", mine)


def statistics():
    method = next(m for m in METHODS if m.name == "GetStats")
    samples = call(method, "reader-b")[1].samples
    none("statistics: a reader of one tenant sees nothing of others", [s for s in samples if s.labels.get("tenant") != "beta"])
    whole = call(method, "reader-all")[1].samples
    report("statistics: a reader of all sees all", len(whole) > 20, len(whole))
    waiting = {"steps": {"say": {"run": {"argv": ["true"]}, "requires": "where == nowhere"}}}
    for i in range(205):
        submit("admin-all", f"crowd-{i}", doc=waiting)
    samples = call(method, "reader-other")[1].samples
    none("what many tenants have together is shown to none, whatever its name",
         [s for s in samples if s.labels.get("tenant") == "other"])
    together = {s.labels["tenant"]: s.value for s in call(method, "reader-all")[1].samples if "other" in s.labels.get("tenant", "")}
    report("control: it is shown to who sees all", sum(together.values()) > 0, together)
    method = next(m for m in METHODS if m.name == "GetHistory")
    request = message_class(method.input_type)(metric="cox_queue_depth")
    series = call(method, "reader-b", request=request)[1].series
    none("history: a reader of one tenant sees nothing of others", [s for s in series if s.labels.get("tenant") != "beta"])


def put(who, data, tenant=None, only_hash=False):
    name = "sha256:" + hashlib.sha256(data).hexdigest()
    method = next(m for m in METHODS if m.name == "PutBlob")
    request = blobs.PutBlobRequest(hash=name, size=len(data), data=b"" if only_hash else data)
    return name, call(method, who, tenant, request)


def get_blob(who, name):
    method = next(m for m in METHODS if m.name == "GetBlob")
    return call(method, who, None, blobs.GetBlobRequest(hash=name))


def guessed_blobs():
    secret = b'"' + b"alpha's secret " * 2000 + b'"'
    name, seen = put("submitter-a", secret)
    missing = "sha256:" + "0" * 64
    theirs, no = get_blob("admin-b", name), get_blob("admin-b", missing)
    report("a guessed blob of another tenant is like none", theirs[0] == no[0] == NONE and
           theirs[1].replace(name, "H") == no[1].replace(missing, "H"), (seen, theirs, no))
    report("its own tenant has it", get_blob("reader-a", name)[0] == grpc.StatusCode.OK)
    seen = put("submitter-b", secret, only_hash=True)[1]
    report("who has the hash alone cannot say that it is there", seen[0] == grpc.StatusCode.INVALID_ARGUMENT, seen)
    task = submit("submitter-b", doc={"inputs": {"x": {"type": "object", "default": {"$blob": name}}}, "steps": {"say": {"run": {
        "argv": ["cat"], "stdin": "${{ inputs.x }}"}}}})
    seen = ended("submitter-b", task)
    report("a step of another tenant cannot refer to it", seen.status == 6 and get_blob("admin-b", name)[0] == NONE, seen)
    task = submit("submitter-b", doc={"steps": {"say": {"run": {"argv": ["echo", json.dumps({"$blob": name})], "output": "json"}}}})
    ended("submitter-b", task)
    seen = task_call("GetOutput", "submitter-b", id=task, step="say")
    report("nor can its output claim it", b"secret" not in seen[1].json and get_blob("admin-b", name)[0] == NONE, seen)
    large = submit("submitter-a", doc={"steps": {"say": {"run": {"argv": ["sh", "-c", "head -c 300000 /dev/zero | tr '\\0' a"]}}}})
    ended("submitter-a", large)
    found = re.findall(r"sha256:[0-9a-f]{64}", str(task_call("DescribeTask", "submitter-a", id=large)[1]))
    mine = [get_blob("reader-a", h)[0] for h in found]
    none("stored values of another tenant are not to be had by their hash",
         [(h, m) for h, m in zip(found, mine) if m != grpc.StatusCode.OK or get_blob("admin-b", h)[0] != NONE] or
         ([] if found else ["no hash was seen"]))
    space = hashlib.sha256(b"coxswain tenant" + b"alpha").digest()
    keys = ["sha256:" + hashlib.sha256(b"coxswain value" + space + bytes.fromhex(h[7:])).hexdigest() for h in found]
    none("nor by the key of its row, which their hash and name make, from the default tenant",
         [(k, get_blob("reader-all", k)) for k in keys if get_blob("reader-all", k)[0] != NONE])
    name, seen = put("submitter-b", secret)
    report("the same bytes stored anew are one's own", get_blob("reader-b", name)[0] == grpc.StatusCode.OK and
           not seen[1].existed, seen)


# ---- tokens of tasks ----

def approvals():
    asks = {"prompt": "?", "approvers": ["user:submitter-a", "role:approver"]}
    task = submit("submitter-a", doc={"steps": {step: {"approval": asks} for step in ("one", "two")}})
    await_reason("reader-a", task, "approval")
    for who in ("admin-a", "admin-all"):
        seen = task_call("ApproveStep", who, "alpha", id=task, step="one", approve=True)
        report(f"an approval that does not name {who} is not its to answer",
               seen[0] == NOT_ALLOWED and 'for ["user:submitter-a","role:approver"]' in str(seen[1]), seen)
    seen = task_call("ApproveStep", "approver-b", id=task, step="one", approve=True)
    report("an approver of another tenant finds none", seen[0] == NONE, seen)
    for step, who in (("one", "approver-a"), ("two", "both")):
        seen = task_call("ApproveStep", who, "alpha", id=task, step=step, approve=True)
        report(f"control: {who} has the role that it names", seen[0] == grpc.StatusCode.OK, seen)
    seen = json.loads(task_call("GetOutput", "reader-a", id=task, step="two")[1].json)
    report("the answer says whose it is", seen["by"] == "both", seen)


def task_tokens(task, other):
    code, answer = task_call("CreateTaskToken", "reader-a", id=task)
    report("a reader makes a token of a task", code == grpc.StatusCode.OK and answer.token.startswith("coxt_"), answer)
    TOKENS["task"] = answer.token
    allowed = {"GetTask", "DescribeTask", "WatchTask", "GetOutput", "GetLogs"}
    wrong = [(m.full_name, seen) for m in METHODS if m.name not in allowed and (m.containing_service.name, m.name) not in ANYBODY
             for seen in [call(m, "task")] if seen[0] not in (NOT_ALLOWED, NOT_SERVED)]
    none("it may call nothing but five methods", wrong)
    wrong = [(name, seen) for name in allowed for seen in [task_call(name, "task", id=task, **BY_ID[name])]
             if seen[0] != grpc.StatusCode.OK]
    none("those it may call, of its task", wrong)
    wrong = [(name, seen) for name in allowed for seen in [task_call(name, "task", id=other, **BY_ID[name])] if seen[0] != NONE]
    none("another task of the tenant is like none to it", wrong)
    none("it may say no other tenant", [s for s in [task_call("GetTask", "task", "beta", id=task)] if s[0] != NOT_ALLOWED])
    payload, mac = answer.token[5:].split(".")
    wider = payload[:2] + f"{1:016x}" + payload[18:]
    seen = task_call("GetTask", f"coxt_{wider}.{mac}", id="t0-000001")
    report("one with another task written into it is none", seen[0] == NO, seen)
    seen = [task_call("CreateTaskToken", "reader-a", id=task, expires_in={"seconds": s})[0] for s in (0, 90000, -1)]
    none("it lives for more than nothing and for a day at most", [s for s in seen if s != grpc.StatusCode.INVALID_ARGUMENT])
    connection, answer = ask("GET", f"/api/v1/tasks/{task}/events", "task")
    body = answer.read(2000)
    connection.close()
    report("over HTTP as well", answer.status == 200 and task.encode() in body, (answer.status, body))


# ---- pages of other sites ----

def cors():
    good, bad = "https://app.example.com", "https://evil.example.com"
    ask_first = [("Access-Control-Request-Method", "GET"), ("Access-Control-Request-Headers", "authorization,cox-tenant")]
    found = {}
    for origin in (good, bad, good + ".evil.com", "null", good.replace("https", "http")):
        connection, answer = ask("OPTIONS", "/api/v1/tasks", headers=[("Origin", origin), *ask_first])
        found[origin] = (answer.status, answer.getheader("Access-Control-Allow-Origin"),
                         (answer.getheader("Access-Control-Allow-Headers") or "").lower(), answer.getheader("Vary"),
                         answer.getheader("Access-Control-Allow-Credentials"))
        connection.close()
    seen = found.pop(good)
    report("a page of a listed origin may ask, by token alone", seen[1] == good and "authorization" in seen[2] and
           "cox-tenant" in seen[2] and "Origin" in (seen[3] or "") and seen[4] is None, seen)
    none("pages of other origins may not read", [s for s in found.items() if s[1][1] is not None or "Origin" not in (s[1][3] or "")])
    connection, answer = ask("GET", "/api/v1/tasks", headers=[("Origin", good)])
    seen = answer.status, answer.getheader("Access-Control-Allow-Origin")
    connection.close()
    report("a refusal may be read by the listed page", seen == (401, good), seen)


# ---- revoked while it streams ----

def watch_stats(who):
    """A stream of statistics that has begun."""
    method = next(m for m in METHODS if m.name == "WatchStats")
    path = f"/{method.containing_service.full_name}/{method.name}"
    rpc = CHANNEL.unary_stream(path, request_serializer=lambda m: m.SerializeToString(),
                               response_deserializer=message_class(method.output_type).FromString)
    stream = rpc(message_class(method.input_type)(), metadata=[("authorization", "Bearer " + TOKENS[who])], timeout=LIMIT_S)
    next(iter(stream))
    return stream


def end_of(stream):
    try:
        for _ in stream:
            pass
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def revoked_streams():
    stream = watch_stats("narrowed")
    change_row("narrowed", lambda row: re.sub(r"tenants: .*", "tenants: [default]", row))
    code = end_of(stream)
    report("a stream of a token that had all tenants and keeps one ends, UNAUTHENTICATED", code == NO, code)
    stream = watch_stats("stream")
    connection, answer = ask("GET", "/api/v1/stats/events", "stream")
    answer.readline()
    rest = []
    reader = threading.Thread(target=lambda: rest.append(answer.read()))
    reader.start()
    revoke("stream")
    code = end_of(stream)
    report("a gRPC stream of a token that is revoked ends, UNAUTHENTICATED", code == NO, code)
    reader.join(LIMIT_S)
    report("so does a reader of events", bool(rest) and b"UNAUTHENTICATED" in rest[0], rest)
    connection.close()


def main():
    revoke("revoked")
    report("a token that was taken out of the file is refused", await_no("revoked"))
    every_method()
    every_path()
    garbage()
    smuggling()
    quick, waiting = tenants()
    guessed_blobs()
    approvals()
    task_tokens(quick, waiting)
    cors()
    revoked_streams()
    return 1 if FAILED else 0


try:
    CODE = main()
except Exception as broken:  # a line of its own, or the script would only break off
    report(f"identities.py runs to its end: {type(broken).__name__}: {broken}"[:300].replace("\n", " "), False, "")
    CODE = 1
sys.exit(CODE)

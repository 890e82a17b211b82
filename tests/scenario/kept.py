"""The services of kept things over gRPC, with generated messages and no code of ours.

usage: kept.py ADDRESS     (PYTHONPATH has what protoc made of proto/)

Prints lines as tests/README.md says; exits 1 after a "not ok".
"""
import json
import sys

import grpc
from coxswain.v1 import schedule_service_pb2 as schedules
from coxswain.v1 import template_service_pb2 as templates
from google.rpc import error_details_pb2, status_pb2

FAILED = []


def report(name, good, detail=""):
    if not good:
        FAILED.append(name)
        print(detail)
    print(("ok " if good else "not ok ") + name)


def service(channel, module, name):
    def method(m):
        request = getattr(module, m + "Request")
        response = getattr(module, m + "Response")
        call = channel.unary_unary(f"/coxswain.v1.{name}/{m}", request_serializer=request.SerializeToString,
                                   response_deserializer=response.FromString)
        return lambda **fields: call(request(**fields), timeout=20)
    return method


def violations(error):
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                bad = error_details_pb2.BadRequest()
                if detail.Unpack(bad):
                    return {v.field: v.description for v in bad.field_violations}
    return {}


def refused(name, code, call, field=None, words=""):
    try:
        answer = call()
    except grpc.RpcError as error:
        found = violations(error)
        good = error.code() == code and words in error.details() and (field is None or field in found)
        report(name, good, f"{error.code()}: {error.details()}; {found}")
    else:
        report(name, False, f"answered {answer}")


def document(kind, name, **fields):
    doc = {"api_version": "v1", "kind": kind, "name": name, "steps": {"a": {"run": {"argv": ["true"]}}}}
    return json.dumps({**doc, **fields}).encode()


def schedule(name="s", **fields):
    return document("schedule", name, schedule={"cron": "0 3 * * *", **fields})


def check_templates(call):
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    refused("template: an empty document", invalid, lambda: call("ApplyTemplate")(document=b""))
    refused("template: broken JSON", invalid, lambda: call("ApplyTemplate")(document=b"{"), field="")
    refused("template: a step that is wrong, by its place", invalid,
            lambda: call("ApplyTemplate")(document=document("template", "t", steps={"a": {"run": {}}})),
            field="steps.a.run.argv")
    refused("template: a document of another kind", invalid,
            lambda: call("ApplyTemplate")(document=document("task", "t")), field="kind")
    names = ["k%02d" % i for i in range(25)]
    for name in names:
        call("ApplyTemplate")(document=document("template", name))
    call("ApplyTemplate")(document=document("template", "k03", version=2))
    first = call("GetTemplate")(ref="k03@1").template
    again = call("ApplyTemplate")(document=document("template", "k03")).template
    report("template: the same again changes nothing", first.updated_at == again.updated_at, f"{first} {again}")
    report("template: without a major, the highest", call("GetTemplate")(ref="k03").template.major == 2)
    report("template: with one, that", call("GetTemplate")(ref="k03@1").template.major == 1)
    seen, token, pages = [], "", 0
    while pages == 0 or token:
        page = call("ListTemplates")(page_size=10, page_token=token)
        seen += [f"{t.name}@{t.major}" for t in page.templates if t.name.startswith("k")]
        bare = all(not t.document for t in page.templates)
        report(f"template: page {pages} has no documents", bare)
        token, pages = page.next_page_token, pages + 1
    expected = sorted([n + "@1" for n in names] + ["k03@2"])
    report("template: the pages have each once, in order", seen == expected, f"{seen}")
    refused("template: a page token of ours only", invalid, lambda: call("ListTemplates")(page_token="../x"))
    refused("template: delete wants a major", invalid, lambda: call("DeleteTemplate")(ref="k00"))
    refused("template: a name that cannot be", invalid, lambda: call("GetTemplate")(ref="K 0"))
    for name in names:
        call("DeleteTemplate")(ref=name + "@1")
    missing = grpc.StatusCode.NOT_FOUND
    refused("template: deleted is gone", missing, lambda: call("GetTemplate")(ref="k00@1"), words="k00@1")
    refused("template: and cannot be deleted again", missing, lambda: call("DeleteTemplate")(ref="k00@1"), words="k00@1")
    report("template: its other major stays", call("GetTemplate")(ref="k03").template.major == 2)


def check_schedules(call):
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    for name, doc, field, words in [
            ("four fields", schedule(cron="0 3 * *"), "schedule.cron", "4 fields"),
            ("an hour too late", schedule(cron="0 24 * * *"), "schedule.cron", "expected 0-23"),
            ("a day that never comes", schedule(cron="0 0 30 2 *"), "schedule.cron", "expected a time that comes"),
            ("a zone that is not", schedule(time_zone="Mars/Olympus"), "schedule.time_zone", "Mars/Olympus"),
            ("a zone that is a path", schedule(time_zone="../../../etc/passwd"), "schedule.time_zone", "etc/passwd"),
            ("a zone that is a folder", schedule(time_zone="Europe"), "schedule.time_zone", "Europe"),
            ("a zone that is no zone", schedule(time_zone="zone1970.tab"), "schedule.time_zone", "zone1970"),
            ("a zone with leap seconds", schedule(time_zone="right/UTC"), "schedule.time_zone", "right/UTC"),
            ("an overlap that is not", schedule(overlap="wait"), "schedule.overlap", "replace"),
            ("no schedule at all", document("schedule", "s"), "schedule", "")]:
        refused("schedule: " + name, invalid, lambda doc=doc: call("ApplySchedule")(document=doc), field, words)
    applied = call("ApplySchedule")(document=schedule("s1", time_zone="Asia/Kathmandu")).schedule
    at = applied.next_run_at.ToDatetime()
    report("schedule: 03:00 in Kathmandu is 21:15 UTC", (at.hour, at.minute) == (21, 15), str(at))
    again = call("ApplySchedule")(document=schedule("s1")).schedule
    report("schedule: applied again, it follows the new document", again.next_run_at.ToDatetime().hour == 3, str(again))
    for i in range(2, 6):
        call("ApplySchedule")(document=schedule(f"s{i}"))
    seen, token = [], ""
    while not seen or token:
        page = call("ListSchedules")(page_size=2, page_token=token)
        seen += [s.name for s in page.schedules]
        token = page.next_page_token
    report("schedule: the pages have each once, in order", seen == sorted(set(seen)) and {"s1", "s5"} <= set(seen),
           f"{seen}")
    call("DeleteSchedule")(name="s1")
    refused("schedule: deleted is gone", grpc.StatusCode.NOT_FOUND, lambda: call("GetSchedule")(name="s1"), words="s1")
    refused("schedule: and cannot be deleted again", grpc.StatusCode.NOT_FOUND,
            lambda: call("DeleteSchedule")(name="s1"), words="s1")
    report("schedule: others stay", call("GetSchedule")(name="s2").schedule.document == schedule("s2"))


def main(address):
    with grpc.insecure_channel(address) as channel:
        check_templates(service(channel, templates, "TemplateService"))
        check_schedules(service(channel, schedules, "ScheduleService"))
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

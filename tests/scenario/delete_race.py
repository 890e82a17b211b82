"""Retries ended tasks and deletes them at the same moment: one of the two is refused, for a task that was promised to
run again must not be forgotten.

usage: delete_race.py HTTP_ADDRESS DIR     (tasks fail while DIR/again is missing, and then last until DIR/over is there)

Prints lines as tests/README.md says; exits 1 after a "not ok".
"""
import http.client
import json
import pathlib
import sys
import threading

N = 40
SCRIPT = "test -e {0}/again || exit 1; while [ ! -e {0}/over ]; do sleep 0.1; done"


def call(address, method, path, body=None, answers=None, key=None):
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request(method, "/api/v1" + path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read()
    if answers is not None:
        answers[key] = response.status
    return response.status, json.loads(text) if text else {}


def submit(address, folder):
    document = {"api_version": "v1", "name": "race",
                "steps": {"a": {"run": {"argv": ["sh", "-c", SCRIPT.format(folder)]}}}}
    status, answer = call(address, "POST", "/tasks", json.dumps(document))
    assert status in (200, 201, 202), answer
    return answer.get("id") or answer["task"]["id"]


def both_at_once(address, task):
    answers = {}
    threads = [threading.Thread(target=call, args=(address, "POST", f"/tasks/{task}:retry", "{}", answers, "retry")),
               threading.Thread(target=call, args=(address, "DELETE", f"/tasks/{task}", None, answers, "delete"))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return answers["retry"] == 200, answers["delete"] == 200


def main(address, folder):
    tasks = [submit(address, folder) for _ in range(N)]
    for task in tasks:
        call(address, "GET", f"/tasks/{task}?wait=30s")
    (pathlib.Path(folder) / "again").touch()
    outcomes = [(task, *both_at_once(address, task)) for task in tasks]
    (pathlib.Path(folder) / "over").touch()
    bad = [task for task, retried, deleted in outcomes if retried and deleted]
    for task, retried, _ in outcomes:
        if retried:
            _, answer = call(address, "GET", f"/tasks/{task}?wait=60s")
            if not answer.get("task", answer).get("status", "").endswith("SUCCEEDED"):
                bad.append(task)
    n_retried = sum(retried for _, retried, _ in outcomes)
    print(f"# {n_retried} retried, {sum(d for _, _, d in outcomes)} deleted of {N}")
    if bad:
        print(f"not ok a task is retried or deleted, never both\n# {sorted(set(bad))}")
        sys.exit(1)
    print("ok a task is retried or deleted, never both")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

#!/usr/bin/env python3
"""coxd on a disk that loses power: load on a file system whose every write is logged, then the disk as it would have
been at many moments, each opened by coxd and compared with what had been acknowledged by then.

usage: power_loss.py BUILD FOLDER IMAGES SEED

Prints result lines for scripts/test. Exits 1 after a "not ok".
"""
import hashlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.parse

import block_log

DISK_MIB = 512
SESSIONS = 3  # each begins on what a cut of the one before left
CLIENTS = 4
TASKS = 40 if os.environ.get("COX_TEST_LONG") else 15  # of each client and session
IMAGES_MAX = 60  # of one session
RESULT_LEN = 100
LIMIT_S = 60


class Http:
    """One connection; any answer but 2xx is an error unless it is expected."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.connection = http.client.HTTPConnection(host, int(port), timeout=LIMIT_S)

    def call(self, method, path, body=None, allowed=()):
        headers = {}
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            headers["Content-Type"] = "application/json"
        self.connection.request(method, path, body=body, headers=headers)
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.status // 100 != 2 and answer.status not in allowed:
            raise OSError(f"{method} {path}: {answer.status} {data[:300]!r}")
        return answer.status, data

    def get(self, path):
        return json.loads(self.call("GET", path)[1])


class Coxd:
    def __init__(self, build, folder, data, *flags):
        self.log = open(f"{folder}/coxd.log", "ab")
        ready = f"{folder}/coxd.ready"
        if os.path.exists(ready):
            os.unlink(ready)
        self.process = subprocess.Popen(
            [f"{build}/coxd", "--data-dir", data, "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--ready-file",
             ready, "--min-free", "0", *flags], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        try:
            block_log.await_event("coxd", lambda: os.path.exists(ready) and os.stat(ready).st_size > 0, self.process, LIMIT_S)
        except BaseException:  # also when asked to stop
            self.kill()
            raise
        with open(ready, encoding="utf-8") as f:
            said = json.load(f)
        self.grpc, self.http = said["grpc"], said["http"]

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


def chain(n):
    steps = {"s1": {"uses": "noop@1"}}
    for i in range(2, n + 1):
        steps[f"s{i}"] = {"uses": "noop@1", "with": {"prev": "${{ steps.s%d.output }}" % (i - 1)}}
    return {"document": {"api_version": "v1", "name": "chain", "steps": steps,
                         "outputs": {"last": "${{ steps.s%d.output }}" % n}}}


def echo(value):
    """Above 4 KiB a value is a payload, above 1 MiB a file of its own."""
    return {"document": {"api_version": "v1", "name": "echo", "inputs": {"x": {"type": "string"}},
                         "steps": {"s1": {"uses": "noop@1"}}, "outputs": {"x": "${{ inputs.x }}"}},
            "inputs": {"x": value}}


def text(rng, length):
    return "".join(rng.choices("abcdefghijklmnop", k=64)) * (length // 64)


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def blob_path(blob):
    return "/api/v1/blobs/" + urllib.parse.quote(blob, safe="")


class Promises:
    """What was acknowledged, each with how far the disk's log had come when that was known."""

    def __init__(self, position):
        self.position = position
        self.ended_at = 0  # the last cut that was looked at
        self.mutex = threading.Lock()
        self.said = []  # (position, kind, what, detail)
        self.unsynced = []  # (position, file): promised by nobody

    def note(self, kind, what, detail=None):
        at = self.position()
        with self.mutex:
            self.said.append((at, kind, what, detail))

    def by(self, end):
        """What holds at a cut there: task -> output or None, blobs, deleted tasks, tasks whose end was asked for."""
        tasks, blobs, deleted, asked = {}, {}, set(), set()
        for at, kind, what, detail in self.said:
            if kind == "asked":  # whenever: the answer may have been under way
                asked.add(what)
            if at > end:
                continue
            if kind == "task":
                tasks.setdefault(what, None)
            elif kind == "ended":
                tasks[what] = detail
            elif kind == "blob":
                blobs[what] = detail
            elif kind == "deleted":
                deleted.add(what)
        return {t: o for t, o in tasks.items() if t not in asked}, blobs, deleted

    def since(self, end, position):
        """For the session that begins on what a cut at `end` left."""
        later = Promises(position)
        later.said = [(0, kind, what, detail) for at, kind, what, detail in self.said if at <= end or kind == "asked"]
        return later


def ended(view):
    return {key: view[key] for key in ("status", "outputs", "finished_at")}


def client(address, promises, seed, n_tasks, failures):
    rng = random.Random(seed)
    try:
        api = Http(address)
        for i in range(n_tasks):
            dice = rng.random()
            if dice < 0.06:
                blob = text(rng, rng.randrange(1 << 20, 3 << 20)).encode()
                api.call("PUT", blob_path(sha(blob)), blob)
                promises.note("blob", sha(blob), len(blob))
                continue
            size = rng.choice([6000, 6000, 100000, 1500000])
            task = echo(text(rng, size)) if dice < 0.25 else chain(rng.randrange(1, 6))
            task_id = json.loads(api.call("POST", "/api/v1/tasks", task)[1])["id"]
            promises.note("task", task_id)
            view = api.get(f"/api/v1/tasks/{task_id}?wait={LIMIT_S}s")["task"]
            if view["status"] != "SUCCEEDED":
                raise OSError(f"{task_id}: {view}")
            promises.note("ended", task_id, ended(view))
            if rng.random() < 0.1:
                promises.note("asked", task_id)
                api.call("DELETE", f"/api/v1/tasks/{task_id}")
                promises.note("deleted", task_id)
    except (OSError, KeyError, ValueError, http.client.HTTPException) as e:
        failures.append(f"{type(e).__name__}: {e}")


def load(build, folder, disk, promises, rng):
    """A session: until all clients are through. Where in the disk's log coxd was ready."""
    coxd = Coxd(build, folder, f"{disk.mount.at}/data", "--checkpoint-bytes", rng.choice(["32Ki", "128Ki", "512Ki"]))
    begun = disk.position()
    worker = subprocess.Popen([f"{build}/cox-bench", "worker", "--orchestrator", coxd.grpc, "--id", "w1", "--result-len",
                               str(RESULT_LEN)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        await_load(coxd.http, promises, rng, disk.mount.at)
    finally:
        worker.kill()
        worker.wait()
        coxd.kill()
    return begun


def await_load(address, promises, rng, folder):
    failures = []
    threads = [threading.Thread(target=client, args=(address, promises, rng.random(), TASKS, failures))
               for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    n = 0
    while any(thread.is_alive() for thread in threads):
        name = f"unsynced-{n}"  # promised by nobody
        with open(f"{folder}/{name}", "wb") as f:
            f.write(b"x" * 5000)
        promises.unsynced.append((promises.position(), name))
        threads[0].join(0.05)
        n += 1
    if failures:
        raise OSError(failures[0])


class Checker:
    def __init__(self, build, folder):
        self.build, self.folder = build, folder
        self.image = f"{folder}/image"
        self.n_images = self.n_lost = self.n_torn = self.n_unsynced = self.n_promises = self.n_gone = 0
        self.took_s = 0.0
        self.bad = []

    def verify(self, data):
        done = subprocess.run([f"{self.build}/coxd", "--verify", "--data-dir", data], check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return [] if done.returncode == 0 else [f"coxd --verify: {done.stdout.strip()[:300]}"]

    def read(self, api, promises, end):
        tasks, blobs, deleted = promises.by(end)
        bad = []
        ids = sorted(tasks)
        for i in range(0, len(ids), 50):
            part = ids[i:i + 50]
            views = {view["id"]: view for view in
                     api.get("/api/v1/tasks:batch?" + urllib.parse.urlencode([("id", t) for t in part]))["tasks"]
                     if view["status"] != "UNSPECIFIED"}
            bad += [f"task {t} is gone" for t in part if t not in views]
            bad += [f"task {t} had ended as {str(tasks[t])[:80]}, and is {str(ended(views[t]))[:80]}"
                    for t in part if t in views and tasks[t] and ended(views[t]) != tasks[t]]
        for blob, size in blobs.items():
            status, data = api.call("GET", blob_path(blob), None, (404,))
            if status != 200 or sha(data) != blob:
                bad.append(f"blob {blob} of {size} bytes: {status}, {len(data)} bytes")
        for t, end_of in tasks.items():
            value = (end_of or {}).get("outputs") or {}
            if isinstance(value.get("x"), dict):  # {"$blob": HASH}: the file must be there
                status, data = api.call("GET", blob_path(value["x"]["$blob"]), None, (404,))
                if status != 200 or sha(data) != value["x"]["$blob"]:
                    bad.append(f"the output of task {t}: {status}, {len(data)} bytes")
        bad += [f"task {t} was deleted, and is there again" for t in deleted
                if api.call("GET", f"/api/v1/tasks/{t}", None, (404,))[0] != 404]
        self.n_promises += len(tasks) + len(blobs) + len(deleted)
        return bad

    def look(self, promises, end):
        mount = block_log.Mount(self.image, f"{self.folder}/image.mnt")
        try:
            data = f"{mount.at}/data"
            bad = self.verify(data)
            self.n_gone += sum(not os.path.exists(f"{mount.at}/{name}") or not os.path.getsize(f"{mount.at}/{name}")
                               for at, name in promises.unsynced if at <= end)
            if not bad:
                coxd = Coxd(self.build, self.folder, data)
                try:
                    bad = self.read(Http(coxd.http), promises, end)
                finally:
                    coxd.kill()
        except (OSError, http.client.HTTPException) as e:
            bad = [f"{type(e).__name__}: {e}"]
        finally:
            mount.close()
        return bad

    def check(self, replay, n, seed, session, promises):
        end = replay.entries[n - 1].end
        begun = time.monotonic()
        lost, torn, unsynced = replay.cut(n, self.image, random.Random(seed))
        bad = self.look(promises, end)
        self.took_s += time.monotonic() - begun
        self.n_images += 1
        self.n_lost += lost
        self.n_torn += torn
        self.n_unsynced += unsynced
        for line in bad[:5]:
            print(f"    session {session}, cut after write {n} of {len(replay.entries)}, image seed {seed}"
                  f" ({lost} of {unsynced} unsynced writes lost, {torn} torn): {line}", flush=True)
        self.bad += bad
        return end


def choose(entries, begun, n, rng):
    """Moments, as numbers of writes done: half of them any, half just before a flush that has much to do."""
    first = next(i + 1 for i, entry in enumerate(entries) if entry.end >= begun)
    flushes = [i for i, entry in enumerate(entries) if entry.flags & block_log.FLUSH and i > first]
    busy = sorted(zip((b - a for a, b in zip(flushes, flushes[1:])), flushes[1:]), reverse=True)
    full = [at for _, at in busy[:max(len(busy) // 4, 1)]]
    return sorted(rng.choice(full) if i % 2 and full else rng.randrange(first, len(entries) + 1) for i in range(n))


def one_session(build, folder, session, n_images, promises, checker, rng):
    """Begins on folder/disk and leaves there what a cut left of it. What is promised then."""
    disk_file, before, log = f"{folder}/disk", f"{folder}/before", f"{folder}/log"
    block_log.run("cp", "--sparse=always", disk_file, before)
    disk = block_log.LoggedDisk(disk_file, log, folder)
    try:
        promises = promises.since(promises.ended_at, disk.position)
        begun = load(build, folder, disk, promises, rng)
    finally:
        disk.close()
    replay = block_log.Replay(log, before)
    moments = choose(replay.entries, begun, n_images, rng)
    for n in moments:
        promises.ended_at = checker.check(replay, n, rng.getrandbits(32), session, promises)
    # The next session begins on one more cut, at the last of these moments.
    replay.cut(moments[-1], disk_file, rng)
    replay.close()
    return promises


def main(build, folder, n_images, seed):
    reason = block_log.why_not(folder)
    if reason:
        print(f"skip power-loss {reason}")
        return 0
    rng = random.Random(seed)
    checker = Checker(build, folder)
    promises = Promises(lambda: 0)
    block_log.self_check()
    block_log.make_disk(f"{folder}/disk", DISK_MIB)
    n_sessions = 0
    while checker.n_images < n_images:
        if n_sessions % SESSIONS == 0:
            promises = Promises(lambda: 0)
            block_log.make_disk(f"{folder}/disk", DISK_MIB)
        share = min(max(n_images // SESSIONS, 1), IMAGES_MAX, n_images - checker.n_images)
        try:
            promises = one_session(build, folder, n_sessions % SESSIONS, share, promises, checker, rng)
        except OSError as e:
            print(f"    session {n_sessions % SESSIONS}: {e}\nnot ok a session runs to its end")
            return 1
        n_sessions += 1
    print(f"{checker.n_images} images of {n_sessions} sessions, {checker.took_s / checker.n_images:.2f} s each: {checker.n_lost} of {checker.n_unsynced}"
          f" unsynced writes lost, {checker.n_torn} torn; {checker.n_promises} promises looked up")
    word = "not ok" if checker.bad else "ok"
    print(f"{word} nothing acknowledged is lost when the power goes")
    word = "ok" if checker.n_gone else "not ok"
    print(f"{word} but what nobody synced is ({checker.n_gone} files)")
    return 1 if checker.bad or not checker.n_gone else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is mounted is unmounted
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))

#!/usr/bin/env python3
"""Peers that are slow, silent, deaf or gone: what peers.sh sets upon coxd, all at once.

usage: peers.py GRPC HTTP TASK BIG SECONDS [FACTOR]

TASK is a task with many events, BIG one with a large output. Prints "ready" once all are there, goes on being a
nuisance for so long, prints how many of each coxd has still, and leaves. FACTOR multiplies how many there are.
"""
import resource
import socket
import struct
import sys
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PING = 6  # a frame's kind


# ---- HTTP/2 and protobuf, as much as it takes to be a nuisance ----

def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(window=None):
    return frame(4, 0, 0, b"" if window is None else struct.pack(">HI", 4, window))


def text(s):
    return bytes([len(s)]) + s.encode()


def headers(stream, path):
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x",
              "content-type": "application/grpc", "te": "trailers"}
    return frame(1, 4, stream, b"".join(b"\0" + text(k) + text(v) for k, v in fields.items()))


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def data(stream, message, end=False):
    return frame(0, 1 if end else 0, stream, b"\0" + struct.pack(">I", len(message)) + message)


def unary(stream, path, message):
    return headers(stream, path) + data(stream, message, True)


# ---- kinds of peers: (how many, port, first bytes, bytes a second) ----

def deaf_worker():
    """Attaches, offers room, beats, and takes nothing: the windows stay shut."""
    hello = field(1, b"deaf") + field(2, b"boot") + field(3, 1000) + field(5, b"deaf@1")
    first = PREFACE + settings(0) + headers(1, "/coxswain.v1.WorkerService/Attach")
    return first + data(1, field(1, hello) + field(5, field(1, 1000)))


def kinds(task, big):
    task = task.encode()
    watch = unary(1, "/coxswain.v1.TaskService/WatchTask", field(1, task))
    reads = b"".join(unary(1 + 2 * i, "/coxswain.v1.TaskService/GetTask", field(1, task)) for i in range(50))
    reads_much = b"".join(unary(1 + 2 * i, "/coxswain.v1.TaskService/BatchGetTasks", field(1, big.encode()) * 200)
                          for i in range(2))
    get = "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
    return {
        "grpc: says nothing": (1500, "grpc", b"", b""),
        "grpc: begins to speak, a byte a second": (200, "grpc", PREFACE[:5], PREFACE[5:6]),
        "grpc: says the preface and no more": (1000, "grpc", PREFACE, b""),
        "grpc: opens and does nothing": (500, "grpc", PREFACE + settings(), b""),
        "grpc: a request that never ends": (300, "grpc", PREFACE + settings()
                                            + headers(1, "/coxswain.v1.TaskService/GetTask") + b"\0\0\x40\0", b"\0"),
        "grpc: watches and takes nothing": (300, "grpc", PREFACE + settings(0) + watch, b""),
        "grpc: asks and asks and takes nothing": (100, "grpc", PREFACE + settings(0) + reads, b""),
        "grpc: asks for much and takes nothing": (15, "grpc", PREFACE + settings(0) + reads_much, b""),
        "grpc: pings and never reads": (100, "grpc", PREFACE + settings(), frame(6, 0, 0, b"ping-pon") * 100),
        "http: says nothing": (400, "http", b"", b""),
        "http: a head, a byte a second": (200, "http", b"GET / HTTP/1.1\r\nHost: local", b"x"),
        "http: a body, a byte a second": (200, "http", b"POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                                          b"application/json\r\nContent-Length: 1000000\r\n\r\n", b" "),
        "http: reads events and takes nothing": (100, "http", (get % f"/api/v1/tasks/{task.decode()}/events").encode(), b""),
        "http: asks for much and takes nothing": (60, "http", (get % ("/api/v1/tasks:batch?" + f"id={big}&" * 100)).encode(), b""),
    }


class Crowd:
    def __init__(self, grpc, http):
        self.addresses = {"grpc": grpc, "http": http}
        self.members = []  # [kind, socket, trickle]

    def connect(self, port, receive_len=None):
        s = socket.socket()
        if receive_len:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_len)
        s.settimeout(10)
        s.connect(self.addresses[port])
        s.setblocking(False)
        return s

    def add(self, kind, port, first, trickle):
        s = self.connect(port, 4096)
        try:
            s.send(first)
        except OSError:
            pass
        self.members.append([kind, s, trickle])
        return s

    def nag(self):
        for member in self.members:
            if member[2]:
                try:
                    member[1].send(member[2])
                except BlockingIOError:
                    pass
                except OSError:
                    member[2] = b""

    def left(self):
        """How many of each kind coxd has not ended; what it sent is thrown away here, at last."""
        counts = {}
        for kind, s, _ in self.members:
            counts.setdefault(kind, 0)
            try:
                while s.recv(1 << 20):
                    pass
            except BlockingIOError:
                counts[kind] += 1
            except OSError:
                pass
        return counts


def flood(crowd, n):
    """Connections that are reset at once, some in the middle of a word."""
    for i in range(n):
        port = ("grpc", "http")[i % 2]
        s = crowd.connect(port)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            if i % 3:
                s.send((PREFACE if port == "grpc" else b"GET / HTTP/1.1\r\n")[:5 + i % 40])
        except OSError:
            pass
        s.close()


def vanish(crowd, n):
    """Ends without a word: needs CAP_NET_ADMIN, else they are reset."""
    for i in range(n):
        s = crowd.connect("grpc")
        s.send(PREFACE + settings())
        try:
            s.setsockopt(socket.IPPROTO_TCP, 19, 1)  # TCP_REPAIR
        except OSError:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()


def main(grpc, http, task, big, seconds, factor="1"):
    def address(s):
        return s.rsplit(":", 1)[0], int(s.rsplit(":", 1)[1])
    crowd = Crowd(address(grpc), address(http))
    factor = float(factor)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd.add("grpc: a worker that takes nothing", "grpc", deaf_worker(), data(1, field(8, b"")))
    for kind, (n, port, first, trickle) in kinds(task, big).items():
        for i in range(max(1, int(n * factor))):
            s = crowd.add(kind, port, first, trickle)
            if i % 10 == 9 and not trickle and first:
                s.shutdown(socket.SHUT_WR)  # half-closed
    print("ready", flush=True)
    end = time.monotonic() + float(seconds)
    vanish(crowd, int(1000 * factor))
    while time.monotonic() < end:
        crowd.nag()
        flood(crowd, 200)
        time.sleep(1)
    for kind, n in crowd.left().items():
        print(f"{n:5} left of: {kind}")
    sys.stdout.flush()


if __name__ == "__main__":
    if len(sys.argv) < 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])

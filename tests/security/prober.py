"""prober.py HOST:PORT CALLS: a client that measures its bandwidth as gRPC's of Go and Java do: it pings when data comes, and again
when that ping is acknowledged and more data has come. Makes so many calls one after the other, as fast as it can; says whether its
connection lived."""
import socket
import struct
import sys

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def field(name, value):  # a literal that is not kept
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


CALL = (b"\x83\x86" + field(b":path", b"/coxswain.v1.FleetService/ListWorkers") + field(b":authority", b"localhost")
        + field(b"te", b"trailers") + field(b"content-type", b"application/grpc"))


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    wanted = int(sys.argv[2])
    s = socket.create_connection((host, int(port)), timeout=30)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.sendall(PREFACE + frame(SETTINGS, 0, 0))
    read = s.makefile("rb")
    calls = pings = 0
    pinging = False

    def call():
        stream = 2 * calls + 1
        s.sendall(frame(HEADERS, END_HEADERS, stream, CALL) + frame(DATA, END_STREAM, stream, bytes(5)))

    try:
        call()
        while calls < wanted:
            head = read.read(9)
            if len(head) < 9:
                raise ConnectionResetError("ended")
            kind, flags = head[3], head[4]
            read.read(int.from_bytes(head[:3], "big"))
            if kind == SETTINGS and not flags & ACK:
                s.sendall(frame(SETTINGS, ACK, 0))
            elif kind == PING and flags & ACK:
                pinging = False
            elif kind == GOAWAY:
                raise ConnectionResetError("sent away")
            elif kind == DATA and not pinging:
                pinging = True
                pings += 1
                s.sendall(frame(PING, 0, 0, b"probing!"))
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                calls += 1
                call()
    except OSError as e:
        sys.exit(f"cut after {calls} calls and {pings} pings: {e}")
    print(f"whole after {calls} calls and {pings} pings")


main()

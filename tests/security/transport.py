#!/usr/bin/env python3
"""The stranger of transport.sh, on Python's own TLS.

usage: transport.py grpc ADDR DIR [NAME] [KEY=VALUE...]   prints "served" or "refused: why"
       transport.py http ADDR DIR [NAME]                  the same, of /healthz over HTTPS
       transport.py raw ADDR HEX                          what a socket without TLS hears, as text
       transport.py serial ADDR DIR                       of the certificate that the server shows
       transport.py drop ADDR DIR N                       begins N handshakes and hangs up in the middle of each
       transport.py hold ADDR N [PROTOCOL]                holds N halves of a handshake until standard input ends
       transport.py rate ADDR DIR SECONDS                 whole handshakes a second, on one thread

NAME is a certificate in DIR. Keys: ca (a file in DIR), alpn (a,b or none), max and min (a version such as 1.1), ciphers.
"""
import re
import socket
import ssl
import sys
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
PATIENCE_S = 30
VERSIONS = {"1.0": ssl.TLSVersion.TLSv1, "1.1": ssl.TLSVersion.TLSv1_1, "1.2": ssl.TLSVersion.TLSv1_2,
            "1.3": ssl.TLSVersion.TLSv1_3}


def connect(addr):
    host, port = addr.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def context(folder, name=None, alpn="h2", ca="ca.crt", **how):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.load_verify_locations(f"{folder}/{ca}")
    c.set_ciphers(how.get("ciphers", "ALL") + ":@SECLEVEL=0")
    if "min" in how or "max" in how:
        c.minimum_version = VERSIONS[how.get("min", "1.0")]
        c.maximum_version = VERSIONS[how.get("max", "1.3")]
    if name:
        c.load_cert_chain(f"{folder}/{name}.crt", f"{folder}/{name}.key")
    if alpn != "none":
        c.set_alpn_protocols(alpn.split(","))
    return c


def ask(addr, tls, words, expected):
    """Whether what answers `words` begins as it should."""
    try:
        with connect(addr) as plain, tls.wrap_socket(plain, server_hostname="localhost") as s:
            s.sendall(words)
            heard = s.recv(4096)
            return "served" if re.match(expected, heard, re.S) else "refused: closed" if not heard else f"odd: {heard!r}"
    except (ssl.SSLError, ConnectionError, TimeoutError) as e:
        return f"refused: {getattr(e, 'reason', None) or e}"


def grpc(addr, folder, *args):
    how = dict(a.split("=", 1) for a in args if "=" in a)
    name = next((a for a in args if "=" not in a), None)
    print(ask(addr, context(folder, name, **how), PREFACE, b"...\x04"))  # a frame of settings


def http(addr, folder, *args):
    how = dict(a.split("=", 1) for a in args if "=" in a)
    name = next((a for a in args if "=" not in a), None)
    words = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    print(ask(addr, context(folder, name, **{"alpn": "http/1.1", **how}), words, b"HTTP/1.1 200 "))


def raw(addr, words):
    heard = b""
    with connect(addr) as s:
        s.sendall(bytes.fromhex(words))
        try:
            while piece := s.recv(4096):
                heard += piece
        except ConnectionError:
            pass
    print(heard.decode(errors="replace"))


def serial(addr, folder):
    tls = context(folder, alpn="http/1.1")
    with connect(addr) as plain, tls.wrap_socket(plain, server_hostname="localhost") as s:
        print(s.getpeercert()["serialNumber"])


def begin(addr, tls):
    """A handshake of which the server has answered the first words."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    half = tls.wrap_bio(incoming, outgoing, server_hostname="localhost")
    try:
        half.do_handshake()
    except ssl.SSLWantReadError:
        pass
    s = connect(addr)
    s.sendall(outgoing.read())
    return s


def drop(addr, folder, n):
    tls = context(folder)
    for i in range(int(n)):
        with begin(addr, tls) as s:
            if i % 2:
                s.recv(100)
    print("dropped")


def hold(addr, n, protocol="h2"):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.set_alpn_protocols([protocol])
    held = [begin(addr, tls) for _ in range(int(n))]
    print("held", flush=True)
    sys.stdin.read()
    for s in held:
        s.close()


def rate(addr, folder, seconds):
    tls, n, begun = context(folder, "client-admin"), 0, time.monotonic()
    while time.monotonic() - begun < float(seconds):
        with connect(addr) as plain, tls.wrap_socket(plain, server_hostname="localhost") as s:
            s.sendall(PREFACE)
            n += bool(s.recv(9))
    print(f"{n / (time.monotonic() - begun):.0f}")


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("grpc", "http", "raw", "serial", "drop", "hold", "rate"):
        sys.exit(__doc__)
    globals()[sys.argv[1]](*sys.argv[2:])

"""victim.py grpc|http ADDRESS STOP [CA CERT KEY]: calls one after the other on one connection, 2 ms apart, until the file STOP
exists; then how many there were, how many failed, and how long they took. STOP may be a number of seconds. Another connection is used
at the beginning and in the end only: who idles is to be served, too."""
import http.client
import os
import ssl
import sys
import time


def grpc_call(address, tls):
    import grpc
    if tls:
        ca, cert, key = (open(path, "rb").read() for path in tls)
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, cert),
                                      options=[("grpc.ssl_target_name_override", "localhost")])
    else:
        channel = grpc.insecure_channel(address)
    method = channel.unary_unary("/coxswain.v1.FleetService/ListWorkers")
    return lambda: method(b"", timeout=30)


def http_call(address, tls):
    host, port = address.rsplit(":", 1)
    connections = []

    def call():
        if not connections:
            if tls:
                context = ssl.create_default_context(cafile=tls[0])
                context.load_cert_chain(tls[1], tls[2])
                connections.append(http.client.HTTPSConnection(host, int(port), timeout=30, context=context))
            else:
                connections.append(http.client.HTTPConnection(host, int(port), timeout=30))
        try:
            connections[0].request("GET", "/api/v1/workers")
            answer = connections[0].getresponse()
            answer.read()
            if answer.status != 200:
                raise OSError(answer.status)
        except (OSError, http.client.HTTPException):
            connections.pop().close()
            raise

    return call


def main():
    kind, address, stop, tls = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:7]
    make = {"grpc": grpc_call, "http": http_call}[kind]
    call = make(address, tls)
    idle_call = make(address, tls)
    took, failed, why = [], 0, ""
    call()
    idle_call()
    print("ready", flush=True)
    end = time.monotonic() + float(stop) if stop.replace(".", "").isdigit() else None
    while time.monotonic() < end if end else not os.path.exists(stop):
        begin = time.monotonic()
        try:
            call()
        except Exception as e:  # whatever it is, the caller has not been served
            failed += 1
            why = f" ({type(e).__name__}: {e})".replace("\n", " ")
        took.append(1000 * (time.monotonic() - begin))
        time.sleep(0.002)
    try:
        idle_call()
    except Exception as e:
        failed += 1
        why = f" (of who idled: {e})"
    took.sort()
    print(f"{len(took)} calls, {failed} failed{why}, p50 {took[len(took) // 2]:.2f} ms, p99 {took[len(took) * 99 // 100]:.2f} ms, "
          f"slowest {took[-1]:.0f} ms")


main()

"""sink.py: reads what comes to a free port of loopback, which it prints, and answers nothing: what a flood costs a host by itself.
A connection ends after 4 MiB, as one that is ended for what it says does, and its client has to come back."""
import selectors
import socket

ENOUGH = 4 << 20
server = socket.create_server(("127.0.0.1", 0), backlog=4096)
server.setblocking(False)
selector = selectors.EpollSelector()
selector.register(server, selectors.EVENT_READ)
read = {}
print(f"127.0.0.1:{server.getsockname()[1]}", flush=True)
while True:
    for key, _ in selector.select():
        if key.fileobj is server:
            s, _ = server.accept()
            s.setblocking(False)
            selector.register(s, selectors.EVENT_READ)
            read[s] = 0
            continue
        s = key.fileobj
        try:
            n = len(s.recv(1 << 16))
        except OSError:
            n = 0
        read[s] += n
        if n == 0 or read[s] > ENOUGH:
            del read[s]
            selector.unregister(s)
            s.close()

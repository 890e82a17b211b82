"""TLS before a server that speaks none: tls_relay.py CERT KEY TO_PORT PORT READY. PORT 0: any. Connections and pieces of requests are
counted in READY.seen, as JSON; READY gets the port."""
import asyncio
import json
import os
import ssl
import sys

CERT, KEY, TO_PORT, PORT, READY = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
SEEN = {"connections": 0, "pieces": 0}


def put(path, text):
    with open(path + ".next", "w", encoding="utf-8") as f:
        f.write(text)
    os.rename(path + ".next", path)


def count(what):
    SEEN[what] += 1
    put(READY + ".seen", json.dumps(SEEN))


async def copy(reader, writer, counts):
    try:
        is_first = counts
        while piece := await reader.read(65536):
            if is_first: # who does not believe us says nothing
                count("connections")
            if counts:
                count("pieces")
            is_first = False
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass
    writer.close()


async def relay(reader, writer):
    to_reader, to_writer = await asyncio.open_connection("127.0.0.1", TO_PORT)
    await asyncio.gather(copy(reader, to_writer, True), copy(to_reader, writer, False))


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERT, KEY)
    server = await asyncio.start_server(relay, "127.0.0.1", PORT, ssl=context)
    port = server.sockets[0].getsockname()[1]
    await asyncio.start_server(relay, "127.0.0.2", port, ssl=context) # an address that the certificate does not name
    put(READY, str(port))
    await server.serve_forever()


asyncio.run(main())

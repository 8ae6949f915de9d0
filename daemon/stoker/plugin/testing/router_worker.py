"""A worker for the suite of routers, in a process of its own so that it can be killed: answers `?ms=N`
milliseconds later with its name. `python -m stoker.plugin.testing.router_worker NAME`; prints its port."""

from __future__ import annotations

import asyncio
import sys
from urllib.parse import parse_qs, urlsplit


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    body = sys.argv[1].encode()
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1")
            target = head.split()[1]
            lengths = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
            await reader.readexactly(int(lengths[0].partition(":")[2]) if lengths else 0)
            await asyncio.sleep(float(parse_qs(urlsplit(target).query).get("ms", ["0"])[0]) / 1000)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())

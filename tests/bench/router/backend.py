"""The stand-in for backend.c where there is no C compiler: the same answers, at a tenth of the speed."""

import asyncio
import sys

import uvloop

BODY = b"x" * int(sys.argv[2]) if len(sys.argv) > 2 else b"x" * 64
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Backend(asyncio.Protocol):
    """Answers each head; requests have no bodies."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER * data.count(b"\r\n\r\n"))


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Backend, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


uvloop.run(main())

"""What two processes and the kernel cost between a worker's answer and its next request, without any router.

`echo.py` prints a port and sends back every message that comes there; `floor` asks it as a worker would.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time

import uvloop

ASKED = b"GET /1 HTTP/1.1\r\nHost: bench\r\n\r\n"


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Asking(asyncio.Protocol):
    """Notes when an answer has come."""

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self.at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.at = time.monotonic()
        self.came.set()


class Floor:
    """Asks an echo now and then, as long as it is told to."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE)
        self._port = int(self._process.stdout.readline())
        self.took: list[float] = []

    async def run(self) -> None:
        """Until cancelled."""
        _, asking = await asyncio.get_running_loop().create_connection(Asking, "127.0.0.1", self._port)
        while True:
            await asyncio.sleep(random.expovariate(1 / 0.02))
            asking.came.clear()
            began = time.monotonic()
            asking.transport.write(ASKED)
            await asking.came.wait()
            self.took.append(asking.at - began)

    def end(self) -> None:
        """End the echo."""
        self._process.kill()
        self._process.communicate()


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())

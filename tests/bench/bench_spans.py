"""What the router's spans cost: its processor time per request while nobody collects them, and while somebody
does and callers send no trace context, one that is not sampled, one that is.

    python tests/bench/bench_spans.py [--requests 24000] [--rounds 3]

One router, one worker and 16 clients on loopback, each way in each round; medians, and ratios to the first
way within each round.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from plugins.router.harness import Router, context, linked, program
from stoker.model.state import WorkerRoute

CLIENTS = 16
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PARENT = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0{}\r\n"
WAYS = {
    "nobody collects, no context": (False, ""),
    "nobody collects, sampled": (False, PARENT.format(1)),
    "collected, no context": (True, ""),
    "collected, not sampled": (True, PARENT.format(0)),
    "collected, sampled": (True, PARENT.format(1)),
}


class Worker(asyncio.Protocol):
    """Answers each head with two bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *heads, self._rest = (self._rest + data).split(b"\r\n\r\n")
        self._transport.write(ANSWER * len(heads))  # type: ignore[attr-defined]


def cpu(pid: int) -> float:
    """Seconds of processor time that it has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def ask(port: int, requests: int, header: str) -> None:
    head = f"GET /x HTTP/1.1\r\nHost: a\r\nUser-Agent: bench/1\r\nAccept: */*\r\n{header}\r\n".encode()

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(requests // CLIENTS):
            writer.write(head)
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
        writer.close()

    await asyncio.gather(*(one() for _ in range(CLIENTS)))


@asynccontextmanager
async def collected(router: Router, told: list[int], *, wanted: bool) -> AsyncIterator[None]:
    """Take the spans while the block runs, if that is wanted."""
    begun = asyncio.Event()

    async def read() -> None:
        async with aclosing(router.link.spans()) as batches:
            async for batch in batches:
                begun.set()
                told.append(len(batch.spans))

    task = asyncio.create_task(read()) if wanted else None
    if task is not None:
        await begun.wait()
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def measure(requests: int, header: str, *, collect: bool) -> float:
    """Microseconds of the router's processor time for one request."""
    with tempfile.TemporaryDirectory() as folder, program(where := context(Path(folder))):
        async with linked(where) as router:
            server = await asyncio.get_running_loop().create_server(Worker, "127.0.0.1", 0)
            endpoint = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            port = await router.route(WorkerRoute(id="w", endpoint=endpoint))
            told: list[int] = []
            async with collected(router, told, wanted=collect):
                await ask(port, CLIENTS * 50, header)
                began = cpu(router.link.pid)
                await ask(port, requests, header)
                sampled = collect and header.endswith("1\r\n")
                while sampled and sum(told) < CLIENTS * (50 + requests // CLIENTS):
                    await asyncio.sleep(0.05)
                spent = cpu(router.link.pid) - began
            server.close()
    return spent / requests * 1e6


def main() -> int:
    given = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    given.add_argument("--requests", type=int, default=24_000)
    given.add_argument("--rounds", type=int, default=3)
    options = given.parse_args()
    rounds = [
        {
            name: asyncio.run(measure(options.requests, header, collect=collect))
            for name, (collect, header) in WAYS.items()
        }
        for _ in range(options.rounds)
    ]
    base = next(iter(WAYS))
    for name in WAYS:
        ratio = median(found[name] / found[base] for found in rounds)
        print(f"{name:28} {median(found[name] for found in rounds):6.1f} us each  {ratio:5.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

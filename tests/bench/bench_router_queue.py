"""The tail of our router's one queue beside the ideal shared queue, computed from the same arrivals and work.

    python tests/bench/bench_router_queue.py [--seconds 20] [--slots 1] [--load 0.9] [--rounds 2]
                                             [--router stoker|haproxy] [--json OUT]

Open loop: four workers with so many slots each, exponential service of 20 ms in the mean, Poisson arrivals, a
fixed seed. The ideal is one first-come-first-served queue before all slots with no time lost between two
requests, fed with the arrivals and service times as they really were (a timer is late now and then: what the
worker measured is what it took). Goal: p99 within 3 %.

What is lost between two requests is told as well: how long a slot was free while somebody waited, and how
long a message to a process that only sends it back takes meanwhile (`bare`), which no router can beat;
`with bare` is the ideal with that much lost between any two.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).parent))

from router.echo import Floor

from stoker.model.state import Route, RoutingTable, WorkerRoute
from stoker.plugin.ports import PluginContext
from stoker.plugin.testing.router_bench import make_router

FACTORIES = {"stoker": "stoker_router.link:ProgramLink", "haproxy": "stoker_haproxy.plugin:make"}
WORKERS, MEAN = 4, 0.020
HEAD = b"\r\n\r\n"


class Deaf:
    """RouterEvents that only remember the port."""

    port = 0

    def sample(self, sample: object) -> None: ...
    def demand(self, service: str) -> None: ...
    def drained(self, replica: str) -> None: ...
    def trouble(self, service: str, message: str) -> None:
        print(message)

    def bound(self, service: str, host: str, port: int) -> None:
        self.port = port


Span = tuple[float, float, int]
"""When a worker began with a request, when it had ended, and its number."""


class Worker(asyncio.Protocol):
    """Answers `/N` after the time that request N is to take, and notes how long it really took."""

    def __init__(self, work: list[float], took: dict[int, float], spans: list[Span]) -> None:
        self.work, self.took, self.spans = work, took, spans

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        number, began = int(data.split(b" ", 2)[1][1:]), time.monotonic()
        # late by about 0.6 ms on the average: asked for so much earlier
        asyncio.get_running_loop().call_later(
            max(0.0, self.work[number] - 0.0006), self.answer, number, began
        )

    def answer(self, number: int, began: float) -> None:
        now = time.monotonic()
        self.took[number] = now - began
        self.spans.append((began, now, number))
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


class Asking(asyncio.Protocol):
    """A client's connection; goes back to the idle ones after its answer."""

    def __init__(self, idle: list[Asking], ends: dict[int, float]) -> None:
        self.idle, self.ends, self.number = idle, ends, -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self, number: int) -> None:
        self.number = number
        self.transport.write(b"GET /%d HTTP/1.1\r\nHost: bench\r\n\r\n" % number)

    def data_received(self, data: bytes) -> None:
        self.ends[self.number] = time.monotonic()
        self.idle.append(self)


async def measure(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    rate = options.load * WORKERS * options.slots / MEAN
    plan, now = [], 0.0
    while now < options.seconds:
        now += chance.expovariate(rate)
        plan.append(now)
    work = [chance.expovariate(1 / MEAN) for _ in plan]
    took: dict[int, float] = {}
    began: dict[int, float] = {}
    ends: dict[int, float] = {}
    loop = asyncio.get_running_loop()
    spans: list[list[Span]] = [[] for _ in range(WORKERS)]
    servers = [
        await loop.create_server(lambda own=own: Worker(work, took, own), "127.0.0.1", 0) for own in spans
    ]
    floor = Floor()
    workers = tuple(
        WorkerRoute(
            id=f"w{n}", endpoint=f"127.0.0.1:{server.sockets[0].getsockname()[1]}", concurrency=options.slots
        )
        for n, server in enumerate(servers)
    )
    with tempfile.TemporaryDirectory(prefix="router-queue-") as folder:
        environ = {"PATH": os.environ["PATH"]}
        link = make_router(
            FACTORIES[options.router],
            PluginContext(instance="bench", state_dir=folder, runtime_dir=folder, environ=environ),
        )
        deaf = Deaf()
        running = asyncio.ensure_future(link.run(deaf))
        route = Route(service="bench/web", host="127.0.0.1", port=0, workers=workers, max_queue=10**6)
        await link.apply(RoutingTable(routes={"bench/web": route}))
        while not deaf.port:
            await asyncio.sleep(0.01)
        idle: list[Asking] = []
        for _ in range(300):
            _, made = await loop.create_connection(lambda: Asking(idle, ends), "127.0.0.1", deaf.port)
            idle.append(made)
        asking = asyncio.ensure_future(floor.run())
        start = time.monotonic() + 0.1
        for number, at in enumerate(plan):
            pause = start + at - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            if not idle:
                raise SystemExit("more than 300 requests at once: the machine is overloaded")
            began[number] = time.monotonic()
            idle.pop().ask(number)
        while len(ends) < len(plan):
            await asyncio.sleep(0.05)
        asking.cancel()
        await link.stop(1.0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    for server in servers:
        server.close()
    floor.end()
    bare = statistics.median(floor.took)
    lost = [gap for own in spans for gap in lost_in(own, began)] if options.slots == 1 else []
    ours = sorted(ends[n] - began[n] for n in began)
    ideal = sorted(shared(began, took, WORKERS * options.slots))
    slower = {number: each + bare for number, each in took.items()}
    return {
        "requests": len(plan),
        "ours": figures(ours),
        "ideal": figures(ideal),
        "with bare": figures(sorted(shared(began, slower, WORKERS * options.slots))),
        "bare_us": bare * 1e6,
        "lost_us": statistics.median(lost) * 1e6 if lost else None,
        "lost_mean_us": statistics.fmean(lost) * 1e6 if lost else None,
    }


def lost_in(spans: list[Span], came: dict[int, float]) -> list[float]:
    """Seconds between the end of one request and the begin of the next that was already waiting, in a worker
    with one slot."""
    pairs = itertools.pairwise(sorted(spans))
    return [after[0] - before[1] for before, after in pairs if came[after[2]] < before[1] - 0.001]


def shared(began: dict[int, float], took: dict[int, float], slots: int) -> list[float]:
    """Latencies of one queue before all slots."""
    free = [0.0] * slots
    found = []
    for number, at in sorted(began.items(), key=lambda item: item[1]):
        end = max(heapq.heappop(free), at) + took[number]
        heapq.heappush(free, end)
        found.append(end - at)
    return found


def figures(sorted_latencies: list[float]) -> dict[str, float]:
    count = len(sorted_latencies)
    named = {
        name: sorted_latencies[int(part * count)] * 1000
        for name, part in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }
    return {"mean": sum(sorted_latencies) / count * 1000, **named}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--load", type=float, default=0.9)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--router", choices=FACTORIES, default="stoker")
    parser.add_argument("--json")
    options = parser.parse_args()
    results = []
    for seed in range(1, options.rounds + 1):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(measure(options, seed))
        results.append(found)
        ratios = {name: found["ours"][name] / found["ideal"][name] for name in found["ours"]}
        words = "  ".join(
            f"{name} {found['ours'][name]:.1f} ms, ideal {found['ideal'][name]:.1f} ({ratio - 1:+.1%})"
            for name, ratio in ratios.items()
        )
        print(f"seed {seed}, {found['requests']} requests: {words}", flush=True)
        over = found["with bare"]["p99"] / found["ideal"]["p99"] - 1
        told = (
            ""
            if found["lost_us"] is None
            else f"lost between two {found['lost_us']:.0f} us (mean {found['lost_mean_us']:.0f}), "
        )
        print(f"        {told}bare {found['bare_us']:.0f} us, with which p99 is {over:+.1%}", flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

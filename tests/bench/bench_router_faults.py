"""What our router fails while everything around it changes, out of so many requests, and what it keeps.

    python tests/bench/bench_router_faults.py [--requests 100000] [--only churn,drain,...]
                                              [--router stoker|haproxy] [--json OUT]

Load comes from wrk (32 connections, GET unless said otherwise); four workers in C. Failures are answers other
than 200 and broken connections. Ends with a table of all of it.

    churn   the set of workers changes ten times a second
    drain   one worker after the other is drained, waited for, ended and begun again
    kill    one worker after the other is killed with -9 and begun again
    post    the same with POST, each with a number and told by the worker that reads it: only requests that
            one had in its hands, or in its socket, may fail; none is done twice
    swap    the program is replaced by another version again and again
    crash   the program is killed with -9 again and again: only requests in its hands may fail; none is
            refused
    zero    no worker for five seconds, again and again; requests are held, first come first served
    daemon  `stoker up` is killed with -9 and begun again, at least 20 times
    idle    10,000 connections that do nothing: resident memory, wake-ups and processor time in ten seconds
    start   from a request to a service at zero to its answer, over the worker's own start-up

HAProxy is not asked for `swap`, `daemon` and `idle`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import itertools

import anyio
from router.daemons import kills
from router.peers import free_port
from router.posts import Posts

from stoker.model.load import LoadSample
from stoker.model.state import Route, RoutingTable, WorkerRoute
from stoker.plugin import holder
from stoker.plugin.ports import PluginContext
from stoker.plugin.testing.router_bench import make_router
from stoker_router import launch, protocol
from stoker_router.link import ProgramLink

SERVICE = "bench/web"
FACTORIES = {"stoker": "stoker_router.link:ProgramLink", "haproxy": "stoker_haproxy.plugin:make"}
OWN = frozenset({"swap", "daemon", "idle"})
"""Parts for our own router."""
HERE = Path(__file__).parent / "router"


class Told:
    """What the router tells: implements RouterEvents."""

    def __init__(self) -> None:
        self.port = 0
        self.drains: list[str] = []
        self.arrivals = self.answers = 0
        self.asked = asyncio.Event()

    def sample(self, sample: LoadSample) -> None:
        self.arrivals += sample.arrivals
        self.answers += sum(sample.codes.values())

    def demand(self, service: str) -> None:
        self.asked.set()

    def drained(self, replica: str) -> None:
        self.drains.append(replica)

    def bound(self, service: str, host: str, port: int) -> None:
        self.port = port

    def trouble(self, service: str, message: str) -> None:
        print(f"    {message}", flush=True)


class Backend:
    """A worker in C."""

    serial = 0

    def __init__(self, program: Path) -> None:
        self.program = program
        self.receipts: Path | None = None
        self.begin()

    def begin(self) -> None:
        """Start it, as another replica."""
        Backend.serial += 1
        self.id = f"w{Backend.serial}"
        self.port = free_port()
        told = ["64", str(self.receipts / self.id)] if self.receipts is not None else []
        self.process = subprocess.Popen([str(self.program), str(self.port), *told])

    def end(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def route(self, *, draining: bool = False) -> WorkerRoute:
        return WorkerRoute(id=self.id, endpoint=f"127.0.0.1:{self.port}", concurrency=16, draining=draining)


class Bench:
    """A link, its program and four workers."""

    def __init__(self, folder: Path, requests: int, router: str) -> None:
        self.folder = folder
        self.requests = requests
        self.told = Told()
        for name in ("state", "run"):
            (folder / name).mkdir()
        self.context = PluginContext(
            instance="bench",
            state_dir=str(folder / "state"),
            runtime_dir=str(folder / "run"),
            environ={"PATH": os.environ["PATH"]},
        )
        self.link = make_router(FACTORIES[router], self.context)
        self.program = program = folder / "backend"
        compiler = shutil.which("cc") or shutil.which("gcc") or ""
        subprocess.run([compiler, "-O2", "-o", str(program), str(HERE / "backend.c")], check=True)
        self.workers = [Backend(program) for _ in range(4)]

    async def apply(self, *workers: WorkerRoute, timeout: float = 60.0) -> None:
        """Have these behind the address."""
        routes = {
            SERVICE: Route(
                service=SERVICE, host="127.0.0.1", port=0, workers=workers, timeout=timeout, max_queue=10_000
            )
        }
        await self.link.apply(RoutingTable(routes=routes))

    async def all(self) -> None:
        await self.apply(*(one.route() for one in self.workers))

    async def load(self, disturb: Callable[[], Awaitable[None]], script: str = "") -> dict[str, Any]:
        """wrk until there were so many requests, while the world is disturbed."""
        sent = failed = 0
        detail: list[str] = []
        began = time.monotonic()
        task = asyncio.ensure_future(self._again(disturb))
        try:
            while sent < self.requests:
                found = await wrk(self.told.port, 4, script)
                sent, failed = sent + found[0], failed + found[1]
                detail += found[2]
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        times = getattr(self, "times", 0)
        self.times = 0
        seconds = time.monotonic() - began
        return {
            "requests": sent,
            "failed": failed,
            "disturbed": times,
            "seconds": round(seconds, 1),
            "detail": detail,
        }

    async def _again(self, disturb: Callable[[], Awaitable[None]]) -> None:
        self.times = 0
        while True:
            await disturb()
            self.times += 1

    # --- the parts ----------------------------------------------------------------------------------------

    async def churn(self) -> dict[str, Any]:
        async def disturb() -> None:
            await asyncio.sleep(0.1)
            chosen = random.sample(self.workers, random.randint(1, 4))
            await self.apply(*(one.route() for one in chosen))

        return await self.load(disturb)

    async def drain(self) -> dict[str, Any]:
        async def disturb() -> None:
            await asyncio.sleep(0.2)
            one = random.choice(self.workers)
            await self.apply(*(each.route(draining=each is one) for each in self.workers))
            with anyio.fail_after(20):
                while one.id not in self.told.drains:
                    await asyncio.sleep(0.005)
            one.end()
            one.begin()
            await self.all()

        return await self.load(disturb)

    async def _kill_one(self) -> None:
        await asyncio.sleep(0.3)
        one = random.choice(self.workers)
        one.end()
        await asyncio.sleep(0.01)  # until the daemon has noticed
        one.begin()
        await self.all()

    async def kill(self) -> dict[str, Any]:
        return await self.load(self._kill_one)

    async def post(self) -> dict[str, Any]:
        receipts = self.folder / "receipts"
        receipts.mkdir()
        await self._begin_all(receipts)
        posts = Posts(self.told.port, self.requests)
        killing = asyncio.ensure_future(self._again(self._kill_one))
        await posts.run()
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)
        found = {**posts.judge(receipts.iterdir()), "disturbed": self.times, "most": self.times * 16}
        await self._begin_all(None)
        return found

    async def _begin_all(self, receipts: Path | None) -> None:
        """Have other workers, which tell what they read there."""
        for one in self.workers:
            one.end()
            one.receipts = receipts
            one.begin()
        await self.all()

    async def daemon(self) -> dict[str, Any]:
        return await kills(self.folder / "box", self.program, self.requests, lambda port, s: wrk(port, s, ""))

    async def swap(self) -> dict[str, Any]:
        """As an upgrade of the package does: another link finds a program of another version."""
        known = protocol.VERSION
        import stoker_router.link as module

        async def disturb() -> None:
            await asyncio.sleep(0.3)
            before = self.link.pid
            module.VERSION = known + 1 if known == module.VERSION else known
            os.environ["STOKER_BENCH"] = ""
            await self.relink(module.VERSION)
            with anyio.fail_after(20):
                while self.link.pid in (0, before):
                    await asyncio.sleep(0.01)

        try:
            return await self.load(disturb)
        finally:
            module.VERSION = known

    async def relink(self, version: int) -> None:
        """End the link and begin another, whose programs are of that version."""
        source = self.folder / f"v{version}"
        if not source.exists():
            shutil.copytree(Path(protocol.__file__).parent, source / "stoker_router")
            file = source / "stoker_router" / "protocol.py"
            file.write_text(file.read_text().replace(f"VERSION = {protocol.VERSION}", f"VERSION = {version}"))
        launch.__file__ = str(source / "stoker_router" / "launch.py")
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        self.link = ProgramLink(self.context)
        self.running = asyncio.ensure_future(self.link.run(self.told))
        await self.all()

    async def crash(self) -> dict[str, Any]:
        kills = 0

        async def disturb() -> None:
            nonlocal kills
            await asyncio.sleep(0.3)
            kills += 1
            for pid in self.programs():
                os.kill(pid, signal.SIGKILL)
            await answer(*await ask(self.told.port, 0))  # else one would be killed before it has begun

        found = await self.load(disturb)
        words = " ".join(found["detail"])
        refused = sum(map(int, re.findall(r"connect (\d+)", words)))
        return {**found, "disturbed": kills, "most": kills * 32, "refused": refused}

    def programs(self) -> list[int]:
        """The router's processes, but for the one that holds its sockets."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                words = (entry / "cmdline").read_bytes()
                if str(self.folder / "state").encode() in words and holder.__file__.encode() not in words:
                    found.append(int(entry.name))
        return found

    async def zero(self) -> dict[str, Any]:
        """FIFO is looked at by a client of our own: requests are numbered, a worker with one slot answers."""
        order: list[int] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while head := await reader.readuntil(b"\r\n\r\n"):
                    order.append(int(head.split(b" ")[1][1:]))
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        one = WorkerRoute(
            id="fifo", endpoint=f"127.0.0.1:{server.sockets[0].getsockname()[1]}", concurrency=1
        )
        rounds = max(2, self.requests // 5000)
        failed, sent, out_of_order = 0, 0, 0
        share = min(5000, self.requests // rounds)
        for _ in range(rounds):
            await self.apply()
            order.clear()
            began = time.monotonic()
            waiting = []
            for number in range(share):
                waiting.append(await ask(self.told.port, number))
                if number % 100 == 0:
                    await asyncio.sleep(max(0.0, began + 5 * number / share - time.monotonic()))
            await asyncio.sleep(max(0.0, began + 5 - time.monotonic()))
            await self.apply(one)
            answers = [await answer(*each) for each in waiting]
            sent += share
            failed += sum(not one.startswith(b"HTTP/1.1 200") for one in answers)
            out_of_order += sum(a > b for a, b in itertools.pairwise(order))
        await self.all()
        server.close()
        return {"requests": sent, "failed": failed, "disturbed": rounds, "out of order": out_of_order}

    async def idle(self) -> dict[str, Any]:
        await self.all()
        pid = self.link.pid
        for _ in range(3):
            await answer(*await ask(self.told.port, 0))
        empty = rss(pid)
        held = []
        for number in range(10_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.told.port)
            if number % 2:
                writer.write(b"GET /0 HTTP/1.1\r\nHost: bench\r\n\r\n")
                await reader.readuntil(b"\r\n\r\n")
            held.append(writer)
        await asyncio.sleep(4)
        before = switches(pid), cpu(pid)
        await asyncio.sleep(10)
        after = switches(pid), cpu(pid)
        full = rss(pid)
        for writer in held:
            writer.close()
        return {
            "connections": len(held),
            "rss_mib_empty": round(empty / 1024, 1),
            "rss_mib": round(full / 1024, 1),
            "kib_per_connection": round((full - empty) / len(held), 2),
            "wakeups_in_10_s": after[0] - before[0],
            "cpu_ms_in_10_s": round((after[1] - before[1]) * 1000, 2),
        }

    async def start(self) -> dict[str, Any]:
        """The worker is begun as soon as the router asks for one; what it takes until its port is open is its
        own time."""
        over = []
        for _ in range(40):
            await self.apply()
            await asyncio.sleep(0.15)  # demand is told at most ten times a second
            self.told.asked.clear()
            began = time.monotonic()
            asking = await ask(self.told.port, 0)
            await self.told.asked.wait()
            launched = time.monotonic()
            one = Backend(self.workers[0].program)
            while not listens(one.port):
                await asyncio.sleep(0)
            ready = time.monotonic()
            await self.apply(one.route())
            await answer(*asking)
            over.append((time.monotonic() - began - (ready - launched)) * 1000)
            one.end()
        over.sort()
        return {"median_ms": round(statistics.median(over), 2), "p95_ms": round(over[37], 2)}


def listens(port: int) -> bool:
    import socket

    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


Asked = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def ask(port: int, number: int) -> Asked:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /%d HTTP/1.1\r\nHost: bench\r\n\r\n" % number)
    return reader, writer


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    writer.close()
    return head


async def wrk(port: int, seconds: int, script: str) -> tuple[int, int, list[str]]:
    """Requests, failures, and what wrk says of them."""
    command = ["wrk", "-t1", "-c32", f"-d{seconds}s", "--timeout", "30s"]
    if script:
        path = Path(tempfile.gettempdir()) / f"wrk-{os.getpid()}.lua"
        path.write_text(script)
        command += ["-s", str(path)]
    process = await asyncio.create_subprocess_exec(
        *command, f"http://127.0.0.1:{port}/", stdout=asyncio.subprocess.PIPE
    )
    text = (await process.communicate())[0].decode()
    sent = int(re.search(r"(\d+) requests in", text)[1])
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    failed = int(bad[1]) if bad else 0
    failed += sum(map(int, broken.groups())) if broken else 0
    return sent, failed, [found[0] for found in (bad, broken) if found]


def rss(pid: int) -> int:
    """Kibibytes."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def switches(pid: int) -> int:
    return int(re.search(r"\nvoluntary_ctxt_switches:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def cpu(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


PARTS = ("churn", "drain", "kill", "post", "swap", "crash", "zero", "daemon", "idle", "start")
WHILE = {
    "churn": "the set of workers changes ten times a second",
    "drain": "workers are drained and replaced",
    "kill": "workers are killed with -9, GET",
    "post": "the same, POST",
    "swap": "the program is swapped for another version",
    "crash": "the program is killed with -9",
    "zero": "there is no worker for 5 s",
    "daemon": "the daemon is killed with -9 and begun again",
}


def table(results: dict[str, dict[str, Any]]) -> None:
    """Print what can fail as the docs have it."""
    print("\n| while | requests | failed |\n|---|---|---|")
    for name, found in results.items():
        if name in WHILE:
            rest = {key: value for key, value in found.items() if key not in KNOWN}
            told = "".join(f"; {key}: {value}" for key, value in rest.items())
            print(
                f"| {WHILE[name]} ({found['disturbed']}) | {found['requests']:,} | {found['failed']}{told} |"
            )


KNOWN = frozenset({"requests", "failed", "disturbed", "seconds", "detail"})


async def run(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    bench = Bench(folder, options.requests, options.router)
    bench.running = asyncio.ensure_future(bench.link.run(bench.told))
    results = {}
    try:
        await bench.all()
        while not bench.told.port:
            await asyncio.sleep(0.01)
        for name in options.only.split(","):
            if options.router != "stoker" and name in OWN:
                continue
            await bench.all()
            results[name] = await getattr(bench, name)()
            print(f"{name:6s} {json.dumps(results[name])}", flush=True)
    finally:
        await bench.link.stop(1.0)
        bench.running.cancel()
        await asyncio.gather(bench.running, return_exceptions=True)
        for one in bench.workers:
            one.end()
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--router", choices=FACTORIES, default="stoker")
    parser.add_argument("--json")
    options = parser.parse_args()
    if not shutil.which("wrk") or not (shutil.which("cc") or shutil.which("gcc")):
        print("this benchmark needs wrk and a C compiler: apt-get install wrk gcc", file=sys.stderr)
        return 2
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="router-faults-") as folder:
        results = asyncio.run(run(Path(folder), options))
    table(results)
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

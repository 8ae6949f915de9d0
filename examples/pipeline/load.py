"""Open-loop load for the pipeline, with the pools beside it: one line a second. Standard library only.

Requests leave on schedule whether or not earlier ones were answered, and their latency counts from that
schedule, so a slow service cannot hide behind a slow client. Exit status 1 if any request failed.

    python examples/pipeline/load.py            against a running `stoker up`
    python examples/pipeline/load.py --up       starts it, shows it, stops it
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).parent
SENTENCES = ("Where is the station?", "Wo ist der Bahnhof?", "Où est la gare ?", "¿Dónde está la estación?")
SERVICES = ("preprocess", "inference", "postprocess")
DOOR = "postprocess"


@dataclass(frozen=True)
class Shape:
    """Requests per second over time: up to `peak` in `ramp` seconds, `hold`, down in `ramp`, then `rest`."""

    peak: float
    ramp: float
    hold: float
    rest: float

    @property
    def seconds(self) -> float:
        """The whole show."""
        return 2 * self.ramp + self.hold + self.rest

    def rate(self, at: float) -> float:
        """Requests per second `at` seconds after the start."""
        if at < self.ramp:
            return self.peak * at / self.ramp
        falling = 2 * self.ramp + self.hold - at
        return max(
            0.0, min(self.peak, self.peak * falling / self.ramp if self.ramp else self.peak * (falling > 0))
        )

    def arrivals(self, step: float = 0.002) -> list[float]:
        """When requests leave: each time the integral of the rate has grown by one."""
        times, due = [], 0.0
        for index in range(round(self.seconds / step)):
            due += self.rate(index * step) * step
            if due >= 1:
                times.append(index * step)
                due -= 1
        return times


@dataclass
class Tally:
    """What came back, in all and since the last line."""

    ok: int = 0
    failed: int = 0
    recent: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)

    def answered(self, seconds: float) -> None:
        """One good answer."""
        self.ok += 1
        self.recent.append(seconds)
        self.latencies.append(seconds)

    def refused(self, reason: str) -> None:
        """One request failed."""
        self.failed += 1
        self.errors[reason] = self.errors.get(reason, 0) + 1


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share lies, nan of nothing."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan


async def request(url: str, text: str, due: float, timeout: float, tally: Tally) -> None:
    """One request on a connection of its own."""
    address, body = urlsplit(url), text.encode()
    lines = (
        "POST / HTTP/1.1",
        f"Host: {address.netloc}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    head = "\r\n".join((*lines, "", ""))
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            try:
                writer.write(head.encode() + body)
                answer = await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        tally.refused(str(error) or f"no answer in {timeout:g} s")
        return
    status = answer.split(b" ", 2)[1:2]
    if status == [b"200"] and b'"language"' in answer:
        tally.answered(time.monotonic() - due)
    else:
        tally.refused(answer[:200].decode(errors="replace").replace("\r\n", " ") or "connection closed")


def stoker() -> str:
    """The command of the same environment as this interpreter, else the one on the path."""
    beside = Path(sys.executable).with_name("stoker")
    found = str(beside) if beside.exists() else shutil.which("stoker")
    if found is None:
        sys.exit(
            "there is no stoker command beside this Python or on the PATH; install it or activate its venv"
        )
    return found


async def status() -> dict[str, Any]:
    """Services by name as `stoker status -o json` has them; empty if no daemon answers."""
    process = await asyncio.create_subprocess_exec(
        stoker(), "status", "-o", "json", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    text, _ = await process.communicate()
    return {each["name"]: each for each in json.loads(text)["services"]} if process.returncode == 0 else {}


async def show(shape: Shape, start: float, tally: Tally) -> dict[str, int]:
    """Print a line a second; return the most ready replicas each service had."""
    print(f"{'time':>5} {'rate/s':>6} {'ok':>6} {'failed':>6} {'p50 ms':>7} {'p99 ms':>7}   ready/wanted")
    most = dict.fromkeys(SERVICES, 0)
    for second in range(1, math.ceil(shape.seconds) + 1):
        await asyncio.sleep(max(0.0, start + second - time.monotonic()))
        services = await status()
        pools = []
        for name in (name for name in SERVICES if name in services):
            ready, target = services[name]["ready"], services[name]["target"]
            most[name] = max(most[name], ready)
            pools.append(f"{name} {ready}/{target}")
        recent, tally.recent = tally.recent, []
        p50, p99 = (f"{percentile(recent, share) * 1000:.0f}" if recent else "-" for share in (0.5, 0.99))
        counts = f"{second:>4}s {shape.rate(second):6.1f} {tally.ok:6} {tally.failed:6}"
        print(f"{counts} {p50:>7} {p99:>7}   {'  '.join(pools)}", flush=True)
    return most


async def run(url: str, shape: Shape, timeout: float) -> int:
    """Send the load, show it, sum it up. Return the exit status."""
    tally, start = Tally(), time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        shown = tasks.create_task(show(shape, start, tally))
        for index, due in enumerate(shape.arrivals()):
            await asyncio.sleep(max(0.0, start + due - time.monotonic()))
            text = SENTENCES[index % len(SENTENCES)]
            tasks.create_task(request(url, text, start + due, timeout, tally))
    peaks = ", ".join(f"{name} {count}" for name, count in shown.result().items())
    p50, p99 = (percentile(tally.latencies, share) * 1000 for share in (0.5, 0.99))
    print(f"{tally.ok} ok, {tally.failed} failed; p50 {p50:.0f} ms, p99 {p99:.0f} ms; most ready: {peaks}")
    for reason, count in tally.errors.items():
        print(f"  {count} x {reason}")
    return 1 if tally.failed or not tally.ok else 0


async def address(given: str | None, patience: float) -> str:
    """The pipeline's address, once its services are there."""
    deadline = time.monotonic() + patience
    while True:
        services = await status()
        if DOOR in services and services[DOOR]["ready"]:
            return given or services[DOOR]["url"]
        if time.monotonic() > deadline:
            sys.exit(
                f"service {DOOR} is not ready; start it with: stoker up {HERE / 'stoker.yaml'} (or use --up)"
            )
        await asyncio.sleep(0.3)


@contextlib.asynccontextmanager
async def daemon(*, wanted: bool) -> AsyncIterator[None]:
    """`stoker up` on this folder for the length of the block, if wanted."""
    if not wanted:
        yield
        return
    process = await asyncio.create_subprocess_exec(
        stoker(), "up", str(HERE / "stoker.yaml"), stdin=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.wait()


async def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="address of the front door (default: as `stoker status` tells)")
    parser.add_argument("--peak", type=float, default=30, help="requests per second at the height (30)")
    parser.add_argument("--ramp", type=float, default=12, help="seconds up, and down again (12)")
    parser.add_argument("--hold", type=float, default=15, help="seconds at the height (15)")
    parser.add_argument("--rest", type=float, default=20, help="seconds to watch the pools shrink (20)")
    parser.add_argument(
        "--timeout", type=float, default=30, help="seconds after which a request has failed (30)"
    )
    parser.add_argument("--up", action="store_true", help="start `stoker up` first and stop it afterwards")
    given = parser.parse_args()
    shape = Shape(peak=given.peak, ramp=given.ramp, hold=given.hold, rest=given.rest)
    async with daemon(wanted=given.up):
        return await run(await address(given.url, 30.0 if given.up else 3.0), shape, given.timeout)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

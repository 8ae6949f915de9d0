"""Part A of the supervisor benchmark: the process driver alone, against a bare posix_spawn loop.

    python tests/bench/bench_supervisor.py [-n 100] [--rounds 5] [--kills 60] [--out FILE]

Prints, for trees held with and without cgroups: the time to start N workers as a ratio to N bare
spawns, and the time from kill -9 of a worker to its exit being told and to its replacement being
spawned, with N workers running. Part B (whole daemons side by side) is bench_supervisor_daemon.py.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

import anyio

from stoker.model.replica import WorkerHandle
from stoker.plugin.ports import PluginContext, StartRequest
from stoker_process.driver import ProcessDriver

ENVIRON = {"PATH": "/usr/bin:/bin"}
ALLOWED_RATIO, ALLOWED_EXTRA = 2.0, 0.5
"""What starting may cost: this many times the bare loop, and so many seconds more."""


class Bench:
    """One driver with its workers."""

    def __init__(self, directory: Path, *, cgroup: bool) -> None:
        instance = f"bench-{os.getpid()}-{'cgroup' if cgroup else 'session'}"
        places = {"state_dir": str(directory / "state"), "runtime_dir": str(directory / "run")}
        self.context = PluginContext(instance=instance, options={"cgroup": cgroup}, **places)
        self.driver = ProcessDriver(self.context)
        self.directory = directory
        self.serial = 0

    async def start(self) -> WorkerHandle:
        self.serial += 1
        replica = f"w-{self.serial}"
        mark = f"{self.context.instance}:bench/w:{replica}"
        return await self.driver.start(
            StartRequest(
                replica=replica,
                service="bench/w",
                mark=mark,
                argv=("sleep", "1000000"),
                environ=ENVIRON | {"STOKER_ID": mark},
                working_dir="/",
                log_path=str(self.directory / "logs" / f"{replica}.log"),
                endpoint="",
            )
        )

    async def start_all(self, count: int) -> list[WorkerHandle]:
        """At once, as the daemon does."""
        handles = []

        async def one() -> None:
            handles.append(await self.start())

        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(one)
        return handles

    async def end(self, handles: list[WorkerHandle]) -> None:
        async with anyio.create_task_group() as tasks:
            for handle in handles:
                tasks.start_soon(self.driver.wait, handle)
                await self.driver.kill(handle)


def bare(count: int) -> float:
    """Seconds that `count` bare spawns take."""
    began = time.perf_counter()
    pids = [os.posix_spawn("/bin/sleep", ["sleep", "1000000"], ENVIRON, setsid=True) for _ in range(count)]
    took = time.perf_counter() - began
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)
    return took


async def spawns(bench: Bench, count: int, rounds: int) -> dict[str, float]:
    """Bare spawns and starts in turn, so that both meet the same noise."""
    plain, ours = [], []
    for _ in range(rounds):
        plain.append(bare(count))
        began = time.perf_counter()
        handles = await bench.start_all(count)
        ours.append(time.perf_counter() - began)
        await bench.end(handles)
    low, high = statistics.median(plain), statistics.median(ours)
    return {
        "bare_ms": low * 1e3,
        "driver_ms": high * 1e3,
        "ratio": high / low,
        "per_worker_ms": high / count * 1e3,
        "allowed_ms": (ALLOWED_RATIO * low + ALLOWED_EXTRA) * 1e3,
    }


async def kills(bench: Bench, count: int, times: int) -> dict[str, float]:
    """kill -9 of one worker among `count`: until its exit is told, until another is spawned."""
    exits, spawned = [], []
    handles = await bench.start_all(count)
    async with anyio.create_task_group() as tasks:
        ends: dict[int, anyio.Event] = {}

        async def watch(handle: WorkerHandle) -> None:
            await bench.driver.wait(handle)
            ends.pop(handle.pid).set()

        def look_after(handle: WorkerHandle) -> None:
            ends[handle.pid] = anyio.Event()
            tasks.start_soon(watch, handle)

        for handle in handles:
            look_after(handle)
        for _ in range(times):
            await anyio.sleep(0.02)
            victim = handles.pop(0)
            told = ends[victim.pid]
            began = time.perf_counter()
            os.kill(victim.pid, signal.SIGKILL)
            await told.wait()
            exits.append(time.perf_counter() - began)
            handles.append(await bench.start())
            spawned.append(time.perf_counter() - began)
            look_after(handles[-1])
        for handle in handles:
            await bench.driver.kill(handle)
    return {
        "exit_told_ms_median": statistics.median(exits) * 1e3,
        "exit_told_ms_p95": statistics.quantiles(exits, n=20)[-1] * 1e3,
        "respawned_ms_median": statistics.median(spawned) * 1e3,
        "respawned_ms_p95": statistics.quantiles(spawned, n=20)[-1] * 1e3,
    }


async def measure(given: argparse.Namespace) -> dict[str, object]:
    results: dict[str, object] = {
        "n": given.n,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    for name, cgroup in (("cgroup", True), ("session", False)):
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            bench = Bench(Path(directory), cgroup=cgroup)
            async with aclosing(bench.driver):
                print(f"{name}: {bench.driver.description}")
                found = {
                    **await spawns(bench, given.n, given.rounds),
                    **await kills(bench, given.n, given.kills),
                }
        results[name] = {"held_by": bench.driver.description, **found}
        print(
            f"  start of {given.n}: {found['driver_ms']:.0f} ms, bare loop {found['bare_ms']:.0f} ms, "
            f"ratio {found['ratio']:.2f} (allowed: {found['allowed_ms']:.0f} ms)\n"
            f"  kill -9 to exit told: {found['exit_told_ms_median']:.2f} ms median, "
            f"{found['exit_told_ms_p95']:.2f} p95; to replacement spawned: "
            f"{found['respawned_ms_median']:.2f} ms median, {found['respawned_ms_p95']:.2f} p95"
        )
    return results


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "supervisor_driver.json"
    )
    given = parser.parse_args()
    results = anyio.run(measure, given)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")
    slow = [
        name for name in ("cgroup", "session") if results[name]["driver_ms"] > results[name]["allowed_ms"]
    ]
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())

"""Part B of the supervisor benchmark: whole daemons side by side.

    python tests/bench/bench_supervisor_daemon.py --install            # the peers, once
    python tests/bench/bench_supervisor_daemon.py [NAME...] [-n 100] [--rounds 1] [--out FILE]

N workers each: time until all are born, cost at rest, kill -9 of a worker to the birth of its
replacement, a changed command in the configuration to the birth of the new worker (and how many others
were restarted), time until all are dead after a stop. Times are taken by the workers themselves. The
floor is `bare`: posix_spawn, pidfds, epoll; `popen` is the same loop with subprocess.Popen and a log for
each. Needs a C compiler. Part A (the process driver alone) is bench_supervisor.py.
"""

import argparse
import json
import os
import platform
import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench_supervisor_peers import ALL, Supervisor, install
from bench_supervisor_world import World, cost_of, worker_program

RESULTS = Path(__file__).parent / "results"


class Run:
    """One contender, one after another through all phases; `found` holds the figures."""

    def __init__(self, given: argparse.Namespace, directory: Path, supervisor: Supervisor) -> None:
        self.given = given
        self.supervisor = supervisor
        self.world = World(directory)
        self.program = worker_program(directory)
        self.pool = supervisor.name.endswith("-pool")
        self.found: dict[str, float | bool] = {}

    def groups(self, version: int = 0) -> list[tuple[str, list[str], int]]:
        """N groups of one worker, or one group of N; a new version changes the command of one group."""
        if self.pool:
            return [("g", [self.program, str(self.world.fifo), "g"], self.given.n)]
        tags = [f"g{number}" for number in range(self.given.n)]
        changed = {self.changed: f"{self.changed}v{version}"} if version else {}
        return [(tag, [self.program, str(self.world.fifo), changed.get(tag, tag)], 1) for tag in tags]

    @property
    def changed(self) -> str:
        return f"g{self.given.n // 2}"

    def start(self) -> None:
        self.supervisor.configure(self.groups())
        began = time.monotonic()
        self.supervisor.start()
        if not self.world.until(lambda: len(self.world.births) >= self.given.n, 150):
            raise RuntimeError(f"{len(self.world.births)} of {self.given.n} workers were born")
        births = sorted(birth.at for birth in self.world.births)
        self.found["first_born_ms"] = (births[0] - began) * 1e3
        self.found["all_born_ms"] = (births[self.given.n - 1] - began) * 1e3
        self.found["first_to_last_ms"] = (births[self.given.n - 1] - births[0]) * 1e3

    def rest(self) -> None:
        self.world.settle(self.given.warm)
        pids = self.supervisor.pids(set(self.world.alive))
        before, began = cost_of(pids), time.monotonic()
        time.sleep(self.given.idle)
        after, seconds = cost_of(pids), time.monotonic() - began
        self.found |= {
            "processes": after.processes,
            "idle_cpu_percent": (after.cpu - before.cpu) / seconds * 100,
            "wake_ups_per_s": (after.wake_ups - before.wake_ups) / seconds,
            "rss_mb": after.rss / 1e6,
            "pss_mb": after.pss / 1e6,
            "main_rss_mb": cost_of(pids[:1]).rss / 1e6,
        }

    def restarts(self) -> None:
        chance, took = random.Random(7), []
        for _ in range(self.given.kills):
            self.world.settle(0.2 + chance.random() * self.supervisor.tick)
            pid, (tag, _) = next(iter(self.world.alive.items()))  # the oldest: past any throttle
            known, began = len(self.world.births), time.monotonic()
            os.kill(pid, signal.SIGKILL)
            if self.world.until(lambda tag=tag, known=known: self.world.first(tag, known) is not None, 15):
                took.append(self.world.first(tag, known).at - began)
        self.found["restarts_seen"] = len(took)
        if len(took) > 1:
            self.found["restart_ms_median"] = statistics.median(took) * 1e3
            self.found["restart_ms_p95"] = statistics.quantiles(took, n=20)[-1] * 1e3

    def change(self) -> None:
        if self.pool or self.supervisor.name in ("bare", "popen"):
            return
        took, others = [], 0
        for version in range(1, self.given.changes + 1):
            self.world.settle(2.0)
            known, began = len(self.world.births), time.monotonic()
            self.supervisor.configure(self.groups(version))
            self.supervisor.apply()
            tag = f"{self.changed}v{version}"
            if self.world.until(lambda tag=tag, known=known: self.world.first(tag, known) is not None, 100):
                took.append(self.world.first(tag, known).at - began)
            self.world.settle(2.0)
            others += sum(birth.tag != tag for birth in self.world.births[known:])
        if took:
            self.found["change_ms_median"] = statistics.median(took) * 1e3
        self.found["others_restarted"] = others / self.given.changes

    def stop(self) -> None:
        self.world.settle(0.5)
        began = time.monotonic()
        self.supervisor.stop()
        gone = self.world.until(lambda: not self.world.alive, 90)
        self.found["all_dead_ms"] = (time.monotonic() - began) * 1e3 if gone else float("inf")

    def all(self) -> dict[str, float | bool]:
        try:
            for phase in (self.start, self.rest, self.restarts, self.change, self.stop):
                phase()
        finally:
            self.supervisor.clean_up()
            self.world.end()
        return self.found


def compare(results: dict[str, dict[str, float]]) -> None:
    """Print a table, and every peer as a ratio to Stoker."""
    keys = list(next(iter(results.values())))
    print(f"\n{'':22}" + "".join(f"{name:>14}" for name in results))
    for key in keys:
        cells = (found.get(key) for found in results.values())
        print(f"{key:22}" + "".join(f"{'-' if cell is None else format(cell, '.2f'):>14}" for cell in cells))
    ours = results.get("stoker")
    if ours:
        print("\nratio to stoker (above 1: stoker is quicker or smaller)")
        for key in ("all_born_ms", "restart_ms_median", "change_ms_median", "idle_cpu_percent", "rss_mb"):
            cells = [
                found[key] / ours[key] if ours.get(key) and key in found else None
                for found in results.values()
            ]
            print(
                f"{key:22}" + "".join(f"{'-' if cell is None else format(cell, '.2f'):>14}" for cell in cells)
            )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; default: all")
    parser.add_argument("-n", type=int, default=100, help="workers")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--changes", type=int, default=3)
    parser.add_argument("--warm", type=float, default=3.0, help="seconds before the rest is measured")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds of rest")
    parser.add_argument("--peers", type=Path, default=RESULTS / "peers", help="where the peers are installed")
    parser.add_argument("--install", action="store_true", help="install the peers and end")
    parser.add_argument("--out", type=Path, default=RESULTS / "supervisor_daemon.json")
    given = parser.parse_args()
    if unknown := set(given.names) - set(ALL):
        parser.error(f"no contender {', '.join(unknown)}")
    if given.install:
        install(given.peers)
        return 0
    results = {}
    for name in given.names or ALL:
        with tempfile.TemporaryDirectory(prefix="b-") as directory:
            print(f"{name} ...", flush=True)
            supervisor = ALL[name](Path(directory), given.peers.resolve())
            results[name] = Run(given, Path(directory), supervisor).all()
    compare(results)
    about = {"n": given.n, "python": platform.python_version(), "kernel": platform.release()}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(
        json.dumps({**about, "load": os.getloadavg()[0], "results": results}, indent=1) + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

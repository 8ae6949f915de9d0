"""How quickly a whole daemon has N workers up, against a bare posix_spawn loop of the same program.

    python tests/bench/bench_start.py [stoker] [stoker-pool] [-n 100] [--rounds 5] [--out FILE]

Two times, both to the birth of the last worker as told by the workers themselves: from the launch of `stoker
up` (interpreter, imports, files, API, router), and from the moment the daemon is in control (its own event
that the first configuration is in force). The second may take 2 bare loops and 0.5 s. Needs a C compiler.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_supervisor_peers import ALL, Stoker
from bench_supervisor_world import World, cost_of, worker_program

ALLOWED_RATIO, ALLOWED_EXTRA = 2.0, 0.5
"""What starting may cost: this many times the bare loop, and so many seconds more."""


def bare(program: str, world: World, count: int) -> float:
    """Seconds from the first of `count` bare spawns to the last birth."""
    began = time.monotonic()
    for number in range(count):
        os.posix_spawn(program, [program, str(world.fifo), f"g{number}"], {}, setsid=True)
    world.until(lambda: len(world.births) >= count, 60)
    return max(birth.at for birth in world.births) - began


def in_control_at(stoker: Stoker) -> float:
    """When the loop took its first configuration over, in monotonic seconds."""
    command = [stoker.program, "--socket", stoker.directory / "s", "events", "-o", "json"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    events = json.loads(lines)
    events = events["events"] if isinstance(events, dict) else events
    return next(event["at"] for event in events if event["type"] == "ConfigApplied")


def one_round(name: str, given: argparse.Namespace) -> dict[str, float]:
    """A bare loop, then a daemon, so that both meet the same noise."""
    with tempfile.TemporaryDirectory(prefix="b-") as text:
        directory = Path(text)
        program = worker_program(directory)
        world = World(directory)
        alone = bare(program, world, given.n)
        pids = list(world.alive)
        world.end()
        for pid in pids:
            os.waitpid(pid, 0)
        world.fifo.unlink()
        world = World(directory)
        stoker = ALL[name](directory, Path())
        argv = [program, str(world.fifo)]
        pool = name.endswith("-pool")
        groups = [("g", [*argv, "g"], given.n)] if pool else [
            (f"g{number}", [*argv, f"g{number}"], 1) for number in range(given.n)
        ]  # fmt: skip
        stoker.configure(groups)
        began = time.monotonic()
        try:
            stoker.start()
            if not world.until(lambda: len(world.births) >= given.n, 150):
                raise RuntimeError(f"{len(world.births)} of {given.n} workers were born")
            cpu = cost_of([stoker.process.pid]).cpu
            births = sorted(birth.at for birth in world.births)
            in_control = in_control_at(stoker)
            stoker.stop()
            world.until(lambda: not world.alive, 60)
            stoker.process.wait(60)
        finally:
            stoker.clean_up()
            world.end()
    return {
        "bare_ms": alone * 1e3,
        "launch_to_in_control_ms": (in_control - began) * 1e3,
        "in_control_to_first_ms": (births[0] - in_control) * 1e3,
        "in_control_to_last_ms": (births[-1] - in_control) * 1e3,
        "launch_to_last_ms": (births[-1] - began) * 1e3,
        "daemon_cpu_ms": cpu * 1e3,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="stoker (N services), stoker-pool (one)")
    parser.add_argument("-n", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "start.json")
    given = parser.parse_args()
    results, late = {}, []
    for name in given.names or ("stoker", "stoker-pool"):
        rounds = [one_round(name, given) for _ in range(given.rounds)]
        found = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        found["worst_in_control_to_last_ms"] = max(each["in_control_to_last_ms"] for each in rounds)
        allowed = ALLOWED_RATIO * found["bare_ms"] + ALLOWED_EXTRA * 1e3
        results[name] = {**found, "allowed_ms": allowed}
        late += [name] if found["in_control_to_last_ms"] > allowed else []
        print(f"{name}, {given.n} workers, medians of {given.rounds}; load {os.getloadavg()[0]:.2f}")
        for key, value in results[name].items():
            print(f"  {key:28}{value:9.0f}")
    about = {"n": given.n, "python": platform.python_version(), "kernel": platform.release()}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(
        json.dumps({**about, "load": os.getloadavg()[0], "results": results}, indent=1) + "\n"
    )
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())

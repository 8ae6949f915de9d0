"""What ten thousand restarts leave behind in the daemon: descriptors, threads, zombies, memory.

    python tests/bench/bench_restarts.py [--restarts 10000] [--warm 2000] [--replicas 20] [--out FILE]

One service whose workers end by themselves at once and are started again without a pause. What the daemon
holds is compared between `--warm` restarts (its journal is then as full as it gets) and the end. Fails if
descriptors, threads or zombies have grown, or resident memory by more than a twentieth.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from system.harness import Box

ALLOWED_GROWTH = 0.05
SERVICE = """
name: bench
services:
  w:
    command: [sleep, "0.01"]
    scaling: {{min_replicas: {replicas}, max_replicas: {replicas}}}
    restart: {{backoff: 1ms, max_backoff: 1ms, crash_loop: 1000}}
"""


@dataclass(frozen=True)
class Holding:
    """What the daemon holds at one moment; `zombies` are children that nobody has taken away."""

    restarts: int
    descriptors: int
    threads: int
    zombies: int
    resident_kb: int
    proportional_kb: int


def holding(pid: int, restarts: int) -> Holding:
    status = Path(f"/proc/{pid}/status").read_text()
    memory = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return Holding(
        restarts=restarts,
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        threads=_field(status, "Threads:"),
        zombies=sum(_old_zombie(child) for child in _children(pid)),
        resident_kb=_field(memory, "Rss:"),
        proportional_kb=_field(memory, "Pss:"),
    )


def _field(text: str, name: str) -> int:
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(name))


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _old_zombie(pid: int) -> bool:
    """A zombie now and half a second later: one that was forgotten, not one that is being looked at."""
    for pause in (0.5, 0.0):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        if state != "Z":
            return False
        time.sleep(pause)
    return True


def restarts_of(box: Box) -> int:
    return sum(replica["restarts"] for replica in box.service("w")["replicas"])


def measure(given: argparse.Namespace) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="b-") as directory, Box(Path(directory)) as box:
        box.write(SERVICE.format(replicas=given.replicas))
        box.up()
        pid = box.daemon.pid
        began, found = time.monotonic(), []
        for upto in (given.warm, given.restarts):
            deadline = time.monotonic() + given.patience
            while (count := restarts_of(box)) < upto:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"only {count} restarts in {given.patience:.0f} s")
                time.sleep(0.5)
            found.append(holding(pid, count))
            print(f"  {found[-1]}", flush=True)
        rate = found[-1].restarts / (time.monotonic() - began)
    return {"warm": asdict(found[0]), "end": asdict(found[1]), "restarts_per_s": rate}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--restarts", type=int, default=10_000)
    parser.add_argument("--warm", type=int, default=2_000)
    parser.add_argument("--replicas", type=int, default=20)
    parser.add_argument("--patience", type=float, default=500.0, help="seconds for each of the two parts")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "restarts.json")
    given = parser.parse_args()
    found = measure(given)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({**found, "load": os.getloadavg()[0]}, indent=1) + "\n")
    warm, end = found["warm"], found["end"]
    growth = end["resident_kb"] / warm["resident_kb"] - 1
    print(f"{found['restarts_per_s']:.0f} restarts/s; resident memory {growth:+.1%}")
    # A worker in the middle of its start or end holds a few descriptors for a moment.
    spare = 3 * given.replicas
    leaks = end["descriptors"] > warm["descriptors"] + spare or end["threads"] > warm["threads"]
    return 1 if leaks or end["zombies"] > warm["zombies"] or growth > ALLOWED_GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())

"""What `preload` saves: replicas that are forked from a warm process against replicas that are executed.

    python tests/bench/bench_preload.py [--module torch] [--replicas 4] [--out FILE]

A real daemon runs two services of the same ASGI application, which imports the module; one of them preloads
it. Both grow by one replica at a time, in turn. Ready: from the decision to start to the first successful
probe, by the daemon's own events. USS: memory that is of that replica alone (/proc/PID/smaps_rollup), once it
has answered requests, while all the others run, so that files that several map count for none of them.
The first replica of the warm service waits for the imports and is told apart.

Without the module (`pip install torch`) a stand-in is used that computes for a second and keeps 64 MiB.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.system.harness import Box

STANDIN = """
import time
end = time.process_time() + 1.0
while time.process_time() < end:
    pass
MEMORY = [str(number) for number in range(1_000_000)]
"""
APP = """
import {module}
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": b"ok"}})
"""
FILE = """
name: bench
services:
  plain: {{python: "served:app", scaling: {{min_replicas: 1, max_replicas: 20}}}}
  warm:
    python: "served:app"
    preload: [{module}]
    scaling: {{min_replicas: 1, max_replicas: 20}}
"""
ALLOWED_READY, ALLOWED_USS = 5.0, 0.5
"""Ready at least so many times sooner; at most so much of the memory."""


def start_times(box: Box) -> dict[str, dict[str, float]]:
    """Seconds from the decision to ready, by service and replica."""
    events = json.loads(box.run("events", "-o", "json").stdout)
    events = events["events"] if isinstance(events, dict) else events
    began: dict[str, float] = {}
    found: dict[str, dict[str, float]] = {}
    for event in events:
        if event["type"] == "StartRequested":
            began[event["replica"]] = event["at"]
        elif event["type"] == "ReplicaBecameReady":
            took = event["at"] - began[event["replica"]]
            found.setdefault(event["service"].partition("/")[2], {})[event["replica"]] = took
    return found


def uss(pid: int) -> float:
    """MiB that no other process shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def measure(module: str, replicas: int) -> dict[str, dict[str, float]]:
    """Medians for both ways."""
    with tempfile.TemporaryDirectory(prefix="b-") as text:
        directory = Path(text)
        (directory / "standin.py").write_text(STANDIN)
        (directory / "served.py").write_text(APP.format(module=module))
        with Box(directory) as box:
            box.write(FILE.format(module=module))
            box.begin()
            box.until(
                lambda: box.run("status", check=False).returncode == 0 and box.status()["services"],
                "the configuration is in force",
                120,
            )
            for name in ("plain", "warm"):
                box.ready(name, 1, seconds=180)
            for count in range(2, replicas + 1):
                for name in ("plain", "warm"):
                    box.run("scale", name, str(count))
                    box.ready(name, count, seconds=180)
            found = {}
            times = start_times(box)
            for name in ("plain", "warm"):
                for _ in range(4 * replicas):
                    box.get(name)
                memory = [uss(one["pid"]) for one in box.replicas(name)]
                first, *rest = times[name].values()
                found[name] = {
                    "first_ready_s": first,
                    "ready_s": statistics.median(rest),
                    "uss_mib": statistics.median(memory),
                }
        return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--module", default="torch" if importlib.util.find_spec("torch") else "standin")
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "preload.json")
    given = parser.parse_args()
    found = measure(given.module, given.replicas)
    for name, values in found.items():
        print(f"{name:8}" + "".join(f"{key} {value:9.3f}   " for key, value in values.items()))
    sooner = found["plain"]["ready_s"] / found["warm"]["ready_s"]
    memory = found["warm"]["uss_mib"] / found["plain"]["uss_mib"]
    print(f"{given.module}: ready {sooner:.1f} times sooner (at least {ALLOWED_READY:g}), ", end="")
    print(f"USS {memory:.2f} of it (at most {ALLOWED_USS:g}); load {os.getloadavg()[0]:.2f}")
    about = {"module": given.module, "python": platform.python_version(), "sooner": sooner, "uss": memory}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({**about, "load": os.getloadavg()[0], "results": found}, indent=1) + "\n")
    return 0 if sooner >= ALLOWED_READY and memory <= ALLOWED_USS else 1


if __name__ == "__main__":
    sys.exit(main())

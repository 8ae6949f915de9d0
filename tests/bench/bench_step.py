"""How long a step of load takes to the first new worker's exec, and where the time goes.

    python tests/bench/bench_step.py [--rounds 5] [--out FILE]

A real daemon, its router, a policy with no scale-up window. `step`: a service with one replica, busy with one
request at a time, gets eight at once. `zero`: a service without replicas gets its first request. Times from
the client's first byte: the decision (the target changes), the start (placed, and given to the driver), the
exec (the driver has the worker's pid after a successful exec). At most 300 ms to the exec.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.system.harness import Box  # noqa: E402 - it is no package that is installed

WORKER = ROOT / "tests" / "system" / "worker.py"
ALLOWED = 300.0
"""Milliseconds to the exec."""
AT_ONCE = 8


def services() -> dict[str, Any]:
    policy = {
        "metric": "concurrency", "target": 1,
        "scale_up_stabilization_window": 0, "scale_down_stabilization_window": 1,
        "window": 1,
    }  # fmt: skip
    command = [sys.executable, str(WORKER), "--port", "{port}", "--slow", "0.3"]
    one = {"command": command, "traffic": {"concurrency": 1}}
    return {
        "step": {**one, "scaling": {"min_replicas": 1, "max_replicas": 6, "policy": policy}},
        "zero": {**one, "scaling": {"min_replicas": 0, "max_replicas": 2, "policy": policy}},
    }


def get(url: str) -> None:
    with urllib.request.urlopen(url, timeout=60) as answer:
        answer.read()


def first_after(box: Box, began: float, service: str) -> dict[str, float]:
    """Milliseconds from the beginning to each stage, by the daemon's events."""
    names = {"TargetChanged": "decision", "StartRequested": "start", "WorkerSpawned": "exec"}
    found: dict[str, float] = {}

    def look() -> bool:
        events = json.loads(box.run("events", "-o", "json").stdout)
        for event in events["events"] if isinstance(events, dict) else events:
            mine = event["at"] >= began and str(event.get("service", "")).endswith(f"/{service}")
            if mine and event["type"] in names:
                found.setdefault(names[event["type"]], (event["at"] - began) * 1e3)
        return "exec" in found

    box.until(look, f"a new worker of {service}", 60)
    return found


def one_round(box: Box, name: str) -> dict[str, float]:
    """One step from rest."""
    least = 1 if name == "step" else 0
    box.ready(name, least, seconds=60)
    url = box.service(name)["url"]
    if name == "step":
        for _ in range(3):
            get(url)
    threads = [threading.Thread(target=get, args=(url,)) for _ in range(AT_ONCE if least else 1)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    found = first_after(box, began, name)
    for thread in threads:
        thread.join()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "step.json")
    given = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="b-") as text, Box(Path(text)) as box:
        box.write(json.dumps({"name": "bench", "services": services()}))
        box.begin()
        up = lambda: box.run("status", check=False).returncode == 0 and box.status()["services"]  # noqa: E731
        box.until(up, "the daemon is up", 120)
        for name in ("step", "zero"):
            rounds = [one_round(box, name) for _ in range(given.rounds)]
            results[name] = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
            results[name]["worst"] = max(each["exec"] for each in rounds)
            words = ", ".join(f"{key} {value:.0f} ms" for key, value in results[name].items())
            print(f"{name}: {words} (medians of {given.rounds}; at most {ALLOWED:.0f} ms to the exec)")
    print(f"load {os.getloadavg()[0]:.2f}")
    about = {"python": platform.python_version(), "kernel": platform.release(), "load": os.getloadavg()[0]}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")
    return 1 if any(found["exec"] > ALLOWED for found in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

"""kill -9 of the daemon, again and again, with many workers under load.

    python tests/bench/bench_death.py [--workers 100] [--rounds 20] [--out FILE]

Each round: SIGKILL, start the next daemon, wait until it has all workers in hand, by its own event of that,
and until its status says so. Prints how long both took from the start of its process and the CPU until then,
beside the time of a Python that only loads the libraries; requests that failed, workers that were started,
doubled or lost, and the descriptors of daemon and router. Exit code 1 where anything was harmed. Needs a C
compiler.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from system.chaos import Clients, descriptors, processes, status_of
from system.harness import Box

PEER = (
    sys.executable,
    "-P",
    "-c",
    "import anyio._backends._asyncio, click, pluggy, starlette.applications, uvicorn",
)
"""What every daemon of these libraries takes."""
BACKEND = Path(__file__).parent / "router" / "backend.c"


def deployment(program: Path, workers: int) -> str:
    web = {
        "command": [str(program), "{port}"],
        "scaling": {"min_replicas": workers, "max_replicas": workers},
        "probes": {"readiness": {"http": "/", "period": "5s"}},
        "traffic": {"concurrency": 4},
    }
    return json.dumps({"name": "death", "services": {"web": web}})


def ready(status: dict | None) -> dict[str, int]:
    """id -> pid of the ready workers."""
    services = status["services"] if status else []
    return {r["id"]: r["pid"] for s in services for r in s["replicas"] if r["phase"] == "ready"}


def until_ready(box: Box, count: int, seconds: float) -> dict:
    deadline = time.monotonic() + seconds
    while len(ready(status := status_of(box))) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"{len(ready(status))} of {count} workers are ready\n{box.output()}")
        time.sleep(0.005)
    return status


def in_hand(box: Box, began: float) -> float:
    """Seconds from `began` to the first plan of the new daemon, in which it has the workers."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        lines = (box.state_dir / "events.jsonl").read_text(errors="replace").splitlines()
        told = [event["at"] for event in map(json.loads, lines) if event["message"].startswith("took over ")]
        if told and told[-1] > began:
            return told[-1] - began
        time.sleep(0.02)
    raise SystemExit(f"it never said that it took over\n{box.output()}")


def cpu_of(pid: int) -> float:
    """Seconds, of all its threads so far."""
    return (
        sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())
        / 1e9
    )


def bare(box: Box) -> float:
    """Seconds of a process that loads the libraries and ends: the peer."""
    began = time.monotonic()
    subprocess.run(PEER, env=box.environ, check=True)
    return time.monotonic() - began


def medians(rounds: list[dict[str, float]]) -> dict[str, int]:
    """Each figure in milliseconds."""
    return {
        f"{name}_ms_median": round(statistics.median(r[name] for r in rounds) * 1e3) for name in rounds[0]
    }


def run(given: argparse.Namespace, directory: Path) -> dict:
    program = directory / "backend"
    subprocess.run(["cc", "-O2", "-o", str(program), str(BACKEND)], check=True)
    with Box(directory) as box:
        box.write(deployment(program, given.workers))
        box.begin()
        status = until_ready(box, given.workers, 120)
        before = ready(status)
        instance = (box.state_dir / "instance").read_text().strip()
        (router,) = processes(rf"(stoker_router)\0.*{instance}", "cmdline")
        rounds: list[dict[str, float]] = []
        open_files, router_files = [], []
        with Clients(status["services"][0]["url"], threads=given.clients, pause=given.think) as clients:
            for _ in range(given.rounds):
                time.sleep(given.pause)
                box.kill()
                began = time.monotonic()
                box.begin()
                while (status := status_of(box)) is None:
                    time.sleep(0.002)
                answers = time.monotonic() - began
                status = until_ready(box, given.workers, 60)
                told, cpu = time.monotonic() - began, cpu_of(status["daemon"]["pid"])
                hand = in_hand(box, began)
                rounds.append({"in_control": hand, "answers": answers, "status_says_so": told, "cpu": cpu})
                rounds[-1]["peer"] = bare(box)
                time.sleep(0.5)
                open_files.append(descriptors(status["daemon"]["pid"]))
                router_files.append(descriptors(router))
            time.sleep(1)
        after = ready(status_of(box))
        living = processes(rf"STOKER_ID=({instance}):")
        log = (directory / "daemon.out").read_text(errors="replace")
    return {
        "workers": given.workers,
        "rounds": given.rounds,
        "answered": clients.answered,
        "failed": [failure.what for failure in clients.failures],
        "restarted_or_lost": len(set(before.items()) ^ set(after.items())),
        "doubled": len(living) - given.workers,
        **medians(rounds),
        "in_control_ms_max": round(max(r["in_control"] for r in rounds) * 1e3),
        "to_peer": round(statistics.median(r["in_control"] / r["peer"] for r in rounds), 2),
        "daemon_descriptors": [open_files[0], open_files[-1]],
        "router_descriptors": [router_files[0], router_files[-1]],
        "slowest_request_ms": round(clients.slowest * 1e3),
        "tracebacks": log.count("Traceback"),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--think", type=float, default=0.01, help="seconds between a client's requests")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds of peace before each kill")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="death-") as name:
        found = run(given, Path(name))
    print(json.dumps(found, indent=1))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    return bool(found["failed"] or found["restarted_or_lost"] or found["doubled"] or found["tracebacks"])


if __name__ == "__main__":
    sys.exit(main())

"""A bento of three services, two replicas of the middle one: through Stoker and through `bentoml serve`.

    python tests/bench/bench_bentoml.py [--rounds 5] [--json OUT]

Needs BentoML in the Python that runs it (pip install 'stoker[bentoml]'). The bento is `examples/bento`; what
`bentoml serve` has for two replicas is `workers: 2`. Both are asked and watched alike.
  entry  seconds from the start of the command until the first request through the entry service was answered
  all    until also each of the four workers has said that its service is initialized
  cpu    processor seconds of everything by then; the figure that suffers least from what else the box does
  rss    MiB, the median of the four workers after some requests
  back   seconds from SIGKILL of a worker of the middle service until its successor has said the same
Rounds are interleaved, ratios are taken within a round, and their median is given. Goals: ready in at most
1.25 of BentoML's time, memory at most 1.05 of its, a killed worker back in under 2 s.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

PROJECT = Path(__file__).parents[2] / "examples" / "bento"
PATIENCE = 60.0
GOALS = {"entry": 1.25, "all": 1.25, "cpu": 1.25, "rss": 1.05}
BACK_GOAL = 2.0
NICE = -15
"""Priority of everything measured, where we are root: less of other people's noise."""
FILE = """
name: bench
bento: service:Review
services:
  Review: {endpoint: {port: PORT}}
  Judge: {scaling: {min_replicas: 2, max_replicas: 2}}
"""


class Run:
    """One command that serves the bento from a directory of its own."""

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.port = free_port()
        for file in PROJECT.glob("*.py"):
            shutil.copy(file, folder)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environ = {
            "PATH": path,
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "BENTOML_DO_NOT_TRACK": "True",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def logs(self) -> list[Path]:
        """Where the workers' output is."""
        return [self.out]

    def workers(self) -> dict[int, str]:
        """The workers' pids and their services."""
        raise NotImplementedError

    def start(self) -> None:
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> None:
        """Ask it to end; what is left of its session after that is killed."""
        if self.process is None:
            return
        mine = [*psutil.Process(self.process.pid).children(recursive=True)]
        self.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        for left in [*mine, self.process]:
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                left.kill()
        self.process.wait(10)

    def initialized(self, service: str = "") -> int:
        """How many workers have said that their service is there."""
        wanted = f"Service {service}"
        lines = [line for log in self.logs() for line in log.read_text(errors="replace").splitlines()]
        return sum(wanted in line and "initialized" in line for line in lines)

    def cpu(self) -> float:
        """Processor seconds of the command, its descendants, and those of them that have ended."""
        assert self.process is not None
        tree = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        return sum(sum(one.cpu_times()[:4]) for one in tree)

    def ask(self) -> bool:
        """One request through the entry service."""
        body = json.dumps({"text": "great and clean, but slow"}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/review", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.loads(answer.read())["words"] == 5
        except OSError:
            return False


class Stoker(Run):
    """`stoker up`."""

    name = "stoker"

    def command(self) -> list[str]:
        (self.folder / "d.yaml").write_text(FILE.replace("PORT", str(self.port)))
        where = ["--state-dir", str(self.folder / "state"), "--socket", str(self.folder / "s")]
        return [sys.executable, "-m", "stoker.cli", "up", "d.yaml", *where]

    def logs(self) -> list[Path]:
        return list((self.folder / "state" / "logs").glob("*/*/*.log"))

    def workers(self) -> dict[int, str]:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.folder / "s"))
        connection.request("GET", "/v1/status")
        status = json.loads(connection.getresponse().read())
        connection.close()
        return {one["pid"]: each["name"] for each in status["services"] for one in each["replicas"]}


class Bento(Run):
    """`bentoml serve`."""

    name = "bentoml"

    def command(self) -> list[str]:
        self.environ["BENTOML_CONFIG_OVERRIDES"] = json.dumps({"services": {"Judge": {"workers": 2}}})
        return [sys.executable, "-m", "bentoml", "serve", "service:Review", "-p", str(self.port)]

    def workers(self) -> dict[int, str]:
        assert self.process is not None
        found: dict[int, str] = {}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            words = child.cmdline()
            if "--service-name" in words:
                found[child.pid] = words[words.index("--service-name") + 1]
        return found


def main() -> int:
    options = parse()
    if os.geteuid() == 0:
        os.nice(NICE)
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(options.rounds):
        order = [Stoker, Bento] if number % 2 else [Bento, Stoker]
        rounds.append({kind.name: measure(kind) for kind in order})
        print(f"round {number + 1}: {json.dumps(rounds[-1])}", flush=True)
    summary = {"machine": machine(), "rounds": rounds, "summary": summarize(rounds)}
    show(summary["summary"])
    if options.json:
        Path(options.json).write_text(json.dumps(summary, indent=1) + "\n")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="where to write the figures")
    return parser.parse_args()


def measure(kind: type[Run]) -> dict[str, float]:
    """All figures of one run."""
    with tempfile.TemporaryDirectory(prefix="bento-bench-") as folder, running(kind(Path(folder))) as run:
        began = time.monotonic()
        run.start()
        until(run.ask, "the first answer", run)
        entry = time.monotonic() - began
        until(lambda: run.initialized() >= 4, "four workers", run)
        everyone = time.monotonic() - began
        cpu = run.cpu()
        for _ in range(20):
            run.ask()
        workers = run.workers()
        assert len(workers) == 4, workers
        rss = statistics.median(psutil.Process(pid).memory_info().rss for pid in workers) / 2**20
        before = run.initialized("Judge")
        killed = time.monotonic()
        os.kill(next(pid for pid, name in workers.items() if name == "Judge"), signal.SIGKILL)
        until(lambda: run.initialized("Judge") > before, "a successor", run)
        back = time.monotonic() - killed
    return {"entry": entry, "all": everyone, "cpu": cpu, "rss": rss, "back": back}


@contextlib.contextmanager
def running(run: Run) -> Iterator[Run]:
    try:
        yield run
    finally:
        run.stop()


def until(condition: Callable[[], bool], what: str, run: Run) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline or (run.process is not None and run.process.poll() is not None):
            said = "".join(log.read_text(errors="replace")[-2000:] for log in {run.out, *run.logs()})
            raise SystemExit(f"{run.name}: not within a minute: {what}\n{said}")
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def summarize(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians of each, and the median of the ratios within rounds."""
    found = {}
    for figure in ("entry", "all", "cpu", "rss", "back"):
        ours, theirs = ([one[name][figure] for one in rounds] for name in ("stoker", "bentoml"))
        found[figure] = {
            "stoker": statistics.median(ours),
            "bentoml": statistics.median(theirs),
            "ratio": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
        }
    return found


def show(summary: dict[str, dict[str, float]]) -> None:
    print(f"{'':8}{'stoker':>9}{'bentoml':>9}{'ratio':>8}  goal")
    for figure, row in summary.items():
        within = row["ratio"] <= GOALS[figure] if figure in GOALS else row["stoker"] < BACK_GOAL
        goal = f"ratio <= {GOALS[figure]}" if figure in GOALS else f"stoker < {BACK_GOAL:g} s"
        unit = "MiB" if figure == "rss" else "s"
        verdict = "reached" if within else "MISSED"
        values = f"{row['stoker']:>9.2f}{row['bentoml']:>9.2f}{row['ratio']:>8.2f}"
        print(f"{figure:8}{values}  {goal}: {verdict} ({unit})")


def machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "bentoml": version("bentoml"),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
    }


if __name__ == "__main__":
    sys.exit(main())

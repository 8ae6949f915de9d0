"""Whether a simulation says what then happens: one load live, recorded, and replayed by `stoker simulate`.

    python tests/bench/bench_agreement.py [--seconds 90] [--seed 1] [--policy concurrency] [--out FILE]

A made-up day in so many seconds (a slow wave, bursts, service times of 0.1 to 3 s) goes to a real daemon
whose replicas take some seconds to start. `stoker record` writes down what came; `stoker simulate` replays
that file with the start-up time that the daemon has learned (`stoker explain`). Replica-seconds are compared,
from the first request to the last answer: live by the daemon's events, from the decision to start a replica
to its end. They may differ by 10 %.
"""

import argparse
import asyncio
import json
import math
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.system.harness import STOKER, Box  # noqa: E402 - it is no package that is installed

ALLOWED = 0.10
APP = """
import asyncio, time
from urllib.parse import parse_qs
time.sleep(1.5)
async def app(scope, receive, send):
    if scope["type"] == "http":
        await asyncio.sleep(float(parse_qs(scope["query_string"].decode())["s"][0]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})
"""


def made_up(seconds: float, seed: int) -> list[tuple[float, float]]:
    """(arrival, service time) of each request."""
    dice = random.Random(seed)
    bursts = [(dice.uniform(0, seconds), dice.uniform(2, 6)) for _ in range(4)]
    found, at = [], 0.0
    while at < seconds:
        rate = 2.5 - 2.0 * math.cos(2 * math.pi * at / seconds)
        rate += sum(6.0 for begin, length in bursts if begin <= at < begin + length)
        at += dice.expovariate(rate)
        found.append((at, min(3.0, max(0.1, dice.lognormvariate(-0.9, 0.7)))))
    return found


def deployment(policy: str) -> dict[str, Any]:
    rule = {"metric": policy, "scale_up_stabilization_window": 0, "scale_down_stabilization_window": 8}
    scaling = {"min_replicas": 1, "max_replicas": 12, "policy": rule}
    spec = {"python": "served:app", "traffic": {"concurrency": 2}, "scaling": scaling}
    return {"name": "bench", "services": {"web": spec}}


async def send(url: str, trace: list[tuple[float, float]]) -> None:
    """Each request at its time."""
    host, port = url.removeprefix("http://").split(":")
    began = time.monotonic()

    async def one(at: float, held: float) -> None:
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"GET /?s={held:.3f} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        answer = await reader.read()
        writer.close()
        if b" 200 " not in answer[:20]:
            raise RuntimeError(answer[:200])

    await asyncio.gather(*(one(*request) for request in trace))


def lived(box: Box, began: float, ended: float) -> float:
    """Replica-seconds between the two times, by the daemon's events."""
    events = json.loads(box.run("events", "-o", "json").stdout)
    born: dict[str, float] = {}
    total = 0.0
    for event in events["events"] if isinstance(events, dict) else events:
        if event["type"] == "StartRequested":
            born[event["replica"]] = event["at"]
        elif event["type"] == "WorkerExited" and event["replica"] in born:
            total += max(0.0, min(ended, event["at"]) - max(began, born.pop(event["replica"])))
    return total + sum(max(0.0, ended - max(began, at)) for at in born.values())


def live(box: Box, trace: list[tuple[float, float]], recorded: Path) -> tuple[float, float]:
    """Replica-seconds, and the seconds that a start takes."""
    with subprocess.Popen(
        [*STOKER, "record", "web", "-o", str(recorded)],
        env=box.environ, cwd=box.directory, stderr=subprocess.PIPE, text=True,
    ) as recorder:  # fmt: skip
        assert recorder.stderr is not None
        recorder.stderr.readline()
        began = time.monotonic() + trace[0][0]
        asyncio.run(send(box.service("web")["url"], trace))
        ended = time.monotonic()
        recorder.send_signal(signal.SIGINT)
        print("recorded:", recorder.stderr.read().strip())
    explained = json.loads(box.run("explain", "web", "-o", "json").stdout)
    return lived(box, began, ended), explained["startup_s"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--policy", default="concurrency")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "agreement.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="b-") as text, Box(Path(text)) as box:
        (box.directory / "served.py").write_text(APP)
        box.write(json.dumps(deployment(given.policy)))
        box.begin()
        up = lambda: box.run("status", check=False).returncode == 0 and box.status()["services"]  # noqa: E731
        box.until(up, "the daemon is up", 120)
        box.ready("web", 1, seconds=60)
        recorded = box.directory / "recorded.csv"
        real, startup = live(box, made_up(given.seconds, given.seed), recorded)
        simulate = ("simulate", str(box.file), "--trace", str(recorded), "--startup", f"{startup:.3f}s")
        told = json.loads(box.run(*simulate, "-o", "json").stdout)["services"][0]
    ratio = told["replica_seconds"] / real
    print(f"live {real:.1f} replica-seconds, simulated {told['replica_seconds']:.1f}: ratio {ratio:.3f}")
    print(f"a start took {startup:.2f} s; {told['requests']} requests; load {os.getloadavg()[0]:.2f}")
    about = {"python": platform.python_version(), "load": os.getloadavg()[0], "policy": given.policy}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(
        json.dumps({**about, "live": real, "simulated": told, "ratio": ratio}, indent=1) + "\n"
    )
    return 0 if abs(ratio - 1) <= ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())

"""What the page, the commands and their streams cost, each beside what it may cost.

    python tests/bench/bench_page.py [--events 10000] [--pages 50] [--services 20]

`stoker status` and completion by the clock of whole processes; the stream of events read to its end while
services crash in circles; pages as readers of the live stream over a box under load; the first paint in a
real Chromium, where there is one; an hour of history as it goes over the wire and as it lies in memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import urllib.request
from collections.abc import Callable
from contextlib import closing, contextmanager, suppress
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from api.wire import Connection
from stoker.api.history import history_document
from stoker.decide.demand import LoadHistory
from stoker.model.load import LoadSample
from stoker.runtime.history import load_points
from system.harness import STOKER, Box

APP = """async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""


def told(what: str, figure: float, unit: str, most: float) -> None:
    print(f"{what:46} {figure:9.1f} {unit:4} of {most:g}{'' if figure < most else '   OVER'}", flush=True)


@contextmanager
def daemon(services: dict[str, object], *args: str):
    with tempfile.TemporaryDirectory(prefix="p-") as folder, Box(Path(folder)) as box:
        (Path(folder) / "m.py").write_text(APP)
        box.write(
            "name: app\nservices:\n" + "".join(f"  {n}: {json.dumps(s)}\n" for n, s in services.items())
        )
        box.up(*args)
        yield box


def resident(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def used(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def commands(box: Box, rounds: int = 11) -> None:
    def whole(*args: str, **environ: str) -> float:
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            subprocess.run(
                [*STOKER, *args], env=box.environ | environ, check=True, capture_output=True, timeout=30
            )
            times.append((time.perf_counter() - began) * 1000)
        return statistics.median(times)

    told("stoker status, a process", whole("status"), "ms", 200)
    asked = {"_STOKER_COMPLETE": "bash_complete", "COMP_WORDS": "stoker restart sv", "COMP_CWORD": "2"}
    told("completion of a service's name", whole(**asked), "ms", 100)


def stream(box: Box, path: str, heard: Callable[[bytes], bool]) -> None:
    """Read a stream's lines until `heard` has enough."""
    with closing(Connection(str(box.socket))) as connection, suppress(TimeoutError):
        connection.request("GET", path)
        answer = connection.getresponse()
        while (line := answer.readline()) and not heard(line):
            pass


def events(count: int) -> None:
    crash = {"command": ["false"], "restart": {"backoff": 0.02, "max_backoff": 0.05, "crash_loop": 1000}}
    with daemon({f"crash{n}": crash for n in range(10)}) as box:
        pid, ids, sizes = box.daemon.pid, [], []

        def heard(line: bytes) -> bool:
            if line.startswith(b"id: "):
                ids.append(line[4:].strip())
                if len(ids) in {5500, 5500 + count}:
                    sizes.append(resident(pid))
            return len(ids) >= 5500 + count

        began = time.monotonic()
        stream(box, "/v1/events", heard)
        took = time.monotonic() - began
        numbers = [int(bytes(c for c in one.rpartition(b"-")[2] if 48 <= c < 58)) for one in ids]
        lost = sum(b - a - 1 for a, b in pairwise(numbers))
    print(f"{len(ids)} events in {took:.0f} s, doubled {len(ids) - len(set(ids))}")
    told(f"events lost of {count}", lost, "", 1)
    told(f"daemon grown over {count} events", sizes[-1] - sizes[0], "MiB", 2)


def pages(count: int, services: int) -> None:
    web = {"python": "m:app", "scaling": {"min_replicas": 1, "max_replicas": 1}}
    quiet = {f"svc{n}": {"command": ["sleep", "600"]} for n in range(services - 1)}
    with daemon({"web": web, **quiet}, "--listen", "127.0.0.1:0") as box:
        box.until(lambda: all(s["ready"] for s in box.status()["services"]), "all are ready", 60)
        commands(box)
        paint(box)
        url, ended = box.service("web")["url"], threading.Event()

        def load() -> None:
            while not ended.wait(0.05):
                urllib.request.urlopen(url, timeout=20).read()

        threading.Thread(target=load).start()

        def share(seconds: float = 15) -> float:
            before = used(box.daemon.pid)
            time.sleep(seconds)
            return (used(box.daemon.pid) - before) / seconds * 100

        alone = share()
        bytes_read = [0]

        def heard(line: bytes) -> bool:
            bytes_read[0] += len(line)
            return ended.is_set()

        readers = [threading.Thread(target=stream, args=(box, "/v1/live", heard)) for _ in range(count)]
        for reader in readers:
            reader.start()
        time.sleep(3)
        told(f"{count} pages over a box under load, of a core", share() - alone, "%", 5)
        print(f"  (the same box without a page: {alone:.1f} %; read by all: {bytes_read[0] / 2**20:.1f} MiB)")
        time.sleep(1)
        ended.set()
        for reader in readers:
            reader.join()


def paint(box: Box) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        print("no chromium: no first paint")
        return
    from playwright.sync_api import sync_playwright

    (url,) = json.loads(box.run("ui", "-o", "json").stdout)["urls"]
    script = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    cards = "document.querySelectorAll('article.pool').length && performance.now()"
    first, whole = [], []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(5):
            page = browser.new_context().new_page()
            page.goto(url)
            whole.append(page.wait_for_function(cards).json_value())
            first.append(page.wait_for_function(script).json_value())
            page.context.close()
        browser.close()
    told("first paint", statistics.median(first), "ms", 1000)
    told("all services shown", statistics.median(whole), "ms", 1000)


def hour(services: int) -> None:
    def one(n: int) -> LoadHistory:
        kept = LoadHistory()
        for at in range(3600):
            counts = {"in_flight": 3, "queued": 1, "arrivals": 17, "completions": 17, "codes": {"2xx": 17}}
            times = {"in_flight_seconds": 2.123456 + at % 7, "queued_seconds": 0.7, "service_seconds": 2.1}
            latency = {0.05: 3 + at % 5, 0.1: 9, 0.25: 5}
            sample = LoadSample(service=f"s{n}", start=at, end=at + 1, latency=latency, **counts, **times)
            kept = kept.add(sample)
        return kept

    gc.collect()
    tracemalloc.start()
    kept = [one(n) for n in range(services)]
    gc.collect()
    memory = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    from stoker.api.facade import ServiceHistory

    found = {f"app/svc{n}": ServiceHistory(load=load_points(h, 0, 3600.0)) for n, h in enumerate(kept)}
    text = json.dumps(history_document(found, 1.7e9), separators=(",", ":"))
    told(f"an hour of {services} busy services, sent", len(text) / 1e6, "MB", 2)
    print(f"  (kept in the daemon, which decides by it: {memory / 1e6:.1f} MB)")


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    given.add_argument("--events", type=int, default=10_000)
    given.add_argument("--pages", type=int, default=50)
    given.add_argument("--services", type=int, default=20)
    options = given.parse_args()
    hour(options.services)
    pages(options.pages, options.services)
    events(options.events)


if __name__ == "__main__":
    main()

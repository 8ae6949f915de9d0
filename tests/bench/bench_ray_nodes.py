"""Nodes of a Ray cluster die under load: what is lost, and how long until it is made up for.

    python tests/bench/bench_ray_nodes.py [--threads 3]

Three nodes and a box, network namespaces with addresses of their own (ray_nodes.py). Six requests at a time,
from the box and from a router without a daemon on a node, ask four replicas while

1. a node's power goes: its cable first, so that no closed connection tells of it, then all its processes;
2. another node is cut off with all that runs on it, the daemon is killed meanwhile and begins anew, and the
   cable is plugged in again.

Ends with 1 if a request fails, if replicas are not back within 10 s of Ray's word that they are lost, or if a
worker of the node that was cut off is ever asked again. Needs root, ray, and ip, nsenter, setpriv, unshare.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.ray_nodes import BOX, Cluster, Host
from system.harness import STOKER, Box

RELAY = Path(__file__).parents[1] / "system/relay.py"
GOAL = 10.0
PORT, API = 8800, 7070
LOAD = """
import json, sys, threading, time, urllib.request
url, threads = sys.argv[1], int(sys.argv[2])
seen, failures, longest, over = {}, [], [0.0], threading.Event()
def ask():
    while not over.is_set():
        began = time.time()
        try:
            with urllib.request.urlopen(url, timeout=90) as answer:
                who = json.loads(answer.read())[0]["pid"]
            last, count = seen.get(who, (0, 0))
            seen[who] = max(last, began), count + 1
        except Exception as error:
            failures.append([time.time(), repr(error)])
        longest[0] = max(longest[0], time.time() - began)
every = [threading.Thread(target=ask) for _ in range(threads)]
for one in every: one.start()
sys.stdin.read()
over.set()
for one in every: one.join()
print(json.dumps({"seen": seen, "failures": failures, "longest": longest[0]}))
"""


class Load:
    """Requests from a host, until it is asked for what came of them."""

    def __init__(self, host: Host, url: str, threads: int) -> None:
        self._process = subprocess.Popen(
            [*host.inside, sys.executable, "-c", LOAD, url, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def end(self) -> dict[str, Any]:
        said, _ = self._process.communicate(timeout=120)
        return json.loads(said)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=3)
    parser.add_argument("--verbose", action="store_true", help="show the daemon's events as well")
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="rn", dir="/tmp"))
    began = time.monotonic()
    cluster = Cluster(place, 3)
    print(f"cluster of 3 nodes and the box: up in {time.monotonic() - began:.1f} s", flush=True)
    try:
        with Box(place, **cluster.environ) as box, Box(place / "far", **cluster.environ) as far:
            return 0 if Play(cluster, box, far, given.threads, verbose=given.verbose).run() else 1
    finally:
        cluster.close()
        shutil.rmtree(place, ignore_errors=True)


class Play:
    """The two acts."""

    def __init__(self, cluster: Cluster, box: Box, far: Box, threads: int, *, verbose: bool) -> None:
        self.verbose = verbose
        self.cluster, self.box, self.far, self.threads = cluster, box, far, threads
        self.good = True

    def run(self) -> bool:
        box = self.box
        box.through = self.cluster.box.inside
        box.write(self.deployment())
        box.up(f"--listen={BOX}:{API}")
        box.ready("web", 4, 90)
        # The router of a node's own asks from the last one, which stays.
        self.go_far(self.cluster.nodes[2])
        loads = [
            Load(self.cluster.box, f"http://{BOX}:{PORT}/", self.threads),
            Load(self.cluster.nodes[2], f"http://127.0.0.1:{PORT}/", self.threads),
        ]
        time.sleep(3)
        self.act("power off", 0, lambda: self.cluster.kill(0))
        victims, at = self.cut_off(1)
        print(box.run("gpus").stdout, end="")
        results = [load.end() for load in loads]
        for who, result in zip(("from the box", "by a node's router"), results, strict=True):
            count = sum(one[1] for one in result["seen"].values())
            words = f"{count} answered, {len(result['failures'])} failed, longest {result['longest']:.1f} s"
            self.verdict(f"requests {who}: {words}", not result["failures"])
            if result["failures"]:
                print(result["failures"][:3])
            late = [who for who in victims if result["seen"].get(str(who), (0, 0))[0] > at]
            self.verdict(f"asked of the cut-off node's workers after they were replaced: {late}", not late)
        return self.good

    def deployment(self) -> str:
        words = ["--host", "{host}", "--port", "{port}", "--name", "web", "--slow", "0.02"]
        web = {
            "command": [sys.executable, str(RELAY), *words],
            "backend": "ray",
            "ray": {"resources": {"slot": 1}, "strategy": "SPREAD"},
            "scaling": {"min_replicas": 4, "max_replicas": 4},
            "endpoint": {"host": "0.0.0.0", "port": PORT},
            "probes": {"readiness": {"http": "/", "period": "1s", "timeout": "1s", "failures": 2}},
        }
        file = {"name": "far", "ray": {"address": self.cluster.address}, "services": {"web": web}}
        return json.dumps(file)

    def go_far(self, node: Host) -> None:
        far = self.far
        words = [
            "--role=router",
            f"--daemon=http://{BOX}:{API}",
            f"--token-file={self.box.state_dir}/view-token",
        ]
        far.directory.mkdir()
        out = (far.directory / "daemon.out").open("ab")
        far.daemon = subprocess.Popen(
            [*node.inside, *STOKER, "up", *words], env=far.environ, cwd=far.directory,
            stdin=subprocess.DEVNULL, stdout=out, start_new_session=True,
        )  # fmt: skip
        far.until(lambda: far.run("status", check=False).returncode == 0, "the far router answers", 60)
        far.until(lambda: any(one["url"] for one in far.status()["services"]), "it is open", 60)

    def on(self, number: int) -> dict[str, int]:
        """Replicas on that node, with their pids (a replica that is started anew keeps its name)."""
        address = self.cluster.address_of(number) + ":"
        replicas = self.box.replicas("web")
        return {one["id"]: one["pid"] for one in replicas if one["endpoint"].startswith(address)}

    def act(self, what: str, number: int, do: Any) -> set[int]:
        """Let it happen to a node and wait for replicas elsewhere; returns the workers that it cost."""
        victims = self.on(number)
        began = time.time()
        do()
        gone = set(victims.values())
        self.box.until(lambda: not gone & self.pids(), "they are lost", 90)
        self.box.until(lambda: len(self.serving()) == 4, "four replicas serve", 90)
        lost, back = self.times(victims, began)
        words = f"{what}: {len(victims)} of 4 replicas; Ray's word after {lost - began:.1f} s"
        self.verdict(f"{words}, all back {back - lost:.1f} s later", back - lost <= GOAL)
        return gone

    def pids(self) -> set[int]:
        return {one["pid"] for one in self.box.replicas("web")}

    def serving(self) -> list[dict[str, Any]]:
        return [one for one in self.box.replicas("web", "ready") if one["endpoint"]]

    def times(self, victims: dict[str, int], began: float) -> tuple[float, float]:
        """When the daemon was told of the last loss, and when the last replica was ready after it."""
        events = json.loads(self.box.run("events", "-o", "json").stdout)["events"]
        lost = back = 0.0
        for event in events:
            at = datetime.fromisoformat(event["time"]).timestamp()
            if at < began:
                continue
            if self.verbose:
                print(f"   +{at - began:5.1f} s {event['message'][:150]}")
            if event["replica"] in victims and "Ray has lost it" in json.dumps(event):
                lost = at
            if lost and event["type"] == "ReplicaBecameReady" and event["replica"] in victims:
                back = at
        return lost, max(back, lost)

    def cut_off(self, number: int) -> tuple[set[int], float]:
        """Its workers, and when they had been replaced."""
        node = self.cluster.nodes[number]
        victims = self.act("cut off", number, lambda: self.cluster.cut(number))
        alive = [pid for pid in node.processes() if b"relay.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        print(f"   {len(alive)} workers still run there", flush=True)
        at, before = time.time(), self.pids()
        self.box.kill()
        self.cluster.heal(number)
        self.box.up(f"--listen={BOX}:{API}")
        self.box.until(lambda: len(self.serving()) == 4, "the next daemon has four", 90)
        adopted = self.pids()
        words = f"the next daemon adopts none of them: {sorted(adopted & victims)}"
        self.verdict(words, not adopted & victims)
        kept = len(adopted & before)
        healed = time.monotonic()
        while any(Path(f"/proc/{pid}").exists() for pid in alive) and time.monotonic() < healed + 60:
            time.sleep(0.1)
        left = [pid for pid in alive if Path(f"/proc/{pid}").exists()]
        print(
            f"   {kept} others were taken over; the node's own workers ended with its Ray: {not left}",
            flush=True,
        )
        time.sleep(3)
        return victims, at

    def verdict(self, words: str, good: bool) -> None:
        self.good &= good
        print(f"{'ok  ' if good else 'FAIL'} {words}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

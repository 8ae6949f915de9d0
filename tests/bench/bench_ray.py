"""Start of replicas on Ray by Stoker's driver, against as many bare actors of the same cluster.

    python tests/bench/bench_ray.py [--replicas 20] [--rounds 5]

A bare actor is done when it answers its first call, a replica when its command runs below its guard. Each
round has both, in turns first, and each begins when no actor of the one before is left; what is told is the
median of the rounds' own ratios. The first round is not counted: Ray has worker processes ready for the first
program that joins a cluster, and for no other. The cluster is made for it, on loopback.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import aclosing, suppress
from pathlib import Path

import anyio

from stoker.plugin.ports import PluginContext, StartRequest
from stoker_ray.driver import RayDriver

CONFTEST = Path(__file__).parent.parent / "plugins/ray/conftest.py"
LONGEST = 120.0
"""Seconds that one side of a round may take."""
BARE = """
import json, os, sys, time
out = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # Ray prints as well
import ray
ray.init(address=sys.argv[1], namespace="bare", log_to_driver=False, configure_logging=False)
class Bare:
    def ping(self): return 1
kind = ray.remote(Bare)
for line in sys.stdin:
    count = int(line)
    began = time.perf_counter()
    actors = [kind.options(num_cpus=0).remote() for _ in range(count)]
    ray.get([actor.ping.remote() for actor in actors])
    out.write(json.dumps(time.perf_counter() - began) + "\\n")
    for actor in actors: ray.kill(actor)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    spec = importlib.util.spec_from_file_location("ray_conftest", CONFTEST)
    assert spec is not None
    assert spec.loader is not None
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)
    with conftest.cluster(nodes=0, gpus=0) as cluster:
        anyio.run(compare, cluster, given.replicas, given.rounds)


async def compare(cluster, replicas: int, rounds: int) -> None:
    loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    peer = subprocess.Popen(
        [sys.executable, "-c", BARE, cluster.address], env={**os.environ, **cluster.environ, **loopback},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    options = {"address": cluster.address, "environ": cluster.environ, "patience": 240}
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as place, peer:
        context = PluginContext(instance="bench", state_dir=place, runtime_dir=place, options=options)
        async with aclosing(RayDriver(context)) as driver:
            await driver.find()

            async def theirs_once() -> float:
                peer.stdin.write(f"{replicas}\n")
                peer.stdin.flush()
                took = await anyio.to_thread.run_sync(peer.stdout.readline, abandon_on_cancel=True)
                return json.loads(took)

            async def ours_once() -> float:
                began = time.perf_counter()
                handles = await start_all(driver, replicas, place)
                took = time.perf_counter() - began
                for handle in handles:
                    await driver.kill(handle)
                    await driver.wait(handle)
                return took

            for number in range(rounds + 1):
                sides = [(theirs_once, theirs), (ours_once, ours)]
                for once, told in sides if number % 2 else reversed(sides):
                    with anyio.fail_after(LONGEST):
                        told.append(await once())
                        while actors_of(cluster):
                            await anyio.sleep(0.1)
                print(f"round {number}: replicas {ours[-1]:.2f} s, bare {theirs[-1]:.2f} s", file=sys.stderr)
        peer.stdin.close()
    ours, theirs = ours[1:], theirs[1:]
    a, b = statistics.median(ours), statistics.median(theirs)
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    print(f"{replicas} replicas {a:.2f} s, {replicas} bare actors {b:.2f} s (medians of {rounds} rounds)")
    print(f"ratio {statistics.median(ratios):.2f}, by round {', '.join(f'{one:.2f}' for one in ratios)}")


def actors_of(cluster) -> int:
    """Processes of that cluster that are actors, and not workers that wait to become one."""
    found = 0
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            title = (path / "cmdline").read_bytes().rstrip(b"\0")
            if title.startswith(b"ray::") and not title.endswith((b"IDLE", b"Agent")):
                found += cluster.environ["RAY_TMPDIR"].encode() in (path / "environ").read_bytes()
    return found


async def start_all(driver: RayDriver, count: int, place: str) -> list:
    handles = []

    async def one(number: int) -> None:
        request = StartRequest(
            replica=f"web-{number}", service="bench/web", mark=f"bench:bench/web:web-{number}",
            argv=("sleep", "600"), environ={"PATH": "/usr/bin:/bin"}, working_dir="/",
            log_path=f"{place}/{number}.log", endpoint=f"127.0.0.1:{21000 + number}",
        )  # fmt: skip
        handles.append(await driver.start(request))

    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(one, number)
    return handles


if __name__ == "__main__":
    main()

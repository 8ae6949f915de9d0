"""Start of a worker in a container by Stoker's driver, against `podman run --detach` of the same by hand.

    python tests/bench/bench_podman.py [--rounds 15]

Both begin with nothing and are done when the command runs; rounds alternate, so that both see the same
machine. Needs root, podman, runc and busybox; the store is a directory that is thrown away.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import time
from contextlib import aclosing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from stoker.model.service import Container
from stoker.plugin.ports import PluginContext, StartRequest
from stoker_podman.driver import PodmanDriver

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    spec = importlib.util.spec_from_file_location(
        "podman_conftest", HERE.parent / "plugins/podman/conftest.py"
    )
    assert spec is not None
    assert spec.loader is not None
    conftest = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["podman_conftest"] = conftest
    spec.loader.exec_module(conftest)
    with TemporaryDirectory(prefix="pm") as place, contextmanager(conftest._serving)(Path(place)) as podman:
        anyio.run(compare, podman, rounds, Path(place))


async def compare(podman, rounds: int, place: Path) -> None:
    options = {"socket": podman.socket, "nproc": 16384}
    context = PluginContext(instance="bench", state_dir=str(place), runtime_dir=str(place), options=options)
    ours, theirs = [], []
    async with aclosing(PodmanDriver(context)) as driver:
        for number in range(rounds + 1):
            request = StartRequest(
                replica=f"web-{number}", service="bench/web", mark="bench:web", argv=("sleep", "600"),
                environ={"A": "b"}, working_dir="", log_path=str(place / "log"), endpoint="127.0.0.1:1",
                container=Container(image="localhost/box:1"),
            )  # fmt: skip
            began = time.perf_counter()
            handle = await driver.start(request)
            ours.append(time.perf_counter() - began)
            await driver.kill(handle)
            await driver.wait(handle)
            began = time.perf_counter()
            command = [
                "podman",
                "run",
                "--detach",
                "--init",
                "--network=host",
                "--env=A=b",
                "localhost/box:1",
            ]
            done = subprocess.run(
                [*command, "sleep", "600"], env=podman.environ, capture_output=True, check=True
            )
            theirs.append(time.perf_counter() - began)
            podman.command("rm", "--force", "--time=0", done.stdout.decode().strip())
    a, b = statistics.median(ours[1:]) * 1000, statistics.median(theirs[1:]) * 1000
    print(f"stoker {a:.0f} ms, podman run {b:.0f} ms (medians of {rounds}); ratio {a / b:.2f}")


if __name__ == "__main__":
    main()

"""Services of one file on different backends, a real podman and a real Ray: each asks the one behind it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.podman.conftest import Podman, lacking, podman
from plugins.ray.conftest import RayCluster
from stoker.plugin.testing.driver_bench import running
from stoker_podman.boxroot import OWN
from system.harness import Box

__all__ = ["podman"]  # a fixture

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[3]
RELAY = ROOT / "tests" / "system" / "relay.py"
CHAIN = {"front": "process", "middle": "podman", "back": "ray", "last": "process"}
"""Services from the first that is asked to the last, with their backends."""
LONG = 120.0


@pytest.fixture
def box(tmp_path: Path, ray_cluster: RayCluster, request: pytest.FixtureRequest) -> Iterator[Box]:
    if lacking():
        pytest.skip(lacking())
    if ROOT.parts[1] in OWN:
        pytest.skip(f"a container does not see the box's /{ROOT.parts[1]}, where this checkout lies")
    engine: Podman = request.getfixturevalue("podman")
    environ = {name: value for name, value in ray_cluster.environ.items() if name != "HOME"}
    with Box(tmp_path, CONTAINER_HOST=f"unix://{engine.socket}", **environ) as box:
        yield box


def deployment(address: str) -> str:
    names = [*CHAIN]
    services = {}
    for place, (name, backend) in enumerate(CHAIN.items()):
        behind = names[place + 1 : place + 2]
        command = [sys.executable, str(RELAY), "--host", "{host}", "--port", "{port}", "--name", name]
        command += [word for one in behind for word in ("--behind", f"{{url:{one}}}")]
        services[name] = {"backend": backend, "command": command, "depends": behind}
    return json.dumps({"name": "mixed", "ray": {"address": address}, "services": services})


def nodes(box: Box) -> list[dict[str, Any]]:
    return json.loads(box.run("gpus", "-o", "json").stdout)["nodes"]


def told(box: Box) -> list[dict[str, str]]:
    """What the first service answers: all of them, in their order."""
    return json.loads(box.get("front", timeout=60))


def test_each_backend_reaches_the_next_and_new_daemons_take_all_of_them_over(
    box: Box, ray_cluster: RayCluster
) -> None:
    box.write(deployment(ray_cluster.address))
    box.up()
    for name in reversed(CHAIN):
        box.ready(name, 1, LONG)
    before = told(box)
    assert [one["name"] for one in before] == [*CHAIN]
    box.until(lambda: nodes(box), "Ray has told of its nodes", LONG)
    [node] = nodes(box)
    assert (node["backend"], node["alive"], node["gpus"]) == ("ray", True, 2)
    assert node["replicas"] == [box.replicas("back")[0]["id"]]
    assert "127.0.0.1" in box.run("gpus").stdout

    box.kill()
    with urllib.request.urlopen(_url_of(before, box), timeout=60) as answer:
        assert json.loads(answer.read()) == before  # nobody is there to decide, all answer
    box.up()
    for name in CHAIN:
        box.ready(name, 1, LONG)
    assert told(box) == before  # the very same replicas

    # Once more, while the cluster is away: nothing is replaced, and then all is as it was.
    box.kill()
    with ray_cluster.away():
        box.up()
        box.until(lambda: "count as alive until it answers" in box.output(), "it holds them", LONG)
        box.ready("back", 1, LONG)
        assert told(box) == before
    box.until(lambda: "1 of its workers are there" in box.output(), "the cluster is asked again", LONG)
    assert told(box) == before
    [replica] = box.replicas("back")
    os.kill(replica["pid"], signal.SIGKILL)
    box.until(lambda: told_again(box, before), "it is replaced as ever", LONG)

    pids = [replica["pid"] for name in CHAIN for replica in box.replicas(name)]
    box.down()
    assert [pid for pid in pids if running(pid)] == []


def told_again(box: Box, before: list[dict[str, str]]) -> bool:
    """Whether all answer, the one on Ray as another process."""
    try:
        found = told(box)
    except OSError:
        return False  # it took Ray longer than they wait for each other
    return [one["pid"] != other["pid"] for one, other in zip(found, before, strict=True)] == [
        backend == "ray" for backend in CHAIN.values()
    ]


def _url_of(before: list[dict[str, str]], box: Box) -> str:
    """The first service's address, without a daemon to ask: it is kept."""
    kept = json.loads((box.state_dir / "addresses.json").read_text())
    return f"http://127.0.0.1:{kept['mixed/front']}/"


@pytest.mark.parametrize("backend", ["podman", "ray"])
def test_the_example_runs_elsewhere_by_one_line(box: Box, ray_cluster: RayCluster, backend: str) -> None:
    copy = box.directory / "example"
    shutil.copytree(ROOT / "examples" / "pipeline", copy, ignore=shutil.ignore_patterns("__pycache__"))
    box.file = copy / "stoker.yaml"
    box.file.write_text(f"backend: {backend}\n{box.file.read_text()}")
    box.up("--set=services.postprocess.endpoint.port=0", f"--set=ray.address={ray_cluster.address}")
    for name in ("preprocess", "postprocess"):
        box.until(lambda name=name: box.replicas(name, "ready"), f"{name} is ready", LONG)
    url = box.service("postprocess")["url"]
    with urllib.request.urlopen(url, b"Wo ist der Bahnhof?", timeout=LONG) as answer:
        assert json.loads(answer.read())["language"] == "german"
    if backend == "podman":
        outside = os.readlink("/proc/self/ns/mnt")
        pids = [replica["pid"] for replica in box.replicas("preprocess", "ready")]
        assert all(os.readlink(f"/proc/{pid}/ns/mnt") != outside for pid in pids)
    assert (box.state_dir / "ray").exists() == (backend == "ray")

"""Every example folder is run, as it stands, but on free ports."""

from __future__ import annotations

import shutil
import socket
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from system.harness import Box

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

EXAMPLES = sorted(
    path.parent for path in (Path(__file__).resolve().parents[2] / "examples").glob("*/stoker.yaml")
)
EVERY = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)


def test_there_are_examples() -> None:
    assert EXAMPLES


@EVERY
def test_its_files_and_profiles_are_valid(example: Path, tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.run("check", str(example / "stoker.yaml"))
    for profile in example.glob("stoker.*.yaml"):
        name = profile.name.removeprefix("stoker.").removesuffix(".yaml")
        box.run("check", str(example / "stoker.yaml"), "--profile", name)


@EVERY
def test_it_runs_and_its_door_answers(example: Path, tmp_path: Path) -> None:
    copy = tmp_path / "example"
    shutil.copytree(example, copy, ignore=shutil.ignore_patterns("__pycache__"))
    services = yaml.safe_load((copy / "stoker.yaml").read_text())["services"]
    doors = [name for name, service in services.items() if "endpoint" in service]
    assert doors, "an example has an address to try"
    with Box(tmp_path) as box:
        box.file = copy / "stoker.yaml"
        box.up(*(f"--set=services.{name}.endpoint.port=0" for name in doors))
        for name, service in services.items():
            # The count is the file's: the daemon answers before its configuration is in force.
            count = service.get("scaling", {}).get("min_replicas", 1)
            box.until(
                lambda name=name, count=count: any(
                    each["name"] == name and each["ready"] >= count for each in box.status()["services"]
                ),
                f"{name} is ready",
                60,
            )
        for name in doors:
            # A pool may be ready before the router's program, which starts beside it, has opened its door.
            door = urlsplit(box.service(name)["url"])
            box.until(lambda door=door: open_at(door.hostname, door.port), f"the door of {name} is open")
            request = urllib.request.Request(box.service(name)["url"] + "/", data=b"Wo ist der Bahnhof?")
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    assert answer.status == 200
            except urllib.error.HTTPError as error:
                pytest.fail(f"{name} answers {error.code}: {error.read()[:500]!r}")


def open_at(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0

"""The parts of the serving program that need no BentoML."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from stoker_bentoml.custom import with_port
from stoker_bentoml.guard import Guard
from stoker_bentoml.serving import worker_count
from stoker_bentoml.workspace import Workspace

PICKLE = b"application/vnd.bentoml+pickle"


def asked(
    guard_word: str, path: str = "/run", prefix: str = "", **headers: bytes
) -> tuple[int, dict[str, Any]]:
    """The status of the answer, and what the application inside saw."""
    seen: dict[str, Any] = {}
    sent: list[Any] = []

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    pairs = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "raw_path": path.encode(), "headers": pairs}
    anyio.run(Guard(inside, guard_word, prefix), scope, receive, send)
    return sent[0]["status"], seen


def basic(word: str) -> bytes:
    return b"Basic " + base64.b64encode(f"stoker:{word}".encode())


def test_pickles_are_taken_with_the_word_only() -> None:
    assert asked("w", content_type=PICKLE)[0] == 415
    assert asked("w", content_type=PICKLE.upper() + b"; v=1")[0] == 415
    assert asked("w", content_type=PICKLE, authorization=basic("x"))[0] == 415
    status, seen = asked("w", content_type=PICKLE, authorization=basic("w"))
    assert status == 200
    assert seen["headers"] == [(b"content-type", PICKLE)]


def test_the_entry_takes_none() -> None:
    assert asked("", content_type=PICKLE, authorization=basic(""))[0] == 415


def test_other_requests_pass_with_their_own_authorization() -> None:
    status, seen = asked("w", content_type=b"application/json", authorization=basic("mine"))
    assert status == 200
    assert (b"authorization", basic("mine")) in seen["headers"]


def test_inner_calls_find_what_lies_below_a_prefix() -> None:
    known = {"content_type": PICKLE, "authorization": basic("w")}
    assert asked("w", "/run", "/v1", **known)[1]["path"] == "/v1/run"
    assert asked("w", "/v1/run", "v1", **known)[1]["path"] == "/v1/run"
    assert asked("w", "/v1x", "/v1", **known)[1]["path"] == "/v1/v1x"
    assert asked("w", "/run", "/v1")[1]["path"] == "/run"


@pytest.mark.parametrize(
    ("workers", "cpu", "count"),
    [
        (None, None, 1),
        (3, None, 3),
        ("cpu_count", 1.5, 2),
        ("cpu_count", 0.2, 1),
        ([{"gpu": 1}] * 2, None, 2),
    ],
)
def test_workers_count_as_bentoml_counts_them(workers: object, cpu: float | None, count: int) -> None:
    assert worker_count(workers, cpu) == count
    assert worker_count("cpu_count", None) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("command", "moved", "has"),
    [
        (["serve", "--port", "8000"], ["serve", "--port", "9"], True),
        (["serve", "--port=8000", "0.0.0.0:8000"], ["serve", "--port=9", "0.0.0.0:9"], True),
        (["serve", "-p", "${PORT}"], ["serve", "-p", "${PORT}"], True),
        (["serve", "$PORT/x"], ["serve", "$PORT/x"], True),
        (["serve", "model-80001", "v1.8000"], ["serve", "model-80001", "v1.8000"], False),
        (["serve", "$PORTAL"], ["serve", "$PORTAL"], False),
    ],
)
def test_the_port_of_a_custom_command(command: list[str], moved: list[str], has: bool) -> None:
    assert with_port(command, 8000, 9) == (moved, has)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / f"stoker-bentoml-{os.getuid()}"


def test_each_worker_has_files_of_its_own_and_its_service_shares_results(base: Path) -> None:
    one, two, other = (
        Workspace("d/A", str(base.parent)),
        Workspace("d/A", str(base.parent)),
        Workspace("d/B", str(base.parent)),
    )
    assert len({one.metrics, two.metrics, other.metrics}) == 3
    assert one.results == two.results != other.results
    assert base.stat().st_mode & 0o777 == 0o700
    for each in (one, two, other):
        each.close()
    assert not list(base.glob("worker-*"))


def test_what_a_killed_worker_left_is_removed_by_the_next(base: Path) -> None:
    code = (
        "import os, sys\nfrom stoker_bentoml.workspace import Workspace\n"
        "w = Workspace('d/A', sys.argv[1])\nprint(w.metrics, flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(base.parent)], stdout=subprocess.PIPE, text=True, check=False
    )
    left = Path(done.stdout.strip())
    assert left.is_dir()
    alive = Workspace("d/A", str(base.parent))
    assert not left.exists()
    Workspace("d/B", str(base.parent)).close()
    assert Path(alive.metrics).is_dir()
    alive.close()


def test_what_is_done_once_is_done_once_in_a_life(base: Path) -> None:
    done: list[str] = []
    for life in ("a", "a", "b"):
        worker = Workspace("d/A", str(base.parent))
        worker.once(life, lambda life=life: done.append(life))
        worker.close()
    assert done == ["a", "b"]


def test_a_directory_that_others_can_enter_is_refused(base: Path) -> None:
    base.mkdir(mode=0o755)
    with pytest.raises(PermissionError, match="remove it"):
        Workspace("d/A", str(base.parent))


def test_what_a_service_without_workers_has_not_used_for_long_is_removed(base: Path) -> None:
    first = Workspace("d/A", str(base.parent))
    first.once("a", lambda: None)
    [kept] = base.glob("*.once")
    os.utime(kept, (0, 0))
    Workspace("d/B", str(base.parent)).close()
    assert kept.exists(), "its worker lives"
    first.close()
    Workspace("d/B", str(base.parent)).close()
    assert not kept.exists()


@pytest.mark.parametrize(
    ("home", "declared", "wanted"),
    [("/proc/none", None, "given"), ("/proc/none", "/x", "/x"), ("own", None, None)],
)
def test_an_account_without_a_home_gets_one_for_bentoml(
    base: Path, tmp_path: Path, home: str, declared: str | None, wanted: str | None
) -> None:
    code = (
        "import os, sys\nfrom stoker_bentoml.workspace import provide_home\nprovide_home(sys.argv[1])\n"
        "print(os.environ.get('BENTOML_HOME', ''))\n"
    )
    environ = {"HOME": str(tmp_path / "own") if home == "own" else home}
    environ |= {"BENTOML_HOME": declared} if declared else {}
    done = subprocess.run(
        [sys.executable, "-c", code, str(base.parent)],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == (str(base / "home") if wanted == "given" else wanted or "")

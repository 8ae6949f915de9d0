"""What the files meant is known to the next daemon for as long as nothing has changed that it was made of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from stoker.config.load import ConfigRequest, EffectiveConfig, LoadError
from stoker.runtime import reading
from stoker.runtime.config_watch import signature
from stoker.runtime.planning import planned_request
from stoker.runtime.reading import RECORD, Reading, folders
from stoker.runtime.secret_files import SecretFiles

pytestmark = pytest.mark.anyio

FILE = """
name: app
services:
  web: {command: [run, "${WORD}"], secrets: [token], env_file: more.env, scaling: {max_replicas: 3}}
"""
ENVIRON = {"HOME": "/home/me", "WORD": "one"}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "REST", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stoker.yaml").write_text(FILE)
    (tmp_path / "more.env").write_text("A=1\n")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "token").write_text("first")
    (tmp_path / "state").mkdir()
    return tmp_path


def reader(folder: Path, **changes: Any) -> Reading:
    """That of a daemon that begins."""
    base = replace(ConfigRequest(files=(str(folder / "stoker.yaml"),), environ=ENVIRON), **changes)
    return Reading(base, folder / "state", SecretFiles(str(folder / "state"), base.environ))


async def read(folder: Path, overrides: dict[str, Any] | None = None) -> EffectiveConfig:
    """A daemon reads its files, and records what they meant."""
    one = reader(folder)
    request = one.request(overrides or {})
    seen = signature(one.watched(request))
    effective = one.load(request)
    record = folder / "state" / RECORD
    record.unlink(missing_ok=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run)
        one.remember(request, effective, seen)
        with anyio.fail_after(20):
            while not record.exists():
                await anyio.sleep(0.005)
        tasks.cancel_scope.cancel()
    return effective


async def test_what_was_read_is_known_to_the_next(folder: Path) -> None:
    effective = await read(folder)
    known = reader(folder).recall({})
    assert known is not None
    assert known.desired == effective.desired
    assert repr(known.desired) == repr(effective.desired)
    same = ("watch", "notices", "files", "idle_overrides")
    assert [getattr(known, name) for name in same] == [getattr(effective, name) for name in same]
    assert folders(known) == folders(effective) == {"app": str(folder)}
    assert (folder / "state" / RECORD).stat().st_mode & 0o777 == 0o600


async def test_a_plan_of_other_files_keeps_it(folder: Path) -> None:
    await read(folder)
    (folder / "other.yaml").write_text("services: {x: {command: run}}\n")
    one = reader(folder)
    wanted = planned_request(one.request({}), [str(folder / "other.yaml")], one.recall({}))
    assert wanted.files == (str(folder / "stoker.yaml"), str(folder / "other.yaml"))


def later(path: Path) -> None:
    """The same content, written again."""
    content, stat = path.read_bytes(), path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: later(folder / "stoker.yaml"),
        lambda folder: later(folder / "more.env"),
        lambda folder: (folder / "stoker.yaml").unlink(),
        lambda folder: ((folder / "conf.d").mkdir(), (folder / "conf.d" / "x.yaml").write_text("{}")),
        lambda folder: (folder / "state" / RECORD).write_text("{"),
        lambda folder: (folder / "state" / RECORD).write_text("[]"),
        lambda folder: (folder / "state" / RECORD).unlink(),
    ],
)
async def test_files_that_changed_are_read_again(folder: Path, change: Callable[[Path], object]) -> None:
    await read(folder)
    assert reader(folder).recall({}) is not None
    change(folder)
    assert reader(folder).recall({}) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"environ": {**ENVIRON, "WORD": "two"}},
        {"environ": {**ENVIRON, "STOKER__SERVICES__WEB__SCALING__MAX_REPLICAS": "5"}},
        {"sets": ("services.web.scaling.max_replicas=4",)},
        {"profile": "gpu"},
        {"files": ()},
        {"secrets_dir": "/elsewhere"},
    ],
)
async def test_another_beginning_reads_the_files(folder: Path, changes: dict[str, Any]) -> None:
    await read(folder)
    assert reader(folder, **changes).recall({}) is None


async def test_live_overrides_belong_to_it(folder: Path) -> None:
    overrides = {"services.web.scaling.max_replicas": 2}
    await read(folder, overrides)
    assert reader(folder).recall({}) is None
    known = reader(folder).recall(overrides)
    assert known is not None
    assert known.desired.services["app/web"].scaling.max_replicas == 2


async def test_a_variable_of_one_start_changes_nothing(folder: Path) -> None:
    await read(folder)
    started = {**ENVIRON, "INVOCATION_ID": "8c1", "JOURNAL_STREAM": "8:1"}
    assert reader(folder, environ=started).recall({}) is not None


async def test_a_record_of_something_else_is_none(folder: Path) -> None:
    await read(folder)
    record = folder / "state" / RECORD
    kept = json.loads(record.read_text())
    for spoilt in (
        {**kept, "desired": {"$": "Nobody"}},
        {**kept, "desired": {"$": "BoxSpec"}},
        {name: value for name, value in kept.items() if name != "watch"},
    ):
        record.write_text(json.dumps(spoilt))
        assert reader(folder).recall({}) is None


async def test_a_secret_that_changed_meanwhile_is_seen(folder: Path) -> None:
    await read(folder)
    (folder / "secrets" / "token").write_text("second")
    known = reader(folder).recall({})
    assert known is not None
    assert known.desired.services["app/web"].secret_versions == (("token", 1),)


async def test_what_changed_while_it_was_read_is_not_recorded(folder: Path) -> None:
    one = reader(folder)
    request = one.request({})
    effective = one.load(request)
    record = folder / "state" / RECORD
    for seen in ((), signature(one.watched(request))):
        later(folder / "stoker.yaml")
        one._keep(reading._Read(request, effective, seen))
        assert not record.exists()


async def test_a_disk_that_is_full_costs_only_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await read(folder)
    record = folder / "state" / RECORD
    before = record.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    one = reader(folder)
    request = one.request({})
    seen = signature(one.watched(request))
    monkeypatch.setattr(json, "dump", full)
    one._keep(reading._Read(request, one.load(request), seen))
    assert record.read_bytes() == before
    assert sorted(path.name for path in (folder / "state").iterdir()) == [RECORD, "secrets.json"]


async def test_bad_files_are_refused_with_their_place(folder: Path) -> None:
    (folder / "stoker.yaml").write_text("services: {web: {comand: run}}\n")
    one = reader(folder)
    with pytest.raises(LoadError, match=r"stoker.yaml:1:18: services.web.comand: unknown key"):
        one.load(one.request({}))


def test_a_daemon_loads_what_reads_files_and_answers_requests_only_when_it_does() -> None:
    """Both stand between the death of a daemon and the moment in which the next has the workers in hand."""
    heavy = ("pydantic", "yaml", "starlette", "uvicorn", "psutil", "watchfiles", "rich")
    code = f"import sys, stoker.runtime.daemon; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

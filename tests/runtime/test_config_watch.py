"""A change of a configuration file is seen however it is made, and nothing else is."""

from __future__ import annotations

import os

import anyio
import pytest

from stoker.runtime import config_watch
from stoker.runtime.config_watch import changes, directories, signature

pytestmark = pytest.mark.anyio


async def seen_after(action, paths) -> bool:
    """Whether `action` is noticed, on a busy machine too."""
    watched = [str(path) for path in paths]
    before = signature(watched)
    noticed = anyio.Event()

    async def watch() -> None:
        async for _ in changes(lambda: watched, before):
            noticed.set()
            return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await anyio.wait_all_tasks_blocked()
        action()
        with anyio.move_on_after(20):
            await noticed.wait()
        tasks.cancel_scope.cancel()
    return noticed.is_set()


def rename_over(path):
    beside = path.with_name("other.tmp")
    beside.write_text("new content")
    os.replace(beside, path)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text("new content"),
        rename_over,
        lambda path: path.unlink(),
        lambda path: os.utime(path, ns=(1, 1)),
    ],
    ids=["written in place", "renamed over", "deleted", "touched"],
)
async def test_a_change_is_noticed(tmp_path, change):
    path = tmp_path / "stoker.yaml"
    path.write_text("old")
    assert await seen_after(lambda: change(path), [path])


async def test_a_file_that_appears_is_noticed(tmp_path):
    assert await seen_after(lambda: (tmp_path / "new.yaml").write_text("x"), [tmp_path / "new.yaml"])


async def test_a_drop_in_directory_that_appears_is_noticed(tmp_path):
    def appear() -> None:
        (tmp_path / "conf.d").mkdir()
        (tmp_path / "conf.d" / "10.yaml").write_text("x")

    assert await seen_after(appear, [tmp_path / "conf.d"])


async def test_a_neighbouring_file_is_not_noticed(tmp_path):
    path = tmp_path / "stoker.yaml"
    path.write_text("x")
    watched, before = [str(path)], signature([str(path)])
    noticed = anyio.Event()

    async def watch() -> None:
        async for _ in changes(lambda: watched, before):
            noticed.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await anyio.wait_all_tasks_blocked()
        (tmp_path / "unrelated").write_text("y")
        with anyio.move_on_after(0.3):
            await noticed.wait()
        tasks.cancel_scope.cancel()
    assert not noticed.is_set()


async def test_a_change_before_the_watch_began_is_noticed_too(tmp_path):
    path = tmp_path / "stoker.yaml"
    path.write_text("old")
    before = signature([str(path)])
    path.write_text("newer")
    with anyio.fail_after(20):
        async for now in changes(lambda: [str(path)], before):
            assert now != before
            break


async def test_polling_serves_where_inotify_is_refused(tmp_path, monkeypatch):
    class Refused:
        def __init__(self, places):
            raise OSError(24, "Too many open files")

    monkeypatch.setattr(config_watch, "PathWatch", Refused)  # the kernel's refusal cannot be provoked safely
    path = tmp_path / "stoker.yaml"
    path.write_text("old")
    assert await seen_after(lambda: path.write_text("newer"), [path])


def test_directories_are_the_existing_ones_around_a_path(tmp_path):
    assert directories([str(tmp_path / "not" / "there.yaml")]) == [str(tmp_path)]
    assert directories([str(tmp_path)]) == sorted([str(tmp_path), str(tmp_path.parent)])

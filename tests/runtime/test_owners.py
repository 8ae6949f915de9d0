"""To whom processes belong: by mark, by ancestors, or to nobody here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from stoker.model.device import DeviceProcess
from stoker.runtime.owners import Owners, name_of
from worlds import box, make_device

CHILD = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {CHILD!r}], env={{}})
"""


@pytest.fixture
def start() -> Iterator:
    """Starts a process that says the pid of whoever is to be asked about."""
    started = []

    def begin(code: str, **environ: str) -> tuple[int, int]:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        return process.pid, int(process.stdout.readline())

    yield begin
    for process in started:
        process.communicate(timeout=20)


def test_the_mark_tells_the_replica_and_only_our_own_counts(start) -> None:
    _, mine = start(CHILD, STOKER_ID="abc:app/infer:infer-a")
    _, other = start(CHILD, STOKER_ID="xyz:app/infer:infer-b")
    assert Owners("abc")([mine, other, os.getpid()], {}) == {mine: "infer-a"}


def test_a_process_without_a_mark_belongs_to_the_worker_above_it(start) -> None:
    parent, child = start(PARENT, STOKER_ID="abc:app/infer:infer-a")
    assert parent != child
    assert Owners("abc")([child], {parent: "infer-a"}) == {child: "infer-a"}
    assert Owners("abc")([child], {}) == {}


def test_the_main_process_needs_no_look_and_one_that_is_gone_is_nobodys() -> None:
    assert Owners("abc")([2**22 + 7, 2**22 + 8], {2**22 + 7: "infer-a"}) == {2**22 + 7: "infer-a"}


def test_processes_are_given_their_replica_and_strangers_their_name(start) -> None:
    pid, same = start(CHILD, STOKER_ID="box:app/web:web-a")
    assert pid == same
    processes = (DeviceProcess(pid=pid), DeviceProcess(pid=os.getpid()), DeviceProcess(pid=2**22 + 1))
    told = Owners("box").identify(box(make_device(0, processes=processes)), {})
    mine, stranger, gone = told.devices[0].processes
    assert (mine.owner, mine.name) == ("web-a", "")
    assert stranger.owner == ""
    assert stranger.name == name_of(os.getpid()) != ""
    assert (gone.owner, gone.name) == ("", "")

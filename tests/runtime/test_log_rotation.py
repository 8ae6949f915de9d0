"""Rotation under a writer that does not know of it: no byte is lost, repeated or moved."""

import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from stoker.api.facade import LogFile
from stoker.api.logs import LogReader
from stoker.api.logtext import LogText, part_path, parts_of
from stoker.model.event import WorkerSpawned
from stoker.model.replica import WorkerHandle
from stoker.model.service import LogRules
from stoker.runtime.log_rotation import Growing, LogRotation, UnrotatableError, remove, rotate

SMALL = LogRules(max_size=64 * 1024, keep=1000)
WRITER = """
import os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for number in range(int(sys.argv[2])):
    os.write(log, b"line %09d of the fast writer\\n" % number)
"""
LINE = len("line 000000000 of the fast writer\n")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "web-1.log"
    path.write_bytes(b"x" * 8192)
    try:
        rotate(str(path), LogRules(max_size=1, keep=0))
    except UnrotatableError as error:
        pytest.skip(str(error))
    path.unlink()
    return path


def whole(path: Path) -> bytes:
    """All that is kept of a log, as a reader sees it."""
    text, found, at = LogText(str(path)), b"", 0
    while True:
        at, piece = text.read(at, 100_000)
        if not piece:
            text.close()
            return found
        found += piece
        at += len(piece)


def test_no_line_of_a_fast_writer_is_lost(log: Path) -> None:
    """It writes some 10 MB as fast as it can while its log is rotated all the time."""
    count, rotations = 300_000, 0
    with subprocess.Popen([sys.executable, "-c", WRITER, str(log), str(count)]) as writer:
        while writer.poll() is None:
            if log.exists():
                before = len(parts_of(str(log)))
                rotate(str(log), SMALL)
                rotations += len(parts_of(str(log))) - before
    assert rotations > 3
    assert whole(log) == b"".join(b"line %09d of the fast writer\n" % number for number in range(count))
    assert log.stat().st_size == count * LINE, "offsets stay"
    assert log.stat().st_blocks * 512 < log.stat().st_size / 2, "and space is given back"


def test_parts_end_where_lines_end_and_the_oldest_go(log: Path) -> None:
    rules = LogRules(max_size=1000, keep=2)
    for number in range(5):
        with log.open("ab") as file:
            file.write(b"".join(b"%d.%04d\n" % (number, line) for line in range(200)) + b"half")
        rotate(str(log), rules)
        with log.open("ab") as file:
            file.write(b" a line\n")
    parts = parts_of(str(log))
    assert len(parts) == 2
    assert all(Path(part.path).read_bytes().endswith(b"\n") for part in parts)
    assert whole(log).startswith(b"half a line\n3.0000\n")
    assert whole(log).endswith(b"4.0199\nhalf a line\n")


def test_a_small_log_is_left_alone(log: Path) -> None:
    log.write_bytes(b"line\n" * 10)
    assert rotate(str(log), SMALL) == 50
    assert parts_of(str(log)) == []


def test_an_endless_line_is_moved_all_the_same(log: Path) -> None:
    log.write_bytes(b"x" * 200_000)
    assert rotate(str(log), SMALL) == 0
    assert whole(log) == b"x" * 200_000


def test_keep_nothing(log: Path) -> None:
    log.write_bytes(b"old\n" * 20_000)
    rotate(str(log), LogRules(max_size=1000, keep=0))
    assert parts_of(str(log)) == []
    with log.open("ab") as file:
        file.write(b"new\n")
    assert whole(log).lstrip(b"\0") == b"new\n"


def test_a_rotation_that_was_cut_short_repeats_nothing(log: Path) -> None:
    """Its part was there, its hole was not; or only a torn beginning of the part."""
    log.write_bytes(b"one\n" * 30_000)
    Path(part_path(str(log), 0)).write_bytes(b"one\n" * 30_000)
    Path(part_path(str(log), 120_000) + ".new").write_bytes(b"tw")
    with log.open("ab") as file:
        file.write(b"two\n" * 30_000)
    rotate(str(log), SMALL)
    assert whole(log) == b"one\n" * 30_000 + b"two\n" * 30_000
    assert not list(log.parent.glob("*.new"))


def test_parts_of_a_file_that_somebody_cut_off_are_not_mixed_with_the_new_one(log: Path) -> None:
    log.write_bytes(b"old\n" * 30_000)
    rotate(str(log), SMALL)
    log.write_bytes(b"new\n")
    assert whole(log) == b"new\n"
    log.write_bytes(b"new\n" * 30_000)
    rotate(str(log), SMALL)
    assert whole(log) == b"new\n" * 30_000


def test_a_log_goes_with_its_parts(log: Path) -> None:
    log.write_bytes(b"old\n" * 30_000)
    rotate(str(log), SMALL)
    other = log.with_name("web-10.log")
    other.write_text("stays")
    remove(str(log))
    remove(str(log))
    assert os.listdir(log.parent) == ["web-10.log"]


def test_the_next_look_comes_before_a_log_can_be_full(log: Path) -> None:
    notes: list[str] = []
    rotation = LogRotation(list, notes.append)
    rules = LogRules(max_size=1_000_000, keep=2)
    logs = [Growing(str(log), rules), Growing(str(log.with_name("none.log")), rules)]
    assert rotation.look(logs, 10.0) == 5.0
    log.write_bytes(b"")
    assert rotation.look(logs, 10.0) == 5.0
    log.write_bytes(b"line\n" * 40_000)
    assert rotation.look(logs, 1.0) == pytest.approx(4.0, rel=0.05)  # 200 kB/s, 800 kB to go
    with log.open("ab") as file:
        file.write(b"line\n" * 159_000)
    assert rotation.look(logs, 10.0) == 1.0
    assert notes == []


def test_what_goes_wrong_is_said_and_borne(log: Path) -> None:
    notes: list[str] = []
    log.write_bytes(b"line\n" * 40_000)
    Path(part_path(str(log), 0) + ".new").mkdir()
    LogRotation(list, notes.append).look([Growing(str(log), SMALL)], 1.0)
    assert len(notes) == 1
    assert notes[0].startswith(f"cannot rotate {log}: ")
    assert whole(log) == b"line\n" * 40_000


def test_of_replicas_that_are_gone_the_newest_logs_are_kept(tmp_path: Path) -> None:
    for age in range(30):
        path = tmp_path / f"web-{age}.log"
        path.write_text("x")
        os.utime(path, (1e9 - age, 1e9 - age))
    Path(part_path(str(tmp_path / "web-29.log"), 0)).write_text("x")
    living = Growing(str(tmp_path / "web-28.log"), SMALL)
    rotation = LogRotation(list, print)
    rotation.look([living, Growing(str(tmp_path / "web-0.log"), SMALL)], 1.0)
    assert len(os.listdir(tmp_path)) == 31
    rotation.look([living], 1.0)
    assert sorted(os.listdir(tmp_path)) == sorted([f"web-{age}.log" for age in [*range(20), 28]])


def test_a_reader_in_the_middle_notices_nothing(log: Path) -> None:
    """What it has not read yet is moved away under it, part by part."""
    lines = [f"line {number:06}" for number in range(60_000)]
    log.write_text("")
    found = LogReader(
        LogFile(service="a/b", replica="web-1", path=str(log), alive=True), tail=None, since=None
    )
    seen: list[str] = []
    for start in range(0, len(lines), 20_000):
        with log.open("a") as file:
            file.writelines(f"{line}\n" for line in lines[start : start + 20_000])
        if start:
            rotate(str(log), SMALL)
        seen += found.read(last=False)
    while more := found.read(last=True):
        seen += more
    found.close()
    assert seen == lines


@pytest.mark.parametrize("tail", [1, 100, 25_000, 59_999, 60_000, 70_000])
def test_a_tail_reaches_into_the_parts(log: Path, tail: int) -> None:
    lines = [f"line {number:06}" for number in range(60_000)]
    for start in range(0, len(lines), 20_000):
        with log.open("a") as file:
            file.writelines(f"{line}\n" for line in lines[start : start + 20_000])
        rotate(str(log), SMALL)
    found = LogReader(
        LogFile(service="a/b", replica="web-1", path=str(log), alive=True), tail=tail, since=None
    )
    seen: list[str] = []
    while more := found.read(last=True):
        seen += more
    found.close()
    assert seen == lines[-tail:]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_nothing_is_looked_at_while_nobody_writes(log: Path, anyio_backend: str) -> None:
    log.write_bytes(b"line\n")
    looks: list[float] = []

    def growing() -> list[Growing]:
        looks.append(anyio.current_time())
        return [Growing(str(log), LogRules())] if looks else []

    async def rested() -> int:
        """Wait until the looks have ended for much longer than one takes; how many there were."""
        with anyio.fail_after(20):
            while not looks or anyio.current_time() - looks[-1] < 0.5:
                await anyio.sleep(0.01)
        return len(looks)

    rotation = LogRotation(growing, lambda _: None, longest=0.02)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(rotation.run)
        await anyio.wait_all_tasks_blocked()
        assert looks == [], "nobody has begun yet"
        rotation.after_event(
            WorkerSpawned(
                replica="web-1", service="demo/web", handle=WorkerHandle(driver="fake", pid=1), endpoint=""
            )
        )
        before = await rested()
        with log.open("ab") as file:
            file.write(b"another line\n")
        with anyio.fail_after(20):
            while len(looks) == before:
                await anyio.sleep(0.01)
        await rested()
        tasks.cancel_scope.cancel()

"""The program against a journal of ours: what workers write arrives once and in order, whoever dies."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stoker.model.service import LogRules
from stoker.runtime.log_rotation import UnrotatableError, rotate
from stoker.to_journal.positions import begin

pytestmark = pytest.mark.timeout(90)
LINE = "line %06d of a worker\n"


class Listener:
    """The journal: a socket, and what came over it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[dict[str, str]] = []
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._line.bind(str(path))
        self._line.settimeout(0.1)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def begin(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """As when journald is stopped."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self._line.close()
        self.path.unlink()

    def messages(self, **wanted: str) -> list[str]:
        """The texts of the entries that have such fields."""
        return [one["MESSAGE"] for one in list(self.heard) if wanted.items() <= one.items()]

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                raw = self._line.recv(1 << 20)
            except TimeoutError:
                continue
            fields = (line.partition("=") for line in raw.decode().splitlines())
            self.heard.append({name: value for name, _, value in fields})


class Place:
    """A state directory, its journal and the program."""

    def __init__(self, directory: Path) -> None:
        self.logs = directory / "logs"
        self.positions = directory / "journal" / "positions"
        self.socket = directory / "socket"
        self.journal = Listener(self.socket)
        self.journal.begin()
        self.program: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        begin(self.positions, self.logs)
        places = ["--logs", str(self.logs), "--positions", str(self.positions), "--socket", str(self.socket)]
        self.program = subprocess.Popen(
            [sys.executable, "-P", "-m", "stoker.to_journal", *places, *more], stdin=subprocess.PIPE
        )

    def end(self) -> None:
        """As at the daemon's death."""
        assert self.program is not None
        assert self.program.stdin is not None
        self.program.stdin.close()
        assert self.program.wait(30) == 0
        self.program = None

    def kill(self) -> None:
        """SIGKILL to the program itself."""
        if self.program is not None:
            self.program.kill()
            self.program.wait(10)
            assert self.program.stdin is not None
            self.program.stdin.close()
            self.program = None

    def write(self, name: str, text: str) -> Path:
        """Append to a log as a worker does."""
        path = self.logs / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as log:
            log.write(text.encode())
        return path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.kill()
    made.journal.close()


def until(condition: Callable[[], object], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.01)


def arrived(place: Place, expected: list[str], **wanted: str) -> None:
    until(
        lambda: len(place.journal.messages(**wanted)) >= len(expected),
        lambda: f"{len(place.journal.messages(**wanted))} of {len(expected)} lines arrived",
    )
    assert place.journal.messages(**wanted) == expected


def test_what_is_written_from_its_first_day_on_arrives_with_its_fields(place: Place) -> None:
    place.write("rag/infer/infer-1", "of the time before\n")
    place.start()
    place.write("rag/infer/infer-1", "one\r\n\n")
    place.write("rag/late/late-1", '<4>two\n{"level":"error"}\n')
    arrived(place, ["one"], STOKER_REPLICA="infer-1", STOKER_DEPLOYMENT="rag", SYSLOG_IDENTIFIER="infer")
    arrived(place, ["two"], STOKER_SERVICE="late", PRIORITY="4")
    arrived(place, ['{"level":"error"}'], STOKER_SERVICE="late", PRIORITY="3")


def test_an_unfinished_line_waits_for_its_end_or_its_workers(place: Place) -> None:
    place.start()
    place.write("rag/infer/infer-1", "whole\nSegmentation")
    arrived(place, ["whole"])
    assert place.program is not None
    assert place.program.stdin is not None
    place.program.stdin.write(b"rag/infer/infer-1.log\n")
    place.program.stdin.flush()
    arrived(place, ["whole", "Segmentation"])
    place.write("rag/infer/infer-1", "its successor\n")
    arrived(place, ["whole", "Segmentation", "its successor"])


def test_nothing_is_lost_or_told_twice_while_daemons_come_and_go(place: Place) -> None:
    """A fast writer whose log is rotated; the program ends with each daemon and begins with the next."""
    place.start()
    written = [LINE % number for number in range(30_000)]
    for part in range(10):
        for at in range(part * 3000, part * 3000 + 3000, 500):
            log = place.write("rag/infer/infer-1", "".join(written[at : at + 500]))
            try:
                rotate(str(log), LogRules(max_size=64 * 1024, keep=1000))
            except UnrotatableError:
                continue
        place.end()
        place.start()
    arrived(place, [line.rstrip("\n") for line in written])


def test_killed_itself_it_loses_nothing(place: Place) -> None:
    """It may tell the line again that it was at: each death at most one."""
    place.start()
    written = [LINE % number for number in range(20_000)]
    place.write("rag/infer/infer-1", "".join(written))
    for part in range(1, 5):
        until(lambda part=part: len(place.journal.heard) > 2000 * part, lambda: len(place.journal.heard))
        place.kill()
        place.start()
    until(lambda: place.journal.heard[-1]["MESSAGE"] == written[-1].strip(), lambda: place.journal.heard[-1])
    heard = place.journal.messages()
    once = [line for number, line in enumerate(heard) if not number or line != heard[number - 1]]
    assert once == [line.strip() for line in written]
    assert len(heard) - len(once) <= 4


def test_a_journal_that_is_away_gets_it_later(place: Place) -> None:
    place.start()
    place.write("rag/infer/infer-1", "before\n")
    arrived(place, ["before"])
    place.journal.close()
    place.write("rag/infer/infer-1", "meanwhile\n")
    place.end()  # it cannot tell it, and does not wait for ever
    place.start()
    place.journal = Listener(place.socket)
    place.journal.begin()
    place.write("rag/infer/infer-1", "after\n")
    arrived(place, ["meanwhile", "after"])


def test_a_journal_that_does_not_read_holds_up_nobody_else(place: Place) -> None:
    place.journal.close()
    place.journal = Listener(place.socket)  # its queue fills up: nobody reads
    place.start()
    written = [LINE % number for number in range(5_000)]
    place.write("rag/infer/infer-1", "".join(written))
    place.end()
    place.start()
    place.journal.begin()
    arrived(place, [line.strip() for line in written])


def test_muted_services_stay_out_and_what_they_wrote_is_not_made_up_for(place: Place) -> None:
    place.start("--muted", "rag/loud")
    place.write("rag/loud/loud-1", "noise\n")
    place.write("rag/infer/infer-1", "one\n")
    arrived(place, ["one"])
    place.end()
    place.start()
    place.write("rag/loud/loud-1", "music\n")
    arrived(place, ["one", "music"])


def test_what_rotation_took_away_is_said(place: Place) -> None:
    place.start()
    place.write("rag/infer/infer-1", "one\n")
    arrived(place, ["one"])
    place.end()
    for number in range(4):
        log = place.write("rag/infer/infer-1", (str(number) * 99 + "\n") * 200)
        try:
            rotate(str(log), LogRules(max_size=8 * 1024, keep=1))
        except UnrotatableError as error:
            pytest.skip(str(error))
    place.start()
    lost = 3 * 200 * 100
    words = f"{lost} bytes of this output were rotated away before the journal took them"
    arrived(place, ["one", words, *["3" * 99] * 200])


def test_a_log_that_was_cut_off_or_replaced_begins_anew(place: Place) -> None:
    place.start()
    log = place.write("rag/infer/infer-1", "one\ntwo\n")
    arrived(place, ["one", "two"])
    os.truncate(log, 0)
    place.write("rag/infer/infer-1", "three\n")
    arrived(place, ["one", "two", "three"])
    log.rename(log.with_name("old"))
    place.write("rag/infer/infer-1", "four, and more than there was\n")
    arrived(place, ["one", "two", "three", "four, and more than there was"])


def test_an_endless_line_comes_in_pieces(place: Place) -> None:
    place.start()
    place.write("rag/infer/infer-1", "x" * 100_000 + "\nshort\n")
    arrived(place, ["x" * 49152, "x" * 49152, "x" * 1696, "short"])


def test_it_is_idle_while_nobody_writes(place: Place) -> None:
    place.start()
    place.write("rag/infer/infer-1", "one\n")
    arrived(place, ["one"])
    assert place.program is not None
    status = Path(f"/proc/{place.program.pid}/status")

    def switches() -> int:
        return int(status.read_text().split("voluntary_ctxt_switches:")[1].split()[0])

    until(lambda: "S (" in status.read_text(), status.read_text)
    before = switches()
    deadline = time.monotonic() + 1
    until(lambda: time.monotonic() > deadline, switches)
    assert switches() <= before + 2

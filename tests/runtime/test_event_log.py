"""Events outlive the daemon: bounded, in order, whatever became of the last line."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from stoker.api.narrate import event_document, sentence, severity
from stoker.model.event import Notice, ReplicaAdded, WorkerAdopted
from stoker.model.replica import WorkerHandle
from stoker.runtime import event_log
from stoker.runtime.event_log import EventLog
from stoker.runtime.journal import Journal

pytestmark = pytest.mark.anyio


class Life:
    """One daemon's journal over a state directory."""

    def __init__(self, directory: Path) -> None:
        self.troubles: list[str] = []
        self.log = EventLog(directory, self.troubles.append)
        self.journal = Journal(
            lambda: 1000.0, past=self.log.past, last_number=self.log.last_number, kept=self.log.add
        )

    def tell(self, *messages: str) -> None:
        for message in messages:
            self.journal.record(Notice(message=message, severity="warning"), now=1.0)
        self.log.flush()

    def messages(self) -> list[str]:
        return [sentence(event) for event in self.journal.recent()]


def test_a_new_life_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    Life(tmp_path).tell("one", "two")
    second = Life(tmp_path)
    second.tell("three")
    assert second.messages() == ["one", "two", "three"]
    assert [event.id for event in second.journal.recent()] == ["e1", "e2", "e3"]
    assert [sentence(e) for e in second.journal.recent(second.journal.beginning)] == ["three"]
    assert [sentence(event) for event in second.journal.recent("e1")] == ["two", "three"]


def test_an_event_of_the_past_is_told_as_it_was(tmp_path: Path) -> None:
    first = Life(tmp_path)
    first.tell("careful")
    (before,) = first.journal.recent()
    (after,) = Life(tmp_path).journal.recent()
    assert event_document(after) == event_document(before)
    assert (severity(after), after.wall, after.at) == ("warning", 1000.0, 1.0)


def test_a_replicas_story_spans_the_daemons_death(tmp_path: Path) -> None:
    first = Life(tmp_path)
    cause = first.journal.record(Notice(message="the file changed"), now=1.0)
    first.journal.record(ReplicaAdded(replica="r1", service="a/b", revision="x", cause=cause.id), now=1.0)
    first.journal.record(ReplicaAdded(replica="other", service="a/b", revision="x"), now=1.0)
    first.log.flush()
    second = Life(tmp_path)
    handle = WorkerHandle(driver="process", pid=7)
    second.journal.record(
        WorkerAdopted(replica="r1", service="a/b", handle=handle, endpoint="h:1", revision="x"), now=2.0
    )
    told = [sentence(event) for event in second.journal.story("r1")]
    assert told == ["the file changed", "r1 added", "r1 taken over from the daemon before, pid 7"]


def test_a_line_that_was_cut_short_ends_nothing(tmp_path: Path) -> None:
    Life(tmp_path).tell("one", "two")
    path = tmp_path / "events.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    second = Life(tmp_path)
    second.tell("three", "four")
    assert second.messages()[-2:] == ["three", "four"]
    assert Life(tmp_path).messages()[-2:] == ["three", "four"]


def test_what_lies_before_a_gap_is_left_out(tmp_path: Path) -> None:
    Life(tmp_path).tell("one", "two", "three")
    path = tmp_path / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "nonsense\n" + lines[2])
    assert Life(tmp_path).messages() == ["three"]


def test_the_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "LARGEST", 5000)
    life = Life(tmp_path)
    for number in range(200):
        life.tell(f"event {number}")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 12_000
    assert Life(tmp_path).messages()[-1] == "event 199"
    assert len(Life(tmp_path).messages()) > 10


def test_a_path_that_is_no_utf_8_is_written_all_the_same(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.tell("/d\udcfcr/stoker.yaml is bad")
    assert life.troubles == []
    assert Life(tmp_path).messages() == ["/d?r/stoker.yaml is bad"]


def test_a_full_disk_is_told_once_and_costs_only_the_past(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").mkdir()
    life = Life(tmp_path)
    life.tell("one")
    life.tell("two")
    assert len(life.troubles) == 1
    assert life.messages() == ["one", "two"]
    (tmp_path / "events.jsonl").rmdir()
    life.tell("three")
    assert Life(tmp_path).messages() == ["three"]


async def test_events_are_written_a_moment_after_they_happened(tmp_path: Path) -> None:
    life = Life(tmp_path)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(life.log.run)
        life.journal.record(Notice(message="now"), now=1.0)
        with anyio.fail_after(5):
            while not (tmp_path / "events.jsonl").exists():
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert Life(tmp_path).messages() == ["now"]

"""What a new daemon makes of the records of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from stoker.errors import WorkerError
from stoker.model.event import Event, Notice, WorkerAdopted
from stoker.model.replica import WorkerHandle
from stoker.plugin.ports import FoundWorker
from stoker.plugin.processes import boot_id
from stoker.runtime.adoption import adopt, find_again
from stoker.runtime.store import Store, WorkerRecord
from stoker_fake import FakeBox
from stoker_fake.driver import FakeDriver

pytestmark = pytest.mark.anyio


class Actuator:
    """Knows only how to drop a record, and what it was given."""

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self.adopted: list[str] = []

    def adopt(self, record: WorkerRecord, handle: WorkerHandle, driver: FakeDriver) -> None:
        self.adopted.append(record.replica)

    def drop(self, replica: str) -> None:
        self.dropped.append(replica)


def record(replica: str, driver: str) -> WorkerRecord:
    return WorkerRecord(
        replica=replica,
        service="app/web",
        revision="1",
        driver=driver,
        endpoint="127.0.0.1:1",
        handle=WorkerHandle(driver=driver, pid=1, start_time=1, boot_id=boot_id()),
    )


async def test_workers_whose_driver_is_missing_are_said_and_stay_recorded(tmp_path: Path) -> None:
    """A plugin that an upgrade broke must not cost the workers that the next upgrade could take over."""
    store, actuator, posted = Store(tmp_path), Actuator(), list[Event]()
    for replica, driver in (("gone", "fake"), ("far-a", "elsewhere"), ("far-b", "elsewhere")):
        store.save_worker(record(replica, driver))
    drivers = {"fake": FakeDriver(FakeBox())}
    count = await adopt(store=store, drivers=drivers, actuator=actuator, post=posted.append)  # type: ignore[arg-type]
    assert count == 0
    assert actuator.dropped == ["gone"]
    (notice,) = posted
    assert isinstance(notice, Notice)
    assert notice.severity == "error"
    assert notice.message.startswith("2 workers of backend elsewhere cannot be taken over")


class Away(FakeDriver):
    """A driver whose cluster is away for the first so many questions."""

    def __init__(self, refusals: int, *found: FoundWorker) -> None:
        super().__init__(FakeBox())
        self.refusals, self.found = refusals, found
        self.recovered: list[str] = []
        self.killed: list[str] = []

    async def find(self) -> Sequence[FoundWorker]:
        self.refusals -= 1
        if self.refusals >= 0:
            raise WorkerError("the cluster is away")
        return self.found

    async def recover(self, found: FoundWorker) -> WorkerHandle:
        self.recovered.append(found.mark)
        return found.handle

    async def kill(self, handle: WorkerHandle) -> None:
        self.killed.append(dict(handle.extra)["name"])


def handle(name: str) -> WorkerHandle:
    return WorkerHandle(driver="far", pid=1, start_time=1, boot_id="there", extra=(("name", name),))


async def test_workers_of_a_cluster_that_is_away_count_as_alive_until_it_tells(tmp_path: Path) -> None:
    """None is replaced meanwhile; then the one that is what it was is taken over, and what runs there under
    another name or without a record is ended, but not what is being started just now."""
    store, actuator, posted = Store(tmp_path), Actuator(), list[Event]()
    for name in ("same", "other"):
        store.save_worker(replace(record(name, "far"), handle=handle(f"{name}:1")))
    store.save_worker(replace(record("unborn", "far"), handle=None))
    there = {"same": "same:1", "other": "other:0", "nobody": "nobody:1", "fresh": "fresh:1"}
    found = (FoundWorker(handle=handle(name), mark=f"m:{replica}") for replica, name in there.items())
    driver, asked = Away(2, *found), list[str]()

    count = await adopt(
        store=store, drivers={"far": driver}, actuator=actuator, post=posted.append,  # type: ignore[arg-type]
        later=lambda name, driver: asked.append(name),
    )  # fmt: skip
    assert (count, actuator.adopted, actuator.dropped, asked) == (2, ["same", "other"], ["unborn"], ["far"])
    assert [event.replica for event in posted if isinstance(event, WorkerAdopted)] == ["same", "other"]
    assert any("2 of its workers count as alive" in str(event) for event in posted)

    store.save_worker(replace(record("fresh", "far"), handle=None))
    await find_again("far", driver, store=store, post=posted.append)
    assert driver.killed == ["other:0", "nobody:1"]
    assert driver.recovered[0] == "m:same"
    assert "answers again: 1 of its workers" in str(posted[-1])


async def test_a_driver_that_sees_another_ones_worker_leaves_it_alone(tmp_path: Path) -> None:
    """The processes of a container carry the mark as well, and the box's process table shows them."""
    store, actuator, posted = Store(tmp_path), Actuator(), list[Event]()
    store.save_worker(replace(record("boxed", "box"), handle=handle("boxed:1")))
    box = Away(0, FoundWorker(handle=handle("boxed:1"), mark="m:boxed"))
    process = Away(0, FoundWorker(handle=handle("a pid of it"), mark="m:boxed"))
    drivers = {"box": box, "process": process}
    for order in (drivers, dict(reversed(drivers.items()))):
        actuator.adopted.clear()
        await adopt(store=store, drivers=order, actuator=actuator, post=posted.append)  # type: ignore[arg-type]
        assert (actuator.adopted, actuator.dropped, process.killed, process.recovered) == (
            ["boxed"],
            [],
            [],
            [],
        )

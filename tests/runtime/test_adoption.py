"""What a new daemon makes of the records of the one before."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.model.event import Event, Notice
from stoker.model.replica import WorkerHandle
from stoker.plugin.processes import boot_id
from stoker.runtime.adoption import adopt
from stoker.runtime.store import Store, WorkerRecord
from stoker_fake import FakeBox
from stoker_fake.driver import FakeDriver

pytestmark = pytest.mark.anyio


class Actuator:
    """Knows only how to drop a record."""

    def __init__(self) -> None:
        self.dropped: list[str] = []

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

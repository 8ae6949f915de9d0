"""Who has ended and may still be on its devices is known to the next daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.decide.pinning import Departure
from stoker.model.device import Reservation
from stoker.model.replica import WorkerHandle
from stoker.runtime.departures import NAME, Departures
from stoker.runtime.store import Store, WorkerRecord

GONE = Departure(
    replica="infer-a", service="app/infer", devices=("GPU-0", "GPU-1"), pids=frozenset({10, 11}),
    strangers=frozenset({7}), unclaimed=(("GPU-0", 2**20),),
)  # fmt: skip


def test_they_are_known_to_the_next_daemon_of_this_boot(tmp_path: Path) -> None:
    store = Store(tmp_path)
    Departures(store, boot="b1").keep([GONE])
    assert list(Departures(store, boot="b1").recall()) == [GONE]
    assert list(Departures(store, boot="b2").recall()) == []
    Departures(store, boot="b1").keep([])
    assert list(Departures(store, boot="b1").recall()) == []
    store.write(NAME, {"boot": "b1", "departures": [{"replica": "infer-a"}, 7]})
    assert list(Departures(store, boot="b1").recall()) == [], "not as it is written"


def test_every_recorded_worker_on_a_device_may_have_ended(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, given, handle in (
        ("infer-a", (Reservation(uuid="GPU-0"),), WorkerHandle(driver="process", pid=10)),
        ("infer-b", (Reservation(uuid="GPU-1"),), None),
        ("web-a", (), WorkerHandle(driver="process", pid=12)),
    ):
        store.save_worker(
            WorkerRecord(
                replica=name, service="app/x", revision="r", driver="process", endpoint="",
                reservations=given, handle=handle,
            )
        )  # fmt: skip
    found = {one.replica: (one.devices, one.pids) for one in Departures(store, boot="b1").recall()}
    assert found == {
        "infer-a": (("GPU-0",), frozenset({10})),
        "infer-b": (("GPU-1",), frozenset()),
    }


def test_on_a_full_disk_it_is_told_whose_departure_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    departures = Departures(store, boot="b1")
    departures.keep([GONE])

    def full(name: str, value: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(store, "write", full)
    departures.keep([])
    assert departures.unnoted("infer-a") == "", "nobody is on the way"
    departures.keep([GONE])
    assert departures.unnoted("infer-a") == "no space left on device"
    assert departures.unnoted("infer-b") == ""
    monkeypatch.undo()
    departures.keep([GONE])
    assert departures.unnoted("infer-a") == ""

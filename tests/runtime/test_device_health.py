"""What is held against devices: told, kept, ended by time and by the operator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from stoker.decide.health import PROBATION
from stoker.errors import ConflictError
from stoker.model.device import DeviceFault, Inventory
from stoker.model.event import DeviceHealthChanged, Event, Notice, WorkerCondemned, WorkerExited
from stoker.model.replica import ExitStatus, Replica
from stoker.runtime.device_health import DeviceHealth
from stoker.runtime.store import Store
from worlds import box, make_device, make_replica, make_spec

pytestmark = pytest.mark.anyio

INFER, EMBED = make_spec("infer", gpu=1), make_spec("embed", gpu=0.5)


@pytest.fixture
def anyio_backend() -> Any:
    """A clock that jumps over waiting."""
    from trio.testing import MockClock

    return "trio", {"clock": MockClock(autojump_threshold=0)}


class Ward:
    """A box of two devices. `tell` publishes what a source has found; `shown` is what came out."""

    def __init__(self, tasks: anyio.abc.TaskGroup, store: Store, boot: str = "boot-1") -> None:
        self.found = box(0, 1)
        self.shown = self.found
        self.posted: list[Event] = []
        self.replicas: list[Replica] = []
        self.serial = 0
        self.health = DeviceHealth(
            store, tasks=tasks, replicas=lambda: self.replicas, publish=self.publish,
            post=self.posted.append, boot=boot,
            owners=lambda pids, workers: {pid: workers[pid] for pid in pids if pid in workers},
        )  # fmt: skip

    def publish(self) -> None:
        self.shown = self.health.over(self.found)

    def tell(self, number: int = 0, *faults: tuple[str, str], pid: int | None = None, **signs: Any) -> None:
        made = []
        for kind, what in faults:
            self.serial += 1
            made.append(DeviceFault(serial=self.serial, kind=kind, what=what, pid=pid))  # type: ignore[arg-type]
        devices = list(self.found.devices)
        devices[number] = make_device(number, faults=(*devices[number].faults, *made), **signs)
        self.found = replace(self.found, devices=tuple(devices))
        self.publish()

    def states(self) -> list[str]:
        return [device.health for device in self.shown.devices]

    def changes(self) -> list[tuple[str, str]]:
        return [(e.device, e.health) for e in self.posted if isinstance(e, DeviceHealthChanged)]

    def notices(self) -> list[str]:
        return [event.message for event in self.posted if isinstance(event, Notice)]


@asynccontextmanager
async def ward(directory: Path, **given: Any) -> AsyncIterator[Ward]:
    async with anyio.create_task_group() as tasks:
        made = Ward(tasks, Store(directory), **given)
        made.publish()
        yield made
        tasks.cancel_scope.cancel()


async def test_a_fault_of_the_program_condemns_its_worker_once_and_leaves_the_device(tmp_path) -> None:
    async with ward(tmp_path) as w:
        w.replicas = [make_replica(INFER, "a", devices=("GPU-0",))]
        w.tell(0, ("app", "Xid 31"))
        w.publish()
        (condemned,) = [e for e in w.posted if isinstance(e, WorkerCondemned)]
        assert (condemned.replica, condemned.fault) == ("infer-a", "device-fault")
        assert condemned.reason == "Xid 31, on GPU-0"
        assert w.notices() == ["GPU 0 (GPU-0): Xid 31"]
        assert w.states() == ["healthy", "healthy"]


async def test_on_a_shared_device_nobody_is_condemned_and_all_are_named(tmp_path) -> None:
    async with ward(tmp_path) as w:
        w.replicas = [make_replica(EMBED, tag, devices=("GPU-0",)) for tag in "ab"]
        w.tell(0, ("app", "Xid 31"))
        assert [type(event) for event in w.posted] == [Notice]
        assert "which of embed-a, embed-b it was" in w.notices()[0]


async def test_a_process_that_the_driver_names_decides_who_is_condemned_on_a_shared_device(tmp_path) -> None:
    async with ward(tmp_path) as w:
        w.replicas = [make_replica(EMBED, tag, devices=("GPU-0",)) for tag in "ab"]
        pid = w.replicas[1].handle.pid  # type: ignore[union-attr]
        w.tell(0, ("app", "Xid 31"), pid=pid)
        w.tell(0, ("app", "Xid 31"), pid=99_999)
        assert [e.replica for e in w.posted if isinstance(e, WorkerCondemned)] == ["embed-b"]
        assert w.notices()[-1] == "GPU 0 (GPU-0): Xid 31 (process 99999)"


async def test_a_device_drains_until_its_last_worker_has_left(tmp_path) -> None:
    async with ward(tmp_path) as w:
        w.replicas = [make_replica(INFER, "a", devices=("GPU-0",))]
        w.tell(0, ("device", "Xid 95"))
        assert w.states() == ["draining", "healthy"]
        w.replicas = []
        w.health.after_event(WorkerExited(replica="infer-a", service=INFER.key, status=ExitStatus(code=0)))
        assert w.states() == ["quarantined", "healthy"]
        assert w.changes() == [("GPU-0", "draining"), ("GPU-0", "quarantined")]


async def test_probation_ends_by_itself(tmp_path) -> None:
    async with ward(tmp_path) as w:
        w.tell(0, ailing="needs a reset")
        w.tell(0)
        assert w.states() == ["probation", "healthy"]
        await anyio.sleep(PROBATION + 1)
        assert w.states() == ["healthy", "healthy"]
        assert [health for _, health in w.changes()] == ["quarantined", "probation", "healthy"]


async def test_the_next_daemon_knows_and_does_not_tell_again(tmp_path) -> None:
    async with ward(tmp_path) as w:
        w.tell(0, ("device", "Xid 95"), ("link", "Xid 74"))
    async with ward(tmp_path) as w:
        (device, other) = w.shown.devices
        assert (device.health, device.health_reason, device.unlinked) == ("quarantined", "Xid 95", "Xid 74")
        assert device.health_since is not None
        assert other.health == "healthy"
        assert w.posted == []
    async with ward(tmp_path, boot="boot-2") as w:
        assert w.states() == ["probation", "healthy"]


async def test_the_operator_ends_quarantine_but_not_what_the_driver_still_says(tmp_path) -> None:
    async with ward(tmp_path) as w:
        assert not w.health.pardon("GPU-0")
        w.tell(0, ("device", "Xid 95"))
        assert w.health.pardon("GPU-0")
        assert w.states() == ["probation", "healthy"]
        w.tell(0, ailing="needs a reset")
        with pytest.raises(ConflictError, match="GPU-0 cannot be used again yet: needs a reset"):
            w.health.pardon("GPU-0")
        w.tell(0, health="lost")
        assert not w.health.pardon("GPU-0"), "a lost one can only be marked"


async def test_a_gpu_that_is_cut_is_pardoned_with_all_its_instances(tmp_path) -> None:
    async with ward(tmp_path) as w:
        fault = DeviceFault(serial=1, kind="device", what="Xid 95")
        w.found = box(*(make_device(number, parent="GPU-cut", faults=(fault,)) for number in (0, 1)))
        w.publish()
        assert w.states() == ["quarantined", "quarantined"]
        assert w.health.pardon("GPU-cut")
        assert w.states() == ["probation", "probation"]
        assert not w.health.pardon("GPU-cut")


async def test_a_link_fault_is_told_and_pardoned(tmp_path) -> None:
    async with ward(tmp_path) as w:
        w.tell(0, ("link", "Xid 74"))
        assert w.shown.devices[0].unlinked == "Xid 74"
        assert "no longer given together with others: Xid 74" in w.notices()[-1]
        w.health.forgive("GPU-0")
        assert w.shown.devices[0].unlinked == ""


async def test_advice_of_the_driver_is_told_once(tmp_path) -> None:
    async with ward(tmp_path) as w:
        w.tell(0, health_reason="reset it when it suits")
        w.publish()
        assert w.notices() == ["GPU 0 (GPU-0): reset it when it suits"]
        assert w.changes() == []


async def test_a_silent_driver_changes_nothing(tmp_path) -> None:
    async with ward(tmp_path) as w:
        w.tell(0, ("device", "Xid 95"))
        w.found = Inventory(state="unreachable", reason="hangs", devices=w.found.devices)
        w.publish()
        assert w.states() == ["quarantined", "healthy"]


async def test_a_full_disk_is_told_once_and_the_quarantine_holds(tmp_path) -> None:
    async with ward(tmp_path) as w:
        (tmp_path / "health.json.new").mkdir()
        w.tell(0, ("device", "Xid 95"))
        w.tell(1, ("device", "Xid 95"))
        assert w.states() == ["quarantined", "quarantined"]
        assert sum("cannot record the health" in message for message in w.notices()) == 1

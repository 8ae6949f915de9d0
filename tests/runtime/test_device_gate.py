"""The gate between the end of a worker and the next use of its device; findings of astray workers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from trio.testing import MockClock

from stoker.decide.pinning import Departure, named
from stoker.decide.promises import Excess
from stoker.model.device import DeviceProcess, Inventory, Reservation
from stoker.model.event import (
    Event,
    InventoryChanged,
    Notice,
    StartRequested,
    WorkerAdopted,
    WorkerCondemned,
    WorkerExited,
    WorkerSpawned,
)
from stoker.model.replica import ExitStatus, WorkerHandle
from stoker.runtime.device_gate import PATIENCE, DeviceGate
from worlds import box, make_device

pytestmark = pytest.mark.anyio


UNSEEN = 1000
"""Processes from here on cannot be seen: they are dead, or of another pid namespace."""


def identify(inventory: Inventory, workers: Mapping[int, str]) -> Inventory:
    """By the main process alone."""
    shown = {process.pid for device in inventory.devices for process in device.processes}
    strangers = {pid: f"program-{pid}" if pid < UNSEEN else "" for pid in shown - workers.keys()}
    return named(inventory, workers, strangers)


class Bench:
    """A gate on a box of two devices. What the sources tell is `told`; what they would find is `real`."""

    def __init__(self, tasks: anyio.abc.TaskGroup, patience: float, strict: bool) -> None:
        self.told = self.real = box(0, 1)
        self.posted: list[Event] = []
        self.judged: list[Iterable[Excess]] = []
        self.refreshes = 0
        self.answers = anyio.Event()
        self.changed = anyio.Event()
        self.published = self.told
        self.gate = DeviceGate(
            tasks=tasks,
            identify=identify,
            refresh=self.refresh,
            publish=self.publish,
            post=self.post,
            patience=patience,
            strict=lambda service: strict,
            judge=self.judged.append,
        )
        self.publish()

    def post(self, event: Event) -> None:
        self.posted.append(event)
        self.gate.after_event(event)
        self.changed.set()

    def publish(self) -> None:
        self.published = self.gate.over(self.told)
        self.post(InventoryChanged(inventory=self.published))

    async def refresh(self) -> None:
        self.refreshes += 1
        await self.answers.wait()
        self.told = self.real

    def shows(self, number: int, *pids: int) -> None:
        """The driver shows these processes on that device, and the sources have told so."""
        processes = tuple(DeviceProcess(pid=pid) for pid in pids)
        devices = list(self.real.devices)
        devices[number] = replace(devices[number], processes=processes)
        self.real = Inventory(state="ok", reason="", devices=tuple(devices))

    def tell(self) -> None:
        self.told = self.real
        self.publish()

    def run(self, replica: str, pid: int, *devices: str) -> None:
        given = tuple(Reservation(uuid=uuid) for uuid in devices)
        self.post(StartRequested(replica=replica, service="app/infer", reservations=given))
        handle = WorkerHandle(driver="fake", pid=pid)
        self.post(WorkerSpawned(replica=replica, service="app/infer", handle=handle, endpoint=""))

    def end(self, replica: str) -> None:
        self.post(WorkerExited(replica=replica, service="app/infer", status=ExitStatus(code=0)))

    def withheld(self) -> list[bool]:
        return [bool(device.withheld) for device in self.published.devices]

    def notices(self) -> list[str]:
        return [event.message for event in self.posted if isinstance(event, Notice)]

    async def until_withheld(self, expected: list[bool]) -> None:
        with anyio.fail_after(10):
            while self.withheld() != expected:
                self.changed = anyio.Event()
                await self.changed.wait()


@asynccontextmanager
async def bench(patience: float = PATIENCE, *, strict: bool = False) -> AsyncIterator[Bench]:
    async with anyio.create_task_group() as tasks:
        yield Bench(tasks, patience, strict)
        tasks.cancel_scope.cancel()


async def test_a_device_is_free_again_when_the_driver_was_asked_and_shows_nobody() -> None:
    async with bench() as b:
        b.run("infer-a", 10, "GPU-0")
        b.end("infer-a")
        assert b.withheld() == [True, False]
        b.answers.set()
        await b.until_withheld([False, False])
        assert b.refreshes == 1
        assert b.notices() == []


async def test_a_device_stays_withheld_while_a_known_process_of_the_worker_is_on_it() -> None:
    async with bench() as b:
        b.answers.set()
        b.run("infer-a", 10, "GPU-0")
        b.shows(0, 10)
        b.tell()
        b.end("infer-a")
        with anyio.fail_after(10):
            while b.refreshes < 3:
                await anyio.lowlevel.checkpoint()
        assert "pid 10 is still on it" in b.published.devices[0].withheld
        b.shows(0)
        await b.until_withheld([False, False])


async def test_a_device_that_was_away_when_its_worker_ended_comes_back_withheld() -> None:
    """It used to be forgotten that the worker may still be on it: what is not there showed nobody."""
    async with bench() as b:
        b.answers.set()
        b.run("infer-a", 10, "GPU-0")
        b.shows(0, 10)
        whole = b.real
        b.real = replace(whole, devices=whole.devices[1:])
        b.tell()
        b.end("infer-a")
        with anyio.fail_after(10):
            while b.refreshes < 3:
                await anyio.lowlevel.checkpoint()
        b.real = whole
        b.tell()
        assert "pid 10 is still on it" in b.published.devices[0].withheld
        b.shows(0)
        await b.until_withheld([False, False])


async def test_patience_ends_with_a_notice() -> None:
    async with bench(patience=0.05) as b:
        b.answers.set()
        b.run("infer-a", 10, "GPU-0")
        b.shows(0, 10)
        b.end("infer-a")
        b.tell()
        await b.until_withheld([False, False])
        (told,) = b.notices()
        assert "pid 10 is still shown on GPU-0" in told


async def test_a_driver_that_is_silent_does_not_hold_a_device_for_ever() -> None:
    async with bench(patience=0.05) as b:
        b.run("infer-a", 10, "GPU-0")
        b.end("infer-a")
        await b.until_withheld([False, False])
        assert "the driver does not answer for GPU-0" in b.notices()[0]


@pytest.mark.parametrize("anyio_backend", [("trio", {"clock": MockClock(autojump_threshold=0)})])
@pytest.mark.parametrize("what", ["the driver", "the device"])
async def test_what_is_not_known_is_not_given_on(what: str) -> None:
    """As long as there is no answer for a device patience does not run, and nothing is taken for free."""
    async with bench() as b:
        b.answers.set()
        b.run("infer-a", 10, "GPU-0")
        b.shows(0, 10)
        b.tell()
        known = b.real
        silent = replace(known.devices[0], health="unreachable")
        b.real = (
            replace(known, state="unreachable")
            if what == "the driver"
            else replace(known, devices=(silent, known.devices[1]))
        )
        b.tell()
        b.end("infer-a")
        assert b.withheld() == [True, False]
        await anyio.sleep(10 * PATIENCE)
        assert b.withheld() == [True, False]
        assert b.notices() == []
        b.real = known
        b.tell()
        assert b.withheld() == [True, False], "it is still there"
        b.shows(0)
        b.tell()
        await b.until_withheld([False, False])


async def test_the_device_of_a_worker_that_ended_while_no_daemon_lived_is_looked_at_first() -> None:
    gone, alive = (
        Departure(replica=name, service="app/infer", devices=(device,), pids=frozenset({pid}))
        for name, device, pid in (("infer-a", "GPU-0", 10), ("infer-b", "GPU-1", 11))
    )
    async with bench() as b:
        b.shows(0, 10)
        b.shows(1, 11)
        b.tell()
        for departure in (gone, alive):
            b.gate.depart(departure)
        assert b.withheld() == [True, True]
        handle = WorkerHandle(driver="fake", pid=11)
        b.post(
            WorkerAdopted(
                replica="infer-b", service="app/infer", handle=handle, endpoint="", revision="r",
                reservations=(Reservation(uuid="GPU-1"),),
            )
        )  # fmt: skip
        assert b.withheld() == [True, False], "one lives"
        b.answers.set()
        with anyio.fail_after(10):
            while b.refreshes < 4:
                await anyio.lowlevel.checkpoint()
        assert b.withheld() == [True, False], "the other is still shown"
        b.shows(0)
        await b.until_withheld([False, False])
        assert b.notices() == []


async def test_a_child_that_nobody_had_seen_yet_keeps_the_device_and_a_hidden_stranger_does_not() -> None:
    async with bench() as b:
        b.answers.set()
        b.run("infer-a", 10, "GPU-0")
        b.shows(0, 10, UNSEEN + 1)
        b.tell()
        b.shows(0, UNSEEN + 1, UNSEEN + 2)
        b.end("infer-a")
        with anyio.fail_after(10):
            while b.refreshes < 3:
                await anyio.lowlevel.checkpoint()
        assert b.withheld() == [True, False], "its child is shown"
        b.shows(0, UNSEEN + 1)
        await b.until_withheld([False, False])
        assert b.notices() == []


async def test_a_worker_that_ends_before_the_devices_were_told_of_is_seen_off_too() -> None:
    async with bench() as b:
        b.answers.set()
        b.shows(0, 10)
        b.told, there = Inventory(), b.real
        b.real = b.told
        b.publish()
        b.run("infer-a", 10, "GPU-0")
        b.end("infer-a")
        b.real = there
        b.tell()
        assert b.withheld() == [True, False]
        b.shows(0)
        b.tell()
        await b.until_withheld([False, False])


async def test_workers_without_a_gpu_pass_freely_and_ask_nobody() -> None:
    async with bench() as b:
        b.run("web-a", 10)
        b.end("web-a")
        assert (b.refreshes, b.withheld()) == (0, [False, False])


async def test_two_ends_of_one_replica_are_seen_off_apart() -> None:
    async with bench() as b:
        b.run("infer-a", 10, "GPU-0")
        b.end("infer-a")
        b.run("infer-a", 11, "GPU-1")
        b.end("infer-a")
        assert b.withheld() == [True, True]
        b.answers.set()
        await b.until_withheld([False, False])


async def test_an_astray_worker_is_told_once_and_its_next_life_again() -> None:
    async with bench() as b:
        b.answers.set()
        b.run("infer-a", 10, "GPU-0")
        b.shows(1, 10)
        b.tell()
        b.tell()
        assert b.notices() == ["infer-a runs on GPU-1, which is not its own (GPU-0)"]
        b.end("infer-a")
        b.shows(1)
        b.tell()
        b.run("infer-a", 12, "GPU-0")
        b.shows(1, 12)
        b.tell()
        assert len(b.notices()) == 2


async def test_where_pinning_is_strict_an_astray_worker_is_condemned() -> None:
    async with bench(strict=True) as b:
        b.run("infer-a", 10, "GPU-0")
        b.shows(1, 10)
        b.tell()
        b.tell()
        (event,) = [event for event in b.posted if isinstance(event, WorkerCondemned)]
        assert (event.replica, event.fault, event.gently) == ("infer-a", "astray", False)
        assert event.reason == "infer-a runs on GPU-1, which is not its own (GPU-0)"
        assert b.notices() == []


async def test_who_takes_more_of_a_shared_device_than_was_promised_is_judged_at_each_look() -> None:
    async with bench() as b:
        given = (Reservation(uuid="GPU-0", share=0.5, memory=1000),)
        b.post(StartRequested(replica="infer-a", service="app/infer", reservations=given))
        handle = WorkerHandle(driver="fake", pid=10)
        b.post(WorkerSpawned(replica="infer-a", service="app/infer", handle=handle, endpoint=""))
        processes = (DeviceProcess(pid=10, memory=2**30),)
        b.real = replace(b.real, devices=(make_device(0, processes=processes), make_device(1)))
        b.tell()
        assert [(e.holder.replica, e.used) for e in b.judged[-1]] == [("infer-a", 2**30)]
        b.shows(0)
        b.tell()
        assert list(b.judged[-1]) == []


async def test_processes_are_told_with_their_replica_and_strangers_by_name() -> None:
    async with bench() as b:
        b.run("infer-a", 10, "GPU-0")
        b.shows(0, 10, 99)
        b.tell()
        mine, stranger = b.published.devices[0].processes
        assert (mine.owner, mine.name) == ("infer-a", "")
        assert (stranger.owner, stranger.name) == ("", "program-99")


async def test_a_box_whose_driver_is_silent_anyway_is_not_asked() -> None:
    async with bench() as b:
        b.run("infer-a", 10, "GPU-0")
        b.told = Inventory(state="unreachable", reason="hangs", devices=(make_device(0),))
        b.publish()
        b.end("infer-a")
        assert b.refreshes == 0

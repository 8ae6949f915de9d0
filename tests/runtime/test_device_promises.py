"""Warn, wait, drain the offender."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import pytest

from stoker.decide.pinning import Holder
from stoker.decide.promises import Excess
from stoker.model.event import Event, Notice, WorkerCondemned
from stoker.runtime.device_promises import GRACE, DevicePromises

pytestmark = pytest.mark.anyio

A = Holder(replica="infer-a", service="app/infer", devices=("GPU-0",), pid=10)
OVER = Excess(holder=A, device="GPU-0", used=2 * 2**30, promised=2**30)


@pytest.fixture
def anyio_backend() -> Any:
    """A clock that jumps over waiting."""
    from trio.testing import MockClock

    return "trio", {"clock": MockClock(autojump_threshold=0)}


class Bench:
    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self.posted: list[Event] = []
        self.found: tuple[Excess, ...] = ()
        self.hangs = False
        self.promises = DevicePromises(tasks=tasks, refresh=self.refresh, post=self.posted.append)

    async def refresh(self) -> None:
        if self.hangs:
            await anyio.sleep_forever()
        self.promises.look(self.found)

    def look(self, *found: Excess) -> None:
        self.found = found
        self.promises.look(found)

    def told(self) -> list[str]:
        return [event.message for event in self.posted if isinstance(event, Notice)]

    def condemned(self) -> list[WorkerCondemned]:
        return [event for event in self.posted if isinstance(event, WorkerCondemned)]


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    async with anyio.create_task_group() as tasks:
        yield Bench(tasks)
        tasks.cancel_scope.cancel()


async def test_one_that_stays_beyond_its_promise_is_warned_once_and_then_drained() -> None:
    async with bench() as b:
        b.look(OVER)
        b.look(OVER)
        await anyio.sleep(GRACE - 1)
        (told,) = b.told()
        assert told.startswith("infer-a uses 2Gi of GPU-0, but 1Gi was promised to it; it is replaced in 15s")
        assert b.condemned() == []
        await anyio.sleep(2)
        (event,) = b.condemned()
        assert (event.replica, event.fault, event.gently) == ("infer-a", "memory", True)


async def test_one_that_gives_it_back_in_time_goes_on_and_may_be_warned_again() -> None:
    async with bench() as b:
        b.look(OVER)
        b.look()
        await anyio.sleep(GRACE + 1)
        assert b.condemned() == []
        assert b.told()[-1] == "infer-a is within its promise of GPU-0 again"
        b.look(OVER)
        await anyio.sleep(1)
        assert len(b.told()) == 3


async def test_a_driver_that_hangs_does_not_spare_the_offender() -> None:
    async with bench() as b:
        b.hangs = True
        b.look(OVER)
        await anyio.sleep(3 * GRACE)
        assert len(b.condemned()) == 1

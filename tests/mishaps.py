"""What may befall a simulated daemon: death between any two steps, a full disk, a slow driver, lost words.

Every place where the daemon touches the world is a point at which it can die: before and after each action,
each record, each call of the driver.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio

from stoker.model.action import Action
from stoker.model.event import Event
from stoker.model.load import LoadSample, Usage
from stoker.model.replica import ExitStatus, WorkerHandle
from stoker.model.service import ServiceKey
from stoker.plugin import impl
from stoker.plugin.ports import (
    DeviceSourceFactory,
    FoundWorker,
    RouterEvents,
    StartRequest,
    WorkerDriverFactory,
)
from stoker.runtime.store import Store, WorkerRecord
from stoker_fake import FakeBox
from stoker_fake.devices import FakeDevices
from stoker_fake.driver import FakeDriver


class Death(BaseException):
    """SIGKILL: nothing may catch it."""


class Mishaps:
    """The present state of bad luck."""

    def __init__(self) -> None:
        self.dies_in: int | None = None
        """Points until the daemon dies."""
        self.disk_full = False
        self.lag = 0.0
        """Seconds that each call of the driver takes longer."""
        self.words_lost = 0
        """How many of the router's next words do not arrive."""

    def point(self) -> None:
        """Here the daemon could die."""
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                self.dies_in = None
                raise Death

    def perform(self, inner: Callable[[Action], Event]) -> Callable[[Action], Event]:
        """An actuator that may not come back."""

        def performed(action: Action) -> Event:
            self.point()
            event = inner(action)
            self.point()
            return event

        return performed

    def hears(self) -> bool:
        """Whether the router's next word arrives."""
        if self.words_lost:
            self.words_lost -= 1
            return False
        return True


class MortalStore(Store):
    """A state directory on a disk that may be full, used by a daemon that may die."""

    def __init__(self, directory: str | Path, mishaps: Mishaps) -> None:
        super().__init__(directory)
        self._mishaps = mishaps

    def save_worker(self, record: WorkerRecord) -> None:
        self._try()
        super().save_worker(record)
        self._mishaps.point()

    def drop_worker(self, replica: str) -> None:
        self._mishaps.point()  # there is room for a word, if not for a new file: the harder case
        super().drop_worker(replica)
        self._mishaps.point()

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        self._try()
        super().write(name, value)
        self._mishaps.point()

    def _try(self) -> None:
        self._mishaps.point()
        if self._mishaps.disk_full:
            raise OSError(errno.ENOSPC, "no space left on device")


class MortalDriver(FakeDriver):
    """A driver that may be slow, called by a daemon that may die."""

    def __init__(self, box: FakeBox, mishaps: Mishaps) -> None:
        super().__init__(box)
        self._mishaps = mishaps

    async def start(self, request: StartRequest) -> WorkerHandle:
        await self._step()
        handle = await super().start(request)
        self._mishaps.point()
        return handle

    async def wait(self, handle: WorkerHandle) -> ExitStatus:
        status = await super().wait(handle)
        await self._step()
        return status

    async def signal(self, handle: WorkerHandle, signum: int) -> None:
        await self._step()
        await super().signal(handle, signum)
        self._mishaps.point()

    async def kill(self, handle: WorkerHandle) -> None:
        await self._step()
        await super().kill(handle)
        self._mishaps.point()

    async def find(self) -> Sequence[FoundWorker]:
        await self._step()
        return await super().find()

    async def recover(self, found: FoundWorker) -> WorkerHandle:
        await self._step()
        return await super().recover(found)

    async def usage(self, handles: Sequence[WorkerHandle]) -> Mapping[int, Usage]:
        return await super().usage(handles)

    async def _step(self) -> None:
        self._mishaps.point()
        if self._mishaps.lag:
            await anyio.sleep(self._mishaps.lag)
            self._mishaps.point()


class MishapPlugin:
    """Mortal parts around one box."""

    def __init__(self, box: FakeBox, mishaps: Mishaps) -> None:
        self._box = box
        self._mishaps = mishaps

    @impl
    def stoker_worker_drivers(self) -> Mapping[str, WorkerDriverFactory]:
        return {"fake": lambda context: MortalDriver(self._box, self._mishaps)}

    @impl
    def stoker_device_sources(self) -> Mapping[str, DeviceSourceFactory]:
        return {"fake": lambda context: FakeDevices(self._box)}


class LossyLink:
    """The router's words on a way on which some get lost."""

    def __init__(self, inner: RouterEvents, mishaps: Mishaps) -> None:
        self._inner = inner
        self._mishaps = mishaps

    def sample(self, sample: LoadSample) -> None:
        if self._mishaps.hears():
            self._inner.sample(sample)

    def demand(self, service: ServiceKey) -> None:
        if self._mishaps.hears():
            self._inner.demand(service)

    def drained(self, replica: str) -> None:
        if self._mishaps.hears():
            self._inner.drained(replica)

    def bound(self, service: ServiceKey, host: str, port: int) -> None:
        self._inner.bound(service, host, port)

    def trouble(self, service: ServiceKey, message: str) -> None:
        self._inner.trouble(service, message)

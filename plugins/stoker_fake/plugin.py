"""What this plugin brings: driver, device source and router, all called `fake`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from stoker.errors import PluginError
from stoker.plugin import impl
from stoker.plugin.ports import (
    DeviceSourceFactory,
    PluginContext,
    RouterFactory,
    WorkerDriverFactory,
)
from stoker_fake.box import FakeBox
from stoker_fake.devices import FakeDevices, fake_devices
from stoker_fake.driver import FakeDriver
from stoker_fake.router import FakeRouter

DEVICES = "STOKER_FAKE_DEVICES"
"""Environment variable of the daemon: how many fake GPUs the box has. Without it there is no fake source."""


class FakePlugin:
    """The same parts around one box, for `PluginRegistry.register` in simulations."""

    def __init__(self, box: FakeBox) -> None:
        self._box = box

    @impl
    def stoker_worker_drivers(self) -> Mapping[str, WorkerDriverFactory]:
        """Workers of this box."""
        return {"fake": lambda context: FakeDriver(self._box)}

    @impl
    def stoker_device_sources(self) -> Mapping[str, DeviceSourceFactory]:
        """Devices of this box."""
        return {"fake": lambda context: FakeDevices(self._box)}

    @impl
    def stoker_routers(self) -> Mapping[str, RouterFactory]:
        """A router to the workers of this box."""
        return {"fake": lambda context: FakeRouter(self._box)}


@impl
def stoker_worker_drivers() -> Mapping[str, WorkerDriverFactory]:
    """`backend: fake`: workers that obey their command, `fake exit_after=30 exit_code=1`."""
    return {"fake": lambda context: FakeDriver(FakeBox())}


@impl
def stoker_device_sources() -> Mapping[str, DeviceSourceFactory]:
    """As many GPUs as the daemon's environment says; no source at all where it says nothing, so that nobody
    waits for its word."""
    return {"fake": _devices} if os.environ.get(DEVICES) else {}


@impl
def stoker_routers() -> Mapping[str, RouterFactory]:
    """`box: {router: fake}`: opens no address and carries nothing."""
    return {"fake": lambda context: FakeRouter(FakeBox())}


def _devices(context: PluginContext) -> FakeDevices:
    count = context.environ.get(DEVICES, "")
    if not count.isdigit():
        raise PluginError(f"{DEVICES}={count!r} must be the number of fake GPUs, for example 8")
    return FakeDevices(FakeBox(fake_devices(int(count))))

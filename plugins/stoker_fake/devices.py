"""A device source that tells what a `FakeBox` has."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.lowlevel

from stoker.model.device import Device, Inventory
from stoker_fake.box import FakeBox

GIB = 2**30


def fake_devices(count: int, *, memory: int = 80 * GIB) -> Inventory:
    """An inventory of that many equal healthy GPUs, `GPU-fake-0` and so on."""
    devices = tuple(
        Device(
            uuid=f"GPU-fake-{number}",
            name="Fake GPU",
            index=number,
            memory_total=memory,
            type_key=f"gpu.fake.{memory // GIB}g",
        )
        for number in range(count)
    )
    return Inventory(state="ok", reason="", devices=devices, driver="fake")


class FakeDevices:
    """Publishes the box's devices and each change of them."""

    def __init__(self, box: FakeBox) -> None:
        self._box = box
        self._changed = anyio.Event()
        self._told = anyio.Event()
        box.listen(self._tell)

    async def run(self, publish: Callable[[Inventory], None]) -> None:
        """Publish until cancelled."""
        known: Inventory | None = None
        while True:
            self._changed = anyio.Event()
            found = self._box.devices()
            if found != known:
                known = found
                publish(known)
            told, self._told = self._told, anyio.Event()
            told.set()
            await self._changed.wait()

    async def refresh(self) -> None:
        """Look now; returns when that was told."""
        self._changed.set()
        await self._told.wait()

    def _tell(self) -> None:
        self._changed.set()

"""A device source that tells what a `FakeBox` has."""

from __future__ import annotations

from collections.abc import Callable

import anyio

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
    """Publishes the box's inventory and each change of it."""

    def __init__(self, box: FakeBox) -> None:
        self._box = box
        self._changed = anyio.Event()
        box.listen(self._tell)

    async def run(self, publish: Callable[[Inventory], None]) -> None:
        """Publish until cancelled."""
        known: Inventory | None = None
        while True:
            self._changed = anyio.Event()
            if self._box.inventory != known:
                known = self._box.inventory
                publish(known)
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()

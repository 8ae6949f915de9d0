"""What drivers tell of machines that are not this box: asked now and then, for status and for the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from stoker.decide.claims import Amount
from stoker.errors import WorkerError
from stoker.model.event import Event, Notice
from stoker.model.node import Node
from stoker.plugin.ports import ClusterDriver, WorkerDriver

PERIOD = 10.0
"""Seconds between two questions; none is asked where no such driver is in use."""


class Clusters:
    """The clusters behind this daemon's drivers."""

    def __init__(self, post: Callable[[Event], None]) -> None:
        self._post = post
        self._drivers: dict[str, ClusterDriver] = {}
        self._met = anyio.Event()
        self.nodes: dict[str, Sequence[Node]] = {}
        """By backend, as told last."""

    def meet(self, name: str, driver: WorkerDriver) -> None:
        """That driver is in use from now on."""
        if isinstance(driver, ClusterDriver):
            self._drivers[name] = driver
            self._met.set()

    async def run(self) -> None:
        """Serve until cancelled; asleep where no driver has a cluster."""
        await self._met.wait()
        while True:
            self._met = anyio.Event()
            for name, driver in list(self._drivers.items()):
                await self._ask(name, driver)
            with anyio.move_on_after(PERIOD):
                await self._met.wait()

    async def _ask(self, name: str, driver: ClusterDriver) -> None:
        try:
            found = tuple(await driver.nodes())
        except WorkerError:
            return  # who needs the cluster is told so by the driver
        before = self.nodes.get(name)
        self.nodes[name] = found
        if before is None or _alive(before) != _alive(found):
            room = room_of(found)
            count = len(_alive(found))
            words = f"{count} node{'s' * (count != 1)}, {room.devices:g} GPUs, {room.cpu:g} cores"
            self._post(Notice(message=f"backend {name}: {words}"))

    def rooms(self) -> dict[str, Amount]:
        """What each cluster has, by backend."""
        return {name: room_of(nodes) for name, nodes in self.nodes.items()}


def room_of(nodes: Sequence[Node]) -> Amount:
    """What those that are alive have together; of what only others had there is nothing. Pure."""
    alive = [node for node in nodes if node.alive]
    names = sorted({name for node in nodes for name in node.custom})
    return Amount(
        devices=sum(node.gpus for node in alive),
        cpu=sum(node.cpu for node in alive),
        memory=float(sum(node.memory for node in alive)),
        custom=tuple((name, sum(node.custom.get(name, 0.0) for node in alive)) for name in names),
    )


def _alive(nodes: Sequence[Node]) -> set[str]:
    return {node.address for node in nodes if node.alive}

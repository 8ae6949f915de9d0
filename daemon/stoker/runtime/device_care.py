"""All that stands between what the device sources tell and what the control loop sees of it: health, the
operator's marks, the gate, promises of memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from anyio.abc import TaskGroup

from stoker.model.device import Inventory
from stoker.model.event import Event
from stoker.model.replica import Replica
from stoker.model.service import ServiceKey, ServiceSpec
from stoker.runtime.device_gate import DeviceGate
from stoker.runtime.device_health import DeviceHealth, boot_id
from stoker.runtime.device_marks import DeviceMarks
from stoker.runtime.device_promises import DevicePromises
from stoker.runtime.owners import Owners, name_of
from stoker.runtime.store import Store


class DeviceCare:
    """The care of one daemon; `attach` before the first look at the devices."""

    def __init__(
        self,
        store: Store,
        *,
        tasks: TaskGroup,
        instance: str,
        replicas: Callable[[], Iterable[Replica]],
        lookup: Callable[[ServiceKey], ServiceSpec | None],
        post: Callable[[Event], None],
    ) -> None:
        self._refresh: Callable[[], Awaitable[None]] | None = None
        self._publish: Callable[[], None] = lambda: None
        self._lookup = lookup
        self.marks = DeviceMarks(store)
        self._health = DeviceHealth(
            store, tasks=tasks, replicas=replicas, publish=self._tell, post=post, boot=boot_id()
        )
        self._gate = DeviceGate(
            tasks=tasks,
            owners=Owners(instance),
            refresh=self._look,
            publish=self._tell,
            post=post,
            strict=self._strict,
            name_of=name_of,
            judge=DevicePromises(tasks=tasks, refresh=self._look, post=post).look,
        )
        self.marks.on_change(self._tell)
        self.marks.mercy(self._health.pardon, self._health.forgive)

    def attach(self, *, refresh: Callable[[], Awaitable[None]], publish: Callable[[], None]) -> None:
        """`refresh` makes the device sources look now; `publish` has what they told last pass by `over`."""
        self._refresh, self._publish = refresh, publish

    def over(self, found: Inventory) -> Inventory:
        """The devices as they may be used."""
        return self._gate.over(self.marks.over(self._health.over(found)))

    def after_event(self, event: Event) -> None:
        """Listen to the control loop."""
        self._gate.after_event(event)
        self._health.after_event(event)

    async def _look(self) -> None:
        if self._refresh is not None:
            await self._refresh()

    def _tell(self) -> None:
        self._publish()

    def _strict(self, service: ServiceKey) -> bool:
        spec = self._lookup(service)
        return spec is not None and spec.strict_pinning

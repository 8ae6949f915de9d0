"""The operator's marks on devices: `stoker gpus cordon|release|uncordon`, kept in the state directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import get_args

from stoker.decide.health import Mark, overlay
from stoker.errors import StokerError
from stoker.model.device import Inventory
from stoker.runtime.store import Store


class DeviceMarks:
    """Marks by UUID. A device that is away keeps its mark: it must not come back to work by itself."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._marks: dict[str, Mark] = {
            uuid: mark for uuid, mark in store.read("quarantine").items() if mark in get_args(Mark)
        }
        self._changed: Callable[[], None] = lambda: None
        self._pardon: Callable[[str], bool] = lambda uuid: False
        self._forgive: Callable[[str], None] = lambda uuid: None

    @property
    def marks(self) -> Mapping[str, Mark]:
        """The marks as they stand."""
        return dict(self._marks)

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call `changed` after each change."""
        self._changed = changed

    def mercy(self, pardon: Callable[[str], bool], forgive: Callable[[str], None]) -> None:
        """Have a device that is to be released let out of quarantine by `pardon`; it says whether it was in
        one, and then no mark is needed. `forgive` is told of each that is to be used again."""
        self._pardon, self._forgive = pardon, forgive

    def set(self, uuid: str, mark: Mark | None) -> None:
        """Mark a device, or with None take its mark away. Raises StokerError, changing nothing, if that
        cannot be kept for the next daemon."""
        if mark == "released" and self._pardon(uuid):
            return
        if mark is None:
            self._forgive(uuid)
        marks = {key: value for key, value in self._marks.items() if key != uuid}
        if mark is not None:
            marks[uuid] = mark
        if marks == self._marks:
            return
        try:
            self._store.write("quarantine", marks)
        except OSError as error:
            raise StokerError(
                f"cannot record the mark of {uuid} in {self._store.directory}: {error.strerror}"
            ) from error
        self._marks = marks
        self._changed()

    def over(self, inventory: Inventory) -> Inventory:
        """The inventory with the marks laid over it."""
        return overlay(inventory, self._marks)

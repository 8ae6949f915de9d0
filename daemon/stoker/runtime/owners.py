"""To which worker a process belongs, by its mark and its ancestors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stoker.decide.pinning import named
from stoker.model.device import Inventory

if TYPE_CHECKING:
    import psutil

MARK = "STOKER_ID"


class Owners:
    """Answers for the workers of one daemon; `instance` is how their marks begin."""

    def __init__(self, instance: str) -> None:
        self._prefix = f"{instance}:"

    def __call__(self, pids: Iterable[int], workers: Mapping[int, str]) -> dict[int, str]:
        """Replica by pid, strangers left out. `workers`: replica by the pid of its main process."""
        found = ((pid, self._owner(pid, workers)) for pid in set(pids))
        return {pid: replica for pid, replica in found if replica}

    def identify(self, inventory: Inventory, workers: Mapping[int, str]) -> Inventory:
        """The inventory with the replica of each process, and with the name of each that has none."""
        shown = {process.pid for device in inventory.devices for process in device.processes}
        if not shown:
            return inventory
        owners = self(shown, workers)
        return named(inventory, owners, {pid: self._name(pid) for pid in shown - owners.keys()})

    def _owner(self, pid: int, workers: Mapping[int, str]) -> str:
        """The replica of that process, "" for none. Double forks keep the mark; one that has put its
        environment aside still has its parents."""
        if pid in workers:
            return workers[pid]
        import psutil  # only where a GPU shows a process that is no worker's main one

        try:
            process = psutil.Process(pid)
            return self._marked(process) or next(
                (workers[parent.pid] for parent in process.parents() if parent.pid in workers), ""
            )
        except (psutil.Error, OSError):
            return ""  # gone, or of a pid namespace that cannot be seen from here

    def _marked(self, process: psutil.Process) -> str:
        mark = _environ(process).get(MARK, "")
        return mark.rpartition(":")[2] if mark.startswith(self._prefix) else ""

    def _name(self, pid: int) -> str:
        return name_of(pid)


def _environ(process: psutil.Process) -> Mapping[str, str]:
    """{} where it cannot be read."""
    import psutil

    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def name_of(pid: int) -> str:
    """What a process calls itself, "" if it cannot be seen from here."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return ""

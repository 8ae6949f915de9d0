"""systemd's service manager on the bus: start, watch, signal and remove units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import anyio
import jeepney

from stoker_systemd.bus import Bus, BusError, plain
from stoker_systemd.units import Property, object_path

NAME = "org.freedesktop.systemd1"
_MANAGER = jeepney.DBusAddress("/org/freedesktop/systemd1", NAME, f"{NAME}.Manager")
_GONE = ("NoSuchUnit", "NoSuchProcess", "UnixProcessIdUnknown", "UnknownObject")
_JOBS = f"type='signal',sender='{NAME}',interface='{NAME}.Manager',member='JobRemoved'"
_CHANGES = (
    f"type='signal',sender='{NAME}',interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',"
    f"path_namespace='/org/freedesktop/systemd1/unit',arg0='{NAME}.Unit'"
)


class Systemd:
    """Talks to it. `on_change` is called with the path of a unit that changed, "" when any may have."""

    def __init__(self, on_change: Callable[[str], None]) -> None:
        self._on_change = on_change
        self._jobs: dict[str, tuple[anyio.Event, list[str]]] = {}
        self._subscribed = False
        self._bus = Bus((_JOBS, _CHANGES), self._signal, self._lost)

    async def start(self, unit: str, properties: Sequence[Property]) -> str:
        """Start a transient unit; returns the result of the job ("done"). Raises BusError, BusLostError."""
        return await self._job(unit, "StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", properties, [])

    async def stop(self, unit: str) -> None:
        """Stop a unit, return when it is stopped. One that is gone is no error."""
        try:
            await self._job(unit, "StopUnit", "ss", unit, "replace")
        except BusError as error:
            _unless_gone(error)

    async def forget(self, unit: str) -> None:
        """Let systemd forget how the unit ended."""
        try:
            await self._call("ResetFailedUnit", "s", unit)
        except BusError as error:
            _unless_gone(error)

    async def signal(self, unit: str, whom: str, signum: int) -> None:
        """Send a signal to the `main` process of a unit, or to `all`. Gone is no error."""
        try:
            await self._call("KillUnit", "ssi", unit, whom, signum)
        except BusError as error:
            _unless_gone(error)

    async def units(self, pattern: str) -> list[str]:
        """The names of the loaded units that match."""
        found = await self._call("ListUnitsByPatterns", "asas", [], [pattern])
        return [unit[0] for unit in found]

    async def processes(self, unit: str) -> list[int]:
        """The pids of all processes of a unit; none if it is gone."""
        try:
            return [pid for _, pid, _ in await self._call("GetUnitProcesses", "s", unit)]
        except BusError as error:
            _unless_gone(error)
            return []

    async def state(self, unit: str) -> dict[str, Any]:
        """What the unit says of itself; {} if it is gone. Raises BusLostError."""
        address = jeepney.DBusAddress(object_path(unit), NAME, "org.freedesktop.DBus.Properties")
        found: dict[str, Any] = {}
        for interface in ("Unit", "Service"):
            try:
                found |= plain(await self._bus.call(address, "GetAll", "s", f"{NAME}.{interface}"))
            except BusError as error:
                _unless_gone(error)
                return {}
        # An object that was not loaded is made for the asking, empty.
        return found if found.get("LoadState") == "loaded" else {}

    async def close(self) -> None:
        """Close the connection."""
        await self._bus.close()

    async def _job(self, unit: str, method: str, signature: str, *body: Any) -> str:
        """Call what makes a job, wait for its end, return its result."""
        over, results = self._jobs.setdefault(unit, (anyio.Event(), []))
        try:
            await self._call(method, signature, *body)
            await over.wait()
            return results[0]
        finally:
            self._jobs.pop(unit, None)

    async def _call(self, method: str, signature: str, *body: Any) -> Any:
        if not self._subscribed:
            self._subscribed = True
            await self._bus.call(_MANAGER, "Subscribe")
        return await self._bus.call(_MANAGER, method, signature, *body)

    def _signal(self, path: str, name: str, body: tuple[Any, ...]) -> None:
        if name == "JobRemoved":
            _, _, unit, result = body
            if unit in self._jobs:
                over, results = self._jobs[unit]
                results.append(result)
                over.set()
        else:
            self._on_change(path)

    def _lost(self) -> None:
        self._subscribed = False
        for over, results in self._jobs.values():
            results.append("lost")
            over.set()
        self._on_change("")


def _unless_gone(error: BusError) -> None:
    if not error.name.endswith(_GONE):
        raise error

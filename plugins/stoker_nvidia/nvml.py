"""Ask NVML for everything the daemon wants to know, as plain JSON values. Runs in the child process only.

Nothing here raises for a sick GPU or driver: an error of the library is the whole answer
(`{"error": 18, "text": ...}`), an error of one GPU is that GPU's entry, and so is a GPU that does not answer
(`{"hangs": 4.2}`). Imports stay few, because this process is to be small.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import pynvml as n

from stoker_nvidia.guard import Guard, HangsError
from stoker_nvidia.kernel_log import KernelLog, place_of

Report = dict[str, Any]

_WHOLE = (
    n.NVML_ERROR_UNINITIALIZED,
    n.NVML_ERROR_DRIVER_NOT_LOADED,
    n.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
)
"""Errors that speak of the driver, not of the device that was asked."""
_FATAL = (*_WHOLE, n.NVML_ERROR_GPU_IS_LOST)
"""Errors that end the reading of a device, whatever was asked. All others mean "does not tell"."""
_SICK = (*_FATAL, n.NVML_ERROR_RESET_REQUIRED, n.NVML_ERROR_NO_PERMISSION, n.NVML_ERROR_UNKNOWN)
"""The same where even the memory cannot be asked."""
_NEARNESS = {
    n.NVML_TOPOLOGY_INTERNAL: 50,
    n.NVML_TOPOLOGY_SINGLE: 40,
    n.NVML_TOPOLOGY_MULTIPLE: 30,
    n.NVML_TOPOLOGY_HOSTBRIDGE: 20,
    n.NVML_TOPOLOGY_NODE: 10,
}
"""Link score by common ancestor on the PCI bus; across sockets it is 0."""
_NVLINK = 100
"""What an NVLink between two GPUs adds to their score."""
_AT_ONCE = 1
"""Milliseconds to wait for an event: only those that have already happened are fetched. 0 is not said to
mean that."""
_MANY = 64
"""Events fetched at a time; the rest comes with the next report."""
_XID = n.nvmlEventTypeXidCriticalError
_ALL = 0xFFFFFFFF
"""In place of the id of an instance: all of them."""
PATIENCE = 2.0
"""Seconds that one GPU may take to answer, if the daemon does not say."""
_LEAST = 4
"""What one GPU takes the others are given less, down to this part of it: if all of them hang, the report must
still come in time."""


class Reader:
    """One open NVML. Opened when first asked, again after the driver went away and came back. What is asked
    of a single GPU is guarded: one that hangs costs its own reading."""

    def __init__(self, log: KernelLog | None = None) -> None:
        self._log = log
        self._open = False
        self._guard = Guard()
        self._uuids: dict[int, str] = {}
        """By index, as they were last told."""
        self._links: tuple[tuple[str, ...], list[tuple[str, str, int]]] = ((), [])
        self._events: Any = None
        self._xids: list[Report] = []
        """Told by the driver and not yet by us."""
        self._watched: dict[int, str] = {}
        self._told: dict[int, str] = {}
        """UUID by handle, also of GPUs that are lost: the last word of one comes after it cannot be asked."""

    def report(self, patience: float = PATIENCE) -> Report:
        """All GPUs as they are now, or why they cannot be seen. Never raises for what NVML answers. A GPU may
        take `patience` seconds."""
        try:
            if not self._open:
                n.nvmlInit()
                self._open = True
            return self._read(patience)
        except n.NVMLError as error:
            self.close()
            return {"error": error.value, "text": str(error)}
        except n.NVMLLibraryMismatchError as error:
            self.close()
            return {"error": n.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "text": str(error)}

    def close(self) -> None:
        """Shut NVML down; a driver that is gone has nothing left to shut down, and one that somebody is still
        waiting for must not lose its footing: the end of this process closes it."""
        if not self._guard.hanging:
            with contextlib.suppress(n.NVMLError):
                n.nvmlShutdown()  # frees the event set too
        self._open = False
        self._events = None
        self._watched, self._told, self._uuids = {}, {}, {}

    def _read(self, patience: float) -> Report:
        handles: dict[str, Any] = {}
        gpus = []
        began = time.monotonic()
        count = n.nvmlDeviceGetCount()
        if self._events is None and count:
            self._events = _ask(n.nvmlEventSetCreate, fatal=_WHOLE)
        for index in range(count):
            left = max(patience / _LEAST, began + patience - time.monotonic())
            entry: Report = {"index": index}
            try:
                found, handle = self._guard.ask(index, partial(self._look_at, index), left)
                entry |= found
                if handle is not None:
                    handles[entry["uuid"]] = handle
                    self._uuids[index] = entry["uuid"]
            except HangsError as error:
                entry |= {"hangs": round(error.seconds, 1), "stuck": error.stuck}
                if index in self._uuids:
                    entry["uuid"] = self._uuids[index]
            gpus.append(entry)
        self._forget_those_away(handles, gpus)
        return {
            "driver": _ask(n.nvmlSystemGetDriverVersion),
            "gpus": gpus,
            "links": self._joints(handles, patience),
            "events": self._news(handles, gpus, patience),
        }

    def _look_at(self, index: int) -> tuple[Report, Any]:
        """One GPU and its handle, None if it cannot be used. Raises NVMLError if the driver cannot."""
        entry: Report = {}
        try:
            handle = n.nvmlDeviceGetHandleByIndex(index)
            entry["uuid"] = n.nvmlDeviceGetUUID(handle)
            entry |= _gpu(handle)
            if self._events is not None and _address(handle) not in self._watched:
                self._watch(entry["uuid"], handle)
        except n.NVMLError as error:
            if error.value in _WHOLE:
                raise
            return entry | {"error": error.value, "text": str(error)}, None
        return entry, handle

    # -- Xids ------------------------------------------------------------------------------------------

    def _watch(self, uuid: str, handle: Any) -> None:
        """Have the driver keep the Xids of a GPU, if it does so for this one."""
        self._told[_address(handle)] = self._watched[_address(handle)] = uuid
        if _ask(lambda: n.nvmlDeviceGetSupportedEventTypes(handle), 0, fatal=()) & _XID:
            _ask(lambda: n.nvmlDeviceRegisterEvents(handle, _XID, self._events), fatal=())

    def _forget_those_away(self, handles: dict[str, Any], gpus: Iterable[Report]) -> None:
        """One that was away is registered anew when it is back; one that hangs is not away."""
        here = {_address(handle) for handle in handles.values()}
        hanging = {gpu.get("uuid") for gpu in gpus if "hangs" in gpu}
        for address, uuid in list(self._watched.items()):
            if address not in here and uuid not in hanging:
                del self._watched[address]

    def _news(self, handles: dict[str, Any], gpus: Iterable[Report], patience: float) -> list[Report]:
        """The Xids since the last report; of a GPU only those after it was first seen.

        The driver queues them, so asking at each report is enough: no thread, no wake-up between reports.
        """
        with contextlib.suppress(HangsError):
            self._guard.ask("events", self._fetch, patience / _LEAST)
        found, self._xids = self._xids, []
        return self._with_culprits(found, gpus) if found else found

    def _fetch(self) -> None:
        """Take the driver's queue over. What comes late is told with the next report."""
        for _ in range(_MANY):
            event = None
            if self._events is not None:
                event = _ask(lambda: n.nvmlEventSetWait_v2(self._events, _AT_ONCE), fatal=_WHOLE)
            if event is None:
                return
            whose = self._told.get(_address(event.device))
            if whose is not None and event.eventType == _XID:
                part = [None if i == _ALL else i for i in (event.gpuInstanceId, event.computeInstanceId)]
                self._xids.append({"uuid": whose, "xid": event.eventData, "part": part})

    def _with_culprits(self, events: list[Report], gpus: Iterable[Report]) -> list[Report]:
        """The events with the pids that the kernel log names."""
        named = self._log.culprits() if self._log is not None else {}
        places = {gpu["uuid"]: gpu["bus_id"] for gpu in gpus if gpu.get("bus_id")}
        for event in events:
            bus_id = places.get(event["uuid"])
            event["pid"] = named.get((place_of(bus_id), event["xid"])) if named and bus_id else None
        return events

    # -- links -----------------------------------------------------------------------------------------

    def _joints(self, handles: dict[str, Any], patience: float) -> list[tuple[str, str, int]]:
        """The link score of each pair. Asked once per set of GPUs: it is the board that decides."""
        key = tuple(handles)
        if key != self._links[0]:
            pairs = [(a, b) for i, a in enumerate(key) for b in key[i + 1 :]]
            ask = lambda: [(a, b, _score(handles[a], handles[b])) for a, b in pairs]  # noqa: E731 - used once
            try:
                self._links = (key, self._guard.ask("links", ask, patience))
            except HangsError:  # those that are known; the others count as far apart until it answers
                return [joint for joint in self._links[1] if {*joint[:2]} <= {*key}]
        return self._links[1]


def _gpu(handle: Any) -> Report:
    """One GPU. Raises NVMLError if it cannot be used."""
    bus_id = _ask(lambda: n.nvmlDeviceGetPciInfo(handle).busId, "")
    found = {"name": _ask(lambda: n.nvmlDeviceGetName(handle), "NVIDIA GPU"), "bus_id": bus_id}
    found |= {"numa_node": _numa_node(bus_id, handle), **_use(handle), "vitals": _vitals(handle)}
    if _ask(lambda: n.nvmlDeviceGetMigMode(handle)[0], 0) == n.NVML_DEVICE_MIG_ENABLE:
        found["instances"] = _instances(handle)
    else:
        found["utilization"] = _ask(lambda: n.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
    return found


def _instances(parent: Any) -> list[Report]:
    """The MIG instances of a GPU. Their numbers have holes, and they come and go at any time."""
    found = []
    for index in range(_ask(lambda: n.nvmlDeviceGetMaxMigDeviceCount(parent), 0)):
        handle = _ask(lambda: n.nvmlDeviceGetMigDeviceHandleByIndex(parent, index))  # noqa: B023 - called at once
        uuid = _uuid(handle) if handle is not None else None
        if uuid is not None:
            found.append(
                {"uuid": uuid, "name": _instance_name(handle), "part": _part(handle), **_use(handle)}
            )
    return found


def _vitals(handle: Any) -> Report:
    """What the GPU says of its own state; null where it does not tell. Raises NVMLError if it is lost."""
    rows = _ask(lambda: n.nvmlDeviceGetRemappedRows(handle))
    pages = None if rows else _ask(lambda: n.nvmlDeviceGetRetiredPagesPendingStatus(handle))
    return {
        "recovery": _field(handle, n.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION),
        "ecc": _ask(
            lambda: n.nvmlDeviceGetTotalEccErrors(
                handle, n.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, n.NVML_VOLATILE_ECC
            )
        ),
        "rows_pending": bool(rows and rows[2]),
        "rows_failed": bool(rows and rows[3]),
        "pages_pending": bool(pages),
    }


def _field(handle: Any, name: int) -> int | None:
    """One of the values that are asked by number; each has an error code of its own."""
    values = _ask(lambda: n.nvmlDeviceGetFieldValues(handle, [name]))
    if not values or values[0].nvmlReturn != n.NVML_SUCCESS:
        return None
    return int(values[0].value.uiVal)


def _part(handle: Any) -> list[int | None]:
    """By which numbers an Xid names an instance."""
    ids = (n.nvmlDeviceGetGpuInstanceId, n.nvmlDeviceGetComputeInstanceId)
    return [_ask(lambda: ask(handle)) for ask in ids]  # noqa: B023 - called at once


def _address(handle: Any) -> int:
    """Handles are pointers; one GPU has the same for as long as NVML is open."""
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


def _uuid(handle: Any) -> str | None:
    uuid: str | None = _ask(lambda: n.nvmlDeviceGetUUID(handle))
    return uuid


def _instance_name(handle: Any) -> str:
    """The name ends in the profile ("... MIG 1g.5gb"); drivers that leave it out have told its parts."""
    name: str = _ask(lambda: n.nvmlDeviceGetName(handle), "NVIDIA GPU")
    if " MIG " in name:
        return name
    parts = _ask(lambda: n.nvmlDeviceGetAttributes_v2(handle))
    profile = f"{parts.gpuInstanceSliceCount}g.{round(parts.memorySizeMB / 1024)}gb" if parts else "instance"
    return f"{name} MIG {profile}"


def _use(handle: Any) -> Report:
    """Memory and processes. Raises NVMLError if the device cannot be used."""
    memory = _ask(lambda: n.nvmlDeviceGetMemoryInfo(handle, n.nvmlMemory_v2), fatal=_SICK)
    if memory is None:  # an old driver; its `used` includes what the driver keeps for itself
        memory = _ask(lambda: n.nvmlDeviceGetMemoryInfo(handle), fatal=_SICK)
    processes: dict[int, int | None] = {}
    for kind in ("Compute", "Graphics"):
        for process in _processes(handle, kind):
            known = processes.get(process.pid)
            used = process.usedGpuMemory
            processes[process.pid] = used if known is None else max(known, used or 0)
    return {
        "memory_total": memory.total if memory else 0,
        "memory_used": memory.used if memory else 0,
        "processes": sorted(processes.items()),
    }


def _processes(handle: Any, kind: str) -> list[Any]:
    """Processes of one kind. Old drivers lack the newest call; that error is no NVMLError."""
    for version in ("_v3", "_v2"):
        ask = getattr(n, f"nvmlDeviceGet{kind}RunningProcesses{version}", None)
        if ask is not None:
            found = _ask(lambda: ask(handle))  # noqa: B023 - called at once
            if found is not None:
                return list(found)
    return []


def _score(one: Any, other: Any) -> int:
    """How close two GPUs are. Whatever cannot be asked counts as far apart."""
    level = _ask(lambda: n.nvmlDeviceGetTopologyCommonAncestor(one, other), fatal=())
    status = _ask(lambda: n.nvmlDeviceGetP2PStatus(one, other, n.NVML_P2P_CAPS_INDEX_NVLINK), fatal=())
    return _NEARNESS.get(level, 0) + (_NVLINK if status == n.NVML_P2P_STATUS_OK else 0)


def _numa_node(bus_id: str, handle: Any) -> int | None:
    """The kernel's answer, or where it has none (-1, as in virtual machines) that of the driver."""
    domain, _, rest = bus_id.lower().partition(":")
    try:
        with open(f"/sys/bus/pci/devices/{domain[-4:]}:{rest}/numa_node") as file:
            node = int(file.read())
    except (OSError, ValueError):
        node = -1
    if node >= 0:
        return node
    near = _ask(lambda: n.nvmlDeviceGetMemoryAffinity(handle, 1, n.NVML_AFFINITY_SCOPE_NODE))
    return int(near[0]).bit_length() - 1 if near and near[0] else None


def _ask(call: Any, default: Any = None, *, fatal: tuple[int, ...] = _FATAL) -> Any:
    """The answer, or `default` where this GPU or driver does not tell. Raises NVMLError if it is `fatal`."""
    try:
        return call()
    except n.NVMLError as error:
        if error.value in fatal:
            raise
        return default
    except n.NVMLLibraryMismatchError:
        return default

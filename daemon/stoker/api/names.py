"""How people name things: `infer` or `rag/infer`, `infer-k3x9`, a device by the start of its UUID. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from stoker.api.facade import Snapshot
from stoker.errors import ConflictError, NotFoundError
from stoker.model.replica import Replica
from stoker.model.service import ServiceKey


def service_keys(snapshot: Snapshot) -> list[ServiceKey]:
    """Every known service: those that are wanted, then those of which something is still left."""
    leftover = sorted(
        {r.service for r in snapshot.observed.replicas.values()} - set(snapshot.desired.services)
    )
    return [*snapshot.desired.services, *leftover]


def resolve_service(snapshot: Snapshot, name: str) -> ServiceKey:
    """The key of the service that `name` means.

    Raises NotFoundError naming the nearest one, ConflictError naming all candidates.
    """
    keys = service_keys(snapshot)
    if name in keys:
        return name
    found = [key for key in keys if key.partition("/")[2] == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConflictError(f"{name!r} is in several deployments; write one of {', '.join(found)}")
    raise NotFoundError(f"no service named {name!r}; {nearest(name, _spellings(keys), 'services')}")


def resolve_replica(snapshot: Snapshot, name: str) -> Replica:
    """The living replica of that id. Raises NotFoundError naming the nearest one."""
    replica = snapshot.observed.replicas.get(name)
    if replica is None:
        hint = nearest(name, snapshot.observed.replicas, "replicas")
        raise NotFoundError(f"no replica named {name!r}; {hint}")
    return replica


def resolve_device(snapshot: Snapshot, name: str) -> str:
    """The UUID of the device that `name` means: a UUID, the beginning of one, or an index. One that is marked
    is known though it is away. A GPU that is cut into MIG instances stands for all of them.

    Raises NotFoundError naming the nearest one, ConflictError naming all candidates.
    """
    devices = snapshot.observed.inventory.devices
    parents = dict.fromkeys(device.parent for device in devices if device.parent)
    known = list(dict.fromkeys([*(device.uuid for device in devices), *parents, *snapshot.marks]))
    if name in known:
        return name
    if name.isdecimal():
        named = [device.parent or device.uuid for device in devices if device.index == int(name)]
        found = list(dict.fromkeys(named))
    else:
        found = [uuid for uuid in known if uuid.lower().startswith(name.lower())]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConflictError(f"{name!r} means several devices; write one of {', '.join(found)}")
    if name.isdecimal() and devices:
        indices = ", ".join(str(index) for index in sorted({device.index for device in devices}))
        raise NotFoundError(f"no GPU {name} on this box; there are: {indices}")
    raise NotFoundError(f"no device {name!r}; {nearest(name, known, 'devices')}")


def nearest(name: str, known: Iterable[str], what: str) -> str:
    """The second half of a "no such ..." message: the nearest name, else a few of those there are."""
    names = list(known)
    if close := difflib.get_close_matches(name, names, 1):
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"there are: {shown}" if names else f"there are no {what}"


def _spellings(keys: list[ServiceKey]) -> list[str]:
    """The short name where it is enough, so that the hint can be typed as it stands."""
    short = [key.partition("/")[2] for key in keys]
    return [name if short.count(name) == 1 else key for name, key in zip(short, keys, strict=True)]

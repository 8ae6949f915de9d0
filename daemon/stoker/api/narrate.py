"""Events in words and as JSON: one sentence for people, one flat object for programs. Pure."""

from __future__ import annotations

import math
import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from functools import singledispatch
from typing import Any

from stoker.model import event as facts
from stoker.model.device import Inventory, called
from stoker.model.event import Event
from stoker.model.quantity import format_duration
from stoker.model.replica import ExitStatus

_COMMON = {"at", "wall", "id", "cause"}
_UUID = re.compile(r"\b((?:GPU|MIG)-[0-9a-f]{8})(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


def event_document(event: Event) -> dict[str, Any]:
    """One event as JSON data. `type` is its name in the past tense, `message` the sentence for people."""
    if isinstance(event, facts.Recorded):
        return dict(event.document)
    return {
        "id": event.id,
        "time": iso_time(event.wall),
        "at": round(event.at, 6),
        "type": type(event).__name__,
        "severity": severity(event),
        "subject": event.subject,
        "service": event.service_key,
        "replica": getattr(event, "replica", ""),
        "cause": event.cause,
        "message": sentence(event),
        "fields": {
            field.name: plain(getattr(event, field.name))
            for field in fields(event)
            if field.name not in _COMMON
        },
    }


def iso_time(wall: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def severity(event: Event) -> str:
    """`info`, `warning` or `error`."""
    if isinstance(event, facts.Recorded):
        return str(event.document.get("severity", "info"))
    if isinstance(event, facts.Notice):
        return event.severity
    if isinstance(event, facts.SpawnFailed | facts.ConfigRejected | facts.RevisionRejected):
        return "error"
    failed = isinstance(event, facts.WorkerExited) and not _orderly(event.status)
    if isinstance(event, facts.DeviceHealthChanged):
        return "info" if event.health in {"healthy", "probation"} else "error"
    warned = facts.WorkerCondemned | facts.LivenessFailed | facts.ReplicaBecameUnready
    warned |= facts.KillSignalled | facts.WorkerLost
    return "warning" if failed or isinstance(event, warned) else "info"


def _orderly(status: ExitStatus) -> bool:
    """Whether a worker ended as one does that was asked to."""
    return status.signal in {None, signal.SIGTERM} and status.code in {None, 0, 128 + signal.SIGTERM}


def plain(value: Any) -> Any:
    """Frozen values as JSON data (no NaN, no infinity); of an inventory only uuid and health."""
    if isinstance(value, Inventory):
        devices = [{"uuid": device.uuid, "health": device.health} for device in value.devices]
        return {"state": value.state, "reason": value.reason, "devices": devices}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list | frozenset | set):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


@singledispatch
def _clause(event: Event) -> str:
    """What happened, without the subject. Facts of a kind that is not known here get their type's name."""
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in type(event).__name__).strip()
    return words + _because(str(getattr(event, "reason", "")))


def sentence(event: Event) -> str:
    """One line for people: subject first, then what happened and why. Of a GPU's UUID it has the beginning,
    which every command takes for the whole; the event's fields have all of it."""
    if isinstance(event, facts.Recorded):
        return str(event.document.get("message", ""))
    subject, clause = event.subject, _clause(event)
    if isinstance(event, facts.Notice) and re.search(rf"\b{re.escape(subject.rpartition('/')[2])}\b", clause):
        subject = ""  # the notice names its service itself
    return _UUID.sub(r"\1", f"{subject} {clause}" if subject else clause)


@_clause.register
def _(event: facts.ReplicaAdded) -> str:
    return f"added{_because(event.reason)}"


@_clause.register
def _(event: facts.ReplicaHeld) -> str:
    return event.reason if event.reason.startswith("waits") else f"waits{_because(event.reason)}"


@_clause.register
def _(event: facts.StartRequested) -> str:
    devices = ", ".join(_share(r.uuid, r.share) for r in event.reservations)
    return "is to start" + (f" on {devices}" if devices else "") + _because(event.reason)


def _share(uuid: str, share: float) -> str:
    return uuid if share >= 1 else f"{share:g} of {uuid}"


@_clause.register
def _(event: facts.WorkerSpawned) -> str:
    return f"started as pid {event.handle.pid}" + (f" at {event.endpoint}" if event.endpoint else "")


@_clause.register
def _(event: facts.SpawnFailed) -> str:
    return f"could not be started: {event.error}"


@_clause.register
def _(event: facts.WorkerAdopted) -> str:
    return f"taken over from the daemon before, pid {event.handle.pid}" + (", ready" if event.ready else "")


@_clause.register
def _(event: facts.ReplicaBecameReady) -> str:
    return f"ready{_because(event.reason)}"


@_clause.register
def _(event: facts.ReplicaBecameUnready) -> str:
    return f"not ready any more{_because(event.reason)}"


@_clause.register
def _(event: facts.LivenessFailed) -> str:
    return f"has to be replaced{_because(event.reason)}"


@_clause.register
def _(event: facts.WorkerCondemned) -> str:
    return f"has to be replaced{_because(event.reason)}"


@_clause.register
def _(event: facts.DrainRequested) -> str:
    return f"draining{_because(event.reason)}"


@_clause.register
def _(event: facts.ReplicaMoving) -> str:
    return f"moves to another GPU{_because(event.reason)}"


@_clause.register
def _(event: facts.ReplicaResumed) -> str:
    return f"back in service{_because(event.reason)}"


@_clause.register
def _(event: facts.ReplicaDrained) -> str:
    return "drained: nothing in flight"


@_clause.register
def _(event: facts.StopSignalled) -> str:
    return f"told to stop{_because(event.reason)}"


@_clause.register
def _(event: facts.KillSignalled) -> str:
    return f"killed with its whole process tree{_because(event.reason)}"


@_clause.register
def _(event: facts.WorkerExited) -> str:
    return f"exited: {event.status}"


@_clause.register
def _(event: facts.WorkerLost) -> str:
    return f"lost{_because(event.reason)}"


@_clause.register
def _(event: facts.ReplicaForgotten) -> str:
    return f"gone{_because(event.reason)}"


@_clause.register
def _(event: facts.RevisionAccepted) -> str:
    return f"revision {event.revision} has proved itself"


@_clause.register
def _(event: facts.RevisionRejected) -> str:
    return rejection_words(event.revision, event.back_on, event.reason)


def rejection_words(revision: str, back_on: str, reason: str) -> str:
    """That an update was taken back, and until when."""
    until = f"back on {back_on} until the file changes or `stoker restart`"
    return f"revision {revision} did not get ready: {reason}; {until}"


@_clause.register
def _(event: facts.TargetChanged) -> str:
    return f"target {event.before} -> {event.target}{_because(event.decision.reason)}"


@_clause.register
def _(event: facts.ServicePreparing) -> str:
    return event.reason or "has what its workers need"


@_clause.register
def _(event: facts.DemandArrived) -> str:
    return "has a request waiting and no replica"


@_clause.register
def _(event: facts.InventoryChanged) -> str:
    inventory = event.inventory
    text = event.summary or inventory.reason or f"{len(inventory.devices)} devices"
    return text if "device" in text else f"devices: {text}"


@_clause.register
def _(event: facts.DeviceHealthChanged) -> str:
    return f"is {called(event.health)} (was {called(event.before)}){_because(event.reason)}"


@_clause.register
def _(event: facts.ConfigApplied) -> str:
    return f"config generation {event.generation} in force{_because(event.summary)}"


@_clause.register
def _(event: facts.ConfigRejected) -> str:
    more = f" (and {len(event.problems) - 1} more)" if len(event.problems) > 1 else ""
    first = event.problems[0] if event.problems else "no reason given"
    return f"config rejected, the last good one stays in force: {first}{more}"


@_clause.register
def _(event: facts.Notice) -> str:
    return event.message


class Narrator:
    """Tells a stream of events line by line and remembers just enough to say how long things took."""

    def __init__(self) -> None:
        self._spawned: dict[str, float] = {}
        self._stopping: set[str] = set()
        self._devices = ""

    def tell(self, event: Event) -> Iterator[str]:
        """The lines for one event: none for steps that only matter in a replica's story."""
        if isinstance(event, facts.WorkerSpawned):
            self._spawned[event.replica] = event.at
        elif isinstance(event, facts.ReplicaForgotten):
            self._spawned.pop(event.replica, None)
        elif isinstance(event, facts.StopSignalled):
            self._stopping.add(event.replica)
        hung = isinstance(event, facts.StopSignalled) and event.fault == HUNG
        if (isinstance(event, _QUIET) and not hung) or self._told_already(event):
            return
        if isinstance(event, facts.ReplicaBecameReady) and (since := self._spawned.pop(event.replica, None)):
            yield f"{event.replica} ready after {format_duration(event.at - since)}"
        elif isinstance(event, facts.WorkerExited) and event.replica in self._stopping:
            self._stopping.discard(event.replica)
            yield f"{event.replica} stopped" + ("" if _orderly(event.status) else f": {event.status}")
        else:
            yield sentence(event)

    def _told_already(self, event: Event) -> bool:
        """Whether the devices changed in nothing that the line would show."""
        if not isinstance(event, facts.InventoryChanged):
            return False
        before, self._devices = self._devices, sentence(event)
        return before == self._devices


HUNG = "hung-start"
"""The one fault that no event before the stop has told of."""
_QUIET = (
    facts.ReplicaAdded,
    facts.StartRequested,
    facts.ReplicaDrained,
    facts.StopSignalled,
    facts.ReplicaForgotten,
    facts.DemandArrived,
)

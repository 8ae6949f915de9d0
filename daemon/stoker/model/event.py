"""Facts that have happened. The only way state changes: `lifecycle` folds them in.

`at` is monotonic seconds, `wall` seconds since the epoch for people, `cause` the id of the event that
led to the action behind this one (so `stoker story` can print the chain). Ids are given by the journal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stoker.model.device import Health, Inventory, Reservation
from stoker.model.load import Decision
from stoker.model.replica import ExitStatus, WorkerHandle
from stoker.model.service import ServiceKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all facts."""

    at: float = 0.0
    wall: float = 0.0
    id: str = ""
    cause: str = ""

    @property
    def subject(self) -> str:
        """What it is about: a replica id, a service key, a device UUID, or ""."""
        for name in ("replica", "service", "device"):
            value = getattr(self, name, "")
            if isinstance(value, str) and value:
                return value
        return ""

    @property
    def service_key(self) -> str:
        """The service it belongs to, "" if none."""
        value = getattr(self, "service", "")
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaEvent(Event):
    """A fact about one replica."""

    replica: str
    service: ServiceKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaAdded(ReplicaEvent):
    """One more replica is wanted; it is pending."""

    revision: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaHeld(ReplicaEvent):
    """A pending replica cannot start now, and why."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequested(ReplicaEvent):
    """A start was decided: the devices are taken from now on."""

    reservations: tuple[Reservation, ...] = ()
    revision: str = ""
    reason: str = ""
    devices_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpawned(ReplicaEvent):
    """The worker process exists."""

    handle: WorkerHandle
    endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnFailed(ReplicaEvent):
    """The worker could not be started at all."""

    error: str
    permanent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerAdopted(ReplicaEvent):
    """A live worker of an earlier daemon was found and taken over."""

    handle: WorkerHandle
    endpoint: str
    revision: str
    reservations: tuple[Reservation, ...] = ()
    restarts: int = 0
    ready: bool = False
    created: float = 0.0
    devices_reason: str = ""
    depends: tuple[ServiceKey, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaBecameReady(ReplicaEvent):
    """Its probe (or its word by sd_notify) says it can serve."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaBecameUnready(ReplicaEvent):
    """It failed its readiness probe; no new requests until it passes again."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LivenessFailed(ReplicaEvent):
    """It failed its liveness probe; it will be stopped and started again."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCondemned(ReplicaEvent):
    """Its worker must be replaced, for what it does to a device or a device to it. `fault` is the word for
    that (device-fault, memory, astray); `gently`: what is in flight on it may finish first."""

    reason: str
    fault: str
    gently: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainRequested(ReplicaEvent):
    """It gets no new requests from now on."""

    reason: str
    leave: bool = True
    """False: a new worker takes its place under the same id (liveness, hung start)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaMoving(ReplicaEvent):
    """Its devices are wanted whole: it leaves them as soon as another one serves in its place. `devices` are
    all that are to be free in the end."""

    reason: str = ""
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaResumed(ReplicaEvent):
    """Its drain was called off: it gets requests again."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaDrained(ReplicaEvent):
    """The router says: nothing in flight on it any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSignalled(ReplicaEvent):
    """The stop signal was sent to its worker. `fault`: the word for the failure behind it, "" for none."""

    reason: str = ""
    leave: bool = True
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KillSignalled(ReplicaEvent):
    """SIGKILL was sent to its whole process tree."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerExited(ReplicaEvent):
    """The worker and its whole process tree are gone."""

    status: ExitStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost(ReplicaEvent):
    """The driver cannot say whether the worker lives."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaForgotten(ReplicaEvent):
    """Nothing is left of it; its record is gone."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionAccepted(Event):
    """A new revision of a service has proved itself; from now on it is the one to go back to."""

    service: ServiceKey
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionRejected(Event):
    """A new revision of a service did not get ready; the service goes back to the last good one."""

    service: ServiceKey
    revision: str
    back_on: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetChanged(Event):
    """The wanted number of replicas of a service changed."""

    service: ServiceKey
    before: int
    target: int
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandArrived(Event):
    """A request waits for a service that has no replica."""

    service: ServiceKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePreparing(Event):
    """What new workers of a service need is being fetched, and `reason` says what; "": it is there."""

    service: ServiceKey
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryChanged(Event):
    """Devices came, went or changed their health."""

    inventory: Inventory = field(repr=False)
    summary: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceHealthChanged(Event):
    """A device is from now on to be used otherwise than before; `device` is its UUID."""

    device: str
    before: Health
    health: Health
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigApplied(Event):
    """A configuration came into force."""

    generation: int
    summary: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigRejected(Event):
    """A configuration was refused; the last good one stays in force."""

    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """Something an operator should know that changes no state: a router restarted, a disk is full."""

    message: str
    severity: str = "info"
    """info, warning or error."""
    service: ServiceKey = ""
    settles: str = ""
    """The message of an earlier notice that is over with this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded(Event):
    """A fact of an earlier daemon's life, as it was told then. `document`: what the API says of it."""

    replica: str = ""
    document: Mapping[str, Any] = field(default_factory=dict, repr=False)

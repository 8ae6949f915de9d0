"""What to do next: imperatives with their reasons. The actuator performs them, nothing else does."""

from __future__ import annotations

from dataclasses import dataclass, fields

from stoker.model.device import Reservation
from stoker.model.service import ServiceKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One step for one replica. `cause` is the id of the event behind it."""

    replica: str
    service: ServiceKey
    reason: str = ""
    cause: str = ""

    def match(self, **expected: object) -> bool:
        """Whether all named fields have these values (for tests)."""
        return all(getattr(self, name) == value for name, value in expected.items())

    def __str__(self) -> str:
        extra = [f"{f.name}={getattr(self, f.name)}" for f in fields(self) if f.name not in _COMMON]
        return " ".join([type(self).__name__, self.replica, *extra, f"({self.reason})"])


_COMMON = {"replica", "service", "reason", "cause"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AddReplica(Action):
    """Record one more wanted replica; it becomes pending."""

    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldReplica(Action):
    """Say why a pending replica does not start (`reason`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartReplica(Action):
    """Take the devices and spawn the worker."""

    revision: str
    reservations: tuple[Reservation, ...] = ()
    devices_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReplica(Action):
    """Take it out of the router. `leave` False: it is to be replaced under the same id."""

    leave: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveReplica(Action):
    """Have another one started elsewhere; when that serves, this one drains and leaves its devices. `devices`
    are all that are to be free in the end: no sharer goes there meanwhile."""

    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeReplica(Action):
    """Take one that drains back into the router: it is wanted again, and it is warm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopReplica(Action):
    """Send the stop signal to its worker. `fault`: the word for the failure that this is the answer to, ""
    if it is none."""

    signal: int = 15
    leave: bool = True
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KillReplica(Action):
    """SIGKILL its whole process tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetReplica(Action):
    """Drop the record of a replica of which nothing is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptRevision(Action):
    """Take a service's new revision as the one to go back to. `replica` is the one that proved it."""

    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectRevision(Action):
    """Go back to the last good revision of a service. `replica` is the one that failed."""

    revision: str
    back_on: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The answer of `reconcile`. `wake_at`: when to ask again though nothing happens (None: never)."""

    actions: tuple[Action, ...] = ()
    wake_at: float | None = None

    @property
    def empty(self) -> bool:
        """Nothing to do now."""
        return not self.actions

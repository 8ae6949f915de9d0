"""One wanted-or-running copy of a service, and the worker behind it."""

from __future__ import annotations

import signal as _signal
from dataclasses import dataclass, field
from typing import Literal

from stoker.model.device import Reservation
from stoker.model.service import Drain, ServiceKey

Phase = Literal["pending", "starting", "ready", "unready", "draining", "stopping", "exited", "lost"]

ALIVE: frozenset[Phase] = frozenset({"starting", "ready", "unready", "draining", "stopping", "lost"})
"""Phases in which a worker exists or may exist: its devices are taken."""
SERVING: frozenset[Phase] = frozenset({"ready"})
"""Phases in which the router may send new requests."""
LEAVING: frozenset[Phase] = frozenset({"draining", "stopping", "exited"})
"""Phases on the way out: these do not count towards the wanted number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerHandle:
    """How a driver finds a worker again, also after the daemon's death. `start_time` in clock ticks since
    boot (`/proc/PID/stat` field 22): with `boot_id` it tells a recycled pid. `extra`: the driver's own."""

    driver: str
    pid: int
    start_time: int = 0
    boot_id: str = ""
    extra: tuple[tuple[str, str], ...] = ()
    endpoint: str = ""
    """`host:port` where it listens if that is not on this box."""
    confined: bool = False
    """Whether the kernel lets it open no other GPU than its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitStatus:
    """How a worker ended. `code` as a shell would give it is None if a signal ended it or it is unknown."""

    code: int | None = None
    signal: int | None = None
    detail: str = ""
    """For people: the last line of its log, "out of memory", ..."""
    oom: bool = False
    """Whether the kernel killed a process of it for want of memory."""

    def __str__(self) -> str:
        """A program that ends by itself says why last; one that is killed was saying something else."""
        joint = ": " if self.signal is None or self.oom else "; last in its log: "
        if self.signal is not None:
            try:
                text = f"killed by {_signal.Signals(self.signal).name}"
            except ValueError:
                text = f"killed by signal {self.signal}"
        else:
            text = "exit code unknown" if self.code is None else f"exit code {self.code}"
        return f"{text}{joint}{self.detail}" if self.detail else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """State of one replica. Changed only by `stoker.decide.lifecycle`; times are monotonic seconds."""

    id: str
    service: ServiceKey
    revision: str
    phase: Phase = "pending"
    reason: str = ""
    since: float = 0.0
    """When it entered its phase."""
    created: float = 0.0
    not_before: float = 0.0
    """A pending replica is not started before this time (restart backoff)."""
    reservations: tuple[Reservation, ...] = ()
    handle: WorkerHandle | None = None
    endpoint: str = ""
    """`host:port` of the worker itself; "" until it was spawned."""
    restarts: int = 0
    failures: int = 0
    """Failures in a row, for the backoff; reset by a stable run."""
    fault: str = ""
    """The word for its last failure: exit, signal, out-of-memory, hung-start, liveness, device-fault,
    memory, astray, spawn-failed, cannot-start (it cannot succeed as things stand); "" if there was none."""
    failure: str = ""
    """That failure in words."""
    started: float = 0.0
    """When its present worker was spawned."""
    drained: bool = False
    """The router has said that nothing is in flight any more."""
    moving: str = ""
    """Why it is to leave its devices once another one serves in its place, "" if it may stay."""
    vacates: tuple[str, ...] = ()
    """The devices that its move is to free, those of others that move with it among them."""
    unfit: bool = False
    """It was not ready when it began to drain, or has not been since: it is not taken back."""
    leave: bool = False
    """Not to be restarted: it is on its way out for good."""
    kill_sent: bool = False
    last_exit: ExitStatus | None = None
    startup_seconds: float | None = None
    """Measured time from spawn to ready of its present worker."""
    ready_at: float | None = None
    """When its present worker was first known to be ready; None: never, so nothing is in flight on it."""
    condemned: str = ""
    """Why its present worker must be replaced (it failed its liveness probe), "" if it need not."""
    condemned_for: str = ""
    """The word for that where it is no liveness probe: device-fault, memory, astray."""
    gently: bool = False
    """A condemned worker may finish what is in flight."""
    drain: Drain = field(default_factory=Drain)
    """How to drain it should its service be gone from the configuration by then."""
    depends: tuple[ServiceKey, ...] = ()
    """The services that its present worker depends on: these are to end after it."""
    devices_reason: str = field(default="")
    """Why these devices, in words."""
    cause: str = ""
    """Id of the event that led to its present phase."""

    @property
    def serving(self) -> bool:
        """Whether the router may send it new requests."""
        return self.phase in SERVING

    @property
    def alive(self) -> bool:
        """Whether a worker exists or may exist."""
        return self.phase in ALIVE

    @property
    def leaving(self) -> bool:
        """Whether it is on its way out."""
        return self.leave or self.phase in LEAVING

"""What the API needs from the daemon: one Protocol, implemented by `stoker.runtime`.

Everything returned is a frozen value or plain JSON data; methods raise `StokerError` for people.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from stoker.decide.health import Mark
from stoker.errors import ConfigProblem
from stoker.model.action import Plan
from stoker.model.event import Event
from stoker.model.load import Decision, LoadWindow, RequestRecord
from stoker.model.node import Node
from stoker.model.service import ServiceKey
from stoker.model.state import DesiredState, ObservedState, RoutingTable
from stoker.model.trace import SpanBatch
from stoker.plugin.manager import PluginRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLoad:
    """Load of one service as status shows it. Times in milliseconds, None where nothing was served."""

    in_flight: int = 0
    queued: int = 0
    rps: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTotals:
    """Counts since the daemon's start, for /metrics. `latency`: completions by upper bound in seconds."""

    codes: Mapping[str, int] = field(default_factory=dict)
    latency: Mapping[float, int] = field(default_factory=dict)
    latency_sum: float = 0.0


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A traced request that stands for those of its length. `at`: its end, seconds since the epoch."""

    trace: str
    seconds: float
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The whole daemon at one moment. `now` is monotonic; `config_state` is in-force or rejected."""

    now: float
    wall: float
    pid: int
    version: str
    started: float
    state_dir: str
    desired: DesiredState
    observed: ObservedState
    routes: RoutingTable
    routed: bool = True
    """Whether they are made already. A daemon that has just begun has none yet."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """url by service key."""
    opening: Sequence[ServiceKey] = ()
    """Services at whose address nothing listens yet, without a reason that was told."""
    revisions: Mapping[str, str] = field(default_factory=dict)
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    windows: Mapping[str, LoadWindow] = field(default_factory=dict)
    loads: Mapping[str, ServiceLoad] = field(default_factory=dict)
    totals: Mapping[str, ServiceTotals] = field(default_factory=dict)
    exemplars: Mapping[str, Sequence[Exemplar]] = field(default_factory=dict)
    nodes: Mapping[str, Sequence[Node]] = field(default_factory=dict)
    """By backend the machines that it finds places on."""
    routers: Mapping[str, str] = field(default_factory=dict)
    """By service the router that has it, and what is to be known of the load that it tells."""
    restarts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """service key -> reason -> count."""
    startups: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Seconds that the last replicas of a service took from the decision to ready, oldest first."""
    config_state: str = "in-force"
    problems: Sequence[ConfigProblem] = ()
    notices: Sequence[str] = ()
    files: Sequence[str] = ()
    listening: Sequence[str] = ()
    """HOST:PORT of each open TCP listener."""
    encrypted: bool = False
    """Whether these speak TLS."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    marks: Mapping[str, Mark] = field(default_factory=dict)
    """What the operator said of devices, by UUID, those that are away included."""
    rejected_total: int = 0
    reconcile_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPreview:
    """What a configuration would do to the box: the same reconcile code, not performed."""

    before: DesiredState
    after: DesiredState
    observed: ObservedState
    plan: Plan
    changed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """service key -> dotted keys whose value differs (only changed services)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPoint:
    """The load of one stretch of time that ends at `at` (monotonic) and is `seconds` long: means."""

    at: float
    seconds: float
    in_flight: float = 0.0
    queued: float = 0.0
    rps: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelPoint:
    """How many replicas are wanted, ready and there from `at` (monotonic) on."""

    at: float
    target: int
    ready: int
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceHistory:
    """What is kept of one service's past, oldest first."""

    load: Sequence[LoadPoint] = ()
    levels: Sequence[LevelPoint] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFile:
    """One replica's log."""

    service: str
    replica: str
    path: str
    alive: bool


class DaemonFacade(Protocol):
    """The daemon as its API sees it."""

    def snapshot(self) -> Snapshot:
        """The present state; cheap, no I/O."""
        ...

    def history(self, since: float = 0.0) -> Mapping[ServiceKey, ServiceHistory]:
        """What is kept of the last hour after that monotonic time; services without news are left out."""
        ...

    async def changed(self, after: int) -> int:
        """Return the count of changes as soon as it is larger than `after`: anything folded or measured."""
        ...

    async def measure(self) -> None:
        """Have the load up to now in the next snapshot; otherwise it may be a second old."""
        ...

    async def listen(self, address: str) -> str:
        """Open the API on TCP at HOST:PORT until the daemon ends, for those who hold its token. Returns the
        address with the port that was given. Raises StokerError."""
        ...

    async def preview(
        self, files: Sequence[str], *, profile: str | None = None, sets: Sequence[str] = ()
    ) -> PlanPreview:
        """Plan against the running state. No files: the ones in force, read again. Raises ConfigError."""
        ...

    async def explain_path(self, path: str) -> Mapping[str, Any]:
        """`{path, value, layers: [{layer, source, value, wins}]}`, highest layer first.

        Raises NotFoundError, and ConfigError where the files have to be read for it and are bad.
        """
        ...

    async def config_document(self) -> Mapping[str, Any]:
        """The configuration in force as a file of its own, per deployment, with the source of each value.

        Raises NotFoundError while none is in force, and ConfigError like `explain_path`.
        """
        ...

    def story(self, replica: str) -> Sequence[Event]:
        """All kept events of a replica (also one that is gone) and the events that caused them, oldest first.
        Raises NotFoundError."""
        ...

    async def last_lines(self, replica: str) -> Sequence[str]:
        """What a replica's workers wrote last, without the secrets of its service; empty if it is unknown."""
        ...

    @property
    def beginning(self) -> str:
        """The id after which the first event of this daemon comes; those before it are of earlier ones."""
        ...

    def recent_events(self, after: str = "") -> Sequence[Event]:
        """Kept events, oldest first; only those after the event of that id."""
        ...

    def events(self, after: str = "") -> AsyncGenerator[Event, None]:
        """Kept events after that id, then new ones as they happen."""
        ...

    def record(self, services: Sequence[ServiceKey]) -> AsyncGenerator[Sequence[RequestRecord], None]:
        """Requests of these services as they end; the first batch, empty, says that it has begun. Raises
        StokerError where the router cannot."""
        ...

    def spans(self) -> AsyncGenerator[SpanBatch, None]:
        """Requests as parts of their callers' traces, as they end; the first batch, empty, says that it has
        begun. Raises StokerError where no router can, or none runs yet."""
        ...

    def logs(self, service: str | None = None) -> Sequence[LogFile]:
        """Log files of a service, a replica or all, oldest first. Raises NotFoundError."""
        ...

    def plugins(self) -> Sequence[PluginRecord]:
        """All plugins that were found."""
        ...

    async def set_override(self, assignments: Mapping[str, Any]) -> None:
        """Set live overrides (dotted path -> value), kept until unset.

        Raises ConfigError, changing nothing.
        """
        ...

    async def unset_override(self, paths: Sequence[str]) -> None:
        """Remove live overrides. Raises NotFoundError for one that is not set."""
        ...

    async def scale(self, service: str, minimum: int, maximum: int) -> None:
        """Override the bounds. Raises NotFoundError, ConfigError."""
        ...

    async def hold(self, service: str, *, held: bool) -> None:
        """Hold at zero (`stoker stop`) or release (`stoker start`). Raises NotFoundError."""
        ...

    async def restart(self, service: str) -> None:
        """Rolling restart by the service's update strategy. Raises NotFoundError."""
        ...

    async def mark_device(self, uuid: str, mark: Mark | None) -> None:
        """Keep new workers from a device (`cordoned`), its present ones too (`released`), or give it back
        (None). Kept over restarts. Raises StokerError if that cannot be recorded."""
        ...

    async def reload(self) -> None:
        """Read the configuration again now. Raises ConfigError (the last good one stays in force)."""
        ...

    async def reexec(self) -> None:
        """Begin to make way for a new daemon in the same process; workers and router go on. Raises
        ConfigError or StokerError, changing nothing, if that one could not begin."""
        ...

    async def down(self) -> None:
        """Begin to drain everything and end the daemon; returns at once."""
        ...

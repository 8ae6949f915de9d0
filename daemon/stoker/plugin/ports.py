"""The typed objects the daemon talks to. Hooks declare factories; these Protocols act.

Every method says when it may be called. All of them run in the daemon's event loop and must not
block it; use anyio only (the simulation runs the same loop on trio's virtual clock).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from stoker.model.device import Inventory
from stoker.model.event import Event
from stoker.model.load import Decision, LoadSample, LoadWindow, PoolState, Reading, RequestRecord, Usage
from stoker.model.node import Node
from stoker.model.replica import ExitStatus, WorkerHandle
from stoker.model.service import PolicySpec, Probe, ServiceKey, ServiceSpec
from stoker.model.state import RoutingTable
from stoker.model.trace import SpanBatch
from stoker.plugin.start import StartRequest as StartRequest  # noqa: PLC0414 - plugins find it here


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginContext:
    """What a factory is given. `instance` marks everything that belongs to this daemon's state directory
    (it survives restarts); `options` are the plugin's own keys of the configuration."""

    instance: str
    state_dir: str
    runtime_dir: str
    environ: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    log: Callable[[str], None] = print


# --- worker drivers ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundWorker:
    """A live worker of an earlier daemon. `mark` is its STOKER_ID."""

    handle: WorkerHandle
    mark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """A worker's answer to a probe; `detail` says what came back, in words."""

    ok: bool
    detail: str = ""


@runtime_checkable
class WorkerDriver(Protocol):
    """Runs workers. `ready()` of the world outside is not its business; process trees are."""

    async def start(self, request: StartRequest) -> WorkerHandle:
        """Spawn the worker in a session of its own and return at once. Raises WorkerError with a message
        for people (command not found, no permission, working directory missing)."""
        ...

    async def wait(self, handle: WorkerHandle) -> ExitStatus:
        """Return when the worker *and every process it left behind* are gone (leftovers of a crashed
        worker are killed first). Called once per handle, right after `start` or `recover`."""
        ...

    async def signal(self, handle: WorkerHandle, signum: int) -> None:
        """Send the stop signal to the worker's main process. A worker that is gone is no error."""
        ...

    async def kill(self, handle: WorkerHandle) -> None:
        """SIGKILL the whole tree, double-forked daemons included. Gone is no error."""
        ...

    async def find(self) -> Sequence[FoundWorker]:
        """All live workers with this instance's mark. Called before the first `start`. Raises WorkerError
        where that cannot be known now (a cluster is away): workers with a record then count as alive, their
        handles are used as they are, and it is called again until it tells."""
        ...

    async def recover(self, found: FoundWorker) -> WorkerHandle:
        """Take a found worker over; afterwards its handle is as good as one from `start`."""
        ...

    async def usage(self, handles: Sequence[WorkerHandle]) -> Mapping[int, Usage]:
        """CPU and memory of each worker's whole tree, by pid; called every few seconds for services whose
        policy needs it. `cpu` is the mean since the previous call."""
        ...

    async def aclose(self) -> None:
        """Release descriptors. Workers keep running."""
        ...


@runtime_checkable
class PreparingDriver(WorkerDriver, Protocol):
    """A driver whose workers need something that takes long to fetch, such as an image."""

    async def prepare(self, spec: ServiceSpec, say: Callable[[str], None]) -> None:
        """Return when it is there. Called when a service's container is new or has changed, and again after a
        start of it has failed; no worker of it starts meanwhile, and `say` tells people why. Raises
        WorkerError: it is tried again."""
        ...


@runtime_checkable
class AskingDriver(WorkerDriver, Protocol):
    """A driver whose workers live where the daemon cannot run a probe's command."""

    async def ask(self, handle: WorkerHandle, argv: Sequence[str]) -> ProbeResult:
        """Run the command of an `exec` probe beside the worker. Never raises for a bad answer."""
        ...


@runtime_checkable
class CheckingDriver(AskingDriver, Protocol):
    """A driver whose workers may bring a check of their own, such as the HEALTHCHECK of an image."""

    def own_check(self, handle: WorkerHandle) -> Probe | None:
        """That check, as a probe by a command. It stands for startup and liveness of a service that declares
        no probe at all."""
        ...


@runtime_checkable
class ExpectantDriver(WorkerDriver, Protocol):
    """A driver that can begin with a birth before it is asked for it."""

    async def expect(self, replica: str) -> None:
        """The worker of that replica has failed and is gone: most likely `start` is called for it at once.
        Returns when it was called, or what was prepared has been given up. Never raises."""
        ...


@runtime_checkable
class RetainingDriver(WorkerDriver, Protocol):
    """A driver that keeps something ready for services beyond the life of their workers."""

    async def retain(self, services: Collection[ServiceKey]) -> None:
        """Of these services workers may be started at any time; what is kept for others can go. Called when a
        configuration has come into force."""
        ...


@runtime_checkable
class ClusterDriver(WorkerDriver, Protocol):
    """A driver that finds a place for its workers on other machines, and can tell which there are."""

    async def nodes(self) -> Sequence[Node]:
        """The machines as they stand, those that are lost included as far as they are known. Raises
        WorkerError while nobody can tell."""
        ...


# --- devices ----------------------------------------------------------------------------------------------


@runtime_checkable
class DeviceSource(Protocol):
    """Tells which devices there are and how they are."""

    async def run(self, publish: Callable[[Inventory], None]) -> None:
        """Publish the inventory first thing, then each change, until cancelled. Never raises for a sick
        driver: that is an `unreachable` inventory with a reason."""
        ...


@runtime_checkable
class RefreshableSource(Protocol):
    """A device source that can also be told to look now. Without it a device of a worker that has ended is
    free as soon as the last inventory shows it so."""

    async def refresh(self) -> None:
        """Return when devices that were looked at after this call have been published (or have not changed).
        May take as long as the driver; the caller sets a limit."""
        ...


@runtime_checkable
class ReleasableSource(Protocol):
    """A device source that holds the driver open, and can let it go so that a device can be reset."""

    async def let_go(self, seconds: float) -> None:
        """Keep the driver closed for so long, publishing `unreachable`; returns when it is closed."""
        ...


# --- router -----------------------------------------------------------------------------------------------


@runtime_checkable
class RouterEvents(Protocol):
    """What a router calls back. All are plain, quick functions."""

    def sample(self, sample: LoadSample) -> None:
        """Load of one service since its previous sample. Nothing is sent for a service at rest, except one
        last sample with zeros after activity."""
        ...

    def demand(self, service: ServiceKey) -> None:
        """A request has arrived for a service without workers; sent at once, at most every 100 ms."""
        ...

    def drained(self, replica: str) -> None:
        """A draining worker has nothing in flight any more."""
        ...

    def bound(self, service: ServiceKey, host: str, port: int) -> None:
        """The service's address is open."""
        ...

    def trouble(self, service: ServiceKey, message: str) -> None:
        """Something the operator must know (address in use, router restarted). service "" is the router."""
        ...


@runtime_checkable
class Router(Protocol):
    """Carries requests to workers, holds them while there are none, measures load."""

    async def run(self, events: RouterEvents) -> None:
        """Start the router's program or find the one that already runs (it outlives the daemon), then
        serve callbacks until cancelled; restart it if it dies. Cancelling leaves the program running."""
        ...

    async def apply(self, table: RoutingTable) -> None:
        """Make the router's table equal to this one. Idempotent; may be called before `run` is up (the last
        table is then applied when it is). Workers not in the table are cut; draining ones finish."""
        ...

    async def stop(self, grace: float) -> None:
        """End the program: finish what is in flight for at most `grace` seconds, then close."""
        ...


@runtime_checkable
class HandingRouter(Router, Protocol):
    """A router that can give an open address to another one, and take one, so that a service changes its
    router while requests come in. Without it the address is closed and opened again."""

    def listening(self, service: ServiceKey) -> int | None:
        """A descriptor of the service's listening socket, the caller's to close; None if there is none."""
        ...

    async def inherit(self, service: ServiceKey, fd: int) -> None:
        """Serve that service at this listening socket once a table asks for its address. Called before that
        table; the descriptor stays the caller's, who closes it afterwards. Raises RouterError."""
        ...


def router_shortfalls(router: Router) -> Mapping[str, str]:
    """What that router cannot do, whatever a service asks for: its attribute `shortfalls`, from points that
    `stoker.plugin.testing.router_points` lists to words that go on from the router's name."""
    found = getattr(router, "shortfalls", {})
    return found if isinstance(found, Mapping) else {}


@runtime_checkable
class DoorRouter(Router, Protocol):
    """A router that also opens the doors of a table. They lead to services that it carries itself, and by
    routes that are `inner` to those of others."""

    opens_doors: bool


@runtime_checkable
class InnerRouter(Router, Protocol):
    """A router to whose services another one's doors can lead."""

    def inside(self, service: ServiceKey) -> str:
        """The endpoint at which it takes requests in HTTP/1.1 for that service from such a door, whose word
        on where they come from it believes. It is for the daemon's user alone, and stays as it is while the
        service has this router. "" if there is none."""
        ...


@runtime_checkable
class SeveralRouter(Router, Protocol):
    """A router of which several can run side by side, each with services of its own and a `runtime_dir` of
    its own, sharing nothing (`box.router_processes`)."""

    several: bool


@runtime_checkable
class MeasuringRouter(Router, Protocol):
    """A router that can be asked for its load, which otherwise comes in its own time."""

    async def measure(self) -> None:
        """Return when the events were given samples of all that has happened until now; without a program
        at once."""
        ...


@runtime_checkable
class RecordingRouter(Router, Protocol):
    """A router that can also tell each request as it ends."""

    def record(self, services: Sequence[ServiceKey]) -> AsyncGenerator[Sequence[RequestRecord], None]:
        """Requests of these services that end from now on, in batches, until it is closed or the router's
        program ends. The first batch, empty, says that it has begun. Of requests that had to be dropped a
        `stoker.model.load.RequestBatch` tells the number. Raises RouterError."""
        ...


@runtime_checkable
class TracingRouter(Router, Protocol):
    """A router that can take part in its callers' traces (W3C trace context)."""

    def spans(self) -> AsyncGenerator[SpanBatch, None]:
        """Requests of all services that end from now on and whose callers sample them, in batches, until it
        is closed or the router's program ends; as long their workers are told the router's span as their
        parent. The first batch, empty, says that it has begun. Raises RouterError."""
        ...


# --- applications -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationStart:
    """What is decided for one replica of an application's service. `urls`: the stable addresses of the
    services it calls or depends on, by name."""

    replica: str
    port: int
    urls: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationCommand:
    """How to start the replica. `environ` comes on top of what every worker has."""

    argv: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)


@runtime_checkable
class Application(Protocol):
    """Projects whose own code says which services they consist of, named by one key of the file (`bento`)."""

    def inspection(self, target: str, python: str) -> Sequence[str]:
        """The command that loads the project `target` in that Python ("" is Stoker's) and prints what its
        services declare, as `stoker.config.sources.project` documents it. Called in a thread whenever the
        configuration is read; runs in the file's directory with a clean environment. Runs nothing itself."""
        ...

    def command(self, spec: ServiceSpec, start: ApplicationStart) -> ApplicationCommand:
        """The command that serves one replica on 127.0.0.1 and the given port until SIGTERM, then finishes
        what it has. Called before each start. Raises WorkerError."""
        ...


# --- policies ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyInput:
    """All a policy may know. `now` is monotonic seconds; `window(seconds)` is the load over that stretch.
    `wall` is seconds since the epoch, in a simulation since its beginning."""

    service: ServiceSpec
    policy: PolicySpec
    window: Callable[[float], LoadWindow]
    pool: PoolState
    now: float
    state: Mapping[str, Any] = field(default_factory=dict)
    wall: float = 0.0
    reading: Reading | None = None
    """The newest answer of a `MeasuringPolicy`."""


@runtime_checkable
class Policy(Protocol):
    """Pure: the same input gives the same answer; no clock, no I/O, so that it also runs in simulations."""

    def decide(self, given: PolicyInput) -> Decision:
        """Return the wanted number before bounds and stabilization, with the reason in numbers."""
        ...


@runtime_checkable
class MeasuringPolicy(Policy, Protocol):
    """A policy that decides on a number from elsewhere. The daemon asks for it every `period` seconds (a
    parameter of the rule, 15 if absent) and passes the newest on as `PolicyInput.reading`."""

    async def measure(self, rule: PolicySpec) -> float:
        """Return the number. May take its time, up to 10 s; raises StokerError with the reason for none."""
        ...


# --- probes and sinks -------------------------------------------------------------------------------------


@runtime_checkable
class Prober(Protocol):
    """Asks workers. The daemon has its own; simulations bring one that obeys a script."""

    async def ask(self, probe: Probe, endpoint: str, handle: WorkerHandle) -> ProbeResult:
        """Put one question, within `probe.timeout` seconds. Never raises for a bad answer."""
        ...


@runtime_checkable
class EventSink(Protocol):
    """Receives every event after it was folded in."""

    async def send(self, event: Event) -> None:
        """May be slow; the daemon queues for it and drops its oldest beyond a bound, saying so."""
        ...


WorkerDriverFactory = Callable[[PluginContext], WorkerDriver]
Shortfalls = Callable[[ServiceSpec], Mapping[str, str]]
"""Pure: the keys of a service, dotted ("probes.startup.notify"), that a driver or router cannot honour as it
is asked to, with words that go on from its name: "has no such thing; use ..."."""
DeviceSourceFactory = Callable[[PluginContext], DeviceSource]
RouterFactory = Callable[[PluginContext], Router]
PolicyFactory = Callable[[PluginContext], Policy]
ApplicationFactory = Callable[[PluginContext], Application]
EventSinkFactory = Callable[[PluginContext], EventSink]

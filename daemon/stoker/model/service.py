"""What the operator asks for: a service and everything that was declared for it. Frozen values.

These are the *checked* nouns: sizes are bytes, durations seconds, cores floats, names resolved.
How they are written in the file is `stoker.config.schema`'s business.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, Literal

from stoker.model.door import LOOPBACK, Door, Tls

ServiceKey = str
"""`deployment/service`, unique on a box."""


@dataclass(frozen=True, slots=True)
class Command:
    """`command:`: argv with its `{port}`-style placeholders not yet filled; empty: what the image says."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PythonTarget:
    """`python: module:attribute`: an ASGI application (object or factory) that Stoker serves itself."""

    target: str


@dataclass(frozen=True, slots=True)
class BentoService:
    """One service of a BentoML project or built bento. `config` is canonical JSON of its configuration in
    BentoML's words: the decorator's values with the file's over them."""

    bento: str
    service: str
    config: str = "{}"
    python: str = ""
    """Interpreter of the bento; "" is Stoker's own."""
    calls: tuple[str, ...] = ()
    """Services of the same bento that it calls, by their stable addresses."""


Pin = Literal["uuid", "index"]
"""How a worker is told its devices."""

Launch = Command | PythonTarget | BentoService


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one replica needs. `gpu` counts devices; below 1 it is a share of one. Sizes in bytes."""

    gpu: float = 0.0
    gpu_type: str | None = None
    gpu_memory: int | None = None
    cpu: float | None = None
    memory: int | None = None
    devices: tuple[str, ...] = ()
    """Devices the replicas are confined to, by index, UUID or its beginning; empty means any."""
    exclude: tuple[str, ...] = ()
    """Devices that they are never given, named likewise."""
    or_better: bool = False
    """A GPU that can do all that `gpu_type` can is as welcome."""
    spread: bool = False
    """Replicas that share GPUs go to different ones."""
    numa: Literal["local", "any"] = "local"
    """Whether a worker runs on the cores, and with the memory, of its GPUs' NUMA node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySpec:
    """One scaling rule. `target` is in the metric's own unit (requests in flight, 0..1, ...)."""

    metric: str = "concurrency"
    target: float | None = None
    scale_up_stabilization_window: float = 0.0
    scale_down_stabilization_window: float = 60.0
    params: tuple[tuple[str, str | float | bool], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Bounds and rules; of several policies the largest target wins."""

    min_replicas: int = 1
    max_replicas: int = 1
    policies: tuple[PolicySpec, ...] = (PolicySpec(),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """How the router treats the service. `concurrency` is the number of requests one replica gets at a
    time (None: no limit), `timeout` seconds for a whole answer, `max_queue` requests that may wait."""

    concurrency: int | None = None
    timeout: float = 60.0
    max_queue: int = 1000
    max_concurrency: int | None = None
    protocol: str = "http"
    retry: Literal["idempotent", "always", "never"] = "idempotent"
    max_body: int | None = None
    """Bytes; a larger request is refused."""
    priority_header: str | None = None
    """The field by which a request says that it is to be served before others."""
    timeout_header: str | None = None
    """The field by which a request says how many seconds it is worth waiting for."""
    access_log: float = 0.0
    """The part of all requests that is written to the access log: 0 none, 1 all."""
    trace: Literal["pass", "start"] = "pass"
    """Whether a request without a W3C trace context is given one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One question to a worker. Exactly one of the four ways is set; times in seconds."""

    http: str | None = None
    tcp: bool = False
    exec: tuple[str, ...] = ()
    notify: bool = False
    period: float = 1.0
    timeout: float = 1.0
    failures: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """`startup.timeout` is how long a replica may take to get ready; its probe is asked every 50 ms to
    `period`. None for startup: ready when its port answers if the launch uses one, else at once."""

    startup: Probe | None = None
    readiness: Probe | None = None
    liveness: Probe | None = None
    startup_timeout: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """How a new revision replaces the old one, in replicas. What the file says in percent is in the shares:
    of the number that is wanted at each step. The counts are then what that is at `max_replicas`."""

    strategy: Literal["RollingUpdate", "Recreate", "RampedSlowRollout", "BestEffortControlledRollout"] = (
        "RollingUpdate"
    )
    max_surge: int = 1
    max_unavailable: int = 0
    surge_share: int | None = None
    """Percent; None: the count as it stands."""
    unavailable_share: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """`timeout`: seconds in-flight requests get to finish; then `signal`; `grace` seconds later SIGKILL."""

    timeout: float = 30.0
    signal: int = 15
    grace: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """`backoff` doubles up to `max_backoff` seconds; after `crash_loop` failures in a row it is said so."""

    backoff: float = 1.0
    max_backoff: float = 60.0
    crash_loop: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that the kernel holds; None: no bound of Stoker's. `nofile` is of each process; `pids`
    (processes and threads), `memory` (bytes, without swap) and `cpu` (cores) are of a worker's whole
    process tree."""

    nofile: int | None = None
    pids: int | None = None
    memory: int | None = None
    cpu: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """How a worker in a container is joined to the box. `image` "": the box's own files, read-only but for
    the working directory. `port`: where it listens inside a network of its own (None: where it is told to);
    `mounts` are SOURCE:TARGET[:ro] with absolute paths."""

    image: str = ""
    network: Literal["host", "bridge"] = "host"
    port: int | None = None
    mounts: tuple[str, ...] = ()
    pull: Literal["missing", "always", "never"] = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """What one replica needs where its driver finds a place for it: of a cluster, not of this box."""

    resources: Resources = field(default_factory=Resources)
    custom: tuple[tuple[str, float], ...] = ()
    """Resources by the cluster's own names."""
    strategy: Literal["DEFAULT", "SPREAD"] = "DEFAULT"
    accelerator: str | None = None
    runtime_env: str = ""
    """Canonical JSON of what the node is to prepare, in the cluster's words; "" for nothing."""
    options: tuple[tuple[str, str], ...] = ()
    """What else is asked of the cluster, by its own names; "" for one that takes no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRules:
    """How much of each replica's output is kept: the newest `max_size` bytes at least, and up to `keep` older
    parts of that size."""

    max_size: int = 64 * 1024 * 1024
    keep: int = 4
    journal: bool = True
    """Whether the journal may have it too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The service's stable address; port 0 means chosen once and kept."""

    host: str = "127.0.0.1"
    port: int = 0
    tls: Tls | None = None
    proxy_protocol: bool = False
    """Connections begin with a PROXY header (v1 or v2), which says who the client is."""
    trusted_proxies: tuple[str, ...] = LOOPBACK
    """Networks whose word on where a request comes from is believed."""


class _Remembering:
    """Where `revision` keeps its answer: beside the fields of a spec, no part of its value."""

    __slots__ = ("_revision",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec(_Remembering):
    """Everything declared for one service, after all layers."""

    deployment: str
    name: str
    launch: Launch
    working_dir: str
    resources: Resources = field(default_factory=Resources)
    instance_type: str | None = None
    scaling: Scaling = field(default_factory=Scaling)
    traffic: Traffic = field(default_factory=Traffic)
    probes: Probes = field(default_factory=Probes)
    update: Update = field(default_factory=Update)
    drain: Drain = field(default_factory=Drain)
    restart: Restart = field(default_factory=Restart)
    limits: Limits = field(default_factory=Limits)
    container: Container = field(default_factory=Container)
    elsewhere: Elsewhere | None = None
    """None: on this box. Else `resources` is empty, since it takes nothing of it."""
    endpoint: Endpoint = field(default_factory=Endpoint)
    listen: Literal["port", "unix"] = "port"
    """Where a worker listens: on a port that it is told, or on a unix socket at a path that it is told."""
    logs: LogRules = field(default_factory=LogRules)
    envs: tuple[tuple[str, str], ...] = ()
    """Declared variables, sorted by name, `${VAR}` already filled."""
    secrets: tuple[str, ...] = ()
    """Names of secrets handed over as environment variables; never their values."""
    secret_versions: tuple[tuple[str, int], ...] = ()
    """How often each secret has changed since it was first seen; those that never did are left out."""
    inherit_env: tuple[str, ...] = ()
    depends: tuple[str, ...] = ()
    """Names of services of the same deployment."""
    pin: Pin = "uuid"
    strict_pinning: bool = False
    """A worker that is seen on a device that is not its own is stopped, not only told of."""
    priority: int = 0
    preempt: bool = False
    """A replica that finds no devices takes those of services with a lower priority."""
    standby: int = 0
    preload: tuple[str, ...] = ()
    slo_wait: float | None = None
    user: str | None = None
    group: str | None = None
    umask: int | None = None
    """None: 0o022."""
    backend: str = "process"
    held: bool = False
    """`stoker stop`: kept at zero replicas, whatever the bounds and the load."""
    restart_token: str = ""
    """Changes with every `stoker restart`, so that the revision does."""

    @property
    def key(self) -> ServiceKey:
        """`deployment/name`."""
        return f"{self.deployment}/{self.name}"

    @property
    def placeholders(self) -> str:
        """All text in which placeholders may stand."""
        plain = isinstance(self.launch, Command) and self.launch.argv
        return " ".join(plain) if plain else self.place

    @property
    def place(self) -> str:
        """The placeholder by which a command is told where to listen."""
        return "{socket}" if self.listen == "unix" else "{port}"

    @property
    def told_where(self) -> bool:
        """Whether its command is told where to listen."""
        return self.place in self.placeholders

    @property
    def slots(self) -> int | None:
        """Requests one replica gets at a time; None is no limit."""
        return self.traffic.concurrency


REVISION_FIELDS = (
    "launch", "working_dir", "resources", "limits", "envs", "secrets", "inherit_env", "user", "backend",
    "preload", "depends", "restart_token", "group", "umask", "secret_versions", "pin", "container",
    "elsewhere", "listen",
)  # fmt: skip
"""The parts of a spec whose change needs new workers. Bounds, policies, probes, traffic do not."""


def revision(spec: ServiceSpec) -> str:
    """Return the hash of the parts of `spec` whose change needs new workers: 8 hex digits. Pure.

    Remembered in the spec itself, since every plan asks it of every service.
    """
    known: str | None = getattr(spec, "_revision", None)
    if known is None:
        known = _hash(spec)
        object.__setattr__(spec, "_revision", known)
    return known


def _hash(spec: ServiceSpec) -> str:
    parts = {name: _plain(getattr(spec, name)) for name in REVISION_FIELDS}
    parts["launch"]["kind"] = type(spec.launch).__name__
    parts["notify"] = spec.probes.startup is not None and spec.probes.startup.notify
    for name in ("exclude", "or_better", "spread"):
        # A wish for the place of later replicas, or none at all: those that run need not be replaced for it.
        if name != "exclude" or not parts["resources"][name]:
            del parts["resources"][name]
    if parts["resources"]["numa"] == "local":
        del parts["resources"]["numa"]
    if spec.container == Container():
        del parts["container"]
    if spec.elsewhere is None:
        del parts["elsewhere"]
    elif not spec.elsewhere.options:
        del parts["elsewhere"]["options"]
    if spec.listen == "port":
        del parts["listen"]
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxSpec:
    """What the file says of the whole box."""

    idle: Literal["fill", "release"] = "release"
    router: str = "stoker"
    router_processes: int = 1
    """Among how many processes of it the services are spread, where it can have several."""
    cpu: float | None = None
    """Cores to share out; None: those that there are."""
    memory: int | None = None
    """Bytes to share out; None: those that there are."""
    ray: str = "auto"
    """The address of the Ray cluster."""
    journal: Literal["auto", "always", "never"] = "auto"
    """Whether workers' output goes to the systemd journal too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """The configuration in force, as values: what should be true of the box."""

    services: Mapping[ServiceKey, ServiceSpec] = field(default_factory=dict)
    box: BoxSpec = field(default_factory=BoxSpec)
    generation: int = 0
    doors: tuple[Door, ...] = ()

    def dependencies(self, spec: ServiceSpec) -> tuple[ServiceSpec, ...]:
        """The specs that `spec` depends on, in its own order."""
        return tuple(self.services[f"{spec.deployment}/{name}"] for name in spec.depends)

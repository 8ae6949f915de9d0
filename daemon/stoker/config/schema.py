"""The file, key by key. The docstring under a key is its documentation: `stoker schema` prints it.

Models check types and bounds of single keys; what keys mean together is checked where the values are
built (`build`, `launch`, `cross`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from stoker.config.container import ContainerSection, ImageName
from stoker.config.fields import (
    CORES,
    SECONDS,
    SECONDS_ABOVE_ZERO,
    SIZE,
    Argv,
    CountOrPercent,
    Devices,
    EnvFile,
    Flag,
    Number,
    Signal,
    Text,
    Umask,
    Url,
    Variable,
    Whole,
    plain,
)
from stoker.config.ray import RayFileSection, RayServiceSection
from stoker.config.schema_traffic import EndpointSection, IngressSection, TrafficSection
from stoker.config.section import Section
from stoker.config.slurm import SlurmSection
from stoker.config.times import Cron, Timezone

ENV_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
SERVICE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
PYTHON_TARGET = r"[A-Za-z_]\w*(?:\.\w+)*:[A-Za-z_]\w*(?:\.\w+)*"
DEPLOYMENT_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"


def _drop_null_values(data: Any) -> Any:
    return {k: v for k, v in data.items() if v is not None} if isinstance(data, dict) else data


def _index_as_text(data: Any) -> Any:
    value = plain(data)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else data


def _as_list(data: Any) -> Any:
    return [data] if isinstance(data, dict) else data


EnvName = Annotated[str, Text("the name of a variable", "HF_HOME", ENV_NAME)]
SecretName = Annotated[
    str, Text("a secret's name of letters, digits, . _ and -", "hf-token", r"[A-Za-z0-9._-]+")
]
ServiceName = Annotated[str, Text("the name of a service", "tokenize", SERVICE_NAME)]
ModuleName = Annotated[str, Text("the name of a module", "torch", r"[A-Za-z_][A-Za-z0-9_.]*")]
Envs = Annotated[dict[str, Annotated[str, Variable()]], BeforeValidator(_drop_null_values)]
Seconds = Annotated[float, SECONDS]
SecondsAboveZero = Annotated[float, SECONDS_ABOVE_ZERO]
Bytes = Annotated[int, SIZE]
Cores = Annotated[float, CORES]
Bool = Annotated[bool, Flag()]
AnyText = Annotated[str, Text()]
DeviceName = Annotated[str, Text("a device's UUID or index", "GPU-8f2c"), BeforeValidator(_index_as_text)]


def _text_as_list(data: Any) -> Any:
    return [data] if isinstance(data, str) else data


def _entry_as_list(data: Any) -> Any:
    return [data] if isinstance(data, str | dict) else data


BackendName = Annotated[str, Text("the name of a backend", "process", r"[A-Za-z0-9_-]+")]
Files = Annotated[list[AnyText], BeforeValidator(_text_as_list)]
EnvFiles = Annotated[list[Annotated[Any, EnvFile()]], BeforeValidator(_entry_as_list)]


class InstanceTypeSection(Section):
    """What an instance type stands for; each value is the default of the same key of `resources`."""

    gpu: Annotated[float, Devices()] | None = None
    """Number of GPUs, or a share of one below 1."""
    gpu_type: AnyText | None = None
    """Model of the GPU: h100, a100.80g, l4 ..."""
    gpu_memory: Bytes | None = None
    """Memory needed on each GPU: 40Gi."""
    cpu: Cores | None = None
    """Cores: 4, 0.5 or 500m."""
    memory: Bytes | None = None
    """Main memory: 16Gi."""


class ResourcesSection(InstanceTypeSection):
    """What one replica needs."""

    devices: list[DeviceName] = Field(default=[], examples=[["GPU-8f2c"]])
    """GPUs that replicas are confined to: UUIDs, beginnings of them, or indices."""
    exclude: list[DeviceName] = Field(default=[], examples=[[0]])
    """GPUs that replicas are never given, named likewise."""
    or_better: Bool = False
    """Take a GPU that can do all that `gpu_type` can where none of that type is free."""
    spread: Bool = False
    """Put replicas that share GPUs on different ones, so that the loss of one does not end them all."""
    numa: Literal["local", "any"] = "local"
    """local: with GPUs, run on the cores of their NUMA node and take its memory first. any: leave it be."""


class PolicySection(Section):
    """One rule by which a service is scaled."""

    model_config = ConfigDict(extra="allow")

    metric: AnyText = "concurrency"
    """What decides: concurrency, foresight, utilization, gpu, queue, schedule, or a metric of a plugin."""
    target: Annotated[float, Number()] | None = None
    """What one replica should bear, in the metric's unit; for concurrency `traffic.concurrency` if absent."""
    scale_up_stabilization_window: Seconds = 0.0
    """The load must be higher for so long before replicas are added."""
    scale_down_stabilization_window: Seconds = 60.0
    """The load must be lower for so long before replicas are taken away; 0 for foresight and its like."""
    window: SecondsAboveZero | None = None
    """Stretch of time over which the load is averaged."""
    patience: Seconds | None = None
    """Metric concurrency: a wait in the queue longer than this asks for replicas at once."""
    tolerance: Annotated[float, Number(above=0, example=0.1)] | None = None
    """Metrics utilization and gpu: so far from the target, as a part of it, nothing changes."""
    start: Annotated[str, Cron()] | None = Field(default=None, examples=["0 8 * * mon-fri"])
    """Metric schedule: when `target` replicas are wanted, as a cron expression."""
    end: Annotated[str, Cron()] | None = Field(default=None, examples=["0 18 * * mon-fri"])
    """Metric schedule: when they are no longer wanted."""
    timezone: Annotated[str, Timezone()] | None = Field(default=None, examples=["Europe/Berlin"])
    """Metric schedule: where `start` and `end` are times of day; the box's own time if absent."""
    url: Annotated[str, Url()] | None = Field(default=None, examples=["http://127.0.0.1:9090"])
    """Metric prometheus: the server's address."""
    query: AnyText | None = Field(default=None, examples=["sum(jobs_waiting)"])
    """Metric prometheus: PromQL whose answer is one number, of which one replica bears `target`."""
    period: SecondsAboveZero | None = None
    """Metric prometheus: time between two queries."""
    lead: Seconds | None = None
    """Metric schedule: so long before `start` replicas are started; the measured start-up time if absent."""


Policies = Annotated[
    list[PolicySection], BeforeValidator(_as_list), Field(examples=[{"metric": "concurrency", "target": 4}])
]


class ScalingSection(Section):
    """Bounds and rules for the number of replicas."""

    min_replicas: Annotated[int, Whole(0, 10_000, 1)] = 1
    """At least so many replicas; 0 lets the service go to zero."""
    max_replicas: Annotated[int, Whole(0, 10_000, 4)] = 1
    """At most so many replicas; 0 keeps the service at zero. Not given: as many as `min_replicas`."""
    policy: Policies = Field(default=[PolicySection()])
    """A rule, or a list of rules of which the one with the largest answer wins."""


class SloSection(Section):
    """What is promised to callers."""

    wait: SecondsAboveZero | None = None
    """Longest good wait in the queue."""


class ProbeSection(Section):
    """A question to a replica, in exactly one of the ways http, tcp, exec."""

    http: Annotated[str, Text("a path that begins with /", "/readyz", r"/\S*")] | None = None
    """Good if GET of this path answers 2xx or 3xx."""
    tcp: Bool = False
    """Good if the port accepts a connection."""
    exec: Annotated[tuple[str, ...], Argv()] | None = None
    """Good if this command exits with 0. It runs where the replica does; for backends process and systemd in
    `working_dir` with `envs` and PORT, and {port}, {replica} and {service} are filled in."""
    period: SecondsAboveZero = 1.0
    """Time from one question to the next."""
    timeout: SecondsAboveZero = 1.0
    """Longest time for an answer."""
    failures: Annotated[int, Whole(1, 1000, 3)] = 3
    """So many bad answers in a row count as a failure."""


class StartupSection(ProbeSection):
    """When a new replica counts as up. Exactly one of http, tcp, exec, notify, or only a `timeout`."""

    notify: Bool = False
    """The replica says itself that it is up, by sd_notify (READY=1)."""
    timeout: SecondsAboveZero = 120.0
    """Longest time a replica may take to start."""


class LivenessSection(ProbeSection):
    """Whether a replica is to be replaced."""

    period: SecondsAboveZero = 5.0
    """Time from one question to the next."""
    timeout: SecondsAboveZero = 5.0
    """Longest time for an answer."""
    failures: Annotated[int, Whole(1, 1000, 6)] = 6
    """So many bad answers in a row and the replica is replaced."""


class ProbesSection(Section):
    """Questions to each replica. Where there are none, the HEALTHCHECK of an image stands for startup and
    liveness."""

    startup: StartupSection | None = None
    """Asked until the replica is up. Absent: it is up when its port answers."""
    readiness: ProbeSection | None = None
    """Asked all the time; while it fails the replica gets no new requests."""
    liveness: LivenessSection | None = None
    """Asked all the time; if it fails the replica is replaced."""


class UpdateSection(Section):
    """How replicas of a new revision replace the old ones."""

    strategy: Literal["RollingUpdate", "Recreate", "RampedSlowRollout", "BestEffortControlledRollout"] = (
        "RollingUpdate"
    )
    """RollingUpdate: step by step. Recreate: all old ones end first."""
    max_surge: Annotated[int | str, CountOrPercent()] = 1
    """Replicas beyond the wanted number during an update: a number, or a percentage of it, rounded up."""
    max_unavailable: Annotated[int | str, CountOrPercent()] = 0
    """Replicas that may be missing during an update: a number, or a percentage of those wanted, rounded
    down."""


class DrainSection(Section):
    """How a replica ends."""

    timeout: Seconds = 30.0
    """Time for requests in flight to finish."""
    signal: Annotated[int, Signal()] = 15
    """Signal that asks the process to end, by name or number."""
    grace: Seconds = 10.0
    """Time after the signal until the process tree is killed."""


class RestartSection(Section):
    """What happens after a failure."""

    backoff: Seconds = 1.0
    """Wait before the first restart; doubles with each failure in a row."""
    max_backoff: Seconds = 60.0
    """The longest wait."""
    crash_loop: Annotated[int, Whole(1, 1000, 5)] = 5
    """After so many failures in a row the replica is reported as crash-looping."""


class LimitsSection(Section):
    """Limits of each replica, held by the kernel. What `resources` says is for placing replicas only."""

    nofile: Annotated[int, Whole(8, 2**31, 65536)] | None = None
    """Open files of each process."""
    pids: Annotated[int, Whole(1, 2**22, 4096)] | None = None
    """Processes and threads of the whole replica."""
    memory: Bytes | None = None
    """Main memory of the whole replica, without swap; one that needs more is killed: 16Gi."""
    cpu: Cores | None = None
    """Cores of the whole replica; one that wants more is slowed down: 4, 0.5 or 500m."""


class LogsSection(Section):
    """What becomes of each replica's output."""

    max_size: Bytes = 64 * 1024 * 1024
    """Size at which a log's lines are moved to a part beside it: 64Mi."""
    keep: Annotated[int, Whole(0, 1000, 4)] = 4
    """So many parts are kept."""
    journal: bool = True
    """Whether its lines go to the systemd journal as well, where `box.journal` lets them."""


class ServiceSection(Section):
    """One service: a command or a Python application, what it needs, its bounds."""

    command: Annotated[tuple[str, ...], Argv()] | None = None
    """What a replica runs, as a list or one text split without a shell. Filled in: {port}, {host}, {replica},
    {service}, {devices}, {socket}, {url:NAME}, {env:NAME}."""
    python: Annotated[str, Text("MODULE:ATTRIBUTE", "app:app", PYTHON_TARGET)] | None = None
    """In place of `command`: an ASGI application, or a factory of one, that Stoker serves itself."""
    image: ImageName | None = None
    """In place of `command`, or with it: the container image that replicas are made from."""
    container: ContainerSection = ContainerSection()
    """How a container is joined to the box; for backends that run containers."""
    ray: RayServiceSection = RayServiceSection()
    """What a replica needs of the Ray cluster beside `resources`; for backend: ray."""
    slurm: SlurmSection = SlurmSection()
    """What a replica's job asks of Slurm beside `resources`; for backend: slurm."""
    working_dir: AnyText | None = None
    """Directory a replica starts in, relative to the file that says it. Default: that of the main file."""
    instance_type: AnyText | None = None
    """Name of an instance type; its values are the defaults of `resources`."""
    resources: ResourcesSection = ResourcesSection()
    """What one replica needs."""
    pin: Literal["uuid", "index"] = "uuid"
    """How CUDA_VISIBLE_DEVICES names the GPUs; index (in PCI order) for programs that cannot read UUIDs."""
    strict_pinning: Bool = False
    """Stop a replica that is seen on a GPU that is not its own; otherwise it is only told of."""
    priority: Annotated[int, Whole(-1_000_000, 1_000_000, 10)] = 0
    """Who gets the box when all want more: the highest number."""
    preempt: Bool = False
    """A replica that finds no devices takes those of services with a lower priority: theirs are drained, and
    wait. Otherwise what runs within `min_replicas` keeps its devices."""
    scaling: ScalingSection = ScalingSection()
    """Bounds and rules for the number of replicas."""
    traffic: TrafficSection = TrafficSection()
    """How requests reach the replicas."""
    slo: SloSection = SloSection()
    """What is promised to callers; chooses the SLO policy."""
    standby: Annotated[int, Whole(0, 10_000, 1)] = 0
    """Warm replicas beyond need."""
    preload: list[ModuleName] = Field(default=[], examples=[["torch"]])
    """Python services: modules that one process imports, from which replicas are then forked. They start
    sooner and share that memory. For `python:`, `python -m MODULE` and `python FILE.py`."""
    envs: Envs = Field(default={}, examples=[{"LOG_LEVEL": "info"}])
    """Variables of this service; a mapping or a list of {name, value}."""
    env_file: EnvFiles = Field(default=[], examples=["web.env"])
    """Files of NAME=VALUE lines whose variables lie under this service's `envs`. Relative to this file."""
    secrets: list[SecretName] = Field(default=[], examples=[["hf-token"]])
    """Secrets handed over as variables: hf-token as HF_TOKEN."""
    inherit_env: list[EnvName] = Field(default=[], examples=[["http_proxy"]])
    """Variables of the daemon's own environment that replicas get."""
    depends: list[ServiceName] = Field(default=[], examples=[["tokenize"]])
    """Services this one calls; it starts after them and gets their addresses as STOKER_URL_NAME."""
    probes: ProbesSection = ProbesSection()
    """Questions to each replica."""
    update: UpdateSection = UpdateSection()
    """How a new revision replaces the old one."""
    drain: DrainSection = DrainSection()
    """How a replica ends."""
    restart: RestartSection = RestartSection()
    """What happens after a failure."""
    limits: LimitsSection = LimitsSection()
    """Limits of each replica, held by the kernel."""
    user: Annotated[str, Text("a user's name", "svc", r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?")] | None = None
    """User to run as, with the groups of that user; needs root."""
    group: Annotated[str, Text("a group's name", "svc", r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?")] | None = None
    """Group to run as in place of the user's own first one; needs root."""
    umask: Annotated[int, Umask()] | None = None
    """Permissions that new files do not get, as octal digits in quotes. Default: "0022"."""
    endpoint: EndpointSection = EndpointSection()
    """The service's stable address."""
    listen: Literal["port", "unix"] = "port"
    """Where each replica listens: on a port of its own ({port}, PORT), or on a unix socket of its own
    ({socket}, SOCKET), which no other user of the box can reach. unix is for backend: process."""
    logs: LogsSection = LogsSection()
    """How much of each replica's output is kept."""
    backend: BackendName | None = None
    """What runs the replicas. Default: the file's `backend`; podman for an image; else process."""
    config_overrides: dict[str, Any] = Field(default={}, examples=[{"workers": 2}])
    """Services of a bento: values laid over the decorator's, in BentoML's words."""
    hold: Bool = False
    """Kept at zero replicas whatever the bounds and the load (`stoker stop`)."""


class BoxSection(Section):
    """The whole box."""

    idle: Literal["fill", "release"] = "release"
    """Spare devices: fill them with replicas, or leave them free."""
    router: Annotated[str, Text("the name of a router", "stoker", r"[A-Za-z0-9_-]+")] = "stoker"
    """What carries the requests: stoker, or haproxy, which gives each service a process of its own."""
    router_processes: Annotated[int, Whole(1, 64, 4)] = 1
    """Processes of the router stoker among which the services are spread, each service in one of them."""
    cpu: Cores | None = None
    """Cores that the services share. Default: those that the daemon may use."""
    memory: Bytes | None = None
    """Main memory that the services share. Default: that of the box."""
    journal: Literal["auto", "always", "never"] = "auto"
    """Whether the systemd journal has workers' output too; auto: where the daemon's own output goes there."""


class FileSection(Section):
    """A Stoker deployment file."""

    name: Annotated[str, Text("the name of a deployment", "rag", DEPLOYMENT_NAME)] | None = None
    """The deployment's name. Default: the file's name without its ending."""
    envs: Envs = Field(default={}, examples=[{"LOG_LEVEL": "info"}])
    """Variables of every service; a mapping or a list of {name, value}."""
    env_file: EnvFiles = Field(default=[], examples=[".env"])
    """Files of NAME=VALUE lines whose variables lie under the `envs` beside it. Relative to this file."""
    include: Files = Field(default=[], examples=[["common.yaml", "services/*.yaml"]])
    """Files that lie under this one, later over earlier ones. Relative to this file; `*` is a pattern."""
    secrets: list[SecretName] = Field(default=[], examples=[["hf-token"]])
    """Names of files in the secrets directory that services may list."""
    instance_types: dict[str, InstanceTypeSection] = Field(default={}, examples=[{"gpu.big": {"gpu": 2}}])
    """Instance types beside the built-in ones, or changes of these."""
    bento: AnyText | None = None
    """A BentoML project (service:Root, or its directory) or a built bento; `services` then tunes its own."""
    backend: BackendName | None = None
    """What runs the replicas of services that do not say it themselves."""
    ray: RayFileSection = RayFileSection()
    """The Ray cluster, for backend: ray."""
    slurm: SlurmSection = SlurmSection()
    """What all jobs ask of Slurm; for backend: slurm."""
    interpreter: AnyText | None = None
    """The bento's own Python, or its virtual environment. Default: the one that Stoker runs in."""
    services: dict[str, ServiceSection] = Field(default={}, examples=[{"web": {"command": "python app.py"}}])
    """The services by name."""
    ingress: IngressSection | None = None
    """The front door: one address for several services, beside that of each."""
    box: BoxSection = BoxSection()
    """The whole box."""

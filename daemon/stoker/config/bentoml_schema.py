"""A BentoML deployment file, key by key: Stoker's own keys and BentoML's beside them.

Stricter than BentoML, which drops unknown keys, cuts 1.9 replicas to 1 and takes "false" for true.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from stoker.config.fields import SIZE, Devices, JsonSchema, Kind, Number, Text, Whole, plain, wanted
from stoker.config.schema import (
    AnyText,
    Bool,
    Cores,
    Envs,
    FileSection,
    PolicySection,
    ScalingSection,
    ServiceSection,
)
from stoker.config.section import Section
from stoker.model.quantity import parse_bytes

MAX_WINDOW = 3600
Behavior = Literal["fast", "stable", "disabled"]
Strategy = Literal["RollingUpdate", "Recreate", "RampedSlowRollout", "BestEffortControlledRollout"]
Window = Annotated[int, Whole(0, MAX_WINDOW, 300)]
SecondsNumber = Annotated[float, Number(example=60)]
_AVERAGE = re.compile(r"(?!0+(?:\.0+)?\b)[0-9]+(?:\.[0-9]+)?(?:%|m|[kKMGTP]i?)?")


@dataclass(frozen=True, slots=True)
class Workers(Kind):
    """Worker processes of one replica: a count, or `cpu_count`. BentoML before 1.2 had a list, one entry for
    each worker; it still stands in its documentation."""

    def check(self, value: Any) -> Any:
        value = plain(value)
        listed = isinstance(value, list) and value and all(isinstance(one, dict) for one in value)
        if listed or value == "cpu_count" or (type(value) is int and value > 0):
            return value
        raise wanted("a number of worker processes above 0, or cpu_count", value)

    def json_schema(self) -> JsonSchema:
        listed = {"type": "array", "items": {"type": "object"}, "minItems": 1}
        return {"anyOf": [{"type": "integer", "minimum": 1}, {"const": "cpu_count"}, listed]}


@dataclass(frozen=True, slots=True)
class Access(Kind):
    """Whether callers need a token: a boolean, or one of the words of BentoML's first files."""

    def check(self, value: Any) -> Any:
        value = plain(value)
        if type(value) is bool or value in ("private", "public"):
            return value
        raise wanted("true, false, private or public", value)

    def json_schema(self) -> JsonSchema:
        return {"enum": [True, False, "private", "public"]}


@dataclass(frozen=True, slots=True)
class Average(Kind):
    """The average of an older measure: a number, or text that is one, with a percent sign or a unit."""

    def check(self, value: Any) -> Any:
        value = plain(value)
        if type(value) in (int, float) and value > 0:
            return value
        if isinstance(value, str) and _AVERAGE.fullmatch(value):
            return value
        raise wanted("a number or an amount above 0, for example 80 or 500Mi", value)

    def json_schema(self) -> JsonSchema:
        text = {"type": "string", "pattern": f"^(?:{_AVERAGE.pattern})$"}
        return {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, text]}


def megabytes(text: str | float) -> str | float:
    """BentoML's own tests ask for 500m of memory, which Kubernetes reads as half a byte: 500M is meant."""
    return f"{text[:-1]}M" if isinstance(text, str) and text.endswith("m") else text


class MetricSection(Section):
    """One measure of the older form of a policy, with its average per replica."""

    type: Literal["cpu", "memory", "gpu", "qps"] | None = None
    """What is measured."""
    value: Annotated[Any, Average()] | None = None
    """What one replica should bear: percent, requests per second, or an amount of memory."""


class BentoPolicySection(PolicySection):
    """How fast the service follows its load."""

    model_config = ConfigDict(extra="forbid")

    scale_up_stabilization_window: Window = 0
    """Seconds for which the load must be higher before replicas are added."""
    scale_down_stabilization_window: Window = 600
    """Seconds for which the load must be lower before replicas are taken away."""
    scale_up_behavior: Behavior | None = None
    """The older form of the window: fast, stable (600 s) or disabled."""
    scale_down_behavior: Behavior | None = None
    """The older form of the window: fast, stable (600 s) or disabled."""
    metrics: list[MetricSection] | None = None
    """The older form of the measure."""


class BentoScalingSection(ScalingSection):
    """Bounds and rules for the number of replicas."""

    max_replicas: Annotated[int, Whole(1, 10_000, 4)] = 1
    """At most so many replicas. Not given: as many as `min_replicas`."""
    policy: BentoPolicySection = BentoPolicySection()  # type: ignore[assignment]  # one rule, no list
    """The rule."""


_MEMORY = replace(
    SIZE, parse=lambda text: parse_bytes(megabytes(text)), pattern=SIZE.pattern.replace("KMGTP]|", "mKMGTP]|")
)


class BentoTrafficSection(Section):
    """The decorator's `traffic`."""

    timeout: SecondsNumber | None = None
    """Longest time for a whole answer, in seconds."""
    max_concurrency: Annotated[int, Whole(1, 10_000_000, 100)] | None = None
    """Requests of one replica at a time; more are refused with 429."""
    concurrency: Annotated[int, Whole(1, 1_000_000, 32)] | None = None
    """Requests that one replica should bear: the target of scaling."""
    external_queue: Bool | None = None
    """Whether requests beyond `concurrency` wait in a queue."""


class BentoResourcesSection(Section):
    """The decorator's `resources`."""

    cpu: Cores | None = None
    """Cores: 2 or 200m."""
    memory: Annotated[int, _MEMORY] | None = None
    """Main memory: 16Gi; a plain number counts Gi, 500m is read as 500M."""
    gpu: Annotated[float, Devices()] | None = None
    """Number of GPUs."""
    gpu_type: AnyText | None = None
    """Model of the GPU: nvidia-l4."""
    tpu_type: AnyText | None = None
    """Model of a TPU."""


class OverridesSection(Section):
    """Values laid over the service's decorator."""

    resources: BentoResourcesSection | None = None
    """What one replica needs."""
    workers: Annotated[Any, Workers()] | None = None
    """Worker processes of one replica: a count, or `cpu_count`."""
    threads: Annotated[int, Whole(1, 100_000, 4)] | None = None
    """Threads for synchronous methods."""
    traffic: BentoTrafficSection | None = None
    """How requests reach a replica."""
    envs: Envs | None = None
    """Variables below those of the service."""
    replicate_process: Bool | None = None
    """Whether each worker process is a replica of its own to BentoML."""
    extra_ports: list[Annotated[int, Whole(1, 65535, 8001)]] | None = None
    """Further ports that the service opens itself."""
    backlog: Annotated[int, Whole(65, 1_000_000, 2048)] | None = None
    """Connections that may wait to be accepted."""
    max_runner_connections: Annotated[int, Whole(1, 1_000_000, 16)] | None = None
    """Connections to each service that is called."""
    runner_connection: dict[str, Any] | None = None
    """How connections to other services are kept: `max_requests`, `max_age`."""
    runner_probe: dict[str, Any] | None = None
    """Whether readiness asks the services that are called: `enabled`, `timeout`, `period`."""
    metrics: dict[str, Any] | None = None
    """BentoML's own metrics: `enabled`, `namespace`, `duration`."""
    logging: dict[str, Any] | None = None
    """BentoML's access log."""
    monitoring: dict[str, Any] | None = None
    """BentoML's data collection."""
    tracing: dict[str, Any] | None = None
    """BentoML's tracing."""
    http: dict[str, Any] | None = None
    """BentoML's HTTP server: `cors`, `response`, `proxy_port` ..."""
    grpc: dict[str, Any] | None = None
    """BentoML's gRPC server."""
    ssl: dict[str, Any] | None = None
    """BentoML's TLS settings."""
    endpoints: dict[str, Any] | None = None
    """Paths of the probes: `livez`, `readyz`."""
    cmd: list[str] | None = None
    """The command of a service that brings its own server."""
    labels: dict[str, Any] | None = None
    """The decorator's labels."""
    path_prefix: AnyText | None = None
    """Path that all of the service lies under."""


class BentoServiceSection(ServiceSection):
    """One service of the bento."""

    scaling: BentoScalingSection = BentoScalingSection()
    """Bounds and rules for the number of replicas."""
    deployment_strategy: Strategy | None = None
    """How replicas of a new revision replace the old ones."""
    cold_start_timeout: Annotated[int, Whole(1, 86_400, 300)] | None = None
    """Seconds a replica may take to start."""
    extras: dict[str, Any] | None = None
    """For the cloud's own machinery."""
    config_overrides: OverridesSection | None = None  # type: ignore[assignment]  # the same key, strictly
    """Values laid over the service's decorator."""


class LabelSection(Section):
    """A label in the cloud."""

    key: AnyText | None = None
    """Its name."""
    value: Any = None
    """Its value."""


class CanaryVersionSection(Section):
    """One version beside the main one."""

    bento: AnyText | None = None
    """Its bento."""
    weight: Annotated[int, Whole(0, 100, 20)] | None = None
    """Percentage of requests that it gets."""
    services: dict[str, Any] | None = None
    """Its services."""
    envs: list[Any] | None = None
    """Its variables."""
    secrets: list[Any] | None = None
    """Its secrets."""


class CanarySection(Section):
    """Several versions at a time."""

    route_type: Literal["random", "header", "query"] | None = None
    """How requests are told apart."""
    route_by: Annotated[str, Text("the name of a header or parameter", "feature")] | None = None
    """Name of the header or parameter."""
    versions: dict[str, CanaryVersionSection] | None = None
    """The versions by name."""


class BentoFileSection(FileSection):
    """A BentoML deployment file, or what `bentoml deployment get` prints."""

    services: dict[str, BentoServiceSection] = Field(default={})  # type: ignore[assignment]  # + BentoML's keys
    """The services by name."""
    description: str | None = None
    """Words for people. No effect here."""
    cluster: AnyText | None = None
    """A cluster of the cloud. No effect here."""
    access_authorization: Annotated[Any, Access()] | None = None
    """Whether callers of the cloud need a token. No effect here."""
    dev: Bool | None = None
    """A deployment for development in the cloud. No effect here."""
    labels: list[LabelSection] | None = None
    """Labels in the cloud. No effect here."""
    canary: CanarySection | None = None
    """Several versions at a time in the cloud. No effect here."""
    args: dict[str, Any] | None = None
    """Arguments of the bento's build. No effect here."""
    endpoint_url: Any = None
    """From the cloud's answer. No effect here."""
    endpoint_urls: list[Any] | None = None
    """From the cloud's answer. No effect here."""
    admin_console: Any = None
    """From the cloud's answer. No effect here."""
    created_at: Any = None
    """From the cloud's answer. No effect here."""
    created_by: Any = None
    """From the cloud's answer. No effect here."""
    updated_at: Any = None
    """From the cloud's answer. No effect here."""
    status: Any = None
    """From the cloud's answer. No effect here."""

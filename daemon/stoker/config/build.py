"""Checked sections to a `ServiceSpec`, and what keys mean together. Pure."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from stoker.config.clusters import CLUSTERS, build_elsewhere
from stoker.config.container import DEFAULT, build_container
from stoker.config.fields import plain
from stoker.config.gpu_wish import check_wish
from stoker.config.ingress import build_endpoint
from stoker.config.instance_types import CATALOGUE, find_type
from stoker.config.launch import build_launch, check_listen, variable_name
from stoker.config.layers import PROBE_WAYS
from stoker.config.schema import (
    ENV_NAME,
    SERVICE_NAME,
    InstanceTypeSection,
    PolicySection,
    ProbeSection,
    ScalingSection,
    ServiceSection,
    StartupSection,
    UpdateSection,
)
from stoker.config.slurm import SlurmSection
from stoker.config.tree import Node, Path, Report, find, found, nearest
from stoker.model.service import (
    Drain,
    Limits,
    LogRules,
    PolicySpec,
    Probe,
    Probes,
    Resources,
    Restart,
    Scaling,
    ServiceSpec,
    Traffic,
    Update,
)

METRIC_KEYS: Mapping[str, frozenset[str]] = {
    "concurrency": frozenset({"window", "patience"}),
    "queue": frozenset({"window"}),
    "prometheus": frozenset({"url", "query", "period"}),
    "schedule": frozenset({"start", "end", "timezone", "lead"}),
    "static": frozenset(),
    "utilization": frozenset({"window", "tolerance"}),
    "gpu": frozenset({"window", "tolerance"}),
    "foresight": frozenset({"risk", "restart_worth"}),
    "kpa": frozenset({"utilization"}),
    "hpa": frozenset({"utilization"}),
    "ray": frozenset({"utilization"}),
    "bento": frozenset(),
}
"""Keys that the policies of these metrics have beyond the common ones; others may have any."""
NEEDED_KEYS = {"schedule": ("start", "end"), "prometheus": ("url", "query", "target")}
"""Keys without which a metric makes no sense."""
SELF_TIMED = frozenset({"foresight", "kpa", "hpa", "ray", "bento"})
"""Metrics whose policies time their own steps down: their stabilization windows are 0 if not written."""
SLO_METRIC = "foresight"
"""Scales a service that promises a wait and declares no policy."""
_COMMON_KEYS = frozenset(
    {"metric", "target", "scale_up_stabilization_window", "scale_down_stabilization_window"}
)
STARTUP_ASK = 1.0
"""Seconds one startup question may take; the probe's own `timeout` is for the whole start."""
OWN_TYPES = ("cpu.", "gpu.")
"""Instance types of Stoker's own catalogue; a name of another family is some cloud's."""
RESERVED = frozenset({"PORT", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NOTIFY_SOCKET"})
_ENV_NAME = re.compile(ENV_NAME)
_SERVICE_NAME = re.compile(SERVICE_NAME)
_UPDATE_DEFAULTS: dict[str, dict[str, int | str]] = {
    "RollingUpdate": {"max_surge": 1, "max_unavailable": 0},
    "RampedSlowRollout": {"max_surge": 1, "max_unavailable": 0},
    "BestEffortControlledRollout": {"max_surge": 0, "max_unavailable": "20%"},
    "Recreate": {"max_surge": 0, "max_unavailable": "100%"},
}
"""What a strategy means where the file gives no numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a service's values depend on. `derived` collects what no layer wrote: path -> (value, why)."""

    deployment: str
    folder: str
    home: str
    types: Mapping[str, Resources]
    secrets: tuple[str, ...]
    report: Report
    backend: str | None = None
    """What the file says for services that do not."""
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    """What nodes of the Ray cluster are to prepare."""
    slurm: SlurmSection = field(default_factory=SlurmSection)
    """What the file says for all jobs of Slurm."""
    bento: str | None = None
    """The bento whose services these are: "" if it is not named, None where there is none."""
    notices: list[str] = field(default_factory=list)
    derived: dict[Path, tuple[Any, str]] = field(default_factory=dict)


def build_service(name: str, section: ServiceSection, context: Context) -> ServiceSpec:
    """Return the spec; problems go to the context's report."""
    path: Path = ("services", name)
    report = context.report
    if not _SERVICE_NAME.fullmatch(name):
        message = "a service's name is made of letters, digits, . - and _, at most 63 of them"
        report.add(path, message, key=True)
    _check_variables(section, path, context)
    scaling = _scaling(section.scaling, path, context, promised=section.slo.wait is not None)
    backend = section.backend or context.backend or (DEFAULT if section.image else "process")
    resources = _resources(section, path, context)
    elsewhere = build_elsewhere(
        section,
        backend,
        report,
        path,
        wanted=resources,
        runtime_env=context.runtime_env,
        slurm=context.slurm,
    )
    launch = build_launch(section, report, path, context.bento)
    check_listen(section, launch, backend, report, path)
    return ServiceSpec(
        deployment=context.deployment,
        name=name,
        launch=launch,
        listen=section.listen,
        working_dir=_working_dir(section, path, context),
        resources=resources if elsewhere is None else Resources(),
        elsewhere=elsewhere,
        instance_type=section.instance_type,
        scaling=scaling,
        traffic=_traffic(section, scaling.max_replicas, path, context),
        probes=_probes(section, path, report),
        update=_update(section.update, scaling.max_replicas, path, context),
        drain=Drain(**section.drain.model_dump()),
        restart=_restart(section, path, report),
        limits=Limits(**section.limits.model_dump()),
        container=build_container(section, backend, report, path),
        endpoint=build_endpoint(section.endpoint, (*path, "endpoint"), report, context.folder, context.home),
        logs=LogRules(**section.logs.model_dump()),
        envs=tuple(sorted(section.envs.items())),
        secrets=tuple(section.secrets),
        inherit_env=tuple(section.inherit_env),
        depends=tuple(dict.fromkeys(section.depends)),
        pin=section.pin,
        strict_pinning=section.strict_pinning,
        priority=section.priority,
        preempt=section.preempt,
        standby=section.standby,
        preload=tuple(section.preload),
        slo_wait=section.slo.wait,
        user=section.user,
        group=section.group,
        umask=section.umask,
        backend=backend,
        held=section.hold,
    )


def type_resources(section: InstanceTypeSection, builtin: Resources | None) -> Resources:
    """Resources an entry of `instance_types` stands for; a built-in type of that name lies under it."""
    values = section.model_dump(exclude_none=True, include=set(InstanceTypeSection.model_fields))
    under = builtin or Resources()
    return Resources(
        **{**{name: getattr(under, name) for name in InstanceTypeSection.model_fields}, **values}
    )


def _check_variables(section: ServiceSection, path: Path, context: Context) -> None:
    """Names of variables, and two sources of one variable."""
    report, where = context.report, ".".join(path)
    for name in section.envs:
        if not _ENV_NAME.fullmatch(name):
            example = "a variable's name is made of letters, digits and _, for example HF_HOME"
            report.add((*path, "envs", name), example, key=True)
        elif name in RESERVED or name.startswith("STOKER_"):
            context.notices.append(f"{where}.envs.{name} has no effect: Stoker sets this variable itself")
    given: dict[str, str] = {}
    for index, secret in enumerate(section.secrets):
        variable = variable_name(secret)
        other = given.setdefault(variable, secret)
        if other != secret:
            message = f"{secret} and {other} would both be the variable {variable}; rename one"
            report.add((*path, "secrets", str(index)), message)
        elif variable in section.envs:
            context.notices.append(
                f"{where}.envs.{variable} has no effect: the secret {secret} takes its place"
            )
        close = nearest(secret, context.secrets) if secret not in context.secrets else None
        if close is not None:
            context.notices.append(
                f"{where}.secrets: {secret} is not among the file's `secrets`; is {close} meant?"
            )


def absolute_folder(node: Node | None, main: str, home: str) -> str:
    """The absolute directory a `working_dir` means: relative to the file that says it, by default `main`."""
    if node is None or not isinstance(node.value, str) or not node.value:
        return main
    text = str(node.value)
    if text == "~" or text.startswith("~/"):
        text = home + text[1:]
    return posixpath.normpath(posixpath.join(node.source.folder or main, text))


def _working_dir(section: ServiceSection, path: Path, context: Context) -> str:
    """Of an image it is a place inside: as written, and the image's own ("") if it is not."""
    if section.image is not None:
        return section.working_dir or ""
    return absolute_folder(find(context.report.tree, (*path, "working_dir")), context.folder, context.home)


def _resources(section: ServiceSection, path: Path, context: Context) -> Resources:
    """The service's own words over those of its instance type."""
    own = section.resources
    values: dict[str, Any] = {}
    if section.instance_type is not None:
        kind = find_type(section.instance_type, context.types)
        if kind is None and context.bento is not None and not section.instance_type.startswith(OWN_TYPES):
            context.notices.append(
                f"{'.'.join(path)}: instance type {section.instance_type} is not known here, so nothing is "
                "asked for; say under `instance_types` what it stands for"
            )
        elif kind is None:
            names = [*context.types, *CATALOGUE]
            message = f"unknown instance type {section.instance_type}"
            context.report.add(
                (*path, "instance_type"), message + context.report.hint(section.instance_type, names)
            )
        else:
            values = {key: getattr(kind, key) for key in InstanceTypeSection.model_fields}
    written = own.model_dump(exclude_none=True, include=set(InstanceTypeSection.model_fields))
    for key, value in values.items():
        if key not in written and value:
            context.derived[*path, "resources", key] = value, f"instance type {section.instance_type}"
    values |= written
    elsewhere = (section.backend or context.backend) in CLUSTERS  # there the cluster's names count
    bento = context.bento is not None
    context.notices.extend(check_wish(own, values, path, context.report, elsewhere=elsewhere, lenient=bento))
    if not values.get("gpu"):
        values = {**values, "gpu": 0.0, "gpu_type": None, "gpu_memory": None}
    return Resources(
        **values,
        devices=tuple(own.devices),
        exclude=tuple(own.exclude),
        or_better=own.or_better,
        spread=own.spread,
        numa=own.numa,
    )


def _traffic(section: ServiceSection, replicas: int, path: Path, context: Context) -> Traffic:
    """A bento's `max_concurrency` is of one replica, the router's of the whole service."""
    traffic = Traffic(**section.traffic.model_dump())
    own = section.config_overrides.get("traffic")
    if context.bento is None or traffic.max_concurrency is not None or not isinstance(own, dict):
        return traffic
    most = plain(own.get("max_concurrency"))
    if not isinstance(most, int) or plain(own.get("external_queue")) is True or not replicas:
        return traffic
    why = f"config_overrides.traffic.max_concurrency {most} of each replica, times max_replicas"
    context.derived[*path, "traffic", "max_concurrency"] = most * replicas, why
    return replace(traffic, max_concurrency=most * replicas)


def rule_of(metric: str) -> PolicySpec:
    """The rule that naming a metric and nothing else makes. Pure."""
    return PolicySpec(
        metric=metric, scale_down_stabilization_window=_window_down(PolicySection(metric=metric))
    )


def _window_down(section: PolicySection) -> float:
    written = "scale_down_stabilization_window" in section.model_fields_set
    return 0.0 if section.metric in SELF_TIMED and not written else section.scale_down_stabilization_window


def _scaling(section: ScalingSection, path: Path, context: Context, *, promised: bool) -> Scaling:
    low, high = section.min_replicas, section.max_replicas
    where, written = (*path, "scaling"), section.model_fields_set
    if "min_replicas" not in written and high < low:
        low = high
        context.derived[*where, "min_replicas"] = low, "max_replicas"
    if "max_replicas" not in written and low > high:
        high = low
        context.derived[*where, "max_replicas"] = high, "min_replicas"
    if low > high:
        message = f"min_replicas {low} is more than max_replicas {high}"
        key = "min_replicas" if "min_replicas" in written else "max_replicas"
        context.report.add((*where, key), message)
    if promised and "policy" not in written:
        context.derived[*where, "policy", "metric"] = SLO_METRIC, "slo.wait"
        return Scaling(min_replicas=low, max_replicas=high, policies=(rule_of(SLO_METRIC),))
    policies = tuple(
        _policy(policy, (*where, "policy"), index, context) for index, policy in enumerate(section.policy)
    )
    return Scaling(min_replicas=low, max_replicas=high, policies=policies or (PolicySpec(),))


def _policy(section: PolicySection, path: Path, index: int, context: Context) -> PolicySpec:
    node = find(context.report.tree, path)
    where = (*path, str(index)) if node is not None and isinstance(node.value, list) else path
    params: list[tuple[str, str | float | bool]] = []
    for key in NEEDED_KEYS.get(section.metric, ()):
        if find(context.report.tree, (*where, key)) is None:
            context.report.add((*where, "metric"), f"the metric {section.metric} needs `{key}` beside it")
    allowed = METRIC_KEYS.get(section.metric)
    for key, raw in section.model_dump(exclude=set(_COMMON_KEYS)).items():
        value = plain(raw)
        if value is None and key in PolicySection.model_fields:
            continue
        if allowed is not None and key not in allowed:
            names = sorted(_COMMON_KEYS | allowed)
            message = f"unknown key for the metric {section.metric}" + context.report.hint(key, names)
            context.report.add((*where, key), message, key=True)
        elif isinstance(value, bool | str) or (isinstance(value, int | float) and math.isfinite(value)):
            params.append((key, value))
        elif value is not None:
            message = f"must be text, a number, true or false; found {found(value)}"
            context.report.add((*where, key), message)
    return PolicySpec(
        metric=section.metric,
        target=section.target,
        scale_up_stabilization_window=section.scale_up_stabilization_window,
        scale_down_stabilization_window=_window_down(section),
        params=tuple(sorted(params)),
    )


def _probes(section: ServiceSection, path: Path, report: Report) -> Probes:
    probes, where = section.probes, (*path, "probes")
    startup = probes.startup
    built = None
    if startup is not None and (_ways(startup) or "period" in startup.model_fields_set):
        built = _probe(startup, (*where, "startup"), report, timeout=STARTUP_ASK)
    return Probes(
        startup=built,
        readiness=_probe(probes.readiness, (*where, "readiness"), report),
        liveness=_probe(probes.liveness, (*where, "liveness"), report),
        startup_timeout=(startup or StartupSection()).timeout,
    )


def _ways(section: ProbeSection) -> list[str]:
    names = ("http", "tcp", "exec", "notify")
    return [name for name in names if getattr(section, name, None) not in (None, False)]


def _probe(
    section: ProbeSection | None, path: Path, report: Report, timeout: float | None = None
) -> Probe | None:
    if section is None:
        return None
    ways = _ways(section)
    choice = "http, tcp, exec or notify" if isinstance(section, StartupSection) else "http, tcp or exec"
    node = find(report.tree, path)
    if not ways and not (node is not None and PROBE_WAYS & node.mapping.keys()):
        report.add(path, f"asks nothing; add one of {choice}, for example http: /readyz", key=True)
    elif len(ways) > 1:
        report.add((*path, ways[1]), f"has {' and '.join(ways)}; a probe asks in one way", key=True)
    return Probe(
        http=section.http,
        tcp=section.tcp,
        exec=section.exec or (),
        notify=getattr(section, "notify", False),
        period=section.period,
        timeout=section.timeout if timeout is None else timeout,
        failures=section.failures,
    )


def _update(section: UpdateSection, replicas: int, path: Path, context: Context) -> Update:
    """Counts; percents beside those they come to at `max_replicas`, surge rounded up, unavailable down."""
    where, written = (*path, "update"), section.model_fields_set
    given: dict[str, int | str] = {
        "max_surge": section.max_surge,
        "max_unavailable": section.max_unavailable,
    }
    for key, default in _UPDATE_DEFAULTS[section.strategy].items():
        if key not in written:
            given[key] = default
            if "strategy" in written:
                context.derived[*where, key] = default, f"strategy {section.strategy}"
    surge = _count(given["max_surge"], replicas, up=True)
    unavailable = _count(given["max_unavailable"], replicas, up=False)
    if surge == 0 and unavailable == 0:
        if "max_unavailable" not in written and given["max_unavailable"] != 0:
            unavailable = 1  # the strategy's own percentage may not come to nothing
        else:
            message = f"max_surge and max_unavailable come to 0 of {replicas} replicas: no update could begin"
            key = "max_unavailable" if "max_unavailable" in written else "max_surge"
            context.report.add((*where, key), f"{message}; make one of them at least 1")
    return Update(
        strategy=section.strategy,
        max_surge=surge,
        max_unavailable=unavailable,
        surge_share=_share(given["max_surge"]),
        unavailable_share=_share(given["max_unavailable"]),
    )


def _share(value: int | str) -> int | None:
    return None if isinstance(value, int) else int(value[:-1])


def _count(value: int | str, replicas: int, *, up: bool) -> int:
    if isinstance(value, int):
        return value
    share = int(value[:-1]) * replicas
    return math.ceil(share / 100) if up else share // 100


def _restart(section: ServiceSection, path: Path, report: Report) -> Restart:
    restart = Restart(**section.restart.model_dump())
    if restart.max_backoff < restart.backoff:
        written = "max_backoff" if "max_backoff" in section.restart.model_fields_set else "backoff"
        message = f"max_backoff {restart.max_backoff:g} s is less than backoff {restart.backoff:g} s"
        report.add((*path, "restart", written), message)
    return restart

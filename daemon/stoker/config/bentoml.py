"""BentoML deployment files in Stoker's words. Pure.

Each layer is rewritten key by key: every value keeps the place where a person wrote it, so that problems
and `stoker explain` point there. What the layers say is checked before, by `bentoml_schema`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from stoker.config.interpolate import fill
from stoker.config.layers import LAUNCH_WAYS, Layer
from stoker.config.schema import FileSection, ServiceSection
from stoker.config.tree import Node, Path, Report, Source, find, problem_at, scalar_text
from stoker.config.validate import check
from stoker.config.yaml_text import resolve_scalar
from stoker.errors import ConfigProblem

Form = Literal["deployment", "fragment"]
"""A deployment has keys that only BentoML's files have; a fragment (for `bentoml deployment update`) only
says what could stand in any file, and nothing to run."""

STABLE = 600
"""Seconds of BentoCloud's behaviour `stable`."""
NEVER = 36_500 * 86_400
"""Seconds of a window that outlasts everything: the behaviour `disabled`."""
_WINDOWS = {"fast": 0, "stable": STABLE, "disabled": NEVER}
_DEFAULT = Source("built-in default", "BentoCloud's default")
MOVED: Mapping[Path, Path] = {
    ("deployment_strategy",): ("update", "strategy"),
    ("cold_start_timeout",): ("probes", "startup", "timeout"),
    ("scaling", "policy", "scale_up_behavior"): ("scaling", "policy", "scale_up_stabilization_window"),
    ("scaling", "policy", "scale_down_behavior"): ("scaling", "policy", "scale_down_stabilization_window"),
    ("scaling", "policy", "metrics"): ("scaling", "policy", "metric"),
    ("config_overrides", "traffic", "timeout"): ("traffic", "timeout"),
    ("config_overrides", "traffic", "concurrency"): ("scaling", "policy", "target"),
    ("config_overrides", "traffic", "max_concurrency"): ("traffic", "max_concurrency"),
    ("config_overrides", "resources", "cpu"): ("resources", "cpu"),
    ("config_overrides", "resources", "memory"): ("resources", "memory"),
    ("config_overrides", "resources", "gpu"): ("resources", "gpu"),
    ("config_overrides", "resources", "gpu_type"): ("resources", "gpu_type"),
}
"""BentoML's keys of a service, and where what they say stands with Stoker."""
_POLICY = frozenset({"scale_up_behavior", "scale_down_behavior", "metrics"})
_FRAGMENT_TOP = frozenset({"name", "envs", "env_file", "include", "secrets", "services"})
_FRAGMENT = frozenset({"instance_type", "scaling", "envs"})
_MEASURES = {"cpu": "utilization", "gpu": "gpu"}
_GPU_NAME = re.compile(r"(?:nvidia-|amd-)?(?:tesla-)?(.+?)(?:-(\d+)gb)?")
_GPU_NAMES = {"rtxpro6000": "rtxpro6000blackwell"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """The layers in Stoker's words, and what to tell people. With problems the layers are as they were."""

    layers: tuple[Layer, ...]
    notices: tuple[str, ...] = ()
    problems: tuple[ConfigProblem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What all layers together say of one service, as far as one key's meaning hangs on another."""

    queued: bool = False
    targeted: bool = False
    """Whether a concurrency, a metric or a target is said anywhere."""
    own_target: bool = False


@dataclass(slots=True)
class _Work:
    """What is collected on the way."""

    environ: Mapping[str, str]
    report: Report
    facts: dict[str, _Facts] = field(default_factory=dict)
    aside: dict[str, None] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    begun: set[str] = field(default_factory=set)


def unwrap(tree: Node) -> Node:
    """What `bentoml deployment get` prints, with its `config:` at the top; any other tree as it is."""
    inner = tree.mapping.get("config")
    if inner is None or "bento" not in tree.mapping or "services" in tree.mapping:
        return tree
    if inner.value is not None and not isinstance(inner.value, dict):
        return tree
    outer = {key: node for key, node in tree.mapping.items() if key != "config"}
    return tree._replace(value={**inner.mapping, **outer})


@cache
def _top_keys() -> frozenset[str]:
    """The keys that only BentoML's files have at their top."""
    from stoker.config.bentoml_schema import BentoFileSection

    return frozenset(BentoFileSection.model_fields) - frozenset(FileSection.model_fields)


@cache
def _own_keys() -> frozenset[str]:
    """The keys that only services of BentoML's files have."""
    from stoker.config.bentoml_schema import BentoServiceSection

    own = frozenset(BentoServiceSection.model_fields) - frozenset(ServiceSection.model_fields)
    return own | {"config_overrides"}


def form_of(tree: Node) -> Form | None:
    """Which kind of BentoML's file the merged tree is; None for a file of Stoker's own."""
    top = _said(tree)
    if "bento" in top:
        return "deployment"
    services = find(tree, ("services",))
    bodies = list(services.mapping.values()) if services is not None else []
    if any(_said(body) & LAUNCH_WAYS for body in bodies):
        return None
    if top & _top_keys() or any(_marked(body) for body in bodies):
        return "deployment"
    plain = bodies and all(body.mapping and body.mapping.keys() <= _FRAGMENT for body in bodies)
    return "fragment" if plain and tree.mapping.keys() <= _FRAGMENT_TOP else None


def translate(layers: Sequence[Layer], tree: Node, environ: Mapping[str, str]) -> Translation:
    """Rewrite the layers; `tree` is what they make together, references filled."""
    # Here, as in all of this module: a file of Stoker's own needs none of these sections, and they take long
    # to be made.
    from stoker.config.bentoml_schema import BentoFileSection

    section, problems = check(BentoFileSection, tree, ())
    work = _Work(environ=environ, report=Report(tree))
    if problems or section is None:
        return Translation(layers=tuple(layers), problems=tuple(problems))
    for name, service in _services(tree).items():
        work.facts[name] = _facts(name, service, work)
    done = [_layer(layer, work) for layer in layers]
    if work.aside:
        names = ", ".join(work.aside)
        means = "means" if len(work.aside) == 1 else "mean"
        work.notices.insert(0, f"{names} {means} nothing on a box of one's own and had no effect")
    return Translation(
        layers=tuple(done), notices=tuple(dict.fromkeys(work.notices)), problems=tuple(work.report.problems)
    )


def gpu_model(name: str) -> str:
    """BentoCloud's name of a GPU in Stoker's: nvidia-a100-80gb is a100.80g. Pure."""
    match = _GPU_NAME.fullmatch(name.lower())
    if match is None:
        return name
    model = match[1].replace("-", "")
    return _GPU_NAMES.get(model, model) + (f".{match[2]}g" if match[2] else "")


def _said(node: Node) -> set[str]:
    """The keys of a mapping that are set to something."""
    return {key for key, below in node.mapping.items() if below.value is not None}


def _marked(service: Node) -> bool:
    """Whether a service has a key that only BentoML's files have."""
    policy = find(service, ("scaling", "policy"))
    return bool(_said(service) & _own_keys() or (policy is not None and _said(policy) & _POLICY))


def _services(tree: Node) -> dict[str, Node]:
    services = find(tree, ("services",))
    return services.mapping if services is not None else {}


def _facts(name: str, service: Node, work: _Work) -> _Facts:
    """The facts, and the problems and notices that follow from them."""
    where = ("services", name, "config_overrides")
    traffic = find(service, ("config_overrides", "traffic"))
    said = _said(traffic) if traffic is not None else set()
    queue = find(traffic, ("external_queue",))
    queued = queue is not None and scalar_text(queue.value) == "true"
    if queued and "concurrency" not in said:
        place = ".".join((*where, "traffic", "external_queue"))
        work.notices.append(f"{place} has no effect until `concurrency` is said, here or in the decorator")
    elif queued and "max_concurrency" in said:
        place = ".".join((*where, "traffic", "max_concurrency"))
        work.notices.append(f"{place} has no effect beside external_queue, as on BentoCloud")
    policy = find(service, ("scaling", "policy"))
    rules = _said(policy) if policy is not None else set()
    targeted = "concurrency" in said or bool(rules & {"metric", "target", "metrics"})
    return _Facts(queued=queued, targeted=targeted, own_target="target" in rules)


def _layer(layer: Layer, work: _Work) -> Layer:
    whole = {key: node for key, node in layer.tree.mapping.items() if key not in _top_keys()}
    for key, node in layer.tree.mapping.items():
        if key in _top_keys() and node.value not in (None, {}, []):
            work.aside[key] = None
    services = whole.get("services")
    if services is not None and services.mapping:
        secrets = whole.get("secrets")
        bodies = {name: _service(name, body, secrets, work) for name, body in services.mapping.items()}
        whole["services"] = services._replace(value=bodies)
    return Layer(layer.tree._replace(value=whole))


def _service(name: str, service: Node, secrets: Node | None, work: _Work) -> Node:
    """One layer's word on one service."""
    first = name not in work.begun
    work.begun.add(name)
    if not isinstance(service.value, dict | None):
        return service
    writer = _Writer(("services", name), dict(service.mapping), work)
    for key, path in (("deployment_strategy", ("update", "strategy")),
                      ("cold_start_timeout", ("probes", "startup", "timeout"))):  # fmt: skip
        node = writer.whole.pop(key, None)
        if node is not None:
            writer.move(node, key, path)
    extras = writer.whole.pop("extras", None)
    if extras is not None and extras.value not in (None, {}):
        work.aside[f"services.{name}.extras"] = None
    if secrets is not None:
        writer.put(secrets, ("secrets",))
    writer.policy()
    writer.overrides()
    if first and not _said(service) & LAUNCH_WAYS:
        writer.defaults()
    return service._replace(value=writer.whole)


class _Writer:
    """One service of one layer while its keys are moved to their places."""

    def __init__(self, path: Path, whole: dict[str, Node], work: _Work) -> None:
        self.path = path
        self.whole = whole
        self._work = work
        self._facts = work.facts.get(path[1], _Facts())

    def move(self, node: Node, written: str, path: Path) -> None:
        """Set the value at a path below the service; twice the same thing is a fault."""
        if node.value is not None and find(Node(self.whole, node.source), path) is not None:
            message = f"is said twice: here and as {'.'.join(path)}; keep one of them"
            where = (*self.path, *written.split("."))
            self._work.report.problems.append(problem_at(node, where, message))
        self.put(node, path)

    def put(self, node: Node, path: Path) -> None:
        """Set the value at a path below the service, with the place it has, unless one stands there."""
        if node.value is not None and find(Node(self.whole, node.source), path) is None:
            self.whole[path[0]] = _with(self.whole.get(path[0]), path[1:], node)

    def policy(self) -> None:
        """The older form of a policy: behaviours and metrics."""
        scaling, policy = self.whole.get("scaling"), find(self.whole.get("scaling"), ("policy",))
        if scaling is None or policy is None or not policy.mapping:
            return
        rest = {key: node for key, node in policy.mapping.items() if key not in _POLICY}
        for way in ("up", "down"):
            behavior = policy.mapping.get(f"scale_{way}_behavior")
            window = f"scale_{way}_stabilization_window"
            if behavior is not None and behavior.value is not None and rest.get(window) is None:
                word = str(fill(behavior, self._work.environ)[0].value)
                rest[window] = _number(behavior, _WINDOWS.get(word, 0))
        metrics = policy.mapping.get("metrics")
        if metrics is not None:
            rest |= self._metric(metrics)
        self.whole["scaling"] = scaling._replace(
            value={**scaling.mapping, "policy": policy._replace(value=rest)}
        )

    def _metric(self, metrics: Node) -> dict[str, Node]:
        """The first measure that there is a policy for, as its keys."""
        chosen: dict[str, Node] = {}
        for index, item in enumerate(metrics.items):
            filled = fill(item, self._work.environ)[0].mapping
            kind, value = filled.get("type"), filled.get("value")
            metric = _MEASURES.get(str(kind.value)) if kind is not None else None
            if kind is not None and metric is not None and not chosen:
                chosen["metric"] = kind._replace(value=metric, text=metric)
                share = _share(value)
                if value is not None and share is not None:
                    chosen["target"] = _number(value, share)
                elif value is not None and value.value is not None:
                    place = ".".join((*self.path, "scaling", "policy", "metrics", str(index), "value"))
                    self._work.aside[place] = None
            else:
                place = ".".join((*self.path, "scaling", "policy", "metrics", str(index)))
                self._work.aside[place] = None
        return chosen

    def overrides(self) -> None:
        """What `config_overrides` means to Stoker itself; all of it also stays for the bento."""
        overrides = self.whole.get("config_overrides")
        if overrides is None:
            return
        traffic, resources = find(overrides, ("traffic",)), find(overrides, ("resources",))
        for key, node in (traffic.mapping if traffic is not None else {}).items():
            if key == "timeout":
                self.move(node, "config_overrides.traffic.timeout", ("traffic", "timeout"))
            elif key == "concurrency":
                self._concurrency(node)
        for key, node in (resources.mapping if resources is not None else {}).items():
            if key in ("cpu", "memory", "gpu", "gpu_type"):
                self.move(self._resource(key, node), f"config_overrides.resources.{key}", ("resources", key))
            else:
                self._work.aside[".".join((*self.path, "config_overrides.resources", key))] = None
        workers = overrides.mapping.get("workers")
        if workers is not None and isinstance(workers.value, list):
            place = ".".join((*self.path, "config_overrides.workers"))
            self._work.notices.append(
                f"{place}: a list of workers is a form that BentoML itself refuses since 1.2; "
                f"read as {len(workers.value)}"
            )
        envs = overrides.mapping.get("envs")
        for name, node in (envs.mapping if envs is not None else {}).items():
            self.put(node, ("envs", name))

    def _resource(self, key: str, node: Node) -> Node:
        """BentoML's amount or name as Stoker writes it: a plain number of memory counts Gi."""
        if key == "gpu_type" and isinstance(node.value, str):
            return node._replace(value=gpu_model(node.value))
        if key != "memory" or node.value is None:
            return node
        from stoker.config.bentoml_schema import megabytes

        written = scalar_text(node.value)
        text = f"{written}Gi" if not isinstance(resolve_scalar(written), str) else str(megabytes(written))
        if text.endswith("M") and written.endswith("m"):
            place = ".".join((*self.path, "config_overrides.resources.memory"))
            self._work.notices.append(f"{place}: {written} of memory is less than a byte; read as {text}")
        return node._replace(value=text, text=text)

    def _concurrency(self, node: Node) -> None:
        """The target of scaling; with a queue also what one replica gets at a time."""
        if not self._facts.own_target and find(self.whole.get("scaling"), ("policy", "metric")) is None:
            self.put(node, ("scaling", "policy", "target"))
        if self._facts.queued:
            self.put(node, ("traffic", "concurrency"))

    def defaults(self) -> None:
        """What BentoCloud documents for what a file does not say."""
        if "update" not in self.whole:
            self.put(Node("Recreate", _DEFAULT), ("update", "strategy"))
        policy = find(self.whole.get("scaling"), ("policy",))
        if policy is not None and isinstance(policy.value, list):
            return
        down = ("scaling", "policy", "scale_down_stabilization_window")
        self.put(_number(Node(None, _DEFAULT), STABLE), down)
        if not self._facts.targeted:
            self.put(Node("utilization", _DEFAULT), ("scaling", "policy", "metric"))


def _with(under: Node | None, path: Path, node: Node) -> Node:
    """The mapping `under` with a value at a path below it."""
    if not path:
        return node
    below = under.mapping if under is not None else {}
    place = under if under is not None and under.value is not None else node._replace(text="")
    return place._replace(value={**below, path[0]: _with(below.get(path[0]), path[1:], node)})


def _share(node: Node | None) -> float | None:
    """80, "80" and "80%" as a share of one; None where it is an amount."""
    text = scalar_text(node.value).removesuffix("%") if node is not None else ""
    percent = resolve_scalar(text)
    return percent / 100 if isinstance(percent, int | float) and percent is not True else None


def _number(node: Node, value: float) -> Node:
    return node._replace(value=value, text=scalar_text(value))

"""Layers to the wanted state: merge, fill, check, build. Pure.

Everything is checked, also what stands beside a fault, so that all problems are told at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stoker.config.assemble import Deployment, Project, RawLayers
from stoker.config.bentoml import Translation, form_of, translate
from stoker.config.build import Context, build_service, type_resources
from stoker.config.cross import (
    check_box,
    check_depends,
    check_deployments,
    check_guarantees,
    check_names,
    check_ports,
    out_of_reach,
)
from stoker.config.ingress import build_door, check_door_ports, join_doors
from stoker.config.instance_types import CATALOGUE
from stoker.config.interpolate import fill
from stoker.config.layers import merge_layers
from stoker.config.outcome import EffectiveConfig, Resolved
from stoker.config.schema import DEPLOYMENT_NAME, BoxSection, FileSection, ServiceSection
from stoker.config.tree import Node, Path, Report, find, found, place
from stoker.config.validate import check
from stoker.errors import ConfigError, ConfigProblem
from stoker.model.door import Door
from stoker.model.service import BentoService, BoxSpec, DesiredState, ServiceSpec

CANNOT_LAUNCH = "reading a bento takes the BentoML plugin, which is not loaded"
MAX_SERVICES = 1000
MAX_PROBLEMS = 100
MAX_LENGTH = 500
_PLACE = re.compile(r"\S.*:\d+:\d+: ")
"""How a message begins that says where."""


@dataclass(frozen=True, slots=True)
class _Checked:
    """A deployment with its specs, those of faulty services too."""

    resolved: Resolved
    file: FileSection
    specs: dict[str, ServiceSpec]
    report: Report
    notices: list[str]
    door: Door | None = None


def resolve(raw: RawLayers, *, to_run: bool = True) -> EffectiveConfig:
    """Return the wanted state. Raises ConfigError with every problem, of reading and of meaning.

    `to_run` False: only to be checked, so that what cannot be started here (a bento) is no problem.
    """
    problems = list(raw.problems)
    checked = [_deployment(one, raw.environ, to_run=to_run) for one in raw.deployments]
    check_deployments([(one.resolved.name, one.resolved.file, one.report) for one in checked])
    check_ports((spec, one.report) for one in checked for spec in one.specs.values())
    doors = [(one.door, one.report) for one in checked if one.door is not None]
    check_door_ports(doors, [spec for one in checked for spec in one.specs.values()])
    joined = join_doors(doors)
    box = _box(checked)
    check_guarantees([(spec, one.report) for one in checked for spec in one.specs.values()], box)
    problems += [problem for one in checked for problem in one.report.problems]
    if problems:
        raise ConfigError(*_told(problems))
    specs = [spec for one in checked for spec in one.specs.values()]
    idle = tuple(f"override {path} has no effect: its service does not exist" for path in raw.idle_overrides)
    return EffectiveConfig(
        desired=DesiredState(services={spec.key: spec for spec in specs}, box=box, doors=joined),
        watch=raw.watch,
        notices=(*raw.notices, *idle, *(notice for one in checked for notice in one.notices)),
        files=raw.files,
        layers=tuple(one.resolved for one in checked),
        idle_overrides=raw.idle_overrides,
    )


def _told(problems: Sequence[ConfigProblem]) -> list[ConfigProblem]:
    """In the order of their places, each once, and not more than anyone reads."""
    clean = [
        one._replace(file=_printable(one.file), path=_printable(one.path), message=_printable(one.message))
        for one in problems
    ]
    order = sorted(dict.fromkeys(clean), key=lambda one: (one.file, one.line, one.column, one.path))
    if len(order) <= MAX_PROBLEMS:
        return order
    last = order[MAX_PROBLEMS - 1]
    more = ConfigProblem(
        f"and {len(order) - MAX_PROBLEMS + 1} more problems", last.file, last.line, last.column
    )
    return [*order[: MAX_PROBLEMS - 1], more]


def _printable(text: str) -> str:
    """The text on one line of bearable length: a key may be anything, also what moves a terminal's cursor."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:MAX_LENGTH])
    return shown if len(text) <= MAX_LENGTH else f"{shown}..."


def _deployment(deployment: Deployment, environ: Mapping[str, str], *, to_run: bool) -> _Checked:
    tree, faults = fill(merge_layers(deployment.layers), environ)
    layers, form, told = deployment.layers, form_of(tree), Translation(layers=())
    written = tree if form else None
    if form == "deployment":
        told = translate(layers, tree, environ)
        if told.problems:
            return _untranslated(deployment, tree, [*faults, *told.problems])
        layers = told.layers
        tree, faults = fill(merge_layers(layers), environ)
    report = Report(tree)
    report.problems += faults
    whole = FileSection()
    if isinstance(tree.value, dict):
        top = tree._replace(value={key: node for key, node in tree.value.items() if key != "services"})
        section, faults = check(FileSection, top, ())
        report.problems += faults
        whole = section or whole
    name = _name(whole, deployment, report)
    context = Context(
        deployment=name,
        folder=deployment.source.folder,
        home=environ.get("HOME", "/"),
        types={
            key: type_resources(section, CATALOGUE.get(key)) for key, section in whole.instance_types.items()
        },
        secrets=tuple(whole.secrets),
        report=report,
        backend=whole.backend,
        runtime_env=whole.ray.runtime_env,
        slurm=whole.slurm,
        bento=(whole.bento or "") if form == "deployment" or (form and not to_run) else None,
    )
    specs = _of_project(_services(context), deployment.project)
    notices = [*told.notices, *context.notices]
    notices += _about_bento(context, specs, deployment.project, to_run=to_run)
    resolved = Resolved(
        name=name,
        file=deployment.source.label,
        layers=layers,
        tree=tree,
        derived=_derived(context),
        types=context.types,
        folders={name: spec.working_dir for name, spec in specs.items()},
        written=written,
    )
    door = build_door(
        whole.ingress,
        specs,
        tuple(services.mapping) if (services := find(tree, ("services",))) is not None else (),
        report,
        folder=context.folder,
        home=context.home,
    )
    return _Checked(resolved, whole, specs, report, [_named(name, notice) for notice in notices], door)


def _untranslated(deployment: Deployment, tree: Node, problems: Sequence[ConfigProblem]) -> _Checked:
    """A BentoML file with faults: more would only be said of them twice."""
    report = Report(tree)
    report.problems += problems
    name, file = deployment.name, deployment.source.label
    resolved = Resolved(name=name, file=file, layers=deployment.layers, tree=tree)
    return _Checked(resolved, FileSection(), {}, report, [])


def _of_project(specs: dict[str, ServiceSpec], project: Project | None) -> dict[str, ServiceSpec]:
    """The specs with what the project says of how they are launched."""
    if project is None:
        return specs
    return {
        name: replace(
            spec,
            launch=replace(
                spec.launch,
                bento=project.target,
                python=project.python,
                calls=project.calls.get(name, ()),
            ),
        )
        if isinstance(spec.launch, BentoService)
        else spec
        for name, spec in specs.items()
    }


def _about_bento(
    context: Context, specs: Mapping[str, ServiceSpec], project: Project | None, *, to_run: bool
) -> list[str]:
    """What is to be said of services that only their bento can tell how to run."""
    if context.bento is None or (specs and not any(_of_bento(spec) for spec in specs.values())):
        return []
    if context.bento and project is not None and not project.absent:
        return []
    lacking = project.absent if project is not None else CANNOT_LAUNCH
    if to_run:
        message = lacking if context.bento else "this BentoML file names no bento; add `bento:`"
        context.report.add(("bento",), message)
        return []
    if context.bento:
        return [f"the bento {context.bento} was not read, this file alone was checked: {lacking}"]
    return ["names no bento, so this part of a BentoML deployment was checked alone; add `bento:` to run it"]


def _of_bento(spec: ServiceSpec) -> bool:
    return isinstance(spec.launch, BentoService)


def _name(whole: FileSection, deployment: Deployment, report: Report) -> str:
    if whole.name is not None:
        return whole.name
    if not re.fullmatch(DEPLOYMENT_NAME, deployment.stem) and find(report.tree, ("name",)) is None:
        report.add(
            ("name",), "the file's own name is no deployment name; add `name:` (letters, digits, . _ -)"
        )
    return deployment.stem


def _derived(context: Context) -> Mapping[Path, tuple[Any, str]]:
    """Values that no layer wrote, the name from the file's own among them."""
    if find(context.report.tree, ("name",)) is None:
        context.derived["name",] = context.deployment, "the file's own name"
    return context.derived


def _services(context: Context) -> dict[str, ServiceSpec]:
    """The specs of all services that can be read at all."""
    report = context.report
    services = find(report.tree, ("services",))
    if services is None or services.value is None:
        if context.bento:
            return {}
        report.add(("services",), "no services; add for example services: {web: {command: python app.py}}")
        return {}
    if not isinstance(services.value, dict):
        report.add(("services",), f"must be a mapping of services by name; found {found(services.value)}")
        return {}
    if len(services.value) > MAX_SERVICES:
        report.add(("services",), f"{len(services.value)} services; at most {MAX_SERVICES} are possible")
        return {}
    specs: dict[str, ServiceSpec] = {}
    for name, node in services.value.items():
        many = len(report.problems) >= MAX_PROBLEMS
        section, faults = check(ServiceSection, node, ("services", name), hints=not many)
        report.problems += faults
        if section is not None:
            specs[name] = build_service(name, section, context)
    check_names(services.value, report)
    check_depends(specs, list(services.value), report)
    context.notices.extend(out_of_reach(specs))
    return specs


def _box(checked: Sequence[_Checked]) -> BoxSpec:
    """The one box of all files."""
    values: dict[str, Any] = {}
    for key in BoxSection.model_fields:
        given = [
            (getattr(one.file.box, key), _box_place(one, key), one.report)
            for one in checked
            if key in one.file.box.model_fields_set
        ]
        if given:
            check_box(key, given)
            values[key] = given[0][0]
    addresses = [one.file.ray.address for one in checked if "address" in one.file.ray.model_fields_set]
    if addresses:
        values["ray"] = addresses[0]
    return BoxSpec(**values)


def _box_place(one: _Checked, key: str) -> str:
    node = find(one.resolved.tree, ("box", key))
    return place(node.source, node.line, node.column) if node is not None else one.resolved.file


def _named(deployment: str, notice: str) -> str:
    """With the name of the deployment, unless it has a place of its own."""
    return notice if _PLACE.match(notice) else f"{deployment}: {notice}"

"""`stoker simulate`: a recorded load through the same policies, windows and budget."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from stoker.cli.quick import print_json
from stoker.cli.session import config_options, output_option
from stoker.cli.values import DURATION

if TYPE_CHECKING:
    from stoker.config.load import EffectiveConfig
    from stoker.decide.budget import Amount
    from stoker.model.service import ServiceSpec
    from stoker.simulate.replay import Apportion, Case, Outcome
    from stoker.simulate.report import Figures
    from stoker.simulate.trace import Trace

SLO_WAIT = 2.0
"""Seconds of waiting that count as good where neither the file nor the command says."""

_MOST_STRIPS = 4
"""Runs that are also drawn in the terminal; more would only scroll by."""


@click.command()
@config_options
@click.option("--trace", "trace_path", required=True, metavar="CSV", type=click.Path(),
              help="The load: arrival_s, service_s and maybe service; .gz too.")  # fmt: skip
@click.option("--service", metavar="S", help="The service that the trace is for; with a column, only that.")
@click.option("--startup", type=DURATION, default="20s", show_default=True,
              help="From the decision to a ready replica.")  # fmt: skip
@click.option("--slo-wait", type=DURATION, help="Longest good wait in the queue.  [default: slo.wait, or 2s]")
@click.option("--policy", "policies", multiple=True, metavar="NAME",
              help="Scale by this policy instead; several are compared.")  # fmt: skip
@click.option("--sweep", metavar="NAME=V,V",
              help="Once for each value of target, max_replicas, startup or the like.")  # fmt: skip
@click.option("--initial", type=click.IntRange(min=0), metavar="N",
              help="Ready replicas at the beginning.  [default: min_replicas]")  # fmt: skip
@click.option("--gpus", type=click.FloatRange(min=0), metavar="N",
              help="Devices of the box that the services share.  [default: no limit]")  # fmt: skip
@click.option("--cpus", type=click.FloatRange(min=0), metavar="N", help="Cores of the box, likewise.")
@click.option("--plot", metavar="PNG", type=click.Path(), help="Draw replicas, load, queue and misses.")
@output_option
def command(files: tuple[str, ...], sets: tuple[str, ...], profile: str | None, trace_path: str,
            output: str, plot: str | None, **given: Any) -> None:  # fmt: skip
    """Replay a load through the scaling of FILE: how many requests wait too long, at which cost.

    Every request is served in the end: no queue limit, no timeouts. The pool begins with its min_replicas
    ready. BOUND is the cost of a schedule that knows the future and lets nobody wait too long.
    """
    from stoker.cli import launch, loading
    from stoker.simulate.box import SharedBox
    from stoker.simulate.replay import grant_all
    from stoker.simulate.report import figures
    from stoker.simulate.trace import read_trace

    effective = loading.load(launch.default_files(files), profile=profile, sets=sets)
    cases = _cases(effective, read_trace(trace_path), trace_path, given)
    gc.disable()  # a run makes no cycles, and a fifth of its time would go into looking for some
    try:
        box, idle = _box(cases, given), effective.desired.box.idle
        outcomes = []
        for variant in _variants(cases, given):
            outcomes += _run(variant, SharedBox(box, idle=idle) if box else grant_all)
    finally:
        gc.enable()
    rows = [figures(outcome) for outcome in outcomes]
    labels = _labels(rows, len(cases), given)
    if plot:
        from stoker.simulate.plot import write_plot

        write_plot(plot, outcomes, [f"{row.name}, {label}" for row, label in zip(rows, labels, strict=True)])
    if output == "json":
        print_json(
            {"services": [_document(row, label, given) for row, label in zip(rows, labels, strict=True)]}
        )
        return
    _print(rows, labels, outcomes)


def _cases(
    effective: EffectiveConfig, traces: Mapping[str, Trace], path: str, given: Mapping[str, Any]
) -> list[Case]:
    """The services that the trace feeds, in the file's order. Raises UsageError or ConfigError."""
    from stoker.cli.exits import UsageError
    from stoker.errors import ConfigError, ConfigProblem
    from stoker.simulate.replay import Case

    specs = list(effective.desired.services.values())
    only = _named(specs, given["service"]) if given["service"] else None
    found: dict[str, Trace] = {}
    for name, trace in traces.items():
        if name:
            spec = _lookup(specs, name)
            if spec is None:
                known = ", ".join(sorted(spec.name for spec in specs))
                message = f"the trace feeds {name!r}, which is no service; there are: {known}"
                raise ConfigError(ConfigProblem(message, file=path))
        else:
            spec = only or (specs[0] if len(specs) == 1 else None)
        if spec is None:
            names = ", ".join(spec.name for spec in specs)
            raise UsageError(f"the trace has no column `service`; say --service, one of: {names}")
        if only is None or spec is only:
            found[spec.key] = trace
    if not found:
        raise UsageError(f"the trace has no request for {given['service']}")
    chosen = [spec for spec in specs if spec.key in found]
    for spec in chosen:
        if spec.scaling.max_replicas == 0 or spec.held:
            raise UsageError(f"{spec.name} has max_replicas 0: nothing would ever serve it")
    wait = given["slo_wait"]
    return [
        Case(
            spec=spec if wait is None else replace(spec, slo_wait=wait),
            trace=found[spec.key],
            startup=given["startup"],
            slo_wait=(spec.slo_wait or SLO_WAIT) if wait is None else wait,
            initial=given["initial"],
        )
        for spec in chosen
    ]


def _lookup(specs: Sequence[ServiceSpec], name: str) -> ServiceSpec | None:
    """The service of that key or, where only one has it, of that name."""
    by_name = [spec for spec in specs if name in (spec.key, spec.name)]
    return by_name[0] if len(by_name) == 1 else None


def _named(specs: Sequence[ServiceSpec], name: str) -> ServiceSpec:
    from stoker.cli.exits import UsageError

    found = _lookup(specs, name)
    if found is None:
        raise UsageError(f"no service {name!r}; there are: {', '.join(spec.name for spec in specs)}")
    return found


def _box(cases: Sequence[Case], given: Mapping[str, Any]) -> Amount | None:
    """The box if anything was said of it. Raises UsageError if the guarantees do not fit."""
    import math

    from stoker.cli.exits import UsageError
    from stoker.decide.budget import Amount, overcommitted
    from stoker.decide.claims import guarantee_of

    gpus, cpus = given["gpus"], given["cpus"]
    if gpus is None and cpus is None:
        return None
    box = Amount(
        devices=math.inf if gpus is None else gpus, cpu=math.inf if cpus is None else cpus, memory=math.inf
    )
    conflict = overcommitted(box, [guarantee_of(case.spec) for case in cases])
    if conflict:
        raise UsageError(conflict)
    return box


def _variants(cases: Sequence[Case], given: Mapping[str, Any]) -> list[list[Case]]:
    """The cases under each policy that was named, with each value that is swept. Raises UsageError."""
    from stoker.cli.exits import UsageError
    from stoker.simulate.variants import parse_sweep, varied

    found = []
    try:
        sweep = parse_sweep(given["sweep"]) if given["sweep"] else None
        for metric in given["policies"] or (None,):
            ruled = [replace(c, spec=_scaled_by(c.spec, metric)) if metric else c for c in cases]
            if sweep is None:
                found.append(ruled)
            else:
                found += [[varied(case, sweep.name, value) for case in ruled] for value in sweep.values]
    except ValueError as error:
        raise UsageError(f"--sweep: {error}") from error
    return found


def _labels(rows: Sequence[Figures], services: int, given: Mapping[str, Any]) -> list[str]:
    """The policy of each row and, of a sweep, its value."""
    from stoker.simulate.variants import parse_sweep

    if not given["sweep"]:
        return [row.policy for row in rows]
    sweep = parse_sweep(given["sweep"])
    values = [value for value in sweep.values for _ in range(services)]
    return [f"{row.policy}, {sweep.label(values[i % len(values)])}" for i, row in enumerate(rows)]


def _document(row: Figures, label: str, given: Mapping[str, Any]) -> dict[str, object]:
    return {**row.document(), "variant": label} if given["sweep"] else row.document()


def _run(cases: Sequence[Case], apportion: Apportion) -> list[Outcome]:
    from stoker.cli.exits import UsageError
    from stoker.errors import PluginError
    from stoker.plugin.manager import PluginRegistry
    from stoker.plugin.ports import PluginContext, Policy
    from stoker.simulate.replay import replay

    registry = PluginRegistry()
    registry.load()
    context = PluginContext(instance="simulate", state_dir="", runtime_dir="")

    def policy(name: str) -> Policy:
        try:
            made: Policy = registry.factory("policy", name)(context)
        except PluginError as error:
            raise UsageError(str(error)) from error
        return made

    return replay(cases, policy, apportion=apportion)


def _scaled_by(spec: ServiceSpec, metric: str) -> ServiceSpec:
    """The service under that policy: by its own rule of that metric where it has one."""
    from stoker.config.build import rule_of

    rules = tuple(rule for rule in spec.scaling.policies if rule.metric == metric) or (rule_of(metric),)
    return replace(spec, scaling=replace(spec.scaling, policies=rules))


def _print(rows: Sequence[Figures], labels: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    from stoker.cli.table import Cell, Column, Table, say, show, width

    titles = (
        "REQUESTS",
        "LATE",
        "WAIT P50",
        "P95",
        "P99",
        "LATENCY P50",
        "P99",
        "REPLICA-H",
        "X BOUND",
        "STARTS",
        "PEAK",
    )
    columns = (Column("SERVICE"), Column("POLICY"), *(Column(title, right=True) for title in titles))
    table = []
    for row, label in zip(rows, labels, strict=True):
        seconds = (row.wait_p50_s, row.wait_p95_s, row.wait_p99_s, row.latency_p50_s, row.latency_p99_s)
        table.append(
            (
                Cell(row.name, "bold"),
                Cell(label),
                Cell(str(row.requests)),
                Cell(f"{row.slo_miss_ratio:.2%}", "red" if row.slo_miss_ratio > 0.01 else "green"),
                *(Cell(f"{value:.2f} s") for value in seconds),
                Cell(f"{row.replica_seconds / 3600:.2f}"),
                Cell(f"{row.replica_seconds / row.bound_replica_seconds:.2f}"),
                Cell(str(row.starts)),
                Cell(str(row.peak)),
            )
        )
    show(Table(columns, tuple(table)))
    limits = sorted({outcome.case.slo_wait for outcome in outcomes})
    starts = sorted({outcome.case.startup for outcome in outcomes})
    say(
        f"late: waited longer than {' or '.join(f'{limit:g} s' for limit in limits)}; "
        f"a replica is ready {' or '.join(f'{start:g} s' for start in starts)} after the decision",
        "dim",
    )
    bounds = sorted({(row.name, row.bound_replica_seconds / 3600) for row in rows})
    told = ", ".join(f"{hours:.2f} replica-hours for {name}" for name, hours in bounds)
    say(f"bound: {told}, nobody late, by a schedule that knows the future", "dim")
    for row in rows:
        if row.unserved:
            say(f"{row.name}, {row.policy}: {row.unserved} requests were never served", "red")
    if len(outcomes) <= _MOST_STRIPS:
        _show_strips(outcomes, [f"{r.name}, {label}" for r, label in zip(rows, labels, strict=True)], width())


def _show_strips(outcomes: Sequence[Outcome], titles: Sequence[str], columns: int | None) -> None:
    from stoker.cli.table import say
    from stoker.simulate.strips import strips

    for outcome, title in zip(outcomes, titles, strict=True):
        say()
        say(title, "bold")
        for line in strips(outcome, columns or 100):
            say(line)

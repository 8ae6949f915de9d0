"""What services mean together: dependencies, addresses, names. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from stoker.config.launch import variable_name
from stoker.config.tree import Path, Report, found
from stoker.model.quantity import format_bytes
from stoker.model.service import BoxSpec, ServiceSpec

EVERYWHERE = frozenset({"0.0.0.0", "::"})
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def check_names(names: Iterable[str], report: Report) -> None:
    """Names that would share one variable (STOKER_URL_A_B for a-b and a_b)."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(variable_name(name), name)
        if other != name:
            message = (
                f"differs from {other} only in case, - and _: STOKER_URL_{variable_name(name)} would be both"
            )
            report.add(("services", name), message, key=True)


def check_depends(specs: Mapping[str, ServiceSpec], names: Sequence[str], report: Report) -> None:
    """Unknown dependencies and cycles. `names`: all services, those with faults of their own too."""
    for name, spec in specs.items():
        for index, other in enumerate(spec.depends):
            if other not in names:
                others = [one for one in names if one != name]
                message = f"there is no service {other}" + report.hint(other, others)
                report.add(("services", name, "depends", str(index)), message)
    for cycle in _cycles(specs):
        path: Path = ("services", cycle[0], "depends")
        report.add(path, f"dependencies form a cycle: {' -> '.join([*cycle, cycle[0]])}", key=True)


def out_of_reach(specs: Mapping[str, ServiceSpec]) -> list[str]:
    """Dependencies that a container in a network of its own cannot call."""
    return [
        f"services.{name}.depends: {other} listens on {specs[other].endpoint.host}, which cannot be reached "
        f"from a bridge network; set services.{other}.endpoint.host to 0.0.0.0 or the bridge's address"
        for name, spec in specs.items()
        if spec.container.network == "bridge"
        for other in spec.depends
        if other in specs and specs[other].endpoint.host in LOOPBACK
    ]


def check_ports(placed: Iterable[tuple[ServiceSpec, Report]]) -> None:
    """Two services with one address, in one deployment or in two."""
    seen: dict[int, list[ServiceSpec]] = {}
    for spec, report in placed:
        host, port = spec.endpoint.host, spec.endpoint.port
        if not port:
            continue
        for other in seen.setdefault(port, []):
            if other.endpoint.host == host or EVERYWHERE & {host, other.endpoint.host}:
                message = f"port {port} is already the address of {other.key}; give this one another, or 0"
                report.add(("services", spec.name, "endpoint", "port"), message)
                break
        seen[port].append(spec)


def check_deployments(named: Sequence[tuple[str, str, Report]]) -> None:
    """Two files with one name. Each is (name, file, report)."""
    seen: dict[str, str] = {}
    for name, file, report in named:
        other = seen.setdefault(name, file)
        if other != file:
            report.add(
                ("name",), f"the deployment {name} is already defined by {other}; give this one another name"
            )


def check_box(key: str, values: Sequence[tuple[object, str, Report]]) -> None:
    """The box is one: files may not differ about it. Each is (value, place, report)."""
    for value, _, report in values[1:]:
        first, place, _ = values[0]
        if value != first:
            report.add(("box", key), f"{found(value)} contradicts {found(first)} in {place}; the box is one")


def check_guarantees(placed: Sequence[tuple[ServiceSpec, Report]], box: BoxSpec) -> None:
    """`min_replicas` of all services within what the file says the box has; told where the last one is."""
    for key, has in (("cpu", box.cpu), ("memory", box.memory)):
        sure = [
            (spec, report, (getattr(spec.resources, key) or 0) * spec.scaling.min_replicas)
            for spec, report in placed
            if getattr(spec.resources, key) and spec.scaling.min_replicas and not spec.held
        ]
        if has is None or sum(amount for _, _, amount in sure) <= has:
            continue
        words = format_bytes if key == "memory" else lambda cores: f"{cores:g} cores"
        parts = [
            f"{s.name} {s.scaling.min_replicas} x {words(getattr(s.resources, key))}" for s, _, _ in sure
        ]
        spec, report, _ = sure[-1]
        message = f"min_replicas do not fit: box.{key} is {words(has)}, and {', '.join(parts)} are guaranteed"
        report.add(("services", spec.name, "scaling", "min_replicas"), message)


def _cycles(specs: Mapping[str, ServiceSpec]) -> list[list[str]]:
    """Each cycle once, from the service that is written first in it. Linear, without recursion."""
    cycles: list[list[str]] = []
    done: set[str] = set()
    for start in specs:
        trail: list[str] = []
        stack: list[tuple[str, bool]] = [(start, False)]
        while stack:
            name, leaving = stack.pop()
            if leaving:
                trail.pop()
                done.add(name)
            elif name in trail:
                cycles.append(trail[trail.index(name) :])
            elif name not in done and name in specs:
                trail.append(name)
                stack.append((name, True))
                stack += [(other, False) for other in reversed(specs[name].depends)]
    return cycles

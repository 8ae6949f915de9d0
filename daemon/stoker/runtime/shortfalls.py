"""What a service asks for and its driver or router cannot do: said at the line that asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from stoker.config.outcome import EffectiveConfig
from stoker.config.tree import Node, child
from stoker.errors import ConfigProblem
from stoker.model.service import ServiceSpec
from stoker.plugin.manager import PluginRegistry
from stoker.runtime.router_choice import RouterChoice


def remarks(effective: EffectiveConfig, registry: PluginRegistry) -> Iterator[str]:
    """One line for each such key, `file:line:column: path: why`. A plugin that fails at it is named."""
    routers = RouterChoice(registry, effective.desired.box.router)
    trees = _trees(effective)
    for spec in effective.desired.services.values():
        router = routers.of(spec)
        asked = (
            (f"backend {spec.backend}", f"driver {spec.backend}", "shortfalls", spec.backend),
            (f"router {router}", f"router {router}", "router shortfalls", router),
        )
        for title, part, kind, name in asked:
            declared = registry.factories(kind).get(name)
            if declared is None:
                continue
            try:
                found = dict(declared(spec))
            except Exception as error:  # noqa: BLE001 - a stranger's code; the configuration is good all the same
                yield f"{part} cannot say what it lacks for {spec.key}: {error}"
                continue
            for key, why in found.items():
                path = ("services", spec.name, *key.split("."))
                yield str(problem_near(trees.get(spec.deployment), path, f"{title} {why}"))


def problem_at_router(effective: EffectiveConfig, spec: ServiceSpec | None, message: str) -> ConfigProblem:
    """That message at what chose a router: the protocol of that service, or `box.router` for None."""
    trees = _trees(effective)
    if spec is not None:
        path = ("services", spec.name, "traffic", "protocol")
        return problem_near(trees.get(spec.deployment), path, message)
    found = [problem_near(tree, ("box", "router"), message) for tree in trees.values()]
    return max(found, key=lambda problem: problem.line, default=ConfigProblem(message, path="box.router"))


def problem_near(tree: Node | None, path: Iterable[str], message: str) -> ConfigProblem:
    """A problem at the innermost key of that path that somebody has written, nowhere if there is none."""
    path = tuple(path)
    file, line, column = "", 0, 0
    for key in path:
        tree = child(tree, key) if tree is not None else None
        if tree is None:
            break
        line, column = (tree.key_line, tree.key_column) if tree.key_line else (tree.line, tree.column)
        file = tree.source.label
    return ConfigProblem(message, file, line, column, ".".join(path))


def _trees(effective: EffectiveConfig) -> Mapping[str, Node | None]:
    return {one.name: one.tree for one in effective.layers}

"""What a service asks for and its driver cannot do: said at the line that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

from stoker.config.resolve import EffectiveConfig
from stoker.config.tree import Node, child, place
from stoker.plugin.manager import PluginRegistry


def remarks(effective: EffectiveConfig, registry: PluginRegistry) -> Iterator[str]:
    """One line for each such key, `file:line:column: path: why`. A plugin that fails at it is named."""
    declared = registry.factories("shortfalls")
    trees = {one.name: one.tree for one in effective.layers}
    for spec in effective.desired.services.values():
        if spec.backend not in declared:
            continue
        try:
            found = dict(declared[spec.backend](spec))
        except Exception as error:  # noqa: BLE001 - a stranger's code; the configuration is good all the same
            yield f"driver {spec.backend} cannot say what it lacks for {spec.key}: {error}"
            continue
        for key, why in found.items():
            path = ("services", spec.name, *key.split("."))
            where = _nearest(trees.get(spec.deployment), path)
            yield f"{where}{': ' if where else ''}{'.'.join(path)}: backend {spec.backend} {why}"


def _nearest(tree: Node | None, path: tuple[str, ...]) -> str:
    """The place of the innermost key of that path that somebody has written; "" if there is none."""
    where = ""
    for key in path:
        tree = child(tree, key) if tree is not None else None
        if tree is None:
            break
        line, column = (tree.key_line, tree.key_column) if tree.key_line else (tree.line, tree.column)
        where = place(tree.source, line, column)
    return where

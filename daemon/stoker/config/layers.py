"""Layers of one deployment, lowest first, and how they become one tree. Pure.

Mappings merge deeply, `envs` merge by name (as a mapping or as a list of {name, value}), other lists
replace, null leaves what is under it. A key that excludes others (`command` and `python`, the ways of a
probe) replaces these in the layers under it, and so does a policy of another metric.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stoker.config.tree import Node, Path, Report, found
from stoker.errors import ConfigProblem

LAUNCH_WAYS = frozenset({"command", "python", "image", "bento"})
_PAIR = frozenset({"name", "value", "stage"})
PROBE_WAYS = frozenset({"http", "tcp", "exec", "notify"})


@dataclass(frozen=True, slots=True)
class Layer:
    """One source's tree (a mapping) with its `envs` in one form: name -> text."""

    tree: Node

    @property
    def services(self) -> dict[str, Node]:
        """What it says of each service."""
        services = self.tree.mapping.get("services")
        return services.mapping if services is not None else {}


def make_layer(tree: Node) -> tuple[Layer, list[ConfigProblem]]:
    """Return a document's tree as a layer, and what is wrong with its form."""
    report = Report(tree)
    if not isinstance(tree.value, dict):
        report.add(
            (), f"must be a mapping of keys such as name, envs and services; found {found(tree.value)}"
        )
        return Layer(tree._replace(value={})), report.problems
    whole = _without_asides(tree)
    if "envs" in whole:
        whole["envs"] = _by_name(whole["envs"], ("envs",), report)
    services = whole.get("services")
    if services is not None and services.mapping:
        rewritten = {
            name: _service_texts(service, ("services", name), report)
            for name, service in services.mapping.items()
        }
        whole["services"] = services._replace(value=rewritten)
    return Layer(tree._replace(value=whole)), report.problems


def merge_layers(layers: Sequence[Layer]) -> Node:
    """Return one tree of all layers, lowest first; there is at least one.

    Within one layer a service's own variable beats one given for all, across layers the higher one
    does: so each service's `envs` are folded layer by layer.
    """
    merged: Node | None = None
    for layer in layers:
        merged = merge(merged, layer.tree, ())
    if merged is None:
        raise ValueError("no layers")
    services = merged.mapping.get("services")
    if services is None or not services.mapping:
        return merged
    folded = {name: _fold_envs(name, service, layers) for name, service in services.mapping.items()}
    return merged._replace(value={**merged.mapping, "services": services._replace(value=folded)})


def merge(under: Node | None, over: Node, path: Path) -> Node:
    """Return `over` laid on `under`; `path` is where in the file both stand."""
    if under is None:
        return over
    if over.value is None:
        return under
    if not isinstance(under.value, dict) or not isinstance(over.value, dict):
        return over
    together = _without_excluded(under.value, over.value, path)
    for key, node in over.value.items():
        together[key] = merge(together.get(key), node, (*path, key))
    # A mapping stands where a person first wrote it; the code layer is only a fallback.
    first = over if under.source.layer == "code" or not under.line else under
    return first._replace(value=together)


def _without_excluded(under: dict[str, Node], over: dict[str, Node], path: Path) -> dict[str, Node]:
    """The keys of the lower mapping that the higher one leaves standing."""
    match path:
        case ("services", _):
            ways = LAUNCH_WAYS
        case ("services", _, "probes", _):
            ways = PROBE_WAYS
        case ("services", _, "scaling", "policy"):
            return {} if _other_metric(under, over) else dict(under)
        case _:
            return dict(under)
    said = {key for key, node in over.items() if key in ways and node.value not in (None, False)}
    if not said:
        return dict(under)
    if said in ({"command"}, {"image"}):
        ways = ways - {"command", "image"} | said  # an image may have a command laid on it, and a command one
    return {key: node for key, node in under.items() if key not in ways}


def _other_metric(under: dict[str, Node], over: dict[str, Node]) -> bool:
    """Whether a policy is of another metric, so that a target meant for the lower one makes no sense."""
    wanted = over.get("metric")
    if wanted is None or wanted.value is None:
        return False
    before = under.get("metric")
    return wanted.value != (before.value if before is not None else "concurrency")


def _fold_envs(name: str, service: Node, layers: Iterable[Layer]) -> Node:
    envs: Node | None = None
    for layer in layers:
        own = layer.services.get(name)
        given = (layer.tree.mapping.get("envs"), own.mapping.get("envs") if own is not None else None)
        for node in given:
            if node is not None and node.value is not None:
                envs = merge(envs, node, ())
    if envs is None or (service.value is not None and not isinstance(service.value, dict)):
        return service
    return service._replace(value={**service.mapping, "envs": envs})


def _service_texts(service: Node, path: Path, report: Report) -> Node:
    """The service with the values of its variables and the words of its commands as they were written."""
    whole = _without_asides(service)
    if "envs" in whole:
        whole["envs"] = _by_name(whole["envs"], (*path, "envs"), report)
    if "command" in whole:
        whole["command"] = _words(whole["command"])
    overrides = whole.get("config_overrides")
    if overrides is not None and "envs" in overrides.mapping:
        envs = _by_name(overrides.mapping["envs"], (*path, "config_overrides", "envs"), report)
        whole["config_overrides"] = overrides._replace(value={**overrides.mapping, "envs": envs})
    probes = whole.get("probes")
    if probes is not None and probes.mapping:
        whole["probes"] = probes._replace(
            value={
                name: probe._replace(value={**probe.mapping, "exec": _words(probe.mapping["exec"])})
                if "exec" in probe.mapping
                else probe
                for name, probe in probes.mapping.items()
            }
        )
    return service._replace(value=whole) if service.mapping else service


def _without_asides(section: Node) -> dict[str, Node]:
    """The keys of a mapping but for `x-...`, a place for anchors as in docker compose."""
    return {key: node for key, node in section.mapping.items() if not key.startswith("x-")}


def _words(command: Node) -> Node:
    return command._replace(value=[_as_text(word) for word in command.items]) if command.items else command


def _by_name(envs: Node, path: Path, report: Report) -> Node:
    """`envs` as a mapping of texts. What cannot be one is left for the schema to complain about."""
    if isinstance(envs.value, dict):
        return envs._replace(value={name: _as_text(node) for name, node in envs.value.items()})
    if not isinstance(envs.value, list):
        return envs
    named: dict[str, Node] = {}
    for index, item in enumerate(envs.value):
        name, value = item.mapping.get("name"), item.mapping.get("value")
        where = (*path, str(index))
        stage = item.mapping.get("stage")  # BentoML's: in a file it has no meaning there, nor here
        if name is None or not isinstance(name.value, str) or not item.mapping.keys() <= _PAIR:
            report.add(where, "must be {name: NAME, value: TEXT}, for example {name: LOG_LEVEL, value: info}")
        elif stage is not None and stage.value not in (None, "all", "build", "runtime"):
            report.add((*where, "stage"), f"must be all, build or runtime; found {found(stage.value)}")
        elif value is None:
            report.add(where, f"{name.value} has no value; add value: TEXT")
        elif name.value in named:
            report.add((*where, "name"), f"duplicate variable {name.value}")
        else:
            keyed = value._replace(key_line=name.line, key_column=name.column)
            named[name.value] = _as_text(keyed)
    return envs._replace(value=named)


def _as_text(node: Node) -> Node:
    """A value as it was written: 1.10 stays "1.10", true stays "true"."""
    return node._replace(value=node.text) if isinstance(node.value, bool | int | float) else node

"""Finds plugins, loads each under its own guard, answers which parts there are.

A plugin that fails to load costs itself alone: the reason stands in `stoker plugins`. Only when the
configuration names a part that is missing does it become an error, which then quotes that reason.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any, Literal

import pluggy

from stoker.errors import PluginError
from stoker.plugin import hookspecs

GROUP = "stoker"

KINDS = {
    "driver": "stoker_worker_drivers",
    "shortfalls": "stoker_driver_shortfalls",
    "device source": "stoker_device_sources",
    "router": "stoker_routers",
    "router shortfalls": "stoker_router_shortfalls",
    "policy": "stoker_policies",
    "event sink": "stoker_event_sinks",
    "application": "stoker_applications",
}
"""What plugins can bring, and the hook that declares it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginRecord:
    """One plugin as `stoker plugins` shows it. `parts` are strings such as "driver: process"."""

    name: str
    distribution: str = ""
    version: str = ""
    state: Literal["loaded", "failed"] = "loaded"
    reason: str = ""
    parts: tuple[str, ...] = ()


class PluginRegistry:
    """The parts that were found, by kind and name."""

    def __init__(self) -> None:
        self.records: list[PluginRecord] = []
        self._parts: dict[tuple[str, str], tuple[str, Callable[..., Any]]] = {}

    def load(
        self, points: Iterable[EntryPoint] | None = None, *, disabled: frozenset[str] = frozenset()
    ) -> None:
        """Load every entry point of the group `stoker` (or the given ones), each under its own guard."""
        found = entry_points(group=GROUP) if points is None else points
        for point in sorted(found, key=lambda point: point.name):
            if point.name not in disabled:
                self._load_one(point)

    def register(self, name: str, plugin: object) -> None:
        """Load one plugin object that has no entry point (tests, simulations). Raises PluginError."""
        self.records.append(PluginRecord(name=name, parts=self._declare(name, plugin)))

    def factory(self, kind: str, name: str) -> Callable[..., Any]:
        """The factory of that part. Raises PluginError naming the nearest part or the failed plugin."""
        found = self._parts.get((kind, name))
        if found:
            return found[1]
        broken = "; ".join(
            f"plugin {r.name} failed to load: {r.reason}" for r in self.records if r.state == "failed"
        )
        near = difflib.get_close_matches(name, self.names(kind), 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(self.names(kind)) or 'none'}"
        raise PluginError(f"no {kind} named {name!r}; {hint}" + (f" ({broken})" if broken else ""))

    def factories(self, kind: str) -> Mapping[str, Callable[..., Any]]:
        """All factories of a kind, by name."""
        return {name: made for (of, name), (_, made) in self._parts.items() if of == kind}

    def names(self, kind: str) -> list[str]:
        """The names of all parts of a kind."""
        return sorted(name for of, name in self._parts if of == kind)

    def _load_one(self, point: EntryPoint) -> None:
        distribution, version = _provenance(point.dist)
        record = PluginRecord(name=point.name, distribution=distribution, version=version)
        try:
            record = replace(record, parts=self._declare(point.name, point.load()))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's code; its faults cost it alone
            record = replace(record, state="failed", reason=f"{type(error).__name__}: {error}")
        self.records.append(record)

    def _declare(self, name: str, plugin: object) -> tuple[str, ...]:
        """Ask one plugin for its parts, in a manager of its own so that it can spoil no other."""
        manager = pluggy.PluginManager("stoker")
        manager.add_hookspecs(hookspecs)
        manager.register(plugin, name)
        manager.check_pending()
        declared: dict[tuple[str, str], Callable[..., Any]] = {}
        for kind, hook in KINDS.items():
            for answer in getattr(manager.hook, hook)():
                for part, factory in answer.items():
                    if not callable(factory):
                        raise PluginError(
                            f"{hook} of plugin {name} gives {part!r} as {factory!r}, which is no factory"
                        )
                    declared[kind, part] = factory
        for (kind, part), factory in declared.items():
            if (kind, part) in self._parts:
                raise PluginError(
                    f"{kind} {part!r} is already there, from plugin {self._parts[kind, part][0]}"
                )
            self._parts[kind, part] = (name, factory)
        return tuple(f"{kind}: {part}" for kind, part in sorted(declared))


@lru_cache(maxsize=8)
def _provenance(dist: Distribution | None) -> tuple[str, str]:
    """Name and version of a distribution, which usually brings several plugins: each asking reads a file."""
    metadata: Any = dist.metadata if dist else {"Name": "", "Version": ""}
    return metadata["Name"], metadata["Version"]

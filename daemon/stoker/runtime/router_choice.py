"""Which router a service is given: that of the box, unless it does not speak the service's protocol."""

from __future__ import annotations

from stoker.model.service import ServiceSpec
from stoker.plugin.manager import PluginRegistry

PROTOCOL = "traffic.protocol"
"""The key of a router's shortfalls that says it does not speak what the service speaks."""


class RouterChoice:
    """The choice under one configuration. `first`: what `box.router` names."""

    def __init__(self, registry: PluginRegistry, first: str) -> None:
        self._registry = registry
        self._first = first

    def of(self, spec: ServiceSpec) -> str:
        """The name of the router for that service. Where none speaks its protocol it is the box's, whose
        shortfalls say so."""
        others = [name for name in self._registry.names("router") if name != self._first]
        for name in (self._first, *others):
            if self._speaks(name, spec):
                return name
        return self._first

    def _speaks(self, name: str, spec: ServiceSpec) -> bool:
        declared = self._registry.factories("router shortfalls").get(name)
        if declared is None:
            return name == self._first or spec.traffic.protocol == "http"
        try:
            return PROTOCOL not in declared(spec)
        except Exception:  # noqa: BLE001 - a stranger's code; what it lacks is asked again for the remarks, which tell
            return name == self._first

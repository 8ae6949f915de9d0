"""Which router a service is given: that of the box, unless it does not speak the service's protocol."""

from __future__ import annotations

from collections.abc import Callable

from stoker.model.service import ServiceKey, ServiceSpec
from stoker.plugin.manager import PluginRegistry

PROTOCOL = "traffic.protocol"
"""The key of a router's shortfalls that says it does not speak what the service speaks."""


class RouterChoice:
    """The choice under one configuration. `first`: what `box.router` names."""

    def __init__(self, registry: PluginRegistry, first: str) -> None:
        self._registry = registry
        self.first = first
        self._chosen: dict[ServiceKey, tuple[ServiceSpec, str]] = {}
        """What was chosen last, and for which spec: a table of many services is made often."""

    def of(self, spec: ServiceSpec) -> str:
        """The name of the router for that service. Where none speaks its protocol it is the box's, whose
        shortfalls say so."""
        known = self._chosen.get(spec.key)
        if known is None or known[0] is not spec:
            known = self._chosen[spec.key] = spec, self._choose(spec)
        return known[1]

    def _choose(self, spec: ServiceSpec) -> str:
        others = [name for name in self._registry.names("router") if name != self.first]
        for name in (self.first, *others):
            if self._speaks(name, spec):
                return name
        return self.first

    def _speaks(self, name: str, spec: ServiceSpec) -> bool:
        declared = self._registry.factories("router shortfalls").get(name)
        if declared is None:
            return name == self.first or spec.traffic.protocol == "http"
        try:
            return PROTOCOL not in declared(spec)
        except Exception:  # noqa: BLE001 - a stranger's code; what it lacks is asked again for the remarks, which tell
            return name == self.first


class Chooser:
    """The router of each service as things stand. `lookup` gives its present spec, `first` what `box.router`
    names now."""

    def __init__(
        self,
        registry: PluginRegistry,
        lookup: Callable[[ServiceKey], ServiceSpec | None],
        first: Callable[[], str],
    ) -> None:
        self._registry = registry
        self._lookup = lookup
        self._first = first
        self._choice = RouterChoice(registry, first())

    def of(self, service: ServiceKey) -> str | None:
        """Its name; None for a service that is configured no more."""
        first, spec = self._first(), self._lookup(service)
        if self._choice.first != first:
            self._choice = RouterChoice(self._registry, first)
        return None if spec is None else self._choice.of(spec)

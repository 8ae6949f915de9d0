"""STATE/routers.json: the routers in use and the services of each, for the next daemon to find them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from stoker.model.service import ServiceKey
from stoker.runtime.router_member import base_of
from stoker.runtime.store import Store

NAME = "routers"


class RouterRecord:
    """`trouble` is told what an operator must know."""

    def __init__(self, store: Store, trouble: Callable[[str], None]) -> None:
        self._store = store
        self._trouble = trouble

    def known(self, first: str, there: Collection[str]) -> dict[str, Sequence[ServiceKey]]:
        """The box's router, and those of the daemon before as far as plugins still bring them."""
        before = self._store.read(NAME)
        found: dict[str, Sequence[ServiceKey]] = {first: []}
        for name, services in before.items():
            if base_of(name) in there:
                found[name] = services if isinstance(services, list) else []
        return found

    def keep(self, members: Mapping[str, Sequence[ServiceKey]]) -> None:
        """Write down who has what."""
        try:
            self._store.write(NAME, members)
        except OSError as error:
            self._trouble(f"cannot record the routers in use: {error}")

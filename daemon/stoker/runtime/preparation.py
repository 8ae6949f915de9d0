"""Has drivers fetch what new workers need (images) before anything waits for them, and says so meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio import CancelScope
from anyio.abc import TaskGroup

from stoker.errors import StokerError
from stoker.model.event import Event, ServicePreparing, SpawnFailed
from stoker.model.service import Container, DesiredState, ServiceKey, ServiceSpec
from stoker.plugin.ports import PreparingDriver, WorkerDriver

SHORTEST, LONGEST = 2.0, 120.0
"""Seconds between two tries."""


class Preparation:
    """One task for each service that waits for something. `driver` gives a backend's driver."""

    def __init__(
        self,
        *,
        tasks: TaskGroup,
        driver: Callable[[str], WorkerDriver],
        lookup: Callable[[ServiceKey], ServiceSpec | None],
        post: Callable[[Event], None],
    ) -> None:
        self._tasks = tasks
        self._driver = driver
        self._lookup = lookup
        self._post = post
        self._known: dict[ServiceKey, Container] = {}
        """What was fetched, or is being fetched, for each service."""
        self._scopes: dict[ServiceKey, CancelScope] = {}

    def consider(self, desired: DesiredState) -> None:
        """A configuration is about to come into force: begin with what is new in it."""
        for key in self._known.keys() - desired.services.keys():
            self._forget(key)
        for spec in desired.services.values():
            wanted = spec.container
            if wanted.image and (self._known.get(spec.key) != wanted or wanted.pull == "always"):
                self._begin(spec)

    def after_event(self, event: Event) -> None:
        """A start has failed: what it needs may be gone again."""
        if isinstance(event, SpawnFailed) and event.service in self._known:
            spec = self._lookup(event.service)
            if spec is not None and event.service not in self._scopes:
                self._begin(spec)

    def _begin(self, spec: ServiceSpec) -> None:
        self._forget(spec.key)
        self._known[spec.key] = spec.container
        scope = self._scopes[spec.key] = CancelScope()
        self._post(ServicePreparing(service=spec.key, reason=f"looks for the image {spec.container.image}"))
        self._tasks.start_soon(self._fetch, spec, scope)

    def _forget(self, key: ServiceKey) -> None:
        self._known.pop(key, None)
        scope = self._scopes.pop(key, None)
        if scope is not None:
            scope.cancel()

    async def _fetch(self, spec: ServiceSpec, scope: CancelScope) -> None:
        """Until it is there, however often that fails: a registry may be away for long."""
        pause = SHORTEST
        with scope:
            while True:
                try:
                    driver = self._driver(spec.backend)
                    if isinstance(driver, PreparingDriver):
                        await driver.prepare(spec, lambda text: self._say(spec.key, text))
                    break
                except Exception as error:  # noqa: BLE001 - a driver is a stranger; the service waits, the daemon does not
                    words = (
                        str(error) if isinstance(error, StokerError) else f"{type(error).__name__}: {error}"
                    )
                    self._say(spec.key, f"{words}; tried again in {pause:g} s")
                await anyio.sleep(pause)
                pause = min(pause * 2, LONGEST)
            self._scopes.pop(spec.key, None)
            self._say(spec.key, "")

    def _say(self, service: ServiceKey, reason: str) -> None:
        self._post(ServicePreparing(service=service, reason=reason))

"""The plugin parts of one daemon: made on first use, checked against the configuration."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup

from stoker.config.outcome import EffectiveConfig
from stoker.errors import ConfigError, ConfigProblem, PluginError
from stoker.model.device import Inventory
from stoker.model.event import Event, InventoryChanged, Notice
from stoker.model.service import DesiredState, ServiceKey
from stoker.plugin.manager import PluginRegistry
from stoker.plugin.ports import (
    Application,
    DeviceSource,
    EventSink,
    PluginContext,
    Policy,
    RefreshableSource,
    ReleasableSource,
    RetainingDriver,
    Router,
    WorkerDriver,
)
from stoker.runtime.clusters import Clusters
from stoker.runtime.journal import Journal
from stoker.runtime.preparation import Preparation
from stoker.runtime.router_choice import RouterChoice
from stoker.runtime.router_member import base_of
from stoker.runtime.shortfalls import problem_at_router, remarks

CLOSING = 5.0
"""Seconds a driver gets to close."""


class Parts:
    """What plugins bring to this daemon. `context` is handed to every factory; `overlay` says how the
    devices that were found may be used."""

    def __init__(
        self,
        registry: PluginRegistry,
        context: PluginContext,
        *,
        post: Callable[[Event], None],
        overlay: Callable[[Inventory], Inventory] = lambda inventory: inventory,
    ) -> None:
        self.registry = registry
        self._context = replace(context, log=lambda message: post(Notice(message=message)))
        self._post = post
        self._overlay = overlay
        self._drivers: dict[str, WorkerDriver] = {}
        self._applications: dict[str, Application] = {}
        self._routers: dict[str, Router] = {}
        self._sources: dict[str, DeviceSource] = {}
        self._inventories: dict[str, Inventory] = {}
        self._joined: Inventory | None = None
        self._reported = anyio.Event()
        self.clusters = Clusters(post)
        self.preparation: Preparation | None = None
        """Has drivers fetch what new workers need; brought by who runs tasks."""
        self.options: Mapping[str, Mapping[str, Any]] = {}
        """What the file says to drivers, by their names."""

    @property
    def devices(self) -> Inventory:
        """What the device sources have told last, as it may be used."""
        return self._joined or Inventory()

    async def until_devices(self, within: float) -> None:
        """Return when every device source has told what there is, at the latest after so many seconds."""
        with anyio.move_on_after(within):
            while self._inventories.keys() < set(self.registry.names("device source")):
                await self._reported.wait()

    def driver(self, name: str) -> WorkerDriver:
        """The driver of a backend, the same one every time. Raises PluginError."""
        if name not in self._drivers:
            self._drivers[name] = self._make("driver", name)
            self.clusters.meet(name, self._drivers[name])
        return self._drivers[name]

    async def aclose(self) -> None:
        """Close every driver that was made; their workers go on. For the end of the daemon: what goes wrong
        is told on stderr, since nobody follows events any more."""
        while self._drivers:
            name, driver = self._drivers.popitem()
            try:
                with anyio.fail_after(CLOSING):
                    await driver.aclose()
            except Exception as error:  # noqa: BLE001 - a driver is a stranger; the others are closed all the same
                sys.stderr.write(f"stoker: driver {name} was not closed: {type(error).__name__}: {error}\n")

    async def retain(self, services: Collection[ServiceKey]) -> None:
        """Tell the drivers for which services they may have to start workers; a fault of one is said."""
        for name, driver in list(self._drivers.items()):
            try:
                if isinstance(driver, RetainingDriver):
                    await driver.retain(services)
            except Exception as error:  # noqa: BLE001 - a driver is a stranger; it keeps what it keeps
                words = f"driver {name} cannot let go of what it keeps: {type(error).__name__}: {error}"
                self._post(Notice(message=words, severity="warning"))

    def drivers(self, names: Iterable[str]) -> dict[str, WorkerDriver]:
        """The drivers of those backends that exist, by name."""
        there = self.registry.names("driver")
        return {name: self.driver(name) for name in sorted(set(names)) if name in there}

    def policy(self, name: str) -> Policy:
        """A policy by its metric. Raises PluginError."""
        made: Policy = self._make("policy", name)
        return made

    def router(self, name: str) -> Router:
        """The router of that name, the same one every time; of a further process of it each time a new one.
        Raises PluginError."""
        if (base := base_of(name)) != name:
            made: Router = self._make("router", base, beside=name)
            return made
        if name not in self._routers:
            self._routers[name] = self._make("router", name)
        return self._routers[name]

    def application(self, name: str) -> Application | None:
        """What knows the projects of that kind, the same one every time; None where no plugin does. Raises
        PluginError."""
        if name not in self._applications and name in self.registry.names("application"):
            self._applications[name] = self._make("application", name)
        return self._applications.get(name)

    def inspection(self, name: str) -> Callable[[str, str], Sequence[str]] | None:
        """What makes the command that reads a project of that kind. Raises PluginError."""
        found = self.application(name)
        return found.inspection if found is not None else None

    def check(self, desired: DesiredState) -> None:
        """Raise ConfigError if the configuration names a part that no plugin brings."""
        problems = []
        if desired.box.router not in self.registry.names("router"):
            problems.append(self._missing("router", desired.box.router, "box.router"))
        for key, spec in desired.services.items():
            wanted = [("driver", spec.backend, "backend")]
            wanted += [("policy", rule.metric, "scaling.policy.metric") for rule in spec.scaling.policies]
            for kind, name, where in wanted:
                if name not in self.registry.names(kind):
                    problems.append(self._missing(kind, name, f"services.{spec.name}.{where}", key))
        if problems:
            raise ConfigError(*problems)

    def check_routers(self, effective: EffectiveConfig) -> None:
        """Raise ConfigError if a router that a service needs cannot be made here, at what asks for it."""
        first = effective.desired.box.router
        choice = RouterChoice(self.registry, first)
        problems: dict[str, ConfigProblem] = {}
        for spec in effective.desired.services.values():
            name = choice.of(spec)
            try:
                self.router(name)
            except PluginError as error:
                asked = spec if name != first else None  # else the box as a whole
                key = spec.key if asked else ""
                problems.setdefault(key, problem_at_router(effective, asked, str(error)))
        if problems:
            raise ConfigError(*problems.values())

    def remarks(self, effective: EffectiveConfig) -> tuple[str, ...]:
        """What services ask for and their drivers cannot do."""
        return tuple(remarks(effective, self.registry))

    def _make(self, kind: str, name: str, *, beside: str = "") -> Any:
        """`beside`: the folder of its own that it gets in the runtime directory."""
        factory = self.registry.factory(kind, name)
        context = replace(self._context, options=self.options.get(name, self._context.options))
        if beside:
            context = replace(context, runtime_dir=str(Path(context.runtime_dir, beside)))
        try:
            return factory(context)
        except PluginError as error:
            raise PluginError(f"{kind} {name!r} cannot be used here: {error}") from error
        except Exception as error:  # the factory is a stranger's code
            raise PluginError(f"{kind} {name!r} cannot be made: {type(error).__name__}: {error}") from error

    def _missing(self, kind: str, name: str, path: str, service: str = "") -> ConfigProblem:
        try:
            self.registry.factory(kind, name)
        except PluginError as error:
            return ConfigProblem(str(error), file=service, path=path)
        raise AssertionError(f"{kind} {name} is there")

    def look_at_devices(self, tasks: TaskGroup) -> None:
        """Run every device source in that group, and ask drivers after the machines that they have."""
        tasks.start_soon(self.clusters.run)
        for name in self.registry.names("device source"):
            tasks.start_soon(self.run_devices, name)

    async def run_devices(self, name: str) -> None:
        """Run one device source and post the joined inventory whenever it changes."""
        try:
            source: DeviceSource = self.registry.factory("device source", name)(self._context)
            self._sources[name] = source
            await source.run(lambda inventory: self._publish(name, inventory))
        except Exception as error:  # noqa: BLE001 - a stranger's code; without it the box has no devices
            reason = f"device source {name} failed: {error}"
            self._publish(name, Inventory(state="unreachable", reason=reason))

    async def refresh_devices(self) -> None:
        """Have the device sources look now, as far as they can."""
        for source in self._sources.values():
            if isinstance(source, RefreshableSource):
                await source.refresh()

    async def let_go_devices(self, seconds: float) -> None:
        """Have the device sources close the driver for so long, as far as they hold it."""
        for source in self._sources.values():
            if isinstance(source, ReleasableSource):
                await source.let_go(seconds)

    async def run_sink(self, name: str, journal: Journal) -> None:
        """Hand every event to one sink."""
        try:
            sink: EventSink = self.registry.factory("event sink", name)(self._context)
            async for event in journal.follow(journal.beginning):
                await sink.send(event)
        except Exception as error:  # noqa: BLE001 - a stranger's code; events go on without it
            self._post(
                Notice(
                    message=f"event sink {name} failed; no events for it until the next daemon: {error}",
                    severity="error",
                )
            )

    def _publish(self, name: str, inventory: Inventory) -> None:
        self._inventories[name] = inventory
        self.publish_devices()
        reported, self._reported = self._reported, anyio.Event()
        reported.set()

    def publish_devices(self) -> None:
        """Post the devices if they, or the way they may be used, have changed."""
        if not self._inventories:
            return
        joined = self._overlay(join(self._inventories))
        if joined == self._joined:
            return
        self._joined = joined
        self._post(InventoryChanged(inventory=joined, summary=_words(joined)))


def join(inventories: Mapping[str, Inventory]) -> Inventory:
    """Several sources' inventories as one: all devices; `ok` if any source is. Pure."""
    order = {"ok": 0, "unreachable": 1, "none": 2}
    found = sorted(inventories.values(), key=lambda inventory: order[inventory.state])
    return replace(
        found[0],
        devices=tuple(device for inventory in found for device in inventory.devices),
        nameless=sum(inventory.nameless for inventory in found),
    )


def _words(inventory: Inventory) -> str:
    if inventory.state != "ok":
        return f"devices {inventory.state}: {inventory.reason}"
    sick = [f"{device.uuid} {device.health}" for device in inventory.devices if device.health != "healthy"]
    return f"{len(inventory.devices)} devices" + (f"; {', '.join(sick)}" if sick else "")

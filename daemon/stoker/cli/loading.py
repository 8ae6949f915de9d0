"""Loading a configuration without a daemon: for `check`, and for `plan` on a box where none runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stoker.config.load import EffectiveConfig
    from stoker.model.device import Inventory

PATIENCE = 5.0
"""Seconds the first device source gets to report."""
SETTLING = 0.5
"""Seconds the others get after it."""


def load(
    files: Sequence[str], *, profile: str | None, sets: Sequence[str], to_run: bool = True
) -> EffectiveConfig:
    """The configuration these files make, with this environment; `to_run` False only checks it.

    Raises ConfigError.
    """
    from stoker.config.load import ConfigRequest
    from stoker.config.load import load as load_config
    from stoker.plugin.manager import PluginRegistry
    from stoker.plugin.ports import PluginContext
    from stoker.runtime.parts import Parts

    registry = PluginRegistry()
    registry.load()
    parts = Parts(
        registry,
        PluginContext(instance="check", state_dir="", runtime_dir="", environ=dict(os.environ)),
        post=lambda _: None,
    )
    request = ConfigRequest(
        files=tuple(files),
        profile=profile,
        sets=tuple(sets),
        environ=dict(os.environ),
        inspection=parts.inspection("bento"),
    )
    effective = load_config(request, to_run=to_run)
    parts.check(effective.desired)
    parts.check_routers(effective)
    return replace(effective, notices=(*effective.notices, *parts.remarks(effective)))


def plan_on_empty_box(effective: EffectiveConfig, state_dir: str) -> dict[str, Any]:
    """The plan document for a box on which nothing runs, with the devices it has now."""
    from stoker.api.facade import PlanPreview
    from stoker.api.preview import plan_document
    from stoker.model.action import Plan
    from stoker.model.state import DesiredState, ObservedState

    inventory = inventory_now(state_dir)
    preview = PlanPreview(
        before=DesiredState(box=effective.desired.box),
        after=effective.desired,
        observed=ObservedState(inventory=inventory),
        plan=Plan(),
    )
    return plan_document(preview, 0.0)


def inventory_now(state_dir: str) -> Inventory:
    """The devices this box has, asked once without a daemon."""
    import anyio

    return anyio.run(_inventory, state_dir, backend="asyncio")


async def _inventory(state_dir: str) -> Inventory:
    """What the device sources report first, joined. A source may have nothing to say and stay silent."""
    import anyio

    from stoker.model.device import Inventory
    from stoker.plugin.manager import PluginRegistry
    from stoker.plugin.ports import DeviceSource, PluginContext
    from stoker.runtime.parts import join

    registry = PluginRegistry()
    registry.load()
    context = PluginContext(
        instance="plan", state_dir=state_dir, runtime_dir="", environ=dict(os.environ), log=lambda _: None
    )
    found: dict[str, Inventory] = {}
    names = registry.names("device source")
    somebody, everybody = anyio.Event(), anyio.Event()

    def publish(name: str, inventory: Inventory) -> None:
        found[name] = inventory
        somebody.set()
        if len(found) == len(names):
            everybody.set()

    async def run(name: str) -> None:
        try:
            source: DeviceSource = registry.factory("device source", name)(context)
            await source.run(partial(publish, name))
        except Exception as error:  # noqa: BLE001 - a stranger's code; it costs its own devices only
            publish(name, Inventory(state="unreachable", reason=f"device source {name} failed: {error}"))

    async with anyio.create_task_group() as sources:
        for name in names:
            sources.start_soon(run, name)
        with anyio.move_on_after(PATIENCE if names else 0):
            await somebody.wait()
        with anyio.move_on_after(SETTLING):
            await everybody.wait()
        sources.cancel_scope.cancel()
    return join(found) if found else Inventory()

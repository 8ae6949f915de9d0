"""Loading a configuration without a daemon: for `check`, and for `plan` on a box where none runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stoker.config.load import EffectiveConfig
    from stoker.model.device import Inventory

PATIENCE = 5.0
"""Seconds a device source gets to report."""


def load(files: Sequence[str], *, profile: str | None, sets: Sequence[str]) -> EffectiveConfig:
    """The configuration these files make, with this environment. Raises ConfigError."""
    from stoker.config.load import ConfigRequest
    from stoker.config.load import load as load_config
    from stoker.plugin.manager import PluginRegistry
    from stoker.plugin.ports import PluginContext
    from stoker.runtime.parts import Parts

    effective = load_config(
        ConfigRequest(files=tuple(files), profile=profile, sets=tuple(sets), environ=dict(os.environ))
    )
    registry = PluginRegistry()
    registry.load()
    context = PluginContext(instance="check", state_dir="", runtime_dir="")
    Parts(registry, context, post=lambda _: None).check(effective.desired)
    return effective


def plan_on_empty_box(effective: EffectiveConfig, state_dir: str) -> dict[str, Any]:
    """The plan document for a box on which nothing runs, with the devices it has now."""
    import anyio

    from stoker.api.facade import PlanPreview
    from stoker.api.preview import plan_document
    from stoker.model.action import Plan
    from stoker.model.state import DesiredState, ObservedState

    inventory = anyio.run(_inventory, state_dir, backend="asyncio")
    preview = PlanPreview(
        before=DesiredState(),
        after=effective.desired,
        observed=ObservedState(inventory=inventory),
        plan=Plan(),
    )
    return plan_document(preview, 0.0)


async def _inventory(state_dir: str) -> Inventory:
    """What all device sources report first, joined."""
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

    async def ask(name: str) -> None:
        reported = anyio.Event()

        def publish(inventory: Inventory) -> None:
            found[name] = inventory
            reported.set()

        async def run() -> None:
            try:
                source: DeviceSource = registry.factory("device source", name)(context)
                await source.run(publish)
            except Exception as error:  # noqa: BLE001 - a stranger's code; it costs its own devices only
                publish(Inventory(state="unreachable", reason=f"device source {name} failed: {error}"))

        with anyio.move_on_after(PATIENCE):
            async with anyio.create_task_group() as group:
                group.start_soon(run)
                await reported.wait()
                group.cancel_scope.cancel()

    async with anyio.create_task_group() as sources:
        for name in registry.names("device source"):
            sources.start_soon(ask, name)
    return join(found) if found else Inventory()

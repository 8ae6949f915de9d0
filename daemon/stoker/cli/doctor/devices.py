"""GPUs: what the driver says, by the daemon's word or, where none runs, by asking the device sources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio

from stoker.api.advice import advice_on
from stoker.cli.doctor.finding import Finding, Place, fail, ok, warn
from stoker.model.device import Inventory, called
from stoker.plugin.manager import PluginRegistry
from stoker.plugin.ports import DeviceSource, PluginContext

PATIENCE = 20.0
"""Seconds for a device source's first word; opening eight GPUs without persistence mode takes half of it."""
PCI = Path("/sys/bus/pci/devices")
_NVIDIA, _DISPLAY = "0x10de", "0x03"


def check(place: Place) -> Iterator[Finding]:
    """Whether the GPUs of the box can be used."""
    if place.devices is not None:
        known = place.devices["inventory"]
        sick = [device for device in place.devices["devices"] if device["health"] != "healthy"]
        yield from judge(known, len(place.devices["devices"]), cards(PCI))
        yield from (_sick(device) for device in sick)
        return
    registry = PluginRegistry()
    registry.load()
    context = PluginContext(
        instance="doctor",
        state_dir=place.state_dir,
        runtime_dir=place.runtime_dir,
        environ=place.environ,
        log=lambda message: None,
    )
    for name in registry.names("device source"):
        made: DeviceSource = registry.factory("device source", name)(context)
        inventory = anyio.run(first_word, made)
        said = {"state": inventory.state, "reason": inventory.reason, "driver": inventory.driver}
        yield from judge(said, len(inventory.devices), cards(PCI))
        for device in inventory.devices:
            if device.health != "healthy":
                yield _sick(
                    {
                        "uuid": device.uuid,
                        "index": device.index,
                        "health": device.health,
                        "health_reason": device.health_reason,
                        "advice": advice_on(device),
                    }
                )


async def first_word(source: DeviceSource) -> Inventory:
    """What a device source publishes first; `unreachable` if it stays silent."""
    found: list[Inventory] = []
    async with anyio.create_task_group() as tasks:

        def keep(inventory: Inventory) -> None:
            found.append(inventory)
            tasks.cancel_scope.cancel()

        tasks.cancel_scope.deadline = anyio.current_time() + PATIENCE
        await source.run(keep)
    silent = Inventory(state="unreachable", reason=f"the driver has not answered for {PATIENCE:g} s")
    return found[0] if found else silent


def cards(pci: Path) -> int:
    """How many NVIDIA GPUs the PCI bus shows, whether or not a driver drives them."""
    return sum(
        _read(device / "vendor") == _NVIDIA and _read(device / "class").startswith(_DISPLAY)
        for device in (pci.iterdir() if pci.is_dir() else ())
    )


def judge(inventory: Mapping[str, Any], devices: int, on_bus: int) -> Iterator[Finding]:
    """The verdict on an inventory. Pure."""
    reason = inventory["reason"]
    if inventory.get("resting"):
        yield warn("gpus", reason, "it is taken up again by itself; services on GPUs stay as they are")
    elif inventory["state"] == "unreachable":
        remedy = "see the kernel log (dmesg) and nvidia-smi; services on GPUs stay as they are meanwhile"
        yield fail("gpus", f"the driver does not answer: {reason}", remedy)
    elif inventory["state"] == "none" and on_bus:
        text = f"the PCI bus shows {on_bus} NVIDIA GPUs, but none can be used: {reason}"
        remedy = "install and load the NVIDIA driver; in a container: give it the GPUs"
        yield fail("gpus", text, remedy)
    elif inventory["state"] == "none":
        yield ok("gpus", f"none: {reason}; services that need one stay pending")
    else:
        driver = f", driver {inventory['driver']}" if inventory["driver"] else ""
        yield ok("gpus", f"{devices}{driver}" + (f"; {reason}" if reason else ""))


def _sick(device: Mapping[str, Any]) -> Finding:
    reason = f" ({device['health_reason']})" if device["health_reason"] else ""
    text = f"GPU {device['index']} ({device['uuid']}) is {called(device['health'])}{reason}"
    return warn("gpus", text, device.get("advice", ""))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

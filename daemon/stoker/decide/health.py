"""What the operator has said about devices, laid over what the driver says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from stoker.model.device import Device, Health, Inventory

Mark = Literal["cordoned", "released"]
"""`cordoned`: nothing new on it, its workers stay. `released`: its workers go elsewhere too, so that it can
be reset, unplugged or lent to others."""

_SAID: Mapping[Mark, tuple[Health, str]] = {
    "cordoned": ("cordoned", "cordoned by the operator"),
    "released": ("quarantined", "released by the operator"),
}
_WORSE: Mapping[Mark, frozenset[Health]] = {
    "cordoned": frozenset({"draining", "quarantined", "lost"}),
    "released": frozenset({"lost"}),
}
"""What the driver says of a device stands where it asks for more than the operator does."""


def overlay(inventory: Inventory, marks: Mapping[str, Mark]) -> Inventory:
    """The inventory as the operator wants it used: `marks` by the UUID of a device or of its parent. Pure."""
    if not marks or not inventory.devices:
        return inventory
    return replace(inventory, devices=tuple(_marked(device, marks) for device in inventory.devices))


def _marked(device: Device, marks: Mapping[str, Mark]) -> Device:
    mark = marks.get(device.uuid) or marks.get(device.parent or "")
    if mark is None or device.health in _WORSE[mark]:
        return device
    health, reason = _SAID[mark]
    if device.health_reason:
        reason = f"{reason}; {device.health_reason}"
    return replace(device, health=health, health_reason=reason)

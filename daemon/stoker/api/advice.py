"""What becomes of a device that is not well, or can be done about it. Pure."""

from __future__ import annotations

from stoker.model.device import Device


def advice_on(device: Device) -> str:
    """One line for people, "" where nothing is to be said."""
    name = (device.parent or device.uuid)[:12]
    if "by the operator" in device.health_reason and device.health != "probation":
        return f"`stoker gpus uncordon {name}` gives it back"
    return {
        "suspect": f"its workers stay, no new one comes; `stoker gpus uncordon {name}` clears it",
        "unreachable": "its workers stay, no new one comes; see the kernel log (dmesg)",
        "draining": "its workers move elsewhere",
        "quarantined": f"reset it, or `stoker gpus release {name}` if it is well; then it is on probation",
        "probation": "it is watched for a while before it gets workers again",
        "lost": "see the kernel log (dmesg); it is watched for a while when it comes back",
    }.get(device.health, "")

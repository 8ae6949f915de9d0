"""An image's HEALTHCHECK as a probe.

The engine's own running of it is turned off: docker asks for the first time only after the whole interval,
podman needs a systemd for it, and neither tells what follows from the answer. It goes with its container in a
label.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stoker.model.service import Probe

NONE = {"Test": ["NONE"]}
"""Tells an engine to run none."""
SHELL = ("/bin/sh", "-c")
SECOND = 1_000_000_000
_PERIOD, _TIMEOUT, _FAILURES = 30.0, 30.0, 3
"""What docker takes where an image does not say."""


def probe_of(declared: Mapping[str, Any] | None) -> Probe | None:
    """From what an image declares; None where that is nothing. Pure."""
    how, *words = (declared or {}).get("Test") or ["NONE"]
    if declared is None or how not in ("CMD", "CMD-SHELL") or not words:
        return None
    return Probe(
        exec=(*SHELL, *words) if how == "CMD-SHELL" else tuple(words),
        period=int(declared.get("Interval") or 0) / SECOND or _PERIOD,
        timeout=int(declared.get("Timeout") or 0) / SECOND or _TIMEOUT,
        failures=int(declared.get("Retries") or 0) or _FAILURES,
    )


def to_label(probe: Probe | None) -> str:
    """Pure."""
    return json.dumps([probe.exec, probe.period, probe.timeout, probe.failures]) if probe else ""


def from_label(label: str) -> Probe | None:
    """Pure."""
    if not label:
        return None
    words, period, timeout, failures = json.loads(label)
    return Probe(exec=tuple(words), period=period, timeout=timeout, failures=failures)

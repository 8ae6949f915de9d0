"""Quantities as people write them: "16Gi", "500m", "30s". Pure.

Bytes follow Kubernetes (Ki = 1024, k = 1000), durations follow systemd and Go ("1m30s"), a bare
number is bytes, cores or seconds.
"""

from __future__ import annotations

import math
import re

_BYTES = {
    "": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
}  # fmt: skip
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"\d+(?:\.\d+)?"
_SIZE = re.compile(rf"({_NUMBER})\s*([A-Za-z]*)")
_SPAN = re.compile(rf"(?:{_NUMBER}(?:ms|s|m|h|d))+")
_SPAN_PART = re.compile(rf"({_NUMBER})(ms|s|m|h|d)")


def parse_bytes(text: str | float) -> int:
    """Return the bytes in "16Gi", "512M" or a plain number. Raises ValueError."""
    if isinstance(text, str):
        match = _SIZE.fullmatch(text.strip())
        if match is None or match[2].removesuffix("B") not in _BYTES:
            raise ValueError(f"{text!r} is no size; write for example 512Mi, 16Gi or a number of bytes")
        value = float(match[1]) * _BYTES[match[2].removesuffix("B")]
    else:
        value = float(text)
    return int(_finite(value, text))


def parse_cores(text: str | float) -> float:
    """Return the cores in "500m", "2" or 1.5. Raises ValueError."""
    try:
        value = float(text[:-1]) / 1000 if isinstance(text, str) and text.endswith("m") else float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no number of cores; write for example 500m, 2 or 1.5") from None
    return _finite(value, text)


def parse_duration(text: str | float) -> float:
    """Return the seconds in "30s", "1m30s", "250ms" or a plain number. Raises ValueError."""
    if not isinstance(text, str):
        return _finite(float(text), text)
    stripped = text.strip()
    if _SPAN.fullmatch(stripped):
        return _finite(sum(float(n) * _SECONDS[unit] for n, unit in _SPAN_PART.findall(stripped)), text)
    try:
        return _finite(float(stripped), text)
    except ValueError:
        raise ValueError(f"{text!r} is no duration; write for example 30s, 5m, 250ms or seconds") from None


def format_bytes(count: float) -> str:
    """Return bytes for people: 17179869184 -> "16Gi", 1610612736 -> "1.5Gi"."""
    value, unit = float(count), ""
    for next_unit in ("Ki", "Mi", "Gi", "Ti", "Pi"):
        if abs(value) < 1024:
            break
        value, unit = value / 1024, next_unit
    return f"{value:.1f}".removesuffix(".0") + unit


def format_duration(seconds: float) -> str:
    """Return a duration for people: 0.25 -> "250ms", 90 -> "1m30s", 7200 -> "2h"."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    parts, rest = [], round(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])


def _finite(value: float, text: object) -> float:
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{text!r} must be zero or more, and finite")
    return value

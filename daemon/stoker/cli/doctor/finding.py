"""What a check is told and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

State = Literal["ok", "warn", "fail"]
"""`warn`: works, but not as well as it could. `fail`: something will not work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the answer. `remedy` says what to do, "" where nothing need be done."""

    check: str
    state: State
    text: str
    remedy: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The box and the daemon that are looked at. `status` and `devices` are what the daemon answers, None
    where none runs; `trouble` is why one that runs does not."""

    socket: str
    state_dir: str
    runtime_dir: str
    uid: int
    environ: Mapping[str, str] = field(default_factory=dict)
    status: Mapping[str, Any] | None = None
    devices: Mapping[str, Any] | None = None
    trouble: str = ""


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check=check, state="ok", text=text)


def warn(check: str, text: str, remedy: str) -> Finding:
    """It works, but could be better."""
    return Finding(check=check, state="warn", text=text, remedy=remedy)


def fail(check: str, text: str, remedy: str) -> Finding:
    """Something will not work."""
    return Finding(check=check, state="fail", text=text, remedy=remedy)

"""How a fake worker behaves, from its start to its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from stoker.errors import WorkerError


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One worker's behaviour. Times in seconds; None means never. The default is a perfect worker.

    `start_delay`: how long the driver takes to spawn it. `ready_after`: from the spawn until probes pass.
    `hang_after`: from the spawn until it answers no probe any more. `exit_after`: until it ends by itself.
    `stop_after`: from the stop signal to its end; None ignores the signal.
    """

    start_error: str = ""
    permanent: bool = False
    start_delay: float = 0.0
    ready_after: float | None = 0.0
    hang_after: float | None = None
    exit_after: float | None = None
    exit_code: int = 0
    exit_detail: str = ""
    stop_after: float | None = 0.0
    cpu: float = 0.0
    memory: int = 0

    @classmethod
    def parse(cls, argv: Sequence[str]) -> Script:
        """Read `name=value` words of a command; other words are left alone. Raises WorkerError."""
        kinds = get_type_hints(cls)
        given: dict[str, Any] = {}
        for word in argv:
            name, equals, text = word.partition("=")
            if equals and name in kinds:
                given[name] = _read(name, text, str(kinds[name]))
        return cls(**given)


def _read(name: str, text: str, kind: str) -> Any:
    try:
        if "None" in kind and text in {"", "never"}:
            return None
        if "bool" in kind:
            return {"true": True, "false": False}[text]
        if "float" in kind:
            return float(text)
        return int(text) if "int" in kind else text
    except (ValueError, KeyError):
        known = ", ".join(field.name for field in fields(Script))
        message = f"the fake worker cannot read {name}={text!r}; it knows {known}"
        raise WorkerError(message, permanent=True) from None

"""What policies remember of each service, kept over the daemon's death.

STATE/scaling.jsonl     the newest memory of each service that was written, with the boot its times belong to
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stoker.decide.scaling import ScalingMemory
from stoker.model.service import ServiceKey
from stoker.plugin.record_log import RecordLog

PERIOD = 30.0
"""Seconds between two writings of a service's memory: so much of it a killed daemon may lose."""
_SPARE = 200
"""Old lines that the file may hold: a memory is a few kilobytes."""


class ScalingMemories:
    """Those of one state directory. `boot` names this boot: times are monotonic, so that what an earlier one
    left is as good as none. `trouble` is told when one cannot be written."""

    def __init__(self, state_dir: str, trouble: Callable[[str], None], *, boot: str) -> None:
        self._log = RecordLog(Path(state_dir) / "scaling.jsonl", spare=_SPARE)
        self._trouble = trouble
        self._boot = boot
        self._written: dict[ServiceKey, tuple[float, ScalingMemory]] = {}
        self._found = self._read()

    def of(self, service: ServiceKey) -> ScalingMemory:
        """What an earlier daemon of this boot remembered; an empty memory if there is nothing."""
        return self._found.get(service, ScalingMemory())

    def keep(self, service: ServiceKey, memory: ScalingMemory, now: float) -> None:
        """Write the memory down, if it has changed and the last writing is a while ago."""
        at, before = self._written.get(service, (-PERIOD, None))
        if now - at < PERIOD or memory == before:
            return
        self._written[service] = now, memory
        try:
            self._log.put(service, {"boot": self._boot, "rules": memory.as_json()})
        except OSError as error:
            self._trouble(f"cannot record what the policies of {service} remember: {error}")

    def _read(self) -> dict[ServiceKey, ScalingMemory]:
        """What is in the file. A record that cannot be read is as good as none."""
        found: dict[ServiceKey, ScalingMemory] = {}
        try:
            written = self._log.read()
        except OSError:
            return found
        for service, data in written.items():
            try:
                if data["boot"] == self._boot:
                    found[service] = ScalingMemory.from_json(data["rules"])
            except (KeyError, TypeError, ValueError):
                continue
        return found

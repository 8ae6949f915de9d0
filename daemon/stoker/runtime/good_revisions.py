"""Keeps, over the daemon's death, what each service was when it last proved itself and which revision failed.

STATE/revisions.jsonl     readable by its owner alone: declared variables stand in it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from stoker.model.plain import from_plain, to_plain
from stoker.model.service import ServiceKey, ServiceSpec
from stoker.model.state import ObservedState, Rejection
from stoker.plugin.record_log import RecordLog


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    good: ServiceSpec | None = None
    rejected: Rejection | None = None


class GoodRevisions:
    """The records of one state directory. `trouble` is told when one cannot be written."""

    def __init__(self, state_dir: str, trouble: Callable[[str], None]) -> None:
        self._log = RecordLog(Path(state_dir) / "revisions.jsonl")
        self._trouble = trouble
        self._seen = ObservedState()

    def recall(self, state: ObservedState) -> ObservedState:
        """`state` with what was known before. A record that cannot be read is as good as none."""
        kept = _read(self._log)
        good = {key: one.good for key, one in kept.items() if one.good}
        rejected = {key: one.rejected for key, one in kept.items() if one.rejected}
        self._seen = replace(state, good=good, rejected=rejected)
        return self._seen

    def follow(self, state: ObservedState) -> None:
        """Record what has changed since the last call. Cheap when nothing has."""
        seen = self._seen
        if seen.good is state.good and seen.rejected is state.rejected:
            return
        self._seen = state
        for key in state.good.keys() | seen.good.keys():
            now = state.good.get(key), state.rejected.get(key)
            before = seen.good.get(key), seen.rejected.get(key)
            if now[0] is before[0] and now[1] is before[1]:
                continue
            if now != before:
                self._write(key, _Kept(good=now[0], rejected=now[1]))

    def clear(self) -> None:
        """Forget everything: all has ended in good order, and what begins next begins afresh."""
        self._seen = ObservedState()
        try:
            self._log.clear()
        except OSError as error:
            self._trouble(f"cannot forget the good revisions: {error}; the next daemon will know them")

    def _write(self, key: ServiceKey, kept: _Kept) -> None:
        try:
            if kept.good is None:
                self._log.drop(key)
            else:
                self._log.put(key, {"good": to_plain(kept.good), "rejected": to_plain(kept.rejected)})
        except OSError as error:
            self._trouble(f"cannot record the good revision of {key}: {error}; the next daemon will not know")


def _read(log: RecordLog) -> Mapping[ServiceKey, _Kept]:
    try:
        written = log.read()
    except OSError:
        return {}
    found: dict[ServiceKey, _Kept] = {}
    for key, data in written.items():
        try:
            kept = _Kept(**from_plain(data))
        except (TypeError, KeyError):
            continue
        if isinstance(kept.good, ServiceSpec | None) and isinstance(kept.rejected, Rejection | None):
            found[key] = kept
    return found

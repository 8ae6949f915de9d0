"""Keeps, over the daemon's death, what each service was when it last proved itself and which revision failed.

STATE/revisions/DEPLOYMENT/SERVICE.json     readable by its owner alone: declared variables stand in it
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from stoker.model.service import ServiceKey, ServiceSpec
from stoker.model.state import ObservedState, Rejection


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    good: ServiceSpec | None = None
    rejected: Rejection | None = None


_KEPT = TypeAdapter(_Kept)


class GoodRevisions:
    """The records of one state directory. `trouble` is told when one cannot be written."""

    def __init__(self, state_dir: str, trouble: Callable[[str], None]) -> None:
        self._folder = Path(state_dir) / "revisions"
        self._trouble = trouble
        self._written: dict[ServiceKey, _Kept] = {}
        self._seen = ObservedState()

    def recall(self, state: ObservedState) -> ObservedState:
        """`state` with what was known before. A record that cannot be read is as good as none."""
        for path in self._folder.glob("*/*.json"):
            try:
                kept = _KEPT.validate_json(path.read_bytes())
            except (OSError, ValidationError):
                continue
            self._written[f"{path.parent.name}/{path.stem}"] = kept
        good = {key: kept.good for key, kept in self._written.items() if kept.good}
        rejected = {key: kept.rejected for key, kept in self._written.items() if kept.rejected}
        return replace(state, good=good, rejected=rejected)

    def follow(self, state: ObservedState) -> None:
        """Record what has changed since the last call. Cheap when nothing has."""
        if self._seen.good is state.good and self._seen.rejected is state.rejected:
            return
        self._seen = state
        for key in {*state.good, *self._written}:
            kept = _Kept(good=state.good.get(key), rejected=state.rejected.get(key))
            if kept != self._written.get(key):
                self._write(key, kept)

    def clear(self) -> None:
        """Forget everything: all has ended in good order, and what begins next begins afresh."""
        for key in list(self._written):
            self._write(key, _Kept())

    def _write(self, key: ServiceKey, kept: _Kept) -> None:
        self._written[key] = kept
        path = self._folder / f"{key}.json"
        beside = path.with_suffix(".new")
        try:
            if kept.good is None:
                path.unlink(missing_ok=True)
                del self._written[key]
                return
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            beside.touch(mode=0o600)
            beside.write_bytes(_KEPT.dump_json(kept))
            beside.replace(path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            self._trouble(f"cannot record the good revision of {key}: {error}; the next daemon will not know")

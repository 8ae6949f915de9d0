"""How the files of one daemon become its configuration, and what they meant when they were read last.

Reading takes a large part of a daemon's beginning: the schema and what checks it have to be loaded for it.
They are imported here, when they are needed, and not before: a daemon that takes over the workers of another,
where nothing has changed since that one read its files, has them in hand first and reads the files later.

STATE/config.json     what was read last; readable by its owner alone: declared variables stand in it
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio

from stoker import __version__
from stoker.config.outcome import EffectiveConfig, Resolved
from stoker.config.request import ConfigRequest
from stoker.config.tree import Node, Source
from stoker.model.plain import from_plain, to_plain
from stoker.model.service import DesiredState
from stoker.runtime.config_watch import Signature, signature
from stoker.runtime.secret_files import SecretFiles

RECORD = "config.json"
REST = 1.0
"""Seconds after a change in which what it leads to comes first, and the record of it does not yet matter."""
OF_ONE_START = frozenset(
    {
        "INVOCATION_ID", "JOURNAL_STREAM", "MAINPID", "SYSTEMD_EXEC_PID", "WATCHDOG_PID", "WATCHDOG_USEC",
        "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
        "SHLVL", "OLDPWD", "_",
    }
)  # fmt: skip
"""Variables that are another with every start, by systemd's hand or a shell's. A file that names one is read
all the same, a moment later."""


@dataclass(frozen=True, slots=True)
class _Read:
    """One reading: what was asked for, what came of it, how the files looked before."""

    request: ConfigRequest
    effective: EffectiveConfig
    seen: Signature


class Reading:
    """Reads what `base` names. Every method may block."""

    def __init__(self, base: ConfigRequest, state_dir: str | Path, secrets: SecretFiles) -> None:
        self.secrets = secrets
        self._base = base
        self._record = Path(state_dir) / RECORD
        self._unkept: _Read | None = None
        self._come = anyio.Event()

    def request(self, overrides: Mapping[str, Any]) -> ConfigRequest:
        """What is loaded with these live overrides."""
        return replace(self._base, overrides=dict(overrides))

    def load(self, request: ConfigRequest) -> EffectiveConfig:
        """Load, and look whether secrets have changed. Raises ConfigError."""
        from stoker.config.load import load

        return self._numbered(load(request))

    def watched(self, request: ConfigRequest) -> tuple[str, ...]:
        """Every path whose change may change what is loaded."""
        from stoker.config.load import watch_paths

        return watch_paths(request)

    def planned(
        self, request: ConfigRequest, files: Sequence[str], in_force: EffectiveConfig | None
    ) -> ConfigRequest:
        """What is loaded if these files stood beside those in force."""
        from stoker.runtime.planning import planned_request

        return planned_request(request, files, in_force)

    # -- what was read last ------------------------------------------------------------------------------

    def recall(self, overrides: Mapping[str, Any], *, stale: bool = False) -> EffectiveConfig | None:
        """What was read last, if all that it was made of is as it was or it may be `stale`; its layers are
        only names then."""
        try:
            kept = json.loads(self._record.read_bytes())
            if not stale and kept["key"] != _key(self.request(overrides)):
                return None
            effective = _effective(kept)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        same = [list(one) for one in signature(effective.watch)] == kept["signature"]
        return self._numbered(effective) if same or stale else None

    def remember(self, request: ConfigRequest, effective: EffectiveConfig, seen: Signature) -> None:
        """Have a reading recorded soon. `seen`: how the files looked before it. Quick."""
        self._unkept = _Read(request, effective, seen)
        self._come.set()

    async def run(self) -> None:
        """Record readings until cancelled."""
        while True:
            await self._come.wait()
            await anyio.sleep(REST)
            self._come = anyio.Event()
            if self._unkept is not None:
                await anyio.to_thread.run_sync(self._keep, self._unkept)

    def _keep(self, read: _Read) -> None:
        """Replace the record. Where it cannot be written the next daemon reads the files first."""
        present = signature(read.effective.watch)
        before = {one[0]: one for one in read.seen}
        if not before or any(before.get(one[0], one) != one for one in present):
            return  # changed while it was read, or since: there will be another reading
        beside = self._record.with_name(f"{RECORD}.new")
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(_document(read, present), file)
            beside.replace(self._record)
        except (OSError, TypeError):
            beside.unlink(missing_ok=True)

    def _numbered(self, effective: EffectiveConfig) -> EffectiveConfig:
        return replace(effective, desired=self.secrets.numbered(effective.desired, folders(effective)))


def folders(effective: EffectiveConfig) -> Mapping[str, str]:
    """The folder that each deployment's file stands in."""
    return {one.name: os.path.dirname(os.path.abspath(one.file)) for one in effective.layers}


def _key(request: ConfigRequest) -> str:
    """All that a configuration is made of beside files, as one word."""
    environ = {name: value for name, value in request.environ.items() if name not in OF_ONE_START}
    given = (__version__, request.files, request.profile, request.sets, request.secrets_dir)
    text = json.dumps((*given, dict(request.overrides), environ), sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _document(read: _Read, present: Signature) -> dict[str, Any]:
    effective = read.effective
    return {
        "key": _key(read.request),
        "signature": present,
        "deployments": [[one.name, one.file] for one in effective.layers],
        "desired": to_plain(effective.desired),
        **{name: getattr(effective, name) for name in _LISTS},
    }


_LISTS = ("watch", "notices", "files", "idle_overrides")


def _effective(kept: Mapping[str, Any]) -> EffectiveConfig:
    """Raises TypeError, ValueError or KeyError for what is no such record."""
    desired = from_plain(kept["desired"])
    if not isinstance(desired, DesiredState):
        raise TypeError("no desired state")
    layers = tuple(
        Resolved(name=name, file=file, layers=(), tree=Node({}, Source("file", file)))
        for name, file in kept["deployments"]
    )
    return EffectiveConfig(desired=desired, layers=layers, **{name: tuple(kept[name]) for name in _LISTS})

"""The configuration in force, and how it changes: files, live overrides, restarts asked for.

Every change is loaded and checked whole before anything of it counts. What is refused leaves the last
good one in force, and says so until a good one comes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import anyio

from stoker.config.changes import changed_keys
from stoker.config.outcome import EffectiveConfig, LoadError
from stoker.config.request import ConfigRequest, Inspection
from stoker.errors import ConfigError, ConfigProblem, NotFoundError, StokerError
from stoker.model.event import ConfigApplied, ConfigRejected, Event, Notice
from stoker.model.service import DesiredState, ServiceKey
from stoker.runtime.config_watch import Signature, changes, signature
from stoker.runtime.options import DaemonOptions
from stoker.runtime.reading import Reading, folders
from stoker.runtime.secret_files import SecretFiles
from stoker.runtime.store import Store

REST = 1.0
"""Seconds that a daemon which takes over leaves to what it finds, before it reads its files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Daemon:
    """What the configuration asks of the daemon and tells it."""

    check: Callable[[EffectiveConfig], None]
    remarks: Callable[[EffectiveConfig], Sequence[str]]
    apply: Callable[[DesiredState], None]
    post: Callable[[Event], None]


class Configuration:
    """Holds what is in force. `check` raises ConfigError for what cannot be here; `apply` hands a new
    wanted state to the control loop."""

    def __init__(
        self,
        options: DaemonOptions,
        store: Store,
        *,
        environ: Mapping[str, str],
        check: Callable[[EffectiveConfig], None],
        apply: Callable[[DesiredState], None],
        post: Callable[[Event], None],
        secrets: SecretFiles | None = None,
        inspection: Inspection | None = None,
        remarks: Callable[[EffectiveConfig], Sequence[str]] = lambda effective: (),
    ) -> None:
        base = ConfigRequest(
            files=options.files,
            profile=options.profile,
            sets=options.sets,
            environ=environ,
            secrets_dir=options.secrets_dir,
            inspection=inspection,
        )
        secrets = secrets or SecretFiles(str(store.directory), environ, options.secrets_dir)
        self.reading = Reading(base, store.directory, secrets)
        self._store = store
        self._daemon = _Daemon(check=check, remarks=remarks, apply=apply, post=post)
        self._lock = anyio.Lock()
        self._seen: Signature = ()
        self._named: Sequence[str] = ()
        """Paths that the configuration read last depends on, certificates among them."""
        self._overrides: dict[str, Any] = store.read("overrides")
        self._tokens: dict[str, str] = store.read("tokens")
        self._recalled: EffectiveConfig | None = None
        """What was put in force without reading the files."""
        self.effective: EffectiveConfig | None = None
        self.desired = DesiredState()
        self.problems: tuple[ConfigProblem, ...] = ()
        self.generation = 0
        self.rejected_total = 0

    @property
    def overrides(self) -> Mapping[str, Any]:
        """The live overrides: dotted path -> value."""
        return dict(self._overrides)

    @property
    def watched(self) -> Sequence[str]:
        """Every path whose change may change the configuration, or a secret that is in use."""
        reading = self.reading
        paths = (*reading.watched(reading.request(self._overrides)), *reading.secrets.paths(self.desired))
        return tuple(dict.fromkeys((*paths, *self._named)))

    def recall(self, *, stale: bool = False) -> bool:
        """Put in force what the files meant to the daemon before, if nothing has changed since, or whatever
        has with `stale`; whether it is so. Its layers are not known then: `whole` reads them."""
        effective = self.reading.recall(self._overrides, stale=stale)
        try:
            if effective is not None:
                self._daemon.check(effective)
        except ConfigError:
            return False  # a part is missing now: reading says where that is asked for
        if effective is not None:
            self._recalled = effective
            self._take(effective)
        return effective is not None

    async def reload(self) -> None:
        """Read the files again. Raises ConfigError; the last good configuration then stays in force."""
        async with self._lock:
            await self._reload()

    async def whole(self) -> EffectiveConfig | None:
        """The configuration in force with all its layers, None before there is one. Raises ConfigError where
        the files have to be read for it and are bad now."""
        if self._unread:
            async with self._lock:
                if self._unread:  # nobody else has meanwhile
                    await self._reload()
        return self.effective

    @property
    def _unread(self) -> bool:
        return self.effective is not None and self.effective is self._recalled

    async def _reload(self) -> None:
        self._seen = signature(self.watched)
        await self._load(self._overrides)

    async def wait_for_change(self) -> None:
        """Return when the files differ from what was read last."""
        async for _ in changes(lambda: self.watched, self._seen):
            return

    async def watch(self) -> None:
        """Apply each change of the files until cancelled."""
        if self._recalled is not None:
            await anyio.sleep(REST)
            await self._again(self.whole)
        async for _ in changes(lambda: self.watched, self._seen):
            await self._again(self.reload)

    async def _again(self, read: Callable[[], Awaitable[object]]) -> None:
        try:
            await read()
        except StokerError:
            return  # told already: an event, status, the API
        except Exception as error:  # noqa: BLE001 - a task root: whatever a file does to the loader, the daemon lives
            message = f"reading the configuration failed: {type(error).__name__}: {error}; the last one stays"
            self._daemon.post(Notice(message=message, severity="error"))

    async def override(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the live overrides. Raises ConfigError, changing nothing."""
        async with self._lock:
            wanted = dict(self._overrides)
            change(wanted)
            effective = await self._read(wanted)
            for path in effective.idle_overrides:
                if path not in self._overrides:
                    raise NotFoundError(f"{path}: there is no such service; nothing was changed")
            self._keep("overrides", wanted)
            self._overrides = wanted
            self._take(effective)
            self.reading.remember(self.reading.request(wanted), effective, self._seen)

    async def restart(self, service: ServiceKey) -> None:
        """Give a service a new revision, so that its workers are replaced."""
        async with self._lock:
            tokens = {**self._tokens, service: f"{int(self._tokens.get(service, '0')) + 1}"}
            self._keep("tokens", tokens)
            self._tokens = tokens
            if self.effective is not None:
                self._take(self.effective)

    async def preview(
        self, files: Sequence[str], profile: str | None, sets: Sequence[str]
    ) -> EffectiveConfig:
        """Load the configuration that these files would make beside the others in force, without applying it.
        Raises ConfigError."""
        request = self.reading.request(self._overrides)
        request = replace(request, profile=profile or request.profile, sets=(*request.sets, *sets))
        if files:
            request = await anyio.to_thread.run_sync(self.reading.planned, request, files, self.effective)
        effective = await anyio.to_thread.run_sync(self.reading.load, request)
        return replace(effective, desired=self._with_tokens(effective.desired))

    def find(self, name: str) -> ServiceKey:
        """The key of a service given as `name` or `deployment/name`. Raises NotFoundError."""
        keys = [key for key in self.desired.services if key == name or key.partition("/")[2] == name]
        if len(keys) == 1:
            return keys[0]
        if keys:
            raise NotFoundError(f"several deployments have a service {name!r}: {', '.join(sorted(keys))}")
        raise NotFoundError(nearest("service", name, [spec.name for spec in self.desired.services.values()]))

    def _keep(self, name: str, value: Mapping[str, Any]) -> None:
        """What cannot be kept is not done: it would be undone by the next daemon without a word."""
        try:
            self._store.write(name, value)
        except OSError as error:
            raise StokerError(
                f"cannot record that in {self._store.directory}: {error}; nothing was changed"
            ) from error

    async def _load(self, overrides: Mapping[str, Any]) -> None:
        try:
            effective = await self._read(overrides)
        except ConfigError as error:
            if isinstance(error, LoadError):
                self._named = error.watch
            if error.problems != self.problems:  # else it was said, and is said again to whoever asks for it
                self._daemon.post(ConfigRejected(problems=tuple(str(problem) for problem in error.problems)))
            self.problems = error.problems
            self.rejected_total += 1
            raise
        self._take(effective)
        self.reading.remember(self.reading.request(overrides), effective, self._seen)

    async def _read(self, overrides: Mapping[str, Any]) -> EffectiveConfig:
        effective = await anyio.to_thread.run_sync(self.reading.load, self.reading.request(overrides))
        self._daemon.check(effective)
        return replace(effective, notices=(*effective.notices, *self._daemon.remarks(effective)))

    def _take(self, effective: EffectiveConfig) -> None:
        before = self.desired
        self.reading.secrets.place(folders(effective))
        self.problems = ()
        self._named = effective.watch
        self.effective = effective
        desired = self._with_tokens(effective.desired)
        changed = changed_keys(before, desired)
        if replace(desired, generation=before.generation) == before and self.generation:
            return
        self.generation += 1
        self.desired = replace(desired, generation=self.generation)
        self._daemon.apply(self.desired)
        self._daemon.post(
            ConfigApplied(generation=self.generation, summary=_summary(before, self.desired, changed))
        )

    def _with_tokens(self, desired: DesiredState) -> DesiredState:
        services = {
            key: replace(spec, restart_token=self._tokens.get(key, ""))
            for key, spec in desired.services.items()
        }
        return replace(desired, services=services)


def nearest(kind: str, name: str, candidates: Sequence[str]) -> str:
    """The message for a name that is not there."""
    import difflib

    close = difflib.get_close_matches(name, candidates, 1)
    hint = (
        f"did you mean {close[0]!r}?"
        if close
        else f"there are: {', '.join(sorted(set(candidates))) or 'none'}"
    )
    return f"no {kind} {name!r}; {hint}"


def _word(key: str) -> str:
    return "restart asked for" if key == "restart_token" else key


def _summary(before: DesiredState, after: DesiredState, changed: Mapping[ServiceKey, Sequence[str]]) -> str:
    added = sorted(after.services.keys() - before.services.keys())
    removed = sorted(before.services.keys() - after.services.keys())
    parts = [f"added {', '.join(added)}"] if added else []
    parts += [f"removed {', '.join(removed)}"] if removed else []
    parts += [
        f"{key}: {', '.join(map(_word, keys))}"
        for key, keys in sorted(changed.items())
        if key not in {*added, *removed} and keys
    ]
    parts += [
        f"box.{one.name}"
        for one in fields(after.box)
        if getattr(before.box, one.name) != getattr(after.box, one.name)
    ]
    parts += ["the front door"] if before.doors != after.doors else []
    return "; ".join(parts) or "nothing changed for any service"

"""The configuration in force, and how it changes: files, live overrides, restarts asked for.

Every change is loaded and checked whole before anything of it counts. What is refused leaves the last
good one in force, and says so until a good one comes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import anyio

from stoker.config.load import EffectiveConfig, LoadError, changed_keys, load, watch_paths
from stoker.config.sources import ConfigRequest, Inspection
from stoker.errors import ConfigError, ConfigProblem, NotFoundError, StokerError
from stoker.model.event import ConfigApplied, ConfigRejected, Event, Notice
from stoker.model.service import DesiredState, ServiceKey
from stoker.runtime.config_watch import Signature, changes, signature
from stoker.runtime.options import DaemonOptions
from stoker.runtime.planning import planned_request
from stoker.runtime.secret_files import SecretFiles
from stoker.runtime.store import Store


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
        self._base = ConfigRequest(
            files=options.files,
            profile=options.profile,
            sets=options.sets,
            environ=environ,
            secrets_dir=options.secrets_dir,
            inspection=inspection,
        )
        self._store = store
        self._secrets = secrets or SecretFiles(str(store.directory), environ, options.secrets_dir)
        self._daemon = _Daemon(check=check, remarks=remarks, apply=apply, post=post)
        self._lock = anyio.Lock()
        self._seen: Signature = ()
        self._named: Sequence[str] = ()
        """Paths that the configuration read last depends on, certificates among them."""
        self._overrides: dict[str, Any] = store.read("overrides")
        self._tokens: dict[str, str] = store.read("tokens")
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
        paths = (*watch_paths(self._request(self._overrides)), *self._secrets.paths(self.desired))
        return tuple(dict.fromkeys((*paths, *self._named)))

    async def reload(self) -> None:
        """Read the files again. Raises ConfigError; the last good configuration then stays in force."""
        async with self._lock:
            self._seen = signature(self.watched)
            await self._load(self._overrides)

    async def wait_for_change(self) -> None:
        """Return when the files differ from what was read last."""
        async for _ in changes(lambda: self.watched, self._seen):
            return

    async def watch(self) -> None:
        """Apply each change of the files until cancelled."""
        async for _ in changes(lambda: self.watched, self._seen):
            try:
                await self.reload()
            except StokerError:
                continue  # told already: an event, status, the API
            except Exception as error:  # noqa: BLE001 - a task root: whatever a file does to the loader, the daemon lives
                message = (
                    f"reading the configuration failed: {type(error).__name__}: {error}; the last one stays"
                )
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
        request = self._request(self._overrides)
        request = replace(request, profile=profile or request.profile, sets=(*request.sets, *sets))
        if files:
            request = await anyio.to_thread.run_sync(planned_request, request, files, self.effective)
        effective = await anyio.to_thread.run_sync(self._loaded, request)
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

    def _request(self, overrides: Mapping[str, Any]) -> ConfigRequest:
        return replace(self._base, overrides=dict(overrides))

    async def _load(self, overrides: Mapping[str, Any]) -> None:
        try:
            effective = await self._read(overrides)
        except ConfigError as error:
            if isinstance(error, LoadError):
                self._named = error.watch
            self.problems = error.problems
            self.rejected_total += 1
            self._daemon.post(ConfigRejected(problems=tuple(str(problem) for problem in error.problems)))
            raise
        self._take(effective)

    async def _read(self, overrides: Mapping[str, Any]) -> EffectiveConfig:
        effective = await anyio.to_thread.run_sync(self._loaded, self._request(overrides))
        self._daemon.check(effective)
        return replace(effective, notices=(*effective.notices, *self._daemon.remarks(effective)))

    def _loaded(self, request: ConfigRequest) -> EffectiveConfig:
        """Load, and look whether secrets have changed. Blocking; raises ConfigError."""
        effective = load(request)
        return replace(effective, desired=self._secrets.numbered(effective.desired, _folders(effective)))

    def _take(self, effective: EffectiveConfig) -> None:
        before = self.desired
        self._secrets.place(_folders(effective))
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


def _folders(effective: EffectiveConfig) -> Mapping[str, str]:
    """The folder that each deployment's file stands in."""
    return {one.name: os.path.dirname(os.path.abspath(one.file)) for one in effective.layers}


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
    parts += ["the front door"] if before.doors != after.doors else []
    return "; ".join(parts) or "nothing changed for any service"

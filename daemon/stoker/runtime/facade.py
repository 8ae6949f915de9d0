"""The daemon as its API sees it: snapshots out, wishes in."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread

from stoker import __version__
from stoker.api.facade import LogFile, PlanPreview, ServiceHistory, ServiceLoad, Snapshot
from stoker.api.logtext import last_lines
from stoker.config.changes import changed_keys
from stoker.config.outcome import EffectiveConfig
from stoker.decide.health import Mark
from stoker.decide.reconcile import reconcile
from stoker.decide.revisions import in_force
from stoker.errors import ConflictError, NotFoundError
from stoker.model.event import Event
from stoker.model.load import RequestRecord
from stoker.model.service import ServiceKey, revision
from stoker.model.trace import SpanBatch
from stoker.plugin.manager import PluginRecord
from stoker.runtime.addresses import ServiceAddresses
from stoker.runtime.autoscaler import Autoscaler
from stoker.runtime.configuration import Configuration, nearest
from stoker.runtime.control import NONE_YET, ControlLoop
from stoker.runtime.device_marks import DeviceMarks
from stoker.runtime.doors import TcpDoors
from stoker.runtime.exemplars import Exemplars
from stoker.runtime.parts import Parts
from stoker.runtime.past import Past
from stoker.runtime.routers import Routers

LAST_LINES = 10
"""So many are quoted of a replica that does not serve."""
STATUS_WINDOW = 60.0
"""Seconds that the load figures of status cover."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """What belongs to the daemon as a whole: where it keeps its state, ways in, its end, a successor."""

    state_dir: str
    doors: TcpDoors
    end: Callable[[], None]
    replace: Callable[[], Awaitable[None]]


class Facade:
    """Implements `stoker.api.facade.DaemonFacade` over the daemon's parts."""

    def __init__(
        self,
        *,
        control: ControlLoop,
        configuration: Configuration,
        autoscaler: Autoscaler,
        addresses: ServiceAddresses,
        parts: Parts,
        marks: DeviceMarks,
        past: Past,
        whole: Whole,
    ) -> None:
        self._control = control
        self._journal = control.journal
        self._configuration = configuration
        self._autoscaler = autoscaler
        self._addresses = addresses
        self._registry = parts.registry
        self._clusters = parts.clusters
        self._marks = marks
        self.past = past
        self.whole = whole
        self.router: Routers | None = None
        """Once there is one."""
        self.quote: Callable[[ServiceKey, str], str] = lambda service, text: text
        """Takes the secrets of a service out of what its workers say."""
        self._exemplars = Exemplars()
        self._started = anyio.current_time()

    def snapshot(self) -> Snapshot:
        """The present state; no I/O."""
        desired, configuration = self._control.desired, self._configuration
        effective = configuration.effective
        table = self._addresses.table(desired)
        return Snapshot(
            now=anyio.current_time(),
            wall=time.time(),
            pid=os.getpid(),
            version=__version__,
            started=self._started,
            state_dir=self.whole.state_dir,
            desired=desired,
            observed=self._control.state,
            routes=self._control.routes,
            routed=self._control.routes is not NONE_YET,
            addresses={key: self._addresses.url(key) for key in table},
            opening=self.past.link.opening({key: table[key] for key in desired.services if key in table}),
            revisions={key: revision(spec) for key, spec in desired.services.items()},
            decisions=self._autoscaler.decisions(),
            windows={key: self._autoscaler.window(key, STATUS_WINDOW) for key in desired.services},
            loads={key: self._load(key) for key in desired.services},
            totals=self.past.totals(),
            exemplars=self._exemplars.of(desired.services),
            routers={key: self.router.about(key) for key in desired.services} if self.router else {},
            restarts=self.past.restarts,
            startups=self.past.startups.all(),
            config_state="rejected" if configuration.problems else "in-force",
            problems=configuration.problems,
            notices=(*(effective.notices if effective else ()), *self.past.noted.lines(time.time())),
            files=effective.files if effective else (),
            listening=tuple(self.whole.doors.open.values()),
            encrypted=self.whole.doors.encrypted,
            overrides=configuration.overrides,
            marks=self._marks.marks,
            nodes=dict(self._clusters.nodes),
            rejected_total=configuration.rejected_total,
            reconcile_seconds=self._control.reconcile_seconds,
        )

    async def preview(
        self, files: Sequence[str], *, profile: str | None = None, sets: Sequence[str] = ()
    ) -> PlanPreview:
        """Plan against the running state; raises ConfigError."""
        observed = self._control.state
        after = in_force((await self._configuration.preview(files, profile, sets)).desired, observed)
        before = self._control.desired
        return PlanPreview(
            before=before,
            after=after,
            observed=observed,
            plan=reconcile(after, observed, anyio.current_time()),
            changed={key: tuple(keys) for key, keys in changed_keys(before, after).items() if keys},
        )

    async def explain_path(self, path: str) -> Mapping[str, Any]:
        """Every layer's say about a path; raises NotFoundError, ConfigError."""
        from stoker.config.explain import explain

        return explain(await self._whole(), path)

    async def config_document(self) -> Mapping[str, Any]:
        """The effective file; raises NotFoundError, ConfigError."""
        from stoker.config.effective import effective_document

        return effective_document(await self._whole())

    async def _whole(self) -> EffectiveConfig:
        """What is in force, with all its layers."""
        effective = await self._configuration.whole()
        if effective is None:
            raise NotFoundError("no configuration is in force yet; `stoker status` shows what keeps it")
        return effective

    def story(self, replica: str) -> Sequence[Event]:
        """The chain of events of a replica; raises NotFoundError."""
        found = self._journal.story(replica)
        if not found:
            raise NotFoundError(nearest("replica", replica, list(self._control.state.replicas)))
        return found

    @property
    def beginning(self) -> str:
        """The id after which the first event of this daemon comes."""
        return self._journal.beginning

    def recent_events(self, after: str = "") -> Sequence[Event]:
        """Kept events after that id."""
        return self._journal.recent(after)

    def events(self, after: str = "") -> AsyncGenerator[Event, None]:
        """Kept events after that id, then new ones."""
        return self._journal.follow(after)

    def history(self, since: float = 0.0) -> Mapping[ServiceKey, ServiceHistory]:
        """What is kept of the last hour after that time."""
        return self.past.history(since)

    async def changed(self, after: int) -> int:
        """Return once anything was folded in or measured after that count."""
        return await self.past.changed(after)

    async def measure(self) -> None:
        """Have the routers tell the load up to now."""
        if self.router is not None:
            await self.past.asking.ask(self.router.measure)

    async def listen(self, address: str) -> str:
        """Open the API on TCP; raises StokerError."""
        return await self.whole.doors.listen(address)

    async def record(self, services: Sequence[ServiceKey]) -> AsyncGenerator[Sequence[RequestRecord], None]:
        """Requests as they end; raises ConflictError or RouterError."""
        router = self.router
        if router is None:
            raise ConflictError("the router is still starting; ask again in a moment")
        async with aclosing(router.record(services)) as batches:
            async for batch in batches:
                yield batch

    async def spans(self) -> AsyncGenerator[SpanBatch, None]:
        """Spans of requests; raises ConflictError or RouterError."""
        router = self.router
        if router is None:
            raise ConflictError("the router is still starting; ask again in a moment")
        async with aclosing(router.spans()) as batches:
            async for batch in batches:
                self._exemplars.take(batch, time.time() - anyio.current_time())
                yield batch

    def logs(self, service: str | None = None) -> Sequence[LogFile]:
        """Log files of a service, a replica or all; raises NotFoundError."""
        root = Path(self.whole.state_dir) / "logs"
        alive = self._control.state.replicas
        found = [
            LogFile(
                service=f"{path.parent.parent.name}/{path.parent.name}",
                replica=path.stem,
                path=str(path),
                alive=path.stem in alive,
            )
            for path in sorted(root.glob("*/*/*.log"), key=_age)
        ]
        if service is None:
            return found
        mine = [log for log in found if log.replica == service]
        if not mine:
            key = self._configuration.find(service)
            mine = [log for log in found if log.service == key]
        return mine

    async def last_lines(self, replica: str) -> Sequence[str]:
        """What a replica's workers wrote last, without the secrets of its service; empty if it is unknown."""
        found = self._control.state.replicas.get(replica)
        if found is None:
            return ()
        path = os.path.join(self.whole.state_dir, "logs", found.service, f"{replica}.log")
        lines = await to_thread.run_sync(last_lines, path, LAST_LINES)
        return [self.quote(found.service, line) for line in lines]

    def plugins(self) -> Sequence[PluginRecord]:
        """All plugins that were found."""
        return tuple(self._registry.records)

    async def set_override(self, assignments: Mapping[str, Any]) -> None:
        """Set live overrides; raises ConfigError, changing nothing."""
        await self._configuration.override(lambda overrides: overrides.update(assignments))

    async def unset_override(self, paths: Sequence[str]) -> None:
        """Remove live overrides, a path with all that lies below it; raises NotFoundError."""
        known = list(self._configuration.overrides)
        meant = [[name for name in known if f"{name}.".startswith(f"{path}.")] for path in paths]
        for path, found in zip(paths, meant, strict=True):
            if not found:
                raise NotFoundError(nearest("live override", path, known))

        def remove(overrides: dict[str, Any]) -> None:
            for name in chain.from_iterable(meant):
                overrides.pop(name, None)

        await self._configuration.override(remove)

    async def scale(self, service: str, minimum: int, maximum: int) -> None:
        """Override the bounds; raises NotFoundError, ConfigError."""
        path = self._path(service)
        await self.set_override(
            {f"{path}.scaling.min_replicas": minimum, f"{path}.scaling.max_replicas": maximum}
        )

    async def hold(self, service: str, *, held: bool) -> None:
        """Hold at zero or release; raises NotFoundError."""
        path = f"{self._path(service)}.hold"
        if held:
            await self.set_override({path: True})
        elif path in self._configuration.overrides:
            await self.unset_override([path])

    async def restart(self, service: str) -> None:
        """Rolling restart; raises NotFoundError."""
        await self._configuration.restart(self._configuration.find(service))

    async def reload(self) -> None:
        """Read the configuration again; raises ConfigError."""
        await self._configuration.reload()

    async def mark_device(self, uuid: str, mark: Mark | None) -> None:
        """Cordon or release a device, or give it back; raises StokerError."""
        self._marks.set(uuid, mark)

    async def reexec(self) -> None:
        """Make way for a new daemon in this process; raises StokerError if that one could not begin."""
        await self.whole.replace()

    async def down(self) -> None:
        """Begin to drain everything and end."""
        self.whole.end()

    def _path(self, service: str) -> str:
        deployment, _, name = self._configuration.find(service).partition("/")
        alone = sum(key.endswith(f"/{name}") for key in self._control.desired.services) == 1
        key = f'"{name}"' if "." in name else name
        return f"services.{key}" if alone else f"{deployment}/services.{key}"

    def _load(self, key: str) -> ServiceLoad:
        window = self._autoscaler.window(key, STATUS_WINDOW)
        p50, p99 = self._autoscaler.history(key).percentiles(STATUS_WINDOW, anyio.current_time())
        return ServiceLoad(
            in_flight=window.in_flight_now,
            queued=window.queued_now,
            rps=window.rps,
            p50_ms=None if p50 is None else p50 * 1000,
            p99_ms=None if p99 is None else p99 * 1000,
        )


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0

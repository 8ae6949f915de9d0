"""Programs that were replaced and still finish what they have, beside the one in their place.

The daemon is told of all of them as of one: what a former program has in flight counts, and a worker is
drained once nobody has anything on it. `Confluence` is pure, `Formers` holds the connections.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import anyio
from anyio.abc import TaskGroup

from stoker.model.load import LoadSample
from stoker.model.service import ServiceKey
from stoker.plugin.ports import RouterEvents
from stoker_router.channel import Channel, ChannelClosed
from stoker_router.wire import decode_sample


class Confluence:
    """Several programs' samples as one stream, and their words on drained workers as one word."""

    def __init__(self) -> None:
        self._levels: dict[tuple[int, ServiceKey], LoadSample] = {}
        """The last sample of each former program."""
        self._kept: dict[ServiceKey, LoadSample] = {}
        """Counts of former programs that wait for the next sample of the present one."""
        self._active: set[ServiceKey] = set()
        """Services of which the present program will tell again by itself."""
        self._said: dict[str, set[int]] = {}
        """Replicas with the programs that say they are drained."""

    def present(self, sample: LoadSample) -> Iterator[LoadSample]:
        """A sample of the present program, with what the others have."""
        name = sample.service
        others = [one for (_, of), one in self._levels.items() if of == name]
        kept = self._kept.pop(name, None)
        if not _at_rest(sample):
            self._active.add(name)
            yield _levelled(sample if kept is None else _counted(sample, kept), others)
            return
        self._active.discard(name)
        if kept is not None:
            yield _levelled(replace(kept, in_flight=0, queued=0, workers={}), others)
        yield _levelled(sample, others)

    def former(self, pid: int, sample: LoadSample) -> LoadSample | None:
        """A sample of a former program; None if it goes with the next one of the present program."""
        name = sample.service
        self._levels[pid, name] = sample
        if name in self._active:
            kept = self._kept.get(name)
            self._kept[name] = sample if kept is None else _counted(sample, kept)
            return None
        others = [one for (of, which), one in self._levels.items() if which == name and of != pid]
        return _levelled(sample, others)

    def gone(self, pid: int, now: float) -> Iterator[LoadSample]:
        """A former program has ended. Of services that the present one tells nothing of by itself, the rest
        comes now, and that they are at rest."""
        names = {name for of, name in self._levels if of == pid} - self._active
        for name in names:
            last = self._levels.pop((pid, name))
            yield from self.present(LoadSample(service=name, start=min(last.end, now), end=now))
        self._levels = {key: level for key, level in self._levels.items() if key[0] != pid}

    def drained(self, pid: int, replica: str, programs: Iterable[int]) -> bool:
        """One program says so; whether all do now."""
        said = self._said.setdefault(replica, set())
        said.add(pid)
        return said.issuperset(programs)

    def all_drained(self, programs: Iterable[int]) -> list[str]:
        """Replicas of which all programs that are left say that they are drained."""
        return [replica for replica, said in self._said.items() if said.issuperset(programs)]

    def keep_only(self, draining: Iterable[str]) -> None:
        """Forget what was said of workers that are not draining, or not there."""
        kept = set(draining)
        self._said = {replica: said for replica, said in self._said.items() if replica in kept}


class Formers:
    """The former programs of one link."""

    _tasks: TaskGroup
    _events: RouterEvents

    def __init__(self) -> None:
        self._channels: list[Channel] = []
        self._confluence = Confluence()
        self.present = 0
        """The pid of the program in their place."""

    def begin(self, tasks: TaskGroup, events: RouterEvents) -> None:
        """Where to listen to them, and whom to tell. Before anything else."""
        self._tasks, self._events = tasks, events

    @property
    def _programs(self) -> set[int]:
        return {self.present, *(channel.pid for channel in self._channels)}

    def add(self, channel: Channel) -> None:
        """One more. Its connection is ours to close."""
        self._channels.append(channel)
        self._tasks.start_soon(self._listen, channel)

    async def apply(self, message: Mapping[str, Any]) -> None:
        """Tell them the table: they go by what it says of workers."""
        draining = (w["id"] for route in message["routes"] for w in route["workers"] if w["draining"])
        self._confluence.keep_only(draining)
        for channel in list(self._channels):
            try:
                await channel.send({**message, "id": 0})
            except ChannelClosed:
                continue  # it ends; whoever listens to it notices

    def sample(self, sample: LoadSample) -> None:
        """A sample of the present program."""
        for joined in self._confluence.present(sample):
            self._events.sample(joined)

    def drained(self, replica: str) -> None:
        """The present program has nothing on that worker."""
        self._drained(self.present, replica)

    def _drained(self, pid: int, replica: str) -> None:
        if self._confluence.drained(pid, replica, self._programs):
            self._events.drained(replica)

    async def _listen(self, channel: Channel) -> None:
        async with channel:
            try:
                while True:
                    self._hear(channel.pid, await channel.receive())
            except ChannelClosed:
                pass
            finally:
                self._channels.remove(channel)
        for sample in self._confluence.gone(channel.pid, anyio.current_time()):
            self._events.sample(sample)
        for replica in self._confluence.all_drained(self._programs):
            self._events.drained(replica)

    def _hear(self, pid: int, message: Mapping[str, Any]) -> None:
        match message["op"]:
            case "sample":
                joined = self._confluence.former(pid, decode_sample(message))
                if joined is not None:
                    self._events.sample(joined)
            case "demand":
                self._events.demand(message["service"])
            case "drained":
                self._drained(pid, message["replica"])


def _at_rest(sample: LoadSample) -> bool:
    return not (sample.in_flight or sample.queued or sample.arrivals or sample.codes)


def _counted(sample: LoadSample, other: LoadSample) -> LoadSample:
    """The sample with the counts of both."""
    return replace(
        sample,
        in_flight_seconds=sample.in_flight_seconds + other.in_flight_seconds,
        queued_seconds=sample.queued_seconds + other.queued_seconds,
        arrivals=sample.arrivals + other.arrivals,
        completions=sample.completions + other.completions,
        service_seconds=sample.service_seconds + other.service_seconds,
        wait_seconds=sample.wait_seconds + other.wait_seconds,
        codes=_sum(sample.codes, other.codes),
        latency=_sum(sample.latency, other.latency),
    )


def _levelled(sample: LoadSample, others: Iterable[LoadSample]) -> LoadSample:
    """The sample with what is in flight and queued in all."""
    for other in others:
        sample = replace(
            sample,
            in_flight=sample.in_flight + other.in_flight,
            queued=sample.queued + other.queued,
            oldest_wait=max(sample.oldest_wait, other.oldest_wait),
            workers=_sum(sample.workers, other.workers),
        )
    return sample


def _sum(one: Mapping[Any, int], other: Mapping[Any, int]) -> dict[Any, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}}

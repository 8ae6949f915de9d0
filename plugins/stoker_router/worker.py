"""The workers of one service: their slots, their idle connections, and which one is next."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Iterator
from math import inf
from time import monotonic

from stoker_router.table import WorkerConfig
from stoker_router.upstream import MAX_IDLE, Upstream

_FIRST_BACKOFF, _MAX_BACKOFF = 0.05, 0.25
CONNECT_TIMEOUT = 3.0
"""Seconds; a connection that takes longer has failed."""
SILENCE = 6
"""Seconds without a word from the kernel of another box after which a connection to it has failed."""


class Worker:
    """One worker. `limit`: requests it gets at a time now; while it is on trial after a failure, one. A slot
    whose request was never answered counts as taken for a while."""

    __slots__ = ("backoff", "busy", "config", "draining", "hung", "idle", "limit", "present", "told")

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self.busy = 0
        self.hung = 0
        """Slots in quarantine."""
        self.limit: float = config.concurrency or inf
        self.draining = config.draining
        self.present = True
        """It stands in the table; a removed worker only finishes what it has."""
        self.told = False
        """It was said that it has drained."""
        self.backoff = 0.0
        """Seconds it was last left alone after a failure; 0: it works."""
        self.idle: list[Upstream] = []
        """Oldest first."""

    @property
    def serving(self) -> bool:
        """Whether it may get new requests at all."""
        return self.present and not self.draining

    def limit_anew(self) -> None:
        """Reckon `limit` from what it is made of."""
        if self.backoff:
            self.limit = 1
        else:
            self.limit = inf if self.config.concurrency is None else self.config.concurrency - self.hung

    def warm(self, now: float, *, careful: bool) -> Upstream | None:
        """An idle connection to use, None if there is none. `careful`: make sure that it is open."""
        while self.idle:
            upstream = self.idle.pop()
            if now - upstream.idle_since > MAX_IDLE or upstream.transport.is_closing():
                upstream.drop()
            elif not careful or upstream.alive():
                return upstream
            else:
                upstream.drop()
        return None

    def close_idle(self, older_than: float = inf) -> None:
        """Close the idle connections that were put there before that time."""
        while self.idle and self.idle[0].idle_since < older_than:
            self.idle.pop(0).drop()


class Pool:
    """All workers of a service; `pick` is the balancing. `on_up` is called when one can be tried again."""

    __slots__ = ("_leaving", "_loop", "_on_up", "_reaper", "_usable", "workers")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_up: Callable[[], None]) -> None:
        self._loop = loop
        self._on_up = on_up
        self.workers: dict[str, Worker] = {}
        self._usable: dict[str, Worker] = {}
        """Serving and not failing, the least recently picked first."""
        self._leaving: set[Worker] = set()
        self._reaper: asyncio.TimerHandle | None = None

    def __iter__(self) -> Iterator[Worker]:
        yield from self.workers.values()
        yield from self._leaving

    @property
    def serving(self) -> int:
        """How many workers may get new requests (also those that fail just now)."""
        return sum(worker.serving for worker in self.workers.values())

    def pick(self, avoid: Worker | None = None) -> Worker | None:
        """The least loaded worker with a free slot: in flight over limit, without limit in flight; of equals
        the one that was picked longest ago. `avoid` only if there is no other."""
        best: Worker | None = None
        lowest = inf
        for worker in self._usable.values():
            busy = worker.busy
            if busy < worker.limit and worker is not avoid:
                if not busy and not worker.hung:
                    best = worker
                    break
                load = busy / worker.limit if worker.limit < inf else busy + worker.hung
                if load < lowest:
                    best, lowest = worker, load
        if best is None and avoid is not None and self.can_take(avoid):
            best = avoid
        if best is not None and len(self._usable) > 1:
            name = best.config.id
            del self._usable[name]
            self._usable[name] = best
        return best

    def can_take(self, worker: Worker) -> bool:
        """Whether that worker can be given a request now."""
        return worker.busy < worker.limit and self._usable.get(worker.config.id) is worker

    # --- membership ---------------------------------------------------------------------------------------

    def configure(self, configs: Iterable[WorkerConfig]) -> None:
        """Make the pool equal to the table's; what is in flight on workers that left goes on."""
        wanted = {config.id: config for config in configs}
        for name, worker in list(self.workers.items()):
            new = wanted.get(name)
            if new is None or (new.host, new.port) != (worker.config.host, worker.config.port):
                self._remove(name, worker)
        for name, config in wanted.items():
            worker = self.workers.get(name) or self.workers.setdefault(name, Worker(config))
            self._update(worker, config)

    def _remove(self, name: str, worker: Worker) -> None:
        del self.workers[name]
        self._usable.pop(name, None)
        worker.present = False
        worker.close_idle()
        if worker.busy:
            self._leaving.add(worker)

    def _update(self, worker: Worker, config: WorkerConfig) -> None:
        worker.config = config
        worker.draining = config.draining
        worker.limit_anew()
        if config.draining:
            self._usable.pop(config.id, None)
            worker.close_idle()
        else:
            worker.told = False
            if not worker.backoff:
                self._usable.setdefault(config.id, worker)

    def left(self, worker: Worker) -> None:
        """A removed worker has finished one of its requests."""
        if not worker.busy:
            self._leaving.discard(worker)

    # --- failures -----------------------------------------------------------------------------------------

    def failed(self, worker: Worker) -> None:
        """A fresh connection to it failed: leave it alone for a moment, then try it with one request."""
        if self._usable.get(worker.config.id) is not worker:
            return
        del self._usable[worker.config.id]
        worker.backoff = min(worker.backoff * 2 or _FIRST_BACKOFF, _MAX_BACKOFF)
        worker.limit_anew()
        self._loop.call_later(worker.backoff, self._try_again, worker)

    def works(self, worker: Worker) -> None:
        """A worker that failed has taken a connection or answered: it gets its full share again."""
        worker.backoff = 0.0
        worker.limit_anew()
        if worker.serving:
            self._usable.setdefault(worker.config.id, worker)

    def hangs(self, worker: Worker, quarantine: float) -> None:
        """It has not answered a request in time, and may still be at it: its slot stays taken for so long."""
        worker.hung += 1
        worker.limit_anew()
        self._loop.call_later(quarantine, self._forgive, worker)

    def _forgive(self, worker: Worker) -> None:
        worker.hung -= 1
        worker.limit_anew()
        if worker.present:
            self._on_up()

    def _try_again(self, worker: Worker) -> None:
        if worker.serving and self.workers.get(worker.config.id) is worker:
            self._usable.setdefault(worker.config.id, worker)
            self._on_up()

    # --- idle connections ---------------------------------------------------------------------------------

    def park(self, worker: Worker, upstream: Upstream, now: float) -> None:
        """Keep a connection for the next request (or close it, if there will be none)."""
        if worker.draining or not worker.present:
            upstream.drop()
            return
        upstream.idle_since = now
        worker.idle.append(upstream)
        if self._reaper is None:
            self._reaper = self._loop.call_later(MAX_IDLE, self._reap)

    def _reap(self) -> None:
        now = monotonic()
        oldest = now
        for worker in self.workers.values():
            worker.close_idle(now - MAX_IDLE)
            if worker.idle:
                oldest = min(oldest, worker.idle[0].idle_since)
        self._reaper = None
        if oldest < now:
            self._reaper = self._loop.call_later(max(0.05, oldest + MAX_IDLE - now), self._reap)


def notice_silence(connection: socket.socket) -> None:
    """Have the kernel give a connection to another box up that hears nothing from there: a box that lost its
    power says no goodbye, and who waits for its answer is better served elsewhere."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENCE // 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE * 1000)


async def connect(loop: asyncio.AbstractEventLoop, worker: Worker) -> Upstream:
    """Open a connection to the worker. Raises OSError, TimeoutError among them."""
    upstream = Upstream(worker.idle)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            if worker.config.port:
                await loop.create_connection(lambda: upstream, worker.config.host, worker.config.port)
                if not worker.config.host.startswith("127."):
                    notice_silence(upstream.transport.get_extra_info("socket"))
            else:
                await loop.create_unix_connection(lambda: upstream, worker.config.host)
    except BaseException:
        if upstream.transport is not None:
            upstream.drop()  # nobody waits for it any more
        raise
    if upstream.transport.is_closing():
        raise ConnectionResetError("closed at once")
    return upstream

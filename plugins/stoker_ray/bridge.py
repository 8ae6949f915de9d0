"""Speaks to Ray for the daemon, in a process of its own: `python -m stoker_ray.bridge ADDRESS NAMESPACE`.

Ray's driver brings threads, signal handlers and a hundred megabytes with it, and a cluster that does not
answer can hold it up for minutes; none of that is to happen to the daemon. Requests come as lines of JSON on
standard input, answers go out likewise. It ends with the daemon; the actors are detached and stay.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError, RaySystemError

from stoker_ray.node import Worker

ANSWER = 5.0
"""Seconds an actor that is there gets to answer a plain question."""


class GoneError(Exception):
    """There is no actor of that name."""


class Bridge:
    """One connection to one cluster."""

    def __init__(self, say: Callable[[dict[str, Any]], None]) -> None:
        self._say = say
        self._kind = ray.remote(Worker)
        self._actors: dict[str, Any] = {}
        self._feeds: dict[str, asyncio.Task[None]] = {}

    async def answer(self, request: dict[str, Any]) -> None:
        """Do what one request asks for, and say what came of it."""
        do: Callable[..., Awaitable[Any]] = getattr(self, f"do_{request['do']}")
        try:
            found = {"value": await do(**request.get("with", {}))}
        except (ActorUnavailableError, GetTimeoutError, RaySystemError, TimeoutError) as error:
            found = {"away": _first_line(error) or "it took too long"}
        except (RayActorError, GoneError) as error:
            found = {"lost": _first_line(error)}
        except (RayError, ValueError, OSError) as error:
            found = {"error": _first_line(error) or type(error).__name__}
        self._say({"id": request["id"], **found})

    async def do_start(self, name: str, order: dict[str, Any], needs: dict[str, Any], patience: float) -> Any:
        """Have Ray place an actor and the actor start the worker."""
        options = {"name": name, "lifetime": "detached", "max_restarts": 0, "max_concurrency": 100}
        actor = self._kind.options(**options, **needs).remote(order)
        try:
            found = await asyncio.wait_for(_of(actor.start.remote(gpus=bool(needs["num_gpus"]))), patience)
        except TimeoutError:
            ray.kill(actor)
            return {"error": _no_place(needs, patience), "permanent": False}
        if "error" in found:
            ray.kill(actor)
        else:
            self._take(name, actor, order["log_path"], 0)
        return found

    async def do_find(self) -> Any:
        """All workers of this namespace that answer; an actor without one is ended."""
        names = await asyncio.to_thread(ray.util.list_named_actors)
        found = await asyncio.gather(*(self._describe(name) for name in names))
        return [{**one, "name": name} for name, one in zip(names, found, strict=True) if one]

    async def do_recover(self, name: str, log: str, base: int) -> None:
        """Follow the output of a worker of the daemon before, from where it has left it."""
        self._take(name, self._actor(name), log, max(0, _size(log) - base))

    async def do_wait(self, name: str) -> Any:
        """How the worker ended."""
        actor = self._actor(name)
        try:
            status = await _of(actor.wait.remote())
            feed = self._feeds.pop(name, None)
            if feed is not None:
                await asyncio.wait([feed], timeout=ANSWER)
            with suppress(RayError, TimeoutError):
                await asyncio.wait_for(_of(actor.forget.remote()), ANSWER)
        finally:
            self._actors.pop(name, None)
        with suppress(RayError, ValueError):
            ray.kill(actor)
        return status

    async def do_signal(self, name: str, number: int) -> None:
        """Pass a signal on."""
        await asyncio.wait_for(_of(self._actor(name).signal.remote(number)), ANSWER)

    async def do_measure(self, names: list[str]) -> Any:
        """CPU seconds, memory and age by name, of those that answer."""
        found = await asyncio.gather(
            *(asyncio.wait_for(_of(self._actor(name).measure.remote()), ANSWER) for name in names),
            return_exceptions=True,
        )
        return {
            name: one for name, one in zip(names, found, strict=True) if not isinstance(one, BaseException)
        }

    async def do_ask(self, name: str, argv: list[str]) -> Any:
        """Run a probe's command beside a worker."""
        return await _of(self._actor(name).ask.remote(argv))

    async def do_nodes(self) -> Any:
        """The nodes as Ray sees them."""
        return [
            {
                "id": one["NodeID"],
                "address": one["NodeManagerAddress"],
                "alive": one["Alive"],
                "resources": one["Resources"],
            }
            for one in await asyncio.to_thread(ray.nodes)
        ]

    async def _describe(self, name: str) -> dict[str, Any]:
        with suppress(RayError, TimeoutError, GoneError):
            actor = self._actor(name)
            found: dict[str, Any] = await asyncio.wait_for(_of(actor.describe.remote()), ANSWER)
            if found.get("pid"):
                return found
            ray.kill(actor)
        return {}

    def _actor(self, name: str) -> Any:
        if name not in self._actors:
            try:
                self._actors[name] = ray.get_actor(name)
            except ValueError as error:
                raise GoneError(f"Ray knows no actor {name} any more") from error
        return self._actors[name]

    def _take(self, name: str, actor: Any, log: str, offset: int) -> None:
        self._actors[name] = actor
        self._feeds[name] = asyncio.create_task(_feed(actor, log, offset))


async def _feed(actor: Any, log: str, offset: int) -> None:
    """Carry what a worker writes on its node into its log on this box."""
    with suppress(RayError):
        while piece := await _of(actor.read.remote(offset)):
            _append(log, piece)
            offset += len(piece)


def _append(log: str, piece: bytes) -> None:
    with open(log, "ab") as file:
        file.write(piece)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _no_place(needs: dict[str, Any], patience: float) -> str:
    wanted = {name: needs[name] for name in ("num_cpus", "num_gpus") if needs[name]} | needs["resources"]
    free = {k: v for k, v in ray.available_resources().items() if ":" not in k and "memory" not in k}
    return f"Ray has found no place within {patience:g} s for {wanted}; free: {free}"


async def _of(reference: Any) -> Any:
    return await reference


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines if "node" in line.lower() or "killed" in line.lower()), "")
    return (said or (lines[0] if lines else ""))[:300]


async def serve(namespace: str, address: str) -> None:
    """Answer until standard input ends."""
    loop = asyncio.get_running_loop()
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what Ray prints is no answer

    def say(answer: dict[str, Any]) -> None:
        out.write(json.dumps(answer) + "\n")

    reader = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        await asyncio.to_thread(
            ray.init,
            address=address,
            namespace=namespace,
            log_to_driver=False,
            configure_logging=False,
        )
    except (RayError, ConnectionError, ValueError, RuntimeError) as error:
        say({"id": 0, "error": _first_line(error)})
        return
    say({"id": 0, "value": {"address": ray.util.get_node_ip_address()}})
    bridge, tasks = Bridge(say), set[asyncio.Task[None]]()
    while line := await reader.readline():
        task = asyncio.create_task(bridge.answer(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    os._exit(0)  # actors are detached; a cluster that does not answer is not to hold the end up


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[2], sys.argv[1]))

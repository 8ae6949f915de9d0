"""Several routers in one daemon: who has which service, what is heard of whom, how a service moves."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from stoker.config.load import load
from stoker.config.sources import ConfigRequest
from stoker.errors import ConfigError, PluginError, RouterError
from stoker.model.door import Door, DoorRule
from stoker.model.load import LoadSample, RequestRecord
from stoker.model.service import ServiceSpec
from stoker.model.state import Route, RoutingTable, WorkerRoute
from stoker.plugin import impl
from stoker.plugin.manager import PluginRegistry
from stoker.plugin.ports import PluginContext, Router, RouterEvents
from stoker.runtime import routers as module
from stoker.runtime.parts import Parts
from stoker.runtime.router_choice import RouterChoice
from stoker.runtime.routers import Routers
from stoker.runtime.shortfalls import remarks

pytestmark = pytest.mark.anyio


class Part:
    """A router that only remembers; it can hand a socket over."""

    def __init__(self, name: str, fd: int | None = None) -> None:
        self.name = name
        self.fd = fd
        self.tables: list[RoutingTable] = []
        self.inherited: list[str] = []
        self.events: RouterEvents
        self.stopped = 0.0
        self.runs = 0

    async def run(self, events: RouterEvents) -> None:
        self.runs += 1
        self.events = events
        await anyio.sleep_forever()

    async def apply(self, table: RoutingTable) -> None:
        await anyio.lowlevel.checkpoint()
        self.tables.append(table)

    async def stop(self, grace: float) -> None:
        await anyio.lowlevel.checkpoint()
        self.stopped = grace

    def listening(self, service: str) -> int | None:
        return None if self.fd is None else os.dup(self.fd)

    async def inherit(self, service: str, fd: int) -> None:
        await anyio.lowlevel.checkpoint()
        assert os.fstat(fd)
        self.inherited.append(service)

    @property
    def routes(self) -> Mapping[str, Route]:
        return self.tables[-1].routes if self.tables else {}


class Heard:
    """What reaches the daemon."""

    def __init__(self) -> None:
        self.said: list[tuple[str, ...]] = []

    def sample(self, sample: LoadSample) -> None:
        self.said.append(("sample", sample.service, str(sample.arrivals)))

    def demand(self, service: str) -> None:
        self.said.append(("demand", service))

    def drained(self, replica: str) -> None:
        self.said.append(("drained", replica))

    def bound(self, service: str, host: str, port: int) -> None:
        self.said.append(("bound", service))

    def trouble(self, service: str, message: str) -> None:
        self.said.append(("trouble", message))


def table(*services: str, draining: bool = False) -> RoutingTable:
    worker = WorkerRoute(id="w-1", endpoint="127.0.0.1:9", draining=draining)
    return RoutingTable(
        routes={name: Route(service=name, host="127.0.0.1", port=1, workers=(worker,)) for name in services}
    )


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.002)


@asynccontextmanager
async def running(routers: Routers) -> AsyncIterator[Heard]:
    heard = Heard()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(routers.run, heard)
        await anyio.wait_all_tasks_blocked()
        yield heard
        tasks.cancel_scope.cancel()


async def test_each_router_hears_of_its_own_services_only() -> None:
    parts = {name: Part(name) for name in ("a", "b")}
    kept: list[list[str]] = []
    routers = Routers(
        make=lambda name: parts[name],
        choose=lambda service: service[-1],
        known={"a": ()},
        keep=lambda names: kept.append(list(names)),
    )
    async with running(routers) as heard:
        assert kept == [["a"]], "the other is not made before it is needed"
        await routers.apply(table("x/a", "y/b"))
        await until(lambda: bool(parts["a"].tables and parts["b"].tables))
        assert set(parts["a"].routes) == {"x/a"}
        assert set(parts["b"].routes) == {"y/b"}
        assert kept[-1] == ["a", "b"]
        parts["b"].events.sample(LoadSample(service="x/a", start=0, end=1, arrivals=7))
        parts["a"].events.sample(LoadSample(service="x/a", start=0, end=1, arrivals=3))
        assert heard.said == [("sample", "x/a", "3")], "the load is told by the one that has the service"
        assert [part.runs for part in parts.values()] == [1, 1]
    await routers.stop(3.0)
    assert [part.stopped for part in parts.values()] == [3.0, 3.0]


class Measuring(Part):
    """One that can be asked for its load."""

    async def measure(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.events.sample(LoadSample(service="x/a", start=0, end=1, arrivals=3))


async def test_routers_that_can_be_asked_for_the_load_are() -> None:
    parts = {"a": Measuring("a"), "b": Part("b")}
    routers = Routers(make=lambda name: parts[name], choose=lambda service: service[-1])
    async with running(routers) as heard:
        await routers.apply(table("x/a", "y/b"))
        await until(lambda: bool(parts["a"].tables and parts["b"].tables))
        await routers.measure()
        assert heard.said == [("sample", "x/a", "3")]


class Doorkeeper(Part):
    opens_doors = True


class Inner(Part):
    def inside(self, service: str) -> str:
        return f"unix:/run/{service}"


async def test_a_door_leads_to_services_of_another_router() -> None:
    """By a route whose one worker is that router; at zero by none, so that requests wait at the door."""
    made = {"a": Doorkeeper("a"), "b": Inner("b"), "c": Part("c")}
    routers = Routers(make=made.__getitem__, choose=lambda service: service[-1], known={"a": ()})
    rules = tuple(DoorRule(service=name) for name in ("x/a", "x/b", "y/b", "x/c", "gone/b"))
    door = Door(host="127.0.0.1", port=80, rules=rules)
    asked = table("x/a", "x/b", "y/b", "x/c")
    grpc = replace(asked.routes["y/b"], protocol="grpc")
    async with running(routers) as heard:
        await routers.apply(RoutingTable(routes={**asked.routes, "y/b": grpc}, doors=(door,)))
        await until(lambda: set(made["a"].routes) == {"x/a", "x/b"})
        route = made["a"].routes["x/b"]
        assert (route.inner, route.protocol) == (True, "http")
        assert route.workers == (WorkerRoute(id="router:b", endpoint="unix:/run/x/b"),)
        await until(lambda: "x/b" in made["b"].routes)
        assert not made["b"].routes["x/b"].inner
        made["a"].events.sample(LoadSample(service="x/b", start=0, end=1, arrivals=7))
        assert heard.said == [], "its load is told by the router that has it"
        await routers.apply(RoutingTable(routes=table("x/b", draining=True).routes, doors=(door,)))
        await until(lambda: made["a"].routes["x/b"].workers == ())


async def test_a_doorkeeper_that_loses_a_service_leads_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workers only finish what they have of it, and are drained once it says so too."""
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    monkeypatch.setattr(module, "LOOK", 0.005)
    names = {"x/s": "a"}
    door = Door(host="127.0.0.1", port=80, rules=(DoorRule(service="x/s"),))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        old, new = Doorkeeper("a", sock.fileno()), Inner("b")
        parts = {"a": old, "b": new}
        routers = Routers(make=parts.__getitem__, choose=names.get, known={"a": ()})
        async with running(routers):
            await routers.apply(RoutingTable(routes=table("x/s").routes, doors=(door,)))
            await until(lambda: "x/s" in old.routes)
            busy = {"router:b": 3, "w-1": 1}
            old.events.sample(LoadSample(service="x/s", start=0, end=1, in_flight=4, workers=busy))
            names["x/s"] = "b"
            await routers.apply(RoutingTable(routes=table("x/s").routes, doors=(door,)))
            await until(lambda: old.routes["x/s"].leaving)
            through, finishing = old.routes["x/s"].workers
            assert (through.id, through.draining) == ("router:b", False)
            assert (finishing.id, finishing.draining) == ("w-1", True)
            rest = {"router:b": 3, "w-1": 0}
            old.events.sample(LoadSample(service="x/s", start=1, end=2, in_flight=3, workers=rest))
            await until(lambda: not old.routes["x/s"].leaving)
            assert [worker.id for worker in old.routes["x/s"].workers] == ["router:b"]


async def test_a_router_that_cannot_be_made_leaves_the_service_where_it_is() -> None:
    good, names = Part("a"), {"x/s": "a"}

    def make(name: str) -> Router:
        if name != "a":
            raise PluginError("it is not installed")
        return good

    routers = Routers(make=make, choose=lambda service: names[service], known={"a": ()})
    async with running(routers) as heard:
        await routers.apply(table("x/s"))
        names["x/s"] = "b"
        await routers.apply(table("x/s"))
        await routers.apply(table("x/s"))
        await until(lambda: bool(good.tables))
        assert set(good.routes) == {"x/s"}
        assert heard.said == [("trouble", "it is not installed")], "once"


async def test_a_service_moves_with_its_socket_and_is_drained_when_both_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    monkeypatch.setattr(module, "LOOK", 0.005)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        parts = {"a": Part("a", sock.fileno()), "b": Part("b")}
        names = {"x/s": "a"}
        routers = Routers(make=lambda name: parts[name], choose=names.get, known={"a": ()})
        async with running(routers) as heard:
            await routers.apply(table("x/s"))
            await until(lambda: "x/s" in parts["a"].routes)
            parts["a"].events.sample(LoadSample(service="x/s", start=0, end=1, in_flight=1))
            names["x/s"] = "b"
            await routers.apply(table("x/s", draining=True))
            await until(lambda: "x/s" in parts["b"].routes)
            assert parts["b"].inherited == ["x/s"]
            await until(lambda: parts["a"].routes["x/s"].leaving)
            assert not parts["b"].routes["x/s"].leaving
            heard.said.clear()
            parts["b"].events.drained("w-1")
            assert heard.said == [], "the first one still has a request there"
            parts["a"].events.sample(LoadSample(service="x/s", start=1, end=2))
            await until(lambda: "x/s" not in parts["a"].routes)
            assert heard.said == [("drained", "w-1")]
            del names["x/s"]  # it is configured no more: nobody else gets it
            await routers.apply(table("x/s", draining=True))
            await anyio.wait_all_tasks_blocked()
            assert "x/s" in parts["b"].routes


async def test_single_requests_are_refused_where_a_router_cannot_tell_them() -> None:
    routers = Routers(make=Part, choose=lambda service: "a", known={"a": ()})
    async with running(routers):
        await routers.apply(table("x/s"))
        with pytest.raises(RouterError, match="these services: a"):
            async for _ in routers.record(["x/s"]):
                pass


# --- several processes of one -----------------------------------------------------------------------------


class Many(Part):
    """A router that can have several processes, open doors and tell single requests."""

    several = True
    opens_doors = True

    async def record(self, services: Sequence[str]) -> AsyncGenerator[Sequence[RequestRecord], None]:
        yield ()
        yield (RequestRecord(service=self.name, arrived=1.0, waited=0.0, held=0.1, status=200),)
        await anyio.sleep_forever()


@asynccontextmanager
async def several(
    count: list[int], known: Mapping[str, Sequence[str]] | None = None
) -> AsyncIterator[tuple[Routers, dict[str, Many], list[Mapping[str, Sequence[str]]]]]:
    made: dict[str, Many] = {}
    kept: list[Mapping[str, Sequence[str]]] = []
    routers = Routers(
        make=lambda name: made.setdefault(name, Many(name)),
        choose=lambda service: "a",
        known=known or {"a": ()},
        keep=kept.append,
        processes=lambda: count[0],
    )
    async with running(routers):
        yield routers, made, kept


async def test_services_are_spread_and_an_empty_process_ends() -> None:
    async with several(count := [2]) as (routers, made, kept):
        await routers.apply(table("x/a", "x/b", "x/c"))
        await until(lambda: len(made) == 2 and all(part.tables for part in made.values()))
        assert set(made["a"].routes) == {"x/a", "x/c"}
        assert set(made["a.2"].routes) == {"x/b"}
        assert kept[-1] == {"a": ["x/a", "x/c"], "a.2": ["x/b"]}
        count[0] = 1
        await routers.apply(table("x/a", "x/b", "x/c"))
        await until(lambda: made["a.2"].stopped > 0)
        assert set(made["a"].routes) == {"x/a", "x/b", "x/c"}
        assert set(kept[-1]) == {"a"}


async def test_a_new_daemon_leaves_each_service_where_it_was() -> None:
    known = {"a": ["x/c"], "a.2": ["x/b"]}
    async with several([2], known) as (routers, made, kept):
        assert kept[-1] == known, "until a first table came, it is as it was"
        await routers.apply(table("x/b", "x/c"))
        await until(lambda: all(part.tables for part in made.values()))
        assert set(made["a"].routes) == {"x/c"}
        assert set(made["a.2"].routes) == {"x/b"}
        assert not any(part.inherited for part in made.values()), "nothing has moved"


async def test_what_a_door_leads_to_has_the_process_that_opens_it() -> None:
    rules = (DoorRule(path="/", service="x/b"), DoorRule(path="/d", service="x/d"))
    door = Door(host="127.0.0.1", port=80, rules=rules)
    async with several([2]) as (routers, made, _):
        await routers.apply(replace(table("x/a", "x/b", "x/c", "x/d"), doors=(door,)))
        await until(lambda: all(part.tables for part in made.values()))
        assert set(made["a"].routes) == {"x/b", "x/d"}
        assert set(made["a.2"].routes) == {"x/a", "x/c"}


async def test_single_requests_of_all_processes_are_told_in_one_stream() -> None:
    async with several([2]) as (routers, _, _):
        await routers.apply(table("x/a", "x/b"))
        seen: list[str] = []
        async with aclosing(routers.record(["x/a", "x/b"])) as batches:
            async for batch in batches:
                assert len(batch) == (1 if seen else len(batch))
                seen += [one.service for one in batch] or ["begun"]
                if len(seen) == 3:
                    break
        assert seen[0] == "begun"
        assert sorted(seen[1:]) == ["a", "a.2"]


# --- which one --------------------------------------------------------------------------------------------

FILE = """box: {router: plain}
services:
  web: {command: sleep 600}
  call:
    command: sleep 600
    traffic: {protocol: grpc}
"""


class Plugin:
    """Two routers; the one that speaks gRPC can be taken away."""

    there = True

    @impl
    def stoker_routers(self) -> Mapping[str, Callable[[PluginContext], Part]]:
        return {"plain": lambda context: Part("plain"), "rich": self.rich}

    @impl
    def stoker_router_shortfalls(self) -> Mapping[str, Callable[[ServiceSpec], Mapping[str, str]]]:
        return {"plain": self.plain_lacks, "rich": lambda spec: {"traffic.max_queue": "counts roughly"}}

    def plain_lacks(self, spec: ServiceSpec) -> Mapping[str, str]:
        return {"traffic.protocol": "does not"} if spec.traffic.protocol != "http" else {}

    def rich(self, context: PluginContext) -> Part:
        if not self.there:
            raise PluginError("it needs a program; install it")
        return Part("rich")


def test_the_protocol_chooses_for_that_service_alone(tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text(FILE)
    registry, plugin = PluginRegistry(), Plugin()
    registry.register("routers", plugin)
    effective = load(ConfigRequest(files=(str(tmp_path / "app.yaml"),)))
    choice = RouterChoice(registry, "plain")
    found = {name: choice.of(spec) for name, spec in effective.desired.services.items()}
    assert found == {"app/web": "plain", "app/call": "rich"}
    (said,) = remarks(effective, registry)
    assert said.endswith("app.yaml:6:5: services.call.traffic.max_queue: router rich counts roughly")


@pytest.mark.parametrize(("first", "place"), [("plain", "6:15"), ("rich", "1:7")])
def test_a_missing_router_is_told_at_what_chose_it(tmp_path: Path, first: str, place: str) -> None:
    (tmp_path / "app.yaml").write_text(FILE.replace("plain", first))
    registry, plugin = PluginRegistry(), Plugin()
    plugin.there = False
    registry.register("routers", plugin)
    effective = load(ConfigRequest(files=(str(tmp_path / "app.yaml"),)))
    parts = Parts(
        registry, PluginContext(instance="i", state_dir="", runtime_dir=""), post=lambda event: None
    )
    with pytest.raises(ConfigError) as caught:
        parts.check_routers(effective)
    (problem,) = caught.value.problems
    assert f"app.yaml:{place}: " in str(problem)
    assert str(problem).endswith("router 'rich' cannot be used here: it needs a program; install it")

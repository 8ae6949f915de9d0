"""What routers on other boxes are told."""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import replace

import trio
import trio.testing

from api.fakes import FakeDaemon, Served, snapshot
from api.wire import get
from stoker.api.routes import route_lines
from stoker.model.door import Door
from stoker.model.state import Route, RoutingTable

TABLE = RoutingTable(
    routes={"rag/infer": Route(service="rag/infer", host="127.0.0.1", port=8001, timeout=9)},
    doors=(Door(host="0.0.0.0", port=80),),
)


def test_the_addresses_are_one_document(live: Served, daemon: FakeDaemon) -> None:
    daemon.state = replace(daemon.state, routes=TABLE)
    found = get(live.socket, "/v1/routes")
    assert [(one["service"], one["port"], one["timeout"]) for one in found["routes"]] == [
        ("rag/infer", 8001, 9)
    ]
    assert [(one["host"], one["port"], one["tls"]) for one in found["doors"]] == [("0.0.0.0", 80, False)]


def test_changes_are_told_and_a_daemon_that_has_just_begun_tells_nothing() -> None:
    known = snapshot(routes=TABLE)
    new = replace(known, routes=RoutingTable(), routed=False)  # its configuration is in force, no more

    async def run() -> None:
        daemon = FakeDaemon(state=new)
        async with aclosing(route_lines(daemon)) as lines:  # type: ignore[type-var]
            assert [await anext(lines) for _ in range(3)] == [b"\n"] * 3
            daemon.state = known
            daemon.pulse.beat()
            assert len(json.loads(await anext(lines))["routes"]) == 1
            daemon.pulse.beat()
            assert await anext(lines) == b"\n"  # something changed, no address did
            daemon.state = replace(known, routes=replace(TABLE, doors=()))
            daemon.pulse.beat()
            assert json.loads(await anext(lines))["doors"] == []

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))

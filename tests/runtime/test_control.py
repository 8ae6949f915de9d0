"""The control loop's order of things."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from stoker.model.action import Action
from stoker.model.event import Event, Notice
from stoker.model.service import DesiredState
from stoker.runtime.control import NONE_YET, ControlLoop
from stoker.runtime.journal import Journal
from worlds import make_spec, wanting

pytestmark = pytest.mark.anyio


async def test_addresses_are_known_before_anything_starts() -> None:
    """A worker is told the addresses of the services that it calls, also of those that start with it."""
    known: list[set[str]] = []
    table: dict[str, tuple[str, int]] = {}

    def addresses(desired: DesiredState) -> Mapping[str, tuple[str, int]]:
        table.update(dict.fromkeys(desired.services, ("127.0.0.1", 1)))
        return table

    def perform(action: Action) -> Event:
        known.append(set(table))
        return Notice(message="done")

    loop = ControlLoop(
        journal=Journal(lambda: 0.0), perform=perform, publish=lambda table: None, addresses=addresses
    )
    loop.configure(wanting(make_spec("web"), make_spec("infer")))
    loop.act()
    assert known
    assert all(one == {"app/web", "app/infer"} for one in known)


async def test_routes_are_known_once_they_are_made_of_what_is_wanted() -> None:
    """Before that nobody may be told that there are none."""
    loop = ControlLoop(
        journal=Journal(lambda: 0.0),
        perform=lambda action: Notice(message="done"),
        publish=lambda table: None,
        addresses=lambda desired: dict.fromkeys(desired.services, ("127.0.0.1", 1)),
    )
    loop.configure(wanting(make_spec("web")))
    loop.act()
    assert loop.routes is NONE_YET
    loop.settle()
    assert list(loop.routes.routes) == ["app/web"]
    empty = ControlLoop(
        journal=Journal(lambda: 0.0),
        perform=lambda action: Notice(message="done"),
        publish=lambda table: None,
        addresses=lambda desired: {},
    )
    empty.settle()
    assert empty.routes is not NONE_YET, "none at all is known as well"

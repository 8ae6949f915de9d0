"""The control loop's order of things."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from stoker.model.action import Action
from stoker.model.event import Event, Notice
from stoker.model.service import DesiredState
from stoker.runtime.control import ControlLoop
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

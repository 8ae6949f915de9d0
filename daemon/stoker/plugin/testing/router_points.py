"""What a router may declare that it cannot do, and how a test of it then shows."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from stoker.plugin.ports import Router, router_shortfalls

POINTS: Mapping[str, str] = {
    "load": "in-flight and queued seconds are exact time integrals",
    "deadline": "`timeout` bounds waiting and working together",
    "records": "single requests are told (`RecordingRouter`)",
    "held": "an address stays open when daemon and program are killed together (see `stoker.plugin.holding`)",
    "hand-over": "an open address is given to another router, and taken from one",
}
"""The points, each with what is promised where it is not declared."""


def declared(router: Router, point: str) -> str:
    """The router's words for what it lacks there; "" if it keeps the promise."""
    return router_shortfalls(router).get(point, "")


def expect(router: Router, point: str) -> None:
    """End the test as expected to fail where the router declares that point."""
    words = declared(router, point)
    if words:
        pytest.xfail(f"{point}: {words}")

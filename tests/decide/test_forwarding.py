"""Where a router on another box leads each address."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.decide.forwarding import SLACK, forwarding, reached
from stoker.model.state import WorkerRoute


def told(**values: Any) -> dict[str, Any]:
    service = {
        "service": "shop/web", "host": "0.0.0.0", "port": 8001, "tls": False, "proxy_protocol": False,
        "protocol": "http", "timeout": 60.0, "max_queue": 7, "max_body": 100, "retry": "always", **values,
    }  # fmt: skip
    return {"generation": 3, "routes": [service], "doors": []}


@pytest.mark.parametrize(
    ("host", "home", "where"),
    [
        ("0.0.0.0", "10.0.0.1", "10.0.0.1"),
        ("::", "box", "box"),
        ("10.0.0.9", "10.0.0.1", "10.0.0.9"),
        ("127.0.0.1", "10.0.0.1", ""),
        ("localhost", "10.0.0.1", ""),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "localhost", "127.0.0.1"),
    ],
)
def test_where_an_address_is_reached_from_another_box(host: str, home: str, where: str) -> None:
    assert reached(host, home) == where


def test_each_service_is_led_to_its_own_router() -> None:
    found = forwarding(told(), "fd00::1", "127.0.0.1")
    [route] = found.table.routes.values()
    assert (route.service, route.host, route.port) == ("shop/web", "127.0.0.1", 8001)
    assert route.workers == (WorkerRoute(id="shop/web@home", endpoint="[fd00::1]:8001"),)
    assert (route.timeout, route.max_queue, route.max_body, route.retry) == (60 + SLACK, 7, 100, "always")
    assert found.notes == {}


def test_a_door_is_led_on_as_a_whole() -> None:
    door = {"host": "0.0.0.0", "port": 80, "tls": False, "proxy_protocol": False}
    table = forwarding({**told(), "doors": [door]}, "10.0.0.1", "127.0.0.1").table
    assert [worker.endpoint for worker in table.routes["door/80"].workers] == ["10.0.0.1:80"]


def test_what_only_its_own_box_reaches_is_refused_with_the_remedy() -> None:
    found = forwarding(told(host="127.0.0.1"), "10.0.0.1", "127.0.0.1")
    [route] = found.table.routes.values()
    assert route.workers == ()
    assert route.held == f"shop/web {found.notes['shop/web']}"
    assert "set its endpoint.host to 0.0.0.0" in route.held


@pytest.mark.parametrize("what", [{"tls": True}, {"proxy_protocol": True}, {"protocol": "grpc"}])
def test_what_it_cannot_carry_is_said_and_no_address_is_opened(what: dict[str, Any]) -> None:
    found = forwarding(told(**what), "10.0.0.1", "127.0.0.1")
    assert found.table.routes == {}
    assert found.notes.keys() == {"shop/web"}


@pytest.mark.parametrize("document", [{}, {"routes": [{}], "doors": []}, {"routes": 1, "doors": []}])
def test_nonsense_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        forwarding(document, "10.0.0.1", "127.0.0.1")

"""The routing table: who is in it, who drains, and when waiting is pointless."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stoker.decide.routing import routing_table
from stoker.model.replica import Phase
from stoker.model.service import Scaling, Traffic
from stoker.model.state import DesiredState, ObservedState, Route
from worlds import make_replica, make_spec, seeing, wanting

SPEC = make_spec(
    traffic=Traffic(concurrency=4, timeout=9, max_queue=7, max_concurrency=3, retry="never", protocol="grpc")
)
ADDRESSES = {SPEC.key: ("127.0.0.1", 8001)}


def route(desired: DesiredState, observed: ObservedState) -> Route:
    return routing_table(desired, observed, ADDRESSES).routes[SPEC.key]


def draining(phase: Phase, **changes: Any) -> bool | None:
    """Whether a replica is in the table as draining; None: it is not in it."""
    workers = route(wanting(SPEC), seeing(make_replica(SPEC, "a", phase, **changes))).workers
    return workers[0].draining if workers else None


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        ("pending", None),
        ("starting", None),
        ("ready", False),
        ("unready", True),
        ("draining", True),
        ("stopping", True),
        ("lost", True),
        ("exited", None),
    ],
)
def test_only_ready_workers_get_new_requests_and_none_is_cut_before_its_end(
    phase: Phase, expected: bool | None
) -> None:
    assert draining(phase) is expected


def test_a_worker_that_never_served_is_not_in_the_table() -> None:
    assert draining("stopping", ready_at=None) is None


def test_a_worker_that_hangs_is_cut_so_that_its_requests_can_go_elsewhere() -> None:
    assert draining("ready", condemned="liveness failed") is None


def test_the_route_carries_the_traffic_rules() -> None:
    given = route(wanting(SPEC), seeing(make_replica(SPEC)))
    assert (given.host, given.port, given.timeout, given.max_queue) == ("127.0.0.1", 8001, 9, 7)
    assert (given.max_concurrency, given.retry, given.protocol) == (3, "never", "grpc")
    assert given.workers[0].concurrency == 4


def test_services_without_an_address_have_no_route() -> None:
    assert routing_table(wanting(SPEC), seeing(make_replica(SPEC)), {}).routes == {}


@pytest.mark.parametrize(
    ("desired", "stopping", "held"),
    [
        (wanting(SPEC), False, ""),
        (wanting(replace(SPEC, scaling=Scaling(min_replicas=0))), False, ""),
        (wanting(replace(SPEC, held=True)), False, "service web is stopped by the operator"),
        (wanting(SPEC), True, "service web is being stopped with all others"),
        (
            wanting(replace(SPEC, scaling=Scaling(min_replicas=0, max_replicas=0))),
            False,
            "service web has max_replicas 0",
        ),
    ],
)
def test_clients_are_told_when_waiting_is_pointless(desired: DesiredState, stopping: bool, held: str) -> None:
    assert route(desired, seeing(stopping=stopping)).held == held


def test_at_the_end_a_service_serves_as_long_as_it_has_workers() -> None:
    assert route(wanting(SPEC), seeing(make_replica(SPEC), stopping=True)).held == ""


def test_a_service_that_is_gone_keeps_its_route_until_its_requests_are_done() -> None:
    leaving = seeing(make_replica(SPEC, "a", "draining", leave=True))
    given = route(wanting(), leaving)
    assert given.workers[0].draining
    assert given.held == "service web is no longer configured"
    assert routing_table(wanting(), seeing(), ADDRESSES).routes == {}


def test_an_address_given_to_another_service_is_no_longer_its_own() -> None:
    other = make_spec("other")
    addresses = {SPEC.key: ("127.0.0.1", 8001), other.key: ("127.0.0.1", 8001)}
    leaving = seeing(make_replica(SPEC, "a", "draining", leave=True))
    assert set(routing_table(wanting(other), leaving, addresses).routes) == {other.key}


def crashing(phase: Phase = "pending", failures: int = 5) -> Any:
    return make_replica(SPEC, "bad", phase, failures=failures, failure="exit code 3: no weights")


def test_nobody_waits_for_a_service_in_a_crash_loop() -> None:
    held = route(wanting(SPEC), seeing(crashing())).held
    assert held == "service web is in a crash loop: exit code 3: no weights"


@pytest.mark.parametrize(
    "replicas",
    [
        [crashing(failures=4)],
        [crashing("starting")],
        [crashing(), make_replica(SPEC, "b", "starting")],
        [crashing(), make_replica(SPEC, "b", "pending")],
        [crashing(), make_replica(SPEC)],
    ],
    ids=["a few failures", "the next try is under way", "another starts", "another will", "another serves"],
)
def test_a_service_that_may_yet_come_is_worth_waiting_for(replicas: list[Any]) -> None:
    assert route(wanting(SPEC), seeing(*replicas)).held == ""


def test_a_worker_condemned_gently_finishes_what_it_has_and_one_condemned_at_once_is_cut() -> None:
    assert draining("ready", condemned="took too much", gently=True) is True
    assert draining("ready", condemned="hangs") is None

"""Services keep their address; workers never share a port."""

from __future__ import annotations

import socket

import pytest

from stoker.errors import WorkerError
from stoker.model.service import Command, DesiredState, Endpoint, ServiceSpec
from stoker.runtime.addresses import ServiceAddresses, WorkerPorts, is_free
from stoker.runtime.store import Store


def desired(*names: str, **ports: int) -> DesiredState:
    specs = [
        ServiceSpec(
            deployment="d",
            name=name,
            launch=Command(("x",)),
            working_dir="/",
            endpoint=Endpoint(port=ports.get(name, 0)),
        )
        for name in names
    ]
    return DesiredState(services={spec.key: spec for spec in specs})


def test_a_chosen_address_is_kept_across_daemons(tmp_path):
    first = ServiceAddresses(Store(tmp_path))
    table = dict(first.table(desired("a", "b")))
    assert table["d/a"] != table["d/b"]
    again = ServiceAddresses(Store(tmp_path)).table(desired("b", "a", "c"))
    assert {key: again[key] for key in table} == table


def test_a_declared_port_is_taken_as_it_is_and_never_chosen_for_another(tmp_path):
    addresses = ServiceAddresses(Store(tmp_path))
    chosen = addresses.table(desired("a"))["d/a"][1]
    other = ServiceAddresses(Store(tmp_path / "other")).table(desired("a", "b", b=chosen))
    assert other["d/b"] == ("127.0.0.1", chosen)
    assert other["d/a"][1] != chosen


def test_a_service_that_left_the_file_while_no_daemon_lived_has_its_address_for_its_last_requests(tmp_path):
    first = ServiceAddresses(Store(tmp_path))
    table = dict(first.table(desired("a", "b", "c", c=18555)))
    again = ServiceAddresses(Store(tmp_path)).table(desired("a"))
    assert again == table
    third = ServiceAddresses(Store(tmp_path)).table(desired("a", "d", d=18555))
    assert "d/c" not in third, "another has it now"


def test_the_url_of_a_service_that_is_not_there_is_empty(tmp_path):
    addresses = ServiceAddresses(Store(tmp_path))
    assert addresses.url("d/a") == ""
    addresses.table(desired("a"))
    assert addresses.url("d/a").startswith("http://127.0.0.1:")


def free_range(count: int) -> range:
    """A few neighbouring ports that are free now."""
    for start in range(40000, 60000, 50):
        if all(is_free("127.0.0.1", port) for port in range(start, start + count)):
            return range(start, start + count)
    pytest.fail("no free neighbouring ports")


def test_worker_ports_are_unique_come_back_last_and_run_out_loudly():
    pool = WorkerPorts(free_range(3))
    first, second, third = pool.take(), pool.take(), pool.take()
    assert len({first, second, third}) == 3
    with pytest.raises(WorkerError, match="no free port"):
        pool.take()
    pool.give_back(second)
    assert pool.take() == second


def test_a_port_somebody_listens_on_is_passed_over():
    ports = free_range(2)
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", ports[0]))
        squatter.listen()
        assert WorkerPorts(ports).take() == ports[1]


def test_an_adopted_port_is_not_given_out():
    ports = free_range(2)
    pool = WorkerPorts(ports)
    pool.adopt(ports[0])
    assert pool.take() == ports[1]

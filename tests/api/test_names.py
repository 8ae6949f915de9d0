from __future__ import annotations

from dataclasses import replace

import pytest

from api.fakes import GPU, SPARE, snapshot, spec, specs
from stoker.api.names import resolve_device, resolve_replica, resolve_service
from stoker.errors import ConflictError, NotFoundError
from stoker.model.device import Device
from stoker.model.service import DesiredState

TWO = snapshot(desired=DesiredState(services=specs() | {"chat/infer": spec("infer", "chat")}))


@pytest.mark.parametrize("name", ["infer", "rag/infer"])
def test_a_service_goes_by_its_name_or_its_key(name: str) -> None:
    assert resolve_service(snapshot(), name) == "rag/infer"


def test_a_name_in_two_deployments_is_refused_with_the_candidates() -> None:
    with pytest.raises(ConflictError, match="write one of rag/infer, chat/infer"):
        resolve_service(TWO, "infer")
    assert resolve_service(TWO, "chat/infer") == "chat/infer"


def test_a_misspelt_service_gets_the_nearest_name_as_it_can_be_typed() -> None:
    with pytest.raises(NotFoundError, match="did you mean 'tokenize'"):
        resolve_service(TWO, "tokenise")
    with pytest.raises(NotFoundError, match="did you mean 'chat/infer'"):
        resolve_service(TWO, "chat/infr")


def test_a_name_that_is_near_to_nothing_gets_the_list() -> None:
    with pytest.raises(NotFoundError, match="there are: tokenize, infer"):
        resolve_service(snapshot(), "zzz")


def test_no_services_at_all_is_said() -> None:
    empty = snapshot(desired=DesiredState(), observed=type(snapshot().observed)())
    with pytest.raises(NotFoundError, match="there are no services"):
        resolve_service(empty, "infer")


def test_a_misspelt_replica_gets_the_nearest() -> None:
    assert resolve_replica(snapshot(), "infer-k3x9").phase == "ready"
    with pytest.raises(NotFoundError, match="did you mean 'infer-k3x9'"):
        resolve_replica(snapshot(), "infer-k3x8")


def test_a_device_goes_by_its_uuid_the_beginning_of_it_or_its_index() -> None:
    for name in (GPU, "GPU-1", "gpu-1", "0"):
        assert resolve_device(snapshot(), name) == GPU


def test_a_device_that_is_away_is_known_by_its_mark() -> None:
    assert resolve_device(snapshot(marks={"GPU-away": "cordoned"}), "GPU-aw") == "GPU-away"


def test_an_unknown_or_ambiguous_device_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConflictError, match=f"write one of {GPU}, {SPARE}"):
        resolve_device(snapshot(), "GPU-")
    with pytest.raises(NotFoundError, match=f"did you mean '{GPU}'"):
        resolve_device(snapshot(), GPU[:-1] + "6")
    with pytest.raises(NotFoundError, match="no GPU 7 on this box; there are: 0"):
        resolve_device(snapshot(), "7")


def test_a_gpu_that_is_cut_stands_for_its_instances() -> None:
    parts = tuple(
        Device(uuid=f"MIG-{tag}", name="MIG", index=0, memory_total=1, parent="GPU-cut") for tag in "ab"
    )
    known = snapshot()
    inventory = replace(known.observed.inventory, devices=parts)
    cut = replace(known, observed=replace(known.observed, inventory=inventory))
    assert resolve_device(cut, "0") == resolve_device(cut, "GPU-c") == "GPU-cut"
    assert resolve_device(cut, "MIG-b") == "MIG-b"

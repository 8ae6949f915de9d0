"""Machines of clusters: what is told of them, and how they are shared out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import anyio
import pytest

from stoker.decide.apportion import Asked
from stoker.decide.claims import Amount
from stoker.errors import WorkerError
from stoker.model.event import Event
from stoker.model.load import Decision
from stoker.model.node import Node
from stoker.model.service import DesiredState, Elsewhere, Resources, ServiceSpec
from stoker.model.state import ObservedState
from stoker.runtime.box_budget import BoxBudget
from stoker.runtime.clusters import PERIOD, Clusters, room_of
from stoker_fake import FakeBox
from stoker_fake.driver import FakeDriver
from worlds import GIB, make_spec, wanting

NODES = (
    Node(address="10.0.0.1", gpus=2, cpu=8, memory=16 * GIB),
    Node(address="10.0.0.2", gpus=2, cpu=8, memory=16 * GIB),
    Node(address="10.0.0.3", gpus=8, cpu=64, memory=512 * GIB, alive=False),
)


def far(name: str, priority: int = 0, **resources: float) -> ServiceSpec:
    spec = make_spec(name, replicas=(0, 9), priority=priority)
    return replace(spec, backend="ray", elsewhere=Elsewhere(resources=Resources(**resources)))  # type: ignore[arg-type]


def targets(budget: BoxBudget, desired: DesiredState, count: int) -> dict[str, tuple[int, str]]:
    asked = {key: Asked(decision=Decision(target=count, reason="load")) for key in desired.services}
    portions, _ = budget.share(desired, ObservedState(), asked, 1000.0)
    return {key.partition("/")[2]: (one.target, one.decision.reason) for key, one in portions.items()}


def test_a_clusters_room_is_that_of_the_nodes_that_live() -> None:
    assert room_of(NODES) == Amount(devices=4, cpu=16, memory=32 * GIB)


def test_services_of_a_cluster_share_the_cluster_and_the_others_the_box() -> None:
    here = replace(make_spec("here", replicas=(0, 9)), resources=Resources(cpu=4))
    desired = wanting(far("chat", gpu=1), far("infer", priority=10, gpu=1, cpu=1), here)
    budget = BoxBudget(Amount(cpu=8, memory=math.inf), lambda: {"ray": room_of(NODES)})
    found = targets(budget, desired, 3)
    assert {name: count for name, (count, _) in found.items()} == {"infer": 3, "chat": 1, "here": 2}
    assert "held by infer (priority 10)" in found["chat"][1]
    assert "which ray does not have" in targets(budget, wanting(far("chat", gpu=1)), 9)["chat"][1]


def test_what_a_cluster_counts_by_names_of_its_own_is_shared_as_well() -> None:
    nodes = (
        Node(address="10.0.0.1", cpu=64, custom={"vram_mib": 24000}),
        Node(address="10.0.0.2", cpu=64, custom={"vram_mib": 8000}),
        Node(address="10.0.0.3", custom={"vram_mib": 80000, "fpga": 1}, alive=False),
    )
    assert room_of(nodes).custom == (("fpga", 0), ("vram_mib", 32000))
    budget = BoxBudget(Amount(cpu=1, memory=math.inf), lambda: {"ray": room_of(nodes)})

    def takes(spec: ServiceSpec, name: str, amount: float) -> ServiceSpec:
        assert spec.elsewhere is not None
        return replace(spec, elsewhere=replace(spec.elsewhere, custom=((name, amount),)))

    chat = takes(far("chat"), "vram_mib", 8000)
    found = targets(budget, wanting(chat, takes(far("infer", priority=10), "vram_mib", 12000)), 2)
    assert {name: count for name, (count, _) in found.items()} == {"infer": 2, "chat": 1}
    assert "wants 2, has 1: 8000 of vram_mib short, held by infer (priority 10)" in found["chat"][1]
    lost = targets(budget, wanting(takes(far("lost"), "fpga", 1)), 2)["lost"]
    assert lost[0] == 0
    assert "2 of fpga short, which ray does not have" in lost[1]
    assert targets(budget, wanting(takes(far("odd"), "unheard-of", 1)), 2)["odd"] == (2, "load")
    unknown = BoxBudget(Amount(cpu=1, memory=math.inf))
    assert targets(unknown, wanting(chat), 9)["chat"] == (9, "load")


def test_of_a_cluster_that_is_not_known_nothing_is_counted() -> None:
    budget = BoxBudget(Amount(cpu=1, memory=math.inf))
    assert targets(budget, wanting(far("chat", gpu=1, cpu=4)), 9)["chat"] == (9, "load")


class Driver(FakeDriver):
    """Tells of nodes, one answer after the other; the last for ever."""

    def __init__(self, *answers: Sequence[Node] | None) -> None:
        super().__init__(FakeBox())
        self.answers = list(answers)

    async def nodes(self) -> Sequence[Node]:
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if found is None:
            raise WorkerError("the cluster is away")
        return found


@pytest.mark.anyio
async def test_drivers_are_asked_and_what_changed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that is away stays as it was known last; drivers of this box are asked nothing."""
    monkeypatch.setattr("stoker.runtime.clusters.PERIOD", 0.01)
    assert PERIOD > 1
    posted = list[Event]()
    driver = Driver(NODES, None, NODES, NODES[1:])
    clusters = Clusters(posted.append)
    clusters.meet("process", FakeDriver(FakeBox()))
    clusters.meet("ray", driver)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(clusters.run)
        with anyio.fail_after(20):
            while len(posted) < 2:
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert clusters.nodes.keys() == {"ray"}
    assert clusters.rooms()["ray"].devices == 2
    assert [getattr(event, "message", "") for event in posted] == [
        "backend ray: 2 nodes, 4 GPUs, 16 cores",
        "backend ray: 1 node, 2 GPUs, 8 cores",
    ]

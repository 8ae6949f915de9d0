"""Making room on a fake box with real processes: spread, moves, preemption, cores near the GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fakenvml.fixtures import fake_box
from system.harness import Box, Load

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

WORKER = Path(__file__).with_name("worker.py")


def service(count: int = 1, **keys: object) -> dict[str, object]:
    return {
        "command": [sys.executable, str(WORKER), "--port", "{port}"],
        "scaling": {"min_replicas": count, "max_replicas": count},
        **keys,
    }


def write(box: Box, **services: object) -> None:
    lines = (f"  {name}: {json.dumps(spec)}\n" for name, spec in services.items())
    box.write("services:\n" + "".join(lines))


def test_sharers_are_spread_move_for_a_whole_gpu_and_give_way_to_a_higher_priority(tmp_path):
    gpus = fake_box("2xt4", tmp_path)
    with Box(tmp_path, **gpus.environ) as box:
        sharers = service(2, resources={"gpu": 0.25, "gpu_memory": "2Gi", "spread": True})
        write(box, sharers=sharers)
        box.up()
        apart = box.ready("sharers", 2)
        assert {replica["devices"][0] for replica in apart} == {*gpus.uuids}, "spread"

        with Load(box.service("sharers")["url"]) as load:
            whole = service(1, resources={"gpu": 1})
            write(box, sharers=sharers, whole=whole)
            (alone,) = box.ready("whole", 1)
            together = box.ready("sharers", 2)
        assert (load.failures, load.answered > 0) == ([], True)
        assert len({replica["devices"][0] for replica in together}) == 1
        assert alone["devices"][0] not in {replica["devices"][0] for replica in together}
        stayed = {replica["pid"] for replica in apart} & {replica["pid"] for replica in together}
        assert len(stayed) == 1, "only one of them moved"
        events = box.run("events").stdout
        assert f"{alone['id']} needs its GPU whole" in events
        assert "another one serves in its place" in events

        vip = service(1, resources={"gpu": 1}, priority=10)
        write(box, sharers=sharers, whole=whole, vip=vip)
        box.until(lambda: box.status()["daemon"]["config"]["state"] == "rejected", "there is no room for it")
        assert "min_replicas do not fit the box together" in json.dumps(box.status()["daemon"]["config"])
        assert [r["pid"] for r in box.replicas("whole", "ready")] == [alone["pid"]], "not asked for"
        write(box, sharers=sharers, whole=whole, vip=vip | {"preempt": True})
        (taker,) = box.ready("vip", 1)
        assert f"{taker['id']} preempts it (priority 10)" in box.run("events").stdout
        box.until(
            lambda: any(f"held by {taker['id']}" in r["reason"] for r in box.replicas("whole", "pending")),
            "who gave way says for whom it waits",
        )

"""A daemon whose replicas are jobs: placed by Slurm, on the GPUs it gives, replaced whoever ends them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.harness import Box, Load, environment_of

from .cluster import Cluster

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

WORKER = Path(__file__).parents[2] / "system" / "worker.py"


def deployment(count: int, **more: object) -> str:
    web = {
        "command": [sys.executable, str(WORKER), "--port", "{port}"],
        "scaling": {"min_replicas": count, "max_replicas": count},
        "resources": {"gpu": 1, "gpu_type": "a100", "cpu": 1, "memory": "100Mi"},
        "restart": {"backoff": "100ms"},
        **more,
    }
    return json.dumps({"name": "app", "backend": "slurm", "services": {"web": web}})


@pytest.fixture
def box(slurm: Cluster, tmp_path: Path) -> Iterator[Box]:
    with Box(tmp_path, **slurm.environ) as box:
        yield box


def jobs(slurm: Cluster, states: str = "R") -> list[str]:
    return slurm.run("squeue", "-h", f"--states={states}", "-o", "%i").split()


def test_replicas_are_jobs_on_the_gpus_that_slurm_gives(slurm: Cluster, box: Box) -> None:
    box.write(deployment(4))
    box.up()
    ready = box.ready("web", 4)
    given = [environment_of(replica["pid"])["CUDA_VISIBLE_DEVICES"] for replica in ready]
    assert sorted(given) == ["0", "0", "1", "1"], "two on each of two nodes"
    assert len(jobs(slurm)) == 4
    whole = environment_of(ready[0]["pid"])
    assert not [name for name in whole if name.startswith("SLURM")], "nothing of the job's own"
    with Load(box.service("web")["url"], threads=2) as load:
        load.more(40)

        # A fifth finds no place, and Slurm's reason is told.
        box.run("scale", "web", "5")
        box.until(lambda: "waits in Slurm" in box.output() and ": Resources" in box.output(), "why", 60)
        box.run("scale", "web", "4")
        assert len(jobs(slurm, "PD")) == 1

        # The daemon dies; the next one takes over, nobody notices, and the job that waited is gone.
        pids = {replica["pid"] for replica in box.replicas("web", "ready")}
        box.kill()
        load.more(20)
        box.up()
        box.until(lambda: {one["pid"] for one in box.replicas("web", "ready")} == pids, "the same workers")
        load.more(20)
        assert jobs(slurm, "PD") == []
    assert load.failures == []
    box.down()
    assert jobs(slurm, "PD,R,CG") == []
    assert list((box.state_dir / "slurm").iterdir()) == []


def test_whoever_ends_a_job_gets_a_new_one(slurm: Cluster, box: Box) -> None:
    box.write(deployment(2))
    box.up()
    box.ready("web", 2)
    victim, other = jobs(slurm)
    slurm.run("scancel", victim)
    box.until(
        lambda: other in jobs(slurm) and victim not in jobs(slurm) and len(jobs(slurm)) == 2, "a new job"
    )
    box.ready("web", 2)
    with pytest.raises(AssertionError, match="disabled"):
        slurm.run("scontrol", "requeue", other)  # a second life under the same id is refused
    assert len(box.ready("web", 2)) == 2


def test_a_lost_node_costs_its_replicas_only(slurm: Cluster, box: Box) -> None:
    box.write(deployment(2, slurm={"options": {"spread-job": ""}}))
    box.up()
    box.ready("web", 2)
    lost = slurm.run("squeue", "-h", "--states=R", "--nodelist=n1", "-o", "%i").split()
    assert lost
    slurm.kill_node("n1")
    slurm.run(
        "scontrol", "update", "nodename=n1", "state=down", "reason=lost"
    )  # it would find out in half a minute
    try:
        box.until(lambda: "Slurm: node_fail" in box.output(), "Slurm gives the node up", 60)
        box.until(
            lambda: len(box.replicas("web", "ready")) == 2 and not set(lost) & set(jobs(slurm)),
            "two on the other node",
            60,
        )
    finally:
        slurm.begin_node("n1")

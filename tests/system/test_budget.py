"""Two services that compete for a fake eight-GPU box, as their operator sees it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fakenvml.fixtures import fake_box
from system.harness import Box, Load

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

WORKER = Path(__file__).with_name("worker.py")


def service(low: int, high: int, *, priority: int = 0, gpu: int = 1) -> str:
    return json.dumps(
        {
            "command": [sys.executable, str(WORKER), "--port", "{port}", "--slow", "0.2"],
            "resources": {"gpu": gpu},
            "priority": priority,
            "traffic": {"concurrency": 1},
            "scaling": {
                "min_replicas": low,
                "max_replicas": high,
                "policy": {"metric": "concurrency", "target": 1, "scale_down_stabilization_window": 1},
            },
        }
    )


def test_the_higher_priority_takes_what_its_load_needs_and_the_lower_is_told(tmp_path):
    with Box(tmp_path, **fake_box("4xa100", tmp_path).environ) as box:
        box.write(f"services:\n  batch: {service(1, 4)}\n  infer: {service(1, 4, priority=10)}\n")
        box.up()
        box.ready("batch", 1)
        box.ready("infer", 1)
        with Load(box.service("batch")["url"], threads=6) as batch:
            box.until(lambda: len(box.replicas("batch", "ready")) == 3, "batch has all that is free")
            assert "1 GPU short, held by infer (priority 10)" in box.service("batch")["decision"]["reason"]
            with Load(box.service("infer")["url"], threads=6) as infer:
                box.until(lambda: len(box.replicas("infer", "ready")) == 3, "infer takes two of them")
                told = box.service("batch")
                assert told["target"] == 1
                assert (
                    "wants 4, has 1: 3 GPUs short, held by infer (priority 10)" in told["decision"]["reason"]
                )
                assert "3 GPUs short" in box.run("explain", "batch").stdout
                owners = [d["reserved_by"] for d in box.status()["devices"]]
                assert all(len(names) == 1 for names in owners)
            box.until(lambda: len(box.replicas("batch", "ready")) == 3, "batch has them back", seconds=40)
        assert (batch.failures, infer.failures) == ([], [])


def test_guarantees_that_cannot_be_kept_together_are_refused_with_their_place(tmp_path):
    with Box(tmp_path, **fake_box("2xt4", tmp_path).environ) as box:
        box.write(f"services:\n  a: {service(2, 2)}\n  b: {service(1, 2)}\n")
        refused = box.run("up", str(box.file), check=False)
        assert refused.returncode == 2
        assert "stoker.yaml:3:" in refused.stderr + refused.stdout
        box.write(f"services:\n  a: {service(1, 2)}\n  b: {service(1, 2)}\n")
        box.up()
        box.ready("a", 1)
        refused = box.run("scale", "b", "2", check=False)
        assert refused.returncode != 0
        assert "it has 2 GPUs for them, and stoker/a 1 x 1, stoker/b 2 x 1 are guaranteed" in refused.stderr
        box.write(f"services:\n  a: {service(2, 2)}\n  b: {service(1, 2)}\n")
        box.until(lambda: box.status()["daemon"]["config"]["state"] == "rejected", "the file is not taken")
        (error,) = box.status()["daemon"]["config"]["errors"]
        assert (error["path"], error["line"]) == ("services.b.scaling.min_replicas", 3)
        assert len(box.replicas("a", "ready")) == 1

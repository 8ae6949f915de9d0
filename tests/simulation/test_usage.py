"""What workers use of the box, and when it counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from simulated import Simulation
from stoker.model.service import PolicySpec
from stoker.runtime.autoscaler import USAGE_PERIOD
from stoker_fake import FakeBox, Script
from worlds import make_spec, wanting

pytestmark = pytest.mark.anyio

BUSY = make_spec("busy", backend="fake", replicas=(1, 4))


async def test_the_effort_of_a_start_calls_for_no_more_replicas(tmp_path: Path) -> None:
    rule = PolicySpec(metric="utilization", target=0.7)
    spec = replace(BUSY, scaling=replace(BUSY.scaling, policies=(rule,)))
    simulation = Simulation(tmp_path, FakeBox())
    simulation.box.behave(spec.key, Script(ready_after=USAGE_PERIOD - 0.5, cpu=1.0))
    async with simulation.daemon(wanting(spec)) as daemon:
        await daemon.until(lambda: bool(daemon.ready(spec.key)), within=10)
        ready = anyio.current_time()
        await daemon.until(lambda: len(daemon.state.replicas) == 2, within=60)
        assert anyio.current_time() - ready > USAGE_PERIOD

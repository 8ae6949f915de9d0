"""A daemon that dies at any point around the start or the end of a worker never gives its device on early."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from mishaps import Death
from simulated import Simulation
from simulation.sickness import Ward
from stoker.model.service import Restart
from stoker_fake import FakeBox, Script, fake_devices
from worlds import make_spec, wanting

pytestmark = pytest.mark.anyio

INFER = make_spec("infer", backend="fake", gpu=1, replicas=(1, 1), restart=Restart(backoff=0.1))
LINGERING = 20.0
POINTS = range(16)
"""More than there are in what is played."""


class Stage:
    """One GPU, one worker, and the law that a device is not given on while its last worker is shown."""

    def __init__(self, directory: Path) -> None:
        self.simulation = Simulation(directory, FakeBox(fake_devices(1)))
        self.box = self.simulation.box
        self.box.lingering = LINGERING
        self.box.behave(INFER.key, Script(ready_after=1))
        self.ward = Ward(self.box)
        self.deaths = 0

    async def live(self, *, dies_in: int | None, ends_after: float | None) -> None:
        """A daemon's life. After so many seconds its worker ends and the points until its death are counted;
        with None they are counted from its beginning."""
        mishaps = self.simulation.mishaps
        try:
            if ends_after is None:
                mishaps.dies_in = dies_in
            async with self.simulation.daemon(wanting(INFER)) as daemon:
                self.ward.begins()
                before = daemon.state

                def see(event: object) -> None:
                    nonlocal before
                    self.ward.check(event, before)
                    before = daemon.state

                daemon.control.listen(see)
                if ends_after is not None:
                    await anyio.sleep(ends_after)
                    for worker in self.box.living():
                        self.box.end(worker.request.replica, signal=9)
                    mishaps.dies_in = dies_in
                await anyio.sleep(60)
                if dies_in is None:
                    assert len(daemon.ready(INFER.key)) == 1
        except* Death:
            self.deaths += 1
        mishaps.dies_in = None


@pytest.mark.parametrize("full", [False, True], ids=["", "full disk"])
async def test_where_a_worker_ends_and_then_the_daemon(full: bool, tmp_path: Path) -> None:
    deaths = 0
    for point in POINTS:
        stage = Stage(tmp_path / str(point))
        stage.simulation.mishaps.disk_full = False
        await stage.live(dies_in=None, ends_after=30)
        stage.simulation.mishaps.disk_full = full
        await stage.live(dies_in=point, ends_after=0.5)
        stage.simulation.mishaps.disk_full = False
        await stage.live(dies_in=None, ends_after=40)
        deaths += stage.deaths
    assert deaths, "the daemon died at some of them"


async def test_where_the_daemon_dies_in_a_start_and_the_worker_after_it(tmp_path: Path) -> None:
    orphaned = 0
    for point in POINTS:
        stage = Stage(tmp_path / str(point))
        await stage.live(dies_in=point, ends_after=None)
        if stage.deaths:
            for worker in stage.box.living():
                orphaned += 1
                stage.box.end(worker.request.replica, signal=9)
        await stage.live(dies_in=None, ends_after=40)
    assert orphaned, "workers were born of daemons that died"

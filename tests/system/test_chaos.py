"""Twenty seconds of what tests/bench/soak.py does for half an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakenvml.fixtures import fake_box
from system.chaos import Chaos, check_counts
from system.harness import Box

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(240)]


def test_random_kills_under_load_lose_no_request_and_leak_nothing(tmp_path: Path) -> None:
    with Box(tmp_path, **fake_box("2xt4", tmp_path).environ) as box:
        tally = Chaos(box, seed=7, gpu=True).run(20)
    check_counts(tally)
    assert tally.lost == []
    assert tally.answered > 100
    assert sum(tally.deeds.values()) >= 5
    assert "Traceback" not in (tmp_path / "daemon.out").read_text(errors="replace")

"""A run as text and as a picture: what is drawn is what happened."""

from __future__ import annotations

import pytest

from simulate.loads import policy_named, service, trace
from stoker.errors import StokerError
from stoker.simulate.plot import write_plot
from stoker.simulate.replay import Case, replay
from stoker.simulate.strips import strips


@pytest.fixture(scope="module")
def outcome():
    """Four requests at 100 s on one slot: one of them waits 3 s; then rest, and one more at 400 s."""
    load = trace(*((100.0, 1.0),) * 4, (400.0, 5.0))
    return replay([Case(spec=service("static", low=1, high=1, slots=1), trace=load)], policy_named)[0]


def test_each_line_has_its_highest_value_in_figures(outcome):
    lines = strips(outcome, 80)
    assert [line.split("up to ")[-1] for line in lines[:4]] == ["1", "1", "2", "1"]
    assert lines[-1].endswith("7 min")
    assert all(len(line) <= 80 for line in lines)


def test_bars_stand_where_it_happened(outcome):
    replicas, in_flight, queued, late, _ = (line[10:] for line in strips(outcome, 80))
    width = 80 - 26
    assert replicas[:width] == "█" * width
    assert queued.index("█") == pytest.approx(100 / 405 * width, abs=1)
    assert late.count("█") == 1
    assert in_flight[width - 1] == "█"


def test_a_plot_is_a_png_of_some_size(outcome, tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib, an extra")
    path = tmp_path / "run.png"
    write_plot(str(path), [outcome], ["a"])
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 5_000
    with pytest.raises(StokerError, match="cannot write the plot"):
        write_plot(str(tmp_path / "none" / "run.png"), [outcome], ["a"])

"""The past of a pool in blocks: every column shows the highest value of its time."""

from __future__ import annotations

from typing import Any

from stoker.cli.chart import WIDTH, chart

NOW = 1000.0


def history(load: list[tuple[float, float, float]], levels: list[tuple[float, int, int]]) -> dict[str, Any]:
    """`load`: (end, seconds, in flight); `levels`: (from, target, ready)."""
    return {
        "load": {
            "t": [one[0] for one in load],
            "s": [one[1] for one in load],
            "in_flight": [one[2] for one in load],
            "queued": [0.0 for _ in load],
        },
        "levels": {name: [one[i] for one in levels] for i, name in enumerate(("t", "target", "ready"))},
    }


def rows(*lines: str) -> dict[str, str]:
    return {line[:8].strip(): line[8 : 8 + WIDTH] for line in lines}


def test_levels_stay_until_they_change() -> None:
    """Two minutes in sixty columns: two seconds each."""
    lines = list(chart(history([], [(NOW - 60, 2, 0), (NOW - 20, 4, 2)]), NOW, NOW - 90))
    found = rows(*lines)
    assert found["target"] == "·" * 30 + "▄" * 20 + "█" * 10
    assert found["ready"] == "·" * 50 + "▄" * 10
    assert found["load"] == "·" * WIDTH
    assert lines[1].endswith("  4 now, 4 at most")


def test_load_shows_its_highest_and_is_over_when_it_is_over() -> None:
    samples = [(NOW - 40, 1.0, 1.0), (NOW - 39, 1.0, 8.0), (NOW - 36, 1.0, 2.0)]
    lines = list(chart(history(samples, [(NOW - 60, 1, 1)]), NOW, NOW))
    assert rows(*lines)["load"] == "·" * 39 + "▁█▂" + "·" * 18
    assert lines[0].endswith("  0 now, 8 at most")


def test_it_goes_back_as_far_as_the_oldest_decision() -> None:
    def told(since: float) -> str:
        return list(chart(history([], [(NOW - 9000, 1, 1)]), NOW, since))[-1].split()[0]

    assert [told(NOW - ago) for ago in (1, 121, 599, 1000, 3599, 9999)] == ["2", "5", "10", "30", "60", "60"]


def test_a_pool_at_zero_shows_nothing_but_dots() -> None:
    assert set("".join(rows(*list(chart(history([], []), NOW, NOW))[:3]).values())) == {"·"}

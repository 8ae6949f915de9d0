"""The yardstick itself, on a small generated load: it runs, is fair, and foresight leads where it must."""

from __future__ import annotations

import pytest

from bench.bench_scaling import OURS, PEERS, Load, generate, main, run, summary
from stoker.simulate.trace import Trace

NAMES = (*PEERS, OURS)


@pytest.fixture(scope="module")
def cells():
    rates = {"steady": lambda _: 3.0, "steps": lambda now: 1.0 if now % 600 < 300 else 5.0}
    loads = [Load(name, generate(1800, rate, 2.0, seed=5), slots=2) for name, rate in rates.items()]
    return list(run(loads, NAMES, [5.0, 20.0], seeds=1))


def test_every_policy_meets_the_same_load(cells):
    assert len(cells) == 4
    assert all([result.policy for result in cell] == list(NAMES) for cell in cells)
    assert all(result.cost > 0.9 for cell in cells for result in cell)


def test_foresight_costs_less_than_each_peer_of_like_lateness(cells):
    ours = [cell[-1] for cell in cells]
    for i, name in enumerate(PEERS):
        theirs = [cell[i] for cell in cells]
        dominated = sum(
            b.late <= a.late + 0.05 and b.cost <= a.cost * 1.005 for a, b in zip(ours, theirs, strict=True)
        )
        assert dominated <= 1, name


def test_the_table_has_a_line_a_policy(cells):
    lines = summary(cells, NAMES)
    assert [line.split("|")[1].strip() for line in lines[2:]] == list(NAMES)


def test_it_reads_a_directory(tmp_path, capsys):
    rows = "".join(f"{i},800,{50 + i % 40}\n" for i in range(60))
    (tmp_path / "tokens.csv").write_text("arrival_s,input_tokens,output_tokens\n" + rows)
    assert main([str(tmp_path), "--startups", "5", "--policies", "bento,foresight"]) == 0
    assert "| tokens | 5 s | 0 |" in capsys.readouterr().out
    assert isinstance(generate(10, lambda _: 1.0, 1.0, seed=1), Trace)

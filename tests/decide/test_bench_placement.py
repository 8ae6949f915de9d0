"""The placement benchmark itself, small: it runs, and Stoker leads where it must."""

from __future__ import annotations

import json

from bench.bench_placement import OURS, PEERS, main, measure, one_pass


def test_stoker_accepts_no_less_than_its_peers_and_keeps_pairs_on_nvlink():
    table = measure(["first fit by index", "best-effort + distributed (NVIDIA)", *OURS], 400, 1)
    plain, moving = (table[name] for name in OURS)
    nvidia = table["best-effort + distributed (NVIDIA)"]
    assert plain["accepted at 0.8"] > nvidia["accepted at 0.8"]
    assert moving["accepted at 0.8"] >= plain["accepted at 0.8"]
    assert plain["pairs on NVLink"] > max(0.8, nvidia["pairs on NVLink"])


def test_it_prints_a_line_a_rule(tmp_path, capsys):
    assert main(["--seeds", "1", "--jobs", "40", "--json", str(tmp_path / "t.json")]) in (0, 1)
    printed = capsys.readouterr().out
    assert all(f"| {name} |" in printed for name in (*PEERS, *OURS))
    assert set(json.loads((tmp_path / "t.json").read_text())) == {*PEERS, *OURS}
    assert one_pass() > 0

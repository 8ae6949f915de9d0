"""`stoker simulate` from the outside: shapes, exit codes, refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cli.conftest import Stoker

FILE = """
name: rag
services:
  infer:
    command: run --port {port}
    scaling: {min_replicas: 0, max_replicas: 4}
    traffic: {concurrency: 2}
  tokenize:
    command: run --port {port}
    scaling: {min_replicas: 1, max_replicas: 2}
    traffic: {concurrency: 8}
"""
ROWS = "".join(f"{i / 4},{0.5 + i % 3}\n" for i in range(200))


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stoker.yaml").write_text(FILE)
    (tmp_path / "load.csv").write_text("arrival_s,service_s\n" + ROWS)
    (tmp_path / "both.csv").write_text("arrival_s,service_s,service\n0,1,infer\n1,1,tokenize\n")
    return tmp_path


@pytest.mark.usefixtures("box")
def test_json_has_the_contracts_shape_and_is_the_same_each_time(stoker: Stoker) -> None:
    line = (
        "simulate",
        "stoker.yaml",
        "--trace",
        "load.csv",
        "--service",
        "infer",
        "--startup",
        "5s",
        "-o",
        "json",
    )
    first, second = stoker(*line), stoker(*line)
    assert (first.code, first.out) == (0, second.out)
    (row,) = json.loads(first.out)["services"]
    assert {
        "name", "requests", "slo_miss_ratio", "wait_p50_s", "wait_p95_s", "wait_p99_s", "latency_p50_s",
        "latency_p95_s", "latency_p99_s", "replica_seconds", "starts", "peak",
    } <= row.keys()  # fmt: skip
    assert (row["name"], row["requests"]) == ("infer", 200)
    assert 0 < row["slo_miss_ratio"] < 1
    assert row["wait_p50_s"] <= row["wait_p95_s"] <= row["wait_p99_s"] <= row["latency_p99_s"]
    assert 1 <= row["peak"] <= 4


@pytest.mark.usefixtures("box")
def test_policies_are_compared_in_a_table(stoker: Stoker) -> None:
    out = stoker(
        "simulate", "--trace", "load.csv", "--service", "infer", "--policy", "queue", "--policy", "static"
    ).out
    assert [line.split()[:2] for line in out.splitlines()[1:3]] == [["infer", "queue"], ["infer", "static"]]
    assert "waited longer than 2 s; a replica is ready 20 s after the decision" in out


@pytest.mark.usefixtures("box")
def test_the_limit_of_a_good_wait_decides_what_is_late(stoker: Stoker) -> None:
    def misses(limit: str) -> float:
        line = ("simulate", "--trace", "load.csv", "--service", "infer", "--slo-wait", limit, "-o", "json")
        ratio: float = json.loads(stoker(*line).out)["services"][0]["slo_miss_ratio"]
        return ratio

    assert misses("0.1s") > misses("15s") > misses("1h") == 0


@pytest.mark.usefixtures("box")
def test_a_trace_with_names_feeds_several_services(stoker: Stoker) -> None:
    every = json.loads(stoker("simulate", "--trace", "both.csv", "-o", "json").out)["services"]
    assert [row["name"] for row in every] == ["infer", "tokenize"]
    one = json.loads(stoker("simulate", "--trace", "both.csv", "--service", "tokenize", "-o", "json").out)
    assert [row["name"] for row in one["services"]] == ["tokenize"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--trace", "load.csv"],
            "the trace has no column `service`; say --service, one of: infer, tokenize",
        ),
        (["--trace", "load.csv", "--service", "x"], "no service 'x'; there are: infer, tokenize"),
        (["--trace", "none.csv"], "none.csv: the trace cannot be read: No such file or directory"),
        (["--trace", "both.csv", "--policy", "quue"], "no policy named 'quue'; did you mean 'queue'?"),
        (["--trace", "both.csv", "--startup", "soon"], "Invalid value for '--startup'"),
        (
            ["--trace", "both.csv", "--set", "services.infer.scaling.max_replicas=0"],
            "infer has max_replicas 0",
        ),
        (["--trace", "bad.csv"], "bad.csv:3: arrival_s 1 is before the row above (2)"),
        (["--trace", "other.csv"], "other.csv: the trace feeds 'x', which is no service"),
    ],
)
def test_refusals_say_what_is_wrong_and_exit_with_2(
    stoker: Stoker, box: Path, arguments: list[str], message: str
) -> None:
    (box / "bad.csv").write_text("arrival_s,service_s\n2,1\n1,1\n")
    (box / "other.csv").write_text("arrival_s,service_s,service\n2,1,x\n")
    found = stoker("simulate", *arguments)
    assert (found.code, found.out) == (2, "")
    assert message in found.err


@pytest.mark.usefixtures("box")
def test_a_plot_without_matplotlib_says_what_to_install(
    stoker: Stoker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # what an import finds that cannot be had
    found = stoker("simulate", "--trace", "both.csv", "--plot", "p.png")
    assert found.code == 1
    assert "pip install 'stoker[plot]'" in found.err


def test_a_plot_is_a_png(stoker: Stoker, box: Path) -> None:
    found = stoker("simulate", "--trace", "load.csv", "--service", "infer", "--plot", "p.png")
    assert found.code == 0, found.err
    assert (box / "p.png").read_bytes().startswith(b"\x89PNG")


def test_a_box_is_shared_and_guarantees_must_fit(stoker: Stoker, box: Path) -> None:
    (box / "gpus.yaml").write_text(FILE.replace("traffic: {c", "resources: {gpu: 1}\n    traffic: {c"))
    line = ("simulate", "gpus.yaml", "--trace", "both.csv", "--gpus")
    assert [row["peak"] for row in json.loads(stoker(*line, "2", "-o", "json").out)["services"]] == [1, 1]
    refused = stoker(*line, "0.5")
    assert refused.code == 2
    assert "min_replicas do not fit: the box has 0.5 GPUs" in refused.err

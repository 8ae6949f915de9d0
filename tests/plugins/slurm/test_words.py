"""What is asked of Slurm, and what of it the file may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.config.load import load
from stoker.config.sources import ConfigRequest
from stoker.errors import ConfigError
from stoker.model.service import Elsewhere, Resources, ServiceSpec
from stoker.plugin.ports import StartRequest
from stoker_slurm.commands import needs, nodes_of
from stoker_slurm.plugin import shortfalls


def spec_of(tmp_path: Path, text: str) -> ServiceSpec:
    (tmp_path / "app.yaml").write_text(text)
    (found,) = load(ConfigRequest(files=(str(tmp_path / "app.yaml"),))).desired.services.values()
    return found


def request_for(elsewhere: Elsewhere | None) -> StartRequest:
    return StartRequest(
        replica="r", service="s", mark="m", argv=("x",), environ={}, working_dir="/", log_path="/l",
        endpoint="127.0.0.1:1", elsewhere=elsewhere,
    )  # fmt: skip


def test_resources_and_options_become_those_of_sbatch(tmp_path: Path) -> None:
    spec = spec_of(
        tmp_path,
        """
backend: slurm
slurm: {partition: gpu, account: lab, time: 2-00:00:00}
services:
  web:
    command: run --port {port}
    resources: {gpu: 2, gpu_type: a100, cpu: 1.5, memory: 3Gi}
    slurm: {partition: big, options: {exclusive: user, contiguous: ""}}
""",
    )
    assert spec.resources == Resources(), "nothing of this box"
    assert needs(request_for(spec.elsewhere)) == [
        "--account=lab",
        "--contiguous",
        "--exclusive=user",
        "--partition=big",
        "--time=2-00:00:00",
        "--gres=gpu:a100:2",
        "--cpus-per-task=2",
        "--mem=3072M",
    ]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("backend: slurm, slurm: {options: {gres: gpu}}", "options.gres", "is decided by Stoker"),
        ("backend: slurm, slurm: {options: {Exclusive: ''}}", "Exclusive", "a long option of sbatch"),
        ("slurm: {partition: gpu}", "services.web.slurm", "is for backend: slurm; this one is process"),
        (
            "backend: slurm, ray: {strategy: SPREAD}",
            "services.web.ray",
            "is for backend: ray; this one is slurm",
        ),
        ("backend: slurm, slurm: {time: soon}", "slurm.time", "a time limit, for example 7-00:00:00"),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_place(
    tmp_path: Path, text: str, place: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        spec_of(tmp_path, f"services: {{web: {{command: run, {text}}}}}")
    (problem,) = caught.value.problems
    assert place in str(problem)
    assert words in str(problem)
    assert problem.line == 1


def test_what_a_job_cannot_have_is_said(tmp_path: Path) -> None:
    spec = spec_of(
        tmp_path,
        """
backend: slurm
services:
  web:
    command: run
    user: nobody
    limits: {pids: 9, nofile: 99}
    resources: {gpu: 0.5}
    scaling: {policy: {metric: utilization, target: 0.5}}
""",
    )
    assert shortfalls(spec).keys() == {"user", "limits.pids", "resources.gpu", "scaling.policy.metric"}
    assert shortfalls(spec_of(tmp_path, "backend: slurm\nservices: {web: {command: run}}")) == {}


def test_nodes_are_told_as_slurm_has_them() -> None:
    said = (
        "NodeName=n1 CPUTot=16 Gres=gpu:a100:2(S:0-1) NodeAddr=10.0.0.1 RealMemory=8000 State=MIXED\n"
        "NodeName=n2 CPUTot=8 Gres=gpu:4 NodeAddr=n2 RealMemory=1 State=IDLE+DRAIN\n"
        "NodeName=n3 CPUTot=8 Gres=(null) NodeAddr=n3 RealMemory=1 State=DOWN*\n"
        "NodeName=n4 CPUTot=8 Gres=gpu:t4:1,gpu:v100:2 NodeAddr=n4 RealMemory=1 State=IDLE\n"
    )
    found = nodes_of(said)
    assert [(one.address, one.alive, one.gpus, one.accelerator) for one in found] == [
        ("10.0.0.1", True, 2, "a100"),
        ("n2", True, 4, ""),
        ("n3", False, 0, ""),
        ("n4", True, 3, "t4"),
    ]
    assert (found[0].cpu, found[0].memory) == (16, 8000 << 20)

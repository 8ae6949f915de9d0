"""What a bento declares becomes the code layer, with its places; what cannot be read is said in words."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from plugins.bentoml.conftest import Project
from stoker.config.explain import explain
from stoker.model.service import BentoService

SERVICES = """
    import bentoml

    @bentoml.service(
        resources={"cpu": "200m", "memory": "1Gi"},
        workers=2,
        traffic={"timeout": 7, "concurrency": 3, "external_queue": True},
        envs=[{"name": "MODE", "value": "fast"}, {"name": "WHEEL", "value": "x", "stage": "build"}],
        labels={"team": "a"},
    )
    class Inner:
        @bentoml.api
        def run(self, text: str) -> str:
            return text

    @bentoml.service(path_prefix="/v2", envs=[{"name": "KEY"}])
    class Outer:
        inner = bentoml.depends(Inner)
"""
FILE = """
    bento: service:Outer
    envs: [{name: KEY, value: given}]
    services:
      Inner: {envs: [{name: MODE, value: slow}], config_overrides: {traffic: {timeout: 9}}}
"""


def test_decorators_are_the_code_layer(project: Project, bentoml: str) -> None:
    project.write("service.py", SERVICES)
    project.write("d.yaml", FILE)
    config = project.load()
    assert set(config.desired.services) == {"d/Inner", "d/Outer"}
    inner, outer = config.desired.services["d/Inner"], config.desired.services["d/Outer"]
    assert (inner.resources.cpu, inner.resources.memory) == (0.2, 2**30)
    assert (inner.traffic.timeout, inner.traffic.concurrency) == (9, 3)
    assert dict(inner.envs) == {"KEY": "given", "MODE": "slow"}
    assert isinstance(inner.launch, BentoService)
    assert isinstance(outer.launch, BentoService)
    assert (inner.launch.calls, outer.launch.calls) == ((), ("Inner",))
    assert '"workers":2' in inner.launch.config
    assert outer.probes.readiness is not None
    assert outer.probes.readiness.http == "/v2/readyz"
    rows = explain(config, "services.Inner.envs.MODE")["layers"]
    assert [(row["layer"], row["value"]) for row in rows][:2] == [("file", "slow"), ("code", "fast")]
    assert rows[1]["source"].endswith("service.py:3:1")
    assert explain(config, "services.Inner.config_overrides.labels.team")["value"] == "a"
    assert str(project.folder / "service.py") in config.watch


def test_an_instance_type_of_the_file_stands_above_resources_in_code(project: Project, bentoml: str) -> None:
    project.write("service.py", SERVICES)
    project.write("d.yaml", FILE.replace("Inner: {", "Inner: {instance_type: cpu.2, "))
    assert project.load().desired.services["d/Inner"].resources.cpu == 1.0
    project.write("d.yaml", FILE.replace("Inner: {", "Inner: {instance_type: t3-small, "))
    assert project.load().desired.services["d/Inner"].resources.cpu == 0.2


def test_a_changed_decorator_is_read_again(project: Project, bentoml: str) -> None:
    project.write("service.py", SERVICES)
    project.write("d.yaml", FILE)
    before = project.load()
    assert project.load().desired == before.desired
    project.write("service.py", SERVICES.replace("workers=2", "workers=3").replace('"fast"', '"idle"'))
    after = project.load()
    assert '"workers":3' in after.desired.services["d/Inner"].launch.config


def test_directories_and_built_bentos(project: Project, bentoml: str) -> None:
    project.write("code/service.py", SERVICES)
    project.write("d.yaml", FILE.replace("service:Outer", "./code"))
    outer = project.load().desired.services["d/Outer"].launch
    assert outer.bento == str(project.folder / "code")
    project.write("built/bento.yaml", BUILT)
    project.write("built/src/service.py", SERVICES)
    project.write("d.yaml", FILE.replace("service:Outer", "built"))
    config = project.load()
    assert set(config.desired.services) == {"d/Inner", "d/Outer"}
    assert config.desired.services["d/Outer"].launch.bento == str(project.folder / "built")


BUILT = """
    service: service:Outer
    name: outer
    version: one
    bentoml_version: 1.4.39
    creation_time: 2026-01-01T00:00:00+00:00
    labels: {}
    models: []
    entry_service: Outer
    services: [{name: Inner, service: "", models: []}, {name: Outer, service: "", models: []}]
    schema: {}
    spec: 2
"""


@pytest.mark.parametrize(
    ("code", "file", "problem"),
    [
        (SERVICES, FILE.replace("Inner:", "Iner:"), "services.Iner: the bento service:Outer has no service"),
        (SERVICES, "bento: service:Outer\n", "d.yaml:1:1: services.Outer: needs the variable KEY"),
        (SERVICES, "bento: service:Oter\n", "d.yaml:1:8: bento: cannot load service:Oter"),
        ("raise RuntimeError('no luck')", FILE, "service:Outer: RuntimeError: no luck (service.py:1)"),
        ("x = (", FILE, "cannot load service:Outer: SyntaxError"),
        (SERVICES.replace('"1Gi"', '"lots"'), FILE, "service.py:3:1: services.Inner"),
    ],
)  # fmt: skip
def test_faults_are_told_with_their_place(
    project: Project, bentoml: str, code: str, file: str, problem: str
) -> None:
    project.write("service.py", code)
    project.write("d.yaml", file)
    found = project.problems()
    assert any(problem in one for one in found), found


def test_a_command_that_can_run_only_once_is_told(project: Project, bentoml: str) -> None:
    code = """
    import bentoml

    @bentoml.service(cmd=["serve", "model"])
    class Alone: ...

    @bentoml.service(cmd=["serve", "--port", "${PORT}"])
    class Outer:
        alone = bentoml.depends(Alone)
    """
    project.write("service.py", code)
    project.write("d.yaml", "bento: service:Outer\n")
    config = project.load()
    assert '"${PORT}"' in config.desired.services["d/Outer"].launch.config
    [notice] = config.notices
    assert "services.Alone" in notice
    assert "write ${PORT}" in notice


def test_a_key_that_bentoml_would_pass_over_is_told(project: Project, bentoml: str) -> None:
    project.write("service.py", SERVICES.replace("workers=2", "wokers=2"))
    project.write("d.yaml", FILE)
    [notice] = [text for text in project.load().notices if "wokers" in text]
    assert "service.py:3" in notice


@pytest.mark.parametrize(
    ("code", "lacks"),
    [("", "there is no module service in"), ("import nosuchframework", "No module named 'nosuchframework'")],
)
def test_a_file_whose_bento_is_not_here_is_checked_alone(
    project: Project, bentoml: str, code: str, lacks: str
) -> None:
    if code:
        project.write("service.py", code)
    project.write("d.yaml", FILE)
    [notice] = project.load(to_run=False).notices
    assert "was not read, this file alone was checked" in notice
    assert lacks in notice
    [problem] = project.problems()
    assert problem.startswith("d.yaml:1:8: bento: ")
    assert lacks in problem


def test_without_bentoml_the_message_says_what_to_install(project: Project, tmp_path: Path) -> None:
    bare = tmp_path / "bare" / "bin"
    bare.mkdir(parents=True)
    # An interpreter without site-packages, which is what a box without the extra has.
    (bare / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    (bare / "python").chmod(0o755)
    project.write("service.py", SERVICES)
    project.write("d.yaml", f"interpreter: bare\n{FILE.strip()}".replace("    ", ""))
    [problem] = project.problems()
    assert f"run {sys.executable} -m pip install 'bentoml>=1.4.30,<2'" in problem
    shutil.rmtree(tmp_path / "bare")
    [problem] = project.problems()
    assert "there is no interpreter bare" in problem

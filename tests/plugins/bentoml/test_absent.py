"""A deployment file whose bento is not on this box is checked alone, and that is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.bentoml.conftest import Project

DATA = Path(__file__).parents[2] / "config" / "data" / "bentoml"
FILES = (
    "test_create_deployment.yaml",
    "distributed-services-f7a8c79b.yaml",
    "canary-deployments-6d54629f.yaml",
)


@pytest.mark.parametrize("name", FILES)
def test_real_files_are_good_without_their_bento(project: Project, bentoml: str, name: str) -> None:
    project.write("d.yaml", (DATA / name).read_text())
    config = project.load(to_run=False)
    assert any("was not read, this file alone was checked" in notice for notice in config.notices)


@pytest.mark.parametrize(
    ("bento", "words"),
    [
        (".", "holds no bento: no service.py, bentofile.yaml or bento.yaml"),
        ("abc:123", "no bento abc:123 in the store"),
        ("abc:latest", "no bento abc:latest in the store"),
        ("nowhere:Service", "there is no module nowhere"),
        ("./gone", "there is no "),
    ],
)
def test_what_is_not_here_is_no_fault_of_the_file(
    project: Project, bentoml: str, bento: str, words: str
) -> None:
    project.write("pyproject.toml", "[project]\nname = 'x'\n")
    project.write("d.yaml", f"bento: {bento}\nservices: {{S: {{}}}}\n")
    notices = project.load(to_run=False).notices
    assert any(words in notice for notice in notices), notices
    assert any(words in problem for problem in project.problems())

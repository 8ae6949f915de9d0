"""A plan of one file of several is a plan of this one; the others stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.config.load import ConfigRequest, EffectiveConfig, load
from stoker.runtime.planning import planned_request

ONE = "services: {web: {command: run}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(ONE)
    (tmp_path / "new").mkdir()
    return tmp_path


def in_force(*files: Path) -> tuple[ConfigRequest, EffectiveConfig]:
    request = ConfigRequest(files=tuple(map(str, files)))
    return request, load(request)


def planned(folder: Path, *given: str) -> list[str]:
    """The deployments that a plan of these files is about."""
    request, effective = in_force(folder)
    wanted = planned_request(request, [str(folder / name) for name in given], effective)
    return sorted(load(wanted).desired.services)


def test_the_others_stay(folder: Path) -> None:
    assert planned(folder, "a.yaml") == ["a/web", "b/web"]


def test_a_file_elsewhere_takes_the_place_of_its_deployment(folder: Path) -> None:
    (folder / "new" / "copy.yaml").write_text(f"name: a\n{ONE.replace('web', 'other')}")
    assert planned(folder, "new/copy.yaml") == ["a/other", "b/web"]


def test_a_deployment_that_is_new_comes_to_the_others(folder: Path) -> None:
    (folder / "new" / "c.yaml").write_text(ONE)
    assert planned(folder, "new/c.yaml") == ["a/web", "b/web", "c/web"]


def test_a_directory_shows_what_is_gone_from_it(folder: Path) -> None:
    request, effective = in_force(folder)
    (folder / "b.yaml").unlink()
    wanted = planned_request(request, [str(folder)], effective)
    assert sorted(load(wanted).desired.services) == ["a/web"]


def test_a_deployment_that_is_renamed_in_its_file_is_no_second_one(folder: Path) -> None:
    request, effective = in_force(folder / "a.yaml")
    (folder / "a.yaml").write_text(f"name: z\n{ONE}")
    wanted = planned_request(request, [str(folder / "a.yaml")], effective)
    assert sorted(load(wanted).desired.services) == ["z/web"]


def test_nothing_in_force_yet(folder: Path) -> None:
    request, _ = in_force(folder)
    assert planned_request(request, ["x.yaml"], None).files == ("x.yaml",)

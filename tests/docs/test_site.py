"""The site: it is built without a warning, holds together, and fetches nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from docs.blocks import ROOT, blocks
from stoker.cli.group import cli
from stoker.cli.reference import markdown

RECIPES = [block for block in blocks(ROOT / "docs" / "recipes.md") if block.kind == "yaml"]


def test_the_page_of_commands_is_in_step() -> None:
    page = ROOT / "docs" / "commands.md"
    assert page.read_text() == markdown(), "run `python -m stoker.cli.reference > docs/commands.md`"


@pytest.mark.parametrize("recipe", RECIPES, ids=[block.title for block in RECIPES])
def test_recipes_are_files_that_stoker_takes(recipe, tmp_path: Path) -> None:
    (tmp_path / recipe.title).write_text(recipe.text)
    (tmp_path / "main.py").write_text("async def app(scope, receive, send): ...\n")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "hf-token").write_text("x")
    if recipe.title == "deployment.yaml":
        pytest.importorskip("bentoml", reason="the bento's own package is not installed")
        (tmp_path / "service.py").write_text(
            "import bentoml\n\n@bentoml.service\nclass Summarize:\n"
            "    @bentoml.api\n    def summarize(self, text: str) -> str:\n        return text\n"
        )
    done = CliRunner().invoke(cli, ["check", str(tmp_path / recipe.title)], catch_exceptions=False)
    assert not done.return_value, done.output
    assert done.exit_code == 0, done.output


def test_a_recipe_for_each_server_that_is_promised() -> None:
    assert len(RECIPES) >= 7
    heads = (ROOT / "docs" / "recipes.md").read_text()
    for name in ("vLLM", "llama-server", "Triton", "Text Embeddings Inference", "BentoML", "ASGI"):
        assert re.search(rf"^## .*{name}", heads, re.MULTILINE), name


def test_the_plugin_of_the_guide_is_the_one_that_is_tested() -> None:
    shown = {
        b.title: b.text for b in blocks(ROOT / "docs" / "plugins.md") if b.title and b.title != "stoker.yaml"
    }
    folder = ROOT / "examples" / "plugin"
    assert shown == {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


@pytest.mark.skipif(find_spec("material") is None, reason="needs mkdocs-material")
@pytest.mark.timeout(180)
def test_the_site_is_built_without_a_warning_and_stands_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) >= 12
    loads = r"<(?:script|link|img|iframe)[^>]*?(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)"
    for page in pages:
        assert re.findall(loads, page.read_text()) == [], page.name
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", sheet.read_text()), sheet.name


def test_every_extra_is_told_where_people_install() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    told = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "install.md").read_text(), re.MULTILINE))
    assert set(extras) - {"dev"} == told

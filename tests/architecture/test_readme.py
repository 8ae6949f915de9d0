"""The README tells the truth: its two commands are what CI runs, and the commands it names exist."""

import re
import shutil
import subprocess
import sys

import pytest

from architecture.source import ROOT, tracked

README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^    (python3 -m venv .*)$", README, re.MULTILINE)


def test_two_commands_come_first() -> None:
    """`.ci/run` takes these two lines from the text and runs them; people paste them."""
    run_example, run_tests = COMMANDS
    assert run_example.endswith(" && .venv/bin/stoker up examples/pipeline/stoker.yaml")
    assert run_tests.split(" && ") == [
        "python3 -m venv .venv",
        ".venv/bin/pip install -q -e '.[dev]'",
        ".venv/bin/pytest -n 4",
    ]
    assert README.index(run_tests) < README.index("\n## ")


def test_ci_takes_them_from_there() -> None:
    script = (ROOT / ".ci/run").read_text()
    assert "README.md" in script
    assert not re.search(r"^[^#]*\bpytest\b", script, re.MULTILINE), "a test command of its own"


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_the_ci_script_is_sound() -> None:
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], check=True)


def test_every_command_that_is_named_exists() -> None:
    named = set(re.findall(r"`stoker ([a-z]+)", README))
    assert len(named) >= 15
    helped = subprocess.run(
        [sys.executable, "-m", "stoker.cli", "--help"], capture_output=True, text=True, check=True
    ).stdout
    known = set(re.findall(r"^  ([a-z]+)", helped, re.MULTILINE))
    assert named <= known


def test_links_lead_somewhere() -> None:
    broken = [
        f"{name}: {target}"
        for name in tracked()
        if name.endswith(".md")
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", (ROOT / name).read_text())
        if not (ROOT / name).parent.joinpath(target).exists()
    ]
    assert broken == []

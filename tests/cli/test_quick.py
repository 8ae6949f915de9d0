"""What is answered before click is loaded is what click would answer."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest

from api.fakes import Served
from cli.conftest import Stoker
from stoker.cli import group, quick
from stoker.cli.catalogue import COMMANDS, NAMED

SHELLS = ("bash", "zsh", "fish")
PLAIN = (
    [], ["infer"], ["rag/infer"], ["-o", "json"], ["-o", "text"], ["--output", "json"],
    ["infer", "-o", "json"], ["-o", "json", "infer"], ["nosuch"], ["nosuch", "-o", "json"],
)  # fmt: skip
CLICKS = (
    ["--help"], ["-o"], ["-o", "yaml"], ["-ojson"], ["--output=json"], ["infer", "tokenize"], [""],
    ["--socket", "/nowhere"], ["--", "infer"], ["-x"], ["-o", "json", "-o", "text"],
)  # fmt: skip


def asked(shell: str, line: str) -> dict[str, str]:
    """The environment in which that shell's script calls, the cursor at the end of the line."""
    words = line.split(" ")
    word = words[-1] if shell == "fish" else str(len(words) - 1)
    return {"COMP_WORDS": line, "COMP_CWORD": word}


@pytest.mark.parametrize("args", PLAIN, ids=" ".join)
def test_status_is_the_same(
    live: Served, stoker: Stoker, monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    assert quick.wants_status(["status", *args]) is not None
    fast = stoker("status", *args)
    monkeypatch.setattr(quick, "wants_status", lambda args: None)
    assert stoker("status", *args) == fast


@pytest.mark.parametrize("args", CLICKS, ids=" ".join)
def test_whatever_is_not_plain_is_left_to_click(args: list[str]) -> None:
    assert quick.wants_status(["status", *args]) is None


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_is_the_same(
    live: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    words = ("", "s", "in", "infer-k", "nosuch", "--", "GPU-1", "'in", "a.b=c")
    begun = [f"stoker {word}" for word in words]
    begun += [f"stoker {name} {word}" for name, word in itertools.product(COMMANDS, words)]
    begun += ["stoker scale infer ", "stoker nosuch in", "stoker -h st", "stoker gpus cordon G"]
    monkeypatch.setenv(quick.COMPLETE, f"{shell}_complete")
    answered = set()
    for line in begun:
        for name, value in asked(shell, line).items():
            monkeypatch.setenv(name, value)
        fast = quick.completed(f"{shell}_complete", os.environ)
        if fast is not None:
            answered.add(line.split(" ")[1] if line.count(" ") > 1 else "")
            capsys.readouterr()
            assert group.run([]) == 0
            assert "\n".join(fast) + "\n" == capsys.readouterr().out, line
    assert answered == {"", *NAMED}


@pytest.mark.parametrize("line", ["stoker st", "stoker restart in", "stoker story infer-"])
def test_neither_needs_click(live: Served, line: str) -> None:
    code = "import sys; from stoker.cli.main import main; main(['status']); assert 'click' not in sys.modules"
    for environ in ({}, {quick.COMPLETE: "zsh_complete", **asked("zsh", line)}):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **environ}, capture_output=True, text=True,
            timeout=30, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert "infer" in done.stdout or "status" in done.stdout


def test_help_says_of_each_command_what_it_is_for_on_one_line(stoker: Stoker) -> None:
    lines = stoker("--help").out.splitlines()
    for name, words in COMMANDS.items():
        assert f"  {name.ljust(max(map(len, COMMANDS)))}  {words}" in lines

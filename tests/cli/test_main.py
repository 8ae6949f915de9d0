"""The guard around every command, and what start-up may cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from api.fakes import FakeDaemon, Served
from cli.conftest import Stoker
from stoker import __version__
from stoker.cli.catalogue import COMMANDS

HEAVY = (
    "pydantic",
    "starlette",
    "uvicorn",
    "anyio",
    "rich",
    "yaml",
    "asyncio",
    "prometheus_client",
    "psutil",
    "click",
    "dataclasses",
    "inspect",
)
NEED_A_DAEMON = (
    ["status"], ["status", "-o", "json"], ["top"], ["explain", "infer"], ["story", "infer-1"],
    ["scale", "infer", "2"], ["set", "a=1"], ["unset", "a"], ["restart", "infer"], ["stop", "infer"],
    ["start", "infer"], ["down"], ["logs"], ["logs", "-f"], ["events"], ["events", "-f"], ["gpus"],
    ["reload"], ["reexec"],
)  # fmt: skip


def run(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stoker.cli", *args],
        capture_output=True, text=True, timeout=30, env={**os.environ, **environ}, check=False,
    )  # fmt: skip


def test_version(stoker: Stoker) -> None:
    assert stoker("--version").out == f"stoker {__version__}\n"


def test_help_lists_every_command(stoker: Stoker) -> None:
    result = stoker("--help")
    assert result.code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in result.out


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(stoker: Stoker, name: str) -> None:
    result = stoker(name, "--help")
    assert result.code == 0
    assert result.out.startswith(f"Usage: stoker {name}")


def test_no_command_at_all_is_help_and_misuse(stoker: Stoker) -> None:
    result = stoker()
    assert result.code == 2
    assert "Begin:" in result.err


@pytest.mark.parametrize("args", NEED_A_DAEMON, ids=" ".join)
def test_without_a_daemon_exit_code_3_and_where_it_was_looked_for(
    stoker: Stoker, args: list[str], tmp_path: Path
) -> None:
    socket = tmp_path / "s.sock"
    result = stoker(*args, "--socket", str(socket))
    assert (result.code, result.out) == (3, "")
    assert str(socket) in result.err
    assert len(result.err.splitlines()) == 1


def test_the_socket_of_a_dead_daemon_is_no_daemon(live: Served, stoker: Stoker, tmp_path: Path) -> None:
    import socket

    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "dead.sock"))
    dead.close()
    assert stoker("status", "--socket", str(tmp_path / "dead.sock")).code == 3


def test_a_bug_is_one_line_and_a_hint_unless_debugging(
    live: Served, daemon: FakeDaemon, stoker: Stoker, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.plugins = lambda: 1 / 0  # type: ignore[assignment,method-assign,return-value]
    result = stoker("plugins")
    assert result.code == 1
    assert "ZeroDivisionError" in result.err
    assert "Traceback" not in result.err
    monkeypatch.setenv("STOKER_DEBUG", "1")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        stoker("plugins")


def test_status_as_json_loads_nothing_heavy(live: Served) -> None:
    code = (
        "import sys; from stoker.cli.main import main; code = main(['status', '-o', 'json']); "
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0
    assert json.loads(done.stdout)["services"]
    assert done.stderr.strip() == "[]"


def test_a_reader_that_goes_away_is_no_error(live: Served) -> None:
    command = f"{sys.executable} -m stoker.cli status -o json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
    assert done.returncode in {0, 141}


@pytest.mark.parametrize("closed", [">&-", "<&-", "<&- >&- 2>&-"])
def test_closed_standard_files_are_no_error(live: Served, closed: str) -> None:
    command = f"{sys.executable} -m stoker.cli status {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("line", ["status", "status -o json", "--version", "schema"])
def test_output_that_finds_no_room_is_one_line(live: Served, line: str) -> None:
    command = f"{sys.executable} -m stoker.cli {line} > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (1, "stoker: cannot write: No space left on device\n")


def test_a_locale_that_knows_few_characters_gets_the_rest_as_question_marks(live: Served) -> None:
    done = run("explain", "infer", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "?" in done.stdout


def test_no_color_in_pipes_and_json_alone_on_stdout(live: Served) -> None:
    done = run("status", "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    json.loads(done.stdout)
    assert "\x1b" not in run("status").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(stoker: Stoker, shell: str) -> None:
    out = stoker("completion", shell).out
    assert "_STOKER_COMPLETE" in out


def complete(line: str, **environ: str) -> list[str]:
    words = line.split(" ")
    done = run(_STOKER_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1), **environ)
    return [entry.partition(",")[2] for entry in done.stdout.split("\n") if entry]


def test_completion_knows_commands_services_and_replicas(live: Served) -> None:
    assert "restart" in complete("stoker re")
    assert complete("stoker restart in") == ["infer"]
    assert complete("stoker story in") == ["infer-k3x9", "infer-m2p4"]
    assert set(complete("stoker logs ")) == {"tokenize", "infer", "infer-k3x9", "infer-m2p4"}


def test_completion_without_a_daemon_is_empty_and_quick(tmp_path: Path) -> None:
    assert complete("stoker restart in", STOKER_SOCKET=str(tmp_path / "none.sock")) == []

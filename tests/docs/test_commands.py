"""Every command of the documentation is run, or says why not."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from docs.blocks import ROOT, Block, blocks, everything

WALK = "docs/start.md"
"""The page whose commands are a path: run as they stand, one after the other."""

EXCUSED = {
    ".venv/bin/python examples/pipeline/load.py": "run by tests/examples/test_pipeline.py",
    "python3 -m venv ~/stoker && ~/stoker/bin/pip install -q .": "run by .ci/run, from wheel and sdist",
    "export PATH=~/stoker/bin:$PATH": "the tests use the environment that they run in",
    "pipx install .": "run by .ci/run, with the wheel",
    "pip install ./examples/plugin": "run by .ci/run, in an environment of its own",
    "pytest examples/plugin": "run by tests/examples/test_plugin.py",
    "ssh -L 7070:/run/stoker/stoker.sock gpu-box": "takes a second machine",
    "stoker daemon --event-log /var/log/stoker/events.jsonl": "runs on; tests/cli/test_sinks.py",
    "stoker daemon --webhook https://ops.example/hook --webhook-secret-file /etc/stoker/webhook.secret":
        "runs until it is ended; tests/cli/test_sinks.py",
    "python3 -m venv /opt/stoker && /opt/stoker/bin/pip install .": "changes the box",
    "ln -sf /opt/stoker/bin/stoker /usr/local/bin/stoker": "changes the box",
    "stoker systemd install": "changes the box; tests/system/test_systemd.py runs it in one of its own",
    "cp stoker.yaml /etc/stoker/ && stoker check /etc/stoker/stoker.yaml": "changes the box",
    "systemctl enable --now stoker": "changes the box; tests/system/test_systemd.py",
}  # fmt: skip
NO_COMMANDS = re.compile(r"\s*(#|\[\w+\]$|\w+=)|stoker .*\[OPTIONS\]")
"""Comments, lines of a unit, and the usage lines of the page that is made from the program."""


def commands(block: Block) -> list[str]:
    """The commands of a block, without their comments."""
    if block.kind not in {"sh", "indented"}:
        return []
    lines = [re.sub(r"\s+# .*", "", line).rstrip() for line in block.text.splitlines()]
    return [line for line in lines if line and not NO_COMMANDS.match(line)]


EXCUSED |= {
    command: "a bench: minutes, and the peers it compares with"
    for block in everything()
    for command in commands(block)
    if command.startswith("python tests/bench/")
}
EXCUSED |= {
    command: "run by .ci/run, which takes it from the text"
    for block in blocks(ROOT / "README.md")
    for command in commands(block)
    if command.startswith("python3 -m venv .venv ")
}


def others() -> list[str]:
    """The commands of all pages but the walk that are not excused, each once."""
    found = {command: None for block in everything() if block.page != WALK for command in commands(block)}
    return [command for command in found if command not in EXCUSED]


def test_no_excuse_is_left_over() -> None:
    there = {command for block in everything() for command in commands(block)}
    assert set(EXCUSED) <= there


@pytest.mark.system
@pytest.mark.timeout(300)
@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl")
def test_the_walk_and_the_rest_run_as_they_stand(tmp_path: Path) -> None:
    page = blocks(ROOT / WALK)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    for block in page:
        if block.title:
            (tmp_path / block.title).write_text(block.text.replace("8080", port))
    walk = [command for block in page for command in commands(block) if command not in EXCUSED]
    assert walk[-1] == "stoker down"
    walk[-1:-1] = [
        c.replace("--listen", "--listen 127.0.0.1:0") if "ui --listen" in c else c for c in others()
    ]
    script = "set -euo pipefail\n" + "".join(f"echo '+++' {c!r}\n{c}\n" for c in walk).replace("8080", port)
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment(tmp_path), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    if done.returncode:
        subprocess.run(["stoker", "down"], cwd=tmp_path, env=environment(tmp_path), check=False, timeout=60)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    said = done.stdout
    assert "42\n" in said, "the model answers"
    assert re.search(r"exit(ed|s)?\b.*3", said), "the crash is told"
    assert "max_replicsa" in done.stderr
    assert "did you mean max_replicas" in done.stderr
    assert "#token=" in said


def environment(home: Path) -> dict[str, str]:
    (home / "run").mkdir(exist_ok=True, mode=0o700)
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "XDG_STATE_HOME": str(home / "state"),
        "LANG": "C.UTF-8",
    }

"""The plugin of the author's guide: its own tests pass, and a Stoker beside which it is installed uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"


def run(*command: object, path: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(path), "STOKER_SOCKET": str(cwd / "none.sock")}
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=environ, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def test_its_own_tests_pass(tmp_path: Path) -> None:
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", tmp_path]
    done = run("-m", "pytest", *options, PLUGIN / "test_arrivals.py", path=PLUGIN, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout


def test_it_is_found_and_named_in_a_file(tmp_path: Path) -> None:
    """Laid out as pip does it; `.ci/run` has pip do it."""
    place = tmp_path / "site"
    about = place / "stoker_arrivals-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stoker-arrivals\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[stoker]\narrivals = stoker_arrivals\n")
    (place / "stoker_arrivals.py").write_text((PLUGIN / "stoker_arrivals.py").read_text())
    listed = run("-m", "stoker.cli", "plugins", "-o", "json", path=place, cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    (found,) = [one for one in json.loads(listed.stdout)["plugins"] if one["name"] == "arrivals"]
    assert found["parts"] == ["policy: arrivals"]
    (tmp_path / "trace.csv").write_text(
        "arrival_s,service_s\n" + "".join(f"{n / 50},0.1\n" for n in range(6000))
    )
    (tmp_path / "stoker.yaml").write_text(
        "services:\n  web:\n    command: serve {port}\n"
        "    scaling: {max_replicas: 8, policy: {metric: arrivals, target: 20}}\n"
    )
    command = ("-m", "stoker.cli", "simulate", "stoker.yaml", "--trace", "trace.csv", "-o", "json")
    played = run(*command, path=place, cwd=tmp_path)
    assert played.returncode == 0, played.stderr
    assert json.loads(played.stdout)["services"][0]["peak"] == 3, "50 a second / 20, rounded up"

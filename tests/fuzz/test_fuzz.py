"""The fuzzer's own corpus, and where atheris is installed a short run of it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.fuzz_config import examine

HERE = Path(__file__).parent
CORPUS = sorted((HERE / "corpus").iterdir())
SECONDS = int(os.environ.get("STOKER_FUZZ_SECONDS", "15"))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_must_hold_holds_for_the_corpus(path: Path) -> None:
    taken = examine(path.read_text()) is not None
    assert taken == ("faults" not in path.name and "flow" not in path.name and path.name != "own-env")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.timeout(SECONDS + 60)
def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    found = tmp_path / "found"
    found.mkdir()
    limits = ["-timeout=20", "-rss_limit_mb=4000", "-max_len=6000", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(
        [
            sys.executable,
            HERE / "fuzz_config.py",
            f"-max_total_time={SECONDS}",
            *limits,
            found,
            HERE / "corpus",
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS + 50,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done " in done.stderr

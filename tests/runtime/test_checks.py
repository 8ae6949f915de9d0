"""The command of a probe runs as its worker does."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoker.model.replica import WorkerHandle
from stoker.model.service import Command, Probe, ServiceSpec
from stoker.runtime.checks import BesideProber
from stoker.runtime.probing import NetworkProber

pytestmark = pytest.mark.anyio
HANDLE = WorkerHandle(driver="process", pid=1)


def prober(folder: Path, user: str | None = None) -> BesideProber:
    spec = ServiceSpec(
        deployment="rag",
        name="infer",
        launch=Command(("x",)),
        working_dir=str(folder),
        envs=(("MODE", "fast"),),
        user=user,
    )
    return BesideProber(NetworkProber(), "infer-1", lambda: spec)


@pytest.mark.parametrize(("endpoint", "where"), [("127.0.0.1:8123", "8123"), ("unix:/run/w", "/run/w")])
async def test_it_knows_its_worker(tmp_path: Path, endpoint: str, where: str) -> None:
    (tmp_path / "check.sh").write_text(
        """#!/bin/sh
echo "$1 $MODE $PORT$SOCKET $STOKER_REPLICA"
exit 3
"""
    )
    (tmp_path / "check.sh").chmod(0o755)
    probe = Probe(exec=("./check.sh", "{service}{port}{socket}{other}"), timeout=60)
    answer = await prober(tmp_path).ask(probe, endpoint, HANDLE)
    assert not answer.ok
    assert answer.detail == f"./check.sh gave exit code 3: infer{where}{{other}} fast {where} infer-1"


async def test_silence_is_no_last_word(tmp_path: Path) -> None:
    answer = await prober(tmp_path).ask(Probe(exec=("sh", "-c", "exit 1"), timeout=60), "127.0.0.1:1", HANDLE)
    assert answer.detail == "sh gave exit code 1"


@pytest.mark.parametrize("user", [None, "nobody-of-that-name"])
async def test_what_cannot_run_is_a_no_with_its_reason(tmp_path: Path, user: str | None) -> None:
    answer = await prober(tmp_path, user).ask(Probe(exec=("./none",), timeout=60), "127.0.0.1:1", HANDLE)
    assert not answer.ok
    assert answer.detail.startswith("cannot run ./none: ")


async def test_other_questions_are_not_its_own(tmp_path: Path) -> None:
    answer = await prober(tmp_path).ask(Probe(tcp=True), f"unix:{tmp_path}/none", HANDLE)
    assert answer.detail.endswith("No such file or directory")

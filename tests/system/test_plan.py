"""`stoker plan` against a real daemon: what it says is what then happens."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from system.harness import Box

pytestmark = pytest.mark.system

WEB = f"""
services:
  web: {{command: [{sys.executable}, -m, http.server, "{{port}}", --bind, 127.0.0.1], envs: {{A: '1'}}}}
  idle: {{command: [sleep, '1000'], scaling: {{min_replicas: 1, max_replicas: 3}}}}
"""
OTHER = "services: {other: {command: [sleep, '1000']}}\n"


def planned(box: Box, *files: str) -> dict[str, Any]:
    done = box.run("plan", *files, "-o", "json", check=False)
    assert done.returncode in (0, 2), done.stderr
    return {f"{one['deployment']}/{one['name']}": one for one in json.loads(done.stdout)["services"]}


def test_a_plan_of_one_of_several_files_is_what_happens(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(OTHER)
    with Box(tmp_path) as box:
        box.write(WEB)
        box.up(str(tmp_path / "other.yaml"))
        for name in ("web", "idle", "other"):
            box.ready(name, 1)
        before = {name: box.replicas(name, "ready")[0]["id"] for name in ("web", "idle", "other")}
        changed = WEB.replace("A: '1'", "A: '2'").replace("min_replicas: 1", "min_replicas: 2")
        (tmp_path / "new.yaml").write_text(f"name: stoker\n{changed}")
        told = planned(box, "new.yaml")
        assert {key: (one["change"], one["restart_causes"]) for key, one in told.items()} == {
            "stoker/web": ("restart", ["envs.A"]), "stoker/idle": ("scale", [])
        }  # fmt: skip
        assert told["stoker/web"]["stops"] == [before["web"]]
        screen = box.run("plan", "new.yaml", check=False).stdout
        assert "restarted because of envs.A" in screen
        assert "plan: 1 to restart, 1 to scale" in screen
        assert planned(box, "other.yaml") == {}
        box.write(changed)
        box.ready("idle", 2)
        box.until(
            lambda: (
                [one["id"] for one in box.replicas("web", "ready")] != [before["web"]]
                and len(box.replicas("web", "ready")) == 1
            ),
            "web is replaced",
        )
        assert before["idle"] in {one["id"] for one in box.replicas("idle", "ready")}
        assert [one["id"] for one in box.replicas("other", "ready")] == [before["other"]]
        assert planned(box) == {}

"""The dashboard and the alert rules that are shipped: Prometheus' own tool checks them, and every metric that
they name is one that the daemon tells."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from api.fakes import snapshot
from stoker.api.metrics import exposition

FOLDER = Path(__file__).parents[2] / "monitoring"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
RULES = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool")


def panels() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def alerts() -> list[str]:
    return [rule["expr"] for group in RULES for rule in group["rules"]]


def checked(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_that_is_named_exists() -> None:
    told = set(re.findall(r"^(stoker_\w+?)(?:\{| )", exposition(snapshot())[0].decode(), re.MULTILINE))
    named = {name for expr in (*panels(), *alerts()) for name in re.findall(r"\bstoker_\w+", expr)}
    assert len(named) > 12
    assert named - told == set()


@promtool
def test_the_alerts_are_sound_and_fire_when_they_should() -> None:
    checked("check", "rules", FOLDER / "alerts.yaml")
    checked("test", "rules", FOLDER / "alerts.test.yaml")


@promtool
def test_every_panel_asks_a_sound_question(tmp_path: Path) -> None:
    filled = [expr.replace("$__rate_interval", "1m") for expr in panels()]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(filled)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    checked("check", "rules", tmp_path / "rules.yaml")


@promtool
def test_the_configuration_beside_them_is_sound(tmp_path: Path) -> None:
    text = (FOLDER / "prometheus.yaml").read_text()
    assert "credentials_file: /var/lib/stoker/view-token" in text
    (tmp_path / "view-token").write_text("secret")
    shutil.copy(FOLDER / "alerts.yaml", tmp_path)
    config = text.replace("/var/lib/stoker/view-token", str(tmp_path / "view-token"))
    (tmp_path / "prometheus.yaml").write_text(config)
    checked("check", "config", tmp_path / "prometheus.yaml")


def test_the_panels_do_not_overlap_and_ask_the_chosen_prometheus() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}"
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])

"""A real Prometheus scrapes the daemon by its token."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from stoker.plugin.testing.free_ports import free_port
from system.harness import Box

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not shutil.which("prometheus"), reason="needs prometheus"),
]
WORKER = Path(__file__).with_name("worker.py")
FILE = f"""
name: app
services:
  one:
    command: [{sys.executable}, {WORKER}, --port, "{{port}}"]
    drain: {{timeout: 1s, grace: 1s}}
"""


def test_prometheus_reads_what_the_daemon_tells(tmp_path: Path) -> None:
    with Box(tmp_path) as box:
        box.write(FILE)
        (where,) = [f"127.0.0.1:{free_port()}"]
        box.up("--listen", where)
        box.ready("one", 1)
        for _ in range(20):
            box.get("one")
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [
                {
                    "job_name": "stoker",
                    "authorization": {"credentials_file": str(box.state_dir / "token")},
                    "static_configs": [{"targets": [where]}],
                }
            ],
        }
        (tmp_path / "prometheus.yaml").write_text(json.dumps(config))
        port = free_port()
        with (tmp_path / "prometheus.log").open("wb") as log:
            prometheus = subprocess.Popen(
                [
                    "prometheus", f"--config.file={tmp_path / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={tmp_path / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log, stderr=log,
            )  # fmt: skip

        def asked(expr: str) -> list[Any]:
            url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': expr})}"
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    return [float(row["value"][1]) for row in json.load(answer)["data"]["result"]]
            except OSError:
                return []

        try:
            box.until(lambda: asked('up{job="stoker"}') == [1.0], "it is up", seconds=40)
            box.until(lambda: asked('stoker_target_replicas{service="one"}') == [1.0], "the target")
            box.until(lambda: asked('sum(stoker_requests_total{code="2xx"})') == [20.0], "the requests")
            p99 = "histogram_quantile(0.99, sum by (le) (stoker_request_seconds_bucket))"
            (seconds,) = asked(p99)
            assert 0 < seconds < 1
        finally:
            prometheus.terminate()
            prometheus.wait(20)

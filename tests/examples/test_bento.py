"""The bento of the examples, run by its deployment file: it answers, and its middle service grows."""

from __future__ import annotations

import importlib.util
import json
import shutil
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from system.harness import Box

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        importlib.util.find_spec("bentoml") is None, reason="needs BentoML: pip install 'stoker[bentoml]'"
    ),
]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "bento"


def review(url: str, text: str) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{url}/review", json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_it_answers_and_grows_under_load(tmp_path: Path) -> None:
    folder = tmp_path / "e"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    with Box(tmp_path, TMPDIR=str(tmp_path)) as box:
        box.file = folder / "deployment.yaml"
        box.up()
        box.until(lambda: box.status()["services"], "the bento was read", 60)
        for name in ("Clean", "Judge", "Review"):
            box.ready(name, 1, seconds=60)
        url = box.service("Review")["url"]
        try:
            first = review(url, "Great and friendly!")
        except urllib.error.HTTPError as error:
            pytest.fail(f"{error}: {box.run('logs').stdout[-6000:]}")
        assert first == {"words": 3, "score": 1.0, "verdict": "kind"}
        with ThreadPoolExecutor(12) as pool:
            grown, answered = False, 0
            # BentoML's own client breaks calls under way at each hundredth: more than that must pass.
            while not grown or answered < 240:
                asked = [pool.submit(review, url, "slow, but clean") for _ in range(60)]
                answered += sum(one.result()["words"] == 3 for one in asked)
                grown = len(box.replicas("Judge")) > 1
        assert "in-flight" in box.service("Judge")["decision"]["reason"]

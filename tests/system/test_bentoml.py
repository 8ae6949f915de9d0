"""A BentoML project with a service of each kind, run from its deployment file by a real daemon."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from system.harness import Box

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        importlib.util.find_spec("bentoml") is None, reason="needs BentoML: pip install 'stoker[bentoml]'"
    ),
]

PROJECT = Path(__file__).parent / "bento"
PICKLE = "application/vnd.bentoml+pickle"
FILE = """
name: app
bento: service:Root
envs:
  - {name: STAGE, value: for all by file}
  - {name: TOKEN, value: given}
services:
  First:
    envs: [{name: STAGE, value: first by file}]
    config_overrides: {workers: 2}
  Middle:
    deployment_strategy: RollingUpdate
    scaling: {min_replicas: 1, max_replicas: 1}
    config_overrides: {threads: 2}
  Mounted:
    config_overrides: {traffic: {timeout: 3, max_concurrency: 1}}
  Page:
    scaling: {min_replicas: 2, max_replicas: 2}
  Jobs:
    scaling: {min_replicas: 2, max_replicas: 2}
"""
SERVICES = {"Root": 1, "First": 1, "Middle": 1, "Mounted": 1, "Page": 2, "Jobs": 2}


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("b")
    for file in PROJECT.glob("*.py"):
        shutil.copy(file, folder)
    with Box(folder, TMPDIR=str(folder)) as made:
        made.write(FILE)
        made.up()
        made.until(lambda: made.status()["services"], "the bento was read", seconds=60)
        for name, count in SERVICES.items():
            made.ready(name, count, seconds=90)
        yield made


def post(box: Box, service: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """The status and the document that came back."""
    sent = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
    request = urllib.request.Request(
        box.service(service)["url"] + path,
        sent,
        {"Content-Type": "application/json", **headers},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read().decode()
            return answer.status, json.loads(text) if text[:1] in '{[t0123456789"' else text
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_requests_pass_through_the_composition_and_each_service_sees_its_own_environment(box: Box) -> None:
    status, answer = post(box, "Root", "/ask", {"number": 21})
    assert status == 200, answer
    assert (answer["double"], answer["shout"]) == (42, "HEY")
    first, own = answer["first"], answer["own"]
    assert (first["STAGE"], first["FIRST_ONLY"]) == ("first by file", "1")
    assert "AT_BUILD" not in first
    assert (own["STAGE"], own["TOKEN"]) == ("for all by file", "given")
    assert "FIRST_ONLY" not in own
    assert first["PROMETHEUS_MULTIPROC_DIR"] != own["PROMETHEUS_MULTIPROC_DIR"]
    assert "STOKER_BENTO" not in own


def test_pickled_bodies_are_taken_from_the_composition_only(box: Box) -> None:
    for service, path in (("Root", "/ask"), ("Middle", "/double")):
        status, answer = post(box, service, path, b"\x80\x04N.", **{"Content-Type": PICKLE})
        assert status == 415, (service, answer)
        shown = {"Content-Type": PICKLE, "Authorization": "Basic c3Rva2VyOndyb25n"}
        assert post(box, service, path, b"\x80\x04N.", **shown)[0] == 415


def test_what_bentoml_reads_only_from_the_decorator_is_overridden_too(box: Box) -> None:
    answers: list[Any] = []
    pair = [threading.Thread(target=lambda: answers.append(post(box, "Middle", "/gather"))) for _ in range(2)]
    for one in pair:
        one.start()
    for one in pair:
        one.join()
    assert answers == [(200, True)] * 2


def test_workers_are_processes_of_one_replica_and_each_is_replaced(box: Box) -> None:
    [replica] = box.ready("First", 1)
    pids: set[int] = set()

    def two() -> bool:
        # One connection after the other stays with one process; only several at a time reach both.
        with ThreadPoolExecutor(8) as pool:
            many = [pool.submit(post, box, "First", "/environment") for _ in range(8)]
        pids.update(one.result()[1]["pid"] for one in many)
        return len(pids) == 2

    box.until(two, "both processes answer")
    gone = min(pids)
    # A process that has just begun is not replaced: its end would be a fault of its start.
    box.until(lambda: box.replicas("First")[0]["since_s"] > 6, "it has run for a while")
    os.kill(gone, signal.SIGKILL)
    pids.clear()
    box.until(two, "both processes answer again")
    assert gone not in pids
    assert box.replicas("First")[0]["id"] == replica["id"]


def test_too_long_is_504_and_too_many_is_429(box: Box, tmp_path: Path) -> None:
    started, until = tmp_path / "started", tmp_path / "until"
    answers: list[Any] = []
    body = {"started": str(started), "until": str(until)}
    inside = threading.Thread(target=lambda: answers.append(post(box, "Mounted", "/v1/hold", body)))
    inside.start()
    box.until(started.exists, "the request runs")
    assert post(box, "Mounted", "/v1/shout", {"text": "a"})[0] == 429
    inside.join()
    assert answers[0][0] == 504
    until.write_text("")
    box.until(lambda: post(box, "Mounted", "/v1/shout", {"text": "a"})[0] == 200, "there is room again")


def test_explain_tells_the_layers(box: Box) -> None:
    stage = box.run("explain", "services.First.envs.STAGE").stdout
    assert "stoker.yaml:9:" in stage
    assert "service.py:31:" in stage
    assert "first by code" in stage
    assert "service.py:45:" in box.run("explain", "services.Middle.traffic.timeout").stdout
    assert "the bento's own endpoints" in box.run("explain", "services.Mounted.probes.readiness.http").stdout


def test_mounted_applications_and_prefixes(box: Box) -> None:
    assert json.loads(box.get("Mounted", "/v1/hello/you")) == {"hello": "you"}
    assert post(box, "Mounted", "/v1/shout", {"text": "a"})[0] == 200


def test_two_replicas_of_a_custom_server_do_not_collide(box: Box) -> None:
    seen: set[str] = set()
    box.until(lambda: seen.add(box.get("Page")) or len(seen) == 2, "both replicas answer")


def test_results_of_tasks_are_known_to_all_replicas(box: Box) -> None:
    status, task = post(box, "Jobs", "/count/submit", {"up_to": 100})
    assert status == 200, task
    where = f"?task_id={task['task_id']}"
    box.until(
        lambda: json.loads(box.get("Jobs", f"/count/status{where}"))["status"] == "completed", "it is done"
    )
    for _ in range(6):
        assert json.loads(box.get("Jobs", f"/count/get{where}")) == 5050


def test_a_killed_worker_is_replaced_and_leaves_nothing_behind(box: Box) -> None:
    [before] = box.ready("First", 1)
    metrics = post(box, "First", "/environment")[1]["PROMETHEUS_MULTIPROC_DIR"]
    assert Path(metrics).is_dir()
    os.kill(before["pid"], signal.SIGKILL)
    box.until(
        lambda: box.replicas("First", "ready") and box.replicas("First")[0]["pid"] != before["pid"], "back"
    )
    assert not Path(metrics).exists()


def test_a_change_touches_only_what_it_concerns_and_lets_requests_finish(box: Box, tmp_path: Path) -> None:
    everyone = {name: {one["id"] for one in box.replicas(name)} for name in SERVICES}
    [old] = everyone["Middle"]
    started, until = tmp_path / "started", tmp_path / "until"
    answers: list[Any] = []
    inside = threading.Thread(
        target=lambda: answers.append(
            post(box, "Middle", "/hold", {"started": str(started), "until": str(until)})
        )
    )
    inside.start()
    box.until(started.exists, "the request runs")
    box.write(FILE.replace("threads: 2", "threads: 3"))
    box.until(
        lambda: [one for one in box.replicas("Middle", "ready") if one["id"] != old], "the new one is ready"
    )
    until.write_text("")
    inside.join()
    assert answers == [(200, old)]
    box.ready("Middle", 1)
    for name in SERVICES:
        same = {one["id"] for one in box.replicas(name)} == everyone[name]
        assert same == (name != "Middle"), name


def test_a_broken_edit_leaves_the_last_good_one_in_force(box: Box) -> None:
    box.write(FILE.replace("  Page:", "  Pagge:"))
    box.until(lambda: box.status()["daemon"]["config"]["state"] == "rejected", "it is refused")
    [error] = box.status()["daemon"]["config"]["errors"]
    assert error["path"] == "services.Pagge"
    assert "did you mean Page?" in error["message"]
    assert len(box.replicas("Page", "ready")) == 2
    box.write(FILE)
    box.until(lambda: box.status()["daemon"]["config"]["state"] == "in-force", "the good one counts")

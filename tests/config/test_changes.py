"""What differs between two configurations, in the file's own words."""

from __future__ import annotations

from config.conftest import Box
from stoker.config.load import changed_keys

BEFORE = "services:\n  web: {command: run}\n  other: {command: run}\n  old: {command: run}\n"


def changed(box: Box, after: str) -> dict[str, list[str]]:
    box.write("stoker.yaml", BEFORE)
    before = box.load()
    box.write("stoker.yaml", after)
    after_config = box.load()
    assert changed_keys(before.desired, after_config.desired) == changed_keys(before, after_config)
    return dict(changed_keys(before, after_config))


def test_only_services_of_both_that_differ(box: Box) -> None:
    after = BEFORE.replace("  old", "  new").replace("other: {", "other: {hold: true, ")
    assert changed(box, after) == {"stoker/other": ["hold"]}


def test_keys_are_named_as_in_the_file(box: Box) -> None:
    more = (
        "python: null, envs: {A: 1}, scaling: {max_replicas: 2, policy: {target: 3}}, slo: {wait: 1}, "
        "probes: {startup: {timeout: 9}, readiness: {tcp: true}}, instance_type: gpu.l4, endpoint: {port: 5}"
    )
    assert changed(box, BEFORE.replace("web: {command: run", f"web: {{command: go, {more}")) == {
        "stoker/web": [
            "command", "endpoint.port", "envs.A", "instance_type", "probes.readiness",
            "probes.startup.timeout", "resources.gpu", "resources.gpu_type", "scaling.max_replicas",
            "scaling.policy", "slo.wait",
        ]
    }  # fmt: skip


def test_a_changed_way_to_run_is_both_keys(box: Box) -> None:
    box.write("app.py", "app = None\n")
    after = BEFORE.replace("web: {command: run", "web: {python: 'app:app'")
    assert changed(box, after) == {"stoker/web": ["command", "python"]}

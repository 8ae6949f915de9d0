"""The JSON Schema says what the loader does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from config.conftest import Box, blocks, document
from stoker.config.fields import Kind
from stoker.config.json_schema import json_schema
from stoker.config.tree import Source, to_data
from stoker.config.yaml_text import parse_yaml

SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

GOOD = [
    document(),
    "services: {}\n",
    "envs: [{name: A, value: 1}, {name: B, value: x}]\nservices: {web: {command: [run, 1, true]}}\n",
    "envs: {A: 1, B: true, C: x, D: null, E: 1.5}\nservices: {web: {command: run, scaling: null}}\n",
    "name: rag\nbox: null\nservices: {}\n",
    "instance_types: {gpu.big: {gpu: 0.5, memory: 64Gi, cpu: 500m}, gpu.l4: null}\nservices: {}\n",
    document("resources: {gpu: 2, gpu_memory: 17179869184, cpu: 1.5, memory: '16 Gi'}"),
    document("scaling: {min_replicas: 0, policy: [{metric: own, rule: x}, {target: 0.5}]}"),
    document("scaling: {policy: {metric: concurrency, scale_up_stabilization_window: 1m30s}}"),
    document("probes: {startup: {notify: true, timeout: 5m}, liveness: {exec: [true], period: 500ms}}"),
    document("update: {max_surge: 25%, max_unavailable: 0}", "drain: {signal: TERM}", "hold: false"),
    document("limits: {memory: 2Gi, cpu: 500m, pids: 9}", "group: crew", "umask: '0027'"),
    document("scaling: {max_replicas: '${MAX:-4}'}", "hold: ${HOLD:-true}", "traffic: {timeout: '${T:-5s}'}"),
    document("update: {strategy: '${S:-Recreate}'}", "secrets: ['${X:-hf-token}']", "user: ${U:-svc}"),
]


def accepted(text: str) -> bool:
    return bool(VALIDATOR.is_valid(data(text)))


def data(text: str) -> Any:
    """The text as our own reader takes it: `yes` is no boolean."""
    tree, problems = parse_yaml(text, Source("file", "f.yaml"))
    assert tree is not None
    assert problems == []
    return to_data(tree)


def test_it_is_a_valid_schema_and_plain_json() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("text", GOOD)
def test_what_the_loader_takes_the_schema_takes(box: Box, text: str) -> None:
    box.write("stoker.yaml", text)
    assert box.problems() == []
    assert [error.message for error in VALIDATOR.iter_errors(data(text))] == []


BEYOND = (
    "unknown instance type", "there is no service", "form a cycle", "is more than max_rep", "come to 0 of",
    "is less than backoff", "a probe asks in one way", "would both be", "says nothing of how many",
    "for the metric", "a variable's name", "is not set", "is no reference", "asks nothing", "must be text, a",
    "not valid YAML", "metric schedule needs", "minute, hour, day", "no time zone", "is said twice",
)  # fmt: skip
"""Faults in what keys mean together; only the loader finds these."""


FORM = [case for case in blocks("service.txt") if not any(phrase in case.values[1][0] for phrase in BEYOND)]


@pytest.mark.parametrize(("lines", "expected"), FORM)
def test_what_the_loader_refuses_for_its_form_the_schema_refuses(lines: str, expected: list[str]) -> None:
    assert expected
    assert not accepted(document(*lines.splitlines()))


@pytest.mark.parametrize(
    "text", ["{}", "[]", "services: [a]", "servces: {}\nservices: {}", "name: a b\nservices: {}"]
)
def test_top_of_the_file(text: str) -> None:
    assert not accepted(text)


NAMING = [
    "x-a: &a {priority: 1}\ninclude: [a.yaml]\nenv_file: [{path: b.env, required: false}]\nservices: {}\n",
    "include: p/*.yaml\nenv_file: {path: b.env, required: false}\nservices: {w: {x-b: 1, command: r}}\n",
]


@pytest.mark.parametrize("text", NAMING)
def test_keys_that_name_files_or_hold_anchors(text: str) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(data(text))] == []


REAL = sorted(
    path
    for folder in ("bentoml", "forms")
    for path in (Path(__file__).parent / "data" / folder).iterdir()
    if path.suffix in {".yaml", ".json"} and ".expected" not in path.name
)
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").rglob("*.yaml"))


@pytest.mark.parametrize("path", [*REAL, *EXAMPLES], ids=lambda path: f"{path.parent.name}-{path.name}")
def test_real_files_and_examples(path: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(data(path.read_text()))] == []


BENTO_FORM = [case for case in blocks("bentoml.txt") if not any(word in case.values[1][0] for word in BEYOND)]


@pytest.mark.parametrize(("lines", "expected"), BENTO_FORM)
def test_faults_of_a_bento_file_are_refused(lines: str, expected: list[str]) -> None:
    assert expected
    indented = "\n".join(f"    {line}" for line in lines.splitlines())
    assert not accepted(f"bento: service:S\nservices:\n  S:\n{indented}\n")


@pytest.mark.parametrize(
    "text",
    [
        "bento: .\nclustre: x", "bento: .\ndev: 1", "bento: .\naccess_authorization: 'false'",
        "bento: .\nservices: {S: {config_overrides: {wrokers: 1}}}", "bento: .\nlabels: {a: b}",
        "bento: .\ncanary: {route_type: cookie}", "bento: .\nconfig: {servces: {}}", "bento: 3\nservices: {}",
        "services: {web: {command: run, config_overrides: {threads: x}}}", "y-a: 1\nservices: {}",
    ],
)  # fmt: skip
def test_broken_files_of_a_bento_are_refused(text: str) -> None:
    assert not accepted(text)


def sections() -> list[tuple[str, dict[str, Any]]]:
    return [(name, each) for name, each in SCHEMA["$defs"].items() if name != "Reference"]


@pytest.mark.parametrize(("name", "section"), sections())
def test_every_key_is_documented(name: str, section: dict[str, Any]) -> None:
    assert section["description"]
    for key, schema in section["properties"].items():
        whole = [SCHEMA["$defs"].get(form.get("$ref", "").rpartition("/")[2], {}) for form in schema["anyOf"]]
        assert schema.get("description") or whole[0].get("description"), key
    for key, schema in SCHEMA["properties"].items():
        assert schema["description"], key


def test_every_kind_of_value_has_a_schema() -> None:
    assert [kind.__name__ for kind in Kind.__subclasses__() if kind.json_schema is Kind.json_schema] == []

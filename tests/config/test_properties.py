"""Whatever stands in a file, the answer is a configuration or problems with places, and it comes soon."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.config.assemble import Deployment, Operator, RawLayers, add_operator
from stoker.config.explain import explain
from stoker.config.layers import make_layer, merge_layers
from stoker.config.load import EffectiveConfig, resolve
from stoker.config.tree import Node, Source, from_data, leaves, to_data
from stoker.config.yaml_text import parse_yaml
from stoker.errors import ConfigError, ConfigProblem, NotFoundError

SOURCE = Source("file", "f.yaml", "/srv")
LONGEST = 2.0
"""Seconds of CPU: the clock on the wall also counts what else the machine does."""
VALID = """\
name: rag
envs: {LOG_LEVEL: info, N: 1}
secrets: [hf-token]
instance_types:
  gpu.big: {gpu: 1, gpu_type: a100, gpu_memory: 80Gi, cpu: 8, memory: 64Gi}
services:
  tokenize: &base
    command: python -m tokenizer --port {port}
    instance_type: cpu.small
    scaling: {min_replicas: 1, max_replicas: 4}
  infer:
    <<: *base
    command: [python, serve.py, "{port}", "{url:tokenize}", "${HOME:-/}"]
    depends: [tokenize]
    resources: {gpu: 0.5, gpu_memory: 40Gi}
    scaling: {min_replicas: 0, max_replicas: 8, policy: {target: 4, scale_down_stabilization_window: 60}}
    envs: [{name: A, value: b}]
    probes:
      startup: {http: /readyz, timeout: 120s}
      liveness: {tcp: true}
    update: {max_surge: 25%}
    drain: {signal: SIGTERM}
    endpoint: {port: 8001}
box: {idle: fill}
"""


def answer(text: str, environ: Mapping[str, str] | None = None) -> EffectiveConfig | ConfigError:
    """What a file of this text gives, without a disk."""
    begun = time.thread_time()
    try:
        return resolve(raw(text, environ or {}))
    except ConfigError as error:
        return error
    finally:
        assert time.thread_time() - begun < LONGEST


def raw(text: str, environ: Mapping[str, str]) -> RawLayers:
    tree, problems = parse_yaml(text, SOURCE)
    deployments = []
    if tree is not None:
        layer, faults = make_layer(tree)
        problems += faults
        deployments, faults, _ = add_operator(
            [Deployment(stem="f", source=SOURCE, layers=(layer,))], Operator(environ=environ), complete=True
        )
        problems += faults
    elif not problems:
        problems = [ConfigProblem("is empty", SOURCE.label, 1, 1)]
    return RawLayers(deployments=tuple(deployments), environ=environ, problems=tuple(problems))


def assert_is_an_answer(found: EffectiveConfig | ConfigError, text: str) -> None:
    if isinstance(found, EffectiveConfig):
        assert all(key == spec.key for key, spec in found.desired.services.items())
        return
    assert found.problems
    for problem in found.problems:
        assert problem.message
        assert str(problem).isprintable()
        assert 1 <= problem.line <= text.count("\n") + text.count("\r") + 2
        assert problem.column >= 1


@given(st.text(max_size=300))
def test_any_text(text: str) -> None:
    assert_is_an_answer(answer(text), text)


PIECES = [*"a[]{},|>'\"#%1~@\n\t", "b: ", "  ", "- ", ": ", "&a ", "*a", "!x ", "<<: ", "? ", "---", "${X}"]
PIECES += ["services:", "web:", "command: ", "null"]


@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
def test_any_heap_of_yaml_pieces(text: str) -> None:
    assert_is_an_answer(answer(text), text)


@given(st.integers(0, len(VALID)), st.integers(0, 12), st.text(max_size=12) | st.sampled_from(PIECES))
def test_any_edit_of_a_good_file(start: int, length: int, inserted: str) -> None:
    text = VALID[:start] + inserted + VALID[start + length :]
    assert_is_an_answer(answer(text), text)


NUMBERS = st.booleans() | st.integers() | st.floats()
TEXTS = st.text(max_size=8) | st.sampled_from(["${X}", "{port}", "1Gi", "5s", "25%"])
ODD: st.SearchStrategy[Any] = st.recursive(
    st.none() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PLAIN = yaml.safe_load(VALID)
PATHS = [path for path, _ in leaves(from_data(PLAIN, SOURCE))]
BRANCHES = sorted({path[:length] for path in PATHS for length in range(1, len(path) + 1)})


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(BRANCHES), ODD), min_size=1, max_size=3))
def test_any_value_in_any_place_of_a_good_file(changes: list[tuple[tuple[str, ...], Any]]) -> None:
    document = yaml.safe_load(VALID)
    for path, value in changes:
        place = document
        for key in path[:-1]:
            below = place.get(key) if isinstance(place, dict) else None
            place = below if isinstance(below, dict) else {}
        place[path[-1]] = value
    text = yaml.safe_dump(document, allow_unicode=True)
    assert_is_an_answer(answer(text), text)


@given(
    st.lists(
        st.sampled_from(["SERVICES", "INFER", "ENVS", "SCALING", "a", "_", "", "MAX_REPLICAS"]), max_size=5
    ),
    st.text(max_size=9),
)
def test_any_variable(keys: list[str], value: str) -> None:
    name = "STOKER__" + "__".join(keys)
    found = answer(VALID, {name: value})
    if isinstance(found, ConfigError):
        assert {problem.file for problem in found.problems} <= {name, SOURCE.label}
        assert any(problem.file == name for problem in found.problems)


CONFIG = answer(VALID)


@given(st.text(max_size=20) | st.sampled_from(PATHS).map(".".join))
def test_any_path_is_explained_or_not_found(path: str) -> None:
    assert isinstance(CONFIG, EffectiveConfig)
    try:
        found = explain(CONFIG, path)
    except NotFoundError:
        return
    assert any(row["wins"] for row in found["layers"]) or found["value"] == {}


@pytest.mark.parametrize("path", [".".join(path) for path in PATHS if "<<" not in path])
def test_every_written_path_is_explained(path: str) -> None:
    assert isinstance(CONFIG, EffectiveConfig)
    assert explain(CONFIG, path)["layers"]


TREES = st.recursive(
    st.none() | st.integers(0, 9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
).filter(lambda value: isinstance(value, dict))


def layered(*values: Any) -> Any:
    layers = [make_layer(from_data(value, SOURCE))[0] for value in values]
    return to_data(merge_layers(layers))


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(below) for key, below in value.items() if below is not None}
    return value


@given(TREES, TREES, TREES)
def test_merging_is_associative_and_empty_layers_change_nothing(a: Any, b: Any, c: Any) -> None:
    assert layered(a, {}) == layered({}, a) == layered(a, a) == a
    assert layered(layered(a, b), c) == layered(a, b, c)


@given(TREES, TREES)
def test_every_leaf_of_the_upper_layer_wins(a: Any, b: Any) -> None:
    layers = [make_layer(from_data(value, SOURCE))[0] for value in (a, b)]
    merged: Node = merge_layers(layers)
    upper = dict(leaves(layers[1].tree))
    found = dict(leaves(merged))
    assert {path: found[path].value for path in upper} == {path: node.value for path, node in upper.items()}

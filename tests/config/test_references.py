"""`include` and `env_file`: what lies under what, where it is looked for, what is watched and refused."""

from __future__ import annotations

import pytest

from config.conftest import Box
from stoker.config.explain import explain
from stoker.config.load import watch_paths

WEB = "services: {web: {command: run}}\n"


def envs(box: Box, name: str = "stoker/web") -> dict[str, str]:
    return dict(box.load().desired.services[name].envs)


def test_what_is_included_lies_under_the_file_later_over_earlier(box: Box) -> None:
    box.write("parts/a.yaml", "services: {web: {priority: 1, standby: 1, working_dir: .}}")
    box.write("parts/b.yaml", "services: {web: {priority: 2, standby: 2}}")
    box.write(
        "stoker.yaml", "include: [parts/a.yaml, parts/b.yaml]\nservices: {web: {command: x, priority: 3}}"
    )
    config = box.load()
    (spec,) = config.desired.services.values()
    assert (spec.priority, spec.standby) == (3, 2)
    assert spec.working_dir == str(box.folder / "parts")
    rows = explain(config, "services.web.priority")["layers"]
    assert [(row["layer"], row["source"]) for row in rows[:3]] == [
        ("file", "stoker.yaml:2:30"), ("include", "parts/b.yaml:1:18"), ("include", "parts/a.yaml:1:18")
    ]  # fmt: skip
    assert set(config.files) == {"stoker.yaml", "parts/a.yaml", "parts/b.yaml"}


def test_an_included_file_may_include_and_patterns_are_sorted(box: Box) -> None:
    box.write("d/1.yaml", "include: deep.yaml\nservices: {web: {priority: 1}}")
    box.write("d/2.yaml", "services: {web: {priority: 2}}")
    box.write("d/deep.yaml", "services: {web: {priority: 9, standby: 9}}")
    box.write("stoker.yaml", f"include: ['d/[12].yaml', '${{MORE:-none-*.yaml}}']\n{WEB}")
    (spec,) = box.load().desired.services.values()
    assert (spec.priority, spec.standby) == (2, 9)
    box.write("stoker.yaml", f"include: '*.yaml'\n{WEB}")
    assert box.problems() == []


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        ("gone.yaml", "stoker.yaml:1:10: include: no such file: gone.yaml"),
        ("[a.yaml, gone.yaml]", "stoker.yaml:1:19: include.1: no such file: gone.yaml"),
        ("a.yaml", "b.yaml:1:10: include: a.yaml includes itself, here or further down"),
        ("{a: b}", "stoker.yaml:1:1: include: must be a list, for example [common.yaml, services/*.yaml]"),
        ("'${NOWHERE}'", "stoker.yaml:1:10: include: the variable NOWHERE is not set; set it"),
    ],
)  # fmt: skip
def test_faults_of_an_include(box: Box, include: str, expected: str) -> None:
    box.write("a.yaml", "include: b.yaml")
    box.write("b.yaml", "include: a.yaml" if include == "a.yaml" else "")
    box.write("stoker.yaml", f"include: {include}\n{WEB}")
    assert any(problem.startswith(expected) for problem in box.problems())


def test_a_fault_in_an_included_file_names_it(box: Box) -> None:
    box.write("parts/a.yaml", "services: [oops")
    box.write("stoker.yaml", f"include: parts/a.yaml\n{WEB}")
    assert box.problems()[0].startswith("parts/a.yaml:1:16: not valid YAML")
    box.write("parts/a.yaml", "services: {web: {prioritty: 3}}")
    assert box.problems() == [
        "parts/a.yaml:1:18: services.web.prioritty: unknown key; did you mean priority?"
    ]


def test_variables_of_a_file_lie_under_those_beside_its_key(box: Box) -> None:
    box.write("all.env", "A=file\nB=file\nC=file\n")
    box.write("env/web.env", "B=own file\nD='${NOT}'\n")
    box.write(
        "stoker.yaml",
        "env_file: all.env\nenvs: {A: said}\nservices:\n  web:\n    command: run\n    env_file: env/web.env\n"
        "    envs: {E: '1'}\n  bare: {command: run}\n",
    )
    assert envs(box) == {"A": "said", "B": "own file", "C": "file", "D": "${NOT}", "E": "1"}
    assert envs(box, "stoker/bare") == {"A": "said", "B": "file", "C": "file"}
    (row, *_) = explain(box.load(), "services.web.envs.B")["layers"]
    assert (row["layer"], row["source"], row["value"]) == ("env file", "env/web.env:1:1", "own file")


def test_a_file_of_variables_works_beside_bentomls_list_and_in_every_layer(box: Box) -> None:
    box.write("a.env", "A=a\nB=a")
    box.write("conf.d/x.env", "A=drop-in")
    box.write("conf.d/x.yaml", "env_file: x.env")
    box.write("stoker.yaml", f"envs: [{{name: B, value: list}}]\nenv_file: a.env\n{WEB}")
    assert envs(box) == {"A": "drop-in", "B": "list"}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("gone.env", ["stoker.yaml:1:11: env_file: no such file: gone.env; make it, or write {path: "]),
        ("{path: gone.env, required: false}", []),
        ("[{path: bad.env}]", ["bad.env:2:1: must be NAME=VALUE, for example LOG_LEVEL=info"]),
        ("[{pth: bad.env}]", ["stoker.yaml:1:12: env_file.0: must be the path of a file, for"]),
        ("{path: a.env, need: 1}", ["stoker.yaml:1:1: env_file: has the unknown key need; write the path"]),
        ("{path: gone.env, required: 1}", ["stoker.yaml:1:1: env_file: `required` must be true or false"]),
        ("3", ["stoker.yaml:1:11: env_file: must be"]),
        ("ref.env", ["ref.env:1:3: envs.A: the variable NOWHERE is not set"]),
    ],
)  # fmt: skip
def test_faults_of_a_file_of_variables(box: Box, key: str, expected: list[str]) -> None:
    box.write("bad.env", "A=1\nnothing here\n")
    box.write("ref.env", "A=${NOWHERE}")
    box.write("stoker.yaml", f"env_file: {key}\n{WEB}")
    problems = box.problems()
    assert all(any(problem.startswith(start) for problem in problems) for start in expected), problems
    assert bool(problems) == bool(expected)


def test_what_is_named_is_watched_also_while_it_is_missing(box: Box) -> None:
    box.write("stoker.yaml", f"include: [parts/*.yaml, one.yaml]\nenv_file: .env\n{WEB}")
    assert len(box.problems()) == 2
    watched = watch_paths(box.request())
    assert {str(box.folder / name) for name in ("parts", "one.yaml", ".env")} <= set(watched)
    box.write("one.yaml", "envs: {A: b}")
    box.write(".env", "C=d")
    assert envs(box) == {"A": "b", "C": "d"}


def test_keys_with_x_are_a_place_for_anchors(box: Box) -> None:
    box.write(
        "stoker.yaml",
        "x-base: &base {priority: 4, scaling: {max_replicas: 3}}\nservices:\n"
        "  web: {<<: *base, command: run, x-note: hi}\n  x-odd: {<<: [*base], command: run, priority: 1}\n",
    )
    services = box.load().desired.services
    assert [(key, spec.priority, spec.scaling.max_replicas) for key, spec in services.items()] == [
        ("stoker/web", 4, 3), ("stoker/x-odd", 1, 3)
    ]  # fmt: skip


def test_only_a_file_names_files(box: Box) -> None:
    box.write("stoker.yaml", WEB)
    assert box.problems(sets=["include=a.yaml", "services.web.env_file=a.env"]) == [
        "--set include: include: `include` stands in files only",
        "--set services.web.env_file: services.web.env_file: `env_file` stands in files only",
    ]
    assert box.problems(sets=["services.web.envs.include=1"]) == []

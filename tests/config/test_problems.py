"""Every fault in a file has one message: where, what, and what to do."""

from __future__ import annotations

import pytest

from config.conftest import Box, blocks, document

F = "stoker.yaml"
S = "services.web"


def check(box: Box, text: str, *expected: str) -> None:
    box.write(F, text)
    assert box.problems() == list(expected)


@pytest.mark.parametrize(("text", "expected"), blocks("top.txt"))
def test_top_of_the_file(box: Box, text: str, expected: list[str]) -> None:
    check(box, f"{text}\n", *expected)


@pytest.mark.parametrize(("lines", "expected"), blocks("service.txt"))
def test_lines_of_a_service(box: Box, lines: str, expected: list[str]) -> None:
    check(box, document(*lines.splitlines()), *expected)


@pytest.mark.parametrize(("line", "expected"), blocks("launch.txt"))
def test_what_a_service_runs(box: Box, line: str, expected: list[str]) -> None:
    check(box, document(line), *expected)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n"])
def test_an_empty_file_is_no_wish_to_run_nothing(box: Box, text: str) -> None:
    check(box, text, f"{F}:1:1: is empty; a deployment needs `services:`")


def test_command_and_python_exclude_each_other(box: Box) -> None:
    box.write("app.py", "app = None\n")
    check(
        box,
        document("command: run", "python: app:app"),
        f"{F}:4:5: {S}.python: a service has either `command` or `python`, not both",
    )


def test_a_misspelt_command_is_told_once(box: Box) -> None:
    check(
        box,
        "services: {web: {comand: run}}",
        f"{F}:1:18: {S}.comand: unknown key; did you mean command?",
    )


def test_a_secret_is_kept_off_the_command_line(box: Box) -> None:
    check(
        box,
        document("command: run {env:HF_TOKEN}", "secrets: [hf-token]"),
        f"{F}:3:14: {S}.command: {{env:HF_TOKEN}} would show a secret on the command line; "
        "read HF_TOKEN in the program",
    )


def test_braces_that_are_no_placeholders_are_left_alone(box: Box) -> None:
    box.write(
        F, document("""command: [run, '{"a": {"b": 1}}', '${HOME}', '{ x }', '{{port}}', '{}', '$${port}']""")
    )
    assert box.problems(environ={"HOME": "/"}) == []


def test_cycle_is_printed_whole(box: Box) -> None:
    check(
        box,
        "services:\n"
        "  a: {command: run, depends: [b]}\n"
        "  b: {command: run, depends: [c]}\n"
        "  c: {command: run, depends: [a]}\n"
        "  d: {command: run, depends: [a]}\n",
        f"{F}:2:21: services.a.depends: dependencies form a cycle: a -> b -> c -> a",
    )


def test_nearest_service_is_named(box: Box) -> None:
    check(
        box,
        "services:\n  tokenize: {command: run}\n  web: {command: run, depends: [tokenise]}\n",
        f"{F}:3:33: {S}.depends.0: there is no service tokenise; did you mean tokenize?",
    )


def test_names_that_share_a_variable(box: Box) -> None:
    check(
        box,
        "services:\n  a-b: {command: run}\n  a_b: {command: run}\n  c.d: {command: run}\n"
        "  e f: {command: run}\n",
        f"{F}:3:3: services.a_b: differs from a-b only in case, - and _: STOKER_URL_A_B would be both",
        f"{F}:5:3: services.e f: a service's name is made of letters, digits, . - and _, at most 63 of them",
    )


def test_duplicate_key(box: Box) -> None:
    check(
        box,
        document("priority: 1", "priority: 2"),
        f"{F}:5:5: {S}.priority: duplicate key; it is already in line 4",
    )


def test_port_used_twice(box: Box) -> None:
    box.write("a.yaml", document("endpoint: {port: 8001}"))
    box.write(
        "b.yaml",
        "services:\n"
        "  x: {command: run, endpoint: {port: 8001}}\n"
        "  y: {command: run, endpoint: {port: 8002, host: 127.0.0.2}}\n"
        "  z: {command: run, endpoint: {port: 8002, host: 0.0.0.0}}\n"
        "  w: {command: run, endpoint: {port: 8001, host: 127.0.0.2}}\n",
    )
    another = "give this one another, or 0"
    assert box.problems("a.yaml", "b.yaml") == [
        f"b.yaml:2:38: services.x.endpoint.port: port 8001 is already the address of a/web; {another}",
        f"b.yaml:4:38: services.z.endpoint.port: port 8002 is already the address of b/y; {another}",
    ]


def test_two_deployments_of_one_name(box: Box) -> None:
    box.write("a.yaml", document(before=["name: rag"]))
    box.write("b.yaml", document(before=["name: rag"]))
    assert box.problems("a.yaml", "b.yaml") == [
        "b.yaml:1:7: name: the deployment rag is already defined by a.yaml; give this one another name"
    ]


def test_files_that_differ_about_the_box(box: Box) -> None:
    box.write("a.yaml", document(before=["box: {idle: fill}"]))
    box.write("b.yaml", document(before=["box: {idle: release}"]))
    assert box.problems("a.yaml", "b.yaml") == [
        'b.yaml:1:13: box.idle: the text "release" contradicts the text "fill" in a.yaml:1:13; the box is one'
    ]


def test_file_name_that_is_no_deployment_name(box: Box) -> None:
    box.write("my app.yaml", document())
    (problem,) = box.problems("my app.yaml")
    assert problem.startswith("my app.yaml:1:1: name: the file's own name is no deployment name; add `name:`")


def test_every_problem_is_told_at_once_in_the_order_of_the_file(box: Box) -> None:
    check(
        box,
        "nme: x\n"
        "services:\n"
        "  a: {command: run, scaling: {min_replicas: 2, max_replicas: 1}, standby: x}\n"
        "  b: {depends: [c], resources: {gpu: 1.5}}\n",
        f"{F}:1:1: nme: unknown key; did you mean name?",
        f"{F}:3:45: services.a.scaling.min_replicas: min_replicas 2 is more than max_replicas 1",
        f'{F}:3:75: services.a.standby: must be a whole number, for example 1; found the text "x"',
        f"{F}:4:3: services.b: has nothing to run; add `command:`, `python:` or `image:`",
        f"{F}:4:17: services.b.depends.0: there is no service c; there are a",
        f"{F}:4:38: services.b.resources.gpu: must be a whole number of GPUs (at most 64) "
        "or a share below 1, for example 2 or 0.5; found 1.5",
    )


def test_problems_are_limited_to_what_anyone_reads(box: Box) -> None:
    box.write(F, document(*(f"key{n}: 1" for n in range(5000))))
    assert len(box.problems()) == 50
    box.write(F, "services:\n" + "".join(f"  s{n}: {{command: run, x: 1}}\n" for n in range(500)))
    problems = box.problems()
    assert len(problems) == 100
    assert problems[-1] == f"{F}:101:23: and 401 more problems"


def test_too_many_services(box: Box) -> None:
    box.write(F, "services:\n" + "".join(f"  s{n}: {{command: run}}\n" for n in range(1001)))
    assert box.problems() == [f"{F}:1:1: services: 1001 services; at most 1000 are possible"]


def test_problem_of_the_operators_word_has_no_line(box: Box) -> None:
    box.write(F, document())
    variable = "STOKER__SERVICES__WEB__SCALING__MAX_REPLICAS"
    path = f"{S}.scaling.max_replicas"
    message = 'must be a whole number, for example 4; found the text "many"'
    assert box.problems(environ={variable: "many"}) == [f"{variable}: {path}: {message}"]
    assert box.problems(sets=(f"{path}=many",)) == [f"--set {path}: {path}: {message}"]
    assert box.problems(overrides={path: "many"}) == [f"override {path}: {path}: {message}"]


@pytest.mark.parametrize(("assignment", "expected"), blocks("variable.txt"))
def test_variable_that_means_nothing(box: Box, assignment: str, expected: list[str]) -> None:
    box.write(F, document())
    name, _, value = assignment.partition("=")
    assert box.problems(environ={name: value}) == expected


@pytest.mark.parametrize(("assignment", "expected"), blocks("set.txt"))
def test_set_that_means_nothing(box: Box, assignment: str, expected: list[str]) -> None:
    box.write(F, document())
    assert box.problems(sets=(assignment,)) == expected

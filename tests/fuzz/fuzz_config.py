"""A coverage-guided fuzzer over the configuration's layers: `python tests/fuzz/fuzz_config.py CORPUS`.

An input is a file, a drop-in, a file of variables and the environment (lines NAME=VALUE), divided by form
feeds. Nothing is read from disk and no process is started. What must hold is in `examine`. Options are
libFuzzer's: `-max_total_time=60`, `-runs=0` for the corpus alone; a file alone is one input.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

if __name__ == "__main__":
    import atheris

    with atheris.instrument_imports(include=["stoker"], enable_loader_override=False):
        import stoker.config.effective
        import stoker.config.explain  # noqa: F401 - all that the fuzzer is to follow is imported here

from stoker.cli.yaml_out import yaml_lines
from stoker.config.assemble import Deployment, Operator, RawLayers, add_drop_ins, add_operator
from stoker.config.bentoml import unwrap
from stoker.config.effective import effective_document
from stoker.config.env_file import parse_env_file
from stoker.config.explain import explain
from stoker.config.layers import make_layer
from stoker.config.load import EffectiveConfig, resolve
from stoker.config.tree import Node, Source
from stoker.config.yaml_text import parse_yaml
from stoker.errors import ConfigError, ConfigProblem, NotFoundError

DIVIDER = "\f"
MAIN, DROP_IN, VARIABLES = "stoker.yaml", "conf.d/a.yaml", ".env"
FILES = (MAIN, DROP_IN, VARIABLES)


def read(text: str) -> RawLayers:
    """The layers of an input."""
    main, drop_in, variables, environment = (*text.split(DIVIDER), "", "", "")[:4]
    environ = dict(line.partition("=")[::2] for line in environment.splitlines() if "\0" not in line)
    source = Source("file", MAIN, "/app")
    tree, problems = parse_yaml(main, source)
    deployments: list[Deployment] = []
    if tree is not None and isinstance(tree.value, dict):
        envs, faults = parse_env_file(variables, Source("env file", VARIABLES, "/app"))
        problems += faults
        layer, faults = make_layer(_with(unwrap(tree), envs))
        problems += faults
        deployments = [Deployment(stem="stoker", source=source, layers=(layer,))]
    over, faults = parse_yaml(drop_in, Source("drop-in", DROP_IN, "/app/conf.d"))
    problems += faults
    if over is not None:
        deployments, faults, _ = add_drop_ins(deployments, [over], {DROP_IN: "/app"}, complete=not problems)
        problems += faults
    operator = Operator(environ=environ)
    deployments, faults, _ = add_operator(deployments, operator, complete=not problems)
    return RawLayers(deployments=tuple(deployments), environ=environ, problems=(*problems, *faults))


def _with(tree: Node, envs: Mapping[str, Node]) -> Node:
    if not envs or "envs" in tree.mapping:
        return tree
    return tree._replace(value={**tree.mapping, "envs": Node(dict(envs), tree.source)})


def examine(text: str) -> EffectiveConfig | None:
    """Load an input and check what must hold of every one; None where it was refused.

    A refusal has a place and words on one line. What was taken prints as a file that means the same, and
    each of its values can be explained.
    """
    raw = read(text)
    problems: Sequence[ConfigProblem] = ()
    config: EffectiveConfig | None
    try:
        config = resolve(raw, to_run=False)
    except ConfigError as error:
        problems = error.problems
        config = None
    if config is None:
        assert problems, "refused without a reason"
        for problem in problems:
            _check_problem(problem)
        return None
    for one in effective_document(config)["deployments"]:
        printed = "\n".join(yaml_lines(one["config"], {}))
        assert resolve(read(printed), to_run=False).desired == config.desired, "printed as something else"
        for path in one["sources"]:
            _check_explained(config, path)
    return config


def _check_problem(problem: ConfigProblem) -> None:
    words = str(problem)
    assert problem.message, "no words"
    assert words.isprintable(), "not on one line, or it moves the cursor"
    assert len(words) < 5_000, "longer than anyone reads"
    if problem.file in FILES and (problem.file != MAIN or problem.path != "services"):
        assert problem.line > 0 < problem.column, "no place"


def _check_explained(config: EffectiveConfig, path: str) -> None:
    try:
        answer = explain(config, path)
    except NotFoundError:
        # A key with odd characters has no dotted path; it must be said so, not more.
        if path.replace(".", "").replace("_", "").isalnum():
            raise
    else:
        assert any(row["wins"] for row in answer["layers"]), "nobody says it"


def one_input(data: bytes) -> None:
    """What the fuzzer calls."""
    examine(data.decode("utf-8", "replace"))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()

"""`${VAR}` and `${VAR:-default}`, filled from the operator's environment."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from config.conftest import Box, document
from stoker.config.interpolate import fill_text
from stoker.model.service import Command, ServiceSpec

ENVIRON = {"A": "alpha", "EMPTY": "", "N": "3"}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("${A}", "alpha"),
        ("x${A}y${A}", "xalphayalpha"),
        ("${B:-beta}", "beta"),
        ("${EMPTY:-beta}", "beta"),
        ("${EMPTY}", ""),
        ("${B:-}", ""),
        ("${B:-a b/c:d-e}", "a b/c:d-e"),
        ("$${A}", "${A}"),
        ("$$$$", "$$"),
        ("$A and $(date) and 5$", "$A and $(date) and 5$"),
        ("${B:-$5}", "$5"),
    ],
)
def test_filling(text: str, filled: str) -> None:
    assert fill_text(text, ENVIRON) == (filled, [])


@pytest.mark.parametrize("text", ["${B}", "${}", "${A", "${1A}", "${A-x}", "${A:?x}", "${B:-${A}}", "${ A }"])
def test_what_cannot_be_filled_is_told_and_left(text: str) -> None:
    filled, faults = fill_text(text, ENVIRON)
    assert len(faults) == 1
    assert filled.startswith("${")


def test_filled_text_reads_as_what_the_key_needs(web: Callable[..., ServiceSpec]) -> None:
    spec = web(
        "scaling: {max_replicas: '${N}'}",
        "standby: ${N:-1}",
        "hold: ${HOLD:-false}",
        "envs: {COUNT: '${N}', PATH_TO: '${A}/x'}",
        "command: [run, '${N}', '${A}']",
        "traffic: {timeout: '${T:-5m}'}",
        environ=ENVIRON,
    )
    assert (spec.scaling.max_replicas, spec.standby, spec.held, spec.traffic.timeout) == (3, 3, False, 300.0)
    assert dict(spec.envs) == {"COUNT": "3", "PATH_TO": "alpha/x"}
    assert spec.launch == Command(("run", "3", "alpha"))


def test_a_value_that_lost_needs_no_variable(box: Box) -> None:
    box.write("stoker.yaml", document("user: ${NOT_SET}"))
    assert box.problems() != []
    assert box.problems(sets=("services.web.user=svc",)) == []


def test_a_number_that_is_none_is_told_with_its_place(box: Box) -> None:
    box.write("stoker.yaml", document("standby: ${A}"))
    (problem,) = box.problems(environ=ENVIRON)
    assert problem.startswith("stoker.yaml:4:14: services.web.standby: must be a whole number")

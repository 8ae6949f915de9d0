"""A hook that is not documented, or that no test uses, does not exist."""

import inspect
import re

import pytest

from architecture.source import modules_of_tests
from stoker.plugin import hookspecs
from stoker.plugin.manager import KINDS

HOOKS = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("stoker_")}
EVERY = pytest.mark.parametrize("name", sorted(HOOKS))


def test_there_are_hooks() -> None:
    assert len(HOOKS) >= 5


@EVERY
def test_every_hook_is_documented(name: str) -> None:
    text = inspect.getdoc(HOOKS[name]) or ""
    assert re.match(r"[A-Z].{20,}\.", text), "says in a sentence what it is for"
    assert re.search(r"^\.\. versionadded:: \d+\.\d+", text, re.MULTILINE)
    assert inspect.signature(HOOKS[name]).return_annotation is not inspect.Signature.empty


@EVERY
def test_every_hook_is_tested(name: str) -> None:
    here = "tests/architecture/"
    assert any(name in m.text for m in modules_of_tests() if not m.path.startswith(here)), (
        f"no test names {name}: write one with a plugin that implements it"
    )


@EVERY
def test_every_hook_is_asked_for(name: str) -> None:
    assert name in KINDS.values(), "a hook that the registry never calls"


def test_every_kind_has_its_hook() -> None:
    assert set(KINDS.values()) <= set(HOOKS)

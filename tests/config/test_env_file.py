"""Files of variables: read as docker compose and shells read them, faults with their place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.config.env_file import parse_env_file
from stoker.config.interpolate import fill_text
from stoker.config.tree import Source

SOURCE = Source("env file", ".env")


def values(text: str) -> dict[str, str]:
    """The variables, references filled from an environment with HOME alone."""
    found, problems = parse_env_file(text, SOURCE)
    assert problems == []
    return {name: fill_text(str(node.value), {"HOME": "/h"})[0] for name, node in found.items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\nB=two words  \n", {"A": "1", "B": "two words"}),
        ("# first\n\n  \nexport A=1 # one\nB=a#b\n", {"A": "1", "B": "a#b"}),
        ("A=\nB=''\nC=\"\"", {"A": "", "B": "", "C": ""}),
        ('A="x\\ny"\nB="say \\"hi\\" \\\\ \\d"', {"A": "x\ny", "B": 'say "hi" \\ \\d'}),
        ('A="one\ntwo" # end\nB=1', {"A": "one\ntwo", "B": "1"}),
        ("A=${HOME}/x\nB='${HOME} $$'\nC=\"\\${HOME}\"", {"A": "/h/x", "B": "${HOME} $$", "C": "${HOME}"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A = 1\n A=2\n", {"A": "2"}),
        ("URL=http://x/?a=b&c=d", {"URL": "http://x/?a=b&c=d"}),
        ("", {}),
    ],
)
def test_forms(text: str, expected: dict[str, str]) -> None:
    assert values(text) == expected


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("A=1\nB", (2, 1), "B has no value; write B=VALUE, or list it in `inherit_env`"),
        ("A-B=secret", (1, 1), "must be NAME=VALUE, for example LOG_LEVEL=info; found the name A-B"),
        ("just words", (1, 1), "must be NAME=VALUE, for example LOG_LEVEL=info"),
        ('X=1\nA="open\nB=2', (2, 3), 'the quote " that begins here is not closed'),
        ("A='x' y", (1, 3), "something follows the closing quote; put all of the value in quotes"),
    ],
)
def test_faults_have_a_place_and_never_the_value(text: str, place: tuple[int, int], words: str) -> None:
    _, (problem,) = parse_env_file(text, SOURCE)
    assert (problem.line, problem.column, problem.message) == (*place, words)
    assert "secret" not in problem.message


def test_variables_know_their_line() -> None:
    found, _ = parse_env_file('A="1\n2"\n\nexport B=x\n', SOURCE)
    assert [(name, node.line, node.column, node.key_column) for name, node in found.items()] == [
        ("A", 1, 3, 1), ("B", 4, 10, 8)
    ]  # fmt: skip


@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True), st.text(max_size=30)))
def test_what_is_quoted_comes_back_as_it_was(variables: dict[str, str]) -> None:
    clean = {
        name: text.replace("'", "").replace("\0", "").replace("\r", "") for name, text in variables.items()
    }
    assert values("\n".join(f"{name}='{text}'" for name, text in clean.items())) == clean


@given(st.text(alphabet=st.sampled_from("AB=\"'\\$#{} \n\rx\0"), max_size=40))
def test_any_text_is_read_or_refused_with_its_line(text: str) -> None:
    found, problems = parse_env_file(text, SOURCE)
    lines = text.count("\n") + 1
    assert all(1 <= problem.line <= lines and problem.column >= 1 for problem in problems)
    assert all(1 <= node.line <= lines for node in found.values())

"""YAML as read here: the 1.2 core schema, places, limits."""

from __future__ import annotations

import time

import pytest

from config.conftest import blocks
from stoker.config.tree import Source, find, to_data
from stoker.config.yaml_text import MAX_BYTES, parse_yaml, resolve_scalar

SOURCE = Source("file", "f.yaml")


def data(text: str) -> object:
    tree, problems = parse_yaml(text, SOURCE)
    assert problems == []
    return to_data(tree) if tree else None


def problem(text: str) -> str:
    _, problems = parse_yaml(text, SOURCE)
    assert len(problems) == 1
    return str(problems[0])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("False", False), ("TRUE", True), ("yes", "yes"), ("on", "on"), ("off", "off"),
        ("null", None), ("~", None), ("", None), ("None", "None"),
        ("12", 12), ("-3", -3), ("010", 10), ("0o10", 8), ("0x1F", 31), ("1_000", "1_000"),
        ("12:30", "12:30"), ("n", "n"),
        ("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("1e3", 1000.0), ("1.10", 1.1), ("1.2.3", "1.2.3"),
        (".inf", float("inf")), ("-.Inf", float("-inf")), ("2026-01-01", "2026-01-01"), ("16Gi", "16Gi"),
        ("9" * 30, "9" * 30), ("=", "="),
    ],
)  # fmt: skip
def test_scalars(text: str, value: object) -> None:
    resolved = resolve_scalar(text)
    assert resolved == value
    assert type(resolved) is type(value)


def test_quotes_and_tags_decide_the_type() -> None:
    assert data("""{a: "5", b: '5', c: !!str 5, d: !!int "5", e: !!float 5, f: ! 5}""") == {
        "a": "5", "b": "5", "c": "5", "d": 5, "e": 5.0, "f": "5",
    }  # fmt: skip


def test_keys_are_text_as_written() -> None:
    assert data("{1: a, true: b, 1.10: c, on: d, ~: e}") == {
        "1": "a",
        "true": "b",
        "1.10": "c",
        "on": "d",
        "~": "e",
    }


def test_anchors_and_merge_keys() -> None:
    text = (
        "base: &b {x: 1, y: 2}\nother: &o {y: 3, z: 4}\none: {<<: *b, y: 9}\nboth: {<<: [*b, *o]}\nsame: *b\n"
    )
    assert data(text) == {
        "base": {"x": 1, "y": 2},
        "other": {"y": 3, "z": 4},
        "one": {"x": 1, "y": 9},
        "both": {"x": 1, "y": 2, "z": 4},
        "same": {"x": 1, "y": 2},
    }
    assert data("{'<<': 1}") == {"<<": 1}


def test_places_count_from_one_and_aliases_keep_their_own_key() -> None:
    tree, _ = parse_yaml("a: &x\n  b: 1\nccc: *x\n", SOURCE)
    value = find(tree, ("a", "b"))
    alias = find(tree, ("ccc",))
    assert value is not None
    assert alias is not None
    assert (value.line, value.column, value.key_line, value.key_column) == (2, 6, 2, 3)
    assert (alias.key_line, alias.key_column) == (3, 1)


def test_a_byte_order_mark_inside_is_told() -> None:
    assert problem("a: \ufeffb") == "f.yaml:1:4: not valid YAML: it holds the unprintable character U+FEFF"


@pytest.mark.parametrize(("text", "expected"), blocks("yaml.txt"))
def test_faults(text: str, expected: list[str]) -> None:
    _, problems = parse_yaml(text.replace("<tab>", "\t").replace("<nul>", "\0"), SOURCE)
    assert [str(each) for each in problems] == expected


def bomb() -> str:
    """Nine aliases, nine levels: 400 million values if anyone expanded them."""
    levels = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for name, below in zip("bcdefghij", "abcdefghi", strict=True):
        levels.append(f"{name}: &{name} [{', '.join([f'*{below}'] * 9)}]")
    return "\n".join(levels)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[" * 1_000_000, "1:65: too deep: more than 64 levels"),
        ("{" * 1_000_000, "1:65: too deep: more than 64 levels"),
        ("? " * 400_000, "1:129: too deep: more than 64 levels"),
        ("- a\n" * 200_000, "100000:3: too large: more than 100000 values"),
        (bomb(), "6:8: too large: *e makes it more than 100000 values"),
        ("a" * (MAX_BYTES * 10), "1:1: too large: 10.0 MiB, a configuration may have 1"),
        ("x" * 60 + ": 1\n" + ("x" * 60 + ": 1\n") * 10_000, "101:1: too many faults; 100 up to here"),
    ],
    ids=["lists", "mappings", "keys", "values", "aliases", "bytes", "faults"],
)
def test_limits_are_one_clear_message_at_once(text: str, expected: str) -> None:
    begun = time.thread_time()
    by_libyaml = expected.replace("1:65:", "1:1001:")  # which reads ahead, up to a limit of its own
    assert problem(text) in {f"f.yaml:{expected}", f"f.yaml:{by_libyaml}"}
    assert time.thread_time() - begun < 2


def test_an_alias_may_not_deepen_beyond_the_limit() -> None:
    deep = "a: &a " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 40 + "*a" + "]" * 40
    assert problem(deep) == "f.yaml:2:44: too deep: more than 64 levels"

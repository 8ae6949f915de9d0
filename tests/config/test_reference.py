"""The page of the file's reference is what the program says of itself."""

from __future__ import annotations

import re
from pathlib import Path

from stoker.config.json_schema import json_schema
from stoker.config.reference import markdown

PAGE = Path(__file__).parents[2] / "docs" / "file.md"


def test_the_page_is_in_step() -> None:
    assert PAGE.read_text() == markdown(), "run `stoker schema --markdown > docs/file.md`"


def test_every_key_has_a_row_with_its_meaning() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| ([^|]+) \|$", markdown(), re.MULTILINE))
    known = {key for each in json_schema()["$defs"].values() for key in each.get("properties", {})}
    inner = {"type", "value", "key", "weight", "route_type", "route_by", "versions", "config", "tpu_type"}
    other_words = {"external_queue", "scale_up_behavior", "scale_down_behavior"}
    assert known - rows.keys() <= inner | other_words
    assert all(meaning.strip() for meaning in rows.values())


def test_values_are_told_in_the_words_of_their_errors() -> None:
    page = markdown()
    assert "| `min_replicas` | a whole number, for example 1 | `1` | At least so many replicas" in page
    assert (
        "| `protocol` | `http` or `h2` or `grpc` | `http` | What the service speaks: HTTP/1.1 and WebSocket"
        in page
    )
    assert "| `timeout` | a duration, for example 30s, 5m, 250ms or a number of seconds | `60` |" in page

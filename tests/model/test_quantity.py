"""Quantities as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.model.quantity import format_bytes, format_duration, parse_bytes, parse_cores, parse_duration

BAD = ["", " ", "x", "-1", "1 2", "1e", "inf", "nan", "-inf", "1x", "0x10", "\N{ARABIC-INDIC DIGIT ONE}x"]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0), ("512", 512), (512, 512), (1.5, 1), ("1k", 1000), ("1K", 1000), ("1M", 10**6),
        ("2G", 2 * 10**9), ("1Ki", 1024), ("1.5Mi", 1572864), ("16Gi", 16 * 2**30), ("16 Gi", 16 * 2**30),
        ("1Ti", 2**40), ("1Pi", 2**50),
        ("16GiB", 16 * 2**30), ("2GB", 2 * 10**9), ("7B", 7), (" 1Gi ", 2**30),
    ],
)  # fmt: skip
def test_sizes(text: str | float, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    ("text", "cores"), [("500m", 0.5), ("2", 2.0), ("1.5", 1.5), (3, 3.0), (0.25, 0.25), ("0", 0.0)]
)
def test_cores(text: str | float, cores: float) -> None:
    assert parse_cores(text) == cores


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0), ("1m30s", 90.0), ("250ms", 0.25), ("1.5h", 5400.0), ("2d", 172800.0),
        ("1h2m3s", 3723.0), ("45", 45.0), ("0.5", 0.5), (7, 7.0), (0, 0.0), (" 5s ", 5.0),
    ],
)  # fmt: skip
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_quantity_is_refused(text: str) -> None:
    for parse in (parse_bytes, parse_cores, parse_duration):
        with pytest.raises(ValueError, match=r"write for example|zero or more"):
            parse(text)


@pytest.mark.parametrize("value", [-1, float("inf"), float("nan")])
def test_numbers_must_be_finite_and_not_negative(value: float) -> None:
    for parse in (parse_bytes, parse_cores, parse_duration):
        with pytest.raises(ValueError, match="zero or more"):
            parse(value)


@pytest.mark.parametrize("text", ["1Xi", "1 GiBB", "Gi", "1.Gi", "1,5Gi", "1KIB"])
def test_units_that_do_not_exist(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["1m 30s", "30S", "1w", "s", "1s2", "--1s", "1.s"])
def test_units_of_time_that_do_not_exist(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (512, "512"), (1536, "1.5Ki"), (2**34, "16Gi"), (2**60, "1024Pi"), (-(2**20), "-1Mi")],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"), (0.25, "250ms"), (1, "1s"), (9.96, "10s"), (59.4, "59.4s"), (60, "1m"), (90, "1m30s"),
        (3600, "1h"), (7261, "2h1m"), (86400, "1d"), (90061, "1d1h"), (-90, "-1m30s"),
    ],
)  # fmt: skip
def test_durations_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(0, 2**55))
def test_a_size_survives_being_written_within_a_twentieth_of_its_unit(count: int) -> None:
    assert parse_bytes(format_bytes(count)) == pytest.approx(count, rel=0.05, abs=0.5)


@given(st.floats(0, 10**7))
def test_a_duration_survives_being_written_nearly(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=0.05, abs=0.001)

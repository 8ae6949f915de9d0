"""Traces are read whole or refused with the place of the fault."""

from __future__ import annotations

import gzip

import pytest

from stoker.errors import ConfigError
from stoker.simulate.trace import read_trace


def test_plain_and_gzipped_traces_are_the_same(tmp_path):
    text = "service_s,arrival_s,ignored\n0.5,1,x\n\n2,1,y\n"
    plain, packed = tmp_path / "t.csv", tmp_path / "t.csv.gz"
    plain.write_text(text)
    packed.write_bytes(gzip.compress(text.encode()))
    assert read_trace(str(plain)) == read_trace(str(packed))
    assert read_trace(str(plain))[""].arrivals == (1.0, 1.0)
    assert read_trace(str(plain))[""].services == (0.5, 2.0)


def test_one_trace_feeds_several_services(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("\ufeffarrival_s,service_s,service\n0,1,a\n1,1,b\n2,3,a\n", encoding="utf-8")
    assert {name: len(found) for name, found in read_trace(str(path)).items()} == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: the header lacks arrival_s and service_s"),
        ("arrival_s,x\n", ":1: the header lacks service_s"),
        ("arrival_s,service_s\n", ": the trace has no request"),
        ("arrival_s,service_s\n1,1\n0,1\n", ":3: arrival_s 0 is before the row above (1)"),
        ("arrival_s,service_s\n1,1\nx,1\n", ":3: arrival_s must be seconds, 0 or more; found 'x'"),
        ("arrival_s,service_s\n1,-2\n", ":2: service_s must be seconds, 0 or more; found '-2'"),
        ("arrival_s,service_s\n1,nan\n", ":2: service_s must be seconds, 0 or more; found 'nan'"),
        ("arrival_s,service_s\n1\n", ":2: has 1 of 2 columns"),
        ("arrival_s,service_s,service\n1,1,\n", ":2: service is empty"),
    ],
)
def test_bad_rows_are_named(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_trace(str(path))
    assert str(caught.value).startswith(str(path) + message)


def test_every_bad_row_is_told_up_to_ten(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,service_s\n" + "x,1\n" * 30)
    with pytest.raises(ConfigError) as caught:
        read_trace(str(path))
    assert len(caught.value.problems) == 10


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08broken", b"\xff\xfe\x00\x01"])
def test_files_of_another_kind_are_refused(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        read_trace(str(path))
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_trace(str(tmp_path / "none.csv"))

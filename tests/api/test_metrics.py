"""/metrics says what the contract names, in a form Prometheus' own parser reads."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from api.fakes import GPU, SPARE, snapshot
from stoker.api.facade import Exemplar
from stoker.api.metrics import BUCKETS, exposition
from stoker_haproxy.readings import BOUNDS as haproxy
from stoker_router.meter import BOUNDS as router

INFER = {"deployment": "rag", "service": "infer"}


def samples(**changes: object) -> list[Sample]:
    text = exposition(snapshot(**changes))[0].decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(name: str, **labels: str) -> float:
    found = [s.value for s in samples() if s.name == name and labels.items() <= s.labels.items()]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def test_every_name_of_the_contract_is_there() -> None:
    names = {sample.name for sample in samples()}
    assert {
        "stoker_replicas", "stoker_target_replicas", "stoker_requests_in_flight", "stoker_requests_queued",
        "stoker_requests_total", "stoker_request_seconds_bucket", "stoker_request_seconds_sum",
        "stoker_request_seconds_count", "stoker_restarts_total", "stoker_config_generation",
        "stoker_config_rejected", "stoker_device_health", "stoker_device_reserved_ratio",
        "stoker_reconcile_seconds",
    } <= names  # fmt: skip


def test_pools() -> None:
    assert value("stoker_replicas", **INFER, phase="ready") == 1
    assert value("stoker_replicas", **INFER, phase="pending") == 1
    assert value("stoker_replicas", **INFER, phase="lost") == 0
    assert value("stoker_target_replicas", **INFER) == 2
    assert value("stoker_restarts_total", **INFER, reason="crashed") == 2


def test_requests() -> None:
    assert value("stoker_requests_in_flight", **INFER) == 7
    assert value("stoker_requests_queued", **INFER) == 3
    assert value("stoker_requests_total", **INFER, code="2xx") == 10


def test_the_histogram_is_cumulative_and_ends_with_infinity() -> None:
    assert value("stoker_request_seconds_bucket", **INFER, le="0.1") == 6
    assert value("stoker_request_seconds_bucket", **INFER, le="1.0") == 10
    assert value("stoker_request_seconds_bucket", **INFER, le="+Inf") == 11
    assert value("stoker_request_seconds_count", **INFER) == 11
    assert value("stoker_request_seconds_sum", **INFER) == 7.5


def test_devices() -> None:
    assert value("stoker_device_health", uuid=GPU, health="healthy") == 1
    assert value("stoker_device_health", uuid=SPARE, health="healthy") == 0
    assert value("stoker_device_health", uuid=SPARE, health="quarantined") == 1
    assert value("stoker_device_reserved_ratio", uuid=GPU) == 1
    assert value("stoker_device_reserved_ratio", uuid=SPARE) == 0


def test_a_rejected_configuration_raises_the_flag() -> None:
    assert value("stoker_config_rejected") == 0
    found = {s.name: s.value for s in samples(config_state="rejected", rejected_total=3)}
    assert found["stoker_config_rejected"] == 1
    assert found["stoker_config_rejections_total"] == 3
    assert found["stoker_config_generation"] == 4


def test_openmetrics_for_those_who_ask_for_it() -> None:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed

    text, kind = exposition(snapshot(), "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert kind.startswith("application/openmetrics-text")
    names = {family.name for family in parsed(text.decode())}
    assert {"stoker_requests", "stoker_request_seconds", "stoker_max_replicas"} <= names


def test_every_bucket_of_the_routers_is_there_before_its_first_request() -> None:
    assert BUCKETS == router == haproxy
    for bound in BUCKETS:
        assert value("stoker_request_seconds_bucket", **INFER, le=str(bound)) >= 0


def test_exemplars_are_there_only_where_requests_are_traced_and_openmetrics_is_wanted() -> None:
    known = [
        Exemplar("a" * 32, 0.08, 1_700_000_000.0),
        Exemplar("b" * 32, 0.09, 1_700_000_001.0),
        Exemplar("c" * 32, 900.0, 1_700_000_002.0),
    ]
    traced = replace(snapshot(), exemplars={"rag/infer": known})
    openmetrics = "application/openmetrics-text"
    lines = exposition(traced, openmetrics)[0].decode().splitlines()
    infer = [line for line in lines if line.startswith("stoker_request_seconds_bucket") and "infer" in line]
    said = {line.split('le="')[1].split('"')[0]: line.partition(" # ")[2] for line in infer}
    assert said["0.1"] == '{trace_id="' + "b" * 32 + '"} 0.09 1700000001.0'
    assert said["+Inf"].startswith('{trace_id="' + "c" * 32)
    assert not any(found for bound, found in said.items() if bound not in {"0.1", "+Inf"})
    assert b"trace_id" not in exposition(snapshot(), openmetrics)[0]
    assert b"trace_id" not in exposition(traced)[0]


def test_what_dashboards_need() -> None:
    assert value("stoker_max_replicas", **INFER) == 8
    assert value("stoker_min_replicas", **INFER) == 0
    assert value("stoker_device_memory_total_bytes", uuid=GPU) == 80 * 2**30
    assert value("stoker_device_utilization_ratio", uuid=GPU) == 0.5

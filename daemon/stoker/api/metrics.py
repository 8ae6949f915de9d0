"""The metrics of the outside contract in Prometheus' text format, made from one Snapshot on demand.

Nothing is counted here and no global registry is touched: the daemon's own state is the only truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import get_args

from anyio import to_thread
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.samples import Exemplar as Sample

from stoker.api.documents import wanted
from stoker.api.facade import Exemplar, ServiceLoad, ServiceTotals, Snapshot
from stoker.api.names import service_keys
from stoker.model.device import Health
from stoker.model.replica import Phase

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MANY = 200
"""Services from which on writing takes too long to be done in the loop."""
BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75,
    1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
"""Seconds; those in which the routers count. Each is there from the first scrape on: of one that appears with
its first request, Prometheus would not see that request, and the first slow ones would pass for fast."""
SERVICE = ["deployment", "service"]
DEVICE = ["uuid", "index", "name"]


async def written(snapshot: Snapshot, accepted: str) -> tuple[bytes, str]:
    """As `exposition`, in a thread where that takes long enough to hold up everything else."""
    if len(snapshot.desired.services) > MANY:
        return await to_thread.run_sync(exposition, snapshot, accepted)
    return exposition(snapshot, accepted)


def exposition(snapshot: Snapshot, accepted: str = "") -> tuple[bytes, str]:
    """`GET /metrics`: everything that is known at this moment, and its content type: OpenMetrics where
    `accepted` (the Accept header) names it, else Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_SnapshotCollector(snapshot))
    if "application/openmetrics-text" not in accepted:
        return generate_latest(registry), CONTENT_TYPE
    from prometheus_client.openmetrics import exposition as openmetrics

    render: Callable[[CollectorRegistry], bytes] = openmetrics.generate_latest
    return render(registry), openmetrics.CONTENT_TYPE_LATEST


class _SnapshotCollector:
    """Yields the metric families of one snapshot (the protocol of prometheus_client's registries)."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        yield from _pools(self._snapshot)
        yield from _requests(self._snapshot)
        yield from _devices(self._snapshot)
        yield from _daemon(self._snapshot)


def _labels(key: str) -> list[str]:
    deployment, _, name = key.partition("/")
    return [deployment, name]


def _pools(snapshot: Snapshot) -> Iterator[Metric]:
    replicas = GaugeMetricFamily("stoker_replicas", "Replicas by phase.", labels=[*SERVICE, "phase"])
    target = GaugeMetricFamily("stoker_target_replicas", "Wanted number of replicas.", labels=SERVICE)
    least = GaugeMetricFamily("stoker_min_replicas", "Least replicas in force.", labels=SERVICE)
    most = GaugeMetricFamily("stoker_max_replicas", "Most replicas in force.", labels=SERVICE)
    restarts = CounterMetricFamily(
        "stoker_restarts_total", "Restarts of workers by reason.", labels=[*SERVICE, "reason"]
    )
    for key in service_keys(snapshot):
        phases = [replica.phase for replica in snapshot.observed.of(key)]
        for phase in get_args(Phase):
            replicas.add_metric([*_labels(key), phase], phases.count(phase))
        target.add_metric(_labels(key), wanted(snapshot, key))
        if (spec := snapshot.desired.services.get(key)) is not None:
            least.add_metric(_labels(key), spec.scaling.min_replicas)
            most.add_metric(_labels(key), spec.scaling.max_replicas)
        for reason, count in snapshot.restarts.get(key, {}).items():
            restarts.add_metric([*_labels(key), reason], count)
    yield from (replicas, target, least, most, restarts)


def _requests(snapshot: Snapshot) -> Iterator[Metric]:
    in_flight = GaugeMetricFamily("stoker_requests_in_flight", "Requests inside workers.", labels=SERVICE)
    queued = GaugeMetricFamily("stoker_requests_queued", "Requests that wait in the router.", labels=SERVICE)
    total = CounterMetricFamily(
        "stoker_requests_total", "Requests answered, by status class.", labels=[*SERVICE, "code"]
    )
    seconds = HistogramMetricFamily(
        "stoker_request_seconds", "Time from arrival to the end of the answer.", labels=SERVICE
    )
    for key in service_keys(snapshot):
        load = snapshot.loads.get(key, ServiceLoad())
        totals = snapshot.totals.get(key, ServiceTotals())
        in_flight.add_metric(_labels(key), load.in_flight)
        queued.add_metric(_labels(key), load.queued)
        for code, count in sorted(totals.codes.items()):
            total.add_metric([*_labels(key), code], count)
        buckets = _with_exemplars(_buckets(totals.latency), snapshot.exemplars.get(key, ()))
        seconds.add_metric(_labels(key), buckets, totals.latency_sum)
    yield from (in_flight, queued, total, seconds)


def _buckets(latency: Mapping[float, int]) -> list[tuple[str, float]]:
    """Counts per bucket as Prometheus wants them: cumulative, ending with +Inf."""
    buckets, running = [], 0
    for bound in sorted({*BUCKETS, *latency}):
        running += latency.get(bound, 0)
        if bound != float("inf"):
            buckets.append((str(float(bound)), float(running)))
    return [*buckets, ("+Inf", float(running))]


def _with_exemplars(
    buckets: Sequence[tuple[str, float]], known: Sequence[Exemplar]
) -> list[tuple[str, float] | tuple[str, float, Sample]]:
    """Beside each bucket the newest traced request that fell into it; OpenMetrics alone has them."""
    found: list[tuple[str, float] | tuple[str, float, Sample]] = []
    last = 0.0
    for bound, count in buckets:
        inside = [one for one in known if last < one.seconds <= float(bound)]
        if inside:
            one = max(inside, key=lambda exemplar: exemplar.at)
            found.append((bound, count, Sample({"trace_id": one.trace}, one.seconds, round(one.at, 3))))
        else:
            found.append((bound, count))
        last = float(bound)
    return found


def _devices(snapshot: Snapshot) -> Iterator[Metric]:
    health = GaugeMetricFamily(
        "stoker_device_health",
        "1 for the state the device is in, 0 for the others.",
        labels=[*DEVICE, "health"],
    )
    reserved = GaugeMetricFamily(
        "stoker_device_reserved_ratio", "Share of the device that is reserved, 0 to 1.", labels=DEVICE
    )
    total = GaugeMetricFamily("stoker_device_memory_total_bytes", "Memory of the device.", labels=DEVICE)
    used = GaugeMetricFamily("stoker_device_memory_used_bytes", "Memory in use, by anybody.", labels=DEVICE)
    busy = GaugeMetricFamily(
        "stoker_device_utilization_ratio", "How busy the device is, 0 to 1.", labels=DEVICE
    )
    shares: dict[str, float] = {}
    for replica in snapshot.observed.replicas.values():
        for taken in replica.reservations:
            shares[taken.uuid] = shares.get(taken.uuid, 0.0) + taken.share
    for device in snapshot.observed.inventory.devices:
        labels = [device.uuid, str(device.index), device.name]
        for state in get_args(Health):
            health.add_metric([*labels, state], float(device.health == state))
        reserved.add_metric(labels, min(1.0, shares.get(device.uuid, 0.0)))
        total.add_metric(labels, device.memory_total)
        used.add_metric(labels, device.memory_used)
        if device.utilization is not None:
            busy.add_metric(labels, device.utilization)
    yield from (health, reserved, total, used, busy)


def _daemon(snapshot: Snapshot) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "stoker_config_generation", "Generation of the configuration in force.", snapshot.desired.generation
    )
    yield GaugeMetricFamily(
        "stoker_config_rejected", "1 while the newest configuration is rejected.",
        float(snapshot.config_state == "rejected"),
    )  # fmt: skip
    yield CounterMetricFamily(
        "stoker_config_rejections_total", "Configurations rejected so far.", snapshot.rejected_total
    )
    yield GaugeMetricFamily(
        "stoker_reconcile_seconds", "How long the last comparison took.", snapshot.reconcile_seconds
    )
    uptime = snapshot.now - snapshot.started
    yield GaugeMetricFamily("stoker_uptime_seconds", "Seconds since the daemon's start.", uptime)
    info = GaugeMetricFamily("stoker_build_info", "1; the version is in the label.", labels=["version"])
    info.add_metric([snapshot.version], 1)
    yield info

"""One replica's probing, on a virtual clock: when it is said to be ready, unready, dead."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import anyio
import pytest
import trio.testing

from stoker.model.event import LivenessFailed, ReplicaBecameReady, ReplicaBecameUnready
from stoker.model.replica import WorkerHandle
from stoker.model.service import Command, Probe, Probes, PythonTarget, ServiceSpec
from stoker.plugin.ports import ProbeResult
from stoker.runtime.probes import ReplicaProbes, startup_probe, with_own_check

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return ("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})


SPEC = ServiceSpec(deployment="d", name="s", launch=Command(("x", "--port", "{port}")), working_dir="/")


@dataclass
class ScriptedProber:
    """Answers by virtual time: `well` tells whether the worker is well at a time."""

    well: object
    asked: list[tuple[float, Probe]] = field(default_factory=list)

    async def ask(self, probe, endpoint, handle):
        now = anyio.current_time() - self.began
        self.asked.append((now, probe))
        return ProbeResult(ok=self.well(now), detail="scripted")

    began: float = 0.0


async def events_within(
    spec: ServiceSpec, well, seconds: float, *, ready: bool = False, later=None, hurried: bool = True
):
    """The events of `seconds` of probing, as (time, type name); `later` may change the spec at a time."""
    found: list[tuple[float, str]] = []
    prober = ScriptedProber(well, began=anyio.current_time())
    began = anyio.current_time()

    def lookup():
        return later(anyio.current_time() - began) if later else spec

    probes = ReplicaProbes(
        replica="s-1",
        service="d/s",
        endpoint="127.0.0.1:1",
        handle=WorkerHandle(driver="fake", pid=1),
        lookup=lookup,
        prober=prober,
        post=lambda event: found.append((round(anyio.current_time() - began, 3), type(event).__name__)),
        hurried=hurried,
    )
    with anyio.move_on_after(seconds):
        await probes.run(ready=ready)
    return found, prober


READY, UNREADY, DEAD = ReplicaBecameReady.__name__, ReplicaBecameUnready.__name__, LivenessFailed.__name__


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (SPEC, Probe(tcp=True)),
        (replace(SPEC, launch=PythonTarget("m:a")), Probe(tcp=True)),
        (replace(SPEC, launch=Command(("sleep", "9"))), None),
        (replace(SPEC, probes=Probes(readiness=Probe(http="/r"))), Probe(http="/r")),
        (
            replace(SPEC, probes=Probes(startup=Probe(http="/s"), readiness=Probe(http="/r"))),
            Probe(http="/s"),
        ),
    ],
)
def test_which_question_makes_a_replica_ready(spec, expected):
    assert startup_probe(spec) == expected


async def test_without_a_port_it_is_ready_at_once():
    found, prober = await events_within(replace(SPEC, launch=Command(("sleep", "9"))), lambda now: False, 10)
    assert found == [(0.0, READY)]
    assert prober.asked == []


async def test_a_starting_worker_is_noticed_within_the_starting_period():
    found, _ = await events_within(SPEC, lambda now: now >= 3.01, 10)
    assert found == [(pytest.approx(3.05), READY)]


async def test_a_slow_start_is_asked_less_often_after_a_while():
    _, prober = await events_within(SPEC, lambda now: False, 110)
    late = [now for now, _ in prober.asked if now > 20]
    assert len(late) <= 91, "after ten seconds the probe's own period (1 s) applies"


async def test_readiness_needs_several_failures_and_one_success():
    spec = replace(SPEC, probes=Probes(readiness=Probe(http="/r", period=1.0, failures=3)))
    found, _ = await events_within(spec, lambda now: not 4.5 < now < 9.5, 20)
    assert [name for _, name in found] == [READY, UNREADY, READY]
    assert found[1][0] == pytest.approx(7.0)
    assert found[2][0] == pytest.approx(10.0)


async def test_a_short_hiccup_is_forgiven():
    spec = replace(SPEC, probes=Probes(readiness=Probe(http="/r", period=1.0, failures=3)))
    found, _ = await events_within(spec, lambda now: not 4.5 < now < 6.5, 20)
    assert [name for _, name in found] == [READY]


async def test_liveness_is_told_once_and_then_no_more():
    spec = replace(SPEC, probes=Probes(liveness=Probe(http="/l", period=5.0, failures=2)))
    found, _ = await events_within(spec, lambda now: now < 1, 100, ready=True)
    assert [name for _, name in found] == [DEAD]
    assert found[0][0] == pytest.approx(10.0)


async def test_an_adopted_ready_worker_is_not_declared_ready_again():
    found, _ = await events_within(SPEC, lambda now: True, 10, ready=True)
    assert found == []


async def test_a_changed_probe_works_without_a_new_worker():
    strict = replace(SPEC, probes=Probes(readiness=Probe(http="/new", period=1.0, failures=1)))
    lax = replace(SPEC, probes=Probes(readiness=Probe(http="/old", period=1.0, failures=1)))
    _, prober = await events_within(
        SPEC, lambda now: True, 10, ready=True, later=lambda now: strict if now > 4.5 else lax
    )
    assert {probe.http for now, probe in prober.asked if now < 4} == {"/old"}
    assert {probe.http for now, probe in prober.asked if now > 6.5} == {"/new"}


OWN = Probe(exec=("check",), period=30.0, failures=2)


def test_what_a_worker_brings_itself_stands_where_nothing_is_declared() -> None:
    patient = replace(SPEC, probes=Probes(startup_timeout=600.0))
    assert with_own_check(patient, OWN).probes == Probes(startup=OWN, liveness=OWN, startup_timeout=600.0)
    declared = replace(SPEC, probes=Probes(liveness=Probe(tcp=True)))
    assert with_own_check(declared, OWN) is declared
    assert with_own_check(SPEC, None) is SPEC
    assert with_own_check(None, OWN) is None


async def test_it_is_not_hurried() -> None:
    found, prober = await events_within(
        with_own_check(SPEC, OWN), lambda now: 3.5 < now < 40, 100.0, hurried=False
    )
    assert found == [(4.0, READY), (94.0, DEAD)]
    assert [round(when) for when, _ in prober.asked] == [0, 1, 2, 3, 4, 34, 64, 94]

"""Every kind of event has a sentence and a JSON form."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, replace
from typing import Any

import pytest

from api.fakes import GPU, history, inventory
from stoker.api.narrate import Narrator, event_document, sentence, severity
from stoker.model import event as facts
from stoker.model.device import Reservation
from stoker.model.event import Event
from stoker.model.load import Decision
from stoker.model.replica import ExitStatus, WorkerHandle

SAMPLES: dict[str, Any] = {
    "device": "GPU-1",
    "health": "draining",
    "fault": "device-fault",
    "replica": "infer-k3x9",
    "service": "rag/infer",
    "revision": "9f3c",
    "reason": "because",
    "back_on": "4e1a",
    "handle": WorkerHandle(driver="process", pid=4242),
    "endpoint": "127.0.0.1:40123",
    "error": "no such command",
    "status": ExitStatus(code=3, detail="going down"),
    "before": 1,
    "target": 2,
    "decision": Decision(target=2, reason="more load", facts={"limit": float("inf")}),
    "inventory": inventory(),
    "generation": 4,
    "problems": ("a.yaml:1:1: bad", "a.yaml:2:1: worse"),
    "message": "the router was started again",
}


def kinds(base: type[Event] = Event) -> list[type[Event]]:
    found = []
    for kind in base.__subclasses__():
        found += kinds(kind) or [kind]
    return [kind for kind in found if kind.__name__ != "Recorded"]


def sample(kind: type[Event]) -> Event:
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    return kind(**{name: SAMPLES[name] for name in needed})


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_each_event_is_one_line_and_plain_json(kind: type[Event]) -> None:
    event = sample(kind)
    text = sentence(event)
    assert text
    assert "\n" not in text
    document = event_document(replace(event, id="e7", wall=1_700_000_000.25, cause="e6"))
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["type"] == kind.__name__
    assert document["time"] == "2023-11-14T22:13:20.250Z"
    assert (document["id"], document["cause"]) == ("e7", "e6")
    if event.subject and kind is not facts.Notice:
        assert text.startswith(event.subject)


def test_a_notice_says_its_service_once() -> None:
    assert sentence(facts.Notice(message="infer is overloaded", service="d/infer")) == "infer is overloaded"
    assert sentence(facts.Notice(message="overloaded", service="d/infer")) == "d/infer overloaded"


def test_the_reason_and_the_share_of_a_device_are_told() -> None:
    event = facts.StartRequested(
        replica="a-1", service="d/a", reservations=(Reservation(uuid=GPU, share=0.25),), reason="wanted"
    )
    assert sentence(event) == "a-1 is to start on 0.25 of GPU-11111111: wanted"
    assert event_document(event)["fields"]["reservations"][0]["uuid"] == GPU


def test_several_problems_are_counted() -> None:
    assert sentence(sample(facts.ConfigRejected)).endswith("a.yaml:1:1: bad (and 1 more)")


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (sample(facts.WorkerExited), "warning"),
        (facts.WorkerExited(replica="a", service="d/a", status=ExitStatus(code=0)), "info"),
        (sample(facts.SpawnFailed), "error"),
        (facts.Notice(message="disk full", severity="error"), "error"),
        (sample(facts.ReplicaBecameReady), "info"),
    ],
)
def test_severity(event: Event, expected: str) -> None:
    assert severity(event) == expected


def test_the_narrator_says_how_long_a_start_took_and_leaves_out_the_small_steps() -> None:
    narrator = Narrator()
    lines = [line for event in history() for line in narrator.tell(event)]
    assert lines == [
        "config generation 4 in force: 2 services",
        "infer-k3x9 started as pid 4242 at 127.0.0.1:40123",
        "infer-k3x9 ready after 1s",
    ]


@pytest.mark.parametrize(("fault", "lines"), [("", 1), ("liveness", 1), ("hung-start", 2)])
def test_a_hung_start_is_told_before_its_end(fault: str, lines: int) -> None:
    """Of the others another event has told."""
    who = {"replica": "infer-k3x9", "service": "rag/infer"}
    stop = facts.StopSignalled(**who, reason="not ready within 2s", fault=fault)
    narrator = Narrator()
    told = [*narrator.tell(stop), *narrator.tell(facts.WorkerExited(**who, status=ExitStatus(signal=15)))]
    assert told == ["infer-k3x9 told to stop: not ready within 2s", "infer-k3x9 stopped"][-lines:]

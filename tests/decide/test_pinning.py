"""Workers where they should not be, and workers that are still where they were."""

from __future__ import annotations

from dataclasses import replace

from stoker.decide.pinning import (
    Departure,
    Holder,
    astray,
    is_hidden,
    not_returned,
    settled,
    still_there,
    withhold,
)
from stoker.decide.placement import place
from stoker.model.device import DeviceProcess
from worlds import box, make_device, make_spec


def on(number: int, *pids: int, **changes):
    processes = tuple(DeviceProcess(pid=pid, name=f"program-{pid}") for pid in pids)
    return make_device(number, processes=processes, **changes)


INFER = Holder(replica="infer-a", service="app/infer", devices=("GPU-0", "GPU-1"), pid=10)
WEB = Holder(replica="web-b", service="app/web", pid=20)
HOLDERS = {holder.replica: holder for holder in (INFER, WEB)}


def test_workers_on_their_own_devices_and_strangers_anywhere_are_no_matter() -> None:
    there = box(on(0, 10, 99), on(1, 11), on(2, 98))
    assert astray(there, HOLDERS, {10: "infer-a", 11: "infer-a"}) == ()


def test_a_worker_that_has_not_touched_its_devices_is_no_matter() -> None:
    assert astray(box(0, 1), HOLDERS, {}) == ()


def test_a_process_of_a_worker_on_another_device_is_told_with_both_devices() -> None:
    (wrong,) = astray(box(on(0, 10), on(1), on(2, 11)), HOLDERS, {10: "infer-a", 11: "infer-a"})
    assert str(wrong) == "infer-a (its process 11) runs on GPU-2, which is not its own (GPU-0, GPU-1)"


def test_a_worker_without_a_gpu_has_no_business_on_one() -> None:
    (wrong,) = astray(box(on(2, 20)), HOLDERS, {20: "web-b"})
    assert str(wrong) == "web-b runs on GPU-2, which is not its own (it has none)"


def test_the_instances_of_an_own_gpu_are_own() -> None:
    part = replace(on(0, 10), uuid="MIG-7", parent="GPU-0")
    assert astray(box(part), HOLDERS, {10: "infer-a"}) == ()


def gone(*pids: int, looked: bool = True) -> Departure:
    return Departure(
        replica="infer-a", service="app/infer", devices=("GPU-0",), pids=frozenset(pids), looked=looked
    )


def test_a_device_is_withheld_until_the_driver_was_asked() -> None:
    there = box(0, 1)
    waiting = withhold(there, [gone(10, looked=False)])
    assert "the driver is being asked" in waiting.devices[0].withheld
    assert waiting.devices[1].withheld == ""
    assert withhold(there, [gone(10)]) is there


def test_a_device_is_withheld_while_a_process_of_the_departed_is_on_it() -> None:
    there = box(on(0, 11, 99), on(1, 11))
    assert still_there(there, gone(10, 11)) == (11,)
    waiting = withhold(there, [gone(10, 11)])
    assert [device.withheld for device in waiting.devices] == [
        "infer-a has ended, but pid 11 is still on it", "",
    ]  # fmt: skip
    assert withhold(there, [gone(10)]) is there


def test_a_process_that_cannot_be_seen_any_more_is_taken_for_a_late_child_of_the_departed() -> None:
    dead, foreign = DeviceProcess(pid=12), DeviceProcess(pid=13)
    neighbour = DeviceProcess(pid=14, owner="web-b")
    there = box(make_device(0, processes=(dead, foreign, neighbour)), make_device(1, processes=(dead,)))
    assert still_there(there, replace(gone(10), strangers=frozenset({13}))) == (12,)
    assert still_there(there, replace(gone(10), strangers=frozenset({12, 13}))) == ()


def using(used: int, *processes: DeviceProcess):
    return box(make_device(0, memory_used=used * 2**30, processes=processes), 1)


def test_a_device_is_withheld_until_the_memory_of_the_departed_is_back() -> None:
    worker = DeviceProcess(pid=10, memory=8 * 2**30)
    neighbour = DeviceProcess(pid=11, memory=4 * 2**30, owner="infer-b")
    one = replace(INFER, devices=("GPU-0",), pids=frozenset({10}))
    before = settled(using(13, worker, neighbour), [one])
    assert before == {"GPU-0": 2**30, "GPU-1": 0}
    assert settled(using(13, neighbour), [one]) == {"GPU-1": 0}, "what just vanished may not be back"
    left = replace(gone(10), unclaimed=tuple(before.items()))
    assert not_returned(using(5, neighbour), left) == 0
    assert not_returned(using(13, neighbour), left) == 8 * 2**30
    (device, _) = withhold(using(13, neighbour), [left]).devices
    assert device.withheld == "infer-a has ended, but 8Gi of its memory is not free again"


def test_memory_that_cannot_be_told_apart_is_not_waited_for() -> None:
    hidden = DeviceProcess(pid=11, name="game", memory=None)
    assert settled(using(13, hidden), []) == {"GPU-1": 0}
    assert not_returned(using(13, hidden), replace(gone(10), unclaimed=(("GPU-0", 0),))) == 0
    assert not_returned(using(13), gone(10)) == 0


def test_a_worker_is_not_seen_off_a_device_that_is_away_or_lost() -> None:
    assert not is_hidden(box(0), gone(10))
    assert is_hidden(box(1), gone(10))
    assert is_hidden(box(make_device(0, health="lost")), gone(10))


def test_a_withheld_device_is_not_given_and_the_reason_is_told() -> None:
    spec = make_spec("next", gpu=1)
    held = withhold(box(on(0, 10)), [gone(10)])
    refused = place(spec, held, ())
    assert not refused.placed
    assert refused.reason.endswith("GPU 0 is not free yet (infer-a has ended, but pid 10 is still on it)")
    spread = withhold(box(on(0, 10), 1), [gone(10)])
    assert [given.uuid for given in place(spec, spread, ()).reservations] == ["GPU-1"]

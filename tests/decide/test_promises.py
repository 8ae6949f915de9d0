"""Who takes more of a shared device than it was promised."""

from __future__ import annotations

from stoker.decide.pinning import Holder
from stoker.decide.promises import SLACK, excesses
from stoker.model.device import Device, DeviceProcess
from worlds import GIB, box, make_device


def holder(name: str, pid: int, **promises: int) -> Holder:
    devices = tuple(uuid.replace("_", "-") for uuid in promises)
    return Holder(
        replica=name, service="app/infer", devices=devices, pid=pid,
        promises=tuple(zip(devices, promises.values(), strict=True)),
    )  # fmt: skip


def used(**processes: int | None) -> Device:
    found = tuple(DeviceProcess(pid=int(pid[1:]), memory=memory) for pid, memory in processes.items())
    return make_device(0, processes=found)


HOLDERS = {h.replica: h for h in (holder("a", 10, GPU_0=20 * GIB), holder("b", 20, GPU_0=40 * GIB))}
OWNERS = {10: "a", 11: "a", 20: "b"}


def test_the_whole_tree_of_a_worker_counts_and_only_the_offender_is_named() -> None:
    (found,) = excesses(box(used(p10=15 * GIB, p11=10 * GIB, p20=39 * GIB)), HOLDERS, OWNERS)
    assert (found.holder.replica, found.used, found.promised) == ("a", 25 * GIB, 20 * GIB)
    assert str(found) == "a uses 25Gi of GPU-0, but 20Gi was promised to it"


def test_a_tenth_more_or_what_every_process_needs_is_tolerated() -> None:
    assert excesses(box(used(p10=22 * GIB)), HOLDERS, OWNERS) == ()
    assert len(excesses(box(used(p10=22 * GIB + 1)), HOLDERS, OWNERS)) == 1
    small = {"a": holder("a", 10, GPU_0=GIB)}
    assert excesses(box(used(p10=GIB + SLACK)), small, OWNERS) == ()
    assert len(excesses(box(used(p10=GIB + SLACK + 1)), small, OWNERS)) == 1


def test_strangers_and_holders_of_whole_devices_are_not_judged() -> None:
    assert excesses(box(used(p99=70 * GIB)), HOLDERS, OWNERS) == ()
    whole = {"a": Holder(replica="a", service="app/infer", devices=("GPU-0",), pid=10)}
    assert excesses(box(used(p10=70 * GIB)), whole, OWNERS) == ()


def test_what_the_driver_does_not_tell_is_not_held_against_anybody() -> None:
    assert excesses(box(used(p10=None, p20=None)), HOLDERS, OWNERS) == ()


def test_a_mig_instance_bounds_its_users_itself() -> None:
    part = make_device(0, limits="mig", processes=(DeviceProcess(pid=10, memory=70 * GIB),))
    assert excesses(box(part), HOLDERS, OWNERS) == ()

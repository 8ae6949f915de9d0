"""The durable state survives a crash at any byte, and one daemon owns it."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest

from stoker.errors import ConflictError, StokerError
from stoker.model.device import Reservation
from stoker.model.replica import WorkerHandle
from stoker.runtime.store import Store, WorkerRecord

RECORD = WorkerRecord(
    replica="infer-k3x9",
    service="rag/infer",
    revision="9f3c1a2b",
    driver="process",
    endpoint="127.0.0.1:20001",
    reservations=(Reservation(uuid="GPU-1"), Reservation(uuid="GPU-2", share=0.5, memory=1 << 30)),
    handle=WorkerHandle(driver="process", pid=42, start_time=7, boot_id="b", extra=(("cgroup", "/x"),)),
    restarts=2,
    ready=True,
    created=12.5,
)


def test_a_worker_record_is_read_back_as_it_was_written(tmp_path):
    store = Store(tmp_path)
    store.save_worker(RECORD)
    store.save_worker(replace(RECORD, replica="infer-aaaa", handle=None))
    assert {record.replica: record for record in Store(tmp_path).workers()} == {
        "infer-k3x9": RECORD,
        "infer-aaaa": replace(RECORD, replica="infer-aaaa", handle=None),
    }


def test_a_dropped_record_is_gone_and_dropping_twice_is_no_error(tmp_path):
    store = Store(tmp_path)
    store.save_worker(RECORD)
    store.drop_worker(RECORD.replica)
    store.drop_worker(RECORD.replica)
    assert store.workers() == []


def test_every_truncation_of_a_record_is_survived(tmp_path):
    store = Store(tmp_path)
    store.save_worker(RECORD)
    path = tmp_path / "replicas.jsonl"
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        assert store.workers() == [], f"a record cut at byte {length} was believed"


def test_a_record_of_another_version_is_no_record(tmp_path):
    store = Store(tmp_path)
    store.save_worker(RECORD)
    with (tmp_path / "replicas.jsonl").open("a") as file:
        file.write('["infer-zzzz", {"replica": "infer-zzzz"}]\n["infer-yyyy", []]\n')
    assert store.workers() == [RECORD]


def test_half_a_mapping_reads_as_none_at_all(tmp_path):
    store = Store(tmp_path)
    store.write("overrides", {"services.a.priority": 3})
    assert store.read("overrides") == {"services.a.priority": 3}
    (tmp_path / "overrides.json").write_text('{"services.a.prio')
    assert store.read("overrides") == {}


def test_a_failed_write_leaves_the_old_value_and_no_litter(tmp_path):
    store = Store(tmp_path)
    store.write("targets", {"a/b": 1})
    (tmp_path / "targets.json.new").mkdir()  # makes the write fail for root too
    with pytest.raises(IsADirectoryError):
        store.write("targets", {"a/b": 2})
    assert store.read("targets") == {"a/b": 1}


def test_the_instance_is_made_once(tmp_path):
    first = Store(tmp_path).instance()
    assert len(first) == 12
    assert Store(tmp_path).instance() == first


def test_a_second_daemon_is_refused_and_told_who_the_first_is(tmp_path):
    first, second = Store(tmp_path), Store(tmp_path)
    first.acquire()
    with pytest.raises(ConflictError, match=r"a daemon \(pid \d+\) already uses the state directory"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_a_full_disk_says_what_to_do_and_leaves_the_lock(tmp_path, monkeypatch):
    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "pwrite", full)
        with pytest.raises(StokerError, match=r"No space left on device; choose another with --state-dir"):
            Store(tmp_path).acquire()
    Store(tmp_path).acquire()


def test_an_impossible_state_directory_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StokerError, match="choose another with --state-dir"):
        Store(tmp_path / "file" / "state")

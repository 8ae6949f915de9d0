"""Pids of Xids from the kernel log."""

from __future__ import annotations

import os

import pytest

from fakenvml.child import ask, serving
from fakenvml.fixtures import fake_box
from stoker_nvidia.kernel_log import KernelLog, place_of

LINE = "3,1234,5678,-;NVRM: Xid (PCI:0000:1e:00): 31, pid={pid}, name=python3, Ch 00000008, MMU Fault\n"


def test_only_what_is_logged_from_now_on_counts_and_each_line_once(tmp_path):
    path = tmp_path / "kmsg"
    path.write_text(LINE.format(pid=1))
    log = KernelLog(str(path))
    assert log.culprits() == {}
    with path.open("a") as file:
        file.write("6,1,1,-;usb 1-1: new device\n")
        file.write(LINE.format(pid=4242))
        file.write(LINE.format(pid="'<unknown>'").replace("1e:00", "3b:00"))
        file.write("3,1,1,-;NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.\n")
    assert log.culprits() == {("0:1e:0", 31): 4242}
    assert log.culprits() == {}


def test_a_log_that_may_not_be_read_names_nobody(tmp_path):
    assert KernelLog(str(tmp_path / "none")).culprits() == {}


@pytest.mark.skipif(not os.access("/dev/kmsg", os.R_OK), reason="the kernel log may not be read here")
def test_the_real_one_is_read_without_waiting():
    log = KernelLog()
    log.culprits()
    assert log.culprits() == {}


def test_addresses_are_the_same_in_each_spelling():
    assert place_of("00000000:1E:00.0") == place_of("0000:1e:00") == "0:1e:0"


@pytest.mark.system
def test_an_xid_is_told_with_its_process(tmp_path):
    box, path = fake_box("2xt4", tmp_path), tmp_path / "kmsg"
    path.touch()
    with serving({**box.environ, "STOKER_KERNEL_LOG": str(path)}) as child:
        ask(child)
        with path.open("a") as file:
            file.write(LINE.format(pid=4242))
        box.xid(0, 31)
        box.xid(1, 31)
        assert [event["pid"] for event in ask(child)["events"]] == [4242, None]

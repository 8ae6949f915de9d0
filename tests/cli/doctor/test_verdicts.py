"""What each check makes of what it finds."""

from __future__ import annotations

import resource
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from stoker.api.documents import device_document
from stoker.cli.doctor import daemon, devices, limits, network, parts, python, storage, systemd, trees
from stoker.cli.doctor.finding import Finding, Place, ok
from stoker.cli.doctor.registry import CHECKS, examine
from stoker.model.device import Device
from stoker.plugin.manager import PluginRecord
from stoker.runtime.addresses import SERVICE_PORTS, WORKER_PORTS

GIB = 2**30


def place(tmp_path: Path, **values) -> Place:
    standard = {
        "socket": str(tmp_path / "s"),
        "state_dir": str(tmp_path),
        "runtime_dir": str(tmp_path),
        "uid": 1,
    }
    return Place(**(standard | values))


def states(found) -> list[tuple[str, str]]:
    return [(finding.check, finding.state) for finding in found]


def needs_remedy(finding: Finding) -> bool:
    return bool(finding.remedy) == (finding.state != "ok")


@pytest.mark.parametrize(("version", "state"), [((3, 10), "fail"), ((3, 12), "ok"), ((3, 99), "warn")])
def test_python(version, state) -> None:
    finding = python.judge(version, "it")
    assert finding.state == state
    assert needs_remedy(finding)


def status(**config) -> dict:
    standard = {"state": "in-force", "generation": 4, "errors": []}
    return {"daemon": {"pid": 7, "version": "0.0.1", "config": standard | config}, "services": []}


def test_the_daemon_is_told_as_absent_present_outdated_rejected_or_mute(tmp_path) -> None:
    assert states(daemon.check(place(tmp_path))) == [("daemon", "ok")]
    found = list(daemon.check(place(tmp_path, status=status(state="rejected", errors=[{}]))))
    assert states(found) == [("daemon", "ok"), ("daemon version", "warn"), ("configuration", "warn")]
    assert "1 error;" in found[2].text
    (mute,) = daemon.check(place(tmp_path, trouble="the daemon did not answer within 5 s"))
    assert mute.state == "fail"
    assert "within 5 s" in mute.text


def test_a_broken_plugin_is_a_warning_and_a_missing_kind_a_failure() -> None:
    fine = PluginRecord(name="all", parts=("driver: process", "router: stoker", "policy: concurrency"))
    broken = PluginRecord(name="tides", distribution="tides-1", state="failed", reason="no module named moon")
    assert states(parts.judge([fine])) == [("plugins", "ok")]
    found = list(parts.judge([fine, broken]))
    assert states(found) == [("plugins", "warn"), ("plugins", "ok")]
    assert "no module named moon" in found[0].text
    assert "tides-1" in found[0].remedy
    (bare,) = parts.judge([])
    assert (bare.state, bare.text) == ("fail", "no plugin brings a driver or a router or a policy")


@pytest.mark.parametrize(
    ("state", "on_bus", "verdict", "text"),
    [
        ("none", 0, "ok", "stay pending"),
        ("none", 8, "fail", "the PCI bus shows 8 NVIDIA GPUs"),
        ("unreachable", 8, "fail", "does not answer"),
        ("ok", 8, "ok", "8, driver 560"),
    ],
)
def test_gpus(state, on_bus, verdict, text) -> None:
    (finding,) = devices.judge({"state": state, "reason": "", "driver": "560"}, 8, on_bus)
    assert finding.state == verdict
    assert text in finding.text
    assert needs_remedy(finding)


def test_a_driver_that_we_have_let_go_ourselves_is_no_failure() -> None:
    said = {
        "state": "unreachable",
        "reason": "the driver is let go for 20s",
        "driver": "560",
        "resting": True,
    }
    (finding,) = devices.judge(said, 8, 8)
    assert (finding.state, finding.text) == ("warn", "the driver is let go for 20s")
    assert "by itself" in finding.remedy


def test_gpus_by_the_daemons_word_name_the_sick_and_how_to_give_back_a_cordoned_one(tmp_path) -> None:
    sick = Device(
        uuid="GPU-1", name="T4", index=1, memory_total=1, health="quarantined", health_reason="Xid 79"
    )
    kept = replace(sick, uuid="GPU-2", index=2, health="cordoned", health_reason="cordoned by the operator")
    shown = [device_document(one, (), 0.0) for one in (sick, kept)]
    said = {"inventory": {"state": "ok", "reason": "", "driver": ""}, "devices": shown}
    found = list(devices.check(place(tmp_path, devices=said)))
    assert states(found) == [("gpus", "ok"), ("gpus", "warn"), ("gpus", "warn")]
    assert "Xid 79" in found[1].text
    assert "uncordon GPU-2" in found[2].remedy


def test_gpus_on_the_bus_are_counted_by_vendor_and_class(tmp_path) -> None:
    for name, vendor, kind in (
        ("a", "0x10de", "0x030200"),
        ("b", "0x10de", "0x040300"),
        ("c", "0x8086", "0x030000"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(vendor + "\n")
        (tmp_path / name / "class").write_text(kind + "\n")
    (tmp_path / "d").mkdir()
    assert devices.cards(tmp_path) == 1
    assert devices.cards(tmp_path / "none") == 0


def test_cgroups_are_read_from_the_mounts() -> None:
    first = "30 24 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"
    second = "35 24 0:31 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw"
    assert trees.cgroup_mounts(f"{first}\n{second}") == ("/sys/fs/cgroup/unified", True)
    assert trees.cgroup_mounts(second) == ("/sys/fs/cgroup/unified", False)
    assert trees.cgroup_mounts(first) == ("", True)
    assert trees.cgroups(("", True)).state == "warn"
    assert trees.judge("cgroup v2: a directory per worker below /x").state == "ok"
    assert trees.judge("sessions (no cgroups: no permission)").state == "warn"


@pytest.mark.parametrize(
    ("free", "free_files", "files", "state"),
    [
        (5 * GIB, 10**6, 10**7, "ok"),
        (GIB // 2, 10**6, 10**7, "warn"),
        (GIB // 100, 10**6, 10**7, "fail"),
        (5 * GIB, 10, 10**7, "fail"),
        (5 * GIB, 0, 0, "ok"),
    ],
)
def test_disk(free, free_files, files, state) -> None:
    assert storage.room("/x", free, free_files, files).state == state


def test_directories_that_will_be_made_those_open_to_all_and_those_that_are_files(tmp_path) -> None:
    assert "will be made" in storage.writable("state", tmp_path / "a" / "b", "--x").text
    (tmp_path / "file").write_text("")
    refused = storage.writable("state", tmp_path / "file" / "b", "--x")
    assert (refused.state, "--x" in refused.remedy) == ("fail", True)
    assert list(storage.exposed(tmp_path)) == []
    tmp_path.chmod(0o777)
    assert [finding.state for finding in storage.exposed(tmp_path)] == ["warn"]


def test_ports_in_use_and_ranges_that_overlap() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert network.free_ports(range(port, port + 1)).state == "fail"
    assert network.ephemeral(WORKER_PORTS[-1] + 1, 60999).state == "ok"
    assert network.ephemeral(1024, 65535).state == "warn"
    assert network.ephemeral(1024, SERVICE_PORTS[0] - 1).state == "ok"
    assert network.socket_path("/" + "x" * 200).state == "fail"


def test_the_router_is_asked_on_every_address() -> None:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        one.listen()
        open_url, shut_url = (f"http://127.0.0.1:{each.getsockname()[1]}" for each in (one, other))
        assert states(network.router([open_url])) == [("router", "ok")]
        (silent,) = network.router([open_url, shut_url])
        note = f"12:00:00 {open_url.removeprefix('http://')} is already taken by another program"
        (taken,) = network.router([open_url], ["12:00:00 something else", note])
    assert silent.state == "fail"
    assert silent.text == f"nothing listens on {shut_url}"
    assert (taken.state, taken.text) == ("fail", note)
    assert list(network.router([])) == []


@pytest.mark.parametrize(
    ("soft", "state"), [(1024, "warn"), (65536, "ok"), (resource.RLIM_INFINITY, "ok")]
)  # fmt: skip
def test_open_files(soft, state) -> None:
    assert limits.files(soft, resource.RLIM_INFINITY).state == state


@pytest.mark.parametrize(
    ("now", "synchronized", "state"),
    [(0.0, "yes", "warn"), (2e9, "no", "warn"), (2e9, "yes", "ok"), (2e9, "", "ok")],
)
def test_clock(now, synchronized, state) -> None:
    assert limits.clock(now, synchronized).state == state


def test_systemd(tmp_path) -> None:
    assert systemd.judge(False, []).state == "ok"
    assert systemd.judge(True, []).state == "warn"
    assert "hides /b" in systemd.judge(True, [Path("/a"), Path("/b")]).text


def test_a_check_that_fails_itself_costs_only_itself(tmp_path) -> None:
    def broken(given: Place):
        raise RuntimeError("no such thing")

    def fine(given: Place):
        yield ok("fine", "it is")

    found = list(examine(place(tmp_path), (("broken", broken), ("fine", fine))))
    assert states(found) == [("broken", "warn"), ("fine", "ok")]
    assert "RuntimeError: no such thing" in found[0].text


def test_every_check_works_on_this_box(tmp_path) -> None:
    found = list(examine(place(tmp_path, socket=str(tmp_path / "s.sock"))))
    assert not [finding.text for finding in found if "could not be checked" in finding.text]
    assert all(needs_remedy(finding) for finding in found)
    assert len({finding.check for finding in found}) > len(CHECKS)

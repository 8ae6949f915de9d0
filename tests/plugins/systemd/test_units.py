"""From requests to properties of units: what stands in them, and above all what does not."""

import ctypes
import os
import platform
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from stoker.model.device import Reservation
from stoker.model.service import Command, Limits, Probe, Probes, ServiceSpec
from stoker.plugin.manager import PluginRegistry
from stoker.plugin.ports import PluginContext, StartRequest
from stoker_systemd import plugin, units
from stoker_systemd.filters import filtered, has_program
from stoker_systemd.gpus import ALL, allowed
from stoker_systemd.units import Identity, object_path, prefix, properties, unit_name

REQUEST = StartRequest(
    replica="web-1",
    service="shop/web",
    mark="abc:shop/web:web-1",
    argv=("serve", "$HOME", "%n"),
    environ={"KEY": "hush"},
    working_dir="/srv",
    log_path="/log/web-1.log",
    endpoint="127.0.0.1:1",
    tmp_dir="/tmp/stoker-abc/web-1",
)
DYNAMIC = Identity(user="stk-web-1", dynamic=True)


def of(
    request: StartRequest, identity: Identity = DYNAMIC, devices: tuple[str, ...] = ()
) -> dict[str, object]:
    made = properties(
        request, identity, entry=["/python", "-c", "x"], order="/orders/x.json", devices=devices
    )
    return {name: value for name, (_, value) in made}


def test_nothing_of_the_environment_is_shown_to_others() -> None:
    """Everybody on the box may read the properties of a unit."""
    assert "hush" not in repr(of(REQUEST))
    assert "KEY" not in repr(of(REQUEST))
    assert of(REQUEST)["LoadCredential"] == [("order", "/orders/x.json")]


def test_limits_become_those_of_the_unit() -> None:
    unit = of(replace(REQUEST, limits=Limits(nofile=77, pids=5, memory=2**30, cpu=1.5)))
    assert (unit["LimitNOFILE"], unit["LimitNOFILESoft"], unit["TasksMax"]) == (77, 77, 5)
    assert (unit["MemoryMax"], unit["MemorySwapMax"]) == (2**30, 0)
    assert unit["CPUQuotaPerSecUSec"] == 1_500_000
    assert not {"LimitNOFILE", "TasksMax", "MemoryMax", "CPUQuotaPerSecUSec"} & of(REQUEST).keys()


def test_without_a_user_one_is_made_for_the_unit() -> None:
    unit = of(REQUEST)
    assert (unit["DynamicUser"], unit["User"]) == (True, "stk-web-1")
    assert unit["CapabilityBoundingSet"] == 0


def test_root_keeps_its_capabilities() -> None:
    unit = of(REQUEST, Identity(user="root"))
    assert "DynamicUser" not in unit
    assert "CapabilityBoundingSet" not in unit
    assert unit["NoNewPrivileges"] is True


def test_who_says_where_temporary_files_go_gets_no_other_place() -> None:
    assert of(REQUEST)["PrivateTmp"] is True
    assert "PrivateTmp" not in of(replace(REQUEST, tmp_dir=""))


def test_names_keep_instances_apart_and_are_no_paths() -> None:
    assert unit_name("a-b", "../web 1", 255) == "stoker-a_b-___web_1.ff.service"
    assert not unit_name("abc", "web", 1).startswith(prefix("ab"))
    assert object_path("stoker-a.service") == "/org/freedesktop/systemd1/unit/stoker_2da_2eservice"


def gpu(directory: Path, bus: str, uuid: str, minor: int) -> None:
    (directory / bus).mkdir()
    (directory / bus / "information").write_text(
        f"Model: \t\t NVIDIA H100\nGPU UUID: \t {uuid}\nBus Location: \t 0:{bus}\nDevice Minor: \t {minor}\n"
    )


def test_only_the_files_of_its_own_gpus_are_open_to_a_worker(tmp_path: Path) -> None:
    said: list[str] = []
    gpu(tmp_path, "0a", "GPU-a", 3)
    gpu(tmp_path, "0b", "GPU-b", 0)
    files = allowed(["GPU-a"], said.append, tmp_path)
    assert "/dev/nvidia3" in files
    assert "/dev/nvidiactl" in files
    assert "/dev/nvidia0" not in files
    assert not any("char-nvidia" in one for one in files)
    assert of(REQUEST, devices=tuple(files))["DeviceAllow"][0] == ("/dev/nvidia3", "rw")
    assert allowed([], said.append, tmp_path) == []
    assert said == []
    assert allowed(["MIG-1"], said.append, tmp_path) == list(ALL)
    assert "MIG-1" in said[0]


def test_a_worker_on_a_gpu_runs_near_it_and_prefers_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "cores_near", lambda node: {1: (1, 9), 2: ()}[node])
    unit = of(replace(REQUEST, numa_node=1))
    assert (unit["CPUAffinity"], unit["NUMAPolicy"], unit["NUMAMask"]) == (b"\x02\x02", 1, b"\x02")
    assert "CPUAffinity" not in of(replace(REQUEST, numa_node=2)), "there is nothing to choose from"
    assert not {"CPUAffinity", "NUMAPolicy", "NUMAMask"} & of(REQUEST).keys()


def test_a_sharer_under_mps_sees_its_pipes_in_spite_of_a_tmp_of_its_own() -> None:
    shared = replace(REQUEST, reservations=(Reservation(uuid="GPU-a", share=0.5, limits="mps"),))
    assert of(shared)["BindPaths"] == [("/tmp/nvidia-mps", "/tmp/nvidia-mps", True, 0)]
    elsewhere = replace(shared, environ={"CUDA_MPS_PIPE_DIRECTORY": "/run/mps"})
    assert of(elsewhere)["BindPaths"] == [("/run/mps", "/run/mps", True, 0)]
    assert "BindPaths" not in of(REQUEST)
    assert "BindPaths" not in of(replace(shared, tmp_dir=""))


def test_a_group_whose_list_of_devices_is_whole_filters_nothing(tmp_path: Path) -> None:
    names = {names: path for _, names, path in (line.split(":", 2) for line in own_groups())}
    place = next((path for name, path in names.items() if "devices" in name.split(",")), None)
    if place is None:
        pytest.skip("no cgroup v1 here")
    root = tmp_path / "so" / "deep"  # who has entered a namespace of groups from outside is at /.. in it
    (root / "devices").mkdir(parents=True)
    group = Path(os.path.normpath(f"{root}/devices{place}"))
    group.mkdir(parents=True, exist_ok=True)
    for said, filters in (("a *:* rwm\n", False), ("c 1:3 rwm\nc 195:0 rw\n", True)):
        (group / "devices.list").write_text(said)
        assert filtered(os.getpid(), root=root) is filters
    assert filtered(2**22 + 1, root=root) is False, "gone"


def own_groups() -> list[str]:
    return Path("/proc/self/cgroup").read_text().splitlines()


def test_a_group_that_a_program_of_the_kernel_guards_is_known_by_it() -> None:
    """A program that allows everything stands for systemd's."""
    root = next((p for p in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")) if is_v2(p)), None)
    if root is None or os.geteuid() != 0 or platform.machine() != "x86_64":
        pytest.skip("no cgroup v2 to try it on, or not root on x86_64")
    group = root / f"stoker-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no group can be made: {error}")
    try:
        assert has_program(group) is has_program(root)
        if not guard(group):
            pytest.skip("this machine loads no programs into the kernel")
        assert has_program(group) is True
    finally:
        group.rmdir()


def is_v2(place: Path) -> bool:
    return (place / "cgroup.controllers").exists()


def guard(group: Path) -> bool:
    """Attach the program "return 1" to that group, as a filter of devices."""
    code = ctypes.create_string_buffer(
        struct.pack("=BBhi", 0xB7, 0, 0, 1) + struct.pack("=BBhi", 0x95, 0, 0, 0)
    )
    licence = ctypes.create_string_buffer(b"GPL")
    load = struct.pack("=IIQQ", 15, 2, ctypes.addressof(code), ctypes.addressof(licence)).ljust(128, b"\0")
    program = bpf(5, load)
    if program < 0:
        return False
    place = os.open(group, os.O_RDONLY)
    try:
        return bpf(8, struct.pack("=IIII", place, program, 6, 0).ljust(128, b"\0")) == 0
    finally:
        os.close(place)
        os.close(program)


def bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    found: int = ctypes.CDLL(None).syscall(321, command, buffer, len(attributes))
    return found


def test_where_no_systemd_runs_the_reason_is_told() -> None:
    if Path("/run/systemd/system").is_dir():
        pytest.skip("systemd runs here")
    pytest.importorskip("jeepney")
    registry = PluginRegistry()
    registry.register("systemd", plugin)
    factory = registry.factory("driver", "systemd")
    with pytest.raises(Exception, match="needs systemd as the service manager"):
        factory(PluginContext(instance="x", state_dir="", runtime_dir=""))


def test_what_it_cannot_do_is_declared() -> None:
    lacks = plugin.stoker_driver_shortfalls()["systemd"]
    plain = ServiceSpec(deployment="shop", name="web", launch=Command(("serve",)), working_dir="/")
    assert lacks(plain) == {}
    notifying = replace(plain, probes=Probes(startup=Probe(notify=True)), preload=("torch",))
    assert set(lacks(notifying)) == {"probes.startup.notify", "preload"}
    assert set(lacks(replace(notifying, user="svc"))) == {"preload"}

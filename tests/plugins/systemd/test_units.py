"""From requests to properties of units: what stands in them, and above all what does not."""

from dataclasses import replace
from pathlib import Path

import pytest

from stoker.model.service import Command, Limits, Probe, Probes, ServiceSpec
from stoker.plugin.manager import PluginRegistry
from stoker.plugin.ports import PluginContext, StartRequest
from stoker_systemd import plugin
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

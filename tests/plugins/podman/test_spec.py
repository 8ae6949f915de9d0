"""From requests to containers and from their output to logs, without an engine."""

from dataclasses import replace
from pathlib import Path

import pytest

from stoker.model.device import Reservation
from stoker.model.service import Command, Container, Limits, Probe, Probes, ServiceSpec
from stoker.plugin.ports import StartRequest
from stoker_podman.docker import docker_spec, name_and_tag
from stoker_podman.frames import Frames
from stoker_podman.health import from_label, probe_of, to_label
from stoker_podman.memory import account, killed
from stoker_podman.output import plain
from stoker_podman.plugin import docker_shortfalls, shortfalls
from stoker_podman.spec import Place, container_name, container_spec
from stoker_podman.tails import Taken, seconds

REQUEST = StartRequest(
    replica="web-1", service="shop/web", mark="abc:shop/web:web-1", argv=("serve",), environ={"A": "b"},
    working_dir="/srv", log_path="/log/web-1.log", endpoint="127.0.0.1:20001",
    container=Container(image="web:1"),
)  # fmt: skip


def spec(request: StartRequest = REQUEST, **place: str) -> dict:
    return container_spec(request, "abc", "name", Place(raw="/raw", **place))


def test_it_is_on_the_boxs_network_unless_told_otherwise() -> None:
    assert spec()["netns"] == {"nsmode": "host"}
    assert "portmappings" not in spec()
    bridged = spec(replace(REQUEST, container=Container(image="web:1", network="bridge", port=80)))
    assert bridged["portmappings"] == [{"host_ip": "127.0.0.1", "host_port": 20001, "container_port": 80}]


def test_limits_and_devices() -> None:
    made = spec(replace(REQUEST, limits=Limits(memory=1 << 30, cpu=1.5, pids=7, nofile=99)))
    assert made["resource_limits"] == {
        "pids": {"limit": 7},
        "memory": {"limit": 1 << 30, "swap": 1 << 30},
        "cpu": {"quota": 150_000, "period": 100_000},
    }
    assert made["r_limits"] == [{"type": "nofile", "hard": 99, "soft": 99}]
    given = spec(replace(REQUEST, reservations=(Reservation(uuid="GPU-a"),)))
    assert given["devices"] == [{"path": "nvidia.com/gpu=GPU-a"}]


def test_the_box_root_has_no_variables_of_its_own_and_its_own_place_for_temporary_files() -> None:
    request = replace(REQUEST, container=Container(), tmp_dir="/tmp/x", environ={"TMPDIR": "/tmp/x"})
    made = spec(request, rootfs="/empty")
    assert (made["rootfs"], made["unsetenv_all"], made["env"]) == ("/empty", True, {"TMPDIR": "/tmp"})
    assert "image" not in made
    assert not spec()["unsetenv_all"]


def test_names_are_what_an_engine_takes() -> None:
    assert container_name("ab", "../web 1", 255) == "stoker-ab-.._web_1-ff"


def test_output_is_what_was_written() -> None:
    record = b"2026-01-01T00:00:00.1+00:00 stdout F one two\n"
    record += b"2026 stderr P no \n2026 stderr F end\n2026 stdout F half"
    text, length = plain(record)
    assert text == b"one two\nno end\n"
    assert record[length:] == b"2026 stdout F half"
    assert plain(b"") == (b"", 0)


def test_kills_for_want_of_memory_are_read_in_both_hierarchies(tmp_path: Path) -> None:
    counts = tmp_path / "counts"
    counts.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert killed(counts)
    counts.write_text("low 0\noom 1\noom_kill 0\n")
    assert not killed(counts)
    assert not killed(tmp_path / "none")
    assert not killed(None)
    assert account(0) is None


def test_what_it_cannot_do_is_declared() -> None:
    plain_spec = ServiceSpec(deployment="d", name="web", launch=Command(("serve",)), working_dir="/")
    assert shortfalls(plain_spec) == {}
    bridged = replace(
        plain_spec,
        container=Container(network="bridge"),
        preload=("torch",),
        probes=Probes(startup=Probe(notify=True)),
    )
    assert set(shortfalls(bridged)) == {"preload", "probes.startup.notify", "container.network"}
    assert set(shortfalls(replace(plain_spec, container=Container(image="x"), user="svc"))) == {"user"}
    assert set(docker_shortfalls(replace(plain_spec, umask=0o077))) == {"umask"}


def test_docker_is_told_the_same_in_its_own_words() -> None:
    limits = Limits(memory=1 << 30, cpu=1.5, pids=7, nofile=99)
    container = Container(image="web:1", network="bridge", port=80, mounts=("/m:/models:ro",))
    request = replace(
        REQUEST, limits=limits, container=container, reservations=(Reservation(uuid="GPU-a"),), group="1"
    )
    made = docker_spec(request, "abc", Place(raw="/raw", user="5:1", cpus="0-3"))
    assert (made["Image"], made["Cmd"], made["Env"]) == ("web:1", ["serve"], ["A=b"])
    assert (made["User"], made["WorkingDir"], made["ExposedPorts"]) == ("5:1", "/srv", {"80/tcp": {}})
    host = made["HostConfig"]
    assert host["Mounts"] == [{"Type": "bind", "Source": "/m", "Target": "/models", "ReadOnly": True}]
    assert host["PortBindings"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "20001"}]}
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (1 << 30, 1 << 30, 7)
    assert (host["CpuQuota"], host["CpuPeriod"], host["CpusetCpus"]) == (150_000, 100_000, "0-3")
    assert host["Ulimits"] == [{"Name": "nofile", "Hard": 99, "Soft": 99}]
    assert host["DeviceRequests"] == [{"DeviceIDs": ["GPU-a"], "Capabilities": [["gpu"]]}]


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("web", ("web", "latest")),
        ("web:1", ("web", "1")),
        ("box:5000/web", ("box:5000/web", "latest")),
        ("box:5000/web:1", ("box:5000/web", "1")),
        ("box:5000/web@sha256:ab", ("box:5000/web", "sha256:ab")),
    ],
)
def test_docker_is_asked_for_one_tag(image: str, parts: tuple[str, str]) -> None:
    assert name_and_tag(image) == parts


def test_frames_are_put_together_from_any_pieces() -> None:
    sent = b"\x01\0\0\0\0\0\0\x05hello\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x02ab\x01\0"
    for size in range(1, len(sent)):
        frames = Frames()
        pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
        assert [text for piece in pieces for text in frames.feed(piece)] == [b"hello", b"", b"ab"]


def test_output_goes_on_behind_what_was_taken() -> None:
    """docker gives all from a time on, that time included; several messages may have the same."""
    early, late = b"2026-12-01T12:00:00.000000001Z", b"2026-12-01T12:00:00.000000002Z"
    first = Taken().again()
    assert first.since == {}
    assert [first.text(early + b" a\n"), first.text(late + b" b"), first.text(late + b" c\n")] == [
        b"a\n",
        b"b",
        b"c\n",
    ]
    heir = Taken(str(first.taken)).again()
    assert heir.since == {"since": "1796126400.000000002"}
    assert [heir.text(late + b" b"), heir.text(late + b" c\n"), heir.text(late + b" d")] == [None, None, b"d"]
    assert str(heir.taken) == f"{late.decode()} 3"
    assert seconds("2026-12-01T12:00:00Z") == "1796126400.0"


@pytest.mark.parametrize(
    ("declared", "probe"),
    [
        (None, None),
        ({"Test": ["NONE"]}, None),
        ({"Interval": 1}, None),
        (
            {"Test": ["CMD", "check", "-x"]},
            Probe(exec=("check", "-x"), period=30.0, timeout=30.0),
        ),
        (
            {"Test": ["CMD-SHELL", "a | b"], "Interval": 5 * 10**8, "Timeout": 2 * 10**9, "Retries": 7},
            Probe(exec=("/bin/sh", "-c", "a | b"), period=0.5, timeout=2.0, failures=7),
        ),
    ],
)
def test_an_images_check_is_a_probe_and_outlives_the_daemon(
    declared: dict | None, probe: Probe | None
) -> None:
    assert probe_of(declared) == probe
    assert from_label(to_label(probe)) == probe
    assert spec()["healthconfig"] == docker_spec(REQUEST, "abc", Place())["Healthcheck"] == {"Test": ["NONE"]}

"""Before there is a process: what a start needs is gathered, and what is missing is said."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stoker.errors import WorkerError
from stoker.model.action import StartReplica
from stoker.model.device import Reservation
from stoker.model.service import Command, Probe, Probes, PythonTarget, ServiceSpec
from stoker.runtime.addresses import WorkerPorts, is_free
from stoker.runtime.launcher import Launcher

SPEC = ServiceSpec(
    deployment="rag",
    name="infer",
    launch=Command(("serve", "--port", "{port}", "--up", "{url:tokenize}", "--gpu", "{devices}")),
    working_dir="/",
    depends=("tokenize",),
)
START = StartReplica(replica="infer-k3x9", service="rag/infer", revision="r")


def launcher(tmp_path, **options) -> Launcher:
    return Launcher(
        instance="1234",
        state_dir=str(tmp_path),
        environ={"DAEMON_ONLY": "x", "http_proxy": "http://proxy"},
        url=lambda key: f"http://{key}",
        ports=WorkerPorts(),
        **options,
    )


def test_a_request_is_complete_and_isolated(tmp_path):
    action = replace(START, reservations=(Reservation(uuid="GPU-1"), Reservation(uuid="GPU-2")))
    request = launcher(tmp_path).prepare(replace(SPEC, inherit_env=("http_proxy",)), action)
    port = request.endpoint.rpartition(":")[2]
    assert request.argv == ("serve", "--port", port, "--up", "http://rag/tokenize", "--gpu", "GPU-1,GPU-2")
    assert request.environ["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-2"
    assert request.environ["STOKER_ID"] == request.mark == "1234:rag/infer:infer-k3x9"
    assert request.environ["http_proxy"] == "http://proxy"
    assert "DAEMON_ONLY" not in request.environ
    assert request.environ["PATH"].startswith(str(Path(sys.executable).parent))
    assert request.log_path == str(tmp_path / "logs" / "rag" / "infer" / "infer-k3x9.log")


def test_a_python_target_is_served_by_this_interpreter(tmp_path):
    request = launcher(tmp_path).prepare(replace(SPEC, launch=PythonTarget("app:make")), START)
    assert request.argv[:4] == (sys.executable, "-m", "stoker.asgi", "app:make")


def test_a_worker_on_a_unix_socket_listens_among_its_own_files(tmp_path):
    spec = replace(SPEC, listen="unix", launch=Command(("serve", "{socket}")), envs=(("TMPDIR", "/scratch"),))
    made = launcher(tmp_path)
    request = made.prepare(spec, START)
    assert request.argv == ("serve", f"{request.tmp_dir}/http")
    assert request.endpoint == f"unix:{request.tmp_dir}/http"
    assert request.environ["SOCKET"] == f"{request.tmp_dir}/http"
    assert request.environ["TMPDIR"] == "/scratch"
    made.release(request.endpoint)
    made.adopt(request.endpoint)
    served = made.prepare(replace(spec, launch=PythonTarget("app:make")), START)
    assert served.argv[4:] == ("--socket", served.environ["SOCKET"])
    assert served.endpoint != request.endpoint


def test_a_path_that_no_socket_can_have_is_told(tmp_path):
    spec = replace(SPEC, listen="unix", launch=Command(("serve", "{socket}")))
    with pytest.raises(WorkerError, match="is too long for a unix socket; give the service a shorter name"):
        launcher(tmp_path).prepare(spec, replace(START, replica="x" * 100))


def test_a_secret_is_read_and_shown_nowhere_but_in_the_environment(tmp_path):
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "hf-token").write_text("s3cret\n")
    request = launcher(tmp_path).prepare(replace(SPEC, secrets=("hf-token",)), START)
    assert request.environ["HF_TOKEN"] == "s3cret"
    assert "s3cret" not in repr(request)
    assert "s3cret" not in request.redacted()


def test_a_missing_secret_says_where_it_belongs(tmp_path):
    with pytest.raises(
        WorkerError, match=r"secret 'hf-token' of infer is missing: put a file of that name into .*secrets"
    ):
        launcher(tmp_path).prepare(replace(SPEC, secrets=("hf-token",)), START)


def test_an_unknown_user_is_permanent(tmp_path):
    with pytest.raises(WorkerError, match="there is no user 'nobody-at-all'") as failure:
        launcher(tmp_path).prepare(replace(SPEC, user="nobody-at-all"), START)
    assert failure.value.permanent


def test_the_notify_socket_is_opened_for_the_workers_user(tmp_path):
    opened = []

    def open_notify(replica: str, uid: int) -> str:
        opened.append((replica, uid))
        return "/run/notify"

    spec = replace(SPEC, probes=Probes(startup=Probe(notify=True)))
    request = launcher(tmp_path, open_notify=open_notify).prepare(spec, START)
    assert request.environ["NOTIFY_SOCKET"] == "/run/notify"
    assert opened == [("infer-k3x9", os.getuid())]


def test_a_start_that_cannot_be_filled_in_gives_its_port_back(tmp_path):
    port = next(port for port in range(16000, 18000) if is_free("127.0.0.1", port))
    ports = WorkerPorts(range(port, port + 1))
    made = Launcher(instance="i", state_dir=str(tmp_path), environ={}, url=lambda key: "", ports=ports)
    broken = replace(SPEC, launch=Command(("x", "{env:NOT_THERE}")))
    for _ in range(2):
        with pytest.raises(WorkerError, match="NOT_THERE") as failure:
            made.prepare(broken, START)
        assert failure.value.permanent

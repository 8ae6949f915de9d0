"""A worker sees what was declared for it and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.decide.environment import Account, fill, reserved, variable_name, worker_environment
from stoker.model.service import Command, Probe, Probes, ServiceSpec

CUDA = {"CUDA_VISIBLE_DEVICES": "", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
ALWAYS = {
    "PATH", "HOME", "USER", "LANG", "TMPDIR", "PORT", "STOKER_DEPLOYMENT", "STOKER_SERVICE", "STOKER_REPLICA",
    "STOKER_ID", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER",
}  # fmt: skip


def spec_of(**changes):
    return ServiceSpec(
        deployment="rag", name="infer", launch=Command(("run", "{port}")), working_dir="/srv", **changes
    )


def environment_of(spec, **changes):
    given = {
        "replica": "infer-1",
        "port": 4000,
        "mark": "box:rag/infer:infer-1",
        "urls": {},
        "secrets": {},
        "daemon_environ": {},
        "account": Account(user="svc", home="/home/svc"),
        "base_path": "/usr/bin:/bin",
        "cuda": CUDA,
        "notify_socket": None,
    }
    return worker_environment(spec, **(given | changes))


def filled(*argv, **changes):
    given = {
        "port": 4000,
        "replica": "infer-1",
        "service": "infer",
        "urls": {"tok-en": "http://127.0.0.1:8001"},
        "devices": "GPU-a,GPU-b",
        "environ": {"MODEL": "/m", "HF_TOKEN": "hunter2"},
    }
    return fill(argv, **(given | changes))


def test_a_bare_service_gets_exactly_the_names_of_the_contract():
    found = environment_of(spec_of(), daemon_environ={"EDITOR": "vi", "HOME": "/root", "PATH": "/opt"})
    assert set(found) == ALWAYS
    assert found["HOME"] == "/home/svc"
    assert found["USER"] == "svc"
    assert found["PATH"] == "/usr/bin:/bin"
    assert found["PORT"] == "4000"
    assert found["STOKER_ID"] == "box:rag/infer:infer-1"
    assert (found["STOKER_DEPLOYMENT"], found["STOKER_SERVICE"], found["STOKER_REPLICA"]) == (
        "rag", "infer", "infer-1",
    )  # fmt: skip
    assert found["CUDA_VISIBLE_DEVICES"] == ""


def test_dependencies_secrets_and_inherited_names_arrive():
    spec = spec_of(inherit_env=("http_proxy", "NOT_SET"), secrets=("hf-token",), depends=("tok.en-1",))
    found = environment_of(
        spec,
        urls={"tok.en-1": "http://127.0.0.1:8001"},
        secrets={"hf-token": "hunter2"},
        daemon_environ={"http_proxy": "http://proxy:3128", "https_proxy": "x"},
    )
    assert found["STOKER_URL_TOK_EN_1"] == "http://127.0.0.1:8001"
    assert found["HF_TOKEN"] == "hunter2"
    assert found["http_proxy"] == "http://proxy:3128"
    assert set(found) - ALWAYS == {"STOKER_URL_TOK_EN_1", "HF_TOKEN", "http_proxy"}


def test_declared_beats_inherited_and_defaults_and_never_what_is_stokers():
    spec = spec_of(
        inherit_env=("LOG_LEVEL", "PATH", "STOKER_SOCKET"),
        envs=(
            ("CUDA_VISIBLE_DEVICES", "0,1"),
            ("LOG_LEVEL", "debug"),
            ("NOTIFY_SOCKET", "/run/systemd/notify"),
            ("PORT", "1"),
            ("STOKER_ID", "forged"),
            ("STOKER_URL_OTHER", "http://nowhere"),
            ("TMPDIR", "/scratch"),
        ),
    )
    daemon = {"LOG_LEVEL": "info", "PATH": "/opt/bin", "STOKER_SOCKET": "/run/s.sock"}
    found = environment_of(spec, daemon_environ=daemon)
    assert found["LOG_LEVEL"] == "debug"
    assert found["PATH"] == "/opt/bin"
    assert found["TMPDIR"] == "/scratch"
    assert found["CUDA_VISIBLE_DEVICES"] == ""
    assert found["PORT"] == "4000"
    assert found["STOKER_ID"] == "box:rag/infer:infer-1"
    assert set(found) - ALWAYS == {"LOG_LEVEL"}


def test_a_worker_on_a_unix_socket_is_told_a_path_and_no_port():
    found = environment_of(spec_of(listen="unix"), socket="/tmp/w/http")
    assert found["SOCKET"] == "/tmp/w/http"
    assert "PORT" not in found
    assert "SOCKET" not in environment_of(spec_of())


def test_the_notify_socket_is_only_for_services_that_notify():
    notifying = spec_of(probes=Probes(startup=Probe(notify=True)))
    asking = spec_of(probes=Probes(startup=Probe(http="/readyz")))
    assert environment_of(notifying, notify_socket="/run/n.sock")["NOTIFY_SOCKET"] == "/run/n.sock"
    assert "NOTIFY_SOCKET" not in environment_of(asking, notify_socket="/run/n.sock")
    assert "NOTIFY_SOCKET" not in environment_of(notifying, notify_socket=None)


names = st.text("ABCXYZ_abc", min_size=1, max_size=6) | st.sampled_from([*sorted(ALWAYS), "NOTIFY_SOCKET"])
environments = st.dictionaries(names, st.text(max_size=5).map(lambda text: f"daemon:{text}"), max_size=12)


@given(daemon=environments, listed=st.sets(names, max_size=4), declared=environments)
def test_nothing_of_the_daemon_reaches_a_worker_unless_it_is_listed(daemon, listed, declared):
    envs = tuple(sorted((name, value.replace("daemon:", "file:")) for name, value in declared.items()))
    found = environment_of(spec_of(inherit_env=tuple(listed), envs=envs), daemon_environ=daemon)
    leaked = {name for name, value in found.items() if value.startswith("daemon:")}
    assert leaked == {name for name in listed & set(daemon) if not reserved(name)} - set(declared)
    assert set(found) <= ALWAYS | set(declared) | (listed & set(daemon))
    assert not any(found[name].startswith(("daemon:", "file:")) for name in found if reserved(name))


def test_names_become_variables():
    assert variable_name("hf-token") == "HF_TOKEN"
    assert variable_name("a.b c") == "A_B_C"


def test_placeholders_are_filled_anywhere_in_a_word():
    argv = ("--listen=127.0.0.1:{port}", "{replica}.{service}", "{url:tok-en}/v1", "{devices}", "{env:MODEL}")
    assert filled(*argv) == (
        "--listen=127.0.0.1:4000",
        "infer-1.infer",
        "http://127.0.0.1:8001/v1",
        "GPU-a,GPU-b",
        "/m",
    )


@pytest.mark.parametrize(
    "word", ['{"a":{"b":[1]}}', "x{3}", "{}", "{{}}", "{{ name }}", "${HOME}", "a}}b{{", "{ port }"]
)
def test_other_braces_stay(word):
    assert filled(word) == (word,)


def test_doubled_braces_escape_a_placeholder():
    assert filled("{{port}}", "{{url:tok-en}}", "{{{port}}}") == ("{port}", "{url:tok-en}", "{{port}}")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("{prot}", r"\{prot\} is no placeholder; there are \{port\}"),
        ("{port:1}", r"\{port:1\} is no placeholder"),
        ("{url}", r"\{url\} is no placeholder; .*\{url:NAME\}"),
        ("{url:nobody}", r"depends on tok-en"),
        ("{env:NOBODY}", r"has the variables HF_TOKEN, MODEL"),
    ],
)
def test_unknown_placeholders_say_what_there_is(word, message):
    with pytest.raises(ValueError, match=message):
        filled(word)


def test_a_secret_never_reaches_the_command_line():
    with pytest.raises(ValueError, match="would put a secret on the command line") as caught:
        filled("--token={env:HF_TOKEN}", secrets=("hf-token",))
    assert "hunter2" not in str(caught.value)


@given(st.text(max_size=30))
def test_text_without_braces_is_never_changed(text):
    word = text.replace("{", "").replace("}", "")
    assert filled(word) == (word,)

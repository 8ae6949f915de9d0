"""What a file means: the values of a service's spec, their defaults and what is derived."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from config.conftest import Box, document
from stoker.model.service import (
    BoxSpec,
    Command,
    Drain,
    Endpoint,
    Limits,
    LogRules,
    PolicySpec,
    Probe,
    Probes,
    Resources,
    Restart,
    Scaling,
    ServiceSpec,
    Traffic,
    Update,
)

Web = Callable[..., ServiceSpec]
GI = 2**30


def test_a_bare_service_has_the_defaults_of_the_model(web: Web, box: Box) -> None:
    spec = web()
    assert spec == ServiceSpec(
        deployment="stoker", name="web", launch=Command(("run",)), working_dir=str(box.folder)
    )


def test_everything_at_once(web: Web, box: Box) -> None:
    spec = web(
        "command: [python, serve.py, --port, '{port}', 8000, true, 1.10]",
        "working_dir: /srv",
        "resources: {gpu: 0.25, gpu_type: h100, gpu_memory: 40Gi, cpu: 500m, memory: 16Gi, devices: [GPU-a]}",
        "priority: -3",
        "preempt: true",
        "scaling:",
        "  min_replicas: 0",
        "  max_replicas: 8",
        "  policy: {metric: concurrency, target: 4, scale_up_stabilization_window: 1m30s, window: 10s}",
        "traffic: {concurrency: 4, timeout: 90, max_queue: 0, max_concurrency: 9, protocol: grpc,",
        "  retry: never}",
        "slo: {wait: 250ms}",
        "standby: 2",
        "envs: {B: b, A: a}",
        "secrets: [hf-token]",
        "inherit_env: [http_proxy]",
        "probes:",
        "  startup: {notify: true, timeout: 5m, period: 2}",
        "  readiness: {tcp: true}",
        "  liveness: {exec: 'check --now', period: 7s, timeout: 2, failures: 9}",
        "update: {strategy: RollingUpdate, max_surge: 25%, max_unavailable: 30%}",
        "drain: {timeout: 2m, signal: int, grace: 3}",
        "restart: {backoff: 500ms, max_backoff: 9, crash_loop: 2}",
        "limits: {nofile: 1024, pids: 64, memory: 2Gi, cpu: 1500m}",
        "user: svc",
        "group: crew",
        'umask: "0027"',
        "endpoint: {host: 0.0.0.0, port: 8001}",
        "logs: {max_size: 1Mi, keep: 9}",
        "backend: systemd",
        "hold: true",
    )
    assert spec == ServiceSpec(
        deployment="stoker",
        name="web",
        launch=Command(("python", "serve.py", "--port", "{port}", "8000", "true", "1.10")),
        working_dir="/srv",
        resources=Resources(
            gpu=0.25, gpu_type="h100", gpu_memory=40 * GI, cpu=0.5, memory=16 * GI, devices=("GPU-a",)
        ),
        scaling=Scaling(
            min_replicas=0,
            max_replicas=8,
            policies=(
                PolicySpec(target=4.0, scale_up_stabilization_window=90.0, params=(("window", 10.0),)),
            ),
        ),
        traffic=Traffic(
            concurrency=4, timeout=90.0, max_queue=0, max_concurrency=9, protocol="grpc", retry="never"
        ),
        probes=Probes(
            startup=Probe(notify=True, period=2.0),
            readiness=Probe(tcp=True),
            liveness=Probe(exec=("check", "--now"), period=7.0, timeout=2.0, failures=9),
            startup_timeout=300.0,
        ),
        update=Update(max_surge=2, max_unavailable=2, surge_share=25, unavailable_share=30),
        drain=Drain(timeout=120.0, signal=2, grace=3.0),
        restart=Restart(backoff=0.5, max_backoff=9.0, crash_loop=2),
        limits=Limits(nofile=1024, pids=64, memory=2 * GI, cpu=1.5),
        endpoint=Endpoint(host="0.0.0.0", port=8001),
        logs=LogRules(max_size=2**20, keep=9),
        envs=(("A", "a"), ("B", "b")),
        secrets=("hf-token",),
        inherit_env=("http_proxy",),
        priority=-3,
        preempt=True,
        standby=2,
        slo_wait=0.25,
        user="svc",
        group="crew",
        umask=0o027,
        backend="systemd",
        held=True,
    )


@pytest.mark.parametrize(
    ("scaling", "bounds"),
    [
        ("{}", (1, 1)),
        ("{min_replicas: 3}", (3, 3)),
        ("{min_replicas: 0}", (0, 1)),
        ("{max_replicas: 4}", (1, 4)),
        ("{max_replicas: 0}", (0, 0)),
        ("{min_replicas: 2, max_replicas: 5}", (2, 5)),
    ],
)
def test_bounds(web: Web, scaling: str, bounds: tuple[int, int]) -> None:
    found = web(f"scaling: {scaling}").scaling
    assert (found.min_replicas, found.max_replicas) == bounds
    assert found.policies == (PolicySpec(),)


@pytest.mark.parametrize(
    ("update", "surge", "unavailable"),
    [
        ("{}", 1, 0),
        ("{max_surge: 25%}", 2, 0),
        ("{max_surge: 0, max_unavailable: 25%}", 0, 1),
        ("{max_surge: 100%, max_unavailable: 3}", 5, 3),
        ("{strategy: Recreate}", 0, 5),
        ("{strategy: RampedSlowRollout}", 1, 0),
        ("{strategy: BestEffortControlledRollout}", 0, 1),
        ("{strategy: BestEffortControlledRollout, max_surge: 2}", 2, 1),
    ],
)
def test_updates_of_five_replicas(web: Web, update: str, surge: int, unavailable: int) -> None:
    found = web("scaling: {max_replicas: 5}", f"update: {update}").update
    assert (found.max_surge, found.max_unavailable) == (surge, unavailable)


def test_a_strategys_own_share_never_comes_to_nothing(web: Web) -> None:
    found = web("scaling: {max_replicas: 2}", "update: {strategy: BestEffortControlledRollout}").update
    assert (found.max_surge, found.max_unavailable) == (0, 1)


def test_startup_without_a_question_is_only_a_time(web: Web) -> None:
    assert web("probes: {startup: {timeout: 5m}}").probes == Probes(startup_timeout=300.0)
    assert web("probes: {startup: {http: /up}}").probes == Probes(startup=Probe(http="/up"))


def test_several_policies(web: Web) -> None:
    policies = web(
        "scaling:",
        "  policy:",
        "    - {target: 2}",
        "    - {metric: utilization, target: 0.7, tolerance: 0.2}",
        "    - {metric: own, rule: '9-17', strict: true}",
    ).scaling.policies
    assert policies == (
        PolicySpec(target=2.0),
        PolicySpec(metric="utilization", target=0.7, params=(("tolerance", 0.2),)),
        PolicySpec(metric="own", params=(("rule", "9-17"), ("strict", True))),
    )


def test_dependencies_keep_their_order_once_each(box: Box) -> None:
    box.write(
        "stoker.yaml",
        "services:\n  b: {command: run}\n  a: {command: run}\n"
        "  web: {command: 'run {url:b} {env:STOKER_URL_A}', depends: [b, a, b]}\n",
    )
    desired = box.load().desired
    spec = desired.services["stoker/web"]
    assert spec.depends == ("b", "a")
    assert [other.name for other in desired.dependencies(spec)] == ["b", "a"]


TYPES = [
    "instance_types:",
    "  gpu.big: {gpu: 1, gpu_type: a100, gpu_memory: 80Gi, cpu: 8, memory: 64Gi}",
    "  gpu.l4: {cpu: 4}",
    "  share: {gpu: 0.5, gpu_memory: 8Gi}",
]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["instance_type: cpu.small"], Resources(cpu=0.5, memory=2 * GI)),
        (["instance_type: cpu.8"], Resources(cpu=4.0, memory=16 * GI)),
        (["instance_type: cpu.16"], Resources(cpu=8.0, memory=32 * GI)),
        (["instance_type: gpu.any"], Resources(gpu=1.0)),
        (["instance_type: gpu.h100.80g"], Resources(gpu=1.0, gpu_type="h100.80g")),
        (["instance_type: gpu.t4.1"], Resources(gpu=1.0, gpu_type="t4")),
        (["instance_type: gpu.a100.40g.4"], Resources(gpu=4.0, gpu_type="a100.40g")),
        (["instance_type: gpu.mig.1g.10gb"], Resources(gpu=1.0, gpu_type="mig.1g.10gb")),
        (["instance_type: gpu.mig.3g.40gb.1"], Resources(gpu=1.0, gpu_type="mig.3g.40gb")),
        (["instance_type: gpu.h200.141g"], Resources(gpu=1.0, gpu_type="h200.141g")),
        (["instance_type: gpu.t4.16g.2"], Resources(gpu=2.0, gpu_type="t4.16g")),
        (["instance_type: gpu.rtxpro6000"], Resources(gpu=1.0, gpu_type="rtxpro6000blackwell")),
        (["instance_type: gpu.h100.nvl.2"], Resources(gpu=2.0, gpu_type="h100.nvl")),
        (["instance_type: gpu.l4"], Resources(gpu=1.0, gpu_type="l4", cpu=4.0)),
        (["instance_type: share"], Resources(gpu=0.5, gpu_memory=8 * GI)),
        (
            ["instance_type: gpu.big.2", "resources: {memory: 9Gi}"],
            Resources(gpu=2.0, gpu_type="a100", gpu_memory=80 * GI, cpu=16.0, memory=9 * GI),
        ),
        (["instance_type: gpu.l4", "resources: {gpu: 0}"], Resources(cpu=4.0)),
    ],
)
def test_instance_types_lie_under_resources(web: Web, lines: list[str], expected: Resources) -> None:
    assert web(*lines, before=TYPES).resources == expected


@pytest.mark.parametrize(
    "name",
    [
        "share.2",
        "cpu.small.2",
        "gpu.mig",
        "gpu.mig.1g.10gb.2",
        "gpu.l4.65",
        "gpu.any.80g",
        "gpu.l4.-1",
        "gpu.l4.x",
        "gpu",
        "",
    ],
)
def test_unknown_instance_types(box: Box, name: str) -> None:
    box.write("stoker.yaml", document(f"instance_type: '{name}'", before=TYPES))
    (problem,) = box.problems()
    assert "instance_type: " in problem


def test_the_box_and_several_files(box: Box) -> None:
    box.write("a.yaml", document(before=["box: {idle: fill}"]))
    box.write("b.yaml", document(before=["box: {router: haproxy}"]))
    assert box.load("a.yaml", "b.yaml").desired.box == BoxSpec(idle="fill", router="haproxy")


def test_what_has_no_effect_is_noticed(box: Box) -> None:
    box.write("stoker.yaml", document("envs: {PORT: 1, HF_TOKEN: x}", "secrets: [hf-token]"))
    assert box.load().notices == (
        "stoker: services.web.envs.PORT has no effect: Stoker sets this variable itself",
        "stoker: services.web.envs.HF_TOKEN has no effect: the secret hf-token takes its place",
    )


def test_a_misspelt_secret_is_noticed(box: Box) -> None:
    box.write("stoker.yaml", document("secrets: [hf-tokn, other]", before=["secrets: [hf-token]"]))
    assert box.load().notices == (
        "stoker: services.web.secrets: hf-tokn is not among the file's `secrets`; is hf-token meant?",
    )


def test_a_service_may_be_named_as_bentoml_names_them(box: Box) -> None:
    box.write("stoker.yaml", "services: {IrisClassifier_2: {command: run}}")
    assert list(box.load().desired.services) == ["stoker/IrisClassifier_2"]


def test_a_promised_wait_chooses_the_policy_that_keeps_it(web: Callable[..., ServiceSpec]) -> None:
    bounds = "scaling: {min_replicas: 1, max_replicas: 4}"
    (rule,) = web("slo: {wait: 2s}", bounds).scaling.policies
    assert (rule.metric, rule.scale_down_stabilization_window) == ("foresight", 0.0)
    (own,) = web("slo: {wait: 2s}", "scaling: {max_replicas: 4, policy: {metric: queue}}").scaling.policies
    assert (own.metric, own.scale_down_stabilization_window) == ("queue", 60.0)
    (none,) = web(bounds).scaling.policies
    assert none.metric == "concurrency"


def test_policies_that_time_themselves_have_no_window_unless_it_is_written(
    web: Callable[..., ServiceSpec],
) -> None:
    for written, expected in (("", 0.0), (", scale_down_stabilization_window: 30", 30.0)):
        (rule,) = web(f"scaling: {{max_replicas: 4, policy: {{metric: hpa{written}}}}}").scaling.policies
        assert rule.scale_down_stabilization_window == expected

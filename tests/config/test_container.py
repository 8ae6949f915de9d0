"""Services in containers: what the file may say, and what it means."""

import pytest

from stoker.model.service import Command, Container, revision

IMAGE = "services: {web: {image: 'ghcr.io/org/web:1'%s}}"


def test_an_image_runs_its_own_command_by_podman(box) -> None:
    spec = box.service(IMAGE % "")
    assert spec.container == Container(image="ghcr.io/org/web:1")
    assert (spec.launch, spec.backend, spec.working_dir) == (Command(()), "podman", "")
    assert "{port}" in spec.placeholders  # so that it is ready when its port answers


def test_a_command_may_lie_over_an_image_and_over_another_layers(box) -> None:
    spec = box.service(IMAGE % ", command: 'serve {port}', working_dir: /app")
    assert (spec.launch, spec.working_dir) == (Command(("serve", "{port}")), "/app")
    box.write("stoker.gpu.yaml", "services: {web: {command: other}}")
    spec = box.service(IMAGE % "", profile="gpu")
    assert (spec.launch, spec.container.image) == (Command(("other",)), "ghcr.io/org/web:1")
    box.write("app.py", "async def app(scope, receive, send): ...")
    box.write("stoker.gpu.yaml", "services: {web: {python: 'app:app'}}")
    assert box.service(IMAGE % "", profile="gpu").container.image == ""


def test_the_files_backend_is_that_of_services_that_name_none(box) -> None:
    text = "backend: podman\nservices: {web: {command: a}, other: {command: b, backend: systemd}}"
    assert box.service(text).backend == "podman"
    assert box.service(text, "other").backend == "systemd"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (", python: 'app:app'", "services.web.image: an image runs its own command or `command`"),
        (", backend: process", "services.web.image: backend process runs no images; say backend: podman"),
        (", container: {port: 80}", "services.web.container.port: is for network: bridge"),
        (", container: {mounts: [models:/m]}", "must be SOURCE:TARGET"),
        (", container: {network: none}", "services.web.container.network"),
    ],
)
def test_what_makes_no_sense_is_refused(box, more: str, said: str) -> None:
    box.write("stoker.yaml", IMAGE % more)
    problems = box.problems()
    assert [one for one in problems if said in one], problems


def test_a_dependency_on_the_boxs_own_address_is_told(box) -> None:
    text = (
        "services:\n  api: {command: a}\n"
        "  web: {image: x, depends: [api], container: {network: bridge, port: 80}}\n"
    )
    box.write("stoker.yaml", text)
    assert [one for one in box.load().notices if "services.api.endpoint.host to 0.0.0.0" in one]
    box.write("stoker.yaml", text.replace("command: a", "command: a, endpoint: {host: 0.0.0.0}"))
    assert not [one for one in box.load().notices if "bridge" in one]


def test_only_a_container_that_differs_makes_a_new_revision(box) -> None:
    plain = box.service("services: {web: {command: serve}}")
    assert revision(plain) == revision(box.service("services: {web: {command: serve, container: {}}}"))
    one, other = (box.service(IMAGE.replace(":1", tag) % "") for tag in (":1", ":2"))
    assert revision(one) != revision(other)

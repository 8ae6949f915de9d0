"""Services whose replicas listen on unix sockets: what the file may say."""

from __future__ import annotations

import pytest

from config.conftest import Box, document
from stoker.model.service import revision

S = "stoker.yaml:%s: services.web."


def test_a_unix_socket_is_chosen_by_the_file(box: Box) -> None:
    plain = box.service(document("command: run {port}"))
    assert (plain.listen, plain.told_where) == ("port", True)
    unix = box.service(document("command: run {socket}", "listen: unix"))
    assert (unix.listen, unix.told_where) == ("unix", True)
    assert not box.service(document("command: run", "listen: unix")).told_where
    quiet = box.service(document("command: run"))
    assert revision(quiet) != revision(box.service(document("command: run", "listen: unix")))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("command: run {port}", "listen: unix"), S % "3:14" + "command: there is no {port}: this service"),
        (("command: run {env:PORT}", "listen: unix"), S % "3:14" + "command: there is no PORT: this service"),
        (("command: run {env:SOCKET}",), S % "3:14" + "command: {env:SOCKET} needs SOCKET in `envs`"),
        (("command: run", "listen: tcp"), S % "4:13" + "listen: must be "),
        (
            ("image: x", "listen: unix"),
            S % "5:13" + "listen: workers of backend podman have a /tmp of their own",
        ),
        (
            ("command: run", "backend: systemd", "listen: unix"),
            S % "5:13" + "listen: workers of backend systemd have a /tmp of their own",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(box: Box, lines: tuple[str, ...], said: str) -> None:
    box.write("stoker.yaml", document(*lines))
    problems = box.problems()
    assert len(problems) == 1, problems
    assert problems[0].startswith(said), problems


def test_the_variable_of_the_path_may_stand_in_a_command(box: Box) -> None:
    assert box.service(document("command: run {env:SOCKET}", "listen: unix")).listen == "unix"


def test_a_bento_listens_on_a_port(box: Box) -> None:
    box.write("stoker.yaml", "bento: service:Root\nservices: {Root: {listen: unix}}\n")
    assert [one for one in box.problems() if "services.Root.listen: a bento listens on a port" in one]

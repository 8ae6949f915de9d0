"""Finding and reading files: several, directories, profiles, drop-ins, and what can be wrong with them."""

from __future__ import annotations

import os
import time

import pytest

from config.conftest import Box, document
from stoker.config.load import LoadError, load, watch_paths

RUN = "services: {web: {command: run}}\n"


def test_each_main_file_is_one_deployment_named_by_its_stem(box: Box) -> None:
    box.write("one.yaml", RUN)
    box.write("sub/two.yml", RUN)
    config = box.load("one.yaml", "sub/two.yml", "./one.yaml")
    assert list(config.desired.services) == ["one/web", "two/web"]
    assert config.files == ("one.yaml", "sub/two.yml")


def test_a_directory_means_its_files_without_profiles(box: Box) -> None:
    for name in ("etc/b.yaml", "etc/a.yml", "etc/a.prod.yaml", "etc/v1.2.yaml", "etc/.c.yaml", "etc/d.txt"):
        box.write(name, RUN)
    assert list(box.load("etc").desired.services) == ["a/web", "b/web", "v1.2/web"]
    assert box.load("etc", profile="prod").files == (
        "etc/a.yml",
        "etc/b.yaml",
        "etc/v1.2.yaml",
        "etc/a.prod.yaml",
    )


def test_an_empty_directory_runs_nothing_and_says_so(box: Box) -> None:
    (box.folder / "etc").mkdir()
    config = box.load("etc")
    assert config.desired.services == {}
    assert config.notices == ("etc holds no *.yaml file: nothing to run",)


def test_working_dir_is_relative_to_the_file_that_says_it(box: Box) -> None:
    folders = {"b": "src", "c": "~/x", "d": "x"}
    lines = [f"  {name}: {{command: run, working_dir: {folder}}}" for name, folder in folders.items()]
    box.write("app/stoker.yaml", "\n".join(["services:", "  a: {command: run}", *lines]))
    box.write("app/conf.d/d.yaml", "services: {d: {working_dir: y}}")
    services = box.load("app/stoker.yaml", environ={"HOME": "/home/me"}).desired.services
    here = str(box.folder)
    assert {spec.name: spec.working_dir for spec in services.values()} == {
        "a": f"{here}/app",
        "b": f"{here}/app/src",
        "c": "/home/me/x",
        "d": f"{here}/app/conf.d/y",
    }


def test_profile_must_exist_somewhere(box: Box) -> None:
    box.write("a.yaml", RUN)
    box.write("b.yaml", RUN)
    box.write("b.big.yaml", "services: {web: {standby: 3}}")
    services = box.load("a.yaml", "b.yaml", profile="big").desired.services
    assert {key: spec.standby for key, spec in services.items()} == {"a/web": 0, "b/web": 3}
    message = "no file has a profile {0}; it would be a.{0}.yaml beside a.yaml"
    assert box.problems("a.yaml", "b.yaml", profile="huge") == ["a.yaml: " + message.format("huge")]
    assert box.problems("a.yaml", profile="../x") == ["a.yaml: " + message.format("../x")]


def test_drop_in_with_a_name_goes_to_that_deployment(box: Box) -> None:
    box.write("a.yaml", RUN)
    box.write("b.yaml", "name: bee\n" + RUN)
    box.write("conf.d/1.yaml", "name: bee\nservices: {web: {standby: 2}, extra: {command: run}}")
    box.write("conf.d/2.yaml", "services: {web: {priority: 5}}")
    services = box.load("a.yaml", "b.yaml").desired.services
    assert {key: (spec.standby, spec.priority) for key, spec in services.items()} == {
        "a/web": (0, 5),
        "bee/web": (2, 5),
        "bee/extra": (0, 0),
    }


def test_drop_in_for_nobody(box: Box) -> None:
    box.write("a.yaml", RUN)
    box.write("b.yaml", RUN)
    box.write("conf.d/1.yaml", "name: aa\nservices: {web: {standby: 2}}")
    box.write("conf.d/2.yaml", "services: {wob: {standby: 2}}")
    (problem,) = box.problems("a.yaml", "b.yaml")
    assert problem.startswith("conf.d/2.yaml:1:12: services.wob: no deployment has this service; add `name:`")
    box.write("conf.d/2.yaml", "# nothing\n")
    assert box.load("a.yaml", "b.yaml").notices == (
        "conf.d/1.yaml is for deployment aa, which is not loaded; did you mean a?",
    )


def test_a_broken_main_file_makes_no_drop_in_wrong(box: Box) -> None:
    box.write("a.yaml", RUN)
    box.write("b.yaml", "services: [")
    box.write("conf.d/1.yaml", "services: {of-b: {standby: 2}}")
    (problem,) = box.problems("a.yaml", "b.yaml")
    assert problem.startswith("b.yaml:1:12: not valid YAML")


def test_one_deployment_may_get_a_service_by_drop_in(box: Box) -> None:
    box.write("stoker.yaml", RUN)
    box.write("conf.d/1.yaml", "services: {extra: {command: run}}")
    assert list(box.load().desired.services) == ["stoker/web", "stoker/extra"]


def test_fault_in_a_drop_in_and_a_profile_names_these(box: Box) -> None:
    box.write("stoker.yaml", RUN)
    box.write("conf.d/1.yaml", "services: {web: {stanby: 2}}")
    box.write("stoker.big.yaml", "- a\n")
    assert box.problems(profile="big") == [
        "conf.d/1.yaml:1:18: services.web.stanby: unknown key; did you mean standby?",
        "stoker.big.yaml:1:1: must be a mapping of keys such as name, envs and services; found a list",
    ]


def test_missing_file(box: Box) -> None:
    assert box.problems() == ["stoker.yaml: no such file"]
    box.write("stoker.yml", RUN)
    assert box.problems() == ["stoker.yaml: no such file; did you mean stoker.yml?"]


def test_a_fault_in_one_file_hides_none_in_another(box: Box) -> None:
    box.write("a.yaml", document("stanby: 1"))
    assert box.problems("a.yaml", "b.yaml", environ={"STOKER__SERVICES__ELSEWHERE__STANDBY": "1"}) == [
        "a.yaml:4:5: services.web.stanby: unknown key; did you mean standby?",
        "b.yaml: no such file; did you mean a.yaml?",
    ]


def test_what_is_no_readable_file(box: Box) -> None:
    os.mkfifo(box.folder / "pipe.yaml")
    assert box.problems("pipe.yaml") == ["pipe.yaml: cannot be read: it is no regular file"]
    (box.folder / "bytes.yaml").write_bytes(b"name: a\nx: \xff\n")
    assert box.problems("bytes.yaml") == ["bytes.yaml:2:4: not valid UTF-8 text"]
    (box.folder / "loop.yaml").symlink_to("loop.yaml")
    assert box.problems("loop.yaml") == ["loop.yaml: cannot be read: Too many levels of symbolic links"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(box: Box) -> None:
    box.write("stoker.yaml", RUN).chmod(0)
    assert box.problems() == ["stoker.yaml: cannot be read: Permission denied"]


def test_ten_megabytes_are_refused_at_once(box: Box) -> None:
    box.write("stoker.yaml", "services: {}\n" + "a: b\n" * 2_100_000)
    begun = time.thread_time()
    assert box.problems() == [
        "stoker.yaml: cannot be read: it is too large: 10.0 MiB, a configuration may have 1 MiB"
    ]
    assert time.thread_time() - begun < 0.5


def test_byte_order_mark_is_skipped(box: Box) -> None:
    (box.folder / "stoker.yaml").write_bytes(b"\xef\xbb\xbf" + RUN.encode())
    assert list(box.load().desired.services) == ["stoker/web"]


def test_paths_to_watch_are_absolute_and_known_without_the_files(box: Box) -> None:
    here = str(box.folder)
    request = box.request("app/stoker.yaml", profile="big")
    expected = {
        f"{here}/app/stoker.yaml",
        f"{here}/app/conf.d",
        f"{here}/app/stoker.big.yaml",
        f"{here}/app/stoker.big.yml",
    }
    assert set(watch_paths(request)) == expected
    with pytest.raises(LoadError) as raised:
        load(request)
    assert set(raised.value.watch) == expected
    box.write("app/stoker.yaml", RUN)
    box.write("app/stoker.big.yaml", RUN)
    assert set(load(request).watch) == expected


def test_paths_to_watch_of_a_directory_and_a_link(box: Box) -> None:
    here = str(box.folder)
    box.write("real/a.yaml", RUN)
    box.write("etc/b.yaml", RUN)
    (box.folder / "etc/a.yaml").symlink_to("../real/a.yaml")
    assert set(watch_paths(box.request("etc"))) == {
        f"{here}/etc",
        f"{here}/etc/conf.d",
        f"{here}/etc/a.yaml",
        f"{here}/etc/b.yaml",
        f"{here}/real/a.yaml",
    }

"""The keys that say which GPUs a service may have."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from config.conftest import Box, document
from stoker.model.service import revision


def test_devices_are_named_by_index_or_uuid(web):
    spec = web("resources: {gpu: 1, gpu_type: a100, devices: [0, GPU-8f2c], exclude: [3], or_better: true}")
    assert spec.resources.devices == ("0", "GPU-8f2c")
    assert spec.resources.exclude == ("3",)
    assert (spec.resources.or_better, spec.resources.spread) == (True, False)


def test_a_wish_for_later_places_needs_no_new_workers(web):
    plain = web("resources: {gpu: 0.5}")
    resources = replace(plain.resources, spread=True, or_better=True)
    assert revision(replace(plain, resources=resources)) == revision(plain)
    barred = replace(plain, resources=replace(plain.resources, exclude=("1",)))
    assert revision(barred) != revision(plain)


def test_better_than_nothing_is_refused_at_its_place(box: Box):
    box.write("stoker.yaml", document("command: run", "resources: {gpu: 1, or_better: true}"))
    (problem,) = box.problems()
    assert re.search(r"stoker.yaml:\d+:\d+: services.web.resources.or_better: there is no gpu_type", problem)
    box.write(
        "stoker.yaml", document("command: run", "instance_type: gpu.h100", "resources: {or_better: true}")
    )
    assert box.problems() == []


@pytest.mark.parametrize(
    ("kind", "near"), [("h1000", "did you mean h100?"), ("quantum9", "`stoker instance-types` lists those")]
)
def test_a_gpu_type_that_nobody_knows_is_told_and_kept(kind: str, near: str, box: Box):
    box.write("stoker.yaml", document("command: run", f"resources: {{gpu: 1, gpu_type: {kind}}}"))
    effective = box.load()
    (notice,) = effective.notices
    assert re.search(rf"^stoker.yaml:\d+:\d+: services.web.resources.gpu_type: {kind} is no GPU type", notice)
    assert near in notice
    assert effective.desired.services["stoker/web"].resources.gpu_type == kind


@pytest.mark.parametrize(
    "kind", ["h100", "gpu.h100.80g", "H100.nvl", "rtx3090", "titanrtx", "any", "mig.1g.5gb", "rtxa6000"]
)
def test_gpu_types_that_are_known_are_no_news(kind: str, box: Box):
    box.write("stoker.yaml", document("command: run", f"resources: {{gpu: 1, gpu_type: {kind}}}"))
    assert box.load().notices == ()


def test_better_than_a_type_of_unknown_strength_is_told(box: Box):
    box.write(
        "stoker.yaml", document("command: run", "resources: {gpu: 1, gpu_type: rtx3090, or_better: true}")
    )
    (notice,) = box.load().notices
    assert "services.web.resources.or_better: has no effect: how strong a GPU of type rtx3090 is" in notice


def test_what_is_no_device_is_refused(box: Box):
    box.write("stoker.yaml", document("command: run", "resources: {gpu: 1, devices: [true]}"))
    (problem,) = box.problems()
    assert "must be a device's UUID or index, for example GPU-8f2c; found true" in problem


def test_what_the_file_says_of_the_box_bounds_what_is_guaranteed(box: Box):
    text = document("command: run", "resources: {cpu: 2, memory: 4Gi}", "scaling: {min_replicas: 3}")
    box.write("stoker.yaml", text + "box: {cpu: 4, memory: 64Gi}\n")
    (problem,) = box.problems()
    assert "min_replicas do not fit: box.cpu is 4 cores, and web 3 x 2 cores are guaranteed" in problem
    assert "services.web.scaling.min_replicas" in problem
    box.write("stoker.yaml", text + "box: {cpu: 6, memory: 12Gi}\n")
    assert box.problems() == []

"""nvitop and gpustat see the same box as Stoker, on every preset."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import pytest

from fakenvml.fixtures import fake_box
from fakenvml.others import disagreements, occupy
from stoker.plugin.ports import PluginContext
from stoker_nvidia.source import inventory_once

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.system,
    pytest.mark.skipif(
        not (find_spec("nvitop") and find_spec("gpustat")), reason="nvitop and gpustat are not installed"
    ),
]


@pytest.mark.parametrize("preset", ["8xh100", "4xa100", "1xh100", "2xt4", "a100-mig7", "mixed4"])
async def test_they_agree(preset, tmp_path):
    box = fake_box(preset, tmp_path)
    occupy(box)
    environ = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    context = PluginContext(instance="t", state_dir="/", runtime_dir="/", environ={**environ, **box.environ})
    told = await inventory_once(context)
    assert len(told.devices) >= 1
    assert disagreements(box, told, sys.executable) == {"nvitop": [], "gpustat": []}

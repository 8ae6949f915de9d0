"""Instance-type keys of real product names."""

from __future__ import annotations

import pytest

from stoker_nvidia.naming import type_key

MIB = 2**20


@pytest.mark.parametrize(
    ("name", "mib", "key"),
    [
        ("NVIDIA H100 80GB HBM3", 81559, "gpu.h100.80g"),
        ("NVIDIA H100 PCIe", 81559, "gpu.h100.80g.pcie"),
        ("NVIDIA H100 NVL", 95830, "gpu.h100.94g.nvl"),
        ("NVIDIA H200", 143771, "gpu.h200.141g"),
        ("NVIDIA B200", 183359, "gpu.b200.180g"),
        ("NVIDIA A100-SXM4-40GB", 40960, "gpu.a100.40g"),
        ("NVIDIA A100 80GB PCIe", 81920, "gpu.a100.80g.pcie"),
        ("NVIDIA A10G", 23028, "gpu.a10g.24g"),
        ("NVIDIA L40S", 46068, "gpu.l40s.48g"),
        ("Tesla T4", 15360, "gpu.t4.16g"),
        ("Tesla V100-SXM2-32GB", 32768, "gpu.v100.32g"),
        ("NVIDIA GeForce RTX 4090", 24564, "gpu.rtx4090.24g"),
        ("NVIDIA GeForce GTX 1660 SUPER", 6144, "gpu.gtx1660super.6g"),
        ("NVIDIA RTX A6000", 49140, "gpu.rtxa6000.48g"),
        ("NVIDIA RTX 6000 Ada Generation", 49140, "gpu.rtx6000ada.48g"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4864, "gpu.mig.1g.5gb"),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", 40448, "gpu.mig.3g.40gb"),
        ("NVIDIA GPU", 0, "gpu.unknown"),
    ],
)
def test_type_key(name, mib, key):
    assert type_key(name, mib * MIB) == key

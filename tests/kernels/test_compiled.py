"""The kernels of whole layers compiled for real GPUs, on a machine that needs to have none."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from adgan_fast.kernels import aot, gather, products, softmax, standardize

CASES = {case.name: case for module in (gather, products, softmax, standardize) for case in module.cases()}


@pytest.mark.parametrize(("name", "target"), [(name, target) for name in CASES for target in CASES[name].targets])
def test_every_specialisation_fits_its_gpu_without_spills_and_with_wide_accesses(name: str, target: str) -> None:
    case = CASES[name]
    resources = aot.compile_case(case, target)
    assert resources.spills == 0
    assert resources.registers <= 255
    assert resources.shared <= aot.TARGETS[target].shared_limit
    assert resources.wide_load_bytes >= case.wide_load_bytes
    assert resources.wide_store_bytes >= case.wide_store_bytes
    assert resources.tensor_core == case.tensor_core

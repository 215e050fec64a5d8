"""The kernels of vector maps compiled for real GPUs, on a machine that needs to have none."""

from __future__ import annotations

import re

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from adgan_fast.kernels import aot
from adgan_fast.kernels.maps import vector
from adgan_fast.kernels.maps.geometry import Geometry
from adgan_fast.kernels.maps.private import AdamConstants

CASES = {case.name: case for case in vector.cases()}


@pytest.mark.parametrize("target", aot.TARGETS)
@pytest.mark.parametrize("name", CASES)
def test_every_specialisation_fits_its_gpu_without_spills_and_with_wide_accesses(
    name: str, target: str, record_property
) -> None:
    case = CASES[name]
    resources = aot.compile_case(case, target)
    record_property("registers", resources.registers)
    record_property("shared", resources.shared)
    assert resources.spills == 0
    # 168 registers leave an SM of 65,536 twelve warps, with two rows of 512 bytes of each on their way at all times.
    longest = "update 8" in name
    assert 0 < resources.registers <= (255 if longest else 168)
    assert resources.shared <= 8192  # so that not it but the registers say how many blocks of a warp an SM holds
    if target.startswith("sm_"):  # AMD's 64 threads share what NVIDIA's 32 take in vectors of 16 bytes
        assert resources.wide_load_bytes >= case.wide_load_bytes
        assert resources.wide_store_bytes >= case.wide_store_bytes
    assert not resources.tensor_core


@pytest.mark.parametrize("target", [name for name in aot.TARGETS if name.startswith("sm_")])
def test_root_and_division_are_correctly_rounded_in_float32_alone(target: str) -> None:
    assembly = {
        p: aot.compile_case(CASES[f"vector forward {p}, update 3"], target).assembly for p in ("float32", "bf16")
    }
    assert "sqrt.rn.f32" in assembly["float32"] and "div.rn.f32" in assembly["float32"]
    assert not re.search(r"\b(?:sqrt\.approx|rsqrt|div\.full|div\.approx)\b", assembly["float32"])
    assert "sqrt.approx.ftz.f32" in assembly["bf16"] and "rsqrt.approx.ftz.f32" in assembly["bf16"]
    assert not re.search(r"\bdiv\.\w+\.f32\b|\bsqrt\.rn\b", assembly["bf16"])  # each eight instructions or more


@pytest.mark.parametrize("target", [name for name in aot.TARGETS if name.startswith("sm_")])
def test_first_update_takes_no_root(target: str) -> None:
    for precision in ("float32", "tf32"):
        assembly = aot.compile_case(CASES[f"vector forward {precision}, update 1"], target).assembly
        assert not re.search(r"(?<!r)sqrt\.", assembly)


def test_launches_pass_scalars_as_the_types_that_are_compiled() -> None:
    # A launch takes a scalar's type from the annotation (an unannotated float would be float32), and compiles anew for
    # integers that are 1 or multiples of 16 unless told not to. capacity is always such a multiple.
    for case in CASES.values():
        for param in case.kernel.params:
            if param.is_constexpr or case.signature[param.name].startswith("*"):
                continue
            if param.annotation_type == "fp64":
                assert case.signature[param.name] == "fp64"
            else:
                assert case.signature[param.name] == "i32"
                assert param.do_not_specialize != (param.name in case.aligned)


def test_compiled_kernels_refuse_cpu_tensors() -> None:
    with pytest.raises(RuntimeError, match="the tensors are on cpu, but Triton needs them on a GPU"):
        vector.VectorMap(
            Geometry.linear(1, 3, 4), torch.zeros(4, 3), pairs=1, steps=2, adam=AdamConstants(1e-4, 0.5, 0.999, 1e-8),
            precision="float32", device=torch.device("cpu"),
        )  # fmt: skip

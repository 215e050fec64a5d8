"""The kernels of private maps compiled for real GPUs, on a machine that needs to have none."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton is not installed")

from adgan_fast.kernels import aot  # noqa: E402
from adgan_fast.kernels.maps import choices as map_choices  # noqa: E402
from adgan_fast.kernels.maps import general as maps  # noqa: E402
from adgan_fast.kernels.maps.geometry import Geometry  # noqa: E402
from adgan_fast.kernels.maps.private import AdamConstants, Form  # noqa: E402

CASES = {case.name: case for case in maps.cases()}
ADAM = AdamConstants(5e-5, 0.5, 0.999, 1e-8)


# "tf32" takes fewer registers than "float32" with the same tiles: once is enough.
LAUNCHES = [(n, t) for n in CASES for t in CASES[n].targets if "tf32" not in n or t == "sm_90"]


@pytest.mark.parametrize(("name", "target"), LAUNCHES)
def test_every_launch_fits_its_gpu_without_spills_and_uses_matrix_units(
    name: str, target: str, record_property
) -> None:
    resources = aot.compile_case(CASES[name], target)
    record_property("registers", resources.registers)
    record_property("shared", resources.shared)
    assert resources.spills == 0
    assert resources.shared <= aot.TARGETS[target].shared_limit
    assert resources.tensor_core


def instructions(name: str, target: str) -> str:
    return aot.compile_case(CASES[name], target).assembly


def test_each_precision_multiplies_as_it_says() -> None:
    update = "change, rebuild, update 3 of 5"
    exact = instructions(f"maps float32, {update}", "sm_90")
    assert re.search(r"mma\S*\.tf32", exact) and not re.search(r"mma\S*\.(?:bf16|f16)\b", exact)
    assert re.search(r"and\.b32\s+\S+ \S+ -8192", exact)  # the split of an operand in two
    plain, split = f"maps tf32, {update}", f"maps float32, {update}"
    products = {  # of one program
        name: CASES[name].options["num_warps"] * len(re.findall(r"mma\S*\.tf32", instructions(name, "sm_90")))
        for name in (plain, split)
    }
    assert products[split] == 3 * products[plain] > 0
    half = instructions(f"maps bf16, {update}", "sm_90")
    assert re.search(r"mma\S*\.bf16", half) and not re.search(r"mma\S*\.tf32", half)
    assert "bf16" in instructions(f"maps bf16 (hip), {update}", "gfx942").split("v_mfma", 1)[1][:40]
    assert re.search(
        r"v_mfma_f32_\d+x\d+x\d+_f32|v_mfma_f32_\w*f32", instructions(f"maps float32 (hip), {update}", "gfx942")
    )


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_an_update_takes_the_fast_root_and_no_division(precision: str) -> None:
    fast = instructions(f"maps {precision}, change, rebuild, update 3 of 5", "sm_90")
    assert "sqrt.approx" in fast and "rsqrt.approx" in fast
    assert not re.search(r"\b(?:sqrt\.rn|div\.\w+)\.f32\b", fast)


@pytest.mark.parametrize("step", [1, 3, 5])
def test_change_is_read_and_written_once_in_wide_accesses(step: int) -> None:
    # 16 bytes a thread, 128 threads: a tile of 32 × 64 numbers of 2 bytes is two of them, and so is y's of 16 × 64.
    found = aot.compile_case(CASES[f"maps bf16, change, rebuild, update {step} of 5"], "sm_90")
    read, last = f"maps bf16, change, rebuild, update {step} of 5", step == 5
    stores = re.findall(r"st\.global\.v4\.b32", found.assembly)
    assert len(stores) == (2 if last else 4), read
    if step > 1:
        assert len(re.findall(r"cp\.async\.cg\.shared\.global", found.assembly)) >= 2, read


def launched(monkeypatch: pytest.MonkeyPatch, geometry: Geometry, form: Form) -> list[tuple[Any, dict[str, str]]]:
    """The kernels that a search of three steps launches, with the types that Triton finds for their arguments."""
    found: list[tuple[Any, dict[str, str]]] = []

    def type_of(param: Any, value: object) -> str:
        if isinstance(value, torch.Tensor):
            return maps._TYPES.get(value.dtype, "*i32")
        return param.annotation_type or ("fp32" if isinstance(value, float) else "i32")

    def record(device: torch.device, kernel: Any, blocks: int, *arguments: Any, **constants: Any) -> None:
        params = [param for param in kernel.params if not param.is_constexpr]
        found.append((kernel, {p.name: type_of(p, value) for p, value in zip(params, arguments, strict=True)}))

    monkeypatch.setattr(maps, "launch", record)
    monkeypatch.setattr(maps, "backend_of", lambda kernel, device: "hip")
    private = maps.Maps(
        geometry, torch.zeros(geometry.torch_shape), pairs=2, steps=3, adam=ADAM, precision="bf16",
        device=torch.device("cpu"), form=form,
    )  # fmt: skip
    x, gy = torch.zeros(private._x_shape), torch.zeros(private._y_shape)
    private.shared_input_grad(gy)
    private.keep(1, x, gy)
    private.forward(x, 2)
    private.keep(2, x, gy)
    private.input_grad(gy, 2)
    return found


@pytest.mark.parametrize(("positions", "form"), [(4, "rebuild"), (4, "stored"), (70, "stored")])
def test_launches_pass_scalars_as_the_types_that_are_compiled(
    monkeypatch: pytest.MonkeyPatch, positions: int, form: Form
) -> None:
    # A launch takes a scalar's type from the annotation; an unannotated Python float would be float32.
    compiled: dict[Any, list[dict[str, str]]] = {}
    for case in CASES.values():
        compiled.setdefault(case.kernel, []).append(dict(case.signature))
    found = launched(monkeypatch, Geometry.linear(positions, 3, 4), form)
    assert {kernel.__name__ for kernel, _ in found} >= {"shared_kernel", "product_kernel"}
    for kernel, types in found:
        assert types in compiled[kernel], kernel.__name__
        assert "fp32" not in types.values()  # Adam's constants are doubles until they are rounded once


def test_compiled_kernels_refuse_cpu_tensors() -> None:
    geometry = Geometry.linear(2, 3, 4)
    with pytest.raises(RuntimeError, match="the tensors are on cpu, but Triton needs them on a GPU"):
        maps.Maps(
            geometry, torch.zeros(4, 3), pairs=1, steps=1, adam=ADAM, precision="float32", device=torch.device("cpu")
        )


def test_cost_model_rebuilds_where_rows_and_steps_are_few() -> None:
    def layer(side: int) -> Geometry:
        return Geometry.conv_transpose2d((side, side), 8, 8, (4, 4), (2, 2), (1, 1), (0, 0), (1, 1), 1)

    for precision in ("float32", "tf32", "bf16"):
        assert map_choices.rebuilds(layer(4), 5, precision)
        assert not map_choices.rebuilds(layer(4), map_choices.LONGEST_HISTORY + 1, precision)
        assert not map_choices.rebuilds(layer(16), 2, precision)
    assert map_choices.rebuilds(layer(8), 3, "bf16") and not map_choices.rebuilds(layer(8), 5, "bf16")


def test_a_file_of_the_gpu_overrides_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = Geometry.linear(3, 4, 5)
    chosen = {"rows": 16, "inner": 16, "outer": 16, "warps": 2, "stages": 4}
    config = {f"product bf16 {map_choices.geometry_key(geometry)}": chosen}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(map_choices, "_config", lambda gpu: config if gpu == "NVIDIA H200" else {})
    found = map_choices.chosen_tiles(geometry, "bf16", "cuda", torch.device("cuda"))
    assert found["product"] == map_choices.Tiles(**chosen)
    assert found["shared"] == map_choices.default_tiles("shared", "bf16", "cuda", 3)
    assert map_choices.geometry_key(geometry) == "groups1 k4 n5 in3 rows3 taps1"

"""The Triton Adam compiled for real GPUs, on a machine that needs to have none."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton is not installed")

import adgan_fast.kernels  # noqa: E402
from adgan_fast.kernels import adam, aot  # noqa: E402

CASES = {case.name: case for case in adam.cases()}


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
    # 8 blocks of 128 threads on an SM of 65,536 registers take up to 64 of them each; 168 still leave 3.
    assert 0 < resources.registers <= 168
    assert resources.shared <= aot.TARGETS[target].shared_limit
    assert resources.wide_load_bytes >= case.wide_load_bytes
    assert resources.wide_store_bytes >= case.wide_store_bytes
    assert not resources.tensor_core


@pytest.mark.parametrize("target", aot.TARGETS)
@pytest.mark.parametrize("name", ["adam float32", "adam float64", "adam float32, unaligned"])
def test_root_and_division_are_the_correctly_rounded_ones(name: str, target: str) -> None:
    assembly = aot.compile_case(CASES[name], target).assembly
    bits = re.search(r"float(\d\d)", name)[1]
    if target.startswith("sm_"):
        assert f"sqrt.rn.f{bits}" in assembly and f"div.rn.f{bits}" in assembly
        assert not re.search(r"\b(?:sqrt\.approx|rsqrt|rcp\.approx|div\.full|div\.approx)\b|\.ftz\b", assembly)
        assert not re.search(r"\bfma\b", assembly)  # a contracted multiply-add would round differently from the CPU
    else:
        # The IEEE division is spelled out: scale, Newton steps, and a fix-up of the last bit.
        assert f"v_div_fixup_f{bits}" in assembly and f"v_div_fmas_f{bits}" in assembly


def test_launches_pass_scalars_as_the_types_that_are_compiled() -> None:
    # A launch takes a scalar's type from the annotation, and an unannotated Python float as float32.
    annotated = {param.name: param.annotation_type for param in adam.adam_kernel.params if not param.is_constexpr}
    table = annotated.pop("table")
    assert table == ""  # a tensor has its own type
    for case in CASES.values():
        assert case.signature == {"table": "*i64", **annotated}


def test_registering_makes_it_the_cuda_kernel_and_may_be_repeated() -> None:
    # In a process of its own, so that no other test sees the registration.
    script = (
        "import torch\n"
        "from adgan_fast import ops\n"
        "from adgan_fast.kernels import adam\n"
        "def kernels(key): return torch._C._dispatch_has_kernel_for_dispatch_key('adgan_fast::adam_step_', key)\n"
        "assert not kernels('CUDA')\n"
        "adam.register(); adam.register()\n"
        "assert kernels('CUDA')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_compiled_kernels_refuse_cpu_tensors() -> None:
    tensor = torch.zeros(1, 2)
    with pytest.raises(RuntimeError, match="the tensors are on cpu, but Triton needs them on a GPU"):
        adam.adam_step_([tensor], [tensor], [tensor], [tensor], [], [0.1], 0.5, 0.999, 1e-8, 1, False)
    assert not tensor.any()


def test_importing_the_package_loads_no_triton() -> None:
    script = "import sys, adgan_fast, adgan_fast.kernels, adgan_fast.ops; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_no_kernel_brings_what_compiles_ahead_of_time() -> None:
    """Every module of the package but aot.py itself, in a process that has seen no more of Triton than its import."""
    modules = pkgutil.walk_packages(adgan_fast.kernels.__path__, "adgan_fast.kernels.")
    names = [info.name for info in modules if info.name != "adgan_fast.kernels.aot"]
    assert "adgan_fast.kernels.maps.general" in names and "adgan_fast.kernels.case" in names
    script = (
        "import importlib, sys, torch, triton\n"
        "before = set(sys.modules)\n"
        f"for name in {names}: importlib.import_module(name)\n"
        "new = set(sys.modules) - before\n"
        "wrong = [n for n in new if n.endswith('.aot') or n.startswith(('triton.compiler', 'triton.backends'))]\n"
        "sys.exit(', '.join(wrong) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_graph_keeps_the_tables_of_its_own_capture_and_no_other_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a device that captures says is put in its place here; on a GPU: tests/engine/triton/test_cuda.py."""
    stream = type("Stream", (), {"cuda_stream": 7})()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    device = torch.device("cuda", 0)
    columns = {name: ((step, 1, 16, 32, 48, 64, 0, 0, 1),) for step, name in enumerate(("first", "second"))}
    known = {(what, device, 3): torch.empty(9) for what in columns.values()}  # copied on another stream
    monkeypatch.setattr(adam, "_tables", known)
    with pytest.raises(RuntimeError, match=r"whose tables nobody keeps; capture inside of .*tables_of_graph\(\)"):
        adam._table(columns["first"], device)
    with adam.tables_of_graph() as tables:
        with adam.tables_of_graph() as inner:
            adam._table(columns["second"], device)
        assert adam._table(columns["first"], device) is known[columns["first"], device, 3] is tables[0]
    assert len(tables) == len(inner) == 1 and inner[0] is known[columns["second"], device, 3]
    with adam.tables_of_graph(), pytest.raises(RuntimeError, match="these tensors are new; run the same steps"):
        adam._table(((5, 1, 16, 32, 48, 64, 0, 0, 1),), device)
    alive = weakref.ref(tables[0])
    known.clear()
    assert alive() is not None  # by the list of the graph
    del tables
    assert alive() is None


def test_resources_see_spills_when_registers_are_short() -> None:
    case = CASES["adam float32"]
    few = aot.compile_kernel(
        case.kernel, case.signature, case.constexprs, "sm_90", case.aligned, {**case.options, "maxnreg": 32}
    )
    assert few.registers <= 32 and few.spills > 0


def test_resources_see_matrix_instructions_and_shared_memory() -> None:
    for target in aot.TARGETS:
        resources = aot.compile_kernel(
            _product,
            {"x": "*fp16", "y": "*fp16", "out": "*fp32"},
            {"SIZE": 64},
            target,
            aligned=("x", "y", "out"),
            options={"enable_fp_fusion": True},
        )
        assert resources.tensor_core, target
        assert resources.shared > 0, target
        assert resources.wide_load_bytes >= 2 * 64 * 64 * 2, target  # both fp16 tiles


def test_unfit_arguments_are_named() -> None:
    case = CASES["adam float32"]
    with pytest.raises(ValueError, match="missing or unknown arguments: eps"):
        short = {name: kind for name, kind in case.signature.items() if name != "eps"}
        aot.compile_kernel(case.kernel, short, case.constexprs, "sm_90")
    with pytest.raises(ValueError, match="unknown target 'sm_42'; the known ones are sm_80"):
        aot.compile_case(case, "sm_42")


def test_table_goes_between_its_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aot, "all_cases", lambda: iter([CASES["adam float32"]]))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: begin -->\nold\n<!-- table: end -->\nafter\n")
    assert aot.main(["--into", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert re.search(r"^\| adam float32 \| \d+ / 0 / \d+ \|", text, re.MULTILINE)


tl = triton.language


@triton.jit
def _product(x, y, out, SIZE: tl.constexpr):
    row = tl.arange(0, SIZE)
    tile = row[:, None] * SIZE + row[None, :]
    tl.store(out + tile, tl.dot(tl.load(x + tile), tl.load(y + tile)))

"""Compiles kernels ahead of time for GPUs that need not be there, and reads from the result what they cost.

``python -m adgan_fast.kernels.aot`` prints the table of all kernels; docs/kernels.md holds one. It needs no driver: the
assembler and the reader of its output (``ptxas``, ``cuobjdump``) come with Triton, AMD's code states its own resources.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from .case import TARGETS, Case

__all__ = ["FAMILIES", "TARGETS", "Resources", "all_cases", "compile_case", "compile_kernel", "markdown"]

FAMILIES = (
    "adam",
    "epilogue",
    "gather",
    "loss",
    "maps.general",
    "maps.vector",
    "products",
    "softmax",
    "standardize",
)  # modules below this package, each with a function cases() -> Iterator[Case]


@dataclasses.dataclass(frozen=True)
class Resources:
    """What one compiled kernel costs.

    Attributes:
        registers: 32-bit vector registers of each thread.
        spills: 32-bit registers of a thread that live in memory; on AMD also scalar ones that live in vector registers.
        shared: bytes of shared memory (LDS) of a block, static and dynamic.
        wide_load_bytes: bytes that a block brings from global memory by instructions of 16 bytes or more a thread, each
            instruction counted once (so what is in a loop counts once, and every branch counts). Asynchronous copies
            of 16 bytes a thread are among them.
        wide_store_bytes: the same for stores.
        bulk_copies: instructions of the bulk copy engine (TMA), which move whole tiles.
        tensor_core: whether there are matrix instructions (mma, wgmma, tcgen05; mfma, wmma).
        assembly: PTX or AMD's assembly, for looking further.
        binary: the machine code, in the GPU maker's own form of an ELF file.
    """

    registers: int
    spills: int
    shared: int
    wide_load_bytes: int
    wide_store_bytes: int
    bulk_copies: int
    tensor_core: bool
    assembly: str = dataclasses.field(repr=False)
    binary: bytes = dataclasses.field(repr=False)


def compile_kernel(
    kernel: Any,
    signature: Mapping[str, str],
    constexprs: Mapping[str, Any],
    target: str | GPUTarget,
    aligned: tuple[str, ...] = (),
    options: Mapping[str, Any] | None = None,
) -> Resources:
    """Compile ``kernel`` for ``target`` (a name in ``TARGETS``, or any ``GPUTarget``); arguments as in :class:`Case`.

    Raises:
        ValueError: an argument of the kernel has neither a type nor a value, or the target is unknown.
        RuntimeError: Triton's interpreter is on, so there is nothing to compile; or the compiled code cannot be read.
        triton.CompilationError: the kernel does not compile.
    """
    if not isinstance(kernel, triton.JITFunction):
        raise RuntimeError("kernels cannot be compiled under TRITON_INTERPRET=1; unset it before Triton is imported")
    if isinstance(target, str):
        if target not in TARGETS:
            raise ValueError(f"unknown target {target!r}; the known ones are {', '.join(TARGETS)}")
        known = TARGETS[target]
        target = GPUTarget(known.backend, known.arch, known.warp_size)
    names = list(kernel.arg_names)
    unknown = sorted({*signature, *constexprs, *aligned}.symmetric_difference(names))
    if unknown:
        raise ValueError(f"{kernel.__name__}: missing or unknown arguments: {', '.join(unknown)}")
    source = ASTSource(
        kernel,
        signature={name: "constexpr" if name in constexprs else signature[name] for name in names},
        constexprs=dict(constexprs),
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    compiled = triton.compile(source, target=target, options=dict(options or {}))
    read = _read_nvidia if target.backend == "cuda" else _read_amd
    return read(compiled)


def compile_case(case: Case, target: str | GPUTarget) -> Resources:
    """:func:`compile_kernel` of a case."""
    return compile_kernel(case.kernel, case.signature, case.constexprs, target, case.aligned, case.options)


def all_cases() -> Iterator[Case]:
    """The cases of every kernel of this package."""
    for family in FAMILIES:
        yield from importlib.import_module(f".{family}", __package__).cases()


def _read_nvidia(compiled: Any) -> Resources:
    # Triton reports registers and spills only of a kernel that is loaded on a device, so ask the compiled code itself.
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernel.cubin")
        cubin.write_bytes(compiled.asm["cubin"])
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(cubin)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    usage = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", done.stdout)}
    if usage.keys() != {"REG", "STACK", "SHARED", "LOCAL"}:
        raise RuntimeError(f"cuobjdump did not report the resources of {compiled.name}: {done.stdout}{done.stderr}")
    ptx = compiled.asm["ptx"]
    copies = len(re.findall(r"\bcp\.async\.cg\.shared\.global\b", ptx))  # 16 bytes a thread, always
    return Resources(
        registers=usage["REG"],
        spills=(usage["STACK"] + usage["LOCAL"]) // 4,
        shared=usage["SHARED"] + compiled.metadata.shared,
        wide_load_bytes=(_wide_ptx("ld", ptx) + 16 * copies) * _threads(compiled),
        wide_store_bytes=_wide_ptx("st", ptx) * _threads(compiled),
        bulk_copies=len(re.findall(r"\bcp\.async\.bulk\.tensor\b", ptx)),
        tensor_core=re.search(r"\b(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)\b", ptx) is not None,
        assembly=ptx,
        binary=compiled.asm["cubin"],
    )


def _wide_ptx(operation: str, ptx: str) -> int:
    """Bytes a thread moves by vectors of 16 bytes or more."""
    vectors = re.findall(rf"\b{operation}\.global[\w.:]*?\.v(\d)\.[a-z](\d+)\b", ptx)
    sizes = [int(count) * int(bits) // 8 for count, bits in vectors]
    return sum(size for size in sizes if size >= 16)


def _threads(compiled: Any) -> int:
    return compiled.metadata.num_warps * compiled.metadata.target.warp_size


def _read_amd(compiled: Any) -> Resources:
    assembly = compiled.asm["amdgcn"]

    def stated(name: str) -> int:
        found = re.search(rf"^\s*\.{name}:\s*(\d+)", assembly, re.MULTILINE)
        if found is None:
            raise RuntimeError(f"the assembly of {compiled.name} states no .{name}")
        return int(found[1])

    def wide(operation: str) -> int:
        found = re.findall(rf"\b(?:global|buffer|flat)_{operation}_(?:dwordx4|b128)\b", assembly)
        return 16 * len(found) * _threads(compiled)

    return Resources(
        registers=stated("vgpr_count"),
        spills=max(stated("vgpr_spill_count") + stated("sgpr_spill_count"), stated("private_segment_fixed_size") // 4),
        shared=max(stated("group_segment_fixed_size"), compiled.metadata.shared),
        wide_load_bytes=wide("load"),
        wide_store_bytes=wide("store"),
        bulk_copies=0,
        tensor_core=re.search(r"\bv_(?:s?mfma|s?wmma)", assembly) is not None,
        assembly=assembly,
        binary=compiled.asm["hsaco"],
    )


def markdown() -> str:
    """A Markdown table: a row for each case, a column for each target; registers / spills / bytes of shared memory."""
    lines = [f"| kernel | {' | '.join(TARGETS)} |", "| --- " * (1 + len(TARGETS)) + "|"]
    for case in all_cases():
        cells = [_cell(case, name) if name in case.targets else "" for name in TARGETS]
        lines.append(f"| {case.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(case: Case, target: str) -> str:
    found = compile_case(case, target)
    return f"{found.registers} / {found.spills} / {found.shared}"


_BEGIN, _END = "<!-- table: begin -->", "<!-- table: end -->"


def main(arguments: list[str] | None = None) -> int:
    """Print the table, or put it into a file. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m adgan_fast.kernels.aot", description=main.__doc__)
    parser.add_argument("--into", type=Path, help=f"replace what is between {_BEGIN} and {_END} in this file")
    into = parser.parse_args(arguments).into
    text = None if into is None else into.read_text(encoding="utf-8")
    if text is not None and (_BEGIN not in text or _END not in text):
        parser.error(f"{into} lacks {_BEGIN} or {_END}")
    table = f"Triton {triton.__version__}: registers / spills / shared bytes.\n\n{markdown()}\n"
    if text is None:
        sys.stdout.write(table)
    else:
        before, after = text.split(_BEGIN)[0], text.split(_END)[1]
        into.write_text(f"{before}{_BEGIN}\n{table}{_END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

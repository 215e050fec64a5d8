"""Compiled code of a kernel for an NVIDIA GPU: its instructions, its loops, and how often each instruction is issued.

Machine code (SASS) is made by the assembler and read by the disassembler that Triton brings: no GPU is needed. A loop
is what lies between a label and the last branch back to it. How many turns each loop of the source makes is given; that
a loop of the machine code is one turn of it is checked, not taken on trust: there must be as many loops as in the PTX,
each with as many matrix instructions and accesses to global memory. (The assembler unrolls none of these kernels.)

What this cannot see: instructions under a predicate, and both ways of a branch, count as issued; the slow way of a root
or division, which is a call, as never. And a warp that waits issues nothing. So a time made of the count is neither
what a kernel takes nor quite its least, but what the schedulers are busy for.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import triton

__all__ = ["KINDS", "Code", "Loop", "Tally", "disassembled", "machine_code", "ptx_code", "tally"]

KINDS: Mapping[str, str] = {
    "matrix": "HMMA HGMMA",
    "float": "FADD FMUL FFMA FMNMX FSEL FSETP FCHK HADD2 HMUL2 HFMA2 HMNMX2 DADD DMUL DFMA DSETP",
    "root": "MUFU",
    "convert": "F2F F2FP F2I I2F I2FP FRND",
    "shared": "LDS STS LDSM STSM SHFL",
    "global": "LDG STG LDGSTS",
    "spill": "LDL STL",
    "wait": "BAR DEPBAR LDGDEPBAR WARPSYNC WARPGROUP MEMBAR NOP BSSY BSYNC VOTE FENCE ERRBAR SYNCS",
}
"""Opcodes, up to their first dot, by kind; any other is of kind "other": integers, moves, predicates, branches."""

_KIND_OF = {opcode: kind for kind, opcodes in KINDS.items() for opcode in opcodes.split()}
_SASS = re.compile(
    r"^(?P<label>\.L_x_\d+):|^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(?P<opcode>[A-Z][\w.]*)(?P<rest>.*)"
)
_PTX = re.compile(r"^(?P<label>\$L__BB\w+):|^\s+(?:@!?%p\d+\s+)?(?P<opcode>[a-z][\w.:]*)(?P<rest>.*)")
_TARGET = re.compile(r"(\.L_x_\d+|\$L__BB\w+)")
_MARK = re.compile(
    r"HG?MMA|LDG\b|STG\b|LDGSTS|mma\.sync|wgmma\.mma_async|(?:ld|st)\.global|cp\.async\.c[ag]\.shared\.global"
)
_ACCESS = re.compile(r"(?:LDG|STG|LDGSTS)\b")
_WIDTH = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}


@dataclasses.dataclass(frozen=True)
class Loop:
    """Instructions first..last, the last of which branches back to the first."""

    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class Code:
    """Opcodes with their suffixes, the loops as they begin, and instructions that are never issued."""

    opcodes: Sequence[str]
    loops: Sequence[Loop]
    never: frozenset[int] = frozenset()

    def marks(self, loop: Loop) -> int:
        """Matrix instructions and accesses to global memory within a loop."""
        return sum(_MARK.match(opcode) is not None for opcode in self.opcodes[loop.first : loop.last + 1])


@dataclasses.dataclass(frozen=True)
class Tally:
    """What one warp of a launch issues, on average.

    Attributes:
        kinds: instructions by the names of KINDS, and "other".
        products: multiply-adds of matrix instructions, by "tf32" and "bf16".
        accessed: bytes that its threads ask of global memory, from whatever cache.
    """

    kinds: Mapping[str, float]
    products: Mapping[str, float]
    accessed: float

    @property
    def instructions(self) -> float:
        return sum(self.kinds.values())


def disassembled(cubin: bytes) -> str:
    """The machine code of a kernel as text; raises RuntimeError if it cannot be read."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(cubin)
        command = [triton.knobs.nvidia.nvdisasm.path, "-c", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"nvdisasm cannot read the kernel: {done.stderr.strip()[:300]}")
    return done.stdout


def machine_code(text: str) -> Code:
    """Of what `disassembled` gives. What follows the last EXIT is called, or pads; it counts as never issued."""
    opcodes, loops = _read(text, _SASS)
    ends = [at for at, opcode in enumerate(opcodes) if opcode == "EXIT"]
    if not ends:
        raise RuntimeError("there is no EXIT in the machine code")
    calls = {at for at, opcode in enumerate(opcodes) if opcode.startswith("CALL")}
    never = calls | {at + by for at in calls for by in (-2, -1, 1)}  # arguments in, return address, result out
    return Code(opcodes[: ends[-1] + 1], [loop for loop in loops if loop.last < ends[-1]], frozenset(never))


def ptx_code(text: str) -> Code:
    """Of a kernel's PTX."""
    return Code(*_read(text, _PTX))


def _read(text: str, syntax: re.Pattern[str]) -> tuple[list[str], list[Loop]]:
    opcodes: list[str] = []
    labels: dict[str, int] = {}
    last: dict[int, int] = {}  # by the first instruction of a loop
    for line in text.splitlines():
        found = syntax.match(line)
        if found is None:
            continue
        if found["label"]:
            labels[found["label"]] = len(opcodes)
            continue
        target = _TARGET.search(found["rest"]) if found["opcode"].lower().startswith("bra") else None
        if target is not None and target[1] in labels:
            last[labels[target[1]]] = len(opcodes)
        opcodes.append(found["opcode"])
    return opcodes, [Loop(*ends) for ends in sorted(last.items())]


def tally(code: Code, ptx: Code, turns: Sequence[float]) -> Tally:
    """What a warp issues whose source's loops, in their order, make so many turns for each time they are entered.

    Raises ValueError where a loop of the machine code is not one turn of the source's.
    """
    here, there = ([c.marks(loop) for loop in c.loops] for c in (code, ptx))
    if not len(turns) == len(here) == len(there) or here != there:
        raise ValueError(
            f"the source has {len(turns)} loops; matrix and memory instructions are {here} in those of the machine "
            f"code, {there} in those of the PTX"
        )
    kinds: Counter[str] = Counter()
    products: Counter[str] = Counter()
    accessed = 0.0
    for at, opcode in enumerate(code.opcodes):
        if at in code.never:
            continue
        times = 1.0
        for loop, each in zip(code.loops, turns, strict=True):
            times *= each if loop.first <= at <= loop.last else 1.0
        kind = _KIND_OF.get(opcode.split(".")[0], "other")
        if opcode.startswith("HFMA2.MMA"):
            kind = "other"  # with zero it is how a constant is moved
        kinds[kind] += times
        if kind == "matrix":
            products["bf16" if "BF16" in opcode else "tf32"] += times * _multiply_adds(opcode)
        elif _ACCESS.match(opcode):
            accessed += times * 32 * next((_WIDTH[part] for part in opcode.split(".") if part in _WIDTH), 4)
    return Tally(dict(kinds), dict(products), accessed)


def _multiply_adds(opcode: str) -> int:
    """Of a warp: HMMA's sizes are its own, HGMMA's those of four warps. Source: NVIDIA's PTX ISA, mma and wgmma."""
    if opcode.startswith("HGMMA"):
        found = re.search(r"\.(\d+)x(\d+)x(\d+)\.", opcode)
        if found:
            return int(found[1]) * int(found[2]) * int(found[3]) // 4
    sizes = {"1688": 16 * 8 * 8, "16816": 16 * 8 * 16, "1684": 16 * 8 * 4}
    size = sizes.get(opcode.split(".")[1])
    if size is None:
        raise ValueError(f"a matrix instruction of unknown size: {opcode}")
    return size

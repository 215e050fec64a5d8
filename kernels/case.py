"""What is compiled ahead of time, as data: the GPUs, and what each kernel's `cases` says of its launches.

The modules of kernels import this; what compiles is aot.py, which only those import who want that. Triton is not
imported here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

__all__ = ["TARGETS", "Case", "Target"]


@dataclasses.dataclass(frozen=True)
class Target:
    """A GPU to compile for.

    Attributes:
        backend: who makes the code.
        arch: the GPU, as that backend names it.
        warp_size: threads of a warp (a wavefront).
        shared_limit: most bytes of shared memory (LDS) that one block (workgroup) may use there.
    """

    backend: Literal["cuda", "hip"]
    arch: int | str
    warp_size: int
    shared_limit: int


# Shared memory: CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability" (163 and 227 KiB);
# AMD CDNA3 ISA reference, section on the LDS (64 KiB).
TARGETS: Mapping[str, Target] = {
    "sm_80": Target("cuda", 80, 32, 163 * 1024),
    "sm_90": Target("cuda", 90, 32, 227 * 1024),
    "sm_100": Target("cuda", 100, 32, 227 * 1024),
    "gfx942": Target("hip", "gfx942", 64, 64 * 1024),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One specialisation of a kernel as its launcher makes it, and what the design promises of it.

    Attributes:
        name: names it in tables and tests.
        kernel: the ``@triton.jit`` function.
        signature: Triton's type of each run-time argument, such as ``"*fp32"``, ``"i64"``, ``"fp64"``.
        constexprs: the value of each compile-time argument.
        aligned: run-time arguments that are multiples of 16 at every launch, as Triton finds by itself for tensors.
        options: the launch's options: num_warps, num_stages, enable_fp_fusion, ...
        wide_load_bytes: what the wide loads of :class:`Resources` must come to at least.
        wide_store_bytes: the same for stores.
        tensor_core: whether matrix instructions must be in the code.
        targets: names in ``TARGETS`` that it is launched on.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any]
    aligned: tuple[str, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    wide_load_bytes: int = 0
    wide_store_bytes: int = 0
    tensor_core: bool = False
    targets: tuple[str, ...] = tuple(TARGETS)

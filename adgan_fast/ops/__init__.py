"""The contracts of the custom operators: schema, shapes, dtypes, fake implementations. No kernel lives here.

Each operator exists as soon as this package is imported. `adam_step_` has a plain-PyTorch implementation. The kernels
of csrc/ come with :func:`load_extension`, those for CUDA with `adgan_fast.kernels`; importing this loads neither.
"""

from .adam import adam_step_, adam_step_torch, check_adam_step
from .extension import load_extension
from .native import (
    INSTRUCTION_SETS,
    NATIVE_LOSSES,
    SearchArguments,
    best_instruction_set,
    native_bytes,
    native_gradients,
    native_profile,
    native_search,
)

__all__ = [
    "INSTRUCTION_SETS",
    "NATIVE_LOSSES",
    "SearchArguments",
    "adam_step_",
    "adam_step_torch",
    "best_instruction_set",
    "check_adam_step",
    "load_extension",
    "native_bytes",
    "native_gradients",
    "native_profile",
    "native_search",
]

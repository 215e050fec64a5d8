"""Entries of a saved program's JSON as values of torch; a ValueError where one is malformed or not supported."""

from __future__ import annotations

from typing import Any

import torch

# The numbering of torch/_export/serde/schema.py.
_DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
}
MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
CONSTANT_ARGUMENTS = ("as_none", "as_int", "as_float", "as_bool", "as_string")
SYMBOLS = ("as_sym_int", "as_sym_float", "as_sym_bool")


def only(union: Any) -> tuple[str, Any]:
    """The one (kind, value) of a tagged union."""
    if not isinstance(union, dict) or len(union) != 1:
        raise ValueError(f"malformed entry {union!r:.80}")
    return next(iter(union.items()))


def typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{value!r:.80} where a {kind.__name__} belongs")
    return value


def dtype_of(number: Any) -> torch.dtype:
    if number not in _DTYPES:
        raise ValueError(f"dtype number {number!r:.40} is not supported")
    return _DTYPES[number]


def device_of(entry: dict[str, Any]) -> torch.device:
    index = entry.get("index")
    kind = typed(entry["type"], str)
    return torch.device(kind) if index is None else torch.device(kind, typed(index, int))


def example_size(size: Any) -> int:
    """A size as a number: itself, or the one it had at the export. The expression beside it is not read."""
    kind, value = only(size)
    if kind == "as_expr":
        hint = value.get("hint")
        if hint is None:
            raise ValueError("a size of its latent is not known; export with an example input")
        kind, value = only(hint)
    if kind != "as_int" or typed(value, int) < 0:
        raise ValueError(f"malformed size {size!r:.80}")
    return value


def tensor_of(name: str, meta: dict[str, Any], storage: bytearray) -> torch.Tensor:
    """A view of `storage` (not a copy) with the dtype, sizes, strides and offset of `meta`, all of them checked."""
    dtype = dtype_of(meta["dtype"])
    if meta["layout"] != 7:
        raise ValueError(f"{name!r} is not a dense tensor")
    sizes = [typed(size["as_int"], int) for size in meta["sizes"]]
    strides = [typed(stride["as_int"], int) for stride in meta["strides"]]
    offset = typed(meta["storage_offset"]["as_int"], int)
    if len(sizes) != len(strides) or min([*sizes, *strides, offset]) < 0:
        raise ValueError(f"{name!r} has sizes {sizes}, strides {strides} and offset {offset}")
    if 0 in sizes:
        return torch.empty(sizes, dtype=dtype)
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    needed = (last + 1) * dtype.itemsize
    if needed > len(storage):
        raise ValueError(f"{name!r} needs {needed} bytes for its sizes {sizes}, its record has {len(storage)}")
    if len(storage) % dtype.itemsize:
        raise ValueError(f"the record of {name!r} has {len(storage)} bytes, no multiple of {dtype.itemsize}")
    return torch.frombuffer(storage, dtype=dtype).as_strided(sizes, strides, offset)

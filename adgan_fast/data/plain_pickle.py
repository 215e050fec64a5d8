"""A reader of pickles that hold plain data, such as CIFAR-10's: it runs no code that the pickle names."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

# The pickle machine reports damage by whatever its broken step raises.
_DAMAGED = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


def read_plain_pickle(data: bytes, source: str) -> Any:
    """Unpickles containers, numbers, text, bytes and numeric numpy arrays; runs no code that ``data`` names.

    Not even numpy's own unpickling is called: an array's description is checked here and its bytes are copied.

    Args:
        data: the pickle.
        source: its name in error messages.

    Raises:
        ValueError: anything else in it, by name; or damaged data.
    """
    try:
        return _unwrapped(_PlainUnpickler(io.BytesIO(data), encoding="bytes").load())
    except _DAMAGED as error:
        raise ValueError(f"{source}: not a plain pickle of arrays, or a damaged one: {error}") from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core.", "numpy.core.")  # its name since numpy 2
        stand_in = _STAND_INS.get((module, name))
        if stand_in is None:
            raise pickle.UnpicklingError(f"refused {module}.{name}: it is no plain data")
        return stand_in


class _PlainDType:
    """Stands in for numpy.dtype: numbers of fixed size only."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        text = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(text, str) or not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248])", text):
            raise pickle.UnpicklingError(f"refused an array of dtype {code!r}")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: Sequence[Any]) -> None:
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"refused an array of byte order {order!r}")
        self.dtype = self.dtype.newbyteorder(cast(Literal["<", ">", "|", "="], order))


class _PlainArray:
    """Stands in for an array until all is read; then ``_unwrapped`` puts the array in its place."""

    array: npt.NDArray[Any] | None = None

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, shape, dtype, fortran, data = state
        self.fill(data.encode("latin1") if isinstance(data, str) else data, dtype, shape, "F" if fortran else "C")

    def fill(self, data: Any, dtype: Any, shape: tuple[int, ...], order: Any) -> None:
        if not isinstance(dtype, _PlainDType) or not isinstance(data, (bytes, bytearray)) or order not in ("C", "F"):
            raise pickle.UnpicklingError("refused an array that is not of numbers")
        array = np.frombuffer(data, dtype=dtype.dtype).reshape(shape, order=order)
        self.array = array.astype(array.dtype.newbyteorder("="))


class _NDArray:
    """Stands in for the class numpy.ndarray, which pickles of arrays name but need not call."""

    def __init__(self, *_: Any) -> None:
        raise pickle.UnpicklingError("refused to call numpy.ndarray")


def _reconstruct(*_: Any) -> _PlainArray:
    return _PlainArray()


def _from_buffer(data: Any, dtype: Any, shape: tuple[int, ...], order: Any, *_: Any) -> _PlainArray:
    array = _PlainArray()
    array.fill(data, dtype, shape, order)
    return array


def _encode(text: str, encoding: str | bytes = "latin1", *_: Any) -> bytes:
    if encoding not in ("latin1", b"latin1") or not isinstance(text, str):
        raise pickle.UnpicklingError(f"refused the encoding {encoding!r}")
    return text.encode("latin1")


def _empty_bytes(*arguments: Any) -> bytes:
    if arguments:
        raise pickle.UnpicklingError("refused to call bytes")
    return b""


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,  # protocol 5
    ("numpy", "ndarray"): _NDArray,
    ("numpy", "dtype"): _PlainDType,
    ("_codecs", "encode"): _encode,  # how Python 3 writes bytes in the protocols of Python 2,
    ("__builtin__", "bytes"): _empty_bytes,  # and empty bytes
}


def _unwrapped(value: Any) -> Any:
    """``value`` with its stand-ins replaced, inside lists and dicts too."""
    if isinstance(value, _PlainArray):
        return value.array
    if isinstance(value, dict):
        return {key: _unwrapped(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and any(isinstance(item, (_PlainArray, dict, list, tuple)) for item in value):
        return type(value)(_unwrapped(item) for item in value)
    return value

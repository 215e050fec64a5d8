"""A Program as the flat lists that csrc/core/program.cpp reads."""

from __future__ import annotations

import weakref
from typing import NamedTuple, get_args

from ...generator.layers import LAYERS, Dims, Size
from ...generator.program import Kind, Layer, Program

KINDS = get_args(Kind)
"""In the order of csrc/core/modes.h."""


OPS = (
    "linear", "conv2d", "conv_transpose2d", "batch_norm", "prelu",
    "relu", "leaky_relu", "tanh", "sigmoid", "elu", "softplus", "silu", "gelu", "gelu_tanh", "erf", "hardtanh", "clamp",
    "pow", "exp", "log", "abs", "sin", "scale_shift",
    "add", "mul", "div", "maximum", "matmul", "standardize", "softmax", "sum", "resample",
    "reshape", "expand", "take", "pad", "permute", "upsample_nearest", "pixel_shuffle", "stop", "cat",
)  # fmt: skip
"""The layers that C++ knows, in the order of csrc/core/layers.h. What each brings follows from generator/layers.py."""

TRANSPOSED = "transposed"
"""What `linear` brings beside its own attributes: whether its weight is stored transposed (see `encode`)."""
IMPLIED = {("conv_transpose2d", "output_padding")}
"""Attributes that C++ is not told: the output's shape says them."""


class Fields(NamedTuple):
    """What a layer brings to C++: how many inputs, and which attributes as whole and as real numbers.

    whole: attributes, and how many numbers each is; None: any number.
    """

    inputs: int
    whole: tuple[tuple[str, int | None], ...]
    real: tuple[str, ...]


def fields(op: str) -> Fields:
    """Of a layer by its row in generator/layers.py."""
    attrs = {name: kind for name, kind in LAYERS[op].attrs.items() if (op, name) not in IMPLIED}
    if op == "linear":
        attrs[TRANSPOSED] = int
    counts = {int: 1, Size: 2, Dims: None}
    whole = tuple((name, counts[kind]) for name, kind in attrs.items() if kind is not float)
    return Fields(len(LAYERS[op].inputs), whole, tuple(name for name, kind in attrs.items() if kind is float))


_FIELDS = {op: fields(op) for op in OPS}


def arity(op: str) -> tuple[int, int, int]:
    """Inputs, whole numbers and real numbers of a layer; -1: any number."""
    counts = [count for _, count in _FIELDS[op].whole]
    return _FIELDS[op].inputs, -1 if None in counts else sum(n or 0 for n in counts), len(_FIELDS[op].real)


def fingerprint() -> int:
    """Of the list of layers, as `fingerprint` of csrc/core/layers.h: an extension of another list is found out."""
    hashed = 14695981039346656037
    for byte in "".join(f"{op} {' '.join(map(str, arity(op)))};" for op in OPS).encode():
        hashed = (hashed ^ byte) * 1099511628211 % 2**64
    return hashed >> 2


class Encoded(NamedTuple):
    """A program as two lists.

    Attributes:
        code: `fingerprint`; the number of values, and each as (kind, index, rank, *shape); latent and output; the
            number of layers, and each as (op, output, number of inputs, *inputs, number of whole numbers, *them,
            number of real ones). An absent input is -1.
        numbers: the real ones in order.
    """

    code: list[int]
    numbers: list[float]


_encoded: dict[int, Encoded] = {}


def encoded(program: Program) -> Encoded:
    """`encode`, once for each program that lives."""
    key = id(program)
    if key not in _encoded:
        _encoded[key] = encode(program)
        weakref.finalize(program, _encoded.pop, key, None)
    return _encoded[key]


def encode(program: Program) -> Encoded:
    """Encode a program of which nothing is `unknown`.

    A linear layer whose weight is a stored matrix's transpose takes the matrix, and says so (`transposed`).
    """
    code, numbers = [fingerprint(), len(program.values)], []
    for value in program.values:
        code += [KINDS.index(value.kind), value.index, len(value.shape), *value.shape]
    code += [program.latent, program.output]
    layers = [_encode(program, layer) for layer in program.layers]
    used = {i for layer in layers for i in layer.inputs} | {program.output}
    layers = [layer for layer in layers if layer.output in used]  # without transposes that their layers do themselves
    code.append(len(layers))
    for op, inputs, output, whole, real in layers:
        code += [op, output, len(inputs), *inputs, len(whole), *whole, len(real)]
        numbers += real
    return Encoded(code, numbers)


class _Layer(NamedTuple):
    op: int
    inputs: list[int]
    output: int
    whole: list[int]
    real: list[float]


def _encode(program: Program, layer: Layer) -> _Layer:
    attrs, inputs = layer.attrs, [-1 if i is None else i for i in layer.inputs]
    if layer.op == "linear":
        source = _transposed(program, layer, inputs[1])
        attrs = {TRANSPOSED: int(source is not None)}
        inputs[1] = inputs[1] if source is None else source
    whole: list[int] = []
    for name, _ in _FIELDS[layer.op].whole:
        whole += attrs[name] if isinstance(attrs[name], (tuple, list)) else [attrs[name]]
    real = [float(attrs[name]) for name in _FIELDS[layer.op].real]
    return _Layer(OPS.index(layer.op), inputs, layer.output, whole, real)


def unknown(program: Program) -> str | None:
    """What of a program the C++ code does not know, by the layer's name; None if it knows all."""
    for layer in program.layers:
        if layer.op not in OPS:
            return f"layer {layer.name!r}: {layer.op} is not in the C++ engine"
        kind = LAYERS[layer.op]
        for name, i in zip(kind.inputs, layer.inputs, strict=True):
            if layer.op == "resample" and name != "x" and i is not None and program.values[i].kind != "constant":
                return f"layer {layer.name!r}: its matrices are no constants"
            if i is None or name not in kind.weights or program.values[i].kind != "weight":
                continue
            if not (kind.linear_map and name == "weight"):
                return f"layer {layer.name!r}: its {name} is computed from parameters, which C++ does for kernels alone"
    return None


def _transposed(program: Program, layer: Layer, weight: int) -> int | None:
    """The stored matrix whose transpose a linear layer's weight is, if it is that."""
    for maker in program.layers:
        if maker.output == weight and layer.op == "linear" and layer.inputs[1] == weight:
            source = maker.inputs[0]
            assert source is not None
            if maker.op == "permute" and maker.attrs["dims"] == (1, 0):
                return source if program.values[source].kind in ("parameter", "constant") else None
    return None

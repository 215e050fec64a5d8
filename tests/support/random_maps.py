"""Random maps for the tests of the kernels: a geometry, and the torch function that it is of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from adgan_fast.kernels.maps.geometry import Geometry
from hypothesis import strategies as st
from torch.nn import functional as F


@dataclasses.dataclass(frozen=True)
class Layer:
    """A map: its geometry, torch's function of (x, weight), and the shape of a sample as that function takes it."""

    geometry: Geometry
    function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    in_shape: tuple[int, ...]
    made_of: str

    def __repr__(self) -> str:
        return self.made_of

    def run(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """x (P, K·groups) and the natural weight to y (Pout, N·groups), by torch."""
        if len(self.in_shape) == 2:
            return self.function(x, weight)
        return self.function(x.t().reshape(1, *self.in_shape), weight)[0].flatten(1).t()


def unpack(geometry: Geometry, packed: torch.Tensor) -> torch.Tensor:
    """The inverse of `Geometry.pack`: (..., groups, taps, K, N) to (..., *torch_shape)."""
    back = torch.tensor(geometry.order, device=packed.device).argsort()
    apart = packed.index_select(-3, back)
    apart = apart if geometry.input_major else apart.transpose(-1, -2)
    return apart.movedim(-3, -1).reshape(*packed.shape[:-4], *geometry.torch_shape)


def linear(positions: int, inputs: int, outputs: int) -> Layer:
    made_of = f"linear({positions}, {inputs}, {outputs})"
    return Layer(Geometry.linear(positions, inputs, outputs), F.linear, (positions, inputs), made_of)


def conv2d(in_hw: tuple[int, int], in_c: int, out_c: int, **attrs: Any) -> Layer:
    """attrs: kernel, and stride, padding, dilation, groups where not one, zero, one, one."""
    one: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    attrs = {**one, **attrs}
    kernel = attrs.pop("kernel")
    geometry = Geometry.conv2d(in_hw, in_c, out_c, kernel, **attrs)
    made_of = f"conv2d({in_hw}, {in_c}, {out_c}, kernel={kernel}, {attrs})"
    return Layer(geometry, lambda x, weight: F.conv2d(x, weight, **attrs), (in_c, *in_hw), made_of)


def conv_transpose2d(in_hw: tuple[int, int], in_c: int, out_c: int, **attrs: Any) -> Layer:
    """attrs: as those of conv2d, and output_padding."""
    one: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0), "output_padding": (0, 0), "dilation": (1, 1)}
    attrs = {**one, "groups": 1, **attrs}
    kernel = attrs.pop("kernel")
    geometry = Geometry.conv_transpose2d(in_hw, in_c, out_c, kernel, **attrs)
    made_of = f"conv_transpose2d({in_hw}, {in_c}, {out_c}, kernel={kernel}, {attrs})"
    return Layer(geometry, lambda x, weight: F.conv_transpose2d(x, weight, **attrs), (in_c, *in_hw), made_of)


@st.composite
def linears(draw: st.DrawFn, most: int = 9) -> Layer:
    return linear(*(draw(st.integers(1, most)) for _ in range(3)))


@st.composite
def layers(draw: st.DrawFn, side: int = 6, channels: int = 6) -> Layer:
    """A conv2d or conv_transpose2d with odd kernels, strides, paddings, dilations, groups and output paddings."""
    transposed = draw(st.booleans())
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    in_c = groups * draw(st.integers(1, max(1, channels // groups)))
    out_c = groups * draw(st.integers(1, max(1, channels // groups)))
    rows = [_line(draw, draw(st.integers(1, side)), transposed) for _ in range(2)]
    in_hw = rows[0]["size"], rows[1]["size"]
    attrs = {name: (rows[0][name], rows[1][name]) for name in rows[0] if name != "size"}
    return (conv_transpose2d if transposed else conv2d)(in_hw, in_c, out_c, groups=groups, **attrs)


def _line(draw: st.DrawFn, size: int, transposed: bool) -> dict[str, int]:
    """One dimension of a convolution whose output is not empty."""
    kernel, stride, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    if not transposed:
        padding = draw(st.integers(0, 2))
        while size + 2 * padding < dilation * (kernel - 1) + 1:
            kernel -= 1
        return {"size": size, "kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    extra = draw(st.integers(0, max(stride, dilation) - 1))
    full = (size - 1) * stride + dilation * (kernel - 1) + extra + 1
    padding = draw(st.integers(0, min(3, (full - 1) // 2)))
    return {
        "size": size, "kernel": kernel, "stride": stride, "padding": padding, "output_padding": extra,
        "dilation": dilation,
    }  # fmt: skip

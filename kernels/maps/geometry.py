"""Where the numbers of a map come from and go to: linear, conv2d and conv_transpose2d in one form.

A *map* takes (positions, channels) to (positions, channels), channels last, by weights that it has for each *tap*. Its
output positions fall into *classes*: those reached by the same taps. Every tap serves one class only, so

    y[target[q], n] = Σ_tap Σ_c W[tap, c, n] · x[source[tap][q], c]         over the taps of the class
    g[tap, c, n]    = Σ_q x[source[tap][q], c] · gy[target[q], n]
    gx[p, c]        = Σ_tap Σ_n W[tap, c, n] · gy[sink[tap][p], n]           over all taps

are the forward pass, the gradient of the weights and that of the input; an index of -1 stands for a zero. A convolution
has one class; a transposed one has a class for each residue of its output positions by the strides (four parities for
stride 2), each a small convolution without holes. No kernel is needed to say any of this, and none is imported.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import torch

__all__ = ["Geometry", "MapClass"]

HW = tuple[int, int]
"""(h, w)"""


@dataclasses.dataclass(frozen=True, eq=False)
class MapClass:
    """Output positions that are reached by the same taps.

    Attributes:
        taps: indices of its taps in packed weights, T in a row; none where no input reaches the positions.
        target: (Q,) int32, output positions, Q ≥ 1.
        source: (T, Q) int32, the input position that each tap brings to each of them, or -1 outside the input.
    """

    taps: range
    target: torch.Tensor
    source: torch.Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Geometry:
    """A map's shape; kernels know no more of linear, conv2d and conv_transpose2d than this.

    Attributes:
        groups: independent maps side by side: group i takes the i-th run of input channels to that of output channels.
        inputs, outputs: channels of a group, K and N.
        in_positions, out_positions: P and Pout.
        taps: of a group, all of them. Those that touch no position at all (the border of a kernel larger than its
            padded input) come last in packed weights and belong to no class: nothing reads them.
        classes: each output position is a target of one of them.
        order: the tap of the weight as torch holds it, counted row by row, for each packed tap.
        torch_shape: of the weight as torch holds it.
        input_major: whether that weight begins with its input channels (conv_transpose2d).
    """

    groups: int
    inputs: int
    outputs: int
    in_positions: int
    out_positions: int
    taps: int
    classes: tuple[MapClass, ...]
    order: tuple[int, ...]
    torch_shape: tuple[int, ...]
    input_major: bool

    @staticmethod
    def linear(positions: int, inputs: int, outputs: int) -> Geometry:
        """torch.nn.functional.linear on `positions` rows; weight (outputs, inputs)."""
        where = torch.arange(positions).view(1, positions)
        return _geometry(1, inputs, outputs, positions, positions, [where], (outputs, inputs), False)

    @staticmethod
    def conv2d(
        in_hw: HW, in_c: int, out_c: int, kernel: HW, stride: HW, padding: HW, dilation: HW, groups: int
    ) -> Geometry:
        """torch.nn.functional.conv2d of (in_c, *in_hw); weight (out_c, in_c / groups, *kernel)."""
        sizes = [
            (size + 2 * pad - gap * (taps - 1) - 1) // step + 1
            for size, taps, step, pad, gap in zip(in_hw, kernel, stride, padding, dilation, strict=True)
        ]
        along = [
            torch.arange(out) * step - pad + gap * torch.arange(taps).unsqueeze(1)
            for out, taps, step, pad, gap in zip(sizes, kernel, stride, padding, dilation, strict=True)
        ]
        source = _positions(along, in_hw).flatten(2).flatten(0, 1)
        shape = (out_c, in_c // groups, *kernel)
        return _geometry(
            groups, in_c // groups, out_c // groups, in_hw[0] * in_hw[1], sizes[0] * sizes[1], [source], shape, False
        )

    @staticmethod
    def conv_transpose2d(
        in_hw: HW,
        in_c: int,
        out_c: int,
        kernel: HW,
        stride: HW,
        padding: HW,
        output_padding: HW,
        dilation: HW,
        groups: int,
    ) -> Geometry:
        """torch.nn.functional.conv_transpose2d of (in_c, *in_hw); weight (in_c, out_c / groups, *kernel)."""
        sizes = [
            (size - 1) * step - 2 * pad + gap * (taps - 1) + extra + 1
            for size, taps, step, pad, extra, gap in zip(
                in_hw, kernel, stride, padding, output_padding, dilation, strict=True
            )
        ]
        along = []
        for size, out, taps, step, pad, gap in zip(in_hw, sizes, kernel, stride, padding, dilation, strict=True):
            scaled = torch.arange(out) + pad - gap * torch.arange(taps).unsqueeze(1)  # stride times the input position
            inside = (scaled % step == 0) & (scaled >= 0) & (scaled < size * step)
            along.append(torch.where(inside, scaled // step, -1))
        everywhere = _positions(along, in_hw)  # (taps h, taps w, out h, out w)
        residues = [(torch.arange(out) + pad) % step for out, step, pad in zip(sizes, stride, padding, strict=True)]
        classes = residues[0].unsqueeze(1) * stride[1] + residues[1]
        source = everywhere.flatten(2).flatten(0, 1)
        shape = (in_c, out_c // groups, *kernel)
        targets = [(classes.flatten() == which).nonzero().flatten() for which in range(stride[0] * stride[1])]
        return _geometry(
            groups, in_c // groups, out_c // groups, in_hw[0] * in_hw[1], sizes[0] * sizes[1],
            [source[:, target] for target in targets if len(target)], shape, True,
            [target for target in targets if len(target)],
        )  # fmt: skip

    @property
    def live_taps(self) -> int:
        """Taps that belong to a class: the first ones of packed weights."""
        return sum(len(part.taps) for part in self.classes)

    @functools.cached_property
    def sink(self) -> torch.Tensor:
        """(taps, P) int32: the output position to which each tap brings each input position, or -1."""
        sink = torch.full((self.taps, self.in_positions), -1, dtype=torch.int32)
        for part in self.classes:
            for tap, source in zip(part.taps, part.source, strict=True):
                inside = source >= 0
                sink[tap, source[inside].long()] = part.target[inside]
        return sink

    def pack(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight as torch holds it (*torch_shape), or a batch (G, *torch_shape), as (..., groups, taps, K, N).

        A contiguous copy.
        """
        batch = weight.shape[: weight.dim() - len(self.torch_shape)]
        first, second = (self.inputs, self.outputs) if self.input_major else (self.outputs, self.inputs)
        apart = weight.reshape(*batch, self.groups, first, second, self.taps).movedim(-1, -3)
        packed = apart if self.input_major else apart.transpose(-1, -2)
        return packed.index_select(-3, torch.tensor(self.order, device=weight.device)).contiguous()


def _positions(along: Sequence[torch.Tensor], hw: HW) -> torch.Tensor:
    """Input positions from rows (taps h, out h) and columns (taps w, out w): (taps h, taps w, out h, out w), or -1."""
    rows, columns = (torch.where((line >= 0) & (line < size), line, -1) for line, size in zip(along, hw, strict=True))
    rows, columns = rows[:, None, :, None], columns[None, :, None, :]
    return torch.where((rows >= 0) & (columns >= 0), rows * hw[1] + columns, -1)


def _geometry(
    groups: int,
    inputs: int,
    outputs: int,
    in_positions: int,
    out_positions: int,
    sources: Sequence[torch.Tensor],
    torch_shape: tuple[int, ...],
    input_major: bool,
    targets: Sequence[torch.Tensor] | None = None,
) -> Geometry:
    """From each class's source (all taps, Q) and targets (Q,); one class of all positions where there are none."""
    if targets is None:
        targets = [torch.arange(out_positions)]
    taps = sources[0].shape[0]
    classes = []
    order: list[int] = []
    for source, target in zip(sources, targets, strict=True):
        alive = (source >= 0).any(1).nonzero().flatten()
        here = range(len(order), len(order) + len(alive))
        order += alive.tolist()
        classes.append(MapClass(here, target.int(), source[alive].int().contiguous()))
    order += sorted(set(range(taps)) - set(order))
    return Geometry(
        groups, inputs, outputs, in_positions, out_positions, taps, tuple(classes), tuple(order), torch_shape,
        input_major,
    )  # fmt: skip

"""Convolutions as products: the patches that are copied on a GPU are those of F.unfold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from adgan_fast.engine import batched
from tests.support.families import FAMILIES
from tests.support.triton import lowered

SHAPES = [
    ((4, 4), (2, 2), (1, 1), (1, 1)),
    ((3, 2), (1, 3), (0, 2), (1, 1)),
    ((3, 3), (2, 1), (2, 0), (2, 3)),
    ((1, 1), (1, 1), (0, 0), (1, 1)),
]


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), SHAPES)
def test_the_view_of_all_patches_holds_what_unfold_copies(kernel, stride, padding, dilation):
    x = torch.randn(3, 2, 8, 9, generator=torch.Generator().manual_seed(0)).permute(0, 1, 3, 2)  # no plain layout
    shape = {"stride": stride, "padding": padding, "dilation": dilation}
    found = batched.patches(x, kernel, shape)
    want = F.unfold(x, kernel, **shape)
    assert found.shape[:4] == (3, 2, *kernel)
    assert torch.equal(found.flatten(4, 5).flatten(1, 3), want)
    assert torch.equal(batched.im2col(x, kernel, shape), want)


SIZES = [(1, 3), (3, 1), (2, 4)]
"""Groups of weights, and samples of each."""


def held_to(each: Callable[..., torch.Tensor], found: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> None:
    """Output and gradients of a product for all are those of a convolution for each group of weights by itself."""
    want = torch.stack([each(a, w) for a, w in zip(x, weight, strict=True)])
    found = found.reshape(want.shape)
    torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-12)
    direction = torch.randn(want.shape, generator=torch.Generator().manual_seed(2), dtype=want.dtype)
    gradients = [torch.autograd.grad((made * direction).sum(), [x, weight]) for made in (found, want)]
    for mine, right in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-12, atol=1e-12)


def leaves(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("g", "b"), SIZES)
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), SHAPES)
def test_all_starts_of_an_image_are_the_columns_of_one_product(kernel, stride, padding, dilation, g, b, groups):
    """As a GPU runs weights="per_sample"; on a CPU by hand."""
    shape = {"stride": stride, "padding": padding, "dilation": dilation}
    x, weight = leaves((g, b, 4, 8, 9), (g, 6, 4 // groups, *kernel))
    found = batched.conv2d_as_product(x, weight, groups, shape)
    held_to(lambda a, w: F.conv2d(a, w, groups=groups, **shape), found, x, weight)
    x, weight = leaves((g, b, 4, 5, 6), (g, 4, 6 // groups, *kernel))
    size = tuple(F.conv_transpose2d(x[0], weight[0], groups=groups, **shape).shape[2:])
    found = batched.conv_transpose2d_as_product(x, weight, groups, shape, size)
    held_to(lambda a, w: F.conv_transpose2d(a, w, groups=groups, **shape), found, x, weight)


def test_a_gpu_multiplies_and_does_not_convolve_where_starts_share_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images of three starts, by tensors that are taken for a GPU's."""
    took: list[tuple[str, tuple[int, ...]]] = []
    for name in ("conv2d_as_product", "conv_transpose2d_as_product"):
        right = getattr(batched, name)

        def noted(x, *rest, name=name, right=right):
            took.append((name, tuple(x.shape[:2])))
            return right(x, *rest)

        monkeypatch.setattr(batched, name, noted)

    def made(family: str) -> torch.Tensor:
        case = FAMILIES[family]
        program = lowered(case)
        starts = torch.randn(2, 3, *case.latent_shape, generator=torch.Generator().manual_seed(0))
        weights = [p.detach().expand(2, *p.shape) for p in program.parameters]
        return batched.forward(program, starts, weights, program.constants)

    for family, name in (
        ("DCGAN of 8", "conv_transpose2d_as_product"),
        ("upsample and convolve", "conv2d_as_product"),
    ):
        want = made(family)
        assert took == []
        with monkeypatch.context() as patch:
            patch.setattr(batched, "_on_gpu", lambda x: True)
            found = made(family)
        assert set(took) == {(name, (2, 3))}
        took.clear()
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)

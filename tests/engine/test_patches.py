"""Convolutions as products: the patches that are copied on a GPU are those of F.unfold."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from adgan_fast.engine import batched

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

"""What became of each image."""

from __future__ import annotations

import pytest
import torch
import torch.utils.checkpoint

from adgan_fast import Status
from tests.support.made import IMAGES, made, search

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_status_of_each_image():
    images = torch.cat([IMAGES, IMAGES[:1]])
    images[1, 0, 0, 0] = float("nan")
    gen = made(lambda s, z: s.l(z))
    with pytest.warns(RuntimeWarning, match="1 of 3 images hold NaN"):
        found = search(gen, images=images)
    assert found.status.dtype == torch.int8
    assert [Status(int(s)).name for s in found.status] == ["ok", "not_finite", "ok"]
    with pytest.warns(RuntimeWarning, match="2 of 3 scores are NaN or Inf"):
        found = search(gen, images=images, lr_z=1e38, lr_weights=1e30)
    assert [Status(int(s)).name for s in found.status] == ["diverged", "not_finite", "diverged"]

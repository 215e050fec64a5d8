"""What the native engine cannot run is named."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.support.engines import NEEDS_EXTENSION
from tests.support.families import FAMILIES, dcgan
from tests.support.generators import Case
from tests.support.native import features, run

pytestmark = NEEDS_EXTENSION


def test_auto_takes_it_and_what_it_cannot_run_goes_to_grouped():
    case = FAMILIES["DCGAN of 8"]
    assert run(case, case.images(1), engine="auto").engine == "native"
    assert run(case, case.images(1), engine="auto", loss=features).engine == "native"
    double = Case(dcgan(8, 1, 5, 3).module.double(), (5,), (1, 8, 8))
    assert run(double, double.images(1).double(), engine="auto").engine == "grouped"
    with pytest.raises(ValueError, match=r"float32, not in torch\.float64"):
        run(double, double.images(1).double())


class ScaledNorm(nn.Module):
    """Batch norm by a weight that is computed from a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(6, 48), nn.BatchNorm2d(3)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x, norm = self.first(z).view(-1, 3, 4, 4), self.norm
        assert norm.running_mean is not None
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight * 2, norm.bias)


def test_a_layer_it_does_not_know_is_named():
    case = Case(ScaledNorm().eval(), (6,), (3, 4, 4))
    with pytest.raises(ValueError, match=r"layer '.*': its weight is computed from parameters"):
        run(case, case.images(1))

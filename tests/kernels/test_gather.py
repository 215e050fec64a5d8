"""Sums by a table are what PyTorch's indexing makes of them.

``device`` is the CPU under Triton's interpreter, and the GPU where there is one: see tests/support/interpreted.py.
"""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from adgan_fast.kernels.gather import gather_sum

from tests.support.uninitialised import filled_with_nan


def draw(pairs: int, inputs: int, terms: int, outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers, and a table of which a quarter are zeros."""
    random = torch.Generator().manual_seed(terms)
    x = torch.randn(pairs, inputs, generator=random)
    table = torch.randint(0, inputs, (terms, outputs), generator=random, dtype=torch.int32)
    return x, torch.where(torch.rand(table.shape, generator=random) < 0.25, -1, table)


def wanted(x: torch.Tensor, table: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """In float32, term after term."""
    zero = torch.cat([x, torch.zeros(len(x), 1)], 1)
    total = torch.zeros(len(x), table.shape[1])
    if bias is not None:
        total += bias.repeat_interleave(table.shape[1] // bias.shape[1], 1)
    for row in table:
        total += zero[:, row.long()]
    return total


@pytest.mark.parametrize("terms", [0, 1, 4, 16, 17])
@pytest.mark.parametrize("outputs", [1, 511, 1200])
def test_any_number_of_terms_is_added_in_order(device: torch.device, terms: int, outputs: int) -> None:
    x, table = draw(3, 40, terms, outputs)
    with filled_with_nan():
        found = gather_sum(x.to(device), table.to(device))
    assert torch.equal(found.cpu(), wanted(x, table))


@pytest.mark.parametrize("biases", [1, 3, 1200])
def test_a_bias_is_of_as_many_numbers_in_a_row(device: torch.device, biases: int) -> None:
    x, table = draw(2, 40, 4, 1200)
    bias = torch.arange(2.0 * biases).view(2, biases)
    assert torch.equal(gather_sum(x.to(device), table.to(device), bias.to(device)).cpu(), wanted(x, table, bias))


def test_a_pairs_numbers_are_its_own(device: torch.device) -> None:
    x, table = draw(3, 40, 4, 50)
    x[1] = torch.nan
    found = gather_sum(x.to(device), table.to(device)).cpu()
    assert torch.equal(found[[0, 2]], wanted(x[[0, 2]], table))
    assert torch.equal(found[1].isnan(), (table >= 0).any(0))  # and -1 reads nothing


def test_nothing_is_summed_to_nothing(device: torch.device) -> None:
    x, table = draw(2, 40, 4, 50)
    assert gather_sum(x[:0].to(device), table.to(device)).shape == (0, 50)
    assert gather_sum(x.to(device), table[:, :0].contiguous().to(device)).shape == (2, 0)


def test_what_does_not_fit_is_refused(device: torch.device) -> None:
    x, table = (part.to(device) for part in draw(2, 40, 4, 50))
    bias = torch.zeros(2, 5, device=device)
    for name, wrong in (
        ("x", (x.double(), table)), ("x", (x.mT, table)), ("x", (x[0], table)), ("table", (x, table.long())),
        ("table", (x, table[:, ::2])), ("bias", (x, table, bias.double())), ("bias", (x, table, bias[:, ::2])),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name} must have two dimensions, torch"):
            gather_sum(*wrong)
    for wrong_bias in (bias[:1], torch.zeros(2, 3, device=device), torch.zeros(2, 0, device=device)):
        with pytest.raises(ValueError, match="does not fit 50 numbers of each of 2 pairs"):
            gather_sum(x, table, wrong_bias)


def test_compiled_kernels_refuse_cpu_tensors() -> None:
    with pytest.raises(RuntimeError, match="the tensors are on cpu, but Triton needs them on a GPU"):
        gather_sum(*draw(2, 40, 4, 50))

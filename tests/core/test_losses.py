"""The losses: values against plain loops, gradients, and what a callable must return."""

from __future__ import annotations

import pytest
import torch

from adgan_fast.core.losses import BY_NAME, Loss, joined_edges, l1, l2, laplacian

pytestmark = pytest.mark.usefixtures("one_thread")


def pair(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    first, second = (torch.rand(shape, generator=random, dtype=torch.float64) * 2 - 1 for _ in range(2))
    return first, second


def test_l2_and_l1_are_sums_over_channels_and_pixels():
    r, x = pair(3, 2, 3, 5)
    for b in range(3):
        differences = (r[b] - x[b]).flatten().tolist()
        assert l2(r, x)[b].item() == pytest.approx(sum(d * d for d in differences), rel=1e-14)
        assert l1(r, x)[b].item() == pytest.approx(sum(abs(d) for d in differences), rel=1e-14)


def test_edges_are_repeated_on_a_gpu_as_pytorch_does_on_a_cpu():
    x, _ = pair(2, 3, 4, 7)
    want = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")
    assert torch.equal(joined_edges(joined_edges(x, -1), -2), want)


def plain_blur(image: list[list[float]]) -> list[list[float]]:
    taps = (1, 4, 6, 4, 1)
    high, wide = len(image), len(image[0])

    def at(i: int, j: int) -> float:
        return image[min(max(i, 0), high - 1)][min(max(j, 0), wide - 1)]

    return [
        [
            sum(taps[a] * taps[b] * at(i + a - 2, j + b - 2) for a in range(5) for b in range(5)) / 256
            for j in range(wide)
        ]
        for i in range(high)
    ]


def plain_laplacian(difference: list[list[float]]) -> float:
    """One channel's loss, with lists and loops."""
    total, weight, level = 0.0, 1.0, difference
    while min(len(level), len(level[0])) >= 8:
        coarse = [row[::2] for row in plain_blur(level)[::2]]
        spread = [[coarse[i // 2][j // 2] for j in range(len(level[0]))] for i in range(len(level))]
        smooth = plain_blur(spread)
        total += weight * sum(abs(a - b) for p, q in zip(level, smooth, strict=True) for a, b in zip(p, q, strict=True))
        level, weight = coarse, 4 * weight
    return total + weight * sum(abs(a) for row in level for a in row)


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (8, 8), (9, 13), (16, 8), (17, 19), (28, 28)])
def test_laplacian_is_the_weighted_l1_of_the_pyramid_of_the_difference(size):
    r, x = pair(2, 2, *size)
    for b in range(2):
        want = sum(plain_laplacian((r[b, c] - x[b, c]).tolist()) for c in range(2))
        assert laplacian(r, x)[b].item() == pytest.approx(want, rel=1e-12)


def test_laplacian_of_a_constant_difference_lives_in_the_coarsest_level_alone():
    x = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    assert laplacian(x + 0.5, x).item() == pytest.approx(0.5 * 16 * 16, rel=1e-14)


@pytest.mark.parametrize("name", sorted(BY_NAME))
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (9, 11)])
def test_gradients_are_those_of_finite_differences(name, size):
    r, x = pair(2, 2, *size, seed=3)
    assert torch.autograd.gradcheck(lambda r: BY_NAME[name](r, x), (r.requires_grad_(),))


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_rows_do_not_mix(name):
    r, x = pair(4, 3, 9, 9)
    together = BY_NAME[name](r, x)
    alone = torch.cat([BY_NAME[name](r[b : b + 1], x[b : b + 1]) for b in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_a_perfect_reconstruction_costs_exactly_nothing_and_pulls_nowhere(name):
    x = pair(2, 1, 9, 9)[0]
    r = x.clone().requires_grad_()
    value = BY_NAME[name](r, x)
    assert torch.equal(value, torch.zeros(2, dtype=torch.float64))
    value.sum().backward()
    assert torch.equal(r.grad, torch.zeros_like(x))


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_no_rows_have_no_losses(name):
    empty = torch.zeros(0, 1, 9, 9)
    assert BY_NAME[name](empty, empty).shape == (0,)


def mean_of_all(r, x):
    return (r - x).square().mean()


@pytest.mark.parametrize(
    ("loss", "seen"),
    [
        (mean_of_all, r"\(\)"),
        (lambda r, x: (r - x).square(), r"\(2, 1, 3, 3\)"),
        (lambda r, x: (r - x).square().flatten(1).sum(1, keepdim=True), r"\(2, 1\)"),
        (lambda r, x: 1.0, "float"),
        (lambda r, x: None, "NoneType"),
    ],
)
def test_a_callable_that_does_not_give_one_number_a_row_is_refused_by_name(loss, seen):
    r, x = pair(2, 1, 3, 3)
    with pytest.raises(ValueError, match=rf"(?s)({loss.__name__}).*{seen}"):
        Loss(loss)(r, x)

"""The l2 and l1 kernels have the values and gradients of adgan_fast.core.losses.

``device`` is the CPU under Triton's interpreter, and the GPU where there is one: see tests/support/interpreted.py.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="Triton is not installed")

from adgan_fast.kernels import aot
from adgan_fast.kernels import loss as kernels

from adgan_fast.core import losses
from tests.support.uninitialised import filled_with_nan

LAYOUTS = (torch.contiguous_format, torch.channels_last)
EPS = torch.finfo(torch.float32).eps


def draw(
    images: int, starts: int, shape: tuple[int, ...], layout: torch.memory_format, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Reconstructions (images · starts, *shape) in a layout, and images (images, *shape)."""
    random = torch.Generator().manual_seed(starts)
    made = torch.rand(images * starts, *shape, generator=random) * 2 - 1
    image = torch.rand(images, *shape, generator=random) * 2 - 1
    return made.to(device, memory_format=layout), image.to(device)


def by_autograd(name: str, made: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """In float64."""
    made = made.double().requires_grad_()
    spread = image.double().repeat_interleave(made.shape[0] // max(1, image.shape[0]), 0)
    value = losses.BY_NAME[name](made, spread)
    return value.detach(), torch.autograd.grad(value.sum(), made)[0]


@settings(max_examples=25)
@given(
    name=st.sampled_from(kernels.PIXEL_LOSSES),
    images=st.integers(0, 3),
    starts=st.integers(1, 3),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 30), st.integers(1, 30)),
    layout=st.sampled_from(LAYOUTS),
)
def test_any_shape_and_layout_has_the_value_and_gradient_of_autograd(
    device: torch.device, name: str, images: int, starts: int, shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    made, image = draw(images, starts, shape, layout, device)
    with filled_with_nan():
        value, gradient = kernels.pixel_loss(name, made, image)
    want, slope = by_autograd(name, made, image)
    torch.testing.assert_close(value.double(), want, rtol=32 * EPS, atol=EPS)
    assert gradient is not None
    torch.testing.assert_close(gradient.double(), slope, rtol=0, atol=4 * EPS)
    assert gradient.stride() == made.stride()
    alone, none = kernels.pixel_loss(name, made, image, gradient=False)
    assert torch.equal(alone, value) and none is None


@pytest.mark.parametrize("name", kernels.PIXEL_LOSSES)
def test_a_row_has_the_same_bits_alone_as_among_others_and_at_every_launch(device: torch.device, name: str) -> None:
    made, image = draw(3, 2, (3, 21, 23), torch.channels_last, device)
    many, again = (kernels.pixel_loss(name, made, image) for _ in range(2))
    alone = kernels.pixel_loss(name, made[2:4], image[1:2])
    for together, twice, one in zip(many, again, alone, strict=True):
        assert torch.equal(together, twice)
        assert torch.equal(together[2:4], one)


def test_where_both_are_equal_the_gradient_of_l1_is_zero(device: torch.device) -> None:
    made, _ = draw(1, 1, (1, 4, 4), torch.contiguous_format, device)
    value, gradient = kernels.pixel_loss("l1", made, made.clone())
    assert gradient is not None and not gradient.any() and not value.any()


@pytest.mark.parametrize("name", kernels.PIXEL_LOSSES)
def test_nan_in_an_image_stays_in_its_rows(device: torch.device, name: str) -> None:
    made, image = draw(3, 2, (1, 5, 5), torch.contiguous_format, device)
    clean = kernels.pixel_loss(name, made, image)
    image[1, 0, 2, 2] = torch.nan
    value, gradient = kernels.pixel_loss(name, made, image)
    assert value[2:4].isnan().all()
    for found, want in zip((value, gradient), clean, strict=True):
        assert torch.equal(found[:2], want[:2]) and torch.equal(found[4:], want[4:])


def test_another_layout_is_copied(device: torch.device) -> None:
    made, image = draw(2, 2, (3, 4, 6), torch.contiguous_format, device)
    turned = made.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(kernels.pixel_loss("l2", turned, image)[0], kernels.pixel_loss("l2", made, image)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {"loss": "huber"}, "unknown loss 'huber'; the known ones are l2, l1"),
        (lambda t: t | {"image": t["image"][:, :1]}, "do not fit"),
        (lambda t: t | {"reconstruction": t["reconstruction"][:3]}, "do not fit"),
        (lambda t: t | {"image": t["image"].double()}, "must be float32"),
    ],
)
def test_what_does_not_fit_is_named(device: torch.device, change, message: str) -> None:
    made, image = draw(2, 2, (3, 4, 4), torch.contiguous_format, device)
    with pytest.raises(ValueError, match=message):
        kernels.pixel_loss(**change({"loss": "l2", "reconstruction": made, "image": image}))


@pytest.mark.parametrize("target", ["sm_90", "gfx942"])
@pytest.mark.parametrize("name", [case.name for case in kernels.cases()])
def test_every_specialisation_compiles_without_spills_and_with_wide_accesses(name: str, target: str) -> None:
    case = next(case for case in kernels.cases() if case.name == name)
    resources = aot.compile_case(case, target)
    assert resources.spills == 0
    assert resources.wide_load_bytes >= case.wide_load_bytes
    assert resources.wide_store_bytes >= case.wide_store_bytes

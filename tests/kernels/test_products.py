"""Products of two activations are what torch.matmul makes of them in float64, however the operands lie in memory.

``device`` is the CPU under Triton's interpreter, and the GPU where there is one: see tests/support/interpreted.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="Triton is not installed")

from adgan_fast.kernels import aot
from adgan_fast.kernels import products as kernels
from adgan_fast.kernels.case import Case
from adgan_fast.kernels.products import product

from tests.support.uninitialised import filled_with_nan

EPS = torch.finfo(torch.float32).eps
UNIT = {"float32": 4 * EPS, "tf32": 2.0**-10, "bf16": 2.0**-10}
"""Of |a| · |b|: what each precision may be off by. (TF32 keeps 11 bits, of two operands.)"""


def draw(*shapes: tuple[int, ...], seed: int = 0) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random) for shape in shapes]


def assert_is_the_product(found: torch.Tensor, a: torch.Tensor, b: torch.Tensor, precision: str = "float32") -> None:
    want, size = a.double() @ b.double(), a.double().abs() @ b.double().abs()
    assert found.shape == want.shape and found.is_contiguous()
    # Sums of k terms: float32's own rounding grows with √k at most in practice.
    assert ((found.cpu() - want).abs() <= UNIT[precision] * (1 + a.shape[-1]) ** 0.5 * size).all()


@pytest.mark.parametrize("depth", [1, 3, 17, 65])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 65), (3, 17), (17, 3), (65, 1), (65, 66)])
def test_any_size_is_multiplied(device: torch.device, rows: int, columns: int, depth: int) -> None:
    a, b = draw((2, 3, rows, depth), (2, 3, depth, columns))
    with filled_with_nan():
        assert_is_the_product(product(a.to(device), b.to(device), "float32"), a, b)


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "as it is": lambda x: x,
    "transposed": lambda x: x.mT.contiguous().mT,
    "batches last": lambda x: x.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1),
    "between others": lambda x: torch.stack([x, x + 1], 3)[..., 0, :],
    "every other": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "batches turned": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "repeated": lambda x: x[:1].expand(x.shape),
    "repeated rows": lambda x: x[..., :1, :].expand(x.shape),
}


@pytest.mark.parametrize("of_b", LAYOUTS)
@pytest.mark.parametrize("of_a", LAYOUTS)
def test_operands_may_lie_in_memory_in_any_way(device: torch.device, of_a: str, of_b: str) -> None:
    a, b = draw((2, 3, 5, 7), (2, 3, 7, 4))
    a, b = LAYOUTS[of_a](a.to(device)), LAYOUTS[of_b](b.to(device))
    with filled_with_nan():
        found = product(a, b, "float32")
    assert_is_the_product(found, a.cpu(), b.cpu())


@settings(max_examples=40)
@given(
    lead=st.lists(st.integers(0, 3), max_size=4),
    repeated=st.lists(st.sampled_from(["neither", "a", "b"]), min_size=4, max_size=4),
    sizes=st.tuples(*[st.integers(0, 5)] * 3),
    order=st.permutations(range(4)),
)
@example(lead=[3, 2, 2, 2], repeated=["b", "b", "neither", "neither"], sizes=(1, 2, 4), order=[3, 1, 0, 2])
def test_dimensions_before_the_matrices_broadcast_as_torch_has_it(
    device: torch.device, lead: list[int], repeated: list[str], sizes: tuple[int, int, int], order: list[int]
) -> None:
    rows, depth, columns = sizes

    def of(name: str, matrix: tuple[int, int]) -> torch.Tensor:
        shape = [1 if who == name else size for size, who in zip(lead, repeated, strict=False)]
        places = [dim for dim in order if dim < len(shape)]  # how the dimensions follow each other in memory
        (x,) = draw((*(shape[dim] for dim in places), *matrix), seed=len(name))
        return x.permute(*(places.index(dim) for dim in range(len(shape))), len(shape), len(shape) + 1)

    a, b = of("a", (rows, depth)), of("b", (depth, columns))
    assert_is_the_product(product(a.to(device), b.to(device), "float32"), a, b)
    assert_is_the_product(
        product(a[..., :0].to(device), b[..., :0, :].to(device), "float32"), a[..., :0], b[..., :0, :]
    )


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_a_long_sum_is_within_the_rounding_of_its_precision(device: torch.device, precision: str) -> None:
    a, b = draw((1, 3, 2000), (1, 2000, 5))
    assert_is_the_product(product(a.to(device), b.to(device), precision), a, b, precision)


def test_less_exact_products_are_what_a_config_gets_that_permits_them(device: torch.device) -> None:
    a, b = draw((2, 20, 40), (2, 40, 20))
    exact, tf32, bf16 = (product(a.to(device), b.to(device), name) for name in UNIT)
    assert torch.equal(tf32, bf16)
    assert not torch.equal(exact, tf32)


def test_nan_and_infinities_stay_in_their_rows_and_columns(device: torch.device) -> None:
    a, b = draw((2, 70, 20), (2, 20, 70))
    a[0, 3, 4], a[1, 66, 0], b[0, 19, 68] = torch.nan, torch.inf, torch.nan
    found = product(a.to(device), b.to(device), "float32").cpu()
    expected = torch.zeros(found.shape, dtype=torch.bool)
    expected[0, 3] = expected[1, 66] = expected[0, :, 68] = True
    assert torch.equal(~found.isfinite(), expected)
    assert found[0, 3].isnan().all() and found[0, :, 68].isnan().all()


def test_every_launch_has_the_same_bits_and_a_matrix_those_that_it_has_alone(device: torch.device) -> None:
    a, b = (x.to(device) for x in draw((3, 2, 70, 40), (3, 2, 40, 70)))
    found = product(a, b, "float32")
    assert torch.equal(found, product(a, b, "float32"))
    assert torch.equal(found[1, 1], product(a[1, 1], b[1, 1], "float32"))
    assert torch.equal(found, product(a.mT.contiguous().mT, b.transpose(0, 1).contiguous().transpose(0, 1), "float32"))


def test_what_does_not_fit_is_refused(device: torch.device) -> None:
    a, b = (x.to(device) for x in draw((2, 3, 4), (2, 4, 5)))
    for left, right in ((a, b.mT), (a.double(), b), (a, b.double()), (a, b[0, 0]), (a[0, 0], b)):
        with pytest.raises(ValueError, match=r"must be \(…, m, k\) and \(…, k, n\), float32"):
            product(left, right, "float32")
    with pytest.raises(RuntimeError, match="broadcast"):
        product(a, b.expand(3, 2, 4, 5)[:, :1].expand(3, 3, 4, 5), "float32")
    with pytest.raises(ValueError, match="unknown precision 'half'"):
        product(a, b, "half")
    far = torch.empty_strided((2, 4), (2**31, 1), device="meta")
    with pytest.raises(RuntimeError, match=r"a spans 2147483651 numbers in memory, more than 32 bits count"):
        kernels._check_span("a", far)


# -- compiled ------------------------------------------------------------------------------------------------------


def found(name: str) -> Case:
    return next(case for case in kernels.cases() if case.name == name)


def test_each_precision_multiplies_as_it_says() -> None:
    instructions = {
        name: len(
            re.findall(
                r"mma\S*\.tf32", aot.compile_case(found(f"product {name}, a · b, 16 × 16 × 32"), "sm_90").assembly
            )
        )
        for name in ("float32", "tf32")
    }
    assert instructions["float32"] == 3 * instructions["tf32"] > 0
    hip = aot.compile_case(found("product float32 (hip), a · b, 16 × 16 × 32"), "gfx942").assembly
    assert re.search(r"v_mfma_f32_\d+x\d+x\d+_f32|v_mfma_f32_\w*f32", hip)


def test_compiled_kernels_refuse_cpu_tensors() -> None:
    with pytest.raises(RuntimeError, match="the tensors are on cpu, but Triton needs them on a GPU"):
        product(torch.ones(2, 2), torch.ones(2, 2), "float32")

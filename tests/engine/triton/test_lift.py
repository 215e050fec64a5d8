"""Which maps have kernels of their own, with what follows them."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

from adgan_fast.engine.triton import lift as triton_lift
from adgan_fast.generator.rules import lower
from adgan_fast.models import DCGANGenerator
from tests.support.families import FAMILIES
from tests.support.triton import lowered

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_large_maps_of_the_papers_generator_are_lifted_with_what_follows_them() -> None:
    program = lower(DCGANGenerator(32, 1, 256, 64).eval(), (256,))
    left, chains = triton_lift.lift(program)
    assert [chain.geometry.torch_shape for chain in chains] == [(256, 256, 4, 4), (256, 128, 4, 4), (128, 64, 4, 4)]
    assert [[layer.op for layer in chain.layers] for chain in chains] == [
        ["conv_transpose2d", "batch_norm", "relu"]
    ] * 3
    assert [layer.op for layer in left.layers if layer.op != "reshape"] == ["private"] * 3 + [
        "conv_transpose2d",
        "tanh",
    ]


@pytest.mark.usefixtures("all_maps")
def test_what_is_tied_or_computed_stays() -> None:
    case = FAMILIES["tied weights"]  # head's weight is read as it is and transposed, first and second share theirs
    left, chains = triton_lift.lift(lowered(case))
    assert not chains and left.layers == lowered(case).layers
    case = FAMILIES["learned constant input"]
    left, chains = triton_lift.lift(lowered(case))
    assert [[layer.op for layer in chain.layers] for chain in chains] == [
        ["linear", "leaky_relu"], ["linear"], ["conv2d", "tanh"],
    ]  # fmt: skip


@pytest.mark.usefixtures("all_maps")
def test_a_chain_ends_where_its_value_is_read_by_others() -> None:
    case = FAMILIES["residual"]
    _, chains = triton_lift.lift(lowered(case))
    assert [[layer.op for layer in chain.layers][1:] for chain in chains] == [["batch_norm"], ["batch_norm"], ["tanh"]]

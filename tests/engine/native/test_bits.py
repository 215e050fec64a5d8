"""The same bits however the work is cut, and nothing read before it is written."""

from __future__ import annotations

import itertools
import re
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adgan_fast import ops
from adgan_fast.engine.native import engine as native
from tests.support.engines import NEEDS_EXTENSION, WEIGHTS
from tests.support.families import FAMILIES, dcgan
from tests.support.generators import cases
from tests.support.native import BEST, HERE, LOSSES, op_arguments, run, taken
from tests.support.paths import ROOT
from tests.support.results import differences
from tests.support.tally import Tally

pytestmark = NEEDS_EXTENSION


@pytest.mark.usefixtures("threads", "isa")
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", ["DCGAN of 32", "upsample and convolve", "tied weights"])
def test_bits_do_not_depend_on_threads_order_or_neighbours(name, weights, monkeypatch):
    case = FAMILIES[name] if name != "DCGAN of 32" else dcgan(32, 1, 20, 16)
    images = case.images(5)
    torch.set_num_threads(1)
    whole = run(case, images, weights=weights)
    torch.set_num_threads(3)
    assert not differences(whole, run(case, images, weights=weights))
    monkeypatch.setattr(native, "CALL_SECONDS", 0.0)  # a pair at a time
    assert not differences(whole, run(case, images, weights=weights))
    backwards = run(case, images.flip(0), weights=weights)
    assert torch.equal(backwards.losses.flip(0), whole.losses)
    assert torch.equal(backwards.latents.flip(0), whole.latents)
    alone = run(case, images[2:3], weights=weights)
    assert torch.equal(alone.losses, whole.losses[2:3])


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("loss", ["l2", "laplacian"])
@pytest.mark.parametrize("name", [*FAMILIES, "DCGAN of 32"])
def test_threads_that_share_an_image_change_no_bit(name, loss):
    """With one copy of the weights for its starts, more of these than pass at a time, and never a number left over."""
    case = taken(name) if name in FAMILIES else dcgan(32, 3, 20, 16)
    batch = re.search(r"kBatch = (\d+)", (ROOT / "csrc/core/plan.h").read_text())
    arguments = op_arguments(case, n=1, s=int(batch[1]) + 3, weights="per_sample", loss=loss)
    torch.set_num_threads(1)
    alone = ops.native_search(*arguments)
    for threads in (2, 3, 5):
        torch.set_num_threads(threads)
        shared = ops.native_search(*arguments, poison=True)
        assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True)), threads
    assert all(torch.isfinite(a).all() for a in alone)


@pytest.mark.skipif(len(HERE) < 2, reason="there is one instruction set here")
def test_the_instruction_set_that_is_asked_for_is_used():
    """With a fused multiply-add or without, and with other vectors, sums round differently."""
    arguments = op_arguments(dcgan(16, 1, 9, 20))
    latents = [ops.native_search(*arguments, isa=i)[2] for i in range(len(HERE))]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(latents, 2))
    assert torch.equal(ops.native_search(*arguments)[2], latents[-1])
    with pytest.raises(RuntimeError, match="isa must be"):
        ops.native_search(*arguments, isa=len(HERE))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("weights, compact", [*((mode, False) for mode in WEIGHTS), ("per_seed", True)])
@pytest.mark.parametrize("name", FAMILIES)
def test_no_scratch_is_read_before_it_is_written(name, weights, compact):
    arguments = op_arguments(taken(name), weights=weights, loss="laplacian")
    clean = ops.native_search(*arguments, compact=compact)
    for a, b in zip(clean, ops.native_search(*arguments, poison=True, compact=compact), strict=True):
        assert torch.equal(a, b) and bool(torch.isfinite(b).all())


def test_no_scratch_is_read_before_it_is_written_in_random_generators():
    finite = Tally()

    @settings(max_examples=40)
    @given(cases(), st.sampled_from(WEIGHTS), st.sampled_from(LOSSES), st.integers(0, max(0, BEST)))
    def check(case, weights, loss, isa):
        search = partial(ops.native_search, *op_arguments(case, weights=weights, loss=loss), isa=isa)
        clean = search()
        for ours, poisoned in zip(clean, search(poison=True), strict=True):
            assert torch.equal(ours.nan_to_num(7), poisoned.nan_to_num(7))
        if all(bool(part.isfinite().all()) for part in clean):
            finite.checked += 1
        else:
            finite.aside["the search diverges"] += 1

    check()
    finite.assert_enough(36, 0.1)

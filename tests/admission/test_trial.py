"""What a trial sees: a wrong search, bits that depend on what they must not, memory read before it is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import adgan_fast
from adgan_fast import SearchConfig, admission
from adgan_fast.admission import kept, trial
from adgan_fast.admission.trial import Subject, wrong_and_note
from adgan_fast.config import PRECISIONS, WEIGHTS
from adgan_fast.core.block import Block
from adgan_fast.core.job import Job, Plan
from adgan_fast.engine import named
from adgan_fast.engine.grouped import Grouped
from adgan_fast.engine.triton.engine import LEAST_REPLAYED, Triton
from tests.support.recorded import recorded_by

if TYPE_CHECKING:
    from adgan_fast.engine.triton.search import TileResult, TileSearch

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


def tiny() -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 6),
        nn.Unflatten(1, (6, 1, 1)),
        nn.ConvTranspose2d(6, 3, 2, bias=False),
        nn.BatchNorm2d(3),
        nn.Tanh(),
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SUBJECTS", {"a tiny one": Subject(tiny, 3, (3, 2, 2), 2)})


# -- engines that are right ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", WEIGHTS)
def test_an_engine_that_is_right_is_found_so(weights: str) -> None:
    """On a CPU, with the generators that a GPU is tried by."""
    assert wrong_and_note(Grouped(), "float32", weights, CPU) == ("", "")


def test_the_generators_have_what_the_kernels_are_for() -> None:
    """Both kinds of maps, moments rebuilt and stored, an epilogue, norms of rows, attention; what is left."""
    pytest.importorskip("triton", reason="Triton is not installed")
    from adgan_fast.kernels.maps.choices import rebuilds
    from adgan_fast.kernels.maps.general import Maps
    from adgan_fast.kernels.maps.vector import VectorMap

    from adgan_fast.engine.triton.lift import lift, private_map

    forms, kinds, norms, left = set(), set(), set(), set()
    for subject in trial.SUBJECTS.values():
        job = trial.job_of(subject, named("grouped"), "float32", "per_seed", CPU)
        program, chains = lift(job.lowered)
        left |= {layer.op for layer in program.layers}
        for chain in chains:
            kind = private_map(chain.geometry)
            kinds.add(kind)
            norms.add(chain.norm is not None)
            if kind is Maps:
                forms.add(rebuilds(chain.geometry, subject.steps, "float32"))
    assert kinds == {Maps, VectorMap} and forms == norms == {True, False}
    assert {"standardize", "softmax", "matmul", "conv_transpose2d", "conv2d"} <= left


def test_a_longer_search_is_of_tiles_enough_to_be_recorded_and_in_another_order() -> None:
    tiles = [trial.ORDER[i : i + 2] for i in range(0, len(trial.ORDER), 2)]
    assert len(tiles) == 1 + LEAST_REPLAYED >= 4
    assert set(tiles) == {(0, 1), (1, 0)} and tiles[0] == (0, 1)


def test_the_generators_are_the_same_whatever_the_caller_has_set() -> None:
    def values() -> list[torch.Tensor]:
        with adgan_fast.core.random_state.kept(CPU):
            job = trial.any_job(named("grouped"), "float32", "per_seed", CPU)
        return [*job.module.state_dict().values()]

    want = values()
    torch.manual_seed(5)
    torch.set_default_dtype(torch.float64)
    try:
        found = values()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(found, want, strict=True))


# -- engines that are not ------------------------------------------------------------------------------------------


class Wrong(Grouped):
    """`grouped`, whose results a fault changes: it is given each tile's parts, its number, and what memory holds."""

    def __init__(self, fault: Callable[..., torch.Tensor]):
        self.fault = fault

    def run(self, job: Job, plan: Plan, block: Block) -> None:
        put, number = block.put, 0

        def changed(tile, initial, final, latents, reconstructions):
            nonlocal number
            final = self.fault(final, number)
            number += 1
            put(tile, initial, final, latents, reconstructions)

        block.put = changed  # type: ignore[method-assign]
        super().run(job, plan, block)


def of_memory(final: torch.Tensor, number: int) -> torch.Tensor:
    return final + torch.where(torch.empty(1).isnan(), torch.nan, 0.0)


FAULTS = {
    "a wrong loss": (lambda final, number: final * 1.01, "rms [^;]* of d, 1e-03 is allowed.*"),
    "other bits in a later tile": (
        lambda final, number: torch.nextafter(final, 2 * final) if number else final,
        r"launched, scores are not those of the first tile to the bit, but off by \d.*",
    ),
    "memory that is read before it is written": (
        of_memory,
        "launched with memory full of NaN, scores are not those of the first tile to the bit, but off by nan",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.usefixtures("small")
def test_a_wrong_engine_is_told_by_what_is_wrong(fault: str) -> None:
    function, words = FAULTS[fault]
    wrong, _ = wrong_and_note(Wrong(function), "float32", "frozen", CPU)
    assert re.fullmatch(f"a tiny one: {words}", wrong), wrong


@pytest.mark.usefixtures("small")
def test_what_pytorch_has_been_told_of_determinism_is_put_back() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        with trial.filled_with_nan():
            assert torch.empty(3).isnan().all()
        assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = True


# -- triton, and its graphs ----------------------------------------------------------------------------------------


class Replayed:
    """What stands for a recorded graph on a CPU: it launches."""

    def __init__(self, search: TileSearch):
        self.search = search

    def first(self) -> torch.Tensor:
        return self.search.first()

    def run(self) -> TileResult:
        return self.search.run()


class Stale(Replayed):
    """The same images at every replay: those that were there when it was recorded."""

    def __init__(self, search: TileSearch):
        super().__init__(search)
        self.images = search.images.clone()

    def run(self) -> TileResult:
        self.search.images.copy_(self.images)
        return self.search.run()


def unrecordable(search: TileSearch) -> None:
    raise RuntimeError("operation not permitted when stream is capturing")


@pytest.mark.parametrize(
    ("graphed", "wrong", "note"),
    [
        (Replayed, "", ""),
        (Stale, "a tiny one: replayed, scores are not those of the first tile to the bit", ""),
        (unrecordable, "", "without CUDA graphs, which could not be recorded"),
    ],
)
@pytest.mark.usefixtures("small")
def test_what_is_replayed_has_to_have_the_bits_of_what_is_launched(
    device: torch.device, graphed, wrong: str, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device.type == "cuda":
        pytest.skip("recording works there; what stands for it, and fails, is put in its place here")
    pytest.importorskip("triton", reason="Triton is not installed")
    recorded_by(monkeypatch, graphed)
    found = wrong_and_note(Triton(), "float32", "per_sample", device)
    assert found[0].startswith(wrong) and bool(found[0]) == bool(wrong) and found[1] == note


@pytest.mark.usefixtures("small")
def test_kernels_with_private_weights_are_tried_under_the_interpreter_and_nothing_is_kept(
    device: torch.device, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device.type == "cuda":
        pytest.skip("the next test has the real ones")
    pytest.importorskip("triton", reason="Triton is not installed")
    from adgan_fast.engine.triton import lift

    monkeypatch.setattr(trial, "STARTS", 1)  # the interpreter takes its time
    monkeypatch.setattr(trial, "ORDER", (0, 1, 1, 0))
    monkeypatch.setattr(lift, "LEAST_OUTPUTS", 1)
    monkeypatch.setattr(lift, "LEAST_WEIGHTS", 1)
    found = admission.anew(named("triton"), SearchConfig(), device)
    assert found is not None and not found.wrong and found.seconds > 0
    assert not cache.exists()
    keep = lift.PrivateLayer.run

    def late(self, step, x, *rest):
        return keep(self, step, x * (1 + 1e-2 * (step > 1)), *rest)

    monkeypatch.setattr(lift.PrivateLayer, "run", late)
    found = admission.anew(named("triton"), SearchConfig(), device)
    assert found is not None and "is allowed" in found.wrong


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device, which the whole trial is for")
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("engine", admission.ADMITTED)
def test_on_cuda_the_whole_trial_passes_in_15_seconds(engine: str, weights: str) -> None:
    for precision in PRECISIONS:
        found = admission.anew(named(engine), SearchConfig(precision=precision, weights=weights), torch.device("cuda"))
        assert found is not None and (found.wrong, found.note) == ("", "")
        assert found.seconds < 15
    assert len(kept.read()) == len(PRECISIONS)

"""A Scorer on `triton`: buffers that stay from call to call change no bit."""

from __future__ import annotations

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import torch

import adgan_fast
from adgan_fast import Scorer, jobs
from adgan_fast.engine.triton import search as triton_search
from tests.support.runs import listed
from tests.support.triton import ENGINE, TINY

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = {"engine": "triton", "n_seed": 2, "steps": 1, "verify": False}


def test_calls_of_more_and_of_fewer_images_have_the_bits_of_score(device: torch.device) -> None:
    images = TINY.images(5).to(device)
    scorer = Scorer(TINY.module, device=device, **SETTINGS)
    for first, last in ((0, 1), (0, 5), (3, 5), (0, 5), (4, 5)):
        want = adgan_fast.score(TINY.module, images[first:last], device=device, **SETTINGS)
        assert torch.equal(scorer(images[first:last]), want)


def test_a_second_call_of_as_many_images_makes_no_buffers(device: torch.device, monkeypatch) -> None:
    made = []

    class Counted(triton_search.TileSearch):
        def __init__(self, *args) -> None:
            super().__init__(*args)
            made.append(self.shape)

    monkeypatch.setattr(triton_search, "TileSearch", Counted)
    scorer = Scorer(TINY.module, device=device, chunk=6, **SETTINGS)
    for number in (2, 2, 1, 3, 3):
        scorer(TINY.images(number).to(device))
    assert made == [(2, 2), (3, 2)]
    assert ENGINE._kept is not None
    del scorer
    assert ENGINE._kept is None


def test_two_side_by_side_have_the_bits_of_score(device: torch.device) -> None:
    images = TINY.images(2).to(device)
    made = [Scorer(TINY.module, device=device, seed=seed, **SETTINGS) for seed in (0, 1)]
    for _ in range(2):
        for seed, scorer in enumerate(made):
            want = adgan_fast.score(TINY.module, images, device=device, seed=seed, **SETTINGS)
            assert torch.equal(scorer(images), want)


def test_a_job_has_the_rows_of_score_from_one_process_and_from_two(device: torch.device, tmp_path) -> None:
    config = adgan_fast.SearchConfig(device=device, **SETTINGS)
    want = adgan_fast.score(TINY.module, TINY.images(6).to(device), config=config).cpu()
    for name, devices in (("one", None), ("two", [str(device)] * 2)):
        jobs.run(TINY.module, listed(TINY, 6), tmp_path / name, config=config, shard=2, devices=devices)
        assert jobs.read(tmp_path / name)["score"].to_pylist() == want.tolist()

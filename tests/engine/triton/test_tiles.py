"""Starts, chunks and blocks; and what one search leaves to the next."""

from __future__ import annotations

import gc

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import torch

import adgan_fast
from adgan_fast.engine.triton import engine as triton
from adgan_fast.engine.triton import search as triton_search
from tests.support.losses import huber
from tests.support.recorded import recorded_by
from tests.support.triton import ENGINE, TINY, assert_agrees, job_of_tiny, search
from tests.support.uninitialised import filled_with_nan

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("kind", ["independent", "for each image", "for all"])
@pytest.mark.usefixtures("all_maps")
def test_any_kind_of_starts_agrees_with_the_reference(device: torch.device, kind: str) -> None:
    random = torch.Generator().manual_seed(3)
    given = {"for each image": (2, 2), "for all": (2,)}.get(kind)
    starts = kind if given is None else torch.randn(*given, *TINY.latent_shape, generator=random)
    assert_agrees(TINY, device, n=2, starts=starts, steps=1)


@pytest.mark.parametrize("chunk", [1, 2, 4, 1000])
@pytest.mark.usefixtures("all_maps")
def test_any_chunk_agrees_with_the_reference(device: torch.device, chunk: int) -> None:
    """3 images × 3 starts: tiles that come out even, and tiles that are filled up."""
    assert_agrees(TINY, device, n=3, n_seed=3, steps=1, chunk=chunk)


@pytest.mark.parametrize("weights", ["per_sample", "frozen"])
@pytest.mark.parametrize("chunk", [1, 2, 1000])
def test_any_chunk_agrees_with_the_reference_where_weights_are_shared(
    device: torch.device, weights: str, chunk: int
) -> None:
    assert_agrees(TINY, device, n=3, n_seed=3, weights=weights, chunk=chunk)


@pytest.mark.usefixtures("all_maps")
def test_a_later_and_smaller_block_is_searched_in_the_same_buffers(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    class Counted(triton_search.TileSearch):
        def __init__(self, *args) -> None:
            super().__init__(*args)
            made.append(self.shape)

    monkeypatch.setattr(adgan_fast.core.plan, "BLOCK_IMAGES", 2)
    monkeypatch.setattr(triton_search, "TileSearch", Counted)
    assert_agrees(TINY, device, n=3, n_seed=1, steps=1, chunk=2)
    assert made == [(2, 1)]


@pytest.mark.parametrize("weights", ["per_seed", "frozen"])
@pytest.mark.usefixtures("all_maps")
def test_nothing_is_read_before_it_is_written(device: torch.device, weights: str) -> None:
    want = search(TINY, device, weights=weights)
    with filled_with_nan(warn_only=True):  # cuBLAS would refuse, for want of a setting
        found = search(TINY, device, weights=weights)
    assert torch.equal(found.losses, want.losses)
    assert torch.equal(found.reconstructions, want.reconstructions)


@pytest.mark.usefixtures("all_maps")
def test_an_image_with_nan_harms_no_other(device: torch.device) -> None:
    images = TINY.images(3)
    clean = search(TINY, device, images=images, n_seed=1, steps=1)
    images[1, 0, 0, 0] = torch.nan
    with pytest.warns(RuntimeWarning):
        found = search(TINY, device, images=images, n_seed=1, steps=1)
    assert found.scores[1].isnan()
    for rows in (slice(0, 1), slice(2, 3)):
        assert torch.equal(found.losses[rows], clean.losses[rows])
        assert torch.equal(found.reconstructions[rows], clean.reconstructions[rows])


@pytest.mark.usefixtures("all_maps")
def test_the_order_of_the_images_and_a_repetition_change_no_bit(device: torch.device) -> None:
    images, order = TINY.images(3), [2, 0, 1]
    want = search(TINY, device, images=images, n_seed=1, steps=1)
    assert torch.equal(search(TINY, device, images=images[order], n_seed=1, steps=1).losses, want.losses[order])


@pytest.mark.usefixtures("all_maps")
def test_no_images_have_empty_results_and_no_generator_is_changed(device: torch.device) -> None:
    before = {name: tensor.clone() for name, tensor in TINY.module.state_dict().items()}
    assert search(TINY, device, n=0).losses.shape == (0, 2)
    search(TINY, device)
    for name, tensor in TINY.module.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.usefixtures("all_maps")
def test_nothing_is_kept_when_a_search_is_over(device: torch.device) -> None:
    search(TINY, device, steps=1)
    gc.collect()
    assert ENGINE._kept is None

    def broken(reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        if image.any():  # not in the trial before the search
            raise ArithmeticError("on purpose")
        return huber(reconstruction, image)

    with pytest.raises(ArithmeticError):
        search(TINY, device, steps=1, loss=broken)
    assert ENGINE._kept is None


@pytest.mark.parametrize(
    ("weights", "n_seed", "n", "chunk", "even"),
    [
        ("per_seed", 64, 256, 1024, 1024),
        ("per_seed", 5, 256, 1024, 128 * 5),  # two tiles of 128 images, not one of 204 and one of 52
        ("per_seed", 64, 1, 1024, 64),
        ("per_seed", 64, 9, 48, 32),  # fewer than the starts of an image
        ("per_sample", 64, 20, 16, 10),
        ("frozen", 3, 7, 10, 9),
    ],
)
def test_tiles_come_out_as_equal_as_can_be(weights: str, n_seed: int, n: int, chunk: int, even: int) -> None:
    job = job_of_tiny(n_seed=n_seed, weights=weights)
    assert triton.even_chunk(job, chunk, n) == even


def test_graphs_are_recorded_where_four_tiles_are_left_and_replayed_for_them(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device.type == "cuda":
        pytest.skip("the real recording is what the other tests use there")
    calls: list[str] = []

    class Graphed:
        """Runs in place of replaying, and says so."""

        def __init__(self, search: triton_search.TileSearch):
            self.search = search
            calls.append("record")

        def first(self) -> torch.Tensor:
            calls.append("first")
            return self.search.first()

        def run(self) -> triton_search.TileResult:
            calls.append("run")
            return self.search.run()

    recorded_by(monkeypatch, Graphed)
    monkeypatch.setattr(adgan_fast.core.plan, "BLOCK_IMAGES", 4)
    assert_agrees(TINY, device, n=9, n_seed=2, chunk=4, weights="frozen")
    assert calls == ["record", "first", "run", "first", "run", "run", "first", "run"]  # blocks of 2, 2 and 1 tiles
    calls.clear()
    assert_agrees(TINY, device, n=8, n_seed=2, chunk=4, weights="frozen")
    assert calls == []  # 1 is launched, and 3 are left
    assert_agrees(TINY, device, n=3, n_seed=2, chunk=1, weights="frozen", starts="independent")
    assert calls == ["record", *["first", "run"] * 5]


def test_what_cannot_be_recorded_is_launched_and_the_log_says_why(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if device.type == "cuda":
        pytest.skip("recording works there; what fails is put in its place here")
    tried: list[None] = []

    def fails(search: triton_search.TileSearch) -> None:
        tried.append(None)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    recorded_by(monkeypatch, fails)
    with caplog.at_level("WARNING", "adgan_fast"):
        assert_agrees(TINY, device, n=3, n_seed=2, chunk=1, weights="frozen")
    assert "goes on without CUDA graphs: operation not permitted when stream is capturing" in caplog.text
    assert len(tried) == 1  # and not at every tile


def test_graphs_that_are_switched_off_are_not_recorded(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(search: triton_search.TileSearch) -> None:
        raise AssertionError("recorded")

    recorded_by(monkeypatch, never)
    monkeypatch.setattr(ENGINE, "graphs", False)
    assert_agrees(TINY, device, n=6, n_seed=2, chunk=1, weights="frozen")
    monkeypatch.setattr(ENGINE, "graphs", True)
    with pytest.raises(AssertionError, match="recorded"):
        search(TINY, device, n=6, chunk=1, weights="frozen")

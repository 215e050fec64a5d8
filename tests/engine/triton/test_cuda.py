"""What takes a GPU to happen: graphs that are replayed, streams, a second device, no memory within a recording.

Where there is none these tests are skipped, and say so.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import torch
from adgan_fast.kernels import adam

from adgan_fast import SearchResult
from adgan_fast.core.recording import capture
from adgan_fast.engine import loading
from adgan_fast.engine.triton import engine as triton
from adgan_fast.engine.triton import graph as triton_graph
from adgan_fast.engine.triton.search import TileSearch
from tests.support.families import FAMILIES
from tests.support.triton import ENGINE, TINY, reference, search

pytestmark = [
    pytest.mark.usefixtures("all_maps"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="it takes a CUDA device, and there is none here"),
    pytest.mark.skipif(triton.interpreting(), reason="it takes compiled kernels; unset TRITON_INTERPRET"),
]
GPU = torch.device("cuda", 0)


def same_bits(found: SearchResult, want: SearchResult) -> bool:
    names = ("initial_losses", "losses", "latents", "reconstructions")
    return all(torch.equal(getattr(found, name), getattr(want, name)) for name in names)


# -- graphs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is recorded and replayed, in order."""
    calls: list[str] = []

    class Told(triton_graph.Graphed):
        def __init__(self, tile_search: TileSearch) -> None:
            calls.append("record")
            super().__init__(tile_search)

        def run(self):
            calls.append("replay")
            return super().run()

    monkeypatch.setattr(triton_graph, "Graphed", Told)
    return calls


@pytest.mark.parametrize("family", ["DCGAN of 8", "TransGAN", "SAGAN"])
@pytest.mark.parametrize("weights", ["per_seed", "per_sample", "frozen"])
def test_replayed_graphs_give_the_bits_of_launches(
    monkeypatch: pytest.MonkeyPatch, replays: list[str], family: str, weights: str
) -> None:
    settings = {"n": 5, "n_seed": 2, "steps": 3, "weights": weights, "chunk": 2 if weights != "per_sample" else 1}
    found = search(FAMILIES[family], GPU, **settings)
    assert replays == ["record", *["replay"] * 4]
    monkeypatch.setattr(ENGINE, "graphs", False)
    want = search(FAMILIES[family], GPU, **settings)
    assert len(replays) == 5
    assert same_bits(found, want)


def test_a_graph_reads_the_starts_and_images_of_its_tile(replays: list[str]) -> None:
    """Each of four tiles has others; a replay that kept those of its recording would find them again."""
    found = search(TINY, GPU, n=4, n_seed=2, chunk=2, starts="independent")
    assert replays == ["record", *["replay"] * 3]
    want = reference(TINY, n=4, starts="independent")
    torch.testing.assert_close(found.losses.double(), want.losses, rtol=1e-3, atol=0)


def test_the_tables_of_a_graph_go_when_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    loading.load_kernels(GPU)
    state = [torch.zeros(2, 5, device=GPU) for _ in range(4)]
    stream = torch.cuda.Stream(GPU)

    def step() -> None:
        p, m, v, g = state
        adam.adam_step_([p], [m], [v], [g.fill_(1.0)], [], [0.1], 0.5, 0.999, 1e-8, 1, False)

    with torch.cuda.stream(stream):
        step()
        with adam.tables_of_graph() as tables:
            recording = capture(step, stream)
    monkeypatch.setattr(adam, "_tables", {})  # as if others had come since
    gc.collect()
    (table,) = map(weakref.ref, tables)
    before = state[0].clone()
    recording.replay()
    torch.cuda.synchronize(GPU)
    assert not torch.equal(state[0], before)  # the table was there to be read
    del recording, tables
    gc.collect()
    assert table() is None


def test_a_capture_whose_tables_nobody_keeps_is_refused() -> None:
    loading.load_kernels(GPU)
    p, m, v, g = (torch.zeros(2, 5, device=GPU) for _ in range(4))
    stream, graph = torch.cuda.Stream(GPU), torch.cuda.CUDAGraph()

    def step() -> None:
        adam.adam_step_([p], [m], [v], [g.fill_(1.0)], [], [0.1], 0.5, 0.999, 1e-8, 1, False)

    with torch.cuda.stream(stream):
        step()
        with pytest.raises(RuntimeError, match="whose tables nobody keeps"), torch.cuda.graph(graph, stream=stream):
            step()


# -- memory --------------------------------------------------------------------------------------------------------


def more_than_there_is() -> torch.Tensor:
    torch.ones(3, device=GPU)  # a recording of nothing would have a warning of its own
    return torch.empty(2 * torch.cuda.get_device_properties(GPU).total_memory, dtype=torch.uint8, device=GPU)


def test_memory_that_runs_out_within_a_recording_is_an_error_of_memory_and_harms_nothing_after() -> None:
    stream = torch.cuda.Stream(GPU)
    with torch.cuda.stream(stream):
        with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
            capture(more_than_there_is, stream)
        assert not torch.cuda.is_current_stream_capturing()
        x = torch.zeros(3, device=GPU)
        recording = capture(lambda: x + 1, stream)
        x.fill_(4.0)
        assert recording.replay().tolist() == [5.0, 5.0, 5.0]


def test_memory_that_runs_out_within_a_recording_halves_the_chunk(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shapes: list[tuple[int, int]] = []

    class Short(triton_graph.Graphed):
        def __init__(self, tile_search: TileSearch) -> None:
            shapes.append(tile_search.shape)
            if len(shapes) == 1:
                capture(more_than_there_is, torch.cuda.current_stream(GPU))
            super().__init__(tile_search)

    monkeypatch.setattr(triton_graph, "Graphed", Short)
    with caplog.at_level("WARNING", "adgan_fast"):
        found = search(TINY, GPU, n=8, n_seed=2, chunk=8)
    assert "chunk halved to 4" in caplog.text
    assert shapes == [(4, 2), (2, 2)]
    want = reference(TINY, n=8)
    torch.testing.assert_close(found.losses.double(), want.losses, rtol=1e-3, atol=0)


# -- streams and devices -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graphs", [True, False])
def test_a_caller_on_a_stream_of_its_own_is_waited_for_and_gets_it_back(
    monkeypatch: pytest.MonkeyPatch, graphs: bool
) -> None:
    """Images are still being made when the search is asked for; what it finds is ready on the caller's stream."""
    monkeypatch.setattr(ENGINE, "graphs", graphs)
    images = TINY.images(4)
    want = search(TINY, GPU, images=images, chunk=2)
    stream = torch.cuda.Stream(GPU)
    with torch.cuda.stream(stream):
        late = torch.zeros_like(images, device=GPU)
        torch.cuda._sleep(200_000_000)  # about a tenth of a second
        late.copy_(images)
        found = search(TINY, GPU, images=late, chunk=2)
        assert torch.cuda.current_stream(GPU) == stream
        losses = found.losses.clone()
    stream.synchronize()
    assert torch.equal(losses.cpu(), want.losses.cpu())


@pytest.fixture
def second_gpu() -> Iterator[torch.device]:
    if torch.cuda.device_count() < 2:
        pytest.skip("it takes two CUDA devices, and there is one here")
    yield torch.device("cuda", 1)
    assert torch.cuda.current_device() == 0


@pytest.mark.parametrize("made", [lambda gpu: TINY.images(4), lambda gpu: TINY.images(4).to(gpu)], ids=["cpu", "gpu"])
def test_a_second_gpu_finds_the_same_while_the_first_is_the_current_one(
    second_gpu: torch.device, made: Callable[[torch.device], torch.Tensor]
) -> None:
    want = search(TINY, GPU, images=TINY.images(4), chunk=2)
    used = torch.cuda.memory_allocated(GPU)
    found = search(TINY, second_gpu, images=made(second_gpu), chunk=2)
    assert torch.cuda.memory_allocated(GPU) == used
    if torch.cuda.get_device_name(0) == torch.cuda.get_device_name(1):
        assert torch.equal(found.losses.cpu(), want.losses.cpu())
    torch.testing.assert_close(found.losses.cpu(), want.losses.cpu(), rtol=1e-4, atol=0)

"""The Triton engine finds what the float64 reference finds, with its kernels interpreted on the CPU, or on a GPU.

``device``: see ../interpreted.py. The interpreter takes about a second for each launch of a map, so generators, batches
and steps are small here, and every map is taken for large enough to have kernels of its own.
"""

from __future__ import annotations

import copy
import gc
import logging
import subprocess
import sys

import pytest
import torch
from generators import FAMILIES, Case, randomise
from torch import nn

pytest.importorskip("triton", reason="Triton is not installed")

import adgan_fast
from adgan_fast import SearchResult
from adgan_fast.core.job import Job
from adgan_fast.engine import named
from adgan_fast.engine.triton import engine as triton
from adgan_fast.engine.triton import graph as triton_graph
from adgan_fast.engine.triton import lift as triton_lift
from adgan_fast.engine.triton import search as triton_search
from adgan_fast.generator.program import Program
from adgan_fast.generator.rules import lower
from adgan_fast.models import DCGANGenerator
from adgan_fast.testing import FLOAT32, REDUCED, Bound, errors, improvement, violations

pytestmark = pytest.mark.usefixtures("one_thread")

ENGINE = named("triton")


def huber(reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    return nn.functional.huber_loss(reconstruction, image, reduction="none", delta=0.4).flatten(1).sum(1)


LOSSES = ("l2", "l1", "laplacian", huber)


def tiny() -> Case:
    """A map of one input position and one of several, with all that is fused with a map."""
    layers = [nn.ConvTranspose2d(3, 4, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.Tanh()]
    return Case(randomise(nn.Sequential(*layers), 0), (3, 1, 1), (3, 4, 4), "tiny")


TINY = tiny()


def lowered(case: Case) -> Program:
    return lower(copy.deepcopy(case.module).eval(), case.latent_shape)


@pytest.fixture
def all_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every map is large enough."""
    monkeypatch.setattr(triton_lift, "LEAST_OUTPUTS", 1)
    monkeypatch.setattr(triton_lift, "LEAST_WEIGHTS", 1)


def search(
    case: Case, device: torch.device, n: int = 1, images: torch.Tensor | None = None, **settings
) -> SearchResult:
    """By the Triton engine; results on the CPU."""
    images = case.images(n) if images is None else images
    settings = {"n_seed": 2, "steps": 2, "latent_shape": case.latent_shape, "verify": False, **settings}
    return adgan_fast.search(case.module, images, engine="triton", device=device, **settings)


def reference(case: Case, n: int = 1, images: torch.Tensor | None = None, **settings) -> SearchResult:
    """In float64."""
    images = case.images(n) if images is None else images
    settings = {"n_seed": 2, "steps": 2, "latent_shape": case.latent_shape, **settings}
    return adgan_fast.search(case.double(), images, engine="reference", **settings)


def assert_agrees(case: Case, device: torch.device, bound: Bound = FLOAT32, n: int = 1, **settings) -> SearchResult:
    found = search(case, device, n, **settings)
    settings.pop("precision", None)
    settings.pop("chunk", None)
    want = reference(case, n, **settings)
    wrong = violations(found, want, bound)
    assert not wrong, "; ".join(wrong)
    assert not errors(found, want).flipped  # the rule asks it of float32 alone
    assert found.engine == "triton"
    tolerance = 1e-3 if bound is FLOAT32 else 0.1
    torch.testing.assert_close(found.latents.double(), want.latents, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(found.reconstructions.double(), want.reconstructions, rtol=tolerance, atol=tolerance)
    return found


# -- agreement -----------------------------------------------------------------------------------------------------

SMALL = [name for name in FAMILIES if name not in ("DCGAN of 28", "DCGAN of 32", "LSGAN")]


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.usefixtures("all_maps")
def test_a_family_agrees_with_the_reference(device: torch.device, family: str) -> None:
    """The losses take turns."""
    assert_agrees(FAMILIES[family], device, loss=LOSSES[SMALL.index(family) % 4])


@pytest.mark.usefixtures("all_maps")
def test_the_papers_five_steps_agree_with_the_reference(device: torch.device) -> None:
    assert_agrees(FAMILIES["DCGAN of 8"], device, steps=5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weights", ["per_sample", "frozen"])
def test_other_owners_of_weights_agree_with_the_reference(device: torch.device, weights: str, loss) -> None:
    assert_agrees(FAMILIES["DCGAN of 16"], device, n=3, n_seed=3, steps=5, weights=weights, loss=loss)


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.usefixtures("all_maps")
def test_any_number_of_steps_agrees_with_the_reference(device: torch.device, steps: int) -> None:
    found = search(TINY, device, steps=steps)
    want = reference(TINY, steps=steps)
    if steps:
        assert not violations(found, want, FLOAT32)
    else:
        assert torch.equal(found.losses, found.initial_losses)
        torch.testing.assert_close(found.losses.double(), want.losses, rtol=1e-5, atol=0)


@pytest.mark.parametrize("family", ["DCGAN of 8", "upsample and convolve"])
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.usefixtures("all_maps")
def test_less_exact_arithmetic_stays_within_its_own_bound(device: torch.device, precision: str, family: str) -> None:
    assert_agrees(FAMILIES[family], device, REDUCED, precision=precision)


@pytest.mark.usefixtures("all_maps")
def test_a_large_share_of_the_weights_in_the_improvement_agrees_as_well(device: torch.device) -> None:
    """With the latent held, all of the improvement is the weights'."""
    settings = {"lr_z": 0.0, "lr_weights": 1e-2}
    assert_agrees(TINY, device, **settings)
    assert_agrees(TINY, device, REDUCED, precision="bf16", **settings)


@pytest.mark.parametrize("fault", ["no update", "one step late", "no gradient of the input"])
@pytest.mark.usefixtures("all_maps")
def test_a_broken_search_is_caught(device: torch.device, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    private = triton_lift.PrivateLayer

    class Broken(private):  # type: ignore[misc, valid-type]
        def __init__(self, *args) -> None:
            super().__init__(*args)
            kernels, keep, input_grad = self.private, self.private.keep, self.private.input_grad
            if fault == "no update":
                kernels.keep = lambda step, x, gy: keep(step, x, torch.zeros_like(gy))
            elif fault == "one step late":
                kernels.keep = lambda step, x, gy: keep(step, x, gy * (step > 1))
            else:
                kernels.input_grad = lambda gy, step: input_grad(gy, step) * 0.9

    monkeypatch.setattr(triton_search, "PrivateLayer", Broken)
    found = search(TINY, device, lr_weights=1e-3)
    assert violations(found, reference(TINY, lr_weights=1e-3), FLOAT32)


# -- starts, chunks, blocks ----------------------------------------------------------------------------------------


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

    class Counted(triton_search.Search):
        def __init__(self, *args) -> None:
            super().__init__(*args)
            made.append(self.shape)

    monkeypatch.setattr(adgan_fast.core.plan, "BLOCK_IMAGES", 2)
    monkeypatch.setattr(triton_search, "Search", Counted)
    assert_agrees(TINY, device, n=3, n_seed=1, steps=1, chunk=2)
    assert made == [(2, 1)]


@pytest.mark.parametrize("weights", ["per_seed", "frozen"])
@pytest.mark.usefixtures("all_maps")
def test_nothing_is_read_before_it_is_written(device: torch.device, weights: str) -> None:
    """PyTorch fills what it has not initialised with NaN while it is asked to be deterministic."""
    want = search(TINY, device, weights=weights)
    torch.use_deterministic_algorithms(True, warn_only=True)  # cuBLAS would refuse, for want of a setting
    try:
        found = search(TINY, device, weights=weights)
    finally:
        torch.use_deterministic_algorithms(False)
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


# -- the choice ----------------------------------------------------------------------------------------------------


def test_auto_takes_it_on_a_gpu_and_never_under_the_interpreter(device: torch.device, caplog) -> None:
    caplog.set_level(logging.INFO, "adgan_fast")
    found = adgan_fast.search(TINY.module, TINY.images(1), n_seed=1, steps=1, device=device)
    assert (found.engine == "triton") == (device.type == "cuda")
    if device.type == "cpu":
        assert "asked for by name" in caplog.text
        assert search(TINY, device, n_seed=1, steps=0).engine == "triton"


def test_float64_is_refused(device: torch.device) -> None:
    with pytest.raises(
        ValueError, match=r"'triton' cannot run: it computes in float32, not in torch.float64.*'grouped'"
    ):
        adgan_fast.search(TINY.double(), TINY.images(1), engine="triton", device=device)


def test_a_layer_that_is_not_known_is_named(device: torch.device) -> None:
    gen = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Unflatten(1, (1, 2, 2)))
    with pytest.raises(ValueError, match=r"'triton' cannot run: layer '1 \(GELU\)'.*gelu"):
        adgan_fast.search(gen, torch.zeros(1, 1, 2, 2), engine="triton", device=device)


class TestWithoutTheInterpreter:
    @pytest.fixture(autouse=True)
    def compiled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TRITON_INTERPRET", "0")

    def test_a_machine_without_a_gpu_is_told_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert "no CUDA device" in ENGINE.why_not()
        info = next(info for info in adgan_fast.engines() if info.name == "triton")
        assert info.exact and not info.available and info.why_not == ENGINE.why_not()
        with pytest.raises(ValueError, match=r"'triton' cannot run: there is no CUDA device.*engine='auto'"):
            adgan_fast.score(TINY.module, TINY.images(1), engine="triton")

    def test_a_missing_triton_has_a_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert ENGINE.why_not() == "Triton is not installed; pip install 'adgan-fast[triton]'"

    def test_a_generator_on_the_cpu_is_refused(self) -> None:
        assert ENGINE.refuses(make_job("cpu")) == "it runs on a CUDA device, not on cpu"

    def test_an_old_gpu_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Turing")
        monkeypatch.setattr(torch.version, "hip", None)
        assert ENGINE.refuses(make_job("cuda")) == "Turing is older than compute capability 8.0"
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
        assert ENGINE.refuses(make_job("cuda")) is None


def test_listing_the_engines_loads_no_triton() -> None:
    script = "import sys, adgan_fast; adgan_fast.engines(); sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# -- what is lifted out of a program -------------------------------------------------------------------------------


def test_the_large_maps_of_the_papers_generator_are_lifted_with_what_follows_them() -> None:
    program = lower(DCGANGenerator(32, 1, 256, 64).eval(), (256,))
    left, chains = triton_lift.lift(program)
    assert [chain.geometry.natural_shape for chain in chains] == [(256, 256, 4, 4), (256, 128, 4, 4), (128, 64, 4, 4)]
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


# -- tiles and graphs ----------------------------------------------------------------------------------------------


def make_job(device: str = "cpu", n_seed: int = 3, **settings) -> Job:
    config = adgan_fast.SearchConfig(n_seed=n_seed, engine="triton", **settings)
    starts = adgan_fast.core.starts.Starts(
        config, TINY.latent_shape, n_images=1, device=torch.device("cpu"), dtype=torch.float32
    )
    program = lowered(TINY)
    return Job(
        TINY.module, program, "", config, adgan_fast.core.losses.Loss(config.loss), starts, torch.zeros(2, 3, 1, 1),
        TINY.latent_shape, TINY.image_shape, torch.device(device), torch.float32,
    )  # fmt: skip


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
    assert triton.even_chunk(make_job(n_seed=n_seed, weights=weights), chunk, n) == even


def test_graphs_are_recorded_at_the_second_tile_and_replayed_for_those_after(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device.type == "cuda":
        pytest.skip("the real recording is what the other tests use there")
    calls: list[str] = []

    class Graphed:
        """Runs in place of replaying, and says so."""

        def __init__(self, search: triton_search.Search):
            self.search = search
            calls.append("record")

        def first(self) -> torch.Tensor:
            calls.append("first")
            return self.search.first()

        def run(self) -> triton_search.Found:
            calls.append("run")
            return self.search.run()

    made = triton.Runner.__init__

    def with_graphs(self: triton.Runner, job: Job, chunk: int, n: int, graphs: bool) -> None:
        made(self, job, chunk, n, graphs)
        self._graphs = True

    monkeypatch.setattr(triton_graph, "Graphed", Graphed)
    monkeypatch.setattr(triton.Runner, "__init__", with_graphs)
    monkeypatch.setattr(adgan_fast.core.plan, "BLOCK_IMAGES", 4)
    assert_agrees(TINY, device, n=6, n_seed=2, chunk=4, weights="frozen")
    assert calls == ["record", "first", "run", "first", "run"]  # 2 tiles of a block of 4 images, and 1 of another
    calls.clear()
    assert_agrees(TINY, device, n=2, n_seed=2, chunk=1, weights="frozen", starts="independent")
    assert calls == ["record", *["first", "run"] * 3]


def test_what_cannot_be_recorded_is_launched_and_the_log_says_why(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if device.type == "cuda":
        pytest.skip("recording works there; what fails is put in its place here")
    tried: list[None] = []

    def fails(search: triton_search.Search) -> None:
        tried.append(None)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    made = triton.Runner.__init__

    def with_graphs(self: triton.Runner, job: Job, chunk: int, n: int, graphs: bool) -> None:
        made(self, job, chunk, n, graphs)
        self._graphs = True

    monkeypatch.setattr(triton_graph, "Graphed", fails)
    monkeypatch.setattr(triton.Runner, "__init__", with_graphs)
    with caplog.at_level("WARNING", "adgan_fast"):
        assert_agrees(TINY, device, n=3, n_seed=2, chunk=1, weights="frozen")
    assert "goes on without CUDA graphs: operation not permitted when stream is capturing" in caplog.text
    assert len(tried) == 1  # and not at every tile


def test_an_out_of_memory_error_within_a_recording_is_raised_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    class Graph:
        def __init__(self, graph: object, stream: object, capture_error_mode: str):
            assert capture_error_mode == "thread_local"  # other threads' work must not break a recording

        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            raise RuntimeError("the recording was broken off")

    def short() -> None:
        raise torch.OutOfMemoryError("no memory, on purpose")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", Graph)
    with pytest.raises(torch.OutOfMemoryError, match="on purpose"):
        triton_graph.capture(short, None)
    with pytest.raises(RuntimeError, match="broken off"):
        triton_graph.capture(lambda: None, None)


def test_the_improvement_is_what_is_tested() -> None:
    """The bound's own test: nearly the right losses, of a search that left the weights alone, are not let pass."""
    want, frozen = reference(TINY), reference(TINY, weights="frozen")
    assert float((improvement(frozen) - improvement(want)).abs().max()) < 1e-2 * float(want.losses.mean())
    assert violations(frozen, want, FLOAT32)

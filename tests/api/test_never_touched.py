"""What a search must leave as it was: the generator, torch's settings, the random states; and what changes no score."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import adgan_fast
from tests.support.engines import on_cpu
from tests.support.families import FAMILIES
from tests.support.layers import Function, Residual, randomise
from tests.support.results import TENSORS
from tests.support.small import CASE, FAST, small

pytestmark = pytest.mark.usefixtures("one_thread")


def modes(module: nn.Module) -> list[bool]:
    return [layer.training for layer in module.modules()]


def fingerprint(module: nn.Module) -> list[object]:
    state: list[object] = [modes(module)]
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        grad = None if tensor.grad is None else tensor.grad.numpy().tobytes()
        state.append((name, id(tensor), tensor.data_ptr(), tensor._version, tensor.detach().numpy().tobytes(), grad))
        state.append((tensor.requires_grad, tensor.dtype))
    return state


@on_cpu
@pytest.mark.parametrize("weights", ["per_seed", "per_sample", "frozen"])
def test_the_generator_is_left_as_it_was(engine, weights):
    gen = copy.deepcopy(FAMILIES["residual"].module).train()
    gen[1].eval()
    gen[2].inner[1].weight.requires_grad_(False)
    gen[0].weight.grad = torch.ones_like(gen[0].weight)
    calls: list[str] = []
    gen[0].weight.register_hook(lambda grad: calls.append("backward"))
    before = fingerprint(gen)
    adgan_fast.search(gen, FAMILIES["residual"].images(2), engine=engine, weights=weights, **FAST)
    assert fingerprint(gen) == before
    assert calls == []
    assert gen[1].num_batches_tracked == 7


@on_cpu
def test_a_frozen_parameter_of_the_generator_is_searched_all_the_same(engine):
    """w is every parameter, whether its owner was training it or not."""
    gen = copy.deepcopy(CASE.module)
    want = adgan_fast.score(gen, CASE.images(2), engine=engine, **FAST)
    gen.requires_grad_(False)
    assert torch.equal(adgan_fast.score(gen, CASE.images(2), engine=engine, **FAST), want)


@on_cpu
def test_forward_hooks_see_no_difference_in_number_or_kind(engine):
    gen = copy.deepcopy(CASE.module)
    seen: list[int] = []
    handle = gen.register_forward_hook(lambda module, inputs, output: seen.append(1))
    want = adgan_fast.score(CASE.module, CASE.images(1), engine=engine, **FAST)
    hooks = list(gen._forward_hooks.values())
    assert torch.equal(adgan_fast.score(gen, CASE.images(1), engine=engine, **FAST), want)
    assert list(gen._forward_hooks.values()) == hooks
    handle.remove()


@on_cpu
def test_train_mode_or_eval_mode_the_scores_are_the_same(engine):
    gen = randomise(
        nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Unflatten(1, (2, 2, 2))), 0
    )
    images = torch.zeros(2, 2, 2, 2)
    scores = [adgan_fast.score(gen.train(mode), images, engine=engine, **FAST) for mode in (True, False)]
    assert torch.equal(*scores)


@on_cpu
def test_the_global_random_states_are_left_as_they_were(engine):
    gen = small(nn.Dropout(0.5), nn.ReLU())
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()
    adgan_fast.search(gen, torch.zeros(2, 2, 2, 2), engine=engine, starts="independent", **FAST)
    assert torch.equal(torch.get_rng_state(), before[0])
    for ours, theirs in zip(np.random.get_state(), before[1], strict=True):
        assert np.array_equal(ours, theirs)


def settings_of_torch() -> dict[str, object]:
    backends = torch.backends
    return {
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "fast attention": torch.backends.mha.get_fastpath_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "switches": [
            switch.fp32_precision
            for switch in (
                backends, backends.cuda.matmul, backends.cudnn, backends.cudnn.conv, backends.cudnn.rnn,
                backends.mkldnn, backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn,
            )
        ],
        "tf32": (backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()),
    }  # fmt: skip


@on_cpu
def test_torchs_own_settings_are_left_as_they_were(engine):
    before = settings_of_torch()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        adgan_fast.search(CASE.module, CASE.images(3), engine=engine, **FAST)
        assert settings_of_torch() == before | {"threads": threads}


@on_cpu
@pytest.mark.parametrize("call", [adgan_fast.score, adgan_fast.search])
def test_torchs_own_settings_are_put_back_after_an_error(engine, call):
    def broken(reconstruction, image):
        raise RuntimeError("broken on purpose")

    before = settings_of_torch()
    with pytest.raises(RuntimeError, match="broken on purpose"):
        call(CASE.module, CASE.images(3), engine=engine, loss=broken, **FAST)
    assert settings_of_torch() == before
    assert torch.isfinite(adgan_fast.score(CASE.module, CASE.images(1), engine=engine, **FAST)).all()


@on_cpu
@pytest.mark.parametrize(
    "around",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu"), lambda: torch.autocast("cpu", torch.float16)],
    ids=["no_grad", "inference_mode", "autocast", "autocast to float16"],
)
def test_what_surrounds_the_call_changes_nothing(engine, around):
    want = adgan_fast.search(CASE.module, CASE.images(2), engine=engine, **FAST)
    with around():
        before = settings_of_torch()
        found = adgan_fast.search(CASE.module, CASE.images(2), engine=engine, **FAST)
        assert settings_of_torch() == before
    for name in TENSORS:
        assert torch.equal(getattr(found, name), getattr(want, name)), name


@on_cpu
def test_a_generator_and_images_made_in_inference_mode_can_be_searched(engine):
    with torch.inference_mode():
        gen, images = copy.deepcopy(CASE.module), CASE.images(2)
        inside = adgan_fast.score(gen, images, engine=engine, **FAST)
    want = adgan_fast.score(CASE.module, CASE.images(2), engine=engine, **FAST)
    assert torch.equal(adgan_fast.score(gen, images, engine=engine, **FAST), want)
    assert torch.equal(inside, want)


@on_cpu
@pytest.mark.parametrize("loss", ["l2", "laplacian"])
def test_the_default_dtype_changes_nothing(engine, loss):
    case = FAMILIES["DCGAN of 28"]
    want = adgan_fast.search(case.module, case.images(1), engine=engine, loss=loss, **FAST)
    torch.set_default_dtype(torch.float64)
    try:
        found = adgan_fast.search(case.module, case.images(1).float(), engine=engine, loss=loss, **FAST)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found.scores, want.scores)
    assert torch.equal(found.latents, want.latents)


@on_cpu
def test_a_generator_without_parameters_can_be_searched(engine):
    gen = Function(lambda z: torch.tanh(z).reshape(-1, 1, 2, 3))
    found = adgan_fast.search(gen, torch.zeros(2, 1, 2, 3), latent_shape=(6,), engine=engine, n_seed=3)
    assert (found.losses < found.initial_losses).all()


@on_cpu
def test_a_parametrized_generator_is_searched_over_its_own_parameters(engine):
    gen = small(Residual(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))), nn.Tanh())
    images = torch.full((2, 2, 2, 2), 0.3)
    if engine == "native":
        with pytest.raises(ValueError, match=r"cannot run: it computes in float32"):
            adgan_fast.search(gen.double(), images, engine=engine, n_seed=2)
        return
    found = adgan_fast.search(gen.double(), images, engine=engine, n_seed=2)
    want = adgan_fast.search(gen.double(), images, engine="reference", n_seed=2)
    torch.testing.assert_close(found.losses, want.losses, rtol=1e-10, atol=0)

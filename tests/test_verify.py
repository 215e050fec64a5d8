"""Engines check themselves: each is broken on purpose here, and refused by name with the figures."""

from __future__ import annotations

import logging
import time

import pytest
import torch
from torch import nn

import adgan_fast
from adgan_fast import ops, verify
from adgan_fast.engine import batched, eager, table
from adgan_fast.engine.native import engine as native
from adgan_fast.models import DCGANGenerator
from tests.support.engines import NEEDS_EXTENSION, WEIGHTS
from tests.support.generators import Case
from tests.support.layers import Residual, randomise
from tests.support.small import CASE

pytestmark = pytest.mark.usefixtures("one_thread")

ON_CPU = [pytest.param("native", marks=NEEDS_EXTENSION), "grouped", "eager"]


@pytest.fixture(autouse=True)
def no_verdict_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_verdicts", {})


def score(engine: str, case: Case = CASE, **settings) -> torch.Tensor:
    return adgan_fast.score(case.module, case.images(1), engine=engine, latent_shape=case.latent_shape,
                            **{"n_seed": 2, **settings})  # fmt: skip


def faster(step):
    """Adam's step with the weights' rate three times too high."""

    def wrong(params, exp_avgs, exp_avg_sqs, grads, initial, lrs, *rest):
        return step(params, exp_avgs, exp_avg_sqs, grads, initial, [lrs[0], *(3 * lr for lr in lrs[1:])], *rest)

    return wrong


class HalfGradient(torch.autograd.Function):
    """relu, with half of its gradient: the output is right."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 0.5 * g * (x > 0)


# -- breaking the search, a gradient, the output, of each engine ---------------------------------------------------


def break_search(engine: str, patch: pytest.MonkeyPatch) -> None:
    if engine == "native":
        right = native.settings

        def wrong(job):
            weights, loss, steps, rates = right(job)
            return weights, loss, steps, [rates[0], 3 * rates[1], *rates[2:]]

        patch.setattr(native, "settings", wrong)
    else:
        patch.setattr(ops, "adam_step_", faster(ops.adam_step_))


def break_gradient(engine: str, patch: pytest.MonkeyPatch) -> None:
    if engine == "native":
        right = torch.ops.adgan_fast.native_gradients.default

        class Wrong:
            @staticmethod
            def default(*given):
                found = right(*given)
                return [found[0], *(1.02 * g for g in found[1:])]

        patch.setattr(torch.ops.adgan_fast, "native_gradients", Wrong)
    elif engine == "grouped":
        patch.setitem(batched._RUN, "relu", lambda program, layer, x: HalfGradient.apply(x))
    else:
        right = eager._Module.gradient

        def wrong(self, w, z, x):
            (dw, dz), losses = right(self, w, z, x)
            return ({name: 1.02 * g for name, g in dw.items()}, dz), losses

        patch.setattr(eager._Module, "gradient", wrong)


def break_output(engine: str, patch: pytest.MonkeyPatch) -> None:
    if engine == "native":
        right = ops.native_search
        patch.setattr(ops, "native_search", lambda *a, **k: tuple(1.01 * part for part in right(*a, **k)))
    elif engine == "grouped":
        patch.setitem(batched._RUN, "tanh", lambda program, layer, x: 1.01 * torch.tanh(x))
    else:
        right = eager._Module._image
        patch.setattr(eager._Module, "_image", lambda self, w, z: 1.01 * right(self, w, z))


BREAKS = {
    "search": (break_search, r"rms .* of d, 1e-03 is allowed"),
    "gradient": (break_gradient, r"the gradient of .* is off by .*is allowed"),
    "output": (break_output, r"(its output|the gradient of .*) is off by .*is allowed"),
}


@pytest.mark.parametrize("what", list(BREAKS))
@pytest.mark.parametrize("engine", ON_CPU)
def test_a_broken_engine_is_refused_by_name_with_the_figures(engine, what, monkeypatch):
    broken, figures = BREAKS[what]
    score(engine)  # agrees
    verify._verdicts.clear()
    broken(engine, monkeypatch)
    with pytest.raises(ValueError, match=rf"engine '{engine}' cannot run: disagrees with the generator: {figures}"):
        score(engine)
    score(engine, verify=False)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("engine", ON_CPU)
def test_the_check_sees_every_way_of_owning_weights(engine, weights, monkeypatch):
    score(engine, weights=weights)
    verify._verdicts.clear()
    break_output(engine, monkeypatch)
    with pytest.raises(ValueError, match="disagrees with the generator"):
        score(engine, weights=weights)


@NEEDS_EXTENSION
def test_auto_takes_the_next_engine_and_says_so(monkeypatch, caplog):
    break_search("native", monkeypatch)
    caplog.set_level(logging.INFO, "adgan_fast")
    found = adgan_fast.search(CASE.module, CASE.images(1), n_seed=2)
    assert found.engine == "grouped"
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(lines) == 1 and lines[0].startswith("engine 'native' disagrees with the generator: rms ")
    torch.testing.assert_close(found.scores, score("reference"))


def test_the_triton_engine_is_checked_too(device, monkeypatch):
    pytest.importorskip("triton", reason="Triton is not installed")

    case = Case(randomise(nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (1, 2, 2))), 0), (3,), (1, 2, 2))
    settings = {"latent_shape": (3,), "n_seed": 1, "steps": 2, "device": device, "weights": "per_sample"}
    adgan_fast.score(case.module, case.images(1), engine="triton", **settings)
    verify._verdicts.clear()
    monkeypatch.setattr(ops, "adam_step_", faster(ops.adam_step_))
    with pytest.raises(ValueError, match=r"engine 'triton' cannot run: disagrees with the generator: (rms|mean) "):
        adgan_fast.score(case.module, case.images(1), engine="triton", **settings)


def turned_around() -> nn.Module:
    """A generator like another in weights and images, by whose hook a gradient comes back with the other sign."""

    def hook(module, given, made):
        if made.requires_grad:
            made.register_hook(lambda gradient: -gradient)

    gen = tanh_of_two()
    gen[0].register_forward_hook(hook)
    return gen


def tanh_of_two() -> nn.Module:
    return randomise(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Unflatten(1, (1, 2, 2))), 0)


@pytest.mark.parametrize("engine", ON_CPU)
def test_a_verdict_is_not_that_of_a_generator_with_another_backward_pass(engine):
    score(engine, Case(tanh_of_two(), (3,), (1, 2, 2)))
    case = Case(turned_around(), (3,), (1, 2, 2))
    if engine == "eager":  # which runs the hook
        torch.testing.assert_close(score(engine, case), score("reference", case))
    else:
        with pytest.raises(ValueError, match="cannot run"):
            score(engine, case)
    torch.testing.assert_close(score("auto", case), score("reference", case))


# -- the check itself ----------------------------------------------------------------------------------------------


def test_a_generator_is_checked_once_for_its_weights_and_settings(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "adgan_fast")

    def checks(**settings) -> int:
        caplog.clear()
        score("grouped", **settings)
        return sum("agrees with the generator" in record.getMessage() for record in caplog.records)

    assert checks() == 1
    assert checks() == checks(n_seed=3) == checks(seed=5) == checks(starts="independent") == 0
    assert checks(weights="frozen") == checks(loss="l1") == checks(lr_z=0.1) == checks(steps=3) == 1
    assert checks(steps=7) == 1
    other = Case(randomise(CASE.double().float(), 99), CASE.latent_shape, CASE.image_shape)
    assert checks(case=other) == 1
    assert checks(case=other, verify=False) == checks(case=other) == 0


def test_the_verdict_does_not_depend_on_the_callers_images(monkeypatch):
    seen = []
    right = verify._images
    monkeypatch.setattr(verify, "_images", lambda job, count: seen.append(right(job, count)) or seen[-1])
    for seed in range(2):
        verify._verdicts.clear()
        adgan_fast.score(CASE.module, CASE.images(2, seed=seed), engine="grouped", seed=seed, n_seed=2)
    half = len(seen) // 2
    assert half and all(torch.equal(a, b) for a, b in zip(seen[:half], seen[half:], strict=True))


def test_one_miss_is_looked_at_again_on_sixteen_pairs(monkeypatch):
    """What rounding does to a pair now and then refuses no engine."""
    counts, right = [], verify._searched

    def unlucky(engine, job, images):
        found = right(engine, job, images)
        if engine.name == "reference":
            return found
        counts.append(found.final.numel())
        return found._replace(final=found.final * 1.01) if found.final.numel() == verify.PAIRS else found

    monkeypatch.setattr(verify, "_searched", unlucky)
    score("grouped")
    assert counts == [verify.PAIRS, verify.AGAIN]


class Float32Inside(nn.Module):
    """Makes float32 tensors in forward: does not run in float64."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, z):
        return torch.tanh(torch.matmul(self.layer(z), torch.eye(4, dtype=torch.float32))).view(-1, 1, 2, 2)


def test_a_generator_that_runs_in_float32_alone_is_compared_in_it(caplog):
    caplog.set_level(logging.INFO, "adgan_fast")
    case = Case(randomise(Float32Inside(), 0), (3,), (1, 2, 2))
    score("eager", case)
    lines = [record.getMessage() for record in caplog.records]
    assert any("does not run in float64" in line for line in lines)
    assert any(line.startswith("engine 'eager' agrees with the generator") for line in lines)


def test_a_search_that_diverges_refuses_no_engine(caplog):
    caplog.set_level(logging.INFO, "adgan_fast")
    with pytest.warns(RuntimeWarning, match="NaN or Inf"):
        score("grouped", lr_z=1e38, lr_weights=1e30)
    assert any("a plain search diverges" in record.getMessage() for record in caplog.records)


def test_want_of_memory_is_said_and_refuses_no_engine(monkeypatch, caplog):
    def short(engine, job, count):
        raise MemoryError("on purpose")

    monkeypatch.setattr(verify, "_pairs", short)
    score("grouped")
    assert "not compared with the generator, for want of memory: on purpose" in caplog.text


@pytest.mark.parametrize("engine", ON_CPU)
def test_a_loss_that_is_a_function_is_part_of_the_check(engine):
    def root(reconstruction, image):
        assert reconstruction.dtype == image.dtype == torch.float32
        return ((reconstruction - image).square() + 1e-3).sqrt().flatten(1).sum(1)

    score(engine, loss=root)
    assert len(verify._verdicts) == 1


def amplifying() -> Case:
    """Batch norm with tiny variances behind residual sums: rounding grows in it, in any float32 loop."""
    layers = [nn.Linear(4, 32), nn.Unflatten(1, (8, 2, 2))]
    for _ in range(3):
        layers.append(Residual(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh())))
    module = randomise(nn.Sequential(*layers, nn.ConvTranspose2d(8, 1, 4, 2, 1), nn.Tanh()), 3)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.mul_(1e-4)
    return Case(module, (4,), (1, 4, 4))


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("engine", ON_CPU)
def test_an_engine_that_is_right_is_not_refused_where_rounding_is_amplified(engine, weights):
    assert score(engine, amplifying(), weights=weights).isfinite().all()


def test_every_engine_has_gradients_to_show():
    assert all(callable(getattr(engine, "gradients", None)) for engine in table())


@pytest.mark.alone
@NEEDS_EXTENSION
def test_the_check_costs_little_for_the_papers_generator():
    """Under 0.3 s on two quiet cores (docs/numerics.md). Here seconds of one thread, which others slow down less."""
    gen = DCGANGenerator(32, 1, 256, 64)
    images = torch.zeros(0, 1, 32, 32)
    adgan_fast.score(gen, images, verify=False)
    took = []
    for _ in range(3):
        verify._verdicts.clear()
        began = time.process_time()
        adgan_fast.score(gen, images)
        took.append(time.process_time() - began)
    assert len(verify._verdicts) == 1
    assert min(took) < 1.0

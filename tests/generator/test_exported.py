"""Exported programs are generators like any other."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from adgan_fast.engine import batched
from adgan_fast.generator.exported import load_exported
from adgan_fast.generator.rules import lower
from adgan_fast.generator.working_copy import working_copy
from tests.support.exports import (
    EXPORTS,
    GENERATORS,
    LATENT,
    ROWS,
    BatchInChannels,
    Constants,
    Split,
    Tied,
    build,
    dcgan,
    export,
    latents,
    save,
)
from tests.support.families import FAMILIES


@pytest.mark.parametrize(
    ("how", "decomposed"), [*((how, False) for how in EXPORTS), ("static_3", True), ("dynamic", True)]
)
@pytest.mark.parametrize("make", GENERATORS, ids=lambda make: make.__name__)
def test_a_loaded_program_equals_its_module_live_or_saved(make, how, decomposed, saved):
    module = build(make)
    for source in saved(make, how, decomposed):
        loaded = load_exported(source)
        assert loaded.latent_shape == (LATENT,)
        assert {n: p.shape for n, p in loaded.named_parameters()} == {n: p.shape for n, p in module.named_parameters()}
        assert loaded.state_dict().keys() == module.state_dict().keys()
        for rows in (0, 1, 2, 3, 7):
            if rows == 0 and make is BatchInChannels:
                continue  # the module itself cannot
            z = latents(rows)
            ours, theirs = loaded(z), module(z)
            assert ours.shape == theirs.shape
            if not decomposed and (rows == ROWS[how] or loaded._group is None):
                assert torch.equal(ours, theirs), rows
            else:  # a decomposed operator, or another batch size, rounds otherwise
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", EXPORTS)
@pytest.mark.parametrize("make", GENERATORS, ids=lambda make: make.__name__)
def test_gradients_equal_those_of_the_module(make, how, saved):
    module = build(make).double()
    loaded = load_exported(saved(make, how)[1]).double()
    found = []
    for generator in (module, loaded):
        z = latents(5, torch.float64).requires_grad_()
        names, parameters = zip(*generator.named_parameters(), strict=True)
        weights = torch.linspace(-1, 1, generator(z).numel(), dtype=z.dtype)
        loss = (generator(z).flatten() * weights).sum()
        gradients = torch.autograd.grad(loss, [z, *parameters], allow_unused=True, materialize_grads=True)
        found.append(dict(zip(("z", *names), gradients, strict=True)))
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("how", EXPORTS)
@pytest.mark.parametrize("make", [dcgan, Constants, Tied, Split, BatchInChannels], ids=lambda make: make.__name__)
def test_private_weights_by_vmap_equal_the_loop(make, how, saved):
    module = build(make).double()
    loaded = load_exported(saved(make, how, how != "static_1")[1]).double()
    stacked = {n: torch.stack([p.detach() * (1 + 0.1 * i) for i in range(3)]) for n, p in loaded.named_parameters()}
    z = latents(3, torch.float64).unsqueeze(1)
    batched = torch.func.vmap(lambda w, z: torch.func.functional_call(loaded, w, (z,)))(stacked, z)
    for i in range(3):
        alone = torch.func.functional_call(module, {name: w[i] for name, w in stacked.items()}, (z[i],))
        torch.testing.assert_close(batched[i], alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("how", EXPORTS)
@pytest.mark.parametrize("make", [dcgan, Constants, BatchInChannels], ids=lambda make: make.__name__)
def test_it_can_be_exported_again_at_batch_one(make, how, saved):
    module = build(make)
    loaded = load_exported(saved(make, how)[1])
    again = torch.export.export(loaded, (latents(1),))
    assert sorted(again.graph_signature.parameters) == sorted(name for name, _ in module.named_parameters())
    torch.testing.assert_close(again.module()(latents(1)), module(latents(1)))


def test_a_fixed_batch_leaves_no_trace_in_the_graph_of_a_plain_generator(saved):
    for make in set(GENERATORS) - {BatchInChannels}:
        for how, decomposed in (("static_1", False), ("static_3", False), ("static_3", True)):
            assert load_exported(saved(make, how, decomposed)[0])._group is None, (make, how, decomposed)
    assert load_exported(saved(BatchInChannels, "static_3")[0])._group == 3


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("make", [dcgan, Constants], ids=lambda make: make.__name__)
def test_dtype_follows_the_latent(make, decomposed, saved):
    loaded = load_exported(saved(make, "dynamic", decomposed)[0]).double()
    z = latents(2, torch.float64)
    assert loaded(z).dtype == torch.float64
    torch.testing.assert_close(loaded(z), build(make).double()(z), rtol=1e-12, atol=1e-12)


def test_a_double_precision_file_stays_double(tmp_path):
    module = build(dcgan, torch.float64)
    loaded = load_exported(save(export(module), tmp_path / "generator.pt2"))
    z = latents(3, torch.float64)
    assert torch.equal(loaded(z), module(z))


def test_copies_are_independent_and_the_live_program_stays_as_it_was(saved):
    program = saved(dcgan)[0]
    before = {name: tensor.clone() for name, tensor in program.state_dict.items()}
    loaded = load_exported(program)
    twin = copy.deepcopy(loaded)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.zero_()
    loaded.double()
    assert torch.equal(twin(latents(2)), build(dcgan)(latents(2)))
    for name, tensor in program.state_dict.items():
        assert torch.equal(tensor, before[name]), name


def test_tied_parameters_are_one_parameter(saved):
    for source in saved(Tied):
        loaded = load_exported(source)
        assert loaded.get_parameter("first.weight") is loaded.get_parameter("inner.0.weight")
        assert [name for name, _ in loaded.named_parameters()] == ["first.weight", "first.bias"]


def test_frozen_parameters_and_transient_buffers_stay_so(tmp_path):
    module = build(Constants)
    module.start.bias.requires_grad_(False)
    loaded = load_exported(save(export(module), tmp_path / "generator.pt2"))
    assert not loaded.start.bias.requires_grad
    assert loaded.start.weight.requires_grad
    assert torch.equal(dict(loaded.named_buffers())["shift"], module.shift)
    assert "shift" not in loaded.state_dict()


def test_loading_leaves_the_global_random_state(pt2):
    before = torch.random.get_rng_state()
    load_exported(pt2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_argument_that_is_a_constant_is_part_of_the_program(tmp_path):
    class Optional(nn.Module):
        def __init__(self):
            super().__init__()
            self.start = nn.Linear(LATENT, 4)

        def forward(self, z, scale, label=None):
            return (self.start(z) * scale).view(-1, 1, 2, 2)

    module = build(Optional)
    program = torch.export.export(module, (latents(2), 2.0, None))
    for source in (program, save(program, tmp_path / "generator.pt2")):
        assert torch.equal(load_exported(source)(latents(2)), module(latents(2), 2.0))


def test_arithmetic_on_sizes_is_kept(tmp_path):
    class Sizes(nn.Module):
        def __init__(self):
            super().__init__()
            self.start = nn.Linear(LATENT, 8)

        def forward(self, z):
            x = self.start(z).reshape(z.shape[0] * 2, 4)
            return torch.tanh(x).reshape((x.shape[0] + 2) // 2 - 1, 2, 2, 2)

    module = build(Sizes)
    loaded = load_exported(save(export(module), tmp_path / "generator.pt2"))
    assert torch.equal(loaded(latents(5)), module(latents(5)))


def test_a_free_batch_that_does_not_take_one_row_runs_in_groups(tmp_path):
    class Fours(nn.Module):
        def forward(self, z):
            return z.reshape(z.shape[0] // 4, 4 * LATENT).sigmoid().reshape(z.shape[0], 1, 2, 3)

    program = torch.export.export(Fours(), (latents(8),), dynamic_shapes=({0: 4 * torch.export.Dim("fours")},))
    for source in (program, save(program, tmp_path / "generator.pt2")):
        loaded = load_exported(source)
        for rows in (1, 7, 8, 20):
            torch.testing.assert_close(loaded(latents(rows)), latents(rows).sigmoid().view(-1, 1, 2, 3))


class Gradless(nn.Module):
    """Two blocks under no_grad, one within the other's reach, of which the first makes two values."""

    def __init__(self):
        super().__init__()
        self.layer, self.fixed = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, z):
        with torch.no_grad():
            a = self.fixed(torch.ones(1, 6, dtype=z.dtype, device=z.device))
            b = a * 2
        h = self.layer(z) + a * b
        with torch.no_grad():
            c = h * 0.1
            with torch.enable_grad():
                c = c + 0.1 * h
        return (h + c).view(-1, 1, 2, 3)


def test_what_stands_under_no_grad_has_no_gradient_in_a_program_either(tmp_path):
    torch.manual_seed(0)
    module, z = Gradless().eval(), latents(2).requires_grad_()
    program = torch.export.export(module, (z.detach(),))
    assert any("wrap_with_set_grad" in str(node.target) for node in program.graph.nodes)
    wanted = torch.autograd.grad(module(z).square().sum(), [z, *module.layer.parameters()])
    for source in (program, save(program, tmp_path / "generator.pt2")):
        loaded = load_exported(source)
        torch.testing.assert_close(loaded(z), module(z))
        weights = dict(loaded.named_parameters())
        found = torch.autograd.grad(loaded(z).square().sum(), [z, weights["layer.weight"], weights["layer.bias"]])
        torch.testing.assert_close(found, wanted)
        assert torch.autograd.grad(loaded(z).sum(), weights["fixed.weight"], allow_unused=True) == (None,)


def test_a_program_may_have_any_name(tmp_path):
    for name in ("program.pt", "program.safetensors", "program"):
        loaded = load_exported(save(export(dcgan().eval()), tmp_path / name))
        assert loaded(latents(2)).shape == (2, 3, 8, 8)


def test_an_overload_whose_name_ends_in_out_is_no_out_variant(tmp_path):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, z):
            return self.layer(z).view(-1, 1, 2, 2).to(memory_format=torch.channels_last)

    module, z = Last().eval(), torch.randn(2, 3)
    program = torch.export.export(module, (z,))
    assert any("dtype_layout" in str(node.target) for node in program.graph.nodes)
    loaded = load_exported(save(program, tmp_path / "generator.pt2"))
    torch.testing.assert_close(loaded(z), module(z))


SAVED = (
    "SAGAN", "BigGAN", "StyleGAN", "TransGAN", "learned queries", "einsum, causal", "KL autoencoder", "MONAI decoder",
    "spatial broadcast", "other edges", "resized", "weight norm by hooks",
)  # fmt: skip


@pytest.mark.parametrize("name", SAVED)
def test_a_family_saved_becomes_a_program_that_makes_its_images(name, tmp_path):
    case = FAMILIES[name]
    module, z = case.double().eval(), torch.randn(3, *case.latent_shape, dtype=torch.float64)
    torch.export.save(torch.export.export(module, (z[:1],), strict=False), tmp_path / "saved.pt2")
    program = lower(working_copy(tmp_path / "saved.pt2"), case.latent_shape)
    made = batched.forward(program, z[:, None], [p.expand(3, *p.shape) for p in program.parameters], program.constants)
    torch.testing.assert_close(made[:, 0], torch.cat([module(one[None]) for one in z]), rtol=1e-10, atol=1e-12)

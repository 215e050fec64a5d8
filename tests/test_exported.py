"""Exported programs are generators like any other, and a saved one runs no code when it is loaded."""

from __future__ import annotations

import copy
import functools
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import adgan_fast
from adgan_fast.generator.exported import load_exported
from adgan_fast.models import DCGANGenerator
from adgan_fast.training import WGANConfig, save_generator, train

LATENT = 6
Records = dict[str, bytes]


# ---- generators


def dcgan() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (LATENT, 1, 1)),
        nn.ConvTranspose2d(LATENT, 8, 4, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(8, 3, 4, 2, 1),
        nn.Tanh(),
    )


def linear_unflatten() -> nn.Module:
    return nn.Sequential(nn.Linear(LATENT, 12), nn.BatchNorm1d(12), nn.Unflatten(1, (3, 2, 2)), nn.Sigmoid())


def activations() -> nn.Module:
    layers = [nn.LeakyReLU(0.2), nn.ELU(), nn.Softplus(), nn.SiLU(), nn.Hardtanh(-1.0, float("inf"))]
    return nn.Sequential(nn.Linear(LATENT, 16), *layers, nn.Unflatten(1, (1, 4, 4)))


def groups_and_dilation() -> nn.Module:
    return nn.Sequential(
        nn.Linear(LATENT, 4 * 25),
        nn.Unflatten(1, (4, 5, 5)),
        nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2),
        nn.GELU(),
        nn.ConvTranspose2d(6, 2, 3, stride=2, output_padding=1, groups=2),
    )


def pixel_shuffle() -> nn.Module:
    return nn.Sequential(nn.Linear(LATENT, 32), nn.Unflatten(1, (8, 2, 2)), nn.PixelShuffle(2), nn.GroupNorm(2, 2))


class Tied(nn.Module):
    """One matrix under two names, once transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(LATENT, LATENT)
        self.inner = nn.Sequential(nn.Linear(LATENT, LATENT, bias=False))
        self.inner[0].weight = self.first.weight

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        hidden = self.inner(torch.relu(self.first(z)))
        return (hidden @ self.first.weight.t()).reshape(-1, 1, 2, 3)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(LATENT, 3 * 4)
        self.block = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.start(z).view(z.shape[0], 3, 2, 2)
        x = F.interpolate(x, scale_factor=2.0)
        return x + self.block(x) * 0.5


class Constants(nn.Module):
    """Persistent and transient buffers, an expanded one, plain tensors, literals, and filled tensors of batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(LATENT, 8)
        self.register_buffer("scale", torch.tensor(1.5))
        self.register_buffer("shift", torch.randn(2, 1, 1), persistent=False)
        self.register_buffer("column", torch.linspace(-1, 1, 2).expand(2, 2))
        self.plain = torch.randn(1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.start(z).reshape(z.shape[0], 2, 2, 2) * self.scale + self.shift + self.plain + torch.tensor(0.25)
        column = self.column.expand(z.shape[0], 1, 2, 2)
        return torch.cat([x, column, torch.zeros(z.shape[0], 1, 2, 2).to(x.dtype)], 1)


class Split(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(LATENT, 24)
        self.drop = nn.Dropout(0.5)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        gate, x = self.drop(self.start(z)).chunk(2, 1)
        return F.pad((torch.sigmoid(gate) * x).view(-1, 3, 2, 2), (1, 1, 1, 1))


class SharedLayer(nn.Module):
    """One layer run twice, and a latent of three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ConvTranspose2d(2, 2, 3, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.layer(F.silu(self.layer(z.view(z.size(0), 2, 1, 3))))


class BatchInChannels(nn.Module):
    """Puts the batch into the channels, so that a fixed batch is written all over its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(LATENT, 8)
        self.weight = nn.Parameter(torch.randn(2, 2, 3, 3) * 0.3)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = self.start(z).reshape(1, z.shape[0] * 2, 2, 2)
        x = F.conv2d(x, self.weight.repeat(z.shape[0], 1, 1, 1), padding=1, groups=z.shape[0])
        return x.reshape(z.shape[0], 2, 2, 2)


GENERATORS: list[Callable[[], nn.Module]] = [
    dcgan, linear_unflatten, activations, groups_and_dilation, pixel_shuffle, Tied, Residual, Constants, Split,
    SharedLayer, BatchInChannels,
]  # fmt: skip
ROWS = {"static_1": 1, "static_3": 3, "dynamic": 3}
EXPORTS = list(ROWS)


def build(make: Callable[[], nn.Module], dtype: torch.dtype = torch.float32) -> nn.Module:
    """`make()` in eval mode, with running statistics and weights that are nobody's defaults."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = make()
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point() and tensor.numel() > 1 and tensor.is_contiguous():
                tensor.data = torch.rand_like(tensor) * 0.8 + 0.1
                if isinstance(tensor, nn.Parameter):
                    tensor.data -= 0.5
    return module.eval().to(dtype)


def latents(rows: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, LATENT, generator=torch.Generator().manual_seed(rows), dtype=dtype)


def export(module: nn.Module, how: str = "dynamic", decomposed: bool = False) -> torch.export.ExportedProgram:
    dtype = next(module.parameters()).dtype
    shapes = ({0: torch.export.Dim("batch")},) if how == "dynamic" else None
    program = torch.export.export(module, (latents(ROWS[how], dtype),), dynamic_shapes=shapes)
    return program.run_decompositions() if decomposed else program


def save(program: torch.export.ExportedProgram, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own deprecated calls, and of expanded buffers
        torch.export.save(program, path)
    return path


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[torch.export.ExportedProgram, Path]]:
    """(program, file) of a generator of the list above; made once, since export takes about a second."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def make_once(make: Callable[[], nn.Module], how: str = "dynamic", decomposed: bool = False) -> Any:
        program = export(build(make), how, decomposed)
        return program, save(program, folder / f"{make.__name__}_{how}_{decomposed}.pt2")

    return make_once


@pytest.fixture
def pt2(saved) -> Path:
    return saved(dcgan)[1]


# ---- what is loaded computes what was exported


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
    #  # else each single latent would cost three, and the fast engines could not lower it


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


# ---- what is refused


class Noise(nn.Module):
    def forward(self, z):
        return (z + torch.randn_like(z)).view(-1, 1, 2, 3)


class TwoInputs(nn.Module):
    def forward(self, z, y):
        return (z + y).view(-1, 1, 2, 3)


class TwoOutputs(nn.Module):
    def forward(self, z):
        return z.view(-1, 1, 2, 3), z


class NoImage(nn.Module):
    def forward(self, z):
        return z * 2


class WritesInput(nn.Module):
    def forward(self, z):
        return z.view(-1, 1, 2, 3).mul_(2)


@pytest.mark.parametrize(
    ("module", "inputs", "trouble"),
    [
        (dcgan().train(), 1, r"(?s)training mode|writes into.*gen\.eval\(\)"),
        (nn.Sequential(Split(), nn.Dropout(0.5)).train(), 1, r"training mode.*gen\.eval\(\)"),
        (TwoInputs(), 2, "takes 2 tensors"),
        (TwoOutputs(), 1, "returns 2 values"),
        (NoImage(), 1, r"to \(2, 6\), expected \(B, C, H, W\)"),
        (WritesInput(), 1, "writes into its input"),
    ],
    ids=["batch_norm", "dropout", "two_inputs", "two_outputs", "no_image", "writes_input"],
)
@pytest.mark.parametrize("decomposed", [False, True], ids=["whole", "decomposed"])
def test_what_is_no_generator_is_refused_with_the_reason(module, inputs, trouble, decomposed, tmp_path):
    program = torch.export.export(module, (latents(2),) * inputs)
    if decomposed:
        program = program.run_decompositions()
        trouble += "|training mode|writes into"
    for source in (program, save(program, tmp_path / "generator.pt2")):
        with pytest.raises(ValueError, match=trouble):
            load_exported(source)


def test_randomness_in_a_file_is_refused_and_the_node_named(tmp_path):
    with pytest.raises(ValueError, match=r"node randn_like: torch\.ops\.aten\.randn_like\.default"):
        load_exported(save(torch.export.export(Noise(), (latents(2),)), tmp_path / "generator.pt2"))


def test_higher_order_operators_are_refused_and_the_node_named(tmp_path):
    class Cast(nn.Module):
        def forward(self, z):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                y = z * 2
            return (z + y).view(-1, 1, 2, 3)

    program = torch.export.export(Cast(), (latents(2),))
    assert any("wrap_with_autocast" in str(node.target) for node in program.graph.nodes)
    for source in (program, save(program, tmp_path / "generator.pt2")):
        with pytest.raises(ValueError, match=r"node .*(submod|wrap_with_autocast)"):
            load_exported(source)


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


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_exported(tmp_path / "none.pt2")


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_other_files_that_generators_are_kept_in_are_named_with_the_remedy(tmp_path):
    generator = DCGANGenerator(8, 1, latent=4, width=2).eval()
    images, folder = np.zeros((1, 1, 8, 8), np.uint8), tmp_path / "run"
    train(images, WGANConfig(latent=4, width=2, steps=0), out=folder)
    save_file(generator.state_dict(), tmp_path / "others.safetensors")
    torch.save(generator.state_dict(), tmp_path / "weights.pt")
    torch.save(generator, tmp_path / "module.pth")
    torch.save(generator, tmp_path / "module.pt2")
    torch.save(generator.state_dict(), tmp_path / "old", _use_new_zipfile_serialization=False)
    (tmp_path / "cut.pt").write_bytes((tmp_path / "weights.pt").read_bytes()[:-50])
    (tmp_path / "text.pkl").write_bytes(pickle.dumps({}, protocol=0))
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "script.pt")  # type: ignore[no-untyped-call]
    saved = r"adgan_fast\.training\.load_generator"
    torch_saved = ("weights.pt", "module.pth", "module.pt2", "old", "cut.pt", "text.pkl")
    pickled = r"a pickle .* never read: build the module .*load_state_dict\(torch\.load\(path, weights_only=True\)\)"
    for path, message in [
        (save_generator(generator, tmp_path / "mine.safetensors"), saved),
        (save_generator(generator, tmp_path / "mine.pt2"), saved),
        (folder, saved),
        (folder / "checkpoint.json", saved),
        (folder / "generator.safetensors", saved),
        (tmp_path / "others.safetensors", r"load_state_dict\(safetensors\.torch\.load_file\(path\)\)"),
        *((tmp_path / name, pickled) for name in torch_saved),
        (tmp_path / "script.pt", "TorchScript, not a .pt2 file: pass the module"),
    ]:
        with pytest.raises(ValueError, match=f"{re.escape(str(path))}: .*{message}"):
            adgan_fast.score(path, images)


def test_a_program_may_have_any_name(tmp_path):
    for name in ("program.pt", "program.safetensors", "program"):
        loaded = load_exported(save(export(dcgan().eval()), tmp_path / name))
        assert loaded(latents(2)).shape == (2, 3, 8, 8)


# ---- hostile files


def records(path: Path) -> Records:
    with zipfile.ZipFile(path) as archive:
        return {entry.filename.split("/", 1)[1]: archive.read(entry) for entry in archive.infolist()}


def write(path: Path, content: Records, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(f"root/{name}", data)
    return path


MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"


def edit(content: Records, name: str, change: Callable[[Any], None]) -> None:
    table = json.loads(content[name])
    change(table)
    content[name] = json.dumps(table).encode()


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def code(marker: Path) -> str:
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


def nodes(table: Any) -> list[Any]:
    return table["graph_module"]["graph"]["nodes"]


def retarget(target: str, *arguments: dict[str, Any]) -> Callable[[Any], None]:
    def change(table: Any) -> None:
        inputs = [{"name": f"a{i}", "arg": argument, "kind": 1} for i, argument in enumerate(arguments)]
        nodes(table)[1] = {**nodes(table)[1], "target": target, "inputs": inputs}

    return change


def weight(**changes: Any) -> Callable[[Any], None]:
    def change(table: Any) -> None:
        entry = next(iter(table["config"].values()))
        for name, value in changes.items():
            (entry if name in entry else entry["tensor_meta"])[name] = value

    return change


def test_the_payloads_of_these_tests_would_run(tmp_path):
    marker = tmp_path / "ran"
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists()
    marker.unlink()
    eval(code(marker))
    assert marker.exists()


def test_a_rewritten_archive_still_loads(pt2, tmp_path):
    loaded = load_exported(write(tmp_path / "again.pt2", records(pt2)))
    assert torch.equal(loaded(latents(2)), build(dcgan)(latents(2)))


@pytest.mark.parametrize("how", EXPORTS)
def test_pickles_and_expressions_in_a_file_are_never_touched(how, saved, tmp_path):
    """They lie where torch.export.load would unpickle and evaluate them; the program itself is sound, so it loads."""
    marker = tmp_path / "ran"
    content = records(saved(Residual, how)[1])
    content["data/sample_inputs/model.pt"] = pickle.dumps(Payload(marker))

    def poison(value: Any) -> None:
        if isinstance(value, dict):
            for key in value:
                if key in ("expr_str", "in_spec", "out_spec", "stack_trace", "nn_module_stack", "torch_fn"):
                    value[key] = code(marker)
                else:
                    poison(value[key])
        elif isinstance(value, list):
            for item in value:
                poison(item)

    edit(content, MODEL, poison)
    edit(content, MODEL, lambda table: table.update(guards_code=[code(marker)], verifiers=["os.system"]))
    loaded = load_exported(write(tmp_path / "hostile.pt2", content))
    assert torch.equal(loaded(latents(3)), build(Residual)(latents(3)))
    assert not marker.exists()


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.__class__.default",
        "torch.ops.aten.relu.__class__",
        "torch.ops.aten.relu.default.__class__",
        "torch.ops.aten.relu._op",
        "torch.ops.aten.save.default",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.set_data.default",
        "torch.ops.aten.add.out",
        "torch.ops.aten.randn.default",
        "torch.ops.higher_order.cond",
        "torch.ops.load_library",
        "torch.ops.prims.add.default",
        "torch.load",
        "torch.hub.load",
        "torch.serialization.os.system",
        "_operator.attrgetter",
        "_operator.pow",
        "math.factorial",
        "os.system",
        "posix.system",
        "builtins.eval",
        "#extension:op",
        "torch.ops.aten.relu.default\n",
        "",
        None,
        ["torch.ops.aten.relu.default"],
    ],
)
def test_a_target_off_the_list_is_refused_and_nothing_runs(target, pt2, tmp_path):
    marker = tmp_path / "ran"
    content = records(pt2)
    name = nodes(json.loads(content[MODEL]))[1]["name"]
    for argument in (code(marker), f"touch {marker}", str(marker)):
        edit(content, MODEL, retarget(target, {"as_string": argument}, {"as_string": str(marker)}))
        with pytest.raises(ValueError, match=f"hostile.pt2: node {name}: ") as caught:
            load_exported(write(tmp_path / "hostile.pt2", content))
        assert str(target)[:40] in str(caught.value)
        assert re.search("is not among the operators|does not exist in torch", str(caught.value))
        assert not marker.exists()


def test_an_operator_that_creates_files_is_refused(pt2, tmp_path):
    """Why the list is explicit: by the pattern `torch.ops.aten.*` a file could resize or overwrite any other."""
    marker = tmp_path / "ran"
    torch.ops.aten.from_file(str(marker), True, 4)
    assert marker.exists()
    marker.unlink()
    arguments = {"filename": {"as_string": str(marker)}, "shared": {"as_bool": True}, "size": {"as_int": 4}}

    def insert(table: Any) -> None:
        inputs = [{"name": name, "arg": argument, "kind": 1} for name, argument in arguments.items()]
        nodes(table).insert(0, {"target": "torch.ops.aten.from_file.default", "inputs": inputs, "outputs": []})

    content = records(pt2)
    edit(content, MODEL, insert)
    with pytest.raises(ValueError, match="is not among the operators"):
        load_exported(write(tmp_path / "hostile.pt2", content))
    assert not marker.exists()


def relu(*arguments: dict[str, Any]) -> Callable[[Any], None]:
    return retarget("torch.ops.aten.relu.default", *arguments)


def rename(content: Records, name: str) -> None:
    """Give the first weight another name, in the graph and in the table of weights."""
    for record in (MODEL, WEIGHTS):
        assert b'"1.weight"' in content[record]
        content[record] = content[record].replace(b'"1.weight"', json.dumps(name).encode())


TAMPERED: dict[str, tuple[Callable[[Records, Path], Any], str]] = {
    "pickled_weight": (
        lambda c, m: (
            c.update({"data/weights/weight_0": pickle.dumps(Payload(m))}),
            edit(c, WEIGHTS, weight(use_pickle=True)),
        ),
        "stored as a pickle",
    ),
    "pickled_state": (lambda c, m: c.update({"data/weights/model.pt": pickle.dumps(Payload(m))}), "one pickle"),
    "custom_object": (
        lambda c, m: edit(c, MODEL, lambda t: t["graph_module"]["signature"]["input_specs"].append(
            {"custom_obj": {"arg": {"name": "x", "class_fqn": "os.system"}, "custom_obj_name": "x"}})),
        "'custom_obj' is not supported",
    ),
    "graph_argument": (
        lambda c, m: edit(c, MODEL, relu({"as_graph": {"name": code(m)}})),
        "'as_graph', which is not supported",
    ),
    "operator_argument": (
        lambda c, m: edit(c, MODEL, relu({"as_operator": "os.system"})),
        "'as_operator', which is not supported",
    ),
    "code_for_a_number": (
        lambda c, m: edit(c, MODEL, relu({"as_int": code(m)})), "where a int belongs",
    ),
    "code_for_a_float": (
        lambda c, m: edit(c, MODEL, relu({"as_float": code(m)})),
        "could not convert string to float",
    ),
    "code_for_a_device": (
        lambda c, m: edit(c, MODEL, relu({"as_device": {"type": code(m)}})),
        "Invalid device",
    ),
    "unknown_name": (
        lambda c, m: edit(c, MODEL, relu({"as_tensor": {"name": code(m)}})),
        "before it is made",
    ),
    "unknown_argument": (
        lambda c, m: edit(c, MODEL, relu({"as_int": 1})), "takes no argument 'a0'",
    ),
    "path_upwards": (lambda c, m: edit(c, WEIGHTS, weight(path_name="../../../etc/passwd")), "is missing"),
    "path_absolute": (lambda c, m: edit(c, WEIGHTS, weight(path_name="/etc/passwd")), "is missing"),
    "method_name": (lambda c, m: rename(c, "forward"), "'forward'"),
    "empty_name": (lambda c, m: rename(c, "1..w"), "'1..w'"),
    "dunder_name": (
        lambda c, m: rename(c, "__class__.w"), "'__class__.w'",
    ),
    "huge_sizes": (lambda c, m: edit(c, WEIGHTS, weight(sizes=[{"as_int": 2**40}], strides=[{"as_int": 1}])), "needs"),
    "beyond_the_record": (lambda c, m: edit(c, WEIGHTS, weight(storage_offset={"as_int": 1})), "needs"),
    "negative_offset": (lambda c, m: edit(c, WEIGHTS, weight(storage_offset={"as_int": -4})), "offset -4"),
    "negative_stride": (lambda c, m: edit(c, WEIGHTS, weight(strides=[{"as_int": -1}] * 4)), "strides"),
    "ragged_record": (lambda c, m: c.update({"data/weights/weight_0": b"\0" * 100001}), "no multiple"),
    "short_record": (lambda c, m: c.update({"data/weights/weight_0": b"\0"}), "its record has 1"),
    "unknown_dtype": (lambda c, m: edit(c, WEIGHTS, weight(dtype=99)), "dtype number 99"),
    "sparse": (lambda c, m: edit(c, WEIGHTS, weight(layout=1)), "not a dense tensor"),
    "weight_missing": (lambda c, m: c.pop("data/weights/weight_0"), "weight_0' is missing"),
    "no_graph": (lambda c, m: c.pop(MODEL), "0 programs"),
    "two_graphs": (lambda c, m: c.update({"models/b.json": c[MODEL]}), "2 programs"),
    "compiled": (lambda c, m: (c.pop(MODEL), c.update({"data/aotinductor/model/a.so": b""})), "machine code"),
    "schema_7": (lambda c, m: edit(c, MODEL, lambda t: t["schema_version"].update(major=7)), "schema 7"),
    "archive_version": (lambda c, m: c.update(archive_version=b"9"), "archive version '9'"),
    "archive_format": (lambda c, m: c.update(archive_format=b"zip"), "archive_format"),
    "older_format": (lambda c, m: (c.pop("archive_format"), c.update(version=b"5.3")), "older torch"),
    "byte_order": (lambda c, m: c.update(byteorder=b"big"), "'big'-endian"),
    "not_json": (lambda c, m: c.update({MODEL: b"{"}), "hostile.pt2"),
    "not_text": (lambda c, m: c.update({MODEL: b"\xff\xfe"}), "hostile.pt2"),
    "nested_json": (lambda c, m: c.update({MODEL: b"[" * 200_000}), "hostile.pt2"),
    "wrong_json": (lambda c, m: c.update({MODEL: b"[1, 2]"}), "hostile.pt2"),
    "two_kinds": (
        lambda c, m: edit(c, MODEL, relu({"as_int": 1, "as_none": True})), "malformed",
    ),
    "wrong_arguments": (
        lambda c, m: edit(c, MODEL, lambda t: nodes(t)[1]["inputs"].clear()), "the program does not run",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_file_is_refused_by_name_and_nothing_runs(case, pt2, tmp_path):
    tamper, trouble = TAMPERED[case]
    marker = tmp_path / "ran"
    content = records(pt2)
    tamper(content, marker)
    with pytest.raises(ValueError, match=r"hostile\.pt2: ") as caught:
        load_exported(write(tmp_path / "hostile.pt2", content))
    assert trouble in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert not marker.exists()


def test_compressed_records_are_refused_unread(pt2, tmp_path):
    content = {**records(pt2), "data/weights/weight_0": bytes(10_000_000)}
    with pytest.raises(ValueError, match="is compressed"):
        load_exported(write(tmp_path / "bomb.pt2", content, zipfile.ZIP_DEFLATED))


def test_records_that_claim_more_than_the_file_has_are_refused(pt2, tmp_path):
    data = bytearray(write(tmp_path / "plain.pt2", records(pt2)).read_bytes())
    entry = data.rindex(b"PK\x01\x02")  # the last entry of the central directory: sizes at 20 and 24
    data[entry + 20 : entry + 28] = (2**31).to_bytes(4, "little") * 2
    (tmp_path / "claims.pt2").write_bytes(data)
    with pytest.raises(ValueError, match=r"claims\.pt2: its records claim"):
        load_exported(tmp_path / "claims.pt2")


@pytest.mark.parametrize("kept", [0, 10, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused_by_name(kept, pt2, tmp_path):
    data = pt2.read_bytes()
    (tmp_path / "short.pt2").write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=r"short\.pt2: "):
        load_exported(tmp_path / "short.pt2")


def test_a_flipped_bit_in_a_weight_is_noticed(pt2, tmp_path):
    data = bytearray(pt2.read_bytes())
    raw = records(pt2)["data/weights/weight_0"]
    data[data.index(raw)] ^= 1
    (tmp_path / "flipped.pt2").write_bytes(data)
    with pytest.raises(ValueError, match=r"flipped\.pt2: .*CRC"):
        load_exported(tmp_path / "flipped.pt2")


def test_names_that_climb_out_of_the_archive_write_nothing(pt2, tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    content = records(pt2)
    content["../../climbed"] = b"x"
    load_exported(write(folder / "climbing.pt2", content))  # no record is ever extracted
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
    with zipfile.ZipFile(folder / "climbing.pt2", "a") as archive:
        archive.writestr("../climbed", b"x")
    with pytest.raises(ValueError, match="2 folders at its root"):
        load_exported(folder / "climbing.pt2")


def test_a_file_whose_program_trains_is_refused_with_the_remedy(tmp_path):
    program = torch.export.export(dcgan().train(), (latents(3),)).run_decompositions()
    with pytest.raises(ValueError, match=r"generator\.pt2: .*Export after gen\.eval\(\)|gen\.eval\(\)"):
        load_exported(save(program, tmp_path / "generator.pt2"))


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

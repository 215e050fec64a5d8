"""Exported programs that are no generators, and other files, are refused with the reason and the remedy."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import adgan_fast
from adgan_fast.generator.exported import load_exported
from adgan_fast.models import DCGANGenerator
from adgan_fast.training import WGANConfig, save_generator, train
from tests.support.exports import Split, dcgan, latents, save


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


def test_a_file_whose_program_trains_is_refused_with_the_remedy(tmp_path):
    program = torch.export.export(dcgan().train(), (latents(3),)).run_decompositions()
    with pytest.raises(ValueError, match=r"generator\.pt2: .*Export after gen\.eval\(\)|gen\.eval\(\)"):
        load_exported(save(program, tmp_path / "generator.pt2"))

"""A case of the fuzz, from one integer: generator, images, settings and starts."""

from __future__ import annotations

import dataclasses
import random
import warnings
from collections import Counter
from typing import Any

import torch

import adgan_fast
from adgan_fast import SearchResult, testing, validate
from adgan_fast.core import starts
from tests.fuzz.generators import draw
from tests.fuzz.source import Drawn, Shape
from tests.support.losses import huber


def ramp(reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """A mean with weights, which writes into what it is given."""
    weights = torch.linspace(0.1, 1, reconstruction[0].numel(), dtype=image.dtype).view_as(reconstruction[0])
    return (reconstruction.sub_(image).square() * weights).flatten(1).mean(1)


@dataclasses.dataclass
class Case:
    """A generator, images, settings, and the starts as an engine in float32 has them, (N, S, *latent)."""

    seed: int
    gen: Drawn
    latent_shape: Shape
    images: torch.Tensor
    settings: dict[str, Any]
    starts: torch.Tensor
    redrawn: Counter[str]

    def __str__(self) -> str:
        settings = {k: tuple(v.shape) if isinstance(v, torch.Tensor) else v for k, v in self.settings.items()}
        settings |= {k: v.__name__ for k, v in settings.items() if callable(v)}
        kind = f"{tuple(self.images.shape)} {self.images.dtype} in [{float(self.images.min()):.3g}, "
        return (
            f"{self.gen.source}# latent {self.latent_shape}; images {kind}{float(self.images.max()):.3g}]; {settings}"
        )


def case_of(seed: int) -> Case:
    """The case of a seed: the first generator of its own that the checks of a search let pass."""
    chooser, redrawn = random.Random(seed), Counter[str]()
    while True:
        gen, latent_shape, image_shape = draw(chooser.getrandbits(40))
        settings, n = _settings(chooser), chooser.choice([1, 1, 2, 2, 3])
        torch_random = torch.Generator().manual_seed(chooser.getrandbits(40))
        images = _images(chooser, torch_random, gen, latent_shape, (n, *image_shape))
        case = Case(seed, gen, latent_shape, images, settings, _starts(settings, latent_shape, n), redrawn)
        try:
            search(case, "reference", images=images[:1], steps=0, n_seed=1, starts=case.starts[0, :1])
            return case
        except ValueError as error:
            redrawn[reason_of(error)] += 1


def _settings(chooser: random.Random) -> dict[str, Any]:
    weights = chooser.choice(["per_seed", "per_sample", "frozen"])
    settings: dict[str, Any] = {
        "weights": weights,
        "loss": chooser.choice(["l2", "l2", "l1", "laplacian", "laplacian", huber, ramp]),
        "steps": chooser.choice([0, 1, 2, 3, 4, 5, 5, 5, 6, 7, 7 if chooser.random() < 0.8 else 12]),
        "n_seed": chooser.choice([1, 2, 2, 3, 4, 5 if chooser.random() < 0.8 else 18]),
        "lr_z": chooser.choice([0.25, 0.25, 1e-4, 0.01, 0.05, 1.0, 0.0]),
        "lr_weights": chooser.choice([5e-5, 5e-5, 1e-7, 1e-3, 1e-2, 0.0]),
        "betas": chooser.choice([(0.5, 0.999), (0.5, 0.999), (0.0, 0.999), (0.9, 0.9), (0.0, 0.0), (0.9, 0.0)]),
        "eps": chooser.choice([1e-8, 1e-8, 1e-6, 1e-3]),
        "prior": chooser.choice(["normal", "normal", "uniform"]),
        "seed": chooser.choice([0, 1, 2**64 - 1]),
        "starts": chooser.choice(["shared", "independent", "given", "given for each"]),
    }
    return settings


def _starts(settings: dict[str, Any], latent_shape: Shape, n: int) -> torch.Tensor:
    """The starts of a case, rounded to float32; where they are given, `settings` gets the tensor."""
    seed, prior, n_seed = settings["seed"], settings["prior"], settings["n_seed"]
    each = [starts.draw(seed, i, n_seed, latent_shape, prior).float() for i in range(n)]
    shared = starts.draw(seed, None, n_seed, latent_shape, prior).float()
    match settings["starts"]:
        case "given":
            settings["starts"] = shared = shared * 0.7
        case "given for each":
            settings["starts"] = torch.stack(each, -1).movedim(-1, 0)  # not contiguous
            return torch.stack(each)
        case "independent":
            return torch.stack(each)
    return shared.expand(n, *shared.shape)


def _images(
    chooser: random.Random, torch_random: torch.Generator, gen: Drawn, latent_shape: Shape, shape: Shape
) -> torch.Tensor:
    """Random, flat, black and white, uint8, or the generator's own; in several layouts."""
    noise = torch.rand(shape, generator=torch_random) * 2 - 1
    match chooser.choice(["random", "random", "flat", "own", "own", "black", "uint8", "strided", "channels last"]):
        case "flat":
            return torch.full(shape[:1], chooser.choice([0.0, 0.3, -1.0, 1.0]))[:, None, None, None].expand(shape)
        case "own":
            z = torch.randn(shape[0], 1, *latent_shape, generator=torch_random)
            with torch.no_grad():
                return torch.cat([gen.eval()(one) for one in z]).clamp(-1, 1)
        case "black":
            return noise.sign()
        case "uint8":
            return ((noise + 1) * 127.5).to(torch.uint8)
        case "strided":
            return torch.stack([noise, noise], -1).flip(1)[..., 0]
        case "channels last":
            return noise.to(memory_format=torch.channels_last)
    return noise


def search(case: Case, engine: str, dtype: torch.dtype = torch.float32, **changes: Any) -> SearchResult:
    """By an engine; `reference` with the starts, and uint8 images, as an engine in float32 has them."""
    settings: dict[str, Any] = {"verify": False, "images": case.images, **case.settings}
    if engine == "reference" or dtype == torch.float64:
        settings["starts"] = case.starts.to(dtype)
        settings["images"] = validate.to_range(case.images, torch.float32).to(dtype)
    gen = testing.working_copy(case.gen, None, dtype=dtype)
    settings |= changes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return adgan_fast.search(gen, settings.pop("images"), engine=engine, latent_shape=case.latent_shape, **settings)


def reason_of(error: Exception) -> str:
    """An error's words, without numbers and names that differ from case to case."""
    text = str(error).split(". Use engine=")[0].split(": ", 2)[-1] if "cannot run" in str(error) else str(error)
    text = text.replace("generator Drawn ", "")
    return "".join("#" if c.isdigit() else c for c in text)[:70]

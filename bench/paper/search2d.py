"""Figure 2: where searches go in a latent space of two dimensions, for a normal and an anomalous image."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from adgan_fast import SearchConfig, data, search
from adgan_fast.training import TrainConfig, train

from .figures import save_paths
from .sets import PaperSet, Trial


def search2d(
    images: PaperSet,
    at: Trial,
    other: int,
    out: Path,
    training: TrainConfig,
    *,
    n_seed: int,
    steps: int,
    progress: bool,
) -> Path:
    """Trains a generator with a latent of two numbers on the trial's class, and draws the paths of its searches.

    The normal image is the first test image of the class, the anomalous one the first of the class ``other``. A search
    is a function of (generator, image, configuration): its latent after i steps is the end of a search of i steps.
    """
    folder = out / images.name / images.class_name(at.normal) / "models" / "wgan-2d"
    generator = train(
        at.train, dataclasses.replace(training, latent=2), out=folder, resume=True, progress=progress
    ).generator
    paths, pictures = {}, {}
    for name, label in (("normal", at.normal), ("anomalous", other)):
        image = images.test.of_class(label).images[:1]
        found = [
            search(generator, image, config=SearchConfig(n_seed=n_seed, steps=count, seed=training.seed))
            for count in range(steps + 1)
        ]
        paths[name] = np.stack([each.latents[0].double().numpy() for each in found], axis=1)
        pictures[name] = (_shown(data.to_model_range(image)), _shown(found[-1].reconstructions))
    title = f"{images.name}: trained on {images.class_name(at.normal)}; anomalous: {images.class_name(other)}"
    return save_paths(out / f"search2d-{images.name}.png", paths, pictures, title)


def _shown(images: npt.NDArray[np.float32] | torch.Tensor) -> npt.NDArray[np.float64]:
    """The first of (N, C, H, W) in [-1, 1], as a picture in [0, 1]: (H, W) or (H, W, 3)."""
    first = (np.asarray(images[0], np.float64) + 1) / 2
    return first[0] if len(first) == 1 else np.moveaxis(first, 0, -1)

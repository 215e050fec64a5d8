"""Section 4.4: train on one scene; its most and least anomalous images, and the AUC of the scene against the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from adgan_fast import search
from adgan_fast.data import CIFAR10_CLASSES, load_cifar10, load_lsun
from adgan_fast.report import save_gallery

from .auc import auc
from .entries import SEARCH, Context
from .rows import save_array, save_table
from .settings import Settings

VALIDATION = 300
"""Images of each scene that are scored: as many as LSUN's validation sets hold."""
COLUMNS = ("scene", "images", "mean_score", "auc_against_it", "auc_low", "auc_high")


class Scenes(NamedTuple):
    """Images (N, C, H, W) uint8 of scenes, by name: to train on, and to score."""

    name: str
    train: dict[str, npt.NDArray[np.uint8]]
    test: dict[str, npt.NDArray[np.uint8]]


def open_scenes(path: Path, scene: str, size: int, most: int | None) -> Scenes:
    """LSUN's scenes, or CIFAR-10's classes taken as scenes.

    Args:
        path: the folder of LSUN's lmdbs, ``<scene>_train_lmdb`` and ``<scene>_val_lmdb``, images cut to squares and
            resized to `size`; or CIFAR-10 as ``load_cifar10`` reads it, at its own 32.
        scene: the one to train on.
        size: of LSUN's images.
        most: training images at most; all when None. (LSUN's bedrooms are three millions.)

    Raises:
        FileNotFoundError, ValueError: no such set or scene, naming what is there.
    """
    found = sorted(each.name.removesuffix("_val_lmdb") for each in path.glob("*_val_lmdb")) if path.is_dir() else []
    if found:
        if scene not in found:
            raise ValueError(f"{path}: no scene {scene!r}; there are {', '.join(found)}")
        train = load_lsun(path / f"{scene}_train_lmdb", size, most=most).images
        tests = {name: load_lsun(path / f"{name}_val_lmdb", size, most=VALIDATION).images for name in found}
        return Scenes("lsun", {scene: train}, tests)
    if scene not in CIFAR10_CLASSES:
        raise ValueError(
            f"{path}: no folder of LSUN's, and CIFAR-10 has no class {scene!r}; it has {', '.join(CIFAR10_CLASSES)}"
        )
    both = load_cifar10(path, "train"), load_cifar10(path, "test")
    return Scenes(
        "cifar10-scenes",
        {scene: both[0].of_class(scene).images[:most]},
        {name: both[1].of_class(name).images[:VALIDATION] for name in CIFAR10_CLASSES},
    )


def scenes(given: Scenes, scene: str, out: Path, settings: Settings, *, progress: bool) -> Path:
    """Writes ``scenes-<set>-<scene>.csv`` and a gallery of the scene's own validation images beside it."""
    context = Context(settings, out / given.name / scene, progress)
    gan, _ = context.gan_of(given.train[scene])
    config = context.search()
    folder = context.folder / "scores" / settings.key(SEARCH)
    folder.mkdir(parents=True, exist_ok=True)
    scores = {}
    for name, images in given.test.items():
        kept = folder / f"{name}.npy"
        if name == scene or not kept.is_file():
            found = search(gan.generator, images, config=config)
            scores[name] = torch.as_tensor(found.scores).double().numpy()
            save_array(kept, scores[name])
        else:
            scores[name] = np.load(kept)
        if name == scene:
            stem = out / f"scenes-{given.name}-{scene}"
            save_gallery(stem.with_suffix(".png"), _unit(images), found.reconstructions, scores[name])
    return _table(stem.with_suffix(".csv"), scene, scores)


def _table(path: Path, scene: str, scores: dict[str, npt.NDArray[np.float64]]) -> Path:
    """A line for each scene, and one for all others together."""
    own = scores[scene]
    others = {name: values for name, values in scores.items() if name != scene}
    lines: list[tuple[Any, ...]] = [(scene, len(own), f"{own.mean():.4f}", "", "", "")]
    for name, values in (*others.items(), ("all others", np.concatenate(list(others.values())))):
        area = auc(np.concatenate([own, values]), np.arange(len(own) + len(values)) >= len(own))
        lines.append((name, len(values), f"{values.mean():.4f}", *(f"{each:.5f}" for each in area)))
    return save_table(path, COLUMNS, lines)


def _unit(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    return images.astype(np.float32) / 127.5 - 1

"""Small defects in textures, by windows: what ADGAN sees of them, beside a detector that needs no training to speak of.

    python -m bench.studies.textures [--steps 600] [--width 16] [--n-seed 4]    Markdown

The textures (512×512, grey) come with scikit-image: ``pip install scikit-image``. A generator is trained on windows of
the upper half of one; the third quarter calibrates, and test images of 64×64 are cut from the last: half as they are,
half with a defect. Images are told apart by the p-value of their windows, pixels by the windows' mean.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score

from adgan_fast import Scorer, maps, windows
from adgan_fast.baselines import GMM, PCA
from adgan_fast.training import WGANConfig, train

from ..race.report import markdown

SIDE, STRIDE, IMAGE = 32, 8, 64
TEXTURES = ("brick", "grass", "gravel")
TESTS = 40
Array = npt.NDArray[Any]


def defect(kind: str, image: Array, other: Array, random: np.random.Generator) -> tuple[Array, npt.NDArray[np.bool_]]:
    """The image (1, H, W) with a defect, and its mask (H, W)."""
    y, x = random.integers(12, IMAGE - 12, 2)
    rows, columns = np.mgrid[:IMAGE, :IMAGE]
    masks = {
        "blob": (rows - y) ** 2 + (columns - x) ** 2 <= 5**2,
        "scratch": (np.abs(rows - y) <= 1) & (np.abs(columns - x) <= 10),
        "patch": (np.abs(rows - y) <= 8) & (np.abs(columns - x) <= 8),
    }
    mask = masks[kind]
    inside = {"blob": np.full_like(image, 30), "scratch": np.full_like(image, 225), "patch": other}[kind]
    return np.where(mask, inside, image).astype(np.uint8), mask


def pieces(texture: Array, top: int, bottom: int, count: int, random: np.random.Generator) -> list[Array]:
    """Images (1, IMAGE, IMAGE) cut from rows [top, bottom)."""
    ys, xs = random.integers(top, bottom - IMAGE + 1, count), random.integers(0, texture.shape[1] - IMAGE + 1, count)
    return [texture[None, y : y + IMAGE, x : x + IMAGE] for y, x in zip(ys, xs, strict=True)]


def lines(given: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """A line for each texture, detector and kind of defect."""
    from skimage import data

    textures = {name: np.asarray(getattr(data, name)()) for name in TEXTURES}
    yield "texture", "detector", "defect", "AUC of images", "AUROC of pixels", "PRO", "windows/s"
    for number, (name, texture) in enumerate(textures.items()):
        random = np.random.default_rng(number)
        other = textures[TEXTURES[(number + 1) % len(TEXTURES)]]
        half = texture[None, : texture.shape[0] // 2]
        learn = windows.random_windows([half], SIDE, 4000, seed=number)
        known = pieces(texture, 256, 384, 30, random)
        normal = pieces(texture, 384, 512, TESTS, random)
        for standardize in (False, True):
            shown = windows.standardized(learn).windows if standardize else learn
            config = WGANConfig(
                objective="gp", lr=5e-4, n_critic=2, width=given.width, latent=64, steps=given.steps, sample_every=0
            )
            generator = train(shown, config).generator
            score: dict[str, Callable[[Array], Array]] = {"ADGAN": Scorer(generator, n_seed=given.n_seed)}
            score["GMM on 40 components"] = GMM(PCA(40)).fit(shown).decision_function
            for detector, scorer in score.items():
                scored = windows.WindowScorer(scorer, SIDE, STRIDE, standardize)
                began = time.perf_counter()
                calibration = np.concatenate([each.scores for each in scored.each(known)])
                of_normal = list(scored.each(normal))
                pace = (len(calibration) + sum(len(each.scores) for each in of_normal)) / (time.perf_counter() - began)
                for kind in ("blob", "scratch", "patch"):
                    draw = np.random.default_rng(7)
                    spoilt = [
                        defect(kind, image, pieces(other, 0, 512, 1, draw)[0], draw)
                        for image in pieces(texture, 384, 512, TESTS, draw)
                    ]
                    of_spoilt = list(scored.each([image for image, _ in spoilt]))
                    p_values = windows.image_p_values([*of_normal, *of_spoilt], calibration)
                    area = roc_auc_score(np.repeat([0, 1], TESTS), -p_values)
                    drawn = np.stack([each.map() for each in of_spoilt])
                    masks = np.stack([mask for _, mask in spoilt])
                    print(name, detector, kind, f"{area:.3f}", file=sys.stderr, flush=True)
                    yield (
                        name, detector + (", standardized" if standardize else ""), kind, f"{area:.3f}",
                        f"{maps.pixel_auroc(drawn, masks):.3f}", f"{maps.per_region_overlap(drawn, masks):.3f}",
                        f"{pace:.0f}",
                    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.textures", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600, help="generator steps (%(default)s)")
    parser.add_argument("--width", type=int, default=16, help="of the networks (%(default)s)")
    parser.add_argument("--n-seed", type=int, default=4, help="starts of each window (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="torch's (%(default)s)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(*markdown(list(lines(given))), sep="\n")


if __name__ == "__main__":
    main()

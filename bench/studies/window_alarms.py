"""Do images by windows keep their rate of false alarms, cut larger or smaller than those that were calibrated on?

    python -m bench.studies.window_alarms [--steps 300]    Markdown

The textures (512×512, grey) come with scikit-image: ``pip install scikit-image``. A generator learns windows of the
upper quarter of one. The rest is twelve pieces of 128×128; drawn anew many times, some are cut into images to calibrate
on, and the others into images of another size, of which it is counted how many are flagged: by how unusual their
windows are (what a detector does), by a quantile of their windows, and by the largest of these.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from adgan_fast import Scorer, windows
from adgan_fast.calibration import Calibration
from adgan_fast.training import WGANConfig, train
from adgan_fast.window_calibration import image_scores, split

from ..race.report import markdown

SIDE, STRIDE, PIECE = 32, 16, 128
TEXTURES = ("brick", "grass", "gravel")
SIZES = ((64, 64), (64, 128), (64, 48), (48, 64), (48, 128))
"""Sides of the images that calibrate, and of those that are tested."""
LEVEL, DRAWS, TESTED = 0.1, 200, 4
Array = npt.NDArray[Any]


def pieces(texture: Array, scorer: Scorer) -> list[Array]:
    """Of each piece below the upper quarter the scores of its windows, as they lie in it: (7, 7)."""
    settings = windows.WindowScorer(scorer, SIDE, STRIDE)
    found = []
    for y in range(PIECE, texture.shape[0], PIECE):
        for x in range(0, texture.shape[1], PIECE):
            scores = settings(texture[None, y : y + PIECE, x : x + PIECE]).scores
            found.append(scores.reshape((PIECE - SIDE) // STRIDE + 1, -1))
    return found


def cut(piece: Array, side: int) -> list[Array]:
    """The windows of the images of a side that a piece is cut into."""
    count, step = (side - SIDE) // STRIDE + 1, side // STRIDE
    at = range(0, len(piece) - count + 1, step)
    return [piece[y : y + count, x : x + count].ravel() for y in at for x in at]


def rates(found: list[Array], calibrated: int, tested: int) -> Iterator[float]:
    """Of normal images flagged: by surprise, quantile and largest; means over draws."""
    how, alarms = windows.Windows(SIDE, STRIDE), []
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(found))
        normal = [image for number in order[TESTED:] for image in cut(found[number], calibrated)]
        new = [image for number in order[:TESTED] for image in cut(found[number], tested)]
        known, held_out = split(normal, LEVEL, draw)
        scores: tuple[Callable[[list[Array]], Array], ...] = (
            lambda images, known=known: image_scores(images, how, known),
            lambda images: image_scores(images, how, None),
            lambda images: np.array([image.max() for image in images]),
        )
        alarms.append(
            [
                float(np.mean(score(new) > Calibration(score([normal[n] for n in held_out])).threshold(LEVEL)))
                for score in scores
            ]
        )
    yield from np.mean(alarms, axis=0)


def lines(given: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """A line for each pair of sizes: mean over the textures, and of each."""
    from skimage import data

    found = []
    for number, name in enumerate(TEXTURES):
        texture = np.asarray(getattr(data, name)())
        learn = windows.random_windows([texture[None, :PIECE]], SIDE, 3000, seed=number)
        config = WGANConfig(
            objective="gp", lr=1e-3, n_critic=2, width=given.width, latent=32, batch_size=32, steps=given.steps,
            sample_every=0, checkpoint_every=0,
        )  # fmt: skip
        found.append(pieces(texture, Scorer(train(learn, config).generator, n_seed=given.n_seed)))
    yield "calibrated on", "tested", *(f"{how}: {', '.join(TEXTURES)}" for how in ("detector", "quantile", "largest"))
    for calibrated, tested in SIZES:
        of_each = np.array([list(rates(scores, calibrated, tested)) for scores in found])
        yield (
            f"{calibrated}×{calibrated}", f"{tested}×{tested}",
            *(f"{of.mean():.3f}: {', '.join(f'{rate:.3f}' for rate in of)}" for of in of_each.T),
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.window_alarms", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="generator steps (%(default)s)")
    parser.add_argument("--width", type=int, default=8, help="of the networks (%(default)s)")
    parser.add_argument("--n-seed", type=int, default=4, help="starts of each window (%(default)s)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(*markdown(list(lines(given))), sep="\n")


if __name__ == "__main__":
    main()

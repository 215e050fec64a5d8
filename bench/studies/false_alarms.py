"""Do false alarms keep their level? ``python -m bench.studies.false_alarms MNIST``, the folder of its files.

A small generator learns one digit; images of it that it has not seen are split, many times over, into some to calibrate
on and the rest, of which is counted how many lie beyond the threshold. Beside it the plain quantile of the same scores.
Of the other digits it says which share is found.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

import adgan_fast
from adgan_fast.calibration import Calibration, images_needed
from adgan_fast.data import load_mnist
from adgan_fast.training import WGANConfig, train

DIGIT, SPLITS, OTHERS = 3, 2000, 400
TRAINING = WGANConfig(
    latent=32,
    width=8,
    steps=300,
    batch_size=32,
    objective="gp",
    lr=1e-3,
    n_critic=2,
    checkpoint_every=0,
    sample_every=0,
)


def main() -> None:
    torch.set_num_threads(1)
    learned, unseen = load_mnist(sys.argv[1]), load_mnist(sys.argv[1], "test")
    scorer = adgan_fast.Scorer(train(learned.of_class(DIGIT).images, TRAINING).generator, n_seed=8)
    normal = np.asarray(scorer(unseen.of_class(DIGIT).images), np.float64)
    others = np.asarray(scorer(unseen.images[unseen.labels != DIGIT][:OTHERS]), np.float64)
    print(f"{len(normal)} unseen images of digit {DIGIT}, {SPLITS} splits; mean of the rates ± 3 standard errors")
    print("calibrated on | level | conformal | of one split, 95 % | quantile | other digits found")
    random = np.random.default_rng(0)
    for n in (20, 100, 300):
        splits = [random.permutation(normal) for _ in range(SPLITS)]
        for alpha in (0.1, 0.05, 0.01):
            if n < images_needed(alpha):
                print(f"{n} | {alpha} | too few: {images_needed(alpha)} needed")
                continue
            limits = np.array([Calibration(split[:n]).threshold(alpha) for split in splits])
            plain = np.array([np.quantile(split[:n], 1 - alpha) for split in splits])
            rates, rates_plain = (
                np.array([np.mean(split[n:] > limit) for split, limit in zip(splits, each, strict=True)])
                for each in (limits, plain)
            )
            low, high = np.quantile(rates, [0.025, 0.975])
            found = np.mean(others[None] > limits[:, None])
            spread = [3 * each.std() / SPLITS**0.5 for each in (rates, rates_plain)]
            print(
                f"{n} | {alpha} | {rates.mean():.4f} ± {spread[0]:.4f} | {low:.3f} to {high:.3f} | "
                f"{rates_plain.mean():.4f} ± {spread[1]:.4f} | {found:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

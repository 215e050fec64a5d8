"""Trains a generator of a bench case on real images, for ``pytest bench/ --generator FILE``.

    python -m bench.studies.train_generator dcgan32x1 --steps 400 --into dcgan32x1-trained.safetensors

A short WGAN training (gradient penalty, two critic steps): enough for weights, activations and gradients that come from
data. Prints the share of open ReLUs before and after.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from adgan_fast.training import WGANConfig, train
from adgan_fast.training.checkpoint import save_generator

from ..race import cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=cases.SHAPES)
    parser.add_argument("--steps", type=int, default=400, help="generator steps (default: %(default)s)")
    parser.add_argument("--images", type=int, default=20_000, help="training images (default: %(default)s)")
    parser.add_argument("--into", type=Path, required=True)
    at = parser.parse_args()
    size, channels = cases.SHAPES[at.shape]
    name, images = cases.real_images(size, channels, at.images, split="train")
    if images is None:
        parser.error(f"no real images of {size}×{size}×{channels} in {cases.DATA}")
    config = WGANConfig(steps=at.steps, objective="gp", n_critic=2, sample_every=0)
    generator = train(images, config, progress=True).generator
    save_generator(generator, at.into)
    z = torch.randn(64, 256, generator=torch.Generator().manual_seed(1))
    before, after = (cases.open_shares(g, z) for g in (cases.calibrated(size, channels, 256, 64), generator))
    print(f"{name}, {at.steps} steps; open: {before} before, {after} after; {at.into}")


if __name__ == "__main__":
    main()

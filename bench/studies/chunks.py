"""Where the CPU chunk of `grouped` and `eager` comes from: ``python -m bench.studies.chunks``.

CPU milliseconds a pair on one thread, for generators of growing size at 1, 2, 4, … pairs computed at once. The rule
(`core/tiles.py: on_cpu`, and CACHE in each engine) is read off this table.
"""

from __future__ import annotations

import time
from unittest import mock

import torch

import adgan_fast
from adgan_fast.engine import eager, grouped
from adgan_fast.models import DCGANGenerator

GENERATORS = ((8, 32, 16), (28, 64, 8), (32, 64, 16), (32, 256, 32), (32, 256, 64))  # image size, latent, width
CHUNKS = (1, 2, 4, 8, 16, 32, 64)
IMAGES = 2


def milliseconds(generator: torch.nn.Module, images: torch.Tensor, module: object, weights: str, chunk: int) -> float:
    """CPU time of one pair, the lower of two runs; a call's fixed cost is in it."""
    n_seed = max(16, chunk)
    best = float("inf")
    with mock.patch.object(module, "on_cpu", lambda job, size, cache: chunk):
        for _ in range(3):  # the first is the warm-up
            before = time.process_time()
            adgan_fast.score(generator, images, n_seed=n_seed, engine=module.__name__.rsplit(".")[-1], weights=weights)
            best = min(best, time.process_time() - before)
    return best / (len(images) * n_seed) * 1e3


def main() -> None:
    torch.set_num_threads(1)
    print("generator | engine | weights |", " | ".join(map(str, CHUNKS)))
    for size, latent, width in GENERATORS:
        generator = DCGANGenerator(size, 1, latent, width, generator=torch.Generator().manual_seed(0)).eval()
        images = torch.rand((IMAGES, 1, size, size), generator=torch.Generator().manual_seed(1)) * 2 - 1
        for module in (grouped, eager):
            for weights in ("per_seed", "frozen"):
                most = 8 if weights == "per_seed" and width >= 32 else CHUNKS[-1]
                times = [milliseconds(generator, images, module, weights, c) for c in CHUNKS if c <= most]
                label = f"{size}×{size}, latent {latent}, width {width}"
                name = module.__name__.rsplit(".")[-1]
                print(f"{label} | {name} | {weights} |", " | ".join(f"{ms:.2f}" for ms in times), flush=True)


if __name__ == "__main__":
    main()

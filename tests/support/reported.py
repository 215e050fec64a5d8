"""Small jobs to report on, compare and draw."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adgan_fast import SearchConfig, jobs
from adgan_fast.jobs.sources import open_source
from adgan_fast.models import DCGANGenerator
from tests.support.pictures import random_bytes, write_picture

EVIL_ID = "</script><script>window.broken = 1</script>\n\"'<b>&amp;"
EVIL_LABEL = "</option></select><img src=x onerror='window.broken = 1'>"


def generator(seed: int = 0, channels: int = 1) -> DCGANGenerator:
    """One that draws something: weights as they begin make nearly plain images."""
    made = DCGANGenerator(8, channels, 6, 4, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(10 if weight.dim() > 1 else 1)
    return made


def pictures(folder: Path, count: int = 12, channels: int = 1) -> Path:
    """Pictures of 8 by 8: the generator's own in good/, noise in bad/; and one that is none."""
    made = generator(0, channels)(torch.randn(count, 6, generator=torch.Generator().manual_seed(1))).detach().numpy()
    own, noise = np.rint((made + 1) * 127.5).astype(np.uint8), random_bytes(count, channels, 8, 8)
    for index in range(count):
        for name, pixels in (("good", own), ("bad", noise)):
            image = pixels[index, 0] if channels == 1 else pixels[index].transpose(1, 2, 0)
            write_picture(folder / name / f"{index:02d}.png", image)
    (folder / "bad" / "broken.png").write_bytes(b"no picture")
    return folder


def scored(
    images: Path, out: Path, seed: int = 0, keep: tuple[str, ...] = ("reconstructions",), **settings: Any
) -> Path:
    """A job over a folder of `pictures`, with labels."""
    channels = settings.pop("channels", 1)
    config = SearchConfig(n_seed=2, steps=1, **settings)
    jobs.run(generator(seed, channels), open_source(images, labels=True), out, config=config, keep=keep, shard=10)
    return out


class Evil:
    """Images in memory whose ids and labels are written to break a page."""

    name = "<script>window.broken = 1</script>"

    def items(self) -> Iterator[jobs.Item]:
        for row in range(6):
            yield jobs.Item(f"{EVIL_ID}{row}", EVIL_LABEL if row % 2 else "good", "")

    def read(self, first: int, stop: int) -> Iterator[np.ndarray]:
        yield from random_bytes(6, 1, 8, 8)[first:stop]

    def fingerprint(self) -> dict[str, Any]:
        return {"kind": self.name}


def evil(out: Path, seed: int = 0) -> Path:
    jobs.run(generator(seed), Evil(), out, config=SearchConfig(n_seed=2, steps=1), keep=("reconstructions",))
    return out

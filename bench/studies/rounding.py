"""How far each engine's float32 is off, pair by pair, against `reference` in float64 on the same device.

    python -m bench.studies.rounding --device cuda        Markdown; docs/numerics.md holds it

Nearly all pairs agree to a millionth of d; what matters is how many take another turn, and how far.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator

import torch

import adgan_fast
from adgan_fast.config import WEIGHTS, SearchConfig

from ..race import cases
from ..race.report import markdown

ANOTHER_TURN = 1e-5
"""Of the rms of d: a pair beyond it has not been summed in another order alone."""


def improvements(case: cases.Case, engine: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """d = initial − final loss of each pair, (N, S), float64 on the CPU."""
    config = case.config.replace(engine=engine, starts=case.starts.to(dtype))
    found = adgan_fast.search(copy.deepcopy(case.gen).to(dtype), case.images.to(dtype), config=config)
    return (found.initial_losses.double() - found.losses.double()).cpu()


def lines(shape: str, config: SearchConfig, images: int, device: str) -> Iterator[tuple[str, ...]]:
    """A line for each way of owning weights and each engine that runs here."""
    yield "weights", "engine", "median", "rms", f"pairs above {ANOTHER_TURN:.0e}", "largest"
    engines = [
        "reference",
        *(info.name for info in adgan_fast.engines() if info.available and info.name != "reference"),
    ]
    for weights in WEIGHTS:
        case = cases.build(shape, config.replace(weights=weights), images=images, device=device)
        exact = improvements(case, "reference", torch.float64)
        for engine in engines:
            try:
                off = (improvements(case, engine) - exact).abs() / exact.square().mean().sqrt()
            except ValueError as error:  # an engine of another device
                if "cannot run" not in str(error):
                    raise
                continue
            figures = f"{off.median():.1e}", f"{off.square().mean().sqrt():.1e}", str(int((off > ANOTHER_TURN).sum()))
            yield weights, engine, *figures, f"{off.max():.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.rounding", description=__doc__.splitlines()[0])
    parser.add_argument("--case", default="dcgan32x1", help="a name of bench/race/cases.py, or one like dcgan16x1")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--n-seed", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    config = SearchConfig(n_seed=given.n_seed)
    print("\n".join(markdown(list(lines(given.case, config, given.images, given.device)))))


if __name__ == "__main__":
    main()

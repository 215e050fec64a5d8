"""The generators of bench/race/families.py: agreement with the float64 reference and speed of each engine.

    python -m bench.studies.families [--device cuda] [--engines triton,grouped] [--cases sngan32x3]    Markdown

Agreement is that of `adgan_fast.testing.check_engine`, of two images of eight starts. The speed is of further images:
the time of a large call less that of a small one, the median of three, with the least and the most.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator

import torch

import adgan_fast
from adgan_fast.config import SearchConfig
from adgan_fast.testing import check_engine

from ..race import cases
from ..race.report import markdown

ROUNDS = 3


def lines(names: list[str], engines: list[str], device: str, seconds: float) -> Iterator[tuple[str, ...]]:
    """A line for each generator and engine."""
    yield "generator", "engine", "agrees", "ms an image", "least to most"
    for name in names:
        for engine in engines:
            case = cases.build(name, SearchConfig(), images=512, device=device)
            config = case.config.replace(n_seed=8, latent_shape=tuple(case.starts.shape[1:]))
            checked = check_engine(case.gen, case.images[:2], engine=engine, config=config)
            if not checked.passed:
                yield name, engine, str(checked), "-", "-"
                continue
            times = sorted(1e3 * each for each in _times(case, engine, seconds))
            yield name, engine, "yes", f"{statistics.median(times):.4g}", f"{times[0]:.4g} to {times[-1]:.4g}"


def _times(case: cases.Case, engine: str, seconds: float) -> list[float]:
    """Seconds of an image beyond the first, of each round."""
    config = case.config.replace(engine=engine, starts=case.starts, verify=False)

    def call(images: int) -> float:
        began = time.perf_counter()
        adgan_fast.score(case.gen, case.images[:images], config=config)
        return time.perf_counter() - began

    few = 32 if case.images.is_cuda else 1
    call(few)
    once, twice = call(few), call(2 * few)
    many = min(len(case.images), few + max(few, int(seconds * few / max(twice - once, 1e-3)) // few * few))
    return [(call(many) - call(few)) / (many - few) for _ in range(ROUNDS)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.families", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(cases.FAMILIES))
    parser.add_argument("--engines", default="", help="default: all that run there but reference")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a large call, about (default: %(default)s)")
    given = parser.parse_args()
    engines = given.engines.split(",") if given.engines else [
        info.name for info in adgan_fast.engines() if info.available and info.name != "reference"
    ]  # fmt: skip
    print(f"{torch.cuda.get_device_name() if given.device == 'cuda' else given.device}, torch {torch.__version__}")
    table = lines(given.cases.split(","), engines, given.device, given.seconds)
    print("\n".join(markdown([next(table)])), flush=True)
    for line in table:
        print(f"| {' | '.join(line)} |", flush=True)


if __name__ == "__main__":
    main()

"""``adgan-fast demo``: the whole road on scikit-learn's digits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from .. import SearchConfig, engines
from ..training import TrainingDiverged
from .given import Failure, Interrupted, Mistake
from .needs import needs


def run(
    output: Annotated[Path, typer.Option("--out", "--output", help="where to write")] = Path("demo-output"),
    digit: Annotated[int, typer.Option(min=0, max=9, help="the normal class")] = 8,
    steps: Annotated[int | None, typer.Option(help="generator steps of training; without it the demo's own")] = None,
    n_seed: Annotated[int, typer.Option(help="starts for each image")] = 64,
    engine: Annotated[str, typer.Option(help="what runs the search, see adgan-fast info")] = "auto",
    seed: Annotated[int, typer.Option(help="of training and of the starts")] = 0,
    held_out: Annotated[
        str,
        typer.Option(help="what to score: test, or validation, on which settings are chosen (trains on fewer then)"),
    ] = "test",
) -> None:
    """Train a small WGAN on one handwritten digit, and find the images that are of another.

    \b
    adgan-fast demo
    adgan-fast demo --digit 3 --out three

    The images are scikit-learn's digits, which come with it: nothing is downloaded. Writes scores.csv, scores.parquet,
    roc.png, gallery.png and generator.safetensors.
    """
    needs("demo", "matplotlib", "sklearn")
    if held_out not in ("test", "validation"):
        raise Mistake(f"--held-out must be test or validation, got {held_out!r}")
    from .. import demo, jobs

    unavailable = {found.name: found.why_not for found in engines() if not found.available}
    if engine in unavailable:
        raise Mistake(f"engine {engine!r} cannot run here: {unavailable[engine]}")
    try:
        steps = demo.TRAINING.steps if steps is None else steps
        training = dataclasses.replace(demo.TRAINING, steps=steps, seed=seed)
        config = SearchConfig(n_seed=n_seed, seed=seed, engine=engine)
        output.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        raise Mistake(str(error)) from error
    try:
        demo.run(digit, held_out, training, config, output)
    except KeyboardInterrupt as error:
        raise Interrupted("interrupted: the demo begins anew each time") from error
    except (TrainingDiverged, jobs.JobError, MemoryError, OSError) as error:
        raise Failure(str(error) or type(error).__name__) from error

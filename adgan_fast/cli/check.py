"""``adgan-fast check``: every engine against the float64 reference, on a generator of the user's own; or a GPU."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Annotated, Any

import typer

from .. import SearchConfig, engines, testing
from ..config import LOSSES, PRECISIONS, WEIGHTS
from ..generator.working_copy import working_copy
from ..testing import FIGURES, Bound, Check, bound_of
from . import given, machine
from .given import Mistake
from .images import Column, Within
from .table import columns


@dataclasses.dataclass(frozen=True)
class EngineRow:
    """An engine: what the check found, or why it cannot run."""

    engine: str
    check: Check | None
    why_not: str = ""

    @property
    def verdict(self) -> str:
        return "cannot run" if self.check is None else "pass" if self.check.passed else "FAIL"


def check(
    generator: Annotated[
        str | None, typer.Argument(help="FILE.safetensors, FILE.pt2, or module:callable; without it the GPU is checked")
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="IMAGES as for score: a folder, a pattern, arrays, ...; noise without it")
    ] = None,
    column: Column = None,
    within: Within = None,
    device: Annotated[str | None, typer.Option(help="torch device; without it the generator's own")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="an engine, may be repeated; without it all")] = None,
    n_seed: Annotated[int, typer.Option(help="starts of each image")] = 4,
    steps: Annotated[int, typer.Option(help="steps of each start")] = 5,
    weights: Annotated[
        str | None, typer.Option(help=f"{', '.join(WEIGHTS)}; without it per_seed, and of a GPU all")
    ] = None,
    loss: Annotated[str, typer.Option(help=", ".join(LOSSES))] = "l2",
    precision: Annotated[str, typer.Option(help=", ".join(PRECISIONS))] = "float32",
    latent_shape: Annotated[str | None, typer.Option(help="as 256 or 64,4,4, where it cannot be found")] = None,
    count: Annotated[int, typer.Option(min=1, help="images")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Hold every engine to the float64 reference on your generator.

    GENERATOR is a file of adgan_fast.training (.safetensors), a saved torch.export program (.pt2), or module:callable:
    the module is imported, from the current folder or an installed package, and the callable run, to return the
    torch.nn.Module. That runs the code in it.

    \b
    adgan-fast check demo-output/generator.safetensors
    adgan-fast check my_models:make_generator --latent-shape 128 --engine native
    adgan-fast check generator.pt2 --images faces/ --count 4 --weights per_sample

    Without GENERATOR the engines of a GPU are tried anew on this machine, as before their first use on it, by small
    generators of the package's own: --engine, --weights, --precision and --device say which. The verdicts are kept.

    Exit status: 0 all engines that ran pass; 1 one fails, or none ran; 2 a mistake in the arguments.
    """
    if generator is None:
        raise typer.Exit(machine.check(engine, weights, precision, device, as_json))
    made = given.generator(generator)
    names = _names(engine)  # after it: the user's module may register an engine
    try:
        config = SearchConfig(
            n_seed=n_seed, steps=steps, weights=weights or "per_seed", loss=loss, precision=precision, device=device,  # type: ignore[arg-type]
            latent_shape=given.shape(latent_shape),
        )  # fmt: skip
        module = working_copy(made, device)
    except (OSError, TypeError, ValueError) as error:
        raise Mistake(str(error)) from error
    if images is None:
        latent = config.latent_shape or given.own_latent_shape(module)
        config, shown = config.replace(latent_shape=latent), given.random_images(module, latent, config.prior, count)
    else:
        shown = given.images(images, count, column=column, within=within)
    rows = [_row(module, shown, name, config) for name in names]
    ran = [row.check for row in rows if row.check is not None]
    bound = ran[0].bound if ran else bound_of(precision)
    typer.echo(_json(rows, bound) if as_json else "\n".join(_lines(rows, bound)))
    raise typer.Exit(0 if ran and all(found.passed for found in ran) else 1)


def _names(asked: list[str] | None) -> list[str]:
    known = [info.name for info in engines()]
    for name in asked or ():
        if name not in known:
            raise Mistake(f"--engine must be one of {', '.join(known)}, got {name!r}")
    return list(dict.fromkeys(asked or known))


def _row(module: Any, images: Any, name: str, config: SearchConfig) -> EngineRow:
    try:
        return EngineRow(name, testing.check_engine(module, images, engine=name, config=config))
    except (TypeError, ValueError) as error:
        refused, _, reason = str(error).partition(" cannot run: ")
        if refused != f"engine {name!r}":  # not the engine's doing: the generator's, or the images'
            raise Mistake(str(error)) from error
        return EngineRow(name, None, reason.partition(" Use engine=")[0].rstrip("."))


HEADS = ("engine", "", *FIGURES, "seconds")


def _lines(rows: list[EngineRow], bound: Bound) -> list[str]:
    table: list[tuple[str, ...]] = [HEADS]
    notes: list[str] = []
    for row in rows:
        if row.check is None:
            table.append((row.engine, row.verdict, "", "", "", ""))
            notes.append(f"{row.engine} cannot run: {row.why_not}")
            continue
        figures = [getattr(row.check.errors, name) for name in FIGURES]
        excused = row.check.passed and any(not x <= getattr(bound, n) for n, x in zip(FIGURES, figures, strict=True))
        table.append(
            (row.engine, row.verdict + "*" * excused, *(f"{x:.1e}" for x in figures), f"{row.check.seconds:.2f}")
        )
        if excused:
            notes.append(f"{row.engine} *: over a bound, but within 3 times what the plain float32 loop is off")
        if row.check.violations:
            notes.append(f"{row.engine} FAILS: {'; '.join(row.check.violations)}")
    table.append(("bound", "", *(f"{getattr(bound, name):.0e}" for name in FIGURES), ""))
    explained = "rms and mean: error of d = initial - final loss, over rms of d; score: over the mean initial loss"
    return [*columns(table), explained, *notes]


def _json(rows: list[EngineRow], bound: Bound) -> str:
    def of(row: EngineRow) -> dict[str, Any]:
        if row.check is None:
            return {"engine": row.engine, "verdict": row.verdict, "why_not": row.why_not}
        return {
            "engine": row.engine,
            "verdict": row.verdict,
            "violations": list(row.check.violations),
            **{name: _number(getattr(row.check.errors, name)) for name in FIGURES},
            "flipped": row.check.errors.flipped,
            "seconds": row.check.seconds,
        }

    bounds = {name: getattr(bound, name) for name in FIGURES}
    return json.dumps({"bound": bounds, "engines": [of(row) for row in rows]}, indent=1)


def _number(value: float) -> float | None:
    """None for NaN and Inf, which JSON does not have."""
    return value if math.isfinite(value) else None

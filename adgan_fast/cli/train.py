"""``adgan-fast train``: a generator, or another network, from images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from .. import training
from ..training import TrainConfig
from ..window_settings import Windows
from . import given, images, say, windowing
from .given import Failure, Interrupted, Mistake
from .settings import chosen, takes

OBJECTIVES: dict[str, tuple[type[TrainConfig], Mapping[str, Any]]] = {
    "wgan": (training.WGANConfig, {"objective": "clip"}),
    "wgan-gp": (training.WGANConfig, {"objective": "gp"}),
    "gan": (training.GANConfig, {"objective": "non_saturating"}),
    "gan-saturating": (training.GANConfig, {"objective": "saturating"}),
    "lsgan": (training.GANConfig, {"objective": "least_squares"}),
    "bigan": (training.BiGANConfig, {}),
    "gmmn": (training.GMMNConfig, {}),
    "vae": (training.VAEConfig, {}),
    "dcae": (training.DCAEConfig, {}),
    "svdd": (training.SVDDConfig, {}),
    "inverse": (training.InverseConfig, {}),
}
"""By name: the class of settings, and those that the name decides."""


@takes({name: kind for name, (kind, _) in OBJECTIVES.items()}, but=["objective"])
def train(
    images_: Annotated[str, typer.Argument(metavar="IMAGES", help="see above; with inverse a GENERATOR")],
    out: Annotated[Path, typer.Option(help="folder of checkpoints, samples, and in the end generator.safetensors")],
    objective: Annotated[str, typer.Option(help=", ".join(OBJECTIVES))] = "wgan",
    size: images.Size = None,
    gray: images.Gray = None,
    resize: images.Resize = None,
    column: images.Column = None,
    windows: windowing.Option = None,
    standardize: windowing.Standardize = None,
    crops: windowing.Crops = None,
    within: images.Within = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on from the checkpoint in --out, if there is one")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="torch's threads; without it torch's own choice")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, and of the log warnings alone.")] = False,
    **settings: Any,
) -> None:
    """Train a generator on images that are normal.

    \b
    adgan-fast train normal/ --out run --size 32 --gray
    adgan-fast train normal/ --out run --size 32 --gray --resume
    adgan-fast train 'shots/**/*.png' --out run --objective wgan-gp --steps 4000 --width 32
    adgan-fast train scans/ --out run --windows 32,16 --standardize

    IMAGES is a folder of pictures (with its subfolders), a pattern in quotes, one picture, a parquet file or a folder
    of them, an uncompressed tar file (webdataset), a .npy, .npz or idx file, or sklearn:digits. Nothing that is read as
    data runs code. Images are square, of 8, 16, 28, 32 or 64 pixels: --size brings pictures to that. Or they are of any
    size, and random windows of them are learned (--windows): the generator keeps how, and score follows it.

    The objective is wgan (the paper's: weight clipping), wgan-gp (gradient penalty), gan, gan-saturating, lsgan, bigan
    or gmmn, which make a generator; vae, whose decoder is one; dcae or svdd, for the detectors of the package; or
    inverse, an encoder for a GENERATOR, given in place of IMAGES.

    Exit status: 0 done; 1 failed, the reason on stderr; 2 a mistake in the arguments; 3 done, but some images could not
    be read; 130 interrupted: the same command with --resume goes on.
    """
    if objective not in OBJECTIVES:
        raise Mistake(f"--objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    kind, decided = OBJECTIVES[objective]
    try:
        config = kind(**chosen(kind, settings, objective), **decided)
    except ValueError as error:
        raise Mistake(str(error)) from error
    by = windowing.given(windows, standardize)
    if crops is not None and by is None:
        raise Mistake("--crops goes with --windows SIZE")
    if by is not None and objective == "inverse":
        raise Mistake("--windows are of images, and --objective inverse takes a generator")
    given.require_folder(out)
    bad = say.Bad()
    with say.aloud(quiet):
        if threads is not None:
            torch.set_num_threads(threads)
        if objective == "inverse":
            shown: Any = given.module(images_)
        else:
            source = images.opened(images_, images.shaping(size, gray, resize), column=column, within=within)
            images.first_shape(source)  # before all are read
            count = windowing.CROPS if crops is None else crops
            shown = images.whole(source, bad) if by is None else windowing.crops(source, by, count, config.seed, bad)
        step = _trained(shown, config, out, resume, not quiet, by)
        bad.tell()
    told = {"step": step, "out": str(out), "objective": objective, "unreadable": bad.count}
    if objective != "inverse":
        told["windows" if by else "images"] = len(shown)
    typer.echo(json.dumps(told) if as_json else _said(told, out))
    if bad.count:
        raise typer.Exit(3)


def _trained(
    shown: Any, config: TrainConfig, out: Path, resume: bool, progress: bool, windows: Windows | None = None
) -> int:
    try:
        return training.train(shown, config, out=out, resume=resume, progress=progress, windows=windows).step
    except FileExistsError as error:
        raise Mistake(f"{out} holds a checkpoint: --resume goes on from it; else give another --out") from error
    except training.CheckpointError as error:
        raise Failure(f"{error}. Another --out begins anew") from error
    except (training.TrainingDiverged, OSError) as error:
        raise Failure(str(error)) from error
    except (TypeError, ValueError) as error:
        raise Mistake(f"{error}{_sized(error)}") from error
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"interrupted: the same command with --resume goes on from the checkpoint in {out}"
        ) from error


def _sized(error: Exception) -> str:
    return ": --size brings pictures to it, --windows takes parts of them" if "H one of" in str(error) else ""


def _said(told: Mapping[str, Any], out: Path) -> str:
    if (out / "generator.safetensors").is_file():
        return f"{told['step']} steps; {out / 'generator.safetensors'}"
    return f"{told['step']} steps; the networks are in {out}"

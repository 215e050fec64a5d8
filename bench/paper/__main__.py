"""The paper's experiments (Deecke et al. 2018, Sect. 4).

    python -m bench.paper table1 --data PATH/mnist --out paper-output
    python -m bench.paper roc --data PATH/mnist --out paper-output

Every command goes on where an earlier one with the same --out was cut short. DATA is a folder of idx files as MNIST has
them, or CIFAR-10 (.npz, .tar.gz, or the folder of its batches); of scenes, a folder of LSUN's lmdbs, or CIFAR-10.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from adgan_fast.cli.settings import takes
from adgan_fast.data import CIFAR10_CLASSES
from adgan_fast.training import TrainingDiverged

from .ablation import PANELS
from .ablation import ablation as run_ablation
from .entries import ENTRIES, wgan
from .lengths import lengths as run_lengths
from .roc import roc as run_roc
from .scenes import open_scenes
from .scenes import scenes as run_scenes
from .search2d import search2d as run_search2d
from .sets import open_set, trial
from .settings import Settings
from .table1 import table1 as run_table1

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, help=__doc__, no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip

INTERRUPTED = 130  # as a shell says it
OPTIONS: dict[str, type] = {"settings": Settings}
Data = Annotated[Path, typer.Option(help="the image set, see above")]
Out = Annotated[Path, typer.Option(help="folder of results; also holds the trained networks")]
Name = Annotated[str | None, typer.Option(help="the set's name in results; without it the folder's, or cifar10")]
Side = Annotated[int | None, typer.Option(help="pad images with black to this side, 32 say")]
Threads = Annotated[int | None, typer.Option(help="torch's threads; without it torch's own choice")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress")]


@app.command()
@takes(OPTIONS)
def table1(
    data: Data,
    out: Out,
    name: Name = None,
    classes: Annotated[str | None, typer.Option(help="A,B: normal classes, by number or name; without it all")] = None,
    detectors: Annotated[str | None, typer.Option(help=f"A,B of {', '.join(ENTRIES)}; without it all")] = None,
    fit_only: Annotated[bool, typer.Option("--fit-only", help="train the networks and score nothing")] = False,
    side: Side = None,
    threads: Threads = None,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Table 1: one class against the others. AUC of every detector, for every class.

    Writes table1-SET.csv, .md and .png. Several may run at once on one --out, each with classes of its own.
    """
    settings = _settings(options, threads)
    images = open_set(data, name, side)
    chosen = [images.named(each) for each in classes.split(",")] if classes else images.classes
    entries = detectors.split(",") if detectors else list(ENTRIES)
    if unknown := sorted(set(entries) - set(ENTRIES)):
        raise ValueError(f"no detector is called {', '.join(unknown)}; there are {', '.join(ENTRIES)}")
    lines = run_table1(images, out, settings, classes=chosen, entries=entries, progress=not quiet, fit_only=fit_only)
    for line in lines:
        print(line, file=sys.stderr)
    if any(line.startswith("failed") for line in lines):
        raise typer.Exit(1)


@app.command()
@takes(OPTIONS, but=("items", "code", "autoencoder_steps", "alexnet"))
def lengths(
    data: Data,
    out: Out,
    name: Name = None,
    classes: Annotated[str, typer.Option(help="A,B: normal classes, by number or name")] = "8",
    every: Annotated[int, typer.Option(help="generator steps between two looks at the holdout")] = 1000,
    lr: Annotated[float | None, typer.Option(help="learning rate; without it table1's")] = None,
    n_critic: Annotated[int | None, typer.Option(help="critic steps for each of the generator; ditto")] = None,
    side: Side = None,
    threads: Threads = None,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """ADGAN's AUC on the holdout (training images) as the generator's training goes on: how long, and how, to train.

    Writes lengths-SET.csv and .png, of all such runs in OUT.
    """
    settings = _settings(options, threads)
    changes = {"lr": lr, "n_critic": n_critic}
    training = dataclasses.replace(
        wgan(settings), **{key: given for key, given in changes.items() if given is not None}
    )
    images = open_set(data, name, side)
    shown = f"{settings.objective} {training.lr:g} x {training.n_critic}, width {settings.width}"
    shown += f", side {side}" if side else ""
    chosen = [images.named(each) for each in classes.split(",")]
    print(run_lengths(images, out, settings, training, shown, classes=chosen, every=every, progress=not quiet))


@app.command()
def roc(data: Data, out: Out, name: Name = None) -> None:
    """Figure 3: ROC curves of table 1's detectors, averaged over the classes. Writes roc-SET.png."""
    print(run_roc(open_set(data, name), out))


@app.command()
@takes(OPTIONS, but=("items", "holdout", "latent", "code", "autoencoder_steps", "alexnet", "engine"))
def search2d(
    data: Data,
    out: Out,
    name: Name = None,
    normal: Annotated[str, typer.Option(help="the class to train on")] = "8",
    other: Annotated[str, typer.Option(help="the class of the anomalous image")] = "1",
    n_seed: Annotated[int, typer.Option(help="starts of each search")] = 16,
    threads: Threads = None,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Figure 2: where searches go in a latent space of two dimensions. Writes search2d-SET.png."""
    settings = _settings({**options, "n_seed": n_seed}, threads)
    images = open_set(data, name)
    at = trial(images, images.named(normal), items=0, holdout=settings.holdout, seed=settings.seed)
    training = wgan(settings)
    print(
        run_search2d(
            images, at, images.named(other), out, training, n_seed=n_seed, steps=settings.steps, progress=not quiet
        )
    )


@app.command()
@takes(OPTIONS, but=("code", "alexnet"))
def ablation(
    data: Data,
    out: Out,
    name: Name = None,
    classes: Annotated[str, typer.Option(help="A,B: normal classes, by number or name")] = "3,8",
    vary: Annotated[str, typer.Option(help="A,B: which settings")] = ",".join(PANELS),
    items: Annotated[int, typer.Option(help="test images, drawn at random")] = 1000,
    threads: Threads = None,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """AUC and time against starts, steps, weights, loss, kinds of starts and learning rates, one after the other.

    Writes ablation-SET.csv and .png. The networks of table1 in the same --out are used where settings agree.
    """
    settings = _settings({**options, "items": items}, threads)
    images = open_set(data, name)
    chosen = [images.named(each) for each in classes.split(",")]
    varied = vary.split(",")
    if unknown := [each for each in varied if each not in PANELS]:
        raise ValueError(f"--vary knows {', '.join(PANELS)}, not {', '.join(unknown)}")
    print(run_ablation(images, out, settings, classes=chosen, varied=varied, progress=not quiet))


@app.command()
@takes(OPTIONS, but=("items", "holdout", "code", "autoencoder_steps", "alexnet"))
def scenes(
    data: Data,
    out: Out,
    scene: Annotated[str, typer.Option(help=f"to train on: of LSUN's, or of {', '.join(CIFAR10_CLASSES)}")] = "bedroom",
    size: Annotated[int, typer.Option(help="side of LSUN's images")] = 64,
    most: Annotated[int | None, typer.Option(help="training images at most")] = None,
    threads: Threads = None,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Section 4.4: the most and least anomalous images of a scene, and the scene against the others.

    Writes scenes-SET-SCENE.csv and .png.
    """
    settings = _settings(options, threads)
    given = open_scenes(data, scene, size, most)
    print(run_scenes(given, scene, out, settings, progress=not quiet))


def _settings(options: dict[str, Any], threads: int | None) -> Settings:
    """Those that a command was given, echoed; and torch's threads, set."""
    if threads:
        torch.set_num_threads(threads)
    given = {name: value for name, value in options.items() if value is not None}
    if "alexnet" in given:
        given["alexnet"] = Path(given["alexnet"])
    settings = Settings(**given)
    print(json.dumps(settings.described(Settings.__dataclass_fields__), sort_keys=True), flush=True)
    return settings


def main() -> int:
    try:
        status = int(app(standalone_mode=False) or 0)  # typer makes 130 of an interrupt within a command
        return status if status != INTERRUPTED else _interrupted()
    except typer.TyperException as error:
        print(f"error: {error.format_message()}", file=sys.stderr)
        return error.exit_code
    except (OSError, ValueError, ImportError, TrainingDiverged) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()


def _interrupted() -> int:
    print("interrupted: the same command goes on from here", file=sys.stderr)
    return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())

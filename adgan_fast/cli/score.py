"""``adgan-fast score``: images against a generator, as a job that can be interrupted and resumed."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from torch import nn

from .. import SearchConfig
from ..generator.latent_shape import latent_shape
from ..generator.working_copy import home_of
from ..window_settings import Windows
from . import given, images, say, windowing
from .given import Failure, Interrupted, Mistake
from .settings import chosen, takes

if TYPE_CHECKING:
    from .. import jobs
    from ..jobs import JobResult, Source

LOCAL, RAY = "local", "ray"  # runners
UNREADABLE = "unreadable"  # a status of jobs.STATUSES
FREE = {"engine", "device", "chunk", "progress", "strict", "verify"}
"""Settings of a search that change no score."""


@takes({"score": SearchConfig})
def score(
    generator: Annotated[
        str,
        typer.Argument(
            metavar="GENERATOR", help="FILE.safetensors, a training's folder, FILE.pt2, module:callable or a detector"
        ),
    ],
    images_: Annotated[str, typer.Argument(metavar="IMAGES", help="see above")],
    out: Annotated[Path, typer.Option(help="folder of the job: its parts, and what it needs to go on")],
    size: images.Size = None,
    gray: images.Gray = None,
    resize: images.Resize = None,
    labels: Annotated[
        bool, typer.Option("--labels", help="keep labels: subfolders' names, or those of the file")
    ] = False,
    column: images.Column = None,
    windows: windowing.Option = None,
    standardize: windowing.Standardize = None,
    quantile: windowing.Quantile = None,
    within: images.Within = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="reconstructions: of each image's best start, in the parts; windows: what each scored"),
    ] = None,
    shard: Annotated[int | None, typer.Option(min=1, help="images in a part; without it a size that suits")] = None,
    devices: Annotated[str | None, typer.Option(help="A,B: a process for each, as cuda:0,cuda:1")] = None,
    runner: Annotated[str, typer.Option(help="local; or ray: a cluster's machines")] = LOCAL,
    address: Annotated[str | None, typer.Option(help="of the Ray cluster: auto, or HOST:PORT")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="of the Ray cluster; without it one for each GPU, or processor")
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(help="with a detector: share of normal images flagged at most; without it its contamination"),
    ] = None,
    adaptive: Annotated[
        float | None,
        typer.Option(help="with a detector: as 0.99, no more starts for an image once it is decided so surely"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="remove the job that is in --out, and begin anew")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, and of the log warnings alone.")] = False,
    **settings: Any,
) -> None:
    """Score images: higher is more anomalous.

    \b
    adgan-fast score run/generator.safetensors new/ --out scores --resize fit --gray
    adgan-fast score run/generator.safetensors new/ --out scores --labels --n-seed 16
    adgan-fast score generator.pt2 'shots/**/*.png' --out scores --keep reconstructions
    adgan-fast score my_models:make_generator shards.tar --out scores --latent-shape 128
    adgan-fast score detector new/ --out scores
    adgan-fast score detector new/ --out scores --adaptive 0.99
    adgan-fast score run/generator.safetensors /shared/new/ --out scores --runner ray --address auto
    adgan-fast export scores scores.csv

    GENERATOR is a file of adgan-fast train (.safetensors) or the folder of the training, a saved torch.export program
    (.pt2), or module:callable: the module is imported, from the current folder or an installed package, and the
    callable run, to return the torch.nn.Module. That runs the code in it; so does --loss module:callable. Or it is the
    folder of a detector (adgan-fast calibrate), which has its own settings: rows then have a p_value, and whether the
    image is anomalous.

    IMAGES is a folder of pictures (with its subfolders), a pattern in quotes, one picture, a parquet file or a folder
    of them, an uncompressed tar file (webdataset), a .npy, .npz or idx file, or sklearn:digits. Nothing that is read as
    data runs code. Images have to have the shape that the generator makes; --resize, --gray and --color bring them to
    it.

    Large images go by windows (--windows; by themselves where the generator was trained so): images of any size, one
    score for each, and with --keep windows what adgan-fast maps draws.

    The job is cut into parts, which are whole or not there: after an interrupt, or a crash, the same command goes on.

    Exit status: 0 done; 1 failed, the reason on stderr; 2 a mistake in the arguments; 3 done, but some images could not
    be read; 130 interrupted: the same command goes on.
    """
    if runner not in (LOCAL, RAY):
        raise Mistake(f"--runner must be {LOCAL} or {RAY}, got {runner!r}")
    on_ray = {name: value for name, value in (("address", address), ("workers", workers)) if value is not None}
    if on_ray and runner != RAY:
        raise Mistake(f"--{' and --'.join(on_ray)} {'go' if len(on_ray) > 1 else 'goes'} with --runner {RAY}")
    if devices and runner == RAY:
        raise Mistake(f"--devices are of this machine: with --runner {RAY} give --workers, and --device cpu or cuda")
    given.require_folder(out)
    progress = not quiet if settings.get("progress") is None else settings["progress"]
    with say.aloud(quiet):
        # On a cluster the workers take it to their device: this machine may have no such.
        here = "cpu" if runner == RAY else settings.get("device")
        detector = given.detector(generator)
        if detector is None:
            for name, value in (("alpha", alpha), ("adaptive", adaptive)):
                if value is not None:
                    raise Mistake(f"--{name} goes with a detector: adgan-fast calibrate makes one of a generator")
            module = given.module(generator, here)
            by = windowing.of_generator(module, windows, standardize, quantile)
            search = Search(module, configured(settings), windows=by)  # after it: the module may register an engine
        else:
            if windows or standardize is not None or quantile is not None:
                raise Mistake(
                    "a detector keeps how it takes images, whole or by windows: leave out --windows and the like"
                )
            search = _of_detector(detector, settings, alpha, adaptive, here)
        shape = {"size": size, "gray": gray, "resize": resize}
        source, config = shaped(
            search.module, images_, search.config, shape, search.windows, labels=labels, column=column, within=within
        )
        result = _run(
            search.module, source, out, config, overwrite=overwrite, keep=tuple(keep or ()), shard=shard,
            decision=search.decision, progress=progress, windows=search.windows,
            **({"runner": RAY, **on_ray} if runner == RAY else {"devices": devices.split(",") if devices else None}),
        )  # fmt: skip
        if search.engine and result.engine not in (None, search.engine):
            say.line(
                f"warning: the detector was calibrated by the engine {search.engine!r}, and {result.engine!r} has "
                "searched: scores may differ in the last digits"
            )
        if unreadable := result.counts.get(UNREADABLE, 0):
            _tell_unreadable(out, unreadable)
    described, said = _described(result), _said(result)
    if (decision := search.decision) is not None:
        described |= (flagged := _flagged(out, decision.level))
        said += (
            f"\nanomalous: {flagged['anomalous']} of {sum(result.counts.values())} images; of normal ones at most "
            f"{100 * decision.level:.3g} % are flagged, on average"
        )
    typer.echo(json.dumps(described) if as_json else said)
    if unreadable:
        raise typer.Exit(3)


class Search(NamedTuple):
    """What is scored by; of a detector also how it decides, the engine of its calibration, and windows."""

    module: nn.Module
    config: SearchConfig
    decision: jobs.Decision | None = None
    engine: str | None = None
    windows: Windows | None = None


def configured(settings: dict[str, Any]) -> SearchConfig:
    values = chosen(SearchConfig, settings, "score")
    values["progress"] = False  # of the whole job it is shown, not of each piece
    try:
        return SearchConfig(**values)
    except ValueError as error:
        raise Mistake(str(error)) from error


def _of_detector(
    folder: Path, settings: dict[str, Any], alpha: float | None, adaptive: float | None, here: str | None
) -> Search:
    """Its own settings; of these those alone may be given that change no score. `here`: the device on this machine."""
    from .. import jobs
    from ..detector import Detector

    values = chosen(SearchConfig, settings, "score")
    loss = values.pop("loss", None)
    if foreign := sorted(values.keys() - FREE):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in foreign)
        raise Mistake(f"a detector has its own settings: leave out {options}, or calibrate anew")
    values["progress"] = False
    if here is not None:
        values.setdefault("device", None)  # not that of the calibration: where it runs is not for this machine to say
    try:
        detector = Detector.load(folder, device=here, loss=loss)
        level = detector.contamination if alpha is None else alpha
        decision = jobs.Decision(detector.calibration_, level, detector.windows_)
        confidence = detector.adaptive if adaptive is None else adaptive
        if confidence is not None:
            values["adaptive"] = detector.until(confidence, level)
        module = given.copied(detector.generator_, here)
        config = detector.config.replace(**values)
        return Search(module, config, decision, detector.calibration_engine_, detector.windows)
    except (OSError, TypeError, ValueError) as error:
        raise Mistake(str(error)) from error


def shaped(
    module: nn.Module,
    name: str,
    config: SearchConfig,
    shaping: dict[str, Any],
    windows: Windows | None = None,
    **options: Any,
) -> tuple[Source, SearchConfig]:
    """The source of images of the generator's shape; and the config with the shape of the latent, which tells it.

    Where neither generator nor config says it, the first image has the shape that is looked for; where no image can be
    read, nothing is to be searched, and it is left open. With `windows` images are of any size, and the windows have
    that shape.
    """
    latent = config.latent_shape or given.said_latent_shape(module)
    shape = given.image_shape(module, latent, config.prior) if latent else None
    whole = None if windows else shape
    source = images.opened(name, images.shaping(shape=whole, **shaping), **options)
    first = windowing.fitting(source, windows, shape) if windows else images.first_shape(source)
    if latent is None and first is not None:
        try:
            latent = latent_shape(module, first, *home_of(module))
        except ValueError as error:
            raise Mistake(f"{error}. (--size, --gray and --color change what images are)") from error
        if not windows:
            source = images.opened(name, images.shaping(shape=first, **shaping), **options)
    return source, config.replace(latent_shape=latent)


def _run(
    module: nn.Module, source: Source, out: Path, config: SearchConfig, runner: str = LOCAL, **options: Any
) -> JobResult:
    from .. import jobs

    try:
        if runner == RAY:
            from ..jobs.ray import score_dataset

            return score_dataset(source, module, out, config, **options)
        return jobs.run(module, source, out, config=config, **options)
    except jobs.JobInterrupted as error:
        raise Interrupted(str(error)) from error
    except (jobs.JobError, OSError, MemoryError) as error:  # InputUnusable, too: a ValueError, but of no argument
        raise Failure(str(error) or type(error).__name__) from error
    except (TypeError, ValueError) as error:
        raise Mistake(str(error)) from error


def _tell_unreadable(out: Path, count: int) -> None:
    """The first of the images that could not be read, and how many they are."""
    from pyarrow import compute

    from .. import jobs

    bad = say.Bad()
    for table in jobs.tables(out, ["id", "status", "error"]):
        for row in table.filter(compute.equal(table["status"], UNREADABLE)).slice(0, say.SHOWN).to_pylist():
            bad.add(row["id"], row["error"])
        if bad.count >= say.SHOWN:
            break
    bad.count = count
    bad.tell(f": status and error in the parts of {out} say which and why")


def _flagged(out: Path, level: float) -> dict[str, Any]:
    """How many images the job calls anomalous."""
    from ..jobs.finished import Finished

    return {"anomalous": sum(map(bool, Finished(out).texts("anomalous"))), "alpha": level}


def _described(result: JobResult) -> dict[str, Any]:
    return {
        "out": str(result.out), "counts": result.counts, "parts": result.parts, "resumed_parts": result.resumed,
        "images": result.images, "images_per_second": result.images_per_second, "seconds": result.seconds,
        "engine": result.engine,
    }  # fmt: skip


def _said(result: JobResult) -> str:
    counted = ", ".join(f"{count} {status}" for status, count in result.counts.items())
    lines = [f"{sum(result.counts.values())} images in {result.out}: {counted}"]
    if result.images and result.engine is None:
        lines.append("no image could be read: nothing was searched")
    elif result.images:
        lines.append(f"{result.images_per_second:.3g} images/s, engine {result.engine!r}")
    else:
        lines.append("nothing was left to do")
    return "\n".join([*lines, f"to one file: adgan-fast export {shlex.quote(str(result.out))} scores.csv"])

"""``adgan-fast calibrate``: a detector from a generator and normal images, which says of others if they are normal."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from .. import SearchConfig
from . import given, images, say, windowing
from .given import Failure, Mistake
from .score import configured, shaped
from .settings import takes


@takes({"score": SearchConfig}, but=("progress", "strict", "adaptive"))
def calibrate(
    generator: Annotated[str, typer.Argument(metavar="GENERATOR", help="as for score")],
    images_: Annotated[str, typer.Argument(metavar="IMAGES", help="normal ones, as for score")],
    out: Annotated[Path, typer.Option(help="folder of the detector; replaced if there")],
    contamination: Annotated[
        float, typer.Option(help="share of normal images that the detector flags at most, on average")
    ] = 0.1,
    size: images.Size = None,
    gray: images.Gray = None,
    resize: images.Resize = None,
    column: images.Column = None,
    windows: windowing.Option = None,
    standardize: windowing.Standardize = None,
    within: images.Within = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Of the log warnings alone.")] = False,
    **settings: Any,
) -> None:
    """Score normal images, and make a detector of them: a generator, its settings and a threshold.

    \b
    adgan-fast calibrate run/generator.safetensors normal/ --out detector --resize fit
    adgan-fast calibrate run/generator.safetensors normal/ --out detector --contamination 0.01
    adgan-fast score detector new/ --out scores

    IMAGES are normal, and the generator was not trained on them; all are held in memory, but for those that go by
    windows. For one false alarm in a hundred it takes 99 of them at least; by windows 197, for half of the images give
    the windows that those of others are ranked among, and half calibrate. GENERATOR and IMAGES are what score takes.
    The detector is a folder of safetensors and JSON (and a .pt2 for a generator of your own); adgan_fast.Detector.load
    reads it, too.

    Exit status: 0 done; 1 failed, the reason on stderr; 2 a mistake in the arguments; 3 done, but some images could not
    be read.
    """
    from ..calibration import require
    from ..detector import Detector
    from ..jobs.source import Unreadable
    from ..windows import too_small

    given.require_folder(out)
    with say.aloud(quiet):
        module = given.module(generator, settings.get("device"))
        config = configured(settings)
        by = windowing.of_generator(module, windows, standardize, None)
        shape = {"size": size, "gray": gray, "resize": resize}
        source, config = shaped(module, images_, config, shape, by, column=column, within=within)
        bad, count, items = say.Bad(), 0, list(source.items())

        def readable() -> Iterator[np.ndarray]:
            nonlocal count
            for item, image in zip(items, source.read(0, len(items)), strict=True):
                if isinstance(image, Unreadable):
                    bad.add(item.id, str(image))
                elif by is not None and (why := too_small(image, by.size)):
                    bad.add(item.id, why)
                else:
                    count += 1
                    yield image

        try:
            detector = Detector(module, contamination=contamination, config=config, windows=by)
            if by is None:
                found = images.whole(source, bad)
                count = len(found)
                detector.fit(found)
            else:
                require(contamination, (len(items) + 1) // 2)  # before hours of search
                detector.fit(readable())
            detector.save(out)
        except (TypeError, ValueError) as error:
            raise Mistake(str(error)) from error
        except (OSError, MemoryError) as error:
            raise Failure(str(error) or type(error).__name__) from error
        bad.tell("; the others were taken")
    said = {
        "out": str(out), "images": count, "unreadable": bad.count, "contamination": detector.contamination,
        "threshold": detector.threshold_,
    }  # fmt: skip
    typer.echo(json.dumps(said) if as_json else _text(said))
    if bad.count:
        raise typer.Exit(3)


def _text(said: dict[str, Any]) -> str:
    return (
        f"calibrated on {said['images']} images: above {said['threshold']:.6g} an image is anomalous, as at most "
        f"{said['contamination']:g} of normal ones are\n"
        f"to score others: adgan-fast score {shlex.quote(said['out'])} IMAGES --out scores"
    )

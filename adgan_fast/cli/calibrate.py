"""``adgan-fast calibrate``: a detector from a generator and normal images, which says of others if they are normal."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from torch import nn

from .. import SearchConfig
from ..calibration import CONTAMINATION
from ..window_settings import Windows
from . import given, images, say, windowing
from .given import Failure, Mistake
from .score import configured, shaped
from .settings import chosen, takes


@takes({"score": SearchConfig}, but=("progress", "strict", "adaptive"))
def calibrate(
    generator: Annotated[
        str, typer.Argument(metavar="GENERATOR", help="as for score; or a detector, to calibrate it anew")
    ],
    images_: Annotated[str, typer.Argument(metavar="IMAGES", help="normal ones, as for score")],
    out: Annotated[Path, typer.Option(help="folder of the detector; replaced if there")],
    contamination: Annotated[
        float | None,
        typer.Option(
            help=f"share of normal images that the detector flags at most, on average [default: {CONTAMINATION}]"
        ),
    ] = None,
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
    adgan-fast calibrate run/generator.safetensors held-out/ --out detector --resize fit
    adgan-fast calibrate run/generator.safetensors held-out/ --out detector --contamination 0.01
    adgan-fast score detector new/ --out scores

    IMAGES are normal, and the generator was not trained on them; all are held in memory, but for those that go by
    windows. For one false alarm in a hundred it takes 99 of them at least; by windows 197, for half of the images give
    the windows that those of others are ranked among, and half calibrate. A detector in place of GENERATOR is
    calibrated anew, by its own settings where no others are given. GENERATOR and IMAGES are what score takes.
    The detector is a folder of safetensors and JSON (and a .pt2 for a generator of your own); adgan_fast.Detector.load
    reads it, too.

    Exit status: 0 done; 1 failed, the reason on stderr; 2 a mistake in the arguments; 3 done, but some images could not
    be read.
    """
    from ..detector import Detector
    from ..window_calibration import require_half
    from ..windows import too_small

    given.require_folder(out)
    with say.aloud(quiet):
        earlier = given.detector(generator)
        if earlier is None:
            module = given.module(generator, settings.get("device"))
            config, level, adaptive = configured(settings), CONTAMINATION, None
            by = windowing.of_generator(module, windows, standardize, None)
        else:
            if windows is not None or standardize is not None:
                raise Mistake(
                    "a detector keeps how it takes images, whole or by windows: leave out --windows and --standardize"
                )
            module, config, level, adaptive, by = _of_detector(earlier, settings)
        level = level if contamination is None else contamination
        shape = {"size": size, "gray": gray, "resize": resize}
        source, config = shaped(module, images_, config, shape, by, column=column, within=within)
        bad, count = say.Bad(), 0

        def fitting(windows: Windows) -> Iterator[np.ndarray]:
            nonlocal count
            for _, _, image in images.readable(source, bad, lambda image: too_small(image, windows.size)):
                count += 1
                yield image

        try:
            detector = Detector(module, contamination=level, adaptive=adaptive, config=config, windows=by)
            if by is None:
                found = images.whole(source, bad)
                count = len(found)
                detector.fit(found)
            else:
                require_half(level, sum(1 for _ in source.items()))  # before hours of search
                detector.fit(fitting(by))
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


def _of_detector(
    folder: Path, settings: dict[str, Any]
) -> tuple[nn.Module, SearchConfig, float, float | None, Windows | None]:
    """Of a detector that is to be calibrated anew all that was chosen, but for the settings that are given here."""
    from ..detector import Detector

    values, device = chosen(SearchConfig, settings, "calibrate"), settings.get("device")
    if device is not None:
        values["device"] = None  # the generator is there
    loss = values.get("loss")
    try:
        old = Detector.load(folder, device=device, loss=loss if callable(loss) else None)
        module = given.copied(old.generator_, device)
        return module, old.config.replace(**values), old.contamination, old.adaptive, old.windows
    except (OSError, TypeError, ValueError) as error:
        raise Mistake(str(error)) from error


def _text(said: dict[str, Any]) -> str:
    return (
        f"calibrated on {said['images']} images: an image is anomalous above the score {said['threshold']:.6g}; of "
        f"normal ones at most {100 * said['contamination']:.3g} % are flagged, on average\n"
        f"to score others: adgan-fast score {shlex.quote(said['out'])} IMAGES --out scores"
    )

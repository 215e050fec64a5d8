"""``adgan-fast report``: a finished job as one page for a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import say
from .given import Failure, Mistake
from .needs import needs

Job = Annotated[Path, typer.Argument(metavar="DIR", help="folder of the job: what score was given as --out")]
Normal = Annotated[
    list[str] | None, typer.Option(metavar="LABEL", help="a label of normal images; may be given more than once")
]
Sigma = Annotated[float, typer.Option(help="standard deviation, in pixels, of the filter that residuals go through")]


def report(
    job: Job,
    out: Annotated[Path, typer.Option(metavar="FILE", help="the page; replaced if there")] = Path("report.html"),
    normal: Normal = None,
    images: Annotated[
        int | None,
        typer.Option(min=0, help="in the gallery; without it as many as leave the page below about 20 MB"),
    ] = None,
    side: Annotated[
        int, typer.Option(min=8, help="longest side of a picture, in pixels; larger ones are made smaller")
    ] = 96,
    sigma: Sigma = 0.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings.")] = False,
) -> None:
    """Write a page with the scores, pictures, curves and provenance of a finished job: one file, no network.

    \b
    adgan-fast score run/generator.safetensors new/ --out scores --labels --keep reconstructions
    adgan-fast report scores --out report.html --normal good

    A histogram of all scores with a threshold to drag; a gallery by score, with reconstructions and residuals where
    they were kept; with --normal the curves of ROC and of precision and recall. The images are read again from where
    the job found them; where they are not there any more, the page says so and does without.

    Exit status: 0 done; 1 failed, the reason on stderr; 2 a mistake in the arguments.
    """
    needs("report", "jinja2", "matplotlib", "scipy")
    from .. import jobs
    from ..report.html import write_report

    if not out.parent.is_dir():
        raise Mistake(f"{out}: there is no folder {out.parent}")
    try:
        with say.aloud(quiet):
            made = write_report(job, out, normal=tuple(normal or ()), images=images, side=side, sigma=sigma)
    except (FileNotFoundError, ValueError) as error:
        raise Mistake(str(error)) from error
    except (jobs.JobError, OSError) as error:
        raise Failure(str(error)) from error
    if not quiet:
        say.line(f"{made.rows} images, {made.shown} of them in the gallery; {made.bytes / 1e6:.1f} MB in {made.path}")

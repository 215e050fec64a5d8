"""``adgan-fast maps``: where the images of a job are anomalous, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import say
from .given import Failure, Mistake, require_folder
from .needs import needs
from .report import Job, Sigma


def maps(
    job: Job,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="for the pictures; made if it is not there")] = Path(
        "maps"
    ),
    most: Annotated[int | None, typer.Option(min=1, help="only so many, of the highest scores")] = None,
    sigma: Sigma = 0.0,
    scale: Annotated[
        float | None, typer.Option(help="what is drawn at full colour; without it the largest of all")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but warnings.")] = False,
) -> None:
    """Draw where images are anomalous: each in grey, and over it in colour how it differs from its reconstruction.

    \b
    adgan-fast score run/generator.safetensors new/ --out scores --keep reconstructions
    adgan-fast maps scores --out maps --most 100 --sigma 1
    adgan-fast score run/generator.safetensors scans/ --out scores --windows 32,8 --keep windows

    One PNG for each image with a score, of any number of channels (their mean is drawn), all on one scale; and maps.csv
    with file, id, score and the largest residual. Of large images by windows the colour is how far the windows over a
    pixel score above what windows usually do. The images are read again from where the job found them.

    Exit status: 0 done; 1 failed, the reason on stderr; 2 a mistake in the arguments.
    """
    needs("report", "matplotlib", "scipy")
    require_folder(out)
    from .. import jobs
    from ..jobs.finished import SourceGone
    from ..report.map_files import write_maps

    try:
        with say.aloud(quiet):
            made = write_maps(job, out, most=most, sigma=sigma, scale=scale)
    except (FileNotFoundError, ValueError) as error:
        raise Mistake(str(error)) from error
    except SourceGone as error:
        raise Failure(f"the images of the job cannot be read: {error}") from error
    except (jobs.JobError, OSError) as error:
        raise Failure(str(error)) from error
    if not quiet:
        say.line(f"{made.written} pictures in {made.folder}, {made.scale:.4g} at full colour")

"""``adgan-fast drift``: do normal images still score as those that the detector was calibrated on?"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .given import Failure, Mistake
from .report import Job, Normal

DRIFTED = 4
"""Exit status."""


def drift(
    job: Job,
    normal: Normal = None,
    alpha: Annotated[float, typer.Option(help="level of the test: so often it rings where nothing has changed")] = 0.01,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Test whether the images of a job still score as those of its detector's calibration.

    \b
    adgan-fast score detector today/ --out today
    adgan-fast drift today
    adgan-fast drift scores --normal good

    The images have to be normal ones: anomalies among them look like drift. With labels, --normal says which are.
    A camera ages, a lamp is replaced, and normal images score otherwise; then the detector's rate of false alarms is no
    longer the one that was asked for, and it has to be calibrated anew.

    Of few images it says that they are too few to say, where no drift is seen.

    Exit status: 0 no drift is seen; 1 failed, the reason on stderr; 2 a mistake in the arguments; 4 drift.
    """
    from .. import jobs
    from ..calibration import PERMUTATIONS
    from ..jobs.drift import drift as tested
    from ..jobs.finished import Finished

    least = 1 / (1 + PERMUTATIONS)
    if not least <= alpha < 1:
        raise Mistake(
            f"--alpha must be at least {least:g}, the least p-value that the test has, and below 1, got {alpha!r}"
        )
    try:
        found = tested(Finished(job), tuple(normal or ()))
    except (FileNotFoundError, ValueError) as error:
        raise Mistake(str(error)) from error
    except (jobs.JobError, OSError) as error:
        raise Failure(str(error)) from error
    drifted = found.has_drifted(alpha)
    said = {
        "drift": drifted, "too_few": found.too_few(alpha), "p_value": found.test.p_value,
        "distance": found.test.distance, "above": found.test.above, "images": found.images, "flagged": found.flagged,
        "level": found.level, "calibration": found.calibration,
    }  # fmt: skip
    if as_json:
        typer.echo(json.dumps(said))
    else:
        typer.echo(f"{found.counted()}\n{found.said(alpha)}")
    if drifted:
        raise typer.Exit(DRIFTED)

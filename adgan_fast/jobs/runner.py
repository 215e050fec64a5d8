"""run: a job from its manifest to its last part, begun or gone on with."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from ..config import SearchConfig
from ..generator.working_copy import Generator
from ..given import one_of, whole
from ..progress import bar
from ..scorer import Scorer
from ..window_settings import Windows
from . import description as descriptions
from . import lock, parts
from .batch import KEEPABLE, STATUSES
from .changes import first_other
from .crew import Crew, Local
from .decision import Decision
from .description import Description
from .errors import InputUnusable, JobError, JobInterrupted, OtherJob
from .manifest import SecondLook, Shard, manifest_of, shards
from .source import Source

log = logging.getLogger("adgan_fast")

Progress = Callable[[int, int], object]


@dataclasses.dataclass(frozen=True)
class JobResult:
    """What became of a job.

    Attributes:
        out: its folder.
        counts: rows by status, of every part; only those that there are.
        parts: how many there are.
        resumed: how many of these were finished before.
        images: those that this run has gone through.
        seconds: of this run: "manifest", "prepare" (the generator checked, captured, verified: once for each run),
            "search", "wait" (for images, none of them read in time), "write"; with several devices "search" and "wait"
            are the sums over them. "total" is the run's own clock.
        engine: that searched; None where no image could be read.
    """

    out: Path
    counts: dict[str, int]
    parts: int
    resumed: int
    images: int
    seconds: dict[str, float]
    engine: str | None

    @property
    def images_per_second(self) -> float:
        """Of this run, after its start: manifest and preparation are not counted."""
        rest = self.seconds["total"] - self.seconds["manifest"] - self.seconds["prepare"]
        return self.images / rest if rest > 0 else 0.0


def run(
    gen: Scorer | Generator,
    source: Source,
    out: str | os.PathLike[str],
    *,
    config: SearchConfig | None = None,
    overwrite: bool = False,
    keep: Sequence[str] = (),
    shard: int | None = None,
    devices: Sequence[str] | None = None,
    decision: Decision | None = None,
    progress: bool | Progress = False,
    windows: Windows | None = None,
) -> JobResult:
    """Score every image of a source into parquet files in a folder; where that was begun before, go on with it.

    A row depends on the generator, its image and the config alone (for starts="independent" and starts of each image
    also on its place in the manifest): its numbers are those of `adgan_fast.score`, whatever the shard, the device and
    what was finished before. A part is on disk, whole, or not there: a job may be killed at any moment.

    Args:
        gen: a generator as for `adgan_fast.score`, or a Scorer, whose config holds.
        source: where the images come from (adgan_fast.jobs.Source).
        out: the folder, made where it is not there.
        config: as for `adgan_fast.score`, with a generator.
        overwrite: begin anew, whatever job the folder holds.
        keep: ("reconstructions",) keeps the best one of each image in the parts; ("windows",), of a job by windows,
            what each of these scored.
        shard: images of a part; None: that of the job that is gone on with, else as many as take about a minute, up to
            4,096.
        devices: torch devices to share the shards, a process each; None: that of the scorer, in this process.
        decision: by what to say of each image whether it is anomalous, in the columns p_value and anomalous; None: they
            are left out.
        progress: shown on stderr (a bar, or a line each minute where that is no terminal), or told to a function of
            how many images are done, and of how many.
        windows: images are of any size, and searched by windows of the generator's: one score for each image, in memory
            that does not grow with it; None: every image has the generator's size.

    Raises:
        JobLocked: another run works on the folder.
        OtherJob: the folder holds another job; the difference is named.
        JobDamaged: job.json is not what a job writes.
        InputsChanged: the inputs changed while the job ran.
        InputUnusable: a file of images is damaged, or strict=True and an image holds NaN or Inf (a ValueError).
        FolderUnusable: the folder cannot be written.
        JobInterrupted: SIGINT or SIGTERM came (a KeyboardInterrupt).
        WorkerDied: the process of a device was killed.
        ValueError, TypeError, MemoryError: as `adgan_fast.score`, for a generator or a setting.
    """
    if isinstance(gen, Scorer) and config is not None:
        raise TypeError("a Scorer has its config: give config with a generator, or make the Scorer with it")
    return carried_out(
        Local(gen, config, devices, windows, decision.windows if decision else None), source, out,
        overwrite=overwrite, keep=keep, shard=shard, decision=decision, progress=progress,
    )  # fmt: skip


def carried_out(
    crew: Crew,
    source: Source,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    keep: Sequence[str] = (),
    shard: int | None = None,
    decision: Decision | None = None,
    progress: bool | Progress = False,
) -> JobResult:
    """`run`, by any crew: this process alone holds the folder and writes into it."""
    for name in keep:
        one_of("keep", name, KEEPABLE)
    size = None if shard is None else whole("shard", shard, 1)
    folder = Path(out)
    with _terminable() as caught, lock.locked(folder):
        try:
            return _carried_out(crew, source, folder, overwrite, tuple(keep), size, decision, progress)
        except KeyboardInterrupt as error:
            number = caught.get("signal", signal.SIGINT)
            raise JobInterrupted(
                f"{signal.Signals(number).name} ended the job. Its finished parts are in {folder} "
                f"({len(list(folder.glob(parts.PATTERN)))} of them): run it again to go on",
                number,
            ) from error


def _carried_out(
    crew: Crew,
    source: Source,
    folder: Path,
    overwrite: bool,
    keep: tuple[str, ...],
    size: int | None,
    decision: Decision | None,
    progress: bool | Progress,
) -> JobResult:
    began = time.perf_counter()
    seconds: dict[str, float] = defaultdict(float)
    parts.clear(folder)
    before = None if overwrite else descriptions.read(folder) or parts.description_in(folder)
    with _timed(seconds, "manifest"):
        manifest = manifest_of(source)
    with _timed(seconds, "prepare"):
        description = crew.prepare(source, manifest, keep, size or (before["shard"] if before else None))
    if decision is not None:
        if decision.windows is not None and "windows" not in description:
            raise ValueError("the decision is of images by windows, and these are searched whole: give windows=")
        description |= decision.described()
    if overwrite:  # not before it is known that the new job can run
        parts.clear(folder, whole=True)
    of = shards(manifest.items, description["shard"])
    counts, finished = _finished(folder, of, description, source)
    if decision is not None:
        decision.keep(folder)
    if finished:
        log.info("%s: %d of %d parts are finished, the job goes on", folder, len(finished), len(of))
    left = [shard for shard in of if shard.number not in finished]
    look = SecondLook(source, of, {shard.number for shard in left})
    images, wanted = 0, sum(shard.stop - shard.first for shard in left)
    unfinished: dict[int, parts.Writer] = {}
    pieces = crew.pieces(source, left)
    with contextlib.closing(pieces), _shown(progress, manifest.items, finished, of) as advance:
        try:
            for piece in pieces:
                shard = piece.shard
                for what, took in piece.seconds.items():
                    seconds[what] += took
                decided = {} if decision is None else decision.columns(piece.rows)
                with _timed(seconds, "write"):
                    if shard.number not in unfinished:
                        items = functools.partial(look.items, shard)
                        unfinished[shard.number] = parts.Writer(folder, shard, description, items)
                    unfinished[shard.number].add(piece.rows | decided, piece.seconds)
                    if not piece.last:
                        continue
                    if images + shard.stop - shard.first == wanted:
                        look.require(manifest)  # before the last part: a job of changed inputs is never a finished one
                    counts.update(unfinished[shard.number].close())
                del unfinished[shard.number]
                images += shard.stop - shard.first
                advance(shard.stop - shard.first)
        except ValueError as error:
            if isinstance(error, JobError):
                raise
            raise InputUnusable(str(error)) from error  # not a setting: these were looked at before
        finally:
            for writer in unfinished.values():
                writer.give_up()
    look.require(manifest)
    seconds["total"] = time.perf_counter() - began
    spent_on = {name: seconds[name] for name in ("manifest", "prepare", "wait", "search", "write", "total")}
    ordered = {name: counts[name] for name in STATUSES if counts[name]}
    return JobResult(folder, ordered, len(of), len(finished), images, spent_on, description.get("engine"))


def _finished(folder: Path, of: list[Shard], description: Description, source: Source) -> tuple[Counter[str], set[int]]:
    """Rows by status of the finished parts, and their numbers; afterwards job.json is there.

    A damaged part is told, and done again. OtherJob where the folder holds anything of another job.
    """
    before = descriptions.read(folder)
    if before is not None and (wrong := descriptions.differences(description, before)):
        if descriptions.other_images(description, before):
            wrong[-1] += f", {first_other(folder, before, source)}"
        raise OtherJob(parts.other(folder / descriptions.NAME, wrong))
    counts: Counter[str] = Counter()
    finished = set()
    for shard in of:
        path = parts.path_of(folder, shard.number)
        if not path.exists():
            continue
        try:
            counts.update(parts.counts_of(path, shard, description))
            finished.add(shard.number)
        except parts.Unfinished as error:
            log.warning("%s is damaged and is computed anew: %s", path, error)
    parts.refuse_foreign(folder.glob(parts.PATTERN))
    if surplus := sorted({*folder.glob(parts.PATTERN)} - {parts.path_of(folder, shard.number) for shard in of}):
        raise OtherJob(parts.other(surplus[0], [f"this one has {len(of)} parts"]))
    if before is None:
        try:
            descriptions.write(folder, description)
        except OSError as error:
            raise lock.unusable(folder, error) from error
    return counts, finished


@contextlib.contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[what] += time.perf_counter() - began


@contextlib.contextmanager
def _shown(
    progress: bool | Progress, items: int, finished: set[int], of: list[Shard]
) -> Iterator[Callable[[int], None]]:
    """Something to call with the number of images that have been done."""
    done = sum(shard.stop - shard.first for shard in of if shard.number in finished)
    with bar(items, "image", done=done, shown=progress is True) as shown:

        def advance(images: int) -> None:
            nonlocal done
            done += images
            shown.update(images)
            if callable(progress):
                progress(done, items)

        advance(0)
        yield advance


@contextlib.contextmanager
def _terminable() -> Iterator[dict[str, int]]:
    """Within, SIGTERM is a KeyboardInterrupt, too; what came is noted.

    Not outside of the main thread, where Python lets nobody set that, nor where the program has a handler of its own.
    """
    caught: dict[str, int] = {}
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield caught
        return

    def end(number: int, frame: FrameType | None) -> Any:
        caught["signal"] = number
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        yield caught
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

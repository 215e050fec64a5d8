"""Detector: is this image normal or not? A generator, its scores, and a threshold from normal images held out."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch

from . import detector_files, validate
from .adaptive import NOT_BY_WINDOWS, Adaptive, level_of
from .baselines.base import NotFittedError, fitting_images
from .calibration import CONTAMINATION, Calibration, Drift, require
from .config import LossFunction, SearchConfig
from .detector_files import Stored
from .generator.working_copy import Generator
from .given import is_number, whole
from .scorer import Scorer, merged
from .training import InverseConfig, SVDDConfig, TrainConfig, train
from .training.checkpoint import has_checkpoint
from .training.objectives import trainer_of
from .window_calibration import Image, image_scores, split, window_scores
from .window_settings import Windows

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger("adgan_fast")

Images = torch.Tensor | npt.NDArray[Any]
HELD_OUT = 0.2
"""Share of the images that a training does not see, and that the threshold is set on."""
WITHOUT_GENERATOR = (SVDDConfig, InverseConfig)
"""Settings of trainings that make no generator."""


_STARTS = 'a detector needs the same for all: "shared", or a tensor (S, *latent)'


class Detector:
    """Says which images are anomalous, having seen normal ones alone.

    Its scores are those of `adgan_fast.score`; its names and its sign are PyOD's: higher is more anomalous, and labels
    are 1 for anomalous and 0 for normal. The threshold comes from normal images that the generator was not trained on,
    so that a share of at most `contamination` of normal images to come is flagged, on average (see `Calibration`).

    Args:
        generator: as for `adgan_fast.score`; None: `fit` trains one.
        contamination: that share, above 0 and at most 0.5. A level c needs 1 / c - 1 images to calibrate on at least.
        training: settings of `adgan_fast.training` by which `fit` trains; those of the paper where None.
        adaptive: a confidence, 0.99 say: an image gets no more starts once its decision at `threshold_` is settled with
            it (see `until`). Of normal images a share of 1 - adaptive at most is flagged against the decision of all
            starts, and such a share at most passes against it; scores and p-values are rough where they are far from
            the threshold. All starts when None. The calibration always takes all; it needs 1 / (1 - adaptive) - 1
            images at least.
        config, overrides: settings of the search, as for `adgan_fast.score`.
        windows: images are of any size, and are searched by windows: those of the generator, where it was trained by
            some (`generator.windows`). `fit` and the others then take images (C, H, W) one after the other, and `fit`
            takes half of them, drawn by its seed, for the windows: an image's score is how unusual its windows are
            among those (`adgan_fast.windows.surprise`); the other half calibrates.

    Attributes:
        generator_: the generator, given or trained.
        calibration_: Calibration, the scores of the images held out.
        threshold_: float; images with a score above it are anomalous.
        losses_: (n, S), the final losses of the images held out, all starts; None where a detector was saved by a
            version that did not keep them.
        decision_scores_: (n,) float64, the scores of the images held out, in the order in which they lay.
        labels_: (n,) int64, the labels of these.
        held_out_: (n,) int64, which of the images given to `fit` they are; None where they were given by themselves.
        windows_: Calibration, the scores of the windows of the other images; None without windows.
        calibration_engine_: name of the engine that has scored the images held out.

    Raises:
        ValueError, TypeError: naming the setting that is wrong.
    """

    def __init__(
        self,
        generator: Generator | None = None,
        *,
        contamination: float = CONTAMINATION,
        training: TrainConfig | None = None,
        adaptive: float | None = None,
        config: SearchConfig | None = None,
        windows: Windows | None = None,
        **overrides: Any,
    ) -> None:
        if not is_number(contamination) or not 0 < contamination <= 0.5:
            why = ': a score has no threshold of its own, so there is no "auto"' if contamination == "auto" else ""
            raise ValueError(f"contamination must be a number above 0 and at most 0.5, got {contamination!r}{why}")
        if training is not None:
            trainer_of(training)
            if generator is not None:
                raise ValueError("a generator is given: training= is for a detector that trains its own")
            if isinstance(training, WITHOUT_GENERATOR):
                raise ValueError(f"training must make a generator, {type(training).__name__} makes none")
        self.generator, self.contamination, self.training = generator, float(contamination), training
        self.config = merged(config, overrides)
        if self.config.starts == "independent":
            raise ValueError(f'starts="independent" makes a score depend on the place of an image; {_STARTS}')
        if self.config.adaptive is not None:
            raise ValueError("a detector is settled at its own threshold: give it the confidence alone, adaptive=0.99")
        if adaptive is not None:
            if not is_number(adaptive) or not 0 < adaptive < 1:
                raise ValueError(f"adaptive must be a confidence between 0 and 1, got {adaptive!r}")
            self.config.replace(adaptive=Adaptive(threshold=0.0))  # which says of a setting that does not go with it
        self.adaptive = None if adaptive is None else float(adaptive)
        self.windows = getattr(generator, "windows", None) if windows is None else windows
        if self.windows is not None and generator is None:
            raise ValueError("windows= is for a generator that was trained on windows: give it")
        if self.windows is not None and adaptive is not None:
            raise ValueError(NOT_BY_WINDOWS)
        self.windows_: Calibration | None = None
        self._scorer: Scorer | None = None
        self._engine: str | None = None  # of the calibration
        self._told = False  # that another one runs here

    def fit(
        self,
        images: Images | Iterable[Image],
        *,
        held_out: float | Images | None = None,
        seed: int = 0,
        out: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> Self:
        """Train a generator, where none was given, and set the threshold.

        Args:
            images: normal ones, (N, C, H, W), or (N, H, W) where C = 1; floats in [-1, 1], or uint8. With a generator
                that was given all of them are to calibrate on, and it must not have been trained on any.
            held_out: what the training does not see: a share of the images, 20 % when None, or other normal images.
                Images that hang together (frames of a film, say) should not lie on both sides: then give them.
            seed: of the draw of that share.
            out: folder of the training, for its checkpoints; one that was cut off there goes on.
            progress: show a progress bar of the training on stderr.

        Raises:
            ValueError: images that are too few for `contamination`, of a wrong shape, out of range, NaN or Inf; those
                of a training and of the search.
        """
        if self.generator is not None and held_out is not None:
            raise ValueError("a generator is given, which all images are to calibrate: held_out= is for a training")
        if self.windows is not None and self.generator is not None:
            return self._calibrate_windows(self.generator, images, whole("seed", seed, 0))
        given = fitting_images(cast(Images, images))
        if self.generator is not None:
            self._require(len(given))
            return self._calibrate(self.generator, given, np.arange(len(given)))
        indices = None
        if not isinstance(held_out, (torch.Tensor, np.ndarray)):
            indices = _drawn(len(given), HELD_OUT if held_out is None else held_out, whole("seed", seed, 0))
            kept = torch.ones(len(given), dtype=torch.bool, device=given.device)
            kept[torch.from_numpy(indices).to(given.device)] = False
            fitted, others = given[kept], given[~kept]
        else:
            fitted, others = given, fitting_images(held_out)
            if others.shape[1:] != given.shape[1:]:
                raise ValueError(
                    f"held_out must have the shape of images, (N, {', '.join(map(str, given.shape[1:]))}), "
                    f"got {tuple(others.shape)}"
                )
        self._require(len(others))
        resume = out is not None and has_checkpoint(out)
        trained = train(fitted, self.training, out=out, resume=resume, progress=progress).generator
        return self._calibrate(trained, others, indices)

    def decision_function(self, images: Images | Iterable[Image]) -> npt.NDArray[np.float64]:
        """Scores (N,): the higher, the more anomalous.

        NaN, with a warning, for an image that holds NaN or Inf, or whose search diverged. Errors as for
        `adgan_fast.score`; NotFittedError before `fit`.
        """
        scorer = self._ready()
        scores = self._scored_by(scorer, images)
        if scorer.engine != self._engine and not self._told:
            self._told = True
            log.warning(
                "this detector was calibrated by the engine %s, and runs by %s here: scores may differ in the last "
                "digits",
                self._engine,
                scorer.engine,
            )
        return scores

    def score_samples(self, images: Images | Iterable[Image]) -> npt.NDArray[np.float64]:
        """The same as `decision_function`, sign included: the higher, the more anomalous."""
        return self.decision_function(images)

    def predict(self, images: Images | Iterable[Image], *, unscored: int | None = None) -> npt.NDArray[np.int64]:
        """Labels (N,): 1 for anomalous, a score above `threshold_`, and 0 for normal.

        Args:
            unscored: the label of images without a score (NaN), of which neither is known; None: ValueError, which
                counts them.
        """
        return self._labels(self.decision_function(images), unscored)

    def predict_proba(self, images: Images | Iterable[Image]) -> npt.NDArray[np.float64]:
        """(N, 2): the conformal p-value of each image, and one minus that. NaN for an image without a score.

        The second column grows with the anomaly. It is not how likely the image is anomalous, which no detector knows
        that has seen normal images alone: of normal images a share of 1 - c is above c, at most.
        """
        p_values = self.p_values(images)
        return np.stack([p_values, 1 - p_values], axis=1)

    def p_values(self, images: Images | Iterable[Image]) -> npt.NDArray[np.float64]:
        """Conformal p-values (N,), see `Calibration.p_values`; NaN for an image without a score."""
        scores = self.decision_function(images)
        return self.calibration_.p_values(scores)

    def threshold(self, alpha: float) -> float:
        """The score above which a share of at most `alpha` of normal images lies, on average.

        Raises ValueError where the calibration has too few images for that, with how many it takes.
        """
        self._ready()
        return self.calibration_.threshold(alpha)

    def until(self, confidence: float, alpha: float | None = None) -> Adaptive:
        """For `SearchConfig.adaptive`: no more starts once the decision at `threshold(alpha)` is settled.

        The intervals are those that the calibration's own losses ask for: of normal images at most a share of
        1 - confidence is flagged that all starts would pass, and at most such a share passes that all would flag, on
        average over calibrations. alpha: `contamination` when None.

        Raises ValueError where the calibration has too few images for that, with how many it takes; or where it kept no
        losses.
        """
        self._ready()
        if self.windows is not None:
            raise ValueError(NOT_BY_WINDOWS)
        if self.losses_ is None:
            raise ValueError("this detector was saved by a version that kept no losses of its starts: calibrate anew")
        threshold = self.threshold_ if alpha is None else self.threshold(alpha)
        return Adaptive(threshold=threshold, losses=self.losses_, confidence=confidence)

    def drift(self, images: Images | Iterable[Image]) -> Drift:
        """Do these images, known to be normal, still score as those of the calibration? See `Calibration.drift`.

        By all starts, as those were scored.
        """
        scores = self._scored_by(self._ready().settled_by(None), images)
        return self.calibration_.drift(scores)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes the detector into a folder, made if need be: safetensors and JSON, and no code.

        A generator that is none of `adgan_fast.models` is stored as a `.pt2`, by `torch.export`. Loaded on such a
        machine, with these versions, the detector gives the same bits. A crash leaves what was there before, whole.

        Raises:
            NotFittedError: before `fit`.
            ValueError: a generator that cannot be stored so, with the remedy.
            FileExistsError: the folder holds a training.
        """
        scorer = self._ready().settled_by(None)
        stored = Stored(
            scorer.generator, self.config, self.contamination, self.decision_scores_, self.held_out_, self._engine,
            self.losses_, self.adaptive,
            self.windows, None if self.windows_ is None else self.windows_.scores,
        )  # fmt: skip
        return detector_files.write(Path(folder), stored, scorer)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        device: str | torch.device | None = None,
        loss: LossFunction | None = None,
    ) -> Detector:
        """The detector that was saved in a folder. No code of a file is run.

        Args:
            device: where to run; where it ran when it was saved, when None.
            loss: the function that was its loss, where it was one, which no file holds.

        Raises:
            FileNotFoundError: nothing is there.
            CheckpointError: it is damaged, or no detector.
            ValueError: a loss that is missing, or is not asked for.
        """
        stored = detector_files.read(Path(folder), device, loss)
        made = cls(
            stored.generator, contamination=stored.contamination, adaptive=stored.adaptive, config=stored.config,
            windows=stored.windows,
        )  # fmt: skip
        made.windows_ = None if stored.window_scores is None else Calibration(stored.window_scores)
        scorer = Scorer(stored.generator, config=stored.config)
        return made._fitted(
            stored.generator, scorer, stored.scores, stored.losses, stored.held_out, stored.engine
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------------------------

    def _calibrate(self, generator: Generator, images: torch.Tensor, held_out: npt.NDArray[np.int64] | None) -> Self:
        scorer = Scorer(generator, config=self.config).prepare(tuple(images.shape[1:]))
        self._require_same_starts(scorer)
        found = scorer._run(validate.as_images(images), ["scores", "losses"])
        scores, losses = (found[name].cpu().numpy() for name in ("scores", "losses"))
        return self._fitted(generator, scorer, scores.astype(np.float64), losses, held_out, scorer.engine)

    def _require_same_starts(self, scorer: Scorer) -> None:
        """ValueError where starts are of single images, once that is known."""
        starts, job = self.config.starts, scorer.job
        if isinstance(starts, torch.Tensor) and job is not None and job.starts.common is None:
            raise ValueError(f"starts of shape {tuple(starts.shape)} are of single images; {_STARTS}")

    def _require(self, n: int) -> None:
        """ValueError where n images are too few to calibrate on."""
        require(self.contamination, n)
        if self.adaptive is not None:
            require(level_of(self.adaptive), n)

    def _scored_by(self, scorer: Scorer, images: Images | Iterable[Image]) -> npt.NDArray[np.float64]:
        if self.windows is None:
            return _scores(scorer, cast(Images, images))
        return image_scores(window_scores(scorer, self.windows, images), self.windows, self.windows_)

    def _calibrate_windows(self, generator: Generator, images: Iterable[Image], seed: int) -> Self:
        assert self.windows is not None
        scorer = Scorer(generator, config=self.config)
        found = []
        for scores_of_image in window_scores(scorer, self.windows, images):
            self._require_same_starts(scorer)
            found.append(scores_of_image)
        self.windows_, held_out = split(found, self.contamination, seed)
        scores = image_scores([found[number] for number in held_out], self.windows, self.windows_)
        return self._fitted(generator, scorer, scores, None, held_out, scorer.engine)

    def _fitted(
        self,
        generator: Generator,
        scorer: Scorer,
        scores: npt.NDArray[np.float64],
        losses: npt.NDArray[np.floating] | None,
        held_out: npt.NDArray[np.int64] | None,
        engine: str | None,
    ) -> Self:
        calibration = Calibration(scores)
        self.threshold_ = calibration.threshold(self.contamination)
        self.generator_, self.calibration_ = generator, calibration
        self.decision_scores_, self.losses_, self.held_out_ = scores, losses, held_out
        self.labels_ = self._labels(scores, None)
        self._scorer, self._engine, self._told = scorer, engine, False
        if self.adaptive is not None:
            self._scorer = scorer.settled_by(self.until(self.adaptive))
        return self

    @property
    def calibration_engine_(self) -> str | None:
        self._ready()
        return self._engine

    def _ready(self) -> Scorer:
        if self._scorer is None:
            raise NotFittedError("Detector has no threshold: call fit first")
        return self._scorer

    def _labels(self, scores: npt.NDArray[np.float64], unscored: int | None) -> npt.NDArray[np.int64]:
        lost = np.isnan(scores)
        labels = (scores > self.threshold_).astype(np.int64)
        if lost.any():
            if unscored is None:
                raise ValueError(
                    f"{int(lost.sum())} of {len(scores)} images have no score (NaN), the first is image "
                    f"{int(lost.argmax())}: nothing says whether they are normal. Leave them out, or give the label "
                    "that they shall have: unscored=-1 marks them, unscored=1 takes them for anomalous"
                )
            labels[lost] = unscored
        return labels


def _scores(scorer: Scorer, images: Images) -> npt.NDArray[np.float64]:
    scores = torch.as_tensor(scorer(validate.as_images(images))).cpu().numpy().astype(np.float64)
    scores[~np.isfinite(scores)] = np.nan  # Inf is where a search diverged, and no anomaly
    return scores


def _drawn(n: int, share: Any, seed: int) -> npt.NDArray[np.int64]:
    """Which of n images are held out: that share of them, rounded up, and one left at least; ascending."""
    if not is_number(share) or not 0 < share < 1:
        raise ValueError(f"held_out must be a share above 0 and below 1, or images, got {share!r}")
    count = min(int(np.ceil(share * n)), n - 1)
    random = np.random.Generator(np.random.Philox(seed))
    return np.sort(random.permutation(n)[:count])

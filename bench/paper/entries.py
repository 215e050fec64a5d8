"""The lines of table 1: how each detector is fitted on a trial, and what it then scores with.

An entry may give several detectors: those that share what is learned, or one search. Networks are trained in the
class's own folder, with checkpoints; a run that is cut short goes on from the last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy.typing as npt
import torch
from torch import nn

from adgan_fast import SearchConfig, SearchResult, baselines, files, search
from adgan_fast.baselines.alexnet import WeightsMissing
from adgan_fast.baselines.features import PCA, AlexNet, Pixels, Shared
from adgan_fast.data.images import save_grid
from adgan_fast.training import (
    BiGANConfig,
    DCAEConfig,
    GANConfig,
    GMMNConfig,
    InverseConfig,
    SVDDConfig,
    TrainConfig,
    TrainResult,
    VAEConfig,
    WGANConfig,
    encoder_starts,
    train,
)  # fmt: skip

from .sets import Labelled, Trial
from .settings import Settings

Array = npt.NDArray[Any]
Config = TypeVar("Config", bound=TrainConfig)
Scoring = Callable[[Array], Mapping[str, Any]]
"""Images (N, C, H, W) uint8 to scores (N,) of each of the entry's detectors."""

PCA_SIZES = (20, 40, 60, 80, 100)
"""Numbers of components to choose from on the holdout (Sect. 4.2); those of them that a small set has."""


SAMPLES = 64
"""Images in the picture of a generator."""


class Refused(RuntimeError):
    """A detector that cannot run here, with the remedy."""


class Fitted(NamedTuple):
    """What an entry has learned.

    Attributes:
        scores: of images.
        chosen: what was chosen on the holdout or from the data, for the row; as JSON has it.
        seconds: that learning took, where the clock of this run does not know (a network trained before).
    """

    scores: Scoring
    chosen: dict[str, Any]
    seconds: float | None = None


class Entry(NamedTuple):
    """Detectors that are fitted together.

    Attributes:
        names: of the detectors, in the table's order.
        uses: the settings that decide their scores, beside the trial's.
        fit: what learns.
    """

    names: tuple[str, ...]
    uses: tuple[str, ...]
    fit: Callable[[Trial, Context], Fitted]


@dataclasses.dataclass(frozen=True)
class Context:
    """Where, how and with what to fit.

    Attributes:
        settings: of the experiment.
        folder: of the set's class.
        progress: whether to show it.
    """

    settings: Settings
    folder: Path
    progress: bool

    def train(self, name: str, source: Any, config: TrainConfig) -> tuple[TrainResult, float]:
        """The networks ``name`` of the class, trained or read, and the seconds that their training took in all.

        Of a generator ``samples.png`` is left beside them.
        """
        folder = self.folder / "models" / name
        with _clock(folder / "seconds.json") as seconds:
            trained = train(source, config, out=folder, resume=True, progress=self.progress)
        took = seconds()
        if "generator" in trained.models:
            latents = torch.randn(SAMPLES, config.latent, generator=torch.Generator().manual_seed(config.seed))
            with torch.no_grad():
                save_grid(trained.generator(latents.to(config.device or "cpu")), folder / "samples.png")
        return trained, took

    def gan(self, at: Trial) -> tuple[TrainResult, float]:
        """Generator and critic that ADGAN, AnoGAN and the two weak scores share."""
        return self.gan_of(at.train)

    def gan_of(self, images: Array) -> tuple[TrainResult, float]:
        """The same, of images (N, C, H, W)."""
        return self.train(f"wgan-{self.settings.objective}", images, wgan(self.settings))

    def search(self, **changes: Any) -> SearchConfig:
        s = self.settings
        usual = SearchConfig(n_seed=s.n_seed, steps=s.steps, seed=s.seed, engine=s.engine, progress=self.progress)
        return usual.replace(**changes)


WGAN = {
    "clip": WGANConfig(lr=2e-4, sample_every=0),
    "gp": WGANConfig(objective="gp", lr=5e-4, n_critic=2, sample_every=0),
}
"""The paper's objective (2) by weight clipping, at four times Arjovsky et al.'s rate, which needs a fraction of the
steps; and by gradient penalty. Chosen on holdouts (docs/paper.md)."""


def of_settings(config: Config, settings: Settings, **changes: Any) -> Config:
    """A training's settings with what all trainings of an experiment share, and `changes`."""
    s = settings
    shared = {"width": s.width, "seed": s.seed, "device": s.device, "precision": s.precision}
    return dataclasses.replace(config, **shared, **changes)


def wgan(settings: Settings) -> WGANConfig:
    """The training of the shared generator."""
    s = settings
    return of_settings(WGAN[s.objective], s, latent=s.latent, steps=s.gan_steps)


@contextlib.contextmanager
def _clock(path: Path) -> Iterator[Callable[[], float]]:
    """Seconds spent within, added to what the file at ``path`` says of earlier runs."""
    before = float(json.loads(path.read_text())) if path.is_file() else 0.0
    began = time.perf_counter()

    def seconds() -> float:
        return before + time.perf_counter() - began

    try:
        yield seconds
    finally:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, json.dumps(seconds()).encode())


# -- detectors on features ----------------------------------------------------------------------------------------

CLASSICAL = {"kde": baselines.KDE, "ocsvm": baselines.OCSVM, "iforest": baselines.IForest, "gmm": baselines.GMM}


def _on_pixels(name: str) -> Entry:
    def fit(at: Trial, context: Context) -> Fitted:
        detector = CLASSICAL[name](Pixels(), seed=context.settings.seed).fit(at.train)
        return Fitted(lambda images: {name: detector.decision_function(images)}, _learned(detector))

    return Entry((name,), (), fit)


def _on_components(name: str, of: str) -> Entry:
    """All numbers of components at once; the best on the holdout scores."""
    key = f"{name}-{of}"

    def fit(at: Trial, context: Context) -> Fitted:
        most = len(at.train) if of == "alexnet" else min(len(at.train), at.train[0].size)
        sizes = [size for size in PCA_SIZES if size <= most] or [most]
        shared = Shared(_features(of, context, max(sizes)))
        make = functools.partial(_on_first, CLASSICAL[name], shared, context.settings.seed)
        selected = baselines.Selected(make, sizes).fit(at.train, holdout=_holdout(at.holdout))
        chosen = {"components": selected.chosen_, **_learned(selected.detector_)}
        return Fitted(lambda images: {key: selected.decision_function(images)}, chosen)

    return Entry((key,), ("alexnet",) if of == "alexnet" else (), fit)


def _on_first(kind: type[Any], shared: Shared, seed: int, size: int) -> Any:
    return kind(shared.first(size), seed=seed)


def _features(of: str, context: Context, size: int) -> Any:
    if of == "pca":
        return PCA(size, seed=context.settings.seed)
    try:
        return AlexNet(context.settings.alexnet, size, seed=context.settings.seed)
    except WeightsMissing as reason:
        raise Refused(f"{reason} (--alexnet FILE)") from reason


def _learned(detector: Any) -> dict[str, Any]:
    """What a classical detector chose by itself: its attributes of scikit-learn's naming."""
    names = {"bandwidth_": "bandwidth", "gamma_": "gamma", "n_components_": "gaussians"}
    return {shown: getattr(detector, name) for name, shown in names.items() if hasattr(detector, name)}


def _holdout(given: Labelled) -> Any:
    return baselines.Holdout(given.images, given.anomalous)


# -- autoencoders and one-class networks ----------------------------------------------------------------------------


def _autoencoder(config: TrainConfig, context: Context, name: str) -> dict[str, Any]:
    """Arguments of a detector that trains itself in the class's folder."""
    s = context.settings
    changed = of_settings(config, s, latent=s.code, steps=s.autoencoder_steps, sample_every=0)
    return {"config": changed, "out": context.folder / "models" / name, "progress": context.progress}


_AUTOENCODER = ("width", "code", "autoencoder_steps", "precision")


def _network(name: str, kind: type[Any], config: TrainConfig) -> Entry:
    def fit(at: Trial, context: Context) -> Fitted:
        with _clock(context.folder / "models" / name / "seconds.json") as seconds:
            detector = kind(**_autoencoder(config, context, name)).fit(at.train)
        return Fitted(lambda images: {name: detector.decision_function(images)}, {}, seconds())

    return Entry((name,), _AUTOENCODER, fit)


def _vae(at: Trial, context: Context) -> Fitted:
    scores = {"vae": "elbo", "vae-prior": "prior", "vae-variance": "variance"}
    arguments = _autoencoder(VAEConfig(), context, "vae")
    with _clock(context.folder / "models" / "vae" / "seconds.json") as seconds:
        detectors = {
            name: baselines.VAE(**arguments, score=score, seed=context.settings.seed).fit(at.train)
            for name, score in scores.items()
        }
    return Fitted(
        lambda images: {name: detector.decision_function(images) for name, detector in detectors.items()}, {}, seconds()
    )


def _dbn(at: Trial, context: Context) -> Fitted:
    detector = baselines.DBN(seed=context.settings.seed).fit(at.train)
    return Fitted(lambda images: {"dbn-ocsvm": detector.decision_function(images)}, {})


# -- searches ------------------------------------------------------------------------------------------------------

_GAN = ("objective", "width", "latent", "gan_steps", "precision")
SEARCH = (*_GAN, "n_seed", "steps")
"""The settings of a search on the shared generator."""


def _adgan(at: Trial, context: Context) -> Fitted:
    """ADGAN, and the two weak scores from the same networks and the same search."""
    gan, seconds = context.gan(at)
    training = wgan(context.settings)
    config = context.search()
    critic = baselines.CriticScore(gan.critic)

    def scores(images: Array) -> dict[str, Any]:
        found = search(gan.generator, images, config=config)
        return {
            "adgan": _numbers(found),
            "prior": baselines.prior_scores(found),
            "critic": critic.decision_function(images),
        }

    return Fitted(scores, {"lr": training.lr, "n_critic": training.n_critic}, seconds)


def _anogan(name: str, **settings: Any) -> Entry:
    def fit(at: Trial, context: Context) -> Fitted:
        gan, seconds = context.gan(at)
        detector = baselines.AnoGAN(gan.generator, gan.critic, seed=context.settings.seed, **settings)
        return Fitted(lambda images: {name: detector.decision_function(images)}, {"anogan": settings}, seconds)

    return Entry((name,), _GAN, fit)


def _on_wgan(name: str, **changes: Any) -> Entry:
    """ADGAN on the shared generator with another search."""

    def fit(at: Trial, context: Context) -> Fitted:
        gan, seconds = context.gan(at)
        return Fitted(_searching(name, gan.generator, context.search(**changes)), {**changes}, seconds)

    return Entry((name,), SEARCH, fit)


def _on_other(name: str, config: TrainConfig) -> Entry:
    """ADGAN on a generator of another objective."""

    def fit(at: Trial, context: Context) -> Fitted:
        s = context.settings
        changed = of_settings(config, s, latent=s.latent, steps=s.gan_steps, sample_every=0)
        trained, seconds = context.train(name, at.train, changed)
        return Fitted(_searching(name, trained.generator, context.search()), {}, seconds)

    return Entry((name,), tuple(each for each in SEARCH if each != "objective"), fit)


def guesses(generator: nn.Module, at: Trial, context: Context) -> tuple[Callable[[Array], torch.Tensor], float]:
    """Starts (N, n_seed, latent) for images, around the guess of a regression encoder of the generator's latents.

    With them the seconds that the encoder's training took.
    """
    s = context.settings
    config = of_settings(InverseConfig(), s, latent=s.latent, steps=s.autoencoder_steps)
    inverse, seconds = context.train("inverse", generator, config)
    return lambda images: encoder_starts(inverse.encoder, images, s.n_seed, seed=s.seed), seconds


def _from_encoder(at: Trial, context: Context) -> Fitted:
    gan, seconds = context.gan(at)
    starts, more = guesses(gan.generator, at, context)
    return Fitted(_encoded("adgan-encoder", gan.generator, starts, context), {}, seconds + more)


def _ali(at: Trial, context: Context) -> Fitted:
    """Generator and encoder of a BiGAN: starts around the encoder's guess."""
    s = context.settings
    config = of_settings(BiGANConfig(), s, latent=s.latent, steps=s.gan_steps, sample_every=0)
    trained, seconds = context.train("bigan", at.train, config)
    starts = functools.partial(encoder_starts, trained.encoder, n_seed=s.n_seed, seed=s.seed)
    return Fitted(_encoded("adgan-ali", trained.generator, starts, context), {}, seconds)


def _encoded(name: str, generator: nn.Module, starts: Callable[[Array], torch.Tensor], context: Context) -> Scoring:
    config = context.search()
    return lambda images: {name: _numbers(search(generator, images, config=config.replace(starts=starts(images))))}


def _searching(name: str, generator: nn.Module, config: SearchConfig) -> Scoring:
    return lambda images: {name: _numbers(search(generator, images, config=config))}


def _numbers(found: SearchResult) -> Array:
    return torch.as_tensor(found.scores).double().cpu().numpy()


_ALL = (
    *(_on_pixels(name) for name in CLASSICAL),
    *(_on_components(name, "pca") for name in CLASSICAL),
    *(_on_components(name, "alexnet") for name in CLASSICAL),
    Entry(("dbn-ocsvm",), (), _dbn),
    _network("dcae", baselines.DCAE, DCAEConfig()),
    Entry(("vae", "vae-prior", "vae-variance"), _AUTOENCODER, _vae),
    _network("deep-svdd", baselines.DeepSVDD, SVDDConfig()),
    _anogan("anogan", n_seed=1, steps=500, lr_z=0.05),
    _anogan("anogan-64x5", n_seed=64, steps=5, lr_z=0.25),  # on equal footing with ADGAN
    Entry(("adgan", "critic", "prior"), SEARCH, _adgan),
    _on_wgan("adgan-laplacian", loss="laplacian"),
    Entry(("adgan-encoder",), (*SEARCH, "autoencoder_steps"), _from_encoder),
    _on_other("adgan-gan", GANConfig()),
    _on_other("adgan-lsgan", GANConfig(objective="least_squares")),
    _on_other("adgan-vae", VAEConfig()),
    _on_other("adgan-gmmn", GMMNConfig()),
    Entry(("adgan-ali",), tuple(each for each in SEARCH if each != "objective"), _ali),
)
ENTRIES = {entry.names[0]: entry for entry in _ALL}
"""By the first of their names, in the table's order."""
DETECTORS = [name for entry in _ALL for name in entry.names]

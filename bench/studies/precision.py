"""How far each precision is from float64 on real images and a trained generator: ``python -m bench.studies.precision``.

    python -m bench.studies.precision                                              CPU: digits, a small generator
    python -m bench.studies.precision --generator FILE --data mnist --device cuda  full size, on a GPU

One line for each engine and precision: rms and mean error of the improvement, the largest error of a score of 64 starts
(what the searched ones contribute to it), both as docs/numerics.md defines them; the AUC, and Spearman's rank
correlation of the scores with the float64 ones. On a CPU the kernels of `triton` are interpreted, slowly.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import adgan_fast
from adgan_fast import SearchConfig, data
from adgan_fast.config import PRECISIONS
from adgan_fast.core.starts import draw
from adgan_fast.testing import Losses
from adgan_fast.training import WGANConfig, load_generator, train

from ..race import cases, gate
from ..race.report import markdown

SETS = ("digits", "mnist", "cifar10")
AUC, SPEARMAN, ENOUGH = 2e-3, 0.999, 100
"""Bounds on a real data set: how far an AUC may be off, and the least rank correlation. They hold from so many images
on: of 20, a swap of two neighbours in rank leaves 0.9985."""
SCORED = 64
"""Starts of the score whose error is bounded; fewer are held to what they contribute to it (gate.check)."""
MOST_PLAIN = 2048
"""Pairs that are searched by the plain loop where a bound is missed; of more, the bounds alone count."""

HEADS = ("engine", "precision", "rms of d", "mean of d", "score", "AUC", "off by", "Spearman", "within the bounds")


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A trained generator and images to tell apart.

    Attributes:
        gen: in eval mode, float32.
        images: (N, C, H, W) in [-1, 1].
        anomalous: (N,) bool.
        starts: (S, *latent).
        config: what is searched with.
    """

    gen: nn.Module
    images: torch.Tensor
    anomalous: np.ndarray
    starts: torch.Tensor
    config: SearchConfig


@dataclasses.dataclass(frozen=True)
class Line:
    """An engine and a precision, or the reference, and how far it is from the reference; see HEADS."""

    engine: str
    precision: str
    rms: float
    mean: float
    score: float
    auc: float
    off: float
    spearman: float
    failures: str

    @property
    def cells(self) -> tuple[str, ...]:
        if self.precision == "float64":
            return self.engine, self.precision, "", "", "", f"{self.auc:.4f}", "", "", ""
        errors = (f"{error:.1e}" for error in (self.rms, self.mean, self.score))
        return (
            self.engine, self.precision, *errors, f"{self.auc:.4f}", f"{self.off:.0e}", f"{self.spearman:.6f}",
            self.failures or "yes",
        )  # fmt: skip


def images_of(name: str, split: data.Split, folder: Path | None) -> tuple[torch.Tensor, np.ndarray]:
    """(N, C, H, W) in [-1, 1] and labels (N,); MNIST padded to 32×32, the digits cut in two halves for the splits."""
    folder = cases.DATA if folder is None else folder
    if name == "mnist":
        found = data.load_mnist(folder / "mnist" if (folder / "mnist").is_dir() else folder, split)
    elif name == "cifar10":
        found = data.load_cifar10(folder / "cifar10.npz" if folder.is_dir() else folder, split)
    else:
        found = data.load_digits().subset(slice(0, 900) if split == "train" else slice(900, None))
    images = torch.as_tensor(data.to_model_range(found.images))
    if name == "mnist":
        images = F.pad(images, (2, 2, 2, 2), value=-1.0)
    assert found.labels is not None
    return images, found.labels


def trained(name: str, folder: Path | None, normal: int, settings: WGANConfig, size: int = 0) -> nn.Module:
    """A generator of the images of one class, enlarged to `size` if that is given."""
    images, labels = images_of(name, "train", folder)
    return train(resized(images[torch.as_tensor(labels == normal)], size), settings).generator.float()


def resized(images: torch.Tensor, size: int) -> torch.Tensor:
    if size in (0, images.shape[2]):
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)


def task(
    gen: nn.Module, name: str, folder: Path | None, normal: int, count: int, config: SearchConfig, device: str
) -> Task:
    """The first `count` test images, half of them of the normal class; the starts that every engine gets."""
    images, labels = images_of(name, "test", folder)
    of_normal, others = np.flatnonzero(labels == normal), np.flatnonzero(labels != normal)
    which = np.concatenate([of_normal[: count // 2], others[: count - count // 2]])
    gen = gen.to(device).eval()
    images = resized(images[torch.as_tensor(which)], int(gen.image_size)).to(device)  # type: ignore[arg-type]
    latent = int(gen.latent)  # type: ignore[arg-type]  # nn.Module hides that it is a number
    starts = draw(config.seed, None, config.n_seed, (latent,), config.prior).float().to(device)
    return Task(gen, images, labels[which] != normal, starts, config)


def reference(task: Task) -> gate.ReferenceLosses:
    """In float64: by `grouped`, held to the plain `reference` on the first image.

    Raises RuntimeError where the two are apart.
    """
    gen, images = copy.deepcopy(task.gen).double(), task.images.double()
    config = task.config.replace(starts=task.starts.double(), precision="float32")
    found = adgan_fast.search(gen, images, config=config.replace(engine="grouped"))
    plain = adgan_fast.search(gen, images[:1], config=config.replace(engine="reference"))
    wanted = plain.initial_losses - plain.losses
    error = found.initial_losses[:1] - found.losses[:1] - wanted
    if not error.norm() <= 1e-7 * wanted.norm():
        raise RuntimeError(f"grouped in float64 is {float(error.norm() / wanted.norm()):.1e} from the reference")
    few = len(task.images) * task.config.n_seed <= MOST_PLAIN
    return gate.ReferenceLosses(*_of_scored(task, found), functools.cache(lambda: _plain(task)) if few else None)


def _plain(task: Task) -> Losses:
    """By the plain float32 loop."""
    config = task.config.replace(starts=task.starts, precision="float32", engine="reference")
    return _of_scored(task, adgan_fast.search(task.gen, task.images, config=config))


def _of_scored(task: Task, found: adgan_fast.SearchResult) -> Losses:
    """Losses, NaN for the starts of SCORED that the task leaves out."""
    missing = max(0, SCORED - task.config.n_seed)
    return Losses(
        *(F.pad(part.cpu(), (0, missing), value=float("nan")) for part in (found.initial_losses, found.losses))
    )


def compare(task: Task, wanted: gate.ReferenceLosses, engine: str, precision: str) -> Line:
    """One line of the table."""
    from scipy.stats import spearmanr
    from sklearn.metrics import roc_auc_score

    config = task.config.replace(starts=task.starts, engine=engine, precision=precision)
    found = adgan_fast.search(task.gen, task.images, config=config)
    errors = gate.check((found.initial_losses, found.losses), wanted, precision)
    scores, true = found.losses.cpu().double().mean(1).numpy(), wanted.final.nanmean(1).numpy()
    auc = float(roc_auc_score(task.anomalous, scores))
    off = abs(auc - float(roc_auc_score(task.anomalous, true)))
    rank = float(spearmanr(scores, true).statistic)
    failures = [errors.failures] if errors.failures else []
    enough = len(scores) >= ENOUGH
    if enough and not off <= AUC:
        failures.append(f"AUC {off:.1e} > {AUC:.0e}")
    if enough and not rank >= SPEARMAN:
        failures.append(f"Spearman {rank:.4f} < {SPEARMAN}")
    return Line(engine, precision, errors.rms, errors.mean, errors.score, auc, off, rank, "; ".join(failures))


def table(task: Task, ways: Sequence[tuple[str, str]]) -> list[Line]:
    """The float64 reference, then each (engine, precision)."""
    from sklearn.metrics import roc_auc_score

    wanted = reference(task)
    auc = float(roc_auc_score(task.anomalous, wanted.final.nanmean(1).numpy()))
    first = Line("reference", "float64", 0.0, 0.0, 0.0, auc, 0.0, 1.0, "")
    return [first, *(compare(task, wanted, engine, precision) for engine, precision in ways)]


def ways_here(device: str, engines: Sequence[str]) -> list[tuple[str, str]]:
    """Those of `engines` that can run here, in each precision that changes what they compute."""
    known = {info.name: info for info in adgan_fast.engines()}
    found = []
    for engine in engines:
        if engine not in known:
            raise ValueError(f"no engine is called {engine!r}; there are {', '.join(known)}")
        if known[engine].available:
            # On a CPU all but native and triton compute in float32 whatever is asked.
            exact = device == "cpu" and engine not in ("native", "triton")
            found += [(engine, precision) for precision in PRECISIONS[: 1 if exact else None]]
        else:
            print(f"{engine}: {known[engine].why_not}", file=sys.stderr)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table; returns 0 if all is within the bounds."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.studies.precision",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--generator", metavar="FILE", help="a trained generator; without it one is trained, in seconds"
    )
    parser.add_argument("--data", choices=SETS, default="digits", help="(default: %(default)s)")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help=f"where it is (default: {cases.DATA})")
    parser.add_argument(
        "--normal", type=int, default=8, metavar="LABEL", help="the normal class (default: %(default)s)"
    )
    parser.add_argument("--images", type=int, default=12, metavar="N", help="test images (default: %(default)s)")
    parser.add_argument("--n-seed", type=int, default=1, metavar="S", help="starts of each (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5, metavar="K", help="of a search (default: %(default)s)")
    parser.add_argument(
        "--training", type=int, default=300, metavar="N", help="steps of training (default: %(default)s)"
    )
    parser.add_argument("--engines", metavar="A,B", help="(default: native,triton; on a GPU grouped,triton)")
    parser.add_argument("--device", default="cpu", help="(default: %(default)s)")
    given = parser.parse_args(argv)
    on_cpu = torch.device(given.device).type == "cpu"
    if on_cpu:
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which is when its engine first runs
    if given.generator is None:
        settings = WGANConfig(
            latent=32, width=16, steps=given.training, batch_size=32, objective="gp", lr=1e-3, sample_every=0
        )
        gen = trained(given.data, given.data_dir, given.normal, settings)
    else:
        gen = load_generator(given.generator)
    config = SearchConfig(n_seed=given.n_seed, steps=given.steps)
    job = task(gen, given.data, given.data_dir, given.normal, given.images, config, given.device)
    ways = ways_here(given.device, (given.engines or ("native,triton" if on_cpu else "grouped,triton")).split(","))
    lines = table(job, ways)
    print("\n".join(markdown([HEADS, *(line.cells for line in lines)])))
    return 1 if any(line.failures for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Part "precision": bench/studies/precision.py at full size, on a generator trained here if none is given."""

from __future__ import annotations

from pathlib import Path

from adgan_fast import SearchConfig
from adgan_fast.config import PRECISIONS
from adgan_fast.training import WGANConfig, load_generator

from ..race import cases
from ..studies import precision
from .part import Part

NORMAL = 8
METRICS = ("rms", "mean", "score", "auc", "off", "spearman")


def precision_table(part: Part) -> None:
    """Rows of each engine and precision: errors, AUC and rank correlation."""
    folder = Path(part.data) if part.data else cases.DATA
    name = "mnist" if part.data or (folder / "mnist").is_dir() else "digits"
    if part.smoke:
        name = "digits"
    size, latent, width, steps = (8, 32, 16, 2) if part.smoke else (32, 256, 64, 300)
    if part.generator:
        gen = load_generator(part.generator)
    else:
        settings = WGANConfig(
            latent=latent, width=width, steps=steps, objective="gp", n_critic=2, lr=5e-4, device=part.device,
            checkpoint_every=0, sample_every=0,
        )  # fmt: skip
        gen = precision.trained(name, folder, NORMAL, settings, size)
    config = SearchConfig(n_seed=2 if part.smoke else 64, steps=2 if part.smoke else 5)
    task = precision.task(gen, name, folder, NORMAL, 4 if part.smoke else 200, config, part.device)
    ways = [("triton", p) for p in (PRECISIONS[:1] if part.smoke else PRECISIONS)]
    if not part.smoke:
        ways.append(("grouped", "float32"))
    case = f"{name}{size}x{size}/s{config.n_seed}/n{len(task.images)}"
    for line in precision.table(task, ways):
        for metric in METRICS:
            part.add(case, f"{line.engine} {line.precision}", metric, getattr(line, metric), "")
        if line.failures:
            part.fail(case, f"{line.engine} {line.precision}", line.failures)

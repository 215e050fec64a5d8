"""A detector as a folder: a checkpoint of tensors and JSON, and beside it a `.pt2` for a generator of the user's own.

`training.checkpoint` writes and checks the folder. A generator of `adgan_fast.models` lies in it as one of a training
does, so that `adgan_fast.training.load_generator` reads it, too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from . import files, models
from .config import LossFunction, SearchConfig
from .generator.export import exported
from .generator.exported import load_exported
from .generator.working_copy import home_of
from .scorer import Scorer
from .training.checkpoint import (
    CheckpointError,
    has_checkpoint,
    load_checkpoint,
    load_generator,
    require_finite,
    save_checkpoint,
)
from .window_settings import Windows

KIND = "detector"


@dataclasses.dataclass(frozen=True)
class Stored:
    """What a detector is made of, see `Detector`."""

    generator: nn.Module
    config: SearchConfig
    contamination: float
    scores: npt.NDArray[np.float64]
    held_out: npt.NDArray[np.int64] | None
    engine: str | None
    losses: npt.NDArray[np.floating] | None
    adaptive: float | None
    windows: Windows | None = None
    window_scores: npt.NDArray[np.float64] | None = None


def write(folder: Path, stored: Stored, scorer: Scorer) -> Path:
    """Replaces the detector in a folder; `scorer` is its own, by which a `.pt2` is tried. Errors as `Detector.save`."""
    if has_checkpoint(folder) and load_checkpoint(folder)[1].get("kind") != KIND:
        raise FileExistsError(f"{folder} holds a training, which a detector must not replace: give another folder")
    generator = stored.generator
    tensors: dict[str, torch.Tensor] = {"scores": torch.from_numpy(stored.scores)}
    for name, array in (("held_out", stored.held_out), ("losses", stored.losses)):
        if array is not None:
            tensors[name] = torch.from_numpy(array)
    if isinstance(stored.config.starts, torch.Tensor):
        tensors["starts"] = stored.config.starts
    if stored.window_scores is not None:
        tensors["window_scores"] = torch.from_numpy(stored.window_scores.copy())
    meta: dict[str, Any] = {
        "kind": KIND,
        "contamination": stored.contamination,
        "adaptive": stored.adaptive,
        "config": _as_json(stored.config),
        "device": str(home_of(scorer._module)[0]),
        "engine": stored.engine,
    }
    if stored.windows is not None:
        meta["windows"] = stored.windows.described()
    if models.builds(generator):
        state = generator.state_dict()
        require_finite(state)
        meta["architecture"] = {"generator": generator.config}
        tensors |= {f"generator/{name}": value for name, value in state.items()}
        program = None
    else:
        data = _tried(generator, stored.config, scorer)
        digest = hashlib.sha256(data).hexdigest()
        program = f"generator-{digest[:16]}.pt2"
        meta["program"] = {"file": program, "sha256": digest}
        folder.mkdir(parents=True, exist_ok=True)
        files.replace(folder / program, data)
    save_checkpoint(folder, tensors, meta)
    for other in folder.glob("generator-*.pt2"):  # of the detector that this one supersedes
        if other.name != program:
            other.unlink(missing_ok=True)
    return folder


def read(folder: Path, device: str | torch.device | None, loss: LossFunction | None) -> Stored:
    """The detector in a folder, to run on `device`. Errors as `Detector.load`."""
    tensors, meta = load_checkpoint(folder)
    if meta.get("kind") != KIND:
        raise CheckpointError(f"{folder}: holds no detector, but {meta.get('kind', 'something else')!r}")
    try:
        config = dict(meta["config"])
        own = config.pop("loss_function", None)
        if (own is None) != (loss is None):
            what = (
                f"the function {own}, which no file holds: give it as loss=" if own else "no function: leave loss= out"
            )
            raise ValueError(f"{folder}: the loss of this detector is {what}")
        if loss is not None:
            if not callable(loss) or not str(own).endswith(f".{_name_of(loss)}"):
                raise ValueError(f"{folder}: this detector was calibrated with the loss {own}, not with {loss!r}")
            config["loss"] = loss
        if "starts" in tensors:
            config["starts"] = tensors["starts"]
        config["device"] = str(device) if device is not None else meta["device"]
        held_out, losses = (tensors[name].numpy() if name in tensors else None for name in ("held_out", "losses"))
        return Stored(
            _generator(folder, meta),
            SearchConfig(**config),
            float(meta["contamination"]),
            tensors["scores"].numpy(),
            held_out,
            meta["engine"],
            losses,
            meta.get("adaptive"),
            Windows.read(meta["windows"]) if "windows" in meta else None,
            tensors["window_scores"].numpy() if "window_scores" in tensors else None,
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: an entry is missing or malformed ({error})") from error


def _generator(folder: Path, meta: dict[str, Any]) -> nn.Module:
    program = meta.get("program")
    if program is None:
        return load_generator(folder)
    path = folder / Path(program["file"]).name  # beside it, wherever a made-up name would point
    if not path.is_file():
        raise FileNotFoundError(f"{path}: named by the detector but not there")
    if hashlib.sha256(path.read_bytes()).hexdigest() != program["sha256"]:
        raise CheckpointError(f"{path}: damaged: its SHA-256 is not the one in the detector")
    return load_exported(path)


def _tried(generator: nn.Module, config: SearchConfig, scorer: Scorer) -> bytes:
    """The generator as a `.pt2`, read back and seen to give the same bits: of the scores of two images of noise."""
    job = scorer.job
    if job is None:  # nothing else says how large its images are
        raise ValueError(
            "the detector cannot be saved before it has scored an image: it was loaded, and has scored none"
        )
    remedy = (
        "Keep the calibration instead (detector.calibration_.save), and the generator as you make it; or write it with "
        "layers that torch.export captures"
    )
    try:
        data = exported(generator, job.latent_shape)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "generator.pt2"
            path.write_bytes(data)
            read_back = load_exported(path)
    except ValueError as error:
        raise ValueError(f"the detector cannot be saved: {error}. {remedy}") from error
    noise = torch.rand((2, *job.image_shape), generator=torch.Generator().manual_seed(0)) * 2 - 1
    again = Scorer(read_back, config=config, device=home_of(scorer._module)[0])
    if torch.equal(again(noise), scorer(noise)):
        return data
    raise ValueError(
        f"the detector cannot be saved: generator {type(generator).__name__}, exported and read back, scores otherwise "
        f"in the last bits. {remedy}"
    )


def _as_json(config: SearchConfig) -> dict[str, Any]:
    """Its fields, but for the device, and adaptive, which no detector's has.

    Starts that are a tensor, and a loss that is a function, are left out; of the function its name is there, as
    ``loss_function``.
    """
    names = {field.name for field in dataclasses.fields(config)} - {"device", "adaptive"}
    found = {name: getattr(config, name) for name in names}
    if isinstance(config.starts, torch.Tensor):
        del found["starts"]
    if callable(config.loss):
        del found["loss"]
        found["loss_function"] = f"{config.loss.__module__}.{_name_of(config.loss)}"
    return found


def _name_of(loss: Any) -> str:
    """Of a loss that is a function or another callable, without its module, which may be called otherwise elsewhere."""
    return getattr(loss, "__qualname__", type(loss).__name__)

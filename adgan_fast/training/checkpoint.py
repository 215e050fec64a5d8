"""Storage of generators and of training runs: safetensors and JSON, written so that a crash leaves the old file whole.

A generator is one ``.safetensors`` file whose header holds its architecture. A checkpoint is a folder with one JSON
file, ``checkpoint.json``, and the tensors file that it names together with its SHA-256. The JSON is the commit point:
the tensors file of a new checkpoint has a name of its own and is complete on disk before the JSON is replaced, and the
old one is removed only afterwards. Nothing is pickled: loading a file runs no code from it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as to_bytes
from torch import nn

from .. import files, models
from ..core.ambient import neutral
from ..generator.pt2 import PICKLES
from ..models.parts import Model
from ..window_settings import Windows

FORMAT = "adgan_fast"
VERSION = 1
CHECKPOINT = "checkpoint.json"


class CheckpointError(ValueError):
    """A stored file is damaged, of another format or version, or does not belong to what it is loaded into."""


@neutral()
def save_generator(generator: nn.Module, path: str | os.PathLike[str]) -> Path:
    """Writes a generator of ``adgan_fast.models`` (architecture, parameters, buffers) to one file, atomically.

    Raises:
        ValueError: a module without the ``config`` that building it again takes, or with NaN or Inf in its tensors.
    """
    architecture = getattr(generator, "config", None)
    if not isinstance(architecture, dict):
        name = type(generator).__name__
        raise ValueError(f"{name} has no config dict: only models of adgan_fast.models can be saved")
    tensors = _portable(generator.state_dict())
    require_finite(tensors)
    header = {"format": FORMAT, "version": str(VERSION), "architecture": json.dumps(architecture)}
    if (windows := getattr(generator, "windows", None)) is not None:
        header["windows"] = json.dumps(windows.described())
    path = Path(path)
    files.replace(path, to_bytes(tensors, header))
    return path


@neutral()
def load_generator(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> nn.Module:
    """The generator at ``path``, in eval mode on ``device``.

    Args:
        path: a file of ``save_generator``, or the folder (or ``checkpoint.json``) of a training run.

    Raises:
        FileNotFoundError: nothing is there.
        CheckpointError: the file is damaged or not one of these formats.
    """
    path = Path(path)
    if path.is_dir() or path.name == CHECKPOINT:
        folder = path if path.is_dir() else path.parent
        saved = sorted(folder.glob("*.safetensors"))
        if saved and not has_checkpoint(folder):
            raise FileNotFoundError(f"{folder}: no checkpoint here; a saved generator is named by its file: {saved[0]}")
        tensors, meta = load_checkpoint(folder)
        described = _architectures(meta, folder)
        if "generator" not in described:
            raise CheckpointError(f"{folder}: no generator in this run, only {', '.join(described)}: see load_models")
        made = _built(described["generator"], below(tensors, "generator/"), path)
        return _of_windows(made, meta.get("windows"), path).to(device)
    tensors, header = _read_generator(path)
    try:
        architecture, windows = json.loads(header.get("architecture", "")), json.loads(header.get("windows", "null"))
    except ValueError as error:
        raise CheckpointError(f"{path}: its architecture, or its windows, are not JSON ({error})") from error
    return _of_windows(_built(architecture, tensors, path), windows, path).to(device)


@neutral()
def load_models(folder: str | os.PathLike[str], device: str | torch.device = "cpu") -> dict[str, nn.Module]:
    """Every network of a training run by its name (``"generator"``, ``"critic"``, …), in eval mode on ``device``.

    Args:
        folder: of the run: what ``train`` was given as ``out``.

    Raises:
        FileNotFoundError: no checkpoint is there.
        CheckpointError: it is damaged.
    """
    tensors, meta = load_checkpoint(folder)
    described = _architectures(meta, folder)
    return {
        name: _built(architecture, below(tensors, f"{name}/"), folder).to(device)
        for name, architecture in described.items()
    }


@neutral()
def save_checkpoint(
    folder: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]
) -> Path:
    """Replaces the checkpoint in ``folder`` (made if need be) by these tensors and this JSON-able ``meta``.

    A crash at any moment leaves either the old or the new checkpoint. Returns the path of ``checkpoint.json``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = to_bytes(_portable(tensors))
    digest = hashlib.sha256(data).hexdigest()
    name = f"checkpoint-{digest[:16]}.safetensors"
    head = {"format": FORMAT, "version": VERSION, "tensors": name, "sha256": digest, "meta": dict(meta)}
    # allow_nan=False: NaN is no JSON, and no state worth keeping.
    text = json.dumps(head, indent=1, allow_nan=False).encode()
    files.replace(folder / name, data)
    files.replace(folder / CHECKPOINT, text)
    # What this checkpoint supersedes, and what a crash during an earlier one left behind.
    for other in [*folder.glob("checkpoint-*.safetensors"), *folder.glob(".checkpoint*.tmp")]:
        if other.name != name:
            other.unlink(missing_ok=True)
    return folder / CHECKPOINT


def has_checkpoint(folder: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint (sound or not) lies in ``folder``."""
    return (Path(folder) / CHECKPOINT).is_file()


@neutral()
def load_checkpoint(folder: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the ``meta`` of the checkpoint in ``folder``.

    Raises:
        FileNotFoundError: there is none, or the tensors file that it names is gone.
        CheckpointError: it is damaged, or of another format or version.
    """
    path = Path(folder) / CHECKPOINT
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no checkpoint here")
    head = files.read_head(path, FORMAT, VERSION, "checkpoint", CheckpointError)
    name, digest, meta = head.get("tensors"), head.get("sha256"), head.get("meta")
    if not isinstance(name, str) or not isinstance(digest, str) or not isinstance(meta, dict):
        raise CheckpointError(f"{path}: its tensors, sha256 or meta entry is missing or malformed")
    file = path.parent / Path(name).name  # beside it, wherever a made-up name would point
    if not file.is_file():
        raise FileNotFoundError(f"{file}: named by {path.name} but not there")
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(f"{file}: damaged: its SHA-256 is not the one in {path.name}")
    try:
        return load_bytes(data), meta
    except SafetensorError as error:
        raise CheckpointError(f"{file}: not a safetensors file ({error})") from error


def _architectures(meta: Mapping[str, Any], folder: str | os.PathLike[str]) -> dict[str, Any]:
    described = meta.get("architecture")
    if not isinstance(described, dict):
        raise CheckpointError(f"{folder}: holds no architecture of its networks")
    return described


def _built(architecture: Any, tensors: Mapping[str, torch.Tensor], source: str | os.PathLike[str]) -> Model:
    """The network that was stored so, in eval mode."""
    if not isinstance(architecture, dict):
        raise CheckpointError(f"{source}: holds no architecture of a network")
    try:
        model = models.build(architecture)
    except (ValueError, RuntimeError) as error:  # RuntimeError: sizes that no memory holds
        raise CheckpointError(f"{source}: {error}") from error
    if any(value.dtype == torch.float64 for value in tensors.values()):
        model.double()  # else its numbers would be rounded
    load_state(model, tensors, source)
    return model.eval()


def _of_windows(generator: Model, windows: Any, source: str | os.PathLike[str]) -> Model:
    """The generator, with the windows that were stored with it."""
    if windows is not None:
        try:
            generator.windows = Windows.read(windows)
        except ValueError as error:
            raise CheckpointError(f"{source}: {error}") from error
    return generator


def below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin so, by what follows."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def load_state(model: nn.Module, tensors: Mapping[str, torch.Tensor], source: str | os.PathLike[str]) -> None:
    """``model.load_state_dict``, strict, with a CheckpointError that names ``source`` where it does not fit."""
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise CheckpointError(f"{source}: does not fit {type(model).__name__}: {error}") from error


def require_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    """ValueError naming the first tensor that holds NaN or Inf."""
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{name} holds NaN or Inf")


def _read_generator(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Its tensors, and what its header says."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no generator here")
    data = path.read_bytes()  # not by safe_open, which takes no path that is not UTF-8
    try:
        tensors = load_bytes(data)
    except SafetensorError as error:
        remedy = ""
        if path.suffix in PICKLES:
            remedy = ". A pickle is never read: load its weights into your own module (torch.load, weights_only=True)"
        elif data[:2] == b"PK":
            remedy = ". A .pt2 program needs no loading: give its path to adgan_fast.score"
        raise CheckpointError(f"{path}: damaged, or not a safetensors file ({error}){remedy}") from error
    length = int.from_bytes(data[:8], "little")  # of the JSON that follows; the reader has checked both
    header = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path}: a safetensors file, but not a generator of {FORMAT}")
    if header.get("version") != str(VERSION):
        found = header.get("version")
        raise CheckpointError(f"{path}: format version {found!r}, this release reads version {VERSION}")
    return tensors, header


def _portable(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

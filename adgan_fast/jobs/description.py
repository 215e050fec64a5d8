"""The description of a job, by which its parts know each other: what decides its rows, as JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import itertools
import json
from pathlib import Path
from typing import Any

import torch

from ..config import SearchConfig
from ..core.job import Job
from ..files import replace
from ..generator.program import Program
from .errors import JobDamaged
from .manifest import Manifest
from .source import Source

NAME = "job.json"
FORMAT = 1
"""Of job.json and the parts: another number is of another version of the package."""

NEUTRAL = ("engine", "device", "chunk", "progress", "strict", "verify", "latent_shape")
"""Settings that change no score, or are told by themselves (engine, device, latent_shape)."""

Description = dict[str, Any]


def describe(
    source: Source, manifest: Manifest, shard: int, keep: tuple[str, ...], job: Job | None, engine: str | None
) -> Description:
    """The description of a job; `job` and `engine` are None where no image can be read."""
    from .. import __version__

    found: Description = {
        "format": FORMAT,
        "package": __version__,
        "source": {"name": source.name, **source.fingerprint()},
        "manifest": manifest._asdict(),
        "shard": shard,
        "keep": sorted(keep),
    }
    if job is not None:
        found |= {
            "generator": {"class": type(job.module).__qualname__, "sha256": generator_hash(job)},
            "latent_shape": list(job.latent_shape),
            "image_shape": list(job.image_shape),
            "config": _settings(job.config),
            "engine": engine,
            "precision": job.config.precision,
            "device": job.device.type,
            "dtype": job.dtype_name,
        }
    return json.loads(json.dumps(found))  # as it is read again


def generator_hash(job: Job) -> str:
    """Of the numbers in a generator, and of how it is written: as a program, or where it is none as its modules."""
    hashed = hashlib.sha256()
    for name, tensor in job.module.state_dict().items():
        if isinstance(tensor, torch.Tensor):
            hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
            hashed.update(_bytes(tensor))
    for name, buffer in job.module.named_buffers():  # also those that no state_dict holds
        hashed.update(f"{name} {buffer.dtype} {tuple(buffer.shape)};".encode())
        hashed.update(_bytes(buffer))
    hashed.update(repr(job.module).encode())
    for kind in {type(each): None for each in job.module.modules()}:  # in their order
        hashed.update(_source_of(kind).encode())
    program = job.program
    if program is not None:
        hashed.update(_steps(program).encode())
        for constant in program.constants:
            hashed.update(_bytes(constant))
    return hashed.hexdigest()


def _source_of(kind: type) -> str:
    """A module's class as it is written, but for PyTorch's own; "" where no source is at hand."""
    if kind.__module__.partition(".")[0] == "torch":
        return ""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""


def _steps(program: Program) -> str:
    layers = [(layer.op, layer.inputs, layer.output, sorted(layer.attrs.items())) for layer in program.layers]
    values = [(value.kind, value.shape, value.index) for value in program.values]
    return repr((layers, values, program.names, program.latent, program.output))


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _settings(config: SearchConfig) -> dict[str, Any]:
    found = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in NEUTRAL}
    if isinstance(config.starts, torch.Tensor):
        digest = hashlib.sha256(_bytes(config.starts)).hexdigest()
        found["starts"] = f"{tuple(config.starts.shape)} {config.starts.dtype} sha256 {digest}"
    if config.adaptive is None:
        del found["adaptive"]
    else:
        found["adaptive"] = config.adaptive.described()
    if callable(config.loss):
        found["loss"] = f"{config.loss.__module__}.{getattr(config.loss, '__qualname__', type(config.loss).__name__)}"
    return found


def differences(here: Description, there: Description) -> list[str]:
    """Where two descriptions differ, in words; [] if nowhere. What the source was called is no difference.

    Generators are compared where the engine is the same. Other images are the last of it: hashes of manifests say
    nothing to a reader.
    """
    mine, theirs = flat(here), flat(there)
    hidden = ["source.name"]
    if mine.get("engine") != theirs.get("engine"):
        hidden.append("generator.sha256")  # of its program where the engine takes one, else of its modules
    for each, name in itertools.product((mine, theirs), hidden):
        each.pop(name, None)
    found = [
        f"{name} is {theirs.get(name, 'not there')!r} there and {mine.get(name, 'not there')!r} here"
        for name in mine | theirs
        if mine.get(name) != theirs.get(name) and not name.startswith("manifest.")
    ]
    if other_images(here, there):
        began, now = theirs.get("manifest.items"), mine.get("manifest.items")
        what = "added, removed, or changed in label, size or time"
        found.append(f"the images are not those that the job began with ({what}): {began} there and {now} here")
    return found


def other_images(here: Description, there: Description) -> bool:
    """Whether two jobs have other images."""
    return bool(here.get("manifest") != there.get("manifest"))


def flat(description: Description, above: str = "") -> dict[str, Any]:
    """The values of a description by their places, as "config.seed"."""
    found: dict[str, Any] = {}
    for name, value in description.items():
        found |= flat(value, f"{above}{name}.") if isinstance(value, dict) else {above + name: value}
    return found


def read(folder: Path) -> Description | None:
    """What job.json says; None where there is none. JobDamaged where it is none of a job's."""
    path = folder / NAME
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except IsADirectoryError as error:
        raise _damaged(path, "it is a folder") from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(found, dict) or "format" not in found:
        raise _damaged(path, "it is no description of a job")
    if found["format"] != FORMAT:
        raise JobDamaged(f"{path} has the format {found['format']!r}, this version of adgan_fast writes {FORMAT}")
    try:
        shard, items = found["shard"], found["manifest"]["items"]
        found["source"], found["manifest"]["sha256"], found["keep"]
    except (KeyError, TypeError) as error:
        raise _damaged(path, f"it lacks {error}") from error
    if not (isinstance(shard, int) and shard > 0 and isinstance(items, int) and items >= 0):
        raise _damaged(path, f"its shard is {shard!r}, its number of items {items!r}")
    return found


def _damaged(path: Path, what: str) -> JobDamaged:
    return JobDamaged(
        f"{path} is damaged: {what}. Remove that file and run again: finished parts say themselves what job they are "
        "of, and are kept"
    )


def write(folder: Path, description: Description) -> None:
    replace(folder / NAME, (json.dumps(description, indent=1, ensure_ascii=False) + "\n").encode())

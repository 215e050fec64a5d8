"""A module as a `.pt2` that this package reads, whatever its class."""

from __future__ import annotations

import io
import warnings
import zipfile

import torch
from torch import nn


def exported(module: nn.Module, latent_shape: tuple[int, ...]) -> bytes:
    """The bytes of a `.pt2` of a generator (B, *latent) → (B, C, H, W), exported for any B.

    It is without PyTorch's sample inputs, which are a pickle: `pt2.py` reads it, `torch.export.load` does not.

    Raises ValueError where `torch.export` cannot capture it, with what it says.
    """
    like = next((each for each in (*module.parameters(), *module.buffers()) if each.is_floating_point()), None)
    z = torch.zeros(2, *latent_shape, dtype=torch.float32 if like is None else like.dtype)
    file = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch's own deprecated calls
            program = torch.export.export(module, (z,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
            torch.export.save(program, file)
    except Exception as error:  # a capture raises whatever the module's code, or PyTorch's, does
        first = str(error).strip().partition("\n")[0]
        raise ValueError(f"generator {type(module).__name__} cannot be exported: {first}") from error
    return _without_pickle(file)


def _without_pickle(file: io.BytesIO) -> bytes:
    kept = io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(kept, "w", zipfile.ZIP_STORED) as rest:
        for entry in archive.infolist():
            if "/data/sample_inputs/" not in entry.filename:
                rest.writestr(entry, archive.read(entry))
    return kept.getvalue()

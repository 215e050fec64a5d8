"""The global random states: PyTorch's, Python's and NumPy's. A search leaves them as they were."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

RandomState = dict[str, Any]


def state(device: torch.device) -> RandomState:
    """Every global state that a generator may draw from, by where it belongs; in values that compare."""
    kind, keys, *rest = np.random.get_state()
    found: RandomState = {
        "torch": torch.random.get_rng_state().numpy().tobytes(),
        "random": random.getstate(),
        "numpy": (kind, np.asarray(keys).tobytes(), *rest),
    }
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device).numpy().tobytes()
    return found


def restore(given: RandomState, device: torch.device) -> None:
    """Put back what `state` gave."""
    torch.random.set_rng_state(_tensor(given["torch"]))
    random.setstate(given["random"])
    kind, keys, *rest = given["numpy"]
    np.random.set_state((kind, np.frombuffer(keys, np.uint32), *rest))
    if "cuda" in given:
        torch.cuda.set_rng_state(_tensor(given["cuda"]), device)


def seed(number: int) -> None:
    """Seed all of them."""
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


@contextlib.contextmanager
def kept(device: torch.device) -> Iterator[None]:
    """Whatever is drawn inside, afterwards the states are as they were."""
    before = state(device)
    try:
        yield
    finally:
        restore(before, device)


def _tensor(given: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(given), dtype=torch.uint8)

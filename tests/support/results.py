"""Results compared to the last bit."""

from __future__ import annotations

from typing import Any

import torch

from adgan_fast import SearchResult

TENSORS = ("scores", "losses", "initial_losses", "latents", "reconstructions")


def differences(found: SearchResult, want: SearchResult, rows: Any = slice(None)) -> list[str]:
    """What of `found` is not, to the last bit, that of the images `rows` of `want`."""
    wrong = []
    for name in TENSORS:
        ours, theirs = getattr(found, name), getattr(want, name)[rows]
        if not torch.equal(ours, theirs):
            most, count = float((ours - theirs).abs().max()), int((ours != theirs).sum())
            wrong.append(f"{name} differ by up to {most:.1e} in {count} numbers")
    return wrong

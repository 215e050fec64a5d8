"""Small maps have kernels of their own."""

from __future__ import annotations

import pytest


@pytest.fixture
def all_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every map is large enough."""
    from adgan_fast.engine.triton import lift as triton_lift

    monkeypatch.setattr(triton_lift, "LEAST_OUTPUTS", 1)
    monkeypatch.setattr(triton_lift, "LEAST_WEIGHTS", 1)


@pytest.fixture
def all_maps_but_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every map of as many outputs as a matrix instruction takes."""
    from adgan_fast.engine.triton import lift as triton_lift

    monkeypatch.setattr(triton_lift, "LEAST_WEIGHTS", 1)

"""Generators, critics and encoders, and how to build one from the ``config`` of another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from .dcgan import DCGANCritic, DCGANGenerator
from .encoder import DCGANEncoder, JointCritic
from .heads import Centre, GaussianLikelihood
from .parts import Model

__all__ = [
    "Centre",
    "DCGANCritic",
    "DCGANEncoder",
    "DCGANGenerator",
    "GaussianLikelihood",
    "JointCritic",
    "build",
    "builds",
]

_KINDS: dict[str, type[Model]] = {
    kind.__name__: kind for kind in (DCGANGenerator, DCGANCritic, DCGANEncoder, JointCritic, GaussianLikelihood, Centre)
}


def build(config: Mapping[str, Any]) -> Model:
    """The model that ``config`` (a model's ``config``: its kind and its arguments) describes, freshly initialised.

    Raises:
        ValueError: an unknown kind, or arguments that this kind does not take.
    """
    arguments = dict(config)
    kind = arguments.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, _KINDS))}, got {kind!r}")
    try:
        return _KINDS[kind](**arguments)
    except TypeError as error:
        raise ValueError(f"{kind} cannot be built from {arguments!r}: {error}") from error


def builds(model: nn.Module) -> bool:
    """Whether `model` is of a kind that `build` makes again: a class of this package itself, not one below it."""
    return type(model) in _KINDS.values()

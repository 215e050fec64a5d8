"""Generators captured once in a process: it is most of the time of a small search, and seldom what is tested."""

from __future__ import annotations

import contextlib
import unittest.mock
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from adgan_fast import scorer, testing
from adgan_fast.generator.program import Program, Unlowered
from adgan_fast.generator.rules import lower


class Once:
    """`lower` of one generator and its copies, once for each home and shape of the latent; anew if a weight changed."""

    def __init__(self) -> None:
        self._made: dict[Any, tuple[dict[str, torch.Tensor], Program | Unlowered]] = {}

    def __call__(self, module: nn.Module, latent_shape: tuple[int, ...]) -> Program:
        key, state = (testing.home_of(module), latent_shape), module.state_dict()
        before, made = self._made.get(key, (None, None))
        if made is None or not _same(before, state):
            try:
                made = lower(module, latent_shape)
            except Unlowered as error:
                made = error
            self._made[key] = {name: tensor.clone() for name, tensor in state.items()}, made
        if isinstance(made, Unlowered):
            raise made
        return made


def _same(before: dict[str, torch.Tensor] | None, state: dict[str, torch.Tensor]) -> bool:
    return before is not None and before.keys() == state.keys() and all(torch.equal(before[n], state[n]) for n in state)


_OF: weakref.WeakKeyDictionary[nn.Module, Once] = weakref.WeakKeyDictionary()


def program_of(module: nn.Module, latent_shape: tuple[int, ...]) -> Program:
    """`lower(module, latent_shape)`, which may be of an earlier call."""
    return _OF.setdefault(module, Once())(module, latent_shape)


@contextlib.contextmanager
def captured_once(module: nn.Module) -> Iterator[None]:
    """Searches meanwhile are of `module` or of copies of it, and take the program of an earlier search of it."""
    with unittest.mock.patch.object(scorer, "lower", _OF.setdefault(module, Once())):
        yield

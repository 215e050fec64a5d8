"""A user's loss as a C function, which the C++ engine calls for one pair at a time."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch

from ...core.losses import Loss

_FUNCTION = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 5)


class OwnLoss:
    """A loss at an address, as `ops.native_search` takes it: valid while this object lives.

    Args:
        loss: called on (1, C, H, W) twice, float32, under autograd; from the threads that search.
        image_shape: (C, H, W).
        check: called before each use; what it raises ends the search.

    Attributes:
        address: of the C function.
        error: what the loss (or `check`) raised first, if it did. The search then stops at each thread's next use.
    """

    def __init__(self, loss: Loss, image_shape: tuple[int, ...], check: Callable[[], None] = lambda: None):
        self._loss, self._shape, self._check = loss, image_shape, check
        self.error: BaseException | None = None
        self._function = _FUNCTION(self._call)  # kept: C++ has its address alone
        address = ctypes.cast(self._function, ctypes.c_void_p).value
        assert address is not None
        self.address: int = address

    def _call(self, reconstruction: int, image: int, gradient: int | None, value: int, done: int) -> None:
        """Addresses; `done` stays 0 where this fails, even by an interrupt on the way here or out."""
        if self.error is not None:
            return
        try:
            self._check()
            # A thread's own settings: those of the caller's are not this one's.
            with torch.inference_mode(False), torch.enable_grad():
                leaf = self._at(reconstruction).unsqueeze(0).requires_grad_(gradient is not None)
                rows = self._loss(leaf, self._at(image).unsqueeze(0))  # which copies both
                if gradient is not None:
                    self._at(gradient).copy_(torch.autograd.grad(rows.sum(), leaf)[0][0])
            ctypes.c_float.from_address(value).value = rows.item()
            ctypes.c_int.from_address(done).value = 1
        except BaseException as error:  # no exception passes through C++: the engine raises it again
            self.error = error

    def _at(self, address: int) -> torch.Tensor:
        """The engine's memory, [H][W][C], as (C, H, W)."""
        c, h, w = self._shape
        memory = (ctypes.c_float * (c * h * w)).from_address(address)
        return torch.frombuffer(memory, dtype=torch.float32).view(h, w, c).permute(2, 0, 1)

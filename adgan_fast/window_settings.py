"""`Windows`: how images are cut into windows. A training records it with its generator, and scoring follows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .given import flag, is_number, whole

QUANTILE = 0.95


@dataclasses.dataclass(frozen=True)
class Windows:
    """Images of any size, by square windows of the generator's size. Invalid values raise ValueError naming the field.

    Attributes:
        size: side of a window, in pixels: the generator's.
        stride: of the grid that is scored; None: size. Training draws its windows anywhere.
        standardize: whether each window loses its own mean and scale (`adgan_fast.windows.standardized`).
        quantile: of an image's window scores, its score where no window scores of normal images are known.
    """

    size: int
    stride: int | None = None
    standardize: bool = False
    quantile: float = QUANTILE

    def __post_init__(self) -> None:
        size = whole("size", self.size, 1)
        stride = size if self.stride is None else whole("stride", self.stride, 1)
        if stride > size:
            raise ValueError(
                f"stride must be at most size, which is {size}, got {stride}: pixels between would be left out"
            )
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "stride", stride)
        object.__setattr__(self, "standardize", flag("standardize", self.standardize))
        if not is_number(self.quantile) or not 0 <= self.quantile < 1:
            more = "the largest score grows with the number of windows"
            raise ValueError(f"quantile must be a number from 0 to below 1, got {self.quantile!r}; {more}")

    @property
    def step(self) -> int:
        """The stride as a number."""
        assert self.stride is not None  # since __post_init__
        return self.stride

    def described(self) -> dict[str, Any]:
        """As JSON has it; `read` makes the same of it."""
        return dataclasses.asdict(self)

    @classmethod
    def read(cls, found: Any) -> Windows:
        """What `described` gave. ValueError where it is something else."""
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(found, Mapping) or not {"size"} <= found.keys() <= names:
            raise ValueError(f"windows must be an object of {', '.join(sorted(names))}, got {found!r}")
        return cls(**found)
